"""The file: whose it is, and how connections to it are made.

Opening takes the lock first, then looks at the header with plain reads, and only then lets
SQLite near the file, so that a file that is not ours, or is newer than we are, keeps
every byte. After that nobody opens the file by ordinary calls: closing it once would drop
SQLite's own locks.

One read-write connection exists in the whole system (the writer's); readers cannot write
(`mode=ro` and `query_only`: the second can be undone by a statement, the first cannot).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns
from treewarden.errors import (
    ConfigError,
    DowngradeRefused,
    StoreBroken,
    StoreError,
    TreewardenError,
)

from . import failures
from .journal import Tail, load_tail
from .level import Level
from .lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK_CHECK_BYTES: Final = 256 << 20
"""Files up to this size are checked when opened: 0.6 ms per 161 pages, so about 0.25 s."""
BUSY_MS: Final = 5000
"""How long a write waits for a foreign process that holds the file's write lock."""
READERS: Final = 2
"""Reads at a time: a long look into the journal must not hold up a restart."""

_MAGIC = b"SQLite format 3\0"
_WRITER_PRAGMAS = (
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",
    "temp_store = MEMORY",
    f"busy_timeout = {BUSY_MS}",
    "journal_size_limit = 4194304",
    # The writer checkpoints when it has time, not in the middle of somebody's commit.
    "wal_autocheckpoint = 0",
    # Without these two, macOS keeps what was synced in the drive's cache.
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)
_SYNCHRONOUS = {
    Level.DURABLE: "FULL",
    Level.CRASH_SAFE: "NORMAL",
    Level.VOLATILE: "OFF",
}
_FREE_ALL = "UPDATE queue_item SET free_at = NULL WHERE free_at IS NOT NULL"
_SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


@dataclass(slots=True, kw_only=True)
class Opened:
    """A database that is ours, and what the store continues from."""

    database: Database
    connection: sqlite3.Connection
    readers: tuple[sqlite3.Connection, ...]
    tail: Tail
    sequence: int
    recovered: bool


class Database:
    """One database file, or one in memory when `path` is None."""

    def __init__(self, path: Path | None, level: Level, lock: FileLock | None) -> None:
        self.path = path
        self.level = level
        self._lock = lock

    @property
    def name(self) -> str:
        """What error messages call it."""
        return str(self.path) if self.path is not None else "the database in memory"

    def connect(self) -> sqlite3.Connection:
        """The read-write connection; at most one may exist. Any thread may use it."""
        place = self.path if self.path is not None else ":memory:"
        connection = sqlite3.connect(
            place, isolation_level=None, check_same_thread=False
        )
        for pragma in _WRITER_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[self.level]}")
        return connection

    def wal_bytes(self) -> int:
        """Size of the write-ahead log; 0 in memory."""
        return 0 if self.path is None else _size(f"{self.path}-wal")

    def file_bytes(self) -> int:
        """Size of the main file; 0 in memory."""
        return 0 if self.path is None else _size(str(self.path))

    def close(self) -> None:
        """Give the lock up; every connection must be closed by now."""
        if self._lock is not None:
            self._lock.release()


def open_database(
    path: Path | None, *, level: Level, application: str, boot: str
) -> Opened:
    """Lock, judge, open and migrate a database; blocking, so for a thread.

    Raises:
        StoreLocked: another runtime owns the file.
        DowngradeRefused: a newer version wrote it.
        StoreError: it is no treewarden database, or another application's.
        StoreBroken: it cannot be opened, or is damaged.
        MigrationFailed: its schema could not be brought up to date.
    """
    if level is Level.VOLATILE:
        return _open(Database(None, level, None), application, boot)
    if path is None:
        raise ConfigError(f"a {level.value} store needs a file; none was named")
    path = path.expanduser().resolve()
    with _as_broken(str(path)):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.acquire(path, boot)
    try:
        with _as_broken(str(path)):
            _judge(path, application)
            return _open(Database(path, level, lock), application, boot)
    except BaseException:
        lock.release()
        raise


def _open(database: Database, application: str, boot: str) -> Opened:
    connection = database.connect()
    try:
        return _prepare(database, connection, application, boot)
    except BaseException:
        connection.close()
        raise


