"""Two-phase commit with what is outside the store (design.md 6, spec/systems.md S03)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    Runtime,
    StoreBroken,
    TransactionConflict,
    TransactionMisuse,
    open_runtime,
)
from treewarden.agents import participants
from treewarden.store import Verdict, log_transaction
from treewarden.testing import crash, store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef


class Count(msgspec.Struct):
    value: int = 0


class Counter(Agent[Count]):
    def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value


class Ledger:
    """Outside the store; it remembers what it was told, by transaction."""

    def __init__(self, *, vote: bool = True) -> None:
        self.vote = vote
        self.is_down = False
        self.prepared: set[str] = set()
        self.committed: set[str] = set()
        self.aborted: set[str] = set()
        self.told = 0

    async def prepare(self, id_: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise ConnectionError("nobody answers")
        if self.vote:
            self.prepared.add(id_)
        return self.vote

    async def commit(self, id_: str) -> None:
        await self._be_told(id_)
        self.committed.add(id_)

    async def abort(self, id_: str) -> None:
        await self._be_told(id_)
        self.aborted.add(id_)

    async def _be_told(self, id_: str) -> None:
        await trio.lowlevel.checkpoint()
        self.told += 1
        if self.is_down:
            raise ConnectionError("nobody answers")
        self.prepared.discard(id_)


class Hanging(Ledger):
    async def commit(self, id_: str) -> None:
        await trio.sleep_forever()


class Open(Protocol):
    def __call__(self) -> AbstractAsyncContextManager[Runtime]: ...


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
def opened(tmp_path: Path, clock: MockClock) -> Open:
    """A runtime with two counters on this test's file."""

    def make() -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=tmp_path / "test.db", socket=False)
        children = [ChildSpec(f"c{n}", Counter) for n in range(2)]
        return open_runtime(Application("test", children), config=config)

    return make


def counters(runtime: Runtime) -> list[AgentRef[Counter]]:
    return [runtime.ref(f"c{n}", Counter) for n in range(2)]


def enter(runtime: Runtime, *ledgers: Ledger) -> None:
    for number, ledger in enumerate(ledgers):
        runtime.participants.register(f"ledger-{number}", ledger)


async def add_with(runtime: Runtime, *ledgers: Ledger) -> str:
    a, b = counters(runtime)
    async with runtime.transaction(a, b) as tx:
        for ledger in ledgers:
            tx.enlist(ledger)
        await tx.call(a, Counter.add, 1)
        await tx.call(b, Counter.add, 1)
    return tx.id


async def values(runtime: Runtime) -> list[int]:
    return [await ref.call(Counter.add, 0) for ref in counters(runtime)]


async def all_told(runtime: Runtime) -> None:
    for _ in range(200):
        if not runtime.participants.unsettled():
            return
        await trio.sleep(0.1)
    pytest.fail(f"not told: {runtime.participants.unsettled()}")


