"""Whether a file is whole: SQLite's own structure, and the checksum of every row.

Neither is enough alone. SQLite sees a broken page or index and no changed value; a
checksum sees a changed value and no lost row. Rows are read in slices, so that no snapshot
and no thread is held for long.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import failures
from .checksums import TABLES, as_text, row_checksum
from .filter import index_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .checksums import Stored, Table

SLICE_ROWS: Final = 2000
"""Rows looked at in one go: some 6 ms."""
SLICE_BYTES: Final = 4 << 20
"""The same in bytes, roughly: a checksum takes 1 ms for each MiB."""
LOOK_SECONDS: Final = 1.0
"""How long after the disk did not let somebody look there is another try."""
LOOKS: Final = 10
"""Tries after which a file that cannot be looked at counts as damaged."""
PROBLEMS: Final = 100
"""Findings listed; whoever has more has seen enough."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRow:
    """A row whose checksum does not match; `key` says which, as far as it can be told."""

    table: str
    key: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.table}: the row {self.key} is damaged"


class Slice(NamedTuple):
    """What one look at a table found; `after` is where to go on, None at its end."""

    rows: int
    damaged: list[DamagedRow]
    after: Stored | None


def check_slice(connection: sqlite3.Connection, table: Table, after: Stored) -> Slice:
    """Look at the checksums of the rows of `table` behind `after`."""
    rows: list[StoredRow] = []
    size = 0
    for row in stored_rows(connection, table, after):
        rows.append(row)
        size += len(row.values[-1]) if isinstance(row.values[-1], bytes) else 8
        if size > SLICE_BYTES:
            break
    damaged = [row.as_damaged(table) for row in rows if not row.sound]
    more = size > SLICE_BYTES or len(rows) == SLICE_ROWS
    return Slice(len(rows), damaged, place_behind(rows, after) if more else None)


class StoredRow(NamedTuple):
    """A row as it is stored, text as bytes: its place, columns and checksum."""

    place: Stored
    values: tuple[Stored, ...]
    crc: Stored

    @property
    def sound(self) -> bool:
        """Whether it is what was written."""
        return self.crc == row_checksum(self.values)

    def as_damaged(self, table: Table) -> DamagedRow:
        """Which row it is."""
        named = dict(zip(table.columns, self.values, strict=True))
        return DamagedRow(
            table=table.name, key=" ".join(_shown(named[name]) for name in table.key)
        )


def stored_rows(
    connection: sqlite3.Connection, table: Table, after: Stored
) -> Iterator[StoredRow]:
    """The next `SLICE_ROWS` rows behind `after`, or fewer at the end."""
    query = (
        f"SELECT {table.place}, {_as_they_are(table.columns)}, crc FROM {table.name}"  # noqa: S608 - our own names
        f" NOT INDEXED WHERE {table.place} > ? ORDER BY {table.place} LIMIT ?"
    )
    for place, *values, crc in connection.execute(query, (after, SLICE_ROWS)):
        yield StoredRow(place, tuple(values), crc)


def place_behind(rows: list[StoredRow], after: Stored) -> Stored | None:
    """Where to go on behind `rows`, which were read behind `after`.

    None when they do not lead on: damaged places may lead back, and so for ever.
    """
    place: Any = rows[-1].place
    return place if place > after else None


def all_rows(connection: sqlite3.Connection, table: Table) -> Iterator[StoredRow]:
    """Every row of `table`, in slices."""
    after: Stored | None = table.start
    while after is not None:
        rows = list(stored_rows(connection, table, after))
        yield from rows
        after = place_behind(rows, after) if len(rows) == SLICE_ROWS else None


def damaged_rows(connection: sqlite3.Connection) -> Iterator[DamagedRow]:
    """Every damaged row of the file.

    Raises:
        sqlite3.DatabaseError: a table cannot be read to its end.
    """
    for table in TABLES.values():
        after: Stored | None = table.start
        while after is not None:
            found = check_slice(connection, table, after)
            yield from found.damaged
            after = found.after


def structure_problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong with pages, tables and indexes."""
    rows = connection.execute(f"PRAGMA integrity_check({PROBLEMS})").fetchall()
    found = [str(line) for (line,) in rows]
    return [] if found == ["ok"] else found


def problems(connection: sqlite3.Connection) -> list[str]:
    """Everything that is wrong with the file, one sentence each."""
    found: list[str] = []
    try:
        found += structure_problems(connection)
        found += _gaps(connection)
        found += index_problems(connection)
        for row in damaged_rows(connection):
            found.append(str(row))
            if len(found) >= PROBLEMS:
                found.append(f"that is {PROBLEMS} problems; the rest is not listed")
                break
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        found.append(f"it cannot be read to its end: {error}")
    return found


def _gaps(connection: sqlite3.Connection) -> list[str]:
    # Only retention deletes of the journal, and only its beginning.
    first, last, count = connection.execute(
        "SELECT min(position), max(position), count(*) FROM journal NOT INDEXED"
    ).fetchone()
    missing = last - first + 1 - count if count else 0
    return [f"journal: {missing} entries are missing"] if missing else []


class StructureCheck:
    """SQLite's check of a whole file, beside everything else; blocking calls.

    Used where nobody can wait for it: a file that was not closed in order, or is too
    large to be checked when it is opened.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        tell: Callable[[list[str]], None],
    ) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._stopped = threading.Event()
        self._tell = tell
        self._thread = threading.Thread(target=self._run, name="treewarden check")
        self._thread.start()

    def _run(self) -> None:
        for _ in range(LOOKS):
            found, lasting = self._look()
            if lasting or self._stopped.wait(LOOK_SECONDS):
                break
        if not self._stopped.is_set():
            self._tell(found)

    def _look(self) -> tuple[list[str], bool]:
        """What was found, and whether that is of the file: a disk may be well again."""
        try:
            with closing(self._connect()) as connection:
                self._connection = connection
                return structure_problems(connection), True
        except (sqlite3.Error, UnicodeDecodeError) as error:
            damaged = failures.primary_code(error) in _DAMAGED
            return [f"it cannot be read to its end: {error}"], damaged

    def stop(self) -> None:
        """End it, done or not, and wait for the thread's end."""
        self._stopped.set()
        while self._thread.is_alive():
            # Again and again: an interruption before the statement began is lost.
            if self._connection is not None:
                with suppress(sqlite3.ProgrammingError):  # It has just been closed.
                    self._connection.interrupt()
            self._thread.join(0.02)


def _as_they_are(columns: tuple[str, ...]) -> str:
    return ", ".join(
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
        for name in columns
    )


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever is in a damaged row
    return as_text(value) if isinstance(value, bytes) else str(value)
