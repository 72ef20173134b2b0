"""F16: a file that is taken away from under the store is not written to any more.

SQLite itself goes on: what it has open has lost its name, and nothing else. Everything
acknowledged from then on would be gone with the process.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from treewarden.errors import StoreBroken, StoreLocked
from treewarden.store import writer as module
from treewarden.store.database import open_database
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from treewarden.store import Unit
    from treewarden.store.writer import Writer

    from .conftest import MakeUnit


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer looks again before each commit, however little time has passed."""
    monkeypatch.setattr(module, "PLACE_SECONDS", 0.0)


def commit(writer: Writer, unit: Unit) -> StoreBroken | None:
    decision = writer.commit(Group([unit]))
    assert not decision.errors
    return decision.broken


def paths(file: Path) -> list[str]:
    """The states in a file, without what is in its log."""
    uri = f"{file.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return [path for (path,) in connection.execute("SELECT path FROM agent_state")]


def move(file: Path) -> None:
    file.rename(file.with_name("moved.db"))


def replace(file: Path) -> None:
    move(file)
    shutil.copy(file.with_name("moved.db"), file)


@pytest.mark.parametrize("take_away", [move, replace])
def test_f16_nothing_is_acknowledged_into_a_file_that_was_taken_away(
    file: Path, writer: Writer, make: MakeUnit, take_away: Callable[[Path], None]
) -> None:
    """F16"""
    assert commit(writer, make("/a", 1)) is None
    take_away(file)
    broken = commit(writer, make("/b", 1))
    assert broken is not None
    assert f"{file} was removed, moved or replaced while it was in use" in str(broken)
    # What was acknowledged before is where the file is now, also without its log.
    assert paths(file.with_name("moved.db")) == ["/a"]
    assert not file.exists() or paths(file) == []


def test_f16_a_file_that_was_put_back_is_written_again(
    file: Path, writer: Writer, make: MakeUnit
) -> None:
    move(file)
    assert commit(writer, make("/b", 1)) is not None
    writer.rest()
    assert writer.trouble is not None
    assert not file.exists()
    file.with_name("moved.db").rename(file)
    writer.rest()
    assert writer.trouble is None
    assert commit(writer, make("/c", 1)) is None


def test_f16_a_log_that_was_removed_loses_nothing_and_gets_nothing(
    file: Path, writer: Writer, make: MakeUnit
) -> None:
    assert commit(writer, make("/a", 1)) is None
    file.with_name(f"{file.name}-wal").unlink()
    broken = commit(writer, make("/b", 1))
    assert "store.db-wal was removed" in str(broken)
    assert paths(file) == ["/a"]


def test_an_idle_store_is_in_trouble_when_its_file_is_gone(
    file: Path, writer: Writer
) -> None:
    file.unlink()
    writer.rest()
    assert "was removed, moved or replaced" in str(writer.trouble)


def test_a_lock_that_was_removed_is_taken_again_before_anything_is_written(
    file: Path, writer: Writer, make: MakeUnit
) -> None:
    file.with_name("store.db.lock").unlink()
    assert commit(writer, make("/a", 1)) is None
    with pytest.raises(StoreLocked):
        open_database(file, level=Level.DURABLE, application="", boot="second")


def test_nothing_is_written_once_another_has_the_lock(
    file: Path, writer: Writer, make: MakeUnit
) -> None:
    """A14: who removes the lock's file lets a second runtime in, but not both write."""
    file.with_name("store.db.lock").unlink()
    other = FileLock.acquire(file, "second")
    try:
        assert "process" in str(commit(writer, make("/a", 1)))
    finally:
        other.release()
    assert commit(writer, make("/a", 1)) is None
