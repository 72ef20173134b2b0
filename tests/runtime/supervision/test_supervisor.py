"""Starting, restarting, strategies, budgets and escalation, by the letter of OTP."""

from __future__ import annotations

import gc
import logging
import random
import time
import weakref
from collections import Counter
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildStartFailed,
    IntensityExceeded,
    StartTimeout,
)
from treewarden.exits import Crash, Killed, Normal, Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import (
    IGNORE,
    CauseKind,
    ChildCounts,
    ChildSpec,
    Intensity,
    NodeState,
    Stop,
    SupervisorRef,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.runtime.conftest import Books
    from tests.runtime.supervision.conftest import AllTasks, World

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
GROUPS = ["one_for_all", "rest_for_one"]
ENDS = ["normal", "shutdown", "shutdown with a detail", "crash", "killed"]


def counts(specs: int, active: int, supervisors: int, workers: int) -> ChildCounts:
    return ChildCounts(
        specs=specs, active=active, supervisors=supervisors, workers=workers
    )


def spent(world: World) -> int:
    """How much of the root's budget is gone."""
    budget = world.directory.snapshot(trio.current_time())["/"].budget
    assert budget is not None
    return budget[0]


def chance() -> random.Random:
    """The same numbers each time."""
    return random.Random(17)  # noqa: S311 - spreading, not secrecy


# --- starting (STA) ---------------------------------------------------------------------------


async def test_a_supervisor_without_children_starts_and_stops(
    world: World, all_tasks: AllTasks, caplog: pytest.LogCaptureFixture
) -> None:
    """STA-01"""
    caplog.set_level(logging.INFO)
    async with world.open() as root:
        assert root.count_children() == counts(0, 0, 0, 0)
    assert world.reports == []
    async with world.open(world.supervisor("sub")) as root:
        assert world.states(root) == {"sub": "running"}
        assert root.supervisor("sub").count_children() == counts(0, 0, 0, 0)
        await root.supervisor("sub").stop()
        assert "/sub" not in {task.name for task in all_tasks()}
        assert world.info(root, "sub").last_exit == Shutdown()
    assert caplog.messages == []


async def test_children_start_in_list_order_each_when_the_one_before_is_ready(
    world: World,
) -> None:
    """STA-08, INI-08, pitfall 31"""
    async with world.open(*(world.child(id_, start_takes=1.0) for id_ in "cab")):
        assert world.at == [(1.0, "start c"), (2.0, "start a"), (3.0, "start b")]


async def test_a_child_that_cannot_start_stops_those_before_it_and_is_the_error(
    world: World,
) -> None:
    """STA-04, STA-09, G7, INI-03, pitfall 42"""
    children = [world.child("a"), world.child("b"), world.child("c", fails=[1])]
    with pytest.raises(ChildStartFailed) as caught:
        async with world.open(*children, world.child("d")):
            pytest.fail("the block was entered")
    assert world.trace == ["start a", "start b", "fail c", "end b", "end a"]
    assert caught.value.path == "/c"
    assert isinstance(caught.value.exit, Crash)
    assert isinstance(caught.value.__cause__, world.boom)
    assert caught.value.__cause__.__traceback__ is not None
    ends = [(report.path, report.exit) for report in world.reported("exited")]
    assert ends == [("/b", Shutdown()), ("/a", Shutdown())]


async def test_a_failure_three_levels_down_is_told_with_every_level_and_its_cause(
    world: World,
) -> None:
    """STA-10, TRI-03"""
    leaf = world.child("leaf", fails=[1])
    with pytest.raises(ChildStartFailed) as caught:
        async with world.open(world.supervisor("top", world.supervisor("mid", leaf))):
            pytest.fail("the block was entered")
    paths: list[str] = []
    error: BaseException | None = caught.value
    while isinstance(error, ChildStartFailed):
        paths.append(error.path)
        error = error.__cause__
    assert paths == ["/top", "/top/mid", "/top/mid/leaf"]
    assert isinstance(error, world.boom)
    assert error.__traceback__ is not None


async def test_a_child_that_returns_before_it_is_ready_has_failed_to_start(
    world: World,
) -> None:
    """INI-09, INI-12, TA-6, pitfall 25"""

    async def forgetful(*, task_status: trio.TaskStatus[None]) -> None: ...

    with pytest.raises(ChildStartFailed, match="before it said that it was ready"):
        async with world.open(ChildSpec("a", forgetful)):
            pytest.fail("the block was entered")


async def test_a_child_that_is_not_ready_in_time_is_gone_before_that_is_told(
    world: World,
) -> None:
    """INI-02, pitfall 25, pitfall 43"""
    slow = world.child("slow", start_takes=60, start_timeout=2.0)
    with pytest.raises(StartTimeout, match="/slow was not ready within 2 s"):
        async with world.open(world.child("a"), slow):
            pytest.fail("the block was entered")
    assert world.at == [(0.0, "start a"), (2.0, "end a")]


async def test_a_supervisor_has_as_long_to_start_as_its_children_need(
    world: World,
) -> None:
    """STA-08: as in OTP, where only they have a limit; but one that is given counts."""
    slow = [world.child(id_, start_takes=20.0) for id_ in "abc"]
    async with world.open(world.supervisor("top", world.supervisor("sub", *slow))):
        assert trio.current_time() == 60
    with pytest.raises(StartTimeout, match="/sub was not ready within 30 s"):
        async with world.open(world.supervisor("sub", *slow, start_timeout=30.0)):
            pytest.fail("the block was entered")


async def test_a_child_that_absorbs_the_start_timeout_has_still_timed_out(
    world: World,
) -> None:
    """INI-18, TA-6"""

    async def swallows(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            world.note("swallowed")

    with pytest.raises(StartTimeout):
        async with world.open(ChildSpec("a", swallows, start_timeout=1.0)):
            pytest.fail("the block was entered")
    assert world.at == [(1.0, "swallowed")]


async def test_a_child_that_is_ready_too_late_is_stopped_all_the_same(
    world: World,
) -> None:
    """INI-17"""

    async def late(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            task_status.started()
            world.note("ready")

    with pytest.raises(StartTimeout):
        async with world.open(ChildSpec("a", late, start_timeout=1.0)):
            pytest.fail("the block was entered")
    assert world.at == [(1.0, "ready")]


async def test_saying_ready_twice_is_the_childs_own_error(world: World) -> None:
    """INI-17, pitfall 25"""

    async def twice(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        task_status.started()

    async with world.open(ChildSpec("a", twice, restart="temporary")):
        await world.settle()
    [report] = world.reported("exited")
    assert isinstance(report.exit, Crash)
    assert "started() was called twice" in report.exit.fault.message


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_crash_right_after_ready_is_a_crash_and_no_failed_start(
    world: World, strategy: str
) -> None:
    """INI-16, INT-16"""

    async def hasty(*, task_status: trio.TaskStatus[None]) -> None:
        world.note("start")
        task_status.started()
        raise world.boom

    with pytest.raises(IntensityExceeded):
        async with world.open(ChildSpec("a", hasty), strategy=strategy, limit=2):
            await trio.sleep_forever()
    assert world.cut() == ["start"] * 3
    assert len(world.reported("restarted")) == 2
    assert world.reported("start_failed") == []


async def test_a_sibling_that_crashes_during_a_start_waits_and_the_start_goes_on(
    world: World,
) -> None:
    """INI-19, pitfall 26"""

    async def crashes_soon() -> None:
        world.note("start a")
        await trio.sleep(1)
        raise world.boom

    first = ChildSpec("a", crashes_soon, restart="transient")
    async with world.open(first, world.child("b", start_takes=3), limit=1):
        await world.settle()
        assert world.at == [(0.0, "start a"), (3.0, "start b"), (3.0, "start a")]


# --- ignoring a start (IGN) ---------------------------------------------------------------------


@pytest.mark.parametrize("restart", ["permanent", "transient"])
async def test_a_child_that_ignores_its_start_is_kept_as_stopped(
    world: World, restart: str
) -> None:
    """IGN-01"""
    async with world.open(world.child("a", ignores=[1], restart=restart)) as root:
        assert world.states(root) == {"a": "stopped"}
        added = await root.start_child(world.child("b", ignores=[1], restart=restart))
        assert added is not None
        assert added.state is NodeState.STOPPED
        assert root.count_children() == counts(2, 0, 0, 2)
        assert (await root.restart_child("b")).state is NodeState.RUNNING
    assert len(world.reported("started")) == 1


async def test_a_temporary_child_that_ignores_its_start_is_not_kept(
    world: World,
) -> None:
    """IGN-02, IGN-03"""
    ignoring = world.child("a", ignores=[1], restart="temporary")
    async with world.open(ignoring, world.child("b")) as root:
        assert world.states(root) == {"b": "running"}
        again = world.child("c", ignores=[1], restart="temporary")
        assert await root.start_child(again) is None
        assert world.states(root) == {"b": "running"}


async def test_what_a_child_does_after_ignoring_its_start_is_waited_for_and_dropped(
    world: World,
) -> None:
    """IGN-01, INI-03"""

    async def lingers(*, task_status: trio.TaskStatus[object]) -> None:
        task_status.started(IGNORE)
        try:
            await trio.sleep_forever()
        finally:
            world.note("gone")
            raise world.boom

    async with world.open(ChildSpec("a", lingers)) as root:
        assert world.trace == ["gone"]
        assert world.states(root) == {"a": "stopped"}
    assert world.reports == []


async def test_whoever_starts_a_child_is_told_what_it_is_ready_with(
    world: World,
) -> None:
    """IGN-06, IGN-07, INI-17: a restart by itself tells nobody; it can be looked up."""
    async with world.open(world.dynamic()) as root:
        for supervisor, id_ in ((root, "a"), (root.supervisor("dyn"), "b")):
            # A scripted child is ready with the number of its start.
            added = await supervisor.start_child(world.child(id_))
            assert added is not None
            assert added.value == 1
            await world.crashed(id_)
            assert world.info(supervisor, id_).value == 2
            assert (await supervisor.bounce_child(id_)).value == 3
        await root.terminate_child("a")
        assert world.info(root, "a").value is None
        assert (await root.restart_child("a")).value == 4
        assert world.info(root, "dyn").value is None


async def test_the_value_is_handed_on_as_it_is_and_a_resource_gives_what_it_yields(
    world: World,
) -> None:
    """IGN-06"""
    value = object()

    async def child(*, task_status: trio.TaskStatus[object]) -> None:
        task_status.started(value)
        await trio.sleep_forever()

    @asynccontextmanager
    async def resource() -> AsyncIterator[object]:
        yield value

    async def says_nothing() -> None:
        await trio.sleep_forever()

    async with world.open() as root:
        told = [
            await root.start_child(ChildSpec(start.__name__, start))
            for start in (child, resource, says_nothing)
        ]
        assert [one.value for one in told if one is not None] == [value, value, None]


async def test_a_restart_that_is_ignored_leaves_a_permanent_child_stopped(
    world: World,
) -> None:
    """IGN-05, RFL-09"""
    async with world.open(world.child("a", ignores=[2])) as root:
        await world.crashed("a")
        assert world.states(root) == {"a": "stopped"}


# --- restart types (RST) ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
async def test_a_permanent_child_always_comes_back(world: World, how: str) -> None:
    """RST-01, RST-02, RST-03, G10"""
    async with world.open(world.child("a"), limit=1) as root:
        await world.ended("a", how)
        assert world.incarnations(root) == {"a": 2}
        assert root.count_children() == counts(1, 1, 0, 1)


@pytest.mark.parametrize("how", ENDS)
async def test_a_transient_child_comes_back_after_a_crash_or_a_kill_only(
    world: World, how: str
) -> None:
    """RST-04, RST-05, RST-06, G18"""
    async with world.open(world.child("a", restart="transient"), limit=1) as root:
        await world.ended("a", how)
        if how in {"crash", "killed"}:
            assert world.incarnations(root) == {"a": 2}
        else:
            assert world.states(root) == {"a": "stopped"}
            assert root.count_children() == counts(1, 0, 0, 1)
            assert (await root.restart_child("a")).incarnation == 2


@pytest.mark.parametrize("how", ENDS)
async def test_a_temporary_child_never_comes_back_and_its_id_is_free(
    world: World, how: str
) -> None:
    """RST-07"""
    spec = world.child("a", restart="temporary")
    async with world.open(spec, limit=0) as root:
        await world.ended("a", how)
        assert root.count_children() == counts(0, 0, 0, 0)
        again = await root.start_child(spec)
        assert again is not None
        assert again.incarnation == 2


@pytest.mark.parametrize("strategy", GROUPS)
async def test_a_temporary_bystander_is_stopped_with_the_group_and_not_started(
    world: World, strategy: str
) -> None:
    """RST-08"""
    bystander = world.child("b", restart="temporary")
    async with world.open(world.child("a"), bystander, strategy=strategy) as root:
        await world.crashed("a")
        assert world.trace == ["start a", "start b", "end a", "end b", "start a"]
        assert world.states(root) == {"a": "running"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("how", ["killed", "normal", "crash", "by hand"])
async def test_what_is_kept_of_a_child_depends_on_its_type_and_end_alone(
    world: World, strategy: str, restart: str, how: str
) -> None:
    """RST-09"""
    spec = world.child("a", restart=restart)
    async with world.open(spec, strategy=strategy) as root:
        if how == "by hand":
            await root.terminate_child("a")
        else:
            await world.ended("a", how)
        kept = restart != "temporary"
        stays_down = how == "by hand" or (restart == "transient" and how == "normal")
        expected = {"a": "stopped" if stays_down else "running"} if kept else {}
        assert world.states(root) == expected
        if not kept:
            await root.start_child(spec)
        else:
            with pytest.raises(AlreadyPresent if stays_down else AlreadyStarted):
                await root.start_child(spec)
        if kept and stays_down:
            await root.restart_child("a")
        assert world.states(root) == {"a": "running"}


class Big:
    """Something that a child is given."""


async def test_what_a_temporary_child_was_given_goes_with_it(
    world: World, balanced_books: Books
) -> None:
    """RST-10: while it is there it can be bounced, and is given the same again."""
    starts: list[int] = []
    doors: list[trio.Event] = []
    given: list[weakref.ref[Big]] = []

    async def child(big: Big) -> None:
        starts.append(id(big))
        doors.append(door := trio.Event())
        await door.wait()

    async def come_and_go(supervisor: SupervisorRef, *, by_hand: bool) -> None:
        big = Big()
        given.append(weakref.ref(big))
        spec = ChildSpec("x", child, args=(big,), restart="temporary")
        await supervisor.start_child(spec)
        await supervisor.bounce_child("x")
        await world.settle()
        assert starts[-2:] == [id(big)] * 2
        if by_hand:
            await supervisor.terminate_child("x")
        doors[-1].set()
        await world.settle()

    async with world.open(world.dynamic()) as root:
        # What this test writes down of it is not the supervisor's.
        hear, world.directory.reporter = world.directory.reporter, None
        for supervisor in (root, root.supervisor("dyn")):
            await come_and_go(supervisor, by_hand=False)
            await come_and_go(supervisor, by_hand=True)
        balanced_books._last.clear()
        gc.collect()
        assert [ref() for ref in given] == [None] * 4
        world.directory.reporter = hear


async def test_ends_that_restart_nobody_cost_nothing_and_touch_no_sibling(
    world: World,
) -> None:
    """RST-11, INT-10, G8, pitfall 8"""
    children = [
        world.child("a"),
        world.child("x", restart="temporary"),
        world.child("t", restart="transient"),
    ]
    async with world.open(*children, strategy="one_for_all", limit=0) as root:
        await world.crashed("x")
        await world.ended("t", "normal")
        assert world.states(root) == {"a": "running", "t": "stopped"}
        assert world.incarnations(root)["a"] == 1


async def test_a_permanent_child_that_returns_takes_its_group_along(
    world: World,
) -> None:
    """RST-12, G7b"""
    pair = [world.child("a"), world.child("b")]
    async with world.open(*pair, strategy="one_for_all") as root:
        await world.ended("a", "normal")
        assert world.incarnations(root) == {"a": 2, "b": 2}


async def test_a_permanent_function_that_returns_at_once_ends_at_the_limit(
    world: World,
) -> None:
    """RST-16: and the error says what such a function should be."""
    calls = 0

    async def returns() -> None:
        nonlocal calls
        calls += 1

    with pytest.raises(IntensityExceeded, match='restart="temporary"'):
        async with world.open(ChildSpec("a", returns), limit=3):
            await trio.sleep_forever()
    assert calls == 4


async def test_a_child_that_cancels_a_scope_of_its_own_and_returns_is_normal(
    world: World,
) -> None:
    """RST-17, pitfall 35"""

    async def cancels_itself() -> None:
        with trio.move_on_after(1):
            await trio.sleep_forever()

    async def times_out() -> None:
        with trio.fail_after(2):
            await trio.sleep_forever()

    pair = [
        ChildSpec("a", cancels_itself, restart="transient"),
        ChildSpec("b", times_out, restart="temporary"),
    ]
    async with world.open(*pair):
        await trio.sleep(3)
    first, second = (report.exit for report in world.reported("exited"))
    assert first == Normal()
    assert isinstance(second, Crash)
    assert second.fault.type == "trio.TooSlowError"


# --- strategies (STR) ---------------------------------------------------------------------------


async def test_one_for_one_restarts_the_one_that_crashed(world: World) -> None:
    """STR-01"""
    async with world.open(world.child("a"), world.child("b")) as root:
        await world.crashed("a")
        assert world.incarnations(root) == {"a": 2, "b": 1}
        assert root.count_children() == counts(2, 2, 0, 2)


async def test_one_for_all_restarts_everybody(world: World) -> None:
    """STR-02"""
    trio_ = [world.child(id_) for id_ in "abc"]
    async with world.open(*trio_, strategy="one_for_all") as root:
        world.cut()
        await world.crashed("b")
        assert world.trace == [
            *("end b", "end c", "end a"),
            *("start a", "start b", "start c"),
        ]
        assert world.incarnations(root) == {"a": 2, "b": 2, "c": 2}


async def test_rest_for_one_restarts_those_started_after_the_one_that_crashed(
    world: World,
) -> None:
    """STR-03, STR-04, SHD-07"""
    five = [world.child(id_) for id_ in ("e", "b", "d", "a", "c")]
    async with world.open(*five, strategy="rest_for_one") as root:
        world.cut()
        await world.crashed("d")
        assert world.cut() == [
            *("end d", "end c", "end a"),
            *("start d", "start a", "start c"),
        ]
        assert world.incarnations(root) == {"e": 1, "b": 1, "d": 2, "a": 2, "c": 2}
    assert world.trace == ["end c", "end a", "end d", "end b", "end e"]


async def test_each_dynamic_child_comes_back_with_what_it_was_given(
    world: World,
) -> None:
    """STR-13"""
    seen: Counter[str] = Counter()

    async def takes(word: str) -> None:
        seen[word] += 1
        if word == "torn" and seen[word] < 3:
            raise world.boom
        await trio.sleep_forever()

    async with world.open(world.dynamic()) as root:
        dyn = root.supervisor("dyn")
        for word in ("whole", "torn", "other"):
            await dyn.start_child(ChildSpec(word, takes, args=(word,)))
        await world.settle()
        assert seen == {"whole": 1, "torn": 3, "other": 1}
        assert world.incarnations(dyn) == seen


async def test_a_child_added_at_run_time_is_the_last_in_order(world: World) -> None:
    """STR-11"""
    async with world.open(world.child("b"), strategy="rest_for_one") as root:
        await root.start_child(world.child("a"))
        await world.crashed("b")
        assert world.incarnations(root) == {"b": 2, "a": 2}
        await world.crashed("a")
        assert world.incarnations(root) == {"b": 2, "a": 3}


async def test_a_crash_in_a_subtree_changes_that_worker_alone(world: World) -> None:
    """STR-05"""
    left = world.supervisor("left", world.child("a"), world.child("b"))
    right = world.supervisor("right", world.child("c"))
    async with world.open(left, right, strategy="one_for_all") as root:
        await world.crashed("a")
        assert world.incarnations(root.supervisor("left")) == {"a": 2, "b": 1}
        assert world.incarnations(root) == {"left": 1, "right": 1}


async def test_a_subtree_that_gives_up_comes_back_with_its_own_children_only(
    world: World,
) -> None:
    """STR-05, ESC-05"""
    left = world.supervisor("left", world.child("a"), limit=0)
    right = world.supervisor("right", world.child("c"))
    idle = world.supervisor("idle", world.child("d"), restart="transient")
    async with world.open(left, right, idle, strategy="one_for_all") as root:
        await root.supervisor("left").start_child(world.child("added"))
        await root.terminate_child("idle")
        world.cut()
        await world.crashed("a")
        assert world.cut() == [
            *("end a", "end added", "end c"),
            *("start a", "start c", "start d"),
        ]
        assert world.states(root.supervisor("left")) == {"a": "running"}
        assert world.incarnations(root) == {"left": 2, "right": 2, "idle": 2}


async def test_a_group_restart_revives_what_had_ended_or_been_stopped_by_hand(
    world: World,
) -> None:
    """STR-06, G9"""
    children = [
        world.child("a"),
        world.child("b", restart="transient"),
        world.child("c"),
    ]
    async with world.open(*children, strategy="rest_for_one") as root:
        await world.ended("b", "normal")
        await world.crashed("a")
        assert world.states(root)["b"] == "running"
        await root.terminate_child("c")
        await world.crashed("a")
        assert world.states(root) == dict.fromkeys("abc", "running")


@pytest.mark.parametrize(
    ("strategy", "restarts"), [("one_for_all", 1), ("one_for_one", 2)]
)
def test_two_crashes_in_one_moment_are_one_restart_of_a_group_under_every_seed(
    new_world: Callable[[], World],
    play: Callable[..., None],
    strategy: str,
    restarts: int,
) -> None:
    """STR-07, G4, pitfalls 5 and 44"""
    for seed in range(50):
        world = new_world()

        async def main(world: World = world) -> None:
            pair = [world.child("a"), world.child("b")]
            async with world.open(*pair, strategy=strategy, limit=restarts) as root:
                await world.crashed("a", "b")
                assert world.incarnations(root) == {"a": 2, "b": 2}
                assert len(world.trace) == 6
                assert spent(world) == restarts

        play(main, seed=seed)
        assert world.violations() == []


@pytest.mark.parametrize("strategy", GROUPS)
async def test_a_sibling_that_fails_while_it_is_stopped_starts_no_second_round(
    world: World, strategy: str
) -> None:
    """STR-08"""

    async def spoils() -> None:
        world.note("start b")
        try:
            await trio.sleep_forever()
        finally:
            raise world.boom("late")

    pair = [world.child("a"), ChildSpec("b", spoils)]
    async with world.open(*pair, strategy=strategy, limit=1) as root:
        await world.settle()
        world.cut()
        await world.crashed("a")
        assert world.trace == ["end a", "start a", "start b"]
        assert world.incarnations(root) == {"a": 2, "b": 2}
        assert isinstance(world.info(root, "b").last_exit, Crash)
        assert spent(world) == 1


async def test_nobody_of_a_group_starts_before_the_last_has_ended(
    world: World,
) -> None:
    """STR-08, STR-09, pitfall 41"""
    slow = world.child("b", stop_takes=4.0)
    trio_ = [world.child("a"), slow, world.child("c")]
    async with world.open(*trio_, strategy="one_for_all", limit=1) as root:
        await world.crashed("a")
        await trio.sleep(10)
        assert world.at[3:] == [
            *((0.0, "end a"), (0.0, "end c"), (4.0, "end b")),
            *((4.0, "start a"), (4.0, "start b"), (4.0, "start c")),
        ]
        assert world.incarnations(root) == {"a": 2, "b": 2, "c": 2}


async def test_a_sibling_that_overruns_is_killed_and_the_group_restart_goes_on(
    world: World,
) -> None:
    """STR-10"""
    slow = world.child("b", stop_takes=60.0, shutdown=2.0)
    async with world.open(world.child("a"), slow, strategy="one_for_all") as root:
        await world.crashed("a")
        await trio.sleep(5)
        assert world.at[4:] == [(2.0, "start a"), (2.0, "start b")]
        assert world.info(root, "b").last_exit == Killed()
        await root.terminate_child("b")


async def test_why_tells_who_began_and_whom_it_took_along(world: World) -> None:
    trio_ = [world.child(id_) for id_ in "abc"]
    async with world.open(*trio_, strategy="rest_for_one"):
        await world.crashed("b")
    first, second = (report.cause for report in world.reported("restarted"))
    assert first is not None
    assert second is not None
    assert (first.kind, first.origin) == (CauseKind.CRASH, "/b")
    assert first.took_down == ("/c",)
    assert (second.kind, second.origin) == (CauseKind.GROUP, "/b")
    assert second.took_down == ()
    assert isinstance(second.exit, Crash)


# --- budgets (INT) ------------------------------------------------------------------------------


async def test_spaced_crashes_never_spend_a_budget(world: World) -> None:
    """INT-01"""
    async with world.open(world.child("a"), limit=1, period=1.0) as root:
        for _ in range(4):
            await world.crashed("a")
            await trio.sleep(2.1)
        assert world.incarnations(root) == {"a": 5}
        await root.terminate_child("a")
        await root.delete_child("a")
        assert world.states(root) == {}


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_the_budget_belongs_to_the_supervisor_and_not_to_each_child(
    world: World, strategy: str
) -> None:
    """INT-02, INT-05, INT-11, G3, pitfalls 3, 4 and 9"""
    trio_ = [world.child(id_) for id_ in "abc"]
    with pytest.raises(IntensityExceeded) as caught:
        async with world.open(*trio_, strategy=strategy, limit=2):
            await world.crashed("a")
            await world.crashed("b")
            world.cut()
            await world.crashed("c")
            pytest.fail("the block went on")
    assert caught.value.spent == ("a", "b", "c")
    assert world.trace == ["end c", "end b", "end a"]
    assert caught.value.fault is not None
    assert caught.value.fault.path == "/c"
    [report] = world.reported("gave_up")
    assert (report.path, "too many restarts of a, b, c" in report.detail) == ("/", True)


async def test_a_budget_of_zero_ends_the_supervisor_at_the_first_crash(
    world: World,
) -> None:
    """INT-03, G1, G16, ESC-03"""
    trio_ = [world.child(id_) for id_ in "xay"]
    sub = world.supervisor("sub", *trio_, limit=0, restart="temporary")
    async with world.open(sub) as root:
        await world.crashed("a")
        assert world.states(root) == {}
    assert world.trace[3:] == ["end a", "end y", "end x"]
    exits = [(report.path, report.exit) for report in world.reported("exited")]
    assert [path for path, _ in exits] == ["/sub/a", "/sub/y", "/sub/x", "/sub"]
    assert [exit_ for _, exit_ in exits[1:3]] == [Shutdown(), Shutdown()]
    _, gave_up = exits[-1]
    assert isinstance(gave_up, Crash)
    assert gave_up.fault.type.endswith(".IntensityExceeded")


async def test_every_failed_attempt_to_restart_costs_one(world: World) -> None:
    """INT-06, G5, pitfalls 1 and 7: no time passes, and others get their turns."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        with pytest.raises(IntensityExceeded):
            async with world.open(world.child("a", fails=range(2, 99)), limit=5):
                world.crash("a")
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert world.starts["a"] == 6
    assert ticks > 6
    assert trio.current_time() == 0.0


async def test_restarts_by_hand_cost_nothing(world: World) -> None:
    """INT-08, G8m, pitfall 8"""
    with pytest.raises(IntensityExceeded):
        async with world.open(world.child("a"), limit=1) as root:
            for _ in range(5):
                await root.terminate_child("a")
                await root.restart_child("a")
                await root.bounce_child("a")
            await world.crashed("a")  # the whole budget is still there
            await world.crashed("a")
            pytest.fail("the block went on")
    assert world.starts["a"] == 1 + 10 + 1


async def test_restarts_by_hand_are_free_where_no_other_is_allowed(
    world: World,
) -> None:
    """INT-08, G8m"""
    async with world.open(world.child("a"), limit=0) as root:
        for _ in range(5):
            await root.terminate_child("a")
            await root.restart_child("a")
        assert world.incarnations(root) == {"a": 6}


async def test_a_return_of_a_permanent_child_costs_as_much_as_a_crash(
    world: World,
) -> None:
    """INT-09, G10"""
    with pytest.raises(IntensityExceeded):
        async with world.open(world.child("a"), limit=1):
            await world.ended("a", "normal")
            await world.ended("a", "normal")
            pytest.fail("the block went on")
    assert world.starts["a"] == 2


async def test_stepping_the_wall_clock_changes_no_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INT-15, TA-9, pitfall 2"""
    real_ns, real = time.time_ns, time.time

    def step(seconds: int) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + seconds * 10**9)

    with pytest.raises(IntensityExceeded):
        async with world.open(world.child("a"), limit=3, period=5.0):
            for seconds in (3600, -3600, 7200):
                step(seconds)
                await world.crashed("a")
            await trio.sleep(5.1)  # trio forgets these, whatever the wall says
            for seconds in (7200, 3600, -7200):
                step(seconds)
                await world.crashed("a")
            step(36_000)  # for the wall, the last one was half a day ago
            await world.crashed("a")
            pytest.fail("the block went on")
    assert world.starts["a"] == 1 + 3 + 3


async def test_a_round_that_takes_longer_than_the_period_never_spends_the_budget(
    world: World,
) -> None:
    """INT-16: pitfall 10; as in OTP the limit counts restarts, whatever each costs."""
    slow = world.child("a", start_takes=3.0, stop_takes=1.0)
    async with world.open(slow, limit=1, period=2.0) as root:
        for _ in range(10):
            world.crash("a")
            await trio.sleep(5)
        assert world.incarnations(root) == {"a": 11}


async def test_a_budget_does_not_survive_the_supervisors_own_restart(
    world: World,
) -> None:
    """INT-18"""
    sub = world.supervisor("sub", world.child("a"), limit=1)
    async with world.open(sub, limit=1) as root:
        for _ in range(3):
            await world.crashed("a")
        assert world.incarnations(root) == {"sub": 2}
        assert world.states(root.supervisor("sub")) == {"a": "running"}


async def test_a_child_that_spends_its_own_budget_fails_alone(world: World) -> None:
    """Design 5: it costs its supervisor and its siblings nothing."""
    poor = world.child("a", intensity=Intensity(1, 5.0))
    async with world.open(poor, world.child("b"), limit=0) as root:
        await world.crashed("a")
        await world.crashed("a")
        assert world.states(root) == {"a": "failed", "b": "running"}
        assert world.incarnations(root) == {"a": 2, "b": 1}
        [report] = world.reported("failed")
        assert report.path == "/a"
        await trio.sleep(6)
        assert (await root.restart_child("a")).state is NodeState.RUNNING


async def test_failed_attempts_spend_a_childs_own_budget_too(world: World) -> None:
    """INT-06"""
    poor = world.child("a", fails=range(2, 99), intensity=Intensity(4, 5.0))
    async with world.open(poor, limit=0) as root:
        await world.crashed("a")
        assert world.states(root) == {"a": "failed"}
        assert world.starts["a"] == 5


async def test_backoff_waits_longer_after_each_failure_up_to_its_maximum(
    world: World,
) -> None:
    """INT-17"""
    patience = Backoff(initial=1.0, maximum=4.0, factor=2.0, jitter=0.0)
    lazy = world.child("a", fails=range(2, 6), backoff=patience)
    async with world.open(lazy, limit=10) as root:
        world.crash("a")
        await trio.sleep(2)
        assert world.states(root) == {"a": "restarting"}
        await trio.sleep(30)
        assert world.at[2:] == [
            *((1.0, "fail a"), (3.0, "fail a"), (7.0, "fail a"), (11.0, "fail a")),
            (15.0, "start a"),
        ]
        await trio.sleep(5)
        world.crash("a")
        await trio.sleep(1.5)
        assert world.at[-1] == (38.0, "start a")


async def test_each_wait_of_a_backoff_is_drawn_from_the_trees_own_chance(
    world: World,
) -> None:
    """INT-17: so that a test may decide it; the cap is one of what chance takes from."""
    patience = Backoff(initial=1.0, maximum=4.0, factor=2.0, jitter=0.5)
    lazy = world.child("a", fails=range(2, 6), backoff=patience)
    async with world.open(lazy, limit=10) as root:
        root.directory.random = chance()
        world.crash("a")
        await trio.sleep(60)
    drawn = chance()
    waits = [most * (1 - drawn.random() / 2) for most in (1.0, 2.0, 4.0, 4.0, 4.0)]
    tries = [at for at, what in world.at if what in {"fail a", "start a"}]
    assert tries == pytest.approx([0.0, *accumulate(waits)])


async def test_children_that_failed_together_do_not_come_back_together(
    world: World,
) -> None:
    """INT-17"""
    patience = Backoff(initial=10.0, maximum=10.0, jitter=1.0)
    ids = [f"c{number}" for number in range(20)]
    async with world.open(
        *(world.child(id_, backoff=patience) for id_ in ids), limit=20
    ) as root:
        root.directory.random = chance()
        world.cut()
        world.crash(*ids)
        await trio.sleep(10)
        back = [at for at, what in world.at[len(ids) :] if what.startswith("start")]
        assert len(set(back)) == len(back) == len(ids)
        assert 0.0 < min(back) < 2.0 < 8.0 < max(back) < 10.0


async def test_attempts_after_a_backoff_are_counted_like_all_others(
    world: World,
) -> None:
    """INT-17"""
    patience = Backoff(initial=1.0, maximum=1.0, jitter=0.0)
    lazy = world.child("a", fails=range(2, 99), backoff=patience)
    with pytest.raises(IntensityExceeded):
        async with world.open(lazy, limit=3):
            world.crash("a")
            await trio.sleep_forever()
    assert (world.starts["a"], trio.current_time()) == (4, 3.0)


async def test_a_supervisor_answers_and_stops_at_once_during_a_backoff(
    world: World,
) -> None:
    """INT-17, pitfall 37"""
    patience = Backoff(initial=1000.0, maximum=1000.0, jitter=0.0)
    async with world.open(world.child("a", backoff=patience)) as root:
        await world.crashed("a")
        await root.start_child(world.child("b"))
        assert world.states(root) == {"a": "restarting", "b": "running"}
    assert trio.current_time() == 0.0
    await trio.sleep(2000)
    assert world.starts["a"] == 1


async def test_a_group_restart_takes_over_a_child_that_waits_in_its_backoff(
    world: World,
) -> None:
    """Pitfall 37: it is started once, not again when its own wait is over."""
    patience = Backoff(initial=10.0, maximum=10.0, jitter=0.0)
    pair = [world.child("a"), world.child("b", backoff=patience)]
    async with world.open(*pair, strategy="one_for_all") as root:
        await world.crashed("b")
        await world.crashed("a")
        assert world.incarnations(root) == {"a": 2, "b": 2}
        await trio.sleep(20)
        assert world.incarnations(root) == {"a": 2, "b": 2}


# --- escalation (ESC) ---------------------------------------------------------------------------


async def test_a_child_that_cannot_start_again_takes_its_healthy_sibling_along(
    world: World,
) -> None:
    """ESC-01"""
    pair = [world.child("a", fails=range(2, 99)), world.child("b")]
    sub = world.supervisor("sub", *pair, limit=4, restart="temporary")
    async with world.open(sub) as root:
        await world.crashed("a")
        assert world.trace[2:] == ["end a", *["fail a"] * 4, "end b"]
        assert world.states(root) == {}


@pytest.mark.parametrize("strategy", GROUPS)
async def test_a_group_gives_up_when_another_of_it_cannot_start(
    world: World, strategy: str
) -> None:
    """ESC-02"""
    pair = [world.child("a"), world.child("b", fails=range(2, 99))]
    sub = world.supervisor(
        "sub", *pair, strategy=strategy, limit=2, restart="temporary"
    )
    async with world.open(sub) as root:
        await world.crashed("a")
        assert world.starts["b"] == 3
        assert not world.is_up("a")
        assert world.states(root) == {}


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_supervisor_that_gave_up_counts_as_crashed_for_its_parent(
    world: World, restart: str
) -> None:
    """ESC-04, G6, pitfall 13, as overruled by design 5: a transient one is restarted too."""
    sub = world.supervisor("sub", world.child("a"), limit=0, restart=restart)
    async with world.open(sub) as root:
        await world.crashed("a")
        expected = {} if restart == "temporary" else {"sub": 2}
        assert world.incarnations(root) == expected
    [report] = world.reported("gave_up")
    assert report.path == "/sub"


async def test_each_level_spends_one_of_its_own_for_each_failure_below(
    world: World,
) -> None:
    """ESC-07"""
    starts = 0

    async def leaf() -> None:
        nonlocal starts
        starts += 1
        raise world.boom

    low = world.supervisor("low", ChildSpec("leaf", leaf), limit=1)
    with pytest.raises(IntensityExceeded) as caught:
        async with world.open(world.supervisor("mid", low, limit=2), limit=3):
            await trio.sleep_forever()
    assert starts == (1 + 1) * (2 + 1) * (3 + 1)
    assert (caught.value.path, caught.value.spent) == ("/", ("mid",) * 4)


async def test_a_transient_child_can_stop_itself_from_inside_a_nursery(
    world: World,
) -> None:
    """RST-18, TA-7, pitfall 28"""

    async def stops() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            outer.start_soon(trio.sleep_forever)
            raise Stop(Shutdown("done"))

    async with world.open(ChildSpec("a", stops, restart="transient")) as root:
        await world.settle()
        assert world.info(root, "a").last_exit == Shutdown("done")


async def test_a_tree_may_be_deeper_than_the_stack_of_python(world: World) -> None:
    """STA-08: so deep that nobody can hear of all of them in one turn."""
    spec = world.child("leaf")
    for level in range(300):
        spec = world.supervisor(f"s{level}", spec)
    with trio.fail_after(10):
        async with world.open(spec):
            await world.crashed("leaf")
            assert world.starts["leaf"] == 2


async def test_who_has_ended_is_not_shown_as_running_while_another_starts(
    world: World,
) -> None:
    """MGT-05, MGT-13: what comes next is decided when the start is over."""
    pair = [world.child("a"), world.child("t", restart="transient")]
    async with world.open(*pair) as root, trio.open_nursery() as nursery:
        nursery.start_soon(root.start_child, world.child("slow", start_takes=5.0))
        await world.settle()
        world.crash("a")
        world.tell("t", None)
        await trio.sleep(1)
        assert world.states(root) == {
            "a": "restarting",
            "t": "stopping",
            "slow": "starting",
        }
        assert root.count_children().active == 0
        await trio.sleep(5)
        assert world.states(root) == {"a": "running", "t": "stopped", "slow": "running"}
