"""A1 of `spec/reliability.md`: a runtime that is killed has lost nothing it acknowledged.

The ledger is kept here, at the other end of a pipe: what `kill_crew.py` said was answered:
calls, transactions, and messages that a durable mailbox has accepted.
Each kill comes after at least 50 answered calls, a quarter of them each while the runtime
is under load, recovers what a kill left, shuts down, and starts on a file that was closed
in order (or on none). After each the files are copied and judged row by row; what the next
run finds is compared as well. `SOAK=10` makes it ten times as long, `SEED=n` another one.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = int(os.environ.get("SEED", "20260801"))
CHAINS = 2
# Of a chain; four kills each.
ROUNDS = 25 * int(os.environ.get("SOAK", "1"))
AGENTS = 32
MANY_AGENTS = 1000
# As in kill_crew.py.
CLERKS, MOVERS, TELLERS, ITEMS, STAKE = 20, 4, 4, 5, 1000
# Who has a page in the ledger.
EVERYBODY = [
    *(("clerk", number) for number in range(CLERKS)),
    *(("mover", number) for number in range(MOVERS)),
    *(("teller", number) for number in range(TELLERS)),
]
# Answered by each life that is not killed while it starts: three a round of four kills.
CALLS = 140
# How long after its calls a loaded run may still go on, and a moment to die in.
LONGEST_LOAD = 0.03
# How long it may take to be ready: in the middle of all starts, since a busy machine makes
# anybody late now and then; with many agents, of the processor's time.
READY_SECONDS = 2.0
# What it takes of the processor's time with few. Where that is more, the machine is slow,
# or so crowded that nothing stays in its caches.
FEW_READY_SECONDS = 0.12
PATIENCE = 60.0
# A file begins anew so often: starts without a file are killed as well.
ROUNDS_A_FILE = 8


class Crew:
    """A process that forks runtimes, and what the living one says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said = b""
        self.pid = 0
        self._dead = False
        self._status: int | None = None
        self.hear: Callable[[str, list[str]], None] = lambda word, rest: None

    def start(self, folder: Path, agents: int) -> None:
        """Have a runtime forked; returns when it is born."""
        self._dead, self._status = False, None
        self._write(f"{folder} {agents}\n")
        assert self.listen(lambda: self.pid > 0, PATIENCE)

    def send(self, number: signal.Signals) -> None:
        """To the runtime, not to the process that forks."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """How the runtime ended."""
        assert self.listen(lambda: self._dead, PATIENCE)
        self._write("\n")
        assert self.listen(lambda: self._status is not None, PATIENCE)
        status, self.pid = self._status, 0
        assert status is not None
        return status

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def listen(self, enough: Callable[[], bool], seconds: float) -> bool:
        """Hear what is said until it is enough, or so long."""
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while not enough():
            if not self._said.count(b"\n"):
                left = until - time.monotonic()
                if (
                    left <= 0
                    or not select.select([self._process.stdout], [], [], left)[0]
                ):
                    return enough()
                said = os.read(self._process.stdout.fileno(), 1 << 16)
                assert said, "the crew is gone"
                self._said += said
                continue
            line, _, self._said = self._said.partition(b"\n")
            word, *rest = line.decode().split()
            self._take(word, rest)
        return True

    def _take(self, word: str, rest: list[str]) -> None:
        match word, rest:
            case "born", [pid]:
                self.pid = int(pid)
            case "dead", []:
                self._dead = True
            case "buried", [status]:
                self._status = int(status)
            case _:
                self.hear(word, rest)


@contextmanager
def crew() -> Iterator[Crew]:
    command = [sys.executable, str(Path(__file__).with_name("kill_crew.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        made = Crew(process)
        try:
            yield made
        finally:
            if made.pid:
                made.send(signal.SIGKILL)
            process.kill()


class Chain:
    """Lives on one file, one after the other, and the ledger of their answers."""

    def __init__(self, crew: Crew, folder: Path, seed: int) -> None:
        self.crew = crew
        self.crew.hear = self._note
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - moments, not secrets
        self.answered = dict.fromkeys(EVERYBODY, 0)
        self.calls = 0
        self.ready = False
        self.ready_cpu_seconds = 0.0
        self.kills: dict[str, int] = {}
        self.start_seconds = [0.06]
        # How many agents, and what it took of the processor's time.
        self.starts: list[tuple[int, float]] = []
        self.stop_seconds = [0.015]

    # --- the ledger -------------------------------------------------------------------

    def _note(self, word: str, rest: list[str]) -> None:
        match word, rest:
            case "ready", [seconds]:
                self.ready = True
                self.ready_cpu_seconds = float(seconds)
            case (("found" | "done"), [role, number, count]):
                who = role, int(number)
                # Of what was under way nobody knows; of nothing else.
                known = self.answered[who] + (word == "done")
                if not known <= int(count) <= self.answered[who] + 1:
                    self.fail(f"{role} {number}: {word} {count}")
                self.answered[who] = int(count)
                self.calls += word == "done" and role == "clerk"
            case _:
                self.fail(f"it said {word} {rest}")

    def fail(self, why: str) -> NoReturn:
        """With all that it takes to see it again."""
        known = {who: count for who, count in self.answered.items() if count}
        raise AssertionError(
            f"{why}; seed {self.seed}, kills {self.kills}, answered {known}"
        )

    # --- lives ------------------------------------------------------------------------

    def live(self, agents: int = AGENTS) -> None:
        """Start, be ready, answer some calls."""
        self.ready = False
        began = time.monotonic()
        self.crew.start(self.folder, agents)
        assert self.crew.listen(lambda: self.ready, PATIENCE)
        took = time.monotonic() - began
        self.starts.append((agents, self.ready_cpu_seconds))
        if agents == AGENTS:
            self.start_seconds.append(took)
        wanted = self.calls + CALLS
        assert self.crew.listen(lambda: self.calls >= wanted, PATIENCE)

    def kill_loaded(self, agents: int = AGENTS) -> None:
        self.live(agents)
        self.crew.listen(lambda: False, self.chance.uniform(0.0, LONGEST_LOAD))
        self.kill("load")

    def kill_recovering(self) -> None:
        """The first run after a kill."""
        while not self._kill_starting("recovery"):
            pass

    def kill_starting(self) -> None:
        """The first run after an orderly stop, or of a new file."""
        while not self._kill_starting("start"):
            self.stop()

    def _kill_starting(self, phase: str) -> bool:
        self.ready = False
        self.crew.start(self.folder, AGENTS)
        longest = median(self.start_seconds)
        late = self.crew.listen(lambda: self.ready, self.chance.uniform(0.0, longest))
        # Faster than ever: it is a kill under load then, and there must be another one.
        self.kill("load" if late else phase)
        return not late

    def kill_stopping(self) -> None:
        """Missed at times, when the stop is faster than ever; then once more."""
        while True:
            self.live()
            self.crew.send(signal.SIGTERM)
            longest = median(self.stop_seconds)
            self.crew.listen(lambda: False, self.chance.uniform(0.0, longest))
            if self.kill("shutdown"):
                return

    def stop(self) -> None:
        """A life that ends in order."""
        self.live()
        self.crew.send(signal.SIGTERM)
        began = time.monotonic()
        assert self.crew.wait() == 0
        self.stop_seconds.append(time.monotonic() - began)

    def kill(self, phase: str) -> bool:
        """Whether it was still there to be killed; what is left is judged."""
        self.crew.send(signal.SIGKILL)
        killed = self.crew.wait() == -signal.SIGKILL
        if killed:
            self.kills[phase] = self.kills.get(phase, 0) + 1
        self.judge()
        return killed

    def new_file(self) -> None:
        """The next life begins with nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.answered = dict.fromkeys(EVERYBODY, 0)

    # --- the judge --------------------------------------------------------------------

    def judge(self) -> None:
        """Look at a copy: what is left of the file is the next run's to recover."""
        copy = self.folder.with_name(f"{self.folder.name}-copy")
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("db", "db-wal", "db-journal"):
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, copy / name)
        if not (copy / "db").exists():
            return
        with closing(sqlite3.connect(copy / "db")) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            verdict = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != ("ok",):
                self.fail(f"the file is damaged: {verdict}")
            if connection.execute(
                "SELECT 1 FROM sqlite_schema WHERE name = 'agent_state'"
            ).fetchone():
                self._judge_rows(connection)
            elif any(self.answered.values()):
                self.fail("there are no tables")

    def _judge_rows(self, connection: sqlite3.Connection) -> None:
        left = Left(connection)
        for number in range(CLERKS):
            self._judge_clerk(left, number)
        for number in range(MOVERS):
            self._judge_mover(left, number)
        for number in range(TELLERS):
            self._judge_teller(left, number)

    def _judge_clerk(self, left: Left, number: int) -> None:
        path = f"/clerk-{number}"
        state = left.state(path, filled=False, count=0, ticks=0)
        count = state["count"]
        self._judge_count("clerk", number, count)
        waiting = range(count + 1, count + ITEMS + 1) if state["filled"] else ()
        whole = [list(range(1, count + 1)), list(range(1, state["ticks"] + 1))]
        found = [left.events[path, f"clerk.{what}"] for what in ("done", "tick")]
        if [*whole, list(waiting)] != [*found, left.queued[path]]:
            self.fail(f"{path} is half done: {state}, {found}, {left.queued[path]}")
        told = left.state("/tally", by_path={})["by_path"].get(path, 0)
        if told > count:
            self.fail(f"a cast of {path} was handled twice: {told} of {count}")

    def _judge_mover(self, left: Left, number: int) -> None:
        paths = [f"/purse-{number}-{side}" for side in ("a", "b")]
        purses = [left.state(path, money=STAKE, moves=0) for path in paths]
        moves = purses[0]["moves"]
        self._judge_count("mover", number, moves)
        whole = [
            {"money": STAKE - moves, "moves": moves},
            {"money": STAKE + moves, "moves": moves},
        ]
        found = [left.events[path, "account.moved"] for path in paths]
        if purses != whole or found != 2 * [list(range(1, moves + 1))]:
            self.fail(f"mover {number} is half done: {purses}, {found}")

    def _judge_teller(self, left: Left, number: int) -> None:
        heard = left.state("/hearer", by_teller={})["by_teller"].get(str(number), 0)
        waiting = left.waiting[str(number)]
        self._judge_count("teller", number, heard + len(waiting))
        if waiting != list(range(heard + 1, heard + len(waiting) + 1)):
            self.fail(f"of teller {number} {heard} were heard, {waiting} wait")

    def _judge_count(self, role: str, number: int, count: int) -> None:
        answered = self.answered[role, number]
        if count not in (answered, answered + 1):
            self.fail(f"{role} {number} has done {count}, {answered} were answered")


