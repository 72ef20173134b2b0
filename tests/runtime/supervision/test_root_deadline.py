"""A deadline for the whole of a stop: who is left when it is over is killed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import IntensityExceeded
from treewarden.supervision import (
    ChildSpec,
    Directory,
    Intensity,
    SupervisorSpec,
    open_tree,
)

if TYPE_CHECKING:
    from tests.runtime.supervision.conftest import World


def patient(world: World, id_: str, stop_takes: float) -> ChildSpec:
    return world.child(id_, stop_takes=stop_takes, shutdown=math.inf)


async def test_the_children_share_what_is_left_and_then_are_killed(
    world: World,
) -> None:
    """SHD-30, pitfall 21"""
    slow = [patient(world, id_, 4.0) for id_ in "abcd"]
    async with open_tree(SupervisorSpec(slow), shutdown=10.0):
        pass
    # d and c had their time, b what was left of it, a none at all.
    assert world.at[4:6] == [(4.0, "end d"), (8.0, "end c")]
    assert {at for at, _ in world.at[6:]} == {10.0}
    assert sorted(event for _, event in world.at[6:]) == ["end a", "end b"]


async def test_the_deadline_holds_in_the_depth_of_the_tree(world: World) -> None:
    """SHD-30"""
    sub = world.supervisor("sub", patient(world, "leaf", 100.0))
    async with open_tree(SupervisorSpec([world.supervisor("top", sub)]), shutdown=3.0):
        pass
    assert world.at[-1] == (3.0, "end leaf")
    assert trio.current_time() == 3.0


async def test_a_stop_in_time_is_not_touched(world: World) -> None:
    """SHD-30"""
    directory = Directory()
    spec = SupervisorSpec([patient(world, "a", 2.0)])
    async with open_tree(spec, directory=directory, shutdown=3.0):
        await trio.sleep(50)
    assert world.at[-1] == (52.0, "end a")
    assert not directory.hurried


async def test_without_a_deadline_everybody_has_their_own_time(world: World) -> None:
    """SHD-30"""
    async with open_tree(SupervisorSpec([patient(world, "a", 500.0)])):
        pass
    assert world.at[-1] == (500.0, "end a")


async def test_the_deadline_counts_from_the_wish_not_from_the_first_stop(
    world: World,
) -> None:
    """SHD-30: a stop that was under way when the tree was to stop has no longer."""
    async with (
        open_tree(
            SupervisorSpec([patient(world, "a", 100.0), patient(world, "b", 0.0)]),
            shutdown=5.0,
        ) as root,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(root.terminate_child, "a")
        await trio.sleep(2)
        await root.stop()
    assert set(world.at[-2:]) == {(7.0, "end a"), (7.0, "end b")}


async def test_the_deadline_holds_when_the_root_gives_up(world: World) -> None:
    """SHD-30"""
    spec = SupervisorSpec(
        [patient(world, "a", 100.0), world.child("b")], intensity=Intensity(0, 5.0)
    )
    with pytest.raises(IntensityExceeded):
        async with open_tree(spec, shutdown=5.0):
            world.crash("b")
            await trio.sleep_forever()
    assert world.at[-1] == (5.0, "end a")


async def test_a_deadline_that_is_none_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="shutdown must be >= 0, not -1"):
        async with open_tree(SupervisorSpec(), shutdown=-1):
            pytest.fail("the tree was opened")
