"""Pools: slots and line, who is bound to whom, stopping, and what is refused."""

from __future__ import annotations

import functools
import gc
import signal
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, assert_type

import pytest
import trio

from treewarden.errors import (
    AlreadyStarted,
    NotRunning,
    PoolFull,
    PoolReentered,
    ShuttingDown,
    UnknownChild,
    WorkStopped,
)
from treewarden.exits import Crash, Killed, Shutdown
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    Kind,
    Stop,
    SupervisorSpec,
    cleanup,
    open_supervisor,
)
from treewarden.work import Failed, Handle, Pool, PoolPolicy, WorkState, callers

if TYPE_CHECKING:
    from tests.runtime.work.conftest import Yard


async def test_what_the_function_returns_reaches_the_caller(yard: Yard) -> None:
    """TSV-01"""
    async with yard.open() as pool:
        assert assert_type(await pool.run(yard.sleep, 3), float) == 3
        handle = assert_type(pool.start(yard.sleep, 3), Handle[float])
        assert await handle.result() == 3
        assert pool.statistics().completed == 2


async def test_work_is_listed_while_it_waits_and_runs(yard: Yard) -> None:
    """TSV-01, TSV-08"""
    async with yard.open(size=1) as pool:
        for name in "ab":
            pool.start(yard.hold, name, name=name).ignore()
        await yard.settle()
        listed = [(one.number, one.name, one.state) for one in pool.works()]
        assert listed == [(1, "a", WorkState.RUNNING), (2, "b", WorkState.WAITING)]
        statistics = pool.statistics()
        assert (statistics.running, statistics.waiting) == (1, 1)
        yard.let_go("a")
        await yard.settle()
        assert [one.name for one in pool.works()] == ["b"]


async def test_a_pool_is_a_node_of_kind_pool_with_the_defaults(yard: Yard) -> None:
    """TSV-08"""
    async with yard.open() as pool:
        assert yard.root is not None
        (info,) = yard.root.which_children()
        assert (info.id, info.kind, info.state) == ("p", Kind.POOL, "running")
        statistics = pool.statistics()
        assert (statistics.size, statistics.queue) == (10, 1000)
        with pytest.raises(AlreadyStarted):
            await yard.root.start_child(ChildSpec("p", Pool))


async def test_a_pool_never_runs_more_than_its_size(yard: Yard) -> None:
    """S22: one bound for all who use the pool."""
    async with yard.open(size=3) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            for _ in range(5):
                nursery.start_soon(pool.run, yard.sleep, 1)
        await trio.sleep(0.5)
        assert pool.statistics().running == 3
    assert yard.most == 3
    assert len(yard.ended) == 20


async def test_work_begins_in_the_order_in_which_it_was_asked_for(yard: Yard) -> None:
    async with yard.open(size=1) as pool:
        for name in range(5):
            pool.start(yard.hold, name).ignore()
        for name in range(5):
            await yard.settle()
            yard.let_go(name)
        await yard.settle()
        assert yard.begun == [0, 1, 2, 3, 4]


async def test_a_failure_reaches_the_caller_as_it_is_and_the_pool_lives(
    yard: Yard,
) -> None:
    """TSK-12, TSV-02, TSV-09"""
    error = yard.boom("mine")

    async def fail() -> None:
        raise error

    async with yard.open() as pool:
        with pytest.raises(yard.boom) as caught:
            await pool.run(fail)
        assert caught.value is error
        assert pool.statistics().failed == 1
        assert await pool.run(yard.sleep, 1) == 1
        assert yard.root is not None
        assert yard.root.which_children()[0].incarnation == 1


async def test_a_failure_that_inherits_from_nothing_harmless_is_contained(
    yard: Yard,
) -> None:
    """TSK-03"""

    class Strange(BaseException):
        pass

    async def fail() -> None:
        raise Strange

    async def group() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(yard.sleep, -1)
            nursery.start_soon(trio.sleep_forever)

    async with yard.open() as pool:
        with pytest.raises(Strange):
            await pool.run(fail)
        with pytest.raises(BaseExceptionGroup):
            await pool.run(group)
        assert await pool.run(yard.sleep, 1) == 1


