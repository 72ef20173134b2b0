"""Broken treatments of Python's garbage collector, which belongs to the whole process."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

from treewarden.supervision.collector import Collector, Growth

from .double import Area

if TYPE_CHECKING:
    from .double import Replace

DOUBLES: Final = Area("tests/runtime/supervision")


@DOUBLES.swaps(
    Growth,
    "passes",
    caught_by="test_collector.py::test_a_tree_that_shrinks_and_grows_again_is_not_larger_than_it_ever_was",
)
def every_tree_that_is_large_has_grown(self: Growth, size: int) -> bool:
    """Children that come and go make all young garbage old, without end."""
    return size >= self._step


@DOUBLES.swaps(
    Collector,
    "grown",
    caught_by="test_collector.py::test_garbage_that_counts_as_old_is_found_by_the_next_full_collection",
)
def what_is_frozen_for_good(self: Collector, nodes: int) -> None:
    """Garbage of a mass start is never found."""
    if self._growth.passes(nodes) and self._may_promote:
        gc.freeze()


@DOUBLES.breaks(
    caught_by=(
        "test_collector.py::test_what_somebody_has_frozen_stays_frozen",
        "test_collector.py::test_a_collector_that_was_switched_off_is_left_alone",
        "test_collector.py::test_who_has_chosen_how_often_keeps_that",
    ),
)
def a_collector_that_belongs_to_us_alone(replace: Replace) -> None:
    """What others have set, frozen or switched off is undone."""
    replace(Collector, "_may_promote", True)


@DOUBLES.swaps(
    Collector,
    "give_back",
    caught_by="test_collector.py::test_who_chooses_meanwhile_keeps_that_too",
)
def a_choice_that_is_forgotten(self: Collector) -> None:
    """What somebody sets while a runtime runs is gone with it."""
    if self._before is not None:
        gc.set_threshold(*self._before)
