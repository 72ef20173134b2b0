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
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from treewarden.clock import wall_ns
from treewarden.errors import (
    ConfigError,
    DowngradeRefused,
    StoreBroken,
    StoreError,
    TreewardenError,
)
from treewarden.injection import places

from . import failures
from .checksums import DAMAGED, as_stored, as_text, checksum, checksum_sql, install
from .journal import Tail, load_tail
from .level import Level
from .lock import FileLock
from .wal import lost_commits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK_CHECK_BYTES: Final = 256 << 20
"""Files up to this size are checked when opened: 0.6 ms per 161 pages, so about 0.25 s."""
BUSY_MS: Final = 5000
"""How long a write waits for a foreign process that holds the file's write lock."""
RESERVE_BYTES: Final = 1 << 20
"""Kept free beside the file, so that on a full disk a run can still end in order."""
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
# Leases and delays are of the run that is over. What is damaged stays so.
_QUEUE = ("path", "name", "key", "seq", "attempts")
_FREE_ALL = (
    "UPDATE queue_item SET free_at = NULL, crc = CASE crc"  # noqa: S608 - our own names
    f" WHEN {checksum_sql(*_QUEUE, 'free_at', 'payload')}"
    f" THEN {checksum_sql(*_QUEUE, 'NULL', 'payload')}"
    f" ELSE {DAMAGED} END"
    " WHERE free_at IS NOT NULL"
)
_SET_META = "INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)"


_Identity: TypeAlias = tuple[int, int]
"""What tells a file from every other: its device and its number there."""


@dataclass(slots=True, kw_only=True)
class Opened:
    """A database that is ours, and what the store continues from."""

    database: Database
    connection: sqlite3.Connection
    readers: tuple[sqlite3.Connection, ...]
    tail: Tail
    sequence: int
    boot: str
    recovered: bool
    unchecked: bool
    """Whether the whole file wants a check that nobody can wait for."""
    lost_commits: int = 0
    """Commits of the run before this one that its damaged log has lost."""


class Database:
    """One database file, or one in memory when `path` is None."""

    def __init__(self, path: Path | None, level: Level, lock: FileLock | None) -> None:
        self.path = path
        self.level = level
        self._lock = lock
        self._is_at: tuple[_Identity | None, ...] | None = None

    @property
    def name(self) -> str:
        """What error messages call it."""
        return str(self.path) if self.path is not None else "the database in memory"

    def connect(self) -> sqlite3.Connection:
        """The read-write connection; at most one may exist. Any thread may use it."""
        places.CONNECT.reach()
        place = self.path if self.path is not None else ":memory:"
        connection = sqlite3.connect(
            place, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = as_text
        install(connection)
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

    def note_place(self) -> None:
        """Remember which file and which log these are; once both are there."""
        if self.path is not None:
            self._is_at = tuple(map(_identity, self._names))

    def check_place(self) -> None:
        """See that the file, its log and its lock are where they were.

        SQLite goes on with a file that was removed, moved or replaced, and everything
        acknowledged from then on would go with it. A lock that was removed is taken anew.

        Raises:
            StoreBroken: one is not.
            StoreLocked: another runtime has the lock now.
        """
        if self._is_at is None:
            return
        for name, was in zip(self._names, self._is_at, strict=True):
            if _identity(name) != was:
                raise StoreBroken(
                    f"cannot write {self.path}: {name} was removed, moved or replaced"
                    " while it was in use; put it back, or stop and restore a backup"
                )
        if self._lock is not None:
            self._lock.renew()

    @property
    def _names(self) -> tuple[str, str]:
        return str(self.path), f"{self.path}-wal"

    def keep_reserve(self) -> None:
        """Have `RESERVE_BYTES` of the disk taken beside the file, if there is room."""
        if self.path is None or _size(f"{self.path}.reserve") == RESERVE_BYTES:
            return
        reserve = f"{self.path}.reserve"
        with suppress(OSError):
            descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                # Zeros that are written, not a hole: they must have their place.
                os.write(descriptor, bytes(RESERVE_BYTES))
            finally:
                os.close(descriptor)

    def free_reserve(self) -> None:
        """Give that room back to whoever writes next."""
        if self.path is not None:
            with suppress(OSError):
                os.unlink(f"{self.path}.reserve")  # noqa: PTH108 - as `_size`

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
    path = whole_name(path)
    with as_broken(str(path)):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.acquire(path, boot)
    try:
        with as_broken(str(path)):
            judge(path, application)
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

    size = database.file_bytes()
    lost = 0
    if size:
        quick_check(database, connection)
        lost = _look_at_log(database, connection)
    else:
        # Counts only before the first table is made.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # A new file gets its schema before it gets a log, so that its header is complete
    # from its first commit on, and `judge` may trust it.
    # Until then only FULL keeps a file whole through a power cut, at any level.
    connection.execute("PRAGMA synchronous = FULL")
    migrate(connection, database.path)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[database.level]}")
    recovered = _begin_run(connection, application, boot)
    (sequence,) = connection.execute(
        "SELECT max((SELECT coalesce(max(seq), 0) FROM queue_item),"
        " (SELECT coalesce(max(seq), 0) FROM inbox),"
        " (SELECT coalesce(max(seq), 0) FROM dead_letter))"
    ).fetchone()
    places.LOAD_TAIL.reach()
    tail = load_tail(connection)
    readers = _connect_readers(database)
    database.note_place()
    return Opened(
        database=database,
        connection=connection,
        readers=readers,
        tail=tail,
        sequence=sequence,
        boot=boot,
        recovered=recovered,
        unchecked=recovered or size > QUICK_CHECK_BYTES,
        lost_commits=lost,
    )


