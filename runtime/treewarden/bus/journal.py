"""What the bus asks of whoever keeps its events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from treewarden.errors import StoreError

Decided: TypeAlias = Callable[[tuple[int, int] | StoreError], None]
"""Told once what became of an event: (position, at_ns), or why it is not kept."""


class Journal(Protocol):
    """An append-only history that assigns positions."""

    async def wait_room(self) -> None:
        """Return when the journal takes more; cancelled, nothing has happened."""

    def append_nowait(
        self, topic: str, payload: bytes, source: str, trace: str, decided: Decided
    ) -> None:
        """Take an event, to be kept in the order of these calls; `payload` is JSON.

        `decided` is called once, in the trio thread and in the order of positions, when
        the event is committed or will never be; it may be called before this returns.

        Raises:
            StoreError: the event was not taken, and `decided` is not called.
        """
