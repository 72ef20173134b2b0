"""What a real Erlang/OTP 25 supervisor did in 150 random scenarios, done again here.

`tests/data/otp_traces.jsonl` was recorded once (`spec/supervision.md`, TRI-08): trees of
supervisors and workers with their restart types, strategies and budgets, crashes and
operations on them, and OTP's answers. Starts, failed starts and ends must come in exactly
that order, under every order in which trio runs what could run; by functions, and by
agents, which start, crash and come back in turns of whoever calls them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from treewarden import Agent, AgentError, AgentRef, ChildSpec, NameUnknown
from treewarden.errors import IntensityExceeded, SupervisionError
from treewarden.supervision import Intensity, Stop, SupervisorRef, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.supervision.conftest import World

    from treewarden import Exit

RECORDED = Path(__file__).parents[2] / "data" / "otp_traces.jsonl"
SCENARIOS = [json.loads(line) for line in RECORDED.read_text().splitlines()]
LONG = 36_000.0

Node: TypeAlias = dict[str, Any]
"""A worker or a supervisor of a recorded tree."""


class Scripted:
    """Workers that are functions."""

    def __init__(self, world: World) -> None:
        self.world = world

    def worker(self, node: Node) -> ChildSpec:
        return self.world.child(
            node["kid"], fails=node["fails"], restart=node["restart"]
        )

    async def crash(self, ids: list[str]) -> None:
        self.world.crash(*ids)

    async def finish(self, id_: str) -> None:
        self.world.tell(id_, None)


class Actor(Agent[None]):
    """A worker that is an agent."""

    persistence = "none"

    def __init__(self, world: World, id_: str, fails: list[int]) -> None:
        self.world = world
        self.id = id_
        self.fails = fails

    async def on_start(self) -> None:
        self.world.starts[self.id] += 1
        if self.world.starts[self.id] in self.fails:
            self.world.note(f"fail {self.id}")
            raise self.world.boom
        self.world.note(f"start {self.id}")

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - Agent names it so
        self.world.note(f"end {self.id}")

    def crash(self) -> None:
        self.world.note(f"end {self.id}")
        raise self.world.boom

    async def crash_in_its_task(self) -> None:
        await trio.lowlevel.checkpoint()
        self.crash()

    async def finish(self) -> None:
        raise Stop


class Acted(Scripted):
    """Workers that are agents; every other one crashes in its caller's turn."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.ways = cycle([Actor.crash, Actor.crash_in_its_task])

    def worker(self, node: Node) -> ChildSpec:
        given = self.world, node["kid"], node["fails"]
        return ChildSpec(node["kid"], Actor, args=given, restart=node["restart"])

    async def crash(self, ids: list[str]) -> None:
        for id_ in ids:
            await self._tell(id_, next(self.ways))

    async def finish(self, id_: str) -> None:
        await self._tell(id_, Actor.finish)

    async def _tell(self, id_: str, order: Callable[[Actor], Any]) -> None:
        directory = self.world.directory
        with suppress(NameUnknown, AgentError):
            path = directory.resolve(id_).path
            await AgentRef[Actor](directory, path).call(order)


PLAYS: list[tuple[type[Scripted], int]] = [
    *((Scripted, seed) for seed in range(1, 21)),
    *((Acted, seed) for seed in range(1, 6)),
]


@dataclass
class Outcome:
    """What became of one scenario, in the words of the recording."""

    alive: bool = False
    trace: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)


def tree(players: Scripted, node: Node) -> SupervisorSpec:
    return SupervisorSpec(
        [child(players, one) for one in node["children"]],
        strategy=node["strategy"],
        intensity=Intensity(node["intensity"], LONG),
    )


def child(players: Scripted, node: Node) -> ChildSpec:
    if "kid" in node:
        return players.worker(node)
    return ChildSpec(node["sup"], tree(players, node), restart=node["restart"])


async def follow(
    players: Scripted, root: SupervisorRef, events: list[list[Any]]
) -> None:
    """Do what was done to OTP, waiting until all is quiet after each event."""
    operations = {
        "terminate": root.terminate_child,
        "restart": root.restart_child,
        "delete": root.delete_child,
    }
    for act, whom in events:
        if act == "crash":
            await players.crash(whom)
        elif act == "finish":
            await players.finish(whom)
        else:
            with suppress(SupervisionError):
                await operations[act](whom)
        await players.world.settle()


async def replay(players: Scripted, scenario: dict[str, Any], outcome: Outcome) -> None:
    world = players.world
    try:
        async with world.open_spec(tree(players, scenario["root"])) as root:
            await follow(players, root, scenario["events"])
            outcome.alive = True
            outcome.left = world.states(root)
            outcome.trace = world.cut()
        outcome.stop = world.trace
    except IntensityExceeded:
        outcome.trace = world.trace


def test_the_recording_is_whole() -> None:
    assert len(SCENARIOS) == 150
    assert sum(scenario["otp"]["alive"] for scenario in SCENARIOS) == 101


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("players", "seed"), PLAYS)
def test_every_recorded_scenario_goes_as_it_went_on_otp(
    new_world: Callable[[], World],
    play: Callable[..., None],
    players: type[Scripted],
    seed: int,
) -> None:
    """TRI-06, TRI-07, TRI-08"""
    for scenario in SCENARIOS:
        world, outcome = new_world(), Outcome()

        async def main(
            world: World = world,
            scenario: dict[str, Any] = scenario,
            outcome: Outcome = outcome,
        ) -> None:
            await replay(players(world), scenario, outcome)

        play(main, seed=seed)
        otp = scenario["otp"]
        expected = Outcome(otp["alive"], otp["trace"], otp["left"], otp["stop"])
        assert outcome == expected, scenario["name"]
        assert world.violations() == [], scenario["name"]
