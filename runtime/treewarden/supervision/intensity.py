"""How many restarts a supervisor tolerates before it gives up.

A crash loop must not look like health. When a child has been restarted more often
than its budget allows, the fault is not local to the child: the supervisor fails
too, and its own parent decides. The idea and the numbers' shape are OTP's
(`intensity` and `period`); the window is exact in float seconds on a monotonic clock.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intensity:
    """A restart budget: at most `limit` restarts in any `period` seconds."""

    limit: int = 3
    period: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        if isinstance(self.limit, bool) or not isinstance(self.limit, int):
            raise TypeError(f"limit must be an int, not {self.limit!r}")
        if self.limit < 0:
            raise ValueError(f"limit must be >= 0, not {self.limit}")
        if isinstance(self.period, bool) or not isinstance(self.period, (int, float)):
            raise TypeError(f"period must be a number of seconds, not {self.period!r}")
        if not 0 < self.period < math.inf:
            raise ValueError(f"period must be > 0 and finite, not {self.period}")


class RestartWindow:
    """The restarts that still count against a budget; time is passed in.

    Memory is bounded by twice as many as count, which are never more than `limit + 1`,
    however long it lives.
    """

    # Side by side, and what is too old is cut off in pieces: a budget may be of a million
    # restarts, and what has long lain somewhere in memory takes time to be looked at.
    __slots__ = ("_children", "_first", "_seen_at", "_times", "budget")

    def __init__(self, budget: Intensity) -> None:
        self.budget = budget
        self._times = array("d")
        self._children: list[str] = []
        # The first that counts, as of when; those before it are to be cut off.
        self._first = 0
        self._seen_at = -math.inf

    def admit(self, now: float, child: str = "") -> bool:
        """Count a restart of `child` at `now` (seconds); False: the budget is spent."""
        self._prune(now)
        self._times.append(now)
        self._children.append(child)
        over = len(self._times) - self._first - self.budget.limit
        if over <= 0:
            return True
        # The newest limit + 1 say the same as all of them would.
        self._forget(over - 1)
        return False

    def change(self, budget: Intensity) -> None:
        """Another budget from now on; what was counted counts against it."""
        self.budget = budget
        self._seen_at = -math.inf

    def spent(self, now: float) -> int:
        """How many restarts count at `now`."""
        self._prune(now)
        return len(self._times) - self._first

    def children(self) -> tuple[str, ...]:
        """Whose restarts are counted, oldest first."""
        return tuple(self._children[self._first :])

    def _prune(self, now: float) -> None:
        if now == self._seen_at:
            return  # A restart asks three times in one moment.
        self._seen_at = now
        # A restart exactly `period` old still counts: OTP draws the line there too.
        times, first, period = self._times, self._first, self.budget.period
        while first < len(times) and now - times[first] > period:
            first += 1
        if first != self._first:
            self._forget(first - self._first)

    def _forget(self, count: int) -> None:
        self._first = first = self._first + count
        if 2 * first > len(self._times):
            del self._times[:first], self._children[:first]
            self._first = 0
