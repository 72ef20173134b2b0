"""Several agents change together or not at all (design.md 6; reliability.md 4)."""

from __future__ import annotations

import contextvars
import gc
import sqlite3
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import treewarden
from treewarden import (
    Agent,
    AgentDown,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    MailboxPolicy,
    NameUnknown,
    Refused,
    Runtime,
    StateNotEncodable,
    StoreBroken,
    TransactionConflict,
    TransactionMisuse,
    TransactionTimeout,
    UnknownOperation,
    open_runtime,
)
from treewarden.testing import crash, store_clock, wait_restarted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import AgentRef

START = 100


class Money(msgspec.Struct):
    cents: int = START
    ratio: float = 0.0


class TooLittle(Exception):
    pass


class Account(Agent[Money]):
    receipts: DurableQueue[int]

    def withdraw(self, cents: int) -> int:
        if cents > self.state.cents:
            raise TooLittle(f"{cents} of {self.state.cents}")
        self.state.cents -= cents
        return self.state.cents

    async def deposit(self, cents: int) -> int:
        self.state.cents += cents
        await self.receipts.put(cents)
        return self.state.cents

    def get(self) -> int:
        return self.state.cents

    async def receipts_left(self) -> int:
        return len(self.receipts)

    def announce(self, word: str) -> None:
        self.state.cents += 1
        self.publish("account.said", word)

    def tell(self, other: str, cents: int) -> None:
        self.cast(self.runtime.ref(other, Account), Account.deposit, cents)

    def refuse(self) -> None:
        self.state.cents = -1
        raise Refused("no")

    def spoil(self) -> None:
        self.state.ratio = float("nan")

    def end(self) -> None:
        self.state.cents += 1
        self.stop()

    def leave(self) -> None:
        raise treewarden.Stop

    async def go(self) -> None:
        raise treewarden.Stop

    async def say_where(self) -> str:
        self.publish("account.said", "here")
        return trio.lowlevel.current_task().name

    async def say_where_later(self) -> str:
        await trio.lowlevel.checkpoint()
        return await self.say_where()

    def put_off(self) -> None:
        self.defer()

    def come_back(self) -> None:
        self.continue_with(Account.withdraw, 1)
        self.send_after(1.0, Account.withdraw, 10)

    async def hang(self) -> None:
        self.state.cents = 0
        await trio.sleep_forever()

    async def ask(self, other: str) -> int:
        return await self.runtime.ref(other, Account).call(Account.get)

    async def nest(self, other: str) -> None:
        async with self.runtime.transaction(self.runtime.ref(other)):
            pass

    async def take_itself(self) -> None:
        await self.nest(self.path)

    async def move(self, source: str, target: str, cents: int) -> None:
        """As an agent that is no participant."""
        self.state.cents += 1
        first, second = self.runtime.ref(source), self.runtime.ref(target)
        async with self.runtime.transaction(first, second) as tx:
            await tx.call(first, Account.withdraw, cents)
            await tx.call(second, Account.deposit, cents)


class Forgetful(Agent[Money]):
    persistence = "none"


class Narrow(Account):
    mailbox = MailboxPolicy(capacity=1, overflow="reject")


class Open(Protocol):
    def __call__(
        self, *children: ChildSpec
    ) -> AbstractAsyncContextManager[Runtime]: ...


@pytest.fixture
def clock() -> Iterator[MockClock]:
    """Virtual time that stands still while the disk works."""
    with store_clock() as clock:
        yield clock


@pytest.fixture
def opened(tmp_path: Path, clock: MockClock) -> Open:
    """A runtime with accounts on this test's file; opened again, it is the same file."""

    def make(*children: ChildSpec) -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=tmp_path / "test.db", socket=False)
        specs = children or [ChildSpec(f"a{n}", Account) for n in range(4)]
        return open_runtime(Application("test", specs), config=config)

    return make


@pytest.fixture
async def runtime(opened: Open) -> AsyncIterator[Runtime]:
    async with opened() as runtime:
        yield runtime


def accounts(runtime: Runtime, count: int = 2) -> list[AgentRef[Account]]:
    return [runtime.ref(f"a{n}", Account) for n in range(count)]


def cents(*refs: AgentRef[Account]) -> list[int]:
    """What is committed, read in one step."""
    return [msgspec.json.decode(ref.inspect())["cents"] for ref in refs]


