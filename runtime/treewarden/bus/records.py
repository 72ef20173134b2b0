"""What the file knows of one durable subscription, and the statements that tell it more.

A row says how far it has come; one row more for each event that is out of turn: done while
an earlier one is not, tried before, or given up once and to be tried again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from treewarden.clock import wall_ns
from treewarden.errors import RestoreError
from treewarden.store import (
    StoredDelivery,
    StoredLetter,
    StoredSubscription,
    Unit,
    keep_letter,
    load_deliveries,
    load_subscriptions,
    note_delivery,
    save_subscription,
)

from .policy import durable_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treewarden.store import Owned, Store, Write

    from .deliveries import Entry
    from .event import Event


class Records:
    """The rows of one durable subscription; what is handed over is its own work."""

    __slots__ = ("_pattern", "_store", "key", "retention")

    def __init__(self, store: Store, key: Owned, pattern: str, retention: str) -> None:
        self.key = key
        self.retention = retention
        self._store = store
        self._pattern = pattern

    # --- reading -----------------------------------------------------------------------

    async def find(self) -> StoredSubscription | None:
        """Its row, if there is one.

        Raises:
            RestoreError: it may be among those that are damaged.
            StoreError: it cannot be read.
        """
        rows = await self._store.read(load_subscriptions)
        row = next((one for one in rows if one.key == self.key and one.sound), None)
        damaged = [durable_id(*one.key) for one in rows if not one.sound]
        if row is None and damaged:
            raise RestoreError(
                f"the durable subscription {durable_id(*self.key)} may be the one whose"
                f" row is damaged ({', '.join(damaged)}): see treewarden db scrub"
            )
        return row

    async def deliveries(self) -> list[StoredDelivery]:
        """What is out of turn, in the order of positions.

        Raises:
            StoreError: it cannot be read.
        """
        return await self._store.read(partial(load_deliveries, key=self.key))

    # --- statements --------------------------------------------------------------------

    def row(self, cursor: int, begun: int) -> StoredSubscription:
        """Its row, when all up to `cursor` is over and nothing behind `begun` was begun."""
        owner, name = self.key
        return StoredSubscription(
            owner=owner,
            name=name,
            pattern=self._pattern,
            cursor=cursor,
            begun=begun,
            retention=self.retention,
            at_ns=wall_ns(),
        )

    def saved(self, row: StoredSubscription) -> list[Write]:
        """What keeps its row, and forgets what the cursor has passed."""
        return save_subscription(row)

    def attempted(self, entry: Entry, attempts: int) -> Write:
        """What says how often an event was tried."""
        event = encode(entry.event) if entry.again else None
        return self._noted(entry.position, attempts, event=event)

    def done(self, entry: Entry) -> Write:
        """What says that an event is over."""
        return self._noted(entry.position, entry.attempts, done=True)

    def again(self, event: Event) -> Write:
        """What has an event delivered that the cursor has passed."""
        return self._noted(event.position, 0, event=encode(event))

    def _noted(
        self,
        position: int,
        attempts: int,
        *,
        done: bool = False,
        event: bytes | None = None,
    ) -> Write:
        one = StoredDelivery(
            position=position, attempts=attempts, done=done, event=event
        )
        return note_delivery(self.key, one)

    def buried(self, entry: Entry, reason: str) -> list[Write]:
        """What makes a dead letter of an event, which is over then."""
        owner, name = self.key
        event = entry.event
        letter = StoredLetter(
            seq=self._store.next_sequence(),
            path=owner,
            id=str(event.position),
            operation=event.topic,
            attempts=entry.attempts,
            sender=event.source,
            at_ns=wall_ns(),
            reason=reason,
            arguments=encode(event),
            subscription=name,
        )
        return [*keep_letter(letter), self.done(entry)]

    # --- writing -----------------------------------------------------------------------

    def unit(self, writes: Iterable[Write] = ()) -> Unit:
        """These statements as one commit, in the name of whose it is."""
        owner, name = self.key
        unit = Unit(owner or name)
        unit.writes = list(writes)
        return unit

    def hand_over(self, writes: Iterable[Write]) -> Unit:
        """Have these committed; nobody waits.

        Raises:
            StoreError: it is closing; nothing was taken.
        """
        unit = self.unit(writes)
        self._store.hand_over(unit)
        return unit


def encode(event: Event) -> bytes:
    """An event as the file keeps it."""
    return msgspec.json.encode(event)
