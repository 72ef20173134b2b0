"""Many rows of one table in few statements.

A statement lets go of the interpreter and wants it back, at the cost of a pass of the loop
in the trio thread; and so does each row of `executemany`. A statement of many rows does it
once. So rows go in powers of two: 100 are statements of 64, 32 and 4, and took 66 µs where
64 and 36 by themselves took 88.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

ROWS_AT_ONCE: Final = 64
"""Rows of one statement, a power of two; twice as many are no faster."""


class Insert:
    """A statement that inserts one row, and what it says after the row's values."""

    def __init__(self, one: str, tail: str = "") -> None:
        values = one[one.rindex("(") :]
        self._texts = {
            1 << power: one + f", {values}" * ((1 << power) - 1) + tail
            for power in range(ROWS_AT_ONCE.bit_length())
        }

    def run(
        self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert all rows, in their order."""
        first, count = 0, ROWS_AT_ONCE
        while first < len(rows):
            while first + count > len(rows):
                count >>= 1
            chunk = rows[first : first + count]
            connection.execute(self._texts[count], tuple(chain.from_iterable(chunk)))
            first += count
