"""A11: copies that are made while the store is written to, and what is in them.

A process of its own writes as fast as the disk lets it and tells what is acknowledged;
the copies are made by `treewarden db backup`, from outside, and by the store itself. Each
is put in place of the file by `treewarden db restore` and read. One commit counts two
agents and the journal up by one, so that what is no prefix of the history is seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from treewarden.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Prints the number of each acknowledged commit; for each line that it reads it makes a copy
# there, and says what was acknowledged before it began, how late the loop was at worst
# meanwhile, and how late in as much time without a copy.
WRITER = """
import json, sys, time
from functools import partial
from pathlib import Path
import trio
from treewarden.store import StagedEvent, StateWrite, Unit, open_store

BEAT = 0.005
acknowledged = 0

def unit(name, n):
    unit = Unit(f"/{name}")
    unit.state = StateWrite("Counter", 1, n, b'{"n":%d,"text":"%s"}' % (n, b"x" * 300))
    unit.events = [StagedEvent("counted", b"%d" % n, time.time_ns(), unit.path)]
    return unit

async def write(store):
    global acknowledged
    n = 0
    for number in range(32):  # so that a copy takes many slices, with commits between
        ballast = Unit(f"/ballast/{number}")
        ballast.state = StateWrite("Ballast", 1, 1, b'"%s"' % (b"x" * 250_000))
        store.hand_over(ballast)
        await store.wait(ballast)
    while True:
        n += 1
        first, second = unit("a", n), unit("b", n)
        store.hand_over(first)
        store.hand_over(second)
        await store.wait(second)
        acknowledged = n
        sys.stdout.write(f"{n}\\n")

async def lateness(found):
    while True:
        due = trio.current_time() + BEAT
        await trio.sleep_until(due)
        found.append(trio.current_time() - due)

async def obey(store):
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        target = Path(line.strip())
        before, late, usual = acknowledged, [], []
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lateness, late)
            await store.backup(target)
            nursery.cancel_scope.cancel()
        after, took = acknowledged, trio.current_time() - began
        with trio.move_on_after(took):
            await lateness(usual)
        said = {
            "copied": str(target),
            "before": before,
            "after": after,
            "late": max(late, default=0.0) - max(usual, default=0.0),
        }
        sys.stdout.write(json.dumps(said) + "\\n")

async def main():
    async with open_store(Path(sys.argv[1]), application="load") as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, store)
            nursery.start_soon(obey, store)

sys.stdout.reconfigure(line_buffering=True)
trio.run(main)
"""
COPIES = 4
BETWEEN = 40
"""Commits between two copies."""
LATE_SECONDS = 0.05


class Load:
    """The writing process, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.acknowledged = 0
        self.copies: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):
                return  # It was killed in the middle of a word.
            said = json.loads(line)
            with self._news:
                if isinstance(said, int):
                    self.acknowledged = said
                else:
                    self.copies.append(said)
                self._news.notify_all()

    def end(self) -> None:
        self.process.kill()
        # Before its pipe is closed: nobody may be reading then.
        self._listener.join()

    def wait(self, commits: int) -> None:
        goal = self.acknowledged + commits
        with self._news:
            assert self._news.wait_for(lambda: self.acknowledged >= goal, timeout=60)

    def copy(self, target: Path) -> dict[str, Any]:
        assert self.process.stdin is not None
        count = len(self.copies) + 1
        self.process.stdin.write(f"{target}\n")
        self.process.stdin.flush()
        with self._news:
            assert self._news.wait_for(lambda: len(self.copies) == count, timeout=60)
        return self.copies[-1]


@contextmanager
def load(file: Path) -> Iterator[Load]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        writer = Load(process)
        try:
            yield writer
        finally:
            writer.end()


def treewarden(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "treewarden.cli", "db", *words, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def read(file: Path) -> int:
    """How many commits a restored file holds; they must be a prefix, and whole."""
    async with open_store(file, application="load") as store:
        states = [await store.load(path, "Counter") for path in ("/a", "/b")]
        revisions = {state.revision for state in states if state is not None}
        assert len(revisions) == 1, "half a commit"
        (revision,) = revisions
        entries = await store.entries(since=0, limit=1 << 30, pattern="counted")
        told = [int(entry.payload) for entry in entries]
        assert told == [n for n in range(1, revision + 1) for _ in "ab"]
        return revision


def restored(copy: Path) -> int:
    file = copy.with_suffix(".restored")
    assert treewarden("restore", str(copy), "--db", str(file))["kept"] is None
    return trio.run(read, file)


def test_a_copy_made_under_load_is_a_prefix_that_holds_all_acknowledged_before(
    tmp_path: Path,
) -> None:
    """A11"""
    file = tmp_path / "load.db"
    found = []
    with load(file) as writer:
        for number in range(COPIES):
            writer.wait(BETWEEN)
            target = tmp_path / f"copy-{number}.db"
            if number % 2:
                said = writer.copy(target)
                before = said["before"]
            else:
                before = writer.acknowledged
                made = treewarden("backup", str(target), "--db", str(file))
                assert made["damaged"] == []
            found.append((before, restored(target), writer.acknowledged))
    for before, held, _ in found:
        assert before <= held, found
    # In flight when the process was asked for the last time: one commit.
    assert all(held <= after + 1 for _, held, after in found), found
    assert treewarden("check", "--db", str(file))["problems"] == []
    assert trio.run(read, file) >= found[-1][2]


def test_a_copy_taken_while_writing_stands_in_for_a_file_that_is_lost(
    tmp_path: Path,
) -> None:
    """A11: restored in place, and written on by the next run."""
    file, copy = tmp_path / "load.db", tmp_path / "copy.db"
    with load(file) as writer:
        writer.wait(BETWEEN)
        said = writer.copy(copy)
        writer.wait(BETWEEN)
    file.write_bytes(b"what the disk made of it")
    kept = treewarden("restore", str(copy), "--db", str(file), "--replace")["kept"]
    assert kept is not None
    # In flight when it was made: one commit.
    assert said["before"] <= trio.run(read, file) <= said["after"] + 1


def test_a_copy_under_load_holds_up_nobody(
    tmp_path: Path, until_within: Callable[[float], Iterator[list[float]]]
) -> None:
    """A11: the loop is not later than without a copy."""
    with load(tmp_path / "load.db") as writer:
        writer.wait(BETWEEN)
        for late in until_within(LATE_SECONDS):
            late.append(writer.copy(tmp_path / f"copy-{len(late)}.db")["late"])
