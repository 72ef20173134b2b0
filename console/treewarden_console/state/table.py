"""Rows by id, and what changed in them since somebody last looked.

A snapshot may arrive in several frames. Until its last one is here the old rows stay
believed: half a tree is never shown as if it were the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Ids whose rows differ; `reshaped` when rows came, went or changed places."""

    ids: frozenset[str] = frozenset()
    reshaped: bool = False

    def __bool__(self) -> bool:
        """Whether anything changed at all."""
        return self.reshaped or bool(self.ids)

    def __or__(self, other: Changes) -> Changes:
        """What changed in either of two tables that are shown as one."""
        return Changes(
            ids=self.ids | other.ids, reshaped=self.reshaped or other.reshaped
        )


ALL = Changes(reshaped=True)
"""What a view is told that must read everything again."""


class Table(Generic[Row]):
    """The rows of one topic; `place` gives what decides a row's position.

    `revision` grows with every change of a row, for what is derived from all of them.
    """

    def __init__(self, place: Callable[[Row], object] = lambda row: None) -> None:
        self.rows: dict[str, Row] = {}
        self.revision = 0
        self._place = place
        self._arriving: dict[str, Row] | None = None
        self._changed: set[str] = set()
        self._reshaped = False

    def apply(
        self,
        rows: Iterable[tuple[str, Row]],
        *,
        gone: Iterable[str] = (),
        full: bool = False,
        more: bool = False,
    ) -> None:
        """Take one update; see `treewarden.control.protocol.Update`."""
        if full:
            self._arriving = {}
        if self._arriving is None:
            self._remove(gone)
            self._change(rows)
            return
        self._arriving.update(rows)
        if not more:
            arrived, self._arriving = self._arriving, None
            self._remove([id_ for id_ in self.rows if id_ not in arrived])
            self._change(arrived.items())
            # The snapshot's order counts, also where nothing else changed.
            self.rows, self._reshaped = arrived, True

    def touch(self, ids: Iterable[str]) -> None:
        """Report rows as changed whose looks depend on something beside them."""
        self._changed.update(ids)

    def clear(self) -> None:
        """Forget everything."""
        self.rows = {}
        self.revision += 1
        self._arriving = None
        self._changed.clear()
        self._reshaped = True

    def take(self) -> Changes:
        """What changed since the last call."""
        changes = Changes(ids=frozenset(self._changed), reshaped=self._reshaped)
        self._changed.clear()
        self._reshaped = False
        return changes

    def copy(self) -> Table[Row]:
        """The rows as they are now, for a view that is held."""
        still = Table(self._place)
        still.rows = dict(self.rows)
        return still

    def _remove(self, gone: Iterable[str]) -> None:
        for id_ in gone:
            if self.rows.pop(id_, None) is not None:
                self._reshaped = True
                self.revision += 1
                self._changed.discard(id_)

    def _change(self, rows: Iterable[tuple[str, Row]]) -> None:
        for id_, row in rows:
            old = self.rows.get(id_)
            if old == row:
                continue
            if old is None or self._place(old) != self._place(row):
                self._reshaped = True
            self.rows[id_] = row
            self.revision += 1
            self._changed.add(id_)


def sorted_ids(rows: Mapping[str, Row], key: Callable[[Row], object]) -> list[str]:
    """Ids by `key`, ties by id, so that the order never flickers."""
    return sorted(rows, key=lambda id_: (key(rows[id_]), id_))
