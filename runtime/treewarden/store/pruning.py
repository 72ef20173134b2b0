"""Keeps the journal and the fault history within what is to be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .faults import FaultTrimmer
from .journal import DELETE_ROWS, END, Head, is_expired, load_head, prune
from .retention import HELD_TIMES, Horizon
from .subscriptions import load_holding

if TYPE_CHECKING:
    import sqlite3

    from .journal import Tail
    from .retention import Retention
    from .subscriptions import Holding

FAR_OVER: Final = 32
"""A journal larger than its limit by this part of it (3 %) does not wait for a rest."""
_SLICES: Final = 8
"""Slices of one look; each is a transaction of at most `journal.DELETE_ROWS` rows."""


class Limits:
    """How old and how large the journal may become."""

    def __init__(self, keep_ns: int, keep_bytes: int, oldest_ns: int | None) -> None:
        self.keep_bytes = keep_bytes
        self._horizon = Horizon(keep_ns, oldest_ns)

    def apply(self, connection: sqlite3.Connection, tail: Tail, until: int) -> int:
        """Delete what is beyond them, slice by slice, none after `until`; how many went."""
        deleted = 0
        for _ in range(_SLICES):
            before_ns = self._horizon.before_ns()
            gone = prune(connection, tail, before_ns, self.keep_bytes, until)
            deleted += gone
            if gone < DELETE_ROWS:
                break
        return deleted

    def would_take(
        self, connection: sqlite3.Connection, tail: Tail, after: int
    ) -> bool:
        """Whether the next entry behind position `after` is beyond them."""
        before_ns = self._horizon.before_ns()
        return is_expired(connection, after, tail, before_ns, self.keep_bytes)


class Pruning:
    """Used by the writer's thread, between commits."""

    def __init__(self, retention: Retention) -> None:
        self.keep_bytes = retention.journal_bytes
        self.faults = FaultTrimmer()
        self.held: tuple[Holding, ...] = ()
        """For whom the journal is larger or older than it should be."""
        self._keep_ns = retention.keep_ns
        self._limits: Limits | None = None
        self._cap: Limits | None = None
        self._head: Head | None = None
        # At the last look: what was needed, and the running total of bytes.
        self._holding: list[Holding] = []
        self._looked_at = 0

    def is_far_over(self, tail: Tail) -> bool:
        """Whether the journal, which ends at `tail`, cannot wait; costs no look at it."""
        begin = 0 if self._head is None else self._head.end_bytes
        if self.held:
            # That it is larger than it should be has been seen: has it grown since?
            begin = max(begin, self._looked_at - self.keep_bytes)
        return tail.end_bytes - begin > self.keep_bytes + self.keep_bytes // FAR_OVER

    def has_moved(self, connection: sqlite3.Connection) -> bool:
        """Whether who holds the journal needs less of it than at the last look."""
        return load_holding(connection) != self._holding

    def advance(self, connection: sqlite3.Connection, tail: Tail) -> int:
        """Delete the oldest entries; how many went.

        What a durable subscription needs is spared, up to `HELD_TIMES` the limits. A
        journal that is within its bounds costs one look at its beginning.
        """
        limits, cap = self._begin(connection)
        holding = load_holding(connection)
        needed = min((one.cursor for one in holding), default=END)
        deleted = limits.apply(connection, tail, needed)
        if holding:
            deleted += cap.apply(connection, tail, END)
        self._head = load_head(connection)
        self._holding, self._looked_at = holding, tail.end_bytes
        self.held = tuple(
            one for one in holding if limits.would_take(connection, tail, one.cursor)
        )
        return deleted

    def trim_faults(self, connection: sqlite3.Connection) -> int:
        """Keep the fault history within its bounds; how many rows went."""
        return self.faults.trim(connection)

    def _begin(self, connection: sqlite3.Connection) -> tuple[Limits, Limits]:
        if self._limits is None or self._cap is None:
            head = load_head(connection)
            oldest_ns = head.at_ns if head is not None else None
            self._limits = Limits(self._keep_ns, self.keep_bytes, oldest_ns)
            self._cap = Limits(
                self._keep_ns * HELD_TIMES, self.keep_bytes * HELD_TIMES, oldest_ns
            )
        return self._limits, self._cap
