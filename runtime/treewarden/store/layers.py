"""What handlers have changed in a collection and the file does not have yet, by key.

Seen from the newest to the oldest: what the running handler has staged; what earlier
handlers left in units that are not decided; the file, which the collection reads itself.
When a unit commits, its changes move from the middle layer into the file; when it fails,
both upper layers are gone. `epoch` counts such falls: what a unit of an earlier epoch
brings into the file, if it does, was forgotten here.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from treewarden.errors import StoreError

    from .unit import Unit, Write

Row = TypeVar("Row")
Row_contra = TypeVar("Row_contra", contravariant=True)


class Above(Protocol[Row_contra]):
    """Whoever has the layers, and is told of what leaves them."""

    def settled(self, rows: Mapping[str, Row_contra | None]) -> None:
        """These rows are in the file now (None: removed) and not in the layers."""

    def outdated(self) -> None:
        """The file has changed in rows that the layers had forgotten."""

    def reset(self) -> None:
        """A unit failed: forget everything that is not committed."""


@dataclass(slots=True, eq=False)
class Sealed(Generic[Row]):
    """What one handler changed, until its unit is decided."""

    epoch: int
    rows: dict[str, Row | None]
    growth: int


class Layers(Generic[Row]):
    """The two layers above the file; a row that is None was removed."""

    def __init__(self, owner: Above[Row]) -> None:
        self.staged: dict[str, Row | None] = {}
        self.was_there: dict[str, bool] = {}
        """Of each staged key: whether there was a row below the staging."""
        self.uncommitted: dict[str, Row | None] = {}
        self.epoch = 0
        self._owner = owner
        self._sealed: dict[str, Sealed[Row]] = {}  # who has each uncommitted row
        self._deferred: list[Sealed[Row]] | None = None
        self._count = 0  # rows in the file and in `uncommitted`
        self._growth = 0  # what the staging adds to that, less what it removes
        self._uncommitted_growth = 0

    def __contains__(self, key: str) -> bool:
        return key in self.staged or key in self.uncommitted

    def get(self, key: str) -> Row | None:
        """The row of a key that is in one of the layers."""
        return self.staged[key] if key in self.staged else self.uncommitted[key]

    def __len__(self) -> int:
        """Rows as the running handler sees them, once the file's were counted."""
        return self._count + self._growth

    @property
    def committed(self) -> int:
        """Rows in the file."""
        return self._count - self._uncommitted_growth

    def counted(self, rows: int) -> None:
        """So many rows were in the file when it was first looked at."""
        self._count += rows

    # --- one handler --------------------------------------------------------------------

    def stage(self, key: str, row: Row | None, *, there: bool) -> bool:
        """Change a row; `there`: the handler saw one. Whether it is its first change."""
        self._growth += (row is not None) - there
        first = key not in self.staged
        if first:
            self.was_there[key] = there
        self.staged[key] = row
        return first

    def seal(self, unit: Unit, writes: Iterable[Write]) -> None:
        """The staging becomes `writes` of the unit, and is uncommitted from now on."""
        if unit.writes is None:
            unit.writes = []
        unit.writes += writes
        sealed = Sealed(self.epoch, self.staged, self._growth)
        self.uncommitted.update(self.staged)
        self._sealed.update(dict.fromkeys(self.staged, sealed))
        self._count += self._growth
        self._uncommitted_growth += self._growth
        self.discard()
        unit.release.append(partial(self._decided, sealed))

    def discard(self) -> None:
        """Forget the staging."""
        # New ones: what is sealed keeps the old.
        self.staged, self.was_there = {}, {}
        self._growth = 0

    # --- units --------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything that is not committed."""
        self.epoch += 1
        self.discard()
        self.uncommitted.clear()
        self._sealed.clear()
        self._count -= self._uncommitted_growth
        self._uncommitted_growth = 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep what commits meanwhile where it is; not to be nested.

        For reading the file: what commits during the reading may be in it or not, so it
        must be above the file until the reading is taken in.
        """
        self._deferred = []
        try:
            yield
        finally:
            deferred, self._deferred = self._deferred, None
            for sealed in deferred:
                self._settle(sealed)

    def _decided(self, sealed: Sealed[Row], error: StoreError | None) -> None:
        if error is not None:
            # The agent resets as well; whoever is second finds nothing left to do.
            if sealed.epoch == self.epoch:
                self._owner.reset()
        elif self._deferred is not None:
            self._deferred.append(sealed)
        else:
            self._settle(sealed)

    def _settle(self, sealed: Sealed[Row]) -> None:
        if sealed.epoch != self.epoch:
            self._count += sealed.growth
            self._owner.outdated()
            return
        self._uncommitted_growth -= sealed.growth
        settled = {
            key: row
            for key, row in sealed.rows.items()
            if self._sealed.get(key) is sealed
        }
        for key in settled:
            del self._sealed[key], self.uncommitted[key]
        self._owner.settled(settled)
