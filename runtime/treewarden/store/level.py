"""How much an acknowledgement is worth."""

from __future__ import annotations

from enum import StrEnum


class Level(StrEnum):
    """What an acknowledged write survives.

    A level has a name, never a raw pragma, so that nobody weakens a promise by accident.
    """

    DURABLE = "durable"
    """Crash, `kill -9` and power loss: every commit is synced (`synchronous=FULL`)."""
    CRASH_SAFE = "crash_safe"
    """Crash and `kill -9`; power loss may take the last moments (`NORMAL`)."""
    VOLATILE = "volatile"
    """Nothing: a database in memory, no file and no lock. Everything else is the same."""
