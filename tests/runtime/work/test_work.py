"""Handles: waiting for work, asking how it went, stopping it, and forgetting it."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import WorkStopped
from treewarden.exits import Killed, Shutdown
from treewarden.supervision import Stop, cleanup
from treewarden.work import Done, Failed, Handle, WorkState, results, wait_done

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.runtime.work.conftest import Yard


async def test_a_handle_gives_the_result_to_any_task_as_often_as_asked(
    yard: Yard,
) -> None:
    """TSK-01, TSK-04: any task may wait; there is no owner."""
    got: list[float] = []

    async with yard.open() as pool:
        handle = pool.start(yard.sleep, 2)

        async def wait() -> None:
            got.append(await handle.result())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        await wait()
    assert got == [2, 2, 2, 2]


async def test_a_wait_that_ran_out_of_time_leaves_the_work_alone(yard: Yard) -> None:
    """TSK-02, TSV-09, TSV-11"""
    async with yard.open() as pool:
        handle = pool.start(yard.sleep, 10)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await handle.result()
        assert handle.work.watchers == []
        assert handle.statistics().state is WorkState.RUNNING
        assert await handle.result() == 10


async def test_a_failure_is_raised_to_each_who_asks_without_growing(
    yard: Yard,
) -> None:
    """TSK-03"""

    def depth(error: BaseException) -> int:
        count, traceback = 0, error.__traceback__
        while traceback is not None:
            count, traceback = count + 1, traceback.tb_next
        return count

    async with yard.open() as pool:
        handle = pool.start(yard.sleep, -1)
        depths = []
        for _ in range(3):
            with pytest.raises(yard.boom) as caught:
                await handle.result()
            depths.append(depth(caught.value))
        assert len(set(depths)) == 1


async def test_results_come_in_the_order_of_the_handles(yard: Yard) -> None:
    """TSK-05"""
    async with yard.open() as pool:
        handles = [pool.start(yard.sleep, seconds) for seconds in (3, 1, 2)]
        assert await results(handles) == [3, 1, 2]
        nothing: list[Handle[int]] = []
        assert await results(nothing) == []


async def test_the_first_failure_ends_the_wait_for_all_at_once(yard: Yard) -> None:
    """TSK-05: no waiters are left; the others go on."""
    async with yard.open() as pool:

        async def late() -> float:
            await trio.sleep(2)
            raise yard.boom("late")

        slow = pool.start(yard.sleep, 10)
        handles = [slow, pool.start(late)]
        with pytest.raises(yard.boom, match="late"):
            await results(handles)
        assert trio.current_time() - slow.statistics().since == pytest.approx(2)
        assert slow.work.watchers == []
        assert await slow.result() == 10


async def test_one_deadline_covers_all_results(yard: Yard) -> None:
    """TSK-05"""
    async with yard.open() as pool:
        handles = [pool.start(yard.sleep, seconds) for seconds in (1, 5)]
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await results(handles)
        assert [one.outcome() for one in handles] == [Done(value=1), None]
        assert await results(handles) == [1, 5]


async def test_how_it_goes_can_be_asked_at_any_time(yard: Yard) -> None:
    """TSK-06"""
    async with yard.open() as pool:
        handle = pool.start(yard.hold, "a")
        assert handle.outcome() is None
        await yard.settle()
        assert handle.outcome() is None
        yard.let_go("a")
        assert await handle.wait_outcome() == Done(value="a")
        failing = pool.start(yard.sleep, -1)
        outcome = await failing.wait_outcome()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, yard.boom)


@pytest.mark.parametrize(
    "wait", [Handle.result, Handle.wait_outcome, lambda one: results([one])]
)
async def test_work_that_would_wait_for_its_own_end_is_refused(
    yard: Yard, wait: Callable[[Handle[Any]], Awaitable[object]]
) -> None:
    """TSK-04: whoever may wait, not the work itself, nor what it started in a nursery."""

    async def waits() -> None:
        await wait(own[0])

    async def has_somebody_wait() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)

    own: list[Handle[Any]] = []
    async with yard.open() as pool:
        for work in (waits, has_somebody_wait):
            own[:] = [pool.start(work)]
            outcome = await own[0].wait_outcome()
            assert isinstance(outcome, Failed)
            assert "would wait for its own end" in repr(outcome.error)


async def test_as_many_as_wanted_are_waited_for(yard: Yard) -> None:
    """TSK-07"""
    async with yard.open() as pool:
        handles = [pool.start(yard.sleep, seconds) for seconds in (3, 1, 2)]
        began = trio.current_time()
        assert await wait_done(handles, 2) == [None, Done(value=1), Done(value=2)]
        assert trio.current_time() - began == pytest.approx(2)
        assert len(await wait_done(handles, 99)) == 3
        assert trio.current_time() - began == pytest.approx(3)
        assert await wait_done(handles) == [Done(value=n) for n in (3, 1, 2)]
        failing = pool.start(yard.sleep, -1)
        failed, *rest = await wait_done([failing, *handles, pool.start(yard.sleep, 9)])
        assert isinstance(failed, Failed)
        assert rest == [Done(value=n) for n in (3, 1, 2, 9)]


async def test_those_that_are_too_slow_can_be_stopped(yard: Yard) -> None:
    """TSK-07: on timeout, ignore or stop."""
    async with yard.open() as pool:
        handles = [pool.start(yard.sleep, seconds) for seconds in (1, 50)]
        with trio.move_on_after(2):
            await wait_done(handles)
        assert [one.outcome() for one in handles] == [Done(value=1), None]
        assert await handles[1].stop() is None
        assert yard.inside == 0


async def test_a_result_that_is_there_wins_over_a_stop(yard: Yard) -> None:
    """TSK-08"""
    async with yard.open() as pool:
        handle = pool.start(yard.sleep, 1)
        await handle.result()
        assert await handle.stop() == Done(value=1)
        assert await handle.stop() == Done(value=1)


async def test_what_is_stopped_has_no_outcome(yard: Yard) -> None:
    """TSK-08"""
    async with yard.open(size=1) as pool:
        running, waiting = (pool.start(yard.hold, name) for name in "ab")
        await yard.settle()
        assert await waiting.stop() is None
        assert await running.stop() is None
        assert yard.begun == yard.ended == ["a"]
        with pytest.raises(WorkStopped):
            await running.result()


@pytest.mark.parametrize("shutdown", [None, 0])
async def test_work_that_ended_by_itself_says_how_when_it_is_stopped(
    yard: Yard, shutdown: float | None
) -> None:
    """TSK-08: as often as it is asked, also when it has no time to stop in."""

    async def leave(exit_: Any) -> None:
        raise Stop(exit_)

    async def fails_when_stopped() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise yard.boom("while stopping")

    async with yard.open() as pool:
        handle = pool.start(leave, Shutdown(), shutdown=shutdown)
        await yard.settle()
        for _ in range(2):
            outcome = await handle.stop()
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, WorkStopped)
            assert outcome.error.exit == Shutdown()
        crashed = pool.start(yard.sleep, -1, shutdown=shutdown)
        await yard.settle()
        outcome = await crashed.stop()
        assert isinstance(outcome, Failed)
        assert str(outcome.error) == "-1"
        failing = pool.start(fails_when_stopped, shutdown=shutdown)
        await yard.settle()
        outcome = await failing.stop()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, yard.boom)


@pytest.mark.parametrize(("shutdown", "killed"), [(2.0, True), (0.0, False)])
async def test_work_that_overruns_its_shutdown_time_was_killed(
    yard: Yard, shutdown: float, killed: bool
) -> None:
    """TSK-08: with no time at all, being killed is what was asked for."""

    async def slow_to_leave() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(100)

    async with yard.open() as pool:
        handle = pool.start(slow_to_leave, shutdown=shutdown)
        await yard.settle()
        began = trio.current_time()
        outcome = await handle.stop()
        assert trio.current_time() - began == pytest.approx(shutdown)
        if killed:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, WorkStopped)
            assert outcome.error.exit == Killed()
        else:
            assert outcome is None


async def test_work_that_finishes_just_in_time_is_done(yard: Yard) -> None:
    """TSK-08, pitfall 15"""

    async def finishes() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "in time"
        return "never"

    async with yard.open() as pool:
        handle = pool.start(finishes)
        await yard.settle()
        assert await handle.stop() == Done(value="in time")


async def test_a_failure_that_nobody_reads_warns(yard: Yard) -> None:
    """F09's reading"""
    async with yard.open() as pool:
        handles = [pool.start(yard.sleep, -1)]
        await yard.settle()
        said = "sleep failed and nobody asked: Boom: -1"
        with pytest.warns(ResourceWarning, match=said):
            handles.clear()


