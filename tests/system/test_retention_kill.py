"""A durable subscription that is behind the journal's limits, and `kill -9`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from typing import TypeAlias

    Life: TypeAlias = tuple[int, int, int | str]

CREW = Path(__file__).with_name("retention_crew.py")
ROUNDS = int(os.environ.get("SOAK") or 1)
SECONDS = 60
LIMIT: Final = 32
"""Events that the journal may hold; what is kept for a subscription is up to four times it."""
ANY: Final = 0
"""Of a life: it is killed at one of its events, by chance."""

# Events that are published, whether some are taken, and when the process is killed. The
# second and third life find a subscription that is behind the limits.
LIVES: Final[dict[str, tuple[Life, ...]]] = {
    "drop_and_mark_gap": ((80, 0, 80), (80, 1, ANY), (80, 1, ANY)),
    # Together less than is kept, so that nothing may be missed.
    "keep": ((40, 0, 40), (40, 1, ANY), (40, 1, ANY)),
    "pause_publisher": ((80, 0, "paused"), (80, 0, "paused"), (80, 1, ANY)),
}


def live(file: Path, retention: str, life: Life, dice: random.Random) -> list[str]:
    """One life, ended by `kill -9`; what it said."""
    count, takes, until = life
    last: int | str = dice.randrange(1, count) if until == ANY else until
    command = [sys.executable, str(CREW), str(file), retention, str(count), str(takes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crew:
        assert crew.stdout is not None
        said = []
        for line in crew.stdout:
            said.append(line.strip())
            if last in (said[-1], len(said)):
                break
        crew.kill()
        # It may have said more before it was dead.
        said += [line.strip() for line in crew.stdout]
        crew.wait(SECONDS)
    return said


def kept(said: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in said if line.startswith("kept")]


@pytest.mark.parametrize("retention", LIVES)
def test_what_was_acknowledged_is_delivered_or_in_one_marked_gap_through_kills(
    tmp_path: Path, retention: str
) -> None:
    """Killed while it is behind: in order, and what was in hand once more at most."""
    for number in range(ROUNDS):
        dice = random.Random(number)  # noqa: S311 - a seed, not a secret
        file = tmp_path / f"{number}.db"
        lives = [live(file, retention, life, dice) for life in LIVES[retention]]
        live(file, retention, (0, 1, "over"), dice)
        if retention == "pause_publisher":
            assert lives[0][-1] == lives[1][-1] == "paused"
            assert LIMIT <= len(kept(lives[0])) < LIMIT + 8
            # The first commit has the journal looked at; the next is on its way by then.
            assert len(kept(lives[1])) <= 2
        acknowledged = [position for said in lives for position in kept(said)]
        lines = file.with_suffix(".taken").read_text().splitlines()
        taken = [(int(one), int(missed)) for one, missed in map(str.split, lines)]
        missing = check(acknowledged, taken, kills=len(lives))
        assert (missing > LIMIT) is (retention == "drop_and_mark_gap")
        assert any(missed for _, missed in taken) is bool(missing)


def check(acknowledged: list[int], taken: list[tuple[int, int]], kills: int) -> int:
    """Of `taken`, positions and how many were missed before; how many are in gaps."""
    first_times: dict[int, int] = {}
    for position, missed in taken:
        first_times.setdefault(position, missed)
    positions = list(first_times)
    assert positions == sorted(positions)
    assert len(taken) <= len(positions) + kills
    assert max(acknowledged) <= positions[-1]
    missing = sorted(set(acknowledged) - set(positions))
    for before, after in pairwise([0, *positions]):
        inside = [one for one in missing if before < one < after]
        assert len(inside) <= first_times[after]
    return len(missing)
