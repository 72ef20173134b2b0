"""Dynamic supervisors as children: what they are made of, take, list and refuse."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import Agent
from treewarden.errors import (
    AlreadyStarted,
    IntensityExceeded,
    TooManyChildren,
    UnknownChild,
)
from treewarden.exits import Killed, Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    Kind,
    PartitionSupervisorSpec,
    SupervisorRef,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.runtime.supervision.conftest import World

PATIENT = Backoff(initial=10.0, maximum=10.0, jitter=0.0)


class Idle(Agent[None]):
    persistence = "none"


async def stay() -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def resource() -> AsyncIterator[None]:
    yield


async def test_several_can_be_children_of_one_supervisor_under_different_ids(
    world: World,
) -> None:
    """DYN-01"""
    async with world.open(world.dynamic("one"), world.dynamic("two")) as root:
        for id_ in ("one", "two"):
            await root.supervisor(id_).start_child(ChildSpec("same", stay))
        assert world.states(root) == {"one": "running", "two": "running"}
        paths = [
            child.path
            for id_ in ("one", "two")
            for child in root.supervisor(id_).which_children()
        ]
        assert paths == ["/one/same", "/two/same"]
        with pytest.raises(AlreadyStarted):
            await root.start_child(world.dynamic("one"))


def test_two_of_one_id_under_one_parent_are_refused() -> None:
    """DYN-01"""
    twin = ChildSpec("dyn", DynamicSupervisorSpec())
    with pytest.raises(ValueError, match="two children have the id 'dyn'"):
        SupervisorSpec([twin, twin])


async def test_a_supervisor_of_no_children_refuses_all(world: World) -> None:
    """DYN-02"""
    async with world.open(world.dynamic(max_children=0)) as root:
        dyn = root.supervisor("dyn")
        for _ in range(2):
            with pytest.raises(TooManyChildren, match="/dyn has its 0 children"):
                await dyn.start_child(world.child("a"))
        assert dyn.which_children() == []
    assert world.starts["a"] == 0


async def test_a_child_that_is_gone_makes_room(world: World) -> None:
    """DYN-02"""
    async with world.open(world.dynamic(max_children=1)) as root:
        dyn = root.supervisor("dyn")
        for how in ("normal", "crash", "killed"):
            await dyn.start_child(world.child("a", restart="temporary"))
            with pytest.raises(TooManyChildren):
                await dyn.start_child(world.child("b"))
            await world.ended("a", how)
        assert dyn.which_children() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategy": "one_for_one"}, TypeError, "strategy"),
        ({"auto_shutdown": "any_significant"}, TypeError, "auto_shutdown"),
        ({"extra_arguments": [1]}, TypeError, "extra_arguments"),
        ({"intensity": 3}, TypeError, "intensity must be an Intensity, not 3"),
        ({"child_intensity": 3}, TypeError, "child_intensity must be .*, not 3"),
        ({"max_children": -1}, ValueError, "max_children must be .*, not -1"),
        ({"max_children": 1.5}, ValueError, r"max_children must be .*, not 1\.5"),
        ({"max_children": math.nan}, ValueError, "max_children must be .*, not nan"),
        ({"max_children": True}, ValueError, "max_children must be .*, not True"),
        ({"max_children": "9"}, ValueError, "max_children must be .*, not '9'"),
        ({"max_children": None}, ValueError, "max_children must be .*, not None"),
    ],
)
def test_bad_options_are_refused_at_construction(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """DYN-03"""
    with pytest.raises(error, match=message):
        DynamicSupervisorSpec(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 5.0), "limit must be >= 0, not -1"),
        ((3, 0.0), r"period must be > 0 and finite, not 0\.0"),
        ((3, -1.0), r"period must be > 0 and finite, not -1\.0"),
    ],
)
def test_a_bad_budget_is_refused_before_there_is_a_supervisor(
    arguments: tuple[int, float], message: str
) -> None:
    """DYN-03"""
    with pytest.raises(ValueError, match=message):
        DynamicSupervisorSpec(intensity=Intensity(*arguments))


@pytest.mark.parametrize(
    ("shutdown", "exit_", "seconds"),
    [
        (0, Killed(), 0.0),
        (2.0, Killed(), 2.0),
        (9.0, Shutdown(), 3.0),
        (math.inf, Shutdown(), 3.0),
    ],
)
async def test_a_child_is_terminated_within_its_shutdown_time(
    world: World, shutdown: float, exit_: object, seconds: float
) -> None:
    """DYN-05"""
    async with world.open(world.dynamic()) as root:
        dyn = root.supervisor("dyn")
        await dyn.start_child(world.child("a", stop_takes=3.0, shutdown=shutdown))
        await dyn.terminate_child("a")
        assert trio.current_time() == seconds
        assert dyn.which_children() == []
        with pytest.raises(UnknownChild):
            await dyn.terminate_child("a")
    assert next(report.exit for report in world.reported("exited")) == exit_


async def test_a_child_that_waits_for_its_restart_can_be_terminated(
    world: World,
) -> None:
    """DYN-05"""
    async with world.open(world.dynamic(limit=9)) as root:
        dyn = root.supervisor("dyn")
        await dyn.start_child(world.child("a", backoff=PATIENT))
        await world.crashed("a")
        assert world.states(dyn) == {"a": "restarting"}
        await dyn.terminate_child("a")
        await trio.sleep(30)
        assert world.states(dyn) == {}
    assert world.starts["a"] == 1


STARTS = {
    "agent": (Idle, Kind.AGENT),
    "function": (stay, Kind.TASK),
    "resource": (resource, Kind.TASK),
    "supervisor": (SupervisorSpec([ChildSpec("leaf", stay)]), Kind.SUPERVISOR),
    "dynamic": (DynamicSupervisorSpec(), Kind.SUPERVISOR),
    "partitions": (PartitionSupervisorSpec(stay, partitions=2), Kind.SUPERVISOR),
}


@pytest.mark.parametrize("form", STARTS)
async def test_every_form_of_start_is_taken_and_comes_back_after_a_restart(
    world: World, form: str
) -> None:
    """DYN-06"""
    start, kind = STARTS[form]
    async with world.open(world.dynamic()) as root:
        dyn = root.supervisor("dyn")
        started = await dyn.start_child(ChildSpec("a", start))
        assert started is not None
        assert (started.kind, started.state) == (kind, "running")
        again = await dyn.bounce_child("a")
        assert (again.kind, again.state, again.incarnation) == (kind, "running", 2)


@pytest.mark.parametrize(
    "old", [("a", stay), {"id": "a", "start": stay}, stay, Idle, "a", None]
)
async def test_what_is_no_child_spec_is_refused_with_the_value(
    world: World, old: Any
) -> None:
    """DYN-06"""
    async with world.open(world.dynamic()) as root:
        with pytest.raises(TypeError, match="start_child takes a ChildSpec, not"):
            await root.supervisor("dyn").start_child(old)


async def test_arguments_bound_for_all_children_are_given_at_every_start(
    world: World,
) -> None:
    """RFL-12: what Elixir calls extra arguments is `functools.partial`."""
    given: list[tuple[str, int]] = []

    async def work(extra: str, number: int, *, fail: bool = False) -> None:
        given.append((extra, number))
        if fail and given.count((extra, number)) == 1:
            raise world.boom("once")
        await trio.sleep_forever()

    ours = partial(work, "ours")
    async with world.open(world.dynamic()) as root:
        dyn = root.supervisor("dyn")
        for number in range(2):
            spec = ChildSpec(f"w{number}", ours, args=[number], kwargs={"fail": True})
            await dyn.start_child(spec)
        await world.settle()
        await dyn.bounce_child("w1")
        await world.settle()
    assert sorted(given) == [("ours", 0)] * 2 + [("ours", 1)] * 3


# --- inspection -----------------------------------------------------------------------------


async def test_supervisors_of_all_kinds_answer_the_same_questions(
    world: World,
) -> None:
    """MGT-18"""
    fixed = SupervisorSpec([ChildSpec("0", stay), ChildSpec("1", Idle)])
    kinds: dict[str, object] = {
        "static": fixed,
        "dynamic": DynamicSupervisorSpec(),
        "partitions": PartitionSupervisorSpec(stay, partitions=2),
    }
    children = [ChildSpec(id_, start) for id_, start in kinds.items()]
    async with world.open(*children) as root:
        for child in fixed.children:
            await root.supervisor("dynamic").start_child(child)
        for id_ in kinds:
            inspect(root.supervisor(id_))


def inspect(supervisor: SupervisorRef) -> None:
    children = supervisor.which_children()
    assert [(child.id, child.state) for child in children] == [
        ("0", "running"),
        ("1", "running"),
    ]
    counts = supervisor.count_children()
    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (
        *(2, 2),
        *(0, 2),
    )
    assert supervisor.get_childspec("1").id == "1"
    for ask in (supervisor.get_childspec, supervisor.supervisor):
        with pytest.raises(UnknownChild, match="has no child 'nobody'"):
            ask("nobody")


async def test_a_supervisor_tells_what_it_was_made_from(world: World) -> None:
    """STA-14"""
    spec = SupervisorSpec([ChildSpec("a", stay)], strategy="rest_for_one")
    async with world.open(ChildSpec("sub", spec), ChildSpec("w", stay)) as root:
        assert root.get_childspec("sub").start is spec
        assert root.get_childspec("w").start is stay


async def test_static_and_dynamic_supervisors_are_shown_alike(world: World) -> None:
    """STA-15"""
    static = world.supervisor("static", strategy="rest_for_one")
    async with world.open(static, world.dynamic("dyn")) as root:
        tree = root.directory.snapshot(trio.current_time())
        shown = [(tree[path].kind, tree[path].state) for path in ("/static", "/dyn")]
        assert shown == [(Kind.SUPERVISOR, "running")] * 2
        assert [tree[path].strategy for path in ("/static", "/dyn")] == [
            "rest_for_one",
            "dynamic",
        ]
        assert tree["/static"].budget is not None
        assert tree["/dyn"].budget is not None


async def test_children_that_share_a_budget_take_the_supervisor_along(
    world: World,
) -> None:
    """DYN-03, INT-07: `child_intensity=None` is OTP's one budget for all."""
    with pytest.raises(IntensityExceeded) as caught:
        async with world.open(world.dynamic(limit=1), limit=0) as root:
            dyn = root.supervisor("dyn")
            for id_ in "ab":
                await dyn.start_child(world.child(id_))
            world.crash("a", "b")
            await trio.sleep_forever()
    assert caught.value.spent == ("dyn",)
