"""Stopping: in what order, within what time, and what happens to those who overrun."""

from __future__ import annotations

import logging
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import (
    CallingSelf,
    ChildStartFailed,
    ShuttingDown,
    SupervisionError,
    UnknownChild,
)
from treewarden.exits import Crash, Exit, Killed, Normal, Shutdown
from treewarden.supervision import (
    ChildSpec,
    Stop,
    SupervisorRef,
    cleanup,
    current_life,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.runtime.supervision.conftest import AllTasks, World


def exits(world: World) -> dict[str, Exit | None]:
    """How each node ended, by path, in the order of their ends."""
    return {report.path: report.exit for report in world.reported("exited")}


# --- order and time -----------------------------------------------------------------------------


async def test_children_stop_in_reverse_order_each_gone_before_the_next_is_asked(
    world: World,
) -> None:
    """SHD-07, pitfall 19"""
    three = [world.child(id_, stop_takes=1.0) for id_ in "bca"]
    async with world.open(*three):
        world.at.clear()
    assert world.at == [(1.0, "end a"), (2.0, "end c"), (3.0, "end b")]
    assert exits(world) == {"/a": Shutdown(), "/c": Shutdown(), "/b": Shutdown()}


async def test_a_nested_tree_stops_last_subtree_first_and_leaves_before_supervisors(
    world: World,
) -> None:
    """SHD-16"""
    left = world.supervisor(
        "left", world.child("a"), world.supervisor("deep", world.child("b"))
    )
    right = world.supervisor("right", world.child("c"), world.child("d"))
    async with world.open(left, world.child("e"), right):
        pass
    assert [*exits(world)] == [
        *("/right/d", "/right/c", "/right", "/e"),
        *("/left/deep/b", "/left/deep", "/left/a", "/left"),
    ]


@pytest.mark.parametrize("shutdown", [math.inf, 100])
async def test_a_child_may_have_for_ever_to_stop(world: World, shutdown: float) -> None:
    """SHD-01: and so may a supervisor, for those below it."""
    slow = [world.child(id_, stop_takes=90, shutdown=shutdown) for id_ in "ab"]
    sub = world.supervisor("sub", slow[1], shutdown=shutdown)
    async with world.open(slow[0], sub):
        pass
    assert exits(world) == dict.fromkeys(["/sub/b", "/sub", "/a"], Shutdown())
    assert trio.current_time() == 180


async def test_a_child_that_overruns_its_shutdown_time_is_killed(world: World) -> None:
    """SHD-02, TA-4, pitfall 22"""
    slow = world.child("slow", stop_takes=1000, shutdown=1.0)
    async with world.open(world.child("prompt"), slow):
        pass
    assert exits(world) == {"/slow": Killed(), "/prompt": Shutdown()}
    assert trio.current_time() == 1.0


async def test_a_child_without_time_to_stop_is_killed_at_once(
    world: World,
) -> None:
    """SHD-03, SHD-11, G28"""
    brutal = world.child("brutal", stop_takes=1.0, shutdown=0)
    sub = world.supervisor("sub", brutal, world.child("kind", stop_takes=1.0))
    async with world.open(sub):
        pass
    assert exits(world) == {
        "/sub/kind": Shutdown(),
        "/sub/brutal": Killed(),
        "/sub": Shutdown(),
    }
    assert world.at[2:] == [(1.0, "end kind"), (1.0, "end brutal")]


async def test_siblings_that_end_by_themselves_during_a_stop_keep_their_own_exits(
    world: World,
) -> None:
    """SHD-05, pitfall 36"""
    ways = ["normal", "shutdown", "shutdown with a detail", "crash"]
    twelve = {
        f"{restart}-{number}": (restart, how)
        for restart in ("permanent", "transient", "temporary")
        for number, how in enumerate(ways)
    }
    middle = [world.child(id_, restart=kind) for id_, (kind, _) in twelve.items()]

    async def orders_them_to_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                for id_, (_, how) in twelve.items():
                    world.tell(id_, world.order(id_, how))
                await trio.sleep(1)

    last = ChildSpec("last", orders_them_to_end)
    async with world.open(world.child("first"), *middle, last, limit=0):
        pass
    ended = exits(world)
    for id_, (_, how) in twelve.items():
        exit_ = ended[f"/{id_}"]
        if how == "crash":
            assert isinstance(exit_, Crash)
        else:
            expected = {"normal": Normal(), "shutdown": Shutdown()}
            assert exit_ == expected.get(how, Shutdown("enough"))
    assert ended["/first"] == Shutdown()
    assert set(world.starts.values()) == {1}


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("dynamic", [False, True])
async def test_a_child_may_answer_the_stop_with_an_exit_of_its_own(
    world: World, restart: str, dynamic: bool
) -> None:
    """SHD-06, SHD-12, SHD-28"""

    async def answers(answer: Exception | None) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if answer is not None:
                raise answer from None

    children = [
        ChildSpec("normal", answers, args=(None,), restart=restart),
        ChildSpec("stop", answers, args=(Stop(Shutdown("done")),), restart=restart),
        ChildSpec("crash", answers, args=(world.boom("late"),), restart=restart),
    ]
    sub = world.dynamic("sub") if dynamic else world.supervisor("sub")
    async with world.open(sub, limit=0) as root:
        for spec in children:
            await root.supervisor("sub").start_child(spec)
        await world.settle()
    ended = exits(world)
    crash = ended.pop("/sub/crash")
    assert ended == {
        "/sub/normal": Normal(),
        "/sub/stop": Shutdown("done"),
        "/sub": Shutdown(),
    }
    assert isinstance(crash, Crash)
    assert crash.fault.message == "late"


# --- nested supervisors ---------------------------------------------------------------------


async def test_a_supervisor_that_overruns_is_killed_with_all_below_it(
    world: World, all_tasks: AllTasks
) -> None:
    """SHD-14, ESC-06"""
    leaf = world.child("leaf", stop_takes=1000, shutdown=math.inf)
    deep = world.supervisor("deep", world.child("a"), leaf)
    sub = world.supervisor("sub", deep, shutdown=3.0)
    async with world.open(sub) as root:
        await root.terminate_child("sub")
        assert trio.current_time() == 3.0
        assert not world.is_up("leaf")
        assert not world.is_up("a")
        assert not [task for task in all_tasks() if task.name.startswith("/sub")]
    ended = exits(world)
    assert ended["/sub/deep/leaf"] == ended["/sub/deep"] == ended["/sub"] == Killed()


async def test_a_killed_supervisor_is_restarted_by_its_parent(world: World) -> None:
    """ESC-06: in a group restart, by which it is stopped within its time."""
    leaf = world.child("leaf", stop_takes=1000, shutdown=math.inf)
    sub = world.supervisor("sub", leaf, shutdown=2.0, restart="transient")
    async with world.open(world.child("a"), sub, strategy="one_for_all") as root:
        await world.crashed("a")
        await trio.sleep(5)
        assert world.info(root, "sub").last_exit == Killed()
        assert world.incarnations(root) == {"a": 2, "sub": 2}
        assert world.is_up("leaf")
        await root.terminate_child("sub")


# --- who cannot be stopped ------------------------------------------------------------------


async def test_a_shielded_child_is_reported_as_stuck_at_growing_intervals(
    world: World,
) -> None:
    """SHD-25, TA-3, pitfalls 22 and 49"""

    async def shields() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(200)

    async with world.open(ChildSpec("a", shields)) as root:
        await world.settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "a")
            await trio.sleep(7)
            assert world.states(root) == {"a": "stuck"}
        assert world.states(root) == {"a": "stopped"}
    assert [at for at, topic, _ in world.heard if topic == "stuck"] == [
        *(6.0, 8.0, 12.0, 20.0, 36.0, 68.0),
        *(128.0, 188.0),
    ]
    for report in world.reported("stuck"):
        assert "cancelled: shields (" in report.detail
        assert f"{Path(__file__).name}:" in report.detail
        assert " > sleep (" in report.detail
        assert "wait_task_rescheduled" not in report.detail
    # In the end it was the stop that ended it, and not the kill.
    assert exits(world) == {"/a": Shutdown()}


