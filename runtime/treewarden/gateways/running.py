"""One program, from its start until it is reaped and its group is gone.

It runs in the caller's task, without a task of its own: its pipes and its end are watched
by one selector, and trio waits for that. It has a session and so a process group of its
own, which is signalled as a whole: what it started ends with it, unless it has made itself
a session. Where the system can tell that a process has ended without reaping it (Linux's
pidfd) a run is over when the program itself is, though something that it started holds its
pipes open; elsewhere when its pipes are closed, too.

A SIGKILL of the runtime leaves its programs running, as it does with every child of every
process: their input ends, their output has no reader (SIGPIPE), nobody else tells them.
PR_SET_PDEATHSIG is no way out: it follows the thread that forked, and that one ends soon.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK: Final = 64 * 1024
# What a pipe may hold at most by Linux's default limit, 1 MiB.
_DRAIN_READS: Final = 16
# Of error output, as much as a message may hold.
_TAIL: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run, and how; equal orders may share an answer."""

    argv: tuple[str, ...]
    timeout: float
    limit_bytes: int
    stdin: bytes
    cwd: str | None
    env: tuple[tuple[str, str], ...]
    check: bool

    @property
    def program(self) -> str:
        """Its name as it was written; the arguments may be secrets."""
        return self.argv[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """How a program ended, and what it wrote.

    `status` is negative for the signal that ended it. Of `stdout` the first `limit_bytes`
    are kept, of `stderr` the last; what is `truncated` was longer.
    """

    program: str
    status: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    stdout_truncated: bool
    stderr_truncated: bool
    seconds: float

    @property
    def text(self) -> str:
        """Its output as UTF-8; what is none becomes `�`."""
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """How its error output ended, for people."""
        return _tail(self.stderr)


class _Output:
    """What a program writes, as much of it as is kept: the beginning, or the end."""

    __slots__ = ("_kept", "_limit", "_of_the_end", "total")

    def __init__(self, limit: int, *, of_the_end: bool) -> None:
        self._limit = limit
        self._of_the_end = of_the_end
        self._kept = bytearray()
        self.total = 0

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        if not self._of_the_end:
            chunk = chunk[: self._limit - len(self._kept)]
        self._kept += chunk
        # Not at every chunk: it moves all of it.
        if len(self._kept) > self._limit + _CHUNK:
            del self._kept[: -self._limit]

    @property
    def truncated(self) -> bool:
        return self.total > self._limit

    @property
    def kept(self) -> bytes:
        return bytes(self._kept[-self._limit :])


class Running:
    """A program on its way; `end` it in any case, once it was told to `start`."""

    def __init__(self, order: Order, grace: float) -> None:
        """One that is not started yet.

        Raises:
            OSError: there is no file descriptor left to watch it by.
        """
        self.order = order
        self.killed = False
        self._grace = grace
        self._process: trio.Process | None = None
        self._over = False
        self._selector = selectors.DefaultSelector()
        self._exit_fd: int | None = None
        self._input = memoryview(order.stdin)
        self._stdout = _Output(order.limit_bytes, of_the_end=False)
        self._stderr = _Output(order.limit_bytes, of_the_end=True)

    @property
    def pid(self) -> int:
        """Its process id, which is its group's; 0 before it has one."""
        return self._process.pid if self._process is not None else 0

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it has none."""
        return self._process.returncode if self._process is not None else None

    @property
    def truncated(self) -> bool:
        """Whether it wrote more than was kept."""
        return self._stdout.truncated or self._stderr.truncated

    @property
    def error_text(self) -> str:
        """How its error output ended, for people."""
        return _tail(self._stderr.kept)

    def result(self, seconds: float) -> ProgramResult:
        """What it has come to; it must have ended."""
        assert self.status is not None  # noqa: S101 - what it must have
        return ProgramResult(
            program=self.order.program,
            status=self.status,
            stdout=self._stdout.kept,
            stderr=self._stderr.kept,
            stdout_truncated=self._stdout.truncated,
            stderr_truncated=self._stderr.truncated,
            seconds=seconds,
        )

    # --- while it runs ---------------------------------------------------------------------

    async def start(self) -> None:
        """Start it; once that has begun it is not cancelled half-way.

        Raises:
            OSError: the system cannot.
        """
        order = self.order
        self._process = process = await trio.lowlevel.open_process(
            order.argv,
            stdin=subprocess.PIPE if order.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=order.cwd,
            env=dict(order.env),
            start_new_session=True,
        )
        if process.stdin is not None:
            self._watch(process.stdin, selectors.EVENT_WRITE, self._feed)
        self._watch(process.stdout, selectors.EVENT_READ, self._read(self._stdout))
        self._watch(process.stderr, selectors.EVENT_READ, self._read(self._stderr))
        self._exit_fd = _exit_fd(process.pid)
        if self._exit_fd is not None:
            self._selector.register(self._exit_fd, selectors.EVENT_READ, self._exited)

    def _watch(
        self,
        pipe: trio.abc.AsyncResource | None,
        event: int,
        act: Callable[[trio.lowlevel.FdStream], object],
    ) -> None:
        stream = cast("trio.lowlevel.FdStream", pipe)
        self._selector.register(stream.fileno(), event, lambda: act(stream))

    async def finish(self) -> None:
        """Feed it and take what it writes until it has ended; a checkpoint.

        Cancelled, it goes on: finish or end it.
        """
        while self._selector.get_map() and not self._over:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            for key, _ in self._selector.select(0):
                # Unless one before it has hung up on it.
                if key.fileobj in self._selector.get_map():
                    key.data()
        if not self._over and self._process is not None:
            await self._process.wait()
            self._over = True

    def _feed(self, pipe: trio.lowlevel.FdStream) -> None:
        try:
            sent = os.write(pipe.fileno(), self._input[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:
            # It does not want the rest.
            sent = len(self._input)
        self._input = self._input[sent:]
        if not self._input:
            self._hang_up(pipe)

    def _read(self, output: _Output) -> Callable[[trio.lowlevel.FdStream], bool]:
        def read(pipe: trio.lowlevel.FdStream) -> bool:
            """Whether there may be more."""
            try:
                chunk = os.read(pipe.fileno(), _CHUNK)
            except BlockingIOError:
                return False
            if chunk:
                output.add(chunk)
            else:
                self._hang_up(pipe)
            return bool(chunk)

        return read

    def _hang_up(self, pipe: trio.lowlevel.FdStream) -> None:
        self._selector.unregister(pipe.fileno())
        pipe.close()

    def _exited(self) -> None:
        """It has ended: take what is left in its pipes. What it has started may go on."""
        if self._over:
            return
        self._over = True
        self._selector.unregister(cast("int", self._exit_fd))
        for key in list(self._selector.get_map().values()):
            if key.events == selectors.EVENT_READ:
                reads = iter(range(_DRAIN_READS))
                while key.data() and next(reads, None) is not None:
                    pass

    # --- its end ---------------------------------------------------------------------------

    async def end(self) -> None:
        """Ask its group to end, if it has not, then make it; reap it and close all pipes.

        To be shielded by whoever calls, with a deadline. Without an end to wait for (a
        process that the system cannot kill) the pipes are closed all the same.
        """
        process = self._process
        try:
            if process is None:
                return
            if not self._over:
                _signal_group(process.pid, signal.SIGTERM)
                with trio.move_on_after(self._grace):
                    await self.finish()
                self.killed = not self._over
            # With a pidfd it is not reaped yet, so that its number is nobody else's; and
            # one that was free for a moment is not given away until all others were.
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
        finally:
            self._close()

    @property
    def is_left_behind(self) -> bool:
        """Whether it runs still, though it was made to end; looking reaps it if not."""
        return self._process is not None and self.status is None

    def _close(self) -> None:
        self._selector.close()
        if self._exit_fd is not None:
            os.close(self._exit_fd)
        if self._process is not None:
            process = self._process
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    cast("trio.lowlevel.FdStream", pipe).close()


def _tail(output: bytes) -> str:
    return output[-_TAIL:].decode(errors="replace")


def _exit_fd(pid: int) -> int | None:
    """What is readable once the process has ended, where the system has such a thing."""
    if sys.platform != "linux":
        return None
    # An old kernel, or a sandbox, has not.
    with suppress(OSError):
        return os.pidfd_open(pid)
    return None


def _signal_group(group: int, number: signal.Signals) -> None:
    # macOS refuses (EPERM) when only zombies are left in the group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
