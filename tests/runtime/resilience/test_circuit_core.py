"""When a circuit lets a call through, checked against a naive model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from treewarden.resilience import CircuitPolicy, CircuitState
from treewarden.resilience.circuit_core import REJECTED, CircuitCore


def drive(core: CircuitCore, now: float, outcome: str) -> bool:
    """One call at `now`; False when it was rejected."""
    core.look(now)
    permit = core.admit(now)
    if permit == REJECTED:
        return False
    if outcome == "ok":
        core.succeed(permit, now)
    elif outcome == "failed":
        core.fail(permit, now)
    else:
        core.let_go(permit)
    return True


def state_of(core: CircuitCore) -> CircuitState:
    """Read anew each time: mypy takes an attribute's narrowed type for its last one."""
    return core.state


def opened(policy: CircuitPolicy) -> CircuitCore:
    core = CircuitCore(policy, 0.0)
    while core.state is CircuitState.CLOSED:
        drive(core, 0.0, "failed")
    return core


def test_the_fifth_failure_in_a_row_opens_it_and_the_fourth_does_not() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=5), 0.0)
    for outcome in ("failed", "failed", "ok", "failed", "failed", "failed", "failed"):
        drive(core, 1.0, outcome)
    assert state_of(core) is CircuitState.CLOSED
    drive(core, 1.0, "failed")
    assert state_of(core) is CircuitState.OPEN


def test_a_success_between_failures_starts_the_row_anew_even_in_a_full_window() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=3, window=2), 0.0)
    for _ in range(10):
        drive(core, 0.0, "failed")
        drive(core, 0.0, "failed")
        drive(core, 0.0, "ok")
    assert state_of(core) is CircuitState.CLOSED


def test_a_rate_opens_it_only_when_there_were_enough_calls() -> None:
    policy = CircuitPolicy(
        failure_threshold=None, failure_rate=0.5, minimum_calls=4, window=4
    )
    core = CircuitCore(policy, 0.0)
    for outcome in ("failed", "failed", "failed"):
        drive(core, 0.0, outcome)
    assert state_of(core) is CircuitState.CLOSED
    drive(core, 0.0, "ok")
    assert state_of(core) is CircuitState.OPEN


def test_it_stays_open_until_the_reset_timeout_is_over() -> None:
    core = opened(CircuitPolicy(reset_timeout=30.0))
    assert not drive(core, 29.9, "ok")
    assert core.retry_after(29.0) == 1.0
    assert drive(core, 30.0, "ok")
    assert state_of(core) is CircuitState.CLOSED


def test_a_failed_probe_opens_it_for_another_whole_period() -> None:
    core = opened(CircuitPolicy(reset_timeout=30.0))
    assert drive(core, 40.0, "failed")
    assert state_of(core) is CircuitState.OPEN
    assert not drive(core, 69.9, "ok")
    assert drive(core, 70.0, "ok")


def test_as_many_probes_as_allowed_are_out_at_once_and_no_more() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, half_open_calls=3))
    core.look(1.0)
    permits = [core.admit(1.0) for _ in range(1000)]
    assert sum(permit != REJECTED for permit in permits) == 3
    assert core.rejected == 997


def test_as_many_probes_as_asked_for_must_succeed() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, success_threshold=3))
    drive(core, 1.0, "ok")
    drive(core, 1.0, "ok")
    assert state_of(core) is CircuitState.HALF_OPEN
    drive(core, 1.0, "ok")
    assert state_of(core) is CircuitState.CLOSED


def test_a_probe_that_was_let_go_leaves_its_place_and_decides_nothing() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0))
    for _ in range(100):
        assert drive(core, 1.0, "let go")
    assert state_of(core) is CircuitState.HALF_OPEN
    assert drive(core, 1.0, "ok")


def test_a_lost_probe_holds_its_place_no_longer_than_its_lease() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, probe_lease=10.0))
    core.look(1.0)
    assert core.admit(1.0) != REJECTED
    assert core.admit(10.9) == REJECTED
    assert core.retry_after(10.0) == pytest.approx(1.0)
    assert drive(core, 11.0, "ok")
    assert state_of(core) is CircuitState.CLOSED


