"""A circuit around calls in their callers' tasks."""

from __future__ import annotations

import os
import tracemalloc
from typing import NoReturn

import pytest
import trio
import trio.testing

from treewarden.errors import CircuitOpen
from treewarden.resilience import (
    Circuit,
    CircuitPolicy,
    Circuits,
    CircuitState,
    Transition,
)

# The rules alone run a thousand races each time, in test_circuit_core.py.
RACES = 1000 if "SOAK" in os.environ else 3


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


async def test_a_call_returns_what_its_function_returns() -> None:
    async def add(left: int, right: int) -> int:
        return left + right

    assert await Circuits().circuit("sums").call(add, 2, 3) == 5


async def test_an_open_circuit_rejects_and_says_when_to_come_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = Circuits().circuit("site", CircuitPolicy(reset_timeout=30.0))
    await fail(circuit, 5)
    await trio.sleep(10)
    with pytest.raises(CircuitOpen) as caught:
        await circuit.call(well)
    assert caught.value.retry_after == pytest.approx(20)
    assert str(caught.value) == "circuit site is open; try again in 20.0 s"


async def test_it_heals_after_the_reset_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = Circuits().circuit("site")
    await fail(circuit, 5)
    await trio.sleep(30)
    assert state_of(circuit) is CircuitState.HALF_OPEN
    assert await circuit.call(well) == 1
    assert state_of(circuit) is CircuitState.CLOSED


async def test_of_a_thousand_racing_callers_exactly_the_allowed_probes_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = CircuitPolicy(half_open_calls=3, success_threshold=3, reset_timeout=1.0)
    circuit = Circuits().circuit("site", policy)
    went = rejected = 0

    async def probe() -> None:
        nonlocal went, rejected
        try:
            await circuit.call(trio.sleep, 0.5)
            went += 1
        except CircuitOpen:
            rejected += 1

    for number in range(1, RACES + 1):
        await fail(circuit, 5)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(probe)
        assert (went, rejected) == (3 * number, 997 * number)
        assert state_of(circuit) is CircuitState.CLOSED


async def test_calls_that_their_callers_cancelled_count_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = CircuitPolicy(failure_threshold=1, counts_as_failure=lambda error: True)
    circuit = Circuits().circuit("slow", policy)
    for _ in range(100):
        with trio.move_on_after(0.1):
            await circuit.call(trio.sleep_forever)
    statistics = circuit.statistics()
    assert statistics.state is CircuitState.CLOSED
    assert (statistics.failed, statistics.not_counted) == (0, 100)


