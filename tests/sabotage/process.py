"""Broken process children, vigils and watchdogs.

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
from treewarden.supervision import importable, process, pulse, watchdog

from .double import Area

if TYPE_CHECKING:
    from types import FrameType

    import trio

    from treewarden.exits import Exit

    from .double import Replace

DOUBLES: Final = Area("tests")


@DOUBLES.swaps(
    process,
    "_kill_group",
    caught_by="system/test_process_child.py::test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
)
def a_kill_of_the_leader_alone(group: int) -> None:
    """A kill that leaves what the child had started."""
    with suppress(ProcessLookupError):
        os.kill(group, signal.SIGKILL)


@DOUBLES.breaks(
    caught_by=(
        "system/test_process_child.py"
        "::test_each_end_has_its_exit_even_if_whoever_started_us_ignores_sigchld",
        "system/test_process_child.py"
        "::test_a_process_whose_end_nobody_could_tell_is_not_started",
    )
)
def a_parent_that_is_told_of_no_end(replace: Replace) -> None:
    """Under `nohup`-like parents whoever was killed ended well."""
    replace(process, "hear_of_endings", lambda: None)
    replace(process, "check_endings", lambda: None)


@DOUBLES.swaps(
    process._Process,
    "end",
    caught_by="system/test_process_child.py::test_the_whole_group_is_gone_and_reaped_when_it_is_stopped",
)
async def a_process_that_is_not_reaped(self: Any) -> None:
    """Killed, but not reaped: a zombie, and an end told too early (pitfall 40)."""
    self.kill()


@DOUBLES.swaps(
    process._Process,
    "_end",
    caught_by="system/test_process_child.py::test_it_cleans_up_when_it_is_told_to_stop",
)
async def a_stop_without_time_to_clean_up(
    self: Any, child: trio.Process, _: object
) -> None:
    """A stop that leaves no time to clean up."""
    self.kill()
    await child.wait()


@DOUBLES.swaps(
    process._Process,
    "exit",
    caught_by="system/test_process_child.py::test_each_abnormal_end_is_a_crash_that_says_how",
)
def an_exit_that_is_always_normal(self: Any) -> Exit:
    """Whatever happened, it is called normal: nothing is ever restarted for it."""
    return Normal()


@DOUBLES.swaps(
    importable,
    "hints_of",
    caught_by="runtime/supervision/test_importable.py::test_arguments_arrive_as_the_function_says",
)
def arguments_that_lose_their_types(function: object) -> dict[str, Any]:
    """Arguments arrive as JSON has them, whatever the function says."""
    return {}


@DOUBLES.swaps(
    watchdog.Vigil,
    "look",
    caught_by="runtime/supervision/test_watchdog.py::test_a_loop_that_does_not_answer_is_blocked_once",
)
def a_report_a_look(self: Any, *_: object, **looked: bool) -> watchdog.Verdict:
    """A report a look instead of one an incident."""
    if looked["answered"]:
        self.asked_at = None
        return watchdog.Verdict.ASK
    self.asked_at = self.asked_at or 0.0
    return watchdog.Verdict.BLOCKED


@DOUBLES.swaps(
    watchdog.Watchdog,
    "frame_of",
    caught_by="system/test_watchdog.py::test_the_blocker_is_named_once",
)
def a_watchdog_that_names_itself(self: Any, watched: int) -> FrameType | None:
    """Pitfall 34: the blocked loop is seen, and the wrong one is named."""
    return sys._getframe()


@DOUBLES.breaks(
    caught_by="runtime/supervision/test_watchdog.py::test_a_stopped_process_is_no_incident"
)
def a_stopped_process_taken_for_a_blocked_one(replace: Replace) -> None:
    """Time that passed while everybody stood still counts against the loop."""
    replace(watchdog, "_SLACK", float("inf"))


@DOUBLES.breaks(
    caught_by="runtime/supervision/test_watchdog.py::test_a_loop_that_turns_and_leaves_the_thread_no_time_is_not_blocked"
)
def a_starved_watchdog_that_blames_the_loop(replace: Replace) -> None:
    """The thread was late: whatever the loop did meanwhile, it was blocked."""
    replace(watchdog, "_STARVED", float("inf"))


@DOUBLES.swaps(
    pulse.Pulse,
    "beat",
    caught_by="runtime/supervision/test_pulse.py::test_a_busy_loop_gives_a_sign_of_life_each_period",
)
def a_loop_that_is_too_busy_for_signs(self: Any, *_: float) -> pulse.Beat:
    """It rests once it has begun, however busy it is: its threads wait in vain."""
    self.wait = float("inf")
    return pulse.Beat(sign=False, aside=0.0)
