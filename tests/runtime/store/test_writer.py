"""The writer alone: what a group becomes in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.errors import StoreBroken
from treewarden.store.database import RESERVE_BYTES
from treewarden.store.group import Group
from treewarden.store.journal import load_entries
from treewarden.store.snapshots import (
    CRASHES_KEPT,
    CrashRecord,
    load_crashes,
    load_state,
)
from treewarden.store.unit import StagedEvent, Unit
from treewarden.store.writer import (
    BUSY_PAGES,
    IDLE_PAGES,
    REST_BYTES,
    TRUNCATE_BYTES,
    VACUUM_PAGES,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from treewarden.store.writer import Writer

    from .conftest import MakeUnit

    Foreign = Callable[[], AbstractContextManager[sqlite3.Connection]]


def topics(connection: sqlite3.Connection) -> list[str]:
    """The journal's topics in the order of their positions."""
    return [entry.topic for entry in load_entries(connection, 0, 1000, ">")]


def revision(connection: sqlite3.Connection, path: str) -> int | None:
    state = load_state(connection, path, "Counter")
    return state.revision if state is not None else None


def fill_disk(writer: Writer) -> None:
    """Let the file not grow by a page, for as long as this connection lives."""
    (pages,) = writer.connected().execute("PRAGMA page_count").fetchone()
    writer.connected().execute(f"PRAGMA max_page_count = {pages}").fetchall()


def write_pages(writer: Writer, make: MakeUnit, pages: int) -> None:
    payload = b'"' + b"x" * 4096 + b'"'
    for number in range(0, pages, 100):
        rows = [make(f"/{number + row}", 1, payload=payload) for row in range(100)]
        writer.commit(Group(rows))


def test_of_one_agents_states_only_the_newest_is_written(
    writer: Writer, make: MakeUnit
) -> None:
    decision = writer.commit(Group([make("/a", n) for n in range(100)]))
    assert decision.rows == 1
    assert revision(writer.connected(), "/a") == 99


def test_statements_run_in_their_order_and_like_ones_together(
    writer: Writer, make: MakeUnit
) -> None:
    """A row is put, taken away and put again, by units of one group."""
    put = "INSERT INTO effect (path, msg_id, number, result, crc) VALUES (?, 'm', ?, ?, 0)"
    take = "DELETE FROM effect WHERE path = ? AND number = ?"
    units = [make("/a") for _ in range(4)]
    units[0].writes = [(put, ("/a", 1, "first")), (put, ("/a", 2, "other"))]
    units[1].writes = [(take, ("/a", 1))]
    units[2].writes = [(put, ("/a", 1, "second"))]
    units[3].writes = [(put, ("/a", 3, "third"))]
    ran: list[str] = []
    writer.connected().set_trace_callback(ran.append)
    decision = writer.commit(Group(units))
    writer.connected().set_trace_callback(None)
    assert not decision.errors
    rows = writer.connected().execute("SELECT number, result FROM effect ORDER BY 1")
    assert rows.fetchall() == [(1, "second"), (2, "other"), (3, "third")]
    kinds = [one.split()[0] for one in ran if "effect" in one]
    assert kinds == ["INSERT", "INSERT", "DELETE", "INSERT", "INSERT"]


def test_events_get_positions_in_the_order_of_their_units(
    writer: Writer, make: MakeUnit
) -> None:
    units = [make("/a", 1, events=("a", "b")), make("/b", 1, events=("c",))]
    decision = writer.commit(Group(units))
    assert [event.position for event in decision.journal] == [1, 2, 3]
    assert topics(writer.connected()) == ["a", "b", "c"]


def test_a_report_takes_its_place_among_the_units(
    writer: Writer, make: MakeUnit
) -> None:
    units = [make("/a", events=("first",)), make("/a", events=("second",))]
    reports = [
        StagedEvent(topic, b"1", 1, after=after)
        for after, topic in ((10, "before"), (11, "mid"), (12, "after"))
    ]
    writer.commit(Group(units, reports, handed_over=10))
    assert topics(writer.connected()) == ["before", "first", "mid", "second", "after"]


def test_an_empty_group_is_no_transaction(
    writer: Writer, make: MakeUnit, foreign: Foreign
) -> None:
    writer.connected().execute("PRAGMA busy_timeout = 10").fetchall()
    with foreign() as other:
        other.execute("BEGIN IMMEDIATE")
        assert writer.commit(Group([make(), make()])).broken is None


def test_a_bad_row_fails_its_unit_and_those_that_build_on_it(
    writer: Writer, make: MakeUnit
) -> None:
    good = make("/a", 1, events=("good",))
    bad = make("/b", 1, events=("bad",), bad=True)
    child = make("/b", 2, events=("child",), needs=(bad,))
    grandchild = make("/c", 1, needs=(child,))
    innocent = make("/d", 1, events=("innocent",))
    decision = writer.commit(Group([good, bad, child, grandchild, innocent]))
    assert decision.broken is None
    assert set(decision.errors) == {bad, child, grandchild}
    assert "UNIQUE constraint failed: meta.key" in str(decision.errors[bad])
    assert "builds on" in str(decision.errors[child])
    assert topics(writer.connected()) == ["good", "innocent"]
    states = [revision(writer.connected(), path) for path in ("/a", "/b", "/c", "/d")]
    assert states == [1, None, None, 1]


