"""The exception barrier: what a life ends with, and what is kept of it."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import ChildStartFailed
from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.supervision import (
    IGNORE,
    CauseKind,
    ChildSpec,
    Life,
    NodeState,
    Stop,
    cleanup,
    current_life,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.runtime.supervision.conftest import World


class Odd(BaseException):
    """Inherits from BaseException, as some libraries' control flow does."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Violent(Exception):
    def __str__(self) -> str:
        raise Odd("not even a failure")


class Faceless(Exception):
    """Whatever is asked of it is refused."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Anchored(Exception):
    """Its traceback can neither be read nor be dropped in the usual way."""

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no traceback")


def nested(depth: int) -> Exception:
    """An error in groups in groups, as every nursery on its way adds one."""
    error: Exception = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("more", [error])
    return error


def fault(message: str = "no") -> Fault:
    return Fault(type="ValueError", message=message)


def life_of(world: World, path: str) -> Life:
    node = world.directory.find(path)
    assert node is not None
    assert node.life is not None
    return node.life


async def exit_of(world: World, spec: ChildSpec) -> Exit | None:
    """How a child, run once, ended by itself."""
    async with world.open(spec, world.child("sibling"), limit=0) as root:
        await world.settle()
        assert world.is_up("sibling")
        assert world.info(root, "sibling").incarnation == 1
    first, *_ = world.reported("exited")
    assert first.path == f"/{spec.id}"
    return first.exit


# --- how a life ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        Unprintable(),
        Odd("odd"),
        asyncio.CancelledError(),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
        BaseExceptionGroup("odd", [ValueError("a"), Odd("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_child_raises_is_its_own_crash_and_harms_no_sibling(
    world: World, error: BaseException
) -> None:
    """TA-2, pitfalls 14, 18 and 75"""

    async def raises() -> None:
        raise error

    exit_ = await exit_of(world, ChildSpec("a", raises, restart="temporary"))
    assert isinstance(exit_, Crash)
    assert exit_.fault.type.endswith(type(error).__name__)
    assert (exit_.fault.path, exit_.fault.incarnation) == ("/a", 1)
    assert exit_.fault.frames[-1][2] == "raises"


@pytest.mark.parametrize(
    "make",
    [Violent, Faceless, Anchored, partial(nested, 5_000)],
    ids=["violent", "faceless", "anchored", "nested"],
)
async def test_an_exception_that_cannot_be_looked_at_is_a_crash_all_the_same(
    world: World, make: Callable[[], Exception]
) -> None:
    """TA-2, pitfall 75: and the child is restarted, alone."""
    go = trio.Event()
    raised: list[bool] = []

    async def raises_once() -> None:
        await go.wait()
        if not raised:
            raised.append(True)
            raise make()
        await trio.sleep_forever()

    async with world.open(ChildSpec("a", raises_once), world.child("b")) as root:
        await world.settle()
        go.set()
        await world.settle()
        assert isinstance(world.info(root, "a").last_exit, Crash)
        assert [info.incarnation for info in root.which_children()] == [2, 1]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(3)])
async def test_an_interrupt_while_a_crash_is_described_is_an_interrupt(
    world: World, interrupt: BaseException
) -> None:
    """TA-8: Ctrl-C may come in anybody's `__str__`."""

    class Slow(Exception):
        def __str__(self) -> str:
            raise interrupt

    async def raises() -> None:
        raise Slow

    with pytest.raises(type(interrupt)):
        async with world.open(ChildSpec("a", raises)):
            await trio.sleep_forever()


@pytest.mark.parametrize(
    "no_exit",
    [
        "done",
        ValueError("no"),
        Normal,
        Crash("no"),  # type: ignore[arg-type]
        Shutdown(3),  # type: ignore[arg-type]
    ],
    ids=repr,
)
async def test_what_is_no_exit_cannot_be_wished_for(world: World, no_exit: Any) -> None:
    """RST-18: else the supervisor would meet it."""
    with pytest.raises(TypeError, match="an exit is Normal") as caught:
        Stop(no_exit)
    assert repr(no_exit) in str(caught.value)

    async def stops() -> None:
        raise Stop(no_exit)

    exit_ = await exit_of(world, ChildSpec("a", stops, restart="temporary"))
    assert isinstance(exit_, Crash)
    assert exit_.fault.type == "TypeError"


