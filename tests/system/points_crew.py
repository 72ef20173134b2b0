"""Runtimes under load that break at a named point: one after the other, forked from a warm process.

    python points_crew.py FOLDER [--early] < orders

Each line of the input is one life: a point, what is done there, and at which reach. The
process forks, and the child runs the whole application on `FOLDER/db` until it was broken
there and has healed, or is dead; nothing is loaded but Python's modules when it forks.
What it says goes to `FOLDER/ledger`, one line and one write each, which outlives it:

    born POINT DEED NTH     a life begins
    journal POSITION        where the journal ends when the store is open
    found CLERK COUNT       what a clerk knows when its load begins
    wrong WORDS             what must never be seen
    try CLERK               a call goes out
    done CLERK COUNT        it was answered
    said POSITION           a publish was answered
    reached POINT TIMES     how often a point was reached in this life (not if it is killed)
    ended STATUS            its exit status, -9 when it was killed

A clerk's call takes an item off its queue, puts a new one, counts, publishes an event and
tells the tally, which is slow and has a small mailbox. Beside that: somebody publishes, an
agent crashes, a client watches over the socket, backups are made, the journal is read, the
log is cut. `--early` breaks the store on purpose: it answers before its commit.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from functools import partial
from operator import ge
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

import treewarden.config
import treewarden.store.retention
import treewarden.store.thread
import treewarden.store.writer
from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableMap,
    DurableQueue,
    HttpPolicy,
    Intensity,
    MailboxPolicy,
    open_runtime,
)
from treewarden.control import connect
from treewarden.control.protocol import GetTree, Topic
from treewarden.errors import ControlError, TreewardenError
from treewarden.gateways import transport  # noqa: F401 - warm before the fork
from treewarden.injection import POINTS, Deed, InjectionPlan, Rule, load_plan
from treewarden.runtime import current_runtime
from treewarden.store import Level, Store, Unit
from treewarden.store.checking import problems
from treewarden.store.copies import discard, partial_name
from treewarden.store.database import open_database
from treewarden.store.upkeep import restore_file
from treewarden.telemetry import otel  # noqa: F401 - warm before the fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.injection import Loaded

CLERKS: Final = 4
ITEMS: Final = 3
# Of the journal: so few that there is always something too old.
KEEP_BYTES: Final = 20_000
HEAL_SECONDS: Final = 30.0
LIFE_SECONDS: Final = 90
FIRST_SCHEMA = Path(__file__).parents[1] / "data" / "schema_1.sql"
OPENING = (
    "store.lock", "store.judge", "store.connect", "store.quick_check", "store.begin_run",
    "store.load_", "store.readers", "store.thread_start", "store.queue_page",
    "store.map_page",
)  # fmt: skip
"""Points that are passed when a runtime starts: the plan is loaded before."""
OFFLINE = ("store.migrate.", "store.restore.")
"""Points that no running runtime passes."""
OUTSIDE = ("http.", "program.")
"""Points on the ways out of the process."""
LEAVING = ("store.close", "store.end_run", "agent.leave", "supervisor.stop")
"""Points that are passed when it ends."""
FIRST_FAILING: Final = {
    "store.roll_back": Rule(point="store.commit.before", do=Deed.RAISE),
    "store.reconnect": Rule(point="store.commit.before", do=Deed.RAISE),
    "store.probe": Rule(point="store.commit.before", do=Deed.RAISE, times=30),
    "store.step": Rule(point="store.write.state", do=Deed.RAISE, error="row"),
}
"""Points behind a failure: what has to fail first."""


class Done(msgspec.Struct):
    filled: int = 0
    count: int = 0
    ticks: int = 0


class Seen(msgspec.Struct):
    notes: int = 0


class Tally(Agent[Seen]):
    mailbox = MailboxPolicy(capacity=2)

    async def note(self) -> None:
        self.state.notes += 1
        await trio.sleep(0.002)


class Wreck(Agent[Seen]):
    async def crash(self) -> None:
        self.state.notes += 1
        raise ValueError("on purpose")


class Clerk(Agent[Done]):
    work: DurableQueue[int]
    last: DurableMap[str, int]

    async def on_start(self) -> None:
        while self.state.filled < ITEMS:
            await self.work.put(self.state.filled)
            self.state.filled += 1
        self.send_after(0.02, Clerk.tick)

    async def on_stop(self, exit: Any) -> None:  # noqa: A002 - its name
        pass

    async def step(self) -> int:
        item = await self.work.take()
        last = await self.last.get("step")
        if item is None or not item.value == (last or 0) == self.state.count:
            say(f"wrong {self.path} has {item} and {last} after {self.state}")
            return self.state.count
        await item.ack()
        await self.last.set("step", self.state.count + 1)
        await self.work.put(self.state.filled)
        self.state.filled += 1
        self.state.count += 1
        self.publish("clerk.done", item.value)
        self.cast(self.runtime.ref("/tally", Tally), Tally.note)
        return self.state.count

    async def tick(self) -> None:
        self.state.ticks += 1
        self.publish("clerk.tick", self.state.ticks)
        self.send_after(0.02, Clerk.tick)

    async def known(self) -> int:
        if self.state.filled - self.state.count != len(self.work):
            say(f"wrong {self.path} is half: {self.state} with {len(self.work)} items")
        return self.state.count


_ledger = 1


def say(line: str) -> None:
    """One write a line: whole or not at all, and it outlives the process."""
    os.write(_ledger, line.encode() + b"\n")


class Load:
    """What the clerks are asked, and how often they answered in this life."""

    def __init__(self) -> None:
        self.answers = [0] * CLERKS

    async def drive(self, number: int) -> None:
        """Call one clerk for ever, one call at a time."""
        ref = current_runtime().ref(f"/clerk-{number}", Clerk).with_timeout(2.0)
        known = None
        while True:
            with suppress(TreewardenError):
                if known is None:
                    known = await ref.call(Clerk.known)
                    say(f"found {number} {known}")
                say(f"try {number}")
                say(f"done {number} {await ref.call(Clerk.step)}")
                self.answers[number] += 1
                continue
            await trio.sleep(0.01)


async def publish() -> None:
    """Publish for ever; what is answered must be in the journal."""
    runtime = current_runtime()
    while True:
        with suppress(TreewardenError):
            event = await runtime.bus.publish("crew.said", os.getpid())
            say(f"said {event.position}")
        await trio.sleep(0.01)


async def crash() -> None:
    """Have an agent crash now and then."""
    wreck = current_runtime().ref("/wreck", Wreck)
    while True:
        with suppress(TreewardenError):
            await wreck.cast(Wreck.crash)
        await trio.sleep(0.05)


async def operate(folder: Path) -> None:
    """Read the journal and make backups, as operators do."""
    store = current_runtime().store
    copy = folder / f"copy-{os.getpid()}"
    while True:
        with suppress(TreewardenError, OSError, sqlite3.Error):
            await store.entries(since=None, limit=5)
            await store.backup(copy)
            with closing(sqlite3.connect(copy)) as connection:
                for problem in problems(connection):
                    say(f"wrong backup: {problem}")
        for left in (copy, partial_name(copy)):
            discard(left)
        await trio.sleep(0.05)


async def watch(folder: Path) -> None:
    """Be a client that comes, looks and goes."""
    while True:
        with suppress(ControlError, OSError, trio.BrokenResourceError):
            async with connect(folder / "socket") as remote:
                await remote.request("tree", GetTree())
                with trio.move_on_after(0.1):
                    async for _ in remote.watch([Topic.TREE, Topic.EVENTS]):
                        pass
        await trio.sleep(0.02)


async def go_out() -> None:
    """Ask a site of one's own and run programs, for ever."""
    runtime = current_runtime()
    policy = HttpPolicy(attempts=1, circuit=None, trust_env=False)
    client = runtime.http.client("crew", policy)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer_once, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        while True:
            with suppress(TreewardenError):
                await client.get(url)
            with suppress(TreewardenError):
                await runtime.programs.run(["true"])
            await trio.sleep(0.01)


