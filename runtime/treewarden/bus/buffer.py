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

What is lost is visible to the subscriber, in its place: the first event after a gap says
how many were `missed`. So what was told, what waits to be told and what the events that
wait will tell is all that was dropped, but for what a buffer drops when it closes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from treewarden.resilience import check_count

from .event import by_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .event import Event


class Overflow(StrEnum):
    """What a subscription that is full means for a publisher.

    `wait`: it waits for room. `reject`: it gets `Backpressure`, nothing is published
    anywhere. `drop_oldest`, `drop_newest`: it notices nothing, the subscriber loses the
    oldest event that waits, or the new one. `latest`: of each key only the newest event
    waits, in the place of the first; with too many keys the oldest goes. What is lost is
    counted.
    """

    WAIT = "wait"
    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    LATEST = "latest"


class Reason(StrEnum):
    """Why an event never reached its subscriber."""

    FULL = "full"
    """A signal found a `wait` subscription full; signals do not wait."""
    REJECTED = "rejected"
    """A `reject` subscription was full and the publisher was past being told."""
    OLDEST = "oldest"
    NEWEST = "newest"
    SUPERSEDED = "superseded"
    """A newer event of the same key took its place."""
    CLOSED = "closed"
    """It was still waiting when the subscription ended."""
    FAILED = "failed"
    """The sink raised, or the function that finds the event's key."""
    EXPIRED = "expired"
    """The journal had to delete it before its durable subscription came to it."""
    DAMAGED = "damaged"
    """Its row in the journal cannot be read."""
    DEAD_LETTER = "dead_letter"
    """Every attempt to handle it failed; it is kept among the dead letters."""


class Offered(Enum):
    """What became of an event that was offered."""

    TAKEN = auto()
    DROPPED = auto()
    NO_ROOM = auto()


_TAKEN: Final = Offered.TAKEN


class Newest:
    """As much of a deque as a buffer needs, with one event a key.

    An event's key is asked for once, when it comes: the next time it may be another one,
    for a signal's payload is its sender's own object.
    """

    __slots__ = ("_events", "_key", "coming")

    def __init__(self, key: Callable[[Event], str]) -> None:
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._key = key
        # The key of the event that is appended next.
        self.coming = ""

    @property
    def first(self) -> str:
        """The key of the one that has waited longest; there must be one."""
        return next(iter(self._events))

    def find(self, event: Event) -> tuple[str, Event | None]:
        """The key of an event, and the one of that key that waits."""
        key = self._key(event)
        return key, self._events.get(key)

    def append(self, event: Event) -> None:
        """The one that is `coming`, in the place of its key's last or at the back."""
        self._events[self.coming] = event

    def put_back(self, key: str, event: Event) -> Event | None:
        """In front again, unless there is a newer one of its key: then that one."""
        newer = self._events.get(key)
        if newer is None:
            self._events[key] = event
            self._events.move_to_end(key, last=False)
        return newer

    def popleft(self) -> Event:
        """The one that has waited longest."""
        return self._events.popitem(last=False)[1]

    def clear(self) -> None:
        """All of them."""
        self._events.clear()

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._events)


