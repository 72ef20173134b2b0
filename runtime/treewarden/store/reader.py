"""Reads beside the writer: short questions, each in a thread, each on one connection.

Readers see what is committed and never wait for the writer. Their connections stay open:
SQLite keeps the log's index alive as long as one is, and the writer relies on that when
it replaces its own after a failure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import outcome
import trio

from treewarden.injection import places

from .database import READERS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from .thread import WriterThread

T = TypeVar("T")


class Reader(Protocol):
    """Where questions to the database are answered."""

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer from what is committed; runs outside the trio thread."""

    async def aclose(self) -> None:
        """Let those under way end; no more questions."""


class FileReader:
    """Answers from read-only connections, in trio's worker threads."""

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._connections = list(connections)
        self._limiter = trio.CapacityLimiter(READERS)

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer in a thread; once begun, a read is not cut short by cancellation."""
        return await trio.to_thread.run_sync(
            self._answer, question, limiter=self._limiter
        )

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connections.pop()
        try:
            places.READ.reach()
            return question(connection)
        finally:
            self._connections.append(connection)

    async def aclose(self) -> None:
        """Wait for those who read, and close every connection."""
        for _ in range(READERS):
            await self._limiter.acquire_on_behalf_of(object())
        for connection in self._connections:
            connection.close()


class WriterReader:
    """Answers from the writer's own connection: a database in memory has no second."""

    def __init__(self, thread: WriterThread) -> None:
        self._thread = thread

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer in the writer thread, after the group that it is writing."""
        token = trio.lowlevel.current_trio_token()
        answered = trio.Event()
        answers: list[outcome.Outcome[T]] = []

        def answer(connection: sqlite3.Connection) -> None:
            answers.append(outcome.capture(partial(question, connection)))
            token.run_sync_soon(answered.set)

        self._thread.ask(answer)
        await answered.wait()
        return answers[0].unwrap()

    async def aclose(self) -> None:
        """Nothing to do: the connection is the writer's."""
        await trio.lowlevel.checkpoint()
