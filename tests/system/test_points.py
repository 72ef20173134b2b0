"""A2 of `spec/reliability.md`: the runtime under load, broken at each of its named points.

`points_crew.py` runs the lives and says what their ledger holds. Here the ledger is judged:
nothing acknowledged is lost, nothing is applied twice, nothing is half there, every life
that was not killed went on answering, and no point was passed over. `SOAK=10` does it ten
times, each time with other reaches, `SEED=n` with others from the start.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from treewarden.injection import POINTS, Deed, InjectionPoint

CREW = Path(__file__).with_name("points_crew.py")
SEED = int(os.environ.get("SEED", "20261121"))
ROUNDS = int(os.environ.get("SOAK", "1"))
HITS = 5
"""How often each point must have been reached in the whole."""
EXAMPLES = 5
"""What is wrong at a point is often wrong again and again."""
CHAINS = 2
LATEST = 12
"""The latest reach that is waited for at a point that comes often."""
SELDOM = (
    "store.lock", "store.judge", "store.connect", "store.quick_check", "store.begin_run",
    "store.load_", "store.readers", "store.thread", "store.migrate", "store.end_run",
    "store.close", "store.copy", "store.reconnect", "store.probe", "store.roll_back",
    "store.truncate", "store.queue_page", "store.map_page", "store.restore", "store.step", "store.scrub", "store.prune",
    "store.vacuum", "agent.leave", "process.", "telemetry.",
)  # fmt: skip
"""Points of which the first reach is taken: another may not come in the same life."""


ALONE = (
    "store.migrate.", "store.restore.", "store.step", "telemetry.", "http.", "program.",
)  # fmt: skip
"""Points that the lives of other points hardly pass."""
FIRST = "store.flush stall 1"
"""The first life of a chain makes its file, and so passes other places than the next."""
PARTS = {
    "store.lock": "opening",
    "store.thread_start": "committing",
    "store.probe": "housekeeping",
    "store.read": "reading and copying",
    "store.hand_over": "the store's loop",
    "agent.start": "agents, bus and timers",
    "supervisor.start": "supervision, control and telemetry",
    "http.request": "the gateways",
}
"""The first point of each part, and what the part is called."""


@dataclass(frozen=True, slots=True)
class Order:
    """One life: what is done where, at which reach."""

    point: str
    deed: Deed
    nth: int

    def __str__(self) -> str:
        """As the crew reads it."""
        return f"{self.point} {self.deed} {self.nth}"


@dataclass(slots=True)
class Clerk:
    """What is known of one clerk from outside."""

    known: int = 0
    open_tries: int = 0
    fresh: bool = False

    def hears(self, count: int) -> str:
        """It says that it has done so many; what is wrong with that."""
        if count < self.known:
            return f"{self.known} were acknowledged, {count} are left"
        if count > self.known + self.open_tries:
            return (
                f"{count} were done, at most {self.known + self.open_tries} asked for"
            )
        self.open_tries -= count - self.known
        self.known = count
        return ""


@dataclass(slots=True)
class Judge:
    """Reads a ledger line by line."""

    clerks: list[Clerk] = field(default_factory=lambda: [Clerk() for _ in range(4)])
    said: int = 0
    order: str = ""
    hits: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    lives: int = 0
    answers: int = 0

    def read(self, ledger: Path) -> None:
        """Judge all of it."""
        for line in ledger.read_text().splitlines():
            word, *rest = line.split(" ")
            problem = self._judge(word, rest)
            if problem:
                point = self.order.split(" ")[0]
                found = self.wrong.setdefault(point, [])
                if len(found) < EXAMPLES:
                    found.append(f"{self.order}: {problem}")

    def _judge(self, word: str, rest: list[str]) -> str:
        match word, rest:
            case "born", _:
                self.order = " ".join(rest)
                self.lives += 1
                for clerk in self.clerks:
                    clerk.fresh = True
            case "try", [number]:
                self.clerks[int(number)].open_tries += 1
            case ("found", [number, count]):
                return self._found(self.clerks[int(number)], int(count))
            case "done", [number, count]:
                self.answers += 1
                clerk = self.clerks[int(number)]
                if int(count) == clerk.known:
                    return f"{count} was answered twice"
                return clerk.hears(int(count))
            case "said", [position]:
                self.said = max(self.said, int(position))
            case "journal", [position] if int(position) < self.said:
                return f"the journal ends at {position}, {self.said} was acknowledged"
            case "reached", [point, times]:
                self.hits[point] += int(times)
            case "old", counts if counts != ["3", "2"]:
                return f"of an old file {counts} rows are left"
            case "wrong" | "failed", _:
                return " ".join(rest)
            case "ended", [status]:
                return self._ended(int(status))
        return ""

    def _found(self, clerk: Clerk, count: int) -> str:
        problem = clerk.hears(count)
        if clerk.fresh:
            # What was asked of the life before this one is decided for good.
            clerk.open_tries, clerk.fresh = 0, False
        return problem

    def _ended(self, status: int) -> str:
        point, deed, nth = self.order.split(" ")
        if deed == Deed.KILL:
            self.hits[point] += int(nth)
            return (
                "" if status == -9 else f"it was to be killed, and ended with {status}"
            )
        meaning = {0: "", 4: "it was not reached", 6: "it did not heal"}
        return meaning.get(status, f"it ended with {status}")


def orders(point: InjectionPoint, randomly: random.Random) -> list[Order]:
    often = not point.name.startswith(SELDOM)
    lives = 2 if point.name.startswith(ALONE) else 1
    return lives * [
        Order(point.name, deed, randomly.randint(1, LATEST) if often else 1)
        for deed in sorted(point.kinds)
    ]


def run(folder: Path, chains: list[list[Order]], *options: str) -> list[Path]:
    """Run chains of lives beside each other; their ledgers."""
    crews = []
    for number, chain in enumerate(chains):
        home = folder / f"chain-{number}"
        home.mkdir(exist_ok=True)
        (home / "orders").write_text("\n".join([FIRST, *map(str, chain), ""]))
        with (home / "orders").open() as stdin:
            crews.append(
                subprocess.Popen(
                    [sys.executable, str(CREW), str(home), *options], stdin=stdin
                )
            )
    for crew in crews:
        assert crew.wait() == 0
    return [folder / f"chain-{number}" / "ledger" for number in range(len(chains))]


def parts() -> dict[str, list[InjectionPoint]]:
    """All points, in parts that take some ten seconds each."""
    found: dict[str, list[InjectionPoint]] = {}
    for point in POINTS.values():
        if point.name in PARTS:
            found[PARTS[point.name]] = part = []
        part.append(point)
    return found


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
@pytest.mark.parametrize("part", parts())
def test_broken_at_any_point_nothing_is_lost_doubled_or_half_done(
    part: str, seed: int, tmp_path: Path
) -> None:
    """A2: kill, raise, cancel and stall, as far as a point can; none is passed over."""
    points = parts()[part]
    randomly = random.Random(seed)  # noqa: S311 - moments, not secrets
    lives = [order for point in points for order in orders(point, randomly)]
    randomly.shuffle(lives)
    chains = [lives[number::CHAINS] for number in range(CHAINS)]
    judges = [Judge(), Judge()]
    for judge, ledger in zip(judges, run(tmp_path, chains), strict=True):
        judge.read(ledger)
    assert [judge.wrong for judge in judges] == [{}, {}]
    hits = sum((judge.hits for judge in judges), Counter[str]())
    seldom = {
        point.name: hits[point.name] for point in points if hits[point.name] < HITS
    }
    assert seldom == {}
    assert sum(judge.lives for judge in judges) == len(lives) + CHAINS
    assert sum(judge.answers for judge in judges) > len(lives)


def test_the_parts_are_all_of_it() -> None:
    names = [point.name for part in parts().values() for point in part]
    assert names == list(POINTS)
    assert len(parts()) == len(PARTS)


def test_a_store_that_answers_before_its_commit_is_found_out(tmp_path: Path) -> None:
    """A2, negative control."""
    places = ("store.begin.before", "store.write.state", "store.commit.before")
    lives = [Order(point, Deed.KILL, 5) for point in places * 2]
    judge = Judge()
    judge.read(run(tmp_path, [lives], "--early")[0])
    found = [line for lines in judge.wrong.values() for line in lines]
    assert any("were acknowledged" in line for line in found)


@pytest.mark.parametrize(
    ("ledger", "problem"),
    [
        ("found 0 0;try 0;done 0 1;born b kill 1;found 0 0", "1 were acknowledged"),
        ("found 0 0;try 0;done 0 1;born b kill 1;found 0 2", "at most 1 asked for"),
        ("found 0 0;try 0;done 0 1;try 0;done 0 1", "answered twice"),
        ("said 9;born b kill 1;journal 8", "the journal ends at 8"),
        ("wrong clerk-0 is half", "is half"),
        ("ended 0", "it was to be killed"),
        ("born b raise 1;ended 4", "it was not reached"),
        ("born b raise 1;ended 6", "it did not heal"),
    ],
)
def test_the_judge_sees_what_must_never_be(
    tmp_path: Path, ledger: str, problem: str
) -> None:
    file = tmp_path / "ledger"
    file.write_text("born a kill 1\n" + ledger.replace(";", "\n"))
    judge = Judge()
    judge.read(file)
    found = [line for lines in judge.wrong.values() for line in lines]
    assert len(found) == 1
    assert problem in found[0]
