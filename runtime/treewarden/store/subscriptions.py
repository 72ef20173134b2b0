"""Durable subscriptions: how far each has come in the journal, and what is out of turn.

A row of `subscription` says that everything up to its `cursor` is over, and that nothing
behind `begun` was ever begun. Between the two a row of `delivery` says what is different
about one event: that it is done while an earlier one is not, or how often it was tried; an
event without a row there was begun once, and nobody knows what came of it. A row that
holds the event itself is one that was given up and is to be tried once more.

A subscription belongs to an agent, its `owner`, or to no one (""); its name is unique there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from .checksums import as_stored, checksum, shown, whole
from .retention import DurableRetention

if TYPE_CHECKING:
    import sqlite3

    from .unit import Write

Owned: TypeAlias = tuple[str, str]
"""The owner and name of a subscription."""

_SAVE: Final = (
    "INSERT OR REPLACE INTO subscription (owner, name, pattern, cursor, begun, retention, at_ns, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_FORGET: Final = "DELETE FROM subscription WHERE owner = ? AND name = ?"
_FORGET_DELIVERIES: Final = "DELETE FROM delivery WHERE owner = ? AND name = ?"
_PASSED: Final = (
    "DELETE FROM delivery WHERE owner = ? AND name = ? AND position <= ?"
    " AND event IS NULL"
)
_NOTE: Final = (
    "INSERT OR REPLACE INTO delivery"
    " (owner, name, position, attempts, done, event, crc) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# Of a subscription that there is not the owner is NULL, which no row may have: in the very
# commit it is decided that the whole unit fails, and a dead letter stays what it was.
_NOTE_AGAIN: Final = (
    "INSERT OR REPLACE INTO delivery"
    " (owner, name, position, attempts, done, event, crc) VALUES"
    " ((SELECT owner FROM subscription WHERE owner = ? AND name = ?), ?, ?, ?, ?, ?, ?)"
)
_SELECT: Final = (
    "SELECT owner, name, pattern, cursor, begun, retention, at_ns, crc"
    " FROM subscription ORDER BY owner, name"
)
# Also of a damaged row: what might still be needed is not deleted.
_HOLDING: Final = (
    "SELECT owner, name, pattern, retention, cursor FROM subscription"
    " WHERE retention <> ?"
)
_DELIVERIES: Final = (
    "SELECT position, attempts, done, event, crc FROM delivery"
    " WHERE owner = ? AND name = ? ORDER BY position"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSubscription:
    """A durable subscription; `cursor` and `begun` are positions in the journal.

    One that is not `sound` had a checksum that did not match when it was read.
    """

    owner: str
    name: str
    pattern: str
    cursor: int
    begun: int
    at_ns: int
    retention: str = DurableRetention.DROP_AND_MARK_GAP
    sound: bool = True

    @property
    def key(self) -> Owned:
        """Whose it is, and its name."""
        return self.owner, self.name


class Holding(NamedTuple):
    """A durable subscription for which the journal keeps what is behind its `cursor`."""

    owner: str
    name: str
    pattern: str
    retention: str
    cursor: int

    @property
    def key(self) -> Owned:
        """Whose it is, and its name."""
        return self.owner, self.name

    @property
    def pauses(self) -> bool:
        """Whether who publishes what it wants has to wait."""
        return self.retention == DurableRetention.PAUSE_PUBLISHER


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """What is different about one event: it is `done`, or was begun so many times.

    With an `event`, as JSON, it is one that was given up and is tried again; what the
    journal has at that position is over then. One that is not `sound` had a checksum that
    did not match when it was read.
    """

    position: int
    attempts: int
    done: bool = False
    event: bytes | None = None
    sound: bool = True


def save_subscription(one: StoredSubscription) -> list[Write]:
    """The statements that note how far it has come, and forget what it has passed."""
    row = (*one.key, one.pattern, one.cursor, one.begun, one.retention, one.at_ns)
    return [(_SAVE, (*row, _checksum(one))), (_PASSED, (*one.key, one.cursor))]


def forget_subscription(key: Owned) -> list[Write]:
    """The statements that remove it, and all that is known of its deliveries."""
    return [(_FORGET, key), (_FORGET_DELIVERIES, key)]


def note_delivery(key: Owned, one: StoredDelivery) -> Write:
    """The statement that keeps what is different about an event."""
    return _NOTE, (*key, *_delivery_columns(key, one))


def deliver_again(key: Owned, one: StoredDelivery) -> Write:
    """The same for an event that was given up; fails when the subscription is no more."""
    owner, name = key
    return _NOTE_AGAIN, (owner, name, name, *_delivery_columns(key, one))


def load_subscriptions(connection: sqlite3.Connection) -> list[StoredSubscription]:
    """All of them, in the order of their owners and names."""
    return [_subscription(row) for row in connection.execute(_SELECT)]


def load_holding(connection: sqlite3.Connection) -> list[Holding]:
    """Those for which the journal keeps what they still need."""
    rows = connection.execute(_HOLDING, (DurableRetention.DROP_AND_MARK_GAP,))
    return [Holding(*row) for row in rows]


def load_deliveries(connection: sqlite3.Connection, key: Owned) -> list[StoredDelivery]:
    """What is different about its events, in the order of positions."""
    return [_delivery(key, *row) for row in connection.execute(_DELIVERIES, key)]


def _subscription(
    row: tuple[str, str, str, int, int, str, int, int],
) -> StoredSubscription:
    owner, name, pattern, cursor, begun, retention, at_ns, crc = row
    found = StoredSubscription(
        owner=owner,
        name=name,
        pattern=pattern,
        cursor=cursor,
        begun=begun,
        at_ns=at_ns,
        retention=retention,
    )
    if crc == _checksum(found):
        return found
    return StoredSubscription(
        owner=shown(owner),
        name=shown(name),
        pattern=shown(pattern),
        cursor=whole(cursor),
        begun=whole(begun),
        at_ns=whole(at_ns),
        retention=shown(retention),
        sound=False,
    )


def _delivery(
    key: Owned, position: int, attempts: int, done: int, text: str | None, crc: int
) -> StoredDelivery:
    event = None if text is None else as_stored(text)
    found = StoredDelivery(
        position=position, attempts=attempts, done=bool(done), event=event
    )
    if crc == _delivery_checksum(key, found):
        return found
    return StoredDelivery(
        position=whole(position), attempts=0, event=event, sound=False
    )


def _delivery_columns(
    key: Owned, one: StoredDelivery
) -> tuple[int, int, int, str | None, int]:
    event = None if one.event is None else one.event.decode()
    crc = _delivery_checksum(key, one)
    return one.position, one.attempts, int(one.done), event, crc


def _checksum(one: StoredSubscription) -> int:
    row = (*one.key, one.pattern, one.cursor, one.begun, one.retention)
    return checksum(str(one.at_ns).encode(), *row)


def _delivery_checksum(key: Owned, one: StoredDelivery) -> int:
    event = b"None" if one.event is None else one.event
    return checksum(event, *key, one.position, one.attempts, int(one.done))
