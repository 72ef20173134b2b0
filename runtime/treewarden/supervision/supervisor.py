"""The supervisor: one task that starts, watches, restarts and stops its children.

Theory of operation. A supervisor has one nursery for its children's tasks and one inbox.
Into the inbox go the ends of children, the wishes of others (start, terminate, restart,
delete) and retries that are due; one coroutine takes them one at a time, so that no two
decisions overlap (OTP's supervisor is a gen_server for the same reason). What to do is
planned by `strategy` and `intensity`; here it is only carried out.

The coroutine goes on in the turn of whoever has news for it (`turns`): in a dying child's
last step it decides on the restart, in a new child's first it hears that it is ready. It
awaits nothing but `news()`. A child that is restarted at once keeps its task; and what
starts without waiting, as most agents do, is up when that turn ends. While the coroutine
waits for whatever comes next, whoever ends (`ended`) or asks for a start (`start_child`)
takes the step in its place, by a plain call. Mostly that is all there is to do; what is
left to be awaited, the coroutine sees through before it does another thing.

Nothing can cancel a supervisor's task: the whole tree stands behind the root's shield, and
a stop is a message. So the order of stopping holds also when the program around the tree
is cancelled (spec TA-5). While it waits for a child to start or to end, it looks up again
whenever it is poked: a stop wins over a start that hangs.
"""

from __future__ import annotations

import math
from collections import deque
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from treewarden.clock import wall_ns
from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    CallingSelf,
    ChildStartFailed,
    IntensityExceeded,
    NotRunning,
    RestoreError,
    ShuttingDown,
    StartTimeout,
    TooManyChildren,
    UnknownChild,
)
from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.injection import places

from .cause import (
    Cause,
    CauseKind,
    cause_of,
    failed_start,
    for_others,
    taking_down,
)
from .intensity import RestartWindow
from .node import (
    IGNORE,
    BegunInItsTask,
    Kind,
    Life,
    Node,
    NodeState,
    ResourceBody,
    TaskBody,
    begin,
    current_life,
    live,
)
from .process import ProcessBody
from .remembered import Recalled, Remembered, remembered_by, row_of
from .spec import (
    ChildSpec,
    DynamicSupervisorSpec,
    Isolation,
    Start,
    SupervisorSpec,
    classify,
    says_ready,
)
from .strategy import (
    AutoShutdown,
    Member,
    Restart,
    Strategy,
    is_finished,
    is_restarted,
    plan_restart,
)
from .turns import Turns, news
from .whereabouts import whereabouts
from .wish import Wish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from contextvars import Context

    from treewarden.resilience import Backoff

    from .timers import Timer
    from .tree import Directory

# What of a step is left to be awaited: mostly nothing. It ends with why to give up.
_Left: TypeAlias = "Coroutine[Any, Any, Exception | None] | None"

# After this long beyond its shutdown time a killed child is reported as stuck, then at
# twice the interval each time, up to the last.
_STUCK_FIRST = 1.0
_STUCK_LAST = 60.0
# After so many starts in one turn the next is left to the child's task: others run first.
_IN_ONE_TURN = 128


class _Retry:
    """An attempt to restart a node; `counted` once its budget was asked."""

    __slots__ = ("cause", "counted", "node")

    def __init__(self, node: Node, cause: Cause, *, counted: bool) -> None:
        self.node = node
        self.cause = cause
        self.counted = counted