def test_a_probe_later_than_its_lease_still_counts_while_half_open() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, probe_lease=10.0))
    core.look(1.0)
    slow = core.admit(1.0)
    core.succeed(slow, 100.0)
    assert state_of(core) is CircuitState.CLOSED


@pytest.mark.parametrize("outcome", ["succeed", "fail"])
def test_a_late_result_of_an_earlier_state_moves_nothing(outcome: str) -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=1, reset_timeout=1.0), 0.0)
    late = core.admit(0.0)
    drive(core, 0.0, "failed")
    core.look(1.0)
    assert state_of(core) is CircuitState.HALF_OPEN
    assert getattr(core, outcome)(late, 1.0) is None
    assert state_of(core) is CircuitState.HALF_OPEN
    assert core.succeeded + core.failed == 2


def test_a_failure_from_before_an_operators_reset_is_not_held_against_it() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=2), 0.0)
    late = [core.admit(0.0), core.admit(0.0)]
    core.reset(0.0, "op")
    for permit in late:
        core.fail(permit, 0.0)
    assert state_of(core) is CircuitState.CLOSED
    assert core.window.calls == 0


def test_a_tripped_circuit_rejects_for_ever_and_knows_no_time_to_come_back() -> None:
    core = CircuitCore(CircuitPolicy(), 0.0)
    core.trip(0.0, "op")
    assert not drive(core, 1e9, "ok")
    assert core.retry_after(1e9) is None


def test_a_disabled_circuit_lets_everything_through_and_watches_nothing() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=1), 0.0)
    core.disable(0.0, "op")
    assert all(drive(core, 0.0, "failed") for _ in range(10))
    assert (core.state, core.window.calls) == (CircuitState.DISABLED, 0)


def test_metrics_only_watches_and_never_opens() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=1, failure_rate=0.1), 0.0)
    core.observe(0.0, "op")
    assert all(drive(core, 0.0, "failed") for _ in range(30))
    assert state_of(core) is CircuitState.METRICS_ONLY
    assert core.window.failures == 20


