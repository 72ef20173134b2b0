"""A deadline of our own, told apart from everybody else's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import ResilienceError, TimedOut
from treewarden.resilience import Overrun, Timeout

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_what_takes_too_long_is_cancelled_and_told(
    autojump_clock: MockClock,
) -> None:
    timeout = Timeout(2.0, name="fetch")
    with pytest.raises(TimedOut, match="fetch took longer than 2 s") as told:
        await timeout.call(trio.sleep_forever)
    assert trio.current_time() == 2.0
    assert isinstance(told.value, trio.TooSlowError)
    assert isinstance(told.value, ResilienceError)
    assert timeout.statistics().timed_out == 1


async def test_what_is_quick_enough_returns_as_it_does(
    autojump_clock: MockClock,
) -> None:
    async def answer(number: int) -> int:
        await trio.sleep(1.0)
        return number

    assert await Timeout(2.0).call(answer, 7) == 7


async def test_a_cancellation_from_outside_stays_one(autojump_clock: MockClock) -> None:
    timeout = Timeout(5.0)
    with trio.move_on_after(1.0) as outer:
        await timeout.call(trio.sleep_forever)
    assert outer.cancelled_caught
    statistics = timeout.statistics()
    assert (statistics.cancelled, statistics.timed_out) == (1, 0)


async def test_a_deadline_within_is_not_taken_for_its_own(
    autojump_clock: MockClock,
) -> None:
    timeout = Timeout(5.0)

    async def impatient() -> None:
        with trio.fail_after(1.0):
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError) as told:
        await timeout.call(impatient)
    assert not isinstance(told.value, TimedOut)
    assert timeout.statistics().raised == 1


async def test_of_two_the_outer_one_speaks_when_it_is_first(
    autojump_clock: MockClock,
) -> None:
    outer, inner = Timeout(1.0, name="all"), Timeout(2.0, name="one")
    with pytest.raises(TimedOut, match="all took longer"):
        await outer.call(inner.call, trio.sleep_forever)
    assert inner.statistics().cancelled == 1


async def test_an_exception_of_the_call_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    timeout = Timeout(1.0)

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("on the way out")

    with pytest.raises(LookupError):
        await timeout.call(fail)
    assert timeout.statistics().raised == 1


async def test_a_block_can_be_guarded_as_well(autojump_clock: MockClock) -> None:
    timeout = Timeout(1.0)
    with pytest.raises(TimedOut), timeout.guard() as scope:
        assert scope.deadline == 1.0
        await trio.sleep(2.0)
    with timeout.guard():
        pass
    assert timeout.statistics().returned == 1


async def test_code_that_does_not_obey_is_seen_while_it_runs_and_reported_after(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Reported, and never left behind."""
    told: list[Overrun] = []
    timeout = Timeout(1.0, grace=0.5, name="stubborn", on_overrun=told.append)

    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(4.0)
        return "done all the same"

    results = []

    async def call() -> None:
        results.append(await timeout.call(stubborn))

    nursery.start_soon(call)
    overdue = []
    for _ in range(4):
        await trio.sleep(0.9)
        overdue.append(timeout.statistics().overdue)
    await trio.sleep(1.0)
    await wait_all_tasks_blocked()
    assert overdue == [0, 1, 1, 1]
    assert told == [Overrun(name="stubborn", seconds=3.0)]
    assert results == ["done all the same"]
    statistics = timeout.statistics()
    assert (statistics.overruns, statistics.overdue, statistics.in_flight) == (1, 0, 0)


async def test_who_obeys_within_the_grace_is_not_reported(
    autojump_clock: MockClock,
) -> None:
    told: list[Overrun] = []
    timeout = Timeout(1.0, grace=0.5, on_overrun=told.append)

    async def tidy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.4)

    with pytest.raises(TimedOut):
        await timeout.call(tidy)
    assert told == []


async def test_a_listener_that_fails_fails_nobody(autojump_clock: MockClock) -> None:
    def fail(overrun: Overrun) -> None:
        raise LookupError(overrun.name)

    timeout = Timeout(1.0, grace=0.0, on_overrun=fail)

    async def late() -> int:
        with trio.CancelScope(shield=True):
            await trio.sleep(2.0)
        return 7

    assert await timeout.call(late) == 7
    assert timeout.statistics().listener_failures == 1


async def test_for_ever_only_counts(autojump_clock: MockClock) -> None:
    timeout = Timeout(math.inf)
    await timeout.call(trio.sleep, 1e9)
    assert timeout.statistics().returned == 1


async def test_its_counters_add_up(autojump_clock: MockClock) -> None:
    timeout = Timeout(1.0)

    async def anything(number: int) -> None:
        await trio.sleep(number % 4 / 2 + 0.1)
        if number % 3 == 0:
            raise LookupError

    async def caller(number: int) -> None:
        with trio.move_on_after(number % 5 / 3 + 0.1):
            try:
                await timeout.call(anything, number)
            except (TimedOut, LookupError):
                return

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(caller, number)
        await trio.sleep(0.7)
        half = timeout.statistics()
        assert half.in_flight > 0
        assert half.calls == 200
    for s in (half, timeout.statistics()):
        ended = s.returned + s.raised + s.timed_out + s.cancelled
        assert s.calls == ended + s.in_flight
    assert min(s.returned, s.raised, s.timed_out, s.cancelled) > 0


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": math.nan}, "seconds"),
        ({"grace": -1.0}, "grace"),
    ],
)
def test_a_timeout_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Timeout(**fields)  # type: ignore[arg-type]