async def test_of_a_stuck_child_with_tasks_of_its_own_it_is_told_where_these_hang(
    world: World,
) -> None:
    """TA-3, pitfall 22"""

    async def hangs(seconds: float) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)

    async def has_tasks() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(hangs, 2.5 + number / 10)

    sub = world.supervisor("sub", ChildSpec("a", has_tasks), shutdown=1.0)
    async with world.open(sub) as root:
        await world.settle()
        await root.terminate_child("sub")
    details = {report.path: report.detail for report in world.reported("stuck")}
    assert details["/sub/a"].count("hangs (") == 3
    assert details["/sub/a"].endswith("; and 2 more")
    assert "has_tasks" not in details["/sub/a"]
    assert details["/sub"].endswith("though cancelled: what it started does not")


async def test_a_child_that_swallows_the_cancellation_hangs_nobody_else(
    world: World,
) -> None:
    """SHD-10, SHD-26"""
    enough = False

    async def swallows() -> None:
        while not enough:
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                # Without this the loop would spin, and virtual time never move on.
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)

    async with world.open(ChildSpec("a", swallows), world.child("b")) as root:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "a")
            await trio.sleep(10)
            assert world.states(root) == {"a": "stuck", "b": "running"}
            assert world.is_up("b")
            enough = True
        assert world.states(root) == {"a": "stopped", "b": "running"}
    assert [report.path for report in world.reported("stuck")] == ["/a"] * 2


