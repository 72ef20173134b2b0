"""Spans as plain tuples: what happened, when, and because of what.

A span of the OpenTelemetry SDK costs three times a whole call, so the hot path appends a
tuple to a bounded buffer and the exporter makes the SDK's spans of it later, off the
trio thread. Identity follows the W3C Trace Context recommendation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from treewarden.ids import random_bits

from .buffer import Buffer

AttributeValue: TypeAlias = str | int | float | bool
Attributes: TypeAlias = Mapping[str, AttributeValue]

NO_ATTRIBUTES: Final[Attributes] = {}

# A burst of 10,000 spans goes through whole; a full buffer is some 10 MB.
SPAN_CAPACITY: Final = 16_384

_TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


class SpanContext(NamedTuple):
    """Which span, of which trace: 128 and 64 random bits, never zero."""

    trace_id: int
    span_id: int

    @property
    def trace_hex(self) -> str:
        """The trace id as 32 hexadecimal digits."""
        return f"{self.trace_id:032x}"

    @property
    def span_hex(self) -> str:
        """The span id as 16 hexadecimal digits."""
        return f"{self.span_id:016x}"

    def traceparent(self) -> str:
        """The `traceparent` header that hands this span to another process."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"

    @classmethod
    def from_traceparent(cls, header: str) -> SpanContext | None:
        """The span that a `traceparent` header names; None when it is not a valid one."""
        found = _TRACEPARENT.fullmatch(header.strip())
        if found is None or found[1] == "ff" or (found[1] == "00" and found[4]):
            return None
        context = cls(int(found[2], 16), int(found[3], 16))
        return context if all(context) else None


current: ContextVar[SpanContext | None] = ContextVar("treewarden_span", default=None)
"""The span that the running task works for, or None."""


def new_context(parent: SpanContext | None = None) -> SpanContext:
    """A fresh span id in the trace of `parent`, or in a trace of its own."""
    if parent is None:
        return SpanContext(random_bits(128), random_bits(64))
    return SpanContext(parent[0], random_bits(64))


class SpanKind(StrEnum):
    """Which side of a conversation a span is."""

    INTERNAL = "internal"
    CONSUMER = "consumer"
    PRODUCER = "producer"
    CLIENT = "client"


class Span(NamedTuple):
    """One finished span; instants are nanoseconds since the epoch.

    `parent` is in the same trace; `links` name what caused it from other traces.
    `error` is None when it went well, else one line that says what did not.
    """

    name: str
    context: SpanContext
    parent: SpanContext | None
    started_ns: int
    ended_ns: int
    kind: SpanKind
    attributes: Attributes
    links: tuple[SpanContext, ...]
    error: str | None


class Spans(Buffer[Span]):
    """Finished spans on their way to the exporter; look at `enabled` before recording."""

    __slots__ = ()

    def __init__(self, *, enabled: bool, capacity: int = SPAN_CAPACITY) -> None:
        super().__init__(capacity, enabled=enabled)

    def record(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        started_ns: int,
        ended_ns: int,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = NO_ATTRIBUTES,
        links: tuple[SpanContext, ...] = (),
        error: str | None = None,
    ) -> None:
        """Append a finished span, or count it as dropped when the buffer is full.

        Keep `attributes` unchanged afterwards: it is not copied, so spans may share one.
        """
        waiting = self._waiting
        if len(waiting) >= self.capacity:
            self.drop()
            return
        waiting.append(
            # Through tuple.__new__: Span(...) takes 0.08 µs longer.
            tuple.__new__(
                Span,
                (
                    name,
                    context,
                    parent,
                    started_ns,
                    ended_ns,
                    kind,
                    attributes,
                    links,
                    error,
                ),
            )
        )
