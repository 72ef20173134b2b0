"""Broken stores: who answers too soon, and what a failed commit leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.store import Store

from .double import Area

if TYPE_CHECKING:
    from treewarden.store import Unit
    from treewarden.store.group import Decision

DOUBLES: Final = Area("tests/runtime/agents")

_hand_over = Store.hand_over
_on_decision = Store._on_decision


@DOUBLES.swaps(
    Store,
    "hand_over",
    caught_by="test_gate.py::test_nothing_of_a_handler_leaves_before_its_commit",
)
def an_answer_before_its_commit(self: Store, unit: Unit) -> None:
    """A kill in the next moment makes it a lie."""
    _hand_over(self, unit)
    for tell in unit.release:
        tell(None)
    unit.release.clear()


@DOUBLES.swaps(
    Store,
    "_on_decision",
    caught_by="test_gate.py::test_a_failed_commit_leaves_memory_equal_to_disk_in_it_and_behind_it",
)
def what_is_behind_a_failed_commit_is_written(self: Store, decision: Decision) -> None:
    """Later states build on a lost one, and are kept."""
    behind, self._pending = self._pending, []
    _on_decision(self, decision)
    for unit in behind:
        self._pending.append(unit)
    if behind and not self._busy:
        self._flush_soon()
