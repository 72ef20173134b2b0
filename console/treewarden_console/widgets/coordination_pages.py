"""The details of what agents do together: what waits for a receiver, and who holds what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden_console.state import age, plural

from .ink import Ink, Span, Spans, Tone, circuit_look
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import LineRow, MeetingRow
    from treewarden_console.state import Desk

_NUMBER_SAYS: Final = {
    "lock": "fencing token {}",
    "election": "term {}",
    "barrier": "{} to come in all",
    "ballot": "{} votes decide",
}
_WAITING_SAYS: Final = {
    "lock": ("waits for it", "wait for it"),
    "election": ("stands for it", "stand for it"),
    "barrier": ("has come", "have come"),
    "ballot": ("has voted", "have voted"),
}


def line_page(row: LineRow, ink: Ink) -> list[Spans]:
    """What an exchange has for one receiver, and what became of the rest."""
    look = circuit_look(row.circuit)
    state: list[Span] = [(ink.sign(look), look.tone)]
    if row.stalled:
        state.append(("  stalled: what is sent is buffered", Tone.WORRY))
    waiting: list[Span] = [(f"{row.pending} of {row.capacity}", Tone.TEXT)]
    if row.attempts:
        tried = plural(row.attempts, "time")
        waiting.append((f"  the oldest has failed {tried}", Tone.WORRY))
    lines: list[Spans] = [
        labelled("receiver", (row.receiver, Tone.STRONG)),
        labelled("exchange", (row.exchange, Tone.TEXT)),
        labelled("circuit", *state),
        labelled("messages", *_account(row)),
        labelled("buffered", *waiting),
    ]
    if row.refused:
        refused = f"{row.refused} more were refused: there was no room"
        lines.append(labelled("refused", (refused, Tone.WORRY)))
    if row.last_error:
        lines.append(labelled("last error", (row.last_error, Tone.BAD)))
    return lines


def _account(row: LineRow) -> list[Span]:
    """Exact numbers: that they add up is the point."""
    spans: list[Span] = [
        (f"{row.accepted} accepted = ", Tone.TEXT),
        (f"{row.delivered} delivered", Tone.GOOD),
    ]
    for number, word, tone in (
        (row.failed, "failed", Tone.BAD),
        (row.dropped, "dropped", Tone.BAD),
        (row.withdrawn, "withdrawn", Tone.TEXT),
        (row.pending, "pending", Tone.WORRY),
    ):
        quiet = tone if number else Tone.MUTED
        spans += [(" + ", Tone.MUTED), (f"{number} {word}", quiet)]
    return spans


def meeting_page(row: MeetingRow, desk: Desk) -> list[Spans]:
    """A lock, an election, a barrier or a ballot."""
    one, many = _WAITING_SAYS[row.kind]
    number = f"{row.waiting}" if row.waiting else "nobody"
    waiting = f"{number} {many if row.waiting > 1 else one}"
    lines: list[Spans] = [
        labelled(
            row.kind,
            (row.name, Tone.STRONG),
            (f"  {_NUMBER_SAYS[row.kind].format(row.number)}", Tone.MUTED),
        ),
        labelled("agents", (waiting, Tone.TEXT)),
    ]
    if row.kind in ("lock", "election"):
        says = "held by" if row.kind == "lock" else "led by"
        holder = (row.holder, Tone.STRONG) if row.holder else ("nobody", Tone.WORRY)
        since = age(desk.shown.seconds_since(row.since_ns, desk.now()))
        lasting = (f"  for {since}" if row.holder else "", Tone.MUTED)
        lines.insert(1, labelled(says, holder, lasting))
    return lines
