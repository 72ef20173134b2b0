"""The first line: whom we watch, how true the picture is, how it goes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import Standing, age, count, rate, span

from .ink import NODE_LOOKS, STANDING_LOOKS, Ink, Span, Tone

if TYPE_CHECKING:
    from treewarden_console.state import Desk, Model

WIDE = 100
"""Cells from which on the header spells things out."""
NARROW = 60
"""Cells below which the tabs are numbers."""

_GAP: Span = ("  ", Tone.TEXT)
_WORST = ("running", "starting", "restarting", "failed", "stuck", "suspended")
_RIGHTS_TONES = {"ro": Tone.MUTED, "rw": Tone.NOTE, "chaos": Tone.BAD}


def headline(desk: Desk, ink: Ink, width: int) -> tuple[list[Span], list[Span]]:
    """The header's left and right part, for a screen of this width."""
    model, wide = desk.shown, width >= WIDE
    left: list[Span] = [(" ", Tone.TEXT)]
    if model.runtime is not None:
        left += [(model.runtime.name, Tone.STRONG), _GAP]
    left += _standing(desk, ink)
    if model.runtime is not None:
        left += _facts(desk, model, ink, wide=wide)
    rights = model.rights.value
    right = [(f" {rights.upper()}", _RIGHTS_TONES[rights])]
    return left, [*right, (f" {desk.operator}", Tone.MUTED)]


def _standing(desk: Desk, ink: Ink) -> list[Span]:
    standing = desk.standing()
    look = STANDING_LOOKS[standing.value]
    spans: list[Span] = [(ink.sign(look), look.tone)]
    hearing = desk.model.hearing
    if standing is Standing.STALE:
        spans.append((f" {age(hearing.silent(desk.now()))}", Tone.BAD))
    if standing in (Standing.STALE, Standing.CONNECTING) and hearing.why:
        spans.append((f" {hearing.why}", Tone.MUTED))
    return spans


def _facts(desk: Desk, model: Model, ink: Ink, *, wide: bool) -> list[Span]:
    up = age(model.uptime(desk.now()))
    spans: list[Span] = [(f"  up {up}" if wide else f" {up}", Tone.TEXT)]
    if wide and model.runtime is not None:
        spans.append((f"  {model.runtime.level}", Tone.MUTED))
    spans += [_GAP, *_states(model, ink, wide=wide), _GAP]
    return spans + _process(model, wide=wide)


def _states(model: Model, ink: Ink, *, wide: bool) -> list[Span]:
    states = model.states()
    spans: list[Span] = []
    if wide:
        spans.append((f"nodes {states.total()}: ", Tone.MUTED))
    for state in _WORST:
        if states[state]:
            look = NODE_LOOKS[state]
            gap = " " if wide else ""
            spans += [(f"{ink.glyph(look)}{gap}{states[state]}", look.tone)]
            spans.append(_GAP if wide else (" ", Tone.TEXT))
    return spans[:-1] if spans else spans


def _process(model: Model, *, wide: bool) -> list[Span]:
    process = model.process
    if process is None:
        return []
    if process.store_health != "ok":
        return [(f" store: {process.store_health} ", Tone.FAILED)]
    dropped = process.dropped + model.hearing.lost
    gap = "  " if wide else " "
    lag = span(process.loop_lag) if wide else span(process.loop_lag).replace(" ", "")
    return [
        (f"{rate(model.totals.get('published'))} ev/s{gap}", Tone.TEXT),
        (f"drop {count(dropped)}{gap}", Tone.BAD if dropped else Tone.MUTED),
        (f"lag {lag}", Tone.WORRY if process.loop_lag > 0.1 else Tone.MUTED),
    ]


def tabs(names: tuple[str, ...], active: int, width: int) -> list[Span]:
    """The second line: which screens there are, and which is shown."""
    spans: list[Span] = [("", Tone.TEXT)]
    for at, name in enumerate(names):
        label = f"{at + 1} {name}" if width >= NARROW else f"{at + 1}"
        if at == active:
            spans.append((f"[{label}]", Tone.TAB))
        else:
            spans.append((f" {label} ", Tone.MUTED))
    return spans
