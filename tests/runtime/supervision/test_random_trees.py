"""Random trees under random events, against a model of OTP's rules without any tasks."""

from __future__ import annotations

import functools
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewarden.errors import ChildStartFailed, IntensityExceeded, SupervisionError
from treewarden.supervision import ChildSpec, Intensity, SupervisorRef, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.runtime.supervision.conftest import World

LONG = 36_000.0
LIMITS = [0, 1, 2, 5, 20]
CRASHES = 10_000

Happening: TypeAlias = tuple[str, str]
"""What happens, and to whom."""
RESTARTS = st.sampled_from(["permanent", "permanent", "transient", "temporary"])
STRATEGIES = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])


# --- the model ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Worker:
    """A worker of the model; `fails` are the numbers of its starts that fail."""

    id: str
    restart: str
    fails: frozenset[int]
    up: bool = False
    parent: Branch | None = None

    def start(self, model: Model) -> bool:
        model.starts[self.id] += 1
        self.up = model.starts[self.id] not in self.fails
        model.trace.append(f"{'start' if self.up else 'fail'} {self.id}")
        return self.up

    def stop(self, model: Model) -> None:
        self.up = False
        model.trace.append(f"end {self.id}")


@dataclass(eq=False)
class Branch:
    """A supervisor of the model."""

    id: str
    restart: str
    strategy: str
    limit: int
    family: list[Worker | Branch]
    up: bool = False
    spent: int = 0
    parent: Branch | None = None
    children: list[Worker | Branch] = field(default_factory=list)

    def path(self) -> str:
        """Where it is in the tree; the root has no word of its own."""
        return f"{self.parent.path()}/{self.id}" if self.parent else ""

    def start(self, model: Model) -> bool:
        self.children, self.spent = [], 0
        for child in self.family:
            child.parent = self
            self.children.append(child)
            if not child.start(model):
                self.stop(model)
                return False
        self.up = True
        return True

    def stop(self, model: Model) -> None:
        for child in reversed(self.children):
            if child.up:
                child.stop(model)
        self.children, self.up = [], False

    def ended(self, child: Worker | Branch, model: Model, *, crashed: bool) -> None:
        if child.restart == "permanent" or (child.restart == "transient" and crashed):
            self.bring_back(child, model)
        elif child.restart == "temporary":
            self.children.remove(child)

    def bring_back(self, child: Worker | Branch, model: Model) -> None:
        again: Worker | Branch | None = child
        while again is not None:
            self.spent += 1
            if self.spent > self.limit:
                model.gave_up.append(self.path())
                self.stop(model)
                if self.parent is not None:
                    self.parent.ended(self, model, crashed=True)
                return
            again = self.start_group(again, model)

    def start_group(
        self, first: Worker | Branch, model: Model
    ) -> Worker | Branch | None:
        """Restart whom the strategy says; who could not start."""
        group = [first]
        if self.strategy == "one_for_all":
            group = [*self.children]
        elif self.strategy == "rest_for_one":
            group = self.children[self.children.index(first) :]
        for child in reversed(group):
            if child.up:
                child.stop(model)
        for child in group:
            if child.restart == "temporary":
                self.children.remove(child)
            elif not child.start(model):
                return child
        return None


class Model:
    """What should happen."""

    def __init__(self, root: Branch) -> None:
        self.root = root
        self.trace: list[str] = []
        self.starts: Counter[str] = Counter()
        self.crashes = 0
        self.gave_up: list[str] = []

    def workers(self, branch: Branch) -> list[Worker]:
        found: list[Worker] = []
        for child in branch.children:
            found += [child] if isinstance(child, Worker) else self.workers(child)
        return found

    def end(self, id_: str, *, crashed: bool) -> None:
        for worker in self.workers(self.root):
            if worker.id == id_ and worker.up and worker.parent is not None:
                self.crashes += crashed
                worker.stop(self)
                worker.parent.ended(worker, self, crashed=crashed)

    def operate(self, what: str, id_: str) -> None:
        for child in [*self.root.children]:
            if child.id != id_:
                continue
            if what == "terminate":
                if child.up:
                    child.stop(self)
                if child.restart == "temporary":
                    self.root.children.remove(child)
            elif what == "restart" and not child.up:
                child.start(self)
            elif what == "delete" and not child.up:
                self.root.children.remove(child)


# --- random trees -------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn, *, lasting: bool = False) -> Branch:
    """Random trees; `lasting` ones have a root that endures a storm, and somebody in it."""
    names = iter(f"n{number}" for number in range(1000))

    def branch(depth: int, limits: list[int], least: int = 0) -> Branch:
        kinds = draw(st.lists(st.booleans(), min_size=least, max_size=4))
        name = next(names)
        family = [
            branch(depth - 1, LIMITS) if deeper and depth else worker()
            for deeper in kinds
        ]
        limit = draw(st.sampled_from(limits))
        return Branch(name, draw(RESTARTS), draw(STRATEGIES), limit, family)

    def worker() -> Worker:
        # A first start that fails ends the whole run at once, so it is made rare.
        fails = draw(st.frozensets(st.integers(2, 5), max_size=2))
        if draw(st.integers(0, 20)) == 20:
            fails |= {1}
        return Worker(next(names), draw(RESTARTS), fails)

    return branch(3, [50, 1000], least=2) if lasting else branch(2, LIMITS)


