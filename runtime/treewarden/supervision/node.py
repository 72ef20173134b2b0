"""A node of the tree: what a supervisor keeps of a child, and its lives.

A `Node` stays while its supervisor keeps the child; a `Life` is one incarnation of it,
from spawning to end. What a node runs is its `Body`, which outlives incarnations too: an
agent's mailbox lives there.

Every life has two scopes (spec TA-4). The body scope exists from the spawning, so that a
stop before the first step reaches it. The clean-up scope is opened by `cleanup()`,
shielded, and ends when the shutdown time does. To ask a child to stop is to cancel the
first (or, for agents and supervisors, to tell them); to kill is to cancel both.
"""

# ruff: noqa: TC004 - msgspec asks a struct for its names here, never for its types
from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import trio
from msgspec.structs import replace
from trio.lowlevel import (
    current_task,
    disable_ki_protection,
)

from treewarden.clock import wall_ns
from treewarden.errors import RestoreError
from treewarden.exits import (
    Crash,
    Exit,
    Fault,
    Killed,
    Normal,
    Shutdown,
    as_exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from .cause import Cause
    from .intensity import Intensity, RestartWindow
    from .spec import ChildSpec
    from .timers import Timer
    from .tree import Directory


class NodeState(StrEnum):
    """What a node is doing."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    SUSPENDED = "suspended"
    STUCK = "stuck"


class Kind(StrEnum):
    """What a node is."""

    SUPERVISOR = "supervisor"
    AGENT = "agent"
    TASK = "task"
    PROCESS = "process"
    POOL = "pool"


class Ignore:
    """The type of `IGNORE`."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The name that users write."""
        return "IGNORE"


IGNORE: Final = Ignore()
"""`task_status.started(IGNORE)`, or returned by `on_start`: not started, no error."""


class Stop(Exception):
    """Raised in a child or a handler: end yourself with this exit."""

    def __init__(self, exit_: Exit | None = None) -> None:
        """`exit_`: Normal, if it is not given.

        Raises:
            TypeError: it is no exit.
        """
        self.exit: Exit = Normal() if exit_ is None else as_exit(exit_)
        super().__init__(self.exit)


class Body(Protocol):
    """What a node runs. One object for all incarnations of the node."""

    kind: Kind

    def begin(self, life: Life) -> Exit | None:
        """Become usable in the supervisor's turn, if there is nothing to wait for.

        Then `life.started` has been called, and `run` goes on from there in the child's
        task. An exit: it is over already, and there will be no task.
        """
        ...

    def first_turn(self, life: Life) -> Exit | None:
        """In the task of the last life: what it has to do first, if that never waits.

        Only after `begin` has made it usable, and in its own context. An exit: it has
        crashed, and nothing of it is left. Else `run` goes on.
        """
        ...

    async def run(self, life: Life) -> Exit | None:
        """One incarnation; calls `life.started` when usable. None means Normal."""
        ...

    def ask_to_stop(self, life: Life) -> None:
        """Phase one: end soon, cleaning up."""
        ...

    def kill(self, life: Life) -> None:
        """Phase two: end now."""
        ...

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """No incarnation runs and none will soon; `gone`: none ever."""
        ...

    def shown(self, fault: Fault) -> Fault:
        """A fault as people may see it: the same, unless its class hides something."""
        ...


class Parent(Protocol):
    """What a node's life tells: a supervisor, or the host of the root."""

    directory: Directory

    @property
    def path(self) -> str:
        """Where the parent stands."""
        ...

    def poke(self) -> None:
        """Look again: a child became ready."""
        ...

    def ended(self, life: Life) -> tuple[Life, Context] | None:
        """A life is over; `life.exit` says how.

        The answer is the node's next life, if that begins at once: it goes on in the
        task of the last one, in a context of its own.
        """
        ...

    def failing(self, life: Life) -> None:
        """A life was told to crash: cut it off if it takes too long to."""
        ...


class Life(msgspec.Struct, eq=False):
    """One incarnation: its scopes, what was asked of it and how it ended."""

    # A struct: it is made at every start, in a third of the time that a class takes.
    node: Node
    incarnation: int
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    # Open `cleanup()` blocks: they nest, and a child's own tasks may have one each.
    clean_ups: tuple[trio.CancelScope, ...] = ()
    deadline: float = math.inf
    # Whether its scope was; to ask the scope itself takes 0.2 µs each time.
    cancelled: bool = False
    stopping: bool = False
    killed: bool = False
    kill_cancelled: bool = False
    cut_off: bool = False
    rolled_back: bool = False
    # A crash that costs no budget: its cause was counted before.
    uncounted: bool = False
    injected: Fault | None = None
    # None: nobody; a list is one more object to collect.
    _watchers: list[Callable[[Life], None]] | None = None
    ready: bool = False
    ended: bool = False
    # Whether the supervisor has dealt with the end (spec pitfalls 36 and 44).
    consumed: bool = False
    timer: Timer | None = None
    value: object = None
    exit: Exit | None = None
    # The live exception, kept only until the start that it failed was reported.
    error: BaseException | None = None

    @property
    def watchers(self) -> list[Callable[[Life], None]]:
        """Told once, when the exit is known and before anything is restarted."""
        watchers = self._watchers
        if watchers is None:
            watchers = self._watchers = []
        return watchers

    @property
    def is_up(self) -> bool:
        """Whether it has started: ready, not over again, not to be ignored."""
        return self.ready and not self.ended and self.value is not IGNORE

    def started(self, value: object = None) -> None:
        """The incarnation is usable; whoever starts it goes on."""
        if self.ready:
            raise RuntimeError(f"{self.node.path}: started() was called twice")
        self.ready = True
        self.value = value
        self.node.parent.poke()

    def end(self, exit_: Exit) -> None:
        """It is over: whoever watches is told."""
        self.exit = exit_
        self.ended = True
        if self._watchers:
            for watcher in tuple(self._watchers):
                watcher(self)

    def cancel(self) -> None:
        """Cancel the body; what is shielded by `cleanup()` goes on."""
        self.cancelled = True
        self.scope.cancel()

    def kill(self) -> None:
        """Cancel everything that a body of one task consists of."""
        self.killed = True
        if not self.cancelled:
            self.kill_cancelled = True
            self.cancel()
        for scope in self.clean_ups:
            scope.cancel()

    def fail(self, fault: Fault, *, rolled_back: bool = False) -> None:
        """End it now as if it had crashed with `fault`."""
        if self.ended or self.stopping or self.injected is not None:
            return
        self.injected = replace(fault, rolled_back=True) if rolled_back else fault
        self.rolled_back = rolled_back
        self.cancel()
        self.node.parent.failing(self)

    def classify(self, returned: Exit | None) -> Exit:
        """The exit of a life that raised nothing, from what its scopes saw (spec TA-1)."""
        if self.cut_off:
            return Killed()
        if self.scope.cancelled_caught:
            if self.injected is not None:
                return Crash(self.injected)
            return Killed() if self.kill_cancelled else Shutdown()
        return returned if returned is not None else Normal()


current_life: ContextVar[Life | None] = ContextVar("treewarden_life", default=None)
"""The life that the running task belongs to; None outside the tree."""


@contextmanager
def cleanup() -> Iterator[None]:
    """Shield what a function child awaits while it cleans up.

    Awaits in it are not cancelled by the stop that led here; it has what is left of the
    child's shutdown time, or all of it when the child ends by itself. Running out of it
    ends the child as `Killed`.

    Raises:
        RuntimeError: outside a supervised child.
    """
    life = current_life.get()
    if life is None:
        raise RuntimeError("cleanup() is for children of a supervisor")
    deadline = life.deadline
    if deadline == math.inf:
        deadline = trio.current_time() + life.node.spec.shutdown_seconds()
    with trio.CancelScope(shield=True, deadline=deadline) as scope:
        life.clean_ups += (scope,)
        if life.killed:
            scope.cancel()
        try:
            yield
        finally:
            life.clean_ups = tuple(one for one in life.clean_ups if one is not scope)
    if scope.cancelled_caught:
        life.cut_off = True


class Node:
    """A child as its supervisor keeps it."""

    __slots__ = (
        "attempts",
        "body",
        "budget",
        "cause",
        "id",
        "incarnation",
        "label",
        "last_exit",
        "life",
        "order",
        "parent",
        "path",
        "restarts",
        "retry",
        "rolled_back",
        "spec",
        "started_at",
        "started_at_ns",
        "state",
        "window",
    )

    def __init__(self, spec: ChildSpec, path: str, parent: Parent, order: int) -> None:
        self.spec = spec
        self.id = spec.id
        self.path = path
        self.parent = parent
        self.order = order
        self.body: Body = _UNBORN
        self.state = NodeState.STOPPED
        self.life: Life | None = None
        self.incarnation = 0
        self.restarts = 0
        self.started_at: float | None = None
        self.started_at_ns: int | None = None
        self.last_exit: Exit | None = None
        self.cause: Cause | None = None
        # A budget of its own, and what counts against it; that is made when the first
        # restart does, for most nodes never have one.
        self.budget: Intensity | None = None
        self.window: RestartWindow | None = None
        self.label = ""
        # Restarts in a row, for the backoff; and the one that is due, if one is.
        self.attempts = 0
        self.retry: object = None
        # Whether the last life ended because a commit failed, which is nobody's crash.
        self.rolled_back = False

    @property
    def running(self) -> bool:
        """Whether an incarnation is there, starting and stopping included."""
        return self.life is not None

    def born(
        self, scope: trio.CancelScope | None = None, now: float | None = None
    ) -> Life:
        """Begin an incarnation; in `scope`, if it goes on in that of the last one."""
        self.incarnation = number = self.incarnation + 1
        self.started_at = now if now is not None else trio.current_time()
        self.started_at_ns = wall_ns()
        life = Life(self, number) if scope is None else Life(self, number, scope)
        self.life = life
        return life


_NOT_OURS: Final = (trio.Cancelled, GeneratorExit)


def raised_by_itself(error: BaseException) -> bool:
    """Whether the running task is to blame for `error`, whatever it inherits from.

    Not for an interrupt, nor for a cancellation or an end of the run that has reached it;
    but for a `Cancelled` or `GeneratorExit` that somebody raised by hand.
    """
    if interrupt_in(error) is not None:
        return False
    group = isinstance(error, BaseExceptionGroup) and error.subgroup(_NOT_OURS)
    if not (group or isinstance(error, _NOT_OURS)):
        return True
    try:
        return trio.current_effective_deadline() > -math.inf
    except RuntimeError:  # there is no run any more
        return False


async def live(node: Node, life: Life) -> None:
    """One incarnation from first step to last: the exception barrier (spec TA-2).

    Everything that a child can end with becomes an exit, whatever it inherits from. Only
    a cancellation from outside the tree gets past, and there is none behind its shield.

    When the next incarnation begins at once, it has this task: a new one would be a
    third of what a restart costs. It also has the scope, unless that was cancelled: to
    leave it and enter another is a tenth. Nothing else is left of the last one: it has a
    context of its own, in which its first turn is run, and the task from its next step on.
    """
    # One coroutine, not two: a frame more is a twentieth of a child's memory.
    context: Context | None = None
    turns = 1
    while True:
        scope = life.scope
        try:
            with scope:
                while True:
                    returned: Exit | None = None
                    try:
                        if context is not None:
                            turns += 1
                            crowd = node.parent.directory.crash_loops
                            # As `is_up`, without a call: what is to be ignored has ended.
                            is_up = life.ready and not life.ended
                            if is_up and crowd.has_time_for(turns):
                                returned = context.run(node.body.first_turn, life)
                            if returned is None:
                                # From here on in the new context.
                                current_task().context, context = context, None
                                turns = 1
                                await crowd.let_others_run()
                                if is_up:
                                    returned = node.body.first_turn(life)
                        if returned is None:
                            current_life.set(life)
                            returned = await node.body.run(life)
                    except BaseException as error:
                        if life.cancelled:
                            raise
                        exit_ = _exit_by(node, life, error)
                        if exit_ is None:
                            raise
                    else:
                        if life.cancelled:
                            break
                        exit_ = life.classify(returned)
                    life.end(exit_)
                    heir = node.parent.ended(life)
                    if heir is None:
                        return
                    life, context = heir
        except BaseException as error:
            exit_ = _exit_by(node, life, error)
            if exit_ is None:
                raise
        else:
            exit_ = life.classify(returned)
        life.end(exit_)
        heir = node.parent.ended(life)
        if heir is None:
            return
        life, context = heir


def begin(node: Node, life: Life) -> None:
    """What of an incarnation needs no task of its own: behind the same barrier.

    Run in the context that its task will have. When it fails, or there is nothing to run,
    the life is over.
    """
    current_life.set(life)
    try:
        exit_ = _begin_body(node, life)
    except BaseException as error:  # noqa: BLE001 - the exception barrier
        # Nobody's cancellation can reach what never waits: it is the child's own.
        exit_ = _exit_by(node, life, error) or _crashed(node, life, error)
    if exit_ is not None:
        life.end(exit_)


@disable_ki_protection
def _begin_body(node: Node, life: Life) -> Exit | None:
    # The child's own code may be interrupted, as in its task.
    return node.body.begin(life)


def _exit_by(node: Node, life: Life, error: BaseException) -> Exit | None:
    """What a raised exception is as an exit; None: it is not the child's."""
    try:
        return _meant_by(node, life, error)
    except Exception as failure:  # noqa: BLE001 - user code inside the barrier
        # It lies about itself, or is nested deeper than anybody can look.
        return _crashed(node, life, failure)


def _meant_by(node: Node, life: Life, error: BaseException) -> Exit | None:
    match error:
        case Stop():
            return error.exit
        case KeyboardInterrupt() | SystemExit():
            # Not a crash (spec TA-8): the root stops the tree in order and raises it bare.
            return _interrupted(node, error)
        case BaseExceptionGroup():
            return _of_group(node, life, error)
        case _:
            return _crashed(node, life, error) if raised_by_itself(error) else None


def _crashed(node: Node, life: Life, error: BaseException) -> Exit:
    # Of a function's traceback the first two frames are ours.
    below = 2 if node.body.kind is Kind.TASK else 0
    fault = Fault.capture(
        error, path=node.path, incarnation=life.incarnation, below=below
    )
    shown = node.body.shown(fault)
    if life.ready:
        # An exception object that is raised again and again would collect tracebacks.
        BaseException.with_traceback(error, None)
    elif shown is fault or isinstance(error, RestoreError):
        # Else its own text would tell what its class hides; a supervisor has to see that
        # a state cannot be read.
        life.error = error
    return Crash(shown)


def _interrupted(node: Node, error: BaseException) -> Exit:
    node.parent.directory.interrupted(error)
    return Shutdown("interrupted")


def _of_group(
    node: Node, life: Life, group: BaseExceptionGroup[BaseException]
) -> Exit | None:
    interrupt = interrupt_in(group)
    if interrupt is not None:
        return _interrupted(node, interrupt)
    if not raised_by_itself(group):
        return None
    only = _only_leaf(group)
    # Raised inside a nursery of the child's own, it is still the child's wish.
    if isinstance(only, Stop):
        return only.exit
    return _crashed(node, life, group)


def interrupt_in(error: BaseException) -> BaseException | None:
    """The KeyboardInterrupt or SystemExit that an exception is, or that a group holds."""
    if isinstance(error, BaseExceptionGroup):
        found = (interrupt_in(one) for one in error.exceptions)
        return next((one for one in found if one is not None), None)
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


def _only_leaf(error: BaseException) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        error = error.exceptions[0]
    return error


class BegunInItsTask:
    """Of a body that does nothing in anybody else's turn, and hides nothing."""

    __slots__ = ()

    def shown(self, fault: Fault) -> Fault:
        """The same."""
        return fault

    def begin(self, life: Life) -> Exit | None:
        """Nothing: all of it takes a task."""
        return None

    def first_turn(self, life: Life) -> Exit | None:
        """Nothing, as `begin`."""
        return None


class _Unborn(BegunInItsTask):
    kind = Kind.TASK

    async def run(self, life: Life) -> Exit | None:
        raise AssertionError("a node was run before it had a body")

    def ask_to_stop(self, life: Life) -> None:
        pass

    def kill(self, life: Life) -> None:
        pass

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        pass


_UNBORN: Final = _Unborn()


class TaskBody(BegunInItsTask):
    """A function: ready when spawned or when it says so; asked to stop by cancelling."""

    __slots__ = ("_arguments", "_function", "_says_ready", "kind")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        says_ready: bool,
    ) -> None:
        self.kind = Kind.TASK
        self._function = function
        self._arguments = args, kwargs
        self._says_ready = says_ready

    async def run(self, life: Life) -> Exit | None:
        """Call it; what it returns is dropped."""
        args, kwargs = self._arguments
        if self._says_ready:
            await self._function(*args, task_status=life, **kwargs)
        else:
            # Called first: what cannot be has not started.
            coroutine = self._function(*args, **kwargs)
            life.started()
            await coroutine
        return None

    def ask_to_stop(self, life: Life) -> None:
        """Cancel the body; `cleanup()` blocks go on until the deadline."""
        life.cancel()

    def kill(self, life: Life) -> None:
        """Cancel body and clean-up."""
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nothing is kept between incarnations."""


class ResourceBody(BegunInItsTask):
    """An async context manager: ready once entered, left when asked to stop."""

    __slots__ = ("_factory", "_stop", "kind")

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.kind = Kind.TASK
        self._factory = factory
        self._stop = trio.Event()

    async def run(self, life: Life) -> Exit | None:
        """Enter, report ready with what entering gave, stay, leave."""
        self._stop = stop = trio.Event()
        if life.stopping:
            return Shutdown()
        async with self._factory() as value:
            life.started(value)
            await stop.wait()
        # Unless it left by itself: a deadline of its own, an error that it swallowed.
        return Shutdown() if life.stopping else None

    def ask_to_stop(self, life: Life) -> None:
        """Leave the context manager; while it is still being entered, cancel that."""
        if life.ready:
            self._stop.set()
        else:
            life.cancel()

    def kill(self, life: Life) -> None:
        """Cancel it wherever it is."""
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nothing is kept between incarnations."""
