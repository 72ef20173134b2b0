"""The schema as a sequence of steps, recorded by sqlite-utils.

A step is never changed once released; a new one is added. `user_version` is the number of
steps that a file has seen, so that an older runtime refuses a newer file. All steps that a
file lacks run in one transaction: it has the old schema or the new one.

Tables are STRICT and their contents JSON text, readable with sqlite-utils or Datasette.
"""

from __future__ import annotations

import glob
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlite_utils import Database, Migrations

from treewarden.errors import MigrationFailed, StoreError
from treewarden.injection import places

from .checksums import checksum_sql
from .copies import begin_copy, beside, discard, finish_copy, partial_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

APPLICATION_ID: Final = 0x54574457
"""`TWDW` in the file's header: how a treewarden database is told from any other."""

steps = Migrations("treewarden")


@steps(name="0001_first_tables")
def first_tables(db: Database) -> None:
    """State, its last crashes, the journal, queues, and facts about the file."""
    for statement in _FIRST_TABLES:
        places.MIGRATE_STEP.reach()
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


@steps(name="0002_checksums_of_whole_rows")
def checksums_of_whole_rows(db: Database) -> None:
    """A row's checksum covers all of it, and facts about the file have one.

    What was damaged before stays so: its new checksum is one that no row has.
    """
    for table, before, after in _COVERED:
        places.MIGRATE_STEP.reach()
        db.execute(
            f"UPDATE {table} SET crc = CASE crc WHEN {checksum_sql(*before)}"  # noqa: S608 - our own names
            f" THEN {checksum_sql(*after)} ELSE -1 END"
        )
    db.execute("ALTER TABLE meta RENAME TO meta_before")
    db.execute(_META)
    db.execute(
        "INSERT INTO meta (key, value, crc)"  # noqa: S608 - our own names
        f" SELECT key, value, {checksum_sql('key', 'value')} FROM meta_before"
    )
    db.execute("DROP TABLE meta_before")


