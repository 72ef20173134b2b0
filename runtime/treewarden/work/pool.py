"""Pools: bounded, supervised places for work that is no child of its own.

Theory of operation. A pool is a node of the tree. Its `PoolBody` owns a nursery, `size`
slots and a bounded line before them. Each piece of work runs as a task of that nursery,
behind its own scope and its own exception barrier: what it raises goes to whoever asked,
and the pool lives. So the pool's end is the end of all its work, and whoever asked can
come and go.

Work that somebody waits for (`run`, streams, batches) is bound to them: when they are
cancelled it is stopped, and they leave when it is gone. Work that was started belongs to
the pool alone.

Who waits, inside the work of a pool, for a slot of that same pool may wait for himself.
That is refused as soon as it would have to wait at all (`PoolReentered`).

Kinds. `task`: async functions, on the loop. `thread`: plain functions in threads; a thread
cannot be stopped, so one whose work was stopped is left behind, counted, and keeps its
slot until it ends. `process`: plain functions in worker processes (trio-parallel), where
stopping is a true kill.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import Context, copy_context
from enum import StrEnum
from functools import partial
from itertools import count
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeAlias,
    TypeVar,
    cast,
)

import trio

import treewarden.telemetry as tracing
from treewarden.errors import (
    NotRunning,
    PoolFull,
    PoolReentered,
    ShuttingDown,
    WorkTimeout,
)
from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.supervision import (
    BegunInItsTask,
    Kind,
    Life,
    Stop,
    current_life,
    raised_by_itself,
)

from .policy import PoolKind, PoolPolicy, PoolStatistics
from .work import Work, WorkStatistics, current_origin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from treewarden.supervision import Directory, Node


T = TypeVar("T")
Perform: TypeAlias = "Callable[[Work[Any]], Awaitable[object]]"

# How long an idle worker process may take to leave when its pool stops, in seconds.
_WORKER_GRACE: Final = 4.0


class _End(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"


class PoolBody(BegunInItsTask):
    """A pool's node: see the module's theory of operation."""

    kind = Kind.POOL

    __slots__ = (
        "_busy",
        "_context",
        "_ends",
        "_left",
        "_life",
        "_line",
        "_numbers",
        "_nursery",
        "_perform",
        "_refused",
        "_running",
        "_started",
        "_stop",
        "directory",
        "node",
        "policy",
    )

    def __init__(self, node: Node, directory: Directory, policy: PoolPolicy) -> None:
        self.node = node
        self.directory = directory
        self.policy = policy
        self._life: Life | None = None
        self._nursery: trio.Nursery | None = None
        self._context: Context = copy_context()
        self._stop = trio.Event()
        self._perform: Perform = _call
        self._line: OrderedDict[Work[Any], None] = OrderedDict()
        self._running: set[Work[Any]] = set()
        # Work whose thread goes on without it; it outlives the incarnation, as threads do.
        self._left: set[Work[Any]] = set()
        self._started = 0
        self._refused = 0
        self._busy = 0.0
        self._ends: dict[_End, int] = dict.fromkeys(_End, 0)
        self._numbers = count(1)

    # --- as a body -------------------------------------------------------------------------

    async def run(self, life: Life) -> Exit | None:
        """One incarnation; all work that it accepted ends with it."""
        self._life = life
        self._stop = trio.Event()
        if life.stopping:
            return Shutdown()
        try:
            async with self._workers() as self._perform, trio.open_nursery() as nursery:
                # Work starts from here, not from where it was asked for (TA-10).
                self._context = copy_context()
                self._nursery = nursery
                life.started()
                await self._stop.wait()
                self._dismiss()
        finally:
            self._nursery = None
            self._empty_line()
        return Shutdown()

    def ask_to_stop(self, life: Life) -> None:
        """Take no more work, drop the line, ask what runs to stop."""
        if life.ready:
            self._stop.set()
        else:
            life.cancel()

    def kill(self, life: Life) -> None:
        """Cancel the work, its clean-up and the pool."""
        for work in self._running:
            work.life.kill()
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Its work went with the incarnation."""

    def _dismiss(self) -> None:
        self._empty_line()
        for work in tuple(self._running):
            self.ask(work)

    def _empty_line(self) -> None:
        line, self._line = self._line, OrderedDict()
        for work in line:
            work.finish(work.stopped(Shutdown()))

    # --- slots and line --------------------------------------------------------------------

    @property
    def free(self) -> int:
        """How many slots nobody has."""
        return self.policy.size - len(self._running) - len(self._left)

    def number(self) -> int:
        """The next piece of work's."""
        return next(self._numbers)

    def _check_running(self) -> Life:
        """The incarnation that takes work.

        Raises:
            NotRunning, ShuttingDown: there is none; nothing was run.
        """
        life = self._life
        if self._nursery is None or life is None:
            raise NotRunning(f"pool {self.node.path} is not running; nothing was run")
        if not self._takes_work():
            raise ShuttingDown(f"pool {self.node.path} is stopping; nothing was run")
        return life

    def _takes_work(self) -> bool:
        life = self._life
        return (
            self._nursery is not None
            and life is not None
            and not life.stopping
            and not life.scope.cancel_called
        )

    def shutdown_seconds(self) -> float:
        """How long its work has to clean up, unless it was given another time."""
        return self.node.spec.shutdown_seconds()

    def holds_the_caller(self) -> bool:
        """Whether a slot of this pool waits for the running task."""
        return self in current_origin.get().holding

    def make(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        owned: bool,
        name: str | None = None,
        shutdown: float | None = None,
        timeout: float = math.inf,
    ) -> Work[Any]:
        """Take a piece of work: into a slot, or into the line.

        Raises:
            NotRunning, ShuttingDown, PoolFull, PoolReentered: nothing was run.
            TypeError: it is not a function of this pool's kind.
        """
        life = self._check_running()
        self._check(fn)
        if self.free <= 0:
            self._check_line(owned=owned)
        work: Work[Any] = Work(
            self,
            Life(self.node, life.incarnation),
            fn,
            args,
            name=name,
            shutdown=self.shutdown_seconds() if shutdown is None else shutdown,
            timeout=timeout,
            owned=owned,
        )
        if self.free > 0:
            self._begin(work)
        else:
            self._line[work] = None
        return work

    def finished(self, value: T) -> Work[T]:
        """Work that has its result already."""
        life = Life(self.node, self.node.incarnation)
        work: Work[T] = Work(self, life, _call, (), name="completed", owned=False)
        work.value = value
        work.finish(None)
        return work

    def _check(self, fn: object) -> None:
        if inspect.iscoroutine(fn):
            fn.close()
            raise TypeError("give the function and its arguments, not a coroutine")
        if not callable(fn):
            raise TypeError(f"work is a function and its arguments, not {fn!r}")
        if self.policy.kind != PoolKind.TASK and inspect.iscoroutinefunction(fn):
            raise TypeError(
                f"{self.node.path} is a {self.policy.kind} pool and runs plain "
                f"functions; {fn!r} is async"
            )

    def _check_line(self, *, owned: bool) -> None:
        if owned and self.holds_the_caller():
            raise PoolReentered(self.node.path, self.policy.size)
        if len(self._line) >= self.policy.queue:
            self._refused += 1
            raise PoolFull(self.node.path, self.policy.size, len(self._line))

    def _begin(self, work: Work[Any]) -> None:
        nursery = cast("trio.Nursery", self._nursery)
        self._running.add(work)
        self._started += 1
        work.begun = True
        work.since = now = trio.current_time()
        work.life.scope.deadline = now + work.timeout
        name = f"{self.node.path}#{work.number} {work.name}"
        self._context.run(partial(nursery.start_soon, self._live, work, name=name))

    def _fill(self) -> None:
        while self._line and self.free > 0 and self._takes_work():
            self._begin(self._line.popitem(last=False)[0])

    def ask(self, work: Work[Any]) -> None:
        """Stop it: out of the line, or within its shutdown time."""
        if work.finished or work.life.stopping:
            return
        life = work.life
        life.stopping = True
        if not work.begun:
            del self._line[work]
            work.finish(work.stopped(Shutdown()))
        elif work.shutdown == 0:
            life.kill()
        else:
            life.deadline = trio.current_time() + work.shutdown
            life.cancel()
            life.timer = self.directory.timers.at(life.deadline, life.kill)

    # --- one piece of work -------------------------------------------------------------------

    async def _live(self, work: Work[Any]) -> None:
        """From first step to last: the exception barrier (TA-2)."""
        current_life.set(work.life)
        current_origin.set(work.origin)
        tracing.current.set(work.trace)
        try:
            with work.life.scope:
                if work.gate is not None:
                    await work.gate.wait_open()
                work.value = await self._perform(work)
            end, error = _judge(work)
        except Stop as stop:
            end, error = _End.STOPPED, work.stopped(stop.exit)
        except BaseException as raised:
            # The barrier: it goes to whoever asked.
            end, error = _End.FAILED, _failure(raised)
            if error is None:
                self._nursery = None
                self._over(work, _End.STOPPED, work.stopped(self._own_exit()))
                raise
        self._over(work, end, error)
        # In newer Pythons the frames of what failed know this one, and would keep them.
        del work, error

    def _own_exit(self) -> Exit:
        life = self._life
        if life is not None and life.injected is not None:
            return Crash(life.injected)
        return Killed() if life is not None and life.killed else Shutdown()

    def _over(self, work: Work[Any], end: _End, error: BaseException | None) -> None:
        self._running.discard(work)
        if work.thread_runs:
            self._left.add(work)
        if work.life.timer is not None:
            work.life.timer.cancel()
        self._ends[end] += 1
        self._busy += trio.current_time() - work.since
        if error is not None and end is _End.FAILED and not work.owned:
            self._report(work, error)
        work.finish(error)
        self._fill()

    def _report(self, work: Work[Any], error: BaseException) -> None:
        node = self.node
        fault = Fault.capture(error, path=node.path, incarnation=node.incarnation)
        by = f", started by {work.starter}" if work.starter else ""
        self.directory.report(
            "work.crashed",
            node,
            exit_=Crash(fault),
            detail=f"#{work.number} {work.call}{by}",
            trace=work.trace.trace_hex if work.trace is not None else "",
        )

    # --- kinds -----------------------------------------------------------------------------

    def _workers(self) -> AbstractAsyncContextManager[Perform]:
        match PoolKind(self.policy.kind):
            case PoolKind.TASK:
                return nullcontext(_call)
            case PoolKind.THREAD:
                return nullcontext(self._in_thread)
            case PoolKind.PROCESS:
                return _processes(self.policy.size)

    async def _in_thread(self, work: Work[Any]) -> object:
        slot = cast("trio.CapacityLimiter", _ThreadSlot(self, work))
        try:
            return await trio.to_thread.run_sync(
                work.fn, *work.args, abandon_on_cancel=True, limiter=slot
            )
        finally:
            del work  # see _live

    def thread_over(self, work: Work[Any]) -> None:
        """The thread of a work has ended, with it or after it."""
        work.thread_runs = False
        self._left.discard(work)
        self._fill()

    # --- for those who look ------------------------------------------------------------------

    def works(self) -> list[WorkStatistics]:
        """What runs and what waits, in order of being asked for."""
        works = sorted((*self._running, *self._line), key=lambda one: one.number)
        return [work.statistics() for work in works]

    def statistics(self) -> PoolStatistics:
        """What may be seen of it."""
        ends, policy = self._ends, self.policy
        return PoolStatistics(
            path=self.node.path,
            incarnation=self.node.incarnation,
            kind=PoolKind(policy.kind),
            size=policy.size,
            queue=policy.queue,
            running=len(self._running),
            waiting=len(self._line),
            left_behind=len(self._left),
            started=self._started,
            completed=ends[_End.COMPLETED],
            failed=ends[_End.FAILED],
            stopped=ends[_End.STOPPED],
            timed_out=ends[_End.TIMED_OUT],
            refused=self._refused,
            busy_seconds=self._busy,
        )


