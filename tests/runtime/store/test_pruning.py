"""The journal stays within its limit, also when there is never a rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from treewarden.clock import wall_ns
from treewarden.store import (
    DurableRetention,
    Retention,
    StoredSubscription,
    Unit,
    forget_subscription,
    save_subscription,
)
from treewarden.store.group import Group
from treewarden.store.journal import DELETE_ROWS, load_entries, prune
from treewarden.store.pruning import Pruning
from treewarden.store.retention import DAY_NS
from treewarden.store.unit import StagedEvent

if TYPE_CHECKING:
    import sqlite3

    from treewarden.store import Write
    from treewarden.store.writer import Writer

MEBIBYTE = 1 << 20


def entries(count: int, at_ns: int, size: int = 2) -> Group:
    payload = b'"' + b"x" * (size - 2) + b'"'
    return Group([], [StagedEvent("load", payload, at_ns) for _ in range(count)])


def stored(connection: sqlite3.Connection) -> tuple[int, int]:
    """Rows and bytes of the journal."""
    rows, text = connection.execute(
        "SELECT count(*), total(length(payload) + length(topic) + 64) FROM journal"
    ).fetchone()
    return rows, int(text)


def test_a16_a_journal_under_load_stays_within_a_tenth_of_its_limit(
    writer: Writer,
) -> None:
    """A16: ten times the limit comes in, and nobody ever rests."""
    writer.pruning = Pruning(Retention(journal_bytes=MEBIBYTE))
    now = wall_ns()
    largest = 0
    for _ in range(100):
        writer.commit(entries(500, now, size=150))
        writer.after_commit()
        largest = max(largest, stored(writer.connected())[1])
    assert 0.9 * MEBIBYTE < largest < 1.1 * MEBIBYTE
    assert load_entries(writer.connected(), None, 1, ">")[0].position == 50_000


def test_a16_no_transaction_deletes_more_than_a_thousand_entries(
    writer: Writer,
) -> None:
    """A16"""
    writer.commit(entries(2600, at_ns=1))
    connection = writer.connected()
    slices = [prune(connection, writer.tail, 2, MEBIBYTE) for _ in range(4)]
    assert slices == [DELETE_ROWS, DELETE_ROWS, 599, 0]


def test_a16_a_clock_that_jumped_ahead_before_the_start_empties_no_journal(
    writer: Writer,
) -> None:
    """A16"""
    now = wall_ns()
    writer.commit(entries(1, now - 40 * DAY_NS))
    writer.commit(entries(99, now - 40 * DAY_NS + DAY_NS // 24))
    writer.pruning = Pruning(Retention())
    writer.rest()
    # Nobody knows whether a month has passed; the oldest may go, whatever is younger not.
    assert stored(writer.connected())[0] == 99


@pytest.mark.parametrize(("days", "left"), [(5, 17), (8, 10)])
def test_what_is_too_old_is_kept_for_who_needs_it_up_to_four_times_the_days(
    writer: Writer, days: int, left: int
) -> None:
    key, now = ("/a", "billing"), wall_ns()
    writer.commit(entries(10, now - days * DAY_NS))
    writer.commit(entries(10, now - DAY_NS))
    needs = StoredSubscription(
        owner=key[0],
        name=key[1],
        pattern="load",
        cursor=3,
        begun=3,
        at_ns=1,
        retention=DurableRetention.KEEP,
    )
    commit(writer, save_subscription(needs))
    writer.pruning = Pruning(Retention(days=1.5))
    writer.rest()
    assert stored(writer.connected())[0] == left
    assert [one.key for one in writer.pruning.held] == [key] * (days == 5)
    commit(writer, forget_subscription(key))
    writer.after_commit()
    assert stored(writer.connected())[0] == 10
    assert writer.pruning.held == ()


def commit(writer: Writer, writes: list[Write]) -> None:
    unit = Unit("/a")
    unit.writes = writes
    writer.commit(Group([unit], []))


def test_a_journal_of_fewer_days_keeps_fewer(writer: Writer) -> None:
    now = wall_ns()
    writer.commit(entries(30, now - DAY_NS))
    writer.commit(entries(20, now - DAY_NS // 2))
    writer.pruning = Pruning(Retention(days=0.9))
    writer.rest()
    assert stored(writer.connected())[0] == 20