async def answer_once(stream: trio.SocketStream) -> None:
    """Be a site that says nothing, politely."""
    with suppress(trio.BrokenResourceError):
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 204 Quiet\r\nConnection: close\r\n\r\n")


def application(folder: Path, load: Load, point: str) -> Application:
    """Everything that a point could be reached by."""
    children = [
        ChildSpec("tally", Tally),
        ChildSpec("wreck", Wreck),
        *(ChildSpec(f"clerk-{n}", Clerk) for n in range(CLERKS)),
        *(ChildSpec(f"drive-{n}", load.drive, args=(n,)) for n in range(CLERKS)),
        ChildSpec("publish", publish),
        ChildSpec("crash", crash),
        ChildSpec("operate", operate, args=(folder,)),
    ]
    if point.startswith("process."):
        children.append(
            ChildSpec("apart", trio.sleep, args=(0.05,), isolation="process")
        )
    if point.startswith(OUTSIDE):
        children.append(ChildSpec("go_out", go_out))
    return Application("points", children, intensity=Intensity(1000, 5.0))


async def live(folder: Path, point: str, do: Deed, nth: int) -> int:
    """One life; its exit status."""
    rules = [Rule(point=point, do=do, nth=nth)]
    if point in FIRST_FAILING:
        rules.insert(0, FIRST_FAILING[point])
    plan = InjectionPlan(name="crew", injections=tuple(rules))
    load_plan(InjectionPlan(name="census"))
    early = load_plan(plan) if point.startswith(OPENING) else None
    load = Load()
    config = Config(
        store=folder / "db",
        socket=folder / "socket",
        rights="chaos",
        shutdown=5.0,
        journal_bytes=KEEP_BYTES,
        otlp="http://127.0.0.1:9" if point.startswith("telemetry.") else None,
    )
    for _ in range(2):
        try:
            async with open_runtime(
                application(folder, load, point), config=config
            ) as runtime:
                say(f"journal {runtime.store.position}")
                loaded = early or runtime.injections.load(plan)
                healed = await _see_it_heal(folder, load, loaded, point)
        except (TreewardenError, OSError, sqlite3.Error) as error:
            if early is None or not early.done:
                say(f"failed {error!r}")
                return 5
            # It broke while it started: the next attempt must come through.
            continue
        if not _is_done(loaded):
            return 4
        return 0 if healed else 6
    return 7


