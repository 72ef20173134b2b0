"""The details of what the monitors found: alarms, health, gauges, operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import age, plural, size, span, time_of_day

from .ink import Ink, Span, Spans, Tone, state_look
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import AlarmRow, GaugeRow, HealthRow, OperationRow
    from treewarden_console.state import Desk


def alarm_page(row: AlarmRow, desk: Desk, ink: Ink) -> list[Spans]:
    """Something that is wrong now."""
    look = state_look(row.severity)
    opened = time_of_day(row.opened_at_ns, desk.zone)
    since = age(desk.shown.seconds_since(row.opened_at_ns, desk.now()))
    said = plural(row.count, "reading has", "readings have")
    told: list[Span] = [(f"{said} said so", Tone.TEXT)]
    if row.value is not None:
        told.append((f", the last one {row.value:.4g}", Tone.TEXT))
    known = f"{row.acknowledged_by} knows of it"
    lines: list[Spans] = [
        labelled(
            "alarm",
            (row.name, Tone.STRONG),
            (f"  of {row.subject}" if row.subject else "", Tone.TEXT),
        ),
        labelled("severity", (ink.sign(look), look.tone)),
        labelled("says", (row.message, Tone.TEXT)),
        labelled("open since", (opened, Tone.TEXT), (f"  {since}", Tone.MUTED)),
        labelled("readings", *told),
    ]
    who = (known, Tone.TEXT) if row.acknowledged_by else ("nobody yet", Tone.WORRY)
    return [*lines, labelled("known to", who)]


def health_page(row: HealthRow, desk: Desk, ink: Ink) -> list[Spans]:
    """A subject as its last check found it."""
    look = state_look(row.status)
    since = age(desk.shown.seconds_since(row.since_ns, desk.now()))
    checks: list[Span] = [(plural(row.checks, "check"), Tone.TEXT)]
    for number, words in ((row.failures, "failed"), (row.late, "came late")):
        if number:
            checks.append((f"  {number} {words}", Tone.WORRY))
    lines: list[Spans] = [
        labelled("subject", (row.subject, Tone.STRONG)),
        labelled(
            "status", (ink.sign(look), look.tone), (f" since {since}", Tone.MUTED)
        ),
        labelled("checked", *checks),
    ]
    if row.reason:
        lines.append(labelled("reason", (row.reason, look.tone)))
    return lines


def gauge_page(row: GaugeRow, ink: Ink) -> list[Spans]:
    """A gauge at its last reading."""
    look = state_look(row.pressure if row.value is not None else "unknown")
    read = f"{age(row.age)} ago" if row.age is not None else "never"
    lines: list[Spans] = [
        labelled("gauge", (row.name, Tone.STRONG)),
        labelled("pressure", (ink.sign(look), look.tone)),
        labelled(
            "value",
            (f"{gauged(row, row.value)} of {gauged(row, row.limit)}", Tone.TEXT),
        ),
        labelled("read", (read, Tone.TEXT)),
    ]
    if row.guards:
        effect = "when it is severe, tokens are refused"
        lines.append(labelled("guards", (effect, Tone.MUTED)))
    if row.error:
        times = plural(row.failures, "time")
        lines.append(labelled("error", (f"{row.error}  ({times})", Tone.BAD)))
    return lines


def gauged(row: GaugeRow, value: float | None) -> str:
    """A value of a gauge; memory is counted in bytes."""
    if value is None:
        return "unknown"
    return size(value) if row.name == "memory" else f"{value:.4g}"


def operation_page(row: OperationRow) -> list[Spans]:
    """How often something was done, how it ended and how long it took."""
    runs: list[Span] = [
        (f"{row.count} = ", Tone.TEXT),
        (f"{row.succeeded} succeeded", Tone.GOOD),
        (" + ", Tone.MUTED),
        (f"{row.failed} failed", Tone.BAD if row.failed else Tone.MUTED),
        (f" + {row.cancelled} cancelled", Tone.MUTED),
    ]
    times = f"{span(row.minimum)} to {span(row.maximum)}, {span(row.mean)} on average"
    lately = f"95 % within {span(row.p95)}"
    failures = f"  {row.recent_failures} failed" if row.recent_failures else ""
    return [
        labelled("operation", (row.name, Tone.STRONG)),
        labelled("runs", *runs),
        labelled("took", (times, Tone.TEXT)),
        labelled(f"last {row.recent}", (lately, Tone.TEXT), (failures, Tone.BAD)),
    ]
