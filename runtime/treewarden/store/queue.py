"""A durable queue that belongs to an agent: one row an item, of any length.

What a handler does is staged and commits with the handler's unit. A look at the queue sees,
from the newest to the oldest layer, what this handler staged, what earlier handlers left
uncommitted, and the file. Of the file only a window is in memory:

- `_known`: rows of the file whose content we know. All free rows up to number `_last` are
  in it (or hidden by a newer layer), and when `_exhausted` there are none beyond.
- Rows that wait for their time are read when it comes: all of them up to `_cursor` have
  been, and the next is due at `_next_due`.
- `_order` and `_timers` are heaps of hints; a hint counts only if the row it names is
  still as the hint says.

So a put or a take costs the same in a queue of ten and of ten million. What makes the
window sound: numbers only rise, one agent writes the queue, and its units commit in order;
so a row that becomes free in the file has a number above `_last`, or its time is up.
"""

from __future__ import annotations

import heapq
import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import trio

from treewarden.ids import new_id
from treewarden.injection import places

from .checksums import DAMAGED, as_stored, checksum, shown, whole
from .items import as_key
from .kept import Kept

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping

    from .store import Store
    from .unit import Unit, Write

T = TypeVar("T")

PAGE_ROWS: Final = 256
"""Rows read ahead at a time: 0.3 ms, so that the hop to a thread is paid once for many."""
DUE_ROWS: Final = 256
"""Of the rows whose time is up, so many are read at a time."""
PAGE_BYTES: Final = 1 << 20
"""Bytes read ahead at a time, roughly."""
KNOWN_ROWS: Final = 1024
"""Rows remembered after their commit, which saves reading them back."""

_BY_KEY = (
    "SELECT key, seq, payload, attempts, free_at, crc FROM queue_item"
    " WHERE path = ? AND name = ? AND key = ? LIMIT ?"
)
_FREE = (
    "SELECT key, seq, payload, attempts, free_at, crc FROM queue_item"
    " WHERE path = ? AND name = ? AND free_at IS NULL AND seq > ?"
    " ORDER BY seq LIMIT ?"
)
_DUE = (
    "SELECT key, seq, payload, attempts, free_at, crc FROM queue_item"
    " WHERE path = ? AND name = ? AND free_at IS NOT NULL"
    " AND (free_at, seq) > (?, ?) AND free_at <= ? ORDER BY free_at, seq LIMIT ?"
)
_NEXT_DUE = (
    "SELECT min(free_at) FROM queue_item WHERE path = ? AND name = ? AND free_at > ?"
)
_INSERT = (
    "INSERT INTO queue_item (seq, payload, attempts, free_at, crc, path, name, key)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE queue_item SET seq = ?, payload = ?, attempts = ?, free_at = ?, crc = ?"
    " WHERE path = ? AND name = ? AND key = ?"
)
_DELETE = "DELETE FROM queue_item WHERE path = ? AND name = ? AND key = ?"


class _Row(NamedTuple):
    """An item as stored. `free_at` (the queue's clock) is None when it may be taken.

    One that is not `sound` had a checksum that did not match when it was read.
    """

    key: str
    seq: int
    payload: bytes
    attempts: int
    free_at: float | None
    sound: bool = True


class _Page(NamedTuple):
    """What one reading of the file brought."""

    free: list[_Row]
    exhausted: bool
    due: list[_Row]
    cursor: tuple[float, float]
    more_due: bool
    next_due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Generic[T]):
    """An item of a queue; `attempts` counts how often it was taken, this time included."""

    queue: DurableQueue[T]
    key: str
    value: T
    attempts: int

    async def ack(self) -> bool:
        """It is done: remove it. False if it is not in the queue any more."""
        return await self.queue.ack(self.key)

    async def nack(self, delay: float = 0.0) -> bool:
        """It is not done: to the back, to be taken again after `delay` seconds."""
        return await self.queue.nack(self.key, delay)