class Left:
    """What is in a file that a kill left."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._states: dict[str, str] = dict(
            connection.execute("SELECT path, payload FROM agent_state")
        )
        self.events: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self.queued: defaultdict[str, list[int]] = defaultdict(list)
        self.waiting: defaultdict[str, list[int]] = defaultdict(list)
        for source, topic, payload in connection.execute(
            "SELECT source, topic, payload FROM journal WHERE kind = 'event'"
            " ORDER BY position"
        ):
            self.events[source, topic].append(int(payload))
        for path, payload in connection.execute(
            "SELECT path, payload FROM queue_item ORDER BY seq"
        ):
            self.queued[path].append(int(payload))
        for (arguments,) in connection.execute(
            "SELECT arguments FROM inbox WHERE operation = 'hear' ORDER BY seq"
        ):
            message = json.loads(arguments)
            self.waiting[message["teller"]].append(message["number"])

    def state(self, path: str, **fresh: Any) -> dict[str, Any]:
        """The state there, or what it is before its first change."""
        payload = self._states.get(path)
        return fresh if payload is None else json.loads(payload)


def kill_again_and_again(folder: Path, seed: int) -> Chain:
    with crew() as forking:
        chain = Chain(forking, folder, seed)
        for number in range(ROUNDS):
            if number % ROUNDS_A_FILE == 0:
                chain.new_file()
            else:
                chain.stop()
            chain.kill_starting()
            chain.kill_loaded(MANY_AGENTS if number == ROUNDS // 2 else AGENTS)
            chain.kill_recovering()
            chain.kill_stopping()
        chain.stop()
    return chain


async def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    """A1, R1, R3, R21: 200 kills; nothing lost, nothing twice, nothing half done."""
    chains: list[Chain] = []

    async def kill(number: int) -> None:
        chains.append(
            await trio.to_thread.run_sync(
                partial(kill_again_and_again, tmp_path / f"{number}", SEED + number)
            )
        )

    async with trio.open_nursery() as nursery:
        for number in range(CHAINS):
            nursery.start_soon(kill, number)
    kills: dict[str, int] = {}
    for chain in chains:
        for phase, count in chain.kills.items():
            kills[phase] = kills.get(phase, 0) + count
    print(f"{kills} kills, {sum(chain.calls for chain in chains)} answers, seed {SEED}")  # noqa: T201 - says how much was tried
    phases = {"start", "load", "recovery", "shutdown"}
    assert kills.keys() == phases
    assert min(kills.values()) >= CHAINS * ROUNDS
    assert sum(chain.calls for chain in chains) >= 100 * CHAINS * ROUNDS * len(phases)
    for chain in chains:
        # Without the guess that it began with.
        assert median(chain.start_seconds[1:]) <= READY_SECONDS, chain.start_seconds
    assert min(map(ready_with_many, chains)) <= READY_SECONDS


def ready_with_many(chain: Chain) -> float:
    """What it took with many agents, as if few had taken what they take at best."""
    (place,) = (n for n, (agents, _) in enumerate(chain.starts) if agents > AGENTS)
    _, took = chain.starts[place]
    few = mean(chain.starts[place + beside][1] for beside in (-1, 1))
    return took * min(1.0, FEW_READY_SECONDS / few)


# --- half a handler -----------------------------------------------------------------------


class Halves(msgspec.Struct):
    first: int = 0
    second: int = 0


class Parked(Agent[Halves]):
    """Waits between two assignments when it is told to."""

    call_timeout = 60.0
    jobs: DurableQueue[str]

    async def move(self, wait: bool) -> None:
        self.state.first += 1
        await self.jobs.put("a job")
        self.publish("parked.moved", self.state.first)
        if wait:
            await trio.sleep_forever()
        self.state.second += 1

    async def known(self) -> tuple[int, int, int]:
        return self.state.first, self.state.second, len(self.jobs)


class Other(Agent[Halves]):
    call_timeout = 60.0

    async def note(self) -> None:
        self.state.first += 1

    def known(self) -> int:
        return self.state.first


def _pair() -> Application:
    return Application("pair", [ChildSpec("parked", Parked), ChildSpec("other", Other)])


async def _park(file: str) -> None:
    """The child: commit beside a handler that waits half-way, and die."""
    config = Config(store=Path(file), socket=False)
    async with open_runtime(_pair(), config=config) as runtime:
        parked = runtime.ref("parked", Parked)
        await parked.call(Parked.move, False)
        await parked.cast(Parked.move, True)
        await wait_all_tasks_blocked()
        # Its answer is a commit with everything that was handed over before it.
        await runtime.ref("other", Other).call(Other.note)
        os.kill(os.getpid(), signal.SIGKILL)


async def test_a_handler_that_waits_half_way_is_not_in_what_a_kill_leaves(
    tmp_path: Path,
) -> None:
    """A1: the state is the one before the message, and so is all that it staged."""
    file = tmp_path / "parked.db"
    command = [sys.executable, __file__, str(file)]
    assert (await trio.run_process(command, check=False)).returncode == -signal.SIGKILL
    async with open_runtime(
        _pair(), config=Config(store=file, socket=False)
    ) as runtime:
        assert await runtime.ref("other", Other).call(Other.known) == 1
        assert await runtime.ref("parked", Parked).call(Parked.known) == (1, 1, 1)
        events = await runtime.store.entries(since=0, limit=100, pattern="parked.*")
    assert [event.payload for event in events] == [b"1"]


if __name__ == "__main__":
    trio.run(_park, sys.argv[1])
