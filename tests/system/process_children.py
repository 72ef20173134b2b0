"""What the process children of the tests run: each child one of these functions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import trio

from treewarden.exits import Shutdown
from treewarden.supervision import IGNORE, Stop, cleanup


class Point(msgspec.Struct, frozen=True):
    """An argument that is no builtin."""

    x: int
    y: int


def _write(file: str, text: str) -> None:
    Path(file).write_text(text, encoding="utf-8")


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


def _doze(seconds: float) -> None:
    time.sleep(seconds)


async def nothing() -> None:
    """Return."""


async def wait() -> None:
    """Stay until stopped."""
    await trio.sleep_forever()


async def ready_with_pid(
    point: Point, *rest: Point, task_status: trio.TaskStatus[list[int]], **named: Point
) -> None:
    """Say who it is, and what it was given."""
    given = [point, *rest, *named.values()]
    task_status.started([os.getpid(), *(one.x for one in given)])
    await trio.sleep_forever()


async def never_ready(*, task_status: trio.TaskStatus[None]) -> None:
    """Be slow."""
    await trio.sleep_forever()


async def forgetful(*, task_status: trio.TaskStatus[None]) -> None:
    """End before it is ready."""


async def ignored(*, task_status: trio.TaskStatus[object]) -> None:
    """Not start, without an error."""
    task_status.started(IGNORE)
    await trio.sleep_forever()


async def ready_with_a_lock(*, task_status: trio.TaskStatus[object]) -> None:
    """Be ready with what no message can hold."""
    task_status.started(threading.Lock())


async def crash() -> None:
    """Fail, for a reason."""
    try:
        _divide(1)
    except ZeroDivisionError as error:
        raise ValueError("no such page") from error


def _divide(number: int) -> float:
    return number / 0


async def stop_itself() -> NoReturn:
    """End with an exit of its choice."""
    raise Stop(Shutdown("enough"))


async def leave(status: int) -> None:
    """Exit as programs do."""
    sys.exit(status)


async def vanish(status: int) -> None:
    """Be gone without a word."""
    os._exit(status)


async def die_of(number: int) -> None:
    """Be ended by a signal, as if by the kernel."""
    os.kill(os.getpid(), number)
    await trio.sleep_forever()


async def tidy(file: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Clean up when stopped."""
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        with cleanup():
            await trio.sleep(0.1)
            _write(file, "clean")


async def tidy_for_ever(*, task_status: trio.TaskStatus[None]) -> None:
    """Overrun the shutdown time."""
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        with cleanup():
            await trio.sleep_forever()


async def break_when_stopped(*, task_status: trio.TaskStatus[None]) -> None:
    """Fail while cleaning up."""
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("while it was cleaning up")


async def swallow(*, task_status: trio.TaskStatus[None]) -> None:
    """Refuse to be cancelled, as no supervised code may."""
    task_status.started()
    while True:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            continue


async def spin(file: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Never await again, but can be interrupted."""
    task_status.started()
    try:
        while True:
            _doze(0.01)
    finally:
        _write(file, "interrupted")


async def hold_the_interpreter(*, task_status: trio.TaskStatus[None]) -> None:
    """Be stuck where nothing but SIGKILL reaches."""
    task_status.started()
    sum(range(10**15))


async def linger() -> None:
    """Return, and leave a thread that keeps the process."""
    threading.Thread(target=time.sleep, args=(1000,)).start()


async def parent_of_a_sleeper(*, task_status: trio.TaskStatus[list[int]]) -> None:
    """Start a program, and say its number."""
    sleeper = _sleeper()
    task_status.started([os.getpid(), sleeper.pid])
    await trio.sleep_forever()


async def leave_a_sleeper(*, task_status: trio.TaskStatus[int]) -> None:
    """Return, and leave a program behind."""
    sleeper = _sleeper()
    task_status.started(sleeper.pid)
    # So that nothing warns of it when the interpreter ends.
    sleeper.returncode = 0


async def fork_and_die(*, task_status: trio.TaskStatus[None]) -> None:
    """Die, while a fork of it still holds the socket."""
    task_status.started()
    if os.fork() == 0:
        _doze(1000)
    os.kill(os.getpid(), signal.SIGKILL)


async def babble(*, task_status: trio.TaskStatus[None]) -> None:
    """Write into the socket what is no message."""
    task_status.started()
    os.write(int(sys.argv[1]), b"{]\n")
    await trio.sleep_forever()