@pytest.mark.parametrize("kind", [GeneratorExit, trio.Cancelled])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_trio_uses_itself_is_a_failure_of_work_that_raises_it(
    yard: Yard, kind: Any, *, grouped: bool
) -> None:
    """END-15: a `Cancelled` that somebody kept is nobody's cancellation."""
    error = kind._create() if kind is trio.Cancelled else kind()
    if grouped:
        error = BaseExceptionGroup("all", [error, ValueError("no")])

    async def raises() -> None:
        raise error

    async with yard.open() as pool:
        other = pool.start(yard.hold, "other")
        failed = pool.start(raises)
        assert await failed.wait_outcome() == Failed(error=error, item=None)
        assert (pool.statistics().incarnation, pool.statistics().failed) == (1, 1)
        yard.let_go("other")
        assert await other.result() == "other"


async def test_a_failure_that_cannot_be_looked_at_ends_its_own_work_only(
    yard: Yard,
) -> None:
    """TSK-03, pitfall 75: whoever waits is told, and whoever forgot it is warned."""

    class Lies(Exception):
        def __getattribute__(self, name: str) -> object:
            raise ValueError(f"no {name}")

    class Mute(Exception):
        def __repr__(self) -> str:
            raise ValueError("no words")

        __str__ = __repr__

    async def fail(kind: type[Exception]) -> None:
        raise kind

    async def forget(pool: Pool, kind: type[Exception]) -> None:
        pool.start(fail, kind)
        await yard.settle()
        gc.collect()

    async with yard.open(size=2) as pool:
        for kind, told in ((Lies, ValueError), (Mute, Mute)):
            with pytest.raises(told):
                await pool.run(fail, kind)
            outcome = await pool.start(fail, kind).wait_outcome()
            assert isinstance(outcome, Failed)
            with pytest.warns(ResourceWarning, match="failed and nobody asked"):
                await forget(pool, kind)
        assert pool.statistics().running == 0
        assert await pool.run(yard.sleep, 1) == 1
        assert yard.root is not None
        assert yard.root.which_children()[0].incarnation == 1


async def test_a_wish_to_stop_is_not_the_callers(yard: Yard) -> None:
    """TSK-03: Stop raised by the work must not stop the agent that waits for it."""

    async def leave() -> None:
        raise Stop(Shutdown("enough"))

    async with yard.open() as pool:
        with pytest.raises(WorkStopped) as caught:
            await pool.run(leave)
        assert caught.value.exit == Shutdown("enough")
        assert caught.value.begun


async def test_a_full_line_refuses_and_nothing_is_run(yard: Yard) -> None:
    """TSV-04, TSV-05, S40"""
    async with yard.open(size=1, queue=1) as pool:
        for name in "ab":
            pool.start(yard.hold, name).ignore()
        with pytest.raises(PoolFull, match="1 slots taken, 1 in line"):
            pool.start(yard.hold, "c")
        with pytest.raises(PoolFull):
            await pool.run(yard.hold, "d")
        await yard.settle()
        assert yard.begun == ["a"]
        assert pool.statistics().refused == 2


async def test_f40_without_a_running_pool_nothing_is_run(yard: Yard) -> None:
    """F40, S39, S40: no fallback, in line or unsupervised."""
    async with yard.open() as pool:
        assert yard.root is not None
        await yard.root.terminate_child("p")
        with pytest.raises(NotRunning, match="/p is not running; nothing was run"):
            await pool.run(yard.sleep, 1)
        with pytest.raises(NotRunning):
            pool.start(yard.sleep, 1)
        with pytest.raises(NotRunning):
            async with pool.stream(yard.sleep, [1]) as stream:
                await anext(stream)
        with pytest.raises(NotRunning, match="no pool at /q"):
            await Pool(yard.directory, "/q").run(yard.sleep, 1)
    assert yard.begun == []


