"""Damage: what is changed behind our back is never read as if it were right."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import RestoreError
from treewarden.store import (
    CrashRecord,
    StagedEvent,
    StepState,
    Store,
    StoredDelivery,
    StoredMessage,
    StoredStep,
    StoredSubscription,
    StoredWorkflow,
    Unit,
    Verdict,
    WorkflowState,
    insert_applied,
    insert_effect,
    insert_letter,
    insert_message,
    insert_workflow,
    keep_policy_state,
    keep_step,
    log_transaction,
    note_delivery,
    open_store,
    save_subscription,
)
from treewarden.store.checking import (
    SLICE_ROWS,
    DamagedRow,
    StructureCheck,
    check_slice,
    damaged_rows,
    problems,
)
from treewarden.store.checksums import TABLES
from treewarden.store.database import connect_read_only, set_meta
from treewarden.store.group import Group
from treewarden.store.journal import load_tail
from treewarden.store.scrubber import PASS_SECONDS, Scrubber
from treewarden.testing import wait_until

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from treewarden.store.writer import Writer

    from .conftest import MakeUnit

    Foreign = Callable[[], AbstractContextManager[sqlite3.Connection]]

COLUMNS = [
    (table.name, column) for table in TABLES.values() for column in table.columns
]
CRASH = CrashRecord(
    path="/a",
    at_ns=5,
    incarnation=1,
    operation="add",
    message=b"[]",
    fault=b"{}",
    revision=1,
    payload=None,
)
INSERT_ITEM = (
    "INSERT INTO queue_item (seq, path, name, key, attempts, free_at, payload, crc)"
    " SELECT ?1, '/a', 'q', ?2, 0, NULL, '1',"
    " row_checksum(CAST('/a' AS BLOB), CAST('q' AS BLOB), CAST(?2 AS BLOB), ?1, 0, NULL,"
    " CAST('1' AS BLOB))"
)
INSERT_MAP_ITEM = (
    "INSERT INTO map_item (path, name, key, payload, crc) SELECT '/a', 'm', 'k', '1',"
    " row_checksum(CAST('/a' AS BLOB), CAST('m' AS BLOB), CAST('k' AS BLOB),"
    " CAST('1' AS BLOB))"
)
INSERT_CHILD = (
    "INSERT INTO remembered_child (seq, supervisor, id, at_ns, spec, crc) SELECT 1,"
    " '/s', 'c', 5, '{}', row_checksum(1, CAST('/s' AS BLOB), CAST('c' AS BLOB), 5,"
    " CAST('{}' AS BLOB))"
)

MESSAGE = StoredMessage(
    seq=1, path="/a", id="m", operation="o", arguments=b"{}", sender="/s", at_ns=5
)


SUBSCRIPTION = StoredSubscription(
    owner="/a", name="s", pattern=">", cursor=5, begun=9, at_ns=5
)


WORKFLOW = StoredWorkflow(
    id="w",
    name="trip",
    version=1,
    state=WorkflowState.PARKED,
    attempts=1,
    begun_ns=5,
    ended_ns=0,
    resume_as="running",
    reason="why",
    outcome=b"null",
    arguments=b"[]",
)
STEP = StoredStep(
    workflow="w",
    number=1,
    name="book",
    state=StepState.DONE,
    attempts=1,
    compensation="cancel",
    undo_failures=0,
    at_ns=5,
    outcome=b"1",
)


@pytest.fixture
def filled(writer: Writer, make: MakeUnit) -> sqlite3.Connection:
    """A file with a row in every table."""
    unit = make("/a", 1)
    unit.events = [StagedEvent("t", b"{}", 5, "/a", "trace", fault=True)]
    unit.writes = [
        (INSERT_ITEM, (1, "k")),
        (INSERT_MAP_ITEM, ()),
        (INSERT_CHILD, ()),
        insert_message(MESSAGE),
        insert_applied("/a", "m", 5, b"1"),
        insert_effect("/a", "m", 0, b"1"),
        log_transaction("t", Verdict.COMMIT, ["p"]),
        *insert_letter(MESSAGE, 2, 3, 5, "crashed"),
        keep_policy_state("circuit", "site", b"{}"),
        insert_workflow(WORKFLOW),
        keep_step(STEP),
        *save_subscription(SUBSCRIPTION),
        note_delivery(SUBSCRIPTION.key, StoredDelivery(position=7, attempts=1)),
    ]
    decision = writer.commit(Group([unit], crashes=[CRASH]))
    assert not decision.errors
    return writer.connected()


def test_a_sound_file_has_no_problems(filled: sqlite3.Connection) -> None:
    assert problems(filled) == []
    for table in TABLES.values():
        assert check_slice(filled, table, table.start).rows > 0


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_change_of_any_column_is_seen(
    filled: sqlite3.Connection, table: str, column: str
) -> None:
    filled.execute(
        f"UPDATE {table} SET {column} = CASE typeof({column})"  # noqa: S608 - our own names
        f" WHEN 'text' THEN {column} || '1' WHEN 'null' THEN 1 ELSE {column} + 1 END"
    )
    assert {row.table for row in damaged_rows(filled)} == {table}


def test_text_that_is_none_any_more_is_seen(filled: sqlite3.Connection) -> None:
    filled.execute("UPDATE journal SET payload = CAST(x'fffe' AS TEXT)")
    assert problems(filled) == ["journal: the row 1 is damaged"]


def test_a_lost_entry_of_the_journal_is_seen(writer: Writer, make: MakeUnit) -> None:
    writer.commit(Group([make(events=("a", "b", "c"))]))
    writer.connected().execute("DELETE FROM journal WHERE position = 2")
    assert problems(writer.connected()) == ["journal: 1 entries are missing"]


def test_a_wrong_total_of_bytes_is_not_continued(
    writer: Writer, make: MakeUnit
) -> None:
    """A tail that claims too much would have retention delete the whole journal."""
    writer.commit(Group([make(events=("a", "b"))]))
    before = load_tail(writer.connected())
    writer.connected().execute(
        "UPDATE journal SET end_bytes = end_bytes + (1 << 50) WHERE position = 2"
    )
    after = load_tail(writer.connected())
    assert after.position == 2
    assert after.end_bytes < before.end_bytes


# --- a state that is not found ----------------------------------------------------------


async def commit(store: Store, *units: Unit) -> None:
    for unit in units:
        store.hand_over(unit)
    await store.settled()


async def test_a_state_whose_path_was_damaged_is_not_taken_for_an_empty_one(
    file: Path, make: MakeUnit, foreign: Foreign
) -> None:
    async with open_store(file) as store:
        await commit(store, make("/a", 1), make("/b", 1))
    with foreign() as connection:
        connection.execute("UPDATE agent_state SET path = '/q' WHERE path = '/a'")
    async with open_store(file) as store:
        with pytest.raises(RestoreError, match="the stored state of /a is damaged"):
            await store.load("/a", "Counter")
        assert await store.load("/b", "Counter") is not None
        assert await store.load("/c", "Counter") is None


def damage_index(file: Path, foreign: Foreign) -> None:
    """Have the index of states name another path than the row of /a does."""
    with foreign() as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_auto%state%'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    at = content.index(b"/a", (page - 1) * size)
    content[at + 1] ^= 4
    file.write_bytes(content)


async def test_a_state_that_its_index_lost_is_not_taken_for_an_empty_one(
    file: Path, make: MakeUnit, foreign: Foreign
) -> None:
    async with open_store(file) as store:
        await commit(store, make("/a", 1))
    damage_index(file, foreign)
    async with open_store(file) as store:
        with pytest.raises(RestoreError, match="the stored state of /a is damaged"):
            await store.load("/a", "Counter")


# --- the scrubber -----------------------------------------------------------------------


def test_a_pass_looks_at_every_row_once_a_day(filled: sqlite3.Connection) -> None:
    now = 0.0
    scrubber = Scrubber(clock=lambda: now)
    while scrubber.passes == 0:
        assert scrubber.advance(filled) == []
    rows = scrubber.rows
    assert rows == sum(
        filled.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - our own names
        for table in TABLES
    )
    now = PASS_SECONDS - 1
    assert scrubber.advance(filled) == []
    assert scrubber.rows == rows
    now = PASS_SECONDS
    scrubber.advance(filled)
    assert scrubber.rows > rows


def test_a_damaged_row_is_told_of_once(filled: sqlite3.Connection) -> None:
    now = 0.0
    scrubber = Scrubber(clock=lambda: now)
    filled.execute("UPDATE agent_state SET revision = 7")
    found: list[DamagedRow] = []
    for day in range(3):
        now = day * PASS_SECONDS
        while scrubber.passes == day:
            found += scrubber.advance(filled)
    assert found == [DamagedRow(table="agent_state", key="/a")]


def test_a_slice_is_bounded(writer: Writer, make: MakeUnit) -> None:
    """A thousand rows a second at least, and never so many that a commit waits long."""
    unit = make()
    unit.writes = [(INSERT_ITEM, (n, str(n))) for n in range(SLICE_ROWS + 1)]
    writer.commit(Group([unit]))
    table = TABLES["queue_item"]
    first = check_slice(writer.connected(), table, table.start)
    assert first.after is not None
    second = check_slice(writer.connected(), table, first.after)
    assert (first.rows, second.rows, second.after) == (SLICE_ROWS, 1, None)
    assert SLICE_ROWS >= 1000


async def test_damage_found_at_rest_is_reported_and_counted(
    store: Store, make: MakeUnit, foreign: Foreign
) -> None:
    found: list[str] = []
    store.follow(lambda entries: found.extend(entry.topic for entry in entries))
    await commit(store, make("/a", 1), make("/b", 1))
    with foreign() as connection:
        connection.execute("UPDATE agent_state SET revision = 9 WHERE path = '/a'")
    # What the thread does when nobody has wanted anything for a second.
    while store.statistics().scrub_passes == 0:
        await store.read(lambda _: None)
        store._thread.ask(lambda _: store._thread._rest())
        await wait_all_tasks_blocked()
    # The thread tells a moment after it has counted the pass.
    await wait_until(lambda: store.statistics().damaged_rows)
    statistics = store.statistics()
    assert (statistics.health, statistics.damaged_rows) == ("degraded", 1)
    assert statistics.damage == "agent_state: the row /a is damaged"
    while not found:
        store.hand_over(make("/b", 2))
        await store.settled()
    assert found == ["system.store.row_damaged"]


# --- the check beside everything else ----------------------------------------------------


async def test_a_run_that_was_not_closed_is_checked_beside_the_next(
    file: Path, make: MakeUnit, foreign: Foreign
) -> None:
    async with open_store(file) as store:
        await commit(store, make("/a", 1), make("/0", 1))
    with foreign() as connection:
        set_meta(connection, "clean_shutdown", "no")
    damage_index(file, foreign)
    async with open_store(file) as store:
        assert store.recovered
        assert store._check is not None
        await trio.to_thread.run_sync(store._check._thread.join)
        await wait_all_tasks_blocked()
        statistics = store.statistics()
        assert statistics.health == "degraded"
        assert "index" in statistics.damage
        assert await store.load("/0", "Counter") is not None
    async with open_store(file) as store:
        topics = [entry.topic for entry in await store.entries(since=0, limit=9)]
        assert topics == ["system.store.damaged"]


def test_a_check_can_be_ended_before_it_is_done(file: Path, writer: Writer) -> None:
    told: list[list[str]] = []
    check = StructureCheck(partial(connect_read_only, file), told.append)
    check.stop()
    assert told in ([], [[]])
