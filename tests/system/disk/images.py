"""What a disk could hold if the power were cut: every image is opened and judged.

    python images.py LOG [--images N] [--seed S] [--until-wrong]

The log is what `disk.c` wrote down. At each operation the disk holds, of each file, all
that was synced; and of what came after the sync either nothing, or some of it in whole, or
some of its sectors, as chance has it. An image is lost when a call had been answered by
then and its work is not there; half when state, events and queue of a clerk disagree;
unreadable when SQLite finds it damaged or cannot open it. What is found is printed as one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from workload import CLERKS, ITEMS  # type: ignore[import-not-found] # beside this

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR = 512
DATABASE, ANSWERS = "db", "answers"
# Of what SQLite keeps beside the database; the rest is memory that it shares.
BESIDE = ("db-wal", "db-journal")


class Step(NamedTuple):
    """One thing that was done to a file."""

    kind: str  # w(rite) t(runcate) s(ync) u(nlink) r(ename)
    name: str
    offset: int
    content: bytes


def read_log(file: Path) -> Iterator[Step]:
    """The steps of a log, in the order in which they took effect."""
    log, at = file.read_bytes(), 0
    while at < len(log):
        kind, size = chr(log[at]), log[at + 1]
        name = log[at + 2 : at + 2 + size].decode()
        at += 2 + size
        offset, length = struct.unpack_from("<QI", log, at)
        at += 12
        yield Step(kind, name, offset, log[at : at + length])
        at += length


def apply(content: bytearray, step: Step) -> None:
    """Do one step to what a file holds."""
    if step.kind in "tu":
        del content[step.offset :]
        return
    if len(content) < step.offset:
        content.extend(bytes(step.offset - len(content)))
    content[step.offset : step.offset + len(step.content)] = step.content


def sectors(step: Step) -> Iterator[Step]:
    """A write as the sectors that it consists of; anything else is indivisible."""
    if step.kind != "w":
        yield step
        return
    start, content = step.offset, step.content
    while content:
        size = SECTOR - start % SECTOR
        yield Step("w", step.name, start, content[:size])
        start, content = start + size, content[size:]


@dataclass
class Disk:
    """What is certainly on it, and what may be."""

    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[Step]] = field(default_factory=dict)
    _marks: dict[str, int] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """Go on by one step."""
        pending = self.pending.setdefault(step.name, [])
        if step.kind != "s":
            pending.append(step)
            return
        self._settle(step.name)
        # File systems keep names in a journal of their own, in order: a sync of any file
        # settles what was removed before it (ext4, XFS, APFS).
        for name, steps in self.pending.items():
            if any(one.kind == "u" for one in steps):
                self._settle(name)

    def _settle(self, name: str) -> None:
        content = self.synced.setdefault(name, bytearray())
        for one in self.pending[name]:
            apply(content, one)
        self.pending[name].clear()
        self._marks.pop(name, None)

    def image(self, name: str, how: str, chance: random.Random) -> bytes | None:
        """What `name` may hold: `nothing` of what is pending, some `whole`, or `torn`."""
        content = bytearray(self.synced.get(name, b""))
        exists = name in self.synced
        for step in self.pending.get(name, []):
            if step.kind == "u":
                # What is written later goes to another file of that name.
                if chance.random() < 0.5 or how == "nothing":
                    break
                content.clear()
            elif how != "nothing":
                exists |= _perhaps(content, step, how, chance)
        return bytes(content) if exists else None

    def mark(self, name: str, content: bytes | None) -> int:
        """A number for what `name` may hold; where there is no doubt, computed once."""
        if self.pending.get(name):
            return _mark(content)
        if name not in self._marks:
            self._marks[name] = _mark(content)
        return self._marks[name]


def _perhaps(content: bytearray, step: Step, how: str, chance: random.Random) -> bool:
    parts = [step] if how == "whole" else list(sectors(step))
    chosen = [part for part in parts if chance.random() < 0.5]
    for part in chosen:
        apply(content, part)
    return bool(chosen)


class Verdicts:
    """How many images there were, and what was wrong with some of them."""

    def __init__(self) -> None:
        self.images = self.lost = self.half = self.unreadable = self.worst_loss = 0
        self.examples: list[str] = []

    def note(self, what: str, example: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        if sum(one.startswith(what) for one in self.examples) < 3:
            self.examples.append(f"{what}: {example}")


def judge(folder: Path, answered: dict[int, int], verdicts: Verdicts) -> None:
    """Open the image as SQLite does after a power cut, and compare."""
    verdicts.images += 1
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    try:
        # The image is thrown away: nothing of it needs to be synced.
        connection.execute("PRAGMA synchronous = OFF")
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            verdicts.note("unreadable", found)
            return
        _judge_rows(connection, answered, verdicts)
    except (sqlite3.DatabaseError, ValueError) as error:
        verdicts.note("unreadable", str(error))
    finally:
        connection.close()


def _judge_rows(
    connection: sqlite3.Connection, answered: dict[int, int], verdicts: Verdicts
) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if "agent_state" not in tables:
        if answered:
            verdicts.note("lost", "there are no tables yet")
        return
    for number in range(CLERKS):
        count, events, left = _clerk(connection, f"/clerk-{number}")
        missing = answered.get(number, 0) - count
        if missing > 0 or (number in answered and not left and not count):
            verdicts.worst_loss = max(verdicts.worst_loss, missing)
            verdicts.note("lost", f"clerk {number}: {answered[number]} not {count}")
            return
        # Filling the queue is one handler: its items are all there or none is.
        whole = (ITEMS - count, list(range(count)))
        if (left, events) not in (whole, (0, []) if not count else whole):
            verdicts.note("half", f"clerk {number}: {count}, {len(events)}, {left}")
            return


def _clerk(connection: sqlite3.Connection, path: str) -> tuple[int, list[int], int]:
    row = connection.execute(
        "SELECT payload FROM agent_state WHERE path = ?", (path,)
    ).fetchone()
    events = connection.execute(
        "SELECT payload FROM journal WHERE source = ? AND topic = 'clerk.done'"
        " ORDER BY position",
        (path,),
    )
    published = [int(payload) for (payload,) in events]
    (left,) = connection.execute(
        "SELECT count(*) FROM queue_item WHERE path = ?", (path,)
    ).fetchone()
    return (json.loads(row[0])["count"] if row else 0), published, left


def run(log: Path, wanted: int, seed: int, *, until_wrong: bool = False) -> Verdicts:
    """Cut the power at each step, often enough that there are `wanted` images."""
    steps = list(read_log(log))
    # Some of what would be built is there already, hence a little more.
    share = 1.3 * wanted / (2 * len(steps))
    verdicts, disk, answered = Verdicts(), Disk(), dict[int, int]()
    chance = random.Random(seed)  # noqa: S311 - chosen again by its seed
    # In memory where there is such a place: nothing of an image is worth keeping.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        seen: set[tuple[int, ...]] = set()
        for step in steps:
            if step.name == ANSWERS:
                # On the way to somebody else: it cannot be taken back.
                clerk, count = step.content.split()
                answered[int(clerk)] = int(count)
                hows = ["nothing", "whole", "torn"]
            else:
                disk.take(step)
                hows = ["nothing", *_some(["whole", "torn"], share, chance)]
            for how in hows:
                image = {
                    name: disk.image(name, how, chance) for name in (DATABASE, *BESIDE)
                }
                if image[DATABASE] is None:
                    continue
                marks = [disk.mark(name, content) for name, content in image.items()]
                mark = (sum(answered.values()), *marks)
                if mark in seen:
                    continue
                seen.add(mark)
                judge(_lay_out(Path(place), image), answered, verdicts)
                if until_wrong and verdicts.examples:
                    return verdicts
    return verdicts


def _some(hows: list[str], share: float, chance: random.Random) -> Iterator[str]:
    for how in hows:
        yield from [how] * (int(share) + (chance.random() < share % 1))


def _mark(content: bytes | None) -> int:
    return -1 if content is None else crc32(content)


def _lay_out(folder: Path, image: dict[str, bytes | None]) -> Path:
    for old in folder.iterdir():
        old.unlink()
    for name, content in image.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def main() -> None:
    """Parse, judge, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until-wrong", action="store_true")
    options = parser.parse_args()
    verdicts = run(
        options.log, options.images, options.seed, until_wrong=options.until_wrong
    )
    sys.stdout.write(json.dumps(vars(verdicts) | {"seed": options.seed}))


if __name__ == "__main__":
    main()
