"""Log records as plain tuples: what happened, how bad it is, and in which trace.

They carry the supervision reports to a collector. Nothing here touches Python's logging.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from treewarden.clock import wall_ns

from .buffer import Buffer
from .spans import NO_ATTRIBUTES, Attributes, SpanContext, current

# Supervision reports are rare next to spans: room for 8,000 a second between two looks.
LOG_CAPACITY: Final = 2_048


class Severity(StrEnum):
    """How bad it is, in OpenTelemetry's words."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"


class LogRecord(NamedTuple):
    """One thing that happened at `at_ns`, nanoseconds since the epoch."""

    severity: Severity
    body: str
    attributes: Attributes
    at_ns: int
    context: SpanContext | None


class Logs(Buffer[LogRecord]):
    """Log records on their way to the exporter; look at `enabled` before recording."""

    __slots__ = ()

    def __init__(self, *, enabled: bool, capacity: int = LOG_CAPACITY) -> None:
        super().__init__(capacity, enabled=enabled)

    def record(
        self,
        severity: Severity,
        body: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        at_ns: int | None = None,
        context: SpanContext | None = None,
    ) -> None:
        """Append a record, or count it as dropped; by default of now, in `current`."""
        self.add(
            LogRecord(
                severity,
                body,
                attributes,
                wall_ns() if at_ns is None else at_ns,
                current.get() if context is None else context,
            )
        )
