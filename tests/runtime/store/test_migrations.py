"""Schemas: a file of any released one is brought up to date, and is kept as it was."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from treewarden.errors import MigrationFailed
from treewarden.store import DurableQueue, Retention, open_store
from treewarden.store.checking import problems
from treewarden.store.checksums import TABLES
from treewarden.store.database import load_meta, open_database
from treewarden.store.level import Level
from treewarden.store.migrations import SCHEMA_VERSION

if TYPE_CHECKING:
    from treewarden.store.database import Opened

FIRST_SCHEMA = Path(__file__).parents[2] / "data" / "schema_1.sql"


@pytest.fixture
def first(file: Path) -> Path:
    """A database as the first schema had it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return file


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


def contents(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """What people would miss: all columns but the checksums, leases and the run's facts."""
    with closing(sqlite3.connect(file)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master")
        }
        return {
            table.name: connection.execute(
                f"SELECT {', '.join(c for c in table.columns if c != 'free_at')}"  # noqa: S608 - our own names
                f" FROM {table.name} ORDER BY 1"
            ).fetchall()
            for table in TABLES.values()
            if table.name in tables and table.name != "meta"
        }


def migrated(file: Path) -> Opened:
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="b")
    for connection in opened.readers:
        connection.close()
    opened.database.close()
    return opened


def kept(file: Path) -> list[Path]:
    return sorted(file.parent.glob("store.db.schema-*"))


def test_a_file_of_the_first_schema_keeps_everything(first: Path) -> None:
    before = contents(first)
    with closing(migrated(first).connection) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert problems(connection) == []
        assert load_meta(connection)["created_at_ns"] == "1790000000001000000"
    after = contents(first)
    assert {name: after[name] for name in before} == before
    assert sum(map(len, before.values())) == 13


async def test_what_the_first_schema_held_is_read_by_those_who_own_it(
    first: Path,
) -> None:
    # What is in it is of a certain day, and is not to become too old one day.
    for_ever = Retention(days=36_500)
    async with open_store(first, application="shop", retention=for_ever) as store:
        stored = await store.load("/people/ada", "Person")
        assert stored is not None
        assert stored.payload.decode() == '{"name":"Ada Lovelace","mark":"✓"}'
        assert len(await store.crashes("/counter")) == 2
        entries = await store.entries(since=0, limit=10)
        assert [entry.damaged for entry in entries] == [False] * 4
        queue = DurableQueue(store, "/frontier", "pending", str)
        assert [item.attempts for item in await queue.peek(9)] == [1, 0, 0, 0]


def test_a_file_is_copied_before_its_schema_is_changed(first: Path) -> None:
    before = contents(first)
    migrated(first).connection.close()
    (copy,) = kept(first)
    assert copy.name.startswith("store.db.schema-1.")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert contents(copy) == before
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_file_of_this_schema_is_not_copied(file: Path) -> None:
    for _ in range(2):
        migrated(file).connection.close()
    assert kept(file) == []


def test_what_was_damaged_in_the_first_schema_stays_damaged(first: Path) -> None:
    change(first, "UPDATE agent_state SET revision = 4 WHERE path = '/counter'")
    change(first, "UPDATE agent_crash SET fault = '{}' WHERE id = 2")
    change(first, "UPDATE journal SET topic = 'x' WHERE position = 2")
    change(first, "UPDATE queue_item SET key = 'z' WHERE key = 'b'")
    change(
        first, "UPDATE queue_item SET payload = CAST(x'22ff22' AS TEXT) WHERE seq = 1"
    )
    with closing(migrated(first).connection) as connection:
        assert problems(connection) == [
            "agent_state: the row /counter is damaged",
            "agent_crash: the row /counter 1790000000013000000 is damaged",
            "journal: the row 2 is damaged",
            "queue_item: the row /frontier pending a is damaged",
            "queue_item: the row /frontier pending z is damaged",
        ]


def test_attempts_that_failed_leave_one_copy(first: Path) -> None:
    change(first, "CREATE TABLE meta_before (in_the_way)")
    earlier = first.with_name("store.db.schema-1.20200101T000000Z")
    earlier.write_bytes(b"")
    before = contents(first)
    with pytest.raises(MigrationFailed, match=r"already.*the file is as it was"):
        migrated(first)
    assert contents(first) == before
    (copy,) = kept(first)
    assert copy != earlier
    change(first, "DROP TABLE meta_before")
    migrated(first).connection.close()
    assert len(kept(first)) == 1


def test_a_file_that_cannot_be_copied_is_not_changed(first: Path) -> None:
    before = contents(first)
    blocked = [
        first.with_name(f"store.db.schema-1.{stamp}.partial") for stamp in _stamps()
    ]
    for folder in blocked:
        folder.mkdir()
    with pytest.raises(MigrationFailed, match="could not be copied"):
        migrated(first)
    assert contents(first) == before


def _stamps() -> list[str]:
    """The times that a copy's name may have in the next minute."""
    now = time.time()
    return [
        time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now + ahead)) for ahead in range(60)
    ]
