"""The events that wait for one subscriber: how many there may be, and what is lost.

Two rules hold at every moment. The accounts add up:

    published = delivered + dropped + pending

and there is never more than was promised: pending + reserved <= capacity. A *reserved*
place belongs to an event that is on its way through the journal: its publisher was told
that there is room, so nobody else may take it. `Reservation` holds places in several
buffers at once.

A reservation that has to wait stands in the line of the one buffer that held it up, and
holds nothing anywhere: publishers that hold places here while they wait for others there
would block each other for ever. When a buffer gets room, the first in its line looks
again; if another buffer is full by now it changes lines, at the head, for it has waited
already. So a line is empty, or its buffer is full.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .event import Event


class Overflow(StrEnum):
    """What a subscription that is full means for a publisher.

    `wait`: it waits for room. `reject`: it gets `Backpressure`, nothing is published
    anywhere. `drop_oldest`, `drop_newest`: it notices nothing, the subscriber loses the
    oldest event that waits, or the new one. What is lost is counted.
    """

    WAIT = "wait"
    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class Reason(StrEnum):
    """Why an event never reached its subscriber."""

    FULL = "full"
    """A signal found a `wait` subscription full; signals do not wait."""
    REJECTED = "rejected"
    """A `reject` subscription was full and the publisher was past being told."""
    OLDEST = "oldest"
    NEWEST = "newest"
    CLOSED = "closed"
    """It was still waiting when the subscription ended."""
    FAILED = "failed"
    """The sink raised."""


class Offered(Enum):
    """What became of an event that was offered."""

    TAKEN = auto()
    DROPPED = auto()
    NO_ROOM = auto()


_TAKEN: Final = Offered.TAKEN


class Buffer:
    """One subscription's events; changes come one at a time, from one thread."""

    __slots__ = (
        "_items",
        "_limit",
        "_reserved",
        "capacity",
        "closed",
        "delivered",
        "dropped",
        "id",
        "line",
        "overflow",
        "published",
    )

    def __init__(self, capacity: int, overflow: Overflow, name: str = "") -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1 event, not {capacity}")
        self.id = name
        self.capacity = capacity
        self.overflow = overflow
        self.published = self.delivered = 0
        self.dropped: dict[Reason, int] = {}
        self.closed = False
        self.line: deque[Reservation] = deque()
        self._items: deque[Event] = deque()
        self._reserved = 0
        # 0 once closed, so that the way of every event needs only one comparison.
        self._limit = capacity

    @property
    def pending(self) -> int:
        """Events that were published here and are neither delivered nor dropped yet."""
        return len(self._items)

    @property
    def reserved(self) -> int:
        """Places kept for events that are not committed yet."""
        return self._reserved

    @property
    def lost(self) -> int:
        """Events that were dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def reserves(self) -> bool:
        """Whether publishers must have a place here before they commit."""
        return self.overflow in (Overflow.WAIT, Overflow.REJECT)

    @property
    def has_room(self) -> bool:
        """Whether another event can come; a closed buffer holds nobody up."""
        return self.closed or len(self._items) + self._reserved < self._limit

    # --- events in -------------------------------------------------------------------------

    def offer(self, event: Event) -> Offered:
        """Take an event that nobody reserved a place for.

        `NO_ROOM` only from a `wait` buffer, which counts nothing then: whoever has the
        event still has it. Closed, it takes and counts nothing.
        """
        if len(self._items) + self._reserved < self._limit:
            self.published += 1
            self._items.append(event)
            return _TAKEN
        return self._overflow_with(event)

    def _overflow_with(self, event: Event) -> Offered:
        if self.closed:
            return Offered.DROPPED
        match self.overflow:
            case Overflow.WAIT:
                return Offered.NO_ROOM
            case Overflow.REJECT:
                self.drop_new(Reason.REJECTED)
            case Overflow.DROP_OLDEST if self._items:
                self._items.popleft()
                self._count(Reason.OLDEST)
                self.published += 1
                self._items.append(event)
                return _TAKEN
            case _:
                self.drop_new(Reason.NEWEST)
        return Offered.DROPPED

    def drop_new(self, reason: Reason) -> None:
        """An event was published here and is lost at once."""
        if not self.closed:
            self.published += 1
            self._count(reason)

    def fulfil(self, event: Event) -> None:
        """An event takes the place that was reserved for it."""
        if self.closed:
            return
        self._reserved -= 1
        self.published += 1
        self._items.append(event)

    def _count(self, reason: Reason, events: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + events

    # --- events out ------------------------------------------------------------------------

    def take(self) -> Event:
        """Deliver the oldest event that waits; there must be one."""
        event = self._items.popleft()
        self.delivered += 1
        if self.line:
            self.admit()
        return event

    def close(self) -> None:
        """Drop what waits, take nothing more, hold nobody up."""
        if self.closed:
            return
        self.closed = True
        if self._items:
            self._count(Reason.CLOSED, len(self._items))
        self._items.clear()
        self._reserved = self._limit = 0
        self.admit()

    # --- places ----------------------------------------------------------------------------

    def reserve(self) -> None:
        """Keep a place; there must be room."""
        if not self.closed:
            self._reserved += 1

    def release(self) -> None:
        """Give a reserved place back."""
        if not self.closed:
            self._reserved -= 1
            self.admit()

    def admit(self) -> None:
        """Let those who stand in line look again, while there is room."""
        while self.line and self.has_room:
            self.line.popleft().look_again()


class Reservation:
    """Places in several buffers, all or none.

    `refused` is the `reject` buffer that filled up while this stood in line for another.
    """

    __slots__ = ("_buffers", "_line", "_wake", "refused")

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self.refused: Buffer | None = None
        self._buffers = tuple(buffers)
        self._line: Buffer | None = None
        self._wake: Callable[[], None] | None = None

    def take(self) -> Buffer | None:
        """Reserve a place in every buffer; or in none, and return one that is full.

        Of several full ones it is the first that rejects, for waiting for the others
        would be in vain.
        """
        waits: Buffer | None = None
        for buffer in self._buffers:
            if buffer.has_room:
                continue
            if buffer.overflow is Overflow.REJECT:
                return buffer
            if waits is None:
                waits = buffer
        if waits is None:
            for buffer in self._buffers:
                buffer.reserve()
        return waits

    def stand_in_line(self, full: Buffer, wake: Callable[[], None]) -> None:
        """Wait for `full`, which `take` returned.

        `wake` is called once, when all places are reserved, or when it is `refused`.
        """
        self._wake = wake
        self._line = full
        full.line.append(self)

    def look_again(self) -> None:
        """The buffer whose line this has just left has room: try again."""
        full = self.take()
        if full is not None and full.overflow is not Overflow.REJECT:
            self._line = full
            full.line.appendleft(self)
            return
        self.refused = full
        self._line = None
        if self._wake is not None:
            self._wake()

    def leave_line(self) -> None:
        """Wait no more; nothing was reserved."""
        if self._line is not None:
            self._line.line.remove(self)
            self._line = None

    def release(self) -> None:
        """Give all places back."""
        for buffer in self._buffers:
            buffer.release()
