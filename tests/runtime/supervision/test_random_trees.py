"""Random trees under random events, against a model of OTP's rules without any tasks."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from treewarden.errors import ChildStartFailed, IntensityExceeded, SupervisionError
from treewarden.supervision import ChildSpec, Intensity, SupervisorRef, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.supervision.conftest import World

LONG = 36_000.0
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

    def workers(self, branch: Branch) -> list[Worker]:
        found: list[Worker] = []
        for child in branch.children:
            found += [child] if isinstance(child, Worker) else self.workers(child)
        return found

    def end(self, id_: str, *, crashed: bool) -> None:
        for worker in self.workers(self.root):
            if worker.id == id_ and worker.up and worker.parent is not None:
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
def trees(draw: st.DrawFn) -> Branch:
    names = iter(f"n{number}" for number in range(1000))

    def branch(depth: int) -> Branch:
        name, kinds = next(names), draw(st.lists(st.booleans(), max_size=4))
        family = [
            branch(depth - 1) if deeper and depth else worker() for deeper in kinds
        ]
        limit = draw(st.sampled_from([0, 1, 2, 5, 20]))
        return Branch(name, draw(RESTARTS), draw(STRATEGIES), limit, family)

    def worker() -> Worker:
        # A first start that fails ends the whole run at once, so it is made rare.
        fails = draw(st.frozensets(st.integers(2, 5), max_size=2))
        if draw(st.integers(0, 20)) == 20:
            fails |= {1}
        return Worker(next(names), draw(RESTARTS), fails)

    return branch(2)


def ids(branch: Branch) -> list[str]:
    return [
        name
        for child in branch.family
        for name in (
            [child.id] if isinstance(child, Worker) else [child.id, *ids(child)]
        )
    ]


@st.composite
def stories(draw: st.DrawFn) -> tuple[Branch, list[tuple[str, str]]]:
    root = draw(trees())
    acts = ["crash", "crash", "finish", "terminate", "restart", "delete"]
    name = st.sampled_from(ids(root) or ["nobody"])
    events = st.lists(st.tuples(st.sampled_from(acts), name), max_size=12)
    return root, draw(events)


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


@settings(deadline=None, max_examples=150)
@given(stories(), st.integers(0, 2**32))
def test_a_random_tree_goes_through_random_events_as_the_model_does(
    new_world: type[World],
    play: Callable[..., None],
    story: tuple[Branch, list[tuple[str, str]]],
    seed: int,
) -> None:
    """TRI-06, TRI-07, and the restart rules of RST, STR, INT, ESC and RFL together"""
    branch, events = story
    world, model = new_world(), Model(branch)

    async def main() -> None:
        with suppress(IntensityExceeded, ChildStartFailed):
            async with world.open_spec(specification(world, branch)) as root:
                for what, whom in events:
                    await do(world, root, what, whom)

    alive = branch.start(model)
    for what, whom in events:
        if branch.up and what in {"crash", "finish"}:
            model.end(whom, crashed=what == "crash")
        elif branch.up:
            model.operate(what, whom)
    if alive and branch.up:
        branch.stop(model)
    play(main, seed=seed)
    assert world.trace == model.trace
    assert world.violations() == []
