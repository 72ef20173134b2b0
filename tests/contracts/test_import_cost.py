"""`import treewarden` costs little more than the libraries that it stands on."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

# Pairs of runs; what is compared is the median of the ratios of each pair.
ROUNDS = 9
LIMIT = 1.3


def cpu_seconds(statement: str) -> float:
    """CPU time of a fresh interpreter that runs `statement`, children excluded."""
    process = subprocess.Popen([sys.executable, "-c", statement])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_importing_treewarden_costs_little_more_than_trio_and_msgspec() -> None:
    for statement in ("import trio, msgspec", "import treewarden"):
        cpu_seconds(statement)  # writes the byte code
    ratios = []
    for _ in range(ROUNDS):
        # An interpreter that imports nothing is taken off both sides: it would flatter.
        start = cpu_seconds("pass")
        stood_on = cpu_seconds("import trio, msgspec") - start
        ratios.append((cpu_seconds("import treewarden") - start) / stood_on)
    assert statistics.median(ratios) <= LIMIT, [round(ratio, 2) for ratio in ratios]
