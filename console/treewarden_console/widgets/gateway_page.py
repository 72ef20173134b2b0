"""The detail of a gateway: how what was asked ended, and what is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ink import Span, Spans, Tone
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import GatewayRow


def gateway_page(row: GatewayRow) -> list[Spans]:
    """An HTTP client, or the programs that are run."""
    lines: list[Spans] = [
        labelled("asked", *_account(row)),
        labelled("under way", (f"{row.active} of {row.limit}", Tone.TEXT)),
        labelled("in line", (f"{row.waiting} of {row.queue}", Tone.TEXT)),
    ]
    if row.refused:
        refused = f"{row.refused} more: there was no room, or it was not allowed"
        lines.append(labelled("refused", (refused, Tone.WORRY)))
    if row.numbers:
        ended = "  ".join(f"{what} {n}" for what, n in row.numbers.items())
        lines.append(labelled("ended as", (ended.replace("_", " "), Tone.TEXT)))
    lines += [labelled("running", (one, Tone.MOVING)) for one in row.running]
    return lines


def _account(row: GatewayRow) -> list[Span]:
    """Exact numbers: that they add up is the point."""
    return [
        (f"{row.asked} = ", Tone.TEXT),
        (f"{row.succeeded} succeeded", Tone.GOOD),
        (" + ", Tone.MUTED),
        (f"{row.failed} failed", Tone.BAD if row.failed else Tone.MUTED),
        (f" + {row.cancelled} cancelled", Tone.MUTED),
        (f" + {row.active} under way", Tone.TEXT),
    ]
