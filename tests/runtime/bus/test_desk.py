"""What an operator sees of subscriptions and dead letters, and does about them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

import treewarden.control.protocol as wire
from treewarden import Application, Config, open_runtime
from treewarden.bus import DurablePolicy, Start
from treewarden.cli import showing
from treewarden.control import Client
from treewarden.errors import BusError, NameUnknown, PublisherPaused
from treewarden.resilience import Backoff
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime
    from treewarden.bus import LeasedEvent, Subscriber

WRITER = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.RW)
MEBIBYTE = 1 << 20
ONCE = DurablePolicy(max_attempts=1, backoff=Backoff(initial=0.0, maximum=0.0))


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@asynccontextmanager
async def opened(folder: Path, journal_bytes: int = 1 << 30) -> AsyncIterator[Runtime]:
    config = Config(store=folder / "d.db", socket=False, journal_bytes=journal_bytes)
    async with open_runtime(Application("desk", []), config=config) as runtime:
        yield runtime


async def letters(runtime: Runtime) -> list[wire.DeadLetterRow]:
    answer = await runtime.desk().perform("dead_letters", wire.GetDeadLetters(), WRITER)
    assert isinstance(answer, wire.DeadLetters)
    return answer.rows


async def subscriptions(runtime: Runtime) -> list[wire.SubscriptionRow]:
    answer = await runtime.desk().perform(
        "subscriptions", wire.GetSubscriptions(), WRITER
    )
    assert isinstance(answer, wire.Subscriptions)
    return sorted(answer.rows, key=lambda row: row.id)


async def publish_large(runtime: Runtime, count: int) -> None:
    """Sixteen are as much as the smallest journal may hold."""
    for _ in range(count):
        await runtime.bus.publish("orders.new", "x" * 65_000)


async def take(member: Subscriber, count: int) -> list[LeasedEvent]:
    """Take and acknowledge so many."""
    taken = []
    for _ in range(count):
        taken.append(await member.__anext__())
        await taken[-1].ack()
    return taken


async def give_up(runtime: Runtime, member: Subscriber, count: int) -> None:
    for number in range(count):
        await runtime.bus.publish("orders.new", {"order": number})
        (await member.__anext__()).nack("no such customer")
    await wait_until(lambda: member.subscription.pending == 0)


async def test_every_subscription_is_listed_with_its_account(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as runtime:
        bus = runtime.bus
        async with bus.subscribe_durable("idle", "orders.>"):
            pass
        async with (
            bus.subscribe("orders.*", capacity=1, overflow="drop_oldest"),
            bus.subscribe_durable("billing", "orders.>", policy=ONCE) as member,
        ):
            await give_up(runtime, member, 1)
            await bus.publish("orders.new", 2)
            answer = await runtime.desk().perform(
                "subscriptions", wire.GetSubscriptions(), WRITER
            )
            assert isinstance(answer, wire.Subscriptions)
            memory, billing, idle = answer.rows
            assert memory.dropped_by == {"oldest": 1}
            assert (billing.id, billing.durable, billing.members) == (
                "billing",
                True,
                1,
            )
            assert (billing.published, billing.pending) == (2, 1)
            assert billing.dropped_by == {"dead_letter": 1}
            assert (idle.id, idle.members, idle.pending) == ("idle", 0, 2)
            assert idle.lag > 0
            shown = showing.subscriptions_text(answer.rows)
            assert "dead_letter=1" in shown
            watched = runtime.desk().rows(wire.Topic.BUS)
            assert [row for row in watched if row == "billing"]


async def test_an_operator_sees_what_the_journal_does_for_whoever_is_behind(
    tmp_path: Path, clock: MockClock
) -> None:
    """Its retention, how far it is behind, and whether it holds the journal or publishers."""
    async with opened(tmp_path, journal_bytes=MEBIBYTE) as runtime:
        bus = runtime.bus
        for name, retention in (("a", "pause_publisher"), ("b", "drop_and_mark_gap")):
            policy = DurablePolicy(retention=retention)
            async with bus.subscribe_durable(name, "orders.>", policy=policy):
                pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_large, runtime, 40)
            await wait_until(lambda: bus.statistics().paused == 1)
            with pytest.raises(PublisherPaused):
                bus.publish_nowait("orders.new", 1)
            published = bus.statistics().published
            pausing, dropping = await subscriptions(runtime)
            assert (pausing.retention, dropping.retention) == (
                "pause_publisher",
                "drop_and_mark_gap",
            )
            assert (pausing.holds, pausing.paused, pausing.refused) == (True, 1, 1)
            assert (dropping.holds, dropping.paused, dropping.refused) == (False, 0, 0)
            assert pausing.pending == dropping.pending == published
            assert pausing.lag_bytes == dropping.lag_bytes
            assert MEBIBYTE < (pausing.lag_bytes or 0) < 2 * MEBIBYTE
            assert not pausing.uncounted
            shown = showing.subscriptions_text([pausing, dropping])
            assert "pause_publisher, holds the journal" in shown
            policy = DurablePolicy(retention="pause_publisher")
            async with bus.subscribe_durable("a", "orders.>", policy=policy) as member:
                await take(member, 1)
                there, _ = await subscriptions(runtime)
                watched = runtime.desk().rows(wire.Topic.BUS)["a"]
                assert isinstance(watched, wire.SubscriptionRow)
                assert watched.lag_bytes is None
                assert (there.lag_bytes or 0) < (pausing.lag_bytes or 0)
                assert watched.retention == "pause_publisher"
                assert watched.refused == 1
                await take(member, 39)
        gone = await subscriptions(runtime)
        assert [one.paused for one in gone] == [0, 0]


async def test_an_operator_sees_how_much_was_lost_for_want_of_room(
    tmp_path: Path, clock: MockClock
) -> None:
    """While nobody takes its events, and as the next one says that there was a gap."""
    async with opened(tmp_path, journal_bytes=MEBIBYTE) as runtime:
        bus = runtime.bus
        async with bus.subscribe_durable("b", "orders.>"):
            pass
        await publish_large(runtime, 40)
        (idle,) = await subscriptions(runtime)
        with trio.fail_after(1000):
            while idle.dropped < 20:
                # The writer prunes after it has told of a commit.
                await trio.sleep(1)
                (idle,) = await subscriptions(runtime)
        assert idle.dropped_by == {"expired": idle.dropped}
        assert idle.gaps == 1
        assert idle.published == idle.dropped + idle.pending
        async with bus.subscribe_durable("b", "orders.>") as member:
            (event,) = await take(member, 1)
            (there,) = await subscriptions(runtime)
            assert (there.dropped, there.gaps) == (event.event.missed, 1)
            assert there.dropped >= idle.dropped


async def test_of_a_long_backlog_a_part_is_counted_and_the_rest_is_said(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as runtime:
        async with runtime.bus.subscribe_durable("b", "orders.>"):
            pass
        await runtime.store.settled()
        before = runtime.store.position
        for _ in range(5001):
            runtime.bus.publish_nowait("orders.new", 1)
        await runtime.store.settled()
        (row,) = await subscriptions(runtime)
        entries = await runtime.store.entries(since=before, limit=6000)
        # A slow machine's watchdog reports that this has blocked the loop; nobody has looked
        # whether that is one of them.
        reports = sum(one.topic != "orders.new" for one in entries)
        assert row.pending + row.uncounted == 5001 + reports
        assert row.uncounted == row.lag - 5000
        assert f"{row.pending}+" in showing.subscriptions_text([row])


async def test_an_operator_forgets_a_subscription_that_nobody_has_any_more(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as runtime:
        bus, desk = runtime.bus, runtime.desk()
        forget = wire.SubscriptionAct(act="forget", id="billing")
        with pytest.raises(NameUnknown, match="no durable subscription 'billing'"):
            await desk.perform("subscription", forget, WRITER)
        async with (
            bus.subscribe("orders"),
            bus.subscribe_durable("billing", "orders") as member,
        ):
            with pytest.raises(BusError, match="billing has members"):
                await desk.perform("subscription", forget, WRITER)
            await bus.publish("orders", 1)
            assert await (await member.__anext__()).ack()
        done = await desk.perform("subscription", forget, WRITER)
        assert done == wire.Done(sentence="subscription billing is forgotten")
        left = await desk.perform("subscriptions", wire.GetSubscriptions(), WRITER)
        assert left == wire.Subscriptions(rows=[])
        await runtime.store.settled()
        acts = await runtime.store.entries(
            since=0, limit=100, pattern="operator.subscription.forget"
        )
        told = [msgspec.json.decode(entry.payload) for entry in acts]
        assert [one["subscription"] for one in told] == ["billing"] * 3


async def test_an_agents_subscription_is_forgotten_by_the_id_that_the_list_has(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as runtime:
        desk = runtime.desk()
        gone = runtime.bus.join_durable("orders", "orders", owner="/gone")
        await gone.subscription.open(Start())
        gone.leave()
        left = await desk.perform("subscriptions", wire.GetSubscriptions(), WRITER)
        assert isinstance(left, wire.Subscriptions)
        (row,) = left.rows
        forget = wire.SubscriptionAct(act="forget", id=row.id)
        await desk.perform("subscription", forget, WRITER)
        assert not await runtime.bus.forget_durable("orders", owner="/gone")


async def test_an_operator_lists_retries_discards_and_purges_dead_letters(
    tmp_path: Path, clock: MockClock
) -> None:
    async with (
        opened(tmp_path) as runtime,
        runtime.bus.subscribe_durable("billing", "orders.>", policy=ONCE) as member,
    ):
        await give_up(runtime, member, 4)
        rows = await letters(runtime)
        assert [row.reason for row in rows] == ["no such customer"] * 4
        event = msgspec.json.decode(rows[0].content)
        assert event["payload"] == {"order": 0}
        assert "billing" in showing.letters_text(rows)
        desk = runtime.desk()
        retry = wire.DeadLetterAct(act="retry", number=rows[0].number)
        await desk.perform("dead_letter", retry, WRITER)
        again = await member.__anext__()
        assert (again.event.payload, again.attempt) == ({"order": 0}, 1)
        await again.ack()
        with pytest.raises(NameUnknown, match="no dead letter"):
            await desk.perform("dead_letter", retry, WRITER)
        discard = wire.DeadLetterAct(act="discard", number=rows[1].number)
        await desk.perform("dead_letter", discard, WRITER)
        assert [row.number for row in await letters(runtime)] == [
            row.number for row in rows[2:]
        ]
        done = await desk.perform(
            "dead_letter", wire.DeadLetterAct(act="purge"), WRITER
        )
        assert isinstance(done, wire.Done)
        assert done.sentence == "2 dead letters are forgotten"
        await runtime.store.settled()
        acts = await runtime.store.entries(
            since=0, limit=100, pattern="operator.dead_letter.*"
        )
        by = [msgspec.json.decode(entry.payload)["by"] for entry in acts]
        assert by == ["alice"] * 4
