"""Publish and subscribe, with two promises under two names.

`publish` is for what must not be lost: an event is in the journal before anybody sees it,
and its publisher waits for room, so that subscribers that ask for it lose nothing.
`signal` is for what is only interesting now: memory only, at most once, never waiting.

The order of a publish. Room is reserved in every subscription that wants it, all or none;
then the journal takes the event, and from there it cannot be called back; once it is
committed it goes to all subscriptions that matched when it was published and are still
there, in the order of positions.

A durable subscription (`durable`) reads the journal instead, so that it asks nobody for
room. `serve` is the task that does for all of them what takes time.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from treewarden.clock import wall_ns
from treewarden.errors import Backpressure, BusError, NotRunning, StoreError
from treewarden.injection import places
from treewarden.store import Unit, forget_subscription, load_subscriptions

from .buffer import Offered, Overflow, Reason, Reservation
from .durable import DurableStatistics, DurableSubscription
from .event import Event, by_topic, shown, to_json
from .pauses import Pause, Pauses, taking
from .policy import DurablePolicy, check_name, durable_id
from .replay import Replay
from .start import Start
from .subscription import Subscription, SubscriptionStatistics, take_places
from .topic import Routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from treewarden.exits import Fault
    from treewarden.store import EntryKind, JournalEntry, Owned, Store

    from .journal import Journal
    from .subscriber import LeasedEvent, Subscriber
    from .subscription import Sink

DEFAULT_CAPACITY: Final = 1000
WARNING_SECONDS: Final = 1.0
"""Between two warnings that events are lost or refused: it goes on, and the counters have
it all."""

_log: Final = logging.getLogger(__name__)
_DEFAULT_POLICY: Final = DurablePolicy()
_FROM_NOW: Final = Start()

_TAKEN: Final = Offered.TAKEN
_NO_ROOM: Final = Offered.NO_ROOM


@dataclass(frozen=True, slots=True, kw_only=True)
class BusStatistics:
    """Totals since the bus began, closed subscriptions included.

    `published` and `signalled` count events, `not_committed` those that the journal could
    not keep, `refused` those stopped for want of room or by a pause. `delivered`,
    `dropped` and `pending` count each event once a subscription in memory; `durable` ones
    are apart. `paused` is how many publishers wait for one of these.
    """

    published: int
    signalled: int
    not_committed: int
    delivered: int
    dropped: int
    pending: int
    dropped_by: Mapping[Reason, int]
    subscriptions: tuple[SubscriptionStatistics, ...]
    refused: int = 0
    durable: tuple[DurableStatistics, ...] = ()
    paused: int = 0


class Bus:
    """Topics and who listens to them. One trio run, one thread."""

    def __init__(
        self,
        journal: Journal,
        *,
        inside_handler: Callable[[], bool] = lambda: False,
        hold: Callable[[Callable[[], None]], bool] = lambda send: False,
        store: Store | None = None,
        news: Callable[[str, dict[str, object]], None] = lambda topic, payload: None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """A bus without subscriptions.

        `inside_handler` tells whether an agent's handler is asking; it must use
        `self.publish`, which leaves with its commit. `hold` is offered its signals as
        functions that send them: True means that the sender has work which is not
        committed yet, and that the function is called once it is, or never. `store` is
        where durable subscriptions are; without one there are none. `news` hears of
        losses and of what subscribers raise, with topics of its own.
        """
        self._journal = journal
        self._inside_handler = inside_handler
        self._hold = hold
        self._store = store
        self._news = news
        self._clock = clock
        self._quiet_until = -math.inf
        self._durable: dict[Owned, DurableSubscription] = {}
        self._unfollow: Callable[[], None] | None = None
        self._pauses = Pauses(self._paused)
        if store is not None:
            store.observe_held(self._note_held)
        # What `serve` waits for, and until when it would.
        self._work = trio.Event()
        self._armed = -math.inf
        self._routes: Routes[Subscription] = Routes()
        self._subscriptions: dict[Subscription, int] = {}
        self._closed = False
        self._made = 0
        self._published = self._signalled = self._not_committed = 0
        # What subscriptions that are gone had counted.
        self._gone = self._refused_before = 0
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
        key: Callable[[Event], str] = by_topic,
    ) -> AsyncIterator[Subscription]:
        """`async with bus.subscribe("orders.*") as orders: async for event in orders: ...`.

        It gets what is published from entering to leaving the block; what it has not
        taken by then is dropped. `capacity` bounds the events that wait. `owner` is for
        people. With `latest`, `key` says which events supersede each other.

        Raises:
            ValueError: no such pattern, capacity or overflow.
            NotRunning: the bus is closed.
        """
        await trio.lowlevel.checkpoint()
        subscription = self._join(pattern, capacity, overflow, owner, None, key)
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
        key: Callable[[Event], str] = by_topic,
    ) -> Subscription:
        """A subscription that pushes into `sink`, until `close()`.

        What the sink has no room for waits in the subscription, up to `capacity`; its
        owner calls `flush()` when there is room again.

        Raises:
            ValueError: no such pattern, capacity or overflow.
            NotRunning: the bus is closed.
        """
        return self._join(pattern, capacity, overflow, owner, sink, key)

    def _join(
        self,
        pattern: str,
        capacity: int,
        overflow: Overflow | str,
        owner: str,
        sink: Sink | None,
        key: Callable[[Event], str],
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
            key=key,
            failed=self._subscriber_failed,
            lossy=self._warn,
        )
        self._subscriptions[subscription] = self._routes.add(pattern, subscription)
        return subscription

    def _leave(self, subscription: Subscription) -> None:
        number = self._subscriptions.pop(subscription)
        self._routes.remove(subscription.pattern, number)
        self._gone += 1 + _activity(subscription)
        self._refused_before += subscription.refused
        self._delivered_before += subscription.delivered
        for reason, events in subscription.dropped.items():
            self._dropped_before[reason] = self._dropped_before.get(reason, 0) + events

    def _subscriber_failed(self, name: str, event: Event, fault: Fault) -> None:
        _log.error("%s failed at %s: %s", name, event.topic, fault.format())
        self._news(
            "bus.failed", {"subscription": name, "event": shown(event), "fault": fault}
        )

    def _warn(self, subscription: Subscription) -> None:
        """Events are lost, or publishes refused: say so, but not for each."""
        now = self._clock()
        if now < self._quiet_until:
            return
        self._quiet_until = now + WARNING_SECONDS
        _log.warning(
            "%s is full (%s): %d events lost, %d publishes refused so far",
            subscription.id,
            subscription.overflow,
            subscription.lost,
            subscription.refused,
        )
        self._news(
            "bus.overflowed",
            {
                "subscription": subscription.id,
                "overflow": subscription.overflow,
                "dropped": subscription.lost,
                "refused": subscription.refused,
            },
        )

    # --- durable subscriptions ---------------------------------------------------------

    @asynccontextmanager
    async def subscribe_durable(
        self,
        name: str,
        pattern: str,
        *,
        policy: DurablePolicy = _DEFAULT_POLICY,
        start: Start = _FROM_NOW,
    ) -> AsyncIterator[Subscriber]:
        """`async with bus.subscribe_durable("billing", "orders.>") as member: ...`.

        At least once to each event that is published from `start` on, across crashes and
        restarts, in the order of positions for events of one key. Iterate the member and
        `ack` each event, or have it `serve` a handler. All who are inside such a block by
        one name share the events; left with an exception, what was not acknowledged
        counts as tried. The first one's pattern and policy hold for all.

        Raises:
            ValueError: no such pattern or name, or the name has another pattern.
            NotRunning: the bus is closed, or there is no store.
            RestoreError, StoreError: it cannot be read.
        """
        member = self.join_durable(name, pattern, policy=policy, lease=policy.lease)
        try:
            await member.subscription.open(start)
            with taking(member.subscription.key):
                yield member
        except Exception as error:
            member.leave(failed=f"its task failed: {type(error).__name__}")
            raise
        finally:
            member.leave()

    def join_durable(
        self,
        name: str,
        pattern: str,
        *,
        owner: str = "",
        policy: DurablePolicy = _DEFAULT_POLICY,
        lease: float = math.inf,
        sink: Callable[[LeasedEvent], None] | None = None,
        wants: Callable[[], bool] = lambda: True,
    ) -> Subscriber:
        """One more member; `await member.subscription.open(...)` before it gets anything.

        Events go to `sink` as long as it `wants` them; `flush` says that it does again.
        They are its own for `lease` seconds, or until it leaves.

        Raises:
            ValueError, NotRunning: as `subscribe_durable`.
        """
        self._check_running("subscribed")
        if self._store is None:
            raise NotRunning(f"the durable subscription {name} needs a store")
        check_name(name)
        found = self._durable.get((owner, name))
        if found is None:
            found = self._make_durable(self._store, owner, name, pattern, policy)
        elif found.pattern != pattern:
            raise ValueError(
                f"{found.id} subscribes to {found.pattern!r} already, not to {pattern!r}"
            )
        self._made += 1
        return found.join(lease=lease, sink=sink, wants=wants)

    def _make_durable(
        self, store: Store, owner: str, name: str, pattern: str, policy: DurablePolicy
    ) -> DurableSubscription:
        made = DurableSubscription(
            store,
            pattern,
            owner=owner,
            name=name,
            policy=policy,
            wake=self._wake,
            news=self._news,
            gone=self._close_durable,
        )
        if self._unfollow is None:
            self._unfollow = store.follow(self._hear)
        self._durable[made.key] = made
        self._note_held()
        return made

    def _close_durable(self, one: DurableSubscription) -> None:
        if self._durable.get(one.key) is not one:
            return
        del self._durable[one.key]
        self._gone += 1 + one.activity
        one.close()
        if not self._durable and self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    async def forget_durable(self, name: str, *, owner: str = "") -> bool:
        """Remove a durable subscription for good; False when there is none.

        Whoever subscribes by that name again begins anew.

        Raises:
            BusError: somebody takes its events.
            NotRunning: the bus is closed, or there is no store.
            StoreError: it is still there.
        """
        self._check_running("forgotten")
        store = self._store
        if store is None:
            raise NotRunning(f"the durable subscription {name} needs a store")
        rows = await store.read(load_subscriptions)
        # From here on nobody can join before it is on its way out of the file.
        if (owner, name) in self._durable:
            raise BusError(f"{durable_id(owner, name)} has members; it was not removed")
        if (owner, name) not in [one.key for one in rows]:
            return False
        unit = Unit(owner or name)
        unit.writes = forget_subscription((owner, name))
        store.hand_over(unit)
        await store.wait(unit)
        self._pauses.forget((owner, name))
        return True

    def pause(self, key: Owned) -> Pause:
        """What a durable subscription does to publishers, whether it has members or not."""
        held = () if self._store is None else self._store.held
        return Pause(
            holds=any(one.key == key for one in held),
            paused=self._pauses.waiting_for(key),
            refused=self._pauses.refused_for(key),
        )

    def durable(self, owner: str, name: str) -> DurableSubscription | None:
        """The durable subscription of this name, if anybody is there to take events."""
        return self._durable.get((owner, name))

    def _note_held(self) -> None:
        """The journal is beyond its limits for other subscriptions than before."""
        held = () if self._store is None or self._closed else self._store.held
        self._pauses.update(held)
        keys = {one.key for one in held}
        for key, durable in tuple(self._durable.items()):
            durable.hold(key in keys)

    def _paused(self, topic: str, payload: dict[str, object]) -> None:
        _log.warning(
            "publishers of %s wait: the journal is beyond its limits for %s",
            payload["pattern"],
            payload["subscription"],
        )
        self._news(topic, payload)

    def _hear(self, entries: list[JournalEntry]) -> None:
        for one in tuple(self._durable.values()):
            one.hear(entries)

    def _wake(self, at: float) -> None:
        if at < self._armed:
            self._work.set()

    async def serve(self) -> None:
        """Read and time for the durable subscriptions, until cancelled."""
        while True:
            self._work, self._armed = trio.Event(), math.inf
            for one in tuple(self._durable.values()):
                await one.advance()
            self._armed = min(
                (one.due for one in self._durable.values()), default=math.inf
            )
            with trio.move_on_at(self._armed):
                await self._work.wait()

    def replay(self, pattern: str, *, start: Start, follow: bool = True) -> Replay:
        """Events of the journal that match, from `start` on, at the reader's pace.

        An async iterator; it keeps nothing in memory but a page. Then those to come, or
        with `follow=False` the end.

        Raises:
            ValueError: no such pattern.
            NotRunning: the bus is closed, or there is no store.
        """
        return self._replay(pattern, start, follow, "event")

    def reports(
        self, pattern: str = ">", *, start: Start = _FROM_NOW, follow: bool = True
    ) -> Replay:
        """What the runtime itself tells, as `replay` gives what others published.

            async for report in runtime.bus.reports("supervision.*"):
                if report.source == "/fetchers/f-3": ...

        Starts, ends, restarts, circuits, alarms, operators' acts: a child is followed so
        through all its incarnations, a monitor is of one. Reports are nobody's to wait
        for: they come with the next commit, or a moment later.

        Raises:
            ValueError: no such pattern.
            NotRunning: the bus is closed, or there is no store.
        """
        return self._replay(pattern, start, follow, "report")

    def _replay(
        self, pattern: str, start: Start, follow: bool, kind: EntryKind
    ) -> Replay:
        self._check_running("replayed")
        if self._store is None:
            raise NotRunning("a replay needs a store")
        return Replay(self._store, pattern, start, follow=follow, kind=kind)

    # --- publishing ------------------------------------------------------------------------

    async def publish(
        self, topic: str, payload: object, *, source: str = "", trace: str = ""
    ) -> Event:
        """Publish an event; returns once it is committed and with its subscribers.

        Waits for room in `wait` subscriptions, and for durable ones that pause publishers
        (`DurableRetention`). Cancelled while it waits for room, here or in the journal,
        nothing has happened; the journal cannot give an event back, so
        cancelled after that, it is published all the same.

        Raises:
            TypeError: the payload cannot be JSON.
            ValueError: it is no topic, or the payload is larger than 1 MiB.
            Backpressure: a `reject` subscription is full; nothing was published anywhere.
            BusError: called inside an agent's handler.
            StoreError: the journal could not keep it; nobody sees it.
            NotRunning: the bus is closed.
        """
        await places.BUS_PUBLISH.pass_by()
        publication = self._prepare(topic, payload, source, trace)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._pauses.wait(topic)
        self._check_running("published")
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
            Backpressure: a `wait` or `reject` subscription is full, or (PublisherPaused) a
                durable one pauses publishers.
            StoreError: the journal does not take it.
        """
        publication = self._prepare(topic, payload, source, trace)
        self._pauses.check(topic)
        full = publication.places.take()
        if full is not None:
            full.refuse()
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

    @property
    def pauses_publishers(self) -> bool:
        """Whether a durable subscription does so now."""
        return self._pauses.any

    def check_paused(self, topic: str, taken: Collection[Owned]) -> None:
        """Refuse an event that is to be committed with somebody's work.

        Who takes events of durable subscriptions, `taken`, does not wait for these.

        Raises:
            PublisherPaused: a durable subscription that wants it pauses publishers.
        """
        self._pauses.check(topic, taken)

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
        if self._closed:
            self._check_running("sent")
        targets = self._routes.find(topic)
        event = Event(topic=topic, payload=payload, at_ns=wall_ns(), source=source)
        if self._inside_handler():
            # Only here: to make a function costs as much as a delivery.
            def send() -> None:
                self._send(event, targets)

            if self._hold(send):
                return 0
        return self._send(event, targets)

    def _send(self, event: Event, targets: tuple[Subscription, ...]) -> int:
        self._signalled += 1
        lost = 0
        for subscription in targets:
            # `Subscription.offer`, written out: most of what a signal costs is here.
            items = subscription.items
            if len(items) < subscription.short_way:
                subscription.published += 1
                items.append(event)
                if subscription.idle is not None:
                    subscription.wake()
                continue
            offered = subscription.offer(event)
            if offered is not _TAKEN:
                lost += 1
                if offered is _NO_ROOM:
                    subscription.drop_new(Reason.FULL)
        return len(targets) - lost

    # --- the whole -------------------------------------------------------------------------

    def close(self) -> None:
        """End every subscription; nothing can be published any more."""
        self._closed = True
        if self._store is not None:
            self._store.observe_held(None)
        self._pauses.update(())
        for subscription in tuple(self._subscriptions):
            subscription.close()
        for durable in tuple(self._durable.values()):
            durable.close()
            self._close_durable(durable)

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
            refused=self._refused_before
            + sum(row.refused for row in rows)
            + self._pauses.refused,
            durable=tuple(one.statistics() for one in self._durable.values()),
            paused=self._pauses.waiting,
        )

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` has.

        It only grows: a subscription that leaves adds what it had counted to `_gone`.
        """
        events = self._published + self._signalled + self._not_committed
        living = sum(_activity(one) for one in self._subscriptions)
        durable = sum(one.activity for one in self._durable.values())
        known = events + self._made + self._gone + self._pauses.activity
        return known + living + durable


def _activity(subscription: Subscription) -> int:
    counted = subscription.published + subscription.delivered + subscription.lost
    return counted + subscription.refused


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
