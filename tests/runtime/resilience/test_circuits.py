"""Circuits by name, what they tell, and what outlives whom."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
import trio.testing

from treewarden.errors import CircuitOpen
from treewarden.resilience import (
    Backoff,
    Circuit,
    CircuitPolicy,
    Circuits,
    CircuitState,
    TransitionFeed,
    circuit,
    circuits,
)

if TYPE_CHECKING:
    from collections.abc import Callable


async def well() -> int:
    return 1


async def boom() -> NoReturn:
    raise ConnectionError("refused")


async def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await circuit.call(boom)


def state_of(circuit: Circuit) -> CircuitState:
    """Read anew each time: mypy takes a property's narrowed type for its last one."""
    return circuit.state


class Kept:
    """A `PolicyMemory` that is a dict."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def kept(self, name: str) -> bytes | None:
        return self.states.get(name)

    def keep(self, name: str, state: bytes | None) -> None:
        if state is None:
            self.states.pop(name, None)
        else:
            self.states[name] = state


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock, in seconds."""

    def step(seconds: float) -> None:
        monkeypatch.setattr(circuit, "wall_ns", lambda: round(seconds * 1e9))

    step(1e9)
    return step


# --- names ---------------------------------------------------------------------------------


async def test_the_first_declaration_of_a_name_wins_and_a_different_one_is_refused() -> (
    None
):
    known = Circuits()
    first = known.circuit("site", CircuitPolicy(failure_threshold=2))
    assert known.circuit("site") is first
    assert known.circuit("site", CircuitPolicy(failure_threshold=2)) is first
    for other in (
        CircuitPolicy(failure_threshold=3),
        CircuitPolicy(failure_threshold=2, persist=True),
        CircuitPolicy(failure_threshold=2, reset_timeout=Backoff()),
    ):
        with pytest.raises(ValueError, match="exists with another policy"):
            known.circuit("site", other)
    assert known.circuit("site").policy == CircuitPolicy(failure_threshold=2)


async def test_circuits_are_listed_and_found_by_name() -> None:
    known = Circuits()
    for name in ("c", "a", "b"):
        known.circuit(name)
    assert [one.name for one in known.list()] == ["a", "b", "c"]
    assert [one.name for one in known.statistics()] == ["a", "b", "c"]
    assert known.get("a") is known.circuit("a")
    assert known.get("nobody") is None
    with pytest.raises(ValueError, match="needs a name"):
        known.circuit("")


async def test_names_made_from_data_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuits, "LIMIT", 3)
    known = Circuits()
    for number in range(3):
        known.circuit(f"host-{number}")
    with pytest.raises(ValueError, match="'host-3' is one too many"):
        known.circuit("host-3")
    assert known.circuit("host-1").name == "host-1"


async def test_a_removed_circuit_makes_room_and_is_kept_no_longer() -> None:
    memory = Kept()
    known = Circuits(memory=memory)
    site = known.circuit("site", CircuitPolicy(persist=True))
    site.trip()
    before = known.version
    assert known.remove("site")
    assert not known.remove("site")
    assert known.version > before
    assert (known.get("site"), memory.states) == (None, {})
    assert (
        known.circuit("site", CircuitPolicy(failure_threshold=9)).policy != site.policy
    )


# --- tasks and threads -----------------------------------------------------------------------


