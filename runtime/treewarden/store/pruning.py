"""Keeps the journal and the fault history within what is to be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .faults import FaultTrimmer
from .journal import DELETE_ROWS, Head, load_head, prune
from .retention import Horizon

if TYPE_CHECKING:
    import sqlite3

    from .journal import Tail
    from .retention import Retention

FAR_OVER: Final = 32
"""A journal larger than its limit by this part of it (3 %) does not wait for a rest."""
_SLICES: Final = 8
"""Slices of one look; each is a transaction of at most `journal.DELETE_ROWS` rows."""


class Pruning:
    """Used by the writer's thread, between commits."""

    def __init__(self, retention: Retention) -> None:
        self.keep_bytes = retention.journal_bytes
        self.faults = FaultTrimmer()
        self._keep_ns = retention.keep_ns
        self._horizon: Horizon | None = None
        self._head: Head | None = None

    def is_far_over(self, tail: Tail) -> bool:
        """Whether the journal, which ends at `tail`, cannot wait; costs no look at it."""
        begin = 0 if self._head is None else self._head.end_bytes
        return tail.end_bytes - begin > self.keep_bytes + self.keep_bytes // FAR_OVER

    def advance(self, connection: sqlite3.Connection, tail: Tail) -> int:
        """Delete the oldest entries, slice by slice; how many went.

        A journal that is within its bounds costs one look at its beginning.
        """
        horizon = self._horizon or self._begin(connection)
        deleted = 0
        for _ in range(_SLICES):
            gone = prune(connection, tail, horizon.before_ns(), self.keep_bytes)
            deleted += gone
            if gone < DELETE_ROWS:
                break
        self._head = load_head(connection)
        return deleted

    def trim_faults(self, connection: sqlite3.Connection) -> int:
        """Keep the fault history within its bounds; how many rows went."""
        return self.faults.trim(connection)

    def _begin(self, connection: sqlite3.Connection) -> Horizon:
        head = load_head(connection)
        oldest_ns = head.at_ns if head is not None else None
        self._horizon = Horizon(self._keep_ns, oldest_ns)
        return self._horizon