class Buffer:
    """One subscription's events; changes come one at a time, from one thread.

    `key` says which events supersede each other, for `latest`.
    """

    __slots__ = (
        "_delivered",
        "_gap",
        "_gap_behind",
        "_newest",
        "_reserved",
        "capacity",
        "closed",
        "dropped",
        "id",
        "items",
        "line",
        "overflow",
        "published",
        "refused",
        "short_way",
    )

    def __init__(
        self,
        capacity: int,
        overflow: Overflow,
        name: str = "",
        key: Callable[[Event], str] = by_topic,
    ) -> None:
        check_count("capacity", capacity, 1)
        self.id = name
        self.capacity = capacity
        self.overflow = overflow
        self.published = self._delivered = 0
        self.dropped: dict[Reason, int] = {}
        # Publishes that were stopped, because they would not or could not wait for room.
        self.refused = 0
        self.closed = False
        self.line: deque[Reservation] = deque()
        self._newest = Newest(key) if overflow is Overflow.LATEST else None
        self.items: deque[Event] | Newest = (
            deque() if self._newest is None else self._newest
        )
        self._reserved = 0
        # Events lost before the first that waits, and behind the last.
        self._gap = self._gap_behind = 0
        # While there are fewer items than this, events come in without a question. So
        # the way of every event needs only one comparison.
        self.short_way = 0
        self._open_short_way()

    def _open_short_way(self) -> None:
        """Work it out again: who may come in without a question has changed."""
        self.short_way = 0 if self._asks else self.capacity - self._reserved

    @property
    def _asks(self) -> bool:
        """Whether each event is to be looked at: there is more to do than to keep it."""
        return self.closed or self._gap_behind > 0 or self._newest is not None

    @property
    def delivered(self) -> int:
        """Events that the subscriber has got."""
        return self._delivered

    @property
    def pending(self) -> int:
        """Events that were published here and are neither delivered nor dropped yet."""
        return len(self.items)

    @property
    def reserved(self) -> int:
        """Places kept for events that are not committed yet."""
        return self._reserved

    @property
    def lost(self) -> int:
        """Events that were dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def untold(self) -> int:
        """Of those, how many no event that waits will tell of yet."""
        return self._gap + self._gap_behind

    @property
    def reserves(self) -> bool:
        """Whether publishers must have a place here before they commit."""
        return self.overflow in (Overflow.WAIT, Overflow.REJECT)

    @property
    def has_room(self) -> bool:
        """Whether another event can come; a closed buffer holds nobody up."""
        return self.closed or self._is_free

    @property
    def _is_free(self) -> bool:
        return self._held + self._reserved < self.capacity

    @property
    def _held(self) -> int:
        """Events that take a place here."""
        return len(self.items)

    # --- events in -------------------------------------------------------------------------

    def offer(self, event: Event) -> Offered:
        """Take an event that nobody reserved a place for.

        `NO_ROOM` only from a `wait` buffer, which counts nothing then: whoever has the
        event still has it. Closed, it takes and counts nothing.
        """
        if len(self.items) < self.short_way:
            self.published += 1
            self.items.append(event)
            return _TAKEN
        return self._offer_with_care(event)

    def _offer_with_care(self, event: Event) -> Offered:
        if self.closed:
            return Offered.DROPPED
        if self._newest is not None:
            return self._offer_newest(self._newest, event)
        if self._is_free:
            self.published += 1
            self._append(event)
            return _TAKEN
        match self.overflow:
            case Overflow.WAIT:
                return Offered.NO_ROOM
            case Overflow.REJECT:
                self.drop_new(Reason.REJECTED)
            case Overflow.DROP_OLDEST if self.items:
                self._drop_oldest()
                self.published += 1
                self._append(event)
                return _TAKEN
            case _:
                self.drop_new(Reason.NEWEST)
        return Offered.DROPPED

    def _offer_newest(self, newest: Newest, event: Event) -> Offered:
        try:
            key, old = newest.find(event)
        except Exception as error:  # noqa: BLE001 - one subscriber's bug must not fail a publisher
            self.drop_new(Reason.FAILED)
            self._failed(event, error)
            return Offered.DROPPED
        if old is not None:
            self.published += 1
            newest.coming = key
            newest.append(_missing(event, old.missed + 1))
            self._count(Reason.SUPERSEDED)
            return _TAKEN
        if not self._is_free and newest:
            self._drop_oldest()
        if not self._is_free:
            self.drop_new(Reason.NEWEST)
            return Offered.DROPPED
        self.published += 1
        newest.coming = key
        self._append(event)
        return _TAKEN

    def _drop_oldest(self) -> None:
        victim = self.items.popleft()
        self._count(Reason.OLDEST)
        self._miss(1 + victim.missed)

    def _miss(self, events: int) -> None:
        """So many were lost before the first event that waits."""
        self._gap += events

    def _append(self, event: Event) -> None:
        """Take the newest event, which tells of what was lost behind the others."""
        if self._gap_behind:
            event = _missing(event, self._gap_behind)
            self._gap_behind = 0
            self._open_short_way()
        self.items.append(event)

    def drop_new(self, reason: Reason) -> None:
        """An event was published here and is lost at once."""
        if not self.closed:
            self.published += 1
            self._count(reason)
            self._gap_behind += 1
            self.short_way = 0

    def fulfil(self, event: Event) -> None:
        """An event takes the place that was reserved for it."""
        if self.closed:
            return
        self._reserved -= 1
        self.published += 1
        self._append(event)
        self._open_short_way()

    def refuse(self) -> None:
        """A publish was stopped because there is no room."""
        self.refused += 1

    def _count(self, reason: Reason, events: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + events

    def _failed(self, event: Event, error: Exception) -> None:
        """What belongs to the subscriber raised; `event` is counted already."""

    # --- events out ------------------------------------------------------------------------

    def take(self) -> Event:
        """Deliver the oldest event that waits; there must be one."""
        event = self.items.popleft()
        self._delivered += 1
        if self._gap:
            event = self._tell_gap(event)
        if self.line:
            self.admit()
        return event

    def _tell_gap(self, event: Event) -> Event:
        missed, self._gap = self._gap, 0
        return _missing(event, missed)

    def _take_back(self, event: Event, key: str) -> None:
        """An event that was taken and not delivered: it waits in front again.

        `key`: what it waited under, where that counts.
        """
        newest = self._newest
        if isinstance(self.items, deque):
            self.items.appendleft(event)
        elif newest is not None:
            newer = newest.put_back(key, event)
            if newer is not None:
                newest.coming = key
                newest.append(_missing(newer, event.missed + 1))
                self._count(Reason.SUPERSEDED)

    def close(self) -> None:
        """Drop what waits, take nothing more, hold nobody up."""
        if self.closed:
            return
        self.closed = True
        if self.items:
            self._count(Reason.CLOSED, len(self.items))
        self.items.clear()
        self._reserved = self.short_way = 0
        self.admit()

    # --- places ----------------------------------------------------------------------------

    def reserve(self) -> None:
        """Keep a place; there must be room."""
        if not self.closed:
            self._reserved += 1
            self._open_short_way()

    def release(self) -> None:
        """Give a reserved place back."""
        if not self.closed:
            self._reserved -= 1
            self._open_short_way()
            self.admit()

    def enter_line(self, one: Reservation) -> None:
        """Somebody waits for a place."""
        self.line.append(one)

    def admit(self) -> None:
        """Let those who stand in line look again, while there is room."""
        while self.line and self.has_room:
            self.line.popleft().look_again()


def _missing(event: Event, events: int) -> Event:
    return replace(event, missed=event.missed + events)


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
        full.enter_line(self)

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