async def test_f56_failures_from_many_tasks_in_many_threads_are_all_counted() -> None:
    """F56: fifty tasks in four threads, first use at once, ten thousand failures."""
    known = Circuits()
    start = threading.Barrier(4)
    policy = CircuitPolicy(failure_threshold=20_000, window=20_000)

    async def two_hundred() -> None:
        for _ in range(200):
            with pytest.raises(ConnectionError):
                await known.circuit("site", policy).call(boom)
            await trio.lowlevel.checkpoint()

    async def several(tasks: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(two_hundred)

    def worker(tasks: int) -> None:
        start.wait()
        trio.from_thread.run(several, tasks)

    async with trio.open_nursery() as nursery:
        for tasks in (12, 12, 13, 13):
            nursery.start_soon(trio.to_thread.run_sync, worker, tasks)
    statistics = known.circuit("site").statistics()
    assert statistics.failed == statistics.window_failures == 10_000


async def test_f56_a_guard_is_refused_outside_trios_thread_and_counts_nothing() -> None:
    """F56: what no lock protects is not touched from elsewhere."""
    circuit = Circuits().circuit("site")

    def enter() -> None:
        with circuit.guard():
            raise AssertionError

    with pytest.raises(RuntimeError, match="belongs to trio's thread"):
        await trio.to_thread.run_sync(enter)
    assert circuit.statistics().calls == 0


async def test_h16_what_a_circuit_knows_outlives_the_task_that_made_it() -> None:
    """H16, F56: the circuit belongs to the runtime, not to who first used it."""
    known = Circuits()

    async def creator() -> None:
        await fail(known.circuit("site"), 5)
        raise RuntimeError("and dies")

    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(creator)
    with pytest.raises(CircuitOpen):
        await known.circuit("site").call(well)


# --- listeners -------------------------------------------------------------------------------


async def test_a_listener_hears_every_transition_from_then_on() -> None:
    known = Circuits()
    site = known.circuit("site")
    site.trip()
    with known.listen() as transitions:
        site.reset("ada")
        await fail(site, 5)
        heard = [await anext(transitions) for _ in range(2)]
        assert [(one.new.value, one.by) for one in heard] == [
            ("closed", "ada"),
            ("open", ""),
        ]
    site.trip()
    assert transitions.statistics().waiting == 0


async def test_a_listener_that_does_not_listen_delays_nobody_and_keeps_the_newest() -> (
    None
):
    known = Circuits()
    site = known.circuit("site")
    with known.listen(capacity=10) as transitions:
        for _ in range(500):
            site.trip()
            site.reset()
        site.trip("the last")
        assert transitions.lost == 991
        heard = [await anext(transitions) for _ in range(10)]
    assert heard[-1].by == "the last"
    told = transitions.statistics()
    assert (told.received, told.taken, told.lost, told.waiting) == (1001, 10, 991, 0)


async def test_a_listener_waits_for_news_and_loses_none_when_it_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    known = Circuits()
    site = known.circuit("site")
    with known.listen() as transitions:
        with trio.move_on_after(1) as scope:
            await anext(transitions)
        assert scope.cancelled_caught
        site.trip()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(transitions)
        assert scope.cancelled_caught
        assert (await anext(transitions)).new is CircuitState.FORCED_OPEN


async def test_a_feed_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1, not 0"):
        TransitionFeed(0)


# --- clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_wall_clock_that_is_set_moves_no_transition(
    step: float,
    wall: Callable[[float], None],
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Circuits().circuit("site")
    await fail(site, 5)
    await trio.sleep(10)
    wall(1e9 + step)
    await trio.sleep(19.995)
    assert state_of(site) is CircuitState.OPEN
    await trio.sleep(0.005)
    assert state_of(site) is CircuitState.HALF_OPEN


async def test_a_transition_tells_when_it_happened_not_when_somebody_looked(
    wall: Callable[[float], None], autojump_clock: trio.testing.MockClock
) -> None:
    known = Circuits()
    site = known.circuit("site")
    await fail(site, 5)
    await trio.sleep(100)
    wall(1e9 + 100)
    with known.listen() as transitions:
        assert state_of(site) is CircuitState.HALF_OPEN
        assert (await anext(transitions)).at_ns == round((1e9 + 30) * 1e9)


# --- what outlives the process ---------------------------------------------------------------


PERSISTENT = CircuitPolicy(
    persist=True,
    reset_timeout=Backoff(initial=30.0, factor=2.0, maximum=120.0, jitter=0.0),
)


@pytest.mark.parametrize(
    ("passed", "left"),
    [(0.0, 30.0), (12.0, 18.0), (1000.0, 0.0), (-3600.0, 30.0)],
)
async def test_an_open_circuit_stays_open_for_the_time_that_was_left(
    passed: float,
    left: float,
    wall: Callable[[float], None],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever was done to the wall clock between the two processes."""
    memory = Kept()
    await fail(Circuits(memory=memory).circuit("site", PERSISTENT), 5)
    wall(1e9 + passed)
    again = Circuits(memory=memory).circuit("site", PERSISTENT)
    assert again.statistics().retry_after == pytest.approx(left)
    await trio.sleep(left)
    assert state_of(again) is CircuitState.HALF_OPEN


async def test_the_growth_of_the_open_time_goes_on_in_the_next_process(
    wall: Callable[[float], None], autojump_clock: trio.testing.MockClock
) -> None:
    memory = Kept()
    first = Circuits(memory=memory).circuit("site", PERSISTENT)
    await fail(first, 5)
    await trio.sleep(30)
    await fail(first, 1)
    assert first.statistics().retry_after == 60.0
    again = Circuits(memory=memory).circuit("site", PERSISTENT)
    await trio.sleep(60)
    await fail(again, 1)
    assert again.statistics().retry_after == 120.0


@pytest.mark.parametrize("order", ["trip", "disable", "observe"])
async def test_an_operators_order_stands_in_the_next_process(order: str) -> None:
    memory = Kept()
    first = Circuits(memory=memory).circuit("site", PERSISTENT)
    getattr(first, order)("ada")
    again = Circuits(memory=memory).circuit("site", PERSISTENT)
    assert again.state is first.state is not CircuitState.CLOSED


async def test_a_circuit_that_closed_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    memory = Kept()
    site = Circuits(memory=memory).circuit("site", PERSISTENT)
    await fail(site, 5)
    assert list(memory.states) == ["site"]
    await trio.sleep(30)
    await site.call(well)
    assert memory.states == {}


async def test_only_a_circuit_that_persists_is_kept() -> None:
    memory = Kept()
    site = Circuits(memory=memory).circuit("site")
    site.trip()
    assert memory.states == {}


@pytest.mark.parametrize("text", [b"", b"{}", b'{"state":"ajar"}', b"[1]"])
async def test_what_no_version_of_ours_wrote_is_worth_nothing(text: bytes) -> None:
    memory = Kept()
    memory.states["site"] = text
    site = Circuits(memory=memory).circuit("site", PERSISTENT)
    assert state_of(site) is CircuitState.CLOSED


@pytest.mark.parametrize("openings", [-5, 0, 10**18])
@pytest.mark.parametrize("seconds", [-7.0, 1e300])
async def test_numbers_that_nobody_can_have_kept_make_no_harm(
    openings: int, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Open for ever, or no circuit at all, would be worse than a closed one."""
    memory = Kept()
    memory.states["site"] = (
        f'{{"state":"open","until_ns":{10**30},"seconds":{seconds},"openings":{openings}}}'
    ).encode()
    site = Circuits(memory=memory).circuit("site", PERSISTENT)
    assert 0.0 <= (site.statistics().retry_after or 0.0) <= 120.0
    await trio.sleep(120)
    assert await site.call(well) == 1
    assert state_of(site) is CircuitState.CLOSED


async def test_a_shorter_open_time_counts_for_what_an_earlier_run_left_open() -> None:
    """Who made it shorter did so because it was too long."""
    memory = Kept()
    patient = CircuitPolicy(persist=True, reset_timeout=3600.0)
    await fail(Circuits(memory=memory).circuit("site", patient), 5)
    brisk = CircuitPolicy(persist=True, reset_timeout=5.0)
    again = Circuits(memory=memory).circuit("site", brisk)
    assert again.statistics().retry_after == pytest.approx(5.0, abs=0.1)


async def test_a_removed_circuit_that_somebody_holds_leaves_nothing_to_the_next() -> (
    None
):
    memory = Kept()
    known = Circuits(memory=memory)
    held = known.circuit("site", PERSISTENT)
    known.remove("site")
    await fail(held, 5)
    assert memory.states == {}
    assert state_of(known.circuit("site", PERSISTENT)) is CircuitState.CLOSED
