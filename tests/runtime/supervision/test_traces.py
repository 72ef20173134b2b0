"""What a real Erlang/OTP 25 supervisor did in 150 random scenarios, done again here.

`tests/data/otp_traces.jsonl` was recorded once (`spec/supervision.md`, TRI-08): trees of
supervisors and workers with their restart types, strategies and budgets, crashes and
operations on them, and OTP's answers. Starts, failed starts and ends must come in exactly
that order, under every order in which trio runs what could run.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from treewarden.errors import IntensityExceeded, SupervisionError
from treewarden.supervision import Intensity, SupervisorRef, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import ChildSpec

RECORDED = Path(__file__).parents[2] / "data" / "otp_traces.jsonl"
SCENARIOS = [json.loads(line) for line in RECORDED.read_text().splitlines()]
LONG = 36_000.0
SEEDS = 20


@dataclass
class Outcome:
    """What became of one scenario, in the words of the recording."""

    alive: bool = False
    trace: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)


def tree(world: World, node: dict[str, Any]) -> SupervisorSpec:
    return SupervisorSpec(
        [child(world, one) for one in node["children"]],
        strategy=node["strategy"],
        intensity=Intensity(node["intensity"], LONG),
    )


def child(world: World, node: dict[str, Any]) -> ChildSpec:
    if "kid" in node:
        return world.child(node["kid"], fails=node["fails"], restart=node["restart"])
    return world.supervisor(
        node["sup"],
        *(child(world, one) for one in node["children"]),
        strategy=node["strategy"],
        limit=node["intensity"],
        restart=node["restart"],
    )


async def follow(world: World, root: SupervisorRef, events: list[list[Any]]) -> None:
    """Do what was done to OTP, waiting until all is quiet after each event."""
    operations = {
        "terminate": root.terminate_child,
        "restart": root.restart_child,
        "delete": root.delete_child,
    }
    for act, whom in events:
        if act == "crash":
            world.crash(*whom)
        elif act == "finish":
            world.tell(whom, None)
        else:
            with suppress(SupervisionError):
                await operations[act](whom)
        await world.settle()


async def replay(world: World, scenario: dict[str, Any], outcome: Outcome) -> None:
    try:
        async with world.open_spec(tree(world, scenario["root"])) as root:
            await follow(world, root, scenario["events"])
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
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_every_recorded_scenario_goes_as_it_went_on_otp(
    new_world: Callable[[], World], play: Callable[..., None], seed: int
) -> None:
    """TRI-06, TRI-07, TRI-08"""
    for scenario in SCENARIOS:
        world, outcome = new_world(), Outcome()

        async def main(
            world: World = world,
            scenario: dict[str, Any] = scenario,
            outcome: Outcome = outcome,
        ) -> None:
            await replay(world, scenario, outcome)

        play(main, seed=seed)
        otp = scenario["otp"]
        expected = Outcome(otp["alive"], otp["trace"], otp["left"], otp["stop"])
        assert outcome == expected, scenario["name"]
        assert world.violations() == [], scenario["name"]
