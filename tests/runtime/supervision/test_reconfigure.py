"""Another specification for a supervisor that runs: what it changes, and what it leaves."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import Agent, AgentRef
from treewarden.errors import (
    IntensityExceeded,
    NameUnknown,
    NotRunning,
    SupervisionError,
    TooManyChildren,
)
from treewarden.exits import Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    PartitionSupervisorSpec,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import SupervisorRef

LONG = 36_000.0


async def stay() -> None:
    await trio.sleep_forever()


class Idle(Agent[None]):
    persistence = "none"


class Teller(Agent[None]):
    def __init__(self, word: str) -> None:
        self.word = word

    async def tell(self) -> str:
        return self.word

    def tell_now(self) -> str:
        return self.word


class LoudTeller(Teller):
    async def tell(self) -> str:
        return self.word.upper()

    def tell_now(self) -> str:
        return self.word.upper()


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


async def test_an_address_finds_whom_a_changed_child_becomes(world: World) -> None:
    """MGT-17: however often it was used before."""
    async with world.open(ChildSpec("x", Teller, args=["one"])) as root:
        ref: AgentRef[Teller] = AgentRef(root.directory, "/x")
        assert await ref.call(Teller.tell) == "one"
        await root.reconfigure(
            SupervisorSpec([ChildSpec("x", LoudTeller, args=["two"])])
        )
        assert await ref.call(Teller.tell) == "one"
        await root.bounce_child("x")
        assert await ref.call(Teller.tell) == "TWO"
        assert await ref.call(Teller.tell_now) == "TWO"
        assert await ref.request(Teller.tell).result() == "TWO"
        await ref.cast(Teller.tell)
        ref.cast_nowait(Teller.tell)
        await world.settle()
        assert ref.statistics().handled == 5
        await root.reconfigure(SupervisorSpec([ChildSpec("x", stay)]))
        await root.bounce_child("x")
        with pytest.raises(NameUnknown):
            await ref.call(Teller.tell)


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


async def test_a_mode_that_a_child_who_stays_could_not_have_is_refused(
    world: World,
) -> None:
    """SIG-12, SIG-11: nothing of it counts, and the old mode does."""
    x = world.child("x", restart="transient", significant=True)
    inner = SupervisorSpec([x, world.child("y")], auto_shutdown="any_significant")
    async with world.open(ChildSpec("sub", inner, restart="temporary")) as root:
        sub = root.supervisor("sub")
        for new in (
            SupervisorSpec([world.child("z")]),
            SupervisorSpec([world.child("y")], strategy="rest_for_one"),
        ):
            with pytest.raises(ValueError, match="x: a significant child needs"):
                await sub.reconfigure(new)
            assert world.states(sub) == {"x": "running", "y": "running"}
            assert root.get_childspec("sub").start is inner
        await world.ended("x", "normal")
        assert root.which_children() == []


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


# --- at any moment --------------------------------------------------------------------------

_IDS = "abcd"
_STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


class Chance:
    """One order of things: what children are like, and what happens to them when."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)  # noqa: S311 - it guards nothing

    def spec(self, id_: str) -> ChildSpec:
        pick = self.rng.choice
        return self.world.child(
            id_,
            restart=pick(["permanent", "transient", "temporary"]),
            fails=pick([[], [], [2], [3, 4]]),
            ignores=pick([[], [], [], [3]]),
            start_takes=pick([0.0, 0.0, 1.0]),
            stop_takes=pick([0.0, 0.0, 0.5]),
            shutdown=pick([None, 0, 2.0]),
            backoff=pick([None, None, Backoff(initial=3.0, maximum=3.0, jitter=0.0)]),
        )

    def supervisor(self, ids: Sequence[str]) -> SupervisorSpec:
        strategy = self.rng.choice(_STRATEGIES)
        endless = Intensity(10**6, LONG)
        children = [self.spec(id_) for id_ in ids]
        return SupervisorSpec(children, strategy=strategy, intensity=endless)

    async def act(self, supervisor: SupervisorRef) -> None:
        """Something happens to somebody some time."""
        id_ = self.rng.choice(_IDS)
        ids = self.rng.sample(_IDS, self.rng.randrange(5))
        acts: list[Callable[[], Awaitable[object]]] = [
            lambda: supervisor.reconfigure(self.supervisor(ids)),
            lambda: supervisor.start_child(self.spec(id_)),
            lambda: supervisor.terminate_child(id_),
            lambda: supervisor.restart_child(id_),
            lambda: supervisor.bounce_child(id_),
            lambda: supervisor.delete_child(id_),
            lambda: self.world.ended(id_, "normal"),
            lambda: self.world.ended(id_, "crash"),
        ]
        await trio.sleep(self.rng.choice([0.0, 0.0, 0.5, 1.0, 2.0, 5.0]))
        with suppress(SupervisionError):
            await self.rng.choice(acts)()


def test_whatever_happens_meanwhile_everybody_is_there_once_or_not_at_all(
    new_world: Callable[[], World], play: Callable[..., None], quiet: None
) -> None:
    """MGT-17, TRI-01 to TRI-05"""

    async def main(world: World, chance: Chance) -> None:
        async with world.open_spec(chance.supervisor("abc")) as root:
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:
                    for _ in range(30):
                        nursery.start_soon(chance.act, root)
                await trio.sleep(100)
            for id_, state in world.states(root).items():
                assert state in {"running", "stopped"}
                assert world.is_up(id_) == (state == "running")

    for seed in range(50):
        world = new_world()
        play(partial(main, world, Chance(world, seed)), seed=seed)
        assert world.violations() == [], f"seed {seed}"
