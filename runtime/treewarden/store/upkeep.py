"""Changing a database file whose runtime is stopped.

Each takes the lock that a runtime takes, so a running one refuses them, and they it. What
is changed is changed in one transaction; a file that is replaced or rows that are removed
are kept beside it first.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.clock import wall_ns
from treewarden.errors import StoreBroken, StoreError
from treewarden.ids import CHILD_ID
from treewarden.injection import places

from . import failures
from .applied import TELLING, forget_earlier
from .checking import DamagedRow, StoredRow, all_rows, structure_problems
from .checksums import DAMAGED, TABLES, checksum_sql
from .copies import (
    as_uncopied,
    begin_copy,
    beside,
    check_copy,
    discard,
    finish_copy,
    logs_of,
    partial_name,
    sync_folder,
)
from .database import Database, as_broken, judge, quick_check, whole_name
from .filter import RENAME_INDEXED, index_problems, make_index_anew
from .holders import holders
from .inspection import existing, exported, looking, refuse_earlier, schema_of
from .level import Level
from .lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .checksums import Table

_PATH: Final = re.compile(f"(/{CHILD_ID.pattern})+")
_PATHS: Final[Mapping[str, str]] = {
    "agent_state": "path",
    "agent_crash": "path",
    "queue_item": "path",
    "map_item": "path",
    "inbox": "path",
    "applied": "path",
    "effect": "path",
    "dead_letter": "path",
    "remembered_child": "supervisor",
    "subscription": "owner",
    "delivery": "owner",
}
"""By table: the column that says whose row it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A backup is in place; `kept` is where the file that was there is now."""

    file: Path
    rows: int
    kept: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """The schema before and after; `kept` is the file as it was before."""

    file: Path
    before: int
    after: int
    kept: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed:
    """Rows looked at, the damaged ones, and how many of these were moved to `kept`.

    `indexes` is what did not agree with the rows; with the damaged rows it is mended.
    """

    file: Path
    rows: int
    damaged: list[DamagedRow]
    removed: int
    kept: Path | None
    indexes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacuumed:
    """How large the file was and is."""

    file: Path
    before_bytes: int
    after_bytes: int


@contextmanager
def _owning(file: Path) -> Iterator[sqlite3.Connection]:
    """The read-write connection to a file that no runtime has open."""
    file = existing(file)
    with as_broken(str(file)), _locked(file):
        judge(file, "")
        with (
            closing(Database(file, Level.DURABLE, None).connect()) as connection,
            as_broken(str(file), failures.unchanged),
        ):
            yield connection
            # Everything into the main file, which may then be copied as one.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = FileLock.acquire(file, "treewarden db")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


# --- schema and size --------------------------------------------------------------------


def migrate_file(file: Path) -> Migrated:
    """Bring the file to this version's schema, as a runtime does when it starts.

    Raises:
        StoreLocked: a runtime has it.
        DowngradeRefused: a newer version wrote it; it was not touched.
        MigrationFailed: a step failed; the file is as it was before.
    """
    from .migrations import migrate

    file = existing(file)
    with _owning(file) as connection:
        before = schema_of(connection)
        quick_check(Database(file, Level.DURABLE, None), connection)
        kept = migrate(connection, file)
        return Migrated(
            file=file, before=before, after=schema_of(connection), kept=kept
        )


def vacuum_file(file: Path) -> Vacuumed:
    """Write the file anew without its free pages; needs twice as much room again.

    Raises:
        StoreLocked: a runtime has it.
    """
    file = existing(file)
    with _owning(file) as connection:
        before = file.stat().st_size
        # Else all of it would be in memory meanwhile; and beside the file there is room.
        connection.execute("PRAGMA temp_store = FILE")
        with _temporary_files_in(connection, file.parent):
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return Vacuumed(file=file, before_bytes=before, after_bytes=file.stat().st_size)


@contextmanager
def _temporary_files_in(connection: sqlite3.Connection, folder: Path) -> Iterator[None]:
    """Have SQLite's temporary files in `folder`; where it cannot, they are elsewhere."""
    quoted = str(folder).replace("'", "''")
    connection.execute(f"PRAGMA temp_store_directory = '{quoted}'")
    try:
        yield
    finally:
        connection.execute("PRAGMA temp_store_directory = ''")