async def test_a_function_that_does_not_take_its_arguments_does_not_start(
    world: World,
) -> None:
    """IGN-08: else it would be ready, and crash until its supervisor gives up."""

    async def takes_one(one: int) -> None:
        await trio.sleep_forever()

    async with world.open(world.child("sibling")) as root:
        with pytest.raises(ChildStartFailed, match="missing 1 required positional"):
            await root.start_child(ChildSpec("a", takes_one))
        assert [info.id for info in root.which_children()] == ["sibling"]


@pytest.mark.parametrize("exit_", [Normal(), Shutdown("done"), Killed()])
@pytest.mark.parametrize("depth", [0, 1, 3])
async def test_a_child_ends_with_the_exit_that_it_raises_from_any_nursery_of_its_own(
    world: World, exit_: Exit, depth: int
) -> None:
    """RST-18, TA-7, pitfall 28"""

    async def stops(levels: int) -> None:
        if levels == 0:
            raise Stop(exit_)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(stops, levels - 1)

    spec = ChildSpec("a", stops, args=(depth,), restart="temporary")
    assert await exit_of(world, spec) == exit_


async def test_a_wish_to_stop_beside_an_error_is_a_crash(world: World) -> None:
    """TA-7: nobody's error is lost in the unwrapping."""

    async def both() -> None:
        inner = ExceptionGroup("inner", [Stop(), world.boom("lost?")])
        raise ExceptionGroup("outer", [inner])

    exit_ = await exit_of(world, ChildSpec("a", both, restart="temporary"))
    assert isinstance(exit_, Crash)
    assert "lost?" in exit_.fault.message


async def test_errors_of_a_childs_own_nursery_while_it_is_stopped_are_a_crash(
    world: World,
) -> None:
    """RST-19, TA-1: the group without its cancellations."""

    async def bursts() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise world.boom("late")

    async def child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(bursts)

    async with world.open(ChildSpec("a", child)) as root:
        await world.settle()
        await root.terminate_child("a")
        exit_ = world.info(root, "a").last_exit
    assert isinstance(exit_, Crash)
    assert exit_.fault.type == "ExceptionGroup"
    assert "Cancelled" not in exit_.fault.message


async def test_a_child_that_finishes_just_in_time_was_not_stopped(
    world: World,
) -> None:
    """TA-1, pitfall 15: it is asked to stop, but has no checkpoint left."""
    go = trio.Event()

    async def finishes() -> None:
        with trio.CancelScope(shield=True):
            await go.wait()

    async with world.open(ChildSpec("a", finishes)) as root:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "a")
            await world.settle()
            assert world.states(root) == {"a": "stopping"}
            go.set()
        assert world.info(root, "a").last_exit == Normal()


# --- what is kept -------------------------------------------------------------------------------


async def test_no_exception_is_kept_alive_after_a_hundred_crashes(
    world: World,
) -> None:
    """TA-13, pitfall 72: nor what its frames held."""
    kept: list[weakref.ref[Exception]] = []
    lives: list[Life | None] = []

    class Big:
        """Something that a frame holds."""

    async def crashes(*, task_status: trio.TaskStatus[None]) -> None:
        big, error = Big(), world.boom()
        kept.append(weakref.ref(error))
        kept.append(weakref.ref(big))  # type: ignore[arg-type]
        lives.append(current_life.get())
        world.starts["a"] += 1
        if world.starts["a"] % 3:
            task_status.started()
            await trio.lowlevel.checkpoint()
        if world.starts["a"] > 100:
            await trio.sleep_forever()
        raise error

    async with world.open(ChildSpec("a", crashes), limit=200) as root:
        await world.settle()
        with pytest.raises(ChildStartFailed):
            await root.start_child(world.child("b", fails=[1]))
        gc.collect()
        assert world.starts["a"] == 101
        assert sum(ref() is not None for ref in kept) == 2
        assert world.reports


@pytest.mark.parametrize("ready", [True, False])
async def test_raising_one_exception_object_for_ever_collects_no_tracebacks(
    world: World, ready: bool
) -> None:
    """Pitfall 73"""
    the_one = world.boom("always the same")

    async def crashes(*, task_status: trio.TaskStatus[None]) -> None:
        world.starts["a"] += 1
        if ready or world.starts["a"] in {1, 301}:
            task_status.started()
        if world.starts["a"] <= 300:
            raise the_one

    spec = ChildSpec("a", crashes, restart="transient")
    async with world.open(spec, limit=1000):
        await world.settle()
    depth, traceback = 0, the_one.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert world.starts["a"] == 301
    assert depth < 20


