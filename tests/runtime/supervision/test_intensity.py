from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewarden.supervision import (
    Application,
    DynamicSupervisorSpec,
    Intensity,
    RestartWindow,
    SupervisorSpec,
)


def test_the_default_budget_is_three_restarts_in_five_seconds() -> None:
    """INT-13, pitfall 12"""
    assert Intensity() == Intensity(3, 5.0)
    assert Intensity(limit=3, period=5.0) == Intensity()
    dynamic = DynamicSupervisorSpec()
    for budget in (
        SupervisorSpec().intensity,
        Application("app", []).intensity,
        dynamic.intensity,
        dynamic.child_intensity,
    ):
        assert budget == Intensity(3, 5.0)


def test_a_budget_of_three_is_spent_by_the_fourth_restart_within_the_period() -> None:
    """Pitfall 6"""
    window = RestartWindow(Intensity(3, 5.0))
    assert [window.admit(now) for now in (0.0, 1.0, 2.0, 3.0)] == [True] * 3 + [False]


def test_a_budget_of_zero_is_spent_by_the_first_restart() -> None:
    """INT-03, G1"""
    assert not RestartWindow(Intensity(0, 5.0)).admit(0.0)


@pytest.mark.parametrize(
    ("second", "lives"),
    [(0.9, False), (1.0 - 1e-9, False), (1.0, False), (1.0 + 1e-9, True), (1.9, True)],
)
def test_a_restart_counts_until_it_is_older_than_the_period(
    second: float, lives: bool
) -> None:
    """INT-04, G2, pitfall 6: OTP's comparison, but exact where OTP cuts to whole seconds."""
    window = RestartWindow(Intensity(1, 1.0))
    assert window.admit(0.0)
    assert window.admit(second) is lives


def test_only_time_wins_a_budget_back() -> None:
    """INT-18"""
    window = RestartWindow(Intensity(2, 10.0))
    assert window.admit(0.0)
    assert window.admit(9.0)
    assert window.spent(10.0) == 2
    assert window.spent(10.5) == 1
    assert window.admit(10.5)
    assert not window.admit(10.6)


def test_ten_thousand_spaced_restarts_leave_no_more_than_the_limit_behind() -> None:
    """INT-14"""
    window = RestartWindow(Intensity(3, 5.0))
    for number in range(10_000):
        window.admit(number * 1.5)
        assert len(window.children()) <= 4


def test_restarts_over_the_limit_are_not_kept_either() -> None:
    """INT-14, pitfall 11: an operator may go on restarting a child that spent its own budget."""
    window = RestartWindow(Intensity(3, 5.0))
    for _ in range(10_000):
        window.admit(0.0)
    assert len(window.children()) == 4


def test_the_window_names_whose_restarts_it_counts() -> None:
    window = RestartWindow(Intensity(3, 5.0))
    window.admit(0.0, "a")
    window.admit(4.0, "b")
    window.admit(6.0, "c")
    assert window.children() == ("b", "c")


@settings(deadline=None)
@given(
    limit=st.sampled_from([0, 1, 2, 3, 5, 100_000]),
    period=st.sampled_from([0.5, 1.0, 3.0]),
    steps=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.0]), max_size=40),
)
def test_the_window_agrees_with_counting_the_whole_history(
    limit: int, period: float, steps: list[float]
) -> None:
    window, history, now = RestartWindow(Intensity(limit, period)), [], 0.0
    for step in steps:
        now += step
        history.append(now)
        recent = sum(now - at <= period for at in history)
        assert window.admit(now) is (recent <= limit)
        assert window.spent(now) == min(recent, limit + 1)


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ({"limit": -1}, ValueError),
        ({"limit": True}, TypeError),
        ({"limit": 1.0}, TypeError),
        ({"limit": math.inf}, TypeError),
        ({"limit": "3"}, TypeError),
        ({"period": 0}, ValueError),
        ({"period": -1.0}, ValueError),
        ({"period": math.inf}, ValueError),
        ({"period": math.nan}, ValueError),
        ({"period": True}, TypeError),
        ({"period": "5"}, TypeError),
    ],
)
def test_what_is_no_budget_is_refused_by_name_and_value(
    field: dict[str, Any], error: type[Exception]
) -> None:
    """INT-12"""
    [(name, value)] = field.items()
    with pytest.raises(error, match=name) as caught:
        Intensity(**field)
    assert str(value) in str(caught.value)


def test_a_period_may_be_a_fraction_or_a_whole_number_of_seconds() -> None:
    """INT-12"""
    assert Intensity(1, 0.25).period == 0.25
    assert Intensity(1, 2).period == 2
