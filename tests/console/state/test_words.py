"""Numbers stay short, whatever they are."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden_console.state import (
    age,
    count,
    plural,
    rate,
    short_error,
    size,
    span,
    time_of_day,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3.0, "0s"),
        (59.9, "59s"),
        (60.0, "1m00"),
        (130.0, "2m10"),
        (7860.0, "2h11"),
        (3 * 86400 + 4 * 3600.0, "3d04h"),
        (400 * 86400.0, "400d"),
    ],
)
def test_an_age_names_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


@given(st.floats(min_value=0, max_value=1e9))
def test_an_age_never_outgrows_its_column(seconds: float) -> None:
    assert len(age(seconds)) <= 6


@given(st.integers(min_value=0, max_value=10**13))
def test_a_count_never_outgrows_its_column(number: int) -> None:
    assert len(count(number)) <= 6


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1200, "1.2k"), (9960, "10k"), (3_400_000, "3.4M")],
)
def test_a_count_is_rounded_to_two_digits(number: int, text: str) -> None:
    assert count(number) == text


def test_a_small_rate_keeps_a_decimal() -> None:
    assert [rate(r) for r in (0, 0.44, 9.94, 12.3)] == ["0", "0.4", "9.9", "12"]


def test_sizes_and_spans_name_their_unit() -> None:
    assert [size(s) for s in (12, 1229, 18 << 20)] == ["12 B", "1.2 KiB", "18 MiB"]
    assert [span(s) for s in (0.0004, 0.04, 2.1)] == ["0.4 ms", "40 ms", "2.1 s"]


def test_time_of_day_is_the_zone_s_and_bears_impossible_instants() -> None:
    assert time_of_day(1_767_614_675_882_000_000, UTC) == "12:04:35.882"
    assert time_of_day(1 << 90, UTC) == "??:??:??.???"


def test_one_is_singular() -> None:
    assert [plural(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("httpx.ReadTimeout: no answer", "ReadTimeout: no answer"),
        ("ValueError: a: b", "ValueError: a: b"),
        ("app.errors.Odd", "Odd"),
        ("see example.org now", "see example.org now"),
    ],
)
def test_an_error_is_named_without_the_way_to_its_class(text: str, short: str) -> None:
    assert short_error(text) == short
