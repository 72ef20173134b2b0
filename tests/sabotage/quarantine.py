"""Broken quarantines: a damaged agent that costs others something, or begins empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.agents.body import AgentBody
from treewarden.errors import ChildStartFailed, RestoreError
from treewarden.exits import Shutdown
from treewarden.store import Store
from treewarden.supervision import Node, NodeState, supervisor
from treewarden.supervision.supervisor import Supervisor

from .double import Area

if TYPE_CHECKING:
    from treewarden.exits import Exit

DOUBLES: Final = Area("tests/runtime")

_T: Final = "test_quarantine.py::"
_ALONE: Final = (
    _T + "test_a_damaged_agent_is_down_with_the_reason_while_its_siblings_run"
)


@DOUBLES.swaps(supervisor, "_is_unreadable", caught_by=_ALONE)
def one_damaged_row_stops_everybody(error: BaseException | None) -> bool:
    """The whole application does not start for the state of one agent."""
    return False


@DOUBLES.swaps(Supervisor, "_quarantine", caught_by=_ALONE)
def a_damaged_agent_is_tried_again(
    self: Supervisor, node: Node, error: ChildStartFailed
) -> None:
    """It is started until the budget of its siblings is spent."""
    self._start_failed(node, error)


@DOUBLES.swaps(
    Supervisor,
    "_is_quarantined",
    caught_by=_T
    + "test_a_group_that_stands_together_is_down_together_and_comes_back_so",
)
def a_group_without_a_member(self: Supervisor, error: ChildStartFailed) -> bool:
    """Those that stand and fall together run without the one that is damaged."""
    return supervisor._is_unreadable(error)


@DOUBLES.swaps(
    Supervisor,
    "_quarantine",
    caught_by=_T + "test_a_damaged_child_is_kept_whatever_its_restart_type",
)
def a_temporary_child_that_nobody_can_mend(
    self: Supervisor, node: Node, error: ChildStartFailed
) -> None:
    """It is forgotten with its specification."""
    self._let_go(node, node.last_exit or Shutdown())


_load = Store.load


@DOUBLES.swaps(Store, "load", caught_by=_ALONE)
async def a_damaged_row_is_none(self: Store, path: str, store_as: str) -> Any:
    """What cannot be read is taken for what never was: an empty start."""
    try:
        return await _load(self, path, store_as)
    except RestoreError:
        return None


_at_rest = AgentBody.at_rest


@DOUBLES.swaps(AgentBody, "at_rest", caught_by=_ALONE)
def down_for_no_reason(self: AgentBody, exit_: Exit, *, gone: bool) -> None:
    """Whoever calls it is told that it is stopped, as if somebody had stopped it."""
    state, self.node.state = self.node.state, NodeState.STOPPED
    _at_rest(self, exit_, gone=gone)
    self.node.state = state
