"""How much may go through in what time."""

from __future__ import annotations

import math
import os
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.resilience import RateLimit
from treewarden.resilience.rate_limit import Rule, SlidingWindow, TokenBucket

ARRIVALS = 1_000_000 if "SOAK" in os.environ else 100_000


def take_if_ready(rule: Rule, now: float, weight: int = 1) -> bool:
    if rule.ready(now, weight) > now:
        return False
    rule.take(now, weight)
    return True


def test_a_window_lets_its_limit_through_and_no_more_until_the_first_is_old() -> None:
    rule = SlidingWindow(3, 1.0)
    assert [take_if_ready(rule, at) for at in (0.0, 0.5, 0.9, 0.9)] == [True] * 3 + [
        False
    ]
    assert rule.ready(0.9, 1) == 1.0
    assert [take_if_ready(rule, at) for at in (1.0, 1.0, 1.5, 1.5)] == [True, False] * 2


def test_two_windows_side_by_side_do_not_let_twice_as_much_through() -> None:
    """S31: the original's windows were fixed, and described as sliding."""
    rule = SlidingWindow(5, 1.0)
    assert sum(take_if_ready(rule, 0.99) for _ in range(10)) == 5
    assert sum(take_if_ready(rule, 1.01) for _ in range(10)) == 0


def test_a_bucket_lets_its_burst_through_and_then_a_steady_flow() -> None:
    rule = TokenBucket(10, 1.0, 3)
    assert sum(take_if_ready(rule, 0.0) for _ in range(10)) == 3
    assert rule.ready(0.0, 1) == pytest.approx(0.1)
    assert rule.ready(0.0, 3) == pytest.approx(0.3)
    assert sum(take_if_ready(rule, 0.5) for _ in range(10)) == 3


def test_a_heavy_one_waits_until_all_of_it_fits() -> None:
    window = SlidingWindow(5, 1.0)
    for at in (0.0, 0.25, 0.5):
        window.take(at, 1)
    assert window.ready(0.5, 2) == 0.5
    assert window.ready(0.5, 3) == 1.0
    assert window.ready(0.5, 5) == 1.5


def test_more_than_the_capacity_is_ready_when_its_last_would_be() -> None:
    window, bucket = SlidingWindow(2, 1.0), TokenBucket(2, 1.0, 2)
    assert [window.ready(0.0, weight) for weight in range(1, 7)] == [0, 0, 1, 1, 2, 2]
    assert [bucket.ready(0.0, weight) for weight in range(1, 6)] == [0, 0, 0.5, 1, 1.5]


@given(
    steps=st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 4)), max_size=80),
    burst=st.none() | st.integers(4, 8),
)
def test_what_is_said_to_be_ready_then_is_ready_then_and_not_a_bit_before(
    steps: list[tuple[float, int]], burst: int | None
) -> None:
    rule, now = RateLimit(rate=7, period=1.3, burst=burst).rule(), 0.0
    for seconds, weight in steps:
        now += seconds
        at = rule.ready(now, weight)
        assert at >= now
        if at > now:
            before = math.nextafter(at, -math.inf)
            assert rule.ready(before, weight) >= at
        assert rule.ready(at, weight) == at
        now = at
        rule.take(now, weight)


@pytest.mark.parametrize("burst", [None, 1, 20])
def test_over_any_time_no_more_goes_through_than_is_allowed(burst: int | None) -> None:
    """10^5 random arrivals of random weight, 10^6 in a soak; nothing too many."""
    chance = random.Random(23)  # noqa: S311 - a test's choice
    limit = RateLimit(rate=50, period=1.0, burst=burst)
    rule, now, total = limit.rule(), 0.0, 0
    recent: deque[tuple[float, int]] = deque()
    in_window = 0
    for _ in range(ARRIVALS):
        now += chance.expovariate(200.0) * chance.choice((0.1, 1.0, 1.0, 10.0))
        weight = chance.randint(1, min(5, limit.capacity))
        if not take_if_ready(rule, now, weight):
            continue
        recent.append((now, weight))
        in_window += weight
        total += weight
        while recent[0][0] + limit.period <= now:
            in_window -= recent.popleft()[1]
        if burst is None:
            assert in_window <= limit.rate
        else:
            # Every span that begins with a permit of the last second and ends with this.
            assert_no_span_over(recent, burst, limit.rate)
    assert total >= 0.2 * limit.rate * now


