"""How near a gauge is to its limit, in three words, without flutter.

A state is entered above its share of the limit and left only 0.05 below: a gauge that
hovers around a line is not news at each reading. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MODERATE_ABOVE: Final = 0.90
SEVERE_ABOVE: Final = 0.95
HYSTERESIS: Final = 0.05

# Shares of a limit are floats: what is 0.05 below 0.95 must count as 0.90.
_TOLERANCE: Final = 1e-9


class Pressure(StrEnum):
    """Normal, moderate (go easy), severe (nothing more)."""

    NORMAL = "normal"
    MODERATE = "moderate"
    SEVERE = "severe"

    @property
    def rank(self) -> int:
        """0, 1, 2: to be compared."""
        return _RANKS[self]


_RANKS: Final = {one: rank for rank, one in enumerate(Pressure)}


def next_pressure(now: Pressure, share: float) -> Pressure:
    """The state after a reading of `share` (of the limit), given the one before it."""
    if share > SEVERE_ABOVE or (
        now is Pressure.SEVERE and not _is_left(share, SEVERE_ABOVE)
    ):
        return Pressure.SEVERE
    if share > MODERATE_ABOVE or (
        now is not Pressure.NORMAL and not _is_left(share, MODERATE_ABOVE)
    ):
        return Pressure.MODERATE
    return Pressure.NORMAL


def _is_left(share: float, above: float) -> bool:
    return share <= above - HYSTERESIS + _TOLERANCE


def worst(pressures: list[Pressure]) -> Pressure:
    """The worst of these; normal when there are none."""
    return max(pressures, key=lambda one: one.rank, default=Pressure.NORMAL)
