"""A durable map that belongs to an agent: one row an item, of any size.

What a handler does is staged and commits with the handler's unit. A look at the map sees,
from the newest to the oldest layer, what this handler staged, what earlier handlers left
uncommitted, and the file (`layers`). Of the file, the rows looked at last are remembered,
also that there was none, so that a hot key costs no thread; they are what the file has,
because one agent alone writes the map and hears of each of its commits.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from heapq import merge
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast, overload

import trio

from treewarden.errors import StoreError
from treewarden.injection import places

from .checksums import as_stored, checksum, shown
from .items import as_key
from .kept import Kept

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from typing import Self

    from .layers import Layers
    from .store import Store
    from .unit import Unit, Write

K = TypeVar("K", bound=str)
V = TypeVar("V")
D = TypeVar("D")

PAGE_ROWS: Final = 256
"""Rows read at a time when many are looked at."""
PAGE_BYTES: Final = 1 << 20
"""The same in bytes, roughly."""
KNOWN_ROWS: Final = 1024
"""Rows of the file that are remembered."""
KNOWN_BYTES: Final = 4 << 20
"""The same in bytes; a larger row is not remembered."""

_BY_KEY = "SELECT payload, crc FROM map_item WHERE path = ? AND name = ? AND key = ?"
# Keys as bytes: a damaged one may be no text any more.
_FROM = (
    "SELECT key, payload, crc FROM map_item WHERE path = ? AND name = ?"
    " AND key >= CAST(? AS TEXT) ORDER BY key LIMIT ?"
)
_BEHIND = _FROM.replace(">=", ">")
_UPSERT = (
    "INSERT INTO map_item (payload, crc, path, name, key) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (path, name, key)"
    " DO UPDATE SET payload = excluded.payload, crc = excluded.crc"
)
_DELETE = "DELETE FROM map_item WHERE path = ? AND name = ? AND key = ?"


class _Row(NamedTuple):
    """An item as stored; not `sound`: its checksum did not match when it was read."""

    payload: bytes
    sound: bool = True


class _Page(NamedTuple):
    """Rows of the file in the order of their keys; `complete`: there are no more.

    `last` is the key behind which to go on. It is a sound row's, if there is one: a
    damaged key is not where its order says, and may lead back or past everything.
    """

    rows: dict[str, _Row]
    last: str | None
    complete: bool


class _Known:
    """What was seen of the file last, by key; None: there was no row."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, _Row | None] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> _Row | None:
        self._rows.move_to_end(key)
        return self._rows[key]

    def put(self, key: str, row: _Row | None) -> None:
        if key in self._rows:
            self._bytes -= _size(key, self._rows.pop(key))
        self._rows[key] = row
        self._bytes += _size(key, row)
        while len(self._rows) > KNOWN_ROWS or self._bytes > KNOWN_BYTES:
            self._bytes -= _size(*self._rows.popitem(last=False))

    def clear(self) -> None:
        self._rows.clear()
        self._bytes = 0


