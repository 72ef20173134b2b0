"""Broken stores: what half a commit leaves, and half a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.store import database, writer
from treewarden.store.store import Store
from treewarden.store.writer import VACUUM_PAGES, Writer

from .double import Area

if TYPE_CHECKING:
    import sqlite3

    from treewarden.store import StagedEvent
    from treewarden.store.journal import Tail

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/store")

_FAULT: Final = (
    "test_store.py::test_a_fault_of_the_stores_own_fails_whoever_waits_and_ends_the_run"
)
_ROOM: Final = (
    "test_writer.py::test_room_that_was_freed_while_somebody_waited"
    "_is_given_back_at_rest"
)


@DOUBLES.breaks(
    caught_by="test_crash_machine.py::test_a_death_at_each_point_of_a_group_leaves_all_of_it_or_nothing"
)
def a_unit_in_two_transactions(replace: Replace) -> None:
    """Killed between them, it is half there."""
    append = writer._append

    def append_apart(
        connection: sqlite3.Connection, events: list[StagedEvent], tail: Tail
    ) -> Tail:
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        return append(connection, events, tail)

    replace(writer, "_append", append_apart)


@DOUBLES.breaks(
    caught_by="test_database.py::test_a_file_whose_making_was_cut_off_before_its_first_table_is_ours"
)
def an_unfinished_file_is_somebody_elses(replace: Replace) -> None:
    """Killed while it made its file, a runtime never starts again."""
    replace(database, "_has_no_schema", lambda header: False)


@DOUBLES.breaks(caught_by=_ROOM)
def room_that_was_freed_under_load(replace: Replace) -> None:
    """Only what a rest prunes is given back, and most is pruned while somebody waits."""
    prune, vacuum = Writer._prune, Writer._vacuum
    deleted = [0]

    def prune_and_count(self: Writer, connection: sqlite3.Connection) -> int:
        deleted[0] = prune(self, connection)
        return deleted[0]

    def vacuum_what_was_pruned(self: Writer, connection: sqlite3.Connection) -> None:
        if deleted[0]:
            vacuum(self, connection)

    replace(Writer, "_prune", prune_and_count)
    replace(Writer, "_vacuum", vacuum_what_was_pruned)


@DOUBLES.swaps(Writer, "_vacuum", caught_by=_ROOM)
def a_page_a_rest(self: Writer, connection: sqlite3.Connection) -> None:
    """A cursor ends at the first row of no columns, and a page is such a row."""
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()


@DOUBLES.swaps(Store, "_fail", caught_by=_FAULT)
def a_fault_that_is_told_to_nobody(self: Store, fault: BaseException) -> None:
    """The run ends, and whoever waited never hears that it did not happen."""
    self._has_failed = self._closing = True
    self._busy = False
    self._quiet.set()


@DOUBLES.breaks(caught_by="test_courtesy.py::test_only_a_busy_loop_stands_aside")
def a_loop_that_never_stands_aside(replace: Replace) -> None:
    """A thread that waits for a busy loop's interpreter waits for ever."""
    replace(Store, "_stand_aside", lambda self, timeout: True)


@DOUBLES.breaks(
    caught_by="test_store.py::test_once_a_storm_makes_some_drop_the_others_take_their_time"
)
def a_storm_that_is_written_down_without_a_pause(replace: Replace) -> None:
    """Whoever is to weather it has to share the interpreter with its journal."""
    flush = Store._flush_reports

    def flush_at_once(self: Store) -> None:
        self._dropped = self._accounts.reports_dropped
        flush(self)

    replace(Store, "_flush_reports", flush_at_once)