def _look_at_log(database: Database, connection: sqlite3.Connection) -> int:
    """Commits that damage has cut off the log of the run before this one."""
    if database.path is None or not database.wal_bytes():
        return 0
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    log = database.path.with_name(f"{database.path.name}-wal")
    return lost_commits(log, frames) if frames >= 0 else 0


def _connect_readers(database: Database) -> tuple[sqlite3.Connection, ...]:
    if database.path is None:
        return ()
    places.READERS.reach()
    readers = []
    for _ in range(READERS):
        reader = connect_read_only(database.path)
        readers.append(reader)
        reader.execute("PRAGMA query_only = ON")
        reader.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        # A connection joins the log's index at its first look, not before.
        reader.execute("SELECT count(*) FROM meta").fetchone()
    return tuple(readers)


def _begin_run(connection: sqlite3.Connection, application: str, boot: str) -> bool:
    """Note the run; True when the one before it did not end with a clean shutdown."""
    meta = load_meta(connection)
    facts = {
        "application": application or meta.get("application", ""),
        "boot": boot,
        "clean_shutdown": "no",
        "created_at_ns": meta.get("created_at_ns", str(wall_ns())),
    }
    connection.execute("BEGIN IMMEDIATE")
    for key, value in facts.items():
        set_meta(connection, key, value)
    # Leases and delays hold within one run: nobody is left to give them back.
    connection.execute(_FREE_ALL)
    places.BEGIN_RUN.reach()
    connection.execute("COMMIT")
    return meta.get("clean_shutdown") == "no"


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Note a fact about the file."""
    connection.execute(_SET_META, (key, value, checksum(value.encode(), key)))


def load_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """The facts about the file, without those that are damaged."""
    rows = connection.execute("SELECT key, value, crc FROM meta")
    return {
        key: value for key, value, crc in rows if crc == checksum(as_stored(value), key)
    }


def end_run(connection: sqlite3.Connection) -> None:
    """Note that the run ended in order: everything acknowledged is in the main file."""
    places.END_RUN.reach()
    set_meta(connection, "clean_shutdown", "yes")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def judge(path: Path, application: str) -> None:
    """Refuse a file that is not ours, without changing a byte of it.

    `application` "" is anybody.
    """
    from .migrations import APPLICATION_ID, SCHEMA_VERSION

    places.JUDGE.reach()
    header = _header(path)
    if not header:
        _refuse_orphaned_log(path)
        return
    if header[:16] != _MAGIC or len(header) < 100:
        raise StoreError(f"{path} is not an SQLite database; name another file")
    if _has_no_schema(header) and not _size(f"{path}-wal"):
        return  # Its making was cut off before its first table; nobody's rows are in it.
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
    with closing(connect_read_only(path, immutable=not has_log)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _refuse_newer(path, version, SCHEMA_VERSION)
        if version and application:
            _refuse_stranger(path, _owner(connection, version), application)


def _header(path: Path) -> bytes:
    # Made here, so that it is private from its first byte; its log inherits the mode.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def _has_no_schema(header: bytes) -> bool:
    """No table was ever made, and nobody has set a version or put a name to it."""
    schema_cookie, version, name = header[40:44], header[60:64], header[68:72]
    return not any(schema_cookie + version + name)


def _refuse_orphaned_log(path: Path) -> None:
    """A new file has no log yet; SQLite would throw it away and start empty."""
    log_bytes = _size(f"{path}-wal")
    if log_bytes:
        raise StoreBroken(
            f"{path} is empty, and its log ({path}-wal, {log_bytes} bytes) is not: the"
            " file was cut off or removed; copy the log aside and restore a backup, or"
            " remove it to start empty"
        )


def _refuse_newer(path: Path, found: int, known: int) -> None:
    if found > known:
        raise DowngradeRefused(
            f"{path} was written by a newer treewarden (schema {found}, this one knows"
            f" {known}); it was not touched: use that version, or another file"
        )


def _owner(connection: sqlite3.Connection, version: int) -> str:
    """Which application's file it is, or "" when it does not say, or says it damaged."""
    if version > 1:
        return load_meta(connection).get("application", "")
    query = "SELECT value FROM meta WHERE key = 'application'"
    return (connection.execute(query).fetchone() or ("",))[0]


