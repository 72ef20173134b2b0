"""How much extra load all callers together may make by trying again."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.resilience import RetryBudget


def test_a_tenth_of_the_first_attempts_may_be_tried_again() -> None:
    budget = RetryBudget(ratio=0.1, minimum=0, period=10.0)
    for _ in range(100):
        budget.begin(0.0)
    assert [budget.take(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.statistics(0.0).refused == 2


def test_who_is_seldom_called_has_the_minimum_and_not_both() -> None:
    budget = RetryBudget(ratio=0.1, minimum=5, period=10.0)
    for _ in range(40):
        budget.begin(0.0)
    assert sum(budget.take(0.0) for _ in range(20)) == 5


def test_what_was_not_used_in_its_period_is_gone() -> None:
    budget = RetryBudget(ratio=0.1, minimum=0, period=10.0)
    for _ in range(1000):
        budget.begin(0.0)
    assert not budget.take(10.0)
    assert budget.statistics(10.0).first_attempts == 0


def test_what_was_used_comes_back_after_its_period() -> None:
    budget = RetryBudget(ratio=0.0, minimum=3, period=10.0)
    assert [budget.take(0.0) for _ in range(4)] == [True] * 3 + [False]
    assert not budget.take(8.9)
    assert [budget.take(10.0) for _ in range(4)] == [True] * 3 + [False]


def test_without_a_ratio_there_is_no_budget() -> None:
    budget = RetryBudget(ratio=math.inf, minimum=0)
    assert not budget.take(0.0)
    budget.begin(0.0)
    assert all(budget.take(0.0) for _ in range(10_000))


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 3.0), st.integers(0, 30), st.integers(0, 5)), max_size=60
    ),
    ratio=st.sampled_from([0.1, 0.5]),
)
def test_over_any_time_retries_are_no_more_than_their_share(
    steps: list[tuple[float, int, int]], ratio: float
) -> None:
    budget = RetryBudget(ratio=ratio, minimum=0, period=5.0)
    now, firsts, retries = 0.0, 0, 0
    for seconds, begun, failed in steps:
        now += seconds
        for _ in range(begun):
            budget.begin(now)
        firsts += begun
        retries += sum(budget.take(now) for _ in range(failed))
        assert retries <= ratio * firsts


def test_a_budget_is_as_large_after_a_million_calls_as_before() -> None:
    budget, chance = RetryBudget(), random.Random(5)  # noqa: S311 - a test's choice
    for second in range(100_000):
        budget.begin(second * chance.random())
    assert len(budget._first_slots) == len(budget._retry_slots) == 10


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"ratio": -0.1}, "ratio"),
        ({"ratio": math.nan}, "ratio"),
        ({"minimum": -1}, "minimum"),
        ({"period": 0.0}, "period"),
        ({"period": math.inf}, "period"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        RetryBudget(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("minimum", [math.nan, 2.5, True])
def test_a_minimum_that_is_no_number_of_retries_is_refused(minimum: float) -> None:
    """With NaN every retry was granted."""
    with pytest.raises(TypeError, match=f"minimum must be an int, not {minimum}"):
        RetryBudget(minimum=minimum)  # type: ignore[arg-type] # what is tested
