"""Messages that wait for an agent and outlive the process: a row each, in their order.

The row is committed before the message counts as accepted, and deleted by the unit of the
handler that takes it. A cast that a handler stages for a durable mailbox is a row of the
handler's own unit: both are in one file, so no table of what is still to be sent is needed
between them, and there is no moment at which the message is in neither or in both.

`attempts` is written before the handler runs, and counts that attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .checksums import as_stored, checksum, shown, whole

if TYPE_CHECKING:
    import sqlite3

    from .unit import Write

_INSERT: Final = (
    "INSERT INTO inbox (seq, path, msg_id, operation, attempts, sender, at_ns,"
    " arguments, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE: Final = "UPDATE inbox SET attempts = ?, crc = ? WHERE seq = ?"
_DELETE: Final = "DELETE FROM inbox WHERE seq = ?"
_SELECT: Final = (
    "SELECT seq, msg_id, operation, attempts, sender, at_ns, arguments, crc FROM inbox"
    " WHERE path = ? ORDER BY seq"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message to the agent at `path`; `arguments` is JSON, by parameter.

    One that is not `sound` had a checksum that did not match when it was read.
    """

    seq: int
    path: str
    id: str
    operation: str
    arguments: bytes
    sender: str
    at_ns: int
    attempts: int = 0
    sound: bool = True


def insert_message(message: StoredMessage) -> Write:
    """The statement that keeps a message, for a unit."""
    return _INSERT, (
        message.seq,
        message.path,
        message.id,
        message.operation,
        message.attempts,
        message.sender,
        message.at_ns,
        message.arguments.decode(),
        _checksum(message, message.attempts),
    )


def count_attempts(message: StoredMessage, attempts: int) -> Write:
    """The statement that sets how often it was begun."""
    return _UPDATE, (attempts, _checksum(message, attempts), message.seq)


def delete_message(message: StoredMessage) -> Write:
    """The statement that takes it out: it was handled, or is a dead letter."""
    return _DELETE, (message.seq,)


def load_messages(connection: sqlite3.Connection, path: str) -> list[StoredMessage]:
    """What waits for the agent at `path`, the oldest first; damaged rows say so."""
    messages = []
    for *fields, crc in connection.execute(_SELECT, (path,)):
        seq, id_, operation, attempts, sender, at_ns, arguments = fields
        message = StoredMessage(
            seq=seq,
            path=path,
            id=id_,
            operation=operation,
            arguments=as_stored(arguments),
            sender=sender,
            at_ns=at_ns,
            attempts=attempts,
            sound=True,
        )
        if crc != _checksum(message, attempts):
            message = _unsound(message)
        messages.append(message)
    return messages


def _unsound(message: StoredMessage) -> StoredMessage:
    # It goes on into a dead letter, whose columns are text and numbers again.
    return StoredMessage(
        seq=whole(message.seq),
        path=message.path,
        id=shown(message.id),
        operation=shown(message.operation),
        arguments=message.arguments.decode("utf-8", "replace").encode(),
        sender=shown(message.sender),
        at_ns=whole(message.at_ns),
        attempts=whole(message.attempts),
        sound=False,
    )


def _checksum(message: StoredMessage, attempts: int) -> int:
    return checksum(
        message.arguments,
        message.seq,
        message.path,
        message.id,
        message.operation,
        attempts,
        message.sender,
        message.at_ns,
    )
