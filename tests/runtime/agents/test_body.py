"""A handler is a transaction: what commits, what waits for it, what a failure undoes."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
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
    DurableQueue,
    Event,
    Refused,
    RestoreError,
    StoreBroken,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import Runtime


class Balance(msgspec.Struct):
    amount: int = 0
    ratio: float = 0.0
    seen: list[str] = []


class Account(Agent[Balance]):
    jobs: DurableQueue[str]

    def __init__(self, gate: trio.Event | None = None) -> None:
        self.gate = gate

    async def add(self, amount: int) -> int:
        self.state.amount += amount
        return self.state.amount

    def get(self) -> int:
        return self.state.amount

    async def half_way(self) -> int:
        self.state.amount += 1000
        assert self.gate is not None
        await self.gate.wait()
        self.state.amount += 1
        return self.state.amount

    async def announce(self, amount: int) -> int:
        self.state.amount += amount
        self.publish("account.changed", {"amount": self.state.amount})
        return self.state.amount

    async def announce_and_fail(self) -> None:
        self.publish("account.changed", {"amount": -1})
        await self.jobs.put("never")
        raise ValueError("after staging")

    async def refuse(self) -> None:
        self.state.amount = -1
        self.publish("account.changed", {"amount": -1})
        raise Refused("no")

    async def spoil(self) -> None:
        self.state.ratio = float("nan")

    async def fill(self) -> None:
        self.state.seen = ["x" * 900_000]

    async def tell(self, other: str, amount: int) -> None:
        self.state.amount -= amount
        self.cast(self.runtime.ref(other, Account), Account.add, amount)

    async def tell_and_fail(self, other: str) -> None:
        self.cast(self.runtime.ref(other, Account), Account.add, 500)
        raise ValueError("after a cast")

    async def enqueue(self, job: str) -> int:
        await self.jobs.put(job)
        return len(self.jobs)

    async def work(self) -> str | None:
        item = await self.jobs.take()
        if item is None:
            return None
        await item.ack()
        return item.value

    async def subscribe_to(self, pattern: str) -> None:
        self.subscribe(pattern)

    async def on_event(self, event: Event) -> None:
        self.state.seen.append(event.topic)

    async def seen(self) -> list[str]:
        return self.state.seen


class Other(Agent[Balance]):
    async def get(self) -> int:
        return self.state.amount


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """A runtime with agents on this test's file; opened again, it is the same file."""

    def make(*children: ChildSpec) -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=tmp_path / "test.db", socket=False)
        specs = children or (ChildSpec("account", Account),)
        return open_runtime(Application("test", specs), config=config)

    return make


@contextmanager
def held_back(path: Path) -> Iterator[sqlite3.Connection]:
    """The store's writer cannot commit while a foreign connection holds the lock."""
    foreign = sqlite3.connect(path / "test.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        yield foreign
    finally:
        if foreign.in_transaction:
            foreign.execute("ROLLBACK")
        foreign.close()


def refuse_amount(path: Path, amount: int) -> None:
    """From now on the database refuses a state with this amount: a failing commit."""
    foreign = sqlite3.connect(path / "test.db")
    foreign.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON agent_state WHEN "
        f"""NEW.payload LIKE '%"amount":{amount},%' """
        "BEGIN SELECT RAISE(ABORT, 'the test refuses this amount'); END"
    )
    foreign.commit()
    foreign.close()


async def test_an_acknowledged_change_is_there_after_a_restart(opened: Any) -> None:
    async with opened() as runtime:
        assert await runtime.ref("account", Account).call(Account.add, 5) == 5
    async with opened() as runtime:
        assert await runtime.ref("account", Account).call(Account.get) == 5


async def test_a_crash_goes_back_to_the_state_before_the_message(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 5)
        with pytest.raises(AgentCrashed, match="after staging"):
            await ref.call(Account.announce_and_fail)
        assert await ref.call(Account.get) == 5
        assert ref.incarnation == 2
        assert await ref.call(Account.work) is None
        topics = [e.topic for e in await runtime.store.entries(since=None, limit=100)]
        assert "account.changed" not in topics


