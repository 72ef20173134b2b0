"""Restarts, mass start, memory and mass stop: what supervision of an agent costs.

    python tests/benchmarks/bench_supervision.py              our rows
    python tests/benchmarks/bench_supervision.py --compare    beside bare trio, mode, BEAM

The agents run in a whole runtime as `open_runtime` makes it, with a store on disk in which
the reports of starts, exits and restarts are queued. From the crash to the replacement's
`on_start` passes everything that a restart does: the fault is captured, budgets are asked,
reports are made.
"""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
import trio.testing
from rounds import ANCHORS, SECONDS, Goal, Peer, anchor, emit, emit_latency, main

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DynamicSupervisorSpec,
    Intensity,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from treewarden import AgentRef, Runtime

now = time.perf_counter

RESTARTS = 3000
MANY = 10_000
FEW = 10
# Never spent: what is measured is the restart, not the giving up.
PATIENT = Intensity(1_000_000_000, 1.0)

PEERS = (
    Peer(script="python_supervision.py", needs=("mode", "thespian")),
    Peer(script="beam_supervision.exs", needs=("elixir",)),
)
GOALS = (
    Goal(
        what="crash to ready, p50",
        ours="treewarden.restart.agent.p50",
        than="beam.restart.kill.1.p50",
        at_most=1.0,
    ),
    Goal(
        what="crash to ready, p50",
        ours="treewarden.restart.agent.p50",
        than="mode.restart.one_for_one.p50",
        at_most=1.0,
    ),
    Goal(
        what="crash to ready, p99",
        ours="treewarden.restart.agent.p99",
        than="beam.restart.kill.1.p99",
        at_most=0.6,
    ),
    Goal(
        what="restarts/s, 1 child",
        ours="treewarden.restarts.sustained.1",
        than="beam.restarts.sustained.1",
        at_least=1.5,
    ),
    Goal(
        what="restarts/s, 100 children",
        ours="treewarden.restarts.sustained.100",
        than="beam.restarts.sustained.100",
        at_least=2.0,
    ),
    Goal(
        what="start of 10,000",
        ours="treewarden.start.10000",
        than="trio.start.soon.10000",
        at_most=2.5,
    ),
    Goal(
        what="memory of an agent",
        ours="treewarden.memory.10000",
        than="trio.memory.soon.10000",
        at_most=1.8,
    ),
    Goal(
        what="orderly stop of 10,000",
        ours="treewarden.stop.10000",
        than="beam.shutdown.dynamic.10000",
        at_most=0.7,
    ),
    Goal(
        what="restart among 10,000",
        ours="treewarden.restart.of_10000.p50",
        than="treewarden.restart.of_10.p50",
        at_most=1.5,
    ),
    Goal(
        what="look-up among 10,000",
        ours="treewarden.lookup.of_10000",
        than="treewarden.lookup.of_10",
        at_most=1.5,
    ),
)


class Seen(msgspec.Struct):
    """How many messages an agent has handled."""

    messages: int = 0


class Crash(Exception):
    """Raised on purpose."""


class Fragile(Agent[Seen]):
    """Crashes when told to; says when it is up."""

    persistence = "none"
    up: trio.Event | None = None
    up_at = 0.0

    async def on_start(self) -> None:
        Fragile.up_at = now()
        if Fragile.up is not None:
            Fragile.up.set()

    async def crash(self) -> None:
        raise Crash


class Looping(Agent[Seen]):
    """Crashes as soon as it is up, for as long as it is asked to."""

    persistence = "none"
    crashes = 0
    goes_on = True

    async def on_start(self) -> None:
        if Looping.goes_on:
            self.continue_with(Looping.crash)

    async def crash(self) -> None:
        Looping.crashes += 1
        raise Crash


class Quiet(Agent[Seen]):
    """Waits for what never comes."""

    persistence = "none"


@asynccontextmanager
async def running(children: Sequence[ChildSpec]) -> AsyncIterator[Runtime]:
    """A runtime with these children, on a store in a folder of its own."""
    app = Application("bench", children, intensity=PATIENT)
    # As in the anchor on the BEAM: nobody reads a line for every crash.
    logging.getLogger("treewarden").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        config = Config(store=Path(folder) / "bench.db", socket=False)
        async with open_runtime(app, config=config) as runtime:
            yield runtime


