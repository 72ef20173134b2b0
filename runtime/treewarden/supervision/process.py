"""A child in an operating system process of its own: the only true kill.

Inside one process a task can be asked, and cancelled, but not forced: code that never
awaits, a shield, or a swallowed cancellation keeps it alive (spec TA-3). A child with
`isolation="process"` can be forced. It is a fresh interpreter (spawned, never forked)
that runs one function, named by its import path; `process_child` is its end.

Theory of operation. One socket pair joins the two; JSON lines go over it. We say `Begin`,
then at most `Halt`. The child says `Ready` when the function is usable and, as its last
word, `Ended`. To stop it: `Halt`, whereupon its body is cancelled and `cleanup()` has what
is left of the shutdown time; SIGTERM at half of that time, which a child that heard us
ignores and which interrupts one that is stuck in code of its own; SIGKILL to its whole
process group at the deadline. However it ends it is reaped, and what it left behind in its
group goes with it, before its end is told. When we die instead, the socket closes, and the
child ends itself.

The child has no runtime, no store and no console: it shares nothing with us but the
arguments, the value that it is started with, and its exit.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import trio

from treewarden.clock import wall_ns
from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.injection import places

from .endings import check_endings, hear_of_endings
from .importable import freeze, import_path
from .node import IGNORE, BegunInItsTask, Kind, Life

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .spec import ChildSpec

_CHUNK: Final = 65536
# How long a process may take to leave after its last word, whatever its shutdown time.
_LEAVE_SECONDS: Final = 1.0
_CHILD: Final = "treewarden.supervision.process_child"


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """To the child, first: what to run, and who it is."""

    id: str
    path: str
    incarnation: int
    function: str
    arguments: msgspec.Raw
    shutdown: float | None
    sys_path: list[str]


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """To the child: end within so many seconds; None: take your time."""

    seconds: float | None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """From the child: usable, with what `started()` was given."""

    value: Any = None
    ignore: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """From the child, last: how the function ended."""

    exit: str
    detail: str | None = None
    fault: Fault | None = None

    @classmethod
    def of(cls, exit_: Exit) -> Ended:
        """An exit as a message."""
        name = type(exit_).__name__
        match exit_:
            case Crash(fault=fault):
                return cls(exit=name, fault=fault)
            case Shutdown(detail=detail):
                return cls(exit=name, detail=detail)
            case Normal() | Killed():
                return cls(exit=name)

    def meant(self) -> Exit:
        """The exit again."""
        if self.fault is not None:
            return Crash(self.fault)
        if self.exit == Shutdown.__name__:
            return Shutdown(self.detail)
        return Killed() if self.exit == Killed.__name__ else Normal()


Word: TypeAlias = Ready | Ended
_decode_word: Final = msgspec.json.Decoder(Word).decode


def seconds_or_none(seconds: float) -> float | None:
    """Seconds as JSON has them: there is no infinity."""
    return None if seconds == math.inf else seconds


class Conversation:
    """Our end of the socket: whole lines in, words out; never blocks."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self.socket = ours
        self.over = False
        self._rest = b""

    def read(self) -> Iterator[Word]:
        """What has arrived since, word by word; after the last one, `over` is set.

        Raises:
            msgspec.MsgspecError: it is no word of a child of ours; then it is over too.
        """
        with suppress(BlockingIOError):
            while not self.over:
                chunk = self._receive()
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self.over = not chunk
                # One by one: a word that is none must not swallow those before it.
                for line in lines:
                    yield self._word(line)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(_CHUNK)
        except ConnectionError:
            return b""

    def _word(self, line: bytes) -> Word:
        try:
            word: Word = _decode_word(line)
        except msgspec.MsgspecError:
            self.over = True
            raise
        self.over = isinstance(word, Ended)
        return word

    async def wait_readable(self) -> None:
        """Until there is something to read."""
        await trio.lowlevel.wait_readable(self.socket)

    async def tell(self, message: Begin | Halt) -> None:
        """Send a message; nothing when the child is gone already."""
        left = msgspec.json.encode(message) + b"\n"
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.socket)
            except OSError:
                return


