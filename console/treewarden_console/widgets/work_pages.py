"""The details of work: how far a workflow is, step by step, and whose a queue is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import age, plural, time_of_day

from .ink import Ink, Span, Spans, Tone, state_look
from .page import BLANK, heading, labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import CollectionRow, StepRow, Steps, WorkflowRow
    from treewarden_console.state import Desk

_STEP_NAME = 24
_STEP_STATE = 10


def workflow_page(
    row: WorkflowRow, steps: Steps | None, desk: Desk, ink: Ink
) -> list[Spans]:
    """A workflow and its steps; `steps` None: they were not told yet."""
    look = state_look(row.state)
    lines: list[Spans] = [
        labelled(
            "workflow",
            (row.name, Tone.STRONG),
            (f"  version {row.version}  id {row.id}", Tone.MUTED),
        ),
        labelled("state", (ink.sign(look), look.tone), *_time(row, desk)),
    ]
    if row.attempts > 1 and row.ended_at_ns is None:
        tried = f"{row.attempts} since it last got on"
        lines.append(labelled("attempts", (tried, Tone.WORRY)))
    if row.reason:
        lines.append(labelled("reason", (row.reason, Tone.BAD)))
    return [*lines, BLANK, *_steps(steps, desk, ink)]


def _time(row: WorkflowRow, desk: Desk) -> list[Span]:
    begun = f"  begun {time_of_day(row.begun_at_ns, desk.zone)}"
    if row.ended_at_ns is not None:
        lasted = age((row.ended_at_ns - row.begun_at_ns) / 1e9)
        return [(f"{begun}, ended after {lasted}", Tone.MUTED)]
    since = age(desk.shown.seconds_since(row.begun_at_ns, desk.now()))
    return [(f"{begun}, {since} ago", Tone.MUTED)]


def _steps(steps: Steps | None, desk: Desk, ink: Ink) -> list[Spans]:
    if steps is None:
        return [[("asking for the steps ...", Tone.MUTED)]]
    if not steps.rows:
        return [[("no step has begun", Tone.MUTED)]]
    more = [("  and more", Tone.MUTED)] if steps.more else []
    return [
        heading("STEPS", *more),
        *(_step(step, desk, ink) for step in steps.rows),
    ]


def _step(step: StepRow, desk: Desk, ink: Ink) -> Spans:
    look = state_look(step.state)
    spans: list[Span] = [
        (f"{step.number:>3} ", Tone.MUTED),
        (ink.fit(step.name, _STEP_NAME), Tone.TEXT),
        (f" {ink.fit(ink.sign(look), _STEP_STATE + 2)}", look.tone),
        (f" {time_of_day(step.at_ns, desk.zone)}", Tone.MUTED),
    ]
    if step.attempts > 1:
        spans.append((f"  {step.attempts} attempts", Tone.WORRY))
    if step.compensation:
        spans.append((f"  undone by {step.compensation}", Tone.MUTED))
    if step.undo_failures:
        failed = f", which failed {plural(step.undo_failures, 'time')}"
        spans.append((failed, Tone.BAD))
    if step.error:
        spans.append((f"  {step.error}", Tone.BAD))
    return spans


def collection_page(row: CollectionRow) -> list[Spans]:
    """A durable queue or map."""
    return [
        labelled("agent", (row.path, Tone.STRONG)),
        labelled(row.kind, (row.name, Tone.TEXT)),
        labelled("items", (f"{row.items} committed", Tone.TEXT)),
    ]