class Supervisor(BegunInItsTask):
    """A supervisor node's body."""

    kind = Kind.SUPERVISOR

    def __init__(
        self,
        node: Node,
        spec: SupervisorSpec | DynamicSupervisorSpec,
        directory: Directory,
    ) -> None:
        self.node = node
        self.path = node.path
        self.directory = directory
        self.spec = spec
        self.dynamic = isinstance(spec, DynamicSupervisorSpec)
        self.strategy = (
            Strategy.ONE_FOR_ONE
            if isinstance(spec, DynamicSupervisorSpec)
            else Strategy(spec.strategy)
        )
        self.children: dict[str, Node] = {}
        # Children to be made anew at their next start: `reconfigure` changed them.
        self._changed: set[str] = set()
        self.remembered = remembered_by(spec, directory.memory, node.path)
        self._recalled: list[Recalled] = []
        self._recalling = trio.CancelScope()
        self.window = RestartWindow(spec.intensity)
        self._inbox: deque[Life | Wish | _Retry] = deque()
        self._turns = Turns()
        # Whose end is told in this very turn, and the life that its task goes on with.
        self._ending: Life | None = None
        # When that was, on trio's clock, for as long as nothing is waited for.
        self._now: float | None = None
        self._heir: tuple[Life, Context] | None = None
        self._nursery: trio.Nursery | None = None
        self._stop_wanted = False
        self._killing = False
        self._injected: Fault | None = None
        self._exit = Shutdown()
        self._order = 0
        # Whether it waits for whatever comes next, and for nothing in particular; and what
        # somebody has begun meanwhile, to be seen through before all else.
        self._is_at_rest = False
        self._half_done: _Left = None
        # Starts in this turn.
        self._begun = 0
        self._alarm: Timer | None = None

    # --- as a parent -----------------------------------------------------------------------

    def poke(self) -> None:
        """Have it look at what it waits for, now, in the caller's turn."""
        self._turns.poke()

    def ended(self, life: Life) -> tuple[Life, Context] | None:
        """A child's life is over: dealt with here and now, unless something else is."""
        self._ending = life
        if self._is_free:
            self._end_at_once(life)
        else:
            self._await_turn(life)
        self._ending = None
        heir, self._heir = self._heir, None
        return heir

    def _await_turn(self, life: Life) -> None:
        """Something else is in hand, which may take long: nobody shall see it as running."""
        node = life.node
        if node.state in (NodeState.RUNNING, NodeState.SUSPENDED):
            back = not self._stop_wanted and self._comes_back(
                life, life.exit or Normal()
            )
            self._set(node, NodeState.RESTARTING if back else NodeState.STOPPING)
        self._post(life)

    def failing(self, life: Life) -> None:
        """A child was told to crash; it has its shutdown time for that, as for a stop."""
        seconds = life.node.spec.shutdown_seconds()
        if seconds < math.inf and life.timer is None:
            life.deadline = trio.current_time() + seconds
            life.timer = self._at(life.deadline, partial(self._cut_off, life.node))

    @property
    def _is_free(self) -> bool:
        """Whether a step may be taken in its place: it waits, and nothing else has come."""
        return (
            self._is_at_rest
            and not self._inbox
            and not self._stop_wanted
            and self._injected is None
        )

    def _end_at_once(self, life: Life) -> None:
        self._begun = 0
        self._now = trio.current_time()
        try:
            self._half_done = self._turns.instead(self._child_ended, life)
        except Exception as error:  # noqa: BLE001 - the supervisor's failure, not the child's
            self._half_done = _given_up(error)
        self._now = None
        if self._half_done is not None or self._inbox or self._stop_wanted:
            self.poke()

    def _post(self, event: Life | Wish | _Retry) -> None:
        self._inbox.append(event)
        self.poke()

    # --- as a body -------------------------------------------------------------------------

    def ask_to_stop(self, life: Life) -> None:
        """Stop the children in reverse order, then end."""
        life.stopping = self._stop_wanted = True
        self._recalling.cancel()
        self._turns.poke_soon()

    def kill(self, life: Life) -> None:
        """Kill the children, then end."""
        life.killed = self._killing = True
        self.ask_to_stop(life)
        for child in self.children.values():
            self._cut_off(child)

    def crash(self, fault: Fault) -> None:
        """Stop the children in order and end as if crashed with `fault`."""
        self._injected = fault
        self._turns.poke_soon()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Its children went before it."""

    async def run(self, life: Life) -> Exit | None:
        """One incarnation, with the children of the specification, or the remembered.

        Raises:
            ChildStartFailed: a child did not start; those before it were stopped.
            IntensityExceeded: the budget is spent; all children were stopped.
            StoreError: what is remembered cannot be read.
        """
        self.window = RestartWindow(self.spec.intensity)
        self._inbox.clear()
        self._stop_wanted = life.stopping
        self._killing = life.killed
        self._injected = None
        self._exit = Shutdown()
        self._is_at_rest = False
        if self.remembered is not None:
            await self._recall(self.remembered)
        try:
            async with trio.open_nursery() as self._nursery:
                failure = await self._turns.run(self._lifetime(life))
        finally:
            self._nursery = None
        # Raised out here, so that the nursery does not wrap it in a group.
        if isinstance(failure, Fault):
            return Crash(failure)
        if failure is not None:
            raise failure
        return Killed() if life.killed else self._exit

    async def _lifetime(self, life: Life) -> Exception | Fault | None:
        failure: Exception | Fault | None = None
        try:
            await self._start_all()
            await self._own_turn()
            if not self._stop_wanted:
                life.started(None)
                failure = await self._serve()
        except Exception as error:  # noqa: BLE001 - raised bare when the children are gone
            failure = error
        finally:
            self._stop_wanted = True
            self._refuse_waiting()
            await self._stop_children()
        return failure

    async def _own_turn(self) -> None:
        """Go on in the task of its own.

        A child became ready in this very turn, and so may have one of that child's. If
        whoever stands above were told in it too, a tree of 160 levels would be too deep
        for Python's stack.
        """
        if self._turns.is_borrowed:
            self._turns.poke_soon()
            await news()

    async def _start_all(self) -> None:
        if isinstance(self.spec, SupervisorSpec):
            for spec in self.spec.children:
                if self._stop_wanted:
                    return
                node = self._keep(spec)
                if self.node.cause is not None:
                    # Not a first start: the whole supervisor was restarted.
                    node.cause = for_others(self.node.cause)
                try:
                    await self._start(node)
                except ShuttingDown:
                    return
                except ChildStartFailed as error:
                    if not self._is_quarantined(error):
                        raise
                    self._quarantine(node, error)
                else:
                    self._report_started(node)
        recalled, self._recalled = self._recalled, []
        for child in recalled:
            await self._start_recalled(child)

    async def _recall(self, remembered: Remembered) -> None:
        self._recalled = []
        with trio.CancelScope() as self._recalling:
            if not self._stop_wanted:
                self._recalled = await remembered.recall()

    async def _start_recalled(self, recalled: Recalled) -> None:
        if self._stop_wanted:
            return
        node = self._keep(recalled.spec)
        if recalled.fault is not None:
            self._give_up_recalled(node, recalled.fault)
            return
        if self.node.cause is not None:
            node.cause = for_others(self.node.cause)
        try:
            await self._start(node)
        except ShuttingDown:
            return
        except ChildStartFailed as error:
            # One of many: it is tried again within its budget, the others start.
            if self._is_quarantined(error):
                self._quarantine(node, error)
            else:
                self._start_failed(node, error)
        else:
            self._report_started(node)

    def _give_up_recalled(self, node: Node, fault: Fault) -> None:
        node.last_exit = Crash(fault)
        self._rest(node, node.last_exit, NodeState.FAILED)
        self.directory.report(
            "supervision.start_failed",
            node,
            exit_=node.last_exit,
            detail=f"it is remembered, but {fault.summary()}",
        )

    async def _serve(self) -> Exception | Fault | None:
        while not self._stop_wanted:
            if self._injected is not None:
                return self._injected
            if not self._inbox:
                self._begun = 0
                self._is_at_rest = True
                await news()
                self._is_at_rest = False
                left, self._half_done = self._half_done, None
            else:
                left = self._take(self._inbox.popleft())
            failure = await left if left is not None else None
            if failure is not None:
                return failure
        return None

    def _take(self, event: Life | Wish | _Retry) -> _Left:
        if isinstance(event, Life):
            return None if event.consumed else self._child_ended(event)
        if isinstance(event, Wish):
            return event.carry_out()
        return self._try_again(event)

    # --- children: keep, start, stop, forget --------------------------------------------

    def _keep(self, spec: ChildSpec) -> Node:
        self._order += 1
        path = self.directory.path_below(self.path, spec.id)
        node = Node(spec, path, self, self._order)
        node.body = _make_body(node, self.directory)
        node.budget = spec.intensity
        if node.budget is None and isinstance(self.spec, DynamicSupervisorSpec):
            node.budget = self.spec.child_intensity
        self.children[spec.id] = node
        self.directory.add(node)
        return node

    def _forget(self, node: Node, exit_: Exit) -> None:
        node.retry = None
        node.state = NodeState.STOPPED
        self.children.pop(node.id, None)
        self._changed.discard(node.id)
        self.directory.remove(node)
        # What ends with the tree, or with its supervisor, is there again next time.
        ending = self._stop_wanted or self.directory.interrupt is not None
        if self.remembered is not None and not ending:
            self.remembered.drop(node.id)
        node.body.at_rest(exit_, gone=True)

    def _rest(self, node: Node, exit_: Exit, state: NodeState) -> None:
        node.retry = None
        self._set(node, state)
        node.body.at_rest(exit_, gone=False)

    def _let_go(self, node: Node, exit_: Exit) -> None:
        """It runs no more: a temporary or dynamic child is forgotten, another kept."""
        if self.dynamic or node.spec.restart == Restart.TEMPORARY:
            self._forget(node, exit_)
        else:
            self._rest(node, exit_, NodeState.STOPPED)

    def _set(self, node: Node, state: NodeState) -> None:
        node.state = state
        self.directory.touch()

    def _at(self, deadline: float, callback: Callable[[], None]) -> Timer:
        return self.directory.timers.at(deadline, callback)

    async def _start(self, node: Node, launched: Life | None = None) -> None:
        """Start it and wait until it is ready; `launched`: the life is begun already.

        Raises:
            ChildStartFailed, StartTimeout: the task is gone when this is raised.
            ShuttingDown: a stop came first.
        """
        life = launched or self._launch(node)
        if not life.is_up:
            # Most are: no coroutine for those.
            await self._wait_up(node, life)

    def _launch(self, node: Node) -> Life:
        """Begin its next life, which may be up by then."""
        if self._changed:
            self._make_changed(node)
        if places.CHILD_START.armed is not None:
            places.CHILD_START.reach()
        node.state = NodeState.STARTING
        life = self._begin(node)
        if life.is_up:
            node.state = NodeState.RUNNING
        self.directory.touch()
        return life

    async def _wait_up(self, node: Node, life: Life) -> None:
        in_time = await self._wait_ready(life, node.spec.start_timeout)
        if life.ready:
            if life.value is IGNORE:
                await self._ignored(node, life)
            elif not life.ended:
                self._set(node, NodeState.RUNNING)
            return
        await self._end(node)
        self._lay_down(node, life)
        error, life.error = life.error, None
        if not in_time:
            raise StartTimeout(node.path, node.spec.start_timeout)
        if life.stopping and self._stop_wanted:
            raise ShuttingDown(f"{self.path} is stopping; {node.path} was not started")
        raise _start_failure(node, life) from error

    def _begin(self, node: Node) -> Life:
        """A new life, as far as it waits for nothing already begun.

        It has the task of the last one if that ends in this very turn.
        """
        context, scope = copy_context(), None
        last = self._ending
        if last is not None and last.node is not node:
            last = None
        if last is not None and not last.cancelled:
            scope = last.scope
        life = node.born(scope, self._now)
        self._begun += 1
        if self._begun < _IN_ONE_TURN:
            context.run(begin, node, life)
        if life.ended:
            return life
        if last is not None:
            self._ending = None
            self._heir = life, context
        else:
            nursery = cast("trio.Nursery", self._nursery)
            spawn: Callable[..., None] = nursery.start_soon
            context.run(spawn, live, node, life, name=node.path)
        return life

    async def _wait_ready(self, life: Life, seconds: float) -> bool:
        """Until it is ready, over or unwanted; False when it was none of them in time."""
        deadline = trio.current_time() + seconds
        while not (life.ready or life.ended or self._stop_wanted):
            if trio.current_time() >= deadline:
                return False
            self._wake_by(deadline)
            self._begun = 0
            await news()
        return True

    def _wake_by(self, deadline: float) -> None:
        """Be poked at `deadline` at the latest.

        Nearly every start is ready at once. An alarm that an earlier one left behind does
        as well: it goes off too early, and whoever waits then asks for another.
        """
        alarm = self._alarm
        if alarm is None or alarm.callback is None or alarm.deadline > deadline:
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._at(deadline, self.poke)

    async def _ignored(self, node: Node, life: Life) -> None:
        await self._end(node)
        self._lay_down(node, life)
        self._let_go(node, Normal())

    def _lay_down(self, node: Node, life: Life) -> None:
        """The life is over and dealt with."""
        life.consumed = True
        if life.timer is not None:
            life.timer.cancel()
            life.timer = None
        node.last_exit = life.exit
        node.rolled_back = life.rolled_back
        if node.life is life:
            node.life = None

    async def _end(self, node: Node) -> None:
        """Ask, wait, cut off at the deadline, and wait on: nobody is abandoned."""
        self._ask(node)
        await self._gone(node)

    def _ask(self, node: Node) -> None:
        life = node.life
        if life is None or life.ended or life.stopping:
            return
        seconds = node.spec.shutdown_seconds()
        if seconds == 0 or self._killing or self.directory.hurried:
            self._cut_off(node)
            return
        places.CHILD_STOP.reach()
        life.stopping = True
        if self._inbox and not self._stop_wanted:
            self._refuse_wishes_of(node)
        life.deadline = min(life.deadline, trio.current_time() + seconds)
        self._set(node, NodeState.STOPPING)
        node.body.ask_to_stop(life)
        if seconds < math.inf and life.timer is None:
            life.timer = self._at(life.deadline, partial(self._cut_off, node))

    async def _gone(self, node: Node) -> None:
        life = node.life
        while life is not None and not life.ended:
            await news()

    def _cut_off(self, node: Node) -> None:
        life = node.life
        if life is None or life.ended or life.killed:
            return
        life.stopping = True
        self._set(node, NodeState.STOPPING)
        node.body.kill(life)
        if life.timer is not None:
            life.timer.cancel()
        self._watch(node, life, _STUCK_FIRST)

    def _watch(self, node: Node, life: Life, seconds: float) -> None:
        life.timer = self._at(
            trio.current_time() + seconds, partial(self._stuck, node, life, seconds)
        )

    def _stuck(self, node: Node, life: Life, seconds: float) -> None:
        if not life.ended:
            self._set(node, NodeState.STUCK)
            tasks = self._nursery.child_tasks if self._nursery is not None else ()
            where = whereabouts(life, tasks) or "what it started does not"
            self.directory.report(
                "supervision.stuck",
                node,
                detail=f"it does not end, though cancelled: {where}",
            )
            self._watch(node, life, min(seconds * 2, _STUCK_LAST))

    async def _stop_children(self) -> None:
        nodes = list(reversed(self.children.values()))
        if self.dynamic:
            # Dynamic children do not depend on each other: all are asked at once.
            for node in nodes:
                self._ask(node)
        for node in nodes:
            await self._stop_one(node)
            self._forget(node, node.last_exit or Shutdown())

    async def _stop_one(self, node: Node) -> None:
        """Stop it if it runs, and report how it went."""
        node.retry = None
        life = node.life
        if life is not None:
            await self._end(node)
            self._lay_down(node, life)
            self._report_exit(node, life, trio.current_time())

    def window_of(self, node: Node) -> RestartWindow:
        """What a restart of this child counts against: its own budget, or everybody's."""
        if node.budget is None:
            return self.window
        if node.window is None:
            node.window = RestartWindow(node.budget)
        return node.window

    # --- when a child has ended ----------------------------------------------------------

    def _child_ended(self, life: Life) -> _Left:
        """Decide what follows, and do it as far as it waits for nothing."""
        node, exit_ = life.node, life.exit
        assert exit_ is not None  # noqa: S101 - it is set before anybody is told
        if places.CHILD_ENDED.armed is not None:
            places.CHILD_ENDED.reach()
        now = self._now if self._now is not None else trio.current_time()
        self._lay_down(node, life)
        self._report_exit(node, life, now)
        if not self._comes_back(life, exit_):
            self._let_go(node, exit_)
            self._gone_for_good(node)
            return None
        cause = cause_of(life, exit_)
        self._set(node, NodeState.RESTARTING)
        if life.rolled_back:
            # A failed commit is nobody's crash: alone, at once, and not counted.
            return self._start_alone(node, cause)
        if life.uncounted:
            # The same message again: how often it may, its mailbox decides.
            return self._restart_group(node, cause)
        return self._restart(node, cause, now)

    def _comes_back(self, life: Life, exit_: Exit) -> bool:
        if self.directory.interrupt is not None:
            # Everything is about to stop, and this may be the child it came out of.
            return False
        restart = life.node.spec.restart
        return (
            restart == Restart.PERMANENT
            or life.rolled_back
            or is_restarted(Restart(restart), exit_)
        )

    def _gone_for_good(self, node: Node) -> None:
        """It ended by itself and does not come back: perhaps that was all there was to do."""
        if not node.spec.significant or not isinstance(self.spec, SupervisorSpec):
            return
        others = any(
            child.spec.significant and (child.running or child.retry is not None)
            for child in self.children.values()
        )
        if is_finished(AutoShutdown(self.spec.auto_shutdown), others=others):
            self._exit = Shutdown(f"significant child {node.id} ended")
            self._stop_wanted = True

    def _restart(self, node: Node, cause: Cause, now: float) -> _Left:
        if places.CHILD_RESTART.armed is not None:
            places.CHILD_RESTART.reach()
        backoff = node.spec.backoff
        if backoff is not None:
            _count_attempt(node, now, backoff)
        if not self.window_of(node).admit(now, node.id):
            error = self._spent(node, cause)
            return _given_up(error) if error is not None else None
        if backoff is None:
            return self._restart_group(node, cause)
        node.retry = retry = _Retry(node, cause, counted=True)
        self._at(
            now + backoff.delay(node.attempts, self.directory.random.random),
            partial(self._post, retry),
        )
        return None

    def _try_again(self, retry: _Retry) -> _Left:
        node = retry.node
        if node.retry is not retry:
            return None
        node.retry = None
        if retry.cause.kind is CauseKind.ROLLBACK:
            # A commit failed under its start: alone and not counted, as in _child_ended.
            return self._start_alone(node, retry.cause)
        if retry.counted:
            return self._restart_group(node, retry.cause)
        return self._restart(node, retry.cause, trio.current_time())

    def _spent(self, node: Node, cause: Cause) -> Exception | None:
        """The budget is spent: the child's own, or the supervisor's."""
        fault = cause.exit.fault if isinstance(cause.exit, Crash) else None
        if node.budget is not None:
            self._rest(node, cause.exit, NodeState.FAILED)
            self.directory.report(
                "supervision.failed",
                node,
                exit_=cause.exit,
                cause=cause,
                budget=_budget(self.window_of(node), trio.current_time()),
            )
            self._gone_for_good(node)
            return None
        names = self.window.children()
        hint = ""
        if fault is None and isinstance(cause.exit, Normal):
            hint = 'it only ever returned; restart="temporary" is for jobs that end'
        error = IntensityExceeded(self.path, names, fault, hint)
        self._set(node, NodeState.FAILED)
        self.directory.report(
            "supervision.gave_up",
            self.node,
            exit_=cause.exit,
            detail=str(error),
            budget=_budget(self.window, trio.current_time()),
        )
        return error

    def _restart_group(self, node: Node, cause: Cause) -> _Left:
        if self.strategy is Strategy.ONE_FOR_ONE:
            return self._start_alone(node, cause)
        return self._restart_several(node, cause)

    def _start_alone(self, node: Node, cause: Cause) -> _Left:
        """As `_start_again` does with a group of one: nearly all restarts are that."""
        node.cause = cause
        life = self._launch(node)
        if node.state is not NodeState.RUNNING:
            return self._start_again(node, (node,), cause, life)
        node.restarts += 1
        self._report_restarted(node)
        return None

    async def _restart_several(self, node: Node, cause: Cause) -> Exception | None:
        members = [
            Member(
                id=child.id,
                restart=Restart(child.spec.restart),
                running=child.running,
            )
            for child in self.children.values()
        ]
        plan = plan_restart(self.strategy, members, node.id)
        for id_ in plan.stops:
            await self._stop_one(self.children[id_])
        for id_ in plan.forgets:
            child = self.children[id_]
            self._forget(child, child.last_exit or Shutdown())
        group = tuple(self.children[id_] for id_ in plan.starts)
        for child in group:
            child.retry = None
            self._set(child, NodeState.STOPPED)
        took_down = tuple(n.path for n in group if n is not node)
        return await self._start_again(node, group, taking_down(cause, took_down))

    async def _start_again(
        self,
        origin: Node,
        group: Sequence[Node],
        cause: Cause,
        launched: Life | None = None,
    ) -> Exception | None:
        """Start a group in order; `launched` is the life of its first, if that has one."""
        for node in group:
            if self._stop_wanted and launched is None:
                return None
            node.cause = cause if node is origin else for_others(cause)
            try:
                await self._start(node, launched)
            except ShuttingDown:
                return None
            except ChildStartFailed as error:
                if self._is_quarantined(error):
                    self._quarantine(node, error)
                    return None
                self._start_failed(node, error)
                return error if _is_unreadable(error) else None
            launched = None
            node.restarts += 1
            self._report_restarted(node)
        return None

    def _start_failed(self, node: Node, error: ChildStartFailed) -> None:
        # Tried again after whatever waits in the inbox: a stop, a terminate. With the
        # child that failed, as OTP does: one_for_all begins with its first child again,
        # rest_for_one goes on from here.
        exit_ = node.last_exit or Shutdown()
        self.directory.report(
            "supervision.start_failed", node, exit_=exit_, detail=str(error)
        )
        if error.__cause__ is not None:
            # Nobody raises it: one that is raised again must not collect tracebacks.
            error.__cause__.__traceback__ = None
        self._set(node, NodeState.RESTARTING)
        retry = _Retry(node, failed_start(node, exit_), counted=False)
        node.retry = retry
        self._post(retry)

    def _is_quarantined(self, error: ChildStartFailed) -> bool:
        # Who stands in a group stands or falls with it: then the supervisor does not
        # start, and is quarantined in its turn where it stands alone.
        return self.strategy is Strategy.ONE_FOR_ONE and _is_unreadable(error)

    def _quarantine(self, node: Node, error: ChildStartFailed) -> None:
        """It stays down, kept whatever its restart type, until somebody mends its state.

        Not tried again, for what is stored would be the same, and no budget is asked.
        """
        exit_ = node.last_exit or Shutdown()
        self._rest(node, exit_, NodeState.FAILED)
        self.directory.report(
            "supervision.start_failed",
            node,
            exit_=exit_,
            detail=f"{error}; it stays down until its state is mended and it is restarted",
        )

    # --- reports ---------------------------------------------------------------------------

    def _report_started(self, node: Node) -> None:
        if node.running:
            self.directory.report("supervision.started", node)

    def _report_restarted(self, node: Node) -> None:
        if node.running:
            self.directory.report(
                "supervision.restarted",
                node,
                cause=node.cause,
                exit_=node.last_exit,
                budget=_budget(self.window_of(node), node.started_at or 0.0),
            )

    def _report_exit(self, node: Node, life: Life, now: float) -> None:
        crashed = isinstance(life.exit, Crash)
        self.directory.report(
            "supervision.exited",
            node,
            exit_=life.exit,
            stopping=life.stopping,
            budget=_budget(self.window_of(node), now) if crashed else None,
        )

    # --- wishes ----------------------------------------------------------------------------

    async def ask(
        self, run: Callable[[], Awaitable[Any]], *, about: str | None = None
    ) -> Any:  # noqa: ANN401 - each wish has its own answer
        """Have `run` executed by the supervisor's task, in its turn.

        A cancelled caller does not cancel what it asked for. `about` is the child that
        it concerns.

        Raises:
            NotRunning, ShuttingDown, CallingSelf: it would never be executed.
        """
        await checkpoint_if_cancelled()
        wish = Wish(run, self._refuse(about))
        self._post(wish)
        return await wish.wait()

    async def start_child(self, spec: ChildSpec) -> Node | None:
        """Have a child added, as `ask` for `add` does, but by the caller if that is free.

        A child that is up when it has been begun costs no pass of the loop; every 32nd
        gives way to other tasks. What else there is to wait for, the supervisor waits for,
        before it does another thing.

        Raises:
            What `ask` and `add` do.
        """
        await checkpoint_if_cancelled()
        asker = self._refuse(None)
        if self._is_free and self.remembered is None:
            try:
                node, life = self._turns.instead(self._add_at_once, spec)
            except Exception:
                # Whoever tries again and again lets others run.
                await cancel_shielded_checkpoint()
                raise
            if life.is_up:
                if self._inbox:
                    self.poke()
                if next(self.directory.gives_way):
                    await cancel_shielded_checkpoint()
                return node
            wish = Wish(partial(self._come_up, node, life))
            self._half_done = wish.carry_out()
            self.poke()
        else:
            wish = Wish(partial(self.add, spec), asker)
            self._post(wish)
        added: Node | None = await wish.wait()
        return added

    def _add_at_once(self, spec: ChildSpec) -> tuple[Node, Life]:
        # One start, in a turn of somebody else's.
        self._begun = 0
        node = self._admit(spec)
        life = self._launch(node)
        if life.is_up:
            self._report_started(node)
        return node, life

    def add_soon(self, spec: ChildSpec) -> None:
        """Start a child when its turn comes; nobody waits, or hears why it was not."""
        self._post(Wish(partial(self.add, spec)))

    def _refuse(self, about: str | None) -> Node | None:
        """Say that it would never be executed; or which child is asking, if one is."""
        asker = self._refuse_self(about)
        if self._nursery is None:
            raise NotRunning(f"supervisor {self.path} is not running")
        if self._stop_wanted:
            raise ShuttingDown(f"{self.path} is stopping")
        return asker

    def _refuse_self(self, about: str | None) -> Node | None:
        child = self.child_of_caller()
        life = child.life if child is not None else None
        if child is None or life is None:
            return None
        if life.stopping:
            raise self._too_late(child)
        if not life.ready:
            raise CallingSelf(
                f"{child.path} asks {self.path}, which waits for it to start"
            )
        if about == child.id:
            raise CallingSelf(f"{child.path} would wait for its own end")
        return child

    def _too_late(self, child: Node) -> ShuttingDown:
        return ShuttingDown(f"{child.path} is being stopped, and asks {self.path}")

    def _refuse_wishes_of(self, node: Node) -> None:
        """Who is to stop first would else wait for an answer that comes after that."""
        for event in self._inbox:
            if isinstance(event, Wish) and event.asker is node:
                event.refuse(self._too_late(node))

    def child_of_caller(self) -> Node | None:
        """The child of this supervisor that the running task is part of."""
        life = current_life.get()
        node = life.node if life is not None else None
        while node is not None and node.path != "/":
            if node.parent is self:
                return node
            parent = node.parent
            node = parent.node if isinstance(parent, Supervisor) else None
        return None

    def _refuse_waiting(self) -> None:
        for event in self._inbox:
            if isinstance(event, Wish):
                event.refuse(ShuttingDown(f"{self.path} is stopping"))

    async def add(self, spec: ChildSpec) -> Node | None:
        """Start a new child (run through `ask`); None when it ignored its start."""
        row = row_of(spec) if self.remembered is not None else b""
        node = self._admit(spec)
        if await self._come_up(node, self._launch(node)) is None:
            return None
        if self.remembered is not None:
            self.remembered.keep(spec.id, row)
        return node

    def _admit(self, spec: ChildSpec) -> Node:
        """Keep a new child, or say why not."""
        self.spec.check_child(spec)
        present = self.children.get(spec.id)
        if present is not None and self.dynamic and present.state is NodeState.FAILED:
            self._forget(present, present.last_exit or Shutdown())
            present = None
        if present is not None:
            if present.running:
                raise AlreadyStarted(present.path)
            raise AlreadyPresent(present.path)
        if (
            isinstance(self.spec, DynamicSupervisorSpec)
            and len(self.children) >= self.spec.max_children
        ):
            raise TooManyChildren(self.path, self.spec.max_children)
        return self._keep(spec)

    async def _come_up(self, node: Node, life: Life) -> Node | None:
        """Wait for a new child; None when it ignored its start and is not kept."""
        try:
            if not life.is_up:
                await self._wait_up(node, life)
        except (ChildStartFailed, ShuttingDown):
            self._forget(node, node.last_exit or Shutdown())
            raise
        self._report_started(node)
        return node if node.id in self.children else None

    async def terminate(self, id_: str) -> None:
        """Stop a child; its specification stays, but a temporary or dynamic one goes."""
        remembered = self.remembered
        if remembered is None or not remembered.owes(id_):
            node = self._find(id_)
            await self._stop_one(node)
            self._let_go(node, node.last_exit or Shutdown())
        if remembered is not None:
            # Also when a stop of everything came meanwhile: it was to go for good.
            remembered.drop(id_)

    async def revive(self, id_: str) -> Node:
        """Start a child that does not run."""
        node = self._find(id_)
        if node.running or node.retry is not None:
            raise AlreadyStarted(node.path)
        await self._start_by_hand(node)
        self._report_started(node)
        return node

    async def bounce(self, id_: str, by: str) -> Node:
        """Stop a child if it runs and start it: an operator's restart, not counted."""
        node = self._find(id_)
        await self._stop_one(node)
        self._set(node, NodeState.RESTARTING)
        node.cause = Cause(
            kind=CauseKind.OPERATOR,
            origin=node.path,
            exit=node.last_exit or Shutdown(),
            at_ns=wall_ns(),
            by=by,
        )
        await self._start_by_hand(node)
        node.restarts += 1
        self._report_restarted(node)
        return node

    async def _start_by_hand(self, node: Node) -> None:
        # Not tried again by itself: whoever asked is told, and can ask again.
        try:
            await self._start(node)
        except ChildStartFailed as error:
            if self._is_quarantined(error):
                self._quarantine(node, error)
                raise
            exit_ = node.last_exit or Shutdown()
            self.directory.report(
                "supervision.start_failed", node, exit_=exit_, detail=str(error)
            )
            if node.spec.restart == Restart.TEMPORARY:
                self._forget(node, exit_)
            else:
                state = NodeState.FAILED if self.dynamic else NodeState.STOPPED
                self._rest(node, exit_, state)
            raise

    async def delete(self, id_: str) -> None:
        """Forget a child that does not run."""
        node = self._find(id_)
        if node.running or node.retry is not None:
            raise AlreadyStarted(node.path)
        self._forget(node, node.last_exit or Shutdown())

    async def reconfigure(self, spec: SupervisorSpec | DynamicSupervisorSpec) -> None:
        """Go by another specification from now on; a wrong one changes nothing."""
        listed = spec.children if isinstance(spec, SupervisorSpec) else ()
        self._refuse_change(spec, {child.id for child in listed})
        others = [child for child in listed if child.id in self.children]
        changed = [one for one in others if one != self.children[one.id].spec]
        self.spec = spec
        self.node.spec = replace(self.node.spec, start=spec)
        self.window.change(spec.intensity)
        if isinstance(spec, SupervisorSpec):
            self.strategy = Strategy(spec.strategy)
        for child in changed:
            self._change(self.children[child.id], child)
        for child in listed:
            if child.id not in self.children:
                self._keep(child)
        self._line_up([child.id for child in listed])

    def _refuse_change(
        self, spec: SupervisorSpec | DynamicSupervisorSpec, listed: set[str]
    ) -> None:
        if type(spec) is not type(self.spec):
            raise TypeError(
                f"{self.path} is made from a {type(self.spec).__name__}, not from {spec!r}"
            )
        remember = isinstance(spec, DynamicSupervisorSpec) and spec.remember
        if remember is not (self.remembered is not None):
            raise ValueError(f"{self.path}: remember cannot be changed while it runs")
        for node in self.children.values():
            if node.id not in listed:
                spec.check_child(node.spec)

    def _change(self, node: Node, spec: ChildSpec) -> None:
        before, node.spec = node.spec, spec
        if _made_from(before) != _made_from(spec):
            self._changed.add(node.id)
        if before.intensity != spec.intensity:
            node.budget, node.window = spec.intensity, None

    def _make_changed(self, node: Node) -> None:
        if node.id in self._changed:
            self._changed.discard(node.id)
            before, node.body = node.body, _make_body(node, self.directory)
            before.at_rest(node.last_exit or Shutdown(), gone=True)

    def _line_up(self, first: Sequence[str]) -> None:
        """Start order: as the specification lists them, then the others as before."""
        listed = set(first)
        others = [id_ for id_ in self.children if id_ not in listed]
        for order, id_ in enumerate([*first, *others], 1):
            node = self.children[id_] = self.children.pop(id_)
            node.order = order
        self._order = len(self.children)
        self.directory.touch()

    async def written(self, id_: str) -> None:
        """Wait until what is remembered of a child is on the disk.

        Raises:
            StoreError: it could not be written.
        """
        if self.remembered is not None:
            await self.remembered.written(id_)

    def _find(self, id_: str) -> Node:
        node = self.children.get(id_)
        if node is None:
            raise UnknownChild(self.path, id_)
        return node


