"""A bounded buffer between the code that records and the thread that exports.

Recording must cost next to nothing and must never wait, so a full buffer drops and counts.
It drops what comes last: the exporter empties the buffer several times a second, so when
one is full the beginning of the burst, with its cause, is the part worth keeping.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferStatistics:
    """What went through a buffer: offered = taken + waiting + dropped."""

    enabled: bool
    capacity: int
    waiting: int
    taken: int
    dropped: int


class Buffer(Generic[Record]):
    """Records that wait for the exporter, oldest first, at most `capacity`.

    Any thread may record and take. `enabled` False means that nobody should
    bother to make a record: callers look before they build one.
    """

    __slots__ = ("_dropping", "_taken", "_waiting", "capacity", "dropped", "enabled")

    def __init__(self, capacity: int, *, enabled: bool) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, not {capacity}")
        self.capacity = capacity
        self.enabled = enabled
        self.dropped = 0
        self._taken = 0
        self._dropping = Lock()
        # A deque's append and popleft are atomic: no lock on the hot path.
        self._waiting: deque[Record] = deque()

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def add(self, record: Record) -> None:
        """Append `record`, or count it as dropped when the buffer is full."""
        if len(self._waiting) >= self.capacity:
            self.drop()
        else:
            self._waiting.append(record)

    def drop(self) -> None:
        """Count a record that found no room."""
        with self._dropping:
            self.dropped += 1

    def take(self, limit: int) -> list[Record]:
        """Remove and return the oldest records, at most `limit`."""
        taken: list[Record] = []
        with suppress(IndexError):
            while len(taken) < limit:
                taken.append(self._waiting.popleft())
        self._taken += len(taken)
        return taken

    def statistics(self) -> BufferStatistics:
        """The counters of this moment."""
        return BufferStatistics(
            enabled=self.enabled,
            capacity=self.capacity,
            waiting=len(self._waiting),
            taken=self._taken,
            dropped=self.dropped,
        )