def ids(branch: Branch) -> list[str]:
    return [
        name
        for child in branch.family
        for name in (
            [child.id] if isinstance(child, Worker) else [child.id, *ids(child)]
        )
    ]


@st.composite
def stories(draw: st.DrawFn) -> tuple[Branch, list[Happening]]:
    root = draw(trees())
    acts = ["crash", "crash", "finish", "terminate", "restart", "delete"]
    name = st.sampled_from(ids(root) or ["nobody"])
    happenings = st.tuples(st.sampled_from(acts), name)
    return root, draw(st.lists(happenings, max_size=12))


def storm(model: Model, chance: random.Random, length: int) -> Iterator[Happening]:
    """Mostly crashes, each of somebody who is up at that moment."""
    for _ in range(length):
        up = [worker.id for worker in model.workers(model.root) if worker.up]
        near = [child.id for child in model.root.children]
        act = chance.choice(["crash"] * 12 + ["finish", "terminate", "restart"])
        among = up if act in {"crash", "finish"} else near
        if among:
            yield act, chance.choice(among)


def specification(world: World, branch: Branch) -> SupervisorSpec:
    children = [
        world.child(one.id, fails=one.fails, restart=one.restart)
        if isinstance(one, Worker)
        else ChildSpec(one.id, specification(world, one), restart=one.restart)
        for one in branch.family
    ]
    budget = Intensity(branch.limit, LONG)
    return SupervisorSpec(children, strategy=branch.strategy, intensity=budget)


async def do(world: World, root: SupervisorRef, what: str, whom: str) -> None:
    match what:
        case "crash":
            world.crash(whom)
        case "finish":
            world.tell(whom, None)
        case _:
            with suppress(SupervisionError):
                operations: dict[str, Callable[[str], Any]] = {
                    "terminate": root.terminate_child,
                    "restart": root.restart_child,
                    "delete": root.delete_child,
                }
                await operations[what](whom)
    await world.settle()


def foretell(model: Model, events: Iterable[Happening]) -> list[Happening]:
    """Have a model live through these events; those that happened before its end."""
    happened: list[Happening] = []
    root = model.root
    alive = root.start(model)
    for what, whom in events if alive else ():
        happened.append((what, whom))
        if what in {"crash", "finish"}:
            model.end(whom, crashed=what == "crash")
        else:
            model.operate(what, whom)
        if not root.up:
            break
    if root.up:
        root.stop(model)
    return happened


async def live(world: World, branch: Branch, events: list[Happening]) -> None:
    """Have a real tree live through them."""
    with suppress(IntensityExceeded, ChildStartFailed):
        async with world.open_spec(specification(world, branch)) as root:
            for what, whom in events:
                await do(world, root, what, whom)


def check(world: World, model: Model) -> None:
    """Exactly the same starts, ends and give-ups, in the same order."""
    assert world.trace == model.trace
    given_up = [one.path.rstrip("/") for one in world.reported("gave_up")]
    assert given_up == model.gave_up
    assert world.violations() == []


@settings(max_examples=150)
@given(stories(), st.integers(0, 2**32))
def test_a_random_tree_goes_through_random_events_as_the_model_does(
    new_world: Callable[[], World],
    play: Callable[..., None],
    story: tuple[Branch, list[Happening]],
    seed: int,
) -> None:
    """TRI-06, TRI-07, and the restart rules of RST, STR, INT, ESC and RFL together"""
    branch, events = story
    world, model = new_world(), Model(branch)
    foretell(model, events)
    play(functools.partial(live, world, branch, events), seed=seed)
    check(world, model)


@pytest.mark.usefixtures("quiet")
def test_ten_thousand_random_crashes_in_random_trees_go_as_the_model_says(
    new_world: Callable[[], World], play: Callable[..., None]
) -> None:
    """TRI-06, TRI-07: exact restarts, escalations and order, however long it goes on."""
    crashes = 0

    @settings(max_examples=50)
    @given(trees(lasting=True), st.integers(50, 150), st.integers(0, 2**32))
    def as_foretold(branch: Branch, length: int, seed: int) -> None:
        nonlocal crashes
        world, model = new_world(), Model(branch)
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        events = foretell(model, storm(model, chance, length))
        play(functools.partial(live, world, branch, events), seed=seed)
        check(world, model)
        crashes += model.crashes

    while crashes < CRASHES:
        as_foretold()
