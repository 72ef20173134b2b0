"""Doubles of the file: what is copied, put aside, mended and forgotten, and where it lies."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from treewarden.agents.participants import Participants
from treewarden.store import applied, checking, dead_letters, failures, upkeep
from treewarden.store.applied import AppliedTrimmer
from treewarden.store.database import Database
from treewarden.store.lock import FileLock

from .double import Area

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .double import Replace

DOUBLES: Final = Area("tests/runtime")


# --- copies -------------------------------------------------------------------------------


@DOUBLES.swaps(
    upkeep,
    "_what_is_there",
    caught_by="cli/test_db.py::test_a_log_whose_file_is_gone_is_not_read_into_the_backup_that_comes",
)
def a_log_that_is_left_behind(file: Path) -> list[Path]:
    """A11: what a file that is gone had in its log comes into its successor."""
    return [file] if file.exists() else []


@DOUBLES.swaps(
    upkeep,
    "_empty_log",
    caught_by="cli/test_db.py::test_a_file_that_is_read_is_not_put_aside_without_its_log",
)
def a_log_that_goes_alone(file: Path) -> None:
    """A11: a restore that is killed leaves the file without its last commits."""


# --- damage -------------------------------------------------------------------------------


@DOUBLES.swaps(
    failures,
    "is_of_an_index",
    caught_by="store/test_indexes.py::test_a_row_that_no_index_has_can_be_changed_and_somebody_is_told",
)
def an_index_is_in_the_way(error: Exception) -> bool:
    """A8: one flipped bit fails everybody's commits for ever."""
    return False


@DOUBLES.swaps(
    upkeep,
    "_without_indexes_in_the_way",
    caught_by="store/test_indexes.py::test_damaged_rows_and_indexes_can_always_be_taken_out_and_mended",
)
@contextmanager
def damage_that_nobody_can_remove(_: sqlite3.Connection) -> Iterator[None]:
    """A8: a row that is damaged where it is indexed stays."""
    yield


@DOUBLES.swaps(
    (checking, upkeep),
    "index_problems",
    caught_by="store/test_indexes.py::test_a_state_is_found_again_by_an_index_that_was_mended",
)
def an_index_that_nobody_looks_at(_: sqlite3.Connection) -> list[str]:
    """A8: an agent is not found, and no check says why."""
    return []


@DOUBLES.swaps(
    upkeep,
    "forget_earlier",
    caught_by="cli/test_db.py::test_what_is_taken_out_is_not_denied_afterwards",
)
def a_removed_row_never_was(_: sqlite3.Connection, at_ns: int) -> None:
    """A8: what happened is said not to have, and is done again."""


# --- what is forgotten --------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="store/test_applied.py::test_under_load_without_a_rest_no_agent_keeps_more_ids_than_it_may"
)
def only_the_idle_forget(replace: Replace) -> None:
    """A16: who is never at rest fills the disk with ids."""
    replace(AppliedTrimmer, "is_due", False)


@DOUBLES.breaks(
    caught_by="store/test_applied.py::test_looking_for_what_is_too_old_costs_the_same_however_much_there_is"
)
def all_ids_are_looked_at(replace: Replace) -> None:
    """A16: each second everybody waits until all ids were read."""
    everything = "SELECT seq, at_ns FROM applied WHERE ?1 AND at_ns < ?2 ORDER BY seq"
    replace(applied, "_OLD", everything)


@DOUBLES.breaks(
    caught_by="store/test_letters.py::test_with_the_oldest_letter_goes_what_its_handler_did_once"
)
def results_of_what_is_forgotten(replace: Replace) -> None:
    """A16: what the handlers of dead letters did once is kept for ever."""
    replace(dead_letters, "_TRIM_EFFECTS", "DELETE FROM effect WHERE seq = -?")


@DOUBLES.swaps(
    Participants,
    "check_heard",
    caught_by="agents/test_participants.py::test_one_that_is_down_for_long_fills_neither_memory_nor_file",
)
def verdicts_without_end(self: Participants, names: Iterable[str]) -> None:
    """F05: one participant that is down fills the memory and the file."""


# --- where it lies ------------------------------------------------------------------------


@DOUBLES.swaps(
    Database,
    "check_place",
    caught_by="store/test_place.py::test_f16_nothing_is_acknowledged_into_a_file_that_was_taken_away",
)
def a_file_without_a_name(self: Database) -> None:
    """F16: what is acknowledged is gone with the process."""


@DOUBLES.swaps(
    FileLock,
    "renew",
    caught_by="store/test_place.py::test_nothing_is_written_once_another_has_the_lock",
)
def a_lock_that_is_not_there(self: FileLock) -> None:
    """A14: two runtimes write one file."""
