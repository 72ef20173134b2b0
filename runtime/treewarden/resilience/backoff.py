"""How long to wait before the next attempt.

Exponential growth to a ceiling, with the chance of "full jitter" (Marc Brooker,
"Exponential Backoff And Jitter", AWS, 2015) set by `jitter`, or its "decorrelated" rule:
many clients that failed together must not come back together. The rule is pure: the
attempt and a number from a source of chance go in, seconds come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bounds import check_number

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits in seconds that begin at `initial`, grow by `factor`, end at `maximum`.

    `jitter` is the share of a wait that is left to chance: 0.0 always waits the whole
    of it, 1.0 waits anything between nothing and the whole. A `decorrelated` one leaves
    more to chance: anything between `initial` and `factor` times the wait before.
    """

    initial: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    decorrelated: bool = False

    def __post_init__(self) -> None:
        """Refuse what could wait for ever, or not at all by mistake."""
        for name in ("initial", "maximum", "factor", "jitter"):
            check_number(name, getattr(self, name))
        if not isinstance(self.decorrelated, bool):
            raise TypeError(
                f"decorrelated must be True or False, not {self.decorrelated!r}"
            )
        if not (math.isfinite(self.initial) and self.initial >= 0):
            raise ValueError(f"initial must be >= 0 seconds, not {self.initial}")
        if not (math.isfinite(self.maximum) and self.maximum >= self.initial):
            raise ValueError(
                f"maximum must be >= initial ({self.initial:g} seconds)"
                f" and finite, not {self.maximum}"
            )
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"factor must be >= 1, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, not {self.jitter}")

    def delay(
        self,
        attempt: int,
        random: Callable[[], float],
        previous: float | None = None,
    ) -> float:
        """Seconds to wait before attempt `attempt`; 1 is the first one after a failure.

        `random` returns a number in [0, 1), like `random.random`; it is asked only when
        there is jitter. `previous` is the wait before this one, which only a decorrelated
        backoff asks for; None takes the longest that it can have been.
        """
        if attempt < 1:
            raise ValueError(f"attempt must be >= 1, not {attempt}")
        if self.decorrelated:
            return self._decorrelated(attempt, random, previous)
        whole = self._whole(attempt - 1)
        return whole if not self.jitter else whole * (1 - self.jitter * random())

    def _decorrelated(
        self, attempt: int, random: Callable[[], float], previous: float | None
    ) -> float:
        if previous is None:
            previous = self._whole(attempt - 1)
        ceiling = max(self.initial, previous * self.factor)
        return min(self.maximum, self.initial + (ceiling - self.initial) * random())

    def _whole(self, steps: int) -> float:
        try:
            return min(self.maximum, self.initial * self.factor**steps)
        except OverflowError:
            # The thousandth attempt is past any float, and long past the ceiling.
            return self.maximum if self.initial else 0.0
