"""All doubles, by the name of their area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import (
    agents,
    endings,
    lives,
    mailbox,
    messages,
    process,
    registry,
    remembered,
    reports,
    significant,
    supervision,
    system,
    turns,
    work,
)

if TYPE_CHECKING:
    from .double import Area, Double

AREAS: Final[dict[str, Area]] = {
    "supervision": supervision.DOUBLES,
    "lives": lives.DOUBLES,
    "significant": significant.DOUBLES,
    "messages": messages.DOUBLES,
    "mailbox": mailbox.DOUBLES,
    "agents": agents.DOUBLES,
    "endings": endings.DOUBLES,
    "reports": reports.DOUBLES,
    "registry": registry.DOUBLES,
    "work": work.DOUBLES,
    "process": process.DOUBLES,
    "remembered": remembered.DOUBLES,
    "system": system.DOUBLES,
    "turns": turns.DOUBLES,
}

ALL: Final[dict[str, Double]] = {
    f"{name}: {double.name}": double
    for name, area in AREAS.items()
    for double in area.doubles
}
"""By names like "work: inline fallback"."""
