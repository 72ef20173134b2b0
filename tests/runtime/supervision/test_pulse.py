"""When a busy loop gives signs of life, and when it stands aside."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from treewarden.supervision.pulse import ASIDE, BUSY, SOON, STARVING, Beat, Pulse

PERIOD = 0.0625
NOTHING = Beat(sign=False, aside=0.0)


@dataclass
class Loop:
    """One that is busy for a share of its time, and sleeps until its next beat."""

    share: float = 1.0
    switched: float = 0.0
    """Switches of threads a second."""
    now: float = 0.0
    cpu: float = 0.0
    switches: float = 0.0
    pulse: Pulse = field(default_factory=lambda: Pulse(PERIOD, 0.0, 0.0, 0))

    def live(self, seconds: float) -> Beat:
        self.now += seconds
        self.cpu += seconds * self.share
        self.switches += seconds * self.switched
        return self.pulse.beat(self.now, self.cpu, int(self.switches))

    def beats(self, seconds: float) -> list[Beat]:
        """All of so long a time; those that are given in a rest not included."""
        found, end = [], self.now + seconds
        while self.now + self.pulse.wait < end:
            found.append(self.live(self.pulse.wait))
        return found


@pytest.mark.parametrize("share", [BUSY, 0.5, 1.0])
def test_a_busy_loop_gives_a_sign_of_life_each_period(share: float) -> None:
    assert Loop(share).beats(1.01) == [Beat(sign=True, aside=0.0)] * 16


@pytest.mark.parametrize("share", [0.0, 0.05, BUSY - 0.01])
def test_a_loop_that_has_time_is_left_alone(share: float) -> None:
    loop = Loop(share)
    assert loop.beats(1.0) == [NOTHING]
    assert loop.pulse.wait == math.inf


def test_it_begins_again_when_it_is_busy_again() -> None:
    loop = Loop(share=0.0)
    loop.beats(1.0)
    loop.share = 1.0
    loop.live(0.25)
    assert loop.pulse.wait <= PERIOD


def test_where_threads_wait_in_vain_it_stands_aside_and_looks_again_soon() -> None:
    found = Loop(switched=STARVING * 1.5).beats(1.0)
    assert {beat.aside for beat in found} == {ASIDE}
    assert sum(beat.sign for beat in found) in {15, 16}
    assert len(found) == pytest.approx(1.0 / SOON, rel=0.3)


def test_to_stand_aside_costs_a_loop_a_hundredth_at_most() -> None:
    found = Loop(switched=20_000.0).beats(10.0)
    assert sum(beat.aside for beat in found) <= 0.013 * 10.0


def test_a_process_that_holds_the_interpreter_is_not_stood_aside_for() -> None:
    # CPython's own way works then: it wakes who waits each 5 ms, and has the other let go.
    assert not any(beat.aside for beat in Loop(switched=200.0).beats(1.0))


def test_when_it_has_helped_it_goes_on_as_before() -> None:
    loop = Loop(switched=5000.0)
    loop.live(PERIOD)
    assert loop.pulse.wait == SOON
    loop.switched = 0.0
    assert loop.live(SOON) == NOTHING
    assert loop.pulse.wait == pytest.approx(PERIOD - SOON)


def test_a_clock_that_does_not_run_has_it_rest() -> None:
    """Tests' clocks jump from deadline to deadline: it would be the next one, for ever."""
    loop = Loop()
    loop.live(PERIOD)
    assert loop.live(0.0001) == NOTHING
    assert loop.pulse.wait == math.inf