class DurableMap(Kept[V, _Row], Generic[K, V]):
    """Values by key, as many as the disk holds.

    Declared on an agent as an annotation, `seen: DurableMap[str, Page]`; the agent makes
    it. Keys are text (`str`, or a `NewType` of it). All changes belong to the running
    handler: they commit with it, or not at all. What comes out is a copy: to change a
    value, `set` it.
    """

    kind = "map"
    _count_query = "SELECT count(*) FROM map_item WHERE path = ? AND name = ?"
    _remedy = "set or delete it to go on"

    def __init__(self, store: Store, path: str, name: str, value_type: type[V]) -> None:
        super().__init__(store, path, name, value_type)
        self._known = _Known()
        self._outdated = 0
        self._turn = 0

    # --- what users call --------------------------------------------------------------

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: object = None) -> object:
        """The value of `key`, or `default` when there is none.

        Raises:
            RestoreError: the item is damaged or is not of the value type; others can be
                read, and this one can be set or deleted.
        """
        text = as_key(key)
        row = await self._find(text)
        return default if row is None else self._value(text, row)

    async def set(self, key: K, value: V) -> None:
        """Have `key` mean `value` from now on.

        Raises:
            StateNotEncodable: the value cannot be stored and read back as the value type,
                or is larger than `ITEM_BYTES`, or the key is no text.
        """
        text = as_key(key)
        row = _Row(self._items.encode(value, text))
        before = await self._find(text)
        if row != before:
            self._layers.stage(text, row, there=before is not None)

    async def delete(self, key: K) -> bool:
        """Remove an item; False if there is none of this key."""
        text = as_key(key)
        if await self._find(text) is None:
            return False
        self._layers.stage(text, None, there=True)
        return True

    def items(self, prefix: str = "") -> AsyncIterator[tuple[K, V]]:
        """The items whose keys begin with `prefix`, in the order of their keys.

        For use within one handler, which may change the map meanwhile: what it has set or
        deleted so far is seen, what it adds after the first item may not be. In memory
        is a page at a time.

        Raises:
            RestoreError: an item is damaged or is not of the value type; going on gives
                the one after it.
            StoreError: the handler that began has ended and the map was changed.
        """
        return _Walk(
            as_key(prefix), self._layers, self._page, self._value, lambda: self._turn
        )

    # --- what the agent drives --------------------------------------------------------

    def seal(self, unit: Unit) -> None:
        """Move what the handler staged into its unit."""
        if self.dirty:
            self._turn += 1
            self._layers.seal(unit, self._writes())

    def discard(self) -> None:
        """Forget what the handler staged."""
        self._turn += 1
        self._layers.discard()

    def reset(self) -> None:
        """Forget everything that is not committed."""
        self._turn += 1
        self._layers.reset()
        # Of a row that a failed unit hid, nobody was told that an earlier one committed it.
        self._known.clear()

    # --- layers -----------------------------------------------------------------------

    def settled(self, rows: Mapping[str, _Row | None]) -> None:
        """These rows are in the file now."""
        for key, row in rows.items():
            self._known.put(key, row)

    def outdated(self) -> None:
        """The file has changed in rows that were forgotten."""
        self._outdated += 1
        self._known.clear()

    def _writes(self) -> Iterator[Write]:
        layers = self._layers
        for key, row in layers.staged.items():
            place = (self.path, self.name, key)
            if row is not None:
                text = row.payload.decode()
                yield _UPSERT, (text, checksum(row.payload, *place), *place)
            elif layers.was_there[key]:
                yield _DELETE, place

    async def _find(self, key: str) -> _Row | None:
        """The row of this key as the handler sees it, from the file if need be."""
        await self.open()
        while True:
            if key in self._layers:
                return self._layers.get(key)
            if key in self._known:
                return self._known.get(key)
            outdated = self._outdated
            row = await self._store.read(partial(self._one_in, key=key))
            # What was changed or learned meanwhile is newer than this reading.
            if key in self._layers or key in self._known:
                continue
            if outdated == self._outdated:
                self._known.put(key, row)
                return row

    def _value(self, key: str, row: _Row) -> V:
        return self._items.decode(row.payload, key, sound=row.sound)

    # --- reading the file -------------------------------------------------------------

    def _one_in(self, connection: sqlite3.Connection, key: str) -> _Row | None:
        places.MAP_PAGE.reach()
        place = (self.path, self.name, key)
        found = connection.execute(_BY_KEY, place).fetchone()
        return None if found is None else self._row(key, *found)

    def _row(self, key: object, text: object, crc: object) -> _Row:
        payload = as_stored(text)
        if not isinstance(key, str):
            return _Row(payload, sound=False)
        return _Row(payload, crc == checksum(payload, self.path, self.name, key))

    async def _page(
        self, prefix: str, after: str | None, take_in: Callable[[_Page], None]
    ) -> None:
        """Read on in the file, and have `take_in` told before anything else changes."""
        await self.open()
        async with self._reading:
            with self._layers.holding():
                question = partial(self._page_in, prefix=prefix, after=after)
                take_in(await self._store.read(question))

    def _page_in(
        self, connection: sqlite3.Connection, prefix: str, after: str | None
    ) -> _Page:
        places.MAP_PAGE.reach()
        query, begin = (_FROM, prefix) if after is None else (_BEHIND, after)
        values = (self.path, self.name, as_stored(begin), PAGE_ROWS)
        found: list[tuple[str, _Row]] = []
        size = 0
        for key, text, crc in connection.execute(query, values):
            name = key if isinstance(key, str) else shown(key)
            row = self._row(key, text, crc)
            if row.sound and not name.startswith(prefix):
                return _Page(dict(found), None, complete=True)
            found.append((name, row))
            size += _size(name, row)
            if size > PAGE_BYTES:
                break
        else:
            if len(found) < PAGE_ROWS:
                return _Page(dict(found), None, complete=True)
        last = _last(found)
        # A page that does not lead on is the last one, or it would be read for ever.
        leads_on = after is None or as_stored(last) > as_stored(after)
        return _Page(dict(found), last, complete=not leads_on)


class _Walk(Generic[K, V]):
    """A walk over the items of a map, see `DurableMap.items`."""

    def __init__(
        self,
        prefix: str,
        layers: Layers[_Row],
        read: Callable[[str, str | None, Callable[[_Page], None]], Awaitable[None]],
        decode: Callable[[str, _Row], V],
        turn: Callable[[], int],
    ) -> None:
        self._prefix = prefix
        self._layers = layers
        self._read = read
        self._decode = decode
        self._turn = turn
        self._began = turn()
        changed = {*layers.staged, *layers.uncommitted}
        self._ahead = deque(sorted(key for key in changed if key.startswith(prefix)))
        self._keys: deque[str] = deque()
        self._below: dict[str, _Row | None] = {}  # of `_keys`, below the staging
        self._after: str | None = None
        self._complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[K, V]:
        await trio.lowlevel.checkpoint()
        while True:
            self._refuse_another_turn()
            while self._keys:
                key = self._keys.popleft()
                row = self._row(key)
                if row is not None:
                    return cast(K, key), self._decode(key, row)
            if self._complete:
                raise StopAsyncIteration
            await self._read(self._prefix, self._after, self._take_in)

    def _refuse_another_turn(self) -> None:
        # What was read is not true any more, and nothing tells in what.
        if self._turn() != self._began:
            raise StoreError("the map was changed by another handler; begin again")

    def _row(self, key: str) -> _Row | None:
        layers = self._layers
        return layers.get(key) if key in layers else self._below[key]

    def _take_in(self, page: _Page) -> None:
        """The next keys: those of the page, and of the layers as far as it reaches."""
        last = page.last
        ahead: list[str] = []
        while self._ahead and (last is None or page.complete or self._ahead[0] <= last):
            ahead.append(self._ahead.popleft())
        uncommitted = self._layers.uncommitted
        self._below = {
            **dict.fromkeys(ahead),
            **page.rows,
            **{key: uncommitted[key] for key in ahead if key in uncommitted},
        }
        self._keys = deque(dict.fromkeys(merge(page.rows, ahead)))
        self._after = last
        self._complete = page.complete


def _last(found: list[tuple[str, _Row]]) -> str:
    """The key to go on behind: of the last sound row, or the greatest of damaged ones."""
    for key, row in reversed(found):
        if row.sound:
            return key
    return max((key for key, _ in found), key=as_stored)


def _size(key: str, row: _Row | None) -> int:
    return len(key) + len(row.payload if row is not None else b"")
