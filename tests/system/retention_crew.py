"""A runtime with a durable subscription that is behind the journal's limits, to be killed.

    python retention_crew.py FILE RETENTION COUNT TAKES

Publishes COUNT large events, and says `kept POSITION` once each is committed, or `paused`
when it has to wait. When TAKES is 1 a task takes events, slowly, and appends `POSITION
MISSED` to FILE.taken before it acknowledges one. COUNT 0 says `over` when nothing is pending.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from treewarden import Application, ChildSpec, Config, current_runtime, run
from treewarden.bus import DurablePolicy, Start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE: Final = "x" * 32_000
"""Of which 32 are as much as the journal may hold."""
FIRST: Final = Start(after=0)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def take(policy: DurablePolicy, file: Path) -> None:
    """Take events, more slowly than they are published."""
    bus = current_runtime().bus
    async with bus.subscribe_durable(
        "slow", "orders", policy=policy, start=FIRST
    ) as member:
        async for leased in member:
            with file.open("a") as lines:
                lines.write(f"{leased.event.position} {leased.event.missed}\n")
            await trio.sleep(0.005)
            await leased.ack()


async def publish(count: int) -> None:
    bus = current_runtime().bus
    for _ in range(count):
        event = await bus.publish("orders", LARGE)
        say(f"kept {event.position}")
    while not count:
        (found,) = bus.statistics().durable
        if not found.pending and not found.lag:
            say("over")
            return
        await trio.sleep(0.01)


async def watch() -> None:
    while True:
        if current_runtime().bus.statistics().paused:
            say("paused")
            return
        await trio.sleep(0.01)


@asynccontextmanager
async def subscription(policy: DurablePolicy) -> AsyncIterator[None]:
    """The subscription is there, and nobody need take its events."""
    bus = current_runtime().bus
    async with bus.subscribe_durable("slow", "orders", policy=policy, start=FIRST):
        pass
    yield


def main() -> None:
    file, retention = Path(sys.argv[1]), sys.argv[2]
    count, takes = map(int, sys.argv[3:])
    policy = DurablePolicy(capacity=8, max_attempts=1000, retention=retention)
    taken = file.with_suffix(".taken")
    children = [
        ChildSpec("subscription", subscription, args=(policy,)),
        ChildSpec("watcher", watch, restart="temporary"),
        ChildSpec("publisher", publish, args=(count,), restart="temporary"),
    ]
    if takes:
        children.insert(1, ChildSpec("taker", take, args=(policy, taken)))
    config = Config(store=file, socket=False, journal_bytes=1 << 20)
    run(Application("orders", children), config)


if __name__ == "__main__":
    main()
