"""What is remembered in the tests of `kill -9`, and the run that is killed."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import trio

from treewarden import (
    Application,
    ChildSpec,
    Config,
    DynamicSupervisorSpec,
    open_runtime,
)

STARTED: list[str] = []
"""Who was started in this process, in order."""


async def member(name: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Stay, once it is noted."""
    STARTED.append(name)
    task_status.started()
    await trio.sleep_forever()


def application() -> Application:
    """One supervisor that remembers."""
    crew = ChildSpec("crew", DynamicSupervisorSpec(remember=True))
    return Application("crew", [crew])


def config(file: Path) -> Config:
    """A durable store at `file`."""
    return Config(store=file, socket=False)


def say(word: str, name: str) -> None:
    """One write a line: into a pipe it is whole or not at all."""
    os.write(1, f"{word} {name}\n".encode())


async def come_and_go(file: Path, seed: int) -> None:
    """Start and terminate members for ever; say what is begun and what was answered."""
    randomly = random.Random(seed)  # noqa: S311 - an order, not a secret
    async with open_runtime(application(), config=config(file)) as runtime:
        for name in STARTED:
            say("there", name)
        say("ready", "")
        crew = runtime.supervisor("crew")
        present = list(STARTED)
        number = 0
        while True:
            if len(present) > 5 and randomly.random() < 0.5:
                name = present.pop(randomly.randrange(len(present)))
                say("terminate", name)
                await crew.terminate_child(name)
                say("terminated", name)
            else:
                number += 1
                name = f"m-{os.getpid()}-{number}"
                say("start", name)
                await crew.start_child(ChildSpec(name, member, args=[name]))
                say("started", name)
                present.append(name)


if __name__ == "__main__":
    trio.run(come_and_go, Path(sys.argv[1]), int(sys.argv[2]))
