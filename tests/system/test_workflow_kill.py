"""Workflows and `kill -9`: all end, what is recorded is not done again, and none is forgotten."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

CREW = Path(__file__).with_name("workflow_crew.py")
SOAK = int(os.environ.get("SOAK") or 1)
KILLS = 8 * SOAK
PAYMENTS = 30 * SOAK
SECONDS = 60
# How long after what it said last a life may end, so that it is not always the same moment.
LATER = 0.005


def live(file: Path, *death: str) -> list[str]:
    """One life, ended by `kill -9`: its own, or ours when it has said all."""
    command = [sys.executable, str(CREW), str(file), str(PAYMENTS), *death]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crew:
        assert crew.stdout is not None
        said = []
        for line in crew.stdout:
            said.append(line.strip())
            if said[-1] == "over":
                break
        crew.kill()
        assert crew.wait(SECONDS) == -signal.SIGKILL
    return said


def keys(said: list[str], verb: str) -> list[str]:
    return [line.split()[1] for line in said if line.startswith(f"{verb} ")]


def test_f10_f06_workflows_and_sagas_that_are_killed_go_on_where_they_were(
    tmp_path: Path,
) -> None:
    """F10, F06: transaction steps exactly once, others once a key and life at most."""
    dice = random.Random(6)  # noqa: S311 - a seed, not a secret
    file = tmp_path / "shop.db"
    deaths = [(dice.randrange(5, 30), dice.uniform(0.0, LATER)) for _ in range(KILLS)]
    lives = [live(file, str(lines), str(later)) for lines, later in deaths]
    lives.append(live(file))
    said = [line for life in lives for line in life]
    # Killed in the middle of compensations, too.
    assert sum(bool(keys(life, "undid")) for life in lives) > 1
    failing = list(range(0, PAYMENTS, 3))
    steps = {f"p{n}/{step}" for n in range(PAYMENTS) for step in (1, 3, 5, 7)}
    undone = {f"p{n}/{step}/undo" for n in failing for step in (1, 3, 5, 7)}
    assert set(keys(said, "did")) == steps
    assert set(keys(said, "undid")) == undone
    for life in lives:
        for verb in ("did", "undid"):
            assert set(Counter(keys(life, verb)).values()) <= {1}
    # What was in hand when it was killed is done again, and nothing else.
    assert len(keys(said, "did")) <= len(steps) + KILLS * PAYMENTS
    assert f"till {4 * PAYMENTS} {4 * len(failing)}" in lives[-1]
    assert f"ended compensated {len(failing)}" in lives[-1]
    assert f"ended completed {PAYMENTS - len(failing)}" in lives[-1]
    for number in failing:
        order = [key for key in keys(said, "undid") if key.startswith(f"p{number}/")]
        assert list(dict.fromkeys(order)) == [
            f"p{number}/{step}/undo" for step in (7, 5, 3, 1)
        ]
