"""Where `:` leads: every screen and every list, by the words of the command line."""

from __future__ import annotations

from typing import Final

PLACES: Final = {
    "tree": ("tree", ""),
    "circuits": ("circuits", "circuits"),
    "policies": ("circuits", "policies"),
    "gateways": ("circuits", "gateways"),
    "events": ("events", ""),
    "agents": ("agents", ""),
    "bus": ("bus", "subscriptions"),
    "subscriptions": ("bus", "subscriptions"),
    "dead-letters": ("bus", "dead-letters"),
    "coordination": ("coordination", "exchanges"),
    "exchanges": ("coordination", "exchanges"),
    "locks": ("coordination", "locks"),
    "work": ("work", "workflows"),
    "workflows": ("work", "workflows"),
    "queues": ("work", "queues"),
    "monitors": ("monitors", "alarms"),
    "alarms": ("monitors", "alarms"),
    "health": ("monitors", "health"),
    "resources": ("monitors", "resources"),
    "performance": ("monitors", "performance"),
}
"""A screen, and the list of it that gets the keys."""


def find_place(typed: str) -> str | None:
    """The place that was meant: named in full, or the only one that begins so."""
    typed = typed.lower()
    if typed in PLACES:
        return typed
    meant = [name for name in PLACES if name.startswith(typed)]
    return meant[0] if len(meant) == 1 else None
