"""Calls and casts: what a message to an agent costs.

    python tests/benchmarks/bench_agents.py              our rows
    python tests/benchmarks/bench_agents.py --compare    beside bare trio, pykka, BEAM

The agents run in a whole runtime as `open_runtime` makes it, telemetry as shipped, with a
state that is not persisted but encoded after every handler. Every call has the default
timeout armed. They do what the bare designs do, `x + 1`; the `counting` rows change their
state as well.
"""

from __future__ import annotations

import gc
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio
import trio.testing
from rounds import SECONDS, Goal, Peer, anchor, emit, main

from treewarden import Agent, Application, ChildSpec, Config, open_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from treewarden import AgentRef

now = time.perf_counter

PEERS = (
    Peer(script="pykka_calls.py", needs=("pykka",)),
    Peer(script="beam_calls.exs", needs=("elixir",)),
)
GOALS = (
    Goal(
        what="call 1-1",
        ours="treewarden.call.async.1x1",
        than="trio.call.deque_parked.1x1",
        at_least=0.65,
    ),
    Goal(
        what="call 1-1",
        ours="treewarden.call.async.1x1",
        than="pykka.call.ask.1x1",
        at_least=1.5,
    ),
    Goal(
        what="call 100-1",
        ours="treewarden.call.async.100x1",
        than="trio.call.deque_parked.100x1",
        at_least=0.55,
    ),
    Goal(
        what="call 100-1",
        ours="treewarden.call.async.100x1",
        than="pykka.call.ask.100x1",
        at_least=3.5,
    ),
    Goal(
        what="call 100-100",
        ours="treewarden.call.async.100x100",
        than="trio.call.deque_parked.100x100",
        at_least=0.6,
    ),
    Goal(
        what="call 100-100",
        ours="treewarden.call.async.100x100",
        than="pykka.call.ask.100x100",
        at_least=3.5,
    ),
    Goal(
        what="plain handler, idle",
        ours="treewarden.call.plain.1x1",
        than="trio.call.deque_parked.1x1",
        at_least=1.6,
    ),
    Goal(
        what="cast, bounded 1000",
        ours="treewarden.cast.1x1",
        than="trio.cast.deque.1x1",
        at_least=0.3,
    ),
    Goal(
        what="cast, bounded 1000",
        ours="treewarden.cast.1x1",
        than="trio.cast.channel_send.1x1",
        at_least=5.0,
    ),
)


class Seen(msgspec.Struct):
    """How many messages an agent has handled."""

    messages: int = 0


class Adder(Agent[Seen]):
    """Answers one more than it is given."""

    persistence = "none"

    async def add(self, x: int) -> int:
        return x + 1

    def add_plain(self, x: int) -> int:
        return x + 1

    async def count(self, x: int) -> int:
        self.state.messages += 1
        return x + 1

    def count_plain(self, x: int) -> int:
        self.state.messages += 1
        return x + 1


@asynccontextmanager
async def adders(count: int) -> AsyncIterator[list[AgentRef[Adder]]]:
    """`count` agents in a runtime; nothing is left to do when it is entered."""
    ids = [f"adder-{number}" for number in range(count)]
    app = Application("bench", [ChildSpec(id_, Adder) for id_ in ids])
    config = Config(level="volatile", socket=False)
    async with open_runtime(app, config=config) as runtime:
        await trio.testing.wait_all_tasks_blocked()
        yield [runtime.ref(id_, Adder) for id_ in ids]


async def calls(
    operation: Callable[[Adder, int], object], clients: int, servers: int
) -> float:
    """Calls a second, all clients counted."""
    count = 0

    async def client(ref: AgentRef[Adder]) -> None:
        nonlocal count
        i = 0
        while now() - start < SECONDS:
            for _ in range(10):
                i += 1
                assert await ref.call(operation, i) == i + 1
                count += 1

    async with adders(servers) as refs:
        start = now()
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(client, refs[number % servers])
        return count / (now() - start)


async def casts(senders: int) -> float:
    """Casts a second that were handled."""
    sent = 0

    async def sender(ref: AgentRef[Adder]) -> None:
        nonlocal sent
        while now() - start < SECONDS:
            for i in range(100):
                await ref.cast(Adder.add, i)
                sent += 1

    async with adders(1) as (ref,):
        start = now()
        async with trio.open_nursery() as nursery:
            for _ in range(senders):
                nursery.start_soon(sender, ref)
        return (sent - ref.statistics().mailbox) / (now() - start)


def run(row: Callable[..., Awaitable[float]], *arguments: Any) -> float:
    """One row; what the one before has left behind is not its garbage to collect."""
    gc.collect()
    return trio.run(row, *arguments)


def measure(with_bare: bool) -> None:
    """Every row of ours and, each right after it, the bare one that it is compared to."""
    bare = anchor("trio_calls") if with_bare else None
    for clients, servers in ((1, 1), (100, 1), (100, 100)):
        shape = f"{clients}x{servers}"
        rate = run(calls, Adder.add, clients, servers)
        emit(f"treewarden.call.async.{shape}", rate, "calls/s")
        if bare is not None:
            design = bare.DESIGNS["deque_parked"]
            rate = run(bare.calls, design, clients, servers)
            emit(f"trio.call.deque_parked.{shape}", rate, "calls/s")
        rate = run(calls, Adder.add_plain, clients, servers)
        emit(f"treewarden.call.plain.{shape}", rate, "calls/s")
    for name, operation in (("async", Adder.count), ("plain", Adder.count_plain)):
        rate = run(calls, operation, 1, 1)
        emit(f"treewarden.call.{name}.counting.1x1", rate, "calls/s")
    for senders in (1, 100):
        shape = f"{senders}x1"
        emit(f"treewarden.cast.{shape}", run(casts, senders), "msgs/s")
        if bare is not None:
            rate = run(bare.deque_casts, senders)
            emit(f"trio.cast.deque.{shape}", rate, "msgs/s")
            rate = run(bare.channel_casts, 1000, senders, False)
            emit(f"trio.cast.channel_send.{shape}", rate, "msgs/s")


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
