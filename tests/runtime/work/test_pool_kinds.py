"""Work in threads and in worker processes; nothing here waits for a clock."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_parallel import BrokenWorkerError  # type: ignore[import-untyped]

from treewarden.errors import WorkTimeout
from treewarden.work import Failed, results

if TYPE_CHECKING:
    from tests.runtime.work.conftest import Yard

pytestmark = pytest.mark.real_time


async def test_a_thread_pool_runs_plain_functions_off_the_loop(yard: Yard) -> None:
    async with yard.open(size=2, kind="thread") as pool:
        assert await pool.run(threading.get_ident) != threading.get_ident()
        async with pool.stream(abs, [-1, -2, -3], failures="raise") as values:
            assert [value async for value in values] == [1, 2, 3]
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run(int, "x")
        run: Any = pool.run
        with pytest.raises(TypeError, match="thread pool and runs plain functions"):
            await run(yard.sleep, 1)


async def test_a_thread_pool_runs_no_more_threads_than_its_size(yard: Yard) -> None:
    door = threading.Event()
    three = trio.Event()
    inside = most = 0

    def enter(step: int) -> None:
        nonlocal inside, most
        inside += step
        most = max(most, inside)
        if inside == 3:
            three.set()

    def work() -> None:
        trio.from_thread.run_sync(enter, 1)
        door.wait(20)
        trio.from_thread.run_sync(enter, -1)

    async with yard.open(size=3, kind="thread") as pool:
        with trio.fail_after(20):
            handles = [pool.start(work) for _ in range(9)]
            await three.wait()
            assert pool.statistics().waiting == 6
            door.set()
            await results(handles)
    assert most == 3


async def test_a_thread_that_does_not_end_is_left_behind_and_keeps_its_slot(
    yard: Yard,
) -> None:
    """SHD-27, H10, pitfall 33: its caller goes at once, and is not met by it again."""
    door, inside = threading.Event(), trio.Event()
    both = threading.Barrier(2, timeout=20)

    def hang() -> str:
        trio.from_thread.run_sync(inside.set)
        door.wait(20)
        return "late"

    async with yard.open(size=2, kind="thread") as pool:
        with trio.fail_after(20):
            handle = pool.start(hang)
            await inside.wait()
            assert await handle.stop() is None
            statistics = pool.statistics()
            assert (statistics.running, statistics.left_behind) == (0, 1)
            assert await results([pool.start(abs, -n) for n in range(5)]) == [*range(5)]
            assert pool.statistics().left_behind == 1
            pair = [pool.start(both.wait) for _ in range(2)]
            assert pool.statistics().waiting == 1
            door.set()
            assert sorted(await results(pair)) == [0, 1]
            assert pool.statistics().left_behind == 0
        assert pool.statistics().completed == 7
        assert isinstance(handle.outcome(), Failed)


async def test_a_thread_that_outlives_its_pool_still_counts_in_the_next(
    yard: Yard,
) -> None:
    """Pitfall 33"""
    door, inside = threading.Event(), trio.Event()

    def hang() -> None:
        trio.from_thread.run_sync(inside.set)
        door.wait(20)

    async with yard.open(size=1, kind="thread") as pool:
        with trio.fail_after(20):
            pool.start(hang)
            await inside.wait()
            yard.crash()
            await yard.settle()
            assert pool.statistics().incarnation == 2
            handle = pool.start(abs, -1)
            assert pool.statistics().waiting == 1
            door.set()
            assert await handle.result() == 1


async def test_work_that_is_stopped_before_its_thread_starts_leaves_none(
    yard: Yard,
) -> None:
    async with yard.open(size=1, kind="thread") as pool:
        handle = pool.start(os.getpid)
        assert await handle.stop() is None
        assert pool.statistics().left_behind == 0
        assert await pool.run(abs, -1) == 1


async def test_a_process_pool_runs_functions_in_other_processes(yard: Yard) -> None:
    async with yard.open(size=2, kind="process") as pool:
        with trio.fail_after(60):
            assert await pool.run(os.getpid) != os.getpid()
            with pytest.raises(ValueError, match="invalid literal"):
                await pool.run(int, "x")
            async with pool.stream(abs, [-1, -2], failures="raise") as values:
                assert [value async for value in values] == [1, 2]


async def test_a_worker_process_that_dies_costs_one_failure(yard: Yard) -> None:
    async with yard.open(size=1, kind="process") as pool:
        with trio.fail_after(60):
            with pytest.raises(BrokenWorkerError):
                await pool.run(os._exit, 3)
            assert await pool.run(abs, -1) == 1
            assert yard.root is not None
            assert yard.root.which_children()[0].incarnation == 1


async def test_a_worker_process_is_killed_when_its_work_is_stopped(
    yard: Yard, tmp_path: Path
) -> None:
    """F43: the only true kill. The worker opens a pipe that breaks when it dies."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    async with yard.open(size=1, kind="process") as pool:
        with trio.fail_after(60):
            handle = pool.start(_hold_open, str(fifo))
            reader = await trio.to_thread.run_sync(lambda: fifo.open("rb", buffering=0))
            with reader:
                assert await trio.to_thread.run_sync(reader.read, 1) == b"!"
                assert await handle.stop() is None
                assert await trio.to_thread.run_sync(reader.read, 1) == b""
            assert await pool.run(abs, -1) == 1


def _hold_open(path: str) -> None:
    with Path(path).open("wb", buffering=0) as fifo:
        fifo.write(b"!")
        threading.Event().wait()


async def test_an_item_of_a_process_pool_has_its_timeout(yard: Yard) -> None:
    """F44, S39: timed-out items are killed."""
    async with yard.open(size=1, kind="process") as pool:
        with trio.fail_after(60):
            await pool.run(abs, -1)
            async with pool.stream(_forever, [1], timeout=0.05) as outcomes:
                outcome = await anext(outcomes)
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, WorkTimeout)


def _forever(_: int) -> None:
    threading.Event().wait()
