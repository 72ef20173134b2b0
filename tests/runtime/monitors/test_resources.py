from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from trio.testing import wait_all_tasks_blocked

from treewarden import Agent, ChildSpec, NameUnknown, NotRunning, OwnerScope
from treewarden.errors import ResourceExhausted
from treewarden.monitors import (
    GaugeUnknown,
    Pressure,
    PressureChange,
    Resources,
    Token,
    resident_bytes,
)
from treewarden.testing import crash

if TYPE_CHECKING:
    from trio.testing import MockClock

    from treewarden.resilience import ErrorKind

NORMAL, MODERATE, SEVERE = Pressure


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Resources with a clock of their own, and what they told."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.told: list[PressureChange | GaugeUnknown] = []
        self.resources = Resources(clock=self.clock, told=self.told.append, **options)
        self.table: list[int] = []

    def fill(self, entries: int) -> None:
        self.table[:] = range(entries)

    def states(self) -> list[Pressure]:
        return [one.new for one in self.told if isinstance(one, PressureChange)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- gauges -----------------------------------------------------------------------------------


def test_f64_a_table_that_is_nearly_full_is_severe_at_once_and_one_alert(
    bench: Bench,
) -> None:
    """F64, S33: and one more when it drops to 80 %."""
    bench.fill(96)
    bench.resources.gauge("entries", lambda: len(bench.table), limit=100)
    assert bench.resources.pressure is SEVERE
    assert bench.states() == [SEVERE]
    for _ in range(10):
        bench.resources.measure()
    bench.fill(80)
    bench.resources.measure()
    bench.resources.measure()
    assert bench.resources.pressure is NORMAL
    assert bench.states() == [SEVERE, NORMAL]


def test_f64_a_source_that_reports_is_judged_at_once(bench: Bench) -> None:
    """F64: nobody waits for the next round."""
    bench.resources.gauge("queue", limit=10)
    for value in (9.2, 9.6, 9.6, 1.0):
        bench.resources.report("queue", value)
    assert bench.states() == [MODERATE, SEVERE, NORMAL]
    with pytest.raises(NameUnknown):
        bench.resources.report("other", 1.0)


def test_f64_a_token_is_refused_by_a_reading_of_now_and_not_of_a_second_ago(
    bench: Bench,
) -> None:
    """F64, S33: measured at acquire when older than a second, and not more often."""
    reads = []

    def entries() -> int:
        reads.append(bench.clock.now)
        return len(bench.table)

    bench.resources.gauge("entries", entries, limit=100)
    with OwnerScope() as me:
        bench.resources.acquire("row", owner=me)
        bench.fill(100)
        bench.clock.now = 0.9
        bench.resources.acquire("row", owner=me)
        bench.clock.now = 2.0
        with pytest.raises(ResourceExhausted, match="entries is 100 of 100") as caught:
            bench.resources.acquire("row", owner=me)
        bench.fill(50)
        with pytest.raises(ResourceExhausted):
            bench.resources.acquire("row", owner=me)
        bench.clock.now = 3.1
        bench.resources.acquire("row", owner=me)
    assert caught.value.resource == "entries"
    assert reads == [0.0, 0.0, 2.0, 3.1]
    assert bench.resources.statistics().denied == 2


def test_h32_a_gauge_that_cannot_be_read_is_unknown_and_said_once(bench: Bench) -> None:
    """H32: neither zero nor full; its last verdict stays until it is read again."""
    answers: list[Any] = [96, OSError("gone"), math.nan, 96, 10]

    def gauge() -> float:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return float(answer)

    bench.resources.gauge("entries", gauge, limit=100)
    for _ in range(2):
        bench.resources.measure()
        (seen,) = bench.resources.statistics().gauges
        assert (seen.value, seen.share, seen.pressure) == (None, None, SEVERE)
    assert (seen.failures, seen.error) == (2, "it read NaN")
    bench.resources.measure()
    bench.resources.measure()
    unknown = [one.error for one in bench.told if isinstance(one, GaugeUnknown)]
    assert unknown == ["OSError: gone", ""]
    assert bench.states() == [SEVERE, NORMAL]


def test_a_gauge_that_does_not_guard_refuses_nobody(bench: Bench) -> None:
    bench.resources.gauge("disk", lambda: 99, limit=100, guards=False)
    with OwnerScope() as me:
        bench.resources.acquire("row", owner=me)
    assert bench.states() == [SEVERE]
    assert bench.resources.pressure is NORMAL


def test_another_limit_judges_what_was_read_anew(bench: Bench) -> None:
    bench.resources.gauge("entries", lambda: 96, limit=100)
    bench.resources.limit("entries", 1000)
    assert bench.states() == [SEVERE, NORMAL]
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="a number above 0"):
            bench.resources.limit("entries", wrong)


