"""Durable messages that were given up, for whoever decides what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from treewarden.store import (
    StoredMessage,
    Unit,
    delete_effects,
    delete_letter,
    insert_message,
    load_letter,
    load_letters,
)

from .durable import DurableBody
from .release import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.errors import StoreError
    from treewarden.store import Store, StoredLetter, Write
    from treewarden.supervision import Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message to `path` that was given up after `attempts`, and why.

    `arguments` is JSON by parameter. `reason` is `crashed`, `refused`, `attempts` (the
    process was killed while it was handled), or says what was wrong with the message.
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


class DeadLetters:
    """The dead letters of a runtime: 10,000 at most, the oldest goes."""

    def __init__(self, store: Callable[[], Store], directory: Directory) -> None:
        """`store` finds the one that runs; it raises `NotRunning` when there is none."""
        self._store = store
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
        handler did `once` is not done again. Twice at once, it is delivered once.

        Raises:
            StoreBroken: it stays a dead letter.
        """
        async with self._changing:
            letter = await self._look(number)
            if letter is None or not letter.sound:
                return False
            message = StoredMessage(
                seq=self._store().next_sequence(),
                path=letter.path,
                id=letter.id,
                operation=letter.operation,
                arguments=letter.arguments,
                sender=letter.sender,
                at_ns=letter.at_ns,
            )
            await self._take_out(letter, insert_message(message), message)
            return True

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

    async def _look(self, number: int) -> StoredLetter | None:
        # Somebody who was cancelled may have one on its way out.
        await settle(self._store())
        return await self._store().read(partial(load_letter, seq=number))

    async def _take_out(
        self, letter: StoredLetter, write: Write, message: StoredMessage | None = None
    ) -> None:
        store = self._store()
        unit = Unit(letter.path)
        unit.writes = [delete_letter(letter.seq), write]
        if message is not None:
            unit.release.append(partial(self._returned, message))
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
    )
