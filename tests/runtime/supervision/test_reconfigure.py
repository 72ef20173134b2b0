"""Another specification for a supervisor that runs: what it changes, and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import Agent
from treewarden.errors import IntensityExceeded, NotRunning, TooManyChildren
from treewarden.exits import Shutdown
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    PartitionSupervisorSpec,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from tests.runtime.supervision.conftest import World

LONG = 36_000.0


async def stay() -> None:
    await trio.sleep_forever()


class Idle(Agent[None]):
    persistence = "none"


async def test_new_flags_count_from_now_on(world: World) -> None:
    """MGT-17, SIG-12"""
    children = [world.child(id_) for id_ in "abc"]
    async with world.open(*children, limit=9) as root:
        await world.crashed("b")
        assert world.incarnations(root) == {"a": 1, "b": 2, "c": 1}
        new = SupervisorSpec(
            children, strategy="rest_for_one", intensity=Intensity(9, LONG)
        )
        await root.reconfigure(new)
        await world.crashed("b")
        assert world.incarnations(root) == {"a": 1, "b": 3, "c": 2}
        await root.reconfigure(replace(new, strategy="one_for_all"))
        await world.crashed("b")
        assert world.incarnations(root) == {"a": 2, "b": 4, "c": 3}


async def test_a_smaller_budget_counts_what_was_spent_before(world: World) -> None:
    """MGT-17, INT-18"""
    children = [world.child("a")]
    with pytest.raises(IntensityExceeded):
        async with world.open(*children, limit=9) as root:
            await world.crashed("a")
            await world.crashed("a")
            await root.reconfigure(
                SupervisorSpec(children, intensity=Intensity(2, LONG))
            )
            world.crash("a")
            await trio.sleep(10)


async def test_new_children_are_kept_as_stopped_and_missing_ones_stay(
    world: World,
) -> None:
    """MGT-17"""
    a, b, c = (world.child(id_) for id_ in "abc")
    async with world.open(a, b) as root:
        await root.reconfigure(SupervisorSpec([c, b]))
        assert world.states(root) == {"c": "stopped", "b": "running", "a": "running"}
        assert list(world.states(root)) == ["c", "b", "a"]
        assert world.incarnations(root) == {"c": 0, "b": 1, "a": 1}
        await root.restart_child("c")
        world.cut()
    # Start order is the new one, and stopping goes by it.
    assert world.cut() == ["end a", "end b", "end c"]


async def test_a_changed_child_goes_on_and_starts_as_told_the_next_time(
    world: World,
) -> None:
    """MGT-17"""
    given: list[int] = []

    async def work(number: int) -> None:
        given.append(number)
        await trio.sleep_forever()

    first = ChildSpec("w", work, args=[1], restart="temporary")
    async with world.open(first, ChildSpec("other", stay)) as root:
        await world.settle()
        second = ChildSpec("w", work, args=[2], shutdown=0.5)
        await root.reconfigure(SupervisorSpec([second]))
        assert root.get_childspec("w") == second
        assert world.incarnations(root) == {"w": 1, "other": 1}
        await world.settle()
        assert given == [1]
        await root.bounce_child("w")
        await world.settle()
        assert given == [1, 2]


async def test_a_child_may_become_something_else_at_its_next_start(
    world: World,
) -> None:
    """MGT-17"""
    async with world.open(ChildSpec("x", Idle)) as root:
        await root.reconfigure(SupervisorSpec([ChildSpec("x", stay)]))
        assert world.info(root, "x").kind == "agent"
        await root.bounce_child("x")
        assert world.info(root, "x").kind == "task"


async def test_the_new_specification_holds_when_the_supervisor_is_restarted(
    world: World,
) -> None:
    """MGT-17"""
    sub = world.supervisor("sub", world.child("a"), limit=0)
    async with world.open(sub) as root:
        new = SupervisorSpec(
            [world.child("b"), world.child("a")], intensity=Intensity(0, LONG)
        )
        await root.supervisor("sub").reconfigure(new)
        assert root.get_childspec("sub").start is new
        await world.crashed("a")
        assert world.states(root.supervisor("sub")) == {"b": "running", "a": "running"}


async def test_significance_counts_from_now_on(world: World) -> None:
    """SIG-12"""
    plain = ChildSpec("a", stay, restart="temporary")
    inner = SupervisorSpec([plain, world.child("b")])
    async with world.open(ChildSpec("sub", inner, restart="temporary")) as root:
        significant = world.child("b", restart="transient", significant=True)
        new = SupervisorSpec([plain, significant], auto_shutdown="any_significant")
        await root.supervisor("sub").reconfigure(new)
        await world.ended("b", "normal")
        assert root.which_children() == []
    assert world.reported("exited")[-1].exit == Shutdown("significant child b ended")


async def test_limits_of_a_dynamic_supervisor_hold_for_the_next_child(
    world: World,
) -> None:
    """DYN-04"""
    async with world.open(world.dynamic()) as root:
        dyn = root.supervisor("dyn")
        for id_ in "abc":
            await dyn.start_child(world.child(id_))
        await dyn.reconfigure(DynamicSupervisorSpec(max_children=2))
        assert list(world.states(dyn)) == ["a", "b", "c"]
        with pytest.raises(TooManyChildren, match="2 children"):
            await dyn.start_child(world.child("d"))
        await dyn.terminate_child("a")
        await dyn.terminate_child("b")
        await dyn.start_child(world.child("d"))
        await dyn.reconfigure(DynamicSupervisorSpec(max_children=3))
        await dyn.start_child(world.child("e"))


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (7, TypeError, "reconfigure takes a supervisor's spec, not 7"),
        (ChildSpec("a", stay), TypeError, "reconfigure takes a supervisor's spec"),
        (DynamicSupervisorSpec(), TypeError, "/ is made from a SupervisorSpec, not"),
        (
            PartitionSupervisorSpec(stay),
            TypeError,
            "/ is made from a SupervisorSpec, not",
        ),
        (
            SupervisorSpec([], strategy="one_for_all"),
            ValueError,
            "own: a budget of its own needs strategy one_for_one, not one_for_all",
        ),
        (
            SupervisorSpec(
                [ChildSpec("r", DynamicSupervisorSpec(remember=True))],
            ),
            NotRunning,
            "remember=True needs a store",
        ),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    world: World, new: Any, error: type[Exception], message: str
) -> None:
    """MGT-17, SIG-12"""
    own = world.child("own", intensity=Intensity(1, 5.0))
    async with world.open(own) as root:
        spec = root.directory.root
        before = (world.states(root), root.directory.version)
        with pytest.raises(error, match=message):
            await root.reconfigure(new)
        assert (world.states(root), root.directory.version) == before
        assert spec is root.directory.root


async def test_whether_to_remember_cannot_be_changed(world: World) -> None:
    """MGT-17"""
    async with world.open(world.dynamic()) as root:
        root.directory.memory = Nothing()
        with pytest.raises(ValueError, match="/dyn: remember cannot be changed"):
            await root.supervisor("dyn").reconfigure(
                DynamicSupervisorSpec(remember=True)
            )


class Nothing:
    async def recall(self, supervisor: str) -> list[tuple[str, bytes | None]]:
        return []

    def write(
        self, supervisor: str, id_: str, spec: bytes | None, decided: Any
    ) -> None:
        decided(None)


async def test_partitions_can_become_more(world: World) -> None:
    """PRT-05: more; fewer once those beyond are gone."""
    spec = ChildSpec("s", PartitionSupervisorSpec(stay, partitions=2))
    async with world.open(spec) as root:
        shards = root.supervisor("s")
        await shards.reconfigure(PartitionSupervisorSpec(stay, partitions=3))
        assert shards.partition(2).state == "stopped"
        await shards.restart_child("2")
        assert [shards.partition(n).id for n in range(4)] == ["0", "1", "2", "0"]
        fewer = PartitionSupervisorSpec(stay, partitions=2)
        with pytest.raises(ValueError, match="2: a partition supervisor has its 2"):
            await shards.reconfigure(fewer)
        await shards.terminate_child("2")
        await shards.delete_child("2")
        await shards.reconfigure(fewer)
        assert [shards.partition(n).id for n in range(4)] == ["0", "1", "0", "1"]
