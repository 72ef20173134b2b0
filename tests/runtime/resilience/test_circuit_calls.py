"""How a call through a circuit may end, and what each end counts for."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
import trio.testing

from treewarden.errors import BulkheadFull, CircuitOpen, RateLimited, TimedOut
from treewarden.resilience import Circuit, CircuitPolicy, Circuits, CircuitState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def well() -> int:
    return 1


async def boom(error: Exception | None = None) -> NoReturn:
    raise error or ConnectionError("refused")


def state_of(circuit: Circuit) -> CircuitState:
    """Read anew each time: mypy takes a property's narrowed type for its last one."""
    return circuit.state


async def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await circuit.call(boom)


def is_negative(result: object) -> bool:
    return isinstance(result, int) and result < 0


def is_none(result: object) -> bool:
    return result is None


async def echo(result: object) -> object:
    return result


def made(**settings: object) -> Circuit:
    return Circuits().circuit("site", CircuitPolicy(**settings))  # type: ignore[arg-type]


# --- what came back ------------------------------------------------------------------------


async def test_results_are_judged_and_given_to_the_caller_all_the_same() -> None:
    circuit = made(
        failure_threshold=2, result_is_failure=is_negative, result_is_ignored=is_none
    )
    for result in (-1, None, 1, -1, -2):
        assert await circuit.call(echo, result) == result
    statistics = circuit.statistics()
    assert (statistics.failed, statistics.not_counted, statistics.succeeded) == (
        3,
        1,
        1,
    )
    assert statistics.last_error == "returned -2"
    assert statistics.state is CircuitState.OPEN


async def test_a_block_gives_its_result_to_be_judged_and_that_is_final() -> None:
    circuit = made(failure_threshold=1, result_is_failure=is_negative)
    with pytest.raises(ZeroDivisionError), circuit.guard() as guard:
        guard.judge(1)
        _ = 1 / 0
    assert circuit.statistics().succeeded == 1
    with circuit.guard() as guard:
        guard.judge(-1)
    assert circuit.statistics().failed == 1
    assert state_of(circuit) is CircuitState.OPEN


