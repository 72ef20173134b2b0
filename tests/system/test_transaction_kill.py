"""Transactions of a runtime that is killed with kill -9: all of each, or nothing.

Run as a program this is the child: `six`, `ledgers` or `bank`, the file, and at which of
its steps it kills itself (0: never, it is killed from outside).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, Runtime, open_runtime

if TYPE_CHECKING:
    import sqlite3
    from contextlib import AbstractAsyncContextManager

    from treewarden import AgentRef

AGENTS = 20
START = 100
SOAK = int(os.environ.get("SOAK") or 1)
SEED = int(os.environ.get("SEED") or 20261121)
LEDGER_KILLS = 8 * SOAK
BANK_KILLS = 4 * SOAK
PATIENCE = 60.0


class Pot(msgspec.Struct):
    value: int = START


class Account(Agent[Pot]):
    call_timeout = 60.0

    def add(self, amount: int) -> int:
        self.state.value += amount
        self.publish("account.changed", self.state.value)
        return self.state.value


def opened(file: Path) -> AbstractAsyncContextManager[Runtime]:
    children = [ChildSpec(f"a{n}", Account) for n in range(AGENTS)]
    config = Config(store=file, socket=False)
    return open_runtime(Application("kill", children), config=config)


def refs_of(runtime: Runtime, count: int = AGENTS) -> list[AgentRef[Account]]:
    return [runtime.ref(f"a{n}", Account) for n in range(count)]


class Steps:
    """Kills this process at a step of its own."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.taken = 0

    def step(self) -> None:
        self.taken += 1
        if self.taken == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Ledger:
    """Files in a folder, one a transaction, with the word that it has come to."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        self.folder = folder
        self.steps = steps
        folder.mkdir(exist_ok=True, parents=True)

    async def prepare(self, id_: str) -> bool:
        return self._write(id_, "prepared")

    async def commit(self, id_: str) -> None:
        self._write(id_, "committed")

    async def abort(self, id_: str) -> None:
        self._write(id_, "aborted")

    def _write(self, id_: str, word: str) -> bool:
        self.steps.step()
        fresh = self.folder / f".{id_}"
        fresh.write_text(word)
        fresh.rename(self.folder / id_)
        self.steps.step()
        return True

    def words(self) -> dict[str, str]:
        return {
            one.name: one.read_text()
            for one in self.folder.iterdir()
            if not one.name.startswith(".")
        }


def ledgers_of(runtime: Runtime, file: Path, steps: Steps) -> list[Ledger]:
    ledgers = [Ledger(file.parent / f"{file.stem}-{n}", steps) for n in range(3)]
    for number, ledger in enumerate(ledgers):
        runtime.participants.register(f"ledger-{number}", ledger)
    return ledgers


# --- the child -------------------------------------------------------------------------------


async def six_operations(runtime: Runtime, file: Path, steps: Steps) -> None:
    """A transaction that is done, then one that is killed after an operation."""
    refs = refs_of(runtime, 6)
    for stepping in (Steps(0), steps):
        async with runtime.transaction(*refs) as tx:
            stepping.step()
            for ref in refs:
                await tx.call(ref, Account.add, 1)
                stepping.step()
        stepping.step()


async def with_ledgers(runtime: Runtime, file: Path, steps: Steps) -> None:
    """Transactions with three outside participants, for ever."""
    ledgers = ledgers_of(runtime, file, steps)
    a, b = refs_of(runtime, 2)
    while True:
        async with runtime.transaction(a, b) as tx:
            for ledger in ledgers:
                tx.enlist(ledger)
            await tx.call(a, Account.add, 1)
            steps.step()
            await tx.call(b, Account.add, 1)
            steps.step()
        steps.step()


async def bank(runtime: Runtime, file: Path, steps: Steps) -> None:
    """Eight movers, for ever; each transfer that is done is said."""
    refs = refs_of(runtime)

    async def mover(number: int) -> None:
        chance = random.Random(number)  # noqa: S311
        while True:
            source, target = chance.sample(refs, 2)
            amount = chance.randint(1, 50)
            async with runtime.transaction(source, target) as tx:
                await tx.call(source, Account.add, -amount)
                await tx.call(target, Account.add, amount)
            os.write(1, b"moved\n")

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(mover, number)


CREWS = {"six": six_operations, "ledgers": with_ledgers, "bank": bank}


async def child(crew: str, file: Path, kill_at: int) -> None:
    async with opened(file) as runtime:
        os.write(1, b"ready\n")
        await CREWS[crew](runtime, file, Steps(kill_at))
        os.write(1, b"done\n")


# --- the tests -------------------------------------------------------------------------------


def start(crew: str, file: Path, kill_at: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, crew, str(file), str(kill_at)],
        stdout=subprocess.PIPE,
    )


def lines_of(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it said until it ended, which it does by SIGKILL."""
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return said.splitlines()


