"""The rows of durable subscriptions: every flipped bit is seen, and schema 8 is taken over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from treewarden.bus import Start
from treewarden.store import (
    StoredDelivery,
    StoredSubscription,
    check_file,
    load_deliveries,
    load_letters,
    load_subscriptions,
    note_delivery,
    rename_path,
    save_subscription,
)
from treewarden.store.checksums import checksum
from treewarden.store.database import open_database
from treewarden.store.level import Level

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from .conftest import OpenStation

KEY = ("/shop", "orders.>")
SUBSCRIPTION = StoredSubscription(
    owner=KEY[0], name=KEY[1], pattern="orders.>", cursor=7, begun=9, at_ns=5
)
DELIVERY = StoredDelivery(position=8, attempts=2, event=b'{"topic":"orders.new"}')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a subscription and a delivery."""
    file = tmp_path / "s.db"
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="b")
    for reader in opened.readers:
        reader.close()
    writes = [*save_subscription(SUBSCRIPTION), note_delivery(KEY, DELIVERY)]
    for statement, values in writes:
        opened.connection.execute(statement, values)
    opened.connection.close()
    opened.database.close()
    return file


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_what_is_noted_is_read_back(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        assert load_subscriptions(connection) == [SUBSCRIPTION]
        assert load_deliveries(connection, KEY) == [DELIVERY]


@pytest.mark.parametrize(
    "change_to", ["cursor = 6", "begun = 8", "pattern = 'x'", "at_ns = 6", "name = 'x'"]
)
def test_a_changed_subscription_is_not_sound(file: Path, change_to: str) -> None:
    change(file, f"UPDATE subscription SET {change_to}")  # noqa: S608 - our own words
    with closing(sqlite3.connect(file)) as connection:
        assert [one.sound for one in load_subscriptions(connection)] == [False]
    assert any("subscription: the row" in one for one in check_file(file).problems)


@pytest.mark.parametrize(
    "change_to", ["position = 9", "attempts = 1", "done = 1", "event = '{}'"]
)
def test_a_changed_delivery_is_not_sound(file: Path, change_to: str) -> None:
    change(file, f"UPDATE delivery SET {change_to}")  # noqa: S608 - our own words
    with closing(sqlite3.connect(file)) as connection:
        assert [one.sound for one in load_deliveries(connection, KEY)] == [False]


def test_what_the_cursor_has_passed_is_forgotten_but_not_what_is_tried_again(
    file: Path,
) -> None:
    passed = StoredDelivery(position=9, attempts=1, done=True)
    later = StoredSubscription(
        owner=KEY[0], name=KEY[1], pattern="orders.>", cursor=9, begun=9, at_ns=6
    )
    with closing(sqlite3.connect(file)) as connection:
        writes = [note_delivery(KEY, passed), *save_subscription(later)]
        for statement, values in writes:
            connection.execute(statement, values)
        assert load_subscriptions(connection) == [later]
        assert load_deliveries(connection, KEY) == [DELIVERY]


def test_an_agents_subscriptions_move_with_its_path(file: Path) -> None:
    assert rename_path(file, "/shop", "/store")["subscription"] == 1
    with closing(sqlite3.connect(file)) as connection:
        (moved,) = load_subscriptions(connection)
        assert (moved.owner, moved.sound) == ("/store", True)
        assert load_deliveries(connection, ("/store", KEY[1])) == [DELIVERY]


async def test_a_damaged_event_is_lost_and_counted(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file = tmp_path / "d.db"
    async with open_station(file) as station:
        for number in range(3):
            await station.bus.publish("t", number)
    change(file, "UPDATE journal SET payload = '7' WHERE position = 2")
    async with (
        open_station(file) as station,
        station.bus.subscribe_durable("b", "t", start=Start(after=0)) as member,
    ):
        seen = []
        for _ in range(2):
            leased = await member.__anext__()
            seen.append((leased.event.payload, leased.event.missed))
            await leased.ack()
        assert seen == [(0, 0), (2, 1)]
        account = station.account("b")
        assert account.dropped_by == {"damaged": 1}
        assert account.pending == 0


def test_dead_letters_of_the_schema_before_are_as_sound_as_they_were(
    file: Path,
) -> None:
    row = (1, "/a", "id", "op", 3, "s", 4, "crashed")
    sound, damaged = checksum(b"{}", *row), 12345
    values = ", ".join(map(repr, row))
    change(
        file,
        "DROP TABLE subscription",
        "DROP TABLE delivery",
        "ALTER TABLE dead_letter DROP COLUMN subscription",
        "DELETE FROM _sqlite_migrations WHERE name LIKE '%_subscriptions'",
        "PRAGMA user_version = 8",
        "INSERT INTO dead_letter (seq, path, msg_id, operation, attempts, sender, at_ns,"  # noqa: S608 - our own words
        f" reason, arguments, crc) VALUES ({values}, '{{}}', {sound})",
        "INSERT INTO dead_letter (seq, path, msg_id, operation, attempts, sender, at_ns,"  # noqa: S608 - our own words
        f" reason, arguments, crc) VALUES (2{values[1:]}, '{{}}', {damaged})",
    )
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="c")
    for reader in opened.readers:
        reader.close()
    letters = load_letters(opened.connection, 0, 10)
    assert [(one.seq, one.subscription, one.sound) for one in letters] == [
        (1, "", True),
        (2, "", False),
    ]
    assert load_subscriptions(opened.connection) == []
    opened.connection.close()
    opened.database.close()
