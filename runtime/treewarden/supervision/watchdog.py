"""A thread that notices when the event loop is blocked, and names who blocks it.

Code that computes or waits without awaiting stops everything: timeouts, the console,
every other child. The loop cannot report that, so a thread asks it for a sign of life
and, when none comes, looks at what the loop's thread is executing.

Theory of operation. Twelve times a second the thread looks where the loop's thread is. In
its wait for I/O: it is idle, and costs nothing. Anywhere else: it is asked a question, which
it answers between two steps of its tasks. One that is not answered in time is an incident:
the stack is recorded and logged at once, since a loop that hangs for good reports nothing
any more, and reported by the loop, with the seconds, when it is back. A question, not a
heartbeat of the loop's own: that would run on trio's clock, which stands still in tests,
and would wake an idle loop. The idea is that of aiomonitor's blocking detector.

Only a loop that is busy gives a sign of life unasked, sixteen times a second (`pulse`): the
thread, woken by it, waits anew. It would else wake by itself, and wait for the interpreter
in vain, which costs a busy loop up to a third of its time.

A block of the threshold's length is always found, also one that begins right after a look;
one under two thirds of it never is. Stopping the whole process (SIGSTOP, a suspended
machine) is no incident: then the thread itself is late, while the process used no
processor time. Nor is a loop that turns, but leaves the thread no time to see it: then it is
woken in vain thousands of times a second. Code that computes without letting go of the
interpreter makes the thread late too, but not for nothing; it is named once it lets go.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import resource
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from treewarden.exits import Frame

DEFAULT_THRESHOLD: Final = 0.25
"""Seconds without a sign of life that make an incident."""

# Looks within a threshold: asked at the first at the latest, blocked at the third. A look
# costs 0.1 to 0.17 ms, nearly all of it waking up: 12 a second are 0.2 % of a core.
_LOOKS: Final = 3
# A busy loop's signs of life come before the thread would look.
_SIGNS: Final = 4
# How long the loop waits for one to be taken: on a crowded machine it gives up.
_TAKING_SECONDS: Final = 0.002
_SHORTEST_THRESHOLD: Final = 0.1
# How late the thread may be before it asks itself whether the process was stopped.
_SLACK: Final = 0.05
# A stopped process uses next to nothing; one that computes on a crowded machine, a quarter.
_RAN_SHARE: Final = 0.25
# Switches of threads a second that only a loop which turns can make: one that holds the
# interpreter makes each thread that waits for it wake up 200 times.
_STARVED: Final = 1000.0
_JOIN_SECONDS: Final = 1.0
_FRAMES: Final = 20
# Incidents cannot overlap: more than one waits only while the reporting child is late.
_INCIDENTS: Final = 16

_LIBRARIES: Final = tuple(
    f"{folder}{os.sep}"
    for folder in (Path(os.__file__).parent, Path(trio.__file__).parents[1])
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """One time that the loop was blocked, told when it was over.

    `seconds` is at least so long. `file`, `line` and `function` are where it was found:
    the innermost frame outside the libraries; `frames` is the task's stack, outermost
    first.
    """

    seconds: float
    file: str
    line: int
    function: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogStatistics:
    """Since it was started: looks at the loop or signs of life, incidents, the longest (s)."""

    looks: int
    incidents: int
    longest: float


class Verdict(Enum):
    """What to do after a look at the loop."""

    ASK = auto()
    WAIT = auto()
    BLOCKED = auto()


class Vigil:
    """When a loop counts as blocked; time is passed in, in seconds, as to a `Pulse`."""

    def __init__(self, threshold: float, now: float, cpu: float, switches: int) -> None:
        self.period = threshold / _LOOKS
        # It was asked up to one look after it had blocked.
        self._patience = threshold - self.period
        self._looked_at = now
        self._cpu = cpu
        self._switches = switches
        self._told = False
        self.asked_at: float | None = None

    def hear(self, now: float, cpu: float, switches: int) -> None:
        """The loop has given a sign of life unasked."""
        self._looked_at, self._cpu, self._switches = now, cpu, switches
        self.asked_at, self._told = None, False

    def look(
        self,
        now: float,
        cpu: float,
        switches: int,
        *,
        idle: bool,
        answered: bool,
    ) -> Verdict:
        """Judge at `now`, the process having used `cpu` seconds of processor time.

        `answered`: the last question was. ASK: post another. BLOCKED: once an incident.
        """
        late = now - self._looked_at - self.period
        ran = late <= _SLACK or cpu - self._cpu >= late * _RAN_SHARE
        starved = switches - self._switches > late * _STARVED
        # We ran late because somebody held the interpreter: this is who, if it is the loop.
        held = ran and late > self._patience and not starved
        since, self._looked_at = self._looked_at, now
        self._cpu, self._switches = cpu, switches
        if idle:
            self.asked_at, self._told = None, False
            return Verdict.WAIT
        if answered and not held:
            self.asked_at, self._told = now, False
            return Verdict.ASK
        if self._told:
            return Verdict.WAIT
        if self.asked_at is None or not ran:
            self.asked_at = since if held else now
        self._told = now - self.asked_at >= self._patience
        return Verdict.BLOCKED if self._told else Verdict.WAIT


class Watchdog:
    """Watches the loop that runs it, for as long as it runs.

    `report` is called in the loop, once an incident, when the loop is back; `on_busy` also,
    now and then while the loop is busy.

    Raises:
        ValueError: `threshold` is not a finite number of seconds from 0.1 on.
    """

    def __init__(
        self,
        report: Callable[[Blocked], None],
        *,
        threshold: float = DEFAULT_THRESHOLD,
        on_busy: Callable[[], None] | None = None,
    ) -> None:
        if not _SHORTEST_THRESHOLD <= threshold < math.inf:
            raise ValueError(
                f"threshold must be >= {_SHORTEST_THRESHOLD} seconds and finite, "
                f"not {threshold}"
            )
        self._report = report
        self._on_busy = on_busy
        self._threshold = threshold
        self._pulse = Pulse(threshold / _SIGNS, *_of_loop())
        # What the thread waits for, and what the loop then waits for: each is released
        # by the one and acquired by the other.
        self._sign, self._taken = threading.Lock(), threading.Lock()
        self._sign.acquire()
        self._stopped = False
        self._blocked: deque[Blocked] = deque(maxlen=_INCIDENTS)
        self._heard = trio.Event()
        self._asked = self._answered = self._looks = 0
        self._incidents = 0
        self._longest = 0.0

    def statistics(self) -> WatchdogStatistics:
        """What it has seen."""
        return WatchdogStatistics(
            looks=self._looks, incidents=self._incidents, longest=self._longest
        )

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch until cancelled; the thread is then told to end, and has 1 s for it."""
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(
            target=self._watch,
            args=(token, threading.get_ident()),
            name="treewarden watchdog",
            daemon=True,
        )
        thread.start()
        task_status.started()
        try:
            while True:
                with trio.move_on_after(self._pulse.wait) as scope:
                    await self._heard.wait()
                if scope.cancelled_caught:
                    self._beat()
                    continue
                self._heard = trio.Event()
                while self._blocked:
                    self._report(self._blocked.popleft())
        finally:
            self._stopped = True
            self._give_sign()
            thread.join(_JOIN_SECONDS)

    def notice(self) -> None:
        """See whether the loop is busy by now: then it gives signs of life unasked.

        For whoever is awake in the loop anyway; it costs some microseconds.
        """
        if self._pulse.wait == math.inf:
            self._beat()
            if self._pulse.wait < math.inf:
                self._heard.set()

    def _beat(self) -> None:
        sign, aside = self._pulse.beat(*_of_loop())
        if sign:
            self._taken.acquire(blocking=False)
            self._give_sign()
            self._taken.acquire(timeout=_TAKING_SECONDS)
            if self._on_busy is not None:
                self._on_busy()
        if aside:
            time.sleep(aside)

    def _give_sign(self) -> None:
        if self._sign.locked():
            self._sign.release()

    # --- in the loop's thread, between two steps -------------------------------------------

    def _answer(self, number: int) -> None:
        self._answered = number
        self.notice()

    def _over(self, found: Blocked, began: float) -> None:
        seconds = time.monotonic() - began
        self._incidents += 1
        self._longest = max(self._longest, seconds)
        self._blocked.append(dataclasses.replace(found, seconds=seconds))
        self._heard.set()

    # --- in the watching thread ------------------------------------------------------------

    def _watch(self, token: trio.lowlevel.TrioToken, watched: int) -> None:
        vigil = Vigil(self._threshold, *_of_process())
        with suppress(trio.RunFinishedError):
            while True:
                is_sign = self._sign.acquire(timeout=vigil.period)
                if self._stopped:
                    return
                if is_sign:
                    vigil.hear(*_of_process())
                    self._looks += 1
                    if self._taken.locked():
                        self._taken.release()
                else:
                    self._look(vigil, token, watched)

    def _look(self, vigil: Vigil, token: trio.lowlevel.TrioToken, watched: int) -> None:
        frame = self.frame_of(watched)
        verdict = vigil.look(
            *_of_process(),
            idle=is_waiting(frame),
            answered=self._answered == self._asked,
        )
        self._looks += 1
        if verdict is Verdict.ASK:
            self._asked += 1
            token.run_sync_soon(self._answer, self._asked)
        elif verdict is Verdict.BLOCKED and vigil.asked_at is not None:
            self._found(sighted(frame), vigil.asked_at, token)

    def _found(
        self, found: Blocked, began: float, token: trio.lowlevel.TrioToken
    ) -> None:
        if self._stopped:
            return  # the loop is waiting for this thread to end
        token.run_sync_soon(self._over, found, began)
        _log.warning(
            "the event loop is blocked at %s:%d in %s",
            found.file,
            found.line,
            found.function,
        )

    def frame_of(self, watched: int) -> FrameType | None:
        """What the watched thread is executing."""
        # There is no public way to see another thread's stack.
        return sys._current_frames().get(watched)  # noqa: SLF001