@pytest.mark.real_time
async def test_a_thread_that_looks_whether_it_is_to_stop_ends_with_its_child(
    world: World,
) -> None:
    """SHD-27: trio's own flag, for what a pool would leave behind."""
    begun, ended = trio.Event(), threading.Event()

    def count() -> None:
        trio.from_thread.run_sync(begun.set)
        try:
            while True:
                trio.from_thread.check_cancelled()
                time.sleep(0.001)
        finally:
            ended.set()

    async def counts() -> None:
        await trio.to_thread.run_sync(count)

    async with world.open(ChildSpec("a", counts, shutdown=math.inf)) as root:
        with trio.fail_after(30):
            await begun.wait()
            await root.terminate_child("a")
        assert ended.is_set()
    assert exits(world) == {"/a": Shutdown()}


async def test_those_who_hold_up_a_killed_supervisor_are_named(world: World) -> None:
    """SHD-14, TA-3"""

    async def shields() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    sub = world.supervisor("sub", ChildSpec("leaf", shields), shutdown=1.0)
    async with world.open(sub) as root:
        await world.settle()
        await root.terminate_child("sub")
        assert trio.current_time() == 10
    paths = [report.path for report in world.reported("stuck")]
    assert paths.count("/sub/leaf") == paths.count("/sub") == 3


async def test_hurry_turns_the_stop_under_way_into_a_kill(world: World) -> None:
    """SHD-24, pitfall 21"""
    patient = [
        world.child(id_, stop_takes=1000, shutdown=math.inf) for id_ in ("a", "b")
    ]
    sub = world.supervisor("sub", world.child("c", stop_takes=1000, shutdown=math.inf))
    async with trio.open_nursery() as nursery:
        async with world.open(*patient, sub):
            directory = world.directory

            async def hurry_later() -> None:
                await trio.sleep(2)
                directory.hurry()

            nursery.start_soon(hurry_later)
            await trio.lowlevel.checkpoint()
        assert trio.current_time() == 2.0
    assert set(exits(world).values()) == {Killed()}


async def test_hurry_without_a_stop_kills_the_tree(world: World) -> None:
    patient = world.child("a", stop_takes=1000, shutdown=math.inf)
    async with world.open(patient, world.supervisor("sub", world.child("b"))):
        world.directory.hurry()
        with pytest.raises(trio.Cancelled):
            await trio.sleep_forever()
        world.note("body ended")
    assert trio.current_time() == 0
    assert set(exits(world).values()) == {Killed()}


# --- a stop that meets something else -------------------------------------------------------


async def test_a_stop_wins_over_a_start_that_hangs(world: World) -> None:
    """SHD-18, pitfall 38"""
    told: list[float] = []

    async def start(root: SupervisorRef, spec: ChildSpec) -> None:
        with pytest.raises(ShuttingDown):
            await root.start_child(spec)
        told.append(trio.current_time())

    hanging = world.child("slow", start_takes=math.inf, start_timeout=math.inf)
    first = world.child("a", stop_takes=2.0)
    async with trio.open_nursery() as nursery, world.open(first) as root:
        nursery.start_soon(start, root, hanging)
        await world.settle()
        nursery.start_soon(start, root, world.child("never"))
        await trio.sleep(1)
    assert told == [1.0, 1.0]
    assert world.at == [(0.0, "start a"), (3.0, "end a")]


