from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treewarden.monitors import Pressure
from treewarden.monitors.pressure import next_pressure

NORMAL, MODERATE, SEVERE = Pressure
SHARES = st.floats(0.0, 2.0)


def test_a_state_is_entered_above_its_line_and_left_005_below() -> None:
    """S33: 0.9 and 0.95, with hysteresis."""
    shares = [0.90, 0.91, 0.95, 0.96, 0.94, 0.901, 0.90, 0.86, 0.85, 0.90]
    seen, now = [], NORMAL
    for share in shares:
        now = next_pressure(now, share)
        seen.append(now)
    severe, moderate = [SEVERE] * 3, [MODERATE] * 2
    assert seen == [NORMAL, *moderate, *severe, *moderate, NORMAL, NORMAL]


@given(st.lists(SHARES, max_size=30))
def test_hovering_within_the_hysteresis_is_at_most_one_change(
    shares: list[float],
) -> None:
    around = [0.951 - 0.04 * (share / 2.0) for share in shares]
    changes, now = 0, NORMAL
    for share in around:
        was, now = now, next_pressure(now, share)
        changes += was is not now
    assert changes <= 2


@given(st.sampled_from(Pressure), SHARES)
def test_a_verdict_is_never_milder_than_the_share_alone(
    before: Pressure, share: float
) -> None:
    assert next_pressure(before, share).rank >= next_pressure(NORMAL, share).rank
    assert next_pressure(before, share).rank <= max(
        before.rank, next_pressure(NORMAL, share).rank
    )
