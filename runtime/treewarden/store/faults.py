"""The fault history: what failed in each node, the last thousand times within a day.

A fault is a report that names a crash. It is in the journal like every report, and once
more here, found by its node without passing over everything else. Nothing is kept of a
node for ever: the history of one that is gone goes with its last fault's day.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from . import failures
from .checksums import as_stored, checksum
from .insert import Insert
from .retention import DAY_NS, Horizon

if TYPE_CHECKING:
    from .unit import StagedEvent

FAULTS_KEPT: Final = 1000
"""Faults kept of each node."""
FAULT_NS: Final = DAY_NS
"""How long a fault is kept."""
FAULT_ROWS: Final = 1_000_000
"""Faults kept in all: a hundred each of ten thousand nodes, some 300 MB."""
TRIM_ROWS: Final = 1000
"""Rows deleted in one transaction."""
_PATHS: Final = 10
"""Nodes whose surplus is deleted in one rest: a transaction each, 5 ms at most."""

INSERT_FAULTS: Final = Insert(
    "INSERT INTO fault (position, path, topic, at_ns, payload, crc)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_SELECT = (
    "SELECT position, topic, at_ns, payload, crc FROM fault"
    " WHERE path = ? AND at_ns >= ? ORDER BY position DESC LIMIT ?"
)
_BEGINNING = (
    "SELECT position, path, topic, at_ns, payload, crc FROM fault"
    " ORDER BY position LIMIT 100"
)
_SURPLUS = (
    "DELETE FROM fault WHERE position IN (SELECT position FROM fault WHERE path = ?1"
    " AND position <= (SELECT position FROM fault WHERE path = ?1"
    " ORDER BY position DESC LIMIT 1 OFFSET ?2) ORDER BY position LIMIT ?3)"
)
_EXPIRED = (
    "DELETE FROM fault WHERE position <= (SELECT max(position) FROM"
    " (SELECT position, at_ns FROM fault ORDER BY position LIMIT ?2) WHERE at_ns < ?1)"
)
_OLDEST = (
    "DELETE FROM fault WHERE position IN"
    " (SELECT position FROM fault ORDER BY position LIMIT ?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """A fault of the node at `path`; `position` is that of its report in the journal.

    `payload` is the report, JSON: how it ended, where, and in which incarnation.
    """

    position: int
    path: str
    topic: str
    at_ns: int
    payload: bytes


def fault_row(event: StagedEvent, position: int) -> tuple[Any, ...]:
    """The parameters of `INSERT_FAULTS` for a report at that position."""
    path, topic, at_ns, payload = event.source, event.topic, event.at_ns, event.payload
    crc = checksum(payload, position, path, topic, at_ns)
    return position, path, topic, at_ns, payload.decode(), crc


def load_faults(
    connection: sqlite3.Connection, path: str, since_ns: int, limit: int
) -> list[FaultRecord]:
    """The newest faults of `path`, oldest first; damaged rows are left out."""
    found = []
    for row in connection.execute(_SELECT, (path, since_ns, limit)):
        position, topic, at_ns, text, crc = row
        payload = as_stored(text)
        if crc == checksum(payload, position, path, topic, at_ns):
            found.append(
                FaultRecord(
                    position=position,
                    path=path,
                    topic=topic,
                    at_ns=at_ns,
                    payload=payload,
                )
            )
    return found[::-1]


class FaultTrimmer:
    """Keeps the history within its bounds; used by the writer's thread."""

    def __init__(self) -> None:
        self._horizon: Horizon | None = None
        self._rows = 0
        self._grown: set[str] = set()

    def note(self, path: str) -> None:
        """A fault of `path` was committed."""
        self._rows += 1
        self._grown.add(path)

    def trim(self, connection: sqlite3.Connection) -> int:
        """Delete what is too old or too many, at most some slices; how many went."""
        horizon = self._horizon or self._begin(connection)
        deleted = _delete(connection, _EXPIRED, (horizon.before_ns(), TRIM_ROWS))
        if self._rows > FAULT_ROWS:
            deleted += _delete(connection, _OLDEST, (TRIM_ROWS,))
        for path in [self._grown.pop() for _ in range(min(_PATHS, len(self._grown)))]:
            surplus = _delete(connection, _SURPLUS, (path, FAULTS_KEPT, TRIM_ROWS))
            if surplus == TRIM_ROWS:
                self._grown.add(path)  # There may be more.
            deleted += surplus
        self._rows -= deleted
        return deleted

    def _begin(self, connection: sqlite3.Connection) -> Horizon:
        (rows,) = connection.execute("SELECT count(*) FROM fault").fetchone()
        self._rows = rows
        self._horizon = Horizon(FAULT_NS, _oldest_ns(connection))
        return self._horizon


def _oldest_ns(connection: sqlite3.Connection) -> int | None:
    """When the oldest sound fault was written; None when there is none."""
    for *key, at_ns, text, crc in connection.execute(_BEGINNING):
        if crc == checksum(as_stored(text), *key, at_ns):
            return int(at_ns)
    return None


def _delete(
    connection: sqlite3.Connection, statement: str, values: tuple[int | str, ...]
) -> int:
    try:
        return connection.execute(statement, values).rowcount
    except sqlite3.DatabaseError as error:
        if failures.primary_code(error) != sqlite3.SQLITE_CORRUPT:
            raise
        # A bit flipped in a row's path: its entry in the index is not where the row
        # says. Made anew from the rows, the index agrees with them again; the row's
        # checksum still tells.
        connection.execute("REINDEX fault")
        return connection.execute(statement, values).rowcount
