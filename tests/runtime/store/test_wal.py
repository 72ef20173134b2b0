"""A log that ends too early: damage is told from a power cut, and told of."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.store import StateWrite, Unit, open_store
from treewarden.store.database import open_database
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.wal import lost_commits
from treewarden.store.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

FRAME = 4096 + 24
COMMITS = 20


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A file as a killed runtime leaves it: twenty commits, all of them in its log."""
    file = tmp_path / "running.db"
    opened = open_database(file, level=Level.DURABLE, application="", boot="b")
    writer = Writer(opened)
    for number in range(COMMITS + 1):
        unit = Unit("/a")
        unit.state = StateWrite("Counter", 1, number, b"%d" % number)
        writer.commit(Group([unit]))
        if number == 0:
            opened.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    copy = tmp_path / "store.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", f"{copy}{suffix}")
    writer.close()
    for reader in opened.readers:
        reader.close()
    opened.database.close()
    return copy


def log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def flip(file: Path, at: int) -> None:
    content = bytearray(log_of(file).read_bytes())
    content[at] ^= 1
    log_of(file).write_bytes(content)


async def opened(file: Path) -> tuple[int, str]:
    """The revision that is read, and what is said of damage."""
    async with open_store(file) as store:
        stored = await store.load("/a", "Counter")
        return (stored.revision if stored is not None else 0), store.statistics().damage


def frames_of(file: Path) -> int:
    return (log_of(file).stat().st_size - 32) // FRAME


def test_a_whole_log_has_lost_nothing(killed: Path) -> None:
    assert trio.run(opened, killed) == (COMMITS, "")


@pytest.mark.parametrize("commit", [0, 7, COMMITS - 2])
def test_a_bit_that_flips_before_the_last_commit_is_told_of(
    killed: Path, commit: int
) -> None:
    a_commit = frames_of(killed) // COMMITS
    flip(killed, 32 + commit * a_commit * FRAME + 100)
    revision, damage = trio.run(opened, killed)
    assert revision == commit
    # The last commit is not counted: a power cut looks like that.
    assert f"{COMMITS - commit - 1} commits behind the damaged place" in damage


def test_a_log_whose_header_is_damaged_is_told_of(killed: Path) -> None:
    flip(killed, 17)
    revision, damage = trio.run(opened, killed)
    assert revision == 0
    assert f"{COMMITS} commits" in damage


def test_a_commit_that_a_power_cut_spoilt_is_nobodys_damage(killed: Path) -> None:
    flip(killed, log_of(killed).stat().st_size - 50)
    assert trio.run(opened, killed) == (COMMITS - 1, "")


@pytest.mark.parametrize("kept", [0, 10, 32, 32 + FRAME, 32 + 7 * FRAME - 5])
def test_a_log_that_was_cut_off_is_nobodys_damage(killed: Path, kept: int) -> None:
    log = log_of(killed)
    log.write_bytes(log.read_bytes()[:kept])
    _, damage = trio.run(opened, killed)
    assert damage == ""


def test_what_an_earlier_log_left_behind_this_one_is_not_counted(
    tmp_path: Path,
) -> None:
    file = tmp_path / "store.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("CREATE TABLE meta (n)")
        for number in range(50):
            connection.execute("INSERT INTO meta VALUES (?)", (number,))
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        connection.execute("INSERT INTO meta VALUES (0)")
        frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        assert frames < 5
        assert lost_commits(log_of(file), frames) == 0