async def test_a_failure_after_the_handle_was_dropped_warns(yard: Yard) -> None:
    async def late() -> None:
        await trio.sleep(1)
        raise yard.boom("late")

    async with yard.open() as pool:
        pool.start(late)
        with pytest.warns(ResourceWarning, match="late"):
            await trio.sleep(2)
        assert await pool.run(yard.sleep, 1) == 1


async def test_what_was_read_ignored_stopped_or_went_well_does_not_warn(
    yard: Yard,
) -> None:
    """TSK-09"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with yard.open() as pool:
            pool.start(yard.sleep, 1)
            pool.start(yard.sleep, -1).ignore()
            await pool.start(yard.sleep, -1).wait_outcome()
            pool.start(yard.hold, "stopped")
            await trio.sleep(2)
        gc.collect()


async def test_ignoring_returns_what_had_come_already(yard: Yard) -> None:
    """TSK-09"""
    async with yard.open() as pool:
        handle = pool.start(yard.sleep, 1)
        assert handle.ignore() is None
        await trio.sleep(2)
        assert handle.ignore() == Done(value=1)
        # Nothing is thrown away: whoever does ask is told.
        assert await handle.result() == 1


async def test_a_handle_can_be_done_from_the_start(yard: Yard) -> None:
    """TSK-10"""
    async with yard.open(size=1) as pool:
        handle = pool.completed(42.0)
        assert handle.outcome() == Done(value=42)
        assert await results([handle, pool.start(yard.sleep, 1)]) == [42, 1]
        assert pool.statistics().started == 1
        assert await handle.stop() == Done(value=42)


async def test_starting_needs_no_one_to_wait(yard: Yard) -> None:
    """TSK-12, TSV-10: work is the pool's from the moment that `start` returns."""
    async with yard.open() as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            pool.start(yard.sleep, 1)
            await trio.lowlevel.checkpoint()
        await trio.sleep(2)
        assert yard.ended == [1]


async def test_a_failure_that_was_raised_keeps_no_work_alive(yard: Yard) -> None:
    """Pitfalls of memory: no cycle from an error through our frames."""

    class Big:
        pass

    async def fail(big: Big) -> None:
        raise yard.boom("big")

    async with yard.open() as pool:
        await yard.settle()
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(one, Big) for one in gc.get_objects())
            for _ in range(5):
                with pytest.raises(yard.boom):
                    await pool.run(fail, Big())
            after = sum(isinstance(one, Big) for one in gc.get_objects())
        finally:
            gc.enable()
    assert after == before