def _of_loop() -> tuple[float, float, int]:
    """By what a pulse is judged, in the loop's thread."""
    return time.monotonic(), time.thread_time(), _switches()


def _of_process() -> tuple[float, float, int]:
    """By what a vigil is judged."""
    return time.monotonic(), time.process_time(), _switches()


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def is_waiting(frame: FrameType | None) -> bool:
    """Whether a thread is in trio's wait for I/O (epoll's, kqueue's or Windows's)."""
    return frame is not None and frame.f_code.co_name == "get_events"


def sighted(innermost: FrameType | None) -> Blocked:
    """A stack as a record: the frames of the task, without trio's loop below it."""
    frames: list[Frame] = []
    frame = innermost
    while frame is not None and frame.f_code.co_name != "unrolled_run":
        frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    unknown: Frame = ("?", 0, "?")
    own = (one for one in frames if not is_library(one[0]))
    file, line, function = next(own, frames[0] if frames else unknown)
    return Blocked(
        seconds=0.0,
        file=file,
        line=line,
        function=function,
        frames=tuple(reversed(frames[:_FRAMES])),
    )


def is_library(file: str) -> bool:
    """Whether it belongs to Python or to an installed package: called, not to blame."""
    return file.startswith(("<frozen ", *_LIBRARIES))
