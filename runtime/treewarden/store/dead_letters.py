"""Durable messages that were given up: what they were, and why, until somebody decides.

At most `KEPT` of them; the oldest goes. Whoever looks at one may have it tried again, which
is a new message in the agent's inbox, in the same commit that takes the letter out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .checksums import as_stored, checksum

if TYPE_CHECKING:
    import sqlite3

    from .inbox import StoredMessage
    from .unit import Write

KEPT: Final = 10_000
"""Dead letters kept, of all agents together."""
PAGE: Final = 1000
"""The most that are read at a time."""

_INSERT: Final = (
    "INSERT INTO dead_letter (seq, path, msg_id, operation, attempts, sender, at_ns,"
    " reason, arguments, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TRIM: Final = (
    "DELETE FROM dead_letter WHERE seq <= (SELECT seq FROM dead_letter"
    " ORDER BY seq DESC LIMIT 1 OFFSET ?)"
)
_DELETE: Final = "DELETE FROM dead_letter WHERE seq = ?"
_COLUMNS: Final = (
    "seq, path, msg_id, operation, attempts, sender, at_ns, reason, arguments, crc"
)
_SELECT: Final = (
    f"SELECT {_COLUMNS} FROM dead_letter WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - our own names
)
_SELECT_ONE: Final = f"SELECT {_COLUMNS} FROM dead_letter WHERE seq = ?"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A message that was given up; `arguments` is JSON by parameter, `at_ns` when.

    One that is not `sound` had a checksum that did not match.
    """

    seq: int
    path: str
    id: str
    operation: str
    attempts: int
    sender: str
    at_ns: int
    reason: str
    arguments: bytes
    sound: bool = True


def insert_letter(
    message: StoredMessage, seq: int, attempts: int, at_ns: int, reason: str
) -> list[Write]:
    """The statements that keep a message as a dead letter, and the number bounded."""
    letter = StoredLetter(
        seq=seq,
        path=message.path,
        id=message.id,
        operation=message.operation,
        attempts=attempts,
        sender=message.sender,
        at_ns=at_ns,
        reason=reason,
        arguments=message.arguments,
    )
    row = (
        letter.seq,
        letter.path,
        letter.id,
        letter.operation,
        letter.attempts,
        letter.sender,
        letter.at_ns,
        letter.reason,
        letter.arguments.decode(),
        _checksum(letter),
    )
    return [(_INSERT, row), (_TRIM, (KEPT,))]


def delete_letter(seq: int) -> Write:
    """The statement that takes one out."""
    return _DELETE, (seq,)


def load_letters(
    connection: sqlite3.Connection, after: int, limit: int
) -> list[StoredLetter]:
    """The letters behind number `after`, the oldest first, at most `limit`."""
    rows = connection.execute(_SELECT, (after, min(limit, PAGE)))
    return [_letter(row) for row in rows]


def load_letter(connection: sqlite3.Connection, seq: int) -> StoredLetter | None:
    """The letter of this number."""
    row = connection.execute(_SELECT_ONE, (seq,)).fetchone()
    return _letter(row) if row is not None else None


def _letter(
    row: tuple[int, str, str, str, int, str, int, str, str, int],
) -> StoredLetter:
    seq, path, id_, operation, attempts, sender, at_ns, reason, arguments, crc = row
    letter = StoredLetter(
        seq=seq,
        path=path,
        id=id_,
        operation=operation,
        attempts=attempts,
        sender=sender,
        at_ns=at_ns,
        reason=reason,
        arguments=as_stored(arguments),
        sound=True,
    )
    if crc == _checksum(letter):
        return letter
    return StoredLetter(
        seq=seq,
        path=path,
        id=id_,
        operation=operation,
        attempts=attempts,
        sender=sender,
        at_ns=at_ns,
        reason=reason,
        arguments=arguments.encode("utf-8", "replace"),
        sound=False,
    )


def _checksum(letter: StoredLetter) -> int:
    return checksum(
        letter.arguments,
        letter.seq,
        letter.path,
        letter.id,
        letter.operation,
        letter.attempts,
        letter.sender,
        letter.at_ns,
        letter.reason,
    )
