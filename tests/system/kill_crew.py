"""Runtimes that are to be killed: one after the other, forked from a warm process.

    python kill_crew.py < lives

Each line of the input is one life: a folder and a number of agents. The process forks, and
the child runs the whole application on `FOLDER/db` until somebody ends it; nothing is
loaded but Python's modules when it forks, so that a life begins with opening the store.
What is said, one line and one write each:

    born PID            the fork is there
    found CLERK COUNT   what a clerk knows when the run begins
    ready               everybody is up; calls begin
    done CLERK COUNT    a call was answered
    dead                the child is gone; an empty line of input has it buried
    buried STATUS       and this was its exit status

A clerk's call takes an item off its queue, puts a new one, counts, publishes an event and
tells the tally. A timer ticks meanwhile and publishes too.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import msgspec
import trio

from treewarden import Agent, Application, ChildSpec, Config, DurableQueue, run
from treewarden.runtime import current_runtime

CLERKS = 20
# In each queue, between any two calls.
ITEMS = 5
TICK_SECONDS = 0.02


class Done(msgspec.Struct):
    filled: bool = False
    count: int = 0
    ticks: int = 0


class Clerk(Agent[Done]):
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


class Starts(msgspec.Struct):
    starts: int = 0


class Neighbour(Agent[Starts]):
    """One of many that have a state, and nothing to do."""

    async def on_start(self) -> None:
        self.state.starts += 1


def say(line: str) -> None:
    """One write a line: into a pipe it is whole or not at all."""
    os.write(1, line.encode() + b"\n")


async def load(*, task_status: trio.TaskStatus[None]) -> None:
    """Call every clerk, one call at a time each, until the run ends."""
    clerks = [
        current_runtime().ref(f"/clerk-{number}", Clerk) for number in range(CLERKS)
    ]
    for number, clerk in enumerate(clerks):
        say(f"found {number} {await clerk.call(Clerk.known)}")

    async def drive(number: int) -> None:
        while True:
            say(f"done {number} {await clerks[number].call(Clerk.step)}")

    async with trio.open_nursery() as nursery:
        for number in range(CLERKS):
            nursery.start_soon(drive, number)
        task_status.started()
        say("ready")


def application(agents: int) -> Application:
    """Clerks, the tally, as many neighbours as there are to be, and the load."""
    neighbours = range(agents - CLERKS - 1)
    return Application(
        "kill",
        [
            ChildSpec("tally", Tally),
            *(ChildSpec(f"clerk-{number}", Clerk) for number in range(CLERKS)),
            *(ChildSpec(f"neighbour-{number}", Neighbour) for number in neighbours),
            ChildSpec("load", load),
        ],
    )


def live(folder: Path, agents: int) -> None:
    """One life; ends when the process is told to stop, in order, or is killed."""
    say(f"born {os.getpid()}")
    config = Config(
        store=folder / "db", socket=folder / "socket", log_level="error", shutdown=5.0
    )
    run(application(agents), config)


def main() -> None:
    """Fork a life for each line."""
    gc.freeze()
    for line in sys.stdin:
        folder, agents = line.split()
        child = os.fork()
        if not child:
            signal.alarm(60)  # whoever should end it may be gone
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
