"""Broken supervisors: the mistakes of spec section 5 that a supervisor invites.

A stop without any deadline has one that is a day away: nothing would end its test either.
"""

from __future__ import annotations

import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

import treewarden.supervision as face
from treewarden.errors import ChildStartFailed, IntensityExceeded
from treewarden.exits import Crash, Exit, Shutdown, is_abnormal
from treewarden.supervision import (
    ChildSpec,
    Patience,
    intensity,
    node,
    strategy,
    supervisor,
)
from treewarden.supervision.intensity import Intensity, RestartWindow
from treewarden.supervision.node import Life, Node, NodeState
from treewarden.supervision.strategy import Member, Plan, Restart, Strategy
from treewarden.supervision.supervisor import Supervisor

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Context

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/supervision")

# --- counting ---------------------------------------------------------------------------

_admit = RestartWindow.admit
_prune = RestartWindow._prune


@DOUBLES.swaps(
    RestartWindow,
    "_prune",
    caught_by="test_intensity.py::test_a_restart_counts_until_it_is_older_than_the_period",
)
def a_window_that_ends_too_early(self: RestartWindow, now: float) -> None:
    """Pitfall 6: what is exactly a period old is forgotten."""
    while len(self._times) > self._first and (
        now - self._times[self._first] >= self.budget.period
    ):
        self._forget(1)


@DOUBLES.swaps(
    RestartWindow,
    "admit",
    caught_by="test_intensity.py::test_a_budget_of_three_is_spent_by_the_fourth_restart_within_the_period",
)
def a_budget_that_is_one_too_small(
    self: RestartWindow, now: float, child: str = ""
) -> bool:
    """Pitfall 6: failures are counted against what restarts are allowed."""
    return _admit(self, now, child) and len(self.children()) < self.budget.limit


@DOUBLES.swaps(
    RestartWindow,
    "admit",
    caught_by="test_intensity.py::test_restarts_over_the_limit_are_not_kept_either",
)
def a_history_without_a_bound(self: RestartWindow, now: float, child: str = "") -> bool:
    """Pitfall 11: restarts over the limit are kept until they are old."""
    self._prune(now)
    self._times.append(now)
    self._children.append(child)
    return len(self.children()) <= self.budget.limit


@DOUBLES.swaps(
    RestartWindow,
    "_prune",
    caught_by="test_intensity.py::test_only_time_wins_a_budget_back",
)
def a_budget_for_life(self: RestartWindow, now: float) -> None:
    """INT-18: a budget is for life: three restarts in five seconds, or in five years."""


@DOUBLES.swaps(
    RestartWindow,
    "admit",
    caught_by="test_supervisor.py::test_stepping_the_wall_clock_changes_no_budget",
)
def a_window_by_the_wall_clock(
    self: RestartWindow, now: float, child: str = ""
) -> bool:
    """Pitfall 2: the wall clock measures the window."""
    return _admit(self, time.time(), child)


_keep = Supervisor._keep


@DOUBLES.swaps(
    Supervisor,
    "_keep",
    caught_by="test_supervisor.py::test_the_budget_belongs_to_the_supervisor_and_not_to_each_child",
)
def a_budget_for_each_child(self: Supervisor, spec: ChildSpec) -> Node:
    """Pitfall 3: each child has a budget of its own."""
    kept = _keep(self, spec)
    kept.budget = kept.budget or self.spec.intensity
    return kept


_report_restarted = Supervisor._report_restarted


@DOUBLES.swaps(
    Supervisor,
    "_report_restarted",
    caught_by="test_supervisor.py::test_the_budget_belongs_to_the_supervisor_and_not_to_each_child",
)
def a_start_that_succeeds_resets_the_history(self: Supervisor, one: Node) -> None:
    """Pitfall 9: a start that succeeds resets the history."""
    _report_restarted(self, one)
    self.window._forget(len(self.window.children()))


_start_again = Supervisor._start_again


@DOUBLES.swaps(
    Supervisor,
    "_start_again",
    caught_by="test_supervisor.py::test_the_budget_belongs_to_the_supervisor_and_not_to_each_child",
)
async def siblings_are_counted(
    self: Supervisor,
    origin: Node,
    group: Sequence[Node],
    cause: Any,
    launched: Life | None = None,
) -> Exception | None:
    """Pitfall 4: a group restart is counted once for each of the group."""
    for one in group:
        if one is not origin:
            self.window.admit(trio.current_time(), one.id)
    return await _start_again(self, origin, group, cause, launched)


_bounce = Supervisor.bounce


