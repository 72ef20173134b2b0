"""Durable subscriptions and `kill -9`: each event at least once, and once into the state."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

CREW = Path(__file__).with_name("bus_crew.py")
KILLS = 5 * int(os.environ.get("SOAK") or 1)
WORDS = 200
SECONDS = 60


def live(file: Path, life: int, count: int, lines: int) -> list[str]:
    """One life, ended by `kill -9` once it has said so many lines."""
    command = [sys.executable, str(CREW), str(file), str(life), str(count)]
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


def first_times(heard: list[str]) -> list[str]:
    return list(dict.fromkeys(heard))


def test_every_event_reaches_each_durable_subscription_through_kills(
    tmp_path: Path,
) -> None:
    """5 kills under load: none lost, none twice in a state, those of a topic in order."""
    dice = random.Random(7)  # noqa: S311 - a seed, not a secret
    file = tmp_path / "bus.db"
    kept: list[str] = []
    for life in range(KILLS):
        kept += words(live(file, life, WORDS, dice.randrange(1, WORDS // 2)), "kept")
    heard = words(live(file, KILLS, 0, 1 << 30), "heard")
    by_task = (tmp_path / "bus.db.task").read_text().split()
    assert len(kept) > KILLS
    assert [word for word, times in Counter(heard).items() if times > 1] == []
    # A publish may have been committed and its word not said.
    assert set(kept) <= set(heard) == set(by_task)
    # What was in hand when it was killed comes again: one of each topic, each time.
    assert len(by_task) <= len(heard) + 3 * KILLS
    for seen in (heard, first_times(by_task)):
        for topic in range(3):
            places = [tuple(map(int, word.split("-"))) for word in seen]
            mine = [place for place in places if place[1] % 3 == topic]
            assert mine == sorted(mine)


def test_an_event_that_kills_the_process_is_given_up_and_the_next_is_handled(
    tmp_path: Path,
) -> None:
    file = tmp_path / "bus.db"
    said = [live(file, life, -1, 1 << 30) for life in range(3)]
    assert said[0] == said[1] == []
    assert said[2] == ["heard after", "dead words.* 2 attempts", "over"]
