"""Durable calls: what it costs that an answer means "on disk".

    python tests/benchmarks/bench_store.py              our rows
    python tests/benchmarks/bench_store.py --compare    beside bare designs, aiosqlite, DBOS

The agents run in a whole runtime as `open_runtime` makes it, at level `durable`, telemetry
as shipped; their state has some 200 bytes, as in the bare designs. Each bare row is
measured right after the one of ours that is compared to it. `bench_collections.py` has the
durable queue and map.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
import types
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import trio
import trio.testing
from rounds import SECONDS, Goal, Peer, anchor, emit, main

from treewarden import Agent, Application, ChildSpec, Config, open_runtime
from treewarden.store import StateWrite, Unit, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from treewarden import AgentRef, Runtime

now = time.perf_counter

STATES = 100_000
READY_AGENTS = 1000
READY_SECONDS = 2.0
TRANSFER = 2  # agents of a transaction
WRITERS = 100

PEERS = (Peer(script="persistence_peers.py", needs=("aiosqlite", "dbos")),)
GOALS = (
    Goal(
        what="1 agent, 100 callers",
        ours="treewarden.durable.1x100",
        than="durable.held.FULL.1x100.rate",
        at_least=0.5,
    ),
    Goal(
        what="1 agent, 100 callers",
        ours="treewarden.durable.1x100",
        than="durable.wait.FULL.1x100.rate",
        at_least=20,
    ),
    Goal(
        what="1 agent, 100 callers",
        ours="treewarden.durable.1x100",
        than="aiosqlite.commit.FULL.100",
        at_least=10,
    ),
    Goal(
        what="100 agents, 100 callers",
        ours="treewarden.durable.100x100",
        than="durable.held.FULL.100x100.rate",
        at_least=0.65,
    ),
    Goal(
        what="100 agents, 1000 callers",
        ours="treewarden.durable.100x1000",
        than="durable.held.FULL.100x1000.rate",
        at_least=0.5,
    ),
    Goal(
        what="100 agents, 100 callers",
        ours="treewarden.durable.100x100",
        than="aiosqlite.commit.FULL.100",
        at_least=7,
    ),
    Goal(
        what="with an event a call, 1x100",
        ours="treewarden.durable.event.1x100",
        than="treewarden.durable.1x100",
        at_least=0.6,
    ),
    Goal(
        what="with an event a call, 100x100",
        ours="treewarden.durable.event.100x100",
        than="treewarden.durable.100x100",
        at_least=0.6,
    ),
    Goal(
        what="64 KB of state",
        ours="treewarden.durable.64KB.1x100",
        than="bare.encode_decode.64KB",
        at_least=0.6,
    ),
    Goal(
        what="store alone, 100 writers",
        ours="treewarden.store.100",
        than="sqlite.trio.writer_thread.FULL.100.rate",
        at_least=0.8,
    ),
    Goal(
        what="store alone, 100 writers",
        ours="treewarden.store.100",
        than="sqlite.commit.sqlite3.FULL.200B.group100",
        at_least=0.3,
    ),
    Goal(
        what="one at a time",
        ours="treewarden.durable.1x1",
        than="durable.wait.FULL.1x1.rate",
        at_least=0.8,
    ),
    Goal(
        what="one at a time",
        ours="treewarden.durable.1x1",
        than="dbos.sqlite.step",
        at_least=3.5,
    ),
    Goal(
        what="recovery of 100,000 states",
        ours=f"treewarden.recovery.rate.{STATES}",
        than=f"recovery.rate_gc.{STATES}",
        at_least=0.6,
    ),
    Goal(
        what="ready after a kill, 1000 agents",
        ours=f"treewarden.ready.{READY_AGENTS}",
        than="goal.ready",
        at_most=1.0,
    ),
    Goal(
        what="transaction over 2 agents, alone",
        ours="treewarden.transaction.alone",
        than="treewarden.call.alone",
        at_most=2.5,
    ),
    Goal(
        what="transactions from 100 tasks",
        ours="treewarden.transactions.100",
        than="treewarden.durable.100x100",
        at_least=0.15,
    ),
)


class Count(msgspec.Struct):
    """As the state of the bare designs."""

    count: int = 0
    owner: str = "someone"
    note: str = "x" * 160


class Counter(Agent[Count]):
    """Counts its calls."""

    async def add(self) -> int:
        self.state.count += 1
        return self.state.count

    async def add_and_tell(self) -> int:
        self.state.count += 1
        self.publish("counter.changed", self.state.count)
        return self.state.count

    def get(self) -> int:
        return self.state.count


class Page(msgspec.Struct):
    """One of many things in a large state."""

    url: str
    text: str
    seen: int


class Pages(msgspec.Struct):
    """64 KB as JSON."""

    count: int
    pages: list[Page]


def large() -> Pages:
    """A state of 64 KB."""
    page = Page(url="https://docs.example.org/library/x.html", text="x" * 180, seen=1)
    size = len(msgspec.json.encode(page)) + 1
    return Pages(count=0, pages=[page] * (64_000 // size))


class Reader(Agent[Pages]):
    """Has a large state, and changes a little of it with each call."""

    def initial_state(self) -> Pages:
        return large()

    async def add(self) -> int:
        self.state.count += 1
        return self.state.count


def forget(folder: Path) -> None:
    """Remove the file of the row before, and its log."""
    for old in folder.glob("db*"):
        old.unlink()


@asynccontextmanager
async def agents(
    folder: Path, count: int, kind: type[Agent[Any]] = Counter
) -> AsyncIterator[tuple[Runtime, list[AgentRef[Any]]]]:
    """A runtime on a new file with `count` agents; nothing is left to do."""
    forget(folder)
    ids = [f"agent-{number:04}" for number in range(count)]
    app = Application("bench", [ChildSpec(id_, kind) for id_ in ids])
    config = Config(store=folder / "db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        await trio.testing.wait_all_tasks_blocked()
        yield runtime, [runtime.ref(id_, kind) for id_ in ids]


async def rate(callers: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Calls a second, all callers counted; each gets its number."""
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        while now() - start < SECONDS:
            await call(number)
            done += 1

    start = now()
    async with trio.open_nursery() as nursery:
        for number in range(callers):
            nursery.start_soon(caller, number)
    return done / (now() - start)


