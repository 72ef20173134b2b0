"""The checksum that every row carries, and what of the row it covers: all of it.

SQLite does not notice a flipped bit: of the flips that changed what was stored its own
checks saw one in ten, a CRC-32 a row saw all of them. A row's checksum is taken over its
other columns as text, in the order of `TABLES`, with NUL between them but none before the
last, the largest. It is looked at on every read, by the scrubber and by `db check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import crc32

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

Stored: TypeAlias = bytes | int | float | None
"""A value as the file has it, text as bytes."""

DAMAGED: Final = -1
"""A checksum that no row has: what is known to be damaged stays so when it is rewritten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose rows carry a checksum.

    `columns` are what it covers, in its order; `key` are those that tell people which row
    it is; `place` orders the rows and `start` lies before the first.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    place: str = "rowid"
    start: int | bytes = -(1 << 63)


TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        Table(
            name="meta",
            columns=("key", "value"),
            key=("key",),
            place="CAST(key AS BLOB)",
            start=b"",
        ),
        Table(
            name="agent_state",
            columns=(
                "path",
                "store_as",
                "state_version",
                "revision",
                "at_ns",
                "payload",
            ),
            key=("path",),
        ),
        Table(
            name="agent_crash",
            columns=(
                "path",
                "at_ns",
                "incarnation",
                "operation",
                "message",
                "fault",
                "revision",
                "payload",
            ),
            key=("path", "at_ns"),
        ),
        Table(
            name="journal",
            columns=(
                "position",
                "topic",
                "kind",
                "at_ns",
                "source",
                "trace",
                "end_bytes",
                "payload",
            ),
            key=("position",),
        ),
        Table(
            name="fault",
            columns=("position", "path", "topic", "at_ns", "payload"),
            key=("path", "position"),
        ),
        Table(
            name="queue_item",
            columns=("path", "name", "key", "seq", "attempts", "free_at", "payload"),
            key=("path", "name", "key"),
        ),
        Table(
            name="map_item",
            columns=("path", "name", "key", "payload"),
            key=("path", "name", "key"),
        ),
        Table(
            name="tx_log",
            columns=("id", "verdict", "at_ns", "participants"),
            key=("id",),
        ),
        Table(
            name="remembered_child",
            columns=("seq", "supervisor", "id", "at_ns", "spec"),
            key=("supervisor", "id"),
        ),
        Table(
            name="inbox",
            columns=(
                "seq",
                "path",
                "msg_id",
                "operation",
                "attempts",
                "sender",
                "at_ns",
                "arguments",
            ),
            key=("path", "msg_id"),
        ),
        Table(
            name="applied",
            columns=("path", "msg_id", "at_ns", "answer"),
            key=("path", "msg_id"),
        ),
        Table(
            name="committed_range",
            columns=("boot", "first", "last", "at_ns"),
            key=("boot", "first"),
        ),
        Table(
            name="effect",
            columns=("path", "msg_id", "number", "result"),
            key=("path", "msg_id", "number"),
        ),
        Table(
            name="dead_letter",
            columns=(
                "seq",
                "path",
                "msg_id",
                "operation",
                "attempts",
                "sender",
                "at_ns",
                "reason",
                "subscription",
                "arguments",
            ),
            key=("path", "msg_id"),
        ),
        Table(
            name="subscription",
            columns=(
                "owner",
                "name",
                "pattern",
                "cursor",
                "begun",
                "retention",
                "at_ns",
            ),
            key=("owner", "name"),
        ),
        Table(
            name="delivery",
            columns=("owner", "name", "position", "attempts", "done", "event"),
            key=("owner", "name", "position"),
        ),
        Table(
            name="policy_state",
            columns=("kind", "name", "at_ns", "state"),
            key=("kind", "name"),
        ),
        Table(
            name="workflow",
            columns=(
                "id",
                "name",
                "version",
                "state",
                "attempts",
                "begun_ns",
                "ended_ns",
                "resume_as",
                "reason",
                "outcome",
                "arguments",
            ),
            key=("id",),
        ),
        Table(
            name="workflow_step",
            columns=(
                "workflow",
                "number",
                "name",
                "state",
                "attempts",
                "compensation",
                "undo_failures",
                "at_ns",
                "outcome",
            ),
            key=("workflow", "number"),
        ),
    )
}


def checksum(payload: bytes, *key: str | float | None) -> int:
    """The checksum of a row: of its last column, and of those before it."""
    return crc32(payload, crc32("\0".join(map(str, key)).encode("utf-8", _KEEP)))


def row_checksum(values: Sequence[Stored]) -> int:
    """The same of a row as it is stored, text as bytes, whatever is in them."""
    *key, last = map(_as_bytes, values)
    return crc32(last, crc32(b"\0".join(key)))


def install(connection: sqlite3.Connection) -> None:
    """Let statements on `connection` say `row_checksum(...)`, see `checksum_sql`."""
    connection.create_function(
        "row_checksum", -1, lambda *values: row_checksum(values), deterministic=True
    )


def checksum_sql(*columns: str) -> str:
    """The checksum of a row of these columns, as an expression."""
    values = (
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
        for name in columns
    )
    return f"row_checksum({', '.join(values)})"


def as_text(stored: bytes) -> str:
    """Text as it is stored; bytes that are none any more are kept, to be seen."""
    return stored.decode("utf-8", _KEEP)


def shown(value: object) -> str:
    """A column of a damaged row, for people: text that can be stored, whatever it is."""
    if isinstance(value, str):
        return value.encode("utf-8", _KEEP).decode("utf-8", "replace")
    return str(value)


def whole(value: object) -> int:
    """A number of a damaged row; 0 when it is none any more."""
    return value if isinstance(value, int) else 0


def as_stored(text: object) -> bytes:
    """The bytes that `as_text` has read; what is no text has none that match."""
    return text.encode("utf-8", _KEEP) if isinstance(text, str) else b"\xff"


# A flipped bit may leave no text at all. Reading must go on, to the checksum.
_KEEP = "surrogateescape"


def _as_bytes(value: Stored) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
