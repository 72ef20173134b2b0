"""The inside of a process child: one function, run by the rules of the tree it belongs to.

Started by `process` as `python -m treewarden.supervision.process_child FD`, never by hand.
The function runs as it would in the tree: readiness, `cleanup()`, `Stop` and the exit all
mean the same, because the same code (`node.live`) runs it.

A thread reads the socket, so that two things do not need the loop: noticing that the
parent is gone, and ending this process for that although the loop is blocked. SIGTERM does
what trio makes of SIGINT: a KeyboardInterrupt in the code that is running or, when none
is, in the main task, which then stops the function in order.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from treewarden.exits import Crash, Exit, Fault, Normal, Shutdown

from .importable import load, thaw
from .node import IGNORE, Life, Node, TaskBody, live
from .process import Begin, Ended, Halt, Ready, Word
from .spec import ChildSpec, says_ready
from .tree import Directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader
    from types import FrameType

# How long an orphan may clean up, however long its parent would have let it.
_ORPHAN_SECONDS: Final = 5.0


class Confined:
    """The function's parent in here: what a supervisor is to a task."""

    def __init__(
        self, begin: Begin, wire: socket.socket, lines: BufferedReader
    ) -> None:
        self.begin = begin
        self.directory = Directory()
        self.orphaned = False
        self._wire = wire
        self._lines = lines
        self._ended = trio.Event()
        self._life: Life | None = None
        self._told = False
        self._lock = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._halt_early: float | None = None

    # --- as a parent -----------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Above the child's own."""
        return self.begin.path.rsplit("/", 1)[0]

    def poke(self) -> None:
        """The function said that it is ready: pass it on.

        Raises:
            TypeError: what it is ready with cannot be encoded.
        """
        life = self._life
        if life is not None and life.ready and not self._told:
            self._told = True
            ignore = life.value is IGNORE
            self.say(Ready(value=None if ignore else life.value, ignore=ignore))

    def ended(self, life: Life) -> None:
        """The function is over."""
        self._ended.set()

    def failing(self, life: Life) -> None:
        """Nobody breaks it from in here."""

    def say(self, word: Word) -> None:
        """Tell the parent, if there still is one."""
        line = msgspec.json.encode(word) + b"\n"
        with suppress(ConnectionError):
            self._wire.sendall(line)

    # --- the thread that listens -----------------------------------------------------------

    def listen(self) -> None:
        """Hear the parent out; when it is gone, see to it that we go too."""
        with suppress(ConnectionError):
            for line in self._lines:
                halt = msgspec.json.decode(line, type=Halt)
                self._pass_on(math.inf if halt.seconds is None else halt.seconds)
        self.orphaned = True
        seconds = _ORPHAN_SECONDS
        if self.begin.shutdown is not None:
            seconds = min(seconds, self.begin.shutdown)
        self._pass_on(seconds)
        time.sleep(seconds)
        die()

    def _pass_on(self, seconds: float) -> None:
        with self._lock:
            if self._token is None:
                self._halt_early = seconds
                return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._halt, seconds)

    # --- the loop --------------------------------------------------------------------------

    def run(self) -> Exit:
        """Import the function, run it, and say how it ended."""
        try:
            function = load(self.begin.function)
            args, kwargs = thaw(function, bytes(self.begin.arguments))
        except Exception as error:  # noqa: BLE001 - user code; the parent gets the fault
            return self._crash(error)
        return trio.run(self._live, function, args, kwargs)

    async def _live(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Exit:
        begin = self.begin
        shutdown = math.inf if begin.shutdown is None else begin.shutdown
        node = Node(
            ChildSpec(begin.id, function, shutdown=shutdown), begin.path, self, 0
        )
        node.incarnation = begin.incarnation - 1
        node.body = TaskBody(function, args, kwargs, says_ready=says_ready(function))
        self._life = life = node.born()
        signal.signal(signal.SIGTERM, _as_sigint)
        self._attach()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, node, life, name=node.path)
            await self._wait_ended(shutdown)
        return self._exit(life)

    def _attach(self) -> None:
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
        if self._halt_early is not None:
            self._halt(self._halt_early)

    async def _wait_ended(self, shutdown: float) -> None:
        while not self._ended.is_set():
            try:
                await self._ended.wait()
            except KeyboardInterrupt:
                self.directory.interrupted(KeyboardInterrupt())
                self._halt(shutdown)

    def _halt(self, seconds: float) -> None:
        life = self._life
        if life is None or life.ended or life.stopping:
            return
        # From here on SIGTERM has nothing to add, and would only disturb the clean-up.
        signal.signal(signal.SIGTERM, _heard_already)
        life.stopping = True
        life.deadline = trio.current_time() + seconds
        life.node.body.ask_to_stop(life)

    def _exit(self, life: Life) -> Exit:
        interrupt = self.directory.interrupt
        if isinstance(interrupt, SystemExit):
            # It ends this process, not the tree of the parent.
            return self._crash(interrupt) if interrupt.code else Normal()
        exit_ = life.exit or Normal()
        if interrupt is not None and isinstance(exit_, Shutdown):
            return Shutdown("SIGTERM")
        return exit_

    def _crash(self, error: BaseException) -> Exit:
        begin = self.begin
        return Crash(
            Fault.capture(error, path=begin.path, incarnation=begin.incarnation)
        )


def _as_sigint(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


def _heard_already(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that a clean-up starts would inherit."""


def die() -> None:
    """SIGKILL to our own group: ourselves, and what we started."""
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Be the process child whose socket is the file descriptor on the command line."""
    wire = socket.socket(fileno=int(sys.argv[1]))
    wire.set_inheritable(False)
    lines = wire.makefile("rb")
    line = lines.readline()
    if not line.endswith(b"\n"):
        # The parent died, or thought better of it, before it had said what to run.
        return
    begin = msgspec.json.decode(line, type=Begin)
    sys.path[:] = begin.sys_path
    # It is ignored when the parent was started in the background of a shell's script;
    # trio takes over only what is as Python has it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    confined = Confined(begin, wire, lines)
    threading.Thread(target=confined.listen, name="parent", daemon=True).start()
    exit_ = confined.run()
    # Whoever lingers from here on has nothing left to clean up.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    confined.say(Ended.of(exit_))
    if confined.orphaned:
        die()


if __name__ == "__main__":
    main()
