"""Broken process children, vigils and watchdogs; each names the test that catches it.

A double puts `value` in place of `target.attribute`; then the test `caught_by` must fail.
A kill that can be ignored is not among them: nobody is abandoned, so its test would hang.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.exits import Normal
from treewarden.supervision import importable, process, watchdog

if TYPE_CHECKING:
    from types import FrameType

    from treewarden.exits import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """One thing made wrong, and the test that must notice."""

    name: str
    target: object
    attribute: str
    value: object
    caught_by: str


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


async def _never_notices(child: trio.Process, scope: trio.CancelScope) -> None:
    """The end of the socket is taken for the end of the process."""
    await trio.sleep_forever()


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
        target=process,
        attribute="_kill_group",
        value=_kill_leader,
        caught_by=_PROCESS
        + "test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
    ),
    Double(
        name="a process that is not reaped",
        target=process._Process,
        attribute="end",
        value=_end_without_waiting,
        caught_by=_PROCESS
        + "test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
    ),
    Double(
        name="a stop without time to clean up",
        target=process._Process,
        attribute="_end",
        value=_end_without_asking,
        caught_by=_PROCESS + "test_it_cleans_up_when_it_is_told_to_stop",
    ),
    Double(
        name="an exit that is always normal",
        target=process._Process,
        attribute="exit",
        value=_exit_by_status,
        caught_by=_PROCESS + "test_each_abnormal_end_is_a_crash_that_says_how",
    ),
    Double(
        name="an end that only the socket tells",
        target=process,
        attribute="_cancel_at_end",
        value=_never_notices,
        caught_by=_PROCESS + "test_each_end_has_its_exit",
    ),
    Double(
        name="arguments that lose their types",
        target=importable,
        attribute="_hints",
        value=_untyped,
        caught_by=_ARGUMENTS + "test_arguments_arrive_as_the_function_says",
    ),
    Double(
        name="a report a look",
        target=watchdog.Vigil,
        attribute="look",
        value=_tells_each_time,
        caught_by=_VIGIL + "test_a_loop_that_does_not_answer_is_blocked_once",
    ),
    Double(
        name="a watchdog that names itself",
        target=watchdog.Watchdog,
        attribute="frame_of",
        value=_own_frame,
        caught_by=_WATCHDOG + "test_the_blocker_is_named_once",
    ),
    Double(
        name="a stopped process taken for a blocked one",
        target=watchdog,
        attribute="_SLACK",
        value=float("inf"),
        caught_by=_VIGIL + "test_a_stopped_process_is_no_incident",
    ),
)
