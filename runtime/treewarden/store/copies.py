"""Copies of a database: made under another name, synced, looked at, and only then named.

So a file that has a copy's name is a whole copy, whatever was killed when. The copy is
SQLite's own (its backup interface), because a file that somebody writes to cannot be
copied as bytes: part of what it holds is in its log.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from treewarden.clock import wall_ns
from treewarden.errors import StoreBroken, StoreError
from treewarden.injection import places

from . import failures
from .checking import DamagedRow, check_slice
from .checksums import TABLES, as_text
from .database import as_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .checksums import Stored


def beside(path: Path, word: str) -> Path:
    """A name for a copy beside `path`: what it is, and when it was made (UTC)."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ns() / 1e9))
    name = f"{path.name}.{word}.{at}"
    # There may be one: of the same second, or of an hour that came twice.
    names = (f"{name}-{number}" if number else name for number in count())
    return next(one for one in map(path.with_name, names) if not _is_taken(one))


def _is_taken(path: Path) -> bool:
    """Whether anything has this name, or one that begins with it, as a log has."""
    return any(path.parent.glob(f"{glob.escape(path.name)}*"))


def logs_of(path: Path) -> list[Path]:
    """What SQLite keeps beside a database, as far as it is there."""
    logs = (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))
    return [log for log in logs if log.exists()]


def partial_name(target: Path) -> Path:
    """What a copy is called while it is made."""
    return target.with_name(target.name + ".partial")


def begin_copy(
    connection: sqlite3.Connection,
    partial: Path,
    *,
    pages: int = -1,
    between: Callable[[], None] | None = None,
) -> None:
    """Copy what `connection` sees into the new file `partial`; it is not synced.

    `pages` at a time (-1: all at once, one state of the database whoever writes
    beside), with a call of `between` after each time. What is written through
    `connection` itself meanwhile goes into the copy as well.
    """
    places.COPY_BEGIN.reach()
    discard(partial)
    # Private from its first byte.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(partial, isolation_level=None)) as target:
        # It is synced once, at its end; until then it is nobody's.
        target.execute("PRAGMA synchronous = OFF").fetchall()
        progress = None if between is None else lambda *_: between()
        connection.backup(target, pages=pages, progress=progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A copy that was made: its rows, and those of them that are damaged.

    A copy of a damaged row is one: what is damaged in a copy was so before.
    """

    path: Path
    bytes: int
    rows: int
    damaged: list[DamagedRow]


def verify_copy(partial: Path, target: Path, *, paced: bool = False) -> Backup:
    """Look at every row of a copy, sync it and give it its name.

    `paced`: this thread works half of the time, so that others get the interpreter.

    Raises:
        StoreBroken: it does not hold together.
    """
    rows, damaged = check_copy(partial, paced=paced)
    size = partial.stat().st_size
    finish_copy(partial, target)
    return Backup(path=target, bytes=size, rows=rows, damaged=damaged)


def check_copy(partial: Path, *, paced: bool = False) -> tuple[int, list[DamagedRow]]:
    """Look at every row of a copy: how many there are, and the damaged ones."""
    places.COPY_CHECK.reach()
    rows = 0
    damaged: list[DamagedRow] = []
    with closing(_open_copy(partial)) as copy:
        for table in TABLES.values():
            after: Stored | None = table.start
            while after is not None:
                began = time.monotonic()
                looked = check_slice(copy, table, after)
                rows += looked.rows
                damaged += looked.damaged
                after = looked.after
                if paced:
                    time.sleep(time.monotonic() - began)
    return rows, damaged


def _open_copy(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    connection.text_factory = as_text
    return connection


def free_name(target: Path) -> Path:
    """The whole of a name under which there is nothing yet.

    Raises:
        StoreError: there is a file of that name, or it cannot be one.
    """
    with as_name(target):
        target = target.expanduser().absolute()
        is_there = target.exists()
    if is_there:
        raise StoreError(f"{target} is there already; name another file")
    return target


def discard(partial: Path) -> None:
    """Remove a copy that is not finished, and what SQLite has left beside it."""
    for one in (partial, *logs_of(partial)):
        with suppress(OSError):
            one.unlink()


@contextmanager
def as_uncopied(target: Path) -> Iterator[None]:
    """Let what keeps a copy from being made come out as one sentence about the copy."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if failures.primary_code(error) == sqlite3.SQLITE_CORRUPT:
            raise  # That is the file which is copied.
        raise failures.uncopied(error, str(target)) from error


def finish_copy(partial: Path, target: Path) -> None:
    """Sync a copy and give it its name.

    Raises:
        StoreBroken: it does not hold together.
    """
    with closing(_open_copy(partial)) as copy:
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreBroken(f"the copy {partial} is damaged ({verdict}); try again")
    places.COPY_SYNC.reach()
    sync_file(partial)
    places.COPY_NAME.reach()
    partial.replace(target)
    sync_folder(target.parent)


def copy_database(connection: sqlite3.Connection, target: Path) -> Backup:
    """Copy what `connection` sees to `target`, which may not be there yet.

    Raises:
        StoreError: there is a file of that name.
        StoreBroken: it cannot be written, or does not hold together.
    """
    target = free_name(target)
    partial = partial_name(target)
    try:
        with as_uncopied(target):
            begin_copy(connection, partial)
            return verify_copy(partial, target)
    finally:
        discard(partial)


def sync_file(path: Path) -> None:
    """Have what was written to `path` survive a power loss.

    Not for a database that this process has open: closing it would drop SQLite's locks.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have names that were given in `folder` survive a power loss."""
    sync_file(folder)