async def test_a_predicate_of_results_that_fails_keeps_no_place_and_counts_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def broken(result: object) -> bool:
        raise RuntimeError("a bug in the predicate")

    circuit = made(result_is_failure=broken, reset_timeout=1.0)
    await fail(circuit, 5)
    await trio.sleep(1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a bug in the predicate"):
            await circuit.call(well)
    assert circuit.statistics().not_counted == 3
    assert state_of(circuit) is CircuitState.HALF_OPEN


async def test_an_exception_may_be_a_sign_of_health(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(
        counts_as_failure=lambda error: isinstance(error, ConnectionError),
        counts_as_success=lambda error: isinstance(error, LookupError),
        reset_timeout=1.0,
    )
    await fail(circuit, 5)
    await trio.sleep(1)
    with pytest.raises(LookupError):
        await circuit.call(boom, LookupError("no such page: it answers"))
    assert state_of(circuit) is CircuitState.CLOSED


# --- how long it took ----------------------------------------------------------------------


async def test_slow_calls_open_it_by_the_circuits_own_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(
        failure_threshold=None, slow_call=2.0, slow_rate=0.5, minimum_calls=4
    )
    for seconds in (0.0, 1.9, 2.0):
        await circuit.call(trio.sleep, seconds)
    assert state_of(circuit) is CircuitState.CLOSED
    with circuit.guard():
        await trio.sleep(3)
    assert state_of(circuit) is CircuitState.OPEN
    assert circuit.statistics().slow == 2


async def test_a_window_of_seconds_empties_with_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(window_seconds=10.0, failure_threshold=10)
    await fail(circuit, 3)
    assert circuit.statistics().window_failures == 3
    await trio.sleep(11)
    assert circuit.statistics().window_failures == 0


@pytest.mark.parametrize("enter", ["call", "guard"])
async def test_the_circuits_own_deadline_cancels_the_call_and_is_a_failure(
    enter: str, autojump_clock: trio.testing.MockClock
) -> None:
    circuit = made(failure_threshold=1, call_timeout=2.0, slow_call=1.0)

    async def guarded() -> None:
        with circuit.guard():
            await trio.sleep_forever()

    call: Callable[[], Awaitable[None]] = (
        guarded if enter == "guard" else partial(circuit.call, trio.sleep_forever)
    )
    with pytest.raises(TimedOut, match="circuit site took longer than 2 s"):
        await call()
    assert trio.current_time() == 2.0
    statistics = circuit.statistics()
    assert (statistics.failed, statistics.timed_out, statistics.slow) == (1, 1, 1)
    assert statistics.state is CircuitState.OPEN
    assert statistics.in_flight == 0


async def test_the_callers_deadline_within_the_circuits_own_counts_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(failure_threshold=1, call_timeout=2.0)
    with trio.move_on_after(1) as scope:
        await circuit.call(trio.sleep_forever)
    assert scope.cancelled_caught
    statistics = circuit.statistics()
    assert (statistics.failed, statistics.not_counted) == (0, 1)


async def test_when_both_deadlines_have_passed_it_is_the_callers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(failure_threshold=1, call_timeout=2.0)
    with trio.move_on_after(2) as scope:
        await circuit.call(trio.sleep_forever)
    assert scope.cancelled_caught
    assert circuit.statistics().not_counted == 1


async def test_what_failed_beside_the_cancelled_is_raised_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(call_timeout=2.0)

    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ConnectionError("while it was cancelled")

    async def fan_out() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(stubborn)

    with pytest.raises(ExceptionGroup) as caught:
        await circuit.call(fan_out)
    assert caught.group_contains(ConnectionError)
    statistics = circuit.statistics()
    assert (statistics.failed, statistics.timed_out) == (1, 0)


async def test_a_call_that_is_late_but_answers_has_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit = made(call_timeout=1.0)

    async def deaf() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return "late"

    assert await circuit.call(deaf) == "late"
    assert circuit.statistics().succeeded == 1


# --- instead -------------------------------------------------------------------------------


async def test_a_fallback_stands_in_for_rejections_and_failures_alone() -> None:
    circuit = made(
        failure_threshold=2,
        counts_as_failure=lambda error: isinstance(error, ConnectionError),
    )
    seen: list[Exception] = []

    async def instead(error: Exception) -> str:
        seen.append(error)
        return "the last known"

    assert await circuit.call_or(instead, well) == 1
    assert await circuit.call_or(instead, boom) == "the last known"
    assert await circuit.call_or(instead, boom) == "the last known"
    assert await circuit.call_or(instead, well) == "the last known"
    assert [type(error) for error in seen] == [
        ConnectionError,
        ConnectionError,
        CircuitOpen,
    ]
    circuit.reset()
    with pytest.raises(KeyError):
        await circuit.call_or(instead, boom, KeyError("a bug"))


async def test_a_fallback_does_not_stand_in_for_another_circuit() -> None:
    inner, outer = (Circuits().circuit(name) for name in ("inner", "outer"))
    inner.trip()

    async def instead(error: Exception) -> str:
        return str(error)

    assert "inner is forced_open" in await outer.call_or(instead, inner.call, well)  # type: ignore[operator]
    assert outer.statistics().failed == 1


async def test_a_cancelled_call_has_no_fallback(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def instead(error: Exception) -> None:
        raise AssertionError

    with trio.move_on_after(1) as scope:
        await made().call_or(instead, trio.sleep_forever)
    assert scope.cancelled_caught


# --- the promised numbers ------------------------------------------------------------------


async def test_f54_ten_calls_at_once_take_as_long_as_one_and_status_waits_for_none(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """F54: no call waits for another, nor a look or an order for any of them."""
    circuits = Circuits()
    circuit, other = circuits.circuit("a"), circuits.circuit("b")
    start = trio.current_time()
    async with trio.open_nursery() as ten:
        for _ in range(10):
            ten.start_soon(circuit.call, trio.sleep, 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert circuit.statistics().in_flight == 10
        assert trio.current_time() == start
    assert trio.current_time() - start == pytest.approx(0.1)
    nursery.start_soon(circuit.call, trio.sleep_forever)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(1):
        await circuit.call(trio.sleep_forever)
    assert await other.call(well) == 1
    assert circuit.statistics().in_flight == 1
    nursery.cancel_scope.cancel()


async def test_f55_each_caller_gets_its_own_exception_and_no_outcome_is_lost() -> None:
    """F55: a hundred failures at once, and one that was cancelled."""
    circuit = made(failure_threshold=100)
    states, got = [], []

    async def one(number: int) -> None:
        async def broken() -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError(number)

        try:
            await circuit.call(broken)
        except ValueError as error:
            got.append((number, error.args[0]))
            states.append(circuit.state)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
        with trio.CancelScope() as scope:
            scope.cancel()
            await circuit.call(trio.sleep_forever)
    assert states == [CircuitState.CLOSED] * 99 + [CircuitState.OPEN]
    assert all(number == told for number, told in got)
    assert circuit.statistics().not_counted == 1


async def test_f55_of_twenty_callers_one_probe_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """F55: and what it says decides."""
    circuit = made(reset_timeout=1.0)
    await fail(circuit, 5)
    await trio.sleep(1)
    rejected = 0

    async def probe() -> None:
        nonlocal rejected
        try:
            await circuit.call(trio.sleep, 1)
        except CircuitOpen:
            rejected += 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(probe)
    assert rejected == 19
    assert state_of(circuit) is CircuitState.CLOSED


async def test_ten_thousand_callers_that_cancel_count_for_nothing() -> None:
    circuit = made(failure_threshold=1)
    for _ in range(10_000):
        with trio.CancelScope() as scope:
            scope.cancel()
            await circuit.call(trio.sleep_forever)
    statistics = circuit.statistics()
    assert (statistics.failed, statistics.not_counted) == (0, 10_000)
    assert statistics.state is CircuitState.CLOSED


async def test_no_circuit_is_stuck_after_ten_thousand_probes_that_came_to_grief() -> (
    None
):
    """Cancelled, raised or killed with their task, before or after their first step."""
    now = 0.0
    circuit = Circuits(clock=lambda: now).circuit(
        "site", CircuitPolicy(failure_threshold=1, reset_timeout=1.0)
    )
    await fail(circuit, 1)
    chance = random.Random(8)  # noqa: S311 - a fixed seed

    async def grief(scope: trio.CancelScope, when: int) -> None:
        for step in range(3):
            if step == when:
                scope.cancel()
            await trio.lowlevel.checkpoint()
        raise ConnectionError

    for _ in range(10_000):
        # Long enough for an undecided circuit to open again, and for that to be over.
        now += 3.0
        assert state_of(circuit) is CircuitState.HALF_OPEN
        with trio.CancelScope() as scope:
            try:
                await circuit.call(grief, scope, chance.randrange(5))
            except ConnectionError:
                assert state_of(circuit) is CircuitState.OPEN
    now += 3.0
    assert await circuit.call(well) == 1
    assert state_of(circuit) is CircuitState.CLOSED


async def test_a_probe_whose_coroutine_is_thrown_away_gives_its_place_back() -> None:
    now = 0.0
    circuit = Circuits(clock=lambda: now).circuit("site")
    await fail(circuit, 5)
    now = 30.0
    probe = circuit.call(trio.sleep_forever)
    probe.send(None)
    assert circuit.statistics().probes == 1
    probe.close()
    assert circuit.statistics().probes == 0


@pytest.mark.parametrize(
    ("other", "failures"), [(BulkheadFull("b", 1, 0), 0), (ValueError("bad"), 1)]
)
async def test_our_own_limits_in_a_group_are_no_failure_of_the_other_side(
    other: Exception, failures: int
) -> None:
    """What a nursery inside the call makes of them."""
    site = made()

    async def work() -> None:
        raise ExceptionGroup(
            "several", [RateLimited("r", 1.0), ExceptionGroup("inner", [other])]
        )

    with pytest.raises(ExceptionGroup):
        await site.call(work)
    statistics = site.statistics()
    assert (statistics.failed, statistics.not_counted) == (failures, 1 - failures)


async def probe_within(site: Circuit, how: str) -> int:
    """A call through a circuit inside of a call through it."""
    if how == "guard":
        with site.guard(), site.guard():
            return await well()
    if how == "call":
        return await site.call(site.call, well)

    async def many() -> int:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(site.call, well)
        return 1

    return await site.call(many)


@pytest.mark.parametrize("how", ["call", "guard", "tasks"])
async def test_f55_a_circuit_inside_of_its_own_call_heals_all_the_same(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """F55: rejected by it, each probe would fail itself, and open it again for ever."""
    site = made(failure_threshold=1, reset_timeout=10.0, success_threshold=2)
    await fail(site, 1)
    await trio.sleep(10)
    assert await probe_within(site, how) == 1
    # One probe is one, whatever it is made of.
    assert (site.state, site.statistics().probe_successes) == ("half_open", 1)
    assert await probe_within(site, how) == 1
    assert state_of(site) is CircuitState.CLOSED
    seen = site.statistics()
    assert (seen.rejected, seen.in_flight) == (0, 0)


async def test_what_a_probe_left_running_is_not_inside_of_the_next_one(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    site = made(failure_threshold=1, reset_timeout=10.0, success_threshold=3)
    await fail(site, 1)
    await trio.sleep(10)
    ends: list[str] = []

    async def straggler() -> None:
        await trio.sleep(5)
        try:
            await site.call(well)
        except CircuitOpen:
            ends.append("rejected")

    async def begin() -> None:
        nursery.start_soon(straggler)

    await site.call(begin)
    nursery.start_soon(site.call, trio.sleep, 8)
    await trio.sleep(9)
    assert ends == ["rejected"]
