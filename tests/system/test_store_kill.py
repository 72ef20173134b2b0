"""Processes that are killed, and what is in the file afterwards."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from treewarden.errors import StoreLocked
from treewarden.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Each unit changes a state, a queue and the journal; what is printed was acknowledged.
WRITER = """
import sys, time
from pathlib import Path
import trio
from treewarden.store import DurableQueue, StagedEvent, StateWrite, Unit, open_store

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        stored = await store.load("/a", "Counter")
        n = stored.revision if stored else 0
        queue = DurableQueue(store, "/a", "items", int)
        sys.stdout.write(f"{n} {store.recovered}\\n")
        while True:
            n += 1
            unit = Unit("/a")
            unit.state = StateWrite("Counter", 1, n, b'{"n": %d}' % n)
            unit.events = [StagedEvent("n", b"%d" % n, time.time_ns())]
            await queue.put(n)
            queue.seal(unit)
            unit.release.append(
                lambda error, n=n: sys.stdout.write(f"{n} {error}\\n")
            )
            await store.wait_room()
            store.hand_over(unit)

sys.stdout.reconfigure(line_buffering=True)
trio.run(main)
"""
KILLS = 5


@contextmanager
def running(file: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(line: str) -> int:
    number, error = line.split()
    assert error in ("None", "True", "False"), line
    return int(number)


def run_and_kill(file: Path, lines: int) -> tuple[int, int]:
    """Kill the writer once it has acknowledged `lines`; its first and last numbers."""
    with running(file) as process:
        assert process.stdout is not None
        numbers = [acknowledged(process.stdout.readline()) for _ in range(lines + 1)]
        process.kill()
        # What was printed before the end counts, but not a line that was cut off.
        rest = [line for line in process.stdout if line.endswith("\n")]
        numbers += map(acknowledged, rest)
    return numbers[0], max(numbers)


def numbers(connection: sqlite3.Connection, query: str) -> list[int]:
    return [int(value) for (value,) in connection.execute(query)]


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_whole_units(
    file: Path,
) -> None:
    promised = 0
    for kill in range(KILLS):
        first, last = run_and_kill(file, random.randrange(2000))  # noqa: S311
        assert first >= promised, f"lost in kill {kill}"
        promised = last
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            [state] = numbers(connection, "SELECT revision FROM agent_state") or [0]
            events = numbers(
                connection, "SELECT payload FROM journal ORDER BY position"
            )
            items = numbers(connection, "SELECT payload FROM queue_item ORDER BY seq")
            positions = numbers(connection, "SELECT position FROM journal ORDER BY 1")
        assert state >= promised, f"lost in kill {kill}"
        assert events == items == positions == list(range(1, state + 1))
    assert promised > 0


async def test_a_second_process_is_refused_by_name_until_the_first_is_killed(
    file: Path,
) -> None:
    with running(file) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {process.pid}, started"):
            async with open_store(file):
                pytest.fail("it opened")
        process.kill()
        process.wait()
    async with open_store(file) as store:
        assert store.recovered


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store's file is."""
    return tmp_path / "store.db"