@pytest.mark.parametrize("way", ["stopped", "crashed"])
async def test_f41_all_work_is_the_pools_and_ends_with_it(yard: Yard, way: str) -> None:
    """F41: 100 pieces of work whose creator is gone; the pool's end is that of all."""
    async with yard.open(size=100) as pool:
        assert yard.root is not None

        async def create() -> None:
            for number in range(100):
                pool.start(yard.hold, number).ignore()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
        await yard.settle()
        assert len(pool.works()) == 100
        began = trio.current_time()
        if way == "stopped":
            await yard.root.terminate_child("p")
        else:
            yard.crash()
            await yard.settle()
        assert trio.current_time() - began < 1
        assert yard.inside == 0
        assert pool.statistics().stopped == 100


async def test_f42_what_runs_is_seen_in_the_pool_and_nowhere_else(yard: Yard) -> None:
    """F42: no hidden bookkeeping; 100 pieces of work are 100 entries, then none."""
    async with yard.open(size=50) as pool:
        for number in range(100):
            pool.start(yard.hold, number).ignore()
        await yard.settle()
        assert [one.number for one in pool.works()] == list(range(1, 101))
        statistics = pool.statistics()
        assert (statistics.running, statistics.waiting) == (50, 50)
        for number in range(50):
            yard.let_go(number)
        await yard.settle()
        for number in range(50, 100):
            yard.let_go(number)
        await yard.settle()
        assert pool.works() == []
        statistics = pool.statistics()
        assert (statistics.running, statistics.completed) == (0, 100)


async def test_f43_a_cancelled_caller_takes_its_work_along(yard: Yard) -> None:
    """F43, TSV-01: 100 items of 10 s, cancelled after 0.1 s."""
    async with yard.open(size=10) as pool:
        with trio.move_on_after(0.1):
            async with pool.stream(yard.sleep, [10.0] * 100) as stream:
                async for _ in stream:
                    pass
        assert trio.current_time() < 1
        assert yard.inside == 0
        assert pool.works() == []
        with trio.move_on_after(0.1):
            await pool.run(yard.sleep, 10)
        assert yard.inside == 0
        assert await pool.run(yard.sleep, 1) == 1


async def test_a_cancelled_caller_in_line_leaves_it(yard: Yard) -> None:
    async with yard.open(size=1) as pool:
        pool.start(yard.hold, "first").ignore()
        with trio.move_on_after(1):
            await pool.run(yard.hold, "second")
        yard.let_go("first")
        await yard.settle()
        assert yard.begun == ["first"]
        assert pool.works() == []


async def test_a_cancelled_caller_waits_for_the_clean_up_of_its_work(
    yard: Yard,
) -> None:
    """TSV-03"""

    async def tidy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(3)
                yard.ended.append("tidy")

    async with yard.open() as pool:
        began = trio.current_time()
        with trio.move_on_after(1):
            await pool.run(tidy)
        assert yard.ended == ["tidy"]
        assert trio.current_time() - began == pytest.approx(1 + 3)


async def test_work_that_does_not_end_stays_with_the_pool(yard: Yard) -> None:
    """SHD-26: it is not abandoned, but its caller goes a second after its time."""
    door = trio.Event()

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await door.wait()

    async with yard.open(size=1) as pool:
        began = trio.current_time()
        with trio.move_on_after(1):
            await pool.run(stubborn)
        assert trio.current_time() - began == pytest.approx(1 + 5 + 1)
        (one,) = pool.works()
        assert one.state is WorkState.STOPPING
        assert pool.statistics().running == 1
        door.set()


async def test_the_callers_end_does_not_stop_what_was_started(yard: Yard) -> None:
    """TSV-02, TSV-11"""
    async with yard.open() as pool:
        handles = []
        with trio.move_on_after(1):
            handles.append(pool.start(yard.sleep, 10))
            await handles[0].result()
        assert await handles[0].result() == 10


async def test_each_work_has_its_own_shutdown_time(yard: Yard) -> None:
    """TSV-03"""
    taken: dict[str, float] = {}

    async def tidy(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            began = trio.current_time()
            try:
                with cleanup():
                    await trio.sleep(100)
            finally:
                taken[name] = trio.current_time() - began

    async with yard.open(shutdown=20) as pool:
        handles = [
            pool.start(tidy, "brief", shutdown=2),
            pool.start(tidy, "long", shutdown=7),
            pool.start(tidy, "none", shutdown=0),
            pool.start(tidy, "pools"),
        ]
        await yard.settle()
        assert yard.root is not None
        await yard.root.terminate_child("p")
        for handle in handles:
            outcome = handle.outcome()
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, WorkStopped)
            assert outcome.error.exit == Killed()
    assert taken == {"none": 0, "brief": 2, "long": 7, "pools": 20}


