"""How a store ends when nothing goes as it should: loudly, and never by waiting for ever.

The writer's thread is no daemon, so that nothing is cut off half-way; a process whose
thread is not told to end would hang at its own end.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 60.0

BEGIN = """
import sys, trio
from pathlib import Path
from treewarden.store import StateWrite, Unit, open_store

def fail(*_):
    raise ValueError("a fault of ours")

def careless(*_):
    raise ValueError("trio's own bookkeeping is lost")

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        unit = Unit("/a")
        unit.state = StateWrite("Counter", 1, 1, b'{"n":1}')
        store.hand_over(unit)
        await store.settled()
"""
ENDS = {
    "a flush fails": """
        store._next_group = fail
        store.report("some.topic", b"null")
        await trio.sleep_forever()
""",
    "a decision cannot be carried out": """
        store._count = fail
        store.report("some.topic", b"null")
        await trio.sleep_forever()
""",
    "the writer's thread fails": """
        store._writer.after_commit = fail
        store.report("some.topic", b"null")
        await trio.sleep_forever()
""",
    "the loop is gone and nothing was closed": """
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.wait_task_rescheduled(careless)
""",
}


@pytest.mark.parametrize("how", ENDS)
def test_whatever_fails_the_process_ends_and_says_why(tmp_path: Path, how: str) -> None:
    file = tmp_path / "store.db"
    program = f"{BEGIN}{ENDS[how]}\ntrio.run(main)\n"
    ended = subprocess.run(
        [sys.executable, "-c", program, file],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "ValueError: " in ended.stderr
    assert "TrioInternalError" in ended.stderr
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT path FROM agent_state").fetchall() == [
            ("/a",)
        ]
