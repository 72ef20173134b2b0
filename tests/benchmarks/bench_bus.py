"""The bus: what it costs to tell ten or a hundred subscribers, and to keep what was told.

    python tests/benchmarks/bench_bus.py              our rows
    python tests/benchmarks/bench_bus.py --compare    beside bare deques, Elixir, blinker, bubus

One publisher tells tasks that each count what they get, as in `anchors/buses.py`: `burst`
sends a hundred signals before it gives way, `each` gives way after each one. `wild` has
patterns, `slow` one of ten that takes a millisecond an event. Journaled events are
published by a hundred tasks, beside the same units handed to the store without a bus.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
import trio.testing
from rounds import SECONDS, Goal, Peer, anchor, emit, main

from treewarden.bus import Bus, StoreJournal
from treewarden.store import Level, StagedEvent, Unit, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from treewarden.bus import LeasedEvent, Subscription
    from treewarden.store import Store

now = time.perf_counter

TOPIC = "orders.eu.created"
PUBLISHERS = 100
BURST = 100
SLOW_SECONDS = 0.001

PEERS = (
    Peer(script="buses.py", needs=("blinker", "pyee", "bubus", "trio")),
    Peer(script="beam_bus.exs", needs=("elixir",)),
)


def _burst_goals(subscribers: int) -> tuple[Goal, ...]:
    what = f"signal, {subscribers} subscribers"
    ours = f"treewarden.bus.burst.{subscribers}.deliver"
    return (
        Goal(
            what=what,
            ours=ours,
            than=f"trio.bus.deque_burst100.{subscribers}.deliver",
            at_least=0.4,
        ),
        Goal(
            what=what,
            ours=ours,
            than=f"beam.bus.registry.exact.{subscribers}.deliver",
            at_least=1.0,
        ),
        Goal(
            what=what,
            ours=ours,
            than=f"blinker.bus.{subscribers}.deliver",
            at_least=2.0,
        ),
    )


EACH = "treewarden.bus.each.10.publish"
GOALS = (
    *_burst_goals(10),
    *_burst_goals(100),
    Goal(
        what="signal, a checkpoint each",
        ours=EACH,
        than="trio.bus.deque.10.publish",
        at_least=0.6,
    ),
    Goal(
        what="signal, a checkpoint each",
        ours=EACH,
        than="trio.bus.channel_send.10.publish",
        at_least=2.0,
    ),
    Goal(
        what="signal, a checkpoint each",
        ours=EACH,
        than="bubus.bus.10.publish",
        at_least=100.0,
    ),
    Goal(
        what="patterns",
        ours="treewarden.bus.wild.10.publish",
        than=EACH,
        at_least=0.9,
    ),
    Goal(
        what="journaled, 100 publishers",
        ours="treewarden.bus.journaled.100",
        than="treewarden.store.events.100",
        at_least=0.6,
    ),
    Goal(
        what="a stuck one drops its oldest",
        ours="treewarden.bus.slow_drop_oldest.10.publish",
        than=EACH,
        at_least=0.85,
    ),
    Goal(
        what="a stuck one drops the newest",
        ours="treewarden.bus.slow_drop_newest.10.publish",
        than=EACH,
        at_least=0.85,
    ),
)


# --- signals -------------------------------------------------------------------------------


async def signals(
    name: str, count: int, pattern: str, burst: int, slow: str = ""
) -> None:
    """Signals a second to `count` subscribers; `slow` is the policy of a slow one."""
    seen = [0] * count
    async with open_store(None, level=Level.VOLATILE) as store:
        bus = Bus(StoreJournal(store))

        async def consume(number: int) -> None:
            overflow = slow if slow and not number else "drop_oldest"
            async with bus.subscribe(pattern, overflow=overflow) as events:
                if slow and not number:
                    await _dawdle(events)
                async for _ in events:
                    seen[number] += 1

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(consume, number)
            await trio.testing.wait_all_tasks_blocked()
            sent, start = 0, now()
            while now() - start < SECONDS:
                for _ in range(burst):
                    bus.signal(TOPIC, sent)
                sent += burst
                await trio.lowlevel.checkpoint()
            if not slow:
                await trio.testing.wait_all_tasks_blocked()
                if sum(seen) != sent * count:
                    raise RuntimeError(f"{name}: {sum(seen)} of {sent * count} came")
            took = now() - start
            nursery.cancel_scope.cancel()
    emit(f"{name}.publish", sent / took, "events/s")
    emit(f"{name}.deliver", sum(seen) / took, "deliveries/s")


async def _dawdle(events: Subscription) -> None:
    async for _ in events:
        await trio.sleep(SLOW_SECONDS)


# --- journaled events ------------------------------------------------------------------------


@asynccontextmanager
async def _store() -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "bus.db", level=Level.DURABLE) as store:
            yield store


async def journaled() -> float:
    """Events a second that a hundred publishers get committed and told of."""
    done = 0

    async def publish() -> None:
        nonlocal done
        while now() - start < SECONDS:
            await bus.publish(TOPIC, {"order": done})
            done += 1

    async with _store() as store:
        bus = Bus(StoreJournal(store))
        start = now()
        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(publish)
        return done / (now() - start)


async def handed_over() -> float:
    """The same events as units of a hundred tasks, without a bus."""
    done = 0

    async def hand_over() -> None:
        nonlocal done
        while now() - start < SECONDS:
            unit = Unit("")
            unit.events = [StagedEvent(TOPIC, b'{"order":%d}' % done, time.time_ns())]
            store.hand_over(unit)
            await store.wait(unit)
            done += 1

    async with _store() as store:
        start = now()
        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(hand_over)
        return done / (now() - start)


async def durable() -> float:
    """Events a second that a durable subscription of a hundred keys acknowledges."""
    done = 0

    async def work(number: int) -> None:
        nonlocal done
        async with bus.subscribe_durable("bench", "orders.*") as member:
            async for leased in member:
                await _acknowledge(leased)
                done += 1

    async def publish(number: int) -> None:
        while now() - start < SECONDS:
            await bus.publish(f"orders.{number}", number)

    async with _store() as store, trio.open_nursery() as nursery:
        bus = Bus(StoreJournal(store), store=store)
        nursery.start_soon(bus.serve)
        for number in range(PUBLISHERS):
            nursery.start_soon(work, number)
        await trio.sleep(0.05)
        start = now()
        async with trio.open_nursery() as publishers:
            for number in range(PUBLISHERS):
                publishers.start_soon(publish, number)
        rate = done / (now() - start)
        nursery.cancel_scope.cancel()
    return rate


async def _acknowledge(leased: LeasedEvent) -> None:
    if not await leased.ack():
        raise RuntimeError(f"the lease of {leased.event.position} was lost")


def measure(with_bare: bool) -> None:
    """Every row of ours and, each right after it, the bare one that it is compared to."""
    bare = anchor("buses") if with_bare else None
    for count in (10, 100):
        trio.run(signals, f"treewarden.bus.burst.{count}", count, TOPIC, BURST)
        if bare is not None:
            name = f"trio.bus.deque_burst100.{count}"
            trio.run(bare.trio_deque_bus, name, count, TOPIC, BURST)
    trio.run(signals, "treewarden.bus.each.10", 10, TOPIC, 1)
    if bare is not None:
        trio.run(bare.trio_deque_bus, "trio.bus.deque.10", 10, TOPIC, 1)
        trio.run(bare.trio_channel_bus, "trio.bus.channel_send.10", 10, False)
    trio.run(signals, "treewarden.bus.wild.10", 10, "orders.*.created", 1)
    for policy in ("drop_oldest", "drop_newest"):
        trio.run(signals, f"treewarden.bus.slow_{policy}.10", 10, TOPIC, 1, policy)
    emit("treewarden.bus.journaled.100", trio.run(journaled), "events/s")
    emit("treewarden.store.events.100", trio.run(handed_over), "events/s")
    emit("treewarden.bus.durable.100", trio.run(durable), "events/s")


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
