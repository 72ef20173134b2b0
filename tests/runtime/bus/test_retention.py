"""What the journal keeps for a durable subscription that is behind its limits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, open_runtime
from treewarden.bus import DurablePolicy, DurableRetention, Event, Reason, durable
from treewarden.bus.durable import SAVED_EVERY
from treewarden.bus.start import read_page
from treewarden.errors import Backpressure, NotRunning, PublisherPaused
from treewarden.store import (
    HELD_TIMES,
    Level,
    Retention,
    load_subscriptions,
)
from treewarden.store.checksums import checksum
from treewarden.store.database import open_database
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden.bus import LeasedEvent, Subscriber
    from treewarden.store import EventPage, Store

    from .conftest import OpenStation, Station

MEBIBYTE: Final = 1 << 20
SMALL: Final = Retention(journal_bytes=MEBIBYTE)
LARGE: Final = "x" * 65_000
"""A payload of which sixteen are as much as the journal may hold."""
LIMIT: Final = 16
KEEP: Final = DurablePolicy(retention="keep")
PAUSE: Final = DurablePolicy(retention="pause_publisher")


def billing(
    station: Station, policy: DurablePolicy
) -> AbstractAsyncContextManager[Subscriber]:
    return station.bus.subscribe_durable("billing", "orders.>", policy=policy)


async def publish(station: Station, count: int, topic: str = "orders.eu") -> None:
    for _ in range(count):
        await station.bus.publish(topic, LARGE)


async def take(member: Subscriber, count: int) -> list[LeasedEvent]:
    """Take and acknowledge so many."""
    taken = []
    with trio.fail_after(1000):
        for _ in range(count):
            taken.append(await member.__anext__())
            await taken[-1].ack()
    return taken


async def fill(station: Station) -> int:
    """Publish until the bus would have its publisher wait; how many there are then."""
    count = 0
    while count < 10 * LIMIT:
        try:
            station.bus.publish_nowait("orders.eu", LARGE)
        except PublisherPaused:
            return count
        await station.store.settled()
        await trio.sleep(1)
        count += 1
    raise AssertionError("nobody pauses publishers")


async def behind(station: Station, policy: DurablePolicy) -> None:
    """A subscription that nobody takes events of."""
    async with billing(station, policy):
        pass


def test_a_retention_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="keep_all"):
        DurablePolicy(retention="keep_all")
    assert DurablePolicy().retention is DurableRetention.DROP_AND_MARK_GAP


async def test_keep_has_all_that_drop_and_mark_gap_misses(
    clock: MockClock, open_station: OpenStation
) -> None:
    for policy in (KEEP, DurablePolicy()):
        async with open_station(retention=SMALL) as station:
            await behind(station, policy)
            await publish(station, 2 * LIMIT)
            async with billing(station, policy) as member:
                (first,) = await take(member, 1)
                assert (first.event.missed == 0) is (policy is KEEP)
                if policy is KEEP:
                    others = await take(member, 2 * LIMIT - 1)
                    assert not any(one.event.missed for one in others)


async def test_keep_is_bounded_and_what_is_beyond_is_a_gap_that_is_told_once(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, KEEP)
        await publish(station, 2 * HELD_TIMES * LIMIT)
        left = await station.store.read(stored_bytes)
        assert 0.9 < left / (HELD_TIMES * MEBIBYTE) < 1.1
        async with billing(station, KEEP) as member:
            (first,) = await take(member, 1)
            account = station.account("billing")
        assert account.dropped_by == {Reason.EXPIRED: first.event.missed}
        assert first.event.missed > HELD_TIMES * LIMIT // 2
        assert len(station.told("bus.lost")) == 1


async def test_what_is_kept_outlives_a_kill(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    """The file as a kill leaves it: nobody has closed anything."""
    file, killed = tmp_path / "a.db", tmp_path / "killed.db"
    async with open_station(file, SMALL) as station, billing(station, KEEP):
        copy(file, killed)
    async with open_station(killed, SMALL) as station:
        await publish(station, 2 * LIMIT)
    async with open_station(killed, SMALL) as station:
        await publish(station, 1)
        async with billing(station, KEEP) as member:
            taken = await take(member, 2 * LIMIT + 1)
        assert not any(one.event.missed for one in taken)


async def test_a_gap_is_told_again_when_a_kill_came_before_its_event_was_over(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    """The file as a kill leaves it, when the event is counted as tried and with somebody."""
    file, killed = tmp_path / "a.db", tmp_path / "killed.db"
    async with open_station(file, SMALL) as station:
        await behind(station, DurablePolicy())
        await publish(station, 2 * LIMIT)
        async with billing(station, DurablePolicy()) as member:
            leased = await member.__anext__()
            await station.store.settled()
            assert leased.event.missed > 0
            copy(file, killed)
            # Once it is over, so is what it tells of.
            await leased.ack()
            await take(member, 1)
            copy(file, tmp_path / "later.db")
    async with (
        open_station(killed, SMALL) as station,
        billing(station, DurablePolicy()) as member,
    ):
        (again,) = await take(member, 1)
    assert again.event.position == leased.event.position
    assert again.event.missed >= leased.event.missed
    async with (
        open_station(tmp_path / "later.db", SMALL) as station,
        billing(station, DurablePolicy()) as member,
    ):
        taken = await take(member, 1)
    assert not any(one.event.missed for one in taken)


async def test_a_gap_that_no_event_could_tell_of_is_told_in_the_next_run(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    """However often it was noted meanwhile how far the subscription has come."""
    file = tmp_path / "a.db"
    async with open_station(file, SMALL) as station:
        await behind(station, DurablePolicy())
        await publish(station, LIMIT)
        await publish(station, 2 * LIMIT, "invoices")
        await station.store.settled()
        async with billing(station, DurablePolicy()):
            assert station.account("billing").pending == 0
            for _ in range(SAVED_EVERY):
                station.bus.publish_nowait("invoices", 1)
            await station.store.settled()
    async with (
        open_station(file, SMALL) as station,
        billing(station, DurablePolicy()) as member,
    ):
        await station.bus.publish("orders.eu", 1)
        (told,) = await take(member, 1)
    assert told.event.missed >= LIMIT


async def test_a_gap_is_told_where_it_is_though_the_journal_is_cut_while_it_is_read(
    clock: MockClock, open_station: OpenStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a page and the count of what is behind it, all of that page is deleted."""
    policy = DurablePolicy(capacity=2)
    cut: list[EventPage] = []

    async def read_and_cut(
        store: Store, after: int, until: int, limit: int, pattern: str
    ) -> EventPage:
        page = await read_page(store, after, until, limit, pattern)
        if limit == policy.capacity and not cut:
            cut.append(page)
            await publish(station, LIMIT // 2)
            while True:
                if not await is_there(store, page.scanned + 1):
                    break
                await trio.sleep(1)
        return page

    monkeypatch.setattr(durable, "read_page", read_and_cut)
    async with open_station(retention=SMALL) as station:
        await behind(station, policy)
        await publish(station, 2 * LIMIT)
        async with billing(station, policy) as member:
            taken = [await member.__anext__()]
            await taken[0].ack()
            while station.account("billing").pending:
                taken += await take(member, 1)
        positions = [0, *(one.event.position for one in taken)]
        holes = [after - before > 1 for before, after in pairwise(positions)]
        assert [one.event.missed > 0 for one in taken] == holes
        assert (
            sum(one.event.missed for one in taken) + len(taken)
            == 2 * LIMIT + LIMIT // 2
        )
        assert cut


async def is_there(store: Store, position: int) -> bool:
    found = await store.entries(since=position - 1, limit=1)
    return bool(found) and found[0].position == position


async def test_another_retention_holds_from_when_it_is_asked_for(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, DurablePolicy())
        await behind(station, KEEP)
        (row,) = await station.store.read(load_subscriptions)
        assert row.retention == DurableRetention.KEEP


async def test_publishers_wait_until_somebody_has_taken_what_the_journal_is_full_of(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, station, 4 * LIMIT)
            await wait_until(lambda: station.bus.statistics().paused == 1)
            # With the eighteenth the first is one too many; the next may be on its way.
            assert LIMIT <= station.bus.statistics().published <= LIMIT + 3
            await publish(station, 1, "invoices")
            assert len(station.told("bus.paused")) == 1
            async with billing(station, PAUSE) as member:
                taken = await take(member, 4 * LIMIT)
                assert not any(one.event.missed for one in taken)
        assert station.bus.statistics().paused == 0


async def test_who_cannot_wait_is_refused(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)
        before = station.store.position
        with pytest.raises(Backpressure, match="billing"):
            station.bus.publish_nowait("orders.eu", 1)
        station.bus.publish_nowait("invoices", 1)
        await station.store.settled()
        assert station.store.position == before + 1


async def test_a_subscriber_never_waits_for_itself(
    clock: MockClock, open_station: OpenStation
) -> None:
    """Nor for a task that it has started."""
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)
        async with billing(station, PAUSE) as member:
            leased = await member.__anext__()
            with trio.fail_after(1000):
                await station.bus.publish("orders.done", 1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(station.bus.publish, "orders.done", 1)
            station.bus.publish_nowait("orders.done", 1)
            assert station.bus.statistics().durable[0].holds
            await leased.ack()


async def test_a_publisher_that_is_cancelled_while_it_is_paused_has_published_nothing(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)
        before = station.store.position
        with trio.move_on_after(1000) as scope:
            await station.bus.publish("orders.eu", 1)
        assert scope.cancelled_caught
        assert station.store.position == before
        assert station.bus.statistics().paused == 0


async def test_to_forget_a_subscription_lets_its_publishers_go_on(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, station, 1)
            await wait_until(lambda: station.bus.statistics().paused == 1)
            assert await station.bus.forget_durable("billing")


async def test_publishers_that_are_paused_hear_of_the_end(
    clock: MockClock, open_station: OpenStation
) -> None:
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)

        async def refused() -> None:
            with pytest.raises(NotRunning):
                await publish(station, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await wait_until(lambda: station.bus.statistics().paused == 1)
            station.bus.close()


async def test_publishers_are_paused_in_the_next_run_too(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    async with open_station(file, SMALL) as station:
        await behind(station, PAUSE)
        await fill(station)
    async with open_station(file, SMALL) as station:
        # The first commit has it looked at, and the second may be on its way by then.
        assert await fill(station) <= 2


async def test_who_keeps_up_is_never_in_the_way(
    clock: MockClock, open_station: OpenStation
) -> None:
    """Its cursor is noted when the journal is full, not only now and then."""
    async with open_station(retention=SMALL) as station:
        await behind(station, PAUSE)

        async def several() -> None:
            await publish(station, 4 * LIMIT)
            await publish(station, 4 * LIMIT, "invoices")
            await publish(station, LIMIT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(several)
            async with billing(station, PAUSE) as member:
                await take(member, 5 * LIMIT)
        assert await station.store.read(stored_bytes) < 2 * MEBIBYTE


class Billing(Agent[None]):
    """Publishes once more what it is told to, and each event that it handles."""

    async def on_start(self) -> None:
        self.subscribe("orders.>", durable=True, policy=PAUSE)

    async def on_event(self, event: Event) -> None:
        if event.topic == "orders.eu":
            self.publish("orders.done", 1)

    def tell(self) -> bool:
        try:
            self.publish("sales.eu", 1)
        except PublisherPaused:
            return False
        return True


async def test_a_handler_is_refused_unless_it_is_its_own_subscription(
    clock: MockClock, tmp_path: Path
) -> None:
    app = Application("shop", [ChildSpec("b", Billing)])
    config = Config(store=tmp_path / "s.db", socket=False, journal_bytes=MEBIBYTE)
    async with open_runtime(app, config=config) as runtime:
        bus, ref = runtime.bus, runtime.ref("b", Billing)
        assert await ref.call(Billing.tell)
        async with bus.subscribe_durable("sales", "sales.>", policy=PAUSE):
            pass
        for _ in range(2 * LIMIT):
            await bus.publish("orders.eu", LARGE)
        await wait_until(
            lambda: any(one.key == ("", "sales") for one in runtime.store.held)
        )
        assert not await ref.call(Billing.tell)
        await wait_until(lambda: bus.statistics().durable[0].pending == 0)
        (account,) = bus.statistics().durable
        assert (account.delivered, account.dropped) == (4 * LIMIT, 0)
        assert await bus.forget_durable("sales")
        await wait_until(lambda: not runtime.store.held)
        assert await ref.call(Billing.tell)


def test_subscriptions_of_the_schema_before_are_as_sound_as_they_were(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.db"
    bring_up(file)
    row = ("", "billing", "orders.>", 3, 4)
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE subscription DROP COLUMN retention")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name LIKE '0012%'")
        insert = "INSERT INTO subscription VALUES (?, ?, ?, ?, ?, ?, ?)"
        connection.execute(insert, (*row, 5, checksum(b"5", *row)))
        connection.execute(insert, ("/a", *row[1:], 5, 1234))
        connection.execute("PRAGMA user_version = 11")
    connection.close()
    bring_up(file)
    with sqlite3.connect(file) as connection:
        found = load_subscriptions(connection)
    connection.close()
    assert [(one.owner, one.sound, one.retention) for one in found] == [
        ("", True, "drop_and_mark_gap"),
        ("/a", False, "drop_and_mark_gap"),
    ]


def bring_up(file: Path) -> None:
    """Bring a file to this schema."""
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="c")
    for reader in opened.readers:
        reader.close()
    opened.connection.close()
    opened.database.close()


def copy(file: Path, to: Path) -> None:
    """What is committed, as it is now."""
    with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(to)) as other:
        one.backup(other)


def stored_bytes(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute(
        "SELECT total(length(payload) + length(topic) + 64) FROM journal"
    ).fetchone()
    return int(found)
