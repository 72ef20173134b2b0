"""Doubles of what is stored: whose it is, what is kept of it, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.agents.codec import StateCodec
from treewarden.clock import wall_ns
from treewarden.errors import RestoreError
from treewarden.runtime import current_runtime, news, runtime
from treewarden.runtime.news import News
from treewarden.store import database as databases
from treewarden.store import loading
from treewarden.store.faults import FaultTrimmer
from treewarden.store.loading import StateLoader
from treewarden.store.pruning import Pruning
from treewarden.store.retention import Horizon
from treewarden.store.snapshots import load_state
from treewarden.store.store import Store
from treewarden.supervision import Intensity

from .double import Area

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from treewarden.agents import Agent
    from treewarden.errors import StoreError
    from treewarden.store import StoredState, Unit
    from treewarden.store.journal import Tail
    from treewarden.supervision import Report

DOUBLES: Final = Area("tests")

_load = Store.load
_report = News.report
_load_ahead = StateLoader.load
_note_size = Store._note_size


# --- the store and its users --------------------------------------------------------------


@DOUBLES.swaps(
    News,
    "report",
    caught_by="runtime/test_store_life.py::test_f13_three_crashes_of_an_agent_leave_the_store_as_it_was",
)
def a_store_of_its_users_own(self: News, report: Report) -> None:
    """F13: an agent's crash takes the store with it."""
    _report(self, report)
    if report.topic == "supervision.exited" and report.path == "/one":
        current_runtime().injections.crash("/system/store")


@DOUBLES.swaps(
    runtime,
    "Intensity",
    caught_by="runtime/test_store_life.py::test_f13_a_store_that_crashed_is_opened_again_before_its_users",
)
def a_store_that_is_restarted_under_its_users(
    limit: int = 3, period: float = 5.0
) -> Intensity:
    """F13: agents go on with a store that is closed."""
    return Intensity(max(limit, 3), period)


@DOUBLES.swaps(
    loading,
    "load_state",
    caught_by="runtime/agents/test_identity.py::test_f15_two_types_with_one_path_do_not_share_a_state",
)
def one_key_space_for_all_types(
    connection: sqlite3.Connection, path: str, store_as: str
) -> StoredState | None:
    """F15: whoever has the path has the state."""
    row = connection.execute(
        "SELECT store_as FROM agent_state WHERE path = ?", (path,)
    ).fetchone()
    return load_state(connection, path, row[0] if row else store_as)


@DOUBLES.swaps(
    Store,
    "load",
    caught_by="runtime/agents/test_identity.py::test_f16_a_damaged_state_is_refused_and_never_an_empty_start",
)
async def an_empty_start_for_what_cannot_be_read(
    self: Store, path: str, store_as: str
) -> StoredState | None:
    """F16: an error looks like no state at all."""
    try:
        return await _load(self, path, store_as)
    except RestoreError:
        return None


@DOUBLES.swaps(
    StateLoader,
    "load",
    caught_by="runtime/store/test_loading.py::test_what_is_read_ahead_is_never_an_earlier_state",
)
async def a_reading_ahead_that_never_grows_old(
    self: StateLoader, path: str, store_as: str, as_of: int | None
) -> StoredState | None:
    """An agent starts from a state that it had before."""
    return await _load_ahead(self, path, store_as, 0)


@DOUBLES.swaps(
    databases,
    "_refuse_orphaned_log",
    caught_by="system/test_truncation.py::test_f16_a_file_cut_off_anywhere_is_refused_or_whole_and_never_empty",
)
def a_log_without_its_file(path: Path) -> None:
    """F16: a file that was cut off to nothing is taken for a new one."""


@DOUBLES.swaps(
    StateCodec,
    "migrate",
    caught_by="runtime/agents/test_identity.py::test_a_row_of_each_earlier_version_is_brought_to_this_one",
)
def rows_are_read_as_they_are(
    self: StateCodec, cls: type[Agent[Any]], payload: bytes, version: int, path: str
) -> bytes:
    """A row of an earlier version comes back with its new fields empty."""
    return payload


# --- what is kept -------------------------------------------------------------------------


@DOUBLES.swaps(
    Pruning,
    "is_far_over",
    caught_by="runtime/store/test_pruning.py::test_a16_a_journal_under_load_stays_within_a_tenth_of_its_limit",
)
def a_journal_that_waits_for_a_rest(self: Pruning, tail: Tail) -> bool:
    """A16: under load the journal grows without a bound."""
    return False


@DOUBLES.swaps(
    Horizon,
    "before_ns",
    caught_by="runtime/store/test_pruning.py::test_a16_a_clock_that_jumped_ahead_before_the_start_empties_no_journal",
)
def age_by_the_wall_clock(self: Horizon) -> int:
    """A16: a clock that was set ahead empties the journal, and forgets ids and letters."""
    return wall_ns() - 7 * 24 * 3600 * 10**9


@DOUBLES.swaps(
    FaultTrimmer,
    "note",
    caught_by="runtime/store/test_faults.py::test_s50_the_newest_thousand_faults_of_a_node_are_kept",
)
def a_crash_loop_fills_the_disk(self: FaultTrimmer, path: str) -> None:
    """S50: nobody counts what one node fails."""


@DOUBLES.swaps(
    FaultTrimmer,
    "trim",
    caught_by="runtime/store/test_faults.py::test_s50_nothing_stays_of_a_node_that_is_gone",
)
def histories_of_the_dead(self: FaultTrimmer, connection: sqlite3.Connection) -> int:
    """S50: what is gone keeps its history for ever."""
    return 0


@DOUBLES.swaps(
    news,
    "crash_of",
    caught_by="runtime/store/test_faults.py::test_s50_what_crashed_in_a_tree_is_told_by_path_and_survives_a_restart",
)
def nobody_records_a_crash(report: Report) -> None:
    """S50: there is a history, and nothing is ever put into it."""


@DOUBLES.swaps(
    Store,
    "_note_size",
    caught_by="runtime/agents/test_identity.py::test_a_large_state_is_told_of_once_with_the_remedy",
)
def told_at_every_change(self: Store, unit: Unit, error: StoreError | None) -> None:
    """One agent fills the journal with one complaint."""
    self._large_states.clear()
    _note_size(self, unit, error)
