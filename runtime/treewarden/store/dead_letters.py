"""What was given up: durable messages and events, and why, until somebody decides.

At most `KEPT` of them, for at most `KEPT_NS`; the oldest goes. Whoever looks at one may have
it tried again: a new message in the agent's inbox, or an event that its subscription has yet
to deliver, in the same commit that takes the letter out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .checksums import as_stored, checksum, shown, whole
from .retention import Horizon

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from .inbox import StoredMessage
    from .unit import Write

KEPT: Final = 10_000
"""Dead letters kept, of all agents together."""
KEPT_NS: Final = 30 * 24 * 3600 * 1_000_000_000
"""How long: whoever is to decide may be on holiday."""
PAGE: Final = 1000
"""The most that are read at a time."""
SLICE_ROWS: Final = 100
"""The most that are forgotten in one transaction; each may be a megabyte."""

_INSERT: Final = (
    "INSERT INTO dead_letter (seq, path, msg_id, operation, attempts, sender, at_ns,"
    " reason, subscription, arguments, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TRIM: Final = (
    "DELETE FROM dead_letter WHERE seq <= (SELECT seq FROM dead_letter"
    " ORDER BY seq DESC LIMIT 1 OFFSET ?)"
)
_DELETE: Final = "DELETE FROM dead_letter WHERE seq = ?"
# What their handlers did `once` goes with them: nothing else leads to it any more.
_TRIM_EFFECTS: Final = (
    "DELETE FROM effect WHERE (path, msg_id) IN (SELECT path, msg_id FROM dead_letter"
    " WHERE seq <= (SELECT seq FROM dead_letter ORDER BY seq DESC LIMIT 1 OFFSET ?))"
)
_OLD: Final = (
    "SELECT seq FROM (SELECT seq, at_ns FROM dead_letter ORDER BY seq LIMIT ?)"
    " WHERE at_ns < ?"
)
_DELETE_EFFECTS: Final = (
    "DELETE FROM effect WHERE (path, msg_id) IN"
    " (SELECT path, msg_id FROM dead_letter WHERE seq = ?)"
)
_OLDEST: Final = "SELECT at_ns FROM dead_letter ORDER BY seq LIMIT 1"
_COLUMNS: Final = (
    "seq, path, msg_id, operation, attempts, sender, at_ns, reason, subscription,"
    " arguments, crc"
)
_SELECT: Final = (
    f"SELECT {_COLUMNS} FROM dead_letter WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - our own names
)
_SELECT_ONE: Final = f"SELECT {_COLUMNS} FROM dead_letter WHERE seq = ?"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A message that was given up; `arguments` is JSON by parameter, `at_ns` when.

    Or an event: of the durable `subscription` of this name, `path` being whose it is. The
    id is its position then, the operation its topic, the sender its source, and
    `arguments` the event. One that is not `sound` had a checksum that did not match.
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
    subscription: str = ""
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
    return keep_letter(letter)


def keep_letter(letter: StoredLetter) -> list[Write]:
    """The statements that keep a dead letter, and the number of them bounded."""
    row = (
        letter.seq,
        letter.path,
        letter.id,
        letter.operation,
        letter.attempts,
        letter.sender,
        letter.at_ns,
        letter.reason,
        letter.subscription,
        letter.arguments.decode(),
        _checksum(letter),
    )
    return [(_INSERT, row), (_TRIM_EFFECTS, (KEPT,)), (_TRIM, (KEPT,))]


def delete_letter(seq: int) -> Write:
    """The statement that takes one out."""
    return _DELETE, (seq,)


class LetterTrimmer:
    """Forgets letters that are too old, by the time that has passed.

    Used by the writer's thread.
    """

    def __init__(
        self, horizon_of: Callable[[int, int | None], Horizon] = Horizon
    ) -> None:
        self._horizon_of = horizon_of
        self._horizon: Horizon | None = None

    def trim(self, connection: sqlite3.Connection) -> int:
        """Delete the next ones, `SLICE_ROWS` at most; how many.

        In the caller's transaction.
        """
        horizon = self._horizon or self._begin(connection)
        old = connection.execute(_OLD, (SLICE_ROWS, horizon.before_ns())).fetchall()
        if old:
            connection.executemany(_DELETE_EFFECTS, old)
            connection.executemany(_DELETE, old)
        return len(old)

    def _begin(self, connection: sqlite3.Connection) -> Horizon:
        oldest = connection.execute(_OLDEST).fetchone()
        oldest_ns = oldest[0] if oldest is not None else None
        self._horizon = self._horizon_of(KEPT_NS, oldest_ns)
        return self._horizon


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
    row: tuple[int, str, str, str, int, str, int, str, str, str, int],
) -> StoredLetter:
    seq, path, id_, operation, attempts, sender, at_ns, reason, name, arguments, crc = (
        row
    )
    letter = StoredLetter(
        seq=seq,
        path=path,
        id=id_,
        operation=operation,
        attempts=attempts,
        sender=sender,
        at_ns=at_ns,
        reason=reason,
        subscription=name,
        arguments=as_stored(arguments),
        sound=True,
    )
    if crc == _checksum(letter):
        return letter
    return StoredLetter(
        seq=seq,
        path=shown(path),
        id=shown(id_),
        operation=shown(operation),
        attempts=whole(attempts),
        sender=shown(sender),
        at_ns=whole(at_ns),
        reason=shown(reason),
        subscription=shown(name),
        arguments=shown(arguments).encode(),
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
        letter.subscription,
    )
