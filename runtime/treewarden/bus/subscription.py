"""One subscriber's end of the bus: an iterator for a task, or a sink for an agent.

A task that finds nothing parks; the first event that comes wakes it, and it takes all
that is there by then before it gives way again. So a burst costs one pass of trio's loop
and not one an event, which is fifteen times faster than a memory channel.

What it takes so is a deque of its own, the batch, and a step through it is nothing but a
`popleft`: what is counted otherwise follows from its length. Whatever wants to look closer,
a publisher that waits or an event without room, puts the batch back first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from treewarden.errors import Backpressure
from treewarden.exits import Fault

from .buffer import Buffer, Newest, Offered, Overflow, Reason, Reservation
from .event import by_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .event import Event

Sink: TypeAlias = Callable[["Event"], bool]
"""Takes an event, or returns False when it has no room; it must not block."""

Failed: TypeAlias = Callable[["str", "Event", Fault], None]
"""Told of what a subscriber's own code raised: the subscription's id, the event, where."""

_TAKEN: Final = Offered.TAKEN
# Losses that are not for want of room.
_EXPECTED: Final = frozenset({Reason.CLOSED, Reason.SUPERSEDED, Reason.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatistics:
    """published = delivered + dropped + pending, at all times.

    `reserved` places belong to events that are not committed yet; `waiting` publishers
    stand in line for room. `dropped_by` splits `dropped` by reason; `untold` are those of
    which no event tells yet that it comes after a gap. `refused` publishes were stopped
    before anybody saw them. `last_fault` is one line, "" when nothing has failed.
    """

    id: str
    pattern: str
    owner: str
    capacity: int
    overflow: Overflow
    published: int
    delivered: int
    dropped: int
    pending: int
    reserved: int
    waiting: int
    dropped_by: Mapping[Reason, int]
    untold: int = 0
    refused: int = 0
    last_fault: str = ""


class Subscription(Buffer):
    """Events of one pattern, in the order in which they were committed or sent.

    Made by `Bus.subscribe` and iterated by one task at a time, or made by `Bus.attach`
    with a sink. A step of the iteration takes what waits without giving way, but gives
    way at least once for each batch that it found. Cancelled, it has taken nothing. The
    iteration ends when the subscription is closed. After a gap the next event says how
    many were `missed`.
    """

    __slots__ = (
        "_allowed",
        "_batch",
        "_handing",
        "_leave",
        "_sink",
        "_tell_failure",
        "_tell_loss",
        "idle",
        "last_fault",
        "owner",
        "pattern",
    )

    def __init__(
        self,
        pattern: str,
        *,
        capacity: int,
        overflow: Overflow,
        owner: str,
        number: int,
        leave: Callable[[Subscription], None],
        sink: Sink | None = None,
        key: Callable[[Event], str] = by_topic,
        failed: Failed = lambda name, event, fault: None,
        lossy: Callable[[Subscription], None] = lambda one: None,
    ) -> None:
        """Not on a bus yet; `leave` takes it off, `number` is unique there.

        `lossy` is told of each event that is lost for want of room, and of each publish
        that is refused; `failed` of what the sink raises.
        """
        name = f"{owner}:{pattern}#{number}" if owner else f"{pattern}#{number}"
        # What was counted as delivered and is still here; and how many more of the
        # others may be taken before it gives way.
        self._batch: deque[Event] = deque()
        self._allowed = 0
        self._sink = sink
        self._handing = False
        self.idle: trio.lowlevel.Task | None = None
        super().__init__(capacity, overflow, name, key)
        self.pattern = pattern
        self.owner = owner
        self.last_fault: Fault | None = None
        self._leave = leave
        self._tell_failure = failed
        self._tell_loss = lossy

    @property
    def delivered(self) -> int:
        """See `Buffer`; what is left of the batch is not."""
        return self._delivered - len(self._batch)

    @property
    def pending(self) -> int:
        """Events that wait here, the one that a sink is just looking at included."""
        return self._held + self._handing

    @property
    def _held(self) -> int:
        return len(self.items) + len(self._batch)

    @property
    def _asks(self) -> bool:
        return self._sink is not None or super()._asks

    def _open_short_way(self) -> None:
        super()._open_short_way()
        if self._batch:
            self.short_way -= len(self._batch)

    def _put_back(self) -> None:
        """The batch is in front of the others again."""
        batch = self._batch
        if batch and not isinstance(self.items, Newest):
            self._delivered -= len(batch)
            self._allowed = len(batch)
            self.items.extendleft(reversed(batch))
            batch.clear()
            self._open_short_way()

    # --- events in -------------------------------------------------------------------------

    def offer(self, event: Event) -> Offered:
        """See `Buffer.offer`; wakes the subscriber."""
        if len(self.items) < self.short_way:
            self.published += 1
            self.items.append(event)
            if self.idle is not None:
                self.wake()
            return _TAKEN
        self._put_back()
        offered = self._offer_with_care(event)
        if offered is Offered.TAKEN:
            self._notify()
        return offered

    def _miss(self, events: int) -> None:
        super()._miss(events)
        # The next event is not like the others: it says what is missing.
        self._put_back()

    def enter_line(self, one: Reservation) -> None:
        """See `Buffer.enter_line`; each step makes room for the next."""
        self._put_back()
        super().enter_line(one)

    def _count(self, reason: Reason, events: int = 1) -> None:
        super()._count(reason, events)
        if reason not in _EXPECTED:
            self._tell_loss(self)

    def refuse(self) -> None:
        """See `Buffer.refuse`."""
        super().refuse()
        self._tell_loss(self)

    def _failed(self, event: Event, error: Exception) -> None:
        self.last_fault = Fault.capture(error, path=self.owner)
        self._tell_failure(self.id, event, self.last_fault)

    def fulfil(self, event: Event) -> None:
        """See `Buffer.fulfil`; wakes the subscriber."""
        super().fulfil(event)
        self._notify()

    async def put(self, event: Event) -> bool:
        """Take an event that `Bus.offer` returned this subscription for; wait for room.

        Returns False when the subscription was closed meanwhile. Cancelled, the event
        was not taken.
        """
        await trio.lowlevel.checkpoint()
        await take_places(Reservation((self,)))
        self.fulfil(event)
        return not self.closed

    def _notify(self) -> None:
        if self._sink is not None:
            self.flush()
        elif self.idle is not None:
            self.wake()

    def wake(self) -> None:
        """Have the task that waits for an event look for one."""
        task, self.idle = self.idle, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    # --- events out, to a task -------------------------------------------------------------

    def __aiter__(self) -> Subscription:
        """The subscription is its own iterator."""
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            trio.BusyResourceError: another task waits for it already.
        """
        if self._batch:
            return self._batch.popleft()
        return await self._next_batch()

    async def _next_batch(self) -> Event:
        if self._sink is not None:
            raise TypeError(f"{self.id} is attached: its events go to its sink")
        if self.items and self._allowed:
            self._allowed -= 1
            return self.take()
        if self.items or self.closed:
            await trio.lowlevel.checkpoint()
        while not self.items:
            if self.closed:
                raise StopAsyncIteration
            await self._park()
        self._allowed = len(self.items) - 1
        event = self.take()
        if not self.line and not isinstance(self.items, Newest):
            # The rest of them, with one look at each.
            self.items, self._batch = self._batch, self.items
            self._delivered += len(self._batch)
            self._allowed = 0
        self._open_short_way()
        return event

    async def _park(self) -> None:
        if self.idle is not None:
            raise trio.BusyResourceError(f"another task iterates {self.id} already")
        self.idle = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.idle = None
        return trio.lowlevel.Abort.SUCCEEDED

    # --- events out, to a sink -------------------------------------------------------------

    def flush(self) -> None:
        """Hand what waits to the sink, as far as it has room.

        To be called by whoever owns the sink when it has room again.
        """
        if self._sink is None or self._handing:
            return
        while self.items and self._hand_over(self._sink):
            pass
        if self.line:
            self.admit()

    def _hand_over(self, sink: Sink) -> bool:
        key = self.items.first if isinstance(self.items, Newest) else ""
        event = self.items.popleft()
        if self._gap:
            event = self._tell_gap(event)
        # Its place stays its own while the sink looks at it, for it may have to go back.
        self._handing = True
        self._reserved += 1
        taken: bool | None = None
        try:
            taken = sink(event)
        except Exception as error:  # noqa: BLE001 - one subscriber's bug must not fail a publisher
            self._failed(event, error)
            return True
        finally:
            self._handed(event, key, taken=taken)
        return taken

    def _handed(self, event: Event, key: str, *, taken: bool | None) -> None:
        self._handing = False
        if not self.closed:
            self._reserved -= 1
            self._open_short_way()
        if taken:
            self._delivered += 1
        elif taken is None:
            self._count(Reason.FAILED)
            self._miss(1 + event.missed)
        elif self.closed:
            self._count(Reason.CLOSED)
        else:
            self._take_back(event, key)
        if self.closed:
            # Its sink closed it: only now is all counted.
            self._leave(self)

    # --- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the bus: what waits is dropped, waiting publishers go on without."""
        if self.closed:
            return
        self._put_back()
        super().close()
        if not self._handing:
            self._leave(self)
        self.wake()

    def statistics(self) -> SubscriptionStatistics:
        """How it stands."""
        return SubscriptionStatistics(
            id=self.id,
            pattern=self.pattern,
            owner=self.owner,
            capacity=self.capacity,
            overflow=self.overflow,
            published=self.published,
            delivered=self.delivered,
            dropped=self.lost,
            pending=self.pending,
            reserved=self.reserved,
            waiting=len(self.line),
            dropped_by=dict(self.dropped),
            untold=self.untold,
            refused=self.refused,
            last_fault=self.last_fault.summary() if self.last_fault else "",
        )


async def take_places(reservation: Reservation) -> None:
    """Reserve all places, standing in line for them; no checkpoint when there is room.

    Cancelled, none is held.

    Raises:
        Backpressure: a buffer that rejects is full; none is held.
    """
    full = reservation.take()
    if full is not None and full.overflow is not Overflow.REJECT:
        await _stand_in_line(reservation, full)
        full = reservation.refused
    if full is not None:
        full.refuse()
        raise Backpressure(full.id, full.capacity)


async def _stand_in_line(reservation: Reservation, full: Buffer) -> None:
    task = trio.lowlevel.current_task()

    def abort(_: object) -> trio.lowlevel.Abort:
        reservation.leave_line()
        return trio.lowlevel.Abort.SUCCEEDED

    reservation.stand_in_line(full, lambda: trio.lowlevel.reschedule(task))
    await trio.lowlevel.wait_task_rescheduled(abort)