async def test_watchers_are_told_once_of_the_end_that_they_watch(
    world: World,
) -> None:
    """TRI-04"""
    async with world.open(world.child("a")):
        told: list[tuple[int, Exit | None]] = []
        for _ in range(2):
            life_of(world, "/a").watchers.append(
                lambda life: told.append((life.incarnation, life.exit))
            )
        await world.ended("a", "shutdown")
        assert told == [(1, Shutdown()), (1, Shutdown())]
    assert len(told) == 2


async def test_a_watcher_may_remove_others_while_it_is_told(world: World) -> None:
    async with world.open(world.child("a")):
        life = life_of(world, "/a")
        told: list[Life] = []
        life.watchers.append(lambda life: life.watchers.clear())
        life.watchers.append(told.append)
        await world.crashed("a")
        assert told == [life]


# --- told to crash ----------------------------------------------------------------------------


async def test_an_injected_crash_is_a_crash_with_that_fault(world: World) -> None:
    async with world.open(world.child("a"), limit=1) as root:
        life_of(world, "/a").fail(fault("injected"))
        await world.settle()
        info = world.info(root, "a")
        assert (info.incarnation, info.last_exit) == (2, Crash(fault("injected")))
    [restarted] = world.reported("restarted")
    assert restarted.cause is not None
    assert restarted.cause.kind is CauseKind.INJECTION


async def test_a_roll_back_restarts_at_once_and_costs_nothing(world: World) -> None:
    """Prototype invariant 9"""
    temporary = world.child("x", restart="temporary")
    async with world.open(world.child("a"), temporary, limit=0) as root:
        for path in ("/a", "/x"):
            life_of(world, path).fail(fault(), rolled_back=True)
        await world.settle()
        assert world.incarnations(root) == {"a": 2, "x": 2}
    causes = {
        report.cause.kind for report in world.reported("restarted") if report.cause
    }
    assert causes == {CauseKind.ROLLBACK}


async def test_a_child_that_is_told_to_crash_has_its_shutdown_time_for_it(
    world: World,
) -> None:
    slow = world.child("a", stop_takes=1000, shutdown=2.0)
    async with world.open(slow, limit=1) as root:
        life_of(world, "/a").fail(fault())
        await trio.sleep(5)
        assert world.at[1:] == [(2.0, "end a"), (2.0, "start a")]
        assert world.info(root, "a").last_exit == Killed()
        await root.terminate_child("a")


async def test_a_child_that_does_not_crash_when_told_is_reported_as_stuck(
    world: World,
) -> None:
    """TA-3"""

    async def shields() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with world.open(ChildSpec("a", shields, restart="transient")) as root:
        await world.settle()
        life_of(world, "/a").fail(fault())
        await trio.sleep(7)
        assert world.states(root) == {"a": "stuck"}
        await trio.sleep(5)
        assert world.states(root) == {"a": "stopped"}
        assert len(world.directory.timers) < 100


async def test_a_child_told_to_crash_while_it_starts_has_failed_to_start(
    world: World,
) -> None:
    async with world.open() as root, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(ChildStartFailed) as caught:
                await root.start_child(world.child("a", start_takes=10))
            assert caught.value.exit == Crash(fault())

        nursery.start_soon(start)
        await world.settle()
        life_of(world, "/a").fail(fault())


async def test_a_crash_injected_into_what_is_being_stopped_changes_nothing(
    world: World,
) -> None:
    async with world.open(world.child("a", stop_takes=2.0)) as root:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "a")
            await world.settle()
            life_of(world, "/a").fail(fault())
        assert world.info(root, "a").last_exit == Shutdown()


# --- functions and resources --------------------------------------------------------------------


async def test_arguments_are_given_at_every_start(world: World) -> None:
    """STR-13"""
    seen: list[tuple[object, ...]] = []

    async def takes(*args: object, word: str) -> None:
        seen.append((*args, word))
        if len(seen) < 3:
            raise world.boom

    spec = ChildSpec("a", takes, args=(1, 2), kwargs={"word": "w"}, restart="transient")
    async with world.open(spec):
        await world.settle()
    assert seen == [(1, 2, "w")] * 3