class DurableQueue(Kept[T, _Row]):
    """Items in the order of their arrival, leased to whoever takes them.

    Declared on an agent as an annotation, `pending: DurableQueue[Url]`; the agent makes
    it. A taken item stays in the queue until it is acknowledged by key, in the same
    handler or in a later message. Leases and delays count in the clock's seconds and hold
    within one run of the store: after it every item is free again.

    All changes belong to the running handler: they commit with it, or not at all.
    """

    kind = "queue"
    _count_query = "SELECT count(*) FROM queue_item WHERE path = ? AND name = ?"
    _remedy = "ack it to go on"

    def __init__(
        self,
        store: Store,
        path: str,
        name: str,
        item_type: type[T],
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        super().__init__(store, path, name, item_type)
        self._clock = clock
        self._hidden: dict[str, _Row] = {}  # known rows under the staging
        self._forget_window()

    # --- what users call --------------------------------------------------------------

    async def put(
        self, value: T, *, key: str | None = None, delay: float = 0.0
    ) -> bool:
        """Add an item at the back; False, and nothing added, when `key` is in the queue.

        It can be taken after `delay` seconds, or when this run has ended: the next one finds
        it free, as it finds what was leased. Without a key it gets one of its own.

        Raises:
            StateNotEncodable: the value cannot be stored and read back as the item type.
        """
        free_at = self._free_at(delay)
        place = new_id() if key is None else as_key(key)
        payload = self._items.encode(value, place)
        if key is None:
            await self.open()
        elif await self._find(place) is not None:
            return False
        row = _Row(place, self._store.next_sequence(), payload, 0, free_at)
        self._stage(place, row, None)
        return True

    async def take(self, *, lease: float = 60.0) -> Item[T] | None:
        """The oldest free item, leased for `lease` seconds, or None when there is none.

        When the lease runs out before it is acknowledged the item is free again, in its
        old place. When more than `DUE_ROWS` become free at once, they come in the order
        of their times.

        Raises:
            RestoreError: the item is damaged or is not of the item type.
        """
        if not lease > 0:
            raise ValueError(f"lease must be > 0 seconds, not {lease}")
        row = next(iter(await self._oldest(1)), None)
        if row is None:
            return None
        item = self._item(row._replace(attempts=row.attempts + 1))
        free_at = self._clock() + lease
        taken = row._replace(attempts=item.attempts, free_at=free_at)
        self._stage(row.key, taken, row)
        return item

    async def peek(self, limit: int = 1) -> list[Item[T]]:
        """The free items that `take` would give next, without taking them.

        At most `PAGE_ROWS`.
        """
        if not 0 < limit <= PAGE_ROWS:
            raise ValueError(f"limit must be between 1 and {PAGE_ROWS}, not {limit}")
        return [self._item(row) for row in await self._oldest(limit)]

    async def ack(self, key: str) -> bool:
        """Remove an item, taken or not; False if there is none of this key."""
        key = as_key(key)
        row = await self._find(key)
        if row is None:
            return False
        self._stage(key, None, row)
        return True

    async def nack(self, key: str, delay: float = 0.0) -> bool:
        """Put an item at the back, to be taken after `delay` seconds; False if unknown.

        Its place is at the back as of now, not as of the delay's end. A delay ends with the
        run, as with `put`.
        """
        free_at, key = self._free_at(delay), as_key(key)
        row = await self._find(key)
        if row is None:
            return False
        seq = self._store.next_sequence()
        self._stage(key, row._replace(seq=seq, free_at=free_at), row)
        return True

    # --- what the agent drives --------------------------------------------------------

    def seal(self, unit: Unit) -> None:
        """Move what the handler staged into its unit."""
        if self.dirty:
            self._layers.seal(unit, self._writes())
            self._hidden = {}

    def discard(self) -> None:
        """Forget what the handler staged."""
        staged, hidden = self._layers.staged, self._hidden
        self._layers.discard()
        self._hidden = {}
        self._known.update(hidden)
        for key in staged:
            row = self._view(key)
            if row is not None:
                self._hint(row)

    def reset(self) -> None:
        """Forget everything that is not committed."""
        self._layers.reset()
        self._hidden = {}
        self._forget_window()

    # --- layers -----------------------------------------------------------------------

    def settled(self, rows: Mapping[str, _Row | None]) -> None:
        """These rows are in the file now."""
        for key, row in rows.items():
            if row is None:
                continue
            if key in self._layers.staged:
                self._hidden[key] = row
            else:
                self._remember(row)

    def outdated(self) -> None:
        """The file has changed in rows that were forgotten."""
        self._hidden.clear()
        self._forget_window()

    def _view(self, key: str) -> _Row | None:
        """The row as this handler sees it, as far as it is in memory."""
        return self._layers.get(key) if key in self._layers else self._known.get(key)

    def _is_in_memory(self, key: str) -> bool:
        return key in self._layers or key in self._known

    def _stage(self, key: str, row: _Row | None, before: _Row | None) -> None:
        """What handlers change, they change here; `before` is what they saw."""
        if self._layers.stage(key, row, there=before is not None):
            hidden = self._known.pop(key, None)
            if hidden is not None:
                self._hidden[key] = hidden
        self._due.discard(key)
        if row is not None:
            self._hint(row)

    def _writes(self) -> Iterator[Write]:
        layers = self._layers
        for key, row in layers.staged.items():
            place = (self.path, self.name, key)
            if row is None:
                if layers.was_there[key]:
                    yield _DELETE, place
                continue
            text = row.payload.decode("utf-8", "replace")
            crc = _checksum(row, self.path, self.name) if row.sound else DAMAGED
            values = (row.seq, text, row.attempts, row.free_at, crc, *place)
            yield _UPDATE if layers.was_there[key] else _INSERT, values

    # --- the window -------------------------------------------------------------------

    def _forget_window(self) -> None:
        self._known: dict[str, _Row] = {}
        self._last = 0
        self._exhausted = False
        self._cursor = (-math.inf, 0.0)
        self._next_due = -math.inf
        self._more_due = False
        self._due: set[str] = set()  # rows of the last reading whose time was up
        self._rebuild_hints()

    def _remember(self, row: _Row) -> None:
        """A row has just come into the file; keep the window's promises about it."""
        room = len(self._known) < KNOWN_ROWS
        if row.free_at is None:
            if self._exhausted and (room or row.seq <= self._last):
                self._last = max(self._last, row.seq)
            elif row.seq > self._last:
                self._exhausted = False
                return
        elif (row.free_at, row.seq) > self._cursor and not room:
            self._next_due = min(self._next_due, row.free_at)
            return
        self._known[row.key] = row
        self._hint(row)

    def _hint(self, row: _Row) -> None:
        if row.free_at is None:
            heapq.heappush(self._order, (row.seq, row.key))
        else:
            heapq.heappush(self._timers, (row.free_at, row.seq, row.key))
        hints = len(self._order) + len(self._timers)
        layers = self._layers
        rows = len(self._known) + len(layers.uncommitted) + len(layers.staged)
        if hints > 2 * rows + PAGE_ROWS:
            self._rebuild_hints()

    def _rebuild_hints(self) -> None:
        rows = list(self._rows())
        self._order = [(row.seq, row.key) for row in rows if row.free_at is None]
        self._timers = [
            (row.free_at, row.seq, row.key) for row in rows if row.free_at is not None
        ]
        heapq.heapify(self._order)
        heapq.heapify(self._timers)

    def _rows(self) -> Iterator[_Row]:
        layers = self._layers
        seen = {**self._known, **layers.uncommitted, **layers.staged}
        return (row for row in seen.values() if row is not None)

    def _first(self, limit: int) -> list[_Row]:
        """The oldest free rows in memory, at most `limit`."""
        now = self._clock()
        if limit > 1:
            free = (row for row in self._rows() if _is_free(row, now))
            return heapq.nsmallest(limit, free, key=lambda row: row.seq)
        while self._timers and self._timers[0][0] <= now:
            _, seq, key = heapq.heappop(self._timers)
            heapq.heappush(self._order, (seq, key))
        while self._order:
            seq, key = self._order[0]
            row = self._view(key)
            if row is not None and row.seq == seq and _is_free(row, now):
                return [row]
            heapq.heappop(self._order)
        return []

    def _must_read(self, rows: list[_Row], limit: int) -> bool:
        """Whether the file may have an older free row than the last of `rows`."""
        if not self._exhausted and (len(rows) < limit or rows[-1].seq > self._last):
            return True
        if self._more_due and (not self._due or len(rows) < limit):
            return True
        return self._clock() >= self._next_due

    # --- reading the file -------------------------------------------------------------

    async def _oldest(self, limit: int) -> list[_Row]:
        await self.open()
        while self._must_read(rows := self._first(limit), limit):
            await self._read_page(limit)
        return rows

    async def _read_page(self, limit: int) -> None:
        async with self._reading:
            if not self._must_read(self._first(limit), limit):
                return
            epoch = self._layers.epoch
            with self._layers.holding():
                page = await self._store.read(partial(self._page_in, now=self._clock()))
                if epoch == self._layers.epoch:
                    self._take_in(page)

    def _take_in(self, page: _Page) -> None:
        for row in (*page.free, *page.due):
            if row.key in self._layers.uncommitted:
                continue
            if row.key in self._layers.staged:
                self._hidden[row.key] = row
                continue
            self._known[row.key] = row
            self._hint(row)
        last = _last(page.free)
        # A page that does not lead on is the last one, or it would be read for ever.
        self._exhausted = page.exhausted or last <= self._last
        self._last = max(last, self._last)
        self._cursor = page.cursor
        self._more_due = page.more_due
        self._next_due = page.next_due
        self._due = {row.key for row in page.due if row.key in self._known}

    def _page_in(self, connection: sqlite3.Connection, now: float) -> _Page:
        """Read on; runs in another thread while `_reading` is held."""
        place = (self.path, self.name)
        above = (*place, self._last, PAGE_ROWS)
        until = (*place, *self._cursor, now, DUE_ROWS)
        with _snapshot(connection):
            free, exhausted = _fetch(connection, _FREE, above)
            due, all_due = _fetch(connection, _DUE, until)
            (next_due,) = connection.execute(_NEXT_DUE, (*place, now)).fetchone()
        last_due = due[-1] if due else None
        unread = last_due is not None and not all_due
        return _Page(
            free=free,
            exhausted=exhausted,
            due=due,
            cursor=(last_due.free_at or 0.0, last_due.seq)
            if last_due is not None and unread
            else (now, math.inf),
            more_due=unread,
            next_due=math.inf
            if unread or not isinstance(next_due, float)
            else next_due,
        )

    async def _find(self, key: str) -> _Row | None:
        """The row of this key as the handler sees it, from the file if need be."""
        await self.open()
        if self._is_in_memory(key):
            return self._view(key)
        async with self._reading:
            if self._is_in_memory(key):
                return self._view(key)
            row = await self._store.read(partial(self._one_in, key=key))
        if self._is_in_memory(key):
            return self._view(key)
        return row

    def _one_in(self, connection: sqlite3.Connection, key: str) -> _Row | None:
        rows, _ = _fetch(connection, _BY_KEY, (self.path, self.name, key, 1))
        return rows[0] if rows else None

    # --- values -----------------------------------------------------------------------

    def _free_at(self, delay: float) -> float | None:
        if not delay >= 0:
            raise ValueError(f"delay must be >= 0 seconds, not {delay}")
        return self._clock() + delay if delay else None

    def _item(self, row: _Row) -> Item[T]:
        value = self._items.decode(row.payload, row.key, sound=row.sound)
        return Item(queue=self, key=row.key, value=value, attempts=row.attempts)


def _is_free(row: _Row, now: float) -> bool:
    return row.free_at is None or row.free_at <= now


def _last(rows: list[_Row]) -> int:
    """The number to go on behind: of the last sound row, or the largest of damaged ones."""
    for row in reversed(rows):
        if row.sound:
            return row.seq
    return max((row.seq for row in rows), default=0)


def _checksum(row: _Row, path: str, name: str) -> int:
    # As the file will have it: a whole number comes back as a float.
    free_at = float(row.free_at) if isinstance(row.free_at, int) else row.free_at
    return checksum(row.payload, path, name, row.key, row.seq, row.attempts, free_at)


def _unsound(row: _Row) -> _Row:
    """A damaged row, as far as it can be worked with: its columns may be anything."""
    return row._replace(
        key=shown(row.key),
        seq=whole(row.seq),
        attempts=whole(row.attempts),
        free_at=row.free_at if isinstance(row.free_at, float) else None,
        sound=False,
    )


def _fetch(
    connection: sqlite3.Connection, query: str, values: tuple[Any, ...]
) -> tuple[list[_Row], bool]:
    """Rows up to a page's size, and whether these are all.

    Of `values` the first two are the queue's path and name, and the limit comes last.
    """
    places.QUEUE_PAGE.reach()
    path, name = values[:2]
    rows: list[_Row] = []
    size = 0
    for key, seq, text, attempts, free_at, crc in connection.execute(query, values):
        row = _Row(key, seq, as_stored(text), attempts, free_at)
        rows.append(row if crc == _checksum(row, path, name) else _unsound(row))
        size += len(row.payload)
        if size > PAGE_BYTES:
            return rows, False
    return rows, len(rows) < values[-1]


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several questions see the same state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")
