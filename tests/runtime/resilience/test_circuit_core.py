"""When a circuit lets a call through, checked against a naive model."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from treewarden.resilience import Backoff, CircuitPolicy, CircuitState
from treewarden.resilience.circuit_core import REJECTED, CircuitCore


def drive(core: CircuitCore, now: float, outcome: str) -> bool:
    """One call at `now`; False when it was rejected."""
    permit = core.admit(now)
    if permit == REJECTED:
        return False
    if outcome in ("ok", "slow"):
        core.succeed(permit, now, slow=outcome == "slow")
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
    slow = core.admit(1.0)
    core.succeed(slow, 20.9)
    assert state_of(core) is CircuitState.CLOSED


@pytest.mark.parametrize("outcome", ["succeed", "fail"])
def test_a_late_result_of_an_earlier_state_moves_nothing(outcome: str) -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=1, reset_timeout=1.0), 0.0)
    late = core.admit(0.0)
    drive(core, 0.0, "failed")
    core.look(1.0)
    assert state_of(core) is CircuitState.HALF_OPEN
    getattr(core, outcome)(late, 1.0)
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
    core.fail(permit, 0.0)
    (move,) = core.moves
    assert (move.old, move.new) == (CircuitState.CLOSED, CircuitState.OPEN)
    assert move.reason == "2 failures in a row"
    assert (move.window_calls, move.window_failures) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"failure_threshold": 0}, "failure_threshold"),
        ({"failure_threshold": None}, "cannot all be None"),
        ({"window": 0}, "window"),
        ({"failure_rate": 1.5}, "failure_rate"),
        ({"failure_rate": 0.5, "minimum_calls": 21}, "minimum_calls"),
        ({"half_open_calls": 0}, "half_open_calls"),
        ({"success_threshold": 0}, "success_threshold"),
        ({"reset_timeout": 0.0}, "reset_timeout"),
        ({"reset_timeout": float("inf")}, "reset_timeout"),
        ({"reset_timeout": Backoff(initial=0.0)}, "reset_timeout"),
        ({"probe_lease": 0.0}, "probe_lease"),
        ({"half_open_timeout": 0.0}, "half_open_timeout"),
        ({"slow_call": -1.0}, "slow_call"),
        ({"slow_call": 1.0, "minimum_calls": 21}, "minimum_calls"),
        ({"slow_rate": 0.0}, "slow_rate"),
        ({"window_seconds": 0.0}, "window_seconds"),
        ({"window_seconds": 1e-320}, "window_seconds"),
        ({"window": 10**12}, "window must be <= 1000000 calls, not 1000000000000"),
        ({"reset_timeout": 10**400}, "reset_timeout"),
        ({"call_timeout": float("nan")}, "call_timeout"),
    ],
)
def test_a_policy_that_could_never_open_or_close_is_refused_by_name(
    fields: dict[str, object], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        CircuitPolicy(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "judge"),
    [
        ("counts_as_failure", ConnectionError),
        ("counts_as_success", KeyError),
        ("result_is_failure", 500),
        ("counts_as_failure", (OSError, ValueError)),
    ],
)
def test_who_judges_is_a_function_and_no_class_of_exceptions(
    asked: str, judge: object
) -> None:
    """Called with an error, a class makes another one, and every error is a failure."""
    with pytest.raises(TypeError, match=f"{asked} must be a function"):
        CircuitPolicy(**{asked: judge})  # type: ignore[arg-type] # what is tested


def test_slow_calls_open_it_whether_they_fail_or_not() -> None:
    policy = CircuitPolicy(
        failure_threshold=None, slow_call=1.0, slow_rate=0.5, minimum_calls=4
    )
    core = CircuitCore(policy, 0.0)
    for outcome in ("slow", "slow", "ok"):
        drive(core, 0.0, outcome)
    assert state_of(core) is CircuitState.CLOSED
    core.fail(core.admit(0.0), 0.0, slow=True)
    assert state_of(core) is CircuitState.OPEN
    (move,) = core.moves
    assert move.reason == "3 of 4 were slow"
    assert (move.window_calls, move.window_failures, move.window_slow) == (4, 1, 3)


def test_a_slow_probe_opens_it_again() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, slow_call=1.0))
    drive(core, 1.0, "slow")
    assert state_of(core) is CircuitState.OPEN
    assert core.moves[-1].reason == "a probe was slow"


def test_rules_hold_together_and_the_first_one_opens_it() -> None:
    policy = CircuitPolicy(
        failure_threshold=3, failure_rate=0.5, slow_call=1.0, minimum_calls=4
    )
    reasons = []
    for outcomes in (
        ("failed", "failed", "failed"),
        ("ok", "failed", "ok", "failed"),
        ("ok", "slow", "ok", "slow"),
    ):
        core = CircuitCore(policy, 0.0)
        for outcome in outcomes:
            drive(core, 0.0, outcome)
        reasons.append(core.moves[0].reason)
    assert reasons == ["3 failures in a row", "2 of 4 failed", "2 of 4 were slow"]


def test_a_window_of_seconds_forgets_a_tenth_at_a_time() -> None:
    policy = CircuitPolicy(
        failure_threshold=None, failure_rate=0.5, window_seconds=10.0, minimum_calls=2
    )
    core = CircuitCore(policy, 0.0)
    drive(core, 0.5, "failed")
    drive(core, 9.9, "ok")
    core.window.pass_time(9.9)
    assert (core.window.calls, core.window.failures) == (2, 1)
    core.window.pass_time(10.0)
    assert (core.window.calls, core.window.failures) == (1, 0)
    core.window.pass_time(1e9)
    assert core.window.calls == 0


def test_failures_spread_further_than_the_window_of_seconds_do_not_open_it() -> None:
    policy = CircuitPolicy(
        failure_threshold=None, failure_rate=1.0, window_seconds=10.0, minimum_calls=2
    )
    core = CircuitCore(policy, 0.0)
    for number in range(100):
        drive(core, 11.0 * number, "failed")
    assert state_of(core) is CircuitState.CLOSED
    drive(core, 11.0 * 99 + 8, "failed")
    assert state_of(core) is CircuitState.OPEN


def test_a_row_of_failures_counts_however_far_apart_they_are() -> None:
    core = CircuitCore(CircuitPolicy(failure_threshold=3, window_seconds=10.0), 0.0)
    for number in range(3):
        drive(core, 1000.0 * number, "failed")
    assert state_of(core) is CircuitState.OPEN


def test_the_open_time_grows_with_each_opening_until_it_has_closed() -> None:
    growing = Backoff(initial=1.0, factor=2.0, maximum=5.0, jitter=0.0)
    core = opened(CircuitPolicy(reset_timeout=growing))
    waits = [core.retry_after(0.0)]
    now = 0.0
    for _ in range(3):
        now = core.due
        drive(core, now, "failed")
        waits.append(core.retry_after(now))
    assert waits == [1.0, 2.0, 4.0, 5.0]
    drive(core, core.due, "ok")
    assert state_of(core) is CircuitState.CLOSED
    for _ in range(5):
        drive(core, 100.0, "failed")
    assert core.retry_after(100.0) == 1.0


def test_chance_shortens_the_open_time_by_no_more_than_its_share() -> None:
    jittered = Backoff(initial=10.0, maximum=10.0, jitter=0.2)
    chance = random.Random(1).random  # noqa: S311 - a fixed seed
    waits = []
    for _ in range(200):
        core = CircuitCore(
            CircuitPolicy(failure_threshold=1, reset_timeout=jittered), 0.0, chance
        )
        drive(core, 0.0, "failed")
        waits.append(core.due)
    assert 8.0 <= min(waits) < 8.2
    assert 9.8 < max(waits) <= 10.0


def test_a_half_open_circuit_that_cannot_decide_opens_again() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, probe_lease=10.0))
    core.admit(5.0)
    assert core.admit(24.9) != REJECTED
    assert core.admit(25.0) == REJECTED
    assert state_of(core) is CircuitState.OPEN
    assert core.moves[-1].reason == "undecided after 20 s"
    assert core.admit(26.0) != REJECTED


def test_waiting_for_a_first_probe_is_no_indecision() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0))
    core.look(1e6)
    assert state_of(core) is CircuitState.HALF_OPEN
    assert core.since == 1.0
    assert drive(core, 1e6, "ok")


def test_probes_that_are_let_go_for_ever_do_not_keep_it_half_open_for_ever() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0))
    for tenth in range(10, 30):
        assert drive(core, tenth / 10, "let go")
    assert not drive(core, 3.0, "let go")


def test_without_a_limit_it_may_stay_half_open() -> None:
    core = opened(CircuitPolicy(reset_timeout=1.0, half_open_timeout=math.inf))
    assert core.admit(1.0) != REJECTED
    core.look(1e9)
    assert state_of(core) is CircuitState.HALF_OPEN


def test_looking_late_is_as_good_as_looking_in_time() -> None:
    """What nobody called for an hour has been half open since its time was over."""
    early, late = (opened(CircuitPolicy(reset_timeout=4.0)) for _ in range(2))
    probe = early.admit(4.0), late.admit(4.0)
    for now in range(4, 1000):
        early.look(float(now))
    late.look(999.0)
    assert late.moves == early.moves
    assert [move.at for move in late.moves] == [0.0, 4.0, 12.0, 16.0]
    for core, permit in zip((early, late), probe, strict=True):
        core.fail(permit, 999.0)
        assert state_of(core) is CircuitState.HALF_OPEN


def test_a_restored_circuit_is_open_for_the_time_that_was_left() -> None:
    growing = Backoff(initial=1.0, factor=2.0, maximum=60.0, jitter=0.0)
    core = CircuitCore(CircuitPolicy(reset_timeout=growing), 100.0)
    core.restore(CircuitState.OPEN, 100.0, left=7.0, openings=4)
    assert not drive(core, 106.9, "ok")
    assert drive(core, 107.0, "failed")
    assert core.retry_after(107.0) == 16.0


@pytest.mark.parametrize("state", list(CircuitState))
def test_a_restored_circuit_is_what_it_was(state: CircuitState) -> None:
    core = CircuitCore(CircuitPolicy(), 0.0)
    core.restore(state, 0.0, left=0.0, openings=1)
    core.look(0.0)
    now = CircuitState.HALF_OPEN if state is CircuitState.OPEN else state
    assert core.state is now


# --- many rounds --------------------------------------------------------------------------


def test_of_a_thousand_callers_exactly_the_allowed_probes_go_in_a_thousand_rounds() -> (
    None
):
    """Whatever becomes of the probes of each round."""
    chance = random.Random(5)  # noqa: S311 - a fixed seed
    for _ in range(1000):
        allowed = chance.randint(1, 5)
        core = opened(CircuitPolicy(half_open_calls=allowed))
        permits = [core.admit(30.0) for _ in range(1000)]
        probes = [permit for permit in permits if permit != REJECTED]
        assert len(probes) == allowed == core.probes
        for probe in probes:
            end = chance.choice([core.let_go, None])
            if end is not None:
                end(probe)
        freed = allowed - core.probes
        again = [core.admit(30.0) for _ in range(10)]
        assert sum(permit != REJECTED for permit in again) == freed


def test_no_circuit_is_stuck_after_ten_thousand_rounds_of_lost_probes() -> None:
    """Cancelled, raised, or never heard of again: the next probe may go in time."""
    chance = random.Random(6)  # noqa: S311 - a fixed seed
    core = opened(CircuitPolicy(reset_timeout=1.0, half_open_calls=2))
    now = 0.0
    for _ in range(10_000):
        now += 5.0
        probe = core.admit(now)
        assert probe != REJECTED
        fate = chance.randrange(4)
        if fate == 0:
            core.let_go(probe)
        elif fate == 1:
            core.fail(probe, now)
        elif fate == 2:
            core.fail(probe, now + chance.uniform(0.0, 4.0))
    now += 5.0
    drive(core, now, "ok")
    assert state_of(core) is CircuitState.CLOSED


# --- the naive model ----------------------------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """A call under way in the model: which state let it through, and when."""

    era: int
    since: float
    real: int


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and when."""

    at: float
    failed: bool
    slow: bool