async def move(
    runtime: Runtime, source: AgentRef[Account], target: AgentRef[Account], cents: int
) -> None:
    async with runtime.transaction(source, target) as tx:
        await tx.call(source, Account.withdraw, cents)
        await tx.call(target, Account.deposit, cents)


@contextmanager
def held_back(path: Path) -> Iterator[None]:
    """The store's writer cannot commit while a foreign connection holds the lock."""
    foreign = sqlite3.connect(path / "test.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        foreign.execute("ROLLBACK")
        foreign.close()


def refuse_cents(path: Path, amount: int) -> None:
    """From now on the database refuses a state with this amount: a failing commit."""
    foreign = sqlite3.connect(path / "test.db")
    foreign.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON agent_state WHEN "
        f"""NEW.payload LIKE '%"cents":{amount},%' """
        "BEGIN SELECT RAISE(ABORT, 'the test refuses this amount'); END"
    )
    foreign.commit()
    foreign.close()


# --- all of it -------------------------------------------------------------------------------


async def test_what_two_agents_did_is_there_after_a_restart(
    clock: MockClock, opened: Open
) -> None:
    async with opened() as runtime:
        a, b = accounts(runtime)
        await move(runtime, a, b, 30)
        assert cents(a, b) == [70, 130]
        assert [await a.call(Account.get), await b.call(Account.get)] == [70, 130]
    async with opened() as runtime:
        a, b = accounts(runtime)
        assert [await a.call(Account.get), await b.call(Account.get)] == [70, 130]
        assert await b.call(Account.receipts_left) == 1


