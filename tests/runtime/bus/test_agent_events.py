"""Agents and durable subscriptions: at least once to each, and once into the state."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    Intensity,
    MailboxPolicy,
    open_runtime,
)
from treewarden.agents import DeadLetters
from treewarden.bus import DurablePolicy, Event, Reason, Start, unordered
from treewarden.errors import Refused
from treewarden.resilience import Backoff
from treewarden.store import (
    Unit,
    forget_subscription,
    load_deliveries,
    load_subscriptions,
)
from treewarden.supervision import Directory
from treewarden.testing import crash, store_clock, wait_restarted, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, Runtime
    from treewarden.bus import DurableStatistics
    from treewarden.store import Store

AT_ONCE = DurablePolicy(max_attempts=3, backoff=Backoff(initial=0.0, maximum=0.0))


class Orders(msgspec.Struct):
    seen: list[int] = []
    crashes: int = 0


class Billing(Agent[Orders]):
    """Writes down what it hears; what it is told to fail at, it fails at."""

    failing: dict[int, list[Exception | str]] = {}  # noqa: RUF012 - set by the tests

    async def on_start(self) -> None:
        self.subscribe("orders.>", durable=True, policy=AT_ONCE, start=Start(after=0))

    async def on_event(self, event: Event) -> None:
        number = event.payload
        assert isinstance(number, int)
        self.state.seen.append(number)
        self.publish("billed", number)
        fails = self.failing.get(number)
        if fails:
            failure = fails.pop(0)
            if failure == "park":
                await trio.sleep_forever()
            if isinstance(failure, Exception):
                raise failure

    def seen(self) -> list[int]:
        return self.state.seen

    def later(self) -> None:
        self.state.crashes += 1


@pytest.fixture
def clock() -> Iterator[MockClock]:
    Billing.failing = {}
    with store_clock() as clock:
        yield clock


@asynccontextmanager
async def opened(
    folder: Path,
    agents: int = 1,
    kind: type[Agent[Any]] = Billing,
    budget: int = 5,
) -> AsyncIterator[Runtime]:
    app = Application(
        "shop",
        [ChildSpec(f"b{number}", kind) for number in range(agents)],
        intensity=Intensity(budget, 5.0),
    )
    config = Config(store=folder / "s.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime


def billing(runtime: Runtime, number: int = 0) -> AgentRef[Billing]:
    return runtime.ref(f"b{number}", Billing)


def account(runtime: Runtime, id_: str = "/b0:orders.>") -> DurableStatistics:
    (found,) = [one for one in runtime.bus.statistics().durable if one.id == id_]
    assert found.published == found.delivered + found.dropped + found.pending
    return found


async def publish(runtime: Runtime, *numbers: int, topic: str = "orders.new") -> None:
    for number in numbers:
        await runtime.bus.publish(topic, number)


async def handled(runtime: Runtime, numbers: list[int]) -> None:
    """Wait until these are in the state, and no more."""
    ref = billing(runtime)
    # Until it is open there is nothing pending, but it is far behind.
    await wait_until(
        lambda: not (account(runtime).lag or account(runtime).pending), "all handled"
    )
    assert await ref.call(Billing.seen) == numbers


async def test_events_are_handled_in_order_and_go_on_in_the_next_run(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1, 2, 3)
        await handled(runtime, [1, 2, 3])
    async with opened(tmp_path, agents=0) as runtime:
        await publish(runtime, 4, 5)
    async with opened(tmp_path) as runtime:
        await publish(runtime, 6)
        await handled(runtime, [1, 2, 3, 4, 5, 6])


async def write(runtime: Runtime, statement: str) -> None:
    unit = Unit("/test")
    unit.writes = [(statement, ())]
    runtime.store.hand_over(unit)
    await runtime.store.wait(unit)


async def test_that_an_event_is_done_commits_with_what_its_handler_did(
    tmp_path: Path, clock: MockClock
) -> None:
    """When the one cannot be written, the other is not there."""
    async with opened(tmp_path) as runtime:
        await write(
            runtime,
            "CREATE TRIGGER full BEFORE INSERT ON delivery WHEN NEW.done"
            " BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        await publish(runtime, 1)
        await wait_until(lambda: account(runtime).waiting)
        stored = await runtime.store.load("/b0", "Billing")
        assert stored is None or b"1" not in stored.payload
        assert await runtime.store.entries(since=0, limit=1, pattern="billed") == []
        await write(runtime, "DROP TRIGGER full")
        # It is tried again in a second.
        await trio.sleep(5)
        await handled(runtime, [1])
        assert len(await runtime.store.entries(since=0, limit=9, pattern="billed")) == 1


async def test_a_crash_costs_an_attempt_and_changes_nothing(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {2: [ValueError("first"), ValueError("second")]}
    async with opened(tmp_path, budget=1) as runtime:
        await publish(runtime, 1, 2, 3)
        # Two crashes, of which one counts: a budget of one restart is enough.
        await handled(runtime, [1, 2, 3])
        assert account(runtime).redelivered == 2
        assert account(runtime).last_fault == "ValueError: second"


async def test_f58_a_poisonous_event_becomes_a_dead_letter_with_its_fault(
    tmp_path: Path, clock: MockClock
) -> None:
    """F58: the line that failed, and the event, are in the journal."""
    Billing.failing = {2: [ValueError(f"{n}") for n in range(3)]}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1, 2, 3)
        await handled(runtime, [1, 3])
        assert account(runtime).dropped_by == {Reason.DEAD_LETTER: 1}
        (letter,) = await runtime.dead_letters.list()
        assert (letter.path, letter.subscription) == ("/b0", "orders.>")
        assert (letter.operation, letter.attempts) == ("orders.new", 3)
        assert letter.reason == "ValueError: 2"
        await runtime.store.settled()
        entries = await runtime.store.entries(since=0, limit=100, pattern="bus.failed")
        report = msgspec.json.decode(entries[-1].payload)
        assert report["event"]["payload"] == 2
        assert report["fault"]["frames"][-1][2] == "on_event"


async def test_a_dead_letter_that_is_tried_again_goes_to_its_subscription_only(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {2: [ValueError("no")] * 3}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1, 2, 3)
        await handled(runtime, [1, 3])
        (letter,) = await runtime.dead_letters.list()
        assert await runtime.dead_letters.retry(letter.number)
        assert not await runtime.dead_letters.retry(letter.number)
        await handled(runtime, [1, 3, 2])
        assert await runtime.dead_letters.list() == []
    async with opened(tmp_path) as runtime:
        await publish(runtime, 4)
        await handled(runtime, [1, 3, 2, 4])


async def test_a_dead_letter_is_tried_again_when_its_agent_is_back(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {2: [ValueError("no")] * 3}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1, 2)
        await handled(runtime, [1])
    async with opened(tmp_path, agents=0) as runtime:
        (letter,) = await runtime.dead_letters.list()
        assert await runtime.dead_letters.retry(letter.number)
    async with opened(tmp_path) as runtime:
        await handled(runtime, [1, 2])


@pytest.mark.parametrize("moment", range(1, 7))
async def test_a_dead_letter_stays_when_its_subscription_is_forgotten_before_it_goes(
    tmp_path: Path, clock: MockClock, moment: int
) -> None:
    """At whichever moment that is between the first look and the commit."""
    Billing.failing = {2: [ValueError("no")] * 3}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 2)
        await handled(runtime, [])
    async with opened(tmp_path, agents=0) as runtime:
        store = runtime.store
        (letter,) = await runtime.dead_letters.list()
        key = letter.path, letter.subscription
        moments = itertools.count(1)

        def find_store() -> Store:
            if next(moments) == moment:
                unit = Unit(letter.path)
                unit.writes = forget_subscription(key)
                store.hand_over(unit)
            return store

        retried = await DeadLetters(find_store, Directory()).retry(letter.number)
        assert retried is bool(await store.read(load_subscriptions))
        left = await runtime.dead_letters.list()
        noted = await store.read(partial(load_deliveries, key=key))
        assert (left, len(noted)) == (([], 1) if retried else ([letter], 0))


async def test_dead_letters_are_purged_by_age(tmp_path: Path, clock: MockClock) -> None:
    Billing.failing = {n: [ValueError("no")] * 3 for n in (1, 2)}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1, 2, 3)
        await handled(runtime, [3])
        letters = runtime.dead_letters
        second = (await letters.list())[1]
        assert await letters.purge(before_ns=second.at_ns) == 1
        assert [one.id for one in await letters.list()] == [second.id]
        assert await letters.purge() == 1
        assert not await letters.retry(second.number)


async def test_a_refused_event_is_tried_again_and_its_agent_lives(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {1: [Refused("not now")]}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1)
        await handled(runtime, [1])
        assert billing(runtime).statistics().incarnation == 1


async def test_a_crash_between_events_hands_them_out_again_in_order(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {1: ["park"]}
    async with opened(tmp_path) as runtime:
        await publish(runtime, 1)
        await publish(runtime, 2, topic="orders.old")
        await wait_until(lambda: not Billing.failing[1])
        await crash(billing(runtime))
        await wait_restarted(billing(runtime), 2)
        await wait_until(lambda: account(runtime).pending == 0)
        # 2 is of another topic and overtakes what waits to be tried again.
        assert sorted(await billing(runtime).call(Billing.seen)) == [1, 2]


async def test_a_stopped_agent_gives_back_what_it_held_and_that_was_no_attempt(
    tmp_path: Path, clock: MockClock
) -> None:
    Billing.failing = {1: ["park"] * 5}
    async with opened(tmp_path, agents=0) as runtime:
        await publish(runtime, 1)
    for _ in range(4):
        async with opened(tmp_path) as runtime:
            await wait_until(lambda: account(runtime).leased)
            supervisor = runtime.supervisor("/application")
            with trio.move_on_after(10):
                await supervisor.terminate_child("b0")
    Billing.failing = {}
    async with opened(tmp_path) as runtime:
        await handled(runtime, [1])


async def test_agents_of_one_group_share_its_events(
    tmp_path: Path, clock: MockClock
) -> None:
    class Worker(Billing):
        async def on_start(self) -> None:
            policy = DurablePolicy(key=unordered)
            self.subscribe("orders.>", durable=True, group="workers", policy=policy)

    async with opened(tmp_path, agents=3, kind=Worker) as runtime:
        await wait_until(lambda: account(runtime, "workers").members == 3)
        await publish(runtime, *range(60))
        await wait_until(lambda: account(runtime, "workers").delivered == 60)
        assert account(runtime, "workers").members == 3
        seen = [
            await billing(runtime, number).call(Billing.seen) for number in range(3)
        ]
        assert sorted(one for some in seen for one in some) == list(range(60))
        assert all(seen)


async def test_a_subscription_that_on_start_asks_for_no_more_is_left(
    tmp_path: Path, clock: MockClock
) -> None:
    class Once(Billing):
        asked = False

        async def on_start(self) -> None:
            if not Once.asked:
                Once.asked = True
                self.subscribe("orders.>", durable=True)

    async with opened(tmp_path, kind=Once) as runtime:
        assert account(runtime).members == 1
        await crash(billing(runtime))
        await wait_restarted(billing(runtime), 2)
        assert runtime.bus.statistics().durable == ()
        await publish(runtime, 1)
        assert await billing(runtime).call(Billing.seen) == []


async def test_who_stood_in_line_behind_events_that_are_given_back_comes_in(
    tmp_path: Path, clock: MockClock, nursery: trio.Nursery
) -> None:
    """Nobody else would ever let them in: the mailbox is empty then."""

    class Once(Billing):
        mailbox = MailboxPolicy(capacity=2)
        asked = False

        async def on_start(self) -> None:
            if not Once.asked:
                Once.asked = True
                policy = DurablePolicy(key=unordered)
                self.subscribe("orders.>", durable=True, policy=policy)

    Billing.failing = {1: ["park"]}
    async with opened(tmp_path, kind=Once) as runtime:
        ref = billing(runtime)
        await publish(runtime, 1)
        await wait_until(lambda: ref.statistics().doing == "on_event")
        await publish(runtime, 2, 3)
        await wait_until(lambda: ref.statistics().mailbox == 2)
        for _ in range(2):
            nursery.start_soon(ref.cast, Once.later)
        await wait_until(lambda: ref.statistics().waiting_senders == 2)
        await crash(ref)
        await wait_restarted(ref, 2)
        await wait_until(lambda: ref.statistics().handled == 2)
        assert await ref.call(Billing.seen) == []