def _prepare(
    database: Database, connection: sqlite3.Connection, application: str, boot: str
) -> Opened:
    # Imported here: sqlite-utils costs as much time as trio, and only opening needs it.
    from .migrations import migrate

    if database.file_bytes():
        _quick_check(database, connection)
    else:
        # Counts only before the first table is made.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # A new file gets its schema before it gets a log, so that its header is complete
    # from its first commit on, and `_judge` may trust it.
    migrate(connection)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    recovered = _begin_run(connection, application, boot)
    (sequence,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM queue_item"
    ).fetchone()
    tail = load_tail(connection)
    return Opened(
        database=database,
        connection=connection,
        readers=_connect_readers(database),
        tail=tail,
        sequence=sequence,
        recovered=recovered,
    )


def _connect_readers(database: Database) -> tuple[sqlite3.Connection, ...]:
    if database.path is None:
        return ()
    readers = []
    for _ in range(READERS):
        reader = _read_only(database.path)
        readers.append(reader)
        reader.execute("PRAGMA query_only = ON")
        reader.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        # A connection joins the log's index at its first look, not before.
        reader.execute("SELECT count(*) FROM meta").fetchone()
    return tuple(readers)


def _begin_run(connection: sqlite3.Connection, application: str, boot: str) -> bool:
    """Note the run; True when the one before it did not end with a clean shutdown."""
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    facts = {
        "application": application or meta.get("application", ""),
        "boot": boot,
        "clean_shutdown": "no",
        "created_at_ns": meta.get("created_at_ns", str(wall_ns())),
    }
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_SET_META, facts.items())
    # Leases and delays hold within one run: nobody is left to give them back.
    connection.execute(_FREE_ALL)
    connection.execute("COMMIT")
    return meta.get("clean_shutdown") == "no"


def end_run(connection: sqlite3.Connection) -> None:
    """Note that the run ended in order: everything acknowledged is in the main file."""
    connection.execute(_SET_META, ("clean_shutdown", "yes"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _judge(path: Path, application: str) -> None:
    """Refuse a file that is not ours, without changing a byte of it."""
    from .migrations import APPLICATION_ID, SCHEMA_VERSION

    header = _header(path)
    if not header:
        return
    if header[:16] != _MAGIC or len(header) < 100:
        raise StoreError(f"{path} is not an SQLite database; name another file")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreError(
            f"{path} is an SQLite database of something else than treewarden;"
            " name another file"
        )
    _refuse_newer(path, int.from_bytes(header[60:64], "big"), SCHEMA_VERSION)
    if _size(f"{path}-journal") > 0:
        return  # Its making was cut off; SQLite undoes it when it opens the file.
    # Without a log the main file is everything, and reading it so leaves no file behind.
    has_log = _size(f"{path}-wal") > 0
    with closing(_read_only(path, immutable=not has_log)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _refuse_newer(path, version, SCHEMA_VERSION)
        _refuse_stranger(path, connection, application)


def _header(path: Path) -> bytes:
    # Made here, so that it is private from its first byte; its log inherits the mode.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def _refuse_newer(path: Path, found: int, known: int) -> None:
    if found > known:
        raise DowngradeRefused(
            f"{path} was written by a newer treewarden (schema {found}, this one knows"
            f" {known}); it was not touched: use that version, or another file"
        )


def _refuse_stranger(
    path: Path, connection: sqlite3.Connection, application: str
) -> None:
    row = connection.execute(
        "SELECT value FROM meta WHERE key = 'application'"
    ).fetchone()
    owner = row[0] if row is not None else ""
    if owner and application and owner != application:
        raise StoreError(
            f"{path} belongs to the application {owner!r}, not {application!r};"
            " name another file"
        )


def _quick_check(database: Database, connection: sqlite3.Connection) -> None:
    if database.file_bytes() > QUICK_CHECK_BYTES:
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreBroken(
            f"{database.name} is damaged ({verdict}); copy it aside and restore a backup"
        )


def _read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(
        f"{path.as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )


@contextmanager
def _as_broken(file: str) -> Iterator[None]:
    """Let the world's failures come out as one clear sentence."""
    try:
        yield
    except TreewardenError:
        raise
    except sqlite3.Error as error:
        raise failures.unusable(error, file) from error
    except OSError as error:
        raise StoreBroken(f"cannot open {file}: {error.strerror}") from error


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - a path object costs more than this
    except FileNotFoundError:
        return 0
