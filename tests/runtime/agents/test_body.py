"""A handler is a transaction: what commits, what waits for it, what a failure undoes."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    Event,
    MailboxPolicy,
    Refused,
    StoreBroken,
    open_runtime,
)
from treewarden.store import Unit
from treewarden.testing import wait_until

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

    def add_now(self, amount: int) -> int:
        self.state.amount += amount
        return self.state.amount

    async def cast_through(self, relay: str, operation: str, other: str) -> None:
        await self.runtime.ref(relay, Relay).cast(getattr(Relay, operation), other)

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

    async def overfill(self) -> None:
        self.state.seen += ["x" * 200_000]

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


class Hearer(Agent[Balance]):
    mailbox = MailboxPolicy(capacity=1)

    async def on_start(self) -> None:
        self.subscribe("account.*")

    async def on_event(self, event: Event) -> None:
        if event.payload == {"amount": 0}:
            raise ValueError("the first one")
        self.state.amount += 1

    async def heard(self) -> int:
        return self.state.amount

    async def hang(self) -> None:
        await trio.sleep_forever()


class Relay(Agent[None]):
    async def pass_on(self, other: str) -> None:
        self.cast(self.runtime.ref(other, Account), Account.add, 1)

    async def ask(self, other: str) -> None:
        await self.runtime.ref(other, Account).call(Account.add, 1)


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


class Latch:
    """A value that SQLite takes when the block is over: its writer waits until then."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._open.set()

    def __conform__(self, _: object) -> int:
        self._open.wait(60)
        return 1


def held_by(latch: Latch) -> Unit:
    """A unit that changes nothing and is not committed before the latch is open."""
    unit = Unit("/latch")
    unit.writes = [("DELETE FROM effect WHERE number = -?", (latch,))]
    return unit


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


async def crashed(ref: Any, operation: Any) -> None:
    with pytest.raises(AgentCrashed):
        await ref.call(operation)


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
            with trio.fail_after(30):
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
    async with opened() as runtime:
        ref = runtime.ref("account", Account).with_timeout(60)
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

        latch = Latch()
        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(add, 6)
                await wait_all_tasks_blocked()
                # The writer has the first group; these go into the next one, in which
                # it stays until the agent has come back and gone on.
                nursery.start_soon(add, 100)
                runtime.store.hand_over(held_by(latch))
                await wait_all_tasks_blocked()
            handled = ref.statistics().handled
            with latch:
                await wait_until(lambda: ref.statistics().handled > handled)
                assert answers == {6: "lost"}
        assert answers == {6: "lost", -6: 11, 100: "lost", -100: 21}
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
    async with opened(ChildSpec("account", Other)) as runtime:
        with pytest.raises(AgentDown, match=r"RestoreError: .*left untouched"):
            await runtime.ref("account", Other).call(Other.get)


async def test_a_read_only_handler_writes_nothing(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        await runtime.store.settled()
        units = runtime.store.statistics().units
        for _ in range(10):
            await ref.call(Account.get)
        assert runtime.store.statistics().units == units


async def test_an_agent_that_was_just_woken_does_not_go_on_from_lost_state(
    opened: Any, tmp_path: Path
) -> None:
    """Its message comes in the same moment in which its commit fails."""
    specs = [ChildSpec(id_, Account) for id_ in ("account", "teller", "first")]
    async with opened(*specs) as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)

        async def lose() -> None:
            with pytest.raises(StoreBroken):
                await ref.call(Account.add, 6)

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(runtime.ref("first", Account).call, Account.add, 1)
                await wait_all_tasks_blocked()
                # One group: the cast of the first unit wakes who loses the second.
                teller = runtime.ref("teller", Account)
                nursery.start_soon(teller.call, Account.tell, "/account", 100)
                await wait_all_tasks_blocked()
                nursery.start_soon(lose)
                await wait_all_tasks_blocked()
        assert await ref.call(Account.get) == 101
    async with opened(*specs) as runtime:
        assert await runtime.ref("account", Account).call(Account.get) == 101


