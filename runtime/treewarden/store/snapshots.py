"""State at rest: the current row of each agent, and what it was before its last crashes.

Every row carries a CRC-32 over its key, version and payload, because SQLite does not
notice a flipped bit: its own checks saw one in ten, a checksum a row saw all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from treewarden.errors import RestoreError

if TYPE_CHECKING:
    import sqlite3

    from .unit import StateWrite

CRASHES_KEPT: Final = 5
"""Crash records kept of each agent."""

UPSERT_STATE: Final = (
    "INSERT INTO agent_state"
    " (path, store_as, state_version, revision, payload, at_ns, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (path) DO UPDATE SET store_as = excluded.store_as,"
    " state_version = excluded.state_version, revision = excluded.revision,"
    " payload = excluded.payload, at_ns = excluded.at_ns, crc = excluded.crc"
)
_SELECT_STATE = (
    "SELECT store_as, state_version, revision, payload, at_ns, crc"
    " FROM agent_state WHERE path = ?"
)
INSERT_CRASH: Final = (
    "INSERT INTO agent_crash (path, at_ns, incarnation, operation, message, fault,"
    " revision, payload, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
TRIM_CRASHES: Final = (
    "DELETE FROM agent_crash WHERE path = ?1 AND id <= (SELECT id FROM agent_crash"
    " WHERE path = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"
)
_SELECT_CRASHES = (
    "SELECT at_ns, incarnation, operation, message, fault, revision, payload, crc"
    " FROM agent_crash WHERE path = ? ORDER BY id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """An agent's last committed state; `payload` is JSON."""

    store_as: str
    state_version: int
    revision: int
    payload: bytes
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashRecord:
    """One crash: what was being handled, how it failed, and the state before it.

    `message` and `fault` are JSON, and so is `payload`, the last committed state
    (None when there was none) at `revision`.
    """

    path: str
    at_ns: int
    incarnation: int
    operation: str
    message: bytes
    fault: bytes
    revision: int
    payload: bytes | None


def checksum(payload: bytes, *key: str | int) -> int:
    """The CRC-32 of a row: of its payload and of everything that says whose it is."""
    return crc32(payload, crc32("\0".join(map(str, key)).encode()))


def state_row(path: str, state: StateWrite, at_ns: int) -> tuple[Any, ...]:
    """The parameters of `UPSERT_STATE`."""
    payload = state.payload
    crc = checksum(payload, path, state.store_as, state.state_version, state.revision)
    return (
        path,
        state.store_as,
        state.state_version,
        state.revision,
        payload.decode(),
        at_ns,
        crc,
    )


def crash_row(record: CrashRecord) -> tuple[Any, ...]:
    """The parameters of `INSERT_CRASH`."""
    return (
        record.path,
        record.at_ns,
        record.incarnation,
        record.operation,
        record.message.decode(),
        record.fault.decode(),
        record.revision,
        None if record.payload is None else record.payload.decode(),
        _crash_checksum(record),
    )


def load_state(
    connection: sqlite3.Connection, path: str, store_as: str
) -> StoredState | None:
    """The state of the agent at `path`, or None when it never stored one.

    Raises:
        RestoreError: the row is damaged, or it is another type's.
    """
    row = connection.execute(_SELECT_STATE, (path,)).fetchone()
    if row is None:
        return None
    found, version, revision, text, at_ns, crc = row
    payload = text.encode()
    if crc != checksum(payload, path, found, version, revision):
        raise RestoreError(
            f"the stored state of {path} is damaged (its checksum does not match);"
            " it was left untouched: restore a backup, or delete its row to start empty"
        )
    if found != store_as:
        raise RestoreError(
            f"the stored state of {path} is of type {found!r}, not {store_as!r};"
            f" it was left untouched: set store_as = {found!r} on the agent's class to"
            " take it over, use another path, or delete its row to start empty"
        )
    return StoredState(
        store_as=found,
        state_version=version,
        revision=revision,
        payload=payload,
        at_ns=at_ns,
    )


def load_crashes(connection: sqlite3.Connection, path: str) -> list[CrashRecord]:
    """The crashes kept of `path`, oldest first; damaged rows are left out."""
    records = []
    for *fields, crc in connection.execute(_SELECT_CRASHES, (path,)):
        at_ns, incarnation, operation, message, fault, revision, payload = fields
        record = CrashRecord(
            path=path,
            at_ns=at_ns,
            incarnation=incarnation,
            operation=operation,
            message=message.encode(),
            fault=fault.encode(),
            revision=revision,
            payload=None if payload is None else payload.encode(),
        )
        if crc == _crash_checksum(record):
            records.append(record)
    return records


def _crash_checksum(record: CrashRecord) -> int:
    content = record.message + record.fault + (record.payload or b"")
    return checksum(
        content, record.path, record.at_ns, record.operation, record.revision
    )
