"""Batches: an outcome for every call, and none that nobody made."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden.agents import Agent, AgentRef
from treewarden.errors import AgentCrashed, CallingSelf, NotRunning, WorkTimeout
from treewarden.supervision import ChildSpec, Intensity, open_supervisor
from treewarden.work import Batch, BatchCounts, Done, Failed, NotMade, Pool, PoolPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Count(msgspec.Struct):
    value: int = 0


class Counter(Agent[Count]):
    persistence = "none"
    seen: list[str] = []  # noqa: RUF012 - what all of them did, in order
    inside = 0
    most = 0

    async def add(self, number: int, *, seconds: float = 0.0) -> int:
        Counter.seen.append(self.path)
        Counter.inside += 1
        Counter.most = max(Counter.most, Counter.inside)
        try:
            await trio.sleep(seconds)
        finally:
            Counter.inside -= 1
        if number < 0:
            raise ValueError(number)
        self.state.value += number
        return self.state.value

    async def batch_on(self, pool: Any, ref: Any) -> None:
        Batch(pool).call(ref, Counter.add, 1)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    Counter.seen = []
    Counter.most = Counter.inside = 0


class Fleet:
    """Ten counters and a pool."""

    def __init__(self, refs: list[AgentRef[Counter]], pool: Pool) -> None:
        self.refs = refs
        self.pool = pool


@asynccontextmanager
async def fleet(size: int = 4) -> AsyncIterator[Fleet]:
    specs = [ChildSpec(f"c{number}", Counter) for number in range(10)]
    pool = ChildSpec("p", Pool, args=(PoolPolicy(size=size),))
    async with open_supervisor([*specs, pool], intensity=Intensity(100, 5.0)) as root:
        refs: list[AgentRef[Counter]] = [
            AgentRef(root.directory, f"/{one.id}") for one in specs
        ]
        yield Fleet(refs, Pool(root.directory, "/p"))


async def test_every_call_is_made_once_and_answered_in_its_place() -> None:
    """S39"""
    async with fleet() as of:
        batch = Batch(of.pool)
        for number, ref in enumerate(of.refs):
            batch.call(ref, Counter.add, number, seconds=1.0 - number / 10)
        assert len(batch) == 10
        outcomes = await batch.run()
        assert [one.value for one in outcomes if isinstance(one, Done)] == list(
            range(10)
        )
        assert Counter.most == 4
        assert sorted(Counter.seen) == sorted(ref.path for ref in of.refs)


async def test_f45_failed_calls_are_counted_with_their_reasons() -> None:
    """F45, S39: 50 calls, 10 of which fail; none is dropped."""
    async with fleet() as of:
        batch = Batch(of.pool)
        for number in range(50):
            batch.call(of.refs[number % 10], Counter.add, -1 if number % 5 == 0 else 0)
        outcomes = await batch.run()
        counts = batch.counts()
        assert counts == BatchCounts(calls=50, done=40, failed=10, not_made=0)
        failures = [one for one in outcomes if isinstance(one, Failed)]
        assert len(failures) == 10
        assert all(isinstance(one.error, AgentCrashed) for one in failures)


async def test_a_batch_of_which_all_fail_is_no_failure_of_its_own() -> None:
    """F45"""
    async with fleet() as of:
        batch = Batch(of.pool)
        for ref in of.refs:
            batch.call(ref, Counter.add, -1)
        await batch.run()
        assert batch.counts() == BatchCounts(calls=10, done=0, failed=10, not_made=0)


async def test_a_call_that_takes_too_long_fails_alone() -> None:
    """F44, S39"""
    async with fleet() as of:
        batch = Batch(of.pool, timeout=0.2)
        batch.call(of.refs[0], Counter.add, 1)
        batch.call(of.refs[1], Counter.add, 1, seconds=3.0)
        batch.call(of.refs[2], Counter.add, 1)
        outcomes = await batch.run()
        kinds = [type(one) for one in outcomes]
        assert kinds == [Done, Failed, Done]
        late = outcomes[1]
        assert isinstance(late, Failed)
        assert isinstance(late.error, WorkTimeout)


async def test_stopping_at_a_failure_begins_no_more_and_says_which_were_not() -> None:
    """S39"""
    async with fleet() as of:
        batch = Batch(of.pool, on_failure="stop", limit=1)
        for number in range(10):
            batch.call(of.refs[number], Counter.add, -1 if number == 3 else 1)
        outcomes = await batch.run()
        assert [type(one) for one in outcomes] == [
            *[Done] * 3,
            Failed,
            *[NotMade] * 6,
        ]
        assert len(Counter.seen) == 4
        assert batch.counts().not_made == 6


async def test_calls_under_way_are_waited_for_when_a_batch_stops() -> None:
    """S39: nothing that was begun is lost."""
    async with fleet() as of:
        batch = Batch(of.pool, on_failure="stop", limit=3)
        batch.call(of.refs[0], Counter.add, 5, seconds=3.0)
        batch.call(of.refs[1], Counter.add, -1, seconds=1.0)
        batch.call(of.refs[2], Counter.add, 7, seconds=2.0)
        batch.call(of.refs[3], Counter.add, 9)
        outcomes = await batch.run()
        assert [type(one) for one in outcomes] == [Done, Failed, Done, NotMade]


async def test_a_cancelled_batch_knows_what_was_done() -> None:
    """F43, S39"""
    async with fleet() as of:
        batch = Batch(of.pool, limit=1)
        for ref in of.refs:
            batch.call(ref, Counter.add, 1, seconds=1.0)
        with trio.move_on_after(2.5):
            await batch.run()
        assert batch.counts() == BatchCounts(calls=10, done=2, failed=0, not_made=8)
        assert of.pool.works() == []


async def test_f40_without_a_pool_no_call_is_made() -> None:
    """F40, S39"""
    async with fleet() as of:
        batch = Batch(Pool(of.pool._directory, "/nowhere"))
        batch.call(of.refs[0], Counter.add, 1)
        with pytest.raises(NotRunning, match="nothing was run"):
            await batch.run()
        assert Counter.seen == []
        assert batch.counts().not_made == 1


async def test_an_agent_cannot_call_itself_through_a_batch() -> None:
    async with fleet() as of:
        with pytest.raises(AgentCrashed, match=CallingSelf.__name__):
            await of.refs[0].call(Counter.batch_on, of.pool, of.refs[0])


async def test_a_batch_runs_once() -> None:
    """S39: it is never made a second time, in another way."""
    async with fleet() as of:
        batch = Batch(of.pool)
        await batch.run()
        with pytest.raises(RuntimeError, match="runs once"):
            await batch.run()
        with pytest.raises(RuntimeError, match="runs once"):
            batch.call(of.refs[0], Counter.add, 1)
        with pytest.raises(ValueError, match="not 'rollback'"):
            Batch(of.pool, on_failure="rollback")
