"""Limits that find themselves: how many calls at once the other side can take.

By Little's law more calls at once than it can work on only wait there. Both rules watch
how long calls take and move their limit after each. They are pure, and those of Netflix's
concurrency-limits: additive increase, multiplicative decrease, as TCP does it (`Aimd`), and
the second gradient algorithm (`Gradient2`), which compares the last call to the usual one.
"""

from __future__ import annotations

import math
from typing import Protocol

from .bounds import check_count


class AdaptiveLimit(Protocol):
    """What a bulkhead asks of a limit that changes; one object for one bulkhead."""

    @property
    def limit(self) -> int:
        """How many at once, now."""
        ...

    def sample(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """One call took `seconds` while `in_flight` ran, itself included.

        `dropped`: it was too slow, or the other side had no room for it.
        """
        ...

    def describe(self) -> str:
        """The rule for people: `aimd 1 to 200`."""
        ...


class Aimd:
    """Adds a place for a call that went well, and takes a tenth away for one that did not.

    A call went well within `latency` seconds. Nothing is added while less than half of the
    limit is used: that would say nothing about the other side.
    """

    __slots__ = ("_limit", "latency", "maximum", "minimum", "ratio")

    def __init__(
        self,
        *,
        initial: int = 20,
        minimum: int = 1,
        maximum: int = 200,
        latency: float = 5.0,
        ratio: float = 0.9,
    ) -> None:
        """Begin with `initial` places, always between `minimum` and `maximum`.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        _check_range(initial, minimum, maximum)
        if not latency > 0:
            raise ValueError(f"latency must be > 0 seconds, not {latency}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must be between 0 and 1, not {ratio}")
        self.minimum = minimum
        self.maximum = maximum
        self.latency = latency
        self.ratio = ratio
        self._limit = initial

    @property
    def limit(self) -> int:
        """How many at once, now."""
        return self._limit

    def sample(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Learn from one call."""
        if dropped or seconds > self.latency:
            self._limit = max(self.minimum, math.floor(self._limit * self.ratio))
        elif in_flight * 2 >= self._limit:
            self._limit = min(self.maximum, self._limit + 1)

    def describe(self) -> str:
        """The rule for people."""
        return f"aimd {self.minimum} to {self.maximum}"


# After so many calls the usual time is a mean no more, but moves on by its share.
_WARM_UP = 10


class Gradient2:
    """Compares each call's time to the usual one; the limit follows the ratio.

    A call may take `tolerance` times the usual time (the mean of about the last `window`
    calls) before the limit shrinks, at most by half a step. While nothing is slow it grows
    by `queue`, the calls that may as well wait on the other side. Each step goes the share
    `smoothing` of its way. A dropped call counts as a very slow one.
    """

    __slots__ = (
        "_limit",
        "_seen",
        "_usual",
        "maximum",
        "minimum",
        "queue",
        "smoothing",
        "tolerance",
        "window",
    )

    def __init__(
        self,
        *,
        initial: int = 20,
        minimum: int = 1,
        maximum: int = 200,
        tolerance: float = 1.5,
        smoothing: float = 0.2,
        queue: int = 4,
        window: int = 600,
    ) -> None:
        """Begin with `initial` places, always between `minimum` and `maximum`.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        _check_range(initial, minimum, maximum)
        if not tolerance >= 1:
            raise ValueError(f"tolerance must be >= 1, not {tolerance}")
        if not 0 < smoothing <= 1:
            raise ValueError(
                f"smoothing must be above 0 and at most 1, not {smoothing}"
            )
        check_count("queue", queue, 1)
        check_count("window", window, 1)
        self.minimum = minimum
        self.maximum = maximum
        self.tolerance = tolerance
        self.smoothing = smoothing
        self.queue = queue
        self.window = window
        self._limit = float(initial)
        self._usual = 0.0
        self._seen = 0

    @property
    def limit(self) -> int:
        """How many at once, now."""
        return int(self._limit)

    @property
    def usual(self) -> float:
        """The time that a call usually takes, in seconds."""
        return self._usual

    def sample(self, seconds: float, in_flight: int, *, dropped: bool) -> None:
        """Learn from one call."""
        if not dropped:
            self._learn(seconds)
        # Who uses less than half of the limit learns nothing about its other half.
        if not dropped and in_flight < self._limit / 2:
            return
        gradient = 0.5 if dropped else self._gradient(seconds)
        step = self._limit * gradient + self.queue * (not dropped)
        wanted = self._limit * (1 - self.smoothing) + step * self.smoothing
        self._limit = min(self.maximum, max(self.minimum, wanted))

    def _learn(self, seconds: float) -> None:
        self._seen += 1
        if self._seen <= _WARM_UP:
            self._usual += (seconds - self._usual) / self._seen
            return
        self._usual += (seconds - self._usual) * 2 / (self.window + 1)
        # After a long bad time the usual is far too high; come back sooner than the mean.
        if self._usual > 2 * seconds:
            self._usual *= 0.95

    def _gradient(self, seconds: float) -> float:
        if seconds <= 0:
            return 1.0
        return max(0.5, min(1.0, self.tolerance * self._usual / seconds))

    def describe(self) -> str:
        """The rule for people."""
        return f"gradient {self.minimum} to {self.maximum}"


def _check_range(initial: int, minimum: int, maximum: int) -> None:
    check_count("minimum", minimum, 0)
    check_count("initial", initial, 0)
    check_count("maximum", maximum, 0)
    if not 1 <= minimum <= initial <= maximum:
        raise ValueError(
            "1 <= minimum <= initial <= maximum must hold, not "
            f"{minimum}, {initial}, {maximum}"
        )
