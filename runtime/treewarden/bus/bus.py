"""Publish and subscribe, with two promises under two names.

`publish` is for what must not be lost: an event is in the journal before anybody sees it,
and its publisher waits for room, so that subscribers that ask for it lose nothing.
`signal` is for what is only interesting now: memory only, at most once, never waiting.

The order of a publish. Room is reserved in every subscription that wants it, all or none;
then the journal takes the event, and from there it cannot be called back; once it is
committed it goes to all subscriptions that matched when it was published and are still
there, in the order of positions.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from treewarden.clock import wall_ns
from treewarden.errors import Backpressure, BusError, NotRunning, StoreError
from treewarden.injection import places

from .buffer import Offered, Overflow, Reason, Reservation
from .event import Event, to_json
from .subscription import Subscription, SubscriptionStatistics, take_places
from .topic import Routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from .journal import Journal
    from .subscription import Sink

DEFAULT_CAPACITY: Final = 1000

_TAKEN: Final = Offered.TAKEN
_NO_ROOM: Final = Offered.NO_ROOM


@dataclass(frozen=True, slots=True, kw_only=True)
class BusStatistics:
    """Totals since the bus began, closed subscriptions included.

    `published` and `signalled` count events, `not_committed` those that the journal could
    not keep. `delivered`, `dropped` and `pending` count each event once a subscription.
    """

    published: int
    signalled: int
    not_committed: int
    delivered: int
    dropped: int
    pending: int
    dropped_by: Mapping[Reason, int]
    subscriptions: tuple[SubscriptionStatistics, ...]


class Bus:
    """Topics and who listens to them. One trio run, one thread."""

    def __init__(
        self,
        journal: Journal,
        *,
        inside_handler: Callable[[], bool] = lambda: False,
        hold: Callable[[Callable[[], None]], bool] = lambda send: False,
    ) -> None:
        """A bus without subscriptions.

        `inside_handler` tells whether an agent's handler is asking; it must use
        `self.publish`, which leaves with its commit. `hold` is offered each signal as a
        function that sends it: True means that the sender has work which is not
        committed yet, and that the function is called once it is, or never.
        """
        self._journal = journal
        self._inside_handler = inside_handler
        self._hold = hold
        self._routes: Routes[Subscription] = Routes()
        self._subscriptions: dict[Subscription, int] = {}
        self._closed = False
        self._made = 0
        self._published = self._signalled = self._not_committed = 0
        # What subscriptions that are gone had counted.
        self._gone = 0
        self._delivered_before = 0
        self._dropped_before: dict[Reason, int] = {}

    # --- subscribing -----------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(
        self,
        pattern: str,
        *,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow | str = Overflow.WAIT,
        owner: str = "",
    ) -> AsyncIterator[Subscription]:
        """`async with bus.subscribe("orders.*") as orders: async for event in orders: ...`.

        It gets what is published from entering to leaving the block; what it has not
        taken by then is dropped. `capacity` bounds the events that wait. `owner` is for
        people.

        Raises:
            ValueError: no such pattern, capacity or overflow.
            NotRunning: the bus is closed.
        """
        await trio.lowlevel.checkpoint()
        subscription = self._join(pattern, capacity, overflow, owner, None)
        try:
            yield subscription
        finally:
            subscription.close()

    def attach(
        self,
        pattern: str,
        sink: Sink,
        *,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow | str = Overflow.WAIT,
        owner: str = "",
    ) -> Subscription:
        """A subscription that pushes into `sink`, until `close()`.

        What the sink has no room for waits in the subscription, up to `capacity`; its
        owner calls `flush()` when there is room again.

        Raises:
            ValueError: no such pattern, capacity or overflow.
            NotRunning: the bus is closed.
        """
        return self._join(pattern, capacity, overflow, owner, sink)

    def _join(
        self,
        pattern: str,
        capacity: int,
        overflow: Overflow | str,
        owner: str,
        sink: Sink | None,
    ) -> Subscription:
        self._check_running("subscribed")
        self._made += 1
        subscription = Subscription(
            pattern,
            capacity=capacity,
            overflow=Overflow(overflow),
            owner=owner,
            number=self._made,
            leave=self._leave,
            sink=sink,
        )
        self._subscriptions[subscription] = self._routes.add(pattern, subscription)
        return subscription

    def _leave(self, subscription: Subscription) -> None:
        number = self._subscriptions.pop(subscription)
        self._routes.remove(subscription.pattern, number)
        self._gone += 1 + _activity(subscription)
        self._delivered_before += subscription.delivered
        for reason, events in subscription.dropped.items():
            self._dropped_before[reason] = self._dropped_before.get(reason, 0) + events

    # --- publishing ------------------------------------------------------------------------

    async def publish(
        self, topic: str, payload: object, *, source: str = "", trace: str = ""
    ) -> Event:
        """Publish an event; returns once it is committed and with its subscribers.

        Waits for room in `wait` subscriptions. Cancelled while it waits for room, here or
        in the journal, nothing has happened; the journal cannot give an event back, so
        cancelled after that, it is published all the same.

        Raises:
            TypeError: the payload cannot be JSON.
            ValueError: it is no topic.
            Backpressure: a `reject` subscription is full; nothing was published anywhere.
            BusError: called inside an agent's handler.
            StoreError: the journal could not keep it; nobody sees it.
            NotRunning: the bus is closed.
        """
        await places.BUS_PUBLISH.pass_by()
        publication = self._prepare(topic, payload, source, trace)
        await trio.lowlevel.checkpoint_if_cancelled()
        await take_places(publication.places)
        try:
            await self._journal.wait_room()
        except BaseException:
            publication.places.release()
            raise
        self._hand_to_journal(publication)
        return await publication.wait()

    def publish_nowait(
        self, topic: str, payload: object, *, source: str = "", trace: str = ""
    ) -> None:
        """Publish an event without waiting for anything, not for its commit either.

        If the journal cannot keep it after all, nobody sees it, and it is counted as
        `not_committed`.

        Raises:
            TypeError, ValueError, BusError, NotRunning: as `publish` does.
            Backpressure: a `wait` or `reject` subscription is full.
            StoreError: the journal does not take it.
        """
        publication = self._prepare(topic, payload, source, trace)
        full = publication.places.take()
        if full is not None:
            raise Backpressure(full.id, full.capacity)
        self._hand_to_journal(publication)

    def _prepare(
        self, topic: str, payload: object, source: str, trace: str
    ) -> _Publication:
        self._check_running("published")
        if self._inside_handler():
            raise BusError(
                "use self.publish(...) inside a handler: it leaves with the handler's"
                " commit, and not at all if the handler fails"
            )
        encoded, plain = to_json(topic, payload)
        event = Event(topic=topic, payload=plain, source=source, trace=trace)
        return _Publication(event, encoded, self._routes.find(topic), self._count)

    def _hand_to_journal(self, publication: _Publication) -> None:
        event = publication.event
        try:
            self._journal.append_nowait(
                event.topic,
                publication.encoded,
                event.source,
                event.trace,
                publication.decided,
            )
        except BaseException:
            publication.places.release()
            raise

    def _count(self, committed: bool) -> None:
        self._published += committed
        self._not_committed += not committed

    def offer(self, event: Event) -> tuple[Subscription, ...]:
        """Deliver an event that was committed with somebody else's work.

        Returns the `wait` subscriptions that had no room: the caller keeps the event for
        them and does `await subscription.put(event)`. A full `reject` subscription loses
        it, counted as `rejected`, for its publisher is past being told.
        """
        places.BUS_OFFER.reach()
        self._published += 1
        targets = self._routes.find(event.topic)
        return tuple(one for one in targets if one.offer(event) is _NO_ROOM)

    def signal(self, topic: str, payload: object, *, source: str = "") -> int:
        """Send an event through memory only, at most once, to whoever has room now.

        The payload is handed on as it is; do not change it afterwards. Full `wait` and
        `reject` subscriptions lose it, counted. Returns how many subscriptions took it; 0
        also when it is held until its sender's work is committed.

        Raises:
            ValueError: it is no topic.
            NotRunning: the bus is closed.
        """
        self._check_running("sent")
        targets = self._routes.find(topic)
        event = Event(topic=topic, payload=payload, at_ns=wall_ns(), source=source)

        def send() -> None:
            self._send(event, targets)

        return 0 if self._hold(send) else self._send(event, targets)

    def _send(self, event: Event, targets: tuple[Subscription, ...]) -> int:
        self._signalled += 1
        taken = 0
        for subscription in targets:
            offered = subscription.offer(event)
            if offered is _TAKEN:
                taken += 1
            elif offered is _NO_ROOM:
                subscription.drop_new(Reason.FULL)
        return taken

    # --- the whole -------------------------------------------------------------------------

    def close(self) -> None:
        """End every subscription; nothing can be published any more."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _check_running(self, what: str) -> None:
        if self._closed:
            raise NotRunning(f"the bus is closed; nothing was {what}")

    def statistics(self) -> BusStatistics:
        """Totals, and every open subscription in the order in which they were made."""
        rows = tuple(one.statistics() for one in self._subscriptions)
        dropped_by = dict(self._dropped_before)
        for row in rows:
            for reason, events in row.dropped_by.items():
                dropped_by[reason] = dropped_by.get(reason, 0) + events
        return BusStatistics(
            published=self._published,
            signalled=self._signalled,
            not_committed=self._not_committed,
            delivered=self._delivered_before + sum(row.delivered for row in rows),
            dropped=sum(dropped_by.values()),
            pending=sum(row.pending for row in rows),
            dropped_by=dropped_by,
            subscriptions=rows,
        )

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` has.

        It only grows: a subscription that leaves adds what it had counted to `_gone`.
        """
        events = self._published + self._signalled + self._not_committed
        living = sum(_activity(one) for one in self._subscriptions)
        return events + self._made + self._gone + living


def _activity(subscription: Subscription) -> int:
    return subscription.published + subscription.delivered + subscription.lost


class _Publication:
    """An event on its way through the journal, and who waits for it."""

    __slots__ = (
        "_count",
        "_done",
        "_error",
        "_targets",
        "_task",
        "encoded",
        "event",
        "places",
    )

    def __init__(
        self,
        event: Event,
        encoded: bytes,
        targets: tuple[Subscription, ...],
        count: Callable[[bool], None],
    ) -> None:
        self.event = event
        self.encoded = encoded
        self.places = Reservation(one for one in targets if one.reserves)
        self._targets = targets
        self._count = count
        self._task: trio.lowlevel.Task | None = None
        self._done = False
        self._error: StoreError | None = None

    def decided(self, outcome: tuple[int, int] | StoreError) -> None:
        """The journal's word: deliver, or give the places back."""
        self._done = True
        if isinstance(outcome, StoreError):
            self._error = outcome
            self._count(False)
            self.places.release()
        else:
            position, at_ns = outcome
            self.event = replace(self.event, position=position, at_ns=at_ns)
            self._count(True)
            self._deliver(self.event)
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def _deliver(self, event: Event) -> None:
        for subscription in self._targets:
            if subscription.reserves:
                subscription.fulfil(event)
            else:
                subscription.offer(event)

    async def wait(self) -> Event:
        """Until it is decided; cancelled, it goes its way without this task."""
        if not self._done:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._error is not None:
            # The journal may give one error to many; each raise adds its frames to it.
            raise self._error.with_traceback(None)
        return self.event

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
