"""Circuits: a protected call, a rejection, ten calls at once; and all policies together.

    python tests/benchmarks/bench_resilience.py              our rows
    python tests/benchmarks/bench_resilience.py --compare    beside counters, peers, Elixir

Calls, functions and rounds are those of `anchors/breakers.py`. The cost of a pipeline is
that of all its policies around a function that does nothing, less the function; the cost
of its parts that of each alone, less the function each time. Both are CPU time, the least
of alternating rounds: what they differ by is small, and a shared machine is not quiet.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from rounds import Goal, Peer, emit, main

from treewarden.errors import CircuitOpen
from treewarden.resilience import (
    Bulkhead,
    Circuit,
    Circuits,
    Limiter,
    Policy,
    RateLimit,
    Retry,
    Timeout,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Protected = Callable[[Callable[[], Awaitable[int]]], Awaitable[int]]

now = time.perf_counter

CALLS = 20_000
ROUNDS = 5
CHEAP_ROUNDS = 9
TEN = 10
# Beyond what is measured here: the limiter is to count, not to wait.
PLENTY = 10**9
MOST_MICROSECONDS = 5.0

PEERS = (
    Peer(
        script="breakers.py",
        needs=("trio", "purgatory", "aiobreaker", "circuitbreaker", "pybreaker"),
    ),
    Peer(script="beam_breaker.exs", needs=("elixir",)),
)
GOALS = (
    Goal(
        what="closed",
        ours="treewarden.circuit.closed",
        than="breaker.circuitbreaker.closed",
        at_most=1.0,
    ),
    Goal(
        what="closed",
        ours="treewarden.circuit.closed",
        than="breaker.purgatory.closed",
        at_most=0.7,
    ),
    Goal(
        what="rejected",
        ours="treewarden.circuit.open",
        than="breaker.purgatory.open",
        at_most=0.25,
    ),
    Goal(
        what="ten 100 ms calls at once",
        ours="treewarden.circuit.ten_at_once",
        than="treewarden.circuit.one",
        at_most=1.2,
    ),
    Goal(
        what="what a pipeline adds to its parts",
        ours="treewarden.policy.added",
        than="treewarden.policy.may_add",
        at_most=1.0,
    ),
)


async def ok() -> int:
    """What is called."""
    return 1


async def boom() -> int:
    """What fails."""
    raise RuntimeError("boom")


async def bare(fn: Callable[[], Awaitable[int]]) -> int:
    """The function without anything around it."""
    return await fn()


async def cost(protected: Protected) -> float:
    """Microseconds a call, rejected ones included: the median of five rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = now()
        for _ in range(CALLS // ROUNDS):
            try:  # noqa: SIM105 - `suppress` would cost as much as what is measured
                await protected(ok)
            except CircuitOpen:
                pass
        rounds.append((now() - start) / (CALLS // ROUNDS))
    return statistics.median(rounds) * 1e6


async def cheapest(calls: dict[str, Protected]) -> dict[str, float]:
    """Microseconds of CPU time a call, by name."""
    least = dict.fromkeys(calls, math.inf)
    for _ in range(CHEAP_ROUNDS):
        for name, protected in calls.items():
            start = time.process_time()
            for _ in range(CALLS // ROUNDS):
                await protected(ok)
            spent = (time.process_time() - start) / (CALLS // ROUNDS) * 1e6
            least[name] = min(least[name], spent)
    return least


async def took(circuit: Circuit, calls: int) -> float:
    """Milliseconds of so many 100 ms calls at once."""
    start = now()
    async with trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(circuit.call, trio.sleep, 0.1)
    return (now() - start) * 1e3


async def measure_circuit() -> None:
    """A circuit closed, busy and open."""
    circuit = Circuits().circuit("one")
    emit("treewarden.circuit.closed", await cost(circuit.call), "us")
    emit("treewarden.circuit.one", await took(circuit, 1), "ms")
    emit("treewarden.circuit.ten_at_once", await took(circuit, TEN), "ms")
    for _ in range(TEN):
        with suppress(RuntimeError, CircuitOpen):
            await circuit.call(boom)
    emit("treewarden.circuit.open", await cost(circuit.call), "us")


async def measure_policy() -> None:
    """Each policy alone, and all of them around the same call."""
    timeout, retry, bulkhead = Timeout(30.0), Retry(), Bulkhead(100)
    circuit = Circuits().circuit("pipeline")
    limiter = Limiter(RateLimit(rate=PLENTY, burst=PLENTY))
    policy = Policy(
        timeout=timeout, retry=retry, circuit=circuit, rate=limiter, bulkhead=bulkhead
    )
    parts: dict[str, Protected] = {
        "timeout": timeout.call,
        "retry": retry.call,
        "circuit": circuit.call,
        "rate": limiter.call,
        "bulkhead": bulkhead.call,
    }
    least = await cheapest({"bare": bare, **parts, "pipeline": policy.call})
    without = least.pop("bare")
    whole = least.pop("pipeline") - without
    alone = {name: microseconds - without for name, microseconds in least.items()}
    for name, microseconds in alone.items():
        emit(f"treewarden.policy.{name}", microseconds, "us")
    emit("treewarden.policy.pipeline", whole, "us")
    emit("treewarden.policy.parts", sum(alone.values()), "us")
    emit("treewarden.policy.added", whole - sum(alone.values()), "us")
    emit("treewarden.policy.may_add", MOST_MICROSECONDS, "us")


def measure(_with_bare: bool) -> None:
    """Every row of ours."""
    trio.run(measure_circuit)
    trio.run(measure_policy)


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
