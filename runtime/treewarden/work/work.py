"""One piece of work of a pool.

A `Work` is waiting, then running, then finished; it finishes once, and whoever waits for it
is told then or, coming later, at once. Its `Life` is what `cleanup()` and the pool's stop
see of it. A failure that nobody ever asked about is not lost quietly: it warns when the
last reference to it goes.
"""

from __future__ import annotations

import math
import reprlib
import warnings
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import trio

import treewarden.telemetry as tracing
from treewarden.agents import current_body
from treewarden.errors import StoreError, WorkStopped
from treewarden.exits import Fault, writable
from treewarden.supervision import current_life

from .outcome import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from treewarden.exits import Exit
    from treewarden.supervision import Life

    from .pool import PoolBody

T = TypeVar("T")

# A chain of tasks that start their successors must not grow a record for ever.
_CALLERS_KEPT: Final = 32
# How many arguments a report shows.
_SHOWN: Final = 8
# How long, beyond its shutdown time, a caller that was cancelled waits for its work.
_LINGER: Final = 1.0


class WorkState(StrEnum):
    """What a piece of work is doing."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatistics:
    """A piece of work as others may see it; `since` is on trio's clock, in seconds."""

    number: int
    name: str
    starter: str
    state: WorkState
    since: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, who asked them, and the pools whose slots wait for the answer."""

    callers: tuple[str, ...] = ()
    holding: frozenset[PoolBody] = frozenset()


_NOBODY: Final = Origin()
current_origin: ContextVar[Origin] = ContextVar(
    "treewarden_work_origin", default=_NOBODY
)


def callers() -> tuple[str, ...]:
    """Who made the running work, oldest first: paths of nodes, names of work.

    The newest 32 are kept; () outside of pools.
    """
    return current_origin.get().callers


class Gate:
    """Opens when what the starter did before is committed (design: leaving waits)."""

    __slots__ = ("_event", "error")

    def __init__(self) -> None:
        self._event = trio.Event()
        self.error: StoreError | None = None

    def open(self, error: StoreError | None) -> None:
        """It is decided; `error` when it was not kept."""
        self.error = error
        self._event.set()

    async def wait_open(self) -> None:
        """Until it is.

        Raises:
            StoreError: what the starter did was not kept; the work must not happen.
        """
        await self._event.wait()
        if self.error is not None:
            raise type(self.error)(str(self.error))


def gate_of_caller() -> Gate | None:
    """A gate for what the running handler's agent has not committed; None: nothing."""
    sender = current_body.get()
    if sender is None:
        return None
    gate = Gate()
    return gate if sender.when_settled(gate.open) else None


def _name_of(fn: object) -> str:
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


