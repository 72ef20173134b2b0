"""The agent that owns the index and writes it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
import trio

from treewarden import Agent, Refused

from .document import Page  # noqa: TC001 - arguments are checked against it at run time

if TYPE_CHECKING:
    from treewarden import Exit

    from .index import Index

# One connection, one thread at a time.
_WRITING: Final = trio.CapacityLimiter(1)


LOCK: Final = "index"
"""The lock of whoever writes the index."""


class IndexerState(msgspec.Struct):
    """Pages in the index, and pages that came again and changed nothing."""

    pages: int = 0
    again: int = 0


class Indexer(Agent[IndexerState]):
    """Adds pages to the index, each address once.

    Nothing of it is in the store: the index is a file of its own and the authority on
    what is in it. `again` counts since the agent's start.
    """

    persistence: ClassVar[str] = "none"
    # A caller waits behind five others, each with a large page and a slow disk.
    call_timeout: ClassVar[float] = 15.0

    def __init__(self, index: Index) -> None:
        self._index = index

    async def on_start(self) -> None:
        """Open the file; a crash before may have left it half-way through something.

        Who has the lock `index` may write it; with the agent's end it is free again.
        """
        await self.runtime.locks.acquire(LOCK)
        await trio.to_thread.run_sync(self._index.open, limiter=_WRITING)
        self.state.pages = await trio.to_thread.run_sync(
            self._index.count, limiter=_WRITING
        )

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - Agent's signature
        """Close the file."""
        await trio.to_thread.run_sync(self._index.close, limiter=_WRITING)

    async def add(self, page: Page) -> bool:
        """Index a page; False when it was there. Answers once it is on disk.

        Cancelled, it may still be added: the thread finishes what it began.

        Raises:
            Refused: the disk is full, or the file cannot be written; nothing was added.
                A restart would not help, so the indexer lives until the cause is gone.
        """
        try:
            added = await trio.to_thread.run_sync(
                self._index.add, page, limiter=_WRITING
            )
        except sqlite3.OperationalError as error:
            raise Refused(f"{self._index.path} cannot be written: {error}") from error
        if added:
            self.state.pages += 1
        else:
            self.state.again += 1
        return added