def test_a_move_says_why_and_how_the_window_stood() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=2), 0.0)
    drive(core, 0.0, "ok")
    drive(core, 0.0, "failed")
    permit = core.admit(0.0)
    move = core.fail(permit, 0.0)
    assert move is not None
    assert (move.old, move.new) == (CircuitState.CLOSED, CircuitState.OPEN)
    assert move.reason == "2 failures in a row"
    assert (move.window_calls, move.window_failures) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"failure_threshold": 0}, "failure_threshold"),
        ({"failure_threshold": None}, "cannot both be None"),
        ({"window": 0}, "window"),
        ({"failure_rate": 1.5}, "failure_rate"),
        ({"failure_rate": 0.5, "minimum_calls": 21}, "minimum_calls"),
        ({"half_open_calls": 0}, "half_open_calls"),
        ({"success_threshold": 0}, "success_threshold"),
        ({"reset_timeout": 0.0}, "reset_timeout"),
        ({"reset_timeout": float("inf")}, "reset_timeout"),
        ({"probe_lease": 0.0}, "probe_lease"),
    ],
)
def test_a_policy_that_could_never_open_or_close_is_refused_by_name(
    fields: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        CircuitPolicy(**fields)  # type: ignore[arg-type]


# --- the naive model ----------------------------------------------------------------------


@dataclass
class Ticket:
    """A call under way in the model: which state let it through, and when."""

    era: int
    since: float
    real: int


@dataclass
class Model:
    """A circuit that keeps everything and looks at all of it each time."""

    policy: CircuitPolicy
    state: CircuitState = CircuitState.CLOSED
    since: float = 0.0
    era: int = 0
    outcomes: list[bool] = field(default_factory=list)
    well: int = 0

    def enter(self, state: CircuitState, now: float) -> None:
        self.state, self.since, self.well = state, now, 0
        self.era += 1
        if state in (CircuitState.CLOSED, CircuitState.METRICS_ONLY):
            self.outcomes = []

    def look(self, now: float) -> None:
        over = now >= self.since + self.policy.reset_timeout
        if self.state is CircuitState.OPEN and over:
            self.enter(CircuitState.HALF_OPEN, now)

    def admits(self, now: float, under_way: list[Ticket]) -> bool:
        if self.state in (CircuitState.OPEN, CircuitState.FORCED_OPEN):
            return False
        if self.state is not CircuitState.HALF_OPEN:
            return True
        out = [
            ticket
            for ticket in under_way
            if ticket.era == self.era and ticket.since + self.policy.lease > now
        ]
        return len(out) < self.policy.half_open_calls

    def settle(self, ticket: Ticket, *, failed: bool, now: float) -> None:
        if ticket.era != self.era:
            return
        if self.state is CircuitState.HALF_OPEN:
            self.well += not failed
            if failed:
                self.enter(CircuitState.OPEN, now)
            elif self.well == self.policy.success_threshold:
                self.enter(CircuitState.CLOSED, now)
        elif self.state in (CircuitState.CLOSED, CircuitState.METRICS_ONLY):
            self.outcomes.append(failed)
            if self.state is CircuitState.CLOSED and self.is_bad(failed=failed):
                bad = self.outcomes
                self.enter(CircuitState.OPEN, now)
                self.outcomes = bad

    @property
    def window(self) -> list[bool]:
        return self.outcomes[-self.policy.window :]

    def is_bad(self, *, failed: bool) -> bool:
        limit, rate, seen = (
            self.policy.failure_threshold,
            self.policy.failure_rate,
            self.window,
        )
        if failed and limit is not None and all(self.outcomes[-limit:]):
            row = len(self.outcomes[-limit:]) == limit
        else:
            row = False
        share = (
            rate is not None
            and len(seen) >= self.policy.minimum_calls
            and sum(seen) > 0
            and sum(seen) >= rate * len(seen)
        )
        return row or share


policies = st.builds(
    CircuitPolicy,
    failure_threshold=st.integers(1, 4),
    window=st.integers(2, 6),
    failure_rate=st.none() | st.sampled_from([0.25, 0.5, 1.0]),
    minimum_calls=st.integers(1, 2),
    reset_timeout=st.sampled_from([1.0, 4.0]),
    half_open_calls=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    probe_lease=st.none() | st.sampled_from([1.0, 2.0]),
)


class CircuitMachine(RuleBasedStateMachine):
    """Calls begin, end in any order, time passes, operators interfere."""

    @initialize(policy=policies)
    def begin(self, policy: CircuitPolicy) -> None:
        self.now = 0.0
        self.core = CircuitCore(policy, 0.0)
        self.model = Model(policy)
        self.under_way: list[Ticket] = []
        self.rejected = 0

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        self.core.look(self.now)
        self.model.look(self.now)
        expected = self.model.admits(self.now, self.under_way)
        permit = self.core.admit(self.now)
        assert (permit != REJECTED) == expected
        if expected:
            self.under_way.append(Ticket(self.model.era, self.now, permit))
        else:
            self.rejected += 1

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "failed", "let go"]))
    def a_call_ends(self, data: st.DataObject, outcome: str) -> None:
        which = data.draw(st.integers(0, len(self.under_way) - 1))
        ticket = self.under_way.pop(which)
        if outcome == "let go":
            self.core.let_go(ticket.real)
            return
        self.model.settle(ticket, failed=outcome == "failed", now=self.now)
        if outcome == "ok":
            self.core.succeed(ticket.real, self.now)
        else:
            self.core.fail(ticket.real, self.now)

    @rule(order=st.sampled_from(["trip", "reset", "disable", "observe"]))
    def an_operator_orders(self, order: str) -> None:
        getattr(self.core, order)(self.now, "op")
        state = {
            "trip": CircuitState.FORCED_OPEN,
            "reset": CircuitState.CLOSED,
            "disable": CircuitState.DISABLED,
            "observe": CircuitState.METRICS_ONLY,
        }[order]
        watched = order in ("reset", "observe")
        if state is not self.model.state or watched:
            self.model.enter(state, self.now)

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "core"):
            return
        self.core.look(self.now)
        self.model.look(self.now)
        assert self.core.state is self.model.state
        assert self.core.window.calls == len(self.model.window)
        assert self.core.window.failures == sum(self.model.window)
        assert self.core.in_flight == len(self.under_way)
        assert self.core.rejected == self.rejected


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(stateful_step_count=40)