# --- putting a backup in place ----------------------------------------------------------


def restore_file(backup: Path, file: Path, *, replace: bool = False) -> Restored:
    """Put a copy of `backup`, looked at row by row, in the place of `file`.

    Killed at any moment, `file` is the old one or the new one.

    Raises:
        StoreLocked: a runtime has the file.
        StoreError: the backup is not there or not ours; the file, or a log of one, is
            there already and `replace` was not said, or somebody reads it.
        StoreBroken: the backup is damaged; the file was not touched.
    """
    file = whole_name(file)
    if existing(backup) == file:
        raise StoreError(f"{file} is the backup itself")
    if file.exists() and not file.is_file():
        raise StoreError(f"{file} is no file; name another")
    partial = partial_name(file)
    with as_broken(str(file)), _locked(file):
        there = _what_is_there(file)
        if there and not replace:
            raise StoreError(
                f"{there[0]} is there already; say --replace to put it aside"
            )
        try:
            with looking(backup) as connection, as_uncopied(file):
                begin_copy(connection, partial)
            rows, damaged = check_copy(partial)
            if damaged:
                raise StoreBroken(
                    f"{backup} has {len(damaged)} damaged rows (first: {damaged[0]});"
                    f" {file} was not touched: take another backup, or have the rows"
                    " removed from this one by `treewarden db scrub --remove`"
                )
            places.RESTORE_ASIDE.reach()
            kept = _put_aside(file) if there else None
            places.RESTORE_NAME.reach()
            finish_copy(partial, file)
        finally:
            discard(partial)
    return Restored(file=file, rows=rows, kept=kept)


def _what_is_there(file: Path) -> list[Path]:
    """The file and its logs, as far as they are there; also logs that it left behind."""
    return [file, *logs_of(file)] if file.exists() else logs_of(file)


def _put_aside(file: Path) -> Path:
    """Give what is there another name; the first of what has one now.

    The file keeps its own name too, which is then free to be given away. A log must not
    stay behind, also without its file: SQLite would read it into the file that comes.
    """
    if file.exists():
        _empty_log(file)
    kept = beside(file, "replaced")
    moved = _what_is_there(file)
    for one in moved:
        name = kept.with_name(kept.name + one.name.removeprefix(file.name))
        if one == file:
            os.link(one, name)
        else:
            one.replace(name)
    sync_folder(file.parent)
    return kept.with_name(kept.name + moved[0].name.removeprefix(file.name))


def _empty_log(file: Path) -> None:
    """Have all of it in the main file, which then is the old one without its log.

    Raises:
        StoreError: somebody reads the file.
    """
    # What is too damaged for that is put aside as it is.
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
        is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            readers = ", ".join(holders(file)) or "another process"
            raise StoreError(f"{file} is read by {readers}; have it end, and try again")


# --- rows -------------------------------------------------------------------------------


def scrub_file(file: Path, *, remove: bool = False) -> Scrubbed:
    """Look at the checksum of every row; `remove` moves damaged ones to a file beside.

    Indexes that do not agree with the rows are made anew then.

    What is removed has its agent start from its initial state, and of ids whose rows it
    may have been nobody says any more that they were not applied. Entries of the journal
    stay: they read as damaged, and nobody depends on them.

    Raises:
        StoreLocked: a runtime has the file.
        StoreBroken: it is damaged beyond its rows.
    """
    file = existing(file)
    with _owning(file) as connection:
        refuse_earlier(file, connection)
        rows = 0
        bad: list[tuple[Table, StoredRow]] = []
        for table in TABLES.values():
            for row in all_rows(connection, table):
                rows += 1
                if not row.sound:
                    bad.append((table, row))
        moved = [(table, row) for table, row in bad if table.name != "journal"]
        problems = structure_problems(connection) or index_problems(connection)
        kept = _remove(connection, file, moved) if remove and moved else None
        if remove and (problems or moved):
            _make_indexes_anew(connection)
        return Scrubbed(
            file=file,
            rows=rows,
            damaged=[row.as_damaged(table) for table, row in bad],
            removed=len(moved) if kept is not None else 0,
            kept=kept,
            indexes=problems,
        )