async def durable(
    folder: Path,
    count: int,
    callers: int,
    operation: Any = Counter.add,
    kind: type[Agent[Any]] = Counter,
) -> float:
    """Durable calls a second; what is on disk adds up to what was answered."""
    async with agents(folder, count, kind) as (_, refs):
        found = await rate(callers, lambda number: refs[number % count].call(operation))
        told = sum([await ref.call(operation) for ref in refs])
    with closing(sqlite3.connect(folder / "db")) as connection:
        query = "SELECT sum(payload ->> '$.count') FROM agent_state"
        assert connection.execute(query).fetchone() == (told,)
    return found


async def transactions(folder: Path) -> tuple[float, float, float]:
    """Seconds of one alone and of one call alone; transactions a second of 100 tasks."""
    async with agents(folder, 100) as (runtime, refs):

        async def transfer(number: int) -> None:
            pair = refs[number], refs[(number + 1) % len(refs)]
            async with runtime.transaction(*pair) as tx:
                for ref in pair:
                    await tx.call(ref, Counter.add)

        alone = await rate(1, transfer)
        call = await rate(1, lambda number: refs[number].call(Counter.add))
        return 1 / alone, 1 / call, await rate(100, transfer)


async def store_alone(folder: Path) -> float:
    """Encoded rows in, awaited one by one by 100 tasks."""
    payload = msgspec.json.encode(Count())
    revisions = [0] * WRITERS
    async with open_store(folder / "alone.db") as store:

        async def write(number: int) -> None:
            revisions[number] += 1
            unit = Unit(f"/agent-{number:04}")
            unit.state = StateWrite("Count", 1, revisions[number], payload)
            store.hand_over(unit)
            await store.wait(unit)

        return await rate(WRITERS, write)


def encode_decode() -> float:
    """How many times a second a state of 64 KB can be encoded and decoded."""
    state, decoder = large(), msgspec.json.Decoder(Pages)
    encode = msgspec.json.Encoder().encode
    done, start = 0, now()
    while now() - start < SECONDS:
        decoder.decode(encode(state))
        done += 1
    return done / (now() - start)


async def recovery(folder: Path) -> float:
    """States a second: each looked up by its path, as an agent does, and decoded."""
    payload, decoder = msgspec.json.encode(Count()), msgspec.json.Decoder(Count)
    paths = [f"/agent-{number:08}" for number in range(STATES)]
    async with open_store(folder / "recovery.db") as store:
        for path in paths:
            unit = Unit(path)
            unit.state = StateWrite("Count", 1, 1, payload)
            await store.wait_room()
            store.hand_over(unit)
        await store.settled()

    async with open_store(folder / "recovery.db") as store:
        states = []
        start = now()
        for path in paths:
            stored = await store.load(path, "Count")
            assert stored is not None
            states.append(decoder.decode(stored.payload))
        return STATES / (now() - start)