def rows(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT id, verdict FROM tx_log").fetchall()


async def test_f05_all_of_them_change_or_none(
    clock: MockClock, opened: Open, tmp_path: Path
) -> None:
    """F05: three participants that agree; then one votes no."""
    async with opened() as runtime:
        ledgers = Ledger(), Ledger(), Ledger()
        enter(runtime, *ledgers)
        first = await add_with(runtime, *ledgers)
        await all_told(runtime)
        assert all(one.committed == {first} for one in ledgers)
        ledgers[1].vote = False
        with pytest.raises(TransactionConflict, match="ledger-1 voted no"):
            await add_with(runtime, *ledgers)
        await all_told(runtime)
        assert all(one.committed == {first} for one in ledgers)
        assert all(len(one.aborted) == 1 and not one.prepared for one in ledgers)
        assert await values(runtime) == [1, 1]
        assert rows(tmp_path / "test.db") == []


async def test_f05_a_participant_that_was_down_hears_within_5_s_of_coming_back(
    clock: MockClock,
    opened: Open,
) -> None:
    """F05: decided is decided; the others are not kept waiting."""
    async with opened() as runtime:
        ledgers = Ledger(), Ledger(), Ledger()
        enter(runtime, *ledgers)
        a, _ = counters(runtime)
        async with runtime.transaction(a) as tx:
            for ledger in ledgers:
                tx.enlist(ledger)
            await tx.call(a, Counter.add, 1)
            await ledgers[1].prepare(tx.id)
        ledgers[1].is_down = True
        await trio.sleep(60)
        assert ledgers[0].committed == ledgers[2].committed == {tx.id}
        [unsettled] = runtime.participants.unsettled()
        assert (unsettled.verdict, unsettled.waiting) == ("commit", ("ledger-1",))
        assert ledgers[1].told < 60
        ledgers[1].is_down = False
        with trio.fail_after(5):
            while not ledgers[1].committed:  # noqa: ASYNC110
                await trio.sleep(0.01)
        delayed = await runtime.store.entries(
            since=None, limit=9, pattern="transaction.*"
        )
        assert [entry.topic for entry in delayed] == ["transaction.delayed"]


async def test_one_that_hangs_keeps_the_others_waiting_for_2_s_at_most(
    clock: MockClock,
    opened: Open,
) -> None:
    async with opened() as runtime:
        hanging, other = Hanging(), Ledger()
        enter(runtime, hanging, other)
        for _ in range(3):
            began = trio.current_time()
            await add_with(runtime, hanging, other)
            told = other.told
            while other.told == told and trio.current_time() < began + 10:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert trio.current_time() - began < 4.5


async def test_one_that_cannot_prepare_undoes_it(
    clock: MockClock, opened: Open
) -> None:
    async with opened() as runtime:
        up, down = Ledger(), Ledger()
        enter(runtime, up, down)
        down.is_down = True
        with pytest.raises(TransactionConflict, match="ledger-1 could not prepare"):
            await add_with(runtime, up, down)
        assert await values(runtime) == [0, 0]
        down.is_down = False
        await all_told(runtime)
        assert len(up.aborted) == len(down.aborted) == 1


async def test_one_that_is_down_for_long_fills_neither_memory_nor_file(
    tmp_path: Path, clock: MockClock, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F05: whoever has not heard of so many verdicts takes part in nothing new."""
    monkeypatch.setattr(participants, "MOST_UNTOLD", 3)
    async with opened() as runtime:
        up, down = Ledger(), Ledger()
        enter(runtime, up, down)
        down.is_down = True
        for _ in range(3):
            with pytest.raises(TransactionConflict, match="could not prepare"):
                await add_with(runtime, up, down)
        for _ in range(20):
            with pytest.raises(TransactionConflict, match="ledger-1 has not heard yet"):
                await add_with(runtime, up, down)
        assert len(runtime.participants.unsettled()) == 3
        await runtime.store.settled()
        assert len(rows(tmp_path / "test.db")) == 3
        down.is_down = False
        await all_told(runtime)
        await add_with(runtime, up, down)
        await all_told(runtime)
        assert up.committed == down.committed != set()


async def test_a_block_that_fails_asks_nobody(clock: MockClock, opened: Open) -> None:
    async with opened() as runtime:
        ledger = Ledger()
        enter(runtime, ledger)
        (a, _) = counters(runtime)
        with pytest.raises(ZeroDivisionError):
            async with runtime.transaction(a) as tx:
                tx.enlist(ledger)
                tx.enlist(ledger)
                raise ZeroDivisionError
        await all_told(runtime)
        assert ledger.told == 0
        assert not ledger.prepared


async def test_one_that_nobody_could_find_again_is_refused(
    clock: MockClock, opened: Open
) -> None:
    async with opened() as runtime:
        (a, _) = counters(runtime)
        async with runtime.transaction(a) as tx:
            with pytest.raises(TransactionMisuse, match="is not registered"):
                tx.enlist(Ledger())
        with pytest.raises(ValueError, match="needs a name"):
            runtime.participants.register("", Ledger())


async def test_without_agents_it_is_still_all_or_nothing(
    clock: MockClock, opened: Open
) -> None:
    async with opened() as runtime:
        ledgers = Ledger(), Ledger()
        enter(runtime, *ledgers)
        async with runtime.transaction() as tx:
            for ledger in ledgers:
                tx.enlist(ledger)
        await all_told(runtime)
        assert ledgers[0].committed == ledgers[1].committed == {tx.id}


async def test_a_decision_that_is_not_kept_is_an_abort(
    clock: MockClock, opened: Open, tmp_path: Path
) -> None:
    async with opened() as runtime:
        ledger = Ledger()
        enter(runtime, ledger)
        with closing(sqlite3.connect(tmp_path / "test.db")) as foreign:
            foreign.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON agent_state"
                " BEGIN SELECT RAISE(ABORT, 'the test refuses'); END"
            )
            foreign.commit()
        with pytest.raises(StoreBroken, match="the test refuses"):
            await add_with(runtime, ledger)
        await all_told(runtime)
        assert (len(ledger.aborted), ledger.committed) == (1, set())


async def test_what_an_earlier_run_left_is_done_when_it_is_registered_again(
    clock: MockClock, opened: Open, tmp_path: Path
) -> None:
    """F05: without a decision all abort, with one all commit."""
    async with opened() as runtime:
        for id_, verdict in (("lost", Verdict.UNDECIDED), ("made", Verdict.COMMIT)):
            await runtime.participants.log(id_, verdict, ("ledger-0", "ledger-1"))
    async with opened() as runtime:
        await trio.sleep(10)
        assert len(runtime.participants.unsettled()) == 2
        ledgers = Ledger(), Ledger()
        enter(runtime, *ledgers)
        await all_told(runtime)
        for ledger in ledgers:
            assert (ledger.aborted, ledger.committed) == ({"lost"}, {"made"})
    assert rows(tmp_path / "test.db") == []


async def test_the_task_that_tells_them_goes_on_after_a_crash(
    clock: MockClock, opened: Open
) -> None:
    async with opened() as runtime:
        ledger = Ledger()
        enter(runtime, ledger)
        id_ = await add_with(runtime, ledger)
        ledger.is_down = True
        runtime.injections.crash("/system/transactions")
        await wait_until(lambda: True)
        ledger.is_down = False
        await all_told(runtime)
        assert ledger.committed == {id_}
        assert not ledger.aborted


async def test_a_participant_agent_that_crashes_while_they_are_asked_undoes_it(
    clock: MockClock,
    opened: Open,
) -> None:
    async with opened() as runtime:
        a, _ = counters(runtime)

        class Crashing(Ledger):
            async def prepare(self, id_: str) -> bool:
                await crash(a)
                return await super().prepare(id_)

        ledger = Crashing()
        enter(runtime, ledger)
        with pytest.raises(TransactionConflict, match="/c0 has left"):
            await add_with(runtime, ledger)
        await all_told(runtime)
        assert len(ledger.aborted) == 1
        assert await values(runtime) == [0, 0]


async def test_a_damaged_row_is_told_of_and_left_alone(
    clock: MockClock, opened: Open, tmp_path: Path
) -> None:
    async with opened() as runtime:
        await runtime.participants.log("odd", Verdict.COMMIT, ("ledger-0",))
    with closing(sqlite3.connect(tmp_path / "test.db")) as foreign:
        foreign.execute("UPDATE tx_log SET verdict = 'undecided'")
        foreign.commit()
    async with opened() as runtime:
        ledger = Ledger()
        enter(runtime, ledger)
        await trio.sleep(5)
        assert ledger.told == 0
        found = await runtime.store.entries(
            since=None, limit=9, pattern="transaction.*"
        )
        assert [entry.topic for entry in found] == ["transaction.in_doubt"]
    assert rows(tmp_path / "test.db") == [("odd", "undecided")]


def test_a_row_of_the_log_names_everybody() -> None:
    _, values = log_transaction("id", Verdict.COMMIT, ("a", "b"))
    assert values[:2] == ("id", "commit")
    assert values[3] == '["a","b"]'
