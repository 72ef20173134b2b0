"""Runtimes that are to be killed: one after the other, forked from a warm process.

    python kill_crew.py < lives

Each line of the input is one life: a folder and a number of agents. The process forks, and
the child runs the whole application on `FOLDER/db` until somebody ends it; nothing is
loaded but Python's modules when it forks, so that a life begins with opening the store.
What is said, one line and one write each:

    born PID                the fork is there
    found ROLE NUMBER COUNT how much was done when the run begins
    ready CPU               everybody is up, after so many seconds of the processor's; work begins
    done ROLE NUMBER COUNT  so much is done, and acknowledged
    dead                    the child is gone; an empty line of input has it buried
    buried STATUS           and this was its exit status

There are three roles. A clerk's call takes an item off its queue, puts a new one, counts,
publishes an event and tells the tally; a timer ticks meanwhile and publishes too. A mover
moves money between two purses of its own, in a transaction. A teller sends numbers to the
hearer, whose mailbox is durable: they are acknowledged when they are accepted.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    MailboxPolicy,
    run,
)
from treewarden.runtime import current_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLERKS, MOVERS, TELLERS = 20, 4, 4
# In each queue, between any two calls.
ITEMS = 5
TICK_SECONDS = 0.02
# In each purse at first.
STAKE = 1000


class Done(msgspec.Struct):
    filled: bool = False
    count: int = 0
    ticks: int = 0


class Clerk(Agent[Done]):
    call_timeout = 60.0
    work: DurableQueue[int]

    async def on_start(self) -> None:
        if not self.state.filled:
            for number in range(1, ITEMS + 1):
                await self.work.put(number)
            self.state.filled = True
        self.send_after(TICK_SECONDS, Clerk.tick)

    async def step(self) -> int:
        item = await self.work.take()
        assert item is not None
        await item.ack()
        await self.work.put(item.value + ITEMS)
        self.state.count += 1
        self.publish("clerk.done", item.value)
        self.cast(self.runtime.ref("/tally", Tally), Tally.note, self.path)
        return self.state.count

    async def tick(self) -> None:
        self.state.ticks += 1
        self.publish("clerk.tick", self.state.ticks)
        self.send_after(TICK_SECONDS, Clerk.tick)

    def known(self) -> int:
        return self.state.count


class Seen(msgspec.Struct):
    by_path: dict[str, int] = {}


class Tally(Agent[Seen]):
    async def note(self, path: str) -> None:
        self.state.by_path[path] = self.state.by_path.get(path, 0) + 1


class Purse(msgspec.Struct):
    money: int = STAKE
    moves: int = 0


class Account(Agent[Purse]):
    call_timeout = 60.0

    def move(self, amount: int) -> int:
        self.state.money += amount
        self.state.moves += 1
        self.publish("account.moved", self.state.moves)
        return self.state.moves

    def known(self) -> int:
        return self.state.moves


class Heard(msgspec.Struct):
    by_teller: dict[str, int] = {}


class Hearer(Agent[Heard]):
    call_timeout = 60.0
    # A message is begun again after each kill; none is to be given up.
    mailbox = MailboxPolicy(capacity=50, durable=True, max_attempts=1000)

    async def hear(self, teller: str, number: int) -> None:
        # Out of order, or twice: it is never right again.
        follows = number == self.state.by_teller.get(teller, 0) + 1
        self.state.by_teller[teller] = number if follows else -1

    def known(self, teller: str) -> int:
        return self.state.by_teller.get(teller, 0)


class Starts(msgspec.Struct):
    starts: int = 0


class Neighbour(Agent[Starts]):
    """One of many that have a state, and nothing to do."""

    async def on_start(self) -> None:
        self.state.starts += 1


def say(line: str) -> None:
    """One write a line: into a pipe it is whole or not at all."""
    os.write(1, line.encode() + b"\n")


async def clerk(number: int) -> AsyncIterator[int]:
    """What is done at first, and then each time."""
    ref = current_runtime().ref(f"/clerk-{number}", Clerk)
    yield await ref.call(Clerk.known)
    while True:
        yield await ref.call(Clerk.step)


async def mover(number: int) -> AsyncIterator[int]:
    """The same, of transactions."""
    runtime = current_runtime()
    source, target = (
        runtime.ref(f"/purse-{number}-{side}", Account) for side in ("a", "b")
    )
    yield await source.call(Account.known)
    while True:
        async with runtime.transaction(source, target) as tx:
            await tx.call(source, Account.move, -1)
            moves = await tx.call(target, Account.move, 1)
        yield moves


async def teller(number: int) -> AsyncIterator[int]:
    """The same, of messages."""
    hearer = current_runtime().ref("/hearer", Hearer)
    # Behind all that waits in the mailbox.
    count = await hearer.call(Hearer.known, str(number))
    yield count
    while True:
        count += 1
        await hearer.cast(Hearer.hear, str(number), count)
        yield count


ROLES = {clerk: CLERKS, mover: MOVERS, teller: TELLERS}


async def load(*, task_status: trio.TaskStatus[None]) -> None:
    """Everybody works, one thing at a time each, until the run ends."""
    working = [
        (f"{role.__name__} {number}", role(number))
        for role, count in ROLES.items()
        for number in range(count)
    ]
    for name, work in working:
        say(f"found {name} {await anext(work)}")

    async def drive(name: str, work: AsyncIterator[int]) -> None:
        async for count in work:
            say(f"done {name} {count}")

    async with trio.open_nursery() as nursery:
        for name, work in working:
            nursery.start_soon(drive, name, work)
        task_status.started()
        say(f"ready {time.process_time()}")


def application(agents: int) -> Application:
    """All of them, as many neighbours as there are to be, and the load."""
    workers = [
        ChildSpec("tally", Tally),
        ChildSpec("hearer", Hearer),
        *(ChildSpec(f"clerk-{number}", Clerk) for number in range(CLERKS)),
        *(
            ChildSpec(f"purse-{number}-{side}", Account)
            for number in range(MOVERS)
            for side in ("a", "b")
        ),
    ]
    neighbours = range(agents - len(workers))
    return Application(
        "kill",
        [
            *workers,
            *(ChildSpec(f"neighbour-{number}", Neighbour) for number in neighbours),
            ChildSpec("load", load),
        ],
    )


def live(folder: Path, agents: int) -> None:
    """One life; ends when the process is told to stop, in order, or is killed."""
    say(f"born {os.getpid()}")
    config = Config(
        store=folder / "db", socket=folder / "socket", log_level="error", shutdown=30.0
    )
    run(application(agents), config)


def main() -> None:
    """Fork a life for each line."""
    gc.freeze()
    for line in sys.stdin:
        folder, agents = line.split()
        child = os.fork()
        if not child:
            signal.alarm(120)  # whoever should end it may be gone
            live(Path(folder), int(agents))
            os._exit(0)
        # Not reaped before it is told of, so that nobody else is killed in its place.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        say("dead")
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        say(f"buried {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
