"""A runtime on a small disk that is full, or that nobody may write to.

    python room.py FOLDER full

FOLDER is a disk of a few MiB, and there is ballast on it before the runtime starts. It
answers calls until there is no room, and goes on being called; then some ballast is thrown
overboard, and it must be well again by itself. It is filled up once more, leaves in order
on the full disk, tries to start on it, and starts when there is room.

    python room.py FOLDER read-only

The disk becomes read-only between two lives, and can be written to again before the last.

What was seen is printed as one JSON object; times are in seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from treewarden import Agent, Application, ChildSpec, Config, Runtime, open_runtime
from treewarden.errors import StoreBroken, StoreError
from treewarden.store import check_file

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

# Each is more than the log may hold when it is copied into the file.
BALLAST_BYTES = (5 << 19, 5 << 19)
# What a call adds to the journal, so that the disk is soon full.
TEXT = "x" * 8000
# Many more than a supervisor forgives in its period: no failure may count.
MORE_CALLS = 30
MOST_CALLS = 2000


class Done(msgspec.Struct):
    count: int = 0


class Clerk(Agent[Done]):
    call_timeout = 60.0

    async def step(self) -> int:
        self.state.count += 1
        self.publish("clerk.done", TEXT)
        return self.state.count

    async def known(self) -> int:
        return self.state.count


def application() -> Application:
    """One clerk: each of its calls is a commit of its own."""
    return Application("room", [ChildSpec("clerk", Clerk)])


class Trial:
    """What was answered, and what was seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "db"
        self.answered = 0
        self.words: list[str] = []

    def ballast(self, number: int) -> Path:
        return self.folder / f"ballast-{number}"

    def open(self) -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=self.file, socket=False)
        return open_runtime(application(), config=config)

    async def fill(self, runtime: Runtime) -> None:
        """Call until a call fails."""
        for _ in range(MOST_CALLS):
            if not await self.step(runtime):
                return
        raise AssertionError("the disk is larger than it should be")

    async def step(self, runtime: Runtime) -> bool:
        """Whether a call was answered."""
        try:
            count = await runtime.ref("clerk", Clerk).call(Clerk.step)
        except StoreBroken as error:
            self.words.append(str(error))
            return False
        assert count == self.answered + 1, (count, self.answered)
        self.answered = count
        return True

    async def first_life(self) -> dict[str, Any]:
        """Filled up, called in vain, relieved, and filled up again."""
        for number, size in enumerate(BALLAST_BYTES):
            self.ballast(number).write_bytes(bytes(size))
        async with self.open() as runtime:
            await self.fill(runtime)
            full = runtime.store.statistics().health
            failed = [await self.step(runtime) for _ in range(MORE_CALLS)].count(False)
            read = await self.known(runtime)
            self.ballast(0).unlink()
            relieved = await self.well(runtime)
            again = await self.step(runtime)
            await self.fill(runtime)
            return {
                "health": full,
                "failed": failed,
                "read": read,
                "well_after": relieved,
                "again": again,
            }

    async def well(self, runtime: Runtime) -> float:
        """Seconds until the store says so, while nobody calls."""
        began = time.monotonic()
        with trio.fail_after(30):
            while runtime.store.statistics().health != "ok":  # noqa: ASYNC110
                await trio.sleep(0.005)
        return time.monotonic() - began

    async def events(self, runtime: Runtime) -> int:
        entries = await runtime.store.entries(
            since=0, limit=MOST_CALLS, pattern="clerk.done"
        )
        return len(entries)

    async def try_life(self) -> str:
        """On a disk that is bad from the start: what it comes to."""
        try:
            async with self.open() as runtime:
                return await self.known(runtime)
        except StoreError as error:
            return str(error)

    async def known(self, runtime: Runtime) -> str:
        """Whether it is what was answered, neither more nor less."""
        read = await runtime.ref("clerk", Clerk).call(Clerk.known)
        events = await self.events(runtime)
        return "all" if read == events == self.answered else f"{read}, {events}"

    async def last_life(self) -> dict[str, Any]:
        """On a good disk: what is left of it all."""
        async with self.open() as runtime:
            known = await self.known(runtime)
            return {"left": known, "more": await self.step(runtime)}


async def fill_up(trial: Trial) -> dict[str, Any]:
    """What is seen of a disk without room."""
    seen = await trial.first_life()
    refused = await trial.try_life()
    trial.ballast(1).unlink()
    return seen | {"refused": refused} | await trial.last_life()


async def write_protect(trial: Trial) -> dict[str, Any]:
    """What is seen of a disk that is read-only, by a runtime and by the command."""
    async with trial.open() as runtime:
        assert await trial.step(runtime)
    remount(trial.folder, "ro")
    began = time.monotonic()
    refused = await trial.try_life()
    took = time.monotonic() - began
    command = [sys.executable, "-m", "treewarden.cli", "run", "room:application"]
    done = await trio.run_process(
        [*command, "--headless", "--socket", "false", "--db", str(trial.file)],
        cwd=Path(__file__).parent,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    remount(trial.folder, "rw")
    return {
        "refused": refused,
        "refused_after": took,
        "status": done.returncode,
        "said": done.stderr.decode(),
    } | await trial.last_life()


def remount(folder: Path, how: str) -> None:
    """Make the disk at `folder` read-only, or not."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


WAYS = {"full": fill_up, "read-only": write_protect}


def main() -> None:
    """See it, and print what was seen."""
    trial = Trial(Path(sys.argv[1]))
    seen = trio.run(WAYS[sys.argv[2]], trial)
    seen["answered"] = trial.answered
    seen["words"] = sorted(set(trial.words))
    seen["damaged"] = [str(problem) for problem in check_file(trial.file).problems]
    print(json.dumps(seen))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
