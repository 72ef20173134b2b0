"""The flaws F01 to F08 of what others called transactions, on ours; and a bank.

F03 and F02 for the registry's batches: `registry/test_batch.py`; H24: `registry/test_index.py`;
F03 and F09 for serial operations: `work/test_serial.py`; F05: `test_participants.py`; F04 and
F05 with kills: `tests/system/test_transaction_kill.py`. F06 is of workflows.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

import treewarden
from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableMap,
    Runtime,
    StoreBroken,
    TransactionConflict,
    open_runtime,
)
from treewarden.testing import crash, store_clock, wait_restarted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef

START = 100
ACCOUNTS = 100
MOVERS = 8
TRANSFERS = 100_000 if "SOAK" in os.environ else 2_000


class Pot(msgspec.Struct):
    value: int = 0


class Failed(Exception):
    pass


class Holder(Agent[Pot]):
    notes: DurableMap[str, int]

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def initial_state(self) -> Pot:
        return Pot(self.start)

    def add(self, amount: int) -> int:
        if self.state.value + amount < 0:
            raise Failed(f"{self.state.value} and {amount}")
        self.state.value += amount
        return self.state.value

    async def add_slowly(self, amount: int) -> int:
        await trio.lowlevel.checkpoint()
        return self.add(amount)

    async def note(self, key: str, value: int) -> None:
        await self.notes.set(key, value)

    def announce(self, amount: int) -> None:
        self.state.value += amount
        self.publish("pot.changed", self.state.value)

    def fail(self) -> None:
        self.state.value = -1
        raise Failed("on purpose")


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


def holders(
    count: int, path: Path | None = None, *, start: int = 0
) -> AbstractAsyncContextManager[Runtime]:
    children = [ChildSpec(f"h{n}", Holder, args=(start,)) for n in range(count)]
    app = Application("test", children, intensity=treewarden.Intensity(10**6, 5.0))
    if path is None:
        config = Config(level="volatile", socket=False)
    else:
        config = Config(store=path, socket=False)
    return open_runtime(app, config=config)


def refs_of(runtime: Runtime, count: int) -> list[AgentRef[Holder]]:
    return [runtime.ref(f"h{n}", Holder) for n in range(count)]


def committed(ref: AgentRef[Holder]) -> int:
    state: int = msgspec.json.decode(ref.inspect() or b'{"value":0}')["value"]
    return state


_PROMISING = re.compile("atomic|transact", re.IGNORECASE)


def test_f01_only_what_rolls_back_is_called_a_transaction() -> None:
    """F01: no alias is left, and every name that promises it is of what F02 proves."""
    promising = {name for name in treewarden.__all__ if _PROMISING.search(name)}
    assert promising == {
        "Transaction",
        "TransactionConflict",
        "TransactionMisuse",
        "TransactionTimeout",
    }
    methods = {name for name in dir(Runtime) if _PROMISING.search(name)}
    assert {name for name in methods if not name.startswith("_")} == {"transaction"}
    assert not _PROMISING.search("execute_serial_operations")
    doc = treewarden.Transaction.__doc__ or ""
    assert doc.startswith("All or nothing on the persisted state")


async def everything(runtime: Runtime, refs: list[AgentRef[Holder]]) -> object:
    """All that a transaction could leave behind."""

    def rows(connection: sqlite3.Connection) -> list[Any]:
        tables = ("agent_state", "map_item", "tx_log")
        found = [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()  # noqa: S608
            for name in tables
        ]
        events = connection.execute(
            "SELECT payload FROM journal WHERE kind = 'event'"
        ).fetchall()
        return [*found, events]

    await runtime.store.settled()
    live = [await ref.call(Holder.add, 0) for ref in refs]
    lives = [ref.incarnation for ref in refs]
    return live, lives, await runtime.store.read(rows)


async def test_f02_whichever_operation_fails_everything_is_as_it_was(
    clock: MockClock, tmp_path: Path
) -> None:
    """F02: random lists of 1 to 12 operations on 6 agents, a failing one at every index."""
    chance = random.Random(202)  # noqa: S311
    tried = 0
    async with holders(6, tmp_path / "f02.db", start=START) as runtime:
        refs = refs_of(runtime, 6)
        for ref in refs:
            await ref.call(Holder.note, "before", 1)
        before = await everything(runtime, refs)
        while tried < 500:
            steps = [chance.choice(STEPS) for _ in range(chance.randint(1, 12))]
            for failing in range(len(steps)):
                tried += 1
                with pytest.raises(Failed):
                    async with runtime.transaction(*refs) as tx:
                        for index, (operation, args) in enumerate(steps):
                            ref = chance.choice(refs)
                            if index == failing:
                                await tx.call(ref, Holder.fail)
                            await tx.call(ref, operation, *args)
            assert await everything(runtime, refs) == before


STEPS: list[tuple[Any, tuple[Any, ...]]] = [
    (Holder.add_slowly, (7,)),
    (Holder.note, ("n", 2)),
    (Holder.announce, (1,)),
]


@pytest.mark.parametrize("refused", range(6))
async def test_f04_whichever_row_cannot_be_written_all_of_it_goes_back(
    clock: MockClock, tmp_path: Path, refused: int
) -> None:
    """F04, within one life: six operations, the write of one of them fails."""
    file = tmp_path / "f04.db"
    async with holders(6, file) as runtime:
        refs = refs_of(runtime, 6)
        for ref in refs:
            await ref.call(Holder.add, 1)
        with closing(sqlite3.connect(file)) as foreign:
            foreign.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON agent_state"
                f" WHEN NEW.path = '/h{refused}' AND NEW.payload LIKE '%:2}}'"
                " BEGIN SELECT RAISE(ABORT, 'the test refuses'); END"
            )
            foreign.commit()
        with pytest.raises(StoreBroken, match="the test refuses"):
            async with runtime.transaction(*refs) as tx:
                for ref in refs:
                    await tx.call(ref, Holder.add, 1)
        assert [await ref.call(Holder.add, 0) for ref in refs] == [1] * 6
    async with holders(6, file) as runtime:
        again = refs_of(runtime, 6)
        assert [await ref.call(Holder.add, 0) for ref in again] == [1] * 6


async def test_f07_every_reader_sees_exactly_one_token(clock: MockClock) -> None:
    """F07: 50 transactions move one token between 10 agents while 10 readers scan."""
    async with holders(10) as runtime, trio.open_nursery() as nursery:
        refs = refs_of(runtime, 10)
        await refs[0].call(Holder.add, 1)
        scans: list[int] = []

        async def move(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311
            for _ in range(10):
                source, target = chance.sample(refs, 2)
                try:
                    async with runtime.transaction(source, target) as tx:
                        await tx.call(target, Holder.add_slowly, 1)
                        await trio.lowlevel.checkpoint()
                        await tx.call(source, Holder.add_slowly, -1)
                except Failed:
                    continue

        async def scan(how: int) -> None:
            while True:
                if how % 2:
                    scans.append(sum(map(committed, refs)))
                    await trio.lowlevel.checkpoint()
                else:
                    async with runtime.transaction(*refs, timeout=60.0) as tx:
                        found = [await tx.call(ref, Holder.add, 0) for ref in refs]
                    scans.append(sum(found))

        for how in range(10):
            nursery.start_soon(scan, how)
        async with trio.open_nursery() as movers:
            for seed in range(50):
                movers.start_soon(move, seed)
        nursery.cancel_scope.cancel()
        assert len(scans) > 100
        assert set(scans) == {1}


async def test_f08_opposite_orders_never_wait_for_each_other(clock: MockClock) -> None:
    """F08: 20 workers, 500 transactions each, and nobody waits for the clock."""
    async with holders(6) as runtime:
        refs = refs_of(runtime, 6)
        began = trio.current_time()

        async def worker(number: int) -> None:
            mine = refs if number % 2 else refs[::-1]
            for turn in range(500):
                first, second = mine[turn % 6], mine[(turn + 1) % 6]
                async with runtime.transaction(first, second) as tx:
                    await tx.call(first, Holder.add, 1)
                    await tx.call(second, Holder.add, 1)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(worker, number)
        assert trio.current_time() == began
        assert sum(map(committed, refs)) == 20 * 500 * 2


class _Pledge:
    """An outside participant that only one transaction holds at a time."""

    def __init__(self) -> None:
        self.done = 0

    async def prepare(self, _: str) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def commit(self, _: str) -> None:
        self.done += 1

    async def abort(self, _: str) -> None:
        raise AssertionError("nothing is undone here")


async def test_f08_two_phase_commits_in_crossed_order_all_finish() -> None:
    """F08: (A, B) and (B, A), 200 each."""
    async with holders(2) as runtime, trio.open_nursery() as nursery:
        a, b = refs_of(runtime, 2)
        one, two = _Pledge(), _Pledge()
        runtime.participants.register("one", one)
        runtime.participants.register("two", two)

        async def worker(*order: Any) -> None:
            for _ in range(200):
                async with runtime.transaction(order[0], order[1]) as tx:
                    tx.enlist(order[2])
                    tx.enlist(order[3])
                    await tx.call(order[0], Holder.add, 1)

        with trio.fail_after(60):
            async with trio.open_nursery() as workers:
                workers.start_soon(worker, a, b, one, two)
                workers.start_soon(worker, b, a, two, one)
        assert committed(a) == committed(b) == 200
        with trio.fail_after(30):
            while runtime.participants.unsettled():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert one.done == two.done == 400
        nursery.cancel_scope.cancel()


async def test_a_bank_never_gains_or_loses_a_cent(
    clock: MockClock, tmp_path: Path
) -> None:
    """100 accounts, 8 movers, random failures and crashes: the total is constant at every
    read, of memory in one step and of the file.
    """
    total = ACCOUNTS * START
    file = tmp_path / "bank.db"
    async with holders(ACCOUNTS, file, start=START) as runtime:
        refs = refs_of(runtime, ACCOUNTS)
        for ref in refs:
            await ref.call(Holder.add, 1)
            await ref.call(Holder.add, -1)
        moved = failed = lost = 0

        async def mover(seed: int) -> None:
            nonlocal moved, failed, lost
            chance = random.Random(seed)  # noqa: S311
            for _ in range(TRANSFERS // MOVERS):
                source, target = chance.sample(refs, 2)
                amount = chance.randint(1, 60)
                try:
                    with trio.move_on_after(chance.choice((0.001, 1.0, 1.0))):
                        async with runtime.transaction(source, target) as tx:
                            await tx.call(target, Holder.add_slowly, amount)
                            if chance.random() < 0.03:
                                await crash(chance.choice((source, target)))
                            if chance.random() < 0.03:
                                await trio.sleep(0.01)
                            await tx.call(source, Holder.add, -amount)
                        moved += 1
                except Failed:
                    failed += 1
                except (TransactionConflict, treewarden.AgentDown):
                    lost += 1
                assert sum(map(committed, refs)) == total

        async def audit() -> None:
            while True:
                assert await runtime.store.read(_total) == total
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(audit)
            async with trio.open_nursery() as movers:
                for seed in range(MOVERS):
                    movers.start_soon(mover, seed)
            nursery.cancel_scope.cancel()
        assert moved > TRANSFERS // 2
        assert failed > 10
        assert lost > 10
        for ref in refs:
            await wait_restarted(ref, ref.incarnation)
        assert sum([await ref.call(Holder.add, 0) for ref in refs]) == total
    async with holders(ACCOUNTS, file) as runtime:
        again = refs_of(runtime, ACCOUNTS)
        assert sum([await ref.call(Holder.add, 0) for ref in again]) == total


def _total(connection: sqlite3.Connection) -> int:
    query = "SELECT sum(json_extract(payload, '$.value')) FROM agent_state"
    (found,) = connection.execute(query).fetchone()
    return int(found)
