"""The lock beside a database: one runtime a file.

`flock`, not POSIX locks: those belong to a process and are dropped when any of its files
is closed. The lock goes with the process, also by `kill -9`; the file stays and names its
last owner, which is what a second runtime tells its operator.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

import msgspec

from treewarden.clock import wall_ns
from treewarden.errors import StoreLocked
from treewarden.injection import places

if TYPE_CHECKING:
    from pathlib import Path


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock; written into the lock file as JSON."""

    pid: int
    boot: str
    started_at_ns: int

    def __str__(self) -> str:
        """For people: the process and its start in local time."""
        at = time.localtime(self.started_at_ns / 1e9)
        return f"process {self.pid}, started {time.strftime('%Y-%m-%d %H:%M:%S', at)}"


class FileLock:
    """The right to write one database, held until `release`."""

    def __init__(self, database: Path, boot: str, descriptor: int) -> None:
        self._database = database
        self._boot = boot
        self._descriptor = descriptor
        self._path = str(_lock_file(database))

    @classmethod
    def acquire(cls, database: Path, boot: str) -> FileLock:
        """Take the lock at once or not at all.

        Raises:
            StoreLocked: another runtime has it; names its process and start time.
        """
        places.LOCK.reach()
        descriptor = os.open(_lock_file(database), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise StoreLocked(str(database), owner) from None
        me = Owner(pid=os.getpid(), boot=boot, started_at_ns=wall_ns())
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(me), 0)
            places.LOCKED.reach()
        except OSError:
            # Kept, it would lock this process out of its own file.
            os.close(descriptor)
            raise
        return cls(database, boot, descriptor)

    def renew(self) -> None:
        """Take the lock again if somebody has removed its file: a second runtime could.

        Raises:
            StoreLocked: one has.
        """
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a path object costs more than this
        except FileNotFoundError:
            found = None
        held = os.fstat(self._descriptor)
        if found is not None and (found.st_dev, found.st_ino) == (
            held.st_dev,
            held.st_ino,
        ):
            return
        taken = FileLock.acquire(self._database, self._boot)
        os.close(self._descriptor)
        self._descriptor = taken._descriptor  # noqa: SLF001 - it is another of us

    def release(self) -> None:
        """Give it up; the file stays, because removing it would race with a taker."""
        os.close(self._descriptor)


def _lock_file(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


def _owner(descriptor: int) -> str:
    # The owner may be between taking the lock and writing its name: then there is none,
    # or that of an owner before it, who is gone.
    with contextlib.suppress(msgspec.DecodeError):
        owner = msgspec.json.decode(os.pread(descriptor, 1000, 0), type=Owner)
        if _is_alive(owner.pid):
            return str(owner)
    return "a process that has just started"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
