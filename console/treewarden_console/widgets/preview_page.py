"""What an act would do, as the runtime works it out, before anybody does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.control.protocol import Act
from treewarden_console.state import plural

from .ink import Ink, Span, Spans, Tone
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import Preview

_NAMES = 12


def preview_page(preview: Preview, ink: Ink) -> list[Spans]:
    """The blast radius."""
    lines: list[Spans] = [[(preview.sentence, Tone.TEXT)]]
    if preview.act not in (Act.SUSPEND, Act.RESUME):
        lines += _radius(preview, ink)
    waiting = preview.messages_waiting
    kept = f"{plural(waiting, 'message')} in the mailbox" if waiting else "no messages"
    return [*lines, labelled("waiting", (kept, Tone.TEXT))]


def _radius(preview: Preview, ink: Ink) -> list[Spans]:
    lines: list[Spans] = [
        labelled("stops", *_names(preview.stops)),
        labelled("starts", *_names(preview.starts)),
    ]
    if preview.limit is not None:
        lines.append(labelled("budget", *_budget(preview, ink)))
    return lines


def _names(paths: list[str]) -> list[Span]:
    if not paths:
        return [("nobody", Tone.MUTED)]
    shown = ", ".join(paths[:_NAMES])
    more = len(paths) - _NAMES
    return [(f"{shown} and {more} more" if more > 0 else shown, Tone.STRONG)]


def _budget(preview: Preview, ink: Ink) -> list[Span]:
    period = f" in {preview.period:g} s" if preview.period is not None else ""
    if not (preview.gives_up or (preview.act is Act.CRASH and preview.starts)):
        # What operators do costs nothing, nor does an end for good.
        return [(f"{preview.spent} of {preview.limit}{period}, as before", Tone.MUTED)]
    arrow = ink.pick("→", "->")
    spent = f"{preview.spent} {arrow} {preview.spent + 1} of {preview.limit}{period}"
    if preview.gives_up:
        return [(spent, Tone.BAD), ("  the supervisor gives up", Tone.FAILED)]
    return [(spent, Tone.TEXT)]
