"""Broken process children, vigils and watchdogs; each names the test that catches it.

Two are not among them, since nobody is abandoned and their tests would hang: a kill that
can be ignored, and an end that only the socket tells.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from treewarden.exits import Normal
from treewarden.supervision import importable, process, watchdog

from .double import Double, swap

if TYPE_CHECKING:
    from types import FrameType

    import trio

    from treewarden.exits import Exit


def _kill_leader(group: int) -> None:
    """A kill that leaves what the child had started."""
    with suppress(ProcessLookupError):
        os.kill(group, signal.SIGKILL)


async def _end_without_waiting(self: Any) -> None:
    """Killed, but not reaped: a zombie, and an end told too early (pitfall 40)."""
    self.kill()


async def _end_without_asking(self: Any, child: trio.Process, _: object) -> None:
    """A stop that leaves no time to clean up."""
    self.kill()
    await child.wait()


def _exit_by_status(self: Any) -> Exit:
    """Whatever happened, it is called normal: nothing is ever restarted for it."""
    return Normal()


def _untyped(function: object) -> dict[str, Any]:
    """Arguments arrive as JSON has them, whatever the function says."""
    return {}


def _tells_each_time(self: Any, *_: object, **looked: bool) -> watchdog.Verdict:
    """A report a look instead of one an incident."""
    if looked["answered"]:
        self.asked_at = None
        return watchdog.Verdict.ASK
    self.asked_at = self.asked_at or 0.0
    return watchdog.Verdict.BLOCKED


def _own_frame(self: Any, watched: int) -> FrameType | None:
    """The watchdog names itself."""
    return sys._getframe()


_PROCESS: Final = "tests/system/test_process_child.py::"
_WATCHDOG: Final = "tests/system/test_watchdog.py::"
_VIGIL: Final = "tests/runtime/supervision/test_watchdog.py::"
_ARGUMENTS: Final = "tests/runtime/supervision/test_importable.py::"

DOUBLES: Final = (
    Double(
        name="a kill of the leader alone",
        breaks=swap(process, "_kill_group", _kill_leader),
        caught_by=(
            _PROCESS + "test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
        ),
    ),
    Double(
        name="a process that is not reaped",
        breaks=swap(process._Process, "end", _end_without_waiting),
        caught_by=(
            _PROCESS + "test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
        ),
    ),
    Double(
        name="a stop without time to clean up",
        breaks=swap(process._Process, "_end", _end_without_asking),
        caught_by=(_PROCESS + "test_it_cleans_up_when_it_is_told_to_stop",),
    ),
    Double(
        name="an exit that is always normal",
        breaks=swap(process._Process, "exit", _exit_by_status),
        caught_by=(_PROCESS + "test_each_abnormal_end_is_a_crash_that_says_how",),
    ),
    Double(
        name="arguments that lose their types",
        breaks=swap(importable, "_hints", _untyped),
        caught_by=(_ARGUMENTS + "test_arguments_arrive_as_the_function_says",),
    ),
    Double(
        name="a report a look",
        breaks=swap(watchdog.Vigil, "look", _tells_each_time),
        caught_by=(_VIGIL + "test_a_loop_that_does_not_answer_is_blocked_once",),
    ),
    Double(
        name="a watchdog that names itself",
        breaks=swap(watchdog.Watchdog, "frame_of", _own_frame),
        caught_by=(_WATCHDOG + "test_the_blocker_is_named_once",),
    ),
    Double(
        name="a stopped process taken for a blocked one",
        breaks=swap(watchdog, "_SLACK", float("inf")),
        caught_by=(_VIGIL + "test_a_stopped_process_is_no_incident",),
    ),
)
