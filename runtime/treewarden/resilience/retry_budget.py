"""How much extra load all callers together may make by trying again.

Each caller's three attempts are modest; three times the load on what is down is not. A
budget is a bucket that every first attempt puts a tenth of a token into and every retry
takes one out of; tokens are good for `period` seconds (Finagle's `RetryBudget`). Callers
of something that is seldom called would never get a token, so `minimum` retries a period
are granted in any case. That is the greater of the two, not their sum: where there are
enough callers, retries are at most a tenth of the first attempts, exactly.

The period is looked at in ten slots that fall out one by one, so a budget costs the same
whatever goes through it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from .bounds import check_count, check_seconds

_SLOTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetStatistics:
    """A budget as it stands: what happened in this period, and how many it refused."""

    first_attempts: int
    retries: int
    allowed: float
    refused: int


class RetryBudget:
    """At most `ratio` retries for each first attempt, counted over `period` seconds.

    Made by itself only to be shared between several `Retry`; each has one of its own
    otherwise. `ratio=math.inf` is no budget at all.
    """

    __slots__ = (
        "_first_slots",
        "_firsts",
        "_retries",
        "_retry_slots",
        "_slot",
        "_slot_ends",
        "minimum",
        "period",
        "ratio",
        "refused",
    )

    def __init__(
        self, *, ratio: float = 0.1, minimum: int = 10, period: float = 10.0
    ) -> None:
        """A budget of which nothing is used.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        if not ratio >= 0:
            raise ValueError(f"ratio must be >= 0, not {ratio}")
        check_count("minimum", minimum, 0)
        check_seconds("period", period)
        self.ratio = ratio
        self.minimum = minimum
        self.period = period
        self.refused = 0
        self._first_slots = [0] * _SLOTS
        self._retry_slots = [0] * _SLOTS
        self._firsts = self._retries = 0
        self._slot = 0
        self._slot_ends = -math.inf

    def begin(self, now: float) -> None:
        """Count a first attempt at `now`, in seconds on any monotonic clock."""
        if now >= self._slot_ends:
            self._turn(now)
        self._first_slots[self._slot] += 1
        self._firsts += 1

    def take(self, now: float) -> bool:
        """Count a retry at `now`; False when there must not be one."""
        if now >= self._slot_ends:
            self._turn(now)
        if self._retries + 1 > self._allowed:
            self.refused += 1
            return False
        self._retry_slots[self._slot] += 1
        self._retries += 1
        return True

    @property
    def _allowed(self) -> float:
        # Nothing times infinity is no number.
        share = self.ratio * self._firsts if self._firsts else 0.0
        return max(self.minimum, share)

    def _turn(self, now: float) -> None:
        """Let the slots fall out whose time has passed."""
        width = self.period / _SLOTS
        if now - self._slot_ends >= self.period:
            passed, self._slot_ends = _SLOTS, now + width
        else:
            passed = math.floor((now - self._slot_ends) / width) + 1
            self._slot_ends += passed * width
        for _ in range(passed):
            self._slot = (self._slot + 1) % _SLOTS
            self._firsts -= self._first_slots[self._slot]
            self._retries -= self._retry_slots[self._slot]
            self._first_slots[self._slot] = self._retry_slots[self._slot] = 0

    def statistics(self, now: float) -> RetryBudgetStatistics:
        """The period that ends at `now`."""
        if now >= self._slot_ends:
            self._turn(now)
        return RetryBudgetStatistics(
            first_attempts=self._firsts,
            retries=self._retries,
            allowed=self._allowed,
            refused=self.refused,
        )