def ready_after_kill(folder: Path) -> float:
    """Seconds until 1000 agents with states that a kill left are all up again."""

    async def die() -> None:
        async with agents(folder, READY_AGENTS) as (_, refs):
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    nursery.start_soon(ref.call, Counter.add)
            os.kill(os.getpid(), signal.SIGKILL)

    async def come_back() -> float:
        ids = [f"agent-{number:04}" for number in range(READY_AGENTS)]
        app = Application("bench", [ChildSpec(id_, Counter) for id_ in ids])
        config = Config(store=folder / "db", socket=False)
        start = now()
        async with open_runtime(app, config=config) as runtime:
            took = now() - start
            assert await runtime.ref(ids[-1], Counter).call(Counter.get) == 1
        return took

    child = os.fork()
    if not child:
        trio.run(die)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return trio.run(come_back)


class Bare:
    """The bare designs of `anchors/`, which print their rows themselves."""

    def __init__(self, folder: Path) -> None:
        # Only for rows that are not measured here, and no part of the project.
        if "apsw" not in sys.modules:
            sys.modules["apsw"] = types.ModuleType("apsw")
            sys.modules["apsw"].Connection = object  # type: ignore[attr-defined]
        self._replies = anchor("durable_replies")
        self._limits = anchor("sqlite_limits")
        self._folder = folder / "bare"
        self._folder.mkdir()

    def _fresh(self) -> Any:
        return self._limits.fresh(self._folder, self._limits.open_sqlite3, "FULL")

    def durable(self, design: str, count: int, callers: int) -> None:
        """Agents that wait for each commit, or whose replies alone do."""
        made, store = {
            "wait": (self._replies.Waiting, self._limits.WriterThread),
            "held": (self._replies.Held, self._replies.HoldingStore),
        }[design]
        with closing(self._fresh()) as db:
            name = f"durable.{design}.FULL.{count}x{callers}"
            trio.run(self._replies.durable, name, made, store(db), count, callers)

    def store(self) -> None:
        """A writer thread without agents; and raw groups of 100 rows."""
        limits = self._limits
        with closing(self._fresh()) as db:
            name = "sqlite.trio.writer_thread.FULL.100"
            trio.run(limits.updates, name, limits.WriterThread, db, WRITERS)
        with closing(self._fresh()) as db:
            found = limits.raw_commits(db, 200, 100)
            emit("sqlite.commit.sqlite3.FULL.200B.group100", found, "rows/s")

    def recovery(self) -> None:
        """Select everything and decode it."""
        arguments, sys.argv = sys.argv, [sys.argv[0], str(STATES)]
        anchor("sqlite_recovery").main()
        sys.argv = arguments


def measure(with_bare: bool) -> None:
    """Every row of ours and, right after it, the bare one that it is compared to."""
    with TemporaryDirectory(dir=os.environ.get("ANCHOR_DIR")) as name:
        folder = Path(name)
        # Before any thread: it forks.
        emit(f"treewarden.ready.{READY_AGENTS}", ready_after_kill(folder), "s")
        emit("goal.ready", READY_SECONDS, "s")
        bare = Bare(folder) if with_bare else None
        for count, callers in ((1, 1), (1, 100), (100, 100), (100, 1000)):
            shape = f"{count}x{callers}"
            found = trio.run(durable, folder, count, callers)
            emit(f"treewarden.durable.{shape}", found, "calls/s")
            if bare is not None:
                bare.durable("held", count, callers)
            if bare is not None and count == 1:
                bare.durable("wait", count, callers)
            if callers == 100:
                found = trio.run(durable, folder, count, callers, Counter.add_and_tell)
                emit(f"treewarden.durable.event.{shape}", found, "calls/s")
        found = trio.run(durable, folder, 1, 100, Reader.add, Reader)
        emit("treewarden.durable.64KB.1x100", found, "calls/s")
        emit("bare.encode_decode.64KB", encode_decode(), "calls/s")
        emit("treewarden.store.100", trio.run(store_alone, folder), "rows/s")
        if bare is not None:
            bare.store()
        alone, call, many = trio.run(transactions, folder)
        emit("treewarden.transaction.alone", alone, "s")
        emit("treewarden.call.alone", call, "s")
        emit("treewarden.transactions.100", many, "transactions/s")
        found = trio.run(recovery, folder)
        emit(f"treewarden.recovery.rate.{STATES}", found, "states/s")
        if bare is not None:
            bare.recovery()


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