class ProcessBody(BegunInItsTask):
    """A function in a process of its own; the processes of all its incarnations."""

    __slots__ = ("_arguments", "_function", "_patience", "_process", "kind")

    def __init__(self, spec: ChildSpec) -> None:
        self.kind = Kind.PROCESS
        self._function = import_path(spec.id, spec.start)
        self._arguments = freeze(spec.id, spec.start, spec.args, spec.kwargs)
        self._patience = trio.CancelScope()
        self._process: _Process | None = None

    async def run(self, life: Life) -> Exit | None:
        """Spawn, attend, and return when the process and its group are gone."""
        if life.stopping:
            return Shutdown()
        self._patience = trio.CancelScope()
        self._process = process = _Process(life)
        try:
            with self._patience:
                await process.spawn(self._begin(life))
                await process.attend()
        finally:
            # Its deadlines are those of the child, and after them there is SIGKILL.
            with trio.CancelScope(shield=True):
                await process.end()
            self._process = None
        return process.exit()

    def _begin(self, life: Life) -> Begin:
        return Begin(
            id=life.node.id,
            path=life.node.path,
            incarnation=life.incarnation,
            function=self._function,
            arguments=msgspec.Raw(self._arguments),
            shutdown=seconds_or_none(life.node.spec.shutdown_seconds()),
            sys_path=sys.path,
        )

    def ask_to_stop(self, life: Life) -> None:
        """Stop attending to it, and begin to end it."""
        self._patience.cancel()

    def kill(self, life: Life) -> None:
        """SIGKILL to the whole group, now."""
        if self._process is not None:
            self._process.kill()
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nothing is kept between incarnations."""


class _Process:
    """One spawned process, from before its birth until it is reaped."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._process: trio.Process | None = None
        self._conversation: Conversation | None = None
        self._ended: Ended | None = None
        self._broken: Fault | None = None
        self._begun = False
        self._killed = False

    async def spawn(self, begin: Begin) -> None:
        """Start the interpreter and tell it what to do.

        Raises:
            OSError: the system refuses to.
        """
        hear_of_endings()
        check_endings()
        await places.SPAWN.pass_by()
        ours, theirs = socket.socketpair()
        self._conversation = Conversation(ours)
        with theirs:
            # A session of its own: a Ctrl-C in the terminal is for us, and its group is
            # killed whole.
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", _CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._show(f"pid {self._process.pid}")
        if self._killed:
            self.kill()
        await self._conversation.tell(begin)
        self._begun = True

    def _show(self, label: str) -> None:
        node = self._life.node
        node.label = label
        node.parent.directory.touch()

    async def attend(self) -> None:
        """Listen until its last word, or until it is gone without one."""
        process, conversation = self._process, self._conversation
        if process is None or conversation is None:
            return
        async with trio.open_nursery() as nursery:
            # Its end of the socket may have been inherited by a fork of its own, so that
            # no end of file comes when it dies.
            nursery.start_soon(_cancel_at_end, process, nursery.cancel_scope)
            while not conversation.over:
                await conversation.wait_readable()
                self._hear()
            nursery.cancel_scope.cancel()

    def _hear(self) -> None:
        if self._conversation is None:
            return
        try:
            for word in self._conversation.read():
                if isinstance(word, Ended):
                    self._ended = word
                elif not (self._life.ready or self._life.stopping):
                    self._life.started(IGNORE if word.ignore else word.value)
        except msgspec.MsgspecError as error:
            self._broken = self._fault(type(error).__name__, str(error))
            self.kill()

    async def end(self) -> None:
        """Ask, insist, force; returns when it is reaped, and its group is gone."""
        try:
            if self._process is not None and self._conversation is not None:
                await self._end(self._process, self._conversation)
        finally:
            self._show("")
            if self._conversation is not None:
                self._conversation.socket.close()

    async def _end(self, process: trio.Process, conversation: Conversation) -> None:
        now = trio.current_time()
        seconds = self._seconds(now)
        if not self._begun:
            # Nothing of the user's runs in it, so that there is nothing to clean up.
            self.kill()
        with trio.move_on_at(now + seconds / 2) as patience:
            await conversation.tell(Halt(seconds=seconds_or_none(seconds)))
            await self._gone(process)
        if patience.cancelled_caught:
            process.terminate()
            with trio.move_on_at(now + seconds) as patience:
                await self._gone(process)
        if patience.cancelled_caught:
            self.kill()
            await self._gone(process)
        # What it started and left behind. A number that was free for a moment is not
        # given away again until all others were: this is nobody else's group.
        _kill_group(process.pid)
        self._hear()

    def _seconds(self, now: float) -> float:
        seconds = self._life.node.spec.shutdown_seconds()
        if self._ended is not None:
            seconds = max(seconds, _LEAVE_SECONDS)
        return max(0.0, min(seconds, self._life.deadline - now))

    async def _gone(self, process: trio.Process) -> None:
        await self.attend()
        await process.wait()

    def kill(self) -> None:
        """SIGKILL to the group; to one that is not born yet, at its birth."""
        self._killed = True
        if self._process is not None:
            _kill_group(self._process.pid)

    def exit(self) -> Exit:
        """How it ended: by its last word or, without one, by its exit status."""
        if self._broken is not None:
            return Crash(self._broken)
        if self._ended is not None:
            return self._ended.meant()
        if not self._begun:
            return Shutdown()
        status = self._process.returncode if self._process is not None else None
        if self._killed or status == -signal.SIGKILL:
            return Killed()
        if status == -signal.SIGTERM:
            return Shutdown("SIGTERM")
        if not status:
            return Normal()
        how = signal.strsignal(-status) if status < 0 else f"exit status {status}"
        message = f"the process ended without a word: {how}"
        return Crash(self._fault("ProcessDied", message))

    def _fault(self, kind: str, message: str) -> Fault:
        return Fault(
            type=kind,
            message=message,
            path=self._life.node.path,
            incarnation=self._life.incarnation,
            at_ns=wall_ns(),
        )


async def _cancel_at_end(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


def _kill_group(group: int) -> None:
    # macOS refuses (EPERM) when only zombies are left in the group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