async def test_a_cancelled_group_counts_for_nothing_and_a_failing_one_counts() -> None:
    circuit = Circuits().circuit("fan-out")

    async def fan_out(error: Exception | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            if error is not None:
                raise error
            await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await circuit.call(fan_out, None)
    assert circuit.statistics().not_counted == 1
    with pytest.raises(ExceptionGroup):
        await circuit.call(fan_out, ValueError("bad"))
    assert circuit.statistics().failed == 1


async def test_a_deadline_inside_the_call_is_a_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = Circuits().circuit("slow")

    async def bounded() -> None:
        with trio.fail_after(1):
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        await circuit.call(bounded)
    assert circuit.statistics().failed == 1


async def test_a_cancelled_probe_returns_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = Circuits().circuit("site", CircuitPolicy(reset_timeout=1.0))
    await fail(circuit, 5)
    await trio.sleep(1)
    for _ in range(100):
        with trio.move_on_after(0.001):
            await circuit.call(trio.sleep_forever)
    assert state_of(circuit) is CircuitState.HALF_OPEN
    assert await circuit.call(well) == 1
    assert state_of(circuit) is CircuitState.CLOSED


async def test_a_probe_that_never_ends_does_not_stick_the_circuit(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    circuit = Circuits().circuit("site", CircuitPolicy(reset_timeout=1.0))
    await fail(circuit, 5)
    await trio.sleep(1)
    nursery.start_soon(circuit.call, trio.sleep_forever)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(CircuitOpen, match=r"half_open; try again in 1\.0 s"):
        await circuit.call(well)
    await trio.sleep(1)
    assert await circuit.call(well) == 1
    assert state_of(circuit) is CircuitState.CLOSED
    nursery.cancel_scope.cancel()


async def test_a_predicate_that_fails_does_not_keep_a_probes_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def judge(error: BaseException) -> bool:
        if error.args == ("odd",):
            raise RuntimeError("a bug in the predicate")
        return True

    policy = CircuitPolicy(counts_as_failure=judge, reset_timeout=1.0)
    circuit = Circuits().circuit("site", policy)
    await fail(circuit, 5)
    await trio.sleep(1)

    async def unexpected() -> NoReturn:
        raise KeyError("odd")

    with pytest.raises(RuntimeError, match="a bug in the predicate"):
        await circuit.call(unexpected)
    assert await circuit.call(well) == 1


async def test_what_the_policy_does_not_count_is_no_failure_and_no_sign_of_health(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = CircuitPolicy(
        counts_as_failure=lambda error: not isinstance(error, ValueError),
        reset_timeout=1.0,
    )
    circuit = Circuits().circuit("site", policy)
    await fail(circuit, 5)
    await trio.sleep(1)
    with pytest.raises(ValueError, match="yours"), circuit.guard():
        raise ValueError("yours")
    assert state_of(circuit) is CircuitState.HALF_OPEN
    assert circuit.statistics().not_counted == 1


async def test_a_function_may_call_its_own_circuit() -> None:
    circuit = Circuits().circuit("site")

    async def outer() -> int:
        return await circuit.call(well)

    assert await circuit.call(outer) == 1
    assert circuit.statistics().succeeded == 2


async def test_a_guard_rejects_at_entry_and_takes_one_permit_an_entry() -> None:
    circuit = Circuits().circuit("site")
    with circuit.guard():
        assert circuit.statistics().in_flight == 1
    circuit.trip("me")
    entered = False
    rejected = pytest.raises(CircuitOpen, match="until an operator resets it")
    with rejected, circuit.guard():
        entered = True
    assert not entered
    statistics = circuit.statistics()
    assert (statistics.succeeded, statistics.in_flight) == (1, 0)
    assert statistics.rejected == 1


async def test_a_guard_is_for_one_entry() -> None:
    guard = Circuits().circuit("site").guard()
    with guard:
        pass
    with pytest.raises(RuntimeError, match="one entry"), guard:
        pass


async def test_an_operator_trips_at_once_while_a_thousand_calls_are_under_way(
    nursery: trio.Nursery,
) -> None:
    circuit = Circuits().circuit("site")
    for _ in range(1000):
        nursery.start_soon(circuit.call, trio.sleep_forever)
    await trio.testing.wait_all_tasks_blocked()
    circuit.trip("ada")
    assert circuit.statistics().in_flight == 1000
    with pytest.raises(CircuitOpen):
        await circuit.call(well)
    nursery.cancel_scope.cancel()


async def test_every_transition_is_told_once_with_reason_window_and_who(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[Transition] = []
    circuits = Circuits(on_transition=told.append)
    circuit = circuits.circuit("site")
    await fail(circuit, 5)
    await trio.sleep(30)
    await circuit.call(well)
    circuit.trip("ada")
    circuit.reset("ada")
    circuit.reset("ada")
    assert [(one.old.value, one.new.value, one.reason, one.by) for one in told] == [
        ("closed", "open", "5 failures in a row", ""),
        ("open", "half_open", "30 s are over", ""),
        ("half_open", "closed", "a probe succeeded", ""),
        ("closed", "forced_open", "tripped", "ada"),
        ("forced_open", "closed", "reset", "ada"),
    ]
    assert (told[0].name, told[0].window_calls, told[0].window_failures) == (
        "site",
        5,
        5,
    )
    assert all(one.at_ns > 0 for one in told)


async def test_a_listener_that_raises_fails_no_call_and_is_counted() -> None:
    def broken(transition: Transition) -> None:
        raise RuntimeError(transition.name)

    circuit = Circuits(on_transition=broken).circuit("site")
    await fail(circuit, 5)
    assert circuit.statistics().listener_failures == 1
    assert state_of(circuit) is CircuitState.OPEN


async def test_a_listener_may_operate_the_circuit_it_hears_of() -> None:
    told: list[CircuitState] = []

    def reset_at_once(transition: Transition) -> None:
        told.append(transition.new)
        if transition.new is CircuitState.OPEN:
            circuit.reset("listener")

    circuit = Circuits(on_transition=reset_at_once).circuit("site")
    await fail(circuit, 5)
    assert told == [CircuitState.OPEN, CircuitState.CLOSED]
    assert await circuit.call(well) == 1


async def test_statistics_add_up_and_name_the_last_error() -> None:
    circuit = Circuits().circuit("site")
    await circuit.call(well)
    await fail(circuit, 2)
    statistics = circuit.statistics()
    assert statistics.last_error == "ConnectionError: refused"
    assert statistics.threshold == "5 in a row"
    assert (statistics.window_calls, statistics.window_failures) == (3, 2)
    assert statistics.calls == statistics.succeeded + statistics.failed == 3


async def test_an_error_whose_text_fails_is_still_the_callers_own() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def mute() -> NoReturn:
        raise Mute

    circuit = Circuits().circuit("site")
    with pytest.raises(Mute):
        await circuit.call(mute)
    assert circuit.statistics().last_error == "Mute (its text failed)"


async def test_the_version_changes_with_anything_that_is_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuits = Circuits()
    seen = {circuits.version}
    circuit = circuits.circuit("site", CircuitPolicy(failure_threshold=1))
    seen.add(circuits.version)
    await circuit.call(well)
    seen.add(circuits.version)
    await fail(circuit, 1)
    seen.add(circuits.version)
    await trio.sleep(30)
    seen.add(circuits.version)
    circuit.trip("me")
    seen.add(circuits.version)
    with pytest.raises(CircuitOpen):
        await circuit.call(well)
    seen.add(circuits.version)
    assert len(seen) == 7
    assert circuits.version in seen


async def test_rejections_in_a_loop_give_way_and_obey_cancellation(
    nursery: trio.Nursery,
) -> None:
    circuit = Circuits().circuit("site")
    circuit.trip()
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    nursery.start_soon(other)
    for _ in range(32):
        with pytest.raises(CircuitOpen):
            await circuit.call(well)
    # The other task is in the same pass; one more pass and it has surely run.
    for _ in range(32):
        with pytest.raises(CircuitOpen):
            await circuit.call(well)
    assert ran
    with trio.CancelScope() as scope:
        scope.cancel()
        await circuit.call(well)
    assert scope.cancelled_caught


async def test_a_million_rejections_grow_memory_by_less_than_a_mebibyte() -> None:
    circuit = Circuits().circuit("site")
    circuit.trip()

    def reject(times: int) -> None:
        for _ in range(times):
            try:
                with circuit.guard():
                    raise AssertionError
            except CircuitOpen:
                pass

    reject(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        # Whatever grows with rejections shows in these; the rest of the million runs
        # untraced, where it is ten times faster.
        reject(100_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) * 10 < 1 << 20
    reject(900_000)
    assert circuit.statistics().rejected == 1_001_000
