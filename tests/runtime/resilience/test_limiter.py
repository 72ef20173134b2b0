"""Waiting for a permit."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import RateLimited
from treewarden.resilience import Limiter, RateLimit

if TYPE_CHECKING:
    from trio.testing import MockClock

ONE_A_SECOND = RateLimit(rate=1)
CANCELLATIONS = 10_000 if "SOAK" in os.environ else 3_000
STEADY = RateLimit(rate=10, burst=1, max_wait=10_000.0, queue=100_000)


async def test_who_waits_gets_a_permit_as_soon_as_the_limit_allows(
    autojump_clock: MockClock,
) -> None:
    limiter, at = Limiter(RateLimit(rate=3)), []
    for _ in range(7):
        await limiter.acquire()
        at.append(trio.current_time())
    assert at == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]


async def test_first_come_first_served(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter, order = Limiter(STEADY), []

    async def wait(number: int) -> None:
        await limiter.acquire()
        order.append(number)

    for number in range(50):
        nursery.start_soon(wait, number)
        await wait_all_tasks_blocked()
    await trio.sleep(10.0)
    assert order == list(range(50))


async def test_who_only_tries_does_not_overtake_who_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=5))
    limiter.acquire_nowait(weight=3)
    nursery.start_soon(limiter.acquire, "", 4)
    await wait_all_tasks_blocked()
    with pytest.raises(RateLimited) as refused:
        limiter.acquire_nowait()
    assert refused.value.retry_after == pytest.approx(1.0)
    await trio.sleep(1.0)
    limiter.acquire_nowait()


async def test_a_refusal_says_when_to_come_back(autojump_clock: MockClock) -> None:
    limiter = Limiter(RateLimit(rate=2), "search")
    limiter.acquire_nowait(weight=2)
    await trio.sleep(0.25)
    with pytest.raises(
        RateLimited, match=r"limiter search has no permit; .* in 0.75 s"
    ):
        limiter.acquire_nowait()
    await trio.sleep(0.75)
    limiter.acquire_nowait()


async def test_a_weight_that_never_fits_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(RateLimit(rate=5, burst=2))
    for weight in (0, -1, 3):
        with pytest.raises(ValueError, match=f"never {weight}"):
            await limiter.acquire(weight=weight)
        with pytest.raises(ValueError, match=f"never {weight}"):
            limiter.reserve(weight=weight)


async def test_nobody_waits_longer_than_for_those_before_it(
    autojump_clock: MockClock,
) -> None:
    """Of 1,000 that come at random nobody starves."""
    chance = random.Random(3)  # noqa: S311 - a test's choice
    limiter = Limiter(STEADY)
    unfair = 0.0

    async def wait(at: float) -> None:
        nonlocal unfair
        await trio.sleep(at)
        fair = limiter.lane().retry_after
        began = trio.current_time()
        await limiter.acquire()
        unfair = max(unfair, (trio.current_time() - began) - fair)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(wait, chance.uniform(0, 80))
    assert unfair == pytest.approx(0.0, abs=1e-6)


async def test_who_is_heavy_is_not_starved_by_who_is_light(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=10, burst=10))

    async def flood() -> None:
        while True:
            await limiter.acquire()

    async def look() -> None:
        while True:
            limiter.lane()
            await trio.sleep(0.05)

    nursery.start_soon(look)
    for _ in range(20):
        nursery.start_soon(flood)
    await trio.sleep(5.5)
    with trio.fail_after(4.0):
        await limiter.acquire(weight=10)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("burst", [None, 2])
async def test_a_loop_that_is_late_gives_permits_late_and_not_too_many_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery, burst: int | None
) -> None:
    limiter = Limiter(RateLimit(rate=2, burst=burst))
    for _ in range(20):
        nursery.start_soon(limiter.acquire)
    await wait_all_tasks_blocked()
    # As if nobody had got a turn for five seconds.
    autojump_clock.jump(5.0)
    await wait_all_tasks_blocked()
    assert limiter.statistics().permits == 4
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("burst", [None, 10])
async def test_when_all_want_it_99_percent_of_what_is_allowed_goes_through(
    autojump_clock: MockClock, burst: int | None
) -> None:
    limiter = Limiter(RateLimit(rate=100, burst=burst))

    async def flood() -> None:
        while True:
            await limiter.acquire()

    with trio.move_on_after(20.0):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(flood)
    assert 0.99 * 2000 <= limiter.statistics().permits <= 2000 + (burst or 100)


async def test_thousands_of_random_cancellations_leave_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    """Nobody stands in line, and the next one gets what the others did not take.

    3,000 of them, 10,000 in a soak.
    """
    chance = random.Random(17)  # noqa: S311 - a test's choice
    limiter = Limiter(STEADY)

    async def impatient() -> None:
        await trio.sleep(chance.uniform(0, 20.0))
        with trio.move_on_after(chance.uniform(0, 2.0)):
            await limiter.acquire()

    async with trio.open_nursery() as nursery:
        for _ in range(CANCELLATIONS + 300):
            nursery.start_soon(impatient)
    statistics = limiter.statistics()
    assert statistics.left >= CANCELLATIONS
    assert statistics.waiting == 0
    assert statistics.granted + statistics.left == CANCELLATIONS + 300
    # Ten a second, and none was lost to those who left: 22 s in all.
    assert 0.99 * 200 <= statistics.permits <= 221
    before = trio.current_time()
    await limiter.acquire()
    assert trio.current_time() - before <= 0.1 + 1e-9


async def test_when_a_heavy_one_leaves_who_stood_behind_it_goes_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=5))
    limiter.acquire_nowait(weight=3)
    heavy = trio.CancelScope()

    async def wait() -> None:
        with heavy:
            await limiter.acquire(weight=5)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    nursery.start_soon(limiter.acquire)
    await wait_all_tasks_blocked()
    assert limiter.statistics().waiting == 2
    heavy.cancel()
    await wait_all_tasks_blocked()
    assert (limiter.statistics().waiting, trio.current_time()) == (0, 0.0)


async def test_cancelled_before_it_asks_nothing_is_taken(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    with trio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert limiter.statistics().permits == 0


async def test_the_line_is_bounded_and_says_so(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=1, queue=3))
    for _ in range(4):
        nursery.start_soon(limiter.acquire)
    await wait_all_tasks_blocked()
    with pytest.raises(RateLimited) as refused:
        await limiter.acquire()
    assert refused.value.retry_after == pytest.approx(4.0)
    nursery.cancel_scope.cancel()


async def test_who_would_wait_too_long_is_refused_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=1, max_wait=2.0))
    for _ in range(3):
        nursery.start_soon(limiter.acquire)
    await wait_all_tasks_blocked()
    with pytest.raises(RateLimited):
        await limiter.acquire()
    assert trio.current_time() == 0.0
    await trio.sleep(5.0)
    assert limiter.statistics().granted == 3


async def test_a_call_runs_once_it_has_a_permit(autojump_clock: MockClock) -> None:
    limiter = Limiter(ONE_A_SECOND)

    async def at(what: str) -> tuple[str, float]:
        return what, trio.current_time()

    assert await limiter.call(at, "one") == ("one", 0.0)
    assert await limiter.call(at, "two") == ("two", 1.0)
    hasty = Limiter(RateLimit(rate=1, max_wait=0.0))
    assert await hasty.call(at, "three") == ("three", 1.0)
    with pytest.raises(RateLimited):
        await hasty.call(at, "four")


# --- 429 ---------------------------------------------------------------------------------


async def test_a_penalty_holds_everybody_back_and_is_only_ever_extended(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=10, burst=2))
    limiter.penalise(5.0)
    limiter.penalise(3.0)
    with pytest.raises(RateLimited) as refused:
        limiter.acquire_nowait()
    assert refused.value.retry_after == pytest.approx(5.0)
    await limiter.acquire()
    assert trio.current_time() == 5.0


async def test_a_penalty_reaches_those_who_wait_already(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter, at = Limiter(ONE_A_SECOND), []

    async def wait() -> None:
        await limiter.acquire()
        at.append(trio.current_time())

    for _ in range(3):
        nursery.start_soon(wait)
    await trio.sleep(0.5)
    limiter.penalise(7.0)
    await trio.sleep(20.0)
    assert at == [0.0, 7.0, 8.0]


async def test_after_a_penalty_the_limit_still_holds(autojump_clock: MockClock) -> None:
    limiter = Limiter(RateLimit(rate=10, burst=2))
    limiter.penalise(5.0)
    at = []
    for _ in range(4):
        await limiter.acquire()
        at.append(trio.current_time())
    assert at == pytest.approx([5.0, 5.0, 5.1, 5.2])


async def test_who_is_put_off_for_too_long_gives_up(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=1, max_wait=3.0))
    limiter.acquire_nowait()

    async def wait() -> None:
        with pytest.raises(RateLimited) as refused:
            await limiter.acquire()
        assert refused.value.retry_after == pytest.approx(57.0)
        assert trio.current_time() == 3.0

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    limiter.penalise(60.0)
    await trio.sleep(4.0)
    statistics = limiter.statistics()
    assert (statistics.gave_up, statistics.waiting) == (1, 0)


# --- reservations ------------------------------------------------------------------------


async def test_a_place_can_be_taken_now_and_waited_for_later(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    one, two, three = (limiter.reserve() for _ in range(3))
    assert [place.delay for place in (one, two, three)] == [0.0, 1.0, 2.0]
    await three.wait()
    assert trio.current_time() == 2.0
    await two.wait()
    assert trio.current_time() == 2.0


async def test_a_place_that_is_left_is_free_for_those_behind(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    _, two, three = (limiter.reserve() for _ in range(3))
    assert two.cancel()
    assert not two.cancel()
    await three.wait()
    assert trio.current_time() == 1.0
    with pytest.raises(RuntimeError, match="waited for once"):
        await two.wait()


async def test_a_place_whose_turn_has_come_is_spent_and_costs_nobody_else(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    places = [limiter.reserve() for _ in range(3)]
    await trio.sleep(10.0)
    assert not places[2].cancel()
    limiter.acquire_nowait()
    assert limiter.statistics().granted == 4


async def test_a_place_is_waited_for_by_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    limiter.acquire_nowait()
    place = limiter.reserve()
    nursery.start_soon(place.wait)
    await wait_all_tasks_blocked()
    assert not place.cancel()
    with pytest.raises(RuntimeError, match="waited for once"):
        await place.wait()


async def test_who_waits_behind_a_place_that_nobody_waits_for_is_woken_in_time(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    for _ in range(3):
        limiter.reserve()
    await limiter.acquire()
    assert trio.current_time() == 3.0


# --- keys --------------------------------------------------------------------------------


async def test_each_key_is_counted_apart(autojump_clock: MockClock) -> None:
    """S31: five users, 15 each on a limit of 10."""
    limiter = Limiter(RateLimit(rate=10, period=60.0))
    passed = dict.fromkeys("abcde", 0)
    for _ in range(15):
        for user in passed:
            try:
                limiter.acquire_nowait(user)
            except RateLimited:
                continue
            passed[user] += 1
    assert set(passed.values()) == {10}


@pytest.mark.parametrize(("limit", "callers"), [(100, 200), (10, 20)])
async def test_of_many_at_once_exactly_the_limit_goes_through(
    autojump_clock: MockClock, limit: int, callers: int
) -> None:
    """S31: the race suite."""
    limiter = Limiter(RateLimit(rate=limit, period=60.0))
    passed = refused = 0

    async def ask() -> None:
        nonlocal passed, refused
        try:
            limiter.acquire_nowait("user")
        except RateLimited:
            refused += 1
        else:
            passed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(ask)
    assert (passed, refused) == (limit, callers - limit)


async def test_keys_are_bounded_and_the_one_unused_for_the_longest_time_goes(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(RateLimit(rate=1, period=60.0, max_keys=3))
    for key in "abca":
        try:
            limiter.acquire_nowait(key)
        except RateLimited:
            assert key == "a"
    limiter.acquire_nowait("d")
    statistics = limiter.statistics()
    assert (statistics.keys, statistics.forgotten) == (3, 1)
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("a")
    limiter.acquire_nowait("b")


async def test_tens_of_thousands_of_keys_take_no_more_room_than_there_is(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(RateLimit(rate=1, max_keys=100))
    for number in range(30_000):
        limiter.acquire_nowait(str(number))
    assert len(limiter._lanes) == 100


async def test_a_key_that_somebody_waits_for_is_never_forgotten(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(RateLimit(rate=1, period=60.0, max_wait=100.0, max_keys=2))
    for key in "ab":
        limiter.acquire_nowait(key)
        nursery.start_soon(limiter.acquire, key)
    await wait_all_tasks_blocked()
    with pytest.raises(RateLimited) as refused:
        limiter.acquire_nowait("c")
    assert refused.value.retry_after == pytest.approx(60.0)
    await trio.sleep(61.0)
    assert limiter.statistics().granted == 4


async def test_a_key_whose_line_has_run_off_makes_room(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(RateLimit(rate=1, max_keys=1))
    limiter.acquire_nowait("a")
    limiter.reserve("a")
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("b")
    await trio.sleep(5.0)
    limiter.acquire_nowait("b")


async def test_h09_three_clean_ups_after_traffic_leave_the_limits_as_they_were(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """H09: the original's first clean-up called its own server and took all limits along."""
    limiter = Limiter(RateLimit(rate=2, period=10.0))
    for key in ("spent", "spent", "half"):
        limiter.acquire_nowait(key)
    nursery.start_soon(limiter.acquire, "spent")
    limiter.acquire_nowait("old")
    await wait_all_tasks_blocked()
    assert [limiter.clean_up() for _ in range(3)] == [0, 0, 0]
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("spent")
    limiter.acquire_nowait("half")
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("half")
    await trio.sleep(10.0)
    assert limiter.clean_up() == 2
    assert limiter.statistics().keys == 1
    limiter.acquire_nowait("spent")
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("spent")


