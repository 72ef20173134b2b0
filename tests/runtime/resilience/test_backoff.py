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
        Backoff(**fields)


def test_there_is_no_attempt_before_the_first() -> None:
    with pytest.raises(ValueError, match="attempt must be >= 1"):
        Backoff().delay(0, random.random)
