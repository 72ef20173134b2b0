"""What a handler got from outside, remembered under the id of its durable message.

When the message is delivered again the answer is here, and the outside is not asked a
second time. The rows of a message go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.errors import RestoreError

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
) -> dict[int, bytes]:
    """The results of a message by their numbers.

    Raises:
        RestoreError: one is damaged. Which one its number does not tell any more, so the
            outside could be asked twice for any of them.
    """
    found: dict[int, bytes] = {}
    # All at once: an error halfway would keep the reader, and the log, at this moment.
    for number, text, crc in connection.execute(_SELECT, (path, id_)).fetchall():
        result = as_stored(text)
        if crc != checksum(result, path, id_, number):
            raise RestoreError(f"a result that {path} kept of {id_} is damaged")
        found[number] = result
    return found
