"""What took effect, by id: how long it is known, and what is said of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.errors import StoreBroken
from treewarden.store import Outcome, insert_applied
from treewarden.store import applied as module
from treewarden.store.applied import (
    AppliedTrimmer,
    call_id,
    find_applied,
    find_outcome,
    spans_of,
)
from treewarden.store.group import Group

if TYPE_CHECKING:
    import sqlite3

    import pytest

    from treewarden.store import Unit
    from treewarden.store.writer import Writer

    from .conftest import MakeUnit

DAY_NS = 24 * 3600 * 1_000_000_000


def made_at(at_ns: int) -> str:
    """An id of ours that was made then."""
    return f"{at_ns // 1_000_000:012x}{7:016x}"


def keep(writer: Writer, make: MakeUnit, *ids: tuple[str, str, int]) -> None:
    unit = make()
    unit.writes = [insert_applied(path, id_, at, b"1") for path, id_, at in ids]
    assert not writer.commit(Group([unit])).errors


def ranges(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT first, last FROM committed_range").fetchall()


def test_an_id_that_was_kept_is_applied_and_no_other(
    writer: Writer, make: MakeUnit
) -> None:
    keep(writer, make, ("/a", "one", 5))
    connection = writer.connected()
    assert find_outcome(connection, "one") is Outcome.APPLIED
    assert find_outcome(connection, "two") is Outcome.NOT_APPLIED
    assert [one.answer for one in find_applied(connection, "one")] == [b"1"]


def test_an_answer_that_is_damaged_is_told_of(writer: Writer, make: MakeUnit) -> None:
    keep(writer, make, ("/a", "one", 5))
    writer.connected().execute("UPDATE applied SET answer = '2'")
    assert [one.sound for one in find_applied(writer.connected(), "one")] == [False]


def test_an_unbroken_run_of_commits_is_one_row_and_a_failure_ends_it(
    writer: Writer, make: MakeUnit
) -> None:
    """An ordinary call costs no row of its own."""
    writer.commit(Group([make("/a", 1), make("/a", 2)]))
    writer.commit(Group([make("/a", 3)], handed_over=2))
    assert ranges(writer.connected()) == [(1, 3)]
    bad = make("/a", 4)
    bad.writes = [("INSERT INTO meta (key) VALUES (?)", ("no value",))]
    writer.commit(Group([make("/b", 1), bad, make("/c", 1)], handed_over=3))
    assert ranges(writer.connected()) == [(1, 4), (6, 6)]
    boot = writer.connected().execute("SELECT boot FROM committed_range").fetchone()[0]
    outcomes = [
        find_outcome(writer.connected(), call_id(boot, number))
        for number in range(1, 8)
    ]
    assert outcomes == [*["applied"] * 4, "not_applied", "applied", "not_applied"]


def test_the_spans_of_a_group_leave_out_what_failed(make: MakeUnit) -> None:
    units: list[Unit] = [make() for _ in range(5)]
    errors = dict.fromkeys((units[0], units[3]), StoreBroken("x"))
    assert spans_of(Group(units, handed_over=10), {}) == [(11, 15)]
    assert spans_of(Group(units, handed_over=10), errors) == [(12, 13), (15, 15)]
    assert spans_of(Group([]), {}) == []


def test_what_is_older_than_a_week_is_forgotten_and_what_came_since_is_not(
    writer: Writer, make: MakeUnit
) -> None:
    old, since = made_at(10 * DAY_NS), made_at(12 * DAY_NS)
    keep(writer, make, ("/a", old, 10 * DAY_NS), ("/a", since, 12 * DAY_NS))
    connection = writer.connected()
    connection.execute("DELETE FROM committed_range")
    assert AppliedTrimmer().trim(connection, 18 * DAY_NS) == 1
    assert find_outcome(connection, old) is Outcome.FORGOTTEN
    assert find_outcome(connection, since) is Outcome.APPLIED
    assert find_outcome(connection, made_at(13 * DAY_NS)) is Outcome.NOT_APPLIED
    # Of an id that does not tell when it was made, nothing can be said any more.
    assert find_outcome(connection, "mine") is Outcome.FORGOTTEN


def test_of_each_agent_the_newest_ids_are_known(
    writer: Writer, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_ROWS", 3)
    ids = [("/a", f"a{number}", number) for number in range(10)]
    keep(writer, make, *ids, ("/b", "b0", 0))
    connection, trimmer = writer.connected(), AppliedTrimmer()
    deleted = sum(trimmer.trim(connection, DAY_NS) for _ in range(3))
    assert deleted == 7
    kept = [id_ for (id_,) in connection.execute("SELECT msg_id FROM applied")]
    assert sorted(kept) == ["a7", "a8", "a9", "b0"]


def test_a_range_that_is_damaged_neither_affirms_nor_denies(
    writer: Writer, make: MakeUnit
) -> None:
    writer.commit(Group([make("/a", 1)]))
    connection = writer.connected()
    assert find_outcome(connection, call_id("boot", 1)) is Outcome.APPLIED
    connection.execute("UPDATE committed_range SET last = 0")
    assert find_outcome(connection, call_id("boot", 1)) is Outcome.FORGOTTEN


def test_a_damaged_note_of_what_was_trimmed_denies_nothing_and_is_mended(
    writer: Writer, make: MakeUnit
) -> None:
    keep(writer, make, ("/a", "old", 5))
    connection, now = writer.connected(), 100 * DAY_NS
    AppliedTrimmer().trim(connection, now)
    connection.execute("UPDATE meta SET value = 'x' WHERE key = ?", (module.TRIMMED,))
    younger = made_at(now + DAY_NS)
    assert find_outcome(connection, younger) is Outcome.FORGOTTEN
    keep(writer, make, ("/a", "older", 5))
    AppliedTrimmer().trim(connection, now)
    assert find_outcome(connection, younger) is Outcome.NOT_APPLIED
    assert find_outcome(connection, made_at(now - DAY_NS)) is Outcome.FORGOTTEN
