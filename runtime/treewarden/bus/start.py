"""Where somebody who comes late begins to read the journal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from treewarden.resilience import check_count
from treewarden.store import find_position, load_events

from .event import Event, by_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from treewarden.store import EntryKind, EventPage, JournalEntry, Store

PAGE_EVENTS: Final = 1000
"""Events that are read at a time."""
LAST_KEYS: Final = 10_000
"""Keys of which the last event is kept, those whose event is oldest are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first event that a replay, or a durable subscription that is new, delivers.

    By default the next one that is published. `after`: the first behind that position, 0
    for all that is kept; `at_ns`: the first of that wall time; `last`: of each key the
    last that there is, then those to come.
    """

    after: int | None = None
    at_ns: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        """Refuse two beginnings."""
        if self.after is not None:
            check_count("after", self.after, 0)
        if self.at_ns is not None:
            check_count("at_ns", self.at_ns, 0)
        if not isinstance(self.last, bool):
            raise TypeError(f"last must be a bool, not {self.last!r}")
        if (self.after is not None) + (self.at_ns is not None) + self.last > 1:
            raise ValueError("a Start is one of after, at_ns and last")

    async def position(self, store: Store, now: int) -> int:
        """The position behind which to begin; `now` when it does not say."""
        end = store.position if self.last else now
        if self.after is not None:
            return min(self.after, store.position)
        if self.at_ns is not None:
            found = await store.read(partial(find_position, at_ns=self.at_ns))
            return end if found is None else found - 1
        return end


def event_of(entry: JournalEntry) -> Event:
    """A journal entry as subscribers get it."""
    return Event(
        topic=entry.topic,
        payload=msgspec.json.decode(entry.payload),
        position=entry.position,
        at_ns=entry.at_ns,
        source=entry.source,
        trace=entry.trace,
    )


async def read_page(
    store: Store,
    after: int,
    until: int,
    limit: int,
    pattern: str,
    kind: EntryKind = "event",
) -> EventPage:
    """The next events that match, see `load_events`."""
    return await store.read(
        partial(
            load_events,
            after=after,
            until=until,
            limit=limit,
            pattern=pattern,
            kind=kind,
        )
    )


async def last_events(
    store: Store,
    until: int,
    pattern: str,
    key: Callable[[Event], str] = by_topic,
    kind: EntryKind = "event",
) -> list[Event]:
    """Of each key the last event up to a position, in the order of positions."""
    found: dict[str, Event] = {}
    async for page in pages(store, 0, until, pattern, kind):
        for entry in page.events:
            if entry.damaged:
                continue
            event = event_of(entry)
            name = key(event)
            # At the end again: the dict is in the order of positions.
            found.pop(name, None)
            found[name] = event
            if len(found) > LAST_KEYS:
                del found[next(iter(found))]
    return list(found.values())


async def pages(
    store: Store, after: int, until: int, pattern: str, kind: EntryKind = "event"
) -> AsyncIterator[EventPage]:
    """All that matches behind `after` and up to `until`, page by page."""
    while after < until:
        page = await read_page(store, after, until, PAGE_EVENTS, pattern, kind)
        yield page
        after = page.scanned
