"""The detail of a dead letter: whose it is, why it was given up, and what an event says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import plural, time_of_day

from .event_page import payload_lines
from .ink import Spans, Tone
from .page import BLANK, labelled

if TYPE_CHECKING:
    from datetime import tzinfo

    from treewarden.control.protocol import DeadLetterRow


def letter_page(row: DeadLetterRow, zone: tzinfo | None) -> list[Spans]:
    """The page of a dead letter."""
    lines: list[Spans] = [
        labelled(
            "what",
            (row.operation, Tone.STRONG),
            (f"  to {receiver(row)}", Tone.TEXT),
            (f"  from {row.sender}" if row.sender else "", Tone.MUTED),
        ),
        labelled(
            "given up",
            (row.reason, Tone.BAD),
            (f"  after {plural(row.attempts, 'attempt')}", Tone.TEXT),
            (f"  {time_of_day(row.at_ns, zone)}", Tone.MUTED),
        ),
    ]
    if bytes(row.content) != b"null":
        lines += [BLANK, *payload_lines(row.content)]
    return lines


def receiver(row: DeadLetterRow) -> str:
    """Whom it did not reach: an agent, or a subscription of one."""
    if row.path and row.subscription:
        return f"{row.path}:{row.subscription}"
    return row.path or row.subscription