async def test_no_answer_leaves_before_its_commit(opened: Any, tmp_path: Path) -> None:
    """Invariant 1: values, reads, refusals and events, plain and async."""
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        answers: list[object] = []

        async def call(operation: Any, *args: object) -> None:
            try:
                answers.append(await ref.call(operation, *args))
            except Refused:
                answers.append("refused")

        async with (
            runtime.bus.subscribe("account.*") as events,
            trio.open_nursery() as nursery,
        ):
            with held_back(tmp_path):
                for operation, args in (
                    (Account.announce, (10,)),
                    (Account.get, ()),
                    (Account.refuse, ()),
                    (Account.add, (100,)),
                ):
                    nursery.start_soon(call, operation, *args)
                    await wait_all_tasks_blocked()
                # All were handled, running ahead; nobody has heard of anything.
                assert ref.statistics().handled >= 4
                assert answers == []
                assert events.pending == 0
                assert ref.statistics().uncommitted
            with trio.fail_after(10):
                event = await anext(events)
        assert event.payload == {"amount": 11}
        assert sorted(map(str, answers)) == ["11", "11", "111", "refused"]


async def test_a_failed_commit_takes_memory_back_to_disk(
    opened: Any, tmp_path: Path
) -> None:
    """Invariant 2, and 9: it spends no restart budget."""
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        for _ in range(6):
            with pytest.raises(StoreBroken, match="refuses this amount"):
                await ref.call(Account.add, 6)
            assert await ref.call(Account.get) == 1
        assert await ref.call(Account.add, 1) == 2
        assert ref.incarnation == 7
        assert runtime.tree()["/account"].budget is None
        assert runtime.tree()["/application"].budget[0] == 0


async def test_what_builds_on_a_failed_commit_fails_with_it(
    opened: Any, tmp_path: Path
) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        outcomes: list[str] = []

        async def add(amount: int) -> None:
            try:
                await ref.call(Account.add, amount)
                outcomes.append("kept")
            except StoreBroken:
                outcomes.append("lost")

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                for amount in (6, 100, 1000):
                    nursery.start_soon(add, amount)
                    await wait_all_tasks_blocked()
        # 1 + 6 is refused; the states 107 and 1107 were built on it.
        assert outcomes == ["lost"] * 3
        assert await ref.call(Account.get) == 1


async def test_what_was_doomed_before_does_not_undo_what_came_after(
    opened: Any, tmp_path: Path
) -> None:
    """A unit in the next group, built on the one that failed, fails when the agent has
    already gone on from its committed state.
    """
    bulky = [ChildSpec(f"bulky{n}", Account) for n in range(8)]
    async with opened(ChildSpec("account", Account), *bulky) as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        answers: dict[int, object] = {}

        async def add(amount: int) -> None:
            try:
                answers[amount] = await ref.call(Account.add, amount)
            except StoreBroken:
                answers[amount] = "lost"
                # At once, while the doomed one is with the writer.
                answers[-amount] = await ref.call(Account.add, 10)

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(add, 6)
                await wait_all_tasks_blocked()
                # The writer has the first group. This goes into the next, with rows
                # that take it longer than the agent takes to come back.
                nursery.start_soon(add, 100)
                for spec in bulky:
                    other = runtime.ref(spec.id, Account)
                    nursery.start_soon(other.call, Account.fill)
                await wait_all_tasks_blocked()
        assert answers[6] == answers[100] == "lost"
        assert sorted([answers[-6], answers[-100]]) == [11, 21]  # type: ignore[type-var]
        assert await ref.call(Account.get) == 21
    async with opened() as runtime:
        assert await runtime.ref("account", Account).call(Account.get) == 21


