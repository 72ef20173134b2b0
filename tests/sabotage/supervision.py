"""Broken supervisors: the mistakes of spec section 5 that a supervisor invites.

A stop without any deadline is not among them: nothing would end it, its test neither.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import trio

import treewarden.supervision as face
from treewarden.errors import IntensityExceeded
from treewarden.exits import Crash, Exit, Shutdown, is_abnormal
from treewarden.supervision import ChildSpec, intensity, node, strategy, supervisor
from treewarden.supervision.intensity import Intensity, RestartWindow
from treewarden.supervision.node import Life, Node, NodeState
from treewarden.supervision.strategy import Member, Plan, Restart, Strategy
from treewarden.supervision.supervisor import Supervisor

from .double import Double, swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .double import Replace

# --- counting ---------------------------------------------------------------------------

_admit = RestartWindow.admit
_prune = RestartWindow._prune


def _prune_at_the_edge(self: RestartWindow, now: float) -> None:
    """Pitfall 6: what is exactly a period old is forgotten."""
    while self._at and now - self._at[0][0] >= self.budget.period:
        self._at.popleft()


def _admit_one_less(self: RestartWindow, now: float, child: str = "") -> bool:
    """Pitfall 6: failures are counted against what restarts are allowed."""
    return _admit(self, now, child) and len(self._at) < self.budget.limit


def _admit_and_keep(self: RestartWindow, now: float, child: str = "") -> bool:
    """Pitfall 11: restarts over the limit are kept until they are old."""
    self._prune(now)
    self._at.append((now, child))
    return len(self._at) <= self.budget.limit


def _never_prune(self: RestartWindow, now: float) -> None:
    """A budget is for life: three restarts in five seconds, or in five years."""


def _admit_by_the_wall(self: RestartWindow, now: float, child: str = "") -> bool:
    """Pitfall 2: the wall clock measures the window."""
    return _admit(self, time.time(), child)


_keep = Supervisor._keep


def _keep_with_a_budget(self: Supervisor, spec: ChildSpec) -> Node:
    """Pitfall 3: each child has a budget of its own."""
    kept = _keep(self, spec)
    kept.window = kept.window or RestartWindow(self.spec.intensity)
    return kept


_report_restarted = Supervisor._report_restarted


def _forgive(self: Supervisor, one: Node) -> None:
    """Pitfall 9: a start that succeeds resets the history."""
    _report_restarted(self, one)
    self.window._at.clear()


_start_again = Supervisor._start_again


async def _count_siblings(
    self: Supervisor, origin: Node, group: Sequence[Node], cause: Any
) -> Exception | None:
    """Pitfall 4: a group restart is counted once for each of the group."""
    for one in group:
        if one is not origin:
            self.window.admit(trio.current_time(), one.id)
    return await _start_again(self, origin, group, cause)


_bounce = Supervisor.bounce


async def _count_operators(self: Supervisor, id_: str, by: str) -> Node:
    """Pitfall 8: a restart by hand spends budget."""
    if not self.window.admit(trio.current_time(), id_):
        raise IntensityExceeded(self.path, self.window.children(), None)
    return await _bounce(self, id_, by)


_start_failed = Supervisor._start_failed


def _count_twice(self: Supervisor, one: Node, error: Any) -> None:
    """Pitfall 7: a failed attempt is counted when it fails and when it is repeated."""
    (one.window or self.window).admit(trio.current_time(), one.id)
    _start_failed(self, one, error)


_windows: dict[int, RestartWindow] = {}


def _one_window(budget: Intensity) -> RestartWindow:
    """The history outlives the supervisor's own restart."""
    return _windows.setdefault(id(budget), RestartWindow(budget))


# --- who comes back, and in which order ---------------------------------------------------


def _restart_all(restart: Restart, exit_: Exit) -> bool:
    """Temporary is taken for transient."""
    return restart is Restart.PERMANENT or is_abnormal(exit_)


def _restart_unless_permanent(restart: Restart, exit_: Exit) -> bool:
    """What returned has done its work, permanent or not."""
    return restart is not Restart.TEMPORARY and is_abnormal(exit_)


def _restart_crashes_only(restart: Restart, exit_: Exit) -> bool:
    """A kill is nobody's fault."""
    if restart is Restart.TRANSIENT:
        return isinstance(exit_, Crash)
    return restart is Restart.PERMANENT


_plan = strategy.plan_restart