def test_a_gauge_that_is_forgotten_takes_its_trouble_along(bench: Bench) -> None:
    with OwnerScope() as me:
        bench.resources.gauge("entries", lambda: 96, limit=100, owner=me)
        bench.resources.gauge("broken", lambda: 1 // 0, limit=100, owner=me)
        bench.resources.gauge("entries", lambda: 97, limit=100, owner=me)
    assert bench.states() == [SEVERE, NORMAL, SEVERE, NORMAL]
    assert bench.resources.statistics().gauges == ()
    unknown = [one.error for one in bench.told if isinstance(one, GaugeUnknown)]
    assert [bool(error) for error in unknown] == [True, False]


def test_resident_memory_is_a_plausible_number_of_bytes() -> None:
    assert 10 * 1024**2 < resident_bytes() < 64 * 1024**3


# --- tokens -----------------------------------------------------------------------------------


def test_h30_ten_thousand_tokens_taken_and_given_back_leave_none(bench: Bench) -> None:
    """H30: active_tokens is 0, and nobody is watched any more."""
    with OwnerScope() as me:
        for number in range(10_000):
            token = bench.resources.acquire(f"kind {number % 7}", owner=me)
            assert token.release()
            assert not token.release()
        assert me.watchers == []
    seen = bench.resources.statistics()
    assert (seen.held, seen.held_by_kind, seen.owners) == (0, {}, 0)
    assert (seen.acquired, seen.released, seen.ended) == (10_000, 10_000, 0)


def test_h30_tokens_end_with_their_owner_and_are_not_given_back_twice(
    bench: Bench,
) -> None:
    """H30, S33: tied to an owner."""
    with OwnerScope() as me, OwnerScope() as other:
        mine = [bench.resources.acquire("a", owner=me) for _ in range(3)]
        theirs = bench.resources.acquire("a", owner=other)
        me.__exit__(None, None, None)
        assert [token.release() for token in mine] == [False] * 3
        assert bench.resources.statistics().held_by_kind == {"a": 1}
        assert theirs.release()
        with pytest.raises(NotRunning, match="has ended"):
            bench.resources.acquire("a", owner=me)
    assert bench.resources.statistics().ended == 3


def test_a_plain_task_owns_nothing_by_itself(bench: Bench) -> None:
    with pytest.raises(NotRunning, match="owns nothing"):
        bench.resources.acquire("a")


def test_a_quota_and_the_capacity_are_bounds(bench: Bench) -> None:
    bench = Bench(capacity=3)
    bench.resources.quota("a", 2)
    with OwnerScope() as me:
        with bench.resources.acquire("a", owner=me):
            bench.resources.acquire("a", owner=me)
            with pytest.raises(ResourceExhausted, match="quota of a is 2 of 2"):
                bench.resources.acquire("a", owner=me)
        bench.resources.quota("a", None)
        for _ in range(2):
            bench.resources.acquire("a", owner=me)
        with pytest.raises(ResourceExhausted, match="tokens is 3 of 3"):
            bench.resources.acquire("b", owner=me)
    with pytest.raises(ValueError, match="must be >= 0"):
        bench.resources.quota("a", -1)


def test_what_is_exhausted_is_an_error_of_resources() -> None:
    """S27: so that policies break the circuit, and callers may come again."""
    from treewarden.resilience import DEFAULT_KINDS

    kind: ErrorKind = DEFAULT_KINDS.of(ResourceExhausted("a", "memory", 1.0, 1.0))
    assert kind == "resource"


class Holder(Agent[None]):
    persistence = "none"

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    async def on_start(self) -> None:
        self.resources.acquire("seat")

    async def hold(self) -> None:
        self.resources.acquire("seat")


async def test_h30_an_agent_holds_its_tokens_as_long_as_its_incarnation_lives(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    """H30: released at a crash, at a stop and at the end of the tree."""
    resources = ward.monitors.resources
    from treewarden import AgentRef

    await ward.root.start_child(ChildSpec("holder", Holder, args=(resources,)))
    ref: AgentRef[Holder] = AgentRef(ward.directory, "/holder")
    await ref.call(Holder.hold)
    assert resources.statistics().held == 2
    await crash(ref)
    await wait_all_tasks_blocked()
    assert resources.statistics().held == 1
    await ward.root.terminate_child("holder")
    seen = resources.statistics()
    assert (seen.held, seen.owners, seen.ended) == (0, 0, 3)


class TokenModel(RuleBasedStateMachine):
    """Tokens against a list of who holds what."""

    @initialize()
    def begin(self) -> None:
        self.bench = Bench(capacity=6)
        self.bench.resources.gauge("gauge", limit=100)
        self.owners = [OwnerScope() for _ in range(3)]
        self.held: list[tuple[OwnerScope, str, Token]] = []
        self.old: list[Token] = []
        self.quota = math.inf
        self.severe = False
        self.acquired = self.denied = 0

    @rule(who=st.integers(0, 2), kind=st.sampled_from("ab"))
    def acquire(self, who: int, kind: str) -> None:
        of_kind = sum(one[1] == kind for one in self.held)
        full = len(self.held) >= 6 or (kind == "a" and of_kind >= self.quota)
        try:
            token = self.bench.resources.acquire(kind, owner=self.owners[who])
        except ResourceExhausted:
            self.denied += 1
            assert self.severe or full
        else:
            self.acquired += 1
            assert not self.severe
            assert not full
            self.held.append((self.owners[who], kind, token))

    @rule(which=st.integers(0, 5))
    def release(self, which: int) -> None:
        if self.held:
            token = self.held.pop(which % len(self.held))[2]
            assert token.release()
            self.old.append(token)

    @rule()
    def release_again(self) -> None:
        assert not any(token.release() for token in self.old)

    @rule(who=st.integers(0, 2))
    def end(self, who: int) -> None:
        ended = self.owners[who]
        ended.__exit__(None, None, None)
        self.old += [one[2] for one in self.held if one[0] is ended]
        self.held = [one for one in self.held if one[0] is not ended]
        self.owners[who] = OwnerScope()

    @rule(most=st.sampled_from([None, 0, 1, 2]))
    def set_quota(self, most: int | None) -> None:
        self.bench.resources.quota("a", most)
        self.quota = math.inf if most is None else most

    @rule(severe=st.booleans())
    def press(self, severe: bool) -> None:
        self.bench.resources.report("gauge", 99.0 if severe else 1.0)
        self.severe = severe

    @invariant()
    def agrees(self) -> None:
        seen = self.bench.resources.statistics()
        assert seen.held == len(self.held)
        assert seen.owners == len({id(one[0]) for one in self.held})
        assert seen.acquired == self.acquired == seen.released + seen.held
        assert seen.denied == self.denied


TestTokens = TokenModel.TestCase


@pytest.mark.parametrize("most", [math.nan, 1.5, True])
def test_a_quota_that_is_no_bound_is_refused(bench: Bench, most: float) -> None:
    with pytest.raises(TypeError, match=f"a quota must be an int, not {most}"):
        bench.resources.quota("render", most)  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("last", [99.0, math.nan])
def test_a_gauge_that_is_forgotten_while_it_is_read_troubles_nobody(
    bench: Bench, last: float
) -> None:
    """Nobody would ever be told that it is over."""
    values = iter([0.0, last])

    def measure() -> float:
        value = next(values)
        if value:
            bench.resources.forget("table")
        return value

    bench.resources.gauge("table", measure, limit=100)
    bench.resources.measure()
    assert bench.told == []
