"""Broken lives: barriers, interrupts, starts and stops that meet each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

import treewarden.supervision as face
from treewarden.errors import IntensityExceeded
from treewarden.exits import Crash, Exit, Fault, Killed, Shutdown
from treewarden.supervision import Directory, SupervisorRef, node, ref, supervisor
from treewarden.supervision.node import Life, Node, TaskBody, current_life
from treewarden.supervision.supervisor import Supervisor
from treewarden.supervision.turns import Turns

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treewarden.supervision import ChildSpec

DOUBLES: Final = Area("tests/runtime/supervision")

# --- what comes out of a child ------------------------------------------------------------


@DOUBLES.swaps(
    supervisor,
    "live",
    caught_by="test_node.py::test_whatever_a_child_raises_is_its_own_crash_and_harms_no_sibling",
)
async def no_exception_barrier(one: Node, life: Life) -> None:
    """Pitfall 14: what a child raises reaches the nursery that it shares."""
    current_life.set(life)
    with life.scope:
        returned = await one.body.run(life)
    life.exit = life.classify(returned)
    life.ended = True
    one.parent.ended(life)


@DOUBLES.swaps(
    node,
    "_interrupted",
    caught_by="test_root.py::test_an_interrupt_out_of_a_child_stops_the_tree_in_order_and_comes_out_bare",
)
def ctrl_c_is_a_crash_like_any_other(one: Node, error: BaseException) -> Exit:
    """Pitfall 17: the child is restarted, and the user presses Ctrl-C again."""
    return Crash(Fault.capture(error, path=one.path, incarnation=one.incarnation))


_crashed = node._crashed


@DOUBLES.swaps(
    node,
    "_crashed",
    caught_by="test_supervisor.py::test_a_child_that_cancels_a_scope_of_its_own_and_returns_is_normal",
)
def a_childs_timeout_is_its_supervisors(
    one: Node, life: Life, error: BaseException
) -> Exit:
    """Pitfall 35: out of time is out of time, whoever set the deadline."""
    if isinstance(error, trio.TooSlowError):
        return Killed()
    return _crashed(one, life, error)


_cleanup = node.cleanup


@DOUBLES.swaps(
    face,
    "cleanup",
    caught_by="test_node.py::test_cleanup_keeps_the_error_that_led_to_it",
)
@contextmanager
def a_clean_up_that_forgets_why() -> Iterator[None]:
    """Pitfall 29: what the clean-up raises stands in the place of the crash."""
    with _cleanup():
        yield
    raise RuntimeError("cleaned up")


_scopes: dict[int, trio.CancelScope] = {}
_born = Node.born


@DOUBLES.swaps(
    Node,
    "born",
    caught_by="test_turns.py::test_a_life_has_the_scope_of_the_last_one_unless_that_was_cancelled",
)
def one_scope_for_all_lives(
    self: Node, scope: trio.CancelScope | None = None, now: float | None = None
) -> Life:
    """Pitfall 23: trio enters a scope once, and the second incarnation crashes."""
    life = _born(self, scope, now)
    life.scope = _scopes.setdefault(id(self), life.scope)
    return life


# --- cancelled from outside ---------------------------------------------------------------


@DOUBLES.swaps(
    ref,
    "_first_failure",
    caught_by="test_root.py::test_cancelled_from_outside_the_children_stop_in_order_within_their_times",
)
def an_outer_cancellation_that_is_lost(
    host: Any, raised: BaseException | None
) -> BaseException | None:
    """Pitfall 16: the tree stops, and the timeout around it never fires."""
    if isinstance(raised, trio.Cancelled):
        return None
    error: BaseException | None = host.directory.interrupt or host.error
    return error or raised


@DOUBLES.swaps(
    ref.Host,
    "keep",
    caught_by="test_root.py::test_a_cancellation_during_the_stop_neither_hurries_nor_breaks_it",
)
async def a_tree_within_reach_of_the_outside(
    self: ref.Host, one: Node, life: Life
) -> None:
    """Pitfalls 19 and 20: no shield, so that all are cancelled in the middle of it."""
    try:
        await node.live(one, life)
    finally:
        self.ready.set()
        self.done.set()
        self.timers.cancel()
        self.body.cancel()


@DOUBLES.swaps(
    Directory,
    "hurry",
    caught_by="test_supervisor_stops.py::test_hurry_turns_the_stop_under_way_into_a_kill",
)
def a_second_signal_is_not_heard(self: Directory) -> None:
    """Pitfall 21: everything is shielded, and nothing can hurry it."""


# --- starts -------------------------------------------------------------------------------


@DOUBLES.swaps(
    Supervisor,
    "_wait_ready",
    caught_by="test_supervisor.py::test_children_start_in_list_order_each_when_the_one_before_is_ready",
)
async def spawned_is_taken_for_started(
    self: Supervisor, life: Life, seconds: float
) -> bool:
    """Pitfall 31: by now it has surely had its turn."""
    return True


_wait_ready = Supervisor._wait_ready


@DOUBLES.swaps(
    Supervisor,
    "_wait_ready",
    caught_by="test_supervisor_stops.py::test_a_stop_wins_over_a_start_that_hangs",
)
async def a_stop_waits_for_a_start(
    self: Supervisor, life: Life, seconds: float
) -> bool:
    """Pitfall 38: half a minute of it."""
    return await _wait_ready(_Deaf(self), life, min(seconds, 30.0))  # type: ignore[arg-type]


class _Deaf:
    """A supervisor that does not hear of its stop."""

    _stop_wanted = False

    def __init__(self, honest: Supervisor) -> None:
        self._wake_by = honest._wake_by


@DOUBLES.swaps(
    Supervisor,
    "_wait_ready",
    caught_by="test_supervisor.py::test_a_sibling_that_crashes_during_a_start_waits_and_the_start_goes_on",
)
async def a_siblings_crash_ends_a_start(
    self: Supervisor, life: Life, seconds: float
) -> bool:
    """Pitfall 26: whatever comes while one starts is the end of that start."""
    return await _wait_ready(_Jumpy(self), life, seconds)  # type: ignore[arg-type]


class _Jumpy:
    """A supervisor that takes all news for an order to stop."""

    def __init__(self, honest: Supervisor) -> None:
        self._honest = honest
        self._wake_by = honest._wake_by

    @property
    def _stop_wanted(self) -> bool:
        return self._honest._stop_wanted or bool(self._honest._inbox)


_wait_up = Supervisor._wait_up


@DOUBLES.swaps(
    Supervisor,
    "_wait_up",
    caught_by="test_supervisor.py::test_a_child_that_returns_before_it_is_ready_has_failed_to_start",
)
async def an_end_that_is_taken_for_a_start(
    self: Supervisor, one: Node, life: Life
) -> None:
    """Pitfall 25: who returns without a word was ready, surely."""
    await _wait_ready(self, life, one.spec.start_timeout)
    life.ready = life.ready or life.ended
    await _wait_up(self, one, life)


@DOUBLES.swaps(
    Supervisor,
    "_wait_ready",
    caught_by="test_supervisor.py::test_a_child_that_is_not_ready_in_time_is_gone_before_that_is_told",
)
async def a_start_that_may_take_for_ever(
    self: Supervisor, life: Life, seconds: float
) -> bool:
    """Pitfalls 25 and 43: who is never ready holds up all that its supervisor has to do."""
    return await _wait_ready(self, life, 86_400.0)


@DOUBLES.swaps(
    Life,
    "started",
    caught_by="test_supervisor.py::test_saying_ready_twice_is_the_childs_own_error",
)
def ready_as_often_as_one_likes(self: Life, value: object = None) -> None:
    """Pitfall 25: the second `started()` is a second child for whoever waits."""
    self.ready = True
    self.value = value
    self.node.parent.poke()


@DOUBLES.swaps(
    Turns,
    "instead",
    caught_by=(
        "test_node.py::test_children_see_the_trees_context_and_not_the_callers",
        "test_at_once.py::test_a_start_sees_nothing_of_the_context_of_whoever_asks_for_it",
    ),
)
def children_in_their_callers_context(
    self: Turns, step: Callable[..., Any], *args: Any
) -> Any:
    """Pitfall 30: a service that was started by a request belongs to it for ever."""
    return step(*args)


_post = Supervisor._post


@DOUBLES.swaps(
    Supervisor,
    "_post",
    caught_by="test_ref.py::test_during_a_slow_start_reads_are_answered_and_the_rest_waits_in_order",
)
def wishes_that_overtake_each_other(self: Supervisor, event: Any) -> None:
    """Pitfall 43: what waits for a slow start is done newest first."""
    _post(self, event)
    self._inbox.rotate(1)


# --- stops --------------------------------------------------------------------------------


@DOUBLES.swaps(
    TaskBody,
    "ask_to_stop",
    caught_by="test_root.py::test_whatever_comes_at_whatever_step_the_tree_ends_in_order_and_in_time",
)
def a_stop_before_the_first_step_is_not_heard(self: TaskBody, life: Life) -> None:
    """Pitfall 24: there is no task yet that could be told."""
    if life.scope._has_been_entered:
        life.cancel()


_start_child = Supervisor.start_child


@DOUBLES.swaps(
    Supervisor,
    "start_child",
    caught_by="test_supervisor_stops.py::test_nothing_starts_once_the_stop_has_begun",
)
async def a_start_into_a_closed_nursery(
    self: Supervisor, spec: ChildSpec
) -> Node | None:
    """Pitfall 27: what trio says is what the user gets."""
    if self._stop_wanted:
        raise RuntimeError("Nursery is closed to new arrivals")
    return await _start_child(self, spec)


@DOUBLES.swaps(
    Supervisor,
    "start_child",
    caught_by="test_supervisor_stops.py::test_nothing_starts_once_the_stop_has_begun",
)
async def a_start_that_is_accepted_and_never_happens(
    self: Supervisor, spec: ChildSpec
) -> Node | None:
    """Pitfall 39: while it stops, a supervisor says yes to everybody."""
    return None if self._stop_wanted else await _start_child(self, spec)


_lay_down = Supervisor._lay_down


@DOUBLES.swaps(
    Supervisor,
    "_lay_down",
    caught_by="test_supervisor_stops.py::test_siblings_that_end_by_themselves_during_a_stop_keep_their_own_exits",
)
def whoever_ends_during_a_stop_was_stopped(
    self: Supervisor, one: Node, life: Life
) -> None:
    """Pitfall 36: nobody looks at how it ended."""
    if self._stop_wanted and not life.killed:
        life.exit = Shutdown()
    _lay_down(self, one, life)


@DOUBLES.swaps(
    Supervisor,
    "_refuse_self",
    caught_by="test_supervisor_stops.py::test_a_child_cannot_wait_for_its_own_end",
)
def a_child_waits_for_its_own_end(self: Supervisor, about: str | None) -> None:
    """Pitfall 47: a stop from inside the tree is not refused."""


@DOUBLES.swaps(
    SupervisorRef,
    "stop",
    caught_by="test_supervisor_stops.py::test_two_stops_at_once_both_return_after_the_one_real_stop",
)
async def a_second_stop_that_raises(self: SupervisorRef) -> None:
    """Pitfall 48: whoever comes second is told that there is nobody."""
    one = self._supervisor()
    parent = one.node.parent
    assert isinstance(parent, Supervisor)
    await parent.ask(lambda: parent.terminate(one.node.id), about=one.node.id)


@DOUBLES.swaps(
    SupervisorRef,
    "_running",
    caught_by="test_managing.py::test_who_is_not_running_says_so_whatever_is_asked",
)
def a_stopped_supervisor_that_has_no_children(self: SupervisorRef) -> Supervisor:
    """MGT-02: its empty table is shown, as if it were there."""
    return self._supervisor()


# --- giving up ----------------------------------------------------------------------------

_run = Supervisor.run


@DOUBLES.swaps(
    Supervisor,
    "run",
    caught_by="test_supervisor.py::test_a_supervisor_that_gave_up_counts_as_crashed_for_its_parent",
)
async def a_supervisor_that_gives_up_quietly(
    self: Supervisor, life: Life
) -> Exit | None:
    """Pitfall 13: to its parent it was stopped, so a transient one stays dead."""
    try:
        return await _run(self, life)
    except IntensityExceeded:
        return Shutdown("gave up")


_spent = Supervisor._spent
_storms: dict[int, int] = {}


@DOUBLES.swaps(
    Supervisor,
    "_spent",
    caught_by="test_supervisor.py::test_every_failed_attempt_to_restart_costs_one",
)
def a_storm_that_hardly_ends(self: Supervisor, one: Node, cause: Any) -> Any:
    """Pitfall 7: fifty more attempts that nobody counts, each as useless as the last."""
    _storms[id(self)] = _storms.get(id(self), 0) + 1
    if _storms[id(self)] > 50:
        return _spent(self, one, cause)
    one.retry = retry = supervisor._Retry(one, cause, counted=True)
    self._post(retry)
    return None


@DOUBLES.swaps(
    Supervisor,
    "_start_failed",
    caught_by="test_supervisor_failures.py::test_a_child_between_attempts_is_restarting_and_can_be_terminated",
)
def a_supervisor_that_fails_with_its_child(
    self: Supervisor, one: Node, error: Exception
) -> None:
    """Pitfall 79: a restart that fails is the supervisor's own crash."""
    raise error


@DOUBLES.swaps(
    node,
    "_exit_by",
    caught_by="test_node.py::test_an_exception_that_cannot_be_looked_at_is_a_crash_all_the_same",
)
def a_barrier_with_a_hole(one: Node, life: Life, error: BaseException) -> Exit | None:
    """Pitfall 75: what lies about itself gets past the barrier."""
    return node._meant_by(one, life, error)


@DOUBLES.swaps(
    node,
    "as_exit",
    caught_by="test_node.py::test_what_is_no_exit_cannot_be_wished_for",
)
def whatever_is_an_exit(given: object) -> object:
    """RST-18: a child ends with whatever it likes, and its supervisor with it."""
    return given