async def crash_to_ready(siblings: int) -> list[float]:
    """Seconds from the crashing cast to the replacement's on_start, of one of many."""
    quiet = [ChildSpec(f"quiet-{number}", Quiet) for number in range(siblings)]
    async with running([*quiet, ChildSpec("fragile", Fragile)]) as runtime:
        ref = runtime.ref("fragile", Fragile)
        await trio.sleep(0.2)
        times = [await _one_crash(ref) for _ in range(RESTARTS)]
        Fragile.up = None
    return times


async def _one_crash(ref: AgentRef[Fragile]) -> float:
    Fragile.up = up = trio.Event()
    at = now()
    ref.cast_nowait(Fragile.crash)
    await up.wait()
    # As the anchors do: the next one when this one is over.
    await trio.lowlevel.checkpoint()
    return Fragile.up_at - at


async def sustained(children: int) -> float:
    """Restarts a second of children that crash as soon as they are up."""
    Looping.goes_on, Looping.crashes = True, 0
    specs = [ChildSpec(f"loop-{number}", Looping) for number in range(children)]
    async with running(specs):
        before, start = Looping.crashes, now()
        await trio.sleep(SECONDS)
        rate = (Looping.crashes - before) / (now() - start)
        Looping.goes_on = False
    return rate


async def look_up(children: int) -> float:
    """Microseconds to find an agent by path and its specification by id."""
    specs = [ChildSpec(f"quiet-{number}", Quiet) for number in range(children)]
    async with running(specs) as runtime:
        supervisor = runtime.supervisor("/application")
        count, start = 0, now()
        while now() - start < SECONDS:
            for number in range(FEW):
                name = f"quiet-{number}"
                assert runtime.ref(f"/{name}").path == f"/{name}"
                assert supervisor.get_childspec(name).id == name
                count += 1
        return (now() - start) / count * 1e6


async def mass(count: int) -> None:
    """Start `count` agents under a dynamic supervisor, then stop them in order."""
    memory = anchor("_anchor").rss_bytes
    async with running([ChildSpec("crowd", DynamicSupervisorSpec())]) as runtime:
        supervisor = runtime.supervisor("/crowd")
        gc.collect()
        before, start = memory(), now()
        for number in range(count):
            await supervisor.start_child(ChildSpec(f"quiet-{number}", Quiet))
        started = now()
        emit(f"treewarden.start.{count}", (started - start) * 1e3, "ms")
        emit(f"treewarden.memory.{count}", (memory() - before) / count, "B/child")
        stopping = now()
        await runtime.supervisor("/application").terminate_child("crowd")
        emit(f"treewarden.stop.{count}", (now() - stopping) * 1e3, "ms")


def measure(with_bare: bool) -> None:
    """Every row of ours and the bare ones that they are compared to."""
    if with_bare:
        bare = anchor("trio_supervision")
        bed = bare.Bed(RESTARTS)
        trio.run(bare.supervisor_soon, bed)
        emit_latency("trio.restart.supervisor_soon", bed.times)
    emit_latency("treewarden.restart.agent", trio.run(crash_to_ready, 0))
    for children in (1, 100):
        rate = trio.run(sustained, children)
        emit(f"treewarden.restarts.sustained.{children}", rate, "restarts/s")
        if with_bare:
            rate = trio.run(bare.sustained, children)
            emit(f"trio.restarts.sustained.{children}", rate, "restarts/s")
    # Memory and mass start need a process in which nothing was before.
    _run(__file__, "mass", str(MANY))
    if with_bare:
        for how in ("soon", "soon_asked"):
            _run(str(ANCHORS / "trio_supervision.py"), str(MANY), how)
    for children in (FEW, MANY):
        emit_latency(
            f"treewarden.restart.of_{children}", trio.run(crash_to_ready, children - 1)
        )
    for children in (FEW, MANY):
        emit(f"treewarden.lookup.of_{children}", trio.run(look_up, children), "us")


def _run(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, script, *arguments], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["mass"]:
        trio.run(partial(mass, int(sys.argv[2])))
    else:
        sys.exit(main(__file__, measure, GOALS, PEERS))