@DOUBLES.swaps(
    Supervisor,
    "bounce",
    caught_by="test_supervisor.py::test_restarts_by_hand_cost_nothing",
)
async def a_restart_by_hand_is_counted(self: Supervisor, id_: str, by: str) -> Node:
    """Pitfall 8: a restart by hand spends budget."""
    if not self.window.admit(trio.current_time(), id_):
        raise IntensityExceeded(self.path, self.window.children(), None)
    return await _bounce(self, id_, by)


_let_go = Supervisor._let_go


@DOUBLES.swaps(
    Supervisor,
    "_let_go",
    caught_by="test_supervisor.py::test_ends_that_restart_nobody_cost_nothing_and_touch_no_sibling",
)
def an_end_for_good_is_counted(self: Supervisor, one: Node, exit_: Exit) -> None:
    """Pitfall 8: whoever has done its work, or is temporary, spends budget."""
    if not self.window.admit(trio.current_time(), one.id):
        raise IntensityExceeded(self.path, self.window.children(), None)
    _let_go(self, one, exit_)


_start_failed = Supervisor._start_failed


@DOUBLES.swaps(
    Supervisor,
    "_start_failed",
    caught_by="test_supervisor.py::test_every_failed_attempt_to_restart_costs_one",
)
def a_failed_attempt_is_counted_twice(self: Supervisor, one: Node, error: Any) -> None:
    """Pitfall 7: a failed attempt is counted when it fails and when it is repeated."""
    self.window_of(one).admit(trio.current_time(), one.id)
    _start_failed(self, one, error)


_windows: dict[int, RestartWindow] = {}


@DOUBLES.swaps(
    supervisor,
    "RestartWindow",
    caught_by="test_supervisor.py::test_a_budget_does_not_survive_the_supervisors_own_restart",
)
def a_history_that_outlives_its_supervisor(budget: Intensity) -> RestartWindow:
    """The history outlives the supervisor's own restart."""
    return _windows.setdefault(id(budget), RestartWindow(budget))


# --- who comes back, and in which order ---------------------------------------------------


@DOUBLES.swaps(
    supervisor,
    "is_restarted",
    caught_by="test_supervisor.py::test_a_temporary_child_never_comes_back_and_its_id_is_free",
)
def temporary_children_come_back(restart: Restart, exit_: Exit) -> bool:
    """Temporary is taken for transient."""
    return restart is Restart.PERMANENT or is_abnormal(exit_)


_comes_back = Supervisor._comes_back


@DOUBLES.swaps(
    Supervisor,
    "_comes_back",
    caught_by="test_supervisor.py::test_a_permanent_child_always_comes_back",
)
def permanent_children_that_return_do_not_come_back(
    self: Supervisor, life: Life, exit_: Exit
) -> bool:
    """What returned has done its work, permanent or not."""
    return _comes_back(self, life, exit_) and is_abnormal(exit_)


@DOUBLES.swaps(
    supervisor,
    "is_restarted",
    caught_by="test_supervisor.py::test_a_transient_child_comes_back_after_a_crash_or_a_kill_only",
)
def a_killed_transient_child_does_not_come_back(restart: Restart, exit_: Exit) -> bool:
    """A kill is nobody's fault."""
    if restart is Restart.TRANSIENT:
        return isinstance(exit_, Crash)
    return restart is Restart.PERMANENT


_plan = strategy.plan_restart
_PLANNERS: Final = (strategy, supervisor, face)


@DOUBLES.swaps(
    _PLANNERS,
    "plan_restart",
    caught_by="test_strategy.py::test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order",
)
def a_group_is_stopped_forward(
    of: Strategy, members: Sequence[Member], ended: str
) -> Plan:
    """STR-02: stops in start order."""
    plan = _plan(of, members, ended)
    return Plan(stops=plan.stops[::-1], forgets=plan.forgets, starts=plan.starts)


@DOUBLES.swaps(
    _PLANNERS,
    "plan_restart",
    caught_by="test_strategy.py::test_a_group_restart_stops_temporary_siblings_and_forgets_them",
)
def temporary_bystanders_come_back(
    of: Strategy, members: Sequence[Member], ended: str
) -> Plan:
    """Pitfall 46: a temporary bystander is started with its group."""
    plan = _plan(of, members, ended)
    return Plan(
        stops=plan.stops,
        starts=tuple(m.id for m in members if m.id in {*plan.forgets, *plan.starts}),
    )