def _remove(
    connection: sqlite3.Connection, file: Path, rows: list[tuple[Table, StoredRow]]
) -> Path:
    kept = beside(file, "damaged")
    kept = kept.with_name(f"{kept.name}.jsonl")
    with _without_indexes_in_the_way(connection), _transaction(connection):
        for table, row in rows:
            connection.execute(
                f"DELETE FROM {table.name} WHERE {table.place} = ?",  # noqa: S608 - our own names
                (row.place,),
            )
        # An index may still name what the damaged row does not say any more.
        connection.execute("REINDEX")
        if any(table.name in TELLING for table, _ in rows):
            forget_earlier(connection, wall_ns())
        _write_out(kept, rows)
    return kept


@contextmanager
def _without_indexes_in_the_way(connection: sqlite3.Connection) -> Iterator[None]:
    """Let rows be deleted that an index does not have where they say.

    SQLite refuses it otherwise, and calls the file malformed.
    """
    connection.execute("PRAGMA writable_schema = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA writable_schema = OFF")


def _make_indexes_anew(connection: sqlite3.Connection) -> None:
    """Have all of them agree with the rows again.

    Raises:
        StoreBroken: more than indexes is damaged.
    """
    with _transaction(connection):
        make_index_anew(connection)
        connection.execute("REINDEX")
    left = structure_problems(connection)
    if left:
        raise StoreBroken(
            f"it is damaged beyond its rows ({left[0]}); copy it aside and restore a backup"
        )


def _write_out(target: Path, rows: list[tuple[Table, StoredRow]]) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for table, row in rows:
            named = zip(table.columns, row.values, strict=True)
            values: dict[str, Any] = {"table": table.name}
            values |= {name: exported(name, value) for name, value in named}
            out.write(msgspec.json.encode({**values, "crc": row.crc}) + b"\n")
        out.flush()
        os.fsync(descriptor)
    sync_folder(target.parent)


def rename_path(file: Path, old: str, new: str) -> dict[str, int]:
    """Move what is stored under the path `old` to `new`; rows moved, by table.

    State, crashes, queues, maps and remembered children move; the journal is history and
    stays as it is, and so does what is stored under longer paths.

    Raises:
        StoreLocked: a runtime has the file.
        StoreError: nothing is stored under `old`, or something under `new`.
    """
    if not _PATH.fullmatch(new):
        raise StoreError(
            f"{new!r} is no path, and no agent could claim it: a path is / and an id, once"
            " or more often"
        )
    file = existing(file)
    with _owning(file) as connection:
        refuse_earlier(file, connection)
        with _transaction(connection):
            taken = _stored_under(connection, new)
            if taken:
                raise StoreError(f"{new} has rows in {', '.join(taken)} already")
            if not _stored_under(connection, old):
                raise StoreError(f"nothing is stored under {old}")
            connection.execute(RENAME_INDEXED, (old, new))
            return {name: _rename(connection, name, old, new) for name in _PATHS}


def _stored_under(connection: sqlite3.Connection, path: str) -> list[str]:
    return [
        name
        for name, column in _PATHS.items()
        if connection.execute(
            f"SELECT 1 FROM {name} WHERE {column} = ? LIMIT 1",  # noqa: S608 - our own names
            (path,),
        ).fetchone()
    ]


def _rename(connection: sqlite3.Connection, name: str, old: str, new: str) -> int:
    column, columns = _PATHS[name], TABLES[name].columns
    moved = ("?2" if one == column else one for one in columns)
    return connection.execute(
        f"UPDATE {name} SET {column} = ?2, crc = CASE crc"  # noqa: S608 - our own names
        f" WHEN {checksum_sql(*columns)} THEN {checksum_sql(*moved)}"
        f" ELSE {DAMAGED} END WHERE {column} = ?1",
        (old, new),
    ).rowcount
