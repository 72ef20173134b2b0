"""Looks at every row once a day, a slice whenever the writer rests.

Damage that nobody reads is found while there still is a backup from before it.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from . import failures
from .checking import DamagedRow, Slice, check_slice
from .checksums import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .checksums import Stored, Table

PASS_SECONDS: Final = 24 * 3600.0
"""From the beginning of one pass to the next; the first begins at the first rest."""
KNOWN_ROWS: Final = 1000
"""Damaged rows remembered as told of; beyond these a row may be told of again."""


class Scrubber:
    """Where the pass has come to, and what it has found. Used by the writer's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = 0
        """Rows looked at, in all passes."""
        self.passes = 0
        """Passes that came to their end."""
        self._clock = clock
        self._due = -math.inf
        self._tables: list[Table] = []
        self._after: Stored | None = None
        self._known: set[DamagedRow] = set()

    def advance(self, connection: sqlite3.Connection) -> list[DamagedRow]:
        """Look at the next slice, if a pass is under way or due; what it newly found."""
        if not self._tables and not self._begin():
            return []
        table = self._tables[-1]
        after = table.start if self._after is None else self._after
        looked = _look(connection, table, after)
        self.rows += looked.rows
        self._after = looked.after
        if self._after is None:
            self._tables.pop()
            self.passes += not self._tables
        return self._new(looked.damaged)

    def _begin(self) -> bool:
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + PASS_SECONDS
        self._tables = list(TABLES.values())[::-1]
        return True

    def _new(self, found: list[DamagedRow]) -> list[DamagedRow]:
        new = [row for row in found if row not in self._known]
        if len(self._known) < KNOWN_ROWS:
            self._known.update(new)
        return new


def _look(connection: sqlite3.Connection, table: Table, after: Stored) -> Slice:
    try:
        return check_slice(connection, table, after)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if failures.primary_code(error) != sqlite3.SQLITE_CORRUPT:
            raise
        # A page that cannot be read; the tables after this one may be whole.
        lost = DamagedRow(
            table=table.name, key=f"behind {after!r}, which has no readable page"
        )
        return Slice(0, [lost], None)
