"""A runtime under load whose answers are written down beside its database.

    python workload.py FOLDER ANSWERS [--level crash_safe] [--early | --unsynced]

Four clerks each work through a queue of their own: one call takes an item off it, counts
it and publishes an event. `FOLDER/answers` gets a line for each call that was answered:
the clerk's number and its count. It ends at so many, however fast the disk is. `--early` breaks the runtime on purpose: it answers when
a unit is handed over, before its commit; `--unsynced` has SQLite not sync at all.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Literal

import msgspec
import trio

import treewarden.store.database
import treewarden.store.writer
from treewarden import Agent, Application, ChildSpec, Config, DurableQueue, open_runtime
from treewarden.errors import StoreError
from treewarden.store import Level, Store, Unit

CLERKS = 4
ITEMS = 150
# Often enough that the log is copied into the file and begun again while it is watched.
CHECKPOINT_PAGES = 60


class Done(msgspec.Struct):
    count: int = 0


class Clerk(Agent[Done]):
    call_timeout = 60.0
    work: DurableQueue[int]

    async def fill(self, items: int) -> None:
        for number in range(items):
            await self.work.put(number)

    async def step(self) -> int:
        item = await self.work.take()
        if item is None:  # only when it is broken on purpose
            return self.state.count
        await item.ack()
        self.state.count += 1
        self.publish("clerk.done", item.value)
        return self.state.count


def answer_early() -> None:
    """Release what waits for a commit as soon as it is handed over."""
    really = Store.hand_over

    def hand_over(store: Store, unit: Unit) -> None:
        really(store, unit)
        for tell in unit.release:
            tell(None)
        unit.release.clear()

    Store.hand_over = hand_over  # type: ignore[assignment,method-assign] # the point of it


async def work(
    folder: Path, wanted: int, level: Literal["durable", "crash_safe"]
) -> None:
    """Call every clerk again and again; each answer is written down with one write."""
    left = wanted
    answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    config = Config(store=folder / "db", socket=False, level=level)
    clerks = [ChildSpec(f"clerk-{number}", Clerk) for number in range(CLERKS)]
    async with (
        open_runtime(Application("disk", clerks), config=config) as runtime,
        trio.open_nursery() as nursery,
    ):

        async def drive(number: int) -> None:
            nonlocal left
            ref = runtime.ref(f"clerk-{number}", Clerk)
            await ref.call(Clerk.fill, ITEMS)
            os.write(answers, b"%d 0\n" % number)
            for _ in range(ITEMS):
                try:
                    count = await ref.call(Clerk.step)
                except StoreError:
                    await trio.sleep(0.01)
                    continue
                os.write(answers, b"%d %d\n" % (number, count))
                left -= 1
                if not left:
                    nursery.cancel_scope.cancel()

        for number in range(CLERKS):
            nursery.start_soon(drive, number)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=int)
    parser.add_argument("--level", default="durable")
    parser.add_argument("--early", action="store_true")
    parser.add_argument("--unsynced", action="store_true")
    options = parser.parse_args()
    treewarden.store.writer.IDLE_PAGES = CHECKPOINT_PAGES  # type: ignore[misc] # see its comment
    treewarden.store.writer.BUSY_PAGES = CHECKPOINT_PAGES  # type: ignore[misc]
    if options.early:
        answer_early()
    if options.unsynced:
        treewarden.store.database._SYNCHRONOUS[Level.DURABLE] = "OFF"
    trio.run(work, options.folder, options.answers, options.level)


if __name__ == "__main__":
    main()
