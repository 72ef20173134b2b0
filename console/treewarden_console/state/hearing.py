"""How true the picture is: when the runtime was last heard of, and what was lost."""

from __future__ import annotations

from enum import StrEnum

SILENCE = 3.0
"""Seconds without a word that mean STALE; the process topic speaks ten times a second."""
LAGGING = 5.0
"""Seconds for which lost updates are told in the header."""


class Standing(StrEnum):
    """How true the picture is, in one word."""

    CONNECTING = "CONNECTING"
    LIVE = "LIVE"
    HELD = "HELD"
    LAGGING = "LAGGING"
    STALE = "STALE"


class Hearing:
    """The state of the link as the operator needs it; times are monotonic seconds."""

    def __init__(self) -> None:
        self.connected = False
        self.why = ""
        self.lost = 0
        self.ended_at: float | None = None
        self._heard_at: float | None = None
        self._lost_at: float | None = None

    def begin(self, now: float) -> None:
        """A session began."""
        self.connected, self.why = True, ""
        self.ended_at, self._heard_at = None, now

    def end(self, why: str, now: float) -> None:
        """The session ended, or could not be begun."""
        if self.connected:
            self.ended_at = now
        self.connected, self.why = False, why

    def heard(self, now: float, lost: int = 0) -> None:
        """A notice came; `lost` updates before it did not."""
        self._heard_at = now
        if lost:
            self.lost += lost
            self._lost_at = now

    def silent(self, now: float) -> float:
        """Seconds since the runtime was last heard of."""
        return 0.0 if self._heard_at is None else max(0.0, now - self._heard_at)

    def standing(self, now: float, *, held: bool = False) -> Standing:
        """How true the picture is; what is wrong wins over what is wanted."""
        if self._heard_at is None:
            return Standing.CONNECTING
        if not self.connected or self.silent(now) > SILENCE:
            return Standing.STALE
        if held:
            return Standing.HELD
        if self._lost_at is not None and now - self._lost_at < LAGGING:
            return Standing.LAGGING
        return Standing.LIVE
