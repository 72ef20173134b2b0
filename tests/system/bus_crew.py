"""A runtime with durable subscriptions that is to be killed.

    python bus_crew.py FILE LIFE COUNT

Publishes COUNT events of three topics, and says `kept WORD` once each is committed. An agent
has a durable subscription and writes the words into its state; a task has another one, and
appends to FILE.task what it handles before it acknowledges. COUNT 0 waits until nothing is
pending, says `heard WORD` for what the agent has noted, and ends; COUNT -1 is about an
event that kills the process whenever it is handled.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import msgspec
import trio

from treewarden import Agent, Application, ChildSpec, Config, current_runtime, run
from treewarden.bus import DurablePolicy, Event, Start

# Every life may have tried what was in hand once.
PATIENT = DurablePolicy(max_attempts=1000)
FRAIL = DurablePolicy(max_attempts=2)


class Heard(msgspec.Struct):
    words: list[str] = []
    count: int = 0


class Hearer(Agent[Heard]):
    call_timeout = 60.0

    async def on_start(self) -> None:
        start = Start(after=0)
        self.subscribe("words.*", durable=True, policy=PATIENT, start=start)

    async def on_event(self, event: Event) -> None:
        word = str(event.payload)
        self.state.words.append(word)
        for _ in range(event.position % 3):
            await trio.lowlevel.checkpoint()
        self.state.count += 1

    async def words(self) -> list[str]:
        assert self.state.count == len(self.state.words)
        return self.state.words


class Frail(Agent[Heard]):
    """One of the events is the process's death."""

    async def on_start(self) -> None:
        start = Start(after=0)
        self.subscribe("words.*", durable=True, policy=FRAIL, start=start)

    async def on_event(self, event: Event) -> None:
        if event.payload == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        say(f"heard {event.payload}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(file: str, word: str) -> None:
    with Path(file).open("a") as lines:
        lines.write(word + "\n")


async def listen(file: str) -> None:
    """Handle events as a plain task."""
    bus = current_runtime().bus
    async with bus.subscribe_durable(
        "task", "words.*", policy=PATIENT, start=Start(after=0)
    ) as member:
        async for leased in member:
            note(file, str(leased.event.payload))
            await leased.ack()


async def settled(subscriptions: int) -> None:
    """Wait until every event of all of them is over."""
    bus = current_runtime().bus
    while True:
        found = bus.statistics().durable
        for one in found:
            assert one.published == one.delivered + one.dropped + one.pending
        done = [one for one in found if not one.pending and not one.lag]
        if len(done) == subscriptions:
            return
        await trio.sleep(0.01)


async def publish(life: int, count: int) -> None:
    runtime = current_runtime()
    dice = random.Random(life)  # noqa: S311 - a seed, not a secret
    for number in range(count):
        word = f"{life}-{number}"
        await runtime.bus.publish(f"words.{'abc'[number % 3]}", word)
        say(f"kept {word}")
        if dice.random() < 0.1:
            await trio.sleep(0.001)
    if not count:
        await settled(2)
        for word in await runtime.ref("hearer", Hearer).call(Hearer.words):
            say(f"heard {word}")
        say("over")


async def be_frail(life: int) -> None:
    runtime = current_runtime()
    if not life:
        for word in ("die", "after"):
            runtime.bus.publish_nowait("words.a", word)
        await runtime.store.settled()
    await settled(1)
    await runtime.store.settled()
    for letter in await runtime.dead_letters.list():
        say(f"dead {letter.subscription} {letter.attempts} {letter.reason}")
    say("over")


def main() -> None:
    file, life, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if count < 0:
        children = [
            ChildSpec("frail", Frail),
            ChildSpec("teller", be_frail, args=(life,), restart="temporary"),
        ]
    else:
        children = [
            ChildSpec("hearer", Hearer),
            ChildSpec("listener", listen, args=(f"{file}.task",)),
            ChildSpec("teller", publish, args=(life, count), restart="temporary"),
        ]
    run(Application("words", children), Config(store=Path(file), socket=False))


if __name__ == "__main__":
    main()