def _plan_forward(of: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """Stops in start order."""
    plan = _plan(of, members, ended)
    return Plan(stops=plan.stops[::-1], forgets=plan.forgets, starts=plan.starts)


def _plan_temporary(of: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """A temporary bystander is started with its group."""
    plan = _plan(of, members, ended)
    return Plan(
        stops=plan.stops,
        starts=tuple(m.id for m in members if m.id in {*plan.forgets, *plan.starts}),
    )


def _plan_everybody(of: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """rest_for_one takes those along that were started earlier."""
    if of is Strategy.REST_FOR_ONE:
        of = Strategy.ONE_FOR_ALL
    return _plan(of, members, ended)


def _plan_the_living(of: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """Siblings that had ended are not revived."""
    plan = _plan(of, members, ended)
    alive = {m.id for m in members if m.running} | {ended}
    starts = tuple(id_ for id_ in plan.starts if id_ in alive)
    return Plan(stops=plan.stops, forgets=plan.forgets, starts=starts)


# --- lives --------------------------------------------------------------------------------


async def _take_twice(self: Supervisor, event: Any) -> Exception | None:
    """Pitfall 5: the second crash of one group restart is dealt with again."""
    if isinstance(event, Life):
        return await self._child_ended(event)
    return await _take(self, event)


_take = Supervisor._take


async def _stop_forward(self: Supervisor) -> None:
    """Pitfall 19: the database is closed before its users."""
    for one in tuple(self.children.values()):
        await self._stop_one(one)
        self._forget(one, one.last_exit or Shutdown())


async def _stop_one_after_another(self: Supervisor) -> None:
    """Dynamic children wait for each other."""
    for one in reversed(tuple(self.children.values())):
        await self._stop_one(one)
        self._forget(one, one.last_exit or Shutdown())


async def _ask_only(self: Supervisor, id_: str) -> None:
    """A terminate that returns before the child is gone."""
    self._ask(self._find(id_))


async def _ask_all_and_go_on(self: Supervisor, one: Node) -> None:
    """Pitfall 41: a group starts before its last has ended."""
    self._ask(one)


_shutdown_seconds = ChildSpec.shutdown_seconds


def _twice_as_long(self: ChildSpec) -> float:
    """Pitfall 22: the time to stop is begun anew in the middle of it."""
    return 2 * _shutdown_seconds(self)


def _keep_for_ever(self: Supervisor, one: Node, exit_: Exit) -> None:
    """A temporary child that ended keeps its id."""
    self._rest(one, exit_, NodeState.STOPPED)


_try = Supervisor._try_again


async def _try_anyway(self: Supervisor, retry: Any) -> Exception | None:
    """Pitfall 37: a restart that was called off happens."""
    retry.node.retry = retry
    return await _try(self, retry)


_born = Node.born


def _born_again(self: Node) -> Life:
    """Each incarnation is the first."""
    self.incarnation = 0
    return _born(self)


_classify = Life.classify


def _by_the_wish(self: Life, returned: Exit | None) -> Exit:
    """Pitfall 15: stopped because it was asked to, whatever it did."""
    return Shutdown() if self.scope.cancel_called else _classify(self, returned)


def _no_leaf(error: BaseException) -> None:
    """Pitfall 28: what comes out of a nursery stays wrapped."""


def _bare_only(error: BaseException) -> BaseException | None:
    """Pitfall 18: an interrupt in a group is an error like any other."""
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


_crashed = node._crashed


def _with_its_traceback(one: Node, life: Life, error: BaseException) -> Exit:
    """An exception that is raised for ever collects tracebacks for ever."""
    traceback = error.__traceback__
    exit_ = _crashed(one, life, error)
    error.__traceback__ = traceback
    return exit_


_S: Final = "tests/runtime/supervision/"
_WINDOW: Final = _S + "test_intensity.py::"
_PLANS: Final = _S + "test_strategy.py::"
_TREE: Final = _S + "test_supervisor.py::"
_STOPS: Final = _S + "test_supervisor_stops.py::"
_NODE: Final = _S + "test_node.py::"


def _strategy(name: str, broken: object, test: str) -> Double:
    def breaks(replace: Replace) -> None:
        for owner in (strategy, supervisor, face):
            replace(owner, "plan_restart", broken)

    return Double(name=name, breaks=breaks, caught_by=(_PLANS + test,))


def _double(name: str, owner: object, what: str, broken: object, test: str) -> Double:
    return Double(name=name, breaks=swap(owner, what, broken), caught_by=(test,))


DOUBLES: Final = (
    _double(
        "a window that ends too early",
        RestartWindow,
        "_prune",
        _prune_at_the_edge,
        _WINDOW + "test_a_restart_counts_until_it_is_older_than_the_period",
    ),
    _double(
        "a budget that is one too small",
        RestartWindow,
        "admit",
        _admit_one_less,
        _WINDOW
        + "test_a_budget_of_three_is_spent_by_the_fourth_restart_within_the_period",
    ),
    _double(
        "a history without a bound",
        RestartWindow,
        "admit",
        _admit_and_keep,
        _WINDOW + "test_restarts_over_the_limit_are_not_kept_either",
    ),
    _double(
        "a budget for life",
        RestartWindow,
        "_prune",
        _never_prune,
        _WINDOW + "test_only_time_wins_a_budget_back",
    ),
    _double(
        "limit and period swapped",
        intensity.Intensity.__init__,
        "__defaults__",
        (5, 3.0),
        _WINDOW + "test_the_default_budget_is_three_restarts_in_five_seconds",
    ),
    _double(
        "a window by the wall clock",
        RestartWindow,
        "admit",
        _admit_by_the_wall,
        _TREE + "test_spaced_crashes_never_spend_a_budget",
    ),
    _double(
        "a budget for each child",
        Supervisor,
        "_keep",
        _keep_with_a_budget,
        _TREE + "test_the_budget_belongs_to_the_supervisor_and_not_to_each_child",
    ),
    _double(
        "a start that succeeds resets the history",
        Supervisor,
        "_report_restarted",
        _forgive,
        _TREE + "test_the_budget_belongs_to_the_supervisor_and_not_to_each_child",
    ),
    _double(
        "siblings are counted",
        Supervisor,
        "_start_again",
        _count_siblings,
        _S + "test_traces.py::test_every_recorded_scenario_goes_as_it_went_on_otp",
    ),
    _double(
        "a restart by hand is counted",
        Supervisor,
        "bounce",
        _count_operators,
        _TREE + "test_restarts_by_hand_cost_nothing",
    ),
    _double(
        "a failed attempt is counted twice",
        Supervisor,
        "_start_failed",
        _count_twice,
        _TREE + "test_every_failed_attempt_to_restart_costs_one",
    ),
    _double(
        "a history that outlives its supervisor",
        supervisor,
        "RestartWindow",
        _one_window,
        _TREE + "test_a_budget_does_not_survive_the_supervisors_own_restart",
    ),
    _double(
        "temporary children come back",
        supervisor,
        "is_restarted",
        _restart_all,
        _TREE + "test_a_temporary_child_never_comes_back_and_its_id_is_free",
    ),
    _double(
        "permanent children that return do not come back",
        supervisor,
        "is_restarted",
        _restart_unless_permanent,
        _TREE + "test_a_permanent_child_always_comes_back",
    ),
    _double(
        "a killed transient child does not come back",
        supervisor,
        "is_restarted",
        _restart_crashes_only,
        _TREE + "test_a_transient_child_comes_back_after_a_crash_or_a_kill_only",
    ),
    _strategy(
        "a group is stopped forward",
        _plan_forward,
        "test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order",
    ),
    _strategy(
        "temporary bystanders come back",
        _plan_temporary,
        "test_a_group_restart_stops_temporary_siblings_and_forgets_them",
    ),
    _strategy(
        "rest for one is one for all",
        _plan_everybody,
        "test_rest_for_one_leaves_those_started_earlier_alone",
    ),
    _strategy(
        "a group leaves its dead behind",
        _plan_the_living,
        "test_a_group_restart_starts_siblings_that_had_ended_or_been_stopped",
    ),
    _double(
        "a second crash is dealt with again",
        Supervisor,
        "_take",
        _take_twice,
        _TREE
        + "test_two_crashes_in_one_moment_are_one_restart_of_a_group_under_every_seed",
    ),
    _double(
        "children stop forward",
        Supervisor,
        "_stop_children",
        _stop_forward,
        _STOPS
        + "test_children_stop_in_reverse_order_each_gone_before_the_next_is_asked",
    ),
    _double(
        "dynamic children wait for each other",
        Supervisor,
        "_stop_children",
        _stop_one_after_another,
        _S + "test_dynamic.py::"
        "test_dynamic_children_are_asked_all_at_once_and_each_has_its_own_time",
    ),
    _double(
        "a terminate that only asks",
        Supervisor,
        "terminate",
        _ask_only,
        _S + "test_ref.py::test_a_terminate_returns_when_the_child_is_gone",
    ),
    _double(
        "a group that starts too early",
        Supervisor,
        "_stop_one",
        _ask_all_and_go_on,
        _TREE + "test_nobody_of_a_group_starts_before_the_last_has_ended",
    ),
    _double(
        "a deadline that comes late",
        ChildSpec,
        "shutdown_seconds",
        _twice_as_long,
        _STOPS + "test_a_child_that_overruns_its_shutdown_time_is_killed",
    ),
    _double(
        "a temporary child that keeps its id",
        Supervisor,
        "_let_go",
        _keep_for_ever,
        _TREE + "test_a_temporary_child_never_comes_back_and_its_id_is_free",
    ),
    _double(
        "a restart that was called off happens",
        Supervisor,
        "_try_again",
        _try_anyway,
        _S + "test_supervisor_failures.py::"
        "test_a_child_between_attempts_is_restarting_and_can_be_terminated",
    ),
    _double(
        "every incarnation is the first",
        Node,
        "born",
        _born_again,
        _S + "test_ref.py::test_an_incarnation_is_never_used_twice_at_one_path",
    ),
    _double(
        "stopped because it was asked to",
        Life,
        "classify",
        _by_the_wish,
        _NODE + "test_a_child_that_finishes_just_in_time_was_not_stopped",
    ),
    _double(
        "a wish to stop that stays wrapped",
        node,
        "_only_leaf",
        _no_leaf,
        _NODE
        + "test_a_child_ends_with_the_exit_that_it_raises_from_any_nursery_of_its_own",
    ),
    _double(
        "an interrupt in a group is an error",
        node,
        "interrupt_in",
        _bare_only,
        _S + "test_root.py::"
        "test_an_interrupt_out_of_a_child_stops_the_tree_in_order_and_comes_out_bare",
    ),
    _double(
        "tracebacks are collected",
        node,
        "_crashed",
        _with_its_traceback,
        _NODE + "test_raising_one_exception_object_for_ever_collects_no_tracebacks",
    ),
)
