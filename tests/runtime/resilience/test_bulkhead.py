"""So many calls at once and no more."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import BulkheadFull, RateLimited
from treewarden.resilience import Aimd, Bulkhead, BulkheadShare

if TYPE_CHECKING:
    from trio.testing import MockClock


async def hold(bulkhead: Bulkhead, seconds: float = 1.0, weight: int = 1) -> None:
    await bulkhead.call(trio.sleep, seconds, weight=weight)


async def test_so_many_run_at_once_and_the_others_wait(
    autojump_clock: MockClock,
) -> None:
    bulkhead, most = Bulkhead(3), 0

    async def work() -> None:
        nonlocal most
        most = max(most, bulkhead.statistics().in_flight)
        await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(bulkhead.call, work)
    assert most == 3
    assert trio.current_time() == 3.0
    statistics = bulkhead.statistics()
    assert (statistics.entered, statistics.ended, statistics.taken) == (9, 9, 0)


async def test_first_come_first_served(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead, order = Bulkhead(1), []

    async def work(number: int) -> None:
        async with bulkhead.guard():
            order.append(number)
            await trio.sleep(0.1)

    for number in range(30):
        nursery.start_soon(work, number)
        await wait_all_tasks_blocked()
    await trio.sleep(5.0)
    assert order == list(range(30))


async def test_the_more_urgent_go_first_and_nobody_is_passed_over_for_its_weight(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead, order = Bulkhead(3, max_wait=100.0), []

    async def work(name: str, weight: int, priority: int) -> None:
        async with bulkhead.guard(weight, priority):
            order.append(name)
            await trio.sleep(1.0)

    for name, weight, priority in (
        ("first", 2, 0),
        ("heavy", 3, 0),
        ("light", 1, 0),
        ("urgent", 1, 1),
    ):
        nursery.start_soon(work, name, weight, priority)
        await wait_all_tasks_blocked()
    await trio.sleep(10.0)
    assert order == ["first", "urgent", "heavy", "light"]


async def test_nobody_of_the_same_urgency_waits_more_than_is_fair(
    autojump_clock: MockClock,
) -> None:
    """1,000 callers of equal calls: each waits for those before it, and no more."""
    bulkhead = Bulkhead(10, queue=1000, max_wait=1000.0)
    longest = 0.0

    async def work(number: int) -> None:
        nonlocal longest
        began = trio.current_time()
        async with bulkhead.guard():
            waited = trio.current_time() - began
            longest = max(longest, waited - number // 10)
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(work, number)
            if number % 10 == 9:
                await wait_all_tasks_blocked()
    assert longest < 2.0


async def test_a_full_line_refuses_and_nothing_was_called(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(1, 2, name="site")
    for _ in range(3):
        nursery.start_soon(hold, bulkhead)
    await wait_all_tasks_blocked()
    with pytest.raises(BulkheadFull, match="site is full: 1 places, 2 in line"):
        await bulkhead.call(pytest.fail, "called")
    assert bulkhead.statistics().refused == 1


async def test_who_waits_too_long_is_told_so_and_leaves_the_line(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(1, max_wait=2.0)
    nursery.start_soon(hold, bulkhead, 10.0)
    await wait_all_tasks_blocked()
    with pytest.raises(BulkheadFull, match="full after 2 s in line") as refused:
        await hold(bulkhead)
    assert (refused.value.waited, trio.current_time()) == (2.0, 2.0)
    statistics = bulkhead.statistics()
    assert (statistics.gave_up, statistics.waiting) == (1, 0)


async def test_who_must_not_wait_gets_a_place_now_or_none(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(2)
    with bulkhead.guard_nowait(), bulkhead.guard_nowait():
        with pytest.raises(BulkheadFull), bulkhead.guard_nowait():
            pytest.fail("entered")
        nursery.start_soon(hold, bulkhead)
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    # The one who waited has one of the two places.
    with bulkhead.guard_nowait(), pytest.raises(BulkheadFull), bulkhead.guard_nowait():
        pytest.fail("entered")


async def test_who_only_tries_does_not_overtake_who_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(2)
    nursery.start_soon(hold, bulkhead)
    await wait_all_tasks_blocked()
    nursery.start_soon(hold, bulkhead, 1.0, 2)
    await wait_all_tasks_blocked()
    with pytest.raises(BulkheadFull), bulkhead.guard_nowait():
        pytest.fail("entered")
    with bulkhead.guard_nowait(priority=1):
        assert bulkhead.statistics().taken == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
async def test_a_place_is_given_back_however_the_call_ends(
    autojump_clock: MockClock, error: type[BaseException]
) -> None:
    bulkhead = Bulkhead(1)

    async def fail() -> None:
        raise error

    with pytest.raises(error):
        await bulkhead.call(fail)
    with pytest.raises(error):
        async with bulkhead.guard():
            raise error
    with pytest.raises(error), bulkhead.guard_nowait():
        raise error
    statistics = bulkhead.statistics()
    assert (statistics.taken, statistics.in_flight, statistics.ended) == (0, 0, 3)


async def test_after_10_000_random_cancellations_no_place_is_held(
    autojump_clock: MockClock,
) -> None:
    chance = random.Random(29)  # noqa: S311 - a test's choice
    bulkhead = Bulkhead(5, queue=20_000, max_wait=3.0)
    cancelled = 0

    async def impatient() -> None:
        nonlocal cancelled
        await trio.sleep(chance.uniform(0, 5.0))
        with trio.move_on_after(chance.uniform(0, 4.0)) as scope:
            try:
                await bulkhead.call(
                    trio.sleep,
                    chance.choice((0.01, 0.02, 1.0)),
                    weight=chance.randint(1, 3),
                    priority=chance.randint(0, 2),
                )
            except BulkheadFull:
                return
        cancelled += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for _ in range(14_500):
            nursery.start_soon(impatient)
    assert cancelled >= 10_000
    statistics = bulkhead.statistics()
    assert statistics.gave_up > 100
    assert statistics.left > 5_000
    assert (statistics.taken, statistics.in_flight, statistics.waiting) == (0, 0, 0)
    assert statistics.entered == statistics.ended > 100
    with bulkhead.guard_nowait(weight=5):
        pass


async def test_cancelled_at_the_door_nothing_is_taken(
    autojump_clock: MockClock,
) -> None:
    bulkhead = Bulkhead(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with bulkhead.guard():
            pytest.fail("entered")
    assert bulkhead.statistics().entered == 0


async def test_when_a_heavy_one_leaves_the_line_who_stood_behind_it_gets_in(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead, heavy = Bulkhead(2), trio.CancelScope()

    async def wait() -> None:
        with heavy:
            await hold(bulkhead, weight=2)

    nursery.start_soon(hold, bulkhead)
    await wait_all_tasks_blocked()
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    nursery.start_soon(hold, bulkhead)
    await wait_all_tasks_blocked()
    heavy.cancel()
    await wait_all_tasks_blocked()
    statistics = bulkhead.statistics()
    assert (statistics.in_flight, statistics.waiting) == (2, 0)


async def test_a_crowd_cannot_take_what_is_set_apart_for_others(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(10, shares={"people": 0.3, "jobs": 0.2})
    for _ in range(50):
        nursery.start_soon(hold, bulkhead, 5.0)
    await wait_all_tasks_blocked()
    statistics = bulkhead.statistics()
    assert (statistics.in_flight, statistics.waiting) == (5, 45)
    for _ in range(3):
        nursery.start_soon(partial(bulkhead.call, trio.sleep, 5.0, group="people"))
    await wait_all_tasks_blocked()
    with trio.fail_after(0.1):
        await bulkhead.call(trio.sleep, 0.0, group="jobs")
    with pytest.raises(BulkheadFull), bulkhead.guard_nowait(group="people"):
        pytest.fail("entered")
    assert bulkhead.statistics().shares == (
        BulkheadShare(group="jobs", set_apart=2, taken=0),
        BulkheadShare(group="people", set_apart=3, taken=3),
    )
    nursery.cancel_scope.cancel()


async def test_a_group_may_take_more_than_its_own_while_there_is_room(
    autojump_clock: MockClock,
) -> None:
    bulkhead = Bulkhead(10, shares={"people": 0.3, "jobs": 0.2})
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(partial(bulkhead.call, trio.sleep, 1.0, group="people"))
        await wait_all_tasks_blocked()
        assert bulkhead.statistics().in_flight == 8
        async with bulkhead.guard(2, group="jobs"):
            pass
    assert trio.current_time() == 1.0


async def test_a_group_without_a_share_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="has no share for 'jobs'"):
        await Bulkhead(10).call(trio.sleep, 0.0, group="jobs")


async def test_a_limit_that_adapts_follows_what_calls_say_about_the_load(
    autojump_clock: MockClock,
) -> None:
    bulkhead = Bulkhead(Aimd(initial=10, maximum=12, latency=1.0))
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hold, bulkhead, 0.1)
    assert bulkhead.statistics().limit == 12
    await hold(bulkhead, 2.0)
    assert bulkhead.statistics().limit == 10


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (TimeoutError, True),
        (trio.TooSlowError, True),
        (lambda: RateLimited("x", 1.0), True),
        (ConnectionError, False),
        (ValueError, False),
    ],
)
async def test_only_exceptions_about_load_move_the_limit(
    autojump_clock: MockClock, error: type[Exception], dropped: bool
) -> None:
    bulkhead = Bulkhead(Aimd(initial=10))

    async def fail() -> None:
        raise error()

    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever it is
        await bulkhead.call(fail)
    assert bulkhead.statistics().limit == (9 if dropped else 10)
    assert bulkhead.statistics().dropped == dropped


async def test_a_cancelled_call_says_nothing_about_the_load(
    autojump_clock: MockClock,
) -> None:
    bulkhead = Bulkhead(Aimd(initial=10, latency=1.0))
    with trio.move_on_after(5.0):
        await hold(bulkhead, 10.0)
    assert bulkhead.statistics().limit == 10


async def test_when_the_limit_grows_those_who_wait_get_in(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bulkhead = Bulkhead(Aimd(initial=1, maximum=3))
    for seconds in (1.0, 10.0, 10.0):
        nursery.start_soon(hold, bulkhead, seconds)
        await wait_all_tasks_blocked()
    assert bulkhead.statistics().in_flight == 1
    await trio.sleep(1.0)
    await wait_all_tasks_blocked()
    statistics = bulkhead.statistics()
    assert (statistics.limit, statistics.in_flight) == (2, 2)


async def test_what_has_grown_too_heavy_runs_alone(autojump_clock: MockClock) -> None:
    bulkhead = Bulkhead(Aimd(initial=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, bulkhead, 1.0, 1)
        await wait_all_tasks_blocked()
        nursery.start_soon(hold, bulkhead, 1.0, 50)
        await wait_all_tasks_blocked()
        assert bulkhead.statistics().waiting == 1
    assert trio.current_time() == 2.0


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1, "queue": -1}, "queue"),
        ({"limit": 1, "max_wait": -1.0}, "max_wait"),
        ({"limit": 1, "shares": {"a": 0.6, "b": 0.5}}, "at most 1 in all"),
        ({"limit": 1, "shares": {"a": 0.0}}, "parts of 1"),
        ({"limit": 1, "shares": {"": 0.5}}, "parts of 1"),
    ],
)
def test_a_bulkhead_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, object], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Bulkhead(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0, -1, 3])
async def test_a_weight_that_never_fits_is_refused_at_once(weight: int) -> None:
    with pytest.raises(ValueError, match=f"2 places, never {weight}"):
        await hold(Bulkhead(2), weight=weight)


class Broken:
    """A limit whose rule fails at each call."""

    limit = 1

    def sample(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        raise ZeroDivisionError

    def describe(self) -> str:
        return "broken"


async def test_a_rule_that_fails_is_heard_and_holds_no_place(
    autojump_clock: MockClock,
) -> None:
    bulkhead = Bulkhead(Broken())
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await bulkhead.call(trio.sleep, 1.0)
    statistics = bulkhead.statistics()
    assert (statistics.taken, statistics.in_flight) == (0, 0)


async def test_a_weight_that_is_no_number_is_refused_and_takes_nothing() -> None:
    bulkhead = Bulkhead(2)
    with pytest.raises(ValueError, match="never nan"):
        await bulkhead.call(trio.sleep, 0, weight=float("nan"))  # type: ignore[arg-type] # what is tested
    assert bulkhead.statistics().taken == 0


def test_a_share_is_all_that_it_says_though_floats_are_a_hair_less() -> None:
    """100 * 0.29 is 28.999999999999996."""
    bulkhead = Bulkhead(100, shares={"batch": 0.29, "live": 0.71})
    assert [share.set_apart for share in bulkhead.statistics().shares] == [29, 71]


@pytest.mark.parametrize(
    ("limit", "queue"), [(1.5, 1), (True, 1), (float("nan"), 1), (1, float("nan"))]
)
def test_a_line_without_an_end_is_refused(limit: float, queue: float) -> None:
    """Nothing is ever more than NaN, so that a line of NaN would never be full."""
    with pytest.raises(TypeError, match=r"must be an int, not (1\.5|True|nan)"):
        Bulkhead(limit, queue)  # type: ignore[arg-type] # what is tested
