"""Log records as plain tuples: what happened, how bad it is, and in which trace.

They carry the supervision reports to a collector. What takes time to put into words is
left to the thread that takes it out. Nothing here touches Python's logging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple, TypeAlias, TypeVar

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
    """One thing that happened at `at_ns`, nanoseconds since the epoch.

    A `context` without a span id names the trace alone. `event` is the name of its kind.
    """

    severity: Severity
    body: str
    attributes: Attributes
    at_ns: int
    context: SpanContext | None
    event: str = ""


Subject = TypeVar("Subject")
Unwritten: TypeAlias = Callable[[], LogRecord]


class Logs(Buffer[LogRecord | Unwritten]):
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

    def defer(self, write: Callable[[Subject], LogRecord], subject: Subject) -> None:
        """Append what `write` will make of `subject`, an immutable record, when taken.

        It runs in the exporter's thread. When it raises, the record counts as dropped.
        """
        self.add(partial(write, subject))

    def written(self, taken: Iterable[LogRecord | Unwritten]) -> Iterator[LogRecord]:
        """What was taken, put into words one after another."""
        for record in taken:
            found = self._write(record)
            if found is not None:
                yield found

    def _write(self, record: LogRecord | Unwritten) -> LogRecord | None:
        if isinstance(record, LogRecord):
            return record
        try:
            return record()
        except Exception:  # noqa: BLE001 - one bad report must not cost its slice
            self._taken -= 1
            self.drop()
            return None