def test_a_failed_unit_gives_its_positions_back(writer: Writer, make: MakeUnit) -> None:
    bad = make(events=("x", "y"), bad=True)
    writer.commit(Group([make(events=("a",)), bad, make(events=("b",))]))
    after = writer.commit(Group([make(events=("c",))]))
    assert [event.position for event in after.journal] == [3]
    assert bad.events is not None
    assert [event.position for event in bad.events] == [0, 0]


def test_what_a_unit_wrote_before_its_bad_row_is_undone(
    writer: Writer, make: MakeUnit
) -> None:
    unit = make("/a", 7, events=("x",), bad=True)
    assert unit.writes is not None
    unit.writes.insert(
        0, ("INSERT INTO meta (key, value, crc) VALUES (?, ?, 0)", ("k", "v"))
    )
    writer.commit(Group([make("/a", 6), unit]))
    assert revision(writer.connected(), "/a") == 6
    keys = [key for (key,) in writer.connected().execute("SELECT key FROM meta")]
    assert "k" not in keys


def test_a_unit_of_a_later_group_fails_with_the_one_it_builds_on(
    writer: Writer, make: MakeUnit
) -> None:
    bad = make("/a", 1, bad=True)
    bad.error = writer.commit(Group([bad])).errors[bad]
    decision = writer.commit(Group([make("/a", 2, needs=(bad,)), make("/b", 1)]))
    assert len(decision.errors) == 1
    assert revision(writer.connected(), "/a") is None
    assert revision(writer.connected(), "/b") == 1


def test_a_value_that_cannot_be_bound_is_its_units_fault(
    writer: Writer, make: MakeUnit
) -> None:
    too_large = make("/a", 1 << 70)
    not_text = make("/b", 1, payload=b'"\xff"')
    decision = writer.commit(Group([too_large, not_text, make("/c", 1)]))
    assert set(decision.errors) == {too_large, not_text}
    assert revision(writer.connected(), "/c") == 1


def test_a_bad_report_is_counted_and_sinks_nobody(
    writer: Writer, make: MakeUnit
) -> None:
    reports = [StagedEvent("bad", b"\xff", 1), StagedEvent("good", b"1", 1)]
    decision = writer.commit(Group([make("/a", 1)], reports))
    assert decision.refused == 1
    assert not decision.errors
    assert topics(writer.connected()) == ["good"]


def test_a_full_disk_fails_the_group_and_the_next_one_succeeds(
    writer: Writer, make: MakeUnit, file: Path
) -> None:
    writer.commit(Group([make("/a", 1, events=("kept",))]))
    fill_disk(writer)
    large = make("/a", 2, payload=b'"' + b"x" * 100_000 + b'"', events=("lost",))
    decision = writer.commit(Group([make("/b", 1), large]))
    assert isinstance(decision.broken, StoreBroken)
    assert str(file) in str(decision.broken)
    assert "free space" in str(decision.broken)
    assert not decision.errors
    assert writer.trouble is decision.broken
    again = writer.commit(Group([large]))
    assert again.broken is None
    assert writer.trouble is None
    assert revision(writer.connected(), "/b") is None
    assert topics(writer.connected()) == ["kept", "lost"]
    assert [event.position for event in again.journal] == [2]


def test_a_read_only_file_fails_the_group_whole(writer: Writer, make: MakeUnit) -> None:
    writer.connected().execute("PRAGMA query_only = ON")
    decision = writer.commit(Group([make("/a", 1)]))
    assert "read-only" in str(decision.broken)
    assert writer.commit(Group([make("/a", 1)])).broken is None


def test_a_foreign_lock_fails_the_group_once_the_wait_is_over(
    writer: Writer, make: MakeUnit, foreign: Foreign
) -> None:
    writer.connected().execute("PRAGMA busy_timeout = 10").fetchall()
    with foreign() as other:
        other.execute("BEGIN IMMEDIATE")
        decision = writer.commit(Group([make("/a", 1)]))
        assert "another process holds its write lock" in str(decision.broken)
    assert writer.commit(Group([make("/a", 1)])).broken is None


def test_resting_finds_out_that_a_broken_disk_is_back(
    writer: Writer, make: MakeUnit
) -> None:
    fill_disk(writer)
    large = make("/a", 2, payload=b'"' + b"x" * 100_000 + b'"')
    assert writer.commit(Group([large])).broken is not None
    writer.rest()
    assert writer.trouble is None


def test_a_long_log_is_copied_into_the_file_when_nobody_waits(
    writer: Writer, make: MakeUnit
) -> None:
    write_pages(writer, make, IDLE_PAGES)
    before = writer.database.file_bytes()
    writer.rest()
    assert writer.database.file_bytes() > before