async def test_children_see_the_trees_context_and_not_the_callers(
    world: World,
) -> None:
    """INI-20, TA-10, pitfall 30"""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    async def looks(*, task_status: trio.TaskStatus[None]) -> None:
        seen.append(request.get())
        task_status.started()
        if len(seen) == 1:
            raise world.boom
        await trio.sleep_forever()

    async with world.open() as root:
        request.set("GET /")
        await root.start_child(ChildSpec("a", looks))
        await world.settle()
    assert seen == ["none", "none"]


async def test_a_resource_is_entered_held_and_left(world: World) -> None:
    @asynccontextmanager
    async def resource(name: str) -> AsyncIterator[str]:
        await trio.sleep(1)
        world.note(f"enter {name}")
        yield name
        await trio.sleep(1)
        world.note(f"leave {name}")

    async with world.open(ChildSpec("r", resource, args=("it",))) as root:
        assert world.states(root) == {"r": "running"}
        await trio.sleep(5)
        assert world.at == [(1.0, "enter it")]
        await root.terminate_child("r")
        assert world.info(root, "r").last_exit == Shutdown()
        assert world.at == [(1.0, "enter it"), (7.0, "leave it")]


async def test_a_resource_that_overruns_leaving_is_cut_off(world: World) -> None:
    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        yield
        await trio.sleep(1000)

    async with world.open(ChildSpec("r", slow, shutdown=2.0)) as root:
        await root.terminate_child("r")
        assert trio.current_time() == 2.0
        assert world.info(root, "r").last_exit == Killed()


async def test_a_resource_is_not_entered_any_further_once_it_is_to_stop(
    world: World,
) -> None:
    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    with trio.move_on_after(1):
        async with world.open(ChildSpec("r", hangs)):
            pytest.fail("the block was entered")
    assert trio.current_time() == 1.0


async def test_a_resource_whose_background_task_fails_is_restarted(
    world: World,
) -> None:
    async def breaks() -> None:
        await trio.sleep(1)
        raise world.boom

    @asynccontextmanager
    async def connection() -> AsyncIterator[None]:
        world.starts["r"] += 1
        async with trio.open_nursery() as nursery:
            if world.starts["r"] == 1:
                nursery.start_soon(breaks)
            yield
            nursery.cancel_scope.cancel()

    async with world.open(ChildSpec("r", connection)) as root:
        await trio.sleep(2)
        assert world.incarnations(root) == {"r": 2}


async def test_a_resource_may_ignore_its_start(world: World) -> None:
    @asynccontextmanager
    async def absent() -> AsyncIterator[object]:
        yield IGNORE
        world.note("left")

    async with world.open(ChildSpec("r", absent)) as root:
        assert world.info(root, "r").state is NodeState.STOPPED
        assert world.trace == ["left"]


async def test_cleanup_keeps_the_error_that_led_to_it(world: World) -> None:
    """TA-15, pitfall 29"""

    async def crashes() -> None:
        try:
            raise world.boom("first")
        finally:
            with cleanup():
                await trio.sleep(1)

    spec = ChildSpec("a", crashes, restart="temporary")
    async with world.open(spec):
        await trio.sleep(2)
    [report] = world.reported("exited")
    assert isinstance(report.exit, Crash)
    assert report.exit.fault.message == "first"


def test_ignore_is_printed_as_it_is_written() -> None:
    assert repr(IGNORE) == "IGNORE"


async def test_a_function_says_when_it_is_ready_also_behind_a_decorator_or_a_partial(
    world: World,
) -> None:
    """INI-08"""

    async def slow(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(seconds)
        task_status.started()
        await trio.sleep_forever()

    @functools.wraps(slow)
    async def decorated(*args: Any, **kwargs: Any) -> None:
        await slow(*args, **kwargs)

    class Callee:
        async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
            await slow(1.0, task_status=task_status)

    async def unaware(word: str = "task_status") -> None:
        task_status = word
        await trio.sleep(len(task_status))

    starts: list[ChildSpec] = [
        ChildSpec("plain", slow, args=(1.0,)),
        ChildSpec("decorated", decorated, args=(1.0,)),
        ChildSpec("partial", functools.partial(slow, 1.0)),
        ChildSpec("callee", Callee()),
        ChildSpec("unaware", unaware),
    ]
    async with world.open(*starts):
        assert trio.current_time() == 4.0
