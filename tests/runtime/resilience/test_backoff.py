"""How long to wait before the next attempt."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.resilience import Backoff


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(initial=1.0, maximum=10.0, factor=2.0, jitter=0.0)
    waits = [backoff.delay(attempt, lambda: 0.5) for attempt in range(1, 7)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_without_jitter_chance_is_not_asked() -> None:
    def chance() -> float:
        raise AssertionError("asked")

    assert Backoff(jitter=0.0).delay(1, chance) == 0.1


def test_an_attempt_past_any_float_waits_the_maximum() -> None:
    backoff = Backoff(initial=0.1, maximum=30.0, factor=10.0, jitter=0.0)
    assert backoff.delay(100_000, random.random) == 30.0
    assert Backoff(initial=0.0, jitter=0.0).delay(100_000, random.random) == 0.0


@given(
    attempt=st.integers(1, 5000),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_shortens_a_wait_and_by_no_more_than_its_share(
    attempt: int, jitter: float, chance: float
) -> None:
    whole = Backoff(jitter=0.0).delay(attempt, lambda: chance)
    wait = Backoff(jitter=jitter).delay(attempt, lambda: chance)
    assert whole * (1 - jitter) <= wait <= whole


def test_a_thousand_clients_that_failed_together_do_not_come_back_together() -> None:
    chance = random.Random(7).random  # noqa: S311 - a test's choice
    waits = [Backoff(jitter=1.0).delay(5, chance) for _ in range(1000)]
    buckets = [int(wait / 0.01) for wait in waits]
    assert max(buckets.count(bucket) for bucket in set(buckets)) <= 50


@given(chances=st.lists(st.floats(0, 1, exclude_max=True), max_size=30))
def test_decorrelated_a_wait_is_between_the_initial_and_a_multiple_of_the_last(
    chances: list[float],
) -> None:
    backoff = Backoff(initial=0.5, maximum=10.0, factor=3.0, decorrelated=True)
    last: float | None = None
    for attempt, chance in enumerate(chances, start=1):
        wait = backoff.delay(attempt, lambda chance=chance: chance, last)  # type: ignore[misc]
        ceiling = 3.0 * (0.5 if last is None else last)
        assert 0.5 <= wait <= min(10.0, ceiling) + 1e-9
        last = wait


def test_decorrelated_it_needs_no_memory_of_the_last_wait() -> None:
    backoff = Backoff(initial=1.0, maximum=10.0, factor=2.0, decorrelated=True)
    longest = [backoff.delay(attempt, lambda: 1.0) for attempt in range(1, 7)]
    assert longest == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"initial": -1.0}, "initial"),
        ({"initial": 5.0, "maximum": 1.0}, "maximum"),
        ({"maximum": float("inf")}, "maximum"),
        ({"factor": 0.5}, "factor"),
        ({"jitter": 1.5}, "jitter"),
        ({"initial": float("nan")}, "initial"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Backoff(**fields)  # type: ignore[arg-type]


def test_there_is_no_attempt_before_the_first() -> None:
    with pytest.raises(ValueError, match="attempt must be >= 1"):
        Backoff().delay(0, random.random)