class Model:
    """A circuit that keeps everything and looks at all of it each time."""

    def __init__(self, policy: CircuitPolicy) -> None:
        self.policy = policy
        self.era = self.openings = self.well = 0
        self.outcomes: list[Outcome] = []
        self.first_probe = math.inf
        self.state = CircuitState.CLOSED
        self.since = 0.0

    def enter(self, state: CircuitState, now: float) -> None:
        self.state, self.since, self.well = state, now, 0
        self.first_probe = math.inf
        self.era += 1
        if state is CircuitState.OPEN:
            self.openings += 1
        elif state is not CircuitState.HALF_OPEN:
            self.openings = 0
        if state in (CircuitState.CLOSED, CircuitState.METRICS_ONLY):
            self.outcomes = []

    def look(self, now: float) -> None:
        over = self.since + self.policy.open_seconds(self.openings or 1, lambda: 0.0)
        if self.state is CircuitState.OPEN and now >= over:
            self.enter(CircuitState.HALF_OPEN, over)
        over = self.first_probe + self.policy.time_to_decide
        if self.state is CircuitState.HALF_OPEN and now >= over:
            self.enter(CircuitState.OPEN, over)
            self.look(now)

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
        goes = len(out) < self.policy.half_open_calls
        if goes:
            self.first_probe = min(self.first_probe, now)
        return goes

    def settle(self, ticket: Ticket, outcome: Outcome) -> None:
        if ticket.era != self.era:
            return
        if self.state is CircuitState.HALF_OPEN:
            bad = outcome.failed or outcome.slow
            self.well += not bad
            if bad:
                self.enter(CircuitState.OPEN, outcome.at)
            elif self.well == self.policy.success_threshold:
                self.enter(CircuitState.CLOSED, outcome.at)
        elif self.state in (CircuitState.CLOSED, CircuitState.METRICS_ONLY):
            self.outcomes.append(outcome)
            if self.state is CircuitState.CLOSED and self.is_bad(outcome.at):
                self.enter(CircuitState.OPEN, outcome.at)

    def window(self, now: float) -> list[Outcome]:
        if self.policy.window_seconds is None:
            return self.outcomes[-self.policy.window :]
        slot = self.policy.window_seconds / 10
        return [one for one in self.outcomes if one.at // slot > now // slot - 10]

    def is_bad(self, now: float) -> bool:
        policy, seen = self.policy, self.window(now)
        limit = policy.failure_threshold
        row = self.outcomes[-limit:] if limit is not None else []
        if limit is not None and len(row) == limit and all(one.failed for one in row):
            return True
        failed = sum(one.failed for one in seen)
        slow = sum(one.slow for one in seen)
        if len(seen) < policy.minimum_calls:
            return False
        rate = policy.failure_rate
        return bool(
            (rate is not None and failed and failed >= rate * len(seen))
            or (policy.slow_call and slow and slow >= policy.slow_rate * len(seen))
        )


policies = st.builds(
    CircuitPolicy,
    failure_threshold=st.integers(1, 4),
    window=st.integers(2, 6),
    window_seconds=st.none() | st.sampled_from([5.0, 20.0]),
    failure_rate=st.none() | st.sampled_from([0.25, 0.5, 1.0]),
    slow_call=st.none() | st.just(1.0),
    slow_rate=st.sampled_from([0.25, 0.75]),
    minimum_calls=st.integers(1, 2),
    reset_timeout=st.sampled_from([1.0, 4.0])
    | st.just(Backoff(initial=1.0, factor=2.0, maximum=8.0, jitter=0.0)),
    half_open_calls=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    probe_lease=st.none() | st.sampled_from([1.0, 2.0]),
    half_open_timeout=st.none() | st.sampled_from([1.5, 4.0, math.inf]),
)

ORDERS = {
    "trip": CircuitState.FORCED_OPEN,
    "reset": CircuitState.CLOSED,
    "disable": CircuitState.DISABLED,
    "observe": CircuitState.METRICS_ONLY,
}


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
        """Nobody looks meanwhile."""
        self.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        self.model.look(self.now)
        expected = self.model.admits(self.now, self.under_way)
        permit = self.core.admit(self.now)
        assert (permit != REJECTED) == expected
        if expected:
            self.under_way.append(Ticket(self.model.era, self.now, permit))
        else:
            self.rejected += 1

    @precondition(lambda self: self.under_way)
    @rule(
        data=st.data(),
        ended=st.sampled_from(["ok", "failed", "let go"]),
        slow=st.booleans(),
    )
    def a_call_ends(self, data: st.DataObject, ended: str, slow: bool) -> None:
        which = data.draw(st.integers(0, len(self.under_way) - 1))
        ticket = self.under_way.pop(which)
        if ended == "let go":
            self.core.let_go(ticket.real)
            return
        slow = slow and self.core.policy.slow_call is not None
        failed = ended == "failed"
        self.model.look(self.now)
        self.model.settle(ticket, Outcome(self.now, failed, slow))
        settle = self.core.fail if failed else self.core.succeed
        settle(ticket.real, self.now, slow=slow)

    @rule(order=st.sampled_from(sorted(ORDERS)))
    def an_operator_orders(self, order: str) -> None:
        getattr(self.core, order)(self.now, "op")
        self.model.look(self.now)
        state = ORDERS[order]
        if state is not self.model.state or order in ("reset", "observe"):
            self.model.enter(state, self.now)

    @rule()
    def both_agree(self) -> None:
        core, model = self.core, self.model
        core.look(self.now)
        model.look(self.now)
        core.window.pass_time(self.now)
        assert (core.state, core.openings) == (model.state, model.openings)
        if core.state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            assert core.since == model.since
        if core.state in (CircuitState.CLOSED, CircuitState.METRICS_ONLY):
            seen = model.window(self.now)
            assert core.window.calls == len(seen)
            assert core.window.failures == sum(one.failed for one in seen)
            assert core.window.slow == sum(one.slow for one in seen)
        assert core.in_flight == len(self.under_way)
        assert core.rejected == self.rejected

    def teardown(self) -> None:
        """Whatever happened, both agree in the end."""
        if hasattr(self, "core"):
            self.both_agree()


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(
    max_examples=max(500, settings().max_examples), stateful_step_count=30
)
