"""State at rest: the current row of each agent, and what it was before its last crashes.

Every row carries a checksum (`checksums`) that is looked at when the row is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec

from treewarden.errors import RestoreError
from treewarden.injection import places

from .checking import SLICE_ROWS, place_behind, stored_rows
from .checksums import TABLES, as_stored, as_text, checksum, row_checksum
from .insert import Insert
from .unit import Content

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from .checksums import Stored
    from .unit import StateWrite

CRASHES_KEPT: Final = 5
"""Crash records kept of each agent."""

UPSERT_STATES: Final = Insert(
    "INSERT INTO agent_state"
    " (path, store_as, state_version, revision, payload, at_ns, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)",
    " ON CONFLICT (path) DO UPDATE SET store_as = excluded.store_as,"
    " state_version = excluded.state_version, revision = excluded.revision,"
    " payload = excluded.payload, at_ns = excluded.at_ns, crc = excluded.crc",
)
_SELECT_STATE = (
    "SELECT store_as, state_version, revision, payload, at_ns, crc"
    " FROM agent_state WHERE path = ?"
)
# Text as bytes: no call of ours for each.
_SELECT_BEHIND = (
    "SELECT CAST(path AS BLOB), CAST(store_as AS BLOB), state_version, revision, at_ns,"
    " CAST(payload AS BLOB), crc FROM agent_state"
    " WHERE rowid > (SELECT rowid FROM agent_state WHERE path = ?)"
    " ORDER BY rowid LIMIT ?"
)
AHEAD_BYTES: Final = 1 << 20
"""Bytes of state read ahead at a time, roughly."""
_STATES: Final = TABLES["agent_state"]
_IS_INDEXED: Final = "SELECT 1 FROM agent_state WHERE path = ?"
INSERT_CRASHES: Final = Insert(
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


class StoredState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An agent's last committed state; `payload` is JSON."""

    store_as: str
    state_version: int
    revision: int
    payload: bytes
    at_ns: int


class CrashRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One crash: what was being handled, how it failed, and the state before it.

    `message` and `fault` are JSON, and so is `payload`, the last committed state
    (None when there was none) at `revision`. Of one that was kept just now the fault is a
    `content`, put into words in the writer's thread. `sender`, a path or "", is not kept
    in the file.
    """

    path: str
    at_ns: int
    incarnation: int
    operation: str
    message: bytes
    fault: bytes
    revision: int
    payload: bytes | None
    sender: str = ""
    content: Content | None = None

    def fault_json(self) -> bytes:
        """The fault, made from `content` if there is one."""
        return self.fault if self.content is None else self.content.encode()


def state_rows(
    states: Iterable[tuple[str, StateWrite]], at_ns: int
) -> list[tuple[Any, ...]]:
    """The parameters of `UPSERT_STATES`, a row a state."""
    # `checksum`, written out: of all that a commit does for a state it was a quarter.
    rows: list[tuple[Any, ...]] = []
    last = f"\0{at_ns}"
    for path, state in states:
        store_as, payload = state.store_as, state.payload
        version, revision = state.state_version, state.revision
        key = f"{path}\0{store_as}\0{version}\0{revision}{last}"
        crc = crc32(key.encode() + payload)
        text = payload.decode()
        rows.append((path, store_as, version, revision, text, at_ns, crc))
    return rows


def crash_row(record: CrashRecord) -> tuple[Any, ...]:
    """The parameters of `INSERT_CRASHES`."""
    fault = record.fault_json()
    return (
        record.path,
        record.at_ns,
        record.incarnation,
        record.operation,
        record.message.decode(),
        fault.decode(),
        record.revision,
        None if record.payload is None else record.payload.decode(),
        _crash_checksum(record, fault),
    )


def load_state(
    connection: sqlite3.Connection, path: str, store_as: str
) -> StoredState | None:
    """The state of the agent at `path`, or None when it never stored one.

    Raises:
        RestoreError: the row is damaged, or it is another type's.
    """
    places.LOAD_STATE.reach()
    row = connection.execute(_SELECT_STATE, (path,)).fetchone()
    if row is None:
        return None
    found, version, revision, text, at_ns, crc = row
    payload = as_stored(text)
    if crc != checksum(payload, path, found, version, revision, at_ns):
        raise _damaged(path)
    stored = StoredState(
        store_as=found,
        state_version=version,
        revision=revision,
        payload=payload,
        at_ns=at_ns,
    )
    refuse_other_type(stored, path, store_as)
    return stored


def refuse_other_type(stored: StoredState, path: str, store_as: str) -> None:
    """Refuse to take one type's state for another's.

    Raises:
        RestoreError: it is.
    """
    found = stored.store_as
    if found != store_as:
        raise RestoreError(
            f"the stored state of {path} is of type {found!r}, not {store_as!r};"
            f" it was left untouched: set store_as = {found!r} on the agent's class to"
            " take it over, use another path, or delete its row to start empty"
        )


def states_behind(
    connection: sqlite3.Connection, path: str, limit: int
) -> dict[str, StoredState]:
    """The states whose rows lie behind that of `path`, by path, at most `limit`.

    Without those that are damaged: who asks for one by its path is told of it.
    """
    states: dict[str, StoredState] = {}
    size = 0
    for row in connection.execute(_SELECT_BEHIND, (path, limit)):
        # As `load_state` does, at a quarter of its cost.
        key, store_as, version, revision, at_ns, payload, crc = row
        try:
            if crc == crc32(b"%b\0%b\0%d\0%d\0%d%b" % row[:-1]):
                states[key.decode()] = StoredState(
                    store_as=store_as.decode(),
                    state_version=version,
                    revision=revision,
                    payload=payload,
                    at_ns=at_ns,
                )
                size += len(payload)
        except (TypeError, ValueError):
            continue  # Of another type, or no text any more: damaged.
        if size > AHEAD_BYTES:
            break
    return states


class LostStates:
    """Rows of state that a look-up by path does not find, because they are damaged.

    An index whose entry is damaged, or a path in which a bit was flipped, makes a state
    look as if it had never been; the agent would start empty. So whoever finds nothing
    asks here once more.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Stored, ...]] = []
        self._crcs: list[Stored] = []

    def look(self, connection: sqlite3.Connection, after: Stored) -> Stored | None:
        """Look at the next rows behind `after`; where to go on, None at the end."""
        rows = list(stored_rows(connection, _STATES, after))
        for row in rows:
            path = row.values[0]
            if row.sound and isinstance(path, bytes):
                found = connection.execute(_IS_INDEXED, (as_text(path),)).fetchone()
                if found is not None:
                    continue
            self._rows.append(row.values)
            self._crcs.append(row.crc)
        return place_behind(rows, after) if len(rows) == SLICE_ROWS else None

    def refuse(self, path: str) -> None:
        """Raise if one of them is of the agent at `path`.

        Raises:
            RestoreError: it is, and so it is damaged.
        """
        key = path.encode()
        for values, crc in zip(self._rows, self._crcs, strict=True):
            # Either the row names the path, or it would be whole if it did.
            if values[0] == key or row_checksum((key, *values[1:])) == crc:
                raise _damaged(path)


def _damaged(path: str) -> RestoreError:
    return RestoreError(
        f"the stored state of {path} is damaged (its checksum does not match);"
        " it was left untouched: restore a backup, or delete its row to start empty"
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
            message=as_stored(message),
            fault=as_stored(fault),
            revision=revision,
            payload=None if payload is None else as_stored(payload),
        )
        if crc == _crash_checksum(record, record.fault):
            records.append(record)
    return records


def _crash_checksum(record: CrashRecord, fault: bytes) -> int:
    payload = b"None" if record.payload is None else record.payload
    return checksum(
        payload,
        record.path,
        record.at_ns,
        record.incarnation,
        record.operation,
        as_text(record.message),
        as_text(fault),
        record.revision,
    )
