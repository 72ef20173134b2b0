"""All policies around one call: their order, and what each of them sees."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

import pytest
import trio
import trio.testing

from treewarden.errors import (
    BulkheadFull,
    CircuitOpen,
    RateLimited,
    RetriesExhausted,
    TimedOut,
)
from treewarden.resilience import (
    Backoff,
    Bulkhead,
    Cache,
    CircuitPolicy,
    Circuits,
    CircuitState,
    CircuitStatistics,
    Fallback,
    Hedge,
    Layer,
    Limiter,
    Policy,
    RateLimit,
    Retry,
    Timeout,
)

AT_ONCE = Backoff(initial=0.0, maximum=0.0)


async def well() -> int:
    return 1


async def boom() -> NoReturn:
    raise ConnectionError("refused")


async def last_known(error: Exception) -> str:
    return f"the last known, for {type(error).__name__}"


def everything() -> Policy:
    return Policy(
        name="site",
        timeout=30.0,
        fallback=Fallback(last_known),
        cache=Cache(),
        retry=Retry(backoff=AT_ONCE),
        hedge=Hedge(delay=5.0),
        circuit=Circuits().circuit("site"),
        rate=RateLimit(rate=100),
        bulkhead=10,
        attempt_timeout=10.0,
    )


def test_the_order_is_fixed_whatever_order_they_are_named_in() -> None:
    policy = Policy(
        bulkhead=1, attempt_timeout=1.0, retry=Retry(), rate=RateLimit(rate=1)
    )
    assert policy.order == (
        Layer.RETRY,
        Layer.RATE,
        Layer.BULKHEAD,
        Layer.ATTEMPT_TIMEOUT,
    )
    assert repr(policy) == "<Policy policy: retry > rate > bulkhead > attempt_timeout>"
    assert repr(Policy()) == "<Policy policy: nothing>"


async def test_every_layer_is_in_the_row_and_shows_its_numbers() -> None:
    policy = everything()
    assert policy.order == tuple(Layer)
    assert await policy.call(well) == 1
    statistics = policy.statistics()
    assert (statistics.calls, statistics.succeeded, statistics.in_flight) == (1, 1, 0)
    layers = dict(statistics.layers)
    assert list(layers) == list(Layer)
    circuit = layers[Layer.CIRCUIT]
    assert isinstance(circuit, CircuitStatistics)
    assert circuit.succeeded == 1


async def test_a_call_without_layers_is_a_call() -> None:
    async def add(left: int, right: int) -> int:
        return left + right

    assert await Policy().call(add, 2, 3) == 5


async def test_nothing_outlasts_the_total_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = Policy(
        name="site",
        timeout=25.0,
        fallback=Fallback(last_known),
        retry=Retry(attempts=100, backoff=AT_ONCE, total_timeout=1000.0),
        attempt_timeout=10.0,
    )
    with pytest.raises(TimedOut, match=r"^site took longer than 25 s"):
        await policy.call(trio.sleep_forever)
    assert trio.current_time() == 25.0


async def test_each_attempt_has_its_own_time_and_the_fallback_stands_in_at_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    retry = Retry(backoff=AT_ONCE)
    policy = Policy(
        fallback=Fallback(last_known), retry=retry, attempt_timeout=Timeout(2.0)
    )
    got: object = await policy.call(trio.sleep_forever)
    assert got == "the last known, for RetriesExhausted"
    assert trio.current_time() == 6.0
    assert retry.statistics().attempts == 3


async def test_each_attempt_asks_the_circuit_and_an_open_one_ends_the_row() -> None:
    circuit = Circuits().circuit("site", CircuitPolicy(failure_threshold=2))
    retry = Retry(attempts=10, backoff=AT_ONCE, total_timeout=10.0)
    limiter = Limiter(RateLimit(rate=100))
    policy = Policy(retry=retry, circuit=circuit, rate=limiter)
    with pytest.raises(CircuitOpen):
        await policy.call(boom)
    assert retry.statistics().attempts == 3
    assert circuit.statistics().failed == 2
    # What the circuit rejected cost no permit.
    assert limiter.statistics().permits == 2


async def test_f67_a_bug_is_neither_tried_again_nor_hidden_behind_a_fallback() -> None:
    policy = everything()

    async def bug() -> NoReturn:
        raise KeyError("typo")

    with pytest.raises(KeyError):
        await policy.call(bug)
    assert policy.statistics().failed == 1
    assert policy.retry is not None
    assert policy.retry.statistics().attempts == 1


async def test_our_own_limits_do_not_open_the_circuit(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    circuit = Circuits().circuit("site", CircuitPolicy(failure_threshold=1))
    limited = Policy(
        circuit=circuit, rate=RateLimit(rate=1, period=60.0, queue=0), bulkhead=1
    )
    crowded = Policy(circuit=circuit, bulkhead=Bulkhead(1, queue=0))
    await limited.call(well)
    with pytest.raises(RateLimited):
        await limited.call(well)
    nursery.start_soon(crowded.call, trio.sleep_forever)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(BulkheadFull):
        await crowded.call(well)
    assert circuit.state is CircuitState.CLOSED
    assert circuit.statistics().not_counted == 2
    nursery.cancel_scope.cancel()


async def test_waiting_for_a_permit_is_no_part_of_an_attempts_own_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = Policy(rate=RateLimit(rate=1, period=10.0), attempt_timeout=2.0)
    for _ in range(3):
        await policy.call(trio.sleep, 1)
    assert trio.current_time() == 21.0


async def test_the_cache_answers_before_anything_is_asked_and_keeps_no_fallback() -> (
    None
):
    policy = everything()
    down = Policy(fallback=Fallback(last_known), cache=policy.cache)
    instead: object = await down.call(boom, cache_key="page")
    assert instead == "the last known, for ConnectionError"
    for _ in range(3):
        assert await policy.call(well, cache_key="page") == 1
    assert policy.circuit is not None
    assert policy.circuit.statistics().calls == 1
    assert await policy.call(well) == 1
    assert policy.circuit.statistics().calls == 2


async def test_a_call_that_is_not_idempotent_is_neither_hedged_nor_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge = Hedge(delay=1.0, share=1.0)
    retry = Retry(backoff=AT_ONCE)
    policy = Policy(retry=retry, hedge=hedge)
    begun = 0

    async def pay() -> NoReturn:
        nonlocal begun
        begun += 1
        await trio.sleep(5)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await policy.call(pay, idempotent=False)
    assert (begun, hedge.statistics().calls) == (1, 0)
    with pytest.raises(RetriesExhausted):
        await policy.call(pay, idempotent=False, key="payment-1")
    assert (begun, hedge.statistics().calls) == (4, 0)


async def test_weights_and_keys_reach_limiter_and_bulkhead(
    nursery: trio.Nursery,
) -> None:
    limiter = Limiter(RateLimit(rate=10, queue=0))
    bulkhead = Bulkhead(10)
    policy = Policy(rate=limiter, bulkhead=bulkhead)

    async def one() -> None:
        await policy.call(trio.sleep_forever, rate_key="ada", weight=7)

    nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    assert limiter.lane("ada").remaining == 3
    assert limiter.lane("bob").remaining == 10
    assert bulkhead.statistics().taken == 7
    nursery.cancel_scope.cancel()


async def test_a_group_gets_in_on_its_own_share_of_the_bulkhead() -> None:
    bulkhead = Bulkhead(2, queue=0, shares={"gold": 0.5})
    policy = Policy(bulkhead=bulkhead)

    async def again() -> str:
        with pytest.raises(BulkheadFull):
            await policy.call(last_known, ValueError())
        return await policy.call(last_known, ValueError(), group="gold")

    assert await policy.call(again) == "the last known, for ValueError"


async def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="no wieght; its options are cache_key"):
        await Policy().call(well, wieght=3)  # type: ignore[call-arg]


async def test_a_cancelled_call_is_no_failure_and_holds_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = everything()
    with trio.move_on_after(1) as scope:
        await policy.call(trio.sleep_forever)
    assert scope.cancelled_caught
    statistics = policy.statistics()
    assert (statistics.cancelled, statistics.failed, statistics.in_flight) == (1, 0, 0)
    assert policy.circuit is not None
    assert policy.circuit.statistics().not_counted == 1
    assert policy.bulkhead is not None
    assert policy.bulkhead.statistics().taken == 0


async def test_calls_that_end_in_every_way_leave_nothing_held() -> None:
    """Returned, raised, cancelled before and inside: the books balance."""
    policy = everything()
    assert policy.retry is not None
    for number in range(4000):
        with trio.CancelScope() as scope:
            if number % 4 == 2:
                scope.cancel()
            with suppress(CircuitOpen):
                await policy.call(
                    boom if number % 4 == 1 else trio.lowlevel.checkpoint,
                    rate_key=str(number),
                )
    statistics = policy.statistics()
    assert statistics.in_flight == 0
    ended = statistics.succeeded + statistics.failed + statistics.cancelled
    assert ended == statistics.calls == 4000
    assert policy.bulkhead is not None
    assert policy.bulkhead.statistics().in_flight == 0
    assert policy.circuit is not None
    assert policy.circuit.statistics().in_flight == 0


async def test_a_call_with_an_option_that_there_is_not_was_never_one() -> None:
    policy = Policy(bulkhead=1)
    with pytest.raises(TypeError):
        await policy.call(well, wieght=1)  # type: ignore[call-arg] # what is tested
    statistics = policy.statistics()
    assert (statistics.calls, statistics.in_flight) == (0, 0)