def test_under_load_the_log_is_soon_written_over_from_its_beginning(
    writer: Writer, make: MakeUnit
) -> None:
    longest = 0
    for _ in range(5 * BUSY_PAGES // 100):
        write_pages(writer, make, 100)
        longest = max(longest, writer.database.wal_bytes())
        writer.after_commit()
    assert 0 < longest < 2 * BUSY_PAGES * 4096 <= REST_BYTES


def test_a_very_long_log_file_is_cut(writer: Writer, make: MakeUnit) -> None:
    payload = b'"' + b"x" * 1_000_000 + b'"'
    while writer.database.wal_bytes() <= TRUNCATE_BYTES:
        writer.commit(Group([make(f"/{writer.tail}", 1, payload=payload)]))
        writer.commit(Group([make(events=("e",))]))
    write_pages(writer, make, IDLE_PAGES)
    writer.rest()
    assert writer.database.wal_bytes() == 0


def test_a_reader_in_the_log_does_not_hold_the_writer_up(
    writer: Writer, make: MakeUnit, foreign: Foreign
) -> None:
    with foreign() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        write_pages(writer, make, IDLE_PAGES)
        writer.rest()
        assert writer.trouble is None
        assert writer.commit(Group([make("/a", 1)])).broken is None


def test_resting_deletes_the_oldest_entries_beyond_the_limit_and_keeps_the_newest(
    writer: Writer, make: MakeUnit
) -> None:
    writer.commit(Group([make(events=("e",) * 1500)]))
    writer.pruning.keep_bytes = 0
    writer.rest()
    entries = load_entries(writer.connected(), 0, 2000, ">")
    assert [entry.position for entry in entries] == [1500]
    writer.commit(Group([make(events=("next",))]))
    assert writer.tail.position == 1501


def test_room_that_was_freed_while_somebody_waited_is_given_back_at_rest(
    writer: Writer, make: MakeUnit
) -> None:
    writer.commit(Group([make(events=("e" * 4000,) * 1000)]))
    full = writer.connected().execute("PRAGMA page_count").fetchone()
    writer.pruning.keep_bytes = 0
    writer.after_commit()
    assert writer.connected().execute("PRAGMA page_count").fetchone() == full
    rests = full[0] // VACUUM_PAGES + 1
    for _ in range(rests):
        writer.rest()
    assert writer.connected().execute("PRAGMA freelist_count").fetchone() == (0,)
    assert rests > 3


def test_a_log_that_a_reader_held_is_cut_when_the_reader_is_gone(
    writer: Writer, make: MakeUnit, foreign: Foreign
) -> None:
    with foreign() as reader:
        writer.commit(Group([make("/a", 1)]))
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        write_pages(writer, make, 2 * BUSY_PAGES)
        writer.rest()
        write_pages(writer, make, 2 * BUSY_PAGES)
        writer.rest()
        assert writer.database.wal_bytes() > REST_BYTES
    # Nothing more is written; only time passes.
    writer.rest()
    writer.rest()
    assert writer.database.wal_bytes() <= REST_BYTES


def test_room_for_the_end_of_a_run_is_kept_while_it_runs(
    writer: Writer, file: Path
) -> None:
    reserve = file.with_name("store.db.reserve")
    writer.rest()
    status = reserve.stat()
    assert status.st_size == RESERVE_BYTES
    assert status.st_blocks * 512 >= RESERVE_BYTES
    assert status.st_mode & 0o777 == 0o600
    writer.close()
    assert not reserve.exists()


def test_only_the_last_crashes_of_an_agent_are_kept(writer: Writer) -> None:
    for path in ("/a", "/b"):
        for number in range(CRASHES_KEPT + 2):
            record = CrashRecord(
                path=path,
                at_ns=number,
                incarnation=number,
                operation="add",
                message=b"[1]",
                fault=b'{"type":"ValueError"}',
                revision=number,
                payload=b'{"n":1}' if number else None,
            )
            writer.commit(Group([], crashes=[record]))
    kept = load_crashes(writer.connected(), "/a")
    assert [record.incarnation for record in kept] == [2, 3, 4, 5, 6]
    assert kept[-1].payload == b'{"n":1}'
    assert len(load_crashes(writer.connected(), "/b")) == CRASHES_KEPT


def test_closing_leaves_one_file_that_says_it_was_closed(
    writer: Writer, make: MakeUnit, foreign: Foreign
) -> None:
    writer.commit(Group([make("/a", 1)]))
    writer.close()
    assert writer.database.wal_bytes() == 0
    with foreign() as connection:
        query = "SELECT value FROM meta WHERE key = 'clean_shutdown'"
        assert connection.execute(query).fetchone() == ("yes",)


def test_units_are_told_apart_by_identity(make: MakeUnit) -> None:
    assert len({make("/a"), make("/a"), Unit("/a")}) == 3
