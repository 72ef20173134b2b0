"""The entries that have a declared attribute, by its values and in their order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias

from .attributes import MISSING, members, rank_of, walk
from .criteria import Op, Where
from .entry import Entry, Ref
from .keys import PLAIN, exact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Rows: TypeAlias = dict[int, Entry[Ref]]
NO_ROWS: Final[dict[int, Any]] = {}
# From so many new values on, sorting all is quicker than finding a place for each.
_SORT_FROM: Final = 256
_ORDERING: Final = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
# Values that nobody has any more are dropped when they outnumber the others by this.
_STALE: Final = 64


class Order:
    """The values of one attribute in order, each kind by itself.

    Sorted when somebody asks, not when somebody registers: that would cost a registration
    time that grows with their number. What nobody has any more stays until there is more
    of it than of the rest.
    """

    __slots__ = ("_fresh", "_listed", "_sorted")

    def __init__(self) -> None:
        self._sorted: dict[type, list[Any]] = {}
        self._fresh: dict[type, list[Any]] = {}
        self._listed: set[object] = set()

    def add(self, place: object, value: object) -> None:
        rank = rank_of(value)
        if rank is not None and place not in self._listed:
            self._listed.add(place)
            self._fresh.setdefault(rank, []).append(value)

    def trim(self, alive: Mapping[object, object]) -> None:
        """Forget what is not `alive`, when it has become the larger part."""
        if len(self._listed) <= 2 * len(alive) + _STALE:
            return
        self._listed.intersection_update(alive)
        for values in (*self._sorted.values(), *self._fresh.values()):
            values[:] = [value for value in values if exact(value) in self._listed]

    def within(self, criteria: Iterable[Where]) -> list[Any]:
        """The values that all these ordering criteria let through."""
        kinds = {rank_of(criterion.wanted) for criterion in criteria}
        rank = kinds.pop()
        if kinds or rank is None:
            return []
        values = self._settled(rank)
        low, high = 0, len(values)
        for criterion in criteria:
            match criterion.op:
                case Op.GT:
                    low = max(low, bisect_right(values, criterion.wanted))
                case Op.GTE:
                    low = max(low, bisect_left(values, criterion.wanted))
                case Op.LT:
                    high = min(high, bisect_left(values, criterion.wanted))
                case _:
                    high = min(high, bisect_right(values, criterion.wanted))
        return values[low:high]

    def _settled(self, rank: type) -> list[Any]:
        values = self._sorted.setdefault(rank, [])
        fresh = self._fresh.pop(rank, [])
        if len(fresh) < _SORT_FROM:
            for value in fresh:
                insort(values, value)
        else:
            values.extend(fresh)
            values.sort()
        return values


class Index(Generic[Ref]):
    """The entries that have a declared attribute, by each value of it."""

    __slots__ = ("_name", "buckets", "order", "steps")

    def __init__(self, steps: tuple[str, ...], *, ordered: bool) -> None:
        self.steps = steps
        self._name = steps[0] if len(steps) == 1 else None
        self.buckets: dict[object, Rows[Ref]] = {}
        self.order = Order() if ordered else None

    def add(self, entry: Entry[Ref]) -> None:
        for value in self._values(entry):
            place = exact(value)
            bucket = self.buckets.get(place)
            if bucket is None:
                bucket = self.buckets[place] = {}
            bucket[entry.number] = entry
            if self.order is not None:
                self.order.add(place, value)

    def remove(self, entry: Entry[Ref]) -> None:
        for value in self._values(entry):
            place = exact(value)
            bucket = self.buckets.get(place)
            # A collection may hold a value twice.
            if bucket is not None and bucket.pop(entry.number, None) is not None:
                self._drop_empty(place, bucket)

    def _values(self, entry: Entry[Ref]) -> Collection[object]:
        if self._name is not None:
            found = entry.attributes.get(self._name, MISSING)
        else:
            found = walk(entry.attributes, self.steps)
        return (found,) if type(found) in PLAIN else members(found)

    def _drop_empty(self, place: object, bucket: Rows[Ref]) -> None:
        if not bucket:
            del self.buckets[place]
            if self.order is not None:
                self.order.trim(self.buckets)

    def buckets_in(self, criteria: list[Where]) -> list[Rows[Ref]] | None:
        """Buckets that hold whatever fulfils `criteria`; None: this index cannot say."""
        for criterion in criteria:
            if criterion.op is Op.IN:
                found = [self.buckets.get(place) for place in criterion.wanted]
                return [bucket for bucket in found if bucket is not None]
        ordering = [one for one in criteria if one.op in _ORDERING]
        if self.order is None or not ordering:
            return None
        values = self.order.within(ordering)
        places = [self.buckets.get(exact(value)) for value in values]
        return [bucket for bucket in places if bucket is not None]


@dataclass(frozen=True, slots=True)
class Plan(Generic[Ref]):
    """Walk `rows`; whoever is in all of `asked` and fulfils `criteria` is found."""

    rows: Rows[Ref]
    asked: list[Rows[Ref]]
    criteria: list[Where]


def union(buckets: list[Rows[Ref]], limit: int) -> Rows[Ref] | None:
    """All entries of `buckets`; None when they would not be fewer than `limit`."""
    total = 0
    for bucket in buckets:
        total += len(bucket)
        if total >= limit:
            return None
    return {number: entry for bucket in buckets for number, entry in bucket.items()}
