"""What took effect, by id: how long it is known, and what is said of the rest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from treewarden.clock import wall_ns
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
from treewarden.store.retention import Horizon

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

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


def as_of(now_ns: int) -> Callable[[int, int | None], Horizon]:
    """What is too old at that time, for a runtime that has run all the while."""

    def horizon(keep_ns: int, _: int | None) -> Horizon:
        return Horizon(keep_ns, None, wall=lambda: now_ns, elapsed=lambda: 0)

    return horizon


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
    assert AppliedTrimmer(as_of(18 * DAY_NS)).trim(connection) == 1
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
    connection, trimmer = writer.connected(), AppliedTrimmer(as_of(DAY_NS))
    deleted = sum(trimmer.trim(connection) for _ in range(3))
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
    writer: Writer, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(writer, make, ("/a", "old", 5))
    connection, now = writer.connected(), 100 * DAY_NS
    monkeypatch.setattr(module, "wall_ns", lambda: now)
    AppliedTrimmer(as_of(now)).trim(connection)
    monkeypatch.setattr(module, "wall_ns", lambda: now + 2 * DAY_NS)
    connection.execute("UPDATE meta SET value = 'x' WHERE key = ?", (module.TRIMMED,))
    younger = made_at(now + DAY_NS)
    assert find_outcome(connection, younger) is Outcome.FORGOTTEN
    keep(writer, make, ("/a", "older", 5))
    monkeypatch.setattr(module, "wall_ns", lambda: now)
    AppliedTrimmer(as_of(now)).trim(connection)
    monkeypatch.setattr(module, "wall_ns", lambda: now + 2 * DAY_NS)
    assert find_outcome(connection, younger) is Outcome.NOT_APPLIED
    assert find_outcome(connection, made_at(now - DAY_NS)) is Outcome.FORGOTTEN


def test_a_clock_that_is_set_ahead_forgets_no_id(
    writer: Writer, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B9: what is a month old by the clock alone is not a month old."""
    now = wall_ns()
    keep(writer, make, ("/a", "one", now))
    connection = writer.connected()
    ahead = now + 30 * DAY_NS
    trimmer = AppliedTrimmer(partial(Horizon, wall=lambda: ahead, elapsed=lambda: 0))
    assert trimmer.trim(connection) == 0
    monkeypatch.setattr(module, "wall_ns", lambda: ahead)
    assert find_outcome(connection, "one") is Outcome.APPLIED
    assert find_outcome(connection, made_at(now - DAY_NS)) is Outcome.NOT_APPLIED


def test_an_id_made_while_the_clock_was_ahead_is_not_denied_once_some_are_forgotten(
    writer: Writer, make: MakeUnit
) -> None:
    """B9"""
    now = wall_ns()
    id_ = made_at(now + 30 * DAY_NS)
    keep(writer, make, ("/a", id_, now))
    connection = writer.connected()
    AppliedTrimmer(as_of(now + 8 * DAY_NS)).trim(connection)
    assert find_outcome(connection, id_) is Outcome.FORGOTTEN


def test_under_load_without_a_rest_no_agent_keeps_more_ids_than_it_may(
    writer: Writer, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16"""
    monkeypatch.setattr(module, "KEPT_ROWS", 50)
    monkeypatch.setattr(module, "SLICE_ROWS", 10)
    monkeypatch.setattr(module, "DUE_ROWS", 20)
    connection = writer.connected()
    most = 0
    for number in range(300):
        path = f"/{number % 3}"
        keep(writer, make, *((path, f"{number}.{n}", wall_ns()) for n in range(10)))
        writer.after_commit()
        (count,) = connection.execute(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM applied GROUP BY path)"
        ).fetchone()
        most = max(most, count)
    assert 50 <= most <= 50 + 3 * 10


def test_looking_for_what_is_too_old_costs_the_same_however_much_there_is(
    writer: Writer, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16: a runtime at rest looks once a second, and everybody waits for the writer."""
    monkeypatch.setattr(module, "SLICE_ROWS", 50)
    connection, trimmer = writer.connected(), AppliedTrimmer(as_of(DAY_NS))

    def steps() -> int:
        taken: list[None] = []
        connection.set_progress_handler(lambda: taken.append(None), 1)
        assert trimmer.trim(connection) == 0
        connection.set_progress_handler(None, 1)
        return len(taken)

    keep(writer, make, *(("/a", f"{n}", n) for n in range(100)))
    steps()
    few = steps()
    keep(writer, make, *(("/a", f"{n}", n) for n in range(100, 5000)))
    steps()
    assert steps() <= few + 100
