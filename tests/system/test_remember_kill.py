"""Remembered children after kill -9: all that were answered, in order, and no others."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import trio

ROUNDS = 12
# What a life says before it is killed; two lines are a wish and its answer.
MOST_LINES = 40
# And how long after it at most, so that it is not always the same moment.
LATER = 0.01
PATIENCE = 60.0
HERE = Path(__file__).parent


class Ledger:
    """What a run has said: who has to be there after it, and about whom nobody knows."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.present: list[str] = []
        self.open: tuple[str, str] | None = None
        self.answered = 0

    def hear(self, line: str) -> None:
        """One line of `remembered_crew`."""
        word, _, name = line.strip().partition(" ")
        if word in {"start", "terminate"}:
            self.open = word, name
            return
        if word == "there":
            self.there.append(name)
        if word == "terminated":
            self.present.remove(name)
        else:
            self.present.append(name)
        if self.open is not None:
            self.open = None
            self.answered += 1

    def allows(self, found: list[str]) -> bool:
        """Whether `found` is what was answered, give or take what was under way."""
        if self.open is None:
            return found == self.present
        word, name = self.open
        if word == "start":
            return found in (self.present, [*self.present, name])
        return found in (self.present, [one for one in self.present if one != name])


def killed_run(file: Path, seed: int, lines: int, later: float) -> Ledger:
    """Have a run come and go, kill it `later` seconds after so many lines; what it said."""
    ledger = Ledger()
    child = subprocess.Popen(
        # What it starts has an import path, though it runs as __main__.
        [sys.executable, "-m", "remembered_crew", str(file), str(seed)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        while line and not line.startswith("ready"):
            ledger.hear(line)
            line = child.stdout.readline()
        for _ in range(lines):
            ledger.hear(child.stdout.readline())
        time.sleep(later)
    finally:
        child.send_signal(signal.SIGKILL)
    for line in child.stdout:
        ledger.hear(line)
    child.stdout.close()
    assert child.wait(PATIENCE) == -signal.SIGKILL
    return ledger


async def test_every_child_that_was_answered_is_there_again_after_kill_9(
    tmp_path: Path,
) -> None:
    file = tmp_path / "crew.db"
    randomly = random.Random(20261121)  # noqa: S311 - moments, not secrets
    before = Ledger()
    interrupted = answered = 0
    for seed in range(ROUNDS):
        lines = randomly.randrange(MOST_LINES)
        later = randomly.uniform(0.0, LATER)
        now = await trio.to_thread.run_sync(killed_run, file, seed, lines, later)
        assert before.allows(now.there), (before.open, before.present, now.there)
        interrupted += now.open is not None
        answered += now.answered
        before = now
    # Kills fell between a wish and its answer, and many were answered.
    assert interrupted > 0
    assert answered > ROUNDS
