"""Starts and restarts that fail: who is up meanwhile, what is tried again and when."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildStartFailed,
    IntensityExceeded,
    RestoreError,
    StartTimeout,
)
from treewarden.exits import Crash, Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import IGNORE, ChildSpec, NodeState, Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.runtime.supervision.conftest import World

# Long enough to look at what is up between two attempts.
PATIENT = Backoff(initial=10.0, maximum=10.0, jitter=0.0)


async def test_a_child_that_does_not_start_is_not_kept(world: World) -> None:
    """RFL-01, IGN-07, IGN-08"""
    async with world.open(world.child("a"), limit=0) as root:
        with pytest.raises(ChildStartFailed) as caught:
            await root.start_child(world.child("b", fails=[1]))
        assert isinstance(caught.value.__cause__, world.boom)
        assert caught.value.__cause__.__traceback__ is not None
        assert world.states(root) == {"a": "running"}


async def test_a_restart_by_hand_that_fails_is_told_and_not_tried_again(
    world: World,
) -> None:
    """RFL-02"""
    async with world.open(world.child("a", fails=[2, 3]), limit=0) as root:
        await root.terminate_child("a")
        with pytest.raises(ChildStartFailed):
            await root.restart_child("a")
        with pytest.raises(ChildStartFailed):
            await root.bounce_child("a")
        await trio.sleep(10)
        assert world.states(root) == {"a": "stopped"}
        assert world.starts["a"] == 3
        assert (await root.restart_child("a")).incarnation == 4
    assert len(world.reported("start_failed")) == 2


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_a_child_between_attempts_is_restarting_and_can_be_terminated(
    world: World, strategy: str
) -> None:
    """RFL-03, SHD-13, pitfall 79, pitfall 37"""
    spec = world.child("a", fails=[2], backoff=PATIENT)
    async with world.open(spec, strategy=strategy) as root:
        world.crash("a")
        await trio.sleep(15)
        assert (world.starts["a"], world.states(root)) == (2, {"a": "restarting"})
        counts = root.count_children()
        assert (counts.specs, counts.active, counts.workers) == (1, 0, 1)
        with pytest.raises(AlreadyPresent):
            await root.start_child(spec)
        with pytest.raises(AlreadyStarted):
            await root.restart_child("a")
        with pytest.raises(AlreadyStarted):
            await root.delete_child("a")
        await root.terminate_child("a")
        await trio.sleep(60)
        assert (world.starts["a"], world.states(root)) == (2, {"a": "stopped"})
        await root.restart_child("a")
        assert world.states(root) == {"a": "running"}


async def test_the_loop_of_a_child_that_cannot_start_is_ended_by_a_terminate(
    world: World,
) -> None:
    """RFL-03, SHD-13: each failing start takes a second, and there is no backoff."""

    async def fails_slowly(*, task_status: trio.TaskStatus[None]) -> None:
        world.starts["a"] += 1
        if world.starts["a"] > 1:
            await trio.sleep(1)
            raise world.boom
        task_status.started()
        await trio.sleep(1)
        raise world.boom

    async with world.open(ChildSpec("a", fails_slowly), limit=1000) as root:
        await trio.sleep(5.5)
        assert world.starts["a"] == 6
        await root.terminate_child("a")
        await trio.sleep(60)
        assert (world.starts["a"], world.states(root)) == (6, {"a": "stopped"})
        with pytest.raises(ChildStartFailed):
            await root.restart_child("a")


async def test_while_the_middle_of_three_cannot_start_the_last_waits(
    world: World,
) -> None:
    """RFL-04"""
    middle = world.child("b", fails=[2], backoff=PATIENT)
    three = [world.child("a"), middle, world.child("c")]
    async with world.open(*three, strategy="rest_for_one") as root:
        await world.crashed("a")
        assert world.states(root) == {"a": "running", "b": "restarting", "c": "stopped"}
        await trio.sleep(11)
        assert world.states(root) == dict.fromkeys("abc", "running")


async def test_one_for_all_begins_with_its_first_child_again(world: World) -> None:
    """RFL-06, GX2"""
    three = [
        world.child("a"),
        world.child("b", fails=[2, 3], backoff=PATIENT),
        world.child("c"),
    ]
    async with world.open(*three, strategy="one_for_all") as root:
        world.cut()
        await world.crashed("c")
        assert world.states(root) == {"a": "running", "b": "restarting", "c": "stopped"}
        await trio.sleep(60)
        assert world.trace == [
            *("end c", "end b", "end a"),
            *("start a", "fail b", "end a"),
            *("start a", "fail b", "end a"),
            *("start a", "start b", "start c"),
        ]
        assert world.states(root) == dict.fromkeys("abc", "running")


async def test_rest_for_one_goes_on_from_the_child_that_failed(world: World) -> None:
    """RFL-07, GX3"""
    three = [world.child("a"), world.child("b"), world.child("c", fails=[2, 3, 4])]
    async with world.open(*three, strategy="rest_for_one", limit=4) as root:
        world.cut()
        await world.crashed("b")
        assert world.trace == [
            *("end b", "end c", "start b"),
            *("fail c", "fail c", "fail c", "start c"),
        ]
        assert world.incarnations(root) == {"a": 1, "b": 2, "c": 5}


async def test_counts_follow_children_that_cannot_start_and_then_can(
    world: World,
) -> None:
    """MGT-08, RFL-08"""
    three = [
        world.child("a", fails=[2], backoff=PATIENT),
        world.child("b"),
        world.child("c", fails=[2], backoff=PATIENT),
    ]
    async with world.open(*three, limit=9) as root:
        world.crash("a", "c")
        await trio.sleep(15)
        assert world.starts["a"] == world.starts["c"] == 2
        assert (root.count_children().active, root.count_children().workers) == (1, 3)
        await trio.sleep(15)
        assert root.count_children().active == 3
        for left, id_ in ((2, "a"), (1, "b"), (0, "c")):
            await root.terminate_child(id_)
            assert root.count_children().active == left


async def test_a_start_that_times_out_in_a_restart_is_a_failed_attempt(
    world: World,
) -> None:
    """RFL-14"""

    async def hangs_later(*, task_status: trio.TaskStatus[None]) -> None:
        world.starts["b"] += 1
        world.note("begin b")
        try:
            if world.starts["b"] > 1:
                await trio.sleep_forever()
            task_status.started()
            raise world.boom
        finally:
            world.note("end b")

    late = ChildSpec("b", hangs_later, start_timeout=2.0)
    with pytest.raises(IntensityExceeded):
        async with world.open(late, limit=2):
            await trio.sleep_forever()
    assert world.at == [
        *((0.0, "begin b"), (0.0, "end b")),
        *((0.0, "begin b"), (2.0, "end b")),
        *((2.0, "begin b"), (4.0, "end b")),
    ]
    details = [report.detail for report in world.reported("start_failed")]
    assert details == ["/b was not ready within 2 s"] * 2


async def test_a_stop_takes_effect_before_the_next_attempt(world: World) -> None:
    """RFL-13, SHD-13"""

    async def fails_slowly(*, task_status: trio.TaskStatus[None]) -> None:
        world.starts["a"] += 1
        if world.starts["a"] == 1:
            task_status.started()
        else:
            await trio.sleep(1)
        raise world.boom

    async with world.open(ChildSpec("a", fails_slowly), limit=1000):
        await trio.sleep(3.5)
    assert (world.starts["a"], trio.current_time()) == (5, 3.5)


async def test_a_resource_taken_by_a_start_that_fails_is_free_for_the_next(
    world: World,
) -> None:
    """RFL-15, RFL-16, INI-06, INI-07, pitfall 40"""
    holders: set[int] = set()

    @asynccontextmanager
    async def lock(number: int) -> AsyncIterator[None]:
        assert not holders
        holders.add(number)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.25)
            holders.clear()

    async def holder(how: str, *, task_status: trio.TaskStatus[object]) -> None:
        world.starts["a"] += 1
        async with lock(world.starts["a"]):
            if how == "raise":
                raise world.boom
            if how == "stop":
                raise Stop(Shutdown("no wish to"))
            if how == "ignore":
                task_status.started(IGNORE)
            if how == "hang":
                await trio.sleep_forever()

    async with world.open() as root:
        for how in ["raise", "return", "stop", "hang", "ignore"] * 100:
            spec = ChildSpec(
                "a", holder, args=(how,), start_timeout=1.0, restart="temporary"
            )
            expected = StartTimeout if how == "hang" else ChildStartFailed
            with nullcontext() if how == "ignore" else pytest.raises(expected):
                await root.start_child(spec)
            assert not holders
            assert world.states(root) == {}


async def test_a_failed_restart_leaves_nothing_behind_a_hundred_times(
    world: World,
) -> None:
    """RFL-15"""
    async with world.open(world.child("a", fails=range(2, 102)), limit=101) as root:
        await world.crashed("a")
        info = world.info(root, "a")
        assert (info.incarnation, info.state) == (102, NodeState.RUNNING)
        assert len(world.directory) == 2


async def test_a_failed_attempt_is_reported_with_its_fault(world: World) -> None:
    async with world.open(world.child("a", fails=[2])):
        await world.crashed("a")
    [report] = world.reported("start_failed")
    assert isinstance(report.exit, Crash)
    assert (report.path, report.incarnation) == ("/a", 2)
    [restarted] = world.reported("restarted")
    assert restarted.incarnation == 3


class Forgetful:
    """A child that cannot read what it is to go on from, from its second start on."""

    def __init__(self) -> None:
        self.starts = 0
        self.end = trio.Event()

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts += 1
        if self.starts > 1:
            raise RestoreError("damaged")
        task_status.started()
        await self.end.wait()
        raise ValueError("torn")


async def test_a_child_that_cannot_be_restored_is_not_tried_again_but_stays_down_alone(
    world: World,
) -> None:
    child = Forgetful()
    async with world.open(ChildSpec("a", child), world.child("b"), limit=1) as root:
        child.end.set()
        await world.settle()
        assert child.starts == 2
        assert world.states(root) == {"a": "failed", "b": "running"}
        [report] = world.reported("start_failed")
        assert "stays down" in report.detail
        # The crash before it was counted, the start that failed was not.
        budget = world.directory.snapshot(trio.current_time())["/"].budget
        assert budget is not None
        assert budget[0] == 1


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_group_with_a_member_that_cannot_be_restored_is_down_at_once(
    world: World, strategy: str
) -> None:
    child = Forgetful()
    group = world.supervisor(
        "group", ChildSpec("a", child), world.child("b"), strategy=strategy, limit=9
    )
    async with world.open(group, world.child("c"), limit=1) as root:
        child.end.set()
        await world.settle()
        # Once in its group, and once with the whole of it.
        assert child.starts == 3
        assert world.states(root) == {"group": "failed", "c": "running"}
