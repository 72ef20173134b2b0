"""The first line: whom we watch, how true the picture is, how it goes there.

And the second: which screens there are, and what is wrong.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from treewarden_console.state import Standing, age, count, rate, span

from .ink import NODE_LOOKS, STANDING_LOOKS, Ink, Span, Tone, length_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treewarden.control.protocol import AlarmRow
    from treewarden_console.state import Desk, Model

WIDE = 100
"""Cells from which on the header spells things out."""

_GAP: Span = ("  ", Tone.TEXT)
_COUNTED = (
    "running",
    "starting",
    "restarting",
    "failed",
    "stuck",
    "suspended",
    "stopping",
    "stopped",
)
# The worst first.
_SEVERITY_TONES: Final[dict[Literal["critical", "warning"], Tone]] = {
    "critical": Tone.BAD,
    "warning": Tone.WORRY,
}
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
    for state in _COUNTED:
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


class Tab(NamedTuple):
    """A screen's name, in full and where room is short."""

    name: str
    short: str


def tab_line(
    names: Sequence[Tab], active: int, model: Model, width: int
) -> tuple[list[Span], list[Span]]:
    """The second line: on the left the screens; on the right alarms, and keys for all.

    The right part is spelt out where that leaves the screens their names.
    """
    spelt_out = alarms(model, width), "/ filter  : go to  ? help"
    for told, keys in (spelt_out, (alarms(model, 0), "/ : ?")):
        right = [*told, (keys, Tone.MUTED)]
        room = width - length_of(right) - 1
        if width >= WIDE and room >= length_of(_labelled(_short(names), active)):
            break
    return tabs(names, active, room), right


def tabs(names: Sequence[Tab], active: int, width: int) -> list[Span]:
    """Which screens there are, and which is shown, in `width` cells if possible."""
    spelt = (
        [f"{at} {tab.name}" for at, tab in enumerate(names, 1)],
        _short(names),
        [f"{at}" for at, _ in enumerate(names, 1)],
    )
    lines = [_labelled(labels, active) for labels in spelt]
    return next((line for line in lines if length_of(line) <= width), lines[-1])


def _short(names: Sequence[Tab]) -> list[str]:
    return [f"{at}{tab.short}" for at, tab in enumerate(names, 1)]


def _labelled(labels: Sequence[str], active: int) -> list[Span]:
    return [
        (f"[{label}]", Tone.TAB) if at == active else (f" {label} ", Tone.MUTED)
        for at, label in enumerate(labels)
    ]


def alarms(model: Model, width: int) -> list[Span]:
    """How many alarms are open, by severity; nothing when there is none.

    A severity of which somebody has acknowledged every one does not shout.
    """
    rows = list(model.alarms.rows.values())
    if not rows:
        return []
    total = f"! {len(rows)} alarm{'' if len(rows) == 1 else 's'}"
    parts = _severities(rows)
    if width < WIDE:
        loud = (tone for _, tone in parts if tone is not Tone.MUTED)
        return [(total, next(loud, Tone.MUTED)), _GAP]
    spans: list[Span] = [(f"{total}: ", Tone.TEXT)]
    for part in parts:
        spans += [part, (", ", Tone.TEXT)]
    return [*spans[:-1], _GAP]


def _severities(rows: list[AlarmRow]) -> list[Span]:
    counts = Counter(row.severity for row in rows)
    unseen = {row.severity for row in rows if not row.acknowledged_by}
    return [
        (f"{counts[severity]} {severity}", tone if severity in unseen else Tone.MUTED)
        for severity, tone in _SEVERITY_TONES.items()
        if counts[severity]
    ]