async def test_h09_a_clean_up_does_not_shorten_a_penalty(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    limiter.penalise(60.0, "site")
    limiter.clean_up()
    with pytest.raises(RateLimited):
        limiter.acquire_nowait("site")


async def test_what_is_left_of_a_key_can_be_seen_and_looking_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(RateLimit(rate=5, period=10.0))
    limiter.acquire_nowait("a", weight=4)
    await trio.sleep(1.0)
    a, b = limiter.lane("a"), limiter.lane("b")
    assert (a.capacity, a.remaining, a.retry_after) == (5, 1, 0.0)
    limiter.acquire_nowait("a")
    assert limiter.lane("a").retry_after == pytest.approx(9.0)
    assert (b.remaining, limiter.statistics().keys) == (5, 1)


async def test_its_version_changes_with_its_counters(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limiter = Limiter(ONE_A_SECOND)
    seen = {limiter.version}
    limiter.acquire_nowait()
    seen.add(limiter.version)
    with pytest.raises(RateLimited):
        limiter.acquire_nowait()
    seen.add(limiter.version)
    nursery.start_soon(limiter.acquire)
    await wait_all_tasks_blocked()
    seen.add(limiter.version)
    nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()
    seen.add(limiter.version)
    limiter.penalise(5.0)
    seen.add(limiter.version)
    assert len(seen) == 6


@pytest.mark.parametrize("until", [float("inf"), float("nan")])
async def test_a_penalty_that_never_ends_is_refused(until: float) -> None:
    """Nobody could take it back, and no file can hold it."""
    limiter = Limiter(ONE_A_SECOND)
    with pytest.raises(ValueError, match=r"an instant that comes, not (inf|nan)"):
        limiter.penalise(until)
    limiter.acquire_nowait()
    assert limiter.statistics().penalised == 0
