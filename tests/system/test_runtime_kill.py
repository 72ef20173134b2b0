"""A runtime that is killed with kill -9 has lost nothing that it acknowledged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import trio

from treewarden import Agent, Application, ChildSpec, Config, open_runtime

if TYPE_CHECKING:
    from pathlib import Path

AGENTS = 20
ROUNDS = 10
# Long enough for some hundred commits, and for a kill in the middle of starting too.
LONGEST_LIFE = 0.4
PATIENCE = 20.0


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    async def add(self, amount: int) -> int:
        self.state.value += amount
        self.publish("counter.changed", self.state.value)
        return self.state.value

    def get(self) -> int:
        return self.state.value


def application() -> Application:
    return Application("kill", [ChildSpec(f"c{n}", Counter) for n in range(AGENTS)])


async def _count_for_ever(file: str) -> None:
    """The child: print each total once it is acknowledged, with one write a line."""
    from pathlib import Path

    config = Config(store=Path(file), socket=False)
    async with (
        open_runtime(application(), config=config) as runtime,
        trio.open_nursery() as nursery,
    ):

        async def load(number: int) -> None:
            ref = runtime.ref(f"c{number}", Counter)
            while True:
                total = await ref.call(Counter.add, 1)
                os.write(1, b"%d %d\n" % (number, total))

        os.write(1, b"ready\n")
        for number in range(AGENTS):
            nursery.start_soon(load, number)


def _killed_run(file: Path, seconds: float) -> dict[int, int]:
    """Start the child, kill it `seconds` after it was ready; what it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(file)], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        acknowledged: dict[int, int] = {}
        kill_at = time.monotonic() + seconds
        while time.monotonic() < kill_at:
            _note(child.stdout.readline(), acknowledged)
    finally:
        child.send_signal(signal.SIGKILL)
    for line in child.stdout:
        _note(line, acknowledged)
    child.stdout.close()
    assert child.wait(PATIENCE) == -signal.SIGKILL
    return acknowledged


def _note(line: bytes, acknowledged: dict[int, int]) -> None:
    # A write of so few bytes into a pipe is whole or not at all.
    number, total = line.split()
    acknowledged[int(number)] = int(total)


async def _totals(file: Path) -> dict[int, int]:
    config = Config(store=file, socket=False)
    async with open_runtime(application(), config=config) as runtime:
        return {
            number: await runtime.ref(f"c{number}", Counter).call(Counter.get)
            for number in range(AGENTS)
        }


async def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "kill.db"
    randomly = random.Random(20260801)  # noqa: S311 - moments, not secrets
    before = dict.fromkeys(range(AGENTS), 0)
    for _ in range(ROUNDS):
        seconds = randomly.uniform(0.0, LONGEST_LIFE)
        acknowledged = await trio.to_thread.run_sync(_killed_run, file, seconds)
        found = await _totals(file)
        for number in range(AGENTS):
            known = acknowledged.get(number, before[number])
            # One call a counter was under way: done and unheard of, or never done.
            assert known <= found[number] <= known + 1
        before = found
    assert sum(before.values()) > AGENTS * ROUNDS


if __name__ == "__main__":
    trio.run(_count_for_ever, sys.argv[1])
