"""Durable mailboxes and `kill -9`: what was accepted is applied once, in order."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

CREW = Path(__file__).with_name("durable_crew.py")
KILLS = 12
WORDS = 400
SECONDS = 60


def live(file: Path, life: int, count: int, lines: int) -> list[str]:
    """One life, ended by `kill -9` once it has said so many lines."""
    command = [sys.executable, str(CREW), str(file), str(life), str(life), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crew:
        assert crew.stdout is not None
        said = []
        for line in crew.stdout:
            said.append(line.strip())
            if len(said) == lines or said[-1] == "over":
                break
        crew.kill()
        # It may have said more before it was dead.
        said += [line.strip() for line in crew.stdout]
        crew.wait(SECONDS)
    return said


def words(said: list[str], about: str) -> list[str]:
    return [
        word
        for kind, _, word in (line.partition(" ") for line in said)
        if kind == about
    ]


def test_what_a_durable_mailbox_accepted_is_applied_once_through_kills(
    tmp_path: Path,
) -> None:
    """F14: 12 kills under load; none lost, none twice, none half, each sender's in order.

    What a handler did outside by `once` is done once or, killed at that moment, again.
    """
    dice = random.Random(5)  # noqa: S311 - a seed, not a secret
    file = tmp_path / "durable.db"
    kept: list[str] = []
    for life in range(KILLS):
        said = live(file, life, WORDS, dice.randrange(1, WORDS // 2))
        kept += words(said, "kept")
    heard = words(live(file, KILLS, 0, 1 << 30), "heard")
    assert len(kept) > KILLS
    assert [word for word, times in Counter(heard).items() if times > 1] == []
    assert set(kept) <= set(heard)
    for sender in ("direct", "staged"):
        mine = [word for word in heard if word.startswith(sender)]
        places = [tuple(map(int, word.split("-")[1:])) for word in mine]
        assert places == sorted(places)
    outside = Counter((tmp_path / "durable.db.once").read_text().split())
    assert set(outside) == {word for word in heard if word.endswith("0")}
    assert outside.total() <= len(outside) + KILLS


def test_a_message_that_kills_the_process_is_given_up_and_the_next_is_handled(
    tmp_path: Path,
) -> None:
    """B8: what stood behind it is not given up with it, though it was counted once."""
    file = tmp_path / "durable.db"
    said = [live(file, life, -1, 1 << 30) for life in range(4)]
    assert said[0] == said[1] == []
    assert said[3] == ["heard after", "dead die 2 attempts", "over"]
