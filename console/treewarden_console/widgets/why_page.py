"""Why a node restarted: the whole story, from its cause to its effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import Mark, compare, fields, tell, time_of_day

from .ink import MARK_TONES, Ink, Span, Spans, Tone, event_look
from .page import BLANK, heading, labelled

if TYPE_CHECKING:
    from datetime import tzinfo

    from treewarden.control.protocol import EventRow, Explanation, FaultRow
    from treewarden_console.state import Difference

_FIELD = 20


def why_page(told: Explanation, ink: Ink, zone: tzinfo | None) -> list[Spans]:
    """The explanation as a page."""
    lines: list[Spans] = [[(told.sentence, Tone.STRONG)], BLANK]
    if told.at_ns:
        lines.append(labelled("when", (time_of_day(told.at_ns, zone), Tone.TEXT)))
    lines.append(
        labelled(
            "cause",
            (told.cause, Tone.WORRY),
            (f"  now incarnation {told.incarnation}", Tone.MUTED),
        )
    )
    for label, text in (
        ("origin", told.origin if told.origin != told.path else ""),
        ("by", told.by if told.by not in told.sentence else ""),
        ("message", told.message),
        ("took down", ", ".join(told.took_down)),
        ("now in", told.now),
    ):
        if text:
            lines.append(labelled(label, (text, Tone.TEXT)))
    lines += _chain(told.chain, ink, zone)
    lines += _fault(told.fault)
    # A crash without a message in hand leaves no state behind to compare with.
    if fields(told.state_before):
        lines += _states(compare(told.state_before, told.state_after))
    return lines


def _chain(chain: list[EventRow], ink: Ink, zone: tzinfo | None) -> list[Spans]:
    if not chain:
        return []
    return [
        BLANK,
        heading("WHAT HAPPENED"),
        *(_link(row, ink, zone) for row in chain),
    ]


def _link(row: EventRow, ink: Ink, zone: tzinfo | None) -> Spans:
    told = tell(row)
    look = event_look(told.kind)
    return [
        (f" {time_of_day(row.at_ns, zone)} ", Tone.MUTED),
        (f"{ink.glyph(look)} {told.kind:<9} ", look.tone),
        (f"{told.subject}  ", Tone.TEXT),
        (told.message, Tone.MUTED),
    ]


def _fault(fault: FaultRow | None) -> list[Spans]:
    lines: list[Spans] = []
    title = "THE ERROR"
    while fault is not None:
        lines += [BLANK, heading(title)]
        lines.append([(f" {summary(fault)}", Tone.BAD)])
        # The innermost frame says most: it comes first.
        for file, line, name in reversed(fault.frames):
            lines.append([(f"   {name}", Tone.TEXT), (f"  {file}:{line}", Tone.MUTED)])
        fault, title = fault.cause, "WHICH CAME FROM"
    return lines


def summary(fault: FaultRow) -> str:
    """One line: type and message."""
    return f"{fault.type}: {fault.message}" if fault.message else fault.type


def _states(differences: list[Difference]) -> list[Spans]:
    lines: list[Spans] = [
        BLANK,
        heading("STATE, before the crash and after the restart"),
    ]
    same = [one.field for one in differences if one.mark is Mark.SAME]
    lines += [difference_line(one) for one in differences if one.mark is not Mark.SAME]
    if same:
        lines.append([(" = ", Tone.MUTED), (f"{', '.join(same)}", Tone.MUTED)])
    return lines


def field_line(name: str, value: str) -> Spans:
    """A field with nothing to compare it with."""
    return [(f"   {name:<{_FIELD}} ", Tone.MUTED), (value, Tone.TEXT)]


def difference_line(one: Difference) -> Spans:
    """A field, its mark, and what it was and is."""
    tone = MARK_TONES[one.mark.value]
    spans: list[Span] = [
        (f" {one.mark.value} ", tone),
        (f"{one.field:<{_FIELD}} ", Tone.TEXT if one.mark is not Mark.SAME else tone),
    ]
    match one.mark:
        case Mark.CHANGED:
            spans += [(f"{one.before}", Tone.MUTED), (" -> ", tone)]
            spans.append((f"{one.after}", tone))
        case Mark.LOST:
            spans.append((f"{one.before}", tone))
        case _:
            spans.append((f"{one.after}", tone if one.mark is Mark.NEW else Tone.TEXT))
    return spans
