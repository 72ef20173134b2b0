"""What the bus asks of whoever keeps its events, and the store as that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from treewarden.clock import wall_ns
from treewarden.errors import StoreBusy, StoreError
from treewarden.store import StagedEvent, Unit

if TYPE_CHECKING:
    from treewarden.store import Store

Decided: TypeAlias = Callable[[tuple[int, int] | StoreError], None]
"""Told once what became of an event: (position, at_ns), or why it is not kept."""


class Journal(Protocol):
    """An append-only history that assigns positions."""

    async def wait_room(self) -> None:
        """Return when the journal takes more; cancelled, nothing has happened.

        Need not be a checkpoint: waiting for the commit is one.
        """

    def append_nowait(
        self, topic: str, payload: bytes, source: str, trace: str, decided: Decided
    ) -> None:
        """Take an event, to be kept in the order of these calls; `payload` is JSON.

        `decided` is called once, in the trio thread and in the order of positions, when
        the event is committed or will never be; it may be called before this returns.

        Raises:
            StoreError: the event was not taken, and `decided` is not called.
        """


class StoreJournal:
    """The journal of a store, see `Journal`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def wait_room(self) -> None:
        """See `Journal`; no checkpoint when there is room."""
        if not self._store.has_room:
            await self._store.wait_room()

    def append_nowait(
        self, topic: str, payload: bytes, source: str, trace: str, decided: Decided
    ) -> None:
        """See `Journal`."""
        if not self._store.has_room:
            raise StoreBusy("the store's write queue is full; nothing was published")
        event = StagedEvent(
            topic=topic, payload=payload, at_ns=wall_ns(), source=source, trace=trace
        )
        unit = Unit(source)
        unit.events = [event]
        unit.release.append(
            lambda error: decided(
                error if error is not None else (event.position, event.at_ns)
            )
        )
        self._store.hand_over(unit)
