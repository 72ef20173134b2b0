"""What was published or reported, read from the journal at the pace of who reads it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from .start import PAGE_EVENTS, Start, event_of, last_events, read_page
from .topic import check_pattern

if TYPE_CHECKING:
    from treewarden.store import EntryKind, EventPage, JournalEntry, Store

    from .event import Event


class Replay:
    """Events of one pattern from the journal on, one task's; made by `Bus.replay`.

    It holds no more than a page, and nobody up: what the journal has to delete before it
    is read is `missed`, and of that every entry counts, for nobody knows what it was.
    """

    __slots__ = (
        "_begun",
        "_busy",
        "_events",
        "_follow",
        "_kind",
        "_missed",
        "_now",
        "_pattern",
        "_read_to",
        "_start",
        "_store",
    )

    def __init__(
        self,
        store: Store,
        pattern: str,
        start: Start,
        *,
        follow: bool,
        kind: EntryKind = "event",
    ) -> None:
        check_pattern(pattern)
        self._kind = kind
        self._store = store
        self._pattern = pattern
        self._start = start
        self._follow = follow
        self._begun = self._busy = False
        self._events: deque[Event] = deque()
        self._now = store.position
        self._read_to = 0
        self._missed = 0

    def __aiter__(self) -> Replay:
        """A replay is its own iterator."""
        return self

    async def __anext__(self) -> Event:
        """The next event. Cancelled, it was not taken.

        Raises:
            StoreError: the journal cannot be read; try again.
            trio.BusyResourceError: another task waits for it already.
        """
        if self._busy:
            raise trio.BusyResourceError("another task reads this replay already")
        self._busy = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._events:
                await self._fill()
            return self._events.popleft()
        finally:
            self._busy = False

    async def _fill(self) -> None:
        if not self._begun:
            await self._begin()
        elif self._read_to < self._store.position:
            await self._read_on()
        elif self._follow:
            await self._wait()
        else:
            raise StopAsyncIteration

    async def _begin(self) -> None:
        position = await self._start.position(self._store, self._now)
        events = (
            await last_events(self._store, position, self._pattern, kind=self._kind)
            if self._start.last
            else []
        )
        self._read_to, self._begun = position, True
        self._events.extend(events)

    async def _read_on(self) -> None:
        after, until = self._read_to, self._store.position
        page = await read_page(
            self._store, after, until, PAGE_EVENTS, self._pattern, self._kind
        )
        self._take(page, after, until)

    def _take(self, page: EventPage, after: int, until: int) -> None:
        if after:
            # From the very beginning there is no gap: it is where the journal begins.
            self._missed += (page.first or until + 1) - after - 1
        for entry in page.events:
            if entry.damaged:
                self._missed += 1
                continue
            event = event_of(entry)
            if self._missed:
                event = replace(event, missed=self._missed)
                self._missed = 0
            self._events.append(event)
        self._read_to = page.scanned

    async def _wait(self) -> None:
        """Until the journal has grown."""
        grown = trio.Event()

        def hear(_: list[JournalEntry]) -> None:
            grown.set()

        unfollow = self._store.follow(hear)
        try:
            await grown.wait()
        finally:
            unfollow()
