"""Durable mailboxes: a cast that was accepted is applied once, whatever ends meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    Intensity,
    MailboxPolicy,
    Refused,
    StoreBroken,
    open_runtime,
)
from treewarden.errors import BadArguments, MailboxFull
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.store import StoredMessage, Unit, insert_letter
from treewarden.testing import crash, store_clock, wait_restarted, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, Runtime


class Noted(msgspec.Struct):
    words: list[str] = []


class Outside:
    """What handlers do beside their state: which words they began with, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = trio.Event()
        self.seen: list[tuple[str, ...]] = []


class Clerk(Agent[Noted]):
    """Notes words. Some words are trouble."""

    mailbox = MailboxPolicy(capacity=4, durable=True)

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    async def note(self, word: str) -> None:
        self.outside.begun.append(word)
        self.state.words.append(word)
        if word.startswith("crash"):
            raise RuntimeError(word)
        if word.startswith("refuse"):
            raise Refused(word)
        if word.startswith("park"):
            await self.outside.go.wait()

    async def words(self) -> list[str]:
        return self.state.words


class Volatile(Clerk):
    mailbox = MailboxPolicy(capacity=4)

    async def pass_on(self, to: str, word: str, fail: bool = False) -> None:
        self.state.words.append(word)
        self.cast(self.runtime.ref(to, Clerk), Clerk.note, word)
        if fail:
            raise Refused("no")


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@asynccontextmanager
async def opened(
    path: Path, outside: Outside, clerk: type[Clerk] = Clerk, **options: Any
) -> AsyncIterator[Runtime]:
    app = Application(
        "durable",
        [
            ChildSpec("clerk", clerk, args=(outside,), **options),
            ChildSpec("sender", Volatile, args=(outside,)),
        ],
        intensity=Intensity(2, 5.0),
    )
    config = Config(store=path / "d.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime


def clerk_of(runtime: Runtime) -> AgentRef[Clerk]:
    return runtime.ref("clerk", Clerk)


async def rows(runtime: Runtime, table: str = "inbox") -> list[tuple[Any, ...]]:
    question = f"SELECT * FROM {table} ORDER BY seq"  # noqa: S608 - a name of ours
    return await runtime.store.read(lambda db: db.execute(question).fetchall())


async def test_a_durable_cast_is_a_row_when_it_returns_and_none_when_it_is_applied(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk = clerk_of(runtime)
        await clerk.cast(Clerk.note, "park")
        await clerk.cast(Clerk.note, "b")
        await wait_until(lambda: outside.begun == ["park"])
        stored = await rows(runtime)
        assert [(row[1], row[3], row[4]) for row in stored] == [
            ("/clerk", "note", 1),
            ("/clerk", "note", 0),
        ]
        outside.go.set()
        assert await clerk.call(Clerk.words) == ["park", "b"]
        assert await rows(runtime) == []
        ids = [row[2] for row in await rows(runtime, "applied")]
        assert ids == [row[2] for row in stored]
        assert await runtime.store.outcome(ids[0]) == "applied"


async def test_what_a_stopped_agent_had_not_handled_is_handled_by_the_next_in_order(
    tmp_path: Path, clock: MockClock
) -> None:
    """A stop is no attempt, and rows of an agent that is not there wait in the file."""
    outside = Outside()
    async with opened(tmp_path, outside, shutdown=0.5) as runtime:
        for word in ("park", "b", "c"):
            await clerk_of(runtime).cast(Clerk.note, word)
        await wait_until(lambda: outside.begun == ["park"])
        await runtime.supervisor("/application").terminate_child("clerk")
        await runtime.store.settled()
        assert [row[4] for row in await rows(runtime)] == [0, 0, 0]
        outside.go.set()
        await runtime.supervisor("/application").restart_child("clerk")
        assert await clerk_of(runtime).call(Clerk.words) == ["park", "b", "c"]
        assert await rows(runtime) == []
    assert outside.begun == ["park", "park", "b", "c"]


async def test_what_a_stopped_runtime_had_not_handled_is_handled_after_its_restart(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside, shutdown=0.5) as runtime:
        for word in ("park", "b", "c"):
            await clerk_of(runtime).cast(Clerk.note, word)
        await wait_until(lambda: outside.begun == ["park"])
    outside.go.set()
    async with opened(tmp_path, outside) as runtime:
        assert await clerk_of(runtime).call(Clerk.words) == ["park", "b", "c"]
        assert runtime.vitals.dead_letters == 0


async def test_a_message_that_crashes_its_agent_is_tried_again_then_a_dead_letter(
    tmp_path: Path, clock: MockClock
) -> None:
    """B8: only its first crash counts against the budget; the next message is handled."""
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk = clerk_of(runtime)
        for word in ("crash 1", "crash 2", "b"):
            await clerk.cast(Clerk.note, word)
        assert await clerk.call(Clerk.words) == ["b"]
        assert outside.begun == ["crash 1"] * 3 + ["crash 2"] * 3 + ["b"]
        await runtime.store.settled()
        letters = await rows(runtime, "dead_letter")
        assert [(row[3], row[4], row[7]) for row in letters] == [
            ("note", 3, "crashed"),
            ("note", 3, "crashed"),
        ]
        assert clerk.statistics().dead_letters == 2
        assert runtime.vitals.dead_letters == 2
        assert await runtime.store.outcome(letters[0][2]) == "not_applied"


async def test_a_refused_durable_message_is_tried_again_and_its_agent_lives(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk = clerk_of(runtime)
        await clerk.cast(Clerk.note, "refuse")
        await clerk.cast(Clerk.note, "b")
        assert await clerk.call(Clerk.words) == ["b"]
        assert outside.begun == ["refuse"] * 3 + ["b"]
        assert clerk.incarnation == 1
        await runtime.store.settled()
        assert [row[7] for row in await rows(runtime, "dead_letter")] == ["refused"]


async def test_a_crash_from_outside_loses_no_message(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk = clerk_of(runtime)
        for word in ("park", "b", "c"):
            await clerk.cast(Clerk.note, word)
        await wait_until(lambda: outside.begun == ["park"])
        await crash(clerk)
        outside.go.set()
        await wait_restarted(clerk, 2)
        assert await clerk.call(Clerk.words) == ["park", "b", "c"]


async def test_a_staged_cast_to_a_durable_mailbox_commits_with_its_sender(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        sender = runtime.ref("sender", Volatile)
        with pytest.raises(Refused):
            await sender.call(Volatile.pass_on, "clerk", "a", fail=True)
        assert await rows(runtime) == []
        await sender.call(Volatile.pass_on, "clerk", "b")
        assert await clerk_of(runtime).call(Clerk.words) == ["b"]
        assert await sender.call(Volatile.words) == ["b"]


async def test_a_staged_cast_to_an_agent_that_is_down_waits_for_it_in_the_file(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        await runtime.supervisor("/application").terminate_child("clerk")
        sender = runtime.ref("sender", Volatile)
        await sender.call(Volatile.pass_on, "clerk", "a")
        assert len(await rows(runtime)) == 1
        await runtime.supervisor("/application").restart_child("clerk")
        assert await clerk_of(runtime).call(Clerk.words) == ["a"]
        assert runtime.vitals.dead_letters == 0


async def test_capacity_bounds_what_is_kept_and_senders_go_on_in_order(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk = clerk_of(runtime)

        async def send(word: str) -> None:
            await clerk.cast(Clerk.note, word)

        await send("park")
        await wait_until(lambda: outside.begun == ["park"])
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(send, f"{number}")
                await trio.testing.wait_all_tasks_blocked()
            await wait_until(lambda: clerk.statistics().mailbox == 4)
            assert len(await rows(runtime)) == 5
            with pytest.raises(MailboxFull):
                clerk.cast_nowait(Clerk.note, "x")
            outside.go.set()
        words = await clerk.call(Clerk.words)
        assert words == ["park", *(f"{number}" for number in range(8))]


async def test_a_sender_is_held_back_by_a_full_durable_mailbox(
    tmp_path: Path, clock: MockClock
) -> None:
    """Its cast is kept with its commit all the same; it takes no next message."""
    outside = Outside()
    async with opened(tmp_path, outside) as runtime:
        clerk, sender = clerk_of(runtime), runtime.ref("sender", Volatile)
        await clerk.cast(Clerk.note, "park")
        await wait_until(lambda: outside.begun == ["park"])
        for number in range(5):
            await sender.call(Volatile.pass_on, "clerk", f"{number}")
        request = sender.request(Volatile.words)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not request.is_answered
        assert len(await rows(runtime)) == 6
        outside.go.set()
        assert len(await request.result()) == 5
        assert await clerk.call(Clerk.words) == ["park", "0", "1", "2", "3", "4"]


async def test_what_cannot_be_stored_is_not_sent(
    tmp_path: Path, clock: MockClock
) -> None:
    class Loose(Clerk):
        async def gather(self, *words: str) -> None:
            self.state.words += words

    outside = Outside()
    async with opened(tmp_path, outside, Loose) as runtime:
        with pytest.raises(BadArguments, match="any number of arguments"):
            await runtime.ref("clerk", Loose).cast(Loose.gather, "a", "b")
        assert await rows(runtime) == []


def test_a_durable_mailbox_drops_nothing() -> None:
    with pytest.raises(ValueError, match="loses nothing"):
        MailboxPolicy(durable=True, overflow="drop_oldest")
    with pytest.raises(ValueError, match="max_attempts"):
        MailboxPolicy(durable=True, max_attempts=0)


class Buyer(Clerk):
    async def buy(self, word: str) -> None:
        first = await self.once(self.order, word)
        second = await self.once(self.order_soon, word)
        self.state.words += [*first, *second]
        if len(self.outside.begun) < 3:
            self.outside.begun.append(word)
            raise RuntimeError(word)

    def order(self, word: str) -> list[str]:
        self.outside.seen.append((word, "order"))
        return [word]

    async def order_soon(self, word: str) -> list[str]:
        self.outside.seen.append((word, "order soon"))
        return [word.upper()]

    async def ask_once(self) -> None:
        await self.once(self.order, "x")


async def test_an_outside_call_is_made_once_however_often_its_message_is_tried(
    tmp_path: Path, clock: MockClock
) -> None:
    outside = Outside()
    outside.begun.append("one attempt less")
    async with opened(tmp_path, outside, Buyer) as runtime:
        buyer = runtime.ref("clerk", Buyer)
        await buyer.cast(Buyer.buy, "a")
        assert await buyer.call(Buyer.words) == ["a", "A"]
        assert outside.seen == [("a", "order"), ("a", "order soon")]
        assert await rows(runtime, "effect") == []
        with pytest.raises(AgentCrashed, match="durable casts"):
            await buyer.call(Buyer.ask_once)


async def test_a_dead_letter_is_listed_tried_again_and_forgotten(
    tmp_path: Path, clock: MockClock
) -> None:
    """B8, F10: what its handler did outside is not done a second time."""
    outside = Outside()
    async with opened(tmp_path, outside, Buyer) as runtime:
        buyer, letters = runtime.ref("clerk", Buyer), runtime.dead_letters
        await buyer.cast(Buyer.buy, "a")
        await buyer.cast(Clerk.note, "crash")
        assert await buyer.call(Buyer.words) == []
        await runtime.store.settled()
        bought, noted = await letters.list()
        assert (bought.operation, bought.reason, bought.attempts) == (
            "buy",
            "crashed",
            3,
        )
        assert (noted.path, noted.arguments) == ("/clerk", b'{"word":"crash"}')
        outside.begun += ["enough"] * 3
        assert await letters.retry(bought.number)
        assert not await letters.retry(bought.number)
        assert await buyer.call(Buyer.words) == ["a", "A"]
        assert outside.seen == [("a", "order"), ("a", "order soon")]
        assert await letters.discard(noted.number)
        assert not await letters.discard(noted.number)
        assert await letters.list() == []
        assert await letters.get(noted.number) is None


async def test_all_dead_letters_are_purged_also_those_from_when_the_clock_was_ahead(
    tmp_path: Path, clock: MockClock
) -> None:
    """B9"""
    async with opened(tmp_path, Outside()) as runtime:
        message = StoredMessage(
            seq=0,
            path="/clerk",
            id="m",
            operation="note",
            arguments=b"{}",
            sender="",
            at_ns=0,
        )
        number, ahead_ns = runtime.store.next_sequence(), 1 << 62
        letter = insert_letter(message, number, 3, ahead_ns, "crashed")
        runtime.store.hand_over(Unit("/clerk", writes=letter))
        await runtime.store.settled()
        assert await runtime.dead_letters.purge(before_ns=ahead_ns) == 0
        assert await runtime.dead_letters.purge() == 1
        assert await runtime.dead_letters.list() == []


async def test_a_message_that_its_agent_does_not_understand_is_a_dead_letter(
    tmp_path: Path, clock: MockClock
) -> None:
    """So is one whose row is damaged; the agent starts and serves the others."""
    outside = Outside()
    async with opened(tmp_path, outside, shutdown=0.5) as runtime:
        for word in ("park", "b", "c", "d"):
            await clerk_of(runtime).cast(Clerk.note, word)
        await wait_until(lambda: outside.begun == ["park"])
    file = sqlite3.connect(tmp_path / "d.db")
    seqs = [seq for (seq,) in file.execute("SELECT seq FROM inbox ORDER BY seq")]
    file.execute("UPDATE inbox SET arguments = '{}' WHERE seq = ?", (seqs[1],))
    file.commit()
    file.close()
    outside.go.set()
    async with opened(tmp_path, outside) as runtime:
        assert await clerk_of(runtime).call(Clerk.words) == ["park", "c", "d"]
        await runtime.store.settled()
        (letter,) = await runtime.dead_letters.list()
        assert "damaged" in letter.reason


class Forgetful(Agent[Noted]):
    persistence = "none"

    def note(self, word: str) -> int:
        self.state.words.append(word)
        return len(self.state.words)

    async def words(self) -> list[str]:
        return self.state.words


class Asker(Agent[Noted]):
    async def ask(self, word: str) -> int:
        self.state.words.append(word)
        self.continue_with(Asker.ask_now, word)
        return 0

    async def ask_now(self, word: str) -> None:
        await self.runtime.ref("forgetful", Forgetful).call(Forgetful.note, word)


async def test_memory_that_no_commit_holds_takes_nothing_of_a_sender_that_is_rolled_back(
    tmp_path: Path,
) -> None:
    """What comes from a sender with uncommitted work waits for its commit."""
    app = Application(
        "memory", [ChildSpec("forgetful", Forgetful), ChildSpec("asker", Asker)]
    )
    config = Config(store=tmp_path / "d.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        asker, forgetful = (
            runtime.ref("asker", Asker),
            runtime.ref("forgetful", Forgetful),
        )
        await asker.call(Asker.ask, "kept")
        await runtime.store.settled()
        rule = Rule(point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="full")
        plan = InjectionPlan(name="full", injections=(rule,), seconds=60.0)
        loaded = load_plan(plan)

        async def lose() -> None:
            with pytest.raises(StoreBroken):
                await asker.call(Asker.ask, "lost")

        with closing(sqlite3.connect(tmp_path / "d.db", isolation_level=None)) as other:
            # Its writer waits for the lock until whoever would not wait has handled it.
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose)
                await wait_all_tasks_blocked()
                other.execute("ROLLBACK")
        loaded.lift()
        assert await forgetful.call(Forgetful.words) == ["kept"]
        # What was put back, and what never was sent, is not counted as handled.
        seen = forgetful.statistics(), asker.statistics()
        assert [(one.accepted, one.handled) for one in seen] == [(3, 2), (4, 3)]


class Announcer(Agent[Noted]):
    starts = 0

    async def on_start(self) -> None:
        Announcer.starts += 1
        self.state.words.append(f"{Announcer.starts}")

    async def note(self) -> None:
        self.state.words.append("noted")


async def test_a_start_that_stages_waits_for_the_disk_instead_of_failing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarts after a failed commit are not counted, and must not spin."""
    monkeypatch.setattr("treewarden.store.thread.TROUBLED_SECONDS", 0.01)
    Announcer.starts = 0
    app = Application("announcer", [ChildSpec("one", Announcer)])
    config = Config(store=tmp_path / "d.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        one = runtime.ref("one", Announcer)
        await runtime.store.settled()
        rules = tuple(
            Rule(point=point.name, do=Deed.RAISE, error="full", times=0)
            for point in (places.BEFORE_COMMIT, places.PROBE)
        )
        plan = InjectionPlan(name="full", injections=rules, seconds=60.0)
        loaded = load_plan(plan)
        with pytest.raises(StoreBroken):
            await one.call(Announcer.note)
        # The commit, and looks at the disk that find it as full as before.
        await wait_until(lambda: loaded.done > 3)
        assert Announcer.starts == 1
        loaded.lift()
        await wait_until(lambda: runtime.store.is_healthy)
        await one.call(Announcer.note)
        assert Announcer.starts == 2
