"""Changing a database file whose runtime is stopped.

Each takes the lock that a runtime takes, so a running one refuses them, and they it. What
is changed is changed in one transaction; a file that is replaced or rows that are removed
are kept beside it first.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.errors import StoreBroken, StoreError
from treewarden.injection import places

from .checking import DamagedRow, StoredRow, all_rows
from .checksums import DAMAGED, TABLES, checksum_sql
from .copies import (
    begin_copy,
    beside,
    check_copy,
    discard,
    finish_copy,
    partial_name,
    sync_folder,
)
from .database import Database, as_broken, judge, quick_check
from .filter import RENAME_INDEXED
from .inspection import existing, exported, looking, refuse_earlier, schema_of
from .level import Level
from .lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .checksums import Table

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
    """Rows looked at, the damaged ones, and how many of these were moved to `kept`."""

    file: Path
    rows: int
    damaged: list[DamagedRow]
    removed: int
    kept: Path | None


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
        with closing(Database(file, Level.DURABLE, None).connect()) as connection:
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
    """Write the file anew without its free pages; needs as much room again.

    Raises:
        StoreLocked: a runtime has it.
    """
    file = existing(file)
    with _owning(file) as connection:
        before = file.stat().st_size
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return Vacuumed(file=file, before_bytes=before, after_bytes=file.stat().st_size)


# --- putting a backup in place ----------------------------------------------------------


def restore_file(backup: Path, file: Path, *, replace: bool = False) -> Restored:
    """Put a copy of `backup`, looked at row by row, in the place of `file`.

    Killed at any moment, `file` is the old one or the new one.

    Raises:
        StoreLocked: a runtime has the file.
        StoreError: the backup is not there or not ours; the file is there already and
            `replace` was not said.
        StoreBroken: the backup is damaged; the file was not touched.
    """
    file = file.expanduser().resolve()
    if existing(backup) == file:
        raise StoreError(f"{file} is the backup itself")
    if file.exists() and not replace:
        raise StoreError(f"{file} is there already; say --replace to put it aside")
    partial = partial_name(file)
    with as_broken(str(file)), _locked(file):
        try:
            with looking(backup) as connection:
                begin_copy(connection, partial)
            rows, damaged = check_copy(partial)
            if damaged:
                raise StoreBroken(
                    f"{backup} has {len(damaged)} damaged rows (first: {damaged[0]});"
                    f" {file} was not touched: take another backup, or have the rows"
                    " removed from this one by `treewarden db scrub --remove`"
                )
            places.RESTORE_ASIDE.reach()
            kept = _put_aside(file) if file.exists() else None
            places.RESTORE_NAME.reach()
            finish_copy(partial, file)
        finally:
            discard(partial)
    return Restored(file=file, rows=rows, kept=kept)


def _put_aside(file: Path) -> Path:
    """Give the file a second name; its first is then free to be given away.

    Its log must not stay behind: SQLite would read it into the file that comes.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    kept = beside(file, "replaced")
    for suffix in ("-wal", "-shm", "-journal"):
        log = file.with_name(file.name + suffix)
        with suppress(FileNotFoundError):
            log.replace(kept.with_name(kept.name + suffix))
    os.link(file, kept)
    sync_folder(file.parent)
    return kept


# --- rows -------------------------------------------------------------------------------


def scrub_file(file: Path, *, remove: bool = False) -> Scrubbed:
    """Look at the checksum of every row; `remove` moves damaged ones to a file beside.

    What is removed has its agent start from its initial state. Entries of the journal
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
        kept = _remove(connection, file, moved) if remove and moved else None
        return Scrubbed(
            file=file,
            rows=rows,
            damaged=[row.as_damaged(table) for table, row in bad],
            removed=len(moved) if kept is not None else 0,
            kept=kept,
        )


def _remove(
    connection: sqlite3.Connection, file: Path, rows: list[tuple[Table, StoredRow]]
) -> Path:
    kept = beside(file, "damaged")
    kept = kept.with_name(f"{kept.name}.jsonl")
    with _transaction(connection):
        for table, row in rows:
            connection.execute(
                f"DELETE FROM {table.name} WHERE {table.place} = ?",  # noqa: S608 - our own names
                (row.place,),
            )
        # An index may still name what the damaged row does not say any more.
        connection.execute("REINDEX")
        _write_out(kept, rows)
    return kept


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
    if not new.startswith("/") or new.endswith("/"):
        raise StoreError(f"{new!r} is no path; it begins with / and does not end so")
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
