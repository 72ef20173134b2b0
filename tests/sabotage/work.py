"""Broken pools, streams and batches: each takes one promise back, and a test must notice.

A `Double` replaces one attribute of the real code while it is applied. `caught_by` names
the tests of which at least one must fail then.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from treewarden.errors import NotRunning
from treewarden.work import batch, pool, ref, stream, work
from treewarden.work.outcome import Done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TESTS = "tests/runtime/work/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """One broken attribute, `module:path.to.attribute`, and who must catch it."""

    name: str
    replaces: str
    broken: object
    caught_by: tuple[str, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The real thing is broken in this way for as long as the block lasts."""
        module, _, path = self.replaces.partition(":")
        owner: Any = importlib.import_module(module)
        *steps, attribute = path.split(".")
        for step in steps:
            owner = getattr(owner, step)
        real = owner.__dict__[attribute]
        setattr(owner, attribute, self.broken)
        try:
            yield
        finally:
            setattr(owner, attribute, real)


_run = ref.Pool.run


async def _run_in_line_without_a_pool(
    self: ref.Pool, fn: Callable[..., Any], *args: Any
) -> Any:
    """F40: when no pool runs, the work runs here."""
    try:
        return await _run(self, fn, *args)
    except NotRunning:
        return await fn(*args)


def _begin_outside_the_tree(self: Any, one: work.Work[Any]) -> None:
    """F41: spawned, by a function whose name says supervised."""
    self._running.add(one)
    self._started += 1
    one.begun = True
    trio.lowlevel.spawn_system_task(self._live, one)


def _works_of_the_caller(self: Any) -> list[work.WorkStatistics]:
    """F42: who runs is known to those who started it, and to nobody else."""
    return [one.statistics() for one in self._line]


async def _leave_without_the_work(works: object) -> None:
    """F43: the caller goes, the work goes on."""


def _no_barrier(error: BaseException) -> bool:
    """F44: what an item raises reaches the pool's nursery, and all other items."""
    return True


async def _skip_failures(self: stream.Stream[Any]) -> object:
    """F44: failed items are left out."""
    while True:
        result = await _next(self)
        if not self._ordered or isinstance(result, Done):
            return result


_next = stream.Stream._next


def _keep_successes(self: batch.Batch, one: Any) -> None:
    """F45: failed calls are dropped."""
    if isinstance(one, Done):
        _keep(self, one)


_keep = batch.Batch._keep


def _count_nothing(self: Any, one: work.Work[Any], end: Any, error: Any) -> None:
    """S22: gauges that only grow."""
    one.finish(error)
    self._fill()


def _judge_by_the_wish(one: work.Work[Any]) -> tuple[Any, BaseException | None]:
    """Pitfall 15: stopped because it was asked to, whatever it did."""
    if one.life.scope.cancel_called:
        return pool._End.STOPPED, one.stopped(one.life.classify(None))
    return pool._End.COMPLETED, None


def _take_everything(self: Any) -> None:
    """STM-18: the whole source is taken at once."""
    while not self._exhausted:
        self._take_item(self._find())


def _fill_beyond_the_size(self: Any) -> int:
    """S22: the limit holds for each caller, not for the pool."""
    return 1


def _stay_open(self: Any) -> None:
    """STM-11: the source's clean-up never runs."""


async def _forget_the_thread(self: Any, _: object) -> None:
    """Pitfall 33: a thread that was left behind is nobody's."""


def _say_nothing(self: Any) -> None:
    """Dropped, and nobody is told."""


def _no_gate() -> None:
    """Work for others begins before its agent's state is committed."""


DOUBLES = (
    Double(
        name="inline fallback",
        replaces="treewarden.work.ref:Pool.run",
        broken=_run_in_line_without_a_pool,
        caught_by=(_TESTS + "test_pool.py::test_f40",),
    ),
    Double(
        name="unsupervised spawning",
        replaces="treewarden.work.pool:PoolBody._begin",
        broken=_begin_outside_the_tree,
        caught_by=(_TESTS + "test_pool.py::test_f41",),
    ),
    Double(
        name="hidden tracking",
        replaces="treewarden.work.pool:PoolBody.works",
        broken=_works_of_the_caller,
        caught_by=(_TESTS + "test_pool.py::test_f42",),
    ),
    Double(
        name="a stream that is left leaks its work",
        replaces="treewarden.work.stream:leave",
        broken=_leave_without_the_work,
        caught_by=(_TESTS + "test_pool.py::test_f43",),
    ),
    Double(
        name="a caller that is cancelled leaks its work",
        replaces="treewarden.work.ref:leave",
        broken=_leave_without_the_work,
        caught_by=(_TESTS + "test_pool.py::test_f43",),
    ),
    Double(
        name="no exception barrier",
        replaces="treewarden.work.pool:_passes",
        broken=_no_barrier,
        caught_by=(_TESTS + "test_stream.py::test_f44",),
    ),
    Double(
        name="failed items are skipped",
        replaces="treewarden.work.stream:Stream._next",
        broken=_skip_failures,
        caught_by=(_TESTS + "test_stream.py::test_f44",),
    ),
    Double(
        name="failed calls are dropped",
        replaces="treewarden.work.batch:Batch._keep",
        broken=_keep_successes,
        caught_by=(_TESTS + "test_batch.py::test_f45",),
    ),
    Double(
        name="gauges that only grow",
        replaces="treewarden.work.pool:PoolBody._over",
        broken=_count_nothing,
        caught_by=(_TESTS + "test_pool.py::test_f42",),
    ),
    Double(
        name="stopped because it was asked to",
        replaces="treewarden.work.pool:_judge",
        broken=_judge_by_the_wish,
        caught_by=(_TESTS + "test_work.py::test_work_that_finishes_just_in_time",),
    ),
    Double(
        name="an eager stream",
        replaces="treewarden.work.stream:Stream._take_items",
        broken=_take_everything,
        caught_by=(_TESTS + "test_stream.py::test_a_stream_takes_no_more",),
    ),
    Double(
        name="a pool without a bound",
        replaces="treewarden.work.pool:PoolBody.free",
        broken=property(_fill_beyond_the_size),
        caught_by=(_TESTS + "test_pool.py::test_a_pool_never_runs_more",),
    ),
    Double(
        name="a source that is never closed",
        replaces="treewarden.work.stream:Stream._close_source",
        broken=_stay_open,
        caught_by=(_TESTS + "test_stream.py::test_leaving_early",),
    ),
    Double(
        name="a thread that is nobody's",
        replaces="treewarden.work.pool:_ThreadSlot.acquire_on_behalf_of",
        broken=_forget_the_thread,
        caught_by=(_TESTS + "test_pool_kinds.py::test_a_thread_that_does_not_end",),
    ),
    Double(
        name="a dropped stream goes on",
        replaces="treewarden.work.stream:Stream.__del__",
        broken=_say_nothing,
        caught_by=(_TESTS + "test_stream.py::test_a_half_read_stream",),
    ),
    Double(
        name="an unread failure is silent",
        replaces="treewarden.work.work:Work.__del__",
        broken=_say_nothing,
        caught_by=(_TESTS + "test_work.py::test_a_failure_that_nobody_reads",),
    ),
    Double(
        name="work overtakes the commit",
        replaces="treewarden.work.work:gate_of_caller",
        broken=_no_gate,
        caught_by=(_TESTS + "test_pools.py::test_work_for_others_begins",),
    ),
)