async def test_who_comes_to_the_place_of_one_that_is_gone_sees_its_last_commit(
    opened: Any, tmp_path: Path
) -> None:
    spec = ChildSpec("account", Account, restart="temporary")
    async with opened(spec) as runtime:
        ref = runtime.ref("account", Account)
        application = runtime.supervisor("/application")
        answers: list[int] = []

        async def add() -> None:
            answers.append(await ref.call(Account.add, 5))

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(add)
                await wait_all_tasks_blocked()
                with pytest.raises(AgentCrashed):
                    await ref.call(Account.announce_and_fail)
                await wait_all_tasks_blocked()
                nursery.start_soon(application.start_child, spec)
                await wait_all_tasks_blocked()
        assert answers == [5]
        assert await runtime.ref("account", Account).call(Account.add, 1) == 6
        assert not runtime.surroundings.undecided


@pytest.mark.parametrize("operation", ["pass_on", "ask"])
async def test_what_a_lost_handler_set_off_is_lost_with_it(
    opened: Any, tmp_path: Path, operation: str
) -> None:
    """Also through one that has nothing of its own to commit."""
    specs = [ChildSpec(id_, Account) for id_ in ("account", "other")]
    async with opened(*specs, ChildSpec("relay", Relay)) as runtime:
        ref, other = runtime.ref("account", Account), runtime.ref("other", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)

        async def lose(what: Any, *args: object) -> None:
            with pytest.raises(StoreBroken):
                await ref.call(what, *args)

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(lose, Account.add, 6)
                await wait_all_tasks_blocked()
                nursery.start_soon(
                    lose, Account.cast_through, "relay", operation, "/other"
                )
                await wait_all_tasks_blocked()
        await wait_until(lambda: not other.statistics().uncommitted)
        assert await other.call(Account.get) == 0
        assert await ref.call(Account.get) == 1
    async with opened(*specs) as runtime:
        assert await runtime.ref("other", Account).call(Account.get) == 0


@pytest.mark.parametrize("operation", [Account.add, Account.add_now])
async def test_without_its_store_an_agent_answers_that_nothing_was_kept(
    opened: Any, operation: Any
) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        store, runtime.surroundings.store = runtime.surroundings.store, None
        with pytest.raises(StoreBroken, match="was not kept"):
            await ref.call(operation, 5)
        runtime.surroundings.store = store
        assert await ref.call(Account.add, 1) == 2


async def test_a_crash_between_messages_is_recorded(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 5)
        runtime.injections.crash("/account")
        assert await ref.call(Account.add, 1) == 6
        await runtime.store.settled()
        (crash,) = await runtime.store.crashes("/account")
        assert (crash.operation, crash.message) == ("", b"null")
        assert msgspec.json.decode(crash.payload)["amount"] == 5


async def test_a_rollback_returns_the_message_in_hand(
    opened: Any, tmp_path: Path
) -> None:
    """Its caller is not failed: the next incarnation answers."""
    gate = trio.Event()
    spec = ChildSpec("account", Account, args=(gate,))
    async with opened(spec) as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        answers: list[object] = []

        async def half_way() -> None:
            answers.append(await ref.call(Account.half_way))

        async def lose() -> None:
            with pytest.raises(StoreBroken):
                await ref.call(Account.add, 6)
            gate.set()

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(lose)
                await wait_all_tasks_blocked()
                nursery.start_soon(half_way)
                await wait_all_tasks_blocked()
                assert ref.statistics().doing == "half_way"
        assert answers == [1002]
        assert ref.incarnation == 2


