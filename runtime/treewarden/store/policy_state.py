"""What policies keep beyond their process: a row each, by kind and name.

An open circuit, a limiter's debt. What a row looks like inside is `resilience`'s business;
here it is JSON text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns

from .checksums import as_stored, checksum, shown

if TYPE_CHECKING:
    import sqlite3

    from .unit import Write

_KEEP: Final = (
    "INSERT OR REPLACE INTO policy_state (kind, name, at_ns, state, crc)"
    " VALUES (?, ?, ?, ?, ?)"
)
_FORGET: Final = "DELETE FROM policy_state WHERE kind = ? AND name = ?"
_SELECT: Final = "SELECT name, at_ns, state, crc FROM policy_state WHERE kind = ?"


def keep_policy_state(kind: str, name: str, state: bytes) -> Write:
    """The statement that keeps what a policy is to remember, for a unit."""
    at_ns = wall_ns()
    crc = checksum(state, kind, name, at_ns)
    return _KEEP, (kind, name, at_ns, state.decode(), crc)


def forget_policy_state(kind: str, name: str) -> Write:
    """The statement that deletes it."""
    return _FORGET, (kind, name)


def load_policy_states(
    connection: sqlite3.Connection, kind: str
) -> dict[str, bytes | None]:
    """What is kept of policies of a kind, by name; None for damaged rows."""
    found: dict[str, bytes | None] = {}
    for name, at_ns, text, crc in connection.execute(_SELECT, (kind,)):
        state = as_stored(text)
        intact = crc == checksum(state, kind, name, at_ns)
        found[name if intact else shown(name)] = state if intact else None
    return found
