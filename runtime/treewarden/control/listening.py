"""A listening Unix socket that only its owner can reach, and who is at the other end.

Whoever can connect can look into a runtime, so three things keep others out: a folder
that nobody else can enter or change, a socket that nobody else can write to, and the
peer's user id, which the kernel vouches for. The socket listens only after its mode is
set: before that a connection is refused, so there is no gap whatever the umask.

Taking a path over from a dead runtime is done under a lock on its folder, and only when
a connection to it was refused: of two that start at once, one gets the name and the other
`<name>-2`.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import socket
import stat
import struct
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from treewarden.errors import ControlError

from .address import MAX_PATH_BYTES, fallback_folder, short_path, socket_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Held while one other runtime binds its socket, which takes milliseconds.
_LOCK_SECONDS: Final = 5.0
_LOCK_RETRY_SECONDS: Final = 0.01
_BACKLOG: Final = 128
_ROOT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end, as the kernel knows it; pid 0: it does not tell."""

    uid: int
    pid: int


def peer_of(connection: socket.socket | trio.socket.SocketType) -> Peer:
    """Who connected; asked of the kernel, so it cannot be forged."""
    if sys.platform == "darwin":
        sol_local, local_peercred, local_peerpid = 0, 1, 2
        # struct xucred: version, uid, number of groups, sixteen groups.
        raw = connection.getsockopt(sol_local, local_peercred, 76)
        uid = struct.unpack_from("II", raw)[1]
        return Peer(uid=uid, pid=connection.getsockopt(sol_local, local_peerpid))
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", raw)
    return Peer(uid=uid, pid=pid)


def has_room(connection: socket.socket | trio.socket.SocketType) -> bool:
    """Whether what is sent now is taken at once: the other end has read most of the rest.

    One that we have closed has none; what is sent to it says so.
    """
    descriptor = connection.fileno()
    if descriptor < 0:
        return False
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return bool(room.poll(0))


def may_connect(peer: Peer, owner: int) -> bool:
    """Whether `peer` is the runtime's own user, or root, whom nothing keeps out."""
    return peer.uid in (owner, _ROOT)


@dataclass(slots=True)
class Claim:
    """A socket that listens at `path`; `reason` says why there, if not where asked for."""

    listener: trio.SocketListener
    path: Path
    reason: str
    _identity: tuple[int, int]

    async def release(self) -> None:
        """Stop listening, and remove the socket unless it is somebody else's by now."""
        await self.listener.aclose()
        with suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


async def claim(path: Path) -> Claim:
    """Listen at `path`, or at `<name>-2` … where live runtimes hold the names before it.

    Raises:
        ControlError: the folder or the path cannot be used; nothing was changed.
    """
    wanted = short_path(path)
    try:
        _secure(wanted.parent)
        async with _locked(wanted.parent):
            free = next(one for one in _names(wanted) if not _is_held(one))
            reason = (
                f"a live runtime has {wanted}"
                if free != wanted
                else f"{path} is over {MAX_PATH_BYTES} bytes"
            )
            return _listen(free, reason)
    except OSError as error:
        raise ControlError(
            f"cannot listen at {wanted}: {error.strerror or error}"
        ) from error


def _listen(path: Path, reason: str) -> Claim:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.bind(str(path))
        path.chmod(0o600)
        raw.listen(_BACKLOG)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(raw))
    except BaseException:
        raw.close()
        raise
    return Claim(listener, path, reason, _identity(path))


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _names(path: Path) -> itertools.chain[Path]:
    others = (
        short_path(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        for number in itertools.count(2)
    )
    return itertools.chain([path], others)


def _is_held(path: Path) -> bool:
    """Whether somebody listens at `path`; a socket where nobody does is removed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path} exists and is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return False
        except BlockingIOError:
            return True  # its queue of connections is full: very much alive
    return True


def _secure(folder: Path) -> None:
    """Make `folder` if need be; refuse one in which others could replace the socket."""
    _make(folder)
    own = folder in (socket_folder(), fallback_folder())
    found = folder.lstat() if own else folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ControlError(f"{folder} is not a folder; the socket needs one of its own")
    if own:
        if found.st_uid != os.geteuid():
            raise ControlError(f"{folder} belongs to another user (uid {found.st_uid})")
        folder.chmod(0o700)
        return
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if shared and not found.st_mode & stat.S_ISVTX:
        raise ControlError(f"others can write to {folder}; choose a folder of your own")
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise ControlError(f"{folder} belongs to another user (uid {found.st_uid})")


def _make(folder: Path) -> None:
    if not folder.exists():
        _make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with trio.move_on_after(_LOCK_SECONDS) as waited:
            await _lock(descriptor)
        if waited.cancelled_caught:
            raise ControlError(f"another process keeps {folder} locked")
        yield
    finally:
        os.close(descriptor)  # and with it goes the lock


async def _lock(descriptor: int) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(_LOCK_RETRY_SECONDS)
        else:
            return