async def test_an_innocent_in_the_same_group_is_kept(
    opened: Any, tmp_path: Path
) -> None:
    specs = (ChildSpec("bad", Account), ChildSpec("good", Account))
    async with opened(*specs) as runtime:
        bad, good = runtime.ref("bad", Account), runtime.ref("good", Account)
        await bad.call(Account.add, 1)
        await good.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        answers: dict[str, object] = {}

        async def add(ref: Any) -> None:
            try:
                answers[ref.path] = await ref.call(Account.add, 6 if ref == bad else 1)
            except StoreBroken:
                answers[ref.path] = "lost"

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(add, bad)
                nursery.start_soon(add, good)
                await wait_all_tasks_blocked()
        assert answers == {"/bad": "lost", "/good": 2}
        assert good.incarnation == 1


async def test_half_done_state_is_never_written(opened: Any, tmp_path: Path) -> None:
    """Invariant 12: an async handler that awaits across a commit is invisible."""
    gate = trio.Event()
    specs = (
        ChildSpec("slow", Account, args=(gate,)),
        ChildSpec("other", Account),
    )
    async with opened(*specs) as runtime:
        slow = runtime.ref("slow", Account)
        await slow.call(Account.add, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.call, Account.half_way)
            await wait_all_tasks_blocked()
            await runtime.ref("other", Account).call(Account.add, 1)
            reader = sqlite3.connect(tmp_path / "test.db")
            (stored,) = reader.execute(
                "SELECT payload FROM agent_state WHERE path = '/slow'"
            ).fetchone()
            reader.close()
            assert msgspec.json.decode(stored)["amount"] == 1
            gate.set()
        assert await slow.call(Account.get) == 1002


async def test_a_state_that_could_not_be_read_again_is_refused(opened: Any) -> None:
    """Invariant 7: NaN encodes as null, which no float decodes."""
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 3)
        with pytest.raises(AgentCrashed, match="does not fit its own type"):
            await ref.call(Account.spoil)
        assert await ref.call(Account.get) == 3


async def test_an_answered_caller_finds_its_event_delivered(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        async with runtime.bus.subscribe("account.>") as events:
            await ref.call(Account.announce, 2)
            assert events.pending == 1
            event = await anext(events)
        assert (event.topic, event.payload) == ("account.changed", {"amount": 2})
        assert event.source == "/account"
        assert event.position > 0


async def test_a_staged_cast_leaves_with_its_commit_only(opened: Any) -> None:
    specs = (ChildSpec("one", Account), ChildSpec("two", Account))
    async with opened(*specs) as runtime:
        one, two = runtime.ref("one", Account), runtime.ref("two", Account)
        with pytest.raises(AgentCrashed):
            await one.call(Account.tell_and_fail, "/two")
        assert await two.call(Account.get) == 0
        await one.call(Account.tell, "/two", 5)
        assert await two.call(Account.get) == 5


async def test_a_durable_queue_commits_with_its_handler(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        assert await ref.call(Account.enqueue, "a") == 1
        assert await ref.call(Account.enqueue, "b") == 2
        assert await ref.call(Account.work) == "a"
        with pytest.raises(AgentCrashed):
            await ref.call(Account.announce_and_fail)
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        assert await ref.call(Account.work) == "b"
        assert await ref.call(Account.work) is None


async def test_events_come_as_messages(opened: Any) -> None:
    specs = (ChildSpec("one", Account), ChildSpec("two", Account))
    async with opened(*specs) as runtime:
        one, two = runtime.ref("one", Account), runtime.ref("two", Account)
        await two.call(Account.subscribe_to, "account.*")
        await one.call(Account.announce, 1)
        assert await two.call(Account.seen) == ["account.changed"]
        (subscription,) = runtime.bus.statistics().subscriptions
        assert subscription.delivered == 1


async def test_state_of_another_type_is_never_an_empty_start(opened: Any) -> None:
    async with opened() as runtime:
        await runtime.ref("account", Account).call(Account.add, 1)
    with pytest.raises(Exception, match="did not start") as caught:
        async with opened(ChildSpec("account", Other)):
            pass
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert RestoreError in causes


async def test_a_read_only_handler_writes_nothing(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        await runtime.store.settled()
        units = runtime.store.statistics().units
        for _ in range(10):
            await ref.call(Account.get)
        assert runtime.store.statistics().units == units