async def test_a_stopping_pool_refuses_and_its_line_never_runs(yard: Yard) -> None:
    async with yard.open(size=1) as pool:

        async def tidy() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with cleanup():
                    await trio.sleep(1)
                    with pytest.raises(ShuttingDown, match="is stopping"):
                        pool.start(yard.sleep, 1)
                    yard.ended.append("tidy")

        pool.start(tidy).ignore()
        waiting = pool.start(yard.hold, "never")
        await yard.settle()
        assert yard.root is not None
        await yard.root.terminate_child("p")
        assert yard.ended == ["tidy"]
        with pytest.raises(WorkStopped, match="stopped before it began") as caught:
            await waiting.result()
        assert not caught.value.begun
    assert yard.begun == []


async def test_a_pool_that_crashed_is_restarted_and_its_callers_are_told(
    yard: Yard,
) -> None:
    """S22: restart after a kill keeps working."""
    async with yard.open(size=1) as pool:
        begun = pool.start(yard.hold, "begun")
        waiting = pool.start(yard.hold, "waiting")
        await yard.settle()
        yard.crash()
        await yard.settle()
        for handle, ran in ((begun, True), (waiting, False)):
            with pytest.raises(WorkStopped) as caught:
                await handle.result()
            assert caught.value.begun is ran
        with pytest.raises(WorkStopped) as caught:
            await begun.result()
        assert isinstance(caught.value.exit, Crash)
        assert yard.begun == ["begun"]
        assert yard.root is not None
        assert yard.root.which_children()[0].incarnation == 2
        assert await pool.run(yard.sleep, 1) == 1


async def test_work_that_waits_for_its_own_full_pool_is_refused(yard: Yard) -> None:
    async with yard.open(size=2) as pool:

        async def nested(depth: int) -> int:
            return depth if depth == 0 else await pool.run(nested, depth - 1)

        assert await pool.run(nested, 1) == 0
        with pytest.raises(PoolReentered, match="all taken"):
            await pool.run(nested, 2)
        assert await pool.run(nested, 1) == 0


async def test_a_detour_through_another_pool_is_seen(yard: Yard) -> None:
    async with yard.open(size=1) as pool:
        assert yard.root is not None
        await yard.root.start_child(ChildSpec("q", Pool))
        other = Pool(yard.directory, "/q")

        async def back() -> None:
            await pool.run(yard.sleep, 1)

        async def detour() -> None:
            await other.run(back)

        with pytest.raises(PoolReentered):
            await pool.run(detour)


async def test_what_was_only_started_may_wait_for_the_pool(yard: Yard) -> None:
    async with yard.open(size=1) as pool:
        handles = []

        async def outer() -> None:
            handles.append(pool.start(yard.sleep, 1))
            with pytest.raises(PoolReentered):
                await handles[0].result()

        await pool.run(outer)
        assert await handles[0].result() == 1


async def test_work_knows_its_callers(yard: Yard) -> None:
    """TSK-11: and, by its path, who supervises the first of them."""
    async with yard.open() as pool:

        async def inner() -> tuple[str, ...]:
            return callers()

        async def outer() -> tuple[str, ...]:
            return await pool.run(inner)

        assert await pool.run(outer) == ("/p#1", "/p#2")
        assert callers() == ()

        async def child(*, task_status: trio.TaskStatus[None]) -> None:
            asked.append(await pool.run(outer))
            task_status.started()

        asked: list[tuple[str, ...]] = []
        assert yard.root is not None
        spec = ChildSpec("child", child, restart="temporary")
        await yard.root.start_child(ChildSpec("s", SupervisorSpec([spec])))
        assert asked == [("/s/child", "/p#3", "/p#4")]

        async def again(left: int) -> tuple[str, ...]:
            if left == 0:
                return callers()
            return await pool.start(again, left - 1).result()

        await yard.root.start_child(ChildSpec("q", Pool, args=(PoolPolicy(size=99),)))
        pool = Pool(yard.directory, "/q")
        chain = await pool.run(again, 50)
        assert len(chain) == 32
        assert chain[-1] == "/q#51"


