"""How agents get their state back: one by one, in the order in which they start.

A look-up costs a hop to a thread, twenty times what the row itself costs. Agents are
started in much the same order as they first were, and that is the order of their rows; so
whoever finds a row takes in those behind it, for the next who ask. They are more each time
that all were asked for: few for the agent that is added now, many for ten thousand after a
restart. What was read ahead holds until something is handed over to the store.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import RestoreError, StoreBroken

from . import failures
from .checksums import TABLES
from .snapshots import LostStates, load_state, refuse_other_type, states_behind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .checksums import Stored
    from .snapshots import StoredState

LEAST_AHEAD: Final = 4
"""Rows read ahead for the first who asks: 10 µs more than its own."""
MOST_AHEAD: Final = 1024
"""Rows read ahead for the many: a millisecond, in a thread. Half as many cost each of
100,000 a tenth more."""


class StateLoader:
    """Finds the state of agents; `read` puts a question to the file.

    `looks_for_lost`: a row that is not found is looked for once more, in all rows.
    """

    def __init__(
        self,
        read: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
        *,
        looks_for_lost: bool,
    ) -> None:
        self._read = read
        self._looks_for_lost = looks_for_lost
        self._ahead: dict[str, StoredState] = {}
        self._as_of: int | None = None
        self._rows = LEAST_AHEAD
        self._lost: LostStates | None = None
        self._looking = trio.Lock()

    async def load(
        self, path: str, store_as: str, as_of: int | None
    ) -> StoredState | None:
        """The last committed state of the agent at `path`, or None.

        `as_of` is the number of units that were ever handed over when none of them is
        undecided, else None. Gives way only when it reads.

        Raises:
            RestoreError: the row is damaged, or of another type; it was left untouched.
        """
        if as_of is not None and as_of == self._as_of:
            stored = self._ahead.pop(path, None)
            if stored is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                refuse_other_type(stored, path, store_as)
                return stored
        try:
            stored = await self._look_up(path, store_as, as_of)
            if stored is None and self._looks_for_lost:
                await self._refuse_lost(path)
        except StoreBroken as error:
            if failures.primary_code(error.__cause__) != sqlite3.SQLITE_CORRUPT:
                raise
            # Of this row, not of the whole file: others may be readable.
            raise RestoreError(
                f"the stored state of {path} is lost: {error}"
            ) from error
        return stored

    async def _look_up(
        self, path: str, store_as: str, as_of: int | None
    ) -> StoredState | None:
        rows = self._how_many(as_of)
        question = partial(_look, path=path, store_as=store_as, rows=rows)
        found: tuple[StoredState | None, dict[str, StoredState]]
        found = await self._read(question)
        stored, ahead = found
        self._ahead, self._as_of, self._rows = ahead, as_of, rows
        return stored

    def _how_many(self, as_of: int | None) -> int:
        """Rows to read ahead: more than the last time when all of those were wanted."""
        if as_of is None:
            return 0
        if self._ahead or as_of != self._as_of:
            return LEAST_AHEAD
        return min(4 * max(self._rows, 1), MOST_AHEAD)

    # --- what an index does not find ------------------------------------------------------

    async def _refuse_lost(self, path: str) -> None:
        lost = await self._load_lost()
        try:
            lost.refuse(path)
        except RestoreError:
            # Looked for again next time: it may have been mended by then.
            self._lost = None
            raise

    async def _load_lost(self) -> LostStates:
        # Once a run: a row that is written later has its index entry.
        async with self._looking:
            if self._lost is None:
                lost = LostStates()
                after: Stored | None = TABLES["agent_state"].start
                while after is not None:
                    after = await self._read(partial(lost.look, after=after))
                self._lost = lost
        return self._lost


def _look(
    connection: sqlite3.Connection, path: str, store_as: str, rows: int
) -> tuple[StoredState | None, dict[str, StoredState]]:
    stored = load_state(connection, path, store_as)
    if stored is None or not rows:
        return stored, {}
    try:
        return stored, states_behind(connection, path, rows)
    except sqlite3.DatabaseError:
        return stored, {}  # A damaged page is of others; who asks for those is told.
