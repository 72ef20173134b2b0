"""The detail of a subscription: its account, and where a durable one stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import plural

from .ink import Span, Spans, Tone
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import SubscriptionRow


def subscription_page(row: SubscriptionRow) -> list[Spans]:
    """The page of a subscription."""
    lines: list[Spans] = [labelled("pattern", (row.pattern, Tone.STRONG), *_owner(row))]
    idle = row.durable and not row.members
    if not idle:
        lines.append(labelled("events", *_account(row)))
    if row.dropped_by:
        lost = "  ".join(f"{n} {reason}" for reason, n in row.dropped_by.items())
        lines.append(labelled("dropped", (lost, Tone.BAD)))
    if row.durable:
        lines.append(labelled("cursor", *_place(row)))
    if idle:
        nobody = "nobody takes its events; they wait in the journal"
        lines.append(labelled("members", (nobody, Tone.WORRY)))
    if not idle:
        lines.append(labelled("room", *_room(row)))
    if row.last_fault:
        lines.append(labelled("last fault", (row.last_fault, Tone.BAD)))
    return lines


def _owner(row: SubscriptionRow) -> list[Span]:
    return [(f"  of {row.owner}", Tone.MUTED)] if row.owner else []


def _account(row: SubscriptionRow) -> list[Span]:
    """Exact numbers: that they add up is the point."""
    return [
        (f"{row.published} published = ", Tone.TEXT),
        (f"{row.delivered} delivered", Tone.GOOD),
        (" + ", Tone.MUTED),
        (f"{row.dropped} dropped", Tone.BAD if row.dropped else Tone.MUTED),
        (" + ", Tone.MUTED),
        (f"{row.pending} pending", Tone.WORRY if row.pending else Tone.MUTED),
    ]


def _place(row: SubscriptionRow) -> list[Span]:
    behind = plural(row.lag, "entry", "entries")
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


def _room(row: SubscriptionRow) -> list[Span]:
    spans: list[Span] = [(f"{row.pending} of {row.capacity}", Tone.TEXT)]
    if not row.durable:
        spans.append((f"  when full: {row.overflow}", Tone.MUTED))
    if row.refused:
        spans.append((f"  {row.refused} publishes refused", Tone.WORRY))
    return spans
