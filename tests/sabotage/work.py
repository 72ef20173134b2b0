"""Broken pools, streams and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import NotRunning
from treewarden.work import batch, pool, ref, stream, work
from treewarden.work.outcome import Done

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Callable

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/work")

_run = ref.Pool.run


@DOUBLES.swaps(
    ref.Pool,
    "run",
    caught_by="test_pool.py::test_f40_without_a_running_pool_nothing_is_run",
)
async def inline_fallback(self: ref.Pool, fn: Callable[..., Any], *args: Any) -> Any:
    """F40: when no pool runs, the work runs here."""
    try:
        return await _run(self, fn, *args)
    except NotRunning:
        return await fn(*args)


@DOUBLES.swaps(
    pool.PoolBody,
    "_begin",
    caught_by="test_pool.py::test_f41_all_work_is_the_pools_and_ends_with_it",
)
def unsupervised_spawning(self: Any, one: work.Work[Any]) -> None:
    """F41: spawned, by a function whose name says supervised."""
    self._running.add(one)
    self._started += 1
    one.begun = True
    trio.lowlevel.spawn_system_task(self._live, one)


@DOUBLES.swaps(
    pool.PoolBody,
    "works",
    caught_by="test_pool.py::test_f42_what_runs_is_seen_in_the_pool_and_nowhere_else",
)
def hidden_tracking(self: Any) -> list[work.WorkStatistics]:
    """F42: who runs is known to those who started it, and to nobody else."""
    return [one.statistics() for one in self._line]


@DOUBLES.swaps(
    stream,
    "leave",
    caught_by="test_pool.py::test_f43_a_cancelled_caller_takes_its_work_along",
)
async def a_stream_that_is_left_leaks_its_work(works: object) -> None:
    """F43: the caller goes, the work goes on."""


@DOUBLES.swaps(
    pool,
    "raised_by_itself",
    caught_by="test_stream.py::test_f44_a_failing_item_is_a_value_in_its_place",
)
def no_exception_barrier(error: BaseException) -> bool:
    """F44: what an item raises reaches the pool's nursery, and all other items."""
    return False


@DOUBLES.swaps(
    stream.Stream,
    "_next",
    caught_by="test_stream.py::test_f44_a_failing_item_is_a_value_in_its_place",
)
async def failed_items_are_skipped(self: stream.Stream[Any]) -> object:
    """F44: failed items are left out."""
    while True:
        result = await _next(self)
        if not self._ordered or isinstance(result, Done):
            return result


_next = stream.Stream._next


@DOUBLES.swaps(
    batch.Batch,
    "_keep",
    caught_by="test_batch.py::test_f45_failed_calls_are_counted_with_their_reasons",
)
def failed_calls_are_dropped(self: batch.Batch, one: Any) -> None:
    """F45: failed calls are dropped."""
    if isinstance(one, Done):
        _keep(self, one)


_keep = batch.Batch._keep


@DOUBLES.swaps(
    pool.PoolBody,
    "_over",
    caught_by="test_pool.py::test_f42_what_runs_is_seen_in_the_pool_and_nowhere_else",
)
def gauges_that_only_grow(self: Any, one: work.Work[Any], end: Any, error: Any) -> None:
    """S22: gauges that only grow."""
    one.finish(error)
    self._fill()


@DOUBLES.swaps(
    pool,
    "_judge",
    caught_by="test_work.py::test_work_that_finishes_just_in_time_is_done",
)
def stopped_because_it_was_asked_to(
    one: work.Work[Any],
) -> tuple[Any, BaseException | None]:
    """Pitfall 15: stopped because it was asked to, whatever it did."""
    if one.life.scope.cancel_called:
        return pool._End.STOPPED, one.stopped(one.life.classify(None))
    return pool._End.COMPLETED, None


@DOUBLES.swaps(
    stream.Stream,
    "_take_items",
    caught_by="test_stream.py::test_a_stream_takes_no_more_than_its_limit_ahead",
)
def an_eager_stream(self: Any) -> None:
    """STM-18: the whole source is taken at once."""
    while not self._exhausted:
        self._take_item(self._find())


@DOUBLES.swaps(
    stream.Stream,
    "_close_source",
    caught_by="test_stream.py::test_leaving_early_leaves_nothing",
)
def a_source_that_is_never_closed(self: Any) -> None:
    """STM-11: the source's clean-up never runs."""


@DOUBLES.swaps(
    pool._ThreadSlot,
    "acquire_on_behalf_of",
    caught_by="test_pool_kinds.py::test_a_thread_that_does_not_end_is_left_behind_and_keeps_its_slot",
)
async def a_thread_that_is_nobodys(self: Any, _: object) -> None:
    """Pitfall 33: a thread that was left behind is nobody's."""


@DOUBLES.swaps(
    stream.Stream,
    "__del__",
    caught_by="test_stream.py::test_a_half_read_stream_that_is_dropped_leaves_no_task",
)
def a_dropped_stream_goes_on(self: Any) -> None:
    """Pitfall 32: dropped, and nobody is told."""


@DOUBLES.swaps(
    work,
    "gate_of_caller",
    caught_by="test_pools.py::test_work_for_others_begins_when_its_agent_is_committed",
)
def work_overtakes_the_commit() -> None:
    """Work for others begins before its agent's state is committed."""


@DOUBLES.breaks(
    caught_by="test_pool.py::test_f43_a_cancelled_caller_takes_its_work_along"
)
def a_caller_that_is_cancelled_leaks_its_work(replace: Replace) -> None:
    """F43: of one call, where the other double is about a stream."""
    replace(ref, "leave", a_stream_that_is_left_leaks_its_work)


@DOUBLES.breaks(caught_by="test_pool.py::test_a_pool_never_runs_more_than_its_size")
def a_pool_without_a_bound(replace: Replace) -> None:
    """S22: the limit holds for each caller, not for the pool."""
    replace(pool.PoolBody, "free", property(lambda self: 1))


@DOUBLES.breaks(caught_by="test_work.py::test_a_failure_that_nobody_reads_warns")
def an_unread_failure_is_silent(replace: Replace) -> None:
    """F09: what went wrong is dropped with the handle, without a warning."""
    replace(work.Work, "__del__", a_dropped_stream_goes_on)


@DOUBLES.swaps(
    pool,
    "raised_by_itself",
    caught_by="test_pool.py::test_what_trio_uses_itself_is_a_failure_of_work_that_raises_it",
)
def one_job_that_takes_all_along(error: BaseException) -> bool:
    """END-15: a `Cancelled` that somebody kept ends the pool and all else in it."""
    passes = (trio.Cancelled, GeneratorExit, KeyboardInterrupt, SystemExit)
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(passes) is None
    return not isinstance(error, passes)
