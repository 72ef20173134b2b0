"""F16: a file that was cut off is read up to its last whole commit, or refused.

The original took what it could not read for nothing there and started empty. Here every
512 bytes (a sector: what a disk writes whole) of the log and of the file itself are the
end of what is left, and the store is opened on it. Each commit changes two agents and the
journal, so that half a commit would be seen.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.clock import wall_ns
from treewarden.errors import RestoreError, StoreBroken, StoreError
from treewarden.store import StagedEvent, StateWrite, Unit, open_store
from treewarden.store.database import open_database
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
HEADER = 32
FRAME = 24 + 4096
FIRST = 10
"""Commits that are in the main file already."""
LAST = 15
"""The number of the last commit; those after `FIRST` are only in the log."""


class Killed:
    """What a killed runtime leaves: the file, its log, and where each commit ends there."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "killed.db"
        self.ends: list[int] = []

    def write(self) -> None:
        source = self.file.with_name("running.db")
        opened = open_database(source, level=Level.DURABLE, application="", boot="b")
        writer = Writer(opened)
        log = source.with_name("running.db-wal")
        for number in range(1, LAST + 1):
            decision = writer.commit(Group([unit(path, number) for path in "ab"]))
            assert decision.broken is None
            if number == FIRST:
                opened.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            elif number > FIRST:
                self.ends.append(log.stat().st_size)
        shutil.copy(source, self.file)
        shutil.copy(log, self.log)
        writer.close()
        for reader in opened.readers:
            reader.close()
        opened.database.close()

    @property
    def log(self) -> Path:
        return self.file.with_name(f"{self.file.name}-wal")

    def whole(self, size: int) -> int:
        """The number of the last commit that a log of this size holds whole."""
        return FIRST + sum(end <= size for end in self.ends)


def unit(name: str, number: int) -> Unit:
    unit = Unit(f"/{name}")
    payload = b'{"n":%d,"text":"%s"}' % (number, b"word " * 40)
    unit.state = StateWrite("Counter", 1, number, payload)
    unit.events = [StagedEvent("counted", b"%d" % number, wall_ns(), unit.path)]
    return unit


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    killed = Killed(tmp_path_factory.mktemp("killed"))
    killed.write()
    return killed


def cut(original: Path, copy: Path, size: int) -> None:
    shutil.copy(original, copy)
    with copy.open("r+b") as file:
        file.truncate(size)


async def read(file: Path) -> tuple[int, int, int]:
    """The two revisions and the end of the journal, through a store like any other."""
    async with open_store(file) as store:
        assert store.recovered
        states = [await store.load(path, "Counter") for path in ("/a", "/b")]
        one, other = (0 if state is None else state.revision for state in states)
        entries = await store.entries(since=None, limit=1)
        return one, other, entries[0].position if entries else 0


def beside(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def test_f16_a_log_cut_off_anywhere_leaves_the_last_whole_commit(
    killed: Killed, tmp_path: Path
) -> None:
    """F16"""
    size = killed.log.stat().st_size
    assert size > (LAST - FIRST) * 2 * FRAME
    wrong = []
    for length in [*range(0, size, SECTOR), size]:
        file = tmp_path / f"{length}.db"
        shutil.copy(killed.file, file)
        cut(killed.log, beside(file), length)
        number = killed.whole(length)
        found = trio.run(read, file)
        if found != (number, number, 2 * number):
            wrong.append((length, number, found))
        file.unlink()
    assert wrong == []


def test_f16_a_file_cut_off_anywhere_is_refused_or_whole_and_never_empty(
    killed: Killed, tmp_path: Path
) -> None:
    """F16"""
    size = killed.file.stat().st_size
    refused = 0
    for length in range(0, size, SECTOR):
        file = tmp_path / f"{length}.db"
        cut(killed.file, file, length)
        shutil.copy(killed.log, beside(file))
        before = file.read_bytes()
        try:
            found = trio.run(read, file)
        except (StoreError, RestoreError) as error:
            refused += 1
            assert str(file) in str(error) or "damaged" in str(error)  # noqa: PT017 - both ways are right
            assert file.read_bytes() == before, "it must stay for whoever mends it"
        else:
            assert found == (LAST, LAST, 2 * LAST), f"cut at {length}"
        beside(file).unlink(missing_ok=True)
    assert refused > size / SECTOR / 2


def test_f16_a_file_that_ended_in_order_and_was_cut_off_is_refused(
    killed: Killed, tmp_path: Path
) -> None:
    """F16: without a log there is nothing that could mend it."""
    whole = tmp_path / "whole.db"
    shutil.copy(killed.file, whole)
    shutil.copy(killed.log, beside(whole))
    trio.run(read, whole)
    assert not beside(whole).exists()
    for length in range(SECTOR, whole.stat().st_size, SECTOR):
        file = tmp_path / f"{length}.db"
        cut(whole, file, length)
        with pytest.raises((StoreBroken, StoreError)):
            trio.run(read, file)