def _budget(window: RestartWindow, now: float) -> tuple[int, int, float]:
    """Restarts that count at `now`, the limit and the period."""
    budget = window.budget
    return window.spent(now), budget.limit, budget.period


async def _given_up(error: Exception) -> Exception:
    return error


def _made_from(spec: ChildSpec) -> tuple[object, ...]:
    return spec.start, spec.args, spec.kwargs, spec.isolation


# Shared by all that have none, and changed by nobody: a dict each is 64 bytes a child.
_NO_ARGUMENTS: Final[dict[str, object]] = {}


def _make_body(node: Node, directory: Directory) -> Any:  # noqa: ANN401 - a Body
    spec = node.spec
    if spec.isolation == Isolation.PROCESS:
        return ProcessBody(spec)
    start: Any = spec.start
    args = tuple(spec.args)
    kwargs = dict(spec.kwargs) if spec.kwargs else _NO_ARGUMENTS
    match classify(spec.id, start):
        case Start.AGENT:
            return start.make_body(node, directory, args, kwargs)
        case Start.SUPERVISOR:
            return Supervisor(node, start, directory)
        case Start.RESOURCE:
            return ResourceBody(partial(start, *args, **kwargs))
        case Start.FUNCTION:
            return TaskBody(start, args, kwargs, says_ready=says_ready(start))


def _start_failure(node: Node, life: Life) -> ChildStartFailed:
    if isinstance(life.exit, Normal):
        return ChildStartFailed(
            node.path, life.exit, f"{node.path} ended before it said that it was ready"
        )
    return ChildStartFailed(node.path, life.exit)


def _is_unreadable(error: BaseException | None) -> bool:
    """Whether it is for stored state that cannot be read; supervisors pass that on."""
    while isinstance(error, ChildStartFailed):
        error = error.__cause__
    return isinstance(error, RestoreError)


def _count_attempt(node: Node, now: float, backoff: Backoff) -> None:
    # Restarts in a row: a child that lived longer than the longest delay begins anew.
    if now - (node.started_at or 0.0) > backoff.maximum:
        node.attempts = 0
    node.attempts += 1
