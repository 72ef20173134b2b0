"""Broken pools, streams and batches: each takes one promise back, and a test must notice.

Each replaces one attribute of the real code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from treewarden.errors import NotRunning
from treewarden.work import batch, pool, ref, stream, work
from treewarden.work.outcome import Done

from .double import Double, swap

if TYPE_CHECKING:
    from collections.abc import Callable

_TESTS = "tests/runtime/work/"


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
        breaks=swap(ref.Pool, "run", _run_in_line_without_a_pool),
        caught_by=(
            _TESTS + "test_pool.py::test_f40_without_a_running_pool_nothing_is_run",
        ),
    ),
    Double(
        name="unsupervised spawning",
        breaks=swap(pool.PoolBody, "_begin", _begin_outside_the_tree),
        caught_by=(
            _TESTS + "test_pool.py::test_f41_all_work_is_the_pools_and_ends_with_it",
        ),
    ),
    Double(
        name="hidden tracking",
        breaks=swap(pool.PoolBody, "works", _works_of_the_caller),
        caught_by=(
            _TESTS
            + "test_pool.py::test_f42_what_runs_is_seen_in_the_pool_and_nowhere_else",
        ),
    ),
    Double(
        name="a stream that is left leaks its work",
        breaks=swap(stream, "leave", _leave_without_the_work),
        caught_by=(
            _TESTS + "test_pool.py::test_f43_a_cancelled_caller_takes_its_work_along",
        ),
    ),
    Double(
        name="a caller that is cancelled leaks its work",
        breaks=swap(ref, "leave", _leave_without_the_work),
        caught_by=(
            _TESTS + "test_pool.py::test_f43_a_cancelled_caller_takes_its_work_along",
        ),
    ),
    Double(
        name="no exception barrier",
        breaks=swap(pool, "_passes", _no_barrier),
        caught_by=(
            _TESTS + "test_stream.py::test_f44_a_failing_item_is_a_value_in_its_place",
        ),
    ),
    Double(
        name="failed items are skipped",
        breaks=swap(stream.Stream, "_next", _skip_failures),
        caught_by=(
            _TESTS + "test_stream.py::test_f44_a_failing_item_is_a_value_in_its_place",
        ),
    ),
    Double(
        name="failed calls are dropped",
        breaks=swap(batch.Batch, "_keep", _keep_successes),
        caught_by=(
            _TESTS
            + "test_batch.py::test_f45_failed_calls_are_counted_with_their_reasons",
        ),
    ),
    Double(
        name="gauges that only grow",
        breaks=swap(pool.PoolBody, "_over", _count_nothing),
        caught_by=(
            _TESTS
            + "test_pool.py::test_f42_what_runs_is_seen_in_the_pool_and_nowhere_else",
        ),
    ),
    Double(
        name="stopped because it was asked to",
        breaks=swap(pool, "_judge", _judge_by_the_wish),
        caught_by=(
            _TESTS + "test_work.py::test_work_that_finishes_just_in_time_is_done",
        ),
    ),
    Double(
        name="an eager stream",
        breaks=swap(stream.Stream, "_take_items", _take_everything),
        caught_by=(
            _TESTS + "test_stream.py::test_a_stream_takes_no_more_than_its_limit_ahead",
        ),
    ),
    Double(
        name="a pool without a bound",
        breaks=swap(pool.PoolBody, "free", property(_fill_beyond_the_size)),
        caught_by=(_TESTS + "test_pool.py::test_a_pool_never_runs_more_than_its_size",),
    ),
    Double(
        name="a source that is never closed",
        breaks=swap(stream.Stream, "_close_source", _stay_open),
        caught_by=(_TESTS + "test_stream.py::test_leaving_early_leaves_nothing",),
    ),
    Double(
        name="a thread that is nobody's",
        breaks=swap(pool._ThreadSlot, "acquire_on_behalf_of", _forget_the_thread),
        caught_by=(
            _TESTS
            + "test_pool_kinds.py::test_a_thread_that_does_not_end_is_left_behind_and_keeps_its_slot",
        ),
    ),
    Double(
        name="a dropped stream goes on",
        breaks=swap(stream.Stream, "__del__", _say_nothing),
        caught_by=(
            _TESTS
            + "test_stream.py::test_a_half_read_stream_that_is_dropped_leaves_no_task",
        ),
    ),
    Double(
        name="an unread failure is silent",
        breaks=swap(work.Work, "__del__", _say_nothing),
        caught_by=(_TESTS + "test_work.py::test_a_failure_that_nobody_reads_warns",),
    ),
    Double(
        name="work overtakes the commit",
        breaks=swap(work, "gate_of_caller", _no_gate),
        caught_by=(
            _TESTS
            + "test_pools.py::test_work_for_others_begins_when_its_agent_is_committed",
        ),
    ),
)
