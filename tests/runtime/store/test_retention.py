"""What is too old, by the time that has passed."""

from __future__ import annotations

import pytest

from treewarden.store import Retention
from treewarden.store.retention import DAY_NS, Horizon

WEEK_NS = 7 * DAY_NS


class Clocks:
    """A wall clock and one that only goes on, in days."""

    def __init__(self, today: float) -> None:
        self.today = today
        self.passed = 0.0

    def go_on(self, days: float) -> None:
        self.today += days
        self.passed += days

    def horizon(self, oldest: float | None) -> Horizon:
        return Horizon(
            WEEK_NS,
            None if oldest is None else int(oldest * DAY_NS),
            wall=lambda: int(self.today * DAY_NS),
            elapsed=lambda: int(self.passed * DAY_NS),
        )


def test_what_is_older_than_a_week_is_too_old() -> None:
    clocks = Clocks(today=100)
    horizon = clocks.horizon(oldest=93)
    assert horizon.before_ns() == 93 * DAY_NS
    clocks.go_on(3)
    assert horizon.before_ns() == 96 * DAY_NS


def test_a_clock_that_jumps_ahead_while_the_runtime_runs_makes_nothing_older() -> None:
    clocks = Clocks(today=100)
    horizon = clocks.horizon(oldest=94)
    clocks.today += 30
    assert horizon.before_ns() == 93 * DAY_NS


def test_a_clock_that_was_ahead_at_the_start_costs_no_history() -> None:
    """A16, B9: not a young history either, and not one that sees many such starts."""
    clocks = Clocks(today=130)
    assert clocks.horizon(oldest=93).before_ns() == 93 * DAY_NS
    assert clocks.horizon(oldest=99.9).before_ns() == int(99.9 * DAY_NS)


def test_what_a_long_pause_has_left_goes_within_as_long_again() -> None:
    clocks = Clocks(today=130)
    horizon = clocks.horizon(oldest=93)
    clocks.go_on(30)
    assert horizon.before_ns() == 153 * DAY_NS == (clocks.today - 7) * DAY_NS


def test_a_clock_that_was_set_back_makes_nothing_older() -> None:
    clocks = Clocks(today=70)
    assert clocks.horizon(oldest=93).before_ns() == 63 * DAY_NS


def test_an_empty_history_has_nothing_to_keep() -> None:
    assert Clocks(today=100).horizon(oldest=None).before_ns() == 93 * DAY_NS


@pytest.mark.parametrize("wrong", [{"days": 0.0}, {"journal_bytes": 1000}])
def test_a_retention_that_keeps_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retention(**wrong)  # type: ignore[arg-type]
