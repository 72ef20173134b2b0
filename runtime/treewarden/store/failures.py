"""What an exception of SQLite means: somebody's row, or the world.

A row that cannot be stored (a constraint, a type, a size) is the fault of one unit, and
trying the others again helps. A full disk or an I/O error is nobody's: the whole group
fails and SQLite's own state is not trusted any further. SQLite tells by its result code;
what never reached SQLite (a value that it cannot bind) is a row's fault too.
"""

from __future__ import annotations

import errno
import sqlite3

from treewarden.errors import StoreBroken, StoreError

# Primary result codes that say nothing about the row being written.
_WORLD = {
    sqlite3.SQLITE_PERM: "access was denied; make the file and its folder writable",
    sqlite3.SQLITE_BUSY: "another process holds its write lock; end that process",
    sqlite3.SQLITE_LOCKED: "another connection holds its write lock; end it",
    sqlite3.SQLITE_NOMEM: "there is no memory left; free some",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its folder writable",
    sqlite3.SQLITE_INTERRUPT: "the operation was interrupted; try again",
    sqlite3.SQLITE_IOERR: "the disk failed or has no room; check it and free space",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop, copy it aside and restore a backup",
    sqlite3.SQLITE_FULL: "the disk is full; free space",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists",
    sqlite3.SQLITE_PROTOCOL: "its locks do not work; keep it on a local disk",
    sqlite3.SQLITE_NOTADB: "it is no database; stop, copy it aside and restore a backup",
    sqlite3.SQLITE_NOLFS: "it is too large for this file system; move it",
}
# What the system says of files that SQLite does not open, as the lock, in SQLite's words.
_SYSTEM = {
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.ENOENT: sqlite3.SQLITE_CANTOPEN,
    errno.ENOTDIR: sqlite3.SQLITE_CANTOPEN,
    errno.EISDIR: sqlite3.SQLITE_NOTADB,
}
_REMEDIES = {
    **_WORLD,
    # Our statements do not change. It may also be one row's, whose JSON is none.
    sqlite3.SQLITE_ERROR: "its schema is not as it was made; stop, copy it aside and"
    " restore a backup",
}
_RESUMES = "writing resumes by itself when the cause is gone"


def primary_code(error: BaseException | None) -> int:
    """SQLite's result code without its extension, or 0 when it is not SQLite's."""
    if isinstance(error, UnicodeDecodeError):
        return (
            sqlite3.SQLITE_CORRUPT
        )  # Its message quotes a name that is none any more.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_of_an_index(error: Exception) -> bool:
    """Whether an index does not agree with its rows; made anew from them, it does."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CORRUPT_INDEX


def is_of_the_row(error: Exception) -> bool:
    """Whether writing the other units without this one can help."""
    if isinstance(error, MemoryError):
        return False
    if isinstance(error, sqlite3.Error):
        return primary_code(error) not in _WORLD
    return isinstance(error, (OverflowError, ValueError, TypeError))


def _why(error: Exception) -> str:
    """What was said, and what to do about it."""
    code, said = primary_code(error), str(error)
    if isinstance(error, OSError):
        code, said = _SYSTEM.get(error.errno or 0, 0), error.strerror or said
    remedy = _REMEDIES.get(code, "this is not expected; please report it")
    return f"{said}: {remedy}"


def unusable(error: Exception, file: str) -> StoreBroken:
    """Why a file cannot be opened, as one sentence with the remedy."""
    return StoreBroken(f"cannot open {file}: {_why(error)}")


def unchanged(error: Exception, file: str) -> StoreBroken:
    """Why a file that is nobody's was not changed, as one sentence with the remedy."""
    return StoreBroken(f"cannot change {file}: {_why(error)}")


def uncopied(error: Exception, file: str) -> StoreBroken:
    """Why a copy was not made, as one sentence with the remedy."""
    return StoreBroken(f"cannot make the copy {file}: {_why(error)}")


def unreadable(error: Exception, file: str) -> StoreBroken:
    """Why a question to the file was not answered, as one sentence with the remedy."""
    return StoreBroken(f"cannot read {file}: {_why(error)}")


def broken(error: Exception, file: str) -> StoreBroken:
    """The world's failure as one sentence that names the file and the remedy."""
    if isinstance(error, StoreError):
        return StoreBroken(str(error))  # It says so itself.
    return StoreBroken(f"cannot write {file}: {_why(error)}; {_RESUMES}")


def refused(error: Exception, path: str) -> StoreBroken:
    """The failure of one unit whose row cannot be stored."""
    kind = type(error).__name__
    return StoreBroken(f"what {path} changed cannot be stored: {kind}: {error}")


def orphaned(path: str, cause: object) -> StoreBroken:
    """The failure of a unit that builds on one that failed."""
    return StoreBroken(f"what {path} changed builds on a change that failed: {cause}")