@DOUBLES.swaps(
    _PLANNERS,
    "plan_restart",
    caught_by="test_strategy.py::test_rest_for_one_leaves_those_started_earlier_alone",
)
def rest_for_one_is_one_for_all(
    of: Strategy, members: Sequence[Member], ended: str
) -> Plan:
    """rest_for_one takes those along that were started earlier."""
    if of is Strategy.REST_FOR_ONE:
        of = Strategy.ONE_FOR_ALL
    return _plan(of, members, ended)


@DOUBLES.swaps(
    _PLANNERS,
    "plan_restart",
    caught_by="test_strategy.py::test_a_group_restart_starts_siblings_that_had_ended_or_been_stopped",
)
def a_group_leaves_its_dead_behind(
    of: Strategy, members: Sequence[Member], ended: str
) -> Plan:
    """Pitfall 45: siblings that had ended are not revived."""
    plan = _plan(of, members, ended)
    alive = {m.id for m in members if m.running} | {ended}
    starts = tuple(id_ for id_ in plan.starts if id_ in alive)
    return Plan(stops=plan.stops, forgets=plan.forgets, starts=starts)


# --- lives --------------------------------------------------------------------------------


@DOUBLES.swaps(
    Supervisor,
    "_take",
    caught_by="test_supervisor.py::test_two_crashes_in_one_moment_are_one_restart_of_a_group_under_every_seed",
)
def a_second_crash_is_dealt_with_again(self: Supervisor, event: Any) -> Any:
    """Pitfalls 5 and 44: the second crash of one group restart is dealt with again."""
    if isinstance(event, Life):
        return self._child_ended(event)
    return _take(self, event)


_take = Supervisor._take


@DOUBLES.swaps(
    Supervisor,
    "_stop_children",
    caught_by="test_supervisor_stops.py::test_children_stop_in_reverse_order_each_gone_before_the_next_is_asked",
)
async def children_stop_forward(self: Supervisor) -> None:
    """Pitfall 19: the database is closed before its users."""
    for one in tuple(self.children.values()):
        await self._stop_one(one)
        self._forget(one, one.last_exit or Shutdown())


_start_all = Supervisor._start_all


@DOUBLES.swaps(
    Supervisor,
    "_start_all",
    caught_by="test_supervisor.py::test_a_child_that_cannot_start_stops_those_before_it_and_is_the_error",
)
async def a_start_that_fails_half_way(self: Supervisor) -> None:
    """Pitfall 42: those that were up already are stopped in the order of their start."""
    try:
        await _start_all(self)
    except ChildStartFailed:
        await children_stop_forward(self)
        raise


@DOUBLES.swaps(
    Supervisor,
    "_stop_children",
    caught_by="test_dynamic.py::test_dynamic_children_are_asked_all_at_once_and_each_has_its_own_time",
)
async def dynamic_children_wait_for_each_other(self: Supervisor) -> None:
    """Dynamic children wait for each other."""
    for one in reversed(tuple(self.children.values())):
        await self._stop_one(one)
        self._forget(one, one.last_exit or Shutdown())


@DOUBLES.swaps(
    Supervisor,
    "terminate",
    caught_by="test_ref.py::test_a_terminate_returns_when_the_child_is_gone",
)
async def a_terminate_that_only_asks(self: Supervisor, id_: str) -> None:
    """A terminate that returns before the child is gone."""
    self._ask(self._find(id_))


@DOUBLES.swaps(
    Supervisor,
    "_stop_one",
    caught_by="test_supervisor.py::test_nobody_of_a_group_starts_before_the_last_has_ended",
)
async def a_group_that_starts_too_early(self: Supervisor, one: Node) -> None:
    """Pitfall 41: a group starts before its last has ended."""
    self._ask(one)


@DOUBLES.swaps(
    ChildSpec,
    "shutdown_seconds",
    caught_by="test_supervisor_stops.py::test_a_child_that_overruns_its_shutdown_time_is_killed",
)
def a_clean_up_with_all_the_time_in_the_world(self: ChildSpec) -> float:
    """Pitfall 22: a day of it, whatever the child was given."""
    return 86_400.0


@DOUBLES.swaps(
    Supervisor,
    "_let_go",
    caught_by="test_supervisor.py::test_a_temporary_child_never_comes_back_and_its_id_is_free",
)
def a_temporary_child_that_keeps_its_id(
    self: Supervisor, one: Node, exit_: Exit
) -> None:
    """A temporary child that ended keeps its id."""
    self._rest(one, exit_, NodeState.STOPPED)


_try = Supervisor._try_again


