"""The detail of a subscription: its account, and where a durable one stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden_console.state import plural, size

from .ink import Span, Spans, Tone
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import SubscriptionRow

_PAUSE: Final = "pause_publisher"
_RETENTION: Final = {
    "drop_and_mark_gap": "at its limits, what is not taken goes, and the gap is marked",
    "keep": "at its limits, what is not taken is kept, up to 4 times as much",
    _PAUSE: "at its limits, what is not taken is kept, and publishers wait",
}
"""What the journal does, by the wire's words for it; of others the word is told."""


def subscription_page(row: SubscriptionRow) -> list[Spans]:
    """The page of a subscription."""
    lines: list[Spans] = [labelled("pattern", (row.pattern, Tone.STRONG), *_owner(row))]
    lines.append(labelled("events", *_account(row)))
    if row.dropped_by:
        lines.append(labelled("dropped", *_losses(row)))
    if row.durable:
        lines.append(labelled("cursor", *_place(row)))
        lines.append(labelled("journal", *_journal(row)))
    if row.durable and not row.members:
        nobody = "nobody takes its events; they wait in the journal"
        lines.append(labelled("members", (nobody, Tone.WORRY)))
    else:
        lines.append(labelled("room", *_room(row)))
    if row.paused or row.refused:
        lines.append(labelled("publishers", *_publishers(row)))
    if row.last_fault:
        lines.append(labelled("last fault", (row.last_fault, Tone.BAD)))
    return lines


def pauses(row: SubscriptionRow) -> bool:
    """Whether who publishes what it wants has to wait now."""
    return row.holds and row.retention == _PAUSE


def _owner(row: SubscriptionRow) -> list[Span]:
    return [(f"  of {row.owner}", Tone.MUTED)] if row.owner else []


def _account(row: SubscriptionRow) -> list[Span]:
    """Exact numbers: that they add up is the point."""
    spans: list[Span] = [
        (f"{row.published} published = ", Tone.TEXT),
        (f"{row.delivered} delivered", Tone.GOOD),
        (" + ", Tone.MUTED),
        (f"{row.dropped} dropped", Tone.BAD if row.dropped else Tone.MUTED),
        (" + ", Tone.MUTED),
        (f"{row.pending} pending", Tone.WORRY if row.pending else Tone.MUTED),
    ]
    if row.uncounted:
        more = plural(row.uncounted, "entry", "entries")
        spans.append((f"  {more} not counted", Tone.MUTED))
    return spans


def _losses(row: SubscriptionRow) -> list[Span]:
    lost = "  ".join(f"{n} {reason}" for reason, n in row.dropped_by.items())
    spans: list[Span] = [(lost, Tone.BAD)]
    if row.gaps:
        spans.append((f"  {plural(row.gaps, 'gap')} marked", Tone.WORRY))
    return spans


def _place(row: SubscriptionRow) -> list[Span]:
    behind = plural(row.lag, "entry", "entries")
    if row.lag_bytes is not None:
        behind = f"{behind}, {size(row.lag_bytes)}"
    spans: list[Span] = [
        (f"position {row.cursor}", Tone.TEXT),
        (f"  {behind} behind", Tone.WORRY if row.lag else Tone.MUTED),
    ]
    if row.members:
        spans.append((f"  {plural(row.members, 'member')}", Tone.TEXT))
    for number, said in (
        (row.leased, "under way"),
        (row.waiting, "to be tried again"),
        (row.redelivered, "delivered again"),
    ):
        if number:
            spans.append((f"  {number} {said}", Tone.WORRY))
    return spans


def _journal(row: SubscriptionRow) -> list[Span]:
    spans: list[Span] = [(_RETENTION.get(row.retention, row.retention), Tone.TEXT)]
    if row.holds:
        spans.append(("  the journal is beyond its limits for it", Tone.BAD))
    return spans


def _room(row: SubscriptionRow) -> list[Span]:
    spans: list[Span] = [(f"{row.pending} of {row.capacity}", Tone.TEXT)]
    if not row.durable:
        spans.append((f"  when full: {row.overflow}", Tone.MUTED))
    return spans


def _publishers(row: SubscriptionRow) -> list[Span]:
    spans: list[Span] = []
    if row.paused:
        wait = "waits" if row.paused == 1 else "wait"
        spans.append((f"{row.paused} {wait} for it  ", Tone.BAD))
    if row.refused:
        spans.append((f"{plural(row.refused, 'event')} refused", Tone.WORRY))
    return spans
