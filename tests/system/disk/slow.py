"""A runtime whose disk is slow, or whose file somebody else has locked; what it measures.

    python slow.py FOLDER slow MILLISECONDS         callers that the store has room for
    python slow.py FOLDER flooded MILLISECONDS      more than it has room for
    python slow.py FOLDER locked SECONDS            or until every caller has failed

To be run on the disk of `disk.c`. A heartbeat notes how late each of its beats is, first
while nothing happens and then under load; callers note how long each answer took. What was
measured is printed as one JSON object; times are in seconds.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import trio

import treewarden.store.store
from treewarden import Agent, Application, ChildSpec, Config, Runtime, open_runtime
from treewarden.errors import StoreBroken

AGENTS, CALLERS = 20, 100
BEAT_SECONDS = 0.002
IDLE_SECONDS, LOADED_SECONDS = 2.0, 4.0
# Few enough to be reached: the rule is the same.
QUEUE_UNITS = 30

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Count(msgspec.Struct):
    value: int = 0


class Counter(Agent[Count]):
    call_timeout = 60.0

    async def add(self) -> int:
        self.state.value += 1
        return self.state.value

    def get(self) -> int:
        return self.state.value


async def beat(lateness: list[float]) -> None:
    """Note how late each beat is, until cancelled."""
    while True:
        due = time.perf_counter() + BEAT_SECONDS
        await trio.sleep(BEAT_SECONDS)
        lateness.append(time.perf_counter() - due)


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of them is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def call_for_ever(
    runtime: Runtime,
    number: int,
    answers: list[float],
    failures: list[float],
    until: float = math.inf,
) -> None:
    """One caller, to its first failure after `until`; the seconds of each call."""
    counter = runtime.ref(f"counter-{number % AGENTS}", Counter)
    while True:
        began = time.perf_counter()
        try:
            await counter.call(Counter.add)
        except StoreBroken:
            failures.append(time.perf_counter() - began)
            if trio.current_time() >= until:
                return
        else:
            answers.append(time.perf_counter() - began)


async def measure(folder: Path, way: str, number: int) -> dict[str, Any]:
    """Idle, then loaded for a while, or locked out."""
    idle: list[float] = []
    loaded: list[float] = []
    answers: list[float] = []
    failures: list[float] = []
    queued = 0
    counters = [ChildSpec(f"counter-{n}", Counter) for n in range(AGENTS)]
    config = Config(store=folder / "db", socket=False)
    async with open_runtime(Application("slow", counters), config=config) as runtime:
        await runtime.ref("counter-0", Counter).call(Counter.add)
        with trio.move_on_after(IDLE_SECONDS):
            await beat(idle)
        before = runtime.store.statistics()

        async def watch() -> None:
            nonlocal queued
            while True:
                queued = max(queued, runtime.store.statistics().queued)
                await trio.sleep(BEAT_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(beat, loaded)
            if way == "locked":
                await be_locked_out(runtime, folder, number, answers, failures)
            else:
                ctypes.CDLL(os.environ["LD_PRELOAD"]).disk_slow(number)
                for caller in range(CALLERS):
                    nursery.start_soon(
                        call_for_ever, runtime, caller, answers, failures
                    )
                await trio.sleep(LOADED_SECONDS)
            nursery.cancel_scope.cancel()
        after = runtime.store.statistics()
        ctypes.CDLL(os.environ["LD_PRELOAD"]).disk_slow(0)
        await runtime.store.settled()
        total = sum(
            [await runtime.ref(one.id, Counter).call(Counter.get) for one in counters]
        )
    return {
        "idle_lag": quantile(idle, 0.999),
        "lag": quantile(loaded, 0.999),
        "answers": len(answers),
        "answer_median": quantile(answers, 0.5) if answers else 0.0,
        "answer_longest": max(answers, default=0.0),
        "failures": len(failures),
        "failure_longest": max(failures, default=0.0),
        "commits": after.commits - before.commits,
        "queued": queued,
        "room": QUEUE_UNITS + AGENTS,
        "kept": total,
        "health": after.health,
    }


async def be_locked_out(
    runtime: Runtime,
    folder: Path,
    seconds: float,
    answers: list[float],
    failures: list[float],
) -> None:
    """Call while another process has the file, and a little longer."""
    holder = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(folder / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    assert holder.stdout is not None
    await holder.stdout.receive_some()
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(call_for_ever, runtime, number, answers, failures, until)
    holder.kill()
    await holder.wait()
    await runtime.store.wait_healthy()
    began = time.perf_counter()
    await runtime.ref("counter-0", Counter).call(Counter.add)
    answers.append(time.perf_counter() - began)
    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                nursery.start_soon(call_for_ever, runtime, number, answers, failures)


def main() -> None:
    """Measure and print."""
    folder, way, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if way == "flooded":
        treewarden.store.store.QUEUE_UNITS = QUEUE_UNITS  # type: ignore[misc] # see its comment
    found = trio.run(measure, folder, way, number)
    with sqlite3.connect(folder / "db") as connection:
        rows = connection.execute("SELECT payload FROM agent_state")
        found["stored"] = sum(json.loads(payload)["value"] for (payload,) in rows)
    print(json.dumps(found))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