async def test_an_injected_crash_in_a_handler_is_told_to_its_caller(
    opened: Any,
) -> None:
    gate = trio.Event()
    async with opened(ChildSpec("account", Account, args=(gate,))) as runtime:
        ref = runtime.ref("account", Account)
        async with trio.open_nursery() as nursery:

            async def half_way() -> None:
                with pytest.raises(AgentCrashed, match="injected by test"):
                    await ref.call(Account.half_way)

            nursery.start_soon(half_way)
            await wait_all_tasks_blocked()
            runtime.injections.crash("/account", by="test")
        assert await ref.call(Account.get) == 0


async def test_every_held_caller_gets_an_exception_of_its_own(
    opened: Any, tmp_path: Path
) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.add, 1)
        refuse_amount(tmp_path, 7)
        errors: list[StoreBroken] = []

        async def call(operation: Any, *args: object) -> None:
            try:
                await ref.call(operation, *args)
            except StoreBroken as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(call, Account.add, 6)
                await wait_all_tasks_blocked()
                nursery.start_soon(call, Account.get)
                nursery.start_soon(call, Account.refuse)
                await wait_all_tasks_blocked()
        assert len({id(error) for error in errors}) == 3


async def test_a_state_that_grew_too_large_is_refused(opened: Any) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        await ref.call(Account.fill)
        units = runtime.store.statistics().units
        with pytest.raises(AgentCrashed, match="more than 1048576"):
            await ref.call(Account.overfill)
        assert len(await ref.call(Account.seen)) == 1
        assert runtime.store.statistics().units == units


async def test_stop_returns_after_the_last_commit(opened: Any, tmp_path: Path) -> None:
    async with opened() as runtime:
        ref = runtime.ref("account", Account)
        application = runtime.supervisor("/application")
        stopped = trio.Event()

        async def stop() -> None:
            await application.terminate_child("account")
            stopped.set()

        async with trio.open_nursery() as nursery:
            with held_back(tmp_path):
                nursery.start_soon(ref.call, Account.add, 5)
                await wait_all_tasks_blocked()
                nursery.start_soon(stop)
                await wait_all_tasks_blocked()
                assert not stopped.is_set()
        assert stopped.is_set()


async def test_events_that_waited_for_a_full_mailbox_come_after_a_crash(
    opened: Any,
) -> None:
    """The next incarnation looks for them by itself: no message has to come first."""
    specs = (ChildSpec("one", Account), ChildSpec("hearer", Hearer))
    async with opened(*specs) as runtime:
        one, hearer = runtime.ref("one", Account), runtime.ref("hearer", Hearer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crashed, hearer, Hearer.hang)
            await wait_all_tasks_blocked()
            for amount in range(3):
                await one.call(Account.announce, amount)
            assert hearer.statistics().mailbox == 1
            runtime.injections.crash("/hearer")
            await wait_until(lambda: hearer.statistics().handled == 2)
        assert await hearer.call(Hearer.heard) == 2


class Announcer(Agent[Balance]):
    """Changes its state when it starts, so that a commit can fail under its start."""

    async def on_start(self) -> None:
        self.state.amount += 3

    async def get(self) -> int:
        return self.state.amount

    async def fail(self) -> None:
        raise ValueError("on purpose")


async def test_a_commit_that_fails_under_a_restart_costs_no_budget(
    opened: Any, tmp_path: Path
) -> None:
    async with opened(ChildSpec("account", Announcer)) as runtime:
        ref = runtime.ref("account", Announcer)
        assert await ref.call(Announcer.get) == 3
        refuse_amount(tmp_path, 6)
        with pytest.raises(AgentCrashed):
            await ref.call(Announcer.fail)
        with trio.fail_after(30):
            while ref.incarnation < 8:
                await trio.lowlevel.checkpoint()
        foreign = sqlite3.connect(tmp_path / "test.db")
        foreign.execute("DROP TRIGGER refuse")
        foreign.commit()
        foreign.close()
        with trio.fail_after(30):
            assert await ref.call(Announcer.get) == 6
        budget = runtime.tree()["/application"].budget
        assert budget is not None
        assert budget[0] == 1
