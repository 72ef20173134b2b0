"""Many rows of one table in few statements.

A statement lets go of the interpreter and wants it back, at the cost of a pass of the loop
in the trio thread; and so does each row of `executemany`. A statement of many rows does it
once.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

ROWS_AT_ONCE: Final = 64
"""Rows of one statement; twice as many are no faster."""


class Insert:
    """A statement that inserts one row, and what it says after the row's values.

    `one` and `many` are its text for one row and for `ROWS_AT_ONCE`.
    """

    def __init__(self, one: str, tail: str = "") -> None:
        values = one[one.rindex("(") :]
        self.one = one + tail
        self.many = one + f", {values}" * (ROWS_AT_ONCE - 1) + tail

    def run(
        self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert all rows, in their order."""
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        for first in range(0, whole, ROWS_AT_ONCE):
            chunk = rows[first : first + ROWS_AT_ONCE]
            connection.execute(self.many, tuple(chain.from_iterable(chunk)))
        if whole < len(rows):
            connection.executemany(self.one, rows[whole:])