def _refuse_stranger(path: Path, owner: str, application: str) -> None:
    if owner and owner != application:
        raise StoreError(
            f"{path} belongs to the application {owner!r}, not {application!r};"
            " name another file"
        )


def quick_check(database: Database, connection: sqlite3.Connection) -> None:
    if database.file_bytes() > QUICK_CHECK_BYTES:
        return
    places.QUICK_CHECK.reach()
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreBroken(
            f"{database.name} is damaged ({verdict}); copy it aside and restore a backup"
        )


def connect_read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that cannot write; `immutable`: the file has no log, and gets none."""
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = as_text
    return connection


def whole_name(file: Path) -> Path:
    """The name that a file has from its root, with no links in it.

    Raises:
        StoreError: it cannot be the name of a file.
    """
    with as_name(file):
        return file.expanduser().resolve()


@contextmanager
def as_name(file: Path) -> Iterator[None]:
    """Let it come out as one clear sentence that `file` cannot be a file's name."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # Links in a ring, or the home of a user whom nobody knows.
        raise StoreError(f"{file} cannot be a file: {error}; name another") from error


@contextmanager
def as_broken(
    file: str, why: Callable[[Exception, str], StoreBroken] = failures.unusable
) -> Iterator[None]:
    """Let the world's failures come out as one clear sentence, by default of opening."""
    try:
        yield
    except TreewardenError:
        raise
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        raise why(error, file) from error


def _identity(file: str) -> _Identity | None:
    """Which file has this name; None: none."""
    try:
        found = os.stat(file)  # noqa: PTH116 - as `_size`
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - a path object costs more than this
    except FileNotFoundError:
        return 0
