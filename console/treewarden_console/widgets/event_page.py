"""An entry of the journal, and its whole payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from treewarden_console.state import time_of_day

from .ink import Ink, Spans, Tone, event_look
from .page import BLANK, labelled

if TYPE_CHECKING:
    from datetime import tzinfo

    from treewarden_console.state import Entry

_LINES = 200


def event_page(entry: Entry | None, ink: Ink, zone: tzinfo | None) -> list[Spans]:
    """The page of an entry."""
    if entry is None:
        return [[("no event is selected", Tone.MUTED)]]
    row, told = entry.row, entry.telling
    look = event_look(told.kind)
    place = (
        f"position {row.position}" if row.position else "a signal, not in the journal"
    )
    lines: list[Spans] = [
        [
            (f"{ink.glyph(look)} {told.kind}", look.tone),
            (f"  {told.subject}  ", Tone.STRONG),
            (told.message, Tone.TEXT),
        ],
        labelled(
            "entry",
            (f"{row.topic}  {place}", Tone.TEXT),
            (f"  {time_of_day(row.at_ns, zone)}", Tone.MUTED),
        ),
    ]
    if row.source:
        lines.append(labelled("source", (row.source, Tone.TEXT)))
    if row.trace:
        lines.append(labelled("trace", (row.trace, Tone.TEXT)))
    return [*lines, BLANK, *payload_lines(row.payload)]


def payload_lines(raw: msgspec.Raw) -> list[Spans]:
    """JSON for a person, indented; the first lines of it."""
    try:
        pretty = msgspec.json.format(bytes(raw), indent=2).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pretty = "(payload is not JSON)"
    return [[(line, Tone.TEXT)] for line in pretty.splitlines()[:_LINES]]
