"""Things that happen at the same time, under many orders in which trio may run them."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import SupervisionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import SupervisorRef

SEEDS = range(50)


async def ask(operation: Callable[..., object], *args: object) -> None:
    with suppress(SupervisionError):
        await operation(*args)  # type: ignore[misc]


def everything_at_once(
    world: World, root: SupervisorRef, nursery: trio.Nursery
) -> None:
    """Operators, crashes and normal ends, none of which waits for another."""
    for id_ in ("a", "b", "c"):
        for operation in (
            root.terminate_child,
            root.restart_child,
            root.bounce_child,
            root.delete_child,
        ):
            nursery.start_soon(ask, operation, id_)
        nursery.start_soon(ask, root.start_child, world.child(id_))
    world.crash("a", "b")
    world.tell("c", None)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_whatever_is_asked_at_once_everybody_is_there_once_or_not_at_all(
    new_world: Callable[[], World], play: Callable[..., None], strategy: str
) -> None:
    """TRI-01 to TRI-05, TRI-07, MGT-12"""

    async def main(world: World) -> None:
        children = [world.child(id_) for id_ in ("a", "b", "c")]
        async with world.open(*children, strategy=strategy, limit=100) as root:
            async with trio.open_nursery() as nursery:
                everything_at_once(world, root, nursery)
            await world.settle()
            for id_, state in world.states(root).items():
                assert state in {"running", "stopped"}
                assert world.is_up(id_) == (state == "running")

    for seed in SEEDS:
        world = new_world()
        play(functools.partial(main, world), seed=seed)
        assert world.violations() == [], f"seed {seed}"
        for id_ in ("a", "b", "c"):
            lives = [event for event in world.trace if event.endswith(f" {id_}")]
            assert lives == [f"start {id_}", f"end {id_}"] * (len(lives) // 2)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_who_crashes_at_once_is_restarted_once_in_every_order(
    new_world: Callable[[], World], play: Callable[..., None], strategy: str
) -> None:
    """TRI-07, STR-07, STR-08"""
    # rest_for_one as in OTP: who comes later is restarted again for an earlier one, whose
    # end is heard of after its own.
    most = {"a": 2, "b": 3, "c": 4} if strategy == "rest_for_one" else {}

    async def main(world: World) -> None:
        children = [world.child(id_) for id_ in ("a", "b", "c")]
        async with world.open(*children, strategy=strategy, limit=3) as root:
            world.crash("a", "b", "c")
            await world.settle()
            for id_, number in world.incarnations(root).items():
                assert 2 <= number <= most.get(id_, 2)

    for seed in SEEDS:
        world = new_world()
        play(functools.partial(main, world), seed=seed)
        assert world.violations() == [], f"seed {seed}"
