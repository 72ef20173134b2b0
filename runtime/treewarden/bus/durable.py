"""Durable subscriptions: a name and a cursor in the journal, at least once to each event.

Theory of operation. The events are in the journal already; a subscription only keeps how
far it has come. All who subscribe by one name are its members and share that cursor: each
event goes to one of them. Up to `capacity` events are in memory; of those behind them it
is known how many there are, and they are read from the journal when there is room.

An event is leased to a member. Before that its attempt is counted in the file, for up to
`COUNTED_TOGETHER` events in one commit, so that what kills the process is not tried for
ever. What the member makes of it:

- done: the note of that is a row in the member's own unit of work, together with what it
  changed, or in one of its own. A kill before that commit delivers the event again, after
  it never: at least once to each, and once into state that is committed with it;
- failed, or its lease ran out: it waits (`backoff`), and its key with it. After
  `max_attempts` it is a dead letter, in the same commit that takes it out of here;
- the member left: it goes to another one, and that was no attempt.

At all times `published = delivered + dropped + pending`, counted from its opening on.
"""

from __future__ import annotations

import math
import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec.structs import replace

from treewarden.errors import StoreError
from treewarden.exits import Fault, writable
from treewarden.store import (
    DurableRetention,
    StoredDelivery,
    StoredSubscription,
    Unit,
    count_events,
)

from .buffer import Reason
from .deliveries import Deliveries, Entry, Stage
from .event import Event, shown, unordered
from .policy import DurablePolicy, check_delay, durable_id
from .records import Records
from .start import Start, event_of, last_events, read_page
from .subscriber import LeasedEvent, Subscriber
from .topic import check_pattern, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from treewarden.store import EventPage, JournalEntry, Owned, Store, Write

