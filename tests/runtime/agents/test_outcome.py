"""What became of a request, by its id: asked later, asked again, asked after a restart."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    CallTimeout,
    ChildSpec,
    Config,
    Refused,
    StoreBroken,
    open_runtime,
)
from treewarden.errors import AlreadyApplied
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, Runtime


class Sum(msgspec.Struct):
    total: int = 0


class Till(Agent[Sum]):
    def __init__(self, gate: trio.Event) -> None:
        self.gate = gate

    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    async def add_slowly(self, amount: int) -> int:
        await self.gate.wait()
        self.state.total += amount
        return self.state.total

    async def add_and_fail(self, amount: int) -> int:
        self.state.total += amount
        if amount < 0:
            raise Refused("no")
        raise ValueError("no")

    async def receipt(self, amount: int) -> tuple[int, bytes]:
        self.state.total += amount
        return amount, b"\x00" * amount

    async def total(self) -> int:
        return self.state.total


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
def gate() -> trio.Event:
    return trio.Event()


def opened(path: Path, gate: trio.Event) -> AbstractAsyncContextManager[Runtime]:
    app = Application("ids", [ChildSpec("till", Till, args=(gate,))])
    return open_runtime(app, config=Config(store=path / "ids.db", socket=False))


def till_of(runtime: Runtime) -> AgentRef[Till]:
    return runtime.ref("till", Till)


async def test_a_request_is_applied_and_known_by_its_id_also_after_a_restart(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        request = till_of(runtime).request(Till.add, 5)
        assert await runtime.store.outcome(request.id) == "applied"
        assert await request.result() == 5
    async with opened(tmp_path, gate) as runtime:
        assert await runtime.store.outcome(request.id) == "applied"
        assert await runtime.store.outcome("somebody else's") == "not_applied"


async def test_what_crashed_was_refused_or_changed_nothing_is_not_applied(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        crashed = till.request(Till.add_and_fail, 1)
        refused = till.request(Till.add_and_fail, -1)
        read = till.request(Till.total)
        for request in (crashed, refused, read):
            assert await runtime.store.outcome(request.id) == "not_applied"
        with pytest.raises(AgentCrashed):
            await crashed.result()
        assert await read.result() == 0


async def test_asked_again_by_id_it_happens_once_and_is_answered_the_same(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        request = till.request(Till.add, 5)
        assert await till.with_id(request.id).call(Till.add, 5) == 5
        assert await till.call(Till.add, 1) == 6
        assert await till.with_id("mine").call(Till.receipt, 3) == (3, b"\x00" * 3)
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        assert await till.with_id(request.id).call(Till.add, 5) == 5
        assert await till.with_id("mine").call(Till.receipt, 3) == (3, b"\x00" * 3)
        assert await till.call(Till.total) == 9


async def test_many_who_ask_with_one_id_at_once_have_it_applied_once(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    answers: list[int] = []
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime).with_timeout(1000).with_id("mine")

        async def ask() -> None:
            answers.append(await till.call(Till.add_slowly, 5))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.01)
            gate.set()
        assert answers == [5] * 5
        assert await till_of(runtime).call(Till.total) == 5


async def test_what_was_not_applied_is_done_when_it_is_asked_again(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime).with_id("mine")
        with pytest.raises(Refused):
            await till.call(Till.add_and_fail, -1)
        assert await till.call(Till.add, 5) == 5
        assert await till.call(Till.add, 5) == 5


async def test_a_call_that_timed_out_in_hand_is_known_by_its_id_when_it_is_over(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    outcomes: list[str] = []
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        with pytest.raises(CallTimeout) as raised:
            await till.with_timeout(1).call(Till.add_slowly, 5)
        id_ = raised.value.id

        async def ask() -> None:
            outcomes.append(await runtime.store.outcome(id_))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert outcomes == []
            gate.set()
        assert outcomes == ["applied"]
        assert await till.with_id(id_).call(Till.add_slowly, 5) == 5
    async with opened(tmp_path, gate) as runtime:
        assert await runtime.store.outcome(id_) == "applied"
        assert await till_of(runtime).call(Till.total) == 5


async def test_a_call_that_timed_out_in_line_never_happens(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        slow = till.with_timeout(1000).request(Till.add_slowly, 5)
        with pytest.raises(CallTimeout) as raised:
            await till.with_timeout(1).call(Till.add, 1)
        assert not raised.value.begun
        assert await runtime.store.outcome(raised.value.id) == "not_applied"
        gate.set()
        assert await slow.result() == 5
        assert await till.call(Till.total) == 5


@pytest.mark.real_time
async def test_a_call_that_timed_out_before_its_commit_is_known_by_its_id(
    tmp_path: Path, gate: trio.Event
) -> None:
    """No row is written for an ordinary call: it is known by the number of its unit."""
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        await till.call(Till.add, 1)
        foreign = sqlite3.connect(tmp_path / "ids.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(CallTimeout) as raised:
            await till.with_timeout(0.05).call(Till.add, 5)
        foreign.execute("ROLLBACK")
        foreign.close()
        id_ = raised.value.id
        assert id_.startswith(f"{runtime.store.boot}:")
        assert await runtime.store.outcome(id_) == "applied"
        assert await count(runtime) == 0
        assert len(await ranges(runtime)) == 1
    async with opened(tmp_path, gate) as runtime:
        assert await runtime.store.outcome(id_) == "applied"
        assert await till_of(runtime).call(Till.total) == 6


async def test_an_ordinary_call_is_known_by_the_number_of_its_unit(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    async with opened(tmp_path, gate) as runtime:
        till, store = till_of(runtime), runtime.store
        await till.call(Till.add, 5)
        last = store.statistics().units
        ids = [f"{store.boot}:{number}" for number in (last, last + 1000)]
        assert await store.outcome(ids[0]) == "applied"
        with pytest.raises(AlreadyApplied):
            await till.with_id(ids[0]).call(Till.add, 5)
    async with opened(tmp_path, gate) as runtime:
        assert [await runtime.store.outcome(id_) for id_ in ids] == [
            "applied",
            "not_applied",
        ]


async def test_a_failed_commit_names_the_id_to_ask_by(
    tmp_path: Path, clock: MockClock, gate: trio.Event
) -> None:
    rule = Rule(point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="full")
    async with opened(tmp_path, gate) as runtime:
        till = till_of(runtime)
        await till.call(Till.add, 1)
        await runtime.store.settled()
        loaded = load_plan(InjectionPlan(name="full", injections=(rule,), seconds=60.0))
        with pytest.raises(StoreBroken) as raised:
            await till.call(Till.add, 5)
        loaded.lift()
        assert raised.value.id.startswith(f"{runtime.store.boot}:")
        assert await runtime.store.outcome(raised.value.id) == "not_applied"
        await wait_until(lambda: runtime.store.is_healthy)
        assert await till.call(Till.total) == 1


async def count(runtime: Runtime) -> int:
    (found,) = await runtime.store.read(
        lambda db: db.execute("SELECT count(*) FROM applied").fetchone()
    )
    return int(found)


async def ranges(runtime: Runtime) -> list[tuple[int, int]]:
    return await runtime.store.read(
        lambda db: db.execute("SELECT first, last FROM committed_range").fetchall()
    )
