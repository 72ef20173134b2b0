"""Looking into a database file, also beside the runtime that owns it.

Through read-only connections, in short reads. Blocking, and not for the process that has
the file open as its store: looking at a file's header opens and closes it, and that would
drop SQLite's locks.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from treewarden.errors import StoreError

from .checking import all_rows, problems, structure_problems
from .checksums import TABLES, as_text, shown
from .copies import Backup, beside, copy_database, free_name
from .database import as_broken, connect_read_only, judge, load_meta, whole_name
from .journal import END, JournalEntry, load_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .checksums import Stored

_BELONGINGS = {
    "queue": "SELECT path, name, count(*) FROM queue_item GROUP BY 1, 2 ORDER BY 1, 2",
    "map": "SELECT path, name, count(*) FROM map_item GROUP BY 1, 2 ORDER BY 1, 2",
    "durable mailbox": "SELECT path, '', count(*) FROM inbox GROUP BY 1 ORDER BY 1",
    # Those of plain tasks have no owner, and nobody who could miss them.
    "subscription": "SELECT owner, name, 1 FROM subscription WHERE owner != ''"
    " ORDER BY 1, 2",
    "dead letters": "SELECT path, '', count(*) FROM dead_letter WHERE path != ''"
    " GROUP BY 1 ORDER BY 1",
}
_JSON_COLUMNS = frozenset({"payload", "message", "fault", "spec"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What `check_file` found; `problems` is empty when the file is whole.

    `clean` says whether the last run was closed in order (None: it does not say); while
    a runtime has the file open it was not.
    """

    file: Path
    application: str
    schema: int
    clean: bool | None
    bytes: int
    log_bytes: int
    rows: dict[str, int]
    problems: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """What is stored for the agent at `path` besides its state: so many `rows` of `what`.

    `name` is the collection's or subscription's; "" for what has none.
    """

    path: str
    what: str
    name: str
    rows: int


