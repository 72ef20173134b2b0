"""Starting, crashing and restarting for a long time leaves nothing behind (R1).

A fresh interpreter lives through the cycles, because the memory of a process that has run
other tests proves nothing: first until everything that is bounded is full, then 10,000
more. A cycle starts a child, has it crash, waits until it has been restarted, and ends it.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections import Counter as Tally
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentRef,
    Application,
    ChildSpec,
    Config,
    Down,
    DynamicSupervisorSpec,
    Intensity,
    open_runtime,
    open_supervisor,
)
from treewarden.errors import AgentCrashed

if TYPE_CHECKING:
    from treewarden import SupervisorRef
    from treewarden.supervision import Directory

Measures: TypeAlias = dict[str, int]

CYCLES = 10_000
# By then the rings, free lists and caches that have a bound are full.
WARM_UP = 2_000
SIDE_BY_SIDE = 20
LOOKS = 4
GROWTH = 1.10
STATM = Path("/proc/self/statm")  # on Linux; elsewhere there is always a ps
# What is kept a little longer, up to some bound: 500 log records that wait for their turn,
# timers that were called off, free lists. One object a cycle would be ten times as much.
SLACK = 1_000


class Total(msgspec.Struct):
    value: int = 0


class Victim(Agent[Total]):
    """Keeps a state, a timer and a monitor, so that a crash has something to forget."""

    call_timeout = 60.0

    async def on_start(self) -> None:
        self.send_after(3600.0, Victim.add)

    async def on_down(self, down: Down) -> None:
        self.state.value += 1

    def add(self) -> int:
        self.state.value += 1
        return self.state.value

    def watch(self, whom: AgentRef[Victim]) -> None:
        self.monitor(whom)

    def fail(self) -> None:
        raise KeyError(self.state.value)


class Forgetful(Victim):
    persistence = "none"


# A budget that is never spent: what is older than a millisecond is not remembered.
ENDLESS = Intensity(1_000_000, 0.001)
ROOM = ChildSpec("room", DynamicSupervisorSpec(intensity=ENDLESS, child_intensity=None))


async def one_cycle(
    room: SupervisorRef, kind: type[Victim], id_: str, other: str
) -> None:
    """Start, crash, restart and end one agent that watches another."""
    await room.start_child(ChildSpec(id_, kind))
    victim: AgentRef[Victim] = AgentRef(room.directory, f"{room.path}/{id_}")
    neighbour: AgentRef[Victim] = AgentRef(room.directory, f"{room.path}/{other}")
    await victim.call(Victim.watch, neighbour)
    first = victim.incarnation
    try:
        await victim.call(Victim.fail)
    except AgentCrashed:
        await victim.call(Victim.add)
    if victim.incarnation != first + 1:
        raise RuntimeError(f"{id_} was not restarted once")
    await room.terminate_child(id_)


async def cycles(room: SupervisorRef, kind: type[Victim], number: int) -> None:
    """So many cycles, some of them at the same time."""

    async def one_after_the_other(place: int) -> None:
        for _ in range(number // SIDE_BY_SIDE):
            await one_cycle(room, kind, f"v{place}", f"v{(place + 1) % SIDE_BY_SIDE}")

    async with trio.open_nursery() as nursery:
        for place in range(SIDE_BY_SIDE):
            nursery.start_soon(one_after_the_other, place)


async def wait_quiet() -> None:
    """Until what is still on its way, such as reports to the store, has arrived."""
    before, now = math.inf, len(gc.get_objects())
    while now < before:
        await trio.sleep(0.3)
        gc.collect()
        before, now = now, len(gc.get_objects())


def measure(directory: Directory) -> Measures:
    """Everything that can be counted in this process and in its tree."""
    gc.collect()
    kinds = Tally(
        f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects()
    )
    return {
        "memory": resident_bytes(),
        "threads": threading.active_count(),
        "files": sum(1 for _ in Path("/dev/fd").iterdir()),
        "nodes": len(directory),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "about timers": len(directory.timers),
        **{f"about {kind}": number for kind, number in kinds.items()},
    }


async def measure_rest(directory: Directory) -> Measures:
    """The least of a few measures: housekeeping may hold something at one of them."""
    found = measure(directory)
    for _ in range(LOOKS):
        await trio.sleep(0.2)
        again = measure(directory)
        found = {what: min(found[what], again.get(what, 0)) for what in found}
    return found


def resident_bytes() -> int:
    """What this process holds of the machine's memory."""
    if STATM.exists():
        return os.sysconf("SC_PAGE_SIZE") * int(STATM.read_text().split()[1])
    ask = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * int(subprocess.run(ask, capture_output=True, check=True).stdout)


async def compare(room: SupervisorRef, kind: type[Victim]) -> None:
    """Print the measures before the cycles and after."""
    found = []
    for number in (WARM_UP, CYCLES):
        await cycles(room, kind, number)
        await wait_quiet()
        found.append(await measure_rest(room.directory))
    print(json.dumps(found), flush=True)  # noqa: T201 - it is read by the test


async def alone() -> None:
    """Supervision alone."""
    async with open_supervisor([ROOM]) as root:
        await compare(root.supervisor("room"), Forgetful)


async def with_a_store(file: str) -> None:
    """A whole runtime, its store on the disk."""
    config = Config(store=Path(file), socket=False, level="crash_safe")
    async with open_runtime(Application("long", [ROOM]), config=config) as runtime:
        await compare(runtime.supervisor("/room"), Victim)


@pytest.mark.parametrize("how", ["alone", "with_a_store"])
def test_r1_ten_thousand_cycles_leave_nothing_behind(tmp_path: Path, how: str) -> None:
    command = [sys.executable, __file__, how, str(tmp_path / "long.db")]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=900)
    before, after = map(dict[str, int], json.loads(run.stdout))
    assert after.pop("memory") < GROWTH * before.pop("memory")
    grown = {
        what: (before.get(what, 0), number)
        for what, number in after.items()
        if number > before.get(what, 0) + (SLACK if what.startswith("about") else 0)
    }
    assert grown == {}


if __name__ == "__main__":
    # The records are made and go nowhere, instead of to the standard error.
    logging.getLogger("treewarden").addHandler(logging.NullHandler())
    if sys.argv[1] == "alone":
        trio.run(alone)
    else:
        trio.run(with_a_store, sys.argv[2])