class Work(Generic[T]):
    """One call of one function, from being asked for to its end."""

    __slots__ = (
        "args",
        "begun",
        "error",
        "finished",
        "fn",
        "gate",
        "life",
        "name",
        "number",
        "origin",
        "owned",
        "pool",
        "read",
        "shutdown",
        "since",
        "starter",
        "thread_runs",
        "timeout",
        "trace",
        "traceback",
        "value",
        "watchers",
    )

    def __init__(
        self,
        pool: PoolBody,
        life: Life,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        name: str | None = None,
        shutdown: float = 0.0,
        timeout: float = math.inf,
        owned: bool,
    ) -> None:
        """`owned`: whoever asked waits for it, and it ends with them."""
        self.pool = pool
        self.life = life
        life.ready = True
        self.fn = fn
        self.args = args
        self.number = pool.number()
        self.name = writable(name or _name_of(fn))
        self.shutdown = shutdown
        self.timeout = timeout
        self.owned = owned
        self.starter, self.origin = self._asked_by()
        self.trace = tracing.current.get()
        self.gate = gate_of_caller()
        self.since = trio.current_time()
        self.begun = False
        self.finished = False
        self.thread_runs = False
        self.value: object = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        # Whether somebody has seen the failure, or said that nobody will.
        self.read = owned
        self.watchers: list[Callable[[Work[T]], None]] = []

    def __del__(self) -> None:
        """Say so when a failure goes unseen."""
        error = getattr(self, "error", None)
        if error is not None and not self.read:
            # As a fault says it: its own words may fail.
            said = Fault.capture(error).summary()
            warnings.warn(
                f"{self.name} failed and nobody asked: {said}; "
                "await its result(), or ignore() it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _asked_by(self) -> tuple[str, Origin]:
        life = current_life.get()
        above = current_origin.get()
        starter = life.node.path if life is not None else ""
        if above.callers:
            starter = above.callers[-1]
        own = f"{self.pool.node.path}#{self.number}"
        chain = above.callers or ((starter,) if starter else ())
        # Nobody's slot waits for what was only started.
        held = above.holding if self.owned else frozenset()
        return starter, Origin((*chain, own)[-_CALLERS_KEPT:], held | {self.pool})

    @property
    def call(self) -> str:
        """What is called with which arguments, cut short, after the name it was given."""
        called = writable(_name_of(self.fn))
        given = ", ".join(reprlib.repr(one) for one in self.args[:_SHOWN])
        label = "" if self.name == called else f"{self.name}: "
        return f"{label}{called}({writable(given)})"

    @property
    def state(self) -> WorkState:
        """What it is doing."""
        if self.finished:
            return WorkState.FINISHED
        if not self.begun:
            return WorkState.WAITING
        return WorkState.STOPPING if self.life.stopping else WorkState.RUNNING

    def statistics(self) -> WorkStatistics:
        """What may be seen of it."""
        return WorkStatistics(
            number=self.number,
            name=self.name,
            starter=self.starter,
            state=self.state,
            since=self.since,
        )

    def finish(self, error: BaseException | None) -> None:
        """It is over; everybody who waits is told."""
        self.finished = True
        self.error = error
        self.traceback = error.__traceback__ if error is not None else None
        # Of finished work only the result is kept.
        self.args = ()
        if isinstance(error, WorkStopped):
            # No failure of the work: there is nothing to warn of.
            self.read = True
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher(self)

    def stopped(self, exit_: Exit) -> WorkStopped:
        """The error of a work without a result."""
        return WorkStopped(self.name, exit_, begun=self.begun)

    async def wait_finished(self) -> None:
        """Until it is over, however it went; a checkpoint."""
        await wait_finished([self])

    def outcome(self, item: object = None) -> Outcome[T]:
        """How it went; it must be finished."""
        self.read = True
        if self.error is not None:
            return Failed(error=self.error, item=item)
        return Done(value=cast("T", self.value), item=item)

    def unwrap(self) -> T:
        """What it returned, or its failure raised; it must be finished."""
        self.read = True
        if self.error is None:
            return cast("T", self.value)
        error, traceback = self.error, self.traceback
        try:
            # Raised as often as it is asked for, it must not collect tracebacks.
            raise error.with_traceback(traceback)
        finally:
            # No cycle through this frame: what failed must not stay in memory for it.
            del error, traceback, self


async def wait_finished(
    works: Collection[Work[T]], count: int | None = None, *, or_failure: bool = False
) -> None:
    """Until `count` of them (all: None) are over, or one has failed; a checkpoint."""
    wanted = len(works) if count is None else min(count, len(works))
    pending = [work for work in works if not work.finished]
    missing = wanted - (len(works) - len(pending))
    enough = trio.Event()

    def over(work: Work[T]) -> None:
        nonlocal missing
        missing -= 1
        if missing <= 0 or (or_failure and work.error is not None):
            enough.set()

    if missing <= 0 or (or_failure and any(one.error is not None for one in works)):
        enough.set()
    for work in pending:
        work.watchers.append(over)
    try:
        await enough.wait()
    finally:
        for work in pending:
            if not work.finished:
                work.watchers.remove(over)


async def leave(works: Collection[Work[Any]]) -> None:
    """Stop what of `works` is not over, and wait until it is: for those it is bound to.

    Whatever still does not end a second after its shutdown time stays with the pool.
    """
    left = [work for work in works if not work.finished]
    if not left:
        return
    for work in left:
        work.pool.ask(work)
    longest = max(work.shutdown for work in left) + _LINGER
    with trio.CancelScope(shield=True, deadline=trio.current_time() + longest):
        await wait_finished(left)
