"""What every durable collection is: rows of one table that belong to one agent.

Under one path and name, a row an item; above the file are the two layers of `layers`. What
an item is, and which rows are remembered of the file, is each collection's own business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import trio

from treewarden.errors import StoreError

from .items import Items
from .layers import Layers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from .store import Store

T = TypeVar("T")
Row = TypeVar("Row")


class Kept(ABC, Generic[T, Row]):
    """The part that a map and a queue have in common."""

    kind: ClassVar[str]
    """What it is, for people."""
    _count_query: ClassVar[str]
    """The query that counts its rows, by path and name."""
    _remedy: ClassVar[str]
    """How to go on when an item is damaged."""

    def __init__(self, store: Store, path: str, name: str, item_type: type[T]) -> None:
        self.path = path
        self.name = name
        self._store = store
        self._items: Items[T] = Items(item_type, f"{path}.{name}", self._remedy)
        self._reading = trio.Lock()
        self._opened = False
        self._layers: Layers[Row] = Layers(self)

    def __len__(self) -> int:
        """Items, the leased ones of a queue and this handler's changes included."""
        if not self._opened:
            raise StoreError(f"the {self.kind} {self.path}.{self.name} is not open yet")
        return len(self._layers)

    async def open(self) -> None:
        """Count the items, once; every other method does it if need be."""
        await trio.lowlevel.checkpoint()
        if self._opened:
            return
        async with self._reading:
            if not self._opened:
                self._layers.counted(await self._store.read(self._count_in))
                self._opened = True

    @property
    def committed(self) -> int:
        """Items in the file; 0 before it was opened."""
        return self._layers.committed

    @property
    def dirty(self) -> bool:
        """Whether the running handler has changed it."""
        return bool(self._layers.staged)

    def _count_in(self, connection: sqlite3.Connection) -> int:
        row = connection.execute(self._count_query, (self.path, self.name)).fetchone()
        return int(row[0])

    # --- what the layers tell -----------------------------------------------------------

    @abstractmethod
    def settled(self, rows: Mapping[str, Row | None]) -> None:
        """These rows are in the file now."""

    @abstractmethod
    def outdated(self) -> None:
        """The file has changed in rows that were forgotten."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that is not committed."""
