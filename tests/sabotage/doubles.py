"""All doubles, by the name of their area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import agents, mailbox, process, registry, supervision, work

if TYPE_CHECKING:
    from .double import Double

ALL: Final[dict[str, tuple[Double, ...]]] = {
    "supervision": supervision.DOUBLES,
    "mailbox": mailbox.DOUBLES,
    "agents": agents.DOUBLES,
    "registry": registry.DOUBLES,
    "work": work.DOUBLES,
    "process": process.DOUBLES,
}


def find(name: str) -> Double:
    """The double of a name like "work: inline fallback"."""
    area, _, rest = name.partition(": ")
    return next(double for double in ALL[area] if double.name == rest)