COUNTED_TOGETHER: Final = 32
"""Events whose first attempt is counted in one commit: what that costs each of them is
small beside the commit of what is done for it."""
SAVED_EVERY: Final = 1000
"""Entries of the journal after which the cursor is noted, also when none of them was ours:
retention must not seem to have deleted what was never wanted."""
MOST_LOOKS: Final = 10
"""At the journal for one page, when it is cut off faster than it can be read: that goes on
no longer than it is filled so fast."""
RETRY_SECONDS: Final = 1.0
"""After which a read or a commit that failed is tried again, and a page is read for which
there is not much room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableStatistics:
    """published = delivered + dropped + pending, at all times, since it was opened.

    Of the `pending`, `leased` are with members and `waiting` are to be tried again, and
    `unread` are in the journal only. `cursor`: all up to this position is over; `lag`
    entries of the journal are behind it. `redelivered` counts attempts beyond the first.
    Of what the journal deleted while nobody looked each entry counts as expired; the next
    event after such a loss says how many it missed, and there were so many `gaps`. It
    `holds` when the journal is beyond its limits for what is behind its cursor.
    """

    id: str
    pattern: str
    owner: str
    name: str
    capacity: int
    members: int
    cursor: int
    lag: int
    published: int
    delivered: int
    dropped: int
    pending: int
    leased: int
    waiting: int
    unread: int
    redelivered: int
    dropped_by: Mapping[Reason, int]
    retention: str = DurableRetention.DROP_AND_MARK_GAP
    holds: bool = False
    gaps: int = 0
    last_fault: str = ""


class DurableSubscription:
    """One name's cursor and events, shared by its members. Made by the bus."""

    def __init__(
        self,
        store: Store,
        pattern: str,
        *,
        owner: str,
        name: str,
        policy: DurablePolicy,
        wake: Callable[[float], None],
        news: Callable[[str, dict[str, object]], None],
        gone: Callable[[DurableSubscription], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Not open yet.

        `wake` has `advance` called at a time, in the clock's seconds; `news` tells what
        went wrong, `gone` that the last member has left.

        Raises:
            ValueError: it is no pattern.
        """
        check_pattern(pattern)
        self.pattern = pattern
        self.owner = owner
        self.name = name
        self.policy = policy
        self.published = self.delivered = self.redelivered = self.gaps = 0
        self.dropped: dict[Reason, int] = {}
        self.last_fault: Fault | None = None
        self._store = store
        self._records = Records(store, (owner, name), pattern, policy.retention)
        self._wake = wake
        self._news = news
        self._gone = gone
        self._chance = chance
        self._opening = trio.Lock()
        # Whether new events are counted, and whether those before them have been.
        self._hears = self._is_open = False
        self._closed = False
        self._members: deque[Subscriber] = deque()
        self._joined = self._changes = 0
        self._deliveries = Deliveries()
        # Entries that were published and are in the journal only.
        self._unread = 0
        # Of the journal, all up to here is in memory or over; and all up to there has
        # been heard of. Caught up, they are the same, and nothing is unread.
        self._read_to = self._heard_to = 0
        # What was lost since the last event that was taken in, and from where on: behind
        # that position.
        self._gap = self._gap_after = 0
        # Attempts up to here are counted in the file; and up to there some were made.
        self._begun = self._given = 0
        # Where the cursor was when it was written last.
        self._saved = 0
        self._counting = self._holds = False
        self._notes: dict[int, StoredDelivery] = {}
        # Dead letters that came back while it was being opened.
        self._early: list[Event] = []
        self._settling: dict[str, Unit] = {}
        self._retry_at = math.inf
        # Where one that is new begins, if nobody says otherwise.
        self._now = store.position

    @property
    def id(self) -> str:
        """As people name it."""
        return durable_id(self.owner, self.name)

    @property
    def key(self) -> Owned:
        """Whose it is, and its name there."""
        return self._records.key

    @property
    def cursor(self) -> int:
        """All up to this position is over."""
        lowest = self._deliveries.lowest
        return self._read_to if lowest is None else lowest - 1

    @property
    def _resume(self) -> int:
        """Where the next run is to begin: like the cursor, but in front of a gap.

        A gap is known in memory only, and one that its event has not told of when the
        process is killed must be found again.
        """
        lowest = self._deliveries.lowest
        if lowest is None:
            return self._gap_after if self._gap else self._read_to
        oldest = self._deliveries.find(lowest)
        return lowest - 1 if oldest is None else oldest.after

    # --- opening ---------------------------------------------------------------------------

    async def open(self, start: Start) -> None:
        """Find out how far it has come; one that is not there yet begins at `start`.

        Raises:
            RestoreError: its row may be among those that are damaged.
            StoreError: it cannot be read, or the new one not be kept.
        """
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._open(start)
            except BaseException:
                self._forget()
                raise

    def _forget(self) -> None:
        """It was not opened: whoever tries again begins with nothing."""
        self._hears = False
        self.published = self._unread = self._gap = self.gaps = 0
        self.dropped = {}
        self._deliveries = Deliveries()
        self._notes = {}
        self._early = []

    async def _open(self, start: Start) -> None:
        store = self._store
        # Who was here before may have left something on its way.
        with suppress(StoreError):
            await store.settled()
        row = await self._records.find() or await self._begin(start)
        if row.retention != self._records.retention:
            await self._write(self._records.row(row.cursor, row.begun))
        notes = await self._records.deliveries()
        self._read_to = self._saved = row.cursor
        self._begun = self._given = row.begun
        self._heard_to = max(store.position, row.cursor)
        self._hears = True
        for note in notes:
            self._recall(note)
        while self._early:
            self.retried(self._early.pop())
        await self._count_backlog()
        self._is_open = True
        self._wake(-math.inf)
        self.pump()

    async def _begin(self, start: Start) -> StoredSubscription:
        cursor = await start.position(self._store, self._now)
        events = (
            await last_events(self._store, cursor, self.pattern, self.policy.key)
            if start.last
            else []
        )
        row = self._records.row(cursor, cursor)
        await self._write(row, *(self._records.again(event) for event in events))
        return row

    async def _write(self, row: StoredSubscription, *notes: Write) -> None:
        """Have the file know it before anybody counts on it."""
        unit = self._records.hand_over([*self._records.saved(row), *notes])
        await self._store.wait(unit)

    def _recall(self, note: StoredDelivery) -> None:
        """One event of which the file knows something."""
        if note.event is None:
            # Without a sound one the event is delivered once more, never once less.
            if note.sound:
                self._notes[note.position] = note
            return
        self.published += 1
        if not note.sound:
            self._lose(Reason.DAMAGED, 1)
            return
        # Where the cursor has not passed it, the journal has it too.
        self._notes[note.position] = StoredDelivery(
            position=note.position, attempts=note.attempts, done=True
        )
        event = msgspec.json.decode(note.event, type=Event)
        self._admit(event, attempts=note.attempts, noted=note.attempts, again=True)

    async def _count_backlog(self) -> None:
        after, until = self._read_to, self._heard_to
        expired, found = await self._look_back(after, until)
        if expired:
            # Nobody counted what they were: each may have been one of ours.
            self.published += expired
            self._lose(Reason.EXPIRED, expired)
        self.published += found
        self._unread += found
        if not found:
            self._read_to = until

    async def _look_back(self, after: int, until: int) -> tuple[int, int]:
        """Entries that are deleted, and events that are there, behind `after`."""
        if after >= until:
            return 0, 0
        for _ in range(MOST_LOOKS):
            expired = await self._expired(after, until)
            found = await self._count_to(after + expired, until)
            # What is deleted meanwhile would be neither.
            if await self._expired(after, until) == expired:
                break
        return expired, found

    async def _expired(self, after: int, until: int) -> int:
        page = await read_page(self._store, after, until, 1, self.pattern)
        return _deleted(page, after, until)

    async def _count_to(self, after: int, until: int) -> int:
        found = 0
        while after < until:
            more, after = await self._store.read(
                partial(count_events, after=after, until=until, pattern=self.pattern)
            )
            found += more
        return found

    # --- events in ----------------------------------------------------------------------

    def hear(self, entries: Iterable[JournalEntry]) -> None:
        """What a commit has added to the journal."""
        if not self._hears or self._closed:
            return
        for entry in entries:
            is_next = self._is_caught_up
            self._heard_to = entry.position
            if entry.kind == "event" and matches(self.pattern, entry.topic):
                self.published += 1
                if not is_next or self._room <= 0:
                    self._unread += 1
                    continue
                self._take_in(entry)
            if is_next:
                self._read_to = entry.position
        if not self._is_caught_up and self._room > 0:
            self._wake(-math.inf)
        self.pump()
        if self._resume - self._saved >= SAVED_EVERY and not self._counting:
            self._save(self._begun)

    @property
    def _is_caught_up(self) -> bool:
        """Whether nothing is in the journal that is not in memory, or over."""
        # By position: how many there are to come a damaged topic can make wrong.
        return self._is_open and self._read_to >= self._heard_to

    @property
    def _room(self) -> int:
        return self.policy.capacity - len(self._deliveries)

    def _take_in(self, entry: JournalEntry) -> None:
        note = self._notes.pop(entry.position, None)
        if note is not None and note.done:
            self.delivered += 1
        elif entry.damaged:
            self._lose(Reason.DAMAGED, 1, after=entry.position - 1)
        else:
            event, after = event_of(entry), None
            if self._gap:
                event = replace(event, missed=self._gap)
                after, self._gap = self._gap_after, 0
            # Begun, and no word of what came of it: it was perhaps what killed us.
            before = 1 if entry.position <= self._begun else 0
            if note is not None:
                self._admit(
                    event, attempts=note.attempts, noted=note.attempts, after=after
                )
            else:
                self._admit(event, attempts=before, after=after)

    def _admit(
        self,
        event: Event,
        *,
        attempts: int,
        noted: int | None = None,
        again: bool = False,
        after: int | None = None,
    ) -> None:
        fault = None
        try:
            key = self._key_of(event)
        except Exception as error:  # noqa: BLE001 - one subscriber's bug must not end the others
            key, fault = unordered(event), Fault.capture(error, path=self.owner)
        entry = Entry(
            event, key, attempts=attempts, noted=noted, again=again, after=after
        )
        if fault is not None:
            self._note_fault(entry, fault)
            entry.hopeless = f"no key: {fault.summary()}"
        elif attempts >= self.policy.max_attempts:
            entry.hopeless = "attempts"
        self._deliveries.add(entry)

    def _key_of(self, event: Event) -> str:
        key = self.policy.key(event)
        # Events are kept by it: one that cannot be kept by is none.
        hash(key)
        return key

    def _lose(self, reason: Reason, events: int, after: int | None = None) -> None:
        """So many are lost, behind position `after`; None: behind all that was read."""
        self._changes += 1
        self.dropped[reason] = self.dropped.get(reason, 0) + events
        if not self._gap:
            self.gaps += 1
            self._gap_after = self._read_to if after is None else after
        self._gap += events
        self._news(
            "bus.lost", {"subscription": self.id, "reason": reason, "events": events}
        )

    async def _read_on(self) -> None:
        """Read the next page, if there is anything to read and room for it."""
        after, until, unread = self._read_to, self._heard_to, self._unread
        if self._is_caught_up or self._room <= 0:
            return
        page, behind = await self._next_page(after, until)
        is_cut = _deleted(page, after, until) > 0
        left = len(page.events) + behind
        if not (is_cut or page.scanned >= until):
            left = max(unread, len(page.events))
        self._correct(unread, left, Reason.EXPIRED if is_cut else Reason.DAMAGED)
        if not self._closed:
            self._take_page(page)

    async def _next_page(self, after: int, until: int) -> tuple[EventPage, int]:
        """The next events, and how many there are behind them if that has to be counted.

        The journal may be cut off at its beginning: what was there is gone, and the first
        of the page tells of it. Of what goes while it is counted what is behind the page
        the page must not tell, so that it is read again.
        """
        for _ in range(MOST_LOOKS):
            page = await read_page(self._store, after, until, self._room, self.pattern)
            if not _deleted(page, after, until) and page.scanned < until:
                return page, 0
            behind = await self._count_to(page.scanned, until)
            if not await self._expired(page.scanned, until):
                break
        return page, behind

    def _correct(self, unread: int, left: int, reason: Reason) -> None:
        """So many were believed to be unread, and so many there are.

        Without a hole at the beginning they differ only when a topic is damaged, by which
        an event is known as ours. Nobody may wait for one that will never be found.
        """
        self._unread += left - unread
        self.published += max(0, left - unread)
        if left < unread:
            self._lose(reason, unread - left)

    def _take_page(self, page: EventPage) -> None:
        for entry in page.events:
            self._unread -= 1
            self._take_in(entry)
        self._read_to = max(self._read_to, page.scanned)
        if not self._is_caught_up:
            self._wake(-math.inf)

    # --- what the bus's task does ------------------------------------------------------

    @property
    def due(self) -> float:
        """When `advance` has something to do, in the clock's seconds."""
        return min(self._deliveries.due, self._retry_at)

    async def advance(self) -> None:
        """Do what is due: leases that have run out, events to be read, what failed."""
        if not self._delivers:
            await trio.lowlevel.checkpoint()
            return
        now = trio.current_time()
        for entry in self._deliveries.tick(now):
            self.fail(entry, "lease_expired")
        if self._retry_at <= now:
            self._retry_at = math.inf
        try:
            await self._read_on()
        except StoreError:
            # The store tells of it; here it is only tried again.
            self._retry_later()
        self._let_go()
        self.pump()

    def _retry_later(self) -> None:
        self._retry_at = min(self._retry_at, trio.current_time() + RETRY_SECONDS)
        self._wake(self._retry_at)

    def _read_soon(self) -> None:
        """There is room again: half of it at once, less when it has been for a while.

        What is stuck in memory may be more than half, and must not hold up all the rest.
        """
        if self._room >= self.policy.capacity // 2:
            self._wake(-math.inf)
        else:
            self._retry_later()

    # --- members -----------------------------------------------------------------------

    def join(
        self,
        *,
        lease: float,
        sink: Callable[[LeasedEvent], None] | None = None,
        wants: Callable[[], bool] = lambda: True,
    ) -> Subscriber:
        """One more who takes its events; those leased to others stay theirs."""
        self._joined += 1
        member = Subscriber(self, self._joined, lease, sink, wants)
        self._members.append(member)
        return member

    def has(self, member: Subscriber) -> bool:
        """Whether it has joined and not left."""
        return member in self._members

    def leave(self, member: Subscriber, failed: str) -> None:
        """See `Subscriber.leave`."""
        if not self.has(member):
            return
        self._changes += 1
        self._members.remove(member)
        for entry in self._deliveries.held_by(member.id):
            if failed:
                self.fail(entry, failed)
            else:
                self._deliveries.give_back(entry)
        if self._members:
            self.pump()
        else:
            self._gone(self)

    def return_all(self, member: Subscriber) -> None:
        """See `Subscriber.return_all`."""
        for entry in self._deliveries.held_by(member.id):
            self._deliveries.give_back(entry)

    def close(self) -> None:
        """Deliver no more, and note how far it has come."""
        if self._closed:
            return
        self._closed = True
        for member in tuple(self._members):
            member.leave()
        if self._is_open:
            begun = min(self._begun, max(self._given, self.cursor))
            # What was counted for an attempt that nobody made.
            self._save(begun, *self._uncounted(begun))

    def _uncounted(self, begun: int) -> Iterator[Write]:
        for one in self._deliveries:
            counted = int(one.position <= begun) if one.noted is None else one.noted
            if counted > one.attempts and one.stage is not Stage.SETTLING:
                yield self._records.attempted(one, one.attempts)

    # --- events out ----------------------------------------------------------------------

    def pump(self) -> None:
        """Hand out what may be delivered, as far as members want it."""
        while self._delivers and (entry := self._deliveries.first()) is not None:
            if entry.hopeless:
                self._bury(entry, entry.hopeless)
            elif not self._is_counted(entry):
                if any(one.wants for one in self._members):
                    self._count(entry)
                return
            elif (member := self._next_member()) is not None:
                self._give(entry, member)
            else:
                return

    @property
    def _delivers(self) -> bool:
        return self._is_open and not self._closed

    def _next_member(self) -> Subscriber | None:
        """The next that wants an event; each in turn."""
        for _ in range(len(self._members)):
            member = self._members[0]
            self._members.rotate(-1)
            if member.wants:
                return member
        return None

    def _give(self, entry: Entry, member: Subscriber) -> None:
        self._changes += 1
        self.redelivered += entry.attempts > 0
        self._deliveries.lease(entry, member.id, trio.current_time() + member.lease)
        entry.builds_on = self._settling.get(entry.key)
        self._given = max(self._given, entry.position)
        if entry.until < math.inf:
            self._wake(entry.until)
        member.take(LeasedEvent(self, entry))

    def _is_counted(self, entry: Entry) -> bool:
        """Whether the file knows of the attempt to come."""
        if entry.noted is not None:
            return entry.noted > entry.attempts
        return entry.attempts == 0 and entry.position <= self._begun

    def _count(self, entry: Entry) -> None:
        if self._counting:
            return
        if self._counts_together and entry.attempts == 0 and entry.noted is None:
            begun = self._deliveries.ahead(entry.position, COUNTED_TOGETHER)
            unit = self._save(begun)
            counted: Callable[[], None] = partial(self._begun_to, begun)
        else:
            attempts = entry.attempts + 1
            unit = self._try_hand_over([self._records.attempted(entry, attempts)])
            counted = partial(self._noted, entry, attempts)
        if unit is None:
            return
        self._counting = True
        unit.release.append(partial(self._counted, counted))

    @property
    def _counts_together(self) -> bool:
        """Whether an attempt may be counted that is then not made, by a kill.

        Not if there is only one: the event would be given up and was never tried.
        """
        return self.policy.max_attempts > 1

    def _noted(self, entry: Entry, attempts: int) -> None:
        entry.noted = attempts

    def _begun_to(self, position: int) -> None:
        self._begun = max(self._begun, position)

    def _counted(self, counted: Callable[[], None], error: StoreError | None) -> None:
        self._counting = False
        if error is None:
            counted()
            self._let_go()
            self.pump()
        else:
            self._retry_later()

    # --- what became of it -----------------------------------------------------------------

    async def ack(self, entry: Entry) -> None:
        """See `LeasedEvent.ack`."""
        unit = self._records.unit()
        self.settle(entry, unit)
        try:
            self._store.hand_over(unit)
        except StoreError:
            self._unsettle(entry, unit)
            self._deliveries.give_back(entry)
            raise
        self.pump()
        await self._store.wait(unit)

    def settle(self, entry: Entry, unit: Unit) -> None:
        """See `LeasedEvent.settle`."""
        if unit.writes is None:
            unit.writes = []
        if entry.tells_of_gap and entry.position == self._deliveries.lowest:
            # With it the gap is over: the next run is not to find it again.
            row = self._records.row(entry.position, max(self._begun, entry.position))
            unit.writes += self._records.saved(row)
        # Behind the row, which forgets what it has passed: an older one may follow.
        unit.writes.append(self._records.done(entry))
        self._settle(entry, unit, self._delivered)

    def _settle(self, entry: Entry, unit: Unit, kept: Callable[[Entry], None]) -> None:
        """It is over when `unit` is committed, and its key's next may come at once."""
        # What is done for one of a key builds on what was done for the one before, also
        # when that has failed since, and its event is ahead of this one again.
        for before in (entry.builds_on, self._settling.get(entry.key)):
            if before is not None and before is not unit and before not in unit.needs:
                unit.needs += (before,)
        entry.builds_on = None
        self._settling[entry.key] = unit
        self._deliveries.settle(entry)
        unit.release.append(partial(self._decided, entry, unit, kept, unit.needs))

    def _unsettle(self, entry: Entry, unit: Unit) -> None:
        """Nobody took `unit`."""
        unit.release.clear()
        self._settling.pop(entry.key, None)

    def _decided(
        self,
        entry: Entry,
        unit: Unit,
        kept: Callable[[Entry], None],
        needs: tuple[Unit, ...],
        error: StoreError | None,
    ) -> None:
        if self._settling.get(entry.key) is unit:
            del self._settling[entry.key]
        if error is None:
            self._deliveries.finish(entry)
            kept(entry)
            self._let_go()
            if not self._is_caught_up:
                self._read_soon()
        elif kept != self._delivered or (
            self._store.is_healthy and not any(one.error for one in needs)
        ):
            # Not the disk, and not what it builds on: what was done cannot be stored, and
            # will not be next time. And what has become a dead letter is not tried again.
            if entry.attempts >= self.policy.max_attempts and not entry.hopeless:
                entry.hopeless = str(error)
            self._wait(entry, max(self._backoff(entry), RETRY_SECONDS))
        else:
            # That was no attempt.
            self._deliveries.give_back(entry)
            self._retry_later()
        self.pump()

    def _delivered(self, _: Entry) -> None:
        self.delivered += 1

    def fail(self, entry: Entry, why: Fault | str, delay: float | None = None) -> None:
        """See `LeasedEvent.nack`."""
        if delay is not None:
            check_delay(delay)
        reason = why.summary() if isinstance(why, Fault) else writable(why or "failed")
        if isinstance(why, Fault):
            self._note_fault(entry, why)
        if entry.attempts >= self.policy.max_attempts:
            self._bury(entry, reason)
        else:
            self._wait(entry, self._backoff(entry) if delay is None else delay)
        self.pump()

    def _wait(self, entry: Entry, seconds: float) -> None:
        self._changes += 1
        self._deliveries.wait(entry, trio.current_time() + seconds)
        self._wake(entry.until)

    def _backoff(self, entry: Entry) -> float:
        return self.policy.backoff.delay(max(1, entry.attempts), self._chance)

    def give_back(self, entry: Entry) -> None:
        """See `LeasedEvent.give_back`."""
        self._deliveries.give_back(entry)
        self.pump()

    def _bury(self, entry: Entry, reason: str) -> None:
        """Make a dead letter of it, in one commit; if that fails it waits on."""
        entry.hopeless = reason
        unit = self._records.unit(self._records.buried(entry, reason))
        self._settle(entry, unit, partial(self._buried, reason))
        try:
            self._store.hand_over(unit)
        except StoreError:
            # It is closing: the event stays where it is, for the next run.
            self._unsettle(entry, unit)
            self._wait(entry, RETRY_SECONDS)

    def _buried(self, reason: str, entry: Entry) -> None:
        self._changes += 1
        self.dropped[Reason.DEAD_LETTER] = self.dropped.get(Reason.DEAD_LETTER, 0) + 1
        self._news(
            "bus.dead_letter",
            {
                "subscription": self.id,
                "topic": entry.event.topic,
                "position": entry.position,
                "attempts": entry.attempts,
                "reason": reason,
            },
        )

    def retried(self, event: Event) -> None:
        """A dead letter was taken out, to be delivered again: its row is in the file."""
        if not self._hears:
            # Who opens it may have read the rows already.
            self._early.append(event)
        elif not self._closed and not self._deliveries.find(event.position):
            self.published += 1
            self._admit(event, attempts=0, noted=0, again=True)
            self.pump()

    def _note_fault(self, entry: Entry, fault: Fault) -> None:
        self.last_fault = fault
        self._news(
            "bus.failed",
            {
                "subscription": self.id,
                "event": shown(entry.event),
                "attempt": entry.attempts,
                "fault": fault,
            },
        )

    # --- the file ----------------------------------------------------------------------

    def _save(self, begun: int, *notes: Write) -> Unit | None:
        """Note how far it is, and up to where events were begun; None: it is closing."""
        self._saved = self._resume
        row = self._records.row(self._saved, begun)
        return self._try_hand_over([*self._records.saved(row), *notes])

    def hold(self, holds: bool) -> None:
        """Whether the journal is beyond its limits for what is behind the cursor."""
        self._changes += holds is not self._holds
        self._holds = holds
        self._let_go()

    def _let_go(self) -> None:
        """Note at once how far it has come, if others wait for it."""
        # While attempts are counted the file is to learn of them first.
        is_awaited = self._holds and self._delivers and not self._counting
        if is_awaited and self._resume > self._saved:
            self._save(self._begun)

    def _try_hand_over(self, writes: list[Write]) -> Unit | None:
        try:
            return self._records.hand_over(writes)
        except StoreError:
            return None

    # --- for those who look ------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Events that are neither delivered nor dropped yet."""
        return len(self._deliveries) + self._unread

    @property
    def activity(self) -> int:
        """A number that only grows, and has when anything in `statistics` changed."""
        return self._changes + self.published + self.delivered

    def statistics(self) -> DurableStatistics:
        """How it stands."""
        return DurableStatistics(
            id=self.id,
            pattern=self.pattern,
            owner=self.owner,
            name=self.name,
            capacity=self.policy.capacity,
            members=len(self._members),
            cursor=self.cursor,
            lag=max(0, self._store.position - self.cursor),
            published=self.published,
            delivered=self.delivered,
            dropped=sum(self.dropped.values()),
            pending=self.pending,
            leased=self._deliveries.at(Stage.LEASED),
            waiting=self._deliveries.at(Stage.WAITING),
            unread=self._unread,
            redelivered=self.redelivered,
            dropped_by=dict(self.dropped),
            retention=self._records.retention,
            holds=self._holds,
            gaps=self.gaps,
            last_fault=self.last_fault.summary() if self.last_fault else "",
        )


def _deleted(page: EventPage, after: int, until: int) -> int:
    """Entries that are gone of those with which it was to begin."""
    return (page.first or until + 1) - after - 1