async def _see_it_heal(folder: Path, load: Load, loaded: Loaded, point: str) -> bool:
    """Wait until it was broken and every clerk has answered again."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, folder)
        with trio.move_on_after(HEAL_SECONDS) as patience:
            await _until(lambda: _is_done(loaded) or point.startswith(LEAVING))
            goal = [answers + 2 for answers in load.answers]
            await _until(lambda: all(map(ge, load.answers, goal)))
        nursery.cancel_scope.cancel()
    return not patience.cancelled_caught


def _is_done(loaded: Loaded) -> bool:
    _, last = loaded.deeds()[-1]
    return last.done > 0


async def _until(holds: Callable[[], bool]) -> None:
    # What happens in the writer's thread is told to nobody.
    while not holds():  # noqa: ASYNC110 - nobody there to set an event
        await trio.sleep(0.005)


def old_file(file: Path) -> Path:
    """Make a file of the first schema."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return file


def handle_file(folder: Path, point: str, do: Deed, nth: int) -> int:
    """A life that only migrates an old file, or restores a backup; its exit status."""
    file = old_file(folder / f"old-{os.getpid()}")
    (folder / "old.new").symlink_to(file.name)
    (folder / "old.new").rename(folder / "old")
    backup = old_file(folder / f"backup-{os.getpid()}")
    restores = point.startswith("store.restore.")
    if restores:
        open_old(file)
        open_old(backup)
    plan = load_plan(
        InjectionPlan(name="crew", injections=(Rule(point=point, do=do, nth=nth),))
    )
    with suppress(TreewardenError, OSError):
        if restores:
            restore_file(backup, file, replace=True)
        else:
            open_old(file)
    return 0 if plan.done else 4


def open_old(file: Path) -> None:
    """Open it as a runtime does, and say what is wrong with it."""
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="b")
    states = opened.connection.execute("SELECT count(*) FROM agent_state").fetchone()
    crashes = opened.connection.execute("SELECT count(*) FROM agent_crash").fetchone()
    for problem in problems(opened.connection):
        say(f"wrong old file: {problem}")
    say(f"old {states[0]} {crashes[0]}")
    for connection in (*opened.readers, opened.connection):
        connection.close()
    opened.database.close()


def answer_early() -> None:
    """Release what waits for a commit as soon as it is handed over."""
    really = Store.hand_over

    def hand_over(store: Store, unit: Unit) -> None:
        really(store, unit)
        for tell in unit.release:
            tell(None)
        unit.release.clear()

    Store.hand_over = hand_over  # type: ignore[assignment,method-assign] # the point of it


def begin(folder: Path, point: str, do: Deed, nth: int) -> int:
    """Run a life in this process, the fork; its exit status."""
    say(f"born {point} {do} {nth}")
    if point.startswith(OFFLINE):
        status = handle_file(folder, point, do, nth)
    else:
        status = trio.run(live, folder, point, do, nth)
    for one in POINTS.values():
        if one.reached:
            say(f"reached {one.name} {one.reached}")
    return status


def main() -> None:
    """Fork a life for each line."""
    global _ledger
    folder = Path(sys.argv[1])
    _ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    logging.disable()
    # Often enough that all housekeeping happens within a life.
    writer: Any = treewarden.store.writer
    writer.IDLE_PAGES, writer.BUSY_PAGES = 20, 60
    writer.TRUNCATE_BYTES = writer.REST_BYTES = 1 << 14
    settings: Any = treewarden.config
    retention: Any = treewarden.store.retention
    settings._LEAST_JOURNAL = retention.LEAST_BYTES = KEEP_BYTES
    thread: Any = treewarden.store.thread
    thread.REST_SECONDS = thread.BUSY_SECONDS = 0.05
    if "--early" in sys.argv:
        answer_early()
    gc.freeze()
    for line in sys.stdin:
        point, do, nth = line.split()
        child = os.fork()
        if not child:
            signal.alarm(LIFE_SECONDS)
            status = 8
            try:
                status = begin(folder, point, Deed(do), int(nth))
            except BaseException as error:  # noqa: BLE001 - told, and the fork ends
                say(f"failed {error!r}")
            os._exit(status)
        _, status = os.waitpid(child, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")
        if point.startswith(OFFLINE):
            open_old((folder / "old").resolve())


if __name__ == "__main__":
    main()
