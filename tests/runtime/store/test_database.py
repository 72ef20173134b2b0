"""Opening: whose file it is, and that a file that is not ours keeps every byte."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from treewarden.errors import (
    ConfigError,
    DowngradeRefused,
    MigrationFailed,
    StoreBroken,
    StoreError,
    StoreLocked,
)
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan
from treewarden.store import open_store
from treewarden.store.database import open_database
from treewarden.store.level import Level
from treewarden.store.lock import FileLock
from treewarden.store.migrations import APPLICATION_ID, SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import MakeUnit


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def open_and_close(file: Path, application: str = "") -> bool:
    """Open and close without a run's end, as a crash would; True if it found one."""
    opened = open_database(
        file, level=Level.DURABLE, application=application, boot="boot"
    )
    for connection in (*opened.readers, opened.connection):
        connection.close()
    opened.database.close()
    return opened.recovered


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement).fetchall()


def test_a_new_file_is_ours_private_and_of_this_schema(file: Path) -> None:
    open_and_close(file)
    with closing(sqlite3.connect(file)) as connection:
        answers = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "auto_vacuum")
        ]
    assert answers == [APPLICATION_ID, SCHEMA_VERSION, 2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_log_is_private_whatever_the_umask(file: Path) -> None:
    before = os.umask(0)
    try:
        opened = open_database(file, level=Level.DURABLE, application="", boot="b")
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in file.parent.iterdir()
        }
        for connection in (*opened.readers, opened.connection):
            connection.close()
        opened.database.close()
    finally:
        os.umask(before)
    assert set(modes) == {
        "store.db",
        "store.db-wal",
        "store.db-shm",
        "store.db.lock",
    }
    assert set(modes.values()) == {0o600}


def test_every_table_is_strict(file: Path) -> None:
    open_and_close(file)
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("PRAGMA table_list").fetchall()
    loose = [name for _, name, _, _, _, strict in tables if not strict]
    assert [
        name for name in loose if not name.startswith(("sqlite_", "_sqlite_"))
    ] == []


def test_a_file_that_is_no_database_is_refused_untouched(file: Path) -> None:
    file.write_bytes(b"my diary, not a database" * 100)
    before = digest(file)
    with pytest.raises(StoreError, match="not an SQLite database"):
        open_and_close(file)
    assert digest(file) == before


def test_a_short_file_is_refused_untouched(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\0")
    with pytest.raises(StoreError, match="not an SQLite database"):
        open_and_close(file)
    assert file.stat().st_size == 16


def test_an_empty_file_becomes_a_database(file: Path) -> None:
    file.touch()
    assert open_and_close(file) is False


def test_somebody_elses_database_is_refused_untouched(file: Path) -> None:
    change(file, "CREATE TABLE meta (key, value)")
    before = digest(file)
    with pytest.raises(StoreError, match="something else than treewarden"):
        open_and_close(file)
    assert digest(file) == before


def test_a_newer_file_is_refused_untouched(file: Path) -> None:
    open_and_close(file)
    change(file, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = digest(file)
    with pytest.raises(DowngradeRefused, match="newer treewarden"):
        open_and_close(file)
    assert digest(file) == before


def test_a_newer_file_whose_version_is_still_in_the_log_is_refused_untouched(
    file: Path,
) -> None:
    open_and_close(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        before = digest(file)
        with pytest.raises(DowngradeRefused):
            open_and_close(file)
        assert digest(file) == before


def test_another_applications_file_is_refused_untouched(file: Path) -> None:
    open_and_close(file, "crawler")
    before = digest(file)
    with pytest.raises(StoreError, match="'crawler', not 'mailer'"):
        open_and_close(file, "mailer")
    assert digest(file) == before
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "store.db",
        "store.db.lock",
    ]
    open_and_close(file, "crawler")
    open_and_close(file)
    open_and_close(file, "crawler")


def test_a_run_that_was_not_closed_is_noticed_by_the_next(file: Path) -> None:
    assert open_and_close(file) is False
    assert open_and_close(file) is True


def test_a_damaged_file_is_refused(file: Path) -> None:
    open_and_close(file)
    content = bytearray(file.read_bytes())
    content[4096:8192] = os.urandom(4096)
    file.write_bytes(content)
    with pytest.raises(StoreBroken, match="damaged"):
        open_and_close(file)


def test_a_refused_file_is_not_left_locked(file: Path) -> None:
    file.write_bytes(b"my diary")
    with pytest.raises(StoreError):
        open_and_close(file)
    file.unlink()
    open_and_close(file)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(StoreBroken, match=r"cannot open .*/taken/store\.db"):
        open_and_close(tmp_path / "taken" / "store.db")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreBroken, match="cannot open"):
        open_and_close(tmp_path)


def test_a_durable_store_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="durable store needs a file"):
        open_database(None, level=Level.DURABLE, application="", boot="b")


def test_a_schema_that_cannot_be_made_leaves_the_file_as_it_was(file: Path) -> None:
    open_and_close(file)
    change(file, "PRAGMA user_version = 0")
    change(file, "DELETE FROM _sqlite_migrations")
    before = digest(file)
    with pytest.raises(MigrationFailed, match="already exists"):
        open_and_close(file)
    assert digest(file) == before


def test_an_owner_who_has_not_written_its_name_yet_is_not_called_by_an_older_one(
    file: Path,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    name = {"pid": gone.pid, "boot": "b", "started_at_ns": 1}
    lock = file.with_name("store.db.lock")
    lock.write_text(json.dumps(name))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked, match="a process that has just started"):
            open_and_close(file)


async def test_a_second_store_on_the_same_file_is_refused(
    file: Path, make: MakeUnit
) -> None:
    async with open_store(file) as store:
        store.hand_over(make("/a", 1))
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}, started"):
            async with open_store(file):
                pytest.fail("it opened")
        await store.settled()


async def test_a_link_to_the_file_does_not_get_around_its_lock(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.db").symlink_to(file)
    async with open_store(file):
        with pytest.raises(StoreLocked):
            async with open_store(tmp_path / "link.db"):
                pytest.fail("it opened")


def test_a_file_whose_making_was_cut_off_before_its_first_table_is_ours(
    file: Path,
) -> None:
    """A4: SQLite has written its first page, and nobody's name is in it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    assert file.stat().st_size > 0
    opened = open_database(file, level=Level.DURABLE, application="", boot="boot")
    assert opened.connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    opened.connection.close()
    for reader in opened.readers:
        reader.close()
    opened.database.close()


def test_a_lock_whose_owner_could_not_be_noted_is_given_back(file: Path) -> None:
    """A4: else a passing fault would lock a process out of its own file."""
    failure = Rule(point="store.locked", do=Deed.RAISE, error="EIO")
    loaded = load_plan(InjectionPlan(name="fail", injections=(failure,)))
    try:
        with pytest.raises(OSError, match="injected at store"):
            FileLock.acquire(file, "boot")
    finally:
        loaded.lift()
    FileLock.acquire(file, "boot").release()


def test_a_database_whose_tables_are_in_its_log_alone_is_not_taken_for_an_unfinished_one(
    file: Path,
) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (n)")
        before = digest(file)
        with pytest.raises(StoreError, match="something else than treewarden"):
            open_database(file, level=Level.DURABLE, application="", boot="boot")
        assert digest(file) == before
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
