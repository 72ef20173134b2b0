"""Ours, bare designs and peers in alternating rounds; ratios of medians against goals.

The machine is shared and its speed drifts, so that only what was measured side by side in
one call is compared (`anchors/README.md`). A round runs every script once, one process at
a time: ours, which measures the bare designs of `anchors/` between its own rows, then each
peer. A peer that is not installed is named, and its goals are `no peer`, not met.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANCHORS = Path(__file__).parent / "anchors"
SECONDS = 0.5
"""How long a rate is measured, as in the anchors."""
ROUNDS = 5
PATIENCE_SECONDS = 300.0
"""After which a script that does not end is ended."""


def anchor(name: str) -> Any:
    """The module of an anchor script, unchanged as it was measured."""
    if str(ANCHORS) not in sys.path:
        sys.path.insert(0, str(ANCHORS))
    return importlib.import_module(name)


def emit(name: str, value: float, unit: str) -> None:
    """Print one row."""
    print(f"{name} {value:.6g} {unit}", flush=True)


def emit_latency(name: str, seconds: Sequence[float]) -> None:
    """Print median and 99th percentile, in microseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    emit(f"{name}.p50", statistics.median(ordered) * 1e6, "us")
    emit(f"{name}.p99", p99 * 1e6, "us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What one of our rows must be, as a multiple of another row of the same call."""

    what: str
    ours: str
    than: str
    at_least: float = 0.0
    at_most: float = float("inf")

    def wanted(self) -> str:
        """The goal in words."""
        if self.at_least:
            return f">= {self.at_least:g} x"
        return f"<= {self.at_most:g} x"

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio of medians is good enough."""
        return self.at_least <= ratio <= self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A script of `anchors/`, and what must be installed for it."""

    script: str
    needs: tuple[str, ...]

    def command(self) -> list[str] | None:
        """How to run it; None when it is not installed here."""
        file = ANCHORS / self.script
        if file.suffix == ".exs":
            elixir = shutil.which(self.needs[0])
            return [elixir, str(file)] if elixir is not None else None
        # Peers may live in an environment of their own; run.py reads the same variable.
        python = os.environ.get(f"ANCHOR_PYTHON_{file.stem.upper()}", sys.executable)
        imports = f"import {', '.join(self.needs)}"
        tried = subprocess.run(
            [python, "-c", imports], capture_output=True, check=False
        )
        return [python, str(file)] if tried.returncode == 0 else None


Rows = dict[str, list[float]]


def collect(command: Sequence[str], rows: Rows) -> None:
    """Run one script and add what it printed to `rows`."""
    printed, status = _output(command)
    if status:
        print(f"# {' '.join(command)}: exit {status}, rows may be missing")
    for line in printed.splitlines():
        words = line.split()
        if len(words) == 3:
            rows.setdefault(words[0], []).append(float(words[1]))


def _output(command: Sequence[str]) -> tuple[str, int]:
    """What a script printed, and its exit status.

    To a file, not a pipe: thespian at times leaves actors behind, in sessions of their
    own, and they would hold a pipe open for ever. They are found by a mark and ended.
    """
    mark = f"TREEWARDEN_BENCHMARK={uuid.uuid4().hex}"
    environment = os.environ | dict([mark.split("=")])
    with tempfile.TemporaryFile("w+") as printed:
        script = subprocess.Popen(command, stdout=printed, env=environment)
        try:
            status = script.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        finally:
            script.kill()
            script.wait()
            _end_marked(mark.encode())
        printed.seek(0)
        return printed.read(), status


def _end_marked(mark: bytes) -> None:
    # Nothing is found where there is no /proc.
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in file.read_bytes():
                os.kill(int(file.parent.name), signal.SIGKILL)


def compare(
    script: Path, goals: Sequence[Goal], peers: Sequence[Peer], rounds: int
) -> bool:
    """Measure everything in turn and print the table; whether no goal was missed."""
    commands = [[sys.executable, str(script), "--with-bare"]]
    for peer in peers:
        command = peer.command()
        if command is None:
            print(f"# missing: {', '.join(peer.needs)} (for {peer.script})")
        else:
            commands.append(command)
    rows: Rows = {}
    for number in range(rounds):
        for command in commands:
            print(f"# round {number + 1} of {rounds}: {command[1]}", file=sys.stderr)
            collect(command, rows)
    return _print_table(goals, rows)


def _print_table(goals: Sequence[Goal], rows: Rows) -> bool:
    for name, found in rows.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{name} {middle:.6g}  # {low:.6g}..{high:.6g} n={len(found)}")
    verdicts = [_judge(goal, rows) for goal in goals]
    width = max(len(goal.what) for goal in goals)
    print()
    for goal, (ratio, verdict) in zip(goals, verdicts, strict=True):
        print(
            f"{goal.what:{width}}  {ratio:>8} x {goal.than:38} {goal.wanted():10} {verdict}"
        )
    return all(verdict != "MISSED" for _, verdict in verdicts)


def _judge(goal: Goal, rows: Rows) -> tuple[str, str]:
    if goal.ours not in rows:
        return "-", "MISSED"
    if goal.than not in rows:
        return "-", "no peer"
    ratio = statistics.median(rows[goal.ours]) / statistics.median(rows[goal.than])
    return f"{ratio:.3g}", "MET" if goal.is_met(ratio) else "MISSED"


def main(
    script: str,
    measure: Callable[[bool], None],
    goals: Sequence[Goal],
    peers: Sequence[Peer],
) -> int:
    """The command line of a benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--compare", action="store_true", help="with peers, in rounds")
    parser.add_argument(
        "--with-bare", action="store_true", help="with bare designs, once"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.compare:
        return 0 if compare(Path(script), goals, peers, options.rounds) else 1
    measure(options.with_bare)
    return 0
