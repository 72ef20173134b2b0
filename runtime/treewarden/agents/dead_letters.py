"""Durable messages and events that were given up, for whoever decides about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from treewarden.bus import Event
from treewarden.errors import StoreBroken
from treewarden.store import (
    StoredDelivery,
    StoredMessage,
    Unit,
    delete_effects,
    delete_letter,
    deliver_again,
    insert_message,
    load_letter,
    load_letters,
    load_subscriptions,
)

from .durable import DurableBody
from .release import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.bus import Bus
    from treewarden.errors import StoreError
    from treewarden.store import Owned, Store, StoredLetter, Write
    from treewarden.supervision import Directory

_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message to `path` that was given up after `attempts`, and why.

    `arguments` is JSON by parameter. `reason` is `crashed`, `refused`, `attempts` (the
    process was killed while it was handled), or says what was wrong with the message.

    Or an event: of the durable `subscription` of this name, which is that of the agent at
    `path`, or of plain tasks when that is "". The id is its position then, `operation` its
    topic, `sender` its source, and `arguments` the whole event as JSON.
    """

    number: int
    id: str
    path: str
    operation: str
    arguments: bytes
    attempts: int
    sender: str
    reason: str
    at_ns: int
    subscription: str = ""


class DeadLetters:
    """The dead letters of a runtime: 10,000 at most, the oldest goes, each for 30 days."""

    def __init__(
        self,
        store: Callable[[], Store],
        directory: Directory,
        bus: Callable[[], Bus | None] = lambda: None,
    ) -> None:
        """`store` finds the one that runs; it raises `NotRunning` when there is none."""
        self._store = store
        self._bus = bus
        self._directory = directory
        self._changing = trio.Lock()

    async def list(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Those behind number `after`, the oldest first; at most 1000 at a time.

        Raises:
            StoreBroken: the file cannot be read.
        """
        stored = await self._store().read(
            partial(load_letters, after=after, limit=limit)
        )
        return [_record(one) for one in stored]

    async def get(self, number: int) -> DeadLetter | None:
        """The letter of this number, if it is there."""
        stored = await self._store().read(partial(load_letter, seq=number))
        return _record(stored) if stored is not None else None

    async def retry(self, number: int) -> bool:
        """Have it delivered again, with all its attempts; False when it is not there.

        Returns once that is committed. It is the same message: by its id, what its
        handler did `once` is not done again. Twice at once, it is delivered once. An
        event goes to its subscription, not to others; False too when that is no more.

        Raises:
            StoreBroken: it stays a dead letter.
        """
        async with self._changing:
            letter = await self._look(number)
            if letter is None or not letter.sound:
                return False
            if letter.subscription:
                return await self._retry_event(letter)
            message = StoredMessage(
                seq=self._store().next_sequence(),
                path=letter.path,
                id=letter.id,
                operation=letter.operation,
                arguments=letter.arguments,
                sender=letter.sender,
                at_ns=letter.at_ns,
            )
            told = partial(self._returned, message)
            await self._take_out(letter, insert_message(message), told)
            return True

    async def _retry_event(self, letter: StoredLetter) -> bool:
        key = letter.path, letter.subscription
        if not await self._knows(key):
            return False
        event = msgspec.json.decode(letter.arguments, type=Event)
        again = StoredDelivery(
            position=event.position, attempts=0, event=letter.arguments
        )

        def tell(error: StoreError | None) -> None:
            bus = self._bus()
            durable = bus.durable(*key) if bus is not None else None
            if error is None and durable is not None:
                durable.retried(event)

        try:
            await self._take_out(letter, deliver_again(key, again), tell)
        except StoreBroken:
            # Forgotten since: with that the commit fails, and it stays a dead letter.
            if await self._knows(key):
                raise
            return False
        return True

    async def _knows(self, key: Owned) -> bool:
        rows = await self._store().read(load_subscriptions)
        return key in [one.key for one in rows]

    async def discard(self, number: int) -> bool:
        """Forget it for good; False when it is not there.

        Raises:
            StoreBroken: it stays a dead letter.
        """
        async with self._changing:
            letter = await self._look(number)
            if letter is None:
                return False
            await self._take_out(letter, delete_effects(letter.path, letter.id))
            return True

    async def purge(self, *, before_ns: int | None = None) -> int:
        """Forget all for good, or those given up before; how many.

        Raises:
            StoreBroken: the rest stay dead letters.
        """
        # By number, not by the clock: it may have been set back since.
        until = self._store().next_sequence()
        purged = after = 0
        while page := await self.list(after=after, limit=_PAGE):
            after = page[-1].number
            for letter in page:
                is_old = before_ns is None or letter.at_ns < before_ns
                if is_old and letter.number < until:
                    purged += await self.discard(letter.number)
        return purged

    async def _look(self, number: int) -> StoredLetter | None:
        # Somebody who was cancelled may have one on its way out.
        await settle(self._store())
        return await self._store().read(partial(load_letter, seq=number))

    async def _take_out(
        self,
        letter: StoredLetter,
        write: Write,
        tell: Callable[[StoreError | None], None] | None = None,
    ) -> None:
        store = self._store()
        unit = Unit(letter.path or letter.subscription)
        unit.writes = [delete_letter(letter.seq), write]
        if tell is not None:
            unit.release.append(tell)
        store.hand_over(unit)
        await store.wait(unit)

    def _returned(self, message: StoredMessage, error: StoreError | None) -> None:
        node = self._directory.find(message.path)
        if error is None and node is not None:
            body = node.body
            if isinstance(body, DurableBody) and not body.resting:
                body.inherit(message)


def _record(stored: StoredLetter) -> DeadLetter:
    return DeadLetter(
        number=stored.seq,
        id=stored.id,
        path=stored.path,
        operation=stored.operation,
        arguments=stored.arguments,
        attempts=stored.attempts,
        sender=stored.sender,
        reason=stored.reason if stored.sound else f"{stored.reason} (damaged)",
        at_ns=stored.at_ns,
        subscription=stored.subscription,
    )
