"""What telemetry hears of an agent's messages: a span and two durations for each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import treewarden.telemetry as tracing

if TYPE_CHECKING:
    from treewarden.store import StagedEvent
    from treewarden.telemetry import Telemetry

    from .body import AgentBody
    from .envelope import Envelope


def trace_id() -> str:
    """Of the message in hand; "" when it is not traced."""
    context = tracing.current.get()
    return context.trace_hex if context is not None else ""


def begin_span(envelope: Envelope) -> int:
    """Its handler begins; at what instant."""
    tracing.current.set(tracing.new_context(envelope.trace))
    return time.time_ns()


def end_span(body: AgentBody, envelope: Envelope, started: int, error: str) -> None:
    """Its handler, begun at `started`, is through, or has failed with `error`."""
    telemetry = body.surroundings.telemetry
    context = tracing.current.get()
    if telemetry is None or context is None:
        return
    ended = time.time_ns()
    _measure(body, telemetry, envelope, started, ended)
    telemetry.spans.record(
        f"{body.agent_class.name}.{envelope.operation.name}",
        context,
        envelope.trace,
        started,
        ended,
        tracing.SpanKind.CONSUMER,
        {
            "treewarden.path": body.node.path,
            "treewarden.incarnation": body.node.incarnation,
        },
        (),
        error or None,
    )
    tracing.current.set(None)


def _measure(
    body: AgentBody, telemetry: Telemetry, envelope: Envelope, started: int, ended: int
) -> None:
    if body.histograms is None:
        attributes = {"agent": body.agent_class.name}
        make = telemetry.metrics.histogram
        body.histograms = (
            make(tracing.HANDLER_DURATION, "s", tracing.DURATION_BOUNDS, attributes),
            make(tracing.MAILBOX_WAIT, "s", tracing.DURATION_BOUNDS, attributes),
        )
    handling, waiting = body.histograms
    handling.record((ended - started) / 1e9)
    if envelope.sent_at_ns:
        waiting.record((started - envelope.sent_at_ns) / 1e9)


def record_publish(telemetry: Telemetry | None, event: StagedEvent) -> None:
    """A staged event is committed and leaves."""
    if telemetry is not None and telemetry.spans.enabled:
        telemetry.spans.record(
            f"publish {event.topic}",
            tracing.new_context(),
            None,
            event.at_ns,
            time.time_ns(),
            tracing.SpanKind.PRODUCER,
            {"treewarden.path": event.source, "messaging.position": event.position},
        )
