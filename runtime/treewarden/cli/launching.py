"""A runtime of its own beside a console: started, awaited, watched, left or stopped.

The runtime is another process in a session of its own, so that neither the terminal's
signals nor its end reach it. It is ours once something answers on a control socket with
its process id; which name it got, and whether its path was too long, need not be known.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Literal, cast

import trio

from treewarden.config import state_folder
from treewarden.control import connect, find_runtimes, short_path
from treewarden.control.plain import plain_lines
from treewarden.control.protocol import GetTree, Tree
from treewarden.errors import ConfigError, ControlError, TreewardenError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Owner = Literal["demo", "run"]

# The control server is up before the application starts, so this is for slow imports.
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_LOOK_AGAIN_SECONDS: Final = 0.05
_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 8192


def launch(
    arguments: Sequence[str],
    *,
    label: str,
    socket: Path | None,
    owner: Owner,
    rights: str,
) -> int:
    """Start `treewarden` with `arguments` out of sight and watch it; the exit status.

    Its output goes to a log named after `label` in the state folder. `socket` is where it
    was told to listen, None for the place that its name gives.

    Raises:
        ConfigError: the log cannot be written.
    """
    log = _log_path(label)
    process = _start(arguments, log)
    try:
        path = trio.run(_wait_ready, process, socket)
    except BaseException:
        _stop(process)
        raise
    if path is None:
        return _report_end(process, log, "ended before it answered")
    return _watch(process, path, owner, rights, log)


def _log_path(label: str) -> Path:
    folder = state_folder() / "logs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)[:80]}.log"
        # The one before may be of a runtime that still runs and still writes to it.
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
    except OSError as error:
        raise ConfigError(f"cannot write logs in {folder}: {error.strerror}") from error
    return path


def _start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "treewarden.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


async def _wait_ready(
    process: subprocess.Popen[bytes], socket: Path | None
) -> Path | None:
    """The socket on which `process` answers; None when it ended first."""
    with trio.move_on_after(_START_SECONDS):
        while process.poll() is None:
            path = await _socket_of(process.pid, socket)
            if path is not None:
                return path
            await trio.sleep(_LOOK_AGAIN_SECONDS)
        return None
    raise ControlError(f"the runtime did not answer within {_START_SECONDS:g} s")


async def _socket_of(pid: int, socket: Path | None) -> Path | None:
    if socket is None:
        for found in await find_runtimes():
            if found.runtime is not None and found.runtime.pid == pid:
                return found.path
        return None
    # A live runtime at that very path would have sent ours to the next number.
    wanted = short_path(socket)
    for path in sorted(wanted.parent.glob(f"{wanted.stem}*{wanted.suffix}")):
        try:
            async with connect(path) as remote:
                if remote.welcome.runtime.pid == pid:
                    return path
        except ControlError:
            continue
    return None


def _report_end(process: subprocess.Popen[bytes], log: Path, ended: str) -> int:
    for line in _tail(log):
        print(line, file=sys.stderr)
    status = process.returncode
    how = (
        f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    )
    print(
        f"treewarden: the runtime {ended} ({how}); its log: {log}",
        file=sys.stderr,
    )
    return status if status > 0 else 1


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return plain_lines(text.rstrip("\n"))[-_TAIL_LINES:] if text else []


def _watch(
    process: subprocess.Popen[bytes], path: Path, owner: Owner, rights: str, log: Path
) -> int:
    from treewarden_console.app import run_console

    try:
        status = run_console(path, rights=rights, owner=owner)
    except BaseException:
        # Nobody was asked whether it should stay. A demo should not outlive its console.
        if owner == "demo":
            _stop(process)
        raise
    if _is_left_running(process, path):
        print(
            f"treewarden: {path.stem} goes on as process {process.pid};"
            f" see it again with: treewarden attach {path.stem}"
        )
    elif process.returncode:
        # Nobody had told it to stop.
        return _report_end(process, log, "ended by itself")
    return status


def _is_left_running(process: subprocess.Popen[bytes], path: Path) -> bool:
    """Whether it goes on; when it is stopping, wait until it has stopped."""
    deadline = time.monotonic() + _STOP_SECONDS
    calm = 0
    while process.poll() is None and time.monotonic() < deadline:
        # A shutdown that was just asked for shows in the tree a moment later.
        calm = calm + 1 if trio.run(_is_calm, path) else 0
        if calm == 3:
            return True
        time.sleep(_LOOK_AGAIN_SECONDS)
    return process.poll() is None


async def _is_calm(path: Path) -> bool:
    with trio.move_on_after(1.0):
        try:
            async with connect(path) as remote:
                tree = cast(Tree, await remote.request("tree", GetTree()))
        except TreewardenError:
            return False
        return bool(tree.rows) and tree.rows[0].state != "stopping"
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