async def test_work_does_not_see_its_starters_context(yard: Yard) -> None:
    """INI-20 (TA-10)"""
    private: ContextVar[str] = ContextVar("private", default="")

    async def look() -> str:
        return private.get()

    async with yard.open() as pool:
        private.set("mine")
        assert await pool.run(look) == ""


async def test_a_crash_of_started_work_is_reported_once(yard: Yard) -> None:
    """TSK-14: with its label, function and arguments, who started it, and why it ended."""
    async with yard.open() as pool:

        async def outer() -> None:
            pool.start(yard.sleep, -2).ignore()

        pool.start(yard.sleep, -1, name="nightly").ignore()
        with pytest.raises(yard.boom):
            await pool.run(yard.sleep, -1)
        await pool.run(outer)
        await yard.settle()
        first, second = yard.reported("work.crashed")
        assert first.path == second.path == "/p"
        assert first.detail == "#1 nightly: Yard.sleep(-1)"
        assert second.detail == "#4 Yard.sleep(-2), started by /p#3"
        assert isinstance(first.exit, Crash)
        assert first.exit.fault.message == "-1"


async def test_an_interrupt_out_of_work_stops_the_tree(yard: Yard) -> None:
    """TA-8: it is not a crash of the work."""

    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def raises() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with yard.open(size=1) as pool:
            pool.start(raises).ignore()
            pool.start(interrupted).ignore()
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": 0}, "size must be >= 1, not 0"),
        ({"size": True}, "size must be an int, not True"),
        ({"size": 2.5}, "size must be an int, not 2.5"),
        ({"queue": -1}, "queue must be >= 0, not -1"),
        ({"kind": "fibre"}, "kind must be one of task, thread, process, not 'fibre'"),
    ],
)
def test_a_wrong_policy_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        PoolPolicy(**options)


async def test_what_is_no_work_is_refused(yard: Yard) -> None:
    async with yard.open() as pool:
        assert yard.root is not None
        with pytest.raises(TypeError, match="one PoolPolicy"):
            await yard.root.start_child(ChildSpec("q", Pool, kwargs={"size": 3}))
        run: Any = pool.run
        with pytest.raises(TypeError, match="not a coroutine"):
            await run(yard.sleep(1))
        with pytest.raises(TypeError, match="not 3"):
            await run(3)
        with pytest.raises(TypeError, match="len is not async"):
            await run(len, "abc")
        with pytest.raises(ValueError, match="shutdown must be >= 0"):
            pool.start(yard.sleep, 1, shutdown=-1)
        assert await pool.run(functools.partial(yard.sleep, 1)) == 1


async def test_many_tasks_under_a_dynamic_supervisor_restart_as_told() -> None:
    """TSV-06, TSV-07, TSK-13: work that is to be restarted is a child of its own."""
    runs: list[str] = []

    async def work(name: str) -> None:
        runs.append(name)
        if runs.count(name) < 3:
            raise ValueError(name)
        if name == "permanent":
            await trio.sleep_forever()

    spec = DynamicSupervisorSpec(child_intensity=Intensity(5, 100.0))
    async with open_supervisor([ChildSpec("tasks", spec)]) as root:
        tasks = root.supervisor("tasks")
        for restart in ("permanent", "transient", "temporary"):
            await tasks.start_child(
                ChildSpec(restart, work, args=(restart,), restart=restart)
            )
        await trio.testing.wait_all_tasks_blocked()
        assert {name: runs.count(name) for name in runs} == {
            "permanent": 3,
            "transient": 3,
            "temporary": 1,
        }
        assert [one.id for one in tasks.which_children()] == ["permanent"]
        await tasks.terminate_child("permanent")
        with pytest.raises(UnknownChild):
            await tasks.terminate_child("permanent")


def test_a_pool_can_stand_in_any_specification() -> None:
    """TSV-08: named by id; two of one id clash."""
    with pytest.raises(ValueError, match="two children have the id"):
        SupervisorSpec([ChildSpec("p", Pool), ChildSpec("p", Pool)])
