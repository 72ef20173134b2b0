"""What a handler got from outside, remembered under the id of its durable message.

When the message is delivered again the answer is here, and the outside is not asked a
second time. The rows of a message go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .checksums import as_stored, checksum

if TYPE_CHECKING:
    import sqlite3

    from .unit import Write

_INSERT: Final = (
    "INSERT INTO effect (path, msg_id, number, result, crc) VALUES (?, ?, ?, ?, ?)"
)
_DELETE: Final = "DELETE FROM effect WHERE path = ? AND msg_id = ?"
_SELECT: Final = "SELECT number, result, crc FROM effect WHERE path = ? AND msg_id = ?"


def insert_effect(path: str, id_: str, number: int, result: bytes) -> Write:
    """The statement that keeps the `number`th result of a message, JSON."""
    crc = checksum(result, path, id_, number)
    return _INSERT, (path, id_, number, result.decode(), crc)


def delete_effects(path: str, id_: str) -> Write:
    """The statement that forgets the results of a message."""
    return _DELETE, (path, id_)


def load_effects(
    connection: sqlite3.Connection, path: str, id_: str
) -> dict[int, bytes | None]:
    """The results of a message by their numbers; None for a damaged row."""
    found: dict[int, bytes | None] = {}
    for number, text, crc in connection.execute(_SELECT, (path, id_)):
        result = as_stored(text)
        found[number] = result if crc == checksum(result, path, id_, number) else None
    return found
