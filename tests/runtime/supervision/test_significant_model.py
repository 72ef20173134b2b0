"""Auto-shutdown against a model of it: what OTP says of it, in forty lines."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from treewarden.errors import AlreadyStarted, UnknownChild
from treewarden.exits import Shutdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import ChildSpec, SupervisorRef

_IDS = "abcd"
_STEPS = 15
_ENDS = ("normal", "shutdown", "crash", "killed")


class Model:
    """Who is kept, who of them runs, and whether their supervisor still lives."""

    def __init__(self, children: list[ChildSpec], strategy: str, mode: str) -> None:
        self.specs = {child.id: child for child in children}
        self.strategy = strategy
        self.mode = mode
        self.runs = dict.fromkeys(self.specs, True)
        self.lives = True

    def end(self, id_: str, how: str) -> None:
        """A child that runs ended by itself."""
        restart = self.specs[id_].restart
        if restart == "permanent" or (
            restart == "transient" and how in {"crash", "killed"}
        ):
            self._begin_anew(id_)
            return
        self.stop(id_)
        if self.specs[id_].significant:
            others = [one for one, runs in self.runs.items() if runs]
            last = not any(self.specs[one].significant for one in others)
            self.lives = not (last or self.mode == "any_significant")

    def stop(self, id_: str) -> None:
        """A child is not started again; a temporary one is forgotten."""
        self.runs[id_] = False
        if self.specs[id_].restart == "temporary":
            del self.runs[id_]

    def _begin_anew(self, id_: str) -> None:
        ids = list(self.runs)
        group = {
            "one_for_one": [id_],
            "one_for_all": ids,
            "rest_for_one": ids[ids.index(id_) :],
        }[self.strategy]
        for one in group:
            if one != id_ and self.specs[one].restart == "temporary":
                del self.runs[one]
            else:
                self.runs[one] = True


async def act(
    world: World, supervisor: SupervisorRef, model: Model, what: str, id_: str
) -> None:
    """Do one thing to both."""
    try:
        if what == "terminate":
            await supervisor.terminate_child(id_)
            model.stop(id_)
        elif what == "restart":
            await supervisor.restart_child(id_)
            assert not model.runs[id_]
            model.runs[id_] = True
        elif model.runs.get(id_):
            await world.ended(id_, what)
            model.end(id_, what)
    except UnknownChild:
        assert id_ not in model.runs
    except AlreadyStarted:
        assert model.runs[id_]
    await world.settle()


def some_child(world: World, rng: random.Random, id_: str) -> ChildSpec:
    restart = rng.choice(["permanent", "transient", "transient", "temporary"])
    significant = restart != "permanent" and rng.random() < 0.6
    return world.child(id_, restart=restart, significant=significant)


async def live(world: World, rng: random.Random) -> None:
    """Fifteen things happen to four children, one after the other."""
    strategy = rng.choice(["one_for_one", "one_for_all", "rest_for_one"])
    mode = rng.choice(["any_significant", "all_significant"])
    children = [some_child(world, rng, id_) for id_ in _IDS]
    model = Model(children, strategy, mode)
    spec = world.supervisor(
        "s",
        *children,
        strategy=strategy,
        limit=_STEPS,
        auto_shutdown=mode,
        restart="temporary",
    )
    async with world.open(spec) as root:
        supervisor = root.supervisor("s")
        for _ in range(_STEPS):
            what = rng.choice([*_ENDS, "terminate", "restart"])
            await act(world, supervisor, model, what, rng.choice(_IDS))
            assert (world.states(root) == {"s": "running"}) is model.lives
            if not model.lives:
                return
            states = world.states(supervisor)
            assert {one: state == "running" for one, state in states.items()} == (
                model.runs
            )


def test_a_supervisor_ends_when_its_model_does_and_not_before(
    new_world: Callable[[], World], play: Callable[..., None], quiet: None
) -> None:
    """SIG-01 to SIG-04, SIG-06, SIG-08"""
    ended = 0
    for seed in range(150):
        world = new_world()
        rng = random.Random(seed)  # noqa: S311 - it guards nothing
        play(partial(live, world, rng), seed=seed)
        assert world.violations() == [], f"seed {seed}"
        exits = [one.exit for one in world.reported("exited") if one.path == "/s"]
        ended += exits != [Shutdown()]
    # Neither all of them nor none.
    assert 50 < ended < 150