def assert_no_span_over(
    recent: deque[tuple[float, int]], burst: int, rate: int
) -> None:
    now, passed = recent[-1][0], 0
    for place, (at, weight) in enumerate(reversed(recent)):
        if place == 30:
            break
        passed += weight
        assert passed <= burst + rate * (now - at) + 1e-6


@pytest.mark.parametrize("burst", [None, 5])
def test_at_least_99_percent_of_what_is_allowed_goes_through_when_all_want_it(
    burst: int | None,
) -> None:
    limit = RateLimit(rate=50, period=1.0, burst=burst)
    rule, now, passed = limit.rule(), 0.0, 0
    while now < 100.0:
        now = rule.ready(now, 1)
        rule.take(now, 1)
        passed += 1
    assert passed >= 0.99 * 50 * 100


def test_a_window_is_no_larger_than_its_limit() -> None:
    rule = SlidingWindow(100, 1.0)
    for number in range(100_000):
        take_if_ready(rule, number * 0.001)
    assert len(rule._taken) <= 100


@pytest.mark.parametrize("burst", [None, 5])
def test_what_is_used_can_be_told_and_taken_up_elsewhere(burst: int | None) -> None:
    limit = RateLimit(rate=10, period=2.0, burst=burst)
    one, two = limit.rule(), limit.rule()
    for at in (0.0, 0.5, 0.6):
        one.take(at, 1)
    # Two seconds of the first clock are the hundredth of the second.
    two.load(100.0, one.dump(1.0))
    for later in (0.0, 0.5, 1.0, 1.55, 2.0):
        for weight in (1, 3, 5):
            ours, theirs = (
                two.ready(100.0 + later, weight),
                one.ready(1.0 + later, weight),
            )
            assert ours - 99.0 == pytest.approx(theirs)


def test_of_very_many_permits_neighbours_are_told_as_one_and_never_as_older() -> None:
    one, two = SlidingWindow(1000, 1.0), SlidingWindow(1000, 1.0)
    for number in range(1000):
        one.take(number / 1000, 1)
    told = one.dump(0.9995)
    assert len(told) <= 10
    two.load(0.9995, told)
    for later in range(20):
        assert two.used(1.0 + later / 20) >= one.used(1.0 + later / 20)


def test_what_makes_no_sense_is_not_taken_up() -> None:
    window, bucket = SlidingWindow(5, 1.0), TokenBucket(5, 1.0, 5)
    window.load(0.0, [(2.0, 1), (-1.0, 1), (0.5, 6), (0.5, -1), (math.nan, 1)])
    bucket.load(0.0, [(-1e9, 0), (math.nan, 0)])
    assert window.used(0.0) == 0
    assert bucket.ready(0.0, 1) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({"rate": 0}, ValueError, "rate"),
        ({"rate": 1.5}, TypeError, "rate"),
        ({"rate": True}, TypeError, "rate"),
        ({"rate": 1, "burst": 0}, ValueError, "burst"),
        ({"rate": 1, "period": 0.0}, ValueError, "period"),
        ({"rate": 1, "period": math.inf}, ValueError, "period"),
        ({"rate": 1, "queue": -1}, ValueError, "queue"),
        ({"rate": 1, "max_keys": 0}, ValueError, "max_keys"),
        ({"rate": 1, "max_wait": math.nan}, ValueError, "max_wait"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, float], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        RateLimit(**fields)  # type: ignore[arg-type]


def test_a_bucket_that_is_never_full_keeps_its_rate_however_many_it_gives() -> None:
    """A clock at 10^6 s: sums of floats would give ten more in 10^5."""
    every, begun, given = 1 / 3_000_000, 999_999.7, 100_000
    bucket = TokenBucket(3_000_000, 1.0, 1)
    at = begun
    for _ in range(given):
        at = bucket.ready(at, 1)
        bucket.take(at, 1)
    assert bucket.ready(at, 1) - begun == pytest.approx(given * every, abs=every / 100)


@pytest.mark.parametrize(
    "limit",
    [
        {"rate": 10**10},
        {"rate": 1, "period": 1e-300},
        {"rate": 1, "burst": 1, "period": 1e-12},
    ],
)
def test_a_limit_that_no_clock_can_tell_from_none_is_refused(
    limit: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="at most a permit a nanosecond, not"):
        RateLimit(**limit)  # type: ignore[arg-type] # what is tested
