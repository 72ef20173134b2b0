"""A runtime on a disk whose K-th write, sync, open or truncation fails, for each K in turn.

    python faults.py FOLDER KIND ERRNO LAST [--share N]

To be run on the disk of `disk.c`. For each K the runtime starts (on a new file, or on one
that a kill left), answers calls until the fault has been, answers some more and stops; then
it starts once more, on a disk that is well, and must know everything that was answered and
nothing that was not. A line a K is printed: K, what became of it (`refused` at the start,
`failed` calls, `unharmed`, or `clean`: there was no K-th call), the seconds until it was well
on the good disk, and what was wrong. It ends
at LAST, or when there were some clean ones. `--share` N leaves two thirds of the later K to
two others, with other errors.

    python faults.py FOLDER heal ERRNO

Every sync fails until a call has (every write, when the disk is read-only); what was answered
can still be read. Then the disk is well, and nobody calls. The seconds until the store says
that it is degraded, and until it says that it is well, are printed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    Runtime,
    open_runtime,
)
from treewarden.errors import StoreBroken, StoreError
from treewarden.store.thread import TROUBLED_SECONDS

# Calls that are made at most for the fault to come, and after it.
CALLS, MORE_CALLS = 260, 3
# What is in a file that a kill left.
CALLS_BEFORE = 5
# What fails while the runtime starts is among so many.
AT_START = 36
# With these it is known that there is no later call: old and new files take turns.
CLEAN = 4
# So many calls in a row fail, by the number of the fault: a moment, or a while.
COUNTS = (1, 4)

disk = ctypes.CDLL(os.environ["LD_PRELOAD"])


class Done(msgspec.Struct):
    count: int = 0


class Clerk(Agent[Done]):
    call_timeout = 60.0
    work: DurableQueue[int]

    async def step(self) -> int:
        self.state.count += 1
        await self.work.put(self.state.count)
        self.publish("clerk.done", self.state.count)
        return self.state.count

    async def known(self) -> tuple[int, int]:
        return self.state.count, len(self.work)


def application() -> Application:
    """One clerk: each of its calls is a commit of its own."""
    return Application("faults", [ChildSpec("clerk", Clerk)])


class Trial:
    """One K: what was answered, and what was wrong."""

    def __init__(self, file: Path, at: int, count: int, answered: int) -> None:
        self.config = Config(store=file, socket=False)
        self.last = at + count - 1
        self.answered = answered
        self.what = "clean"
        self.well_after = 0.0
        self.wrong: list[str] = []

    async def run(self) -> None:
        """On the bad disk, then on a good one."""
        try:
            async with open_runtime(application(), config=self.config) as runtime:
                await self._work(runtime)
        except StoreError as error:
            self.what = "refused"
            if str(self.config.store) not in str(error):
                self.wrong.append(f"which file? {error}")
        if self.what == "clean" and disk.disk_seen() >= self.last:
            self.what = "unharmed"
        disk.disk_fail(b"", 0, 0, 0)
        await self._look_again()

    async def _work(self, runtime: Runtime) -> None:
        left = MORE_CALLS
        for _ in range(CALLS):
            if disk.disk_seen() >= self.last:
                left -= 1
            if await self._call(runtime) and not left:
                return

    async def _call(self, runtime: Runtime) -> bool:
        store = runtime.store
        connection = store._writer.connection
        seen = disk.disk_seen()
        try:
            count = await runtime.ref("clerk", Clerk).call(Clerk.step)
        except StoreBroken as error:
            self.what = "failed"
            if str(self.config.store) not in str(error):
                self.wrong.append(f"which file? {error}")
            if store.statistics().health != "degraded":
                self.wrong.append("a call failed and the store is well")
            if store._writer.connection is connection is not None:
                self.wrong.append("the connection is the one that failed")
            return False
        if count != self.answered + 1:
            self.wrong.append(f"{count} after {self.answered}")
        self.answered = count
        # Until the last fault has been, what failed may be housekeeping, after the commit.
        if store.statistics().health != "ok" and seen >= self.last:
            self.wrong.append("a call was answered and the store is not well")
        return True

    async def _look_again(self) -> None:
        async with open_runtime(application(), config=self.config) as runtime:
            began = time.monotonic()
            clerk = runtime.ref("clerk", Clerk)
            found, left = await clerk.call(Clerk.known)
            if (found, left) != (self.answered, self.answered):
                self.wrong.append(f"{found}, {left} of {self.answered} answered")
            events = await runtime.store.entries(
                since=0, limit=1000, pattern="clerk.done"
            )
            said = [int(event.payload) for event in events]
            if said != list(range(1, found + 1)):
                self.wrong.append(f"events {said}")
            await clerk.call(Clerk.step)
            if runtime.store.statistics().health != "ok":
                self.wrong.append("the store is not well on a good disk")
            self.well_after = time.monotonic() - began


async def heal(file: Path, number: int) -> tuple[float, float]:
    """Seconds until the store is degraded, and then until it is well, left alone."""
    config = Config(store=file, socket=False)
    async with open_runtime(application(), config=config) as runtime:
        clerk = runtime.ref("clerk", Clerk)
        await clerk.call(Clerk.step)
        kind = b"write" if number == errno.EROFS else b"sync"
        disk.disk_fail(kind, 1, number, 1_000_000)
        began = time.monotonic()
        with suppress(StoreBroken):
            await clerk.call(Clerk.step)
        degraded = await _until(runtime, "degraded", began)
        assert await clerk.call(Clerk.known) == (1, 1)
        await trio.sleep(2.5 * TROUBLED_SECONDS)  # it tries, in vain
        disk.disk_fail(b"", 0, 0, 0)
        return degraded, await _until(runtime, "ok", time.monotonic())


async def _until(runtime: Runtime, health: str, began: float) -> float:
    with trio.fail_after(30):
        while runtime.store.statistics().health != health:  # noqa: ASYNC110 - no event
            await trio.sleep(0.005)
    return time.monotonic() - began


def make_unclean(folder: Path) -> None:
    """Leave `unclean.db` as a kill leaves it: with a log, and no note that it was closed."""
    file = folder / "unclean.db"
    child = os.fork()
    if not child:

        async def work() -> None:
            config = Config(store=file, socket=False)
            async with open_runtime(application(), config=config) as runtime:
                for _ in range(CALLS_BEFORE):
                    await runtime.ref("clerk", Clerk).call(Clerk.step)
                os.kill(os.getpid(), 9)

        trio.run(work)
    os.waitpid(child, 0)


def main() -> None:
    """Each K in turn, in this one process."""
    folder, kind, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if kind == "heal":
        print(*trio.run(heal, folder / "db", number))  # noqa: T201 - its answer
        return
    make_unclean(folder)
    share = int(sys.argv[6]) if len(sys.argv) > 5 else None
    clean = 0
    for at in range(1, int(sys.argv[4]) + 1):
        if share is not None and at > AT_START and at // 4 % 3 != share:
            continue
        place = folder / str(at)
        place.mkdir()
        is_old = at % 2
        if is_old:
            for file in folder.glob("unclean.db*"):
                shutil.copyfile(file, place / file.name.replace("unclean", "db"))
        count = COUNTS[at // 2 % len(COUNTS)]
        trial = Trial(place / "db.db", at, count, is_old * CALLS_BEFORE)
        disk.disk_fail(kind.encode(), at, number, count)
        trio.run(trial.run)
        said = f"{at} {trial.what} {trial.well_after:.3f} {'; '.join(trial.wrong[:3])}"
        print(said, flush=True)  # noqa: T201 - its answer
        shutil.rmtree(place)
        clean += trial.what == "clean"
        if clean == CLEAN:
            return


if __name__ == "__main__":
    main()
