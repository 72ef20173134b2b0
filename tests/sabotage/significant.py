"""Broken auto-shutdown: supervisors that misread the ends of significant children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.exits import Exit, Normal, Shutdown
from treewarden.supervision import strategy, supervisor
from treewarden.supervision.strategy import AutoShutdown
from treewarden.supervision.supervisor import Supervisor

from .double import Area

if TYPE_CHECKING:
    from treewarden.supervision.node import Life, Node

DOUBLES: Final = Area("tests/runtime/supervision")

_T: Final = "test_supervisor_significant.py::"
_WHERE: Final = (strategy, supervisor)


@DOUBLES.swaps(
    _WHERE,
    "is_finished",
    caught_by=_T + "test_any_end_of_a_significant_temporary_child_ends_its_supervisor",
)
def nobody_is_significant(auto: AutoShutdown, *, others: bool) -> bool:
    """SIG-03: it goes on without what it was there for."""
    return False


@DOUBLES.swaps(
    _WHERE,
    "is_finished",
    caught_by=_T + "test_all_significant_temporary_children_must_have_ended",
)
def the_first_is_all(auto: AutoShutdown, *, others: bool) -> bool:
    """SIG-03: all_significant ends with the first of them."""
    return auto is not AutoShutdown.NEVER


@DOUBLES.swaps(
    _WHERE,
    "is_finished",
    caught_by=_T + "test_any_end_of_a_significant_temporary_child_ends_its_supervisor",
)
def the_last_is_any(auto: AutoShutdown, *, others: bool) -> bool:
    """SIG-03: any_significant waits for the last of them."""
    return auto is not AutoShutdown.NEVER and not others


_gone_for_good = Supervisor._gone_for_good


@DOUBLES.swaps(
    Supervisor,
    "_gone_for_good",
    caught_by=_T + "test_a_temporary_child_that_is_not_significant_ends_nobody_else",
)
def everybody_is_significant(self: Supervisor, one: Node) -> None:
    """SIG-01: whoever ends, ends the rest."""
    self._exit = Shutdown(f"{one.id} ended")
    self._stop_wanted = True


@DOUBLES.swaps(
    Supervisor,
    "_gone_for_good",
    caught_by=_T + "test_a_child_that_waits_to_be_restarted_still_counts",
)
def who_waits_to_be_restarted_has_ended(self: Supervisor, one: Node) -> None:
    """SIG-10: a backoff is taken for an end."""
    waiting = {child: child.retry for child in self.children.values()}
    for child in waiting:
        child.retry = None
    _gone_for_good(self, one)
    for child, retry in waiting.items():
        child.retry = retry


_terminate = Supervisor.terminate


@DOUBLES.swaps(
    Supervisor,
    "terminate",
    caught_by=_T + "test_a_significant_child_that_was_terminated_ends_nobody_else",
)
async def an_end_by_hand_counts(self: Supervisor, id_: str) -> None:
    """SIG-08: an operator who stops one stops them all."""
    one = self._find(id_)
    await _terminate(self, id_)
    self._gone_for_good(one)


_child_ended = Supervisor._child_ended


@DOUBLES.swaps(
    Supervisor,
    "_child_ended",
    caught_by=_T + "test_a_significant_transient_child_that_failed_is_restarted",
)
def a_failure_is_an_end(self: Supervisor, life: Life) -> Any:
    """SIG-04: whoever is started again has ended all the same."""
    left = _child_ended(self, life)
    self._gone_for_good(life.node)
    return left


_run = Supervisor.run


@DOUBLES.swaps(
    Supervisor,
    "run",
    caught_by=_T + "test_the_rest_is_stopped_in_reverse_order_and_the_exit_is_no_error",
)
async def an_end_that_says_nothing(self: Supervisor, life: Life) -> Exit | None:
    """SIG-09: a supervisor that stopped itself looks like one that returned."""
    exit_ = await _run(self, life)
    return Normal() if isinstance(exit_, Shutdown) and exit_.detail else exit_
