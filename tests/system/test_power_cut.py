"""A3 of `spec/reliability.md`: what a power cut leaves of the runtime's own store.

`disk/disk.c` writes down what the runtime does to its files, `disk/images.py` builds what
a disk could hold at each moment and judges every image; their heads say how.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DISK = Path(__file__).parent / "disk"
ANSWERS = "300"
IMAGES = 10_000


def record(library: Path, folder: Path, *options: str, **disk: str) -> Path:
    """Run the workload on a watched disk; the log of what it did."""
    data = folder / "data"
    data.mkdir()
    log = folder / "log"
    watched = {
        "LD_PRELOAD": str(library),
        "DISK_ROOT": f"{data}/",
        "DISK_LOG": str(log),
    }
    command = [sys.executable, str(DISK / "workload.py"), str(data), ANSWERS, *options]
    subprocess.run(command, check=True, env=os.environ | watched | disk)
    return log


def start_judging(log: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(DISK / "images.py"), str(log), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def verdicts_of(judging: subprocess.Popen[str]) -> dict[str, Any]:
    printed, _ = judging.communicate()
    assert judging.returncode == 0
    verdicts: dict[str, Any] = json.loads(printed)
    return verdicts


def test_no_power_cut_loses_halves_or_damages_what_was_acknowledged(
    library: Path, tmp_path: Path
) -> None:
    """A3: ten thousand images, two seeds at once."""
    log = record(library, tmp_path)
    judging = [
        start_judging(log, "--images", str(IMAGES // 2), "--seed", seed)
        for seed in ("1", "2")
    ]
    found = [verdicts_of(one) for one in judging]
    assert [one["examples"] for one in found] == [[], []]
    assert sum(one["images"] for one in found) >= IMAGES


def test_a_weaker_level_may_lose_the_last_moments_and_nothing_else(
    library: Path, tmp_path: Path
) -> None:
    """A3, first negative control: NORMAL is not FULL."""
    log = record(library, tmp_path, "--level", "crash_safe")
    found = verdicts_of(start_judging(log))
    assert found["lost"] > 0
    assert (found["half"], found["unreadable"]) == (0, 0)


@pytest.mark.parametrize("broken", ["--unsynced", "--early"])
def test_a_store_that_answers_too_soon_is_found_out(
    library: Path, tmp_path: Path, broken: str
) -> None:
    """A3, second negative control, and the twin that answers before its commit."""
    log = record(library, tmp_path, broken)
    assert verdicts_of(start_judging(log, "--until-wrong"))["examples"]


def test_a_disk_that_lies_is_found_out(library: Path, tmp_path: Path) -> None:
    """A3, third negative control: syncs that return at once."""
    log = record(library, tmp_path, DISK_LAZY="1")
    assert verdicts_of(start_judging(log, "--until-wrong"))["examples"]
