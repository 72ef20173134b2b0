"""When a loop counts as blocked, and whom the stack names."""

from __future__ import annotations

import json
import math
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from treewarden.supervision.watchdog import (
    Verdict,
    Vigil,
    Watchdog,
    is_waiting,
    sighted,
)

if TYPE_CHECKING:
    from types import FrameType

ASK, WAIT, BLOCKED = Verdict
# Binary fractions, so that sums of them are exact.
THRESHOLD = 0.375
PERIOD = 0.125


@dataclass
class Watched:
    """A vigil that looks each 0.125 s of a process whose clocks the test moves."""

    vigil: Vigil
    now: float = 0.0
    cpu: float = 0.0
    switches: int = 0

    def look(
        self,
        *,
        idle: bool = False,
        answered: bool = False,
        after: float = PERIOD,
        cpu: float = 0.0,
        switches: int = 0,
    ) -> Verdict:
        self.now += after
        self.cpu += cpu
        self.switches += switches
        return self.vigil.look(
            self.now, self.cpu, self.switches, idle=idle, answered=answered
        )

    def look_late(self, *, answered: bool) -> Verdict:
        """The thread was woken thousands of times before it got its turn."""
        return self.look(answered=answered, after=2.0, cpu=2.0, switches=9000)

    def hear(self, after: float) -> None:
        self.now += after
        self.vigil.hear(self.now, self.cpu, self.switches)


@pytest.fixture
def watched() -> Watched:
    return Watched(Vigil(THRESHOLD, 0.0, 0.0, 0))


def test_an_idle_loop_is_left_alone(watched: Watched) -> None:
    assert {watched.look(idle=True, answered=True) for _ in range(100)} == {WAIT}


def test_a_busy_loop_is_asked_again_and_again(watched: Watched) -> None:
    assert {watched.look(answered=True, cpu=0.1) for _ in range(100)} == {ASK}


def test_a_loop_that_does_not_answer_is_blocked_once(watched: Watched) -> None:
    assert watched.look(answered=True) is ASK
    looks = [watched.look() for _ in range(10)]
    assert looks == [WAIT, BLOCKED] + [WAIT] * 8
    assert watched.vigil.asked_at == PERIOD


def test_each_incident_is_told(watched: Watched) -> None:
    for back in ({"idle": True, "answered": True}, {"answered": True}):
        watched.look(answered=True)
        assert [watched.look() for _ in range(3)] == [WAIT, BLOCKED, WAIT]
        watched.look(**back)
    assert watched.look() is WAIT


def test_a_loop_that_went_idle_need_not_have_answered(watched: Watched) -> None:
    watched.look(answered=True)
    assert watched.look() is WAIT
    assert watched.look(idle=True) is WAIT
    assert [watched.look(), watched.look(), watched.look()] == [WAIT, WAIT, BLOCKED]


def test_a_block_of_the_threshold_is_found_whenever_it_begins(watched: Watched) -> None:
    # It begins right after a look that found the loop idle.
    watched.look(idle=True, answered=True)
    began = watched.now
    assert watched.look(answered=True) is ASK
    assert watched.look() is WAIT
    assert watched.look() is BLOCKED
    assert watched.now - began == THRESHOLD


def test_a_stopped_process_is_no_incident(watched: Watched) -> None:
    watched.look(answered=True)
    assert watched.look(after=60.0) is WAIT
    assert watched.look(after=60.0) is WAIT
    assert watched.look(answered=True) is ASK


def test_a_loop_that_stays_blocked_after_a_pause_is_found(watched: Watched) -> None:
    watched.look(answered=True)
    assert watched.look(after=60.0) is WAIT
    assert [watched.look(), watched.look()] == [WAIT, BLOCKED]


def test_who_held_the_interpreter_all_the_time_is_blocked_at_once(
    watched: Watched,
) -> None:
    watched.look(idle=True, answered=True)
    assert watched.look(answered=True, after=2.0, cpu=1.9) is BLOCKED
    assert watched.vigil.asked_at == PERIOD
    assert watched.look(answered=True) is ASK


def test_a_loop_that_turns_and_leaves_the_thread_no_time_is_not_blocked(
    watched: Watched,
) -> None:
    watched.look(idle=True, answered=True)
    assert watched.look_late(answered=True) is ASK
    assert watched.look_late(answered=True) is ASK


def test_a_loop_that_does_not_turn_is_blocked_whatever_it_leaves_to_the_thread(
    watched: Watched,
) -> None:
    # It waits for files, say: each time it lets go of the interpreter for a moment.
    watched.look(idle=True, answered=True)
    assert watched.look_late(answered=True) is ASK
    assert watched.look_late(answered=False) is BLOCKED


def test_a_loop_that_gives_signs_of_life_need_not_be_asked(watched: Watched) -> None:
    watched.look(answered=True)
    assert watched.look() is WAIT
    watched.hear(after=0.0625)
    assert [watched.look(answered=True), watched.look()] == [ASK, WAIT]


def test_a_block_of_the_threshold_is_found_that_begins_after_a_sign_of_life(
    watched: Watched,
) -> None:
    watched.look(answered=True)
    watched.hear(after=0.0625)
    began = watched.now
    assert watched.look(answered=True) is ASK
    assert watched.look() is WAIT
    assert watched.look() is BLOCKED
    assert watched.now - began == THRESHOLD
    watched.hear(after=0.5)
    assert [watched.look(answered=True), watched.look()] == [ASK, WAIT]
    assert watched.look() is BLOCKED


def test_another_thread_may_hold_the_interpreter_while_the_loop_is_idle(
    watched: Watched,
) -> None:
    assert watched.look(idle=True, answered=True, after=2.0, cpu=2.0) is WAIT


@pytest.mark.parametrize("threshold", [0, -1, 0.09, math.inf, math.nan])
def test_a_threshold_that_is_none_is_refused_with_the_value(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"not {threshold}"):
        Watchdog(print, threshold=threshold)


# --- stacks ---------------------------------------------------------------------------------


def unrolled_run(stack: list[FrameType]) -> None:
    """Named as the function of trio that runs the steps of tasks."""
    blocker(stack)


def blocker(stack: list[FrameType]) -> None:
    json.loads("7", parse_int=lambda _: get_events(stack))


def get_events(stack: list[FrameType]) -> None:
    stack.append(sys._getframe())


def test_the_blocker_is_the_innermost_frame_outside_the_libraries() -> None:
    stack: list[FrameType] = []
    unrolled_run(stack)
    decode = stack[0].f_back
    assert decode is not None
    found = sighted(decode.f_back)
    assert (found.file, found.function) == (__file__, "blocker")
    names = [name for _, _, name in found.frames]
    assert names[0] == "blocker"
    assert "unrolled_run" not in names


def test_a_library_alone_is_named_itself() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        frame = sys._current_frames()[thread.ident or 0]
        assert sighted(frame).function == frame.f_code.co_name
    finally:
        over.set()
        thread.join()


def test_a_thread_without_frames_is_unknown() -> None:
    assert sighted(None).file == "?"


def test_a_loop_is_idle_in_its_wait_for_input() -> None:
    stack: list[FrameType] = []
    unrolled_run(stack)
    assert is_waiting(stack[0])
    assert not is_waiting(sys._getframe())
    assert not is_waiting(None)