@contextmanager
def looking(file: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a file of this version's schema.

    Raises:
        DowngradeRefused: a newer version wrote it.
        StoreError: it is not there, no treewarden database, or of an earlier schema.
        StoreBroken: it cannot be read.
    """
    with _looking_at_any(file) as connection:
        refuse_earlier(file, connection)
        yield connection


@contextmanager
def _looking_at_any(file: Path) -> Iterator[sqlite3.Connection]:
    file = existing(file)
    with as_broken(str(file)):
        judge(file, "")
        with closing(
            connect_read_only(file, immutable=not _has_log(file))
        ) as connection:
            yield connection


def _has_log(file: Path) -> bool:
    # Without one the main file is everything, and reading it so leaves no file behind.
    log = file.with_name(file.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def existing(file: Path) -> Path:
    """The whole name of a file.

    Raises:
        StoreError: there is none.
        StoreBroken: it cannot be looked at.
    """
    file = whole_name(file)
    with as_broken(str(file)):
        if not file.is_file():
            raise StoreError(f"there is no file {file}")
        if not file.stat().st_size:
            raise StoreError(f"{file} is empty")
    return file


def is_ours(file: Path) -> bool:
    """Whether a file is a runtime's database, by its header."""
    from .migrations import APPLICATION_ID

    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            header = opened.read(72)
    except OSError:
        return False  # Nobody here may read it.
    return header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def schema_of(connection: sqlite3.Connection) -> int:
    """How many steps of the schema the file has seen."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def refuse_earlier(file: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file of an earlier schema.

    Raises:
        StoreError: it is one; names the remedy.
    """
    sentence = _earlier(schema_of(connection))
    if sentence:
        raise StoreError(f"{file}: {sentence}")


def _earlier(version: int) -> str:
    from .migrations import SCHEMA_VERSION

    if version == SCHEMA_VERSION:
        return ""
    return (
        f"its schema is {version}, this version's is {SCHEMA_VERSION};"
        " `treewarden db migrate` brings it up to date"
    )


def check_file(file: Path) -> FileReport:
    """Look at everything: SQLite's structure and the checksum of every row.

    Raises:
        DowngradeRefused: a newer version wrote it.
        StoreError: it is not there, or no treewarden database.
        StoreBroken: it cannot be opened at all.
    """
    with _looking_at_any(file) as connection:
        file = existing(file)
        schema = schema_of(connection)
        earlier = _earlier(schema)
        if earlier:
            found = [*structure_problems(connection), earlier]
        else:
            found = problems(connection)
        meta = {} if earlier else _facts(connection)
        log = file.with_name(file.name + "-wal")
        return FileReport(
            file=file,
            application=meta.get("application", ""),
            schema=schema,
            clean={"yes": True, "no": False}.get(meta.get("clean_shutdown", "")),
            bytes=file.stat().st_size,
            log_bytes=log.stat().st_size if log.exists() else 0,
            rows={} if earlier else _counts(connection),
            problems=found,
        )


def _facts(connection: sqlite3.Connection) -> dict[str, str]:
    try:
        return load_meta(connection)
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return {}  # That it cannot be read is among the problems.


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    counts = {}
    for name in TABLES:
        try:
            (count,) = connection.execute(
                f"SELECT count(*) FROM {name} NOT INDEXED"  # noqa: S608 - our own names
            ).fetchone()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            continue  # As above.
        counts[name] = int(count)
    return counts


def backup_file(file: Path, target: Path | None = None) -> Backup:
    """Copy the file, running or stopped, to `target` or beside itself; checks the copy.

    Raises:
        StoreError: the file is not there or not ours, the copy's name is taken, or its
            folder is not there.
        StoreBroken: the disk failed, or the copy does not hold together.
    """
    if target is not None and not free_name(target).parent.is_dir():
        raise StoreError(f"there is no folder for {target}; make it first")
    with looking(file) as connection:
        return copy_database(connection, target or beside(existing(file), "backup"))


def journal_of(
    file: Path,
    *,
    since: int | None,
    limit: int,
    pattern: str = ">",
    until: int | None = None,
) -> list[JournalEntry]:
    """Journal entries that match `pattern`, oldest first: after `since`, or the newest.

    With `until`, those that were there when the journal ended at that position.

    Raises:
        StoreError: the file is not there, not ours, or of another schema.
    """
    with looking(file) as connection:
        end = END if until is None else until
        return load_entries(connection, since, limit, pattern, end)


def states_of(file: Path) -> list[tuple[str, str]]:
    """The paths that have state, and the type that each belongs to.

    Raises:
        StoreError: the file is not there, not ours, or of another schema.
    """
    with looking(file) as connection:
        rows = connection.execute("SELECT path, store_as FROM agent_state ORDER BY 1")
        return [(str(path), str(store_as)) for path, store_as in rows]


def belongings_of(file: Path) -> list[Belonging]:
    """What agents have in the file besides state, by path.

    Raises:
        StoreError: the file is not there, not ours, or of another schema.
    """
    with looking(file) as connection:
        return [
            Belonging(path=shown(path), what=what, name=shown(name), rows=rows)
            for what, query in _BELONGINGS.items()
            for path, name, rows in connection.execute(query)
        ]


def export_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Everything that can be read, a mapping a row: its table, then its columns.

    A damaged row says so, and has its columns as they are found.

    Raises:
        StoreError: the file is not there, not ours, or of another schema.
    """
    with looking(file) as connection:
        for table in TABLES.values():
            for row in all_rows(connection, table):
                named = zip(table.columns, row.values, strict=True)
                yield {
                    "table": table.name,
                    "damaged": not row.sound,
                    **{name: exported(name, value) for name, value in named},
                }


def exported(column: str, value: Stored) -> object:
    """A stored value as JSON has it."""
    if not isinstance(value, bytes):
        return value
    if column in _JSON_COLUMNS:
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            pass  # Damaged: shown as text.
    return as_text(value).encode("utf-8", "backslashreplace").decode()
