"""`make sabotage` tells the truth: a double that survives is named, and fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TEST = "tests/runtime/supervision/test_intensity.py::test_only_time_wins_a_budget_back"

# One double more, and less patience with the one that needs it to be over.
_PROGRAM = f"""
import subprocess, sys, time
from tests.sabotage import __main__ as runner
from tests.sabotage.double import Double
from treewarden.supervision.intensity import RestartWindow

def forgets(replace):
    replace(RestartWindow, "admit", lambda *_: True)

def harmless(replace):
    pass

def mistaken(replace):
    replace(RestartWindow, "no_such_thing", None)

def hangs(replace):
    subprocess.Popen(["sleep", sys.argv[2]])
    time.sleep(1000)

breaks = dict(forgets=forgets, harmless=harmless, mistaken=mistaken, hangs=hangs)
name = "this one " + sys.argv[1]
runner.ALL[name] = Double(
    name=name, says="", breaks=breaks[sys.argv[1]], caught_by=("{_TEST}",)
)
if sys.argv[1] == "hangs":
    runner._SECONDS = 5.0
sys.exit(runner.main([name]))
"""


# What a double leaves behind; no other process has these words.
_SLEEP = f"{os.getpid()}.125"


def run(name: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, name, _SLEEP],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_double_that_a_test_notices_is_caught() -> None:
    assert run("forgets") == (
        0,
        [
            "caught      this one forgets: test_only_time_wins_a_budget_back",
            "1 passed, 0 failed",
        ],
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("harmless", "pytest ended with 0"),
        ("mistaken", "pytest ended with 3"),
        ("hangs", "not over after 5 s"),
    ],
)
def test_a_double_that_nobody_notices_fails_the_run(name: str, why: str) -> None:
    status, lines = run(name)
    assert lines[-2:] == [f"NOT CAUGHT  this one {name}: {why}", "0 passed, 1 failed"]
    assert status == 1
    left = subprocess.run(["pgrep", "-f", f"sleep {_SLEEP}"], check=False)
    assert left.returncode == 1


def test_words_that_no_double_has_are_not_a_success() -> None:
    command = [sys.executable, "-m", "tests.sabotage", "no such double"]
    assert subprocess.run(command, cwd=_ROOT, check=False).returncode == 1
