"""Limits that find themselves."""

from __future__ import annotations

import random

import pytest

from treewarden.resilience import AdaptiveLimit, Aimd, Gradient2


def serve(limit: AdaptiveLimit, *, capacity: int, calls: int, seed: int = 1) -> None:
    """A server that works on `capacity` calls at once and lets the others wait."""
    chance = random.Random(seed)  # noqa: S311 - a test's choice
    for _ in range(calls):
        waiting = max(0, limit.limit - capacity)
        took = 0.1 * (1 + waiting / capacity) * chance.uniform(0.9, 1.1)
        limit.sample(took, limit.limit, dropped=waiting > 2 * capacity)


def test_additive_increase() -> None:
    limit = Aimd(initial=10)
    for _ in range(5):
        limit.sample(0.1, 10, dropped=False)
    assert limit.limit == 15


@pytest.mark.parametrize("dropped", [True, False])
def test_multiplicative_decrease(dropped: bool) -> None:
    limit = Aimd(initial=100, latency=1.0)
    limit.sample(0.5 if dropped else 1.5, 100, dropped=dropped)
    assert limit.limit == 90


@pytest.mark.parametrize("limit", [Aimd(initial=20), Gradient2(initial=20)])
def test_who_uses_little_learns_nothing_about_the_rest(limit: AdaptiveLimit) -> None:
    for _ in range(100):
        limit.sample(0.1, 3, dropped=False)
    assert limit.limit == 20


@pytest.mark.parametrize(
    "limit",
    [
        Aimd(initial=20, minimum=5, maximum=30),
        Gradient2(initial=20, minimum=5, maximum=30),
    ],
)
def test_it_stays_between_its_bounds(limit: AdaptiveLimit) -> None:
    for _ in range(200):
        limit.sample(0.1, 30, dropped=False)
    assert limit.limit == 30
    for _ in range(200):
        limit.sample(0.1, 30, dropped=True)
    assert limit.limit == 5


@pytest.mark.parametrize("capacity", [15, 60])
def test_a_gradient_finds_about_what_the_other_side_can_take(capacity: int) -> None:
    limit = Gradient2(initial=20, window=100)
    serve(limit, capacity=capacity, calls=5000)
    assert 0.8 * capacity <= limit.limit <= 3 * capacity


def test_a_gradient_gives_way_when_the_other_side_gets_slower() -> None:
    limit = Gradient2(initial=20, maximum=50)
    for _ in range(500):
        limit.sample(0.1, limit.limit, dropped=False)
    assert limit.limit == 50
    for _ in range(30):
        limit.sample(1.0, limit.limit, dropped=False)
    assert limit.limit < 25


def test_after_a_bad_time_the_usual_comes_back_sooner_than_the_mean() -> None:
    limit = Gradient2(window=600)
    for _ in range(100):
        limit.sample(5.0, 20, dropped=False)
    for _ in range(100):
        limit.sample(0.1, 20, dropped=False)
    assert limit.usual < 0.25


def test_a_call_that_took_no_time_is_not_divided_by() -> None:
    limit = Gradient2()
    limit.sample(0.0, 20, dropped=False)
    assert limit.limit == 20


@pytest.mark.parametrize("kind", [Aimd, Gradient2])
@pytest.mark.parametrize(
    "fields",
    [{"minimum": 0}, {"initial": 300}, {"minimum": 30}, {"maximum": 10}],
)
def test_bounds_that_make_no_sense_are_refused(
    kind: type[Aimd | Gradient2], fields: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="minimum <= initial <= maximum"):
        kind(**fields)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Aimd, {"ratio": 1.0}),
        (Aimd, {"latency": 0.0}),
        (Gradient2, {"tolerance": 0.5}),
        (Gradient2, {"smoothing": 0.0}),
        (Gradient2, {"queue": 0}),
        (Gradient2, {"window": 0}),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(
    kind: type[Aimd | Gradient2], fields: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        kind(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["queue", "window"])
def test_what_would_make_the_limit_no_number_is_refused(field: str) -> None:
    with pytest.raises(TypeError, match=f"{field} must be an int, not nan"):
        Gradient2(**{field: float("nan")})  # type: ignore[arg-type] # what is tested
