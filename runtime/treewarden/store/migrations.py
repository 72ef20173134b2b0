"""The schema as a sequence of steps, recorded by sqlite-utils.

A step is never changed once released; a new one is added. `user_version` is the number of
steps that a file has seen, so that an older runtime refuses a newer file. All steps that a
file lacks run in one transaction: it has the old schema or the new one.

Tables are STRICT and their contents JSON text, readable with sqlite-utils or Datasette.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from sqlite_utils import Database, Migrations

from treewarden.errors import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLICATION_ID: Final = 0x54574457
"""`TWDW` in the file's header: how a treewarden database is told from any other."""

steps = Migrations("treewarden")


@steps(name="0001_first_tables")
def first_tables(db: Database) -> None:
    """State, its last crashes, the journal, queues, and facts about the file."""
    for statement in _FIRST_TABLES:
        db.execute(statement)


_FIRST_TABLES: Sequence[str] = (
    """CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE agent_state (
        path TEXT PRIMARY KEY,
        store_as TEXT NOT NULL,
        state_version INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        payload TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE agent_crash (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        incarnation INTEGER NOT NULL,
        operation TEXT NOT NULL,
        message TEXT NOT NULL,
        fault TEXT NOT NULL,
        revision INTEGER NOT NULL,
        payload TEXT,
        crc INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX agent_crash_by_path ON agent_crash (path, id)",
    """CREATE TABLE journal (
        position INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        kind TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        source TEXT NOT NULL,
        trace TEXT NOT NULL,
        payload TEXT NOT NULL,
        end_bytes INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT""",
    # The row's number is its place in the queue, so that a queue lies together on disk.
    """CREATE TABLE queue_item (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        payload TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        free_at REAL,
        crc INTEGER NOT NULL,
        UNIQUE (path, name, key)
    ) STRICT""",
    # Two small indexes: taking the oldest free item, or the next whose time has come,
    # costs the same in a queue of ten and of ten million.
    """CREATE INDEX queue_item_free ON queue_item (path, name, seq)
        WHERE free_at IS NULL""",
    """CREATE INDEX queue_item_waiting ON queue_item (path, name, free_at, seq)
        WHERE free_at IS NOT NULL""",
)

SCHEMA_VERSION: Final = 1


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version's schema.

    Raises:
        MigrationFailed: a step failed; the file is as it was before.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        steps.apply(Database(connection, recursive_triggers=False))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        connection.execute("ROLLBACK")
        raise MigrationFailed(
            f"the schema could not be brought from version {version} to"
            f" {SCHEMA_VERSION}: {error}; the file is as it was before"
        ) from error
