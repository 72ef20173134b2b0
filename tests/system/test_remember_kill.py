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
LONGEST_LIFE = 0.3
PATIENCE = 20.0
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


def killed_run(file: Path, seed: int, seconds: float) -> Ledger:
    """Have a run come and go, kill it `seconds` after it was ready; what it said."""
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
        kill_at = time.monotonic() + seconds
        while time.monotonic() < kill_at:
            ledger.hear(child.stdout.readline())
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
        seconds = randomly.uniform(0.0, LONGEST_LIFE)
        now = await trio.to_thread.run_sync(killed_run, file, seed, seconds)
        assert before.allows(now.there), (before.open, before.present, now.there)
        interrupted += now.open is not None
        answered += now.answered
        before = now
    # Kills fell between a wish and its answer, and many were answered.
    assert interrupted > 0
    assert answered > ROUNDS
