"""Broken durable collections: items that are lost, come back, or are read wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.control import desk
from treewarden.store import DurableMap, DurableQueue, database
from treewarden.store import filter as filters
from treewarden.store import map as map_module
from treewarden.store.layers import Layers
from treewarden.store.queue import Item

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.store.layers import Sealed
    from treewarden.store.unit import Write

    from .double import Replace

DOUBLES: Final = Area("tests")

_FILTER: Final = "runtime/store/test_filter.py::"
_MAP: Final = "runtime/store/test_map.py::"
_QUEUE: Final = "runtime/store/test_queue.py::"
_KILL: Final = "system/test_queue_kill.py::"
_F11: Final = _KILL + "test_f11_a_killed_agent_loses_no_task_and_repeats_none"
_F12: Final = _KILL + "test_f12_a_killed_process_loses_no_task_and_repeats_none"

# --- queues -------------------------------------------------------------------------------

_take = DurableQueue.take


@DOUBLES.swaps(DurableQueue, "take", caught_by=_F11)
async def a_task_in_hand_is_nowhere_else(
    self: DurableQueue[Any], *, lease: float = 60.0
) -> Item[Any] | None:
    """F11: what is taken is gone, and with its worker the task is lost."""
    item = await _take(self, lease=lease)
    if item is not None:
        await self.ack(item.key)
    return item


@DOUBLES.swaps(
    Item,
    "ack",
    caught_by=_QUEUE + "test_an_item_is_acknowledged_by_key_in_a_later_message",
)
async def a_task_that_is_never_done(self: Item[Any]) -> bool:
    """F11: it comes back when its lease runs out, and has its effect once more."""
    return True


@DOUBLES.swaps(DurableQueue, "_writes", caught_by=_F12)
def a_queue_in_memory(self: DurableQueue[Any]) -> Iterator[Write]:
    """F12: the tasks end with the process."""
    return iter(())


@DOUBLES.breaks(caught_by=_F12)
def leases_that_outlive_their_run(replace: Replace) -> None:
    """F12: what a dead process had in hand is nobody's for ever."""
    replace(database, "_FREE_ALL", "SELECT 1")


# --- layers -------------------------------------------------------------------------------


@DOUBLES.swaps(
    Layers, "discard", caught_by=_MAP + "test_a_failed_handler_changed_nothing"
)
def a_failed_handler_leaves_what_it_staged(self: Layers[Any]) -> None:
    """What a handler that raised has set is there for the next one."""


_reset = Layers.reset


@DOUBLES.swaps(
    Layers,
    "reset",
    caught_by=_MAP + "test_a_failed_commit_takes_the_map_back_to_the_file",
)
def a_failed_commit_stays_in_memory(self: Layers[Any]) -> None:
    """Memory says what the file does not have."""
    uncommitted = dict(self.uncommitted)
    _reset(self)
    self.uncommitted.update(uncommitted)


@DOUBLES.swaps(
    Layers,
    "_settle",
    caught_by=_MAP + "test_a_commit_does_not_hide_what_a_later_handler_changed",
)
def a_commit_settles_what_came_after_it(self: Layers[Any], sealed: Sealed[Any]) -> None:
    """The older value is read again until the newer one is committed too."""
    for key in sealed.rows:
        self.uncommitted.pop(key, None)
    self._uncommitted_growth -= sealed.growth
    self._owner.settled(sealed.rows)


# --- maps ---------------------------------------------------------------------------------


@DOUBLES.swaps(
    DurableMap,
    "_row",
    caught_by=_MAP + "test_a_damaged_item_is_named_and_the_others_are_read",
)
def a_checksum_that_nobody_looks_at(
    self: DurableMap[str, Any], key: str, text: str, crc: object
) -> map_module._Row:
    """A flipped bit is read as if it had been written."""
    return map_module._Row(text.encode())


@DOUBLES.breaks(caught_by=_MAP + "test_what_is_remembered_is_bounded_in_rows_and_bytes")
def a_map_that_grows_in_memory(replace: Replace) -> None:
    """What was looked at once is remembered for ever."""
    replace(map_module, "KNOWN_ROWS", 1 << 60)
    replace(map_module, "KNOWN_BYTES", 1 << 60)


@DOUBLES.swaps(
    DurableMap,
    "outdated",
    caught_by=_MAP + "test_a_unit_that_commits_after_a_reset_is_seen",
)
def what_was_remembered_stays_true(self: DurableMap[str, Any]) -> None:
    """A row that was not there is taken for absent when it has come."""


# --- filters ------------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by=_FILTER
    + "test_f53_an_indexed_equality_and_a_range_examine_no_more_than_is_equal"
)
def an_index_that_is_not_used(replace: Replace) -> None:
    """F53: it is kept, and every question reads every row."""
    replace(filters.StateFilter, "narrows", property(lambda _: 0))


@DOUBLES.swaps(
    filters,
    "_can_be_looked_up",
    caught_by=_FILTER + "test_f53_1000_random_criteria_find_what_a_naive_filter_finds",
)
def a_look_up_that_knows_no_null(value: object) -> bool:
    """F53: with an index a question has another answer than without it."""
    return not isinstance(value, int) or abs(value) < 1 << 53


@DOUBLES.swaps(
    filters.StateIndex,
    "note",
    caught_by=_FILTER + "test_a_committed_change_moves_in_the_index",
)
def an_index_of_yesterday(self: object, connection: object, states: object) -> None:
    """F53: a state is found by what it was when the index was made."""


@DOUBLES.swaps(
    filters.StateIndex,
    "written",
    caught_by=_FILTER
    + "test_an_index_that_is_made_later_knows_the_changes_that_come_after_it",
)
def types_that_are_asked_for_once(self: object, statement: str) -> None:
    """F53: what the writer keeps in mind of the index is not what the file has."""


@DOUBLES.swaps(
    desk,
    "_shows",
    caught_by="runtime/control/test_desk_collections.py"
    "::test_nobody_is_found_by_what_is_redacted",
)
def a_secret_that_is_guessed(body: object, asked: object) -> bool:
    """Whoever may look finds it out, question by question."""
    return True
