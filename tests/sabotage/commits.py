"""Broken stores: what half a commit leaves, and half a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.store import database, writer

from .double import Area

if TYPE_CHECKING:
    import sqlite3

    from treewarden.store import StagedEvent
    from treewarden.store.journal import Tail

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/store")


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
