"""How many restarts a supervisor tolerates before it gives up.

A crash loop must not look like health. When a child has been restarted more often
than its budget allows, the fault is not local to the child: the supervisor fails
too, and its own parent decides. The idea and the numbers' shape are OTP's
(`intensity` and `period`); the window is exact in float seconds on a monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

# Restarts that a window keeps in a list: half a microsecond to move.
_MANY: Final = 1_000


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


@dataclass(slots=True)
class RestartWindow:
    """The restarts that still count against a budget; time is passed in.

    Memory is bounded by `limit + 1` entries, however long it lives.
    """

    budget: Intensity
    # A list: an empty deque is 760 bytes, and every child may have a budget. But what
    # leaves a list moves all that is behind it, which a large budget would pay for.
    _at: list[tuple[float, str]] | deque[tuple[float, str]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with all of the budget."""
        self._at = [] if self.budget.limit < _MANY else deque()

    def admit(self, now: float, child: str = "") -> bool:
        """Count a restart of `child` at `now` (seconds); False: the budget is spent."""
        self._prune(now)
        self._at.append((now, child))
        if len(self._at) <= self.budget.limit:
            return True
        # The newest limit + 1 say the same as all of them would.
        while len(self._at) > self.budget.limit + 1:
            del self._at[0]
        return False

    def spent(self, now: float) -> int:
        """How many restarts count at `now`."""
        self._prune(now)
        return len(self._at)

    def children(self) -> tuple[str, ...]:
        """Whose restarts are counted, oldest first."""
        return tuple(child for _, child in self._at)

    def _prune(self, now: float) -> None:
        # A restart exactly `period` old still counts: OTP draws the line there too.
        while self._at and now - self._at[0][0] > self.budget.period:
            del self._at[0]