_META = """CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""

# By table: what its checksum covered, and what it covers now.
_COVERED: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
    (
        "agent_state",
        ("path", "store_as", "state_version", "revision", "payload"),
        ("path", "store_as", "state_version", "revision", "at_ns", "payload"),
    ),
    (
        "agent_crash",
        (
            "path",
            "at_ns",
            "operation",
            "revision",
            "(message || fault || ifnull(payload, ''))",
        ),
        (
            "path",
            "at_ns",
            "incarnation",
            "operation",
            "message",
            "fault",
            "revision",
            "payload",
        ),
    ),
    (
        "journal",
        ("position", "topic", "kind", "payload"),
        (
            "position",
            "topic",
            "kind",
            "at_ns",
            "source",
            "trace",
            "end_bytes",
            "payload",
        ),
    ),
    (
        "queue_item",
        ("path", "name", "key", "payload"),
        ("path", "name", "key", "seq", "attempts", "free_at", "payload"),
    ),
)


@steps(name="0003_remembered_children")
def remembered_children(db: Database) -> None:
    """What dynamic supervisors remember of their children."""
    db.execute(
        """CREATE TABLE remembered_child (
            seq INTEGER PRIMARY KEY,
            supervisor TEXT NOT NULL,
            id TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            spec TEXT NOT NULL,
            crc INTEGER NOT NULL,
            UNIQUE (supervisor, id)
        ) STRICT"""
    )


@steps(name="0004_map_items")
def map_items(db: Database) -> None:
    """Durable maps, a row an item."""
    # The rows apart from their index: a value may be large, and the index is what a
    # look-up and a count go through.
    db.execute(
        """CREATE TABLE map_item (
            id INTEGER PRIMARY KEY,
            path TEXT NOT NULL,
            name TEXT NOT NULL,
            key TEXT NOT NULL,
            payload TEXT NOT NULL,
            crc INTEGER NOT NULL,
            UNIQUE (path, name, key)
        ) STRICT"""
    )


@steps(name="0005_transactions")
def transactions(db: Database) -> None:
    """Transactions that somebody outside takes part in, until everybody has been told."""
    db.execute(
        """CREATE TABLE tx_log (
            id TEXT PRIMARY KEY,
            verdict TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            participants TEXT NOT NULL,
            crc INTEGER NOT NULL
        ) STRICT"""
    )


@steps(name="0006_faults")
def faults(db: Database) -> None:
    """The fault history: reports of crashes, found by the node that crashed."""
    db.execute(
        """CREATE TABLE fault (
            position INTEGER PRIMARY KEY,
            path TEXT NOT NULL,
            topic TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            payload TEXT NOT NULL,
            crc INTEGER NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX fault_by_path ON fault (path, position)")


@steps(name="0007_durable_messages")
def durable_messages(db: Database) -> None:
    """Messages that outlive the process, what was applied, and what was given up."""
    for statement in _DURABLE_MESSAGES:
        places.MIGRATE_STEP.reach()
        db.execute(statement)


_DURABLE_MESSAGES: Sequence[str] = (
    """CREATE TABLE inbox (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        msg_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        sender TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        arguments TEXT NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX inbox_by_path ON inbox (path, seq)",
    """CREATE TABLE applied (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        msg_id TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        answer TEXT,
        crc INTEGER NOT NULL,
        UNIQUE (msg_id, path)
    ) STRICT""",
    "CREATE INDEX applied_by_path ON applied (path, seq)",
    """CREATE TABLE committed_range (
        seq INTEGER PRIMARY KEY,
        boot TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        at_ns INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        UNIQUE (boot, first)
    ) STRICT""",
    """CREATE TABLE effect (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        msg_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        result TEXT NOT NULL,
        crc INTEGER NOT NULL,
        UNIQUE (path, msg_id, number)
    ) STRICT""",
    """CREATE TABLE dead_letter (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        msg_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        sender TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        reason TEXT NOT NULL,
        arguments TEXT NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT""",
)


@steps(name="0008_indexed_states")
def indexed_states(db: Database) -> None:
    """Fields by which states are found, and what each state has in them."""
    db.execute(
        """CREATE TABLE indexed_field (
            store_as TEXT NOT NULL,
            field TEXT NOT NULL,
            PRIMARY KEY (store_as, field)
        ) STRICT, WITHOUT ROWID"""
    )
    # Not an index over the JSON itself: SQLite takes its functions there for unsafe, and
    # a damaged state could then neither be changed nor be removed.
    db.execute(
        """CREATE TABLE state_index (
            store_as TEXT NOT NULL,
            field TEXT NOT NULL,
            path TEXT NOT NULL,
            value ANY,
            PRIMARY KEY (store_as, field, path)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute(
        "CREATE INDEX state_index_by_value ON state_index (store_as, field, value, path)"
    )


@steps(name="0009_durable_subscriptions")
def durable_subscriptions(db: Database) -> None:
    """How far subscriptions have come, what is out of turn, and events given up."""
    for statement in _DURABLE_SUBSCRIPTIONS:
        places.MIGRATE_STEP.reach()
        db.execute(statement)
    *covered, last = _LETTER
    db.execute(
        f"UPDATE dead_letter SET crc = CASE crc WHEN {checksum_sql(*covered, last)}"  # noqa: S608 - our own names
        f" THEN {checksum_sql(*covered, 'subscription', last)} ELSE -1 END"
    )


# What the checksum of a dead letter covered before.
_LETTER: Sequence[str] = (
    "seq",
    "path",
    "msg_id",
    "operation",
    "attempts",
    "sender",
    "at_ns",
    "reason",
    "arguments",
)


_DURABLE_SUBSCRIPTIONS: Sequence[str] = (
    """CREATE TABLE subscription (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        pattern TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        at_ns INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        UNIQUE (owner, name)
    ) STRICT""",
    """CREATE TABLE delivery (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        position INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        done INTEGER NOT NULL,
        event TEXT,
        crc INTEGER NOT NULL,
        UNIQUE (owner, name, position)
    ) STRICT""",
    "ALTER TABLE dead_letter ADD COLUMN subscription TEXT NOT NULL DEFAULT ''",
)


@steps(name="0010_policy_states")
def policy_states(db: Database) -> None:
    """What circuits and limiters keep beyond their process."""
    db.execute(
        """CREATE TABLE policy_state (
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            state TEXT NOT NULL,
            crc INTEGER NOT NULL,
            UNIQUE (kind, name)
        ) STRICT"""
    )


@steps(name="0011_workflows")
def workflows(db: Database) -> None:
    """Workflows, and their steps that have begun."""
    for statement in _WORKFLOWS:
        places.MIGRATE_STEP.reach()
        db.execute(statement)


_WORKFLOWS: Sequence[str] = (
    """CREATE TABLE workflow (
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        begun_ns INTEGER NOT NULL,
        ended_ns INTEGER NOT NULL,
        resume_as TEXT NOT NULL,
        reason TEXT NOT NULL,
        outcome TEXT NOT NULL,
        arguments TEXT NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE workflow_step (
        workflow TEXT NOT NULL,
        number INTEGER NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        compensation TEXT NOT NULL,
        undo_failures INTEGER NOT NULL,
        at_ns INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        crc INTEGER NOT NULL,
        UNIQUE (workflow, number)
    ) STRICT""",
    # Ends in their order, and with an end of 0 those that have not ended.
    "CREATE INDEX workflow_by_end ON workflow (ended_ns, id)",
)


@steps(name="0012_retention_of_subscriptions")
def retention_of_subscriptions(db: Database) -> None:
    """What the journal does for a durable subscription that is behind its limits."""
    places.MIGRATE_STEP.reach()
    db.execute(
        "ALTER TABLE subscription ADD COLUMN retention TEXT NOT NULL"
        " DEFAULT 'drop_and_mark_gap'"
    )
    *covered, last = _SUBSCRIPTION
    places.MIGRATE_STEP.reach()
    db.execute(
        f"UPDATE subscription SET crc = CASE crc WHEN {checksum_sql(*covered, last)}"  # noqa: S608 - our own names
        f" THEN {checksum_sql(*covered, 'retention', last)} ELSE -1 END"
    )


# What the checksum of a subscription covered before.
_SUBSCRIPTION: Sequence[str] = ("owner", "name", "pattern", "cursor", "begun", "at_ns")


SCHEMA_VERSION: Final = 12


def migrate(connection: sqlite3.Connection, path: Path | None) -> Path | None:
    """Bring the file to this version's schema; returns where it was copied to before.

    A file that has a schema already is copied beside itself first. Copies of the same
    schema that earlier attempts left are removed then: a runtime that is started again
    and again must not fill the disk.

    Raises:
        MigrationFailed: a step failed; the file is as it was before.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return None
    kept = _keep(connection, path, version) if path is not None and version else None
    _migrate(connection, version, path)
    return kept


def _keep(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    word = f"schema-{version}"
    earlier = sorted(path.parent.glob(f"{glob.escape(path.name)}.{word}.*"))
    target = beside(path, word)
    partial = partial_name(target)
    try:
        places.MIGRATE_COPY.reach()
        begin_copy(connection, partial)
        finish_copy(partial, target)
        for copy in earlier:
            if copy != target:
                copy.unlink()
    except (sqlite3.Error, OSError, StoreError) as error:
        discard(partial)
        raise MigrationFailed(
            f"{path} could not be copied to {target} before its schema is changed:"
            f" {error}; the file is as it was before"
        ) from error
    return target


def _migrate(connection: sqlite3.Connection, version: int, path: Path | None) -> None:
    places.MIGRATE_BEGIN.reach()
    connection.execute("BEGIN IMMEDIATE")
    try:
        steps.apply(Database(connection, recursive_triggers=False))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        places.MIGRATE_COMMIT.reach()
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):  # After some errors SQLite has done so by itself.
            connection.execute("ROLLBACK")
        raise MigrationFailed(
            f"the schema of {path or 'the database in memory'} could not be brought from version {version} to"
            f" {SCHEMA_VERSION}: {error}; the file is as it was before"
        ) from error