async def test_a_start_that_crashes_because_it_is_stopped_is_no_timeout(
    world: World,
) -> None:
    """SHD-18: the caller learns of the stop, whatever the child made of it."""

    async def bursts(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise world.boom

    async def start(root: SupervisorRef) -> None:
        with pytest.raises(ShuttingDown, match="/a was not started"):
            await root.start_child(ChildSpec("a", bursts))
        world.note("told")

    async with trio.open_nursery() as nursery, world.open() as root:
        nursery.start_soon(start, root)
        await world.settle()
    assert world.trace == ["told"]


async def test_a_start_that_fails_in_the_instant_of_a_stop_has_failed(
    world: World,
) -> None:
    """SHD-15, TA-1"""

    async def fails(*, task_status: trio.TaskStatus[None]) -> None:
        root = world.directory.root
        assert root is not None
        assert root.life is not None
        root.body.ask_to_stop(root.life)
        raise world.boom

    async def start(root: SupervisorRef) -> None:
        with pytest.raises(ChildStartFailed) as caught:
            await root.start_child(ChildSpec("a", fails))
        assert isinstance(caught.value.exit, Crash)
        world.note("told")

    async with trio.open_nursery() as nursery, world.open() as root:
        nursery.start_soon(start, root)
        await trio.sleep_forever()
    assert world.trace == ["told"]


class StopsTheNewborn(trio.abc.Instrument):
    """Stops the tree when a child's task is there and has not taken a step."""

    def __init__(self, world: World, path: str) -> None:
        self._world = world
        self._path = path

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        root = self._world.directory.root
        if task.name == self._path and root is not None and root.life is not None:
            root.body.ask_to_stop(root.life)


@pytest.mark.parametrize("says_ready", [False, True])
async def test_a_child_that_is_stopped_before_its_first_step_meets_it_at_its_first_wait(
    world: World, says_ready: bool
) -> None:
    """SHD-29"""

    async def newborn() -> None:
        life = current_life.get()
        assert life is not None
        world.note("begins, stopping" if life.stopping else "begins")
        try:
            await trio.sleep_forever()
        finally:
            world.note("cleans up")

    async def tells(*, task_status: trio.TaskStatus[None]) -> None:
        await newborn()

    async def start(root: SupervisorRef) -> None:
        with pytest.raises(ShuttingDown):
            await root.start_child(ChildSpec("a", tells if says_ready else newborn))
        world.note("told")

    async with trio.open_nursery() as nursery, world.open() as root:
        trio.lowlevel.add_instrument(StopsTheNewborn(world, "/a"))
        nursery.start_soon(start, root)
        await trio.sleep_forever()
    assert world.trace == ["begins, stopping", "cleans up", "told"]
    assert world.directory.find("/a") is None


async def test_a_stop_during_a_group_restart_starts_nobody_any_more(
    world: World,
) -> None:
    """SHD-13, pitfall 37"""
    slow = world.child("b", stop_takes=2.0)
    async with world.open(world.child("a"), slow, strategy="one_for_all"):
        world.crash("a")
        await trio.sleep(1)
    assert world.starts == {"a": 1, "b": 1}
    assert trio.current_time() == 2.0


async def test_a_subtree_that_is_stopped_while_it_starts_has_not_crashed(
    world: World,
) -> None:
    """SHD-18"""
    hanging = world.child("slow", start_takes=math.inf, start_timeout=math.inf)
    sub = world.supervisor("sub", world.child("a"), hanging)

    async def start(root: SupervisorRef) -> None:
        with pytest.raises(ShuttingDown):
            await root.start_child(sub)
        world.note("told")

    async with trio.open_nursery() as nursery, world.open() as root:
        nursery.start_soon(start, root)
        await world.settle()
        node = world.directory.find("/sub")
        assert node is not None
    assert node.last_exit == Shutdown()
    assert world.trace == ["start a", "end a", "told"]


async def test_nothing_starts_once_the_stop_has_begun(world: World) -> None:
    """SHD-18, pitfalls 27 and 39"""

    async def start_when_stopping(root: SupervisorRef) -> None:
        await trio.sleep(1)
        with pytest.raises(ShuttingDown):
            await root.start_child(world.child("b"))
        world.note("refused")

    slow = world.child("a", stop_takes=2.0)
    async with trio.open_nursery() as nursery, world.open(slow) as root:
        nursery.start_soon(start_when_stopping, root)
    assert world.trace == ["start a", "refused", "end a"]


@pytest.mark.parametrize("restart", ["permanent", "transient"])
async def test_an_end_in_the_instant_of_a_terminate_keeps_its_true_exit(
    world: World, restart: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SHD-15, pitfall 15"""
    caplog.set_level(logging.INFO)
    async with world.open(world.child("a", restart=restart), limit=0) as root:
        for order, exit_ in ((None, Normal()), (Stop(Killed()), Killed())):
            world.tell("a", order)
            await root.terminate_child("a")
            assert world.info(root, "a").last_exit == exit_
            await root.restart_child("a")
        world.crash("a")
        await root.terminate_child("a")
        assert isinstance(world.info(root, "a").last_exit, Crash)
        assert world.states(root) == {"a": "stopped"}
    assert [one.path for one in world.reported("restarted")] == []
    # What it returned in that instant is nothing to tell people of; how it failed is.
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


async def test_two_stops_at_once_both_return_after_the_one_real_stop(
    world: World,
) -> None:
    """SHD-17, pitfall 48"""
    sub = world.supervisor("sub", world.child("a", stop_takes=1.0), restart="temporary")
    async with world.open(sub) as root:
        inner = root.supervisor("sub")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(inner.stop)
        assert trio.current_time() == 1.0
        assert world.states(root) == {}
    assert len(world.reported("exited")) == 2


async def test_a_stop_returns_when_all_below_are_gone_and_their_names_are_free(
    world: World,
) -> None:
    """STA-12"""
    slow = world.child("a", stop_takes=1.0)
    sub = world.supervisor("sub", slow, restart="temporary")
    async with world.open(sub) as root:
        await SupervisorRef(world.directory, "/sub").stop()
        assert trio.current_time() == 1.0
        assert not world.is_up("a")
        assert [*world.directory.nodes()] == [world.directory.find("/")]
        with pytest.raises(UnknownChild):
            await root.terminate_child("sub")
        await root.start_child(sub)
        assert world.is_up("a")


async def test_stopping_the_root_twice_at_once_stops_it_once(world: World) -> None:
    """SHD-17"""

    async def stop(root: SupervisorRef) -> None:
        await root.stop()
        world.note("stopped")

    slow = world.child("a", stop_takes=1.0)
    async with trio.open_nursery() as nursery, world.open(slow) as root:
        nursery.start_soon(stop, root)
        nursery.start_soon(stop, root)
        await trio.sleep_forever()
    assert world.trace == ["start a", "end a", "stopped", "stopped"]


# --- from inside the tree -------------------------------------------------------------------


async def ask(world: World, asked: Awaitable[object]) -> None:
    """Note what asking a supervisor from inside the tree gives."""
    try:
        await asked
    except SupervisionError as error:
        world.note(type(error).__name__)
    else:
        world.note("answered")


async def test_a_child_cannot_wait_for_its_own_end(world: World) -> None:
    """SHD-20, pitfall 47"""

    async def suicidal(root: SupervisorRef) -> None:
        for asked in (
            root.stop(),
            root.terminate_child("sub"),
            root.bounce_child("sub"),
            root.supervisor("sub").stop(),
            root.supervisor("sub").terminate_child("a"),
        ):
            await ask(world, asked)
        await trio.sleep_forever()

    async with world.open(world.supervisor("sub")) as root:
        spec = ChildSpec("a", suicidal, args=(root,))
        await root.supervisor("sub").start_child(spec)
        await world.settle()
        assert world.trace == [CallingSelf.__name__] * 5


async def test_a_child_cannot_ask_the_supervisor_that_waits_for_it_to_start(
    world: World,
) -> None:
    """MGT-15"""

    async def impatient(
        root: SupervisorRef, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await ask(world, root.start_child(world.child("b")))
        task_status.started()
        await trio.sleep_forever()

    async with world.open() as root:
        await root.start_child(ChildSpec("a", impatient, args=(root,)))
        assert world.trace == ["CallingSelf"]


@pytest.mark.parametrize("how", ["terminate", "stop", "group"])
async def test_a_child_that_asks_its_supervisor_while_being_stopped_gets_an_answer(
    world: World, how: str
) -> None:
    """SHD-21"""

    async def asks_at_the_end(root: SupervisorRef) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                world.note(f"{len(root.which_children())} children")
                await ask(world, root.start_child(world.child("c")))
                await ask(world, root.terminate_child("b"))

    async with world.open(world.child("b"), strategy="one_for_all") as root:
        spec = ChildSpec("a", asks_at_the_end, args=(root,), shutdown=math.inf)
        await root.start_child(spec)
        await world.settle()
        world.cut()
        if how == "terminate":
            await root.terminate_child("a")
        elif how == "group":
            await world.crashed("b")
    asked = [event for event in world.trace if " b" not in event]
    assert asked[:3] == ["2 children", "ShuttingDown", "ShuttingDown"]


async def test_a_child_may_terminate_its_sibling_and_start_another(
    world: World,
) -> None:
    async def busy(root: SupervisorRef) -> None:
        await root.terminate_child("b")
        await root.start_child(world.child("c"))
        await trio.sleep_forever()

    async with world.open(world.child("b")) as root:
        await root.start_child(ChildSpec("a", busy, args=(root,)))
        await world.settle()
        assert world.states(root) == {"b": "stopped", "a": "running", "c": "running"}


async def test_a_child_cannot_open_a_tree_of_its_own(
    world: World, new_world: Callable[[], World]
) -> None:
    async def opens() -> None:
        async with new_world().open():
            pytest.fail("the block was entered")

    async with world.open(ChildSpec("a", opens, restart="temporary")):
        await world.settle()
    [report] = world.reported("exited")
    assert isinstance(report.exit, Crash)
    assert "cannot open a tree of its own" in report.exit.fault.message


# --- cleanup() ----------------------------------------------------------------------------------


async def test_cleanup_has_what_is_left_of_the_shutdown_time(world: World) -> None:
    """TA-4"""

    async def cleans_up_in_two_steps() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(2)
            with cleanup():
                world.note("second")
                await trio.sleep(1000)
            world.note("not reached when killed")

    async with world.open(ChildSpec("a", cleans_up_in_two_steps, shutdown=3.0)):
        await world.settle()
    assert world.at[0] == (2.0, "second")
    assert trio.current_time() == 3.0
    assert exits(world) == {"/a": Killed()}


async def test_cleanup_of_a_child_that_ends_by_itself_has_the_whole_shutdown_time(
    world: World,
) -> None:
    async def ends() -> None:
        await trio.sleep(1)
        with cleanup():
            await trio.sleep(2)
        world.note("done")
        with cleanup():
            await trio.sleep(1000)

    async with world.open(ChildSpec("a", ends, shutdown=3.0, restart="temporary")):
        await trio.sleep(10)
    assert world.at == [(3.0, "done")]
    assert world.heard[-1] == (6.0, "exited", "/a")
    [report] = world.reported("exited")
    assert report.exit == Killed()


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_kill_reaches_every_open_cleanup(world: World, parallel: bool) -> None:
    """TA-4: nested ones, and those of tasks that the child started."""

    async def clean(seconds: float) -> None:
        with cleanup():
            await trio.sleep(seconds)

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if parallel:
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(clean, 1000)
                        nursery.start_soon(clean, 1)
            else:
                with cleanup():
                    await clean(1)
                    await trio.sleep(1000)

    async with world.open(ChildSpec("a", child, shutdown=math.inf)) as root:
        await world.settle()

        async def hurry() -> None:
            await trio.sleep(5)
            world.directory.hurry()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry)
            nursery.start_soon(root.terminate_child, "a")
            await trio.sleep(5)
    assert trio.current_time() == 5
    assert exits(world) == {"/a": Killed()}


async def test_cleanup_outside_a_tree_is_refused() -> None:
    def use() -> Callable[[], object]:
        with cleanup():
            return list

    with pytest.raises(RuntimeError, match="children of a supervisor"):
        use()