def killed_after(file: Path, transfers: int, seconds: float) -> int:
    """Kill a bank `seconds` after so many transfers; how many it said were done."""
    process = start("bank", file)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        for _ in range(transfers):
            assert process.stdout.readline() == b"moved\n"
        time.sleep(seconds)
    finally:
        process.kill()
    # Not communicate(): that forgets what the file object has read ahead.
    rest = process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    return transfers + rest.count(b"moved")


async def values(file: Path, count: int = AGENTS) -> list[int]:
    """What a runtime finds there, asked and in the file."""
    async with opened(file) as runtime:
        found = [await ref.call(Account.add, 0) for ref in refs_of(runtime, count)]
        await runtime.store.settled()
    return found


@pytest.mark.parametrize("kill_at", range(1, 9))
async def test_f04_a_kill_after_any_operation_leaves_all_of_it_or_nothing(
    tmp_path: Path, kill_at: int
) -> None:
    """F04: six operations, killed after the k-th of them, k = 0 to 6, and after leaving."""
    file = tmp_path / "six.db"
    process = start("six", file, kill_at)
    said = await trio.to_thread.run_sync(lines_of, process)
    assert said == [b"ready"]
    assert process.returncode == -signal.SIGKILL
    expected = START + (2 if kill_at == 8 else 1)
    assert await values(file, 6) == [expected] * 6


async def test_f05_a_kill_at_any_point_leaves_no_mixed_outcome(tmp_path: Path) -> None:
    """F05: the coordinator dies before its decision, or after; three participants."""
    chance = random.Random(SEED)  # noqa: S311
    file = tmp_path / "ledgers.db"
    # A transaction without trouble is 15 steps: each kind of place is met.
    points = itertools.chain(range(1, 5), iter(lambda: chance.randint(1, 40), None))
    for kill_at in itertools.islice(points, LEDGER_KILLS):
        process = start("ledgers", file, kill_at)
        await trio.to_thread.run_sync(lines_of, process)
        assert process.returncode == -signal.SIGKILL, f"seed {SEED}"
        async with opened(file) as runtime:
            ledgers = ledgers_of(runtime, file, Steps(0))
            with trio.fail_after(PATIENCE):
                while runtime.participants.unsettled():  # noqa: ASYNC110
                    await trio.sleep(0.01)
            a, b = [await ref.call(Account.add, 0) for ref in refs_of(runtime, 2)]
            assert await runtime.store.read(_open_transactions) == 0
        words = [ledger.words() for ledger in ledgers]
        done = [{id_ for id_ in one if one[id_] == "committed"} for one in words]
        assert done[0] == done[1] == done[2], f"killed at {kill_at}, seed {SEED}"
        assert not any("prepared" in one.values() for one in words)
        assert a == b == START + len(done[0])


async def test_a_bank_that_is_killed_never_gains_or_loses_a_cent(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)  # noqa: S311
    file = tmp_path / "bank.db"
    # Asking for a balance is an event as well.
    moved = probed = 0
    for _ in range(BANK_KILLS):
        transfers, seconds = chance.randrange(100), chance.uniform(0.0, 0.05)
        moved += await trio.to_thread.run_sync(killed_after, file, transfers, seconds)
        async with opened(file) as runtime:
            events = await runtime.store.read(_events)
            found = [await ref.call(Account.add, 0) for ref in refs_of(runtime)]
            await runtime.store.settled()
            probes = await runtime.store.read(_events) - events
        # Each transfer is two events, both or none of them.
        assert (events - probed) % 2 == 0
        assert events - probed >= 2 * moved, f"seed {SEED}"
        assert sum(found) == AGENTS * START, f"seed {SEED}"
        probed += probes
        moved = (events - probed + probes) // 2
    assert moved > 0


def _events(connection: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM journal WHERE kind = 'event' AND source <> ''"
    (count,) = connection.execute(query).fetchone()
    return int(count)


def _open_transactions(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM tx_log").fetchone()
    return int(count)


if __name__ == "__main__":
    trio.run(child, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
