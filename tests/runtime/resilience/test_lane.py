"""The permits of one key and the line before it, checked against a naive model."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from treewarden.resilience import RateLimit
from treewarden.resilience.lane import Lane, Ticket

# Eighths of a second and a rate of four are exact in floats: the model needs no slack.
STEP = 0.125
RATE, BURST = 4, 3


@dataclass
class Model:
    """Every permit ever given, and all that is derived from them by brute force."""

    burst: int | None
    given: list[tuple[float, int]] = field(default_factory=list)
    line: list[Ticket] = field(default_factory=list)
    penalty: float = 0.0

    def allows(self, at: float, weight: int) -> bool:
        if at < self.penalty:
            return False
        if self.burst is None:
            used = sum(taken for when, taken in self.given if when + 1.0 > at)
            return used + weight <= RATE
        return self._tokens(at) >= weight

    def _tokens(self, at: float) -> float:
        assert self.burst is not None
        tokens, then = float(self.burst), 0.0
        for when, taken in self.given:
            tokens = min(self.burst, tokens + (when - then) * RATE) - taken
            then = when
        return min(self.burst, tokens + (at - then) * RATE)

    def settle(self, now: float) -> list[Ticket]:
        granted = []
        while self.line:
            at = self._when(self.line[0], now)
            if at is None:
                break
            ticket = self.line.pop(0)
            self.given.append((at, ticket.weight))
            granted.append(ticket)
        return granted

    def _when(self, ticket: Ticket, now: float) -> float | None:
        if ticket.attended:
            return now if self.allows(now, ticket.weight) else None
        last = self.given[-1][0] if self.given else 0.0
        at = max(ticket.since, last)
        while at <= now:
            if self.allows(at, ticket.weight):
                return at
            at += STEP
        return None


class LaneMachine(RuleBasedStateMachine):
    """Arrivals, departures, penalties and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    @initialize(burst=st.sampled_from([None, BURST]))
    def begin(self, burst: int | None) -> None:
        self.lane = Lane(RateLimit(rate=RATE, burst=burst).rule())
        self.model = Model(burst)

    @rule(steps=st.integers(1, 20))
    def time_passes(self, steps: int) -> None:
        self.now += steps * STEP
        granted = self.lane.settle(self.now)
        assert granted == self.model.settle(self.now)
        assert all(ticket.granted for ticket in granted)

    @rule(weight=st.integers(1, BURST))
    def somebody_tries(self, weight: int) -> None:
        expected = not self.model.line and self.model.allows(self.now, weight)
        assert self.lane.try_take(self.now, weight) == expected
        if expected:
            self.model.given.append((self.now, weight))

    @rule(weight=st.integers(1, BURST), attended=st.booleans())
    def somebody_joins(self, weight: int, *, attended: bool) -> None:
        ticket = Ticket(weight, self.now)
        ticket.attended = attended
        self.lane.join(ticket)
        self.model.line.append(ticket)
        assert self.lane.settle(self.now) == self.model.settle(self.now)

    @precondition(lambda self: self.model.line)
    @rule(place=st.integers(0, 5))
    def somebody_leaves(self, place: int) -> None:
        ticket = self.model.line[place % len(self.model.line)]
        self.model.line.remove(ticket)
        self.lane.leave(ticket)
        assert self.lane.settle(self.now) == self.model.settle(self.now)

    @rule(steps=st.integers(0, 12))
    def it_is_to_be_left_alone(self, steps: int) -> None:
        until = self.now + steps * STEP
        self.lane.penalise(until)
        self.model.penalty = max(self.model.penalty, until)

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "lane"):
            return
        assert self.lane.waiting == len(self.model.line)
        if self.model.line and all(ticket.attended for ticket in self.model.line):
            head, at = self.model.line[0], self.now
            while not self.model.allows(at, head.weight):
                at += STEP
            assert self.lane.due(self.now) == at

    @invariant()
    def nothing_goes_through_that_is_too_many(self) -> None:
        if not hasattr(self, "lane") or self.model.burst is not None:
            return
        for end, _ in self.model.given[-5:]:
            inside = sum(
                weight
                for when, weight in self.model.given
                if when <= end and when + 1.0 > end
            )
            assert inside <= RATE


TestLaneMachine = LaneMachine.TestCase
TestLaneMachine.settings = settings(
    max_examples=max(500, settings().max_examples), stateful_step_count=12
)


def test_one_for_whom_nobody_waits_gets_its_permit_at_the_moment_that_was_told() -> (
    None
):
    lane = Lane(RateLimit(rate=1).rule())
    assert lane.try_take(0.0, 1)
    for _ in range(3):
        lane.join(Ticket(1, 0.0))
    assert len(lane.settle(10.0)) == 3
    assert lane.try_take(10.0, 1)


def test_who_has_left_the_line_has_taken_nothing() -> None:
    lane = Lane(RateLimit(rate=1).rule())
    lane.try_take(0.0, 1)
    tickets = [Ticket(1, 0.0) for _ in range(100)]
    for ticket in tickets:
        lane.join(ticket)
    for ticket in tickets:
        lane.leave(ticket)
        lane.leave(ticket)
    assert lane.waiting == 0
    assert lane.delay(0.0, 1) == 1.0
    assert lane.try_take(1.0, 1)


def test_a_lane_is_quiet_when_a_fresh_one_would_do_the_same() -> None:
    lane = Lane(RateLimit(rate=2).rule())
    assert lane.is_quiet(0.0)
    lane.try_take(0.0, 1)
    assert not lane.is_quiet(0.9)
    assert lane.is_quiet(1.0)
    lane.penalise(5.0)
    assert not lane.is_quiet(4.0)
    ticket = Ticket(1, 4.0)
    lane.join(ticket)
    assert not lane.is_quiet(6.0)