async def test_leaving_the_block_is_the_held_reply(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b = accounts(runtime)
    done = trio.Event()

    async def transfer() -> None:
        await move(runtime, a, b, 30)
        done.set()

    async with trio.open_nursery() as nursery:
        with held_back(tmp_path):
            nursery.start_soon(transfer)
            await wait_all_tasks_blocked()
            # Both handle their next messages; nobody has seen anything.
            assert a.statistics().doing == b.statistics().doing == "idle"
            assert a.statistics().uncommitted
            assert not done.is_set()
            assert a.inspect() == b.inspect() == b""
            reading = b.request(Account.get)
            await wait_all_tasks_blocked()
            assert not reading.is_answered
        with trio.fail_after(10):
            assert await reading.result() == 130
    assert done.is_set()
    assert cents(a, b) == [70, 130]


async def test_one_unit_holds_all_of_it(clock: MockClock, runtime: Runtime) -> None:
    a, b = accounts(runtime)
    before = runtime.store.statistics()
    await move(runtime, a, b, 30)
    after = runtime.store.statistics()
    assert after.units == before.units + 1


async def test_events_and_casts_leave_after_the_commit_in_the_order_of_the_calls(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b, c = accounts(runtime, 3)
    async with (
        runtime.bus.subscribe("account.*") as events,
        trio.open_nursery() as nursery,
    ):

        async def talk() -> None:
            async with runtime.transaction(a, b) as tx:
                await tx.call(b, Account.announce, "one")
                await tx.call(a, Account.announce, "two")
                await tx.call(b, Account.announce, "three")
                await tx.call(a, Account.tell, "a2", 5)

        with held_back(tmp_path):
            nursery.start_soon(talk)
            await wait_all_tasks_blocked()
            assert events.pending == 0
            assert c.statistics().accepted == 0
        with trio.fail_after(10):
            heard = [(await anext(events)).payload for _ in range(3)]
        assert heard == ["one", "two", "three"]
        assert await c.call(Account.get) == START + 5
    stored = await runtime.store.entries(since=None, limit=9, pattern="account.*")
    assert [entry.payload for entry in stored] == [b'"one"', b'"two"', b'"three"']


async def test_a_participant_that_only_answers_is_not_written(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        assert await tx.call(b, Account.get) == START
        await tx.call(a, Account.withdraw, 1)
    assert (a.statistics().state_revision, b.statistics().state_revision) == (1, 0)


async def test_a_participant_that_is_asked_nothing_stays_as_it_was_and_is_free_again(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        await tx.call(a, Account.withdraw, 1)
    # It had not come to its seat when that was over.
    assert b.resolve().seat is None
    assert await b.call(Account.get) == START
    assert (cents(a), b.statistics().state_revision) == ([START - 1], 0)
    async with runtime.transaction(b):
        pass
    assert await b.call(Account.withdraw, 1) == START - 1


async def test_an_idle_participant_is_the_transactions_from_its_first_line_on(
    clock: MockClock, runtime: Runtime
) -> None:
    """Nobody waits until it has sat down; what comes later is handled later."""
    a, b = accounts(runtime)
    begun, heard = trio.Event(), list[int]()

    async def ask() -> None:
        await begun.wait()
        heard.append(await a.call(Account.get))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        async with runtime.transaction(a, b) as tx:
            begun.set()
            await wait_all_tasks_blocked()
            await tx.call(a, Account.withdraw, 10)
            assert heard == []
    assert heard == [START - 10]


async def test_a_handler_that_does_not_wait_needs_no_turn_of_its_agent(
    clock: MockClock, runtime: Runtime
) -> None:
    """It stages as ever: it runs where a plain one does, as its agent."""
    a, b = accounts(runtime)
    here = trio.lowlevel.current_task().name
    async with runtime.transaction(a, b) as tx:
        assert await tx.call(a, Account.say_where_later) != here
        assert await tx.call(b, Account.say_where) == here
        assert await tx.call(b, Account.say_where_later) != here
    said = await runtime.store.entries(since=0, limit=10, pattern="account.said")
    assert [entry.source for entry in said] == [a.path, b.path, b.path]


async def test_what_was_sent_before_is_handled_before(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    await a.cast(Account.deposit, 1000)
    async with runtime.transaction(a, b) as tx:
        assert await tx.call(a, Account.withdraw, 1050) == 50


async def test_what_waits_meanwhile_sees_all_of_it(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        await tx.call(a, Account.withdraw, 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tx.call, b, Account.deposit, 50)
        # By somebody who is not inside.
        context = contextvars.Context()
        waiting = [context.run(ref.request, Account.get) for ref in (a, b)]
        await wait_all_tasks_blocked()
        assert [one.is_answered for one in waiting] == [False, False]
    assert [await one.result() for one in waiting] == [50, 150]


async def test_continuations_and_timers_of_a_handler_go_on_after_it(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        await tx.call(a, Account.come_back)
        await tx.call(b, Account.deposit, 0)
    assert await a.call(Account.get) == START - 1
    await trio.sleep(1.5)
    assert await a.call(Account.get) == START - 11


async def test_an_agent_that_stops_in_a_transaction_stops_after_it(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        await tx.call(a, Account.end)
        await tx.call(b, Account.deposit, 1)
    await wait_restarted(a, 2)
    assert cents(a, b) == [START + 1, START + 1]


async def test_a_handler_may_run_a_transaction_of_others(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b, c = accounts(runtime, 3)
    await c.call(Account.move, "a0", "a1", 10)
    assert cents(a, b, c) == [90, 110, 101]


# --- none of it ------------------------------------------------------------------------------


async def test_an_exception_comes_out_as_it_is_and_nobody_crashes(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(TooLittle, match="1000 of 100"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(b, Account.deposit, 1000)
            await tx.call(a, Account.withdraw, 1000)
    assert [await a.call(Account.get), await b.call(Account.get)] == [START, START]
    assert await b.call(Account.receipts_left) == 0
    assert a.incarnation == b.incarnation == 1


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Account.refuse, Refused),
        (Account.spoil, StateNotEncodable),
        (Account.leave, TransactionMisuse),
        (Account.go, TransactionMisuse),
        (Account.put_off, TransactionMisuse),
    ],
)
async def test_whatever_a_handler_does_wrong_undoes_it(
    clock: MockClock, runtime: Runtime, operation: Any, error: type[Exception]
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(error):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            await tx.call(b, operation)
    assert [await a.call(Account.get), await b.call(Account.get)] == [START, START]
    assert a.incarnation == b.incarnation == 1


async def test_an_error_in_the_block_undoes_it(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(ZeroDivisionError):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.come_back)
            await tx.call(b, Account.tell, "a2", 5)
            raise ZeroDivisionError
    await trio.sleep(2)
    for ref in accounts(runtime, 3):
        assert await ref.call(Account.get) == START


async def test_an_error_that_is_swallowed_does_not_let_the_rest_be_committed(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(TransactionMisuse, match="withdraw of /a0 failed"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(b, Account.deposit, 1)
            with suppress(TooLittle):
                await tx.call(a, Account.withdraw, 1000)
    assert await b.call(Account.get) == START


async def test_cancelled_inside_it_is_undone(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    with trio.move_on_after(1) as scope:
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            await tx.call(b, Account.hang)
    assert scope.cancelled_caught
    assert [await a.call(Account.get), await b.call(Account.get)] == [START, START]
    assert b.incarnation == 1


async def test_a_call_that_is_given_up_undoes_it(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(TransactionMisuse, match="hang of /a1 was cancelled"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            with trio.move_on_after(1):
                await tx.call(b, Account.hang)
    assert [await a.call(Account.get), await b.call(Account.get)] == [START, START]


async def test_cancelled_while_it_is_committed_it_stands(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b = accounts(runtime)
    async with trio.open_nursery() as nursery:
        with held_back(tmp_path):
            nursery.start_soon(move, runtime, a, b, 30)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await runtime.store.settled()
    assert cents(a, b) == [70, 130]


async def test_a_busy_participant_is_a_timeout_and_nothing_has_changed(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    hanging = b.with_timeout(60).request(Account.hang)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    with pytest.raises(TransactionTimeout, match=r"/a1 was busy \(hang\)") as caught:
        async with runtime.transaction(a, b, timeout=2.0):
            pytest.fail("it was taken")
    assert isinstance(caught.value, trio.TooSlowError)
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.5)
    assert caught.value.busy == "/a1"
    assert await a.call(Account.get) == START
    await crash(b)
    assert await b.call(Account.get) == START
    with pytest.raises(treewarden.AgentCrashed):
        await hanging.result()


async def test_a_block_that_takes_too_long_is_undone(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    began = trio.current_time()
    with pytest.raises(TransactionTimeout, match="still open"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            await trio.sleep(60)
    assert trio.current_time() - began < 6
    assert await a.call(Account.get) == START


async def test_a_participant_that_crashes_meanwhile_undoes_it(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(TransactionConflict, match=r"/a1 has left: .* it crashed"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            await tx.call(b, Account.deposit, 1)
            await crash(b)
    assert await a.call(Account.get) == START
    await wait_restarted(b, 2)
    assert await b.call(Account.get) == START


async def test_a_call_to_a_participant_that_crashes_is_told_so(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    async with trio.open_nursery() as nursery:

        async def crash_it() -> None:
            await wait_all_tasks_blocked()
            await crash(b)

        with pytest.raises(TransactionConflict, match="/a1 has left"):
            async with runtime.transaction(a, b) as tx:
                await tx.call(a, Account.withdraw, 1)
                nursery.start_soon(crash_it)
                await tx.call(b, Account.hang)
    assert await a.call(Account.get) == START


async def test_a_participant_that_is_stopped_meanwhile_goes_at_once(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b = accounts(runtime)
    root = runtime.supervisor("/application")
    with pytest.raises(TransactionConflict, match="it is being stopped"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(b, Account.deposit, 1)
            began = trio.current_time()
            await root.terminate_child("a1")
            assert trio.current_time() - began < 0.1
            with pytest.raises(TransactionConflict):
                await tx.call(a, Account.withdraw, 1)
    assert b.statistics().state_revision == 0
    assert await a.call(Account.get) == START


async def test_a_participant_that_is_gone_is_said_to_be(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    await runtime.supervisor("/application").terminate_child("a1")
    with pytest.raises(AgentDown):
        async with runtime.transaction(a, b):
            pytest.fail("it was taken")
    with pytest.raises(NameUnknown):
        runtime.ref("/nobody")
    assert await a.call(Account.get) == START


async def test_a_failed_commit_takes_all_of_them_back_uncounted(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b = accounts(runtime)
    await move(runtime, a, b, 10)
    refuse_cents(tmp_path, 150)
    for turn in range(1, 6):
        with pytest.raises(StoreBroken, match="what /a0 and /a1 changed"):
            await move(runtime, a, b, 40)
        await wait_restarted(a, turn + 1)
        await wait_restarted(b, turn + 1)
        assert [await a.call(Account.get), await b.call(Account.get)] == [90, 110]
        assert await b.call(Account.receipts_left) == 1
    budget = runtime.tree()["/application"].budget
    assert budget is not None
    assert budget[0] == 0
    await move(runtime, a, b, 41)
    assert cents(a, b) == [49, 151]


async def test_what_builds_on_a_transaction_that_failed_fails_with_it(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b, c = accounts(runtime, 3)
    await move(runtime, a, b, 10)
    refuse_cents(tmp_path, 150)
    lost: list[str] = []

    async def try_to(name: str, work: Any, *args: object) -> None:
        try:
            await work(*args)
        except StoreBroken:
            lost.append(name)

    async with trio.open_nursery() as nursery:
        with held_back(tmp_path):
            nursery.start_soon(try_to, "moved", move, runtime, a, b, 40)
            await wait_all_tasks_blocked()
            nursery.start_soon(try_to, "again", move, runtime, a, c, 1)
            await wait_all_tasks_blocked()
            nursery.start_soon(try_to, "call", c.call, Account.deposit, 1)
            await wait_all_tasks_blocked()
    assert sorted(lost) == ["again", "call", "moved"]
    assert [await one.call(Account.get) for one in (a, b, c)] == [90, 110, 100]


async def test_a_transaction_on_state_that_is_then_lost_is_no_commit(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    a, b = accounts(runtime)
    await move(runtime, a, b, 10)
    refuse_cents(tmp_path, 150)
    with held_back(tmp_path):
        doomed = b.request(Account.deposit, 40)
        await wait_all_tasks_blocked()
        entering = runtime.transaction(a, b)
        tx = await entering.__aenter__()
        await tx.call(a, Account.withdraw, 1)
        await tx.call(b, Account.deposit, 1)
    with pytest.raises(StoreBroken), trio.fail_after(10):
        await doomed.result()
    # The agent has fallen back and has not noticed yet; nothing of it is sealed.
    with pytest.raises(TransactionConflict, match="/a1 has left"):
        await entering.__aexit__(None, None, None)
    assert [await a.call(Account.get), await b.call(Account.get)] == [90, 110]


async def test_a_transaction_leaves_nothing_for_the_collector(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    gc.collect()
    gc.disable()
    try:
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.withdraw, 1)
            await tx.call(b, Account.deposit, 1)
        left = weakref.ref(tx)
        del tx
        await wait_all_tasks_blocked()
        assert left() is None
    finally:
        gc.enable()


# --- what cannot be --------------------------------------------------------------------------


async def test_a_transaction_inside_of_another_is_refused(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b, c = accounts(runtime, 3)
    async with runtime.transaction(a, b) as tx:
        with pytest.raises(TransactionMisuse, match="inside of another"):
            async with runtime.transaction(c):
                pass
        await tx.call(a, Account.withdraw, 1)
    with pytest.raises(TransactionMisuse, match="inside of another"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.nest, "a2")
    assert cents(a) == [99]


async def test_plain_messages_to_a_participant_from_inside_are_refused(
    clock: MockClock,
    runtime: Runtime,
) -> None:
    a, b, c = accounts(runtime, 3)
    async with runtime.transaction(a, b) as tx:
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            await a.call(Account.get)
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            await a.cast(Account.withdraw, 1)
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            a.cast_nowait(Account.withdraw, 1)
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            a.request(Account.get)
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            await a.stop()
        with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
            await a.replace_state(Money())
        assert await c.call(Account.get) == START
        await tx.call(b, Account.deposit, 1)
    with pytest.raises(TransactionMisuse, match=r"use tx\.call"):
        async with runtime.transaction(a, b) as tx:
            await tx.call(a, Account.ask, "a1")
    assert await a.call(Account.get) == START


async def test_a_call_to_somebody_else_by_tx_call_is_refused(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b, c = accounts(runtime, 3)
    async with runtime.transaction(a, b) as tx:
        with pytest.raises(TransactionMisuse, match="/a2 is no participant"):
            await tx.call(c, Account.get)
        with pytest.raises(UnknownOperation):
            await tx.call(a, Forgetful.on_start)
        await tx.call(a, Account.withdraw, 1)
    assert cents(a) == [99]


async def test_participants_that_cannot_be_are_refused(
    clock: MockClock, opened: Open
) -> None:
    crowd = [ChildSpec(f"c{n}", Account) for n in range(65)]
    async with opened(ChildSpec("f", Forgetful), *crowd) as runtime:
        refs = [runtime.ref(one.id, Account) for one in crowd]
        with pytest.raises(TransactionMisuse, match="at most 64 agents, not 65"):
            async with runtime.transaction(*refs):
                pass
        with pytest.raises(TransactionMisuse, match="/c1 is named twice"):
            async with runtime.transaction(refs[1], refs[0], refs[1]):
                pass
        with pytest.raises(TransactionMisuse, match='persistence = "none"'):
            async with runtime.transaction(refs[0], runtime.ref("f")):
                pass
        with pytest.raises(TypeError, match="takes AgentRefs"):
            async with runtime.transaction("c1"):  # type: ignore[arg-type] # wrong on purpose
                pass
        with pytest.raises(ValueError, match=">= 0"):
            async with runtime.transaction(refs[0], timeout=-1.0):
                pass
        async with runtime.transaction(*refs[:64]) as tx:
            for ref in refs[:64]:
                await tx.call(ref, Account.withdraw, 1)
        assert set(cents(*refs[:64])) == {99}


async def test_an_agent_of_another_runtime_is_refused(
    clock: MockClock, runtime: Runtime, tmp_path: Path
) -> None:
    config = Config(store=tmp_path / "other.db", socket=False, name="other")
    other = Application("other", [ChildSpec("a0", Account)])
    async with open_runtime(other, config=config) as elsewhere:
        foreign = elsewhere.ref("a0", Account)
        with pytest.raises(TransactionMisuse, match="of another runtime"):
            async with runtime.transaction(foreign):
                pass


async def test_an_agent_cannot_take_itself(clock: MockClock, runtime: Runtime) -> None:
    (a,) = accounts(runtime, 1)
    with pytest.raises(treewarden.AgentCrashed, match="would take itself"):
        await a.call(Account.take_itself)


async def test_a_transaction_that_is_over_can_do_nothing(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        pass
    with pytest.raises(TransactionMisuse, match="is over"):
        await tx.call(a, Account.get)


async def test_an_idle_participant_that_crashes_first_sits_down_in_its_next_life(
    clock: MockClock, runtime: Runtime
) -> None:
    """As any message that waits, when an agent crashes."""
    a, b = accounts(runtime)
    async with runtime.transaction(a, b) as tx:
        runtime.injections.crash("/a0")
        await tx.call(a, Account.withdraw, 1)
        await tx.call(b, Account.withdraw, 1)
        assert a.incarnation == 2
    assert cents(a, b) == [START - 1, START - 1]


async def test_one_participant_runs_one_call_at_a_time(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    with pytest.raises(TransactionTimeout):
        async with runtime.transaction(a, b) as tx, trio.open_nursery() as nursery:
            nursery.start_soon(tx.call, a, Account.hang)
            await wait_all_tasks_blocked()
            with pytest.raises(TransactionMisuse, match="runs another call"):
                await tx.call(a, Account.withdraw, 1)


async def test_a_block_left_while_a_call_runs_is_undone(
    clock: MockClock, runtime: Runtime
) -> None:
    a, b = accounts(runtime)
    async with trio.open_nursery() as nursery:

        async def hang(tx: Any) -> None:
            with pytest.raises(TransactionMisuse):
                await tx.call(a, Account.hang)

        with pytest.raises(TransactionMisuse, match="while /a0 runs a call"):
            async with runtime.transaction(a, b) as tx:
                nursery.start_soon(hang, tx)
                await wait_all_tasks_blocked()
    assert await a.call(Account.get) == START


async def test_a_full_mailbox_that_refuses_refuses_a_transaction(
    clock: MockClock, opened: Open
) -> None:
    async with opened(ChildSpec("n", Narrow)) as runtime:
        ref = runtime.ref("n", Narrow)
        hanging = ref.request(Narrow.hang)
        await wait_all_tasks_blocked()
        waiting = ref.request(Narrow.get)
        with pytest.raises(treewarden.MailboxFull):
            async with runtime.transaction(ref):
                pass
        for request in (hanging, waiting):
            with pytest.raises(treewarden.AgentError):
                await request.result()


class Kept(Account):
    mailbox = MailboxPolicy(durable=True)


async def test_an_agent_with_a_durable_mailbox_takes_part_and_hears_what_is_cast(
    clock: MockClock, opened: Open
) -> None:
    children = ChildSpec("a0", Kept), ChildSpec("a1", Account), ChildSpec("a2", Kept)
    async with opened(*children) as runtime:
        a, b, c = (runtime.ref(one.id, Account) for one in children)
        await a.cast(Account.deposit, 5)
        with pytest.raises(TooLittle):
            async with runtime.transaction(a, b) as tx:
                await tx.call(b, Account.tell, "a2", 1000)
                await tx.call(a, Account.withdraw, 1000)
        async with runtime.transaction(a, b) as tx:
            assert await tx.call(a, Account.withdraw, 105) == 0
            await tx.call(b, Account.deposit, 100)
            await tx.call(b, Account.tell, "a2", 7)
        assert await c.call(Account.get) == START + 7
    async with opened(*children) as runtime:
        refs = (runtime.ref(one.id, Account) for one in children)
        found = [await ref.call(Account.get) for ref in refs]
    assert found == [0, 200, START + 7]
