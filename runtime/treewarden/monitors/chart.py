"""What is known of the health of one subject, and when to look again; pure.

A check answers with a `Reading`, raises, or does not answer in time. One that raises says
nothing about the subject, so the subject is unknown, never assumed to be well; when it goes
on raising, that is a finding: nobody can tell, and that is not healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from treewarden.supervision import Intensity

# A subject in trouble is looked at more often, so that its recovery is seen (HAProxy's
# `fastinter`); one whose check is broken less often.
_SOON: Final = 5.0
_BROKEN: Final = 60.0
_REASON_LIMIT: Final = 200

# As many failures in a row as a supervisor takes: the next one is one too many.
_FAILURES: Final = Intensity().limit


class HealthStatus(StrEnum):
    """How a subject is."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNRESPONSIVE = "unresponsive"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a probe answers; a status may also be said by its word."""

    status: HealthStatus = HealthStatus.HEALTHY
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no finding, in the probe that made it up."""
        object.__setattr__(self, "status", HealthStatus(self.status))
        if not isinstance(self.reason, str):
            raise TypeError(f"a reason must be a str, not {self.reason!r}")


class Chart:
    """One subject's status since when, counters, and `due`: when to look next."""

    __slots__ = ("checks", "due", "failures", "failures_in_a_row", "interval", "late", "reason",
                 "since", "status")  # fmt: skip

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self.status = HealthStatus.UNKNOWN
        self.reason = "not checked yet"
        self.since = self.due = now
        self.checks = self.failures = self.late = self.failures_in_a_row = 0

    def answered(self, reading: Reading, now: float) -> None:
        """The check came to a finding."""
        self.failures_in_a_row = 0
        self._enter(reading.status, reading.reason, now)
        well = reading.status is HealthStatus.HEALTHY
        self.due = now + (self.interval if well else min(self.interval, _SOON))

    def failed(self, why: str, now: float) -> None:
        """The check raised, or answered with what is no reading."""
        self.failures += 1
        self.failures_in_a_row += 1
        if self.failures_in_a_row <= _FAILURES:
            self._enter(HealthStatus.UNKNOWN, why, now)
            self.due = now + min(self.interval, _SOON)
        else:
            self._enter(HealthStatus.UNHEALTHY, f"check_failing: {why}", now)
            self.due = now + max(self.interval, _BROKEN)

    def missed(self, seconds: float, now: float) -> None:
        """The check did not answer in its `seconds`."""
        self.late += 1
        late = Reading(
            status=HealthStatus.UNRESPONSIVE, reason=f"no answer in {seconds:g} s"
        )
        self.answered(late, now)

    def _enter(self, status: HealthStatus, reason: str, now: float) -> None:
        self.checks += 1
        self.reason = reason[:_REASON_LIMIT]
        if status is not self.status:
            self.status = status
            self.since = now
