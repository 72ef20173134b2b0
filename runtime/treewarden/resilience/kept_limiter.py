"""What is kept of a limiter, so that a restart does not hand out everything again.

Between two processes there is only the wall clock, and it may have been set meanwhile. Put
back, nothing gets older by it, and a permit is held back for longer than it need be, but
never for longer than its whole time; put forward, some are given too early.
"""

from __future__ import annotations

import math

import msgspec


class KeptLane(msgspec.Struct, frozen=True):
    """One key: seconds to be left alone, and (age in seconds, weight) of what is used."""

    penalty: float
    taken: list[tuple[float, int]]


class KeptLimiter(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at the wall time `at_ns`, with the limit that it had.

    `period` is that limit's, in seconds; who did not say has one without an end.
    """

    at_ns: int
    limit: str
    keys: dict[str, KeptLane]
    period: float = math.inf

    def passed(self, now_ns: int) -> float:
        """Seconds since then by the wall clock; never below 0.0."""
        return max(0.0, (now_ns - self.at_ns) / 1e9)


def encode(kept: KeptLimiter) -> bytes:
    """As JSON, for the store."""
    return msgspec.json.encode(kept)


def decode(text: bytes) -> KeptLimiter | None:
    """What was kept; None when no version of ours has written this."""
    try:
        return msgspec.json.decode(text, type=KeptLimiter)
    except msgspec.DecodeError:
        return None


def limiter_is_over(text: bytes, now_ns: int) -> bool:
    """Whether a fresh limiter would do the same: time has given everything back."""
    kept = decode(text)
    if kept is None:
        return False
    return kept.passed(now_ns) >= _time_to_recover(kept)


def _time_to_recover(kept: KeptLimiter) -> float:
    # An age below 0 is a debt (`Rule.dump`).
    debts = (-age for lane in kept.keys.values() for age, _ in lane.taken)
    penalties = (lane.penalty for lane in kept.keys.values())
    return max(0.0, kept.period, *debts, *penalties)