class _ThreadSlot:
    """What trio asks before it starts a thread and tells when the thread has ended.

    A `CapacityLimiter` in its form. The pool has counted already, so it never waits; being
    told of the end, also of a thread that was left behind, is what it is for.
    """

    __slots__ = ("_pool", "_work")

    def __init__(self, pool: PoolBody, work: Work[Any]) -> None:
        self._pool = pool
        self._work: Work[Any] | None = work

    async def acquire_on_behalf_of(self, _: object) -> None:
        """A thread is about to start."""
        cast("Work[Any]", self._work).thread_runs = True

    def release_on_behalf_of(self, _: object) -> None:
        """It has ended, or could not be started."""
        # Nothing is kept: a traceback may hold this object, and the work that traceback.
        work, self._work = cast("Work[Any]", self._work), None
        self._pool.thread_over(work)


async def _call(work: Work[Any]) -> object:
    made = work.fn(*work.args)
    if not inspect.isawaitable(made):
        raise TypeError(
            f"{work.name} is not async; give it to a pool of kind thread or process"
        )
    del work  # see _live
    return await made


@asynccontextmanager
async def _processes(size: int) -> AsyncIterator[Perform]:
    # Loaded when the first process pool starts: an import costs what it uses.
    import trio_parallel  # type: ignore[import-untyped]

    limiter = trio.CapacityLimiter(size)
    async with trio_parallel.open_worker_context(grace_period=_WORKER_GRACE) as workers:

        async def perform(work: Work[Any]) -> object:
            try:
                return await workers.run_sync(
                    work.fn, *work.args, kill_on_cancel=True, limiter=limiter
                )
            finally:
                del work  # see _live

        yield perform


def _judge(work: Work[Any]) -> tuple[_End, BaseException | None]:
    """How work ended that raised nothing."""
    exit_ = work.life.classify(None)
    if isinstance(exit_, Normal):
        return _End.COMPLETED, None
    if isinstance(exit_, Shutdown) and not work.life.stopping:
        return _End.TIMED_OUT, WorkTimeout(work.name, work.timeout)
    return _End.STOPPED, work.stopped(exit_)


def _failure(raised: BaseException) -> BaseException | None:
    """What work failed with; None: it was cancelled, or interrupted, from outside."""
    try:
        return _without_our_frames(raised) if raised_by_itself(raised) else None
    except Exception as lie:  # noqa: BLE001 - the work's own exception
        # It cannot be looked at; what came of that stands for it.
        return lie


def _without_our_frames(error: BaseException) -> BaseException:
    # Ours hold the work, which holds the error: nobody would see it dropped unread.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)
