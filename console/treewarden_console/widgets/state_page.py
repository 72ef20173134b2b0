"""What an agent knows: a version of its state, compared with the one seen before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import compare, fields, plural, size, time_of_day

from .ink import Ink, Span, Spans, Tone
from .page import BLANK, labelled
from .why_page import difference_line, field_line

if TYPE_CHECKING:
    from datetime import tzinfo

    from treewarden.control.protocol import AgentState
    from treewarden_console.state import StateHistory

_NEIGHBOURS = 6


def state_page(
    history: StateHistory | None, ink: Ink, zone: tzinfo | None
) -> list[Spans]:
    """The chosen version; fields of the version before it mark what changed."""
    state = history.chosen if history is not None else None
    if history is None or state is None:
        return [[("asking for the state ...", Tone.MUTED)]]
    lines = _identity(state, zone)
    if len(history.versions) > 1:
        lines.append(_line_of_versions(history, ink))
    lines.append(BLANK)
    if state.state is None:
        return [*lines, [("nothing was committed yet", Tone.MUTED)]]
    before = history.previous
    if before is None:
        known = fields(state.state)
        return lines + [field_line(*one) for one in known.items()]
    changes = compare(before.state, state.state)
    return lines + [difference_line(one) for one in changes]


def _identity(state: AgentState, zone: tzinfo | None) -> list[Spans]:
    when = "never"
    if state.committed_at_ns is not None:
        when = time_of_day(state.committed_at_ns, zone)
    kept = "durable" if state.durable else "not stored"
    return [
        labelled(
            "version",
            (f"v{state.version}", Tone.STRONG),
            (f"  committed {when}  {size(state.size_bytes)}", Tone.TEXT),
        ),
        labelled(
            "agent",
            (f"{state.type}", Tone.TEXT),
            (f"  incarnation {state.incarnation}  {kept}", Tone.MUTED),
        ),
    ]


def _line_of_versions(history: StateHistory, ink: Ink) -> Spans:
    first = max(0, history.at - _NEIGHBOURS)
    shown = history.versions[first : history.at + _NEIGHBOURS]
    spans: list[Span] = []
    for at, version in enumerate(shown, first):
        if spans:
            spans.append((ink.pick(" ── ", " -- "), Tone.FAINT))
        tone = Tone.ACCENT if at == history.at else Tone.MUTED
        spans.append((f"v{version.version}", tone))
    last = history.at == len(history.versions) - 1
    seen = plural(len(history.versions), "version")
    spans.append((f"  {'newest' if last else 'older'} of {seen} seen", Tone.FAINT))
    return labelled("history", *spans)