@DOUBLES.swaps(
    Supervisor,
    "_try_again",
    caught_by="test_supervisor_failures.py::test_a_child_between_attempts_is_restarting_and_can_be_terminated",
)
def a_restart_that_was_called_off_happens(self: Supervisor, retry: Any) -> Any:
    """Pitfall 37: a restart that was called off happens."""
    retry.node.retry = retry
    return _try(self, retry)


_born = Node.born


@DOUBLES.swaps(
    Node,
    "born",
    caught_by="test_ref.py::test_an_incarnation_is_never_used_twice_at_one_path",
)
def every_incarnation_is_the_first(
    self: Node, scope: trio.CancelScope | None = None, now: float | None = None
) -> Life:
    """Each incarnation is the first."""
    self.incarnation = 0
    return _born(self, scope, now)


_classify = Life.classify


@DOUBLES.swaps(
    Life,
    "classify",
    caught_by="test_node.py::test_a_child_that_finishes_just_in_time_was_not_stopped",
)
def stopped_because_it_was_asked_to(self: Life, returned: Exit | None) -> Exit:
    """Pitfall 15: stopped because it was asked to, whatever it did."""
    return Shutdown() if self.scope.cancel_called else _classify(self, returned)


@DOUBLES.swaps(
    node,
    "_only_leaf",
    caught_by="test_node.py::test_a_child_ends_with_the_exit_that_it_raises_from_any_nursery_of_its_own",
)
def a_wish_to_stop_that_stays_wrapped(error: BaseException) -> None:
    """Pitfall 28: what comes out of a nursery stays wrapped."""


@DOUBLES.swaps(
    node,
    "interrupt_in",
    caught_by="test_root.py::test_an_interrupt_out_of_a_child_stops_the_tree_in_order_and_comes_out_bare",
)
def an_interrupt_in_a_group_is_an_error(error: BaseException) -> BaseException | None:
    """Pitfall 18: an interrupt in a group is an error like any other."""
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


_crashed = node._crashed


@DOUBLES.swaps(
    node,
    "_crashed",
    caught_by="test_node.py::test_raising_one_exception_object_for_ever_collects_no_tracebacks",
)
def tracebacks_are_collected(one: Node, life: Life, error: BaseException) -> Exit:
    """Pitfall 73: an exception that is raised for ever collects tracebacks for ever."""
    traceback = error.__traceback__
    exit_ = _crashed(one, life, error)
    error.__traceback__ = traceback
    return exit_


@DOUBLES.breaks(
    caught_by="test_intensity.py::test_the_default_budget_is_three_restarts_in_five_seconds"
)
def limit_and_period_swapped(replace: Replace) -> None:
    """Pitfall 12: five restarts in three seconds."""
    replace(intensity.Intensity.__init__, "__defaults__", (5, 3.0))


# --- deadlines ------------------------------------------------------------------------


@DOUBLES.swaps(
    Patience,
    "_trim",
    caught_by="test_timers.py::test_one_long_wait_keeps_none_that_are_over",
)
def waits_that_are_over_stay_behind_a_long_one(self: Patience) -> None:
    """One call that hangs keeps every call of the same length."""


@DOUBLES.swaps(
    Patience,
    "_sweep",
    caught_by="test_timers.py::test_whoever_still_waits_is_told_at_his_own_deadline",
)
def only_the_first_deadline_is_kept(self: Patience) -> None:
    """Who began to wait later waits for ever."""
    first = self._queue.popleft()
    if first.is_wanted:
        first.expire(self.seconds)


# --- starts that wait for nothing -----------------------------------------------------

_begin = Supervisor._begin
_shared = copy_context()


@DOUBLES.swaps(
    Supervisor,
    "_begin",
    caught_by="test_at_once.py::test_a_child_that_never_starts_again_leaves_the_others_their_turns",
)
def a_turn_without_an_end(self: Supervisor, one: Node) -> Life:
    """Pitfall 1: one attempt after the other, and nobody else runs meanwhile."""
    self._begun = 0
    return _begin(self, one)


@DOUBLES.swaps(
    supervisor,
    "copy_context",
    caught_by="test_at_once.py::test_what_a_start_leaves_in_its_context_is_there_for_that_incarnation_alone",
)
def one_context_for_all() -> Context:
    """What one child leaves in its context is there for the next."""
    return _shared


@DOUBLES.swaps(
    Life,
    "end",
    caught_by="test_at_once.py::test_the_entries_of_a_life_that_failed_at_once_are_gone",
)
def an_end_that_nobody_hears_of(self: Life, exit_: Exit) -> None:
    """A life that never came to a task leaves what it had registered."""
    self.exit = exit_
    self.ended = True
