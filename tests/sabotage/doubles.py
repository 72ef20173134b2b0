"""All doubles, by the name of their area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import (
    agents,
    answers,
    bodies,
    bus,
    circuits,
    collections,
    collector,
    commits,
    coordination,
    durable,
    endings,
    files,
    gateways,
    injection,
    lives,
    mailbox,
    messages,
    monitors,
    policies,
    process,
    quarantine,
    registry,
    remembered,
    reports,
    significant,
    stored,
    supervision,
    system,
    transactions,
    turns,
    work,
    workflows,
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
    "answers": answers.DOUBLES,
    "commits": commits.DOUBLES,
    "circuits": circuits.DOUBLES,
    "bus": bus.DOUBLES,
    "collections": collections.DOUBLES,
    "coordination": coordination.DOUBLES,
    "durable": durable.DOUBLES,
    "endings": endings.DOUBLES,
    "files": files.DOUBLES,
    "gateways": gateways.DOUBLES,
    "bodies": bodies.DOUBLES,
    "reports": reports.DOUBLES,
    "registry": registry.DOUBLES,
    "work": work.DOUBLES,
    "monitors": monitors.DOUBLES,
    "workflows": workflows.DOUBLES,
    "policies": policies.DOUBLES,
    "process": process.DOUBLES,
    "remembered": remembered.DOUBLES,
    "quarantine": quarantine.DOUBLES,
    "injection": injection.DOUBLES,
    "stored": stored.DOUBLES,
    "system": system.DOUBLES,
    "transactions": transactions.DOUBLES,
    "turns": turns.DOUBLES,
    "collector": collector.DOUBLES,
}

ALL: Final[dict[str, Double]] = {
    f"{name}: {double.name}": double
    for name, area in AREAS.items()
    for double in area.doubles
}
"""By names like "work: inline fallback"."""
