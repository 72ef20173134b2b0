"""Names to refs: unique and shared keys whose entries vanish with their owner.

The idea is Elixir's Registry. An *owner* is one incarnation of somebody, and every entry
has one; when it ends, its entries are gone before anybody is told of the end, and the next
incarnation registers the same key without meeting its predecessor.

Theory of operation. Nothing here waits but `lock`, so a check and the change that stands on
it are one step of trio's loop and no race can come between them. All of it is to be
touched from trio's thread only. An entry is in these places, and always in all of them or
in none: the table of its key, the list of everything, its owner's entries, and one bucket
for each value of each declared attribute. `_put`, `_take_out` and `_swap` are the only
functions that change them, each is the inverse of another, and a batch is undone by
running the inverses newest first. An owner with entries has exactly one watch on it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, assert_never

import msgspec
import trio

from treewarden.errors import KeyTaken, NameUnknown, NotRunning, RegistryFull
from treewarden.exits import Fault

from .attributes import as_steps, freeze_attributes
from .batch import Batch, Operation, Register, Unregister, Update, updated, validate
from .criteria import Op, Where
from .entry import Entry, Happening, Keys, Owner, Ref, Registered, Unregistered, Updated
from .index import NO_ROWS, Index, Plan, Rows, union
from .keys import PLAIN, exact
from .pattern import ANY
from .query import Query, Selection

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
    )

CAPACITY: Final = 100_000
"""Entries that a registry takes unless told otherwise; with two attributes
and an owner each, 100 MB."""
BATCH_LIMIT: Final = 1000
"""Operations in one batch; nothing else runs meanwhile, about 10 ms for that many."""
_by_number: Final = attrgetter("number")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatistics:
    """A declared attribute: how many values it has, and how many entries have one."""

    path: tuple[str, ...]
    ordered: bool
    values: int
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryStatistics:
    """How full it is; counters since it was made.

    entries = registered - unregistered - ended, at all times. `owners` is also how many
    watches there are. `rows_examined` of all queries; `refused` registrations.
    """

    keys: Keys
    entries: int
    capacity: int
    owners: int
    registered: int
    unregistered: int
    ended: int
    refused: int
    queries: int
    rows_examined: int
    locks: int
    listeners: int
    listener_faults: int
    last_listener_fault: Fault | None
    indexes: tuple[IndexStatistics, ...]


class _Counts:
    __slots__ = ("ended", "queries", "refused", "registered", "rows", "unregistered")

    def __init__(self) -> None:
        self.registered = self.unregistered = self.ended = self.refused = 0
        self.queries = self.rows = 0


class Registry(Generic[Ref]):
    """Keys to refs, with a value and searchable attributes; bounded, in memory only.

    `keys="unique"`: a key has one entry, and `whereis` finds its ref. `keys="shared"`: as
    many as register it, also several of one owner; this is what groups and local
    publishing are made of. Nothing waits but `lock`. Reads see each change at once.

    Attributes are declared to be searched by index: `declare` costs each registration a
    bucket (about 0.7 µs), and saves each query looking at everything.
    """

    def __init__(
        self, keys: Keys | str = Keys.UNIQUE, *, capacity: int = CAPACITY
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1 entry, not {capacity!r}")
        self.kind = Keys(keys)
        self.capacity = capacity
        self._is_unique = self.kind is Keys.UNIQUE
        # By place of the key: one of the two is used.
        self._unique: dict[object, Entry[Ref]] = {}
        self._shared: dict[object, Rows[Ref]] = {}
        self._entries: Rows[Ref] = {}
        self._owned: dict[Owner, Rows[Ref]] = {}
        self._indexes: dict[tuple[str, ...], Index[Ref]] = {}
        self._meta: dict[object, object] = {}
        self._locks: dict[object, tuple[trio.Lock, int]] = {}
        self._listeners: list[Callable[[Happening[Ref]], object]] = []
        self._listener_faults = 0
        self._last_listener_fault: Fault | None = None
        self._number = 0
        self._counts = _Counts()
        self._calling_out = False
        self._closed = False

    # --- registering -----------------------------------------------------------------------

    def register(
        self,
        key: object,
        ref: Ref,
        *,
        owner: Owner,
        value: object = None,
        attributes: Mapping[str, object] | None = None,
    ) -> Entry[Ref]:
        """Enter `ref` under `key` until `owner` ends.

        Raises:
            KeyTaken: the key is unique and has an entry, also if it is your own.
            RegistryFull: there is no room.
            NotRunning: the owner has ended, or the registry is closed.
            TypeError, ValueError: the key or an attribute cannot be used.
        """
        self._check_open()
        place = exact(key)
        frozen = freeze_attributes(attributes)
        self._admit(key, place, owner)
        entry = self._make(key, place, ref, owner, value, frozen)
        self._put(entry)
        self._counts.registered += 1
        if self._listeners:
            self._tell(Registered(entry=entry))
        return entry

    def unregister(self, key: object, *, owner: Owner) -> int:
        """Take out what `owner` has under `key`; how many entries that was."""
        return self._unregister(self._own(key, owner))

    def unregister_match(
        self,
        key: object,
        pattern: object,
        *,
        owner: Owner,
        test: Callable[[Entry[Ref]], bool] | None = None,
    ) -> int:
        """`unregister`, but only what has a value of that shape and passes the test."""
        own = self._own(key, owner)
        return self._unregister(self._fitting(own, Query(value=pattern, test=test)))

    def update(
        self, key: object, change: Callable[[Any], object], *, owner: Owner
    ) -> tuple[object, object]:
        """Replace the value of a unique key by `change(value)`; the new and the old one.

        Raises:
            NameUnknown, KeyTaken: the key is nobody's, or another's; nothing was called.
            TypeError: keys are shared.
            What `change` raises; the value stays. It must not change the registry.
        """
        old = self._mine(key, owner)
        with self._calling():
            value = change(old.value)
        if self._unique.get(old.place) is not old:
            raise NotRunning(f"the owner of {key!r} ended while its value was made")
        self._replace(old, msgspec.structs.replace(old, value=value))
        return value, old.value

    def put_attributes(
        self, key: object, attributes: Mapping[str, object] | None, *, owner: Owner
    ) -> None:
        """Replace all attributes of a unique key.

        Raises:
            NameUnknown, KeyTaken: the key is nobody's, or another's.
            TypeError, ValueError: an attribute cannot be used, or keys are shared.
        """
        old = self._mine(key, owner)
        frozen = freeze_attributes(attributes)
        self._replace(old, msgspec.structs.replace(old, attributes=frozen))

    def apply(self, operations: Collection[Operation[Ref]]) -> tuple[Entry[Ref], ...]:
        """Do all of it or none: what was entered or updated, in order.

        The whole is validated first; what can only be found while doing it (a key that is
        taken) undoes in reverse what was done before, and listeners hear of nothing. A
        failure carries a note that says which operation it was.

        Raises:
            What the operations raise; ValueError: there are more than `BATCH_LIMIT`.
        """
        self._check_open()
        if len(operations) > BATCH_LIMIT:
            raise ValueError(
                f"a batch has at most {BATCH_LIMIT} operations, not {len(operations)}"
            )
        batch = Batch[Ref]()
        self._each(operations, validate, batch)
        self._each(operations, partial(self._do, batch), batch)
        self._count_batch(batch.told)
        self._tell(*batch.told)
        return tuple(
            [one.entry for one in batch.told if not isinstance(one, Unregistered)]
        )

    # --- looking up --------------------------------------------------------------------------

    def whereis(self, key: object) -> Ref | None:
        """The ref that has a unique key, or None.

        Raises:
            TypeError: keys are shared, or this cannot be one.
        """
        entry = self._unique.get(key if type(key) is str else exact(key))
        if entry is not None and not entry.owner.ended:
            return entry.ref
        if not self._is_unique:
            raise TypeError("a shared key has no single ref; use lookup()")
        return None

    def ref(self, key: object) -> Ref:
        """The ref that has a unique key.

        Raises:
            NameUnknown: nobody has it.
        """
        ref = self.whereis(key)
        if ref is None:
            raise _unknown(key)
        return ref

    def lookup(self, key: object) -> tuple[Entry[Ref], ...]:
        """All entries of a key, oldest first; empty when there is none."""
        place = key if type(key) is str else exact(key)
        entry = self._unique.get(place)
        if entry is not None and not entry.owner.ended:
            return (entry,)
        return () if self._is_unique else tuple(self._of(place))

    def keys(self, owner: Owner) -> list[object]:
        """The keys that an owner has, oldest first, repeated as often as it has them."""
        owned = self._owned.get(owner, NO_ROWS).values()
        return [entry.key for entry in sorted(owned, key=_by_number)]

    def values(self, key: object, owner: Owner) -> list[object]:
        """The values that an owner has under a key, oldest first."""
        return [entry.value for entry in self._own(key, owner)]

    def count(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def match(
        self,
        key: object,
        pattern: object,
        *,
        test: Callable[[Entry[Ref]], bool] | None = None,
    ) -> list[Entry[Ref]]:
        """The entries of a key whose value has that shape and that pass the test."""
        return self._fitting(self.lookup(key), Query(value=pattern, test=test))

    def count_match(
        self,
        key: object,
        pattern: object,
        *,
        test: Callable[[Entry[Ref]], bool] | None = None,
    ) -> int:
        """How many `match` would find."""
        return len(self.match(key, pattern, test=test))

    # --- searching ---------------------------------------------------------------------------

    def declare(self, path: str | tuple[str, ...], *, ordered: bool = False) -> None:
        """Search this attribute by index from now on; `ordered`: ranges too.

        Entries that exist are indexed at once, about 0.1 s for 100,000. Declaring it
        again is fine.
        """
        steps = as_steps(path)
        known = self._indexes.get(steps)
        if known is not None and (known.order is not None or not ordered):
            return
        index = Index[Ref](steps, ordered=ordered)
        for entry in self._entries.values():
            index.add(entry)
        self._indexes[steps] = index

    def find(self, **attributes: object) -> tuple[Entry[Ref], ...]:
        """The entries with all these attributes: `find(kind="fetcher", site="docs")`."""
        equal: list[Rows[Ref]] = []
        criteria: list[Where] = []
        for name, value in attributes.items():
            index = self._indexes.get((name,))
            if index is not None:
                equal.append(index.buckets.get(exact(value), NO_ROWS))
            else:
                criteria.append(Where(name, Op.EQ, value))
        plan = self._join(equal, criteria)
        self._count_query(len(plan.rows))
        return tuple(self._ask(plan))

    def select(
        self,
        *criteria: Where,
        key: object = ANY,
        ref: object = ANY,
        value: object = ANY,
        test: Callable[[Entry[Ref]], bool] | None = None,
    ) -> Selection[Ref]:
        """The entries that fulfil all of it.

        The smallest set that an index knows is walked and the others are asked. Without a
        criterion on a declared attribute everything is looked at, about 80 ms for 100,000
        entries in which nothing else runs; `rows_examined` tells.

        Raises:
            TypeError, ValueError: the query is none. What `test` raises.
        """
        return self.select_any(
            Query(where=criteria, key=key, ref=ref, value=value, test=test)
        )

    def count_select(self, *criteria: Where, **options: Any) -> int:  # noqa: ANN401 - as select
        """How many `select` would find."""
        return len(self.select(*criteria, **options))

    def select_any(self, *queries: Query) -> Selection[Ref]:
        """The entries that fulfil at least one of several queries, each once."""
        found: list[Entry[Ref]] = []
        examined = 0
        for query in queries:
            if not isinstance(query, Query):
                raise TypeError(f"select_any takes queries, not {query!r}")
            plan = self._plan(query)
            rows = self._ask(plan)
            found += rows if query.is_open else self._fitting(rows, query)
            self._count_query(len(plan.rows))
            examined += len(plan.rows)
        if len(queries) > 1:
            found = list({entry.number: entry for entry in found}.values())
            found.sort(key=_by_number)
        return Selection(tuple(found), examined)

    # --- sending to all of a key -------------------------------------------------------------

    def dispatch(
        self, key: object, call: Callable[[tuple[Entry[Ref], ...]], object]
    ) -> None:
        """Call `call` with all entries of a key; not at all when it has none.

        What it raises comes out here.
        """
        entries = self.lookup(key)
        if entries:
            call(entries)

    def dispatch_soon(
        self,
        nursery: trio.Nursery,
        key: object,
        call: Callable[[Entry[Ref]], Any],
    ) -> None:
        """Start `call(entry)` (async) in `nursery` for each entry of a key.

        What it raises comes out of the nursery, not here.
        """
        for entry in self.lookup(key):
            nursery.start_soon(call, entry)

    # --- listeners, locks, meta ----------------------------------------------------------------

    def listen(
        self, listener: Callable[[Happening[Ref]], object]
    ) -> Callable[[], None]:
        """Be told of each entry that comes, changes or goes; the result stops it.

        Called in the step of the change, in order, batches after their last operation. It
        must not change the registry; what it raises is counted and shown in
        `statistics()`, and keeps nobody else from being told.
        """
        self._listeners.append(listener)
        return partial(self._unlisten, listener)

    @asynccontextmanager
    async def lock(self, key: object) -> AsyncIterator[None]:
        """Hold a key against other tasks that lock it too; it need not be registered.

        First come, first served. Given back however the block is left. Cancelled while
        waiting: never held.

        Raises:
            RuntimeError: this task holds it already.
        """
        place = exact(key)
        lock, users = self._locks.get(place, (None, 0))
        lock = lock if lock is not None else trio.Lock()
        self._locks[place] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(place)
            if users > 1:
                self._locks[place] = lock, users - 1

    def put_meta(self, key: object, value: object) -> None:
        """Keep something about the registry itself, apart from its entries.

        Raises:
            RegistryFull: there is as much of it as there may be entries.
        """
        place = exact(key)
        if place not in self._meta and len(self._meta) >= self.capacity:
            raise RegistryFull(self.capacity)
        self._meta[place] = value

    def meta(self, key: object, default: object = None) -> object:
        """What `put_meta` kept."""
        return self._meta.get(exact(key), default)

    def delete_meta(self, key: object) -> None:
        """Forget it; fine when there is none."""
        self._meta.pop(exact(key), None)

    # --- the end, and how it stands ------------------------------------------------------------

    def close(self) -> None:
        """Take out everything, tell the listeners, register nothing any more.

        Owners live on: they are not told and not ended.
        """
        if self._closed:
            return
        self._check_open()
        self._unregister(list(self._entries.values()))
        self._closed = True

    def statistics(self) -> RegistryStatistics:
        """How it stands; costs a look at the sizes of all buckets."""
        counts = self._counts
        return RegistryStatistics(
            keys=self.kind,
            entries=len(self._entries),
            capacity=self.capacity,
            owners=len(self._owned),
            registered=counts.registered,
            unregistered=counts.unregistered,
            ended=counts.ended,
            refused=counts.refused,
            queries=counts.queries,
            rows_examined=counts.rows,
            locks=len(self._locks),
            listeners=len(self._listeners),
            listener_faults=self._listener_faults,
            last_listener_fault=self._last_listener_fault,
            indexes=tuple(
                IndexStatistics(
                    path=index.steps,
                    ordered=index.order is not None,
                    values=len(index.buckets),
                    entries=sum(map(len, index.buckets.values())),
                )
                for index in self._indexes.values()
            ),
        )

    # --- the tables ----------------------------------------------------------------------------

    def _make(
        self,
        key: object,
        place: object,
        ref: Ref,
        owner: Owner,
        value: object,
        attributes: Mapping[str, object],
    ) -> Entry[Ref]:
        self._number += 1
        return Entry(
            key=key,
            ref=ref,
            value=value,
            attributes=attributes,
            owner=owner,
            number=self._number,
            place=place,
        )

    def _put(self, entry: Entry[Ref]) -> None:
        number = entry.number
        if self._is_unique:
            self._unique[entry.place] = entry
        else:
            self._shared.setdefault(entry.place, {})[number] = entry
        self._entries[number] = entry
        owned = self._owned.get(entry.owner)
        if owned is None:
            owned = self._owned[entry.owner] = {}
            self._watch(entry.owner)
        owned[number] = entry
        for index in self._indexes.values():
            index.add(entry)

    def _take_out(self, entry: Entry[Ref]) -> None:
        number = entry.number
        if self._is_unique:
            del self._unique[entry.place]
        else:
            same = self._shared[entry.place]
            del same[number]
            if not same:
                del self._shared[entry.place]
        del self._entries[number]
        for index in self._indexes.values():
            index.remove(entry)
        owned = self._owned.get(entry.owner)
        if owned is not None:
            del owned[number]
            if not owned:
                del self._owned[entry.owner]
                self._unwatch(entry.owner)

    def _swap(self, old: Entry[Ref], new: Entry[Ref]) -> None:
        number = old.number
        self._unique[old.place] = new
        self._entries[number] = new
        self._owned[old.owner][number] = new
        for index in self._indexes.values():
            index.remove(old)
            index.add(new)

    def _of(self, place: object) -> list[Entry[Ref]]:
        if self._is_unique:
            entry = self._unique.get(place)
            return [entry] if entry is not None and not entry.owner.ended else []
        entries = self._shared.get(place, NO_ROWS).values()
        alive = [entry for entry in entries if not entry.owner.ended]
        return sorted(alive, key=_by_number)

    def _own(self, key: object, owner: Owner) -> list[Entry[Ref]]:
        place = exact(key)
        owned = self._owned.get(owner, NO_ROWS)
        if self._is_unique:
            entry = self._unique.get(place)
            return [entry] if entry is not None and entry.number in owned else []
        # The fewer are walked: a popular key, or an owner of many.
        same = self._shared.get(place, NO_ROWS)
        few, many = (owned, same) if len(owned) < len(same) else (same, owned)
        own = [entry for number, entry in few.items() if number in many]
        return sorted(own, key=_by_number)

    def _mine(self, key: object, owner: Owner) -> Entry[Ref]:
        self._check_open()
        if not self._is_unique:
            raise TypeError("entries of shared keys cannot be updated")
        entry = self._unique.get(exact(key))
        if entry is None or entry.owner.ended:
            raise _unknown(key)
        if entry.owner is not owner:
            raise KeyTaken(key, entry.ref)
        return entry

    def _replace(self, old: Entry[Ref], new: Entry[Ref]) -> None:
        self._swap(old, new)
        self._tell(Updated(entry=new, old=old))

    def _unregister(self, entries: list[Entry[Ref]]) -> int:
        self._check_open()
        for entry in entries:
            self._take_out(entry)
        self._counts.unregistered += len(entries)
        self._tell(*[Unregistered(entry=entry, ended=False) for entry in entries])
        return len(entries)

    # --- rules -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise NotRunning("the registry is closed")
        if self._calling_out:
            raise RuntimeError(
                "a listener, test or change of value must not change the registry"
            )

    def _admit(self, key: object, place: object, owner: Owner) -> None:
        holder = self._unique.get(place)
        if holder is not None and holder.owner.ended:
            # Its clean-up is late; whoever comes next does not wait for it.
            self._owner_ended(holder.owner)
            holder = None
        if holder is None and not owner.ended and len(self._entries) < self.capacity:
            return
        self._counts.refused += 1
        if holder is not None:
            raise KeyTaken(key, holder.ref)
        if owner.ended:
            raise NotRunning(f"the owner of {key!r} has ended; it can hold nothing")
        raise RegistryFull(self.capacity)

    # --- owners ----------------------------------------------------------------------------------

    def _watch(self, owner: Owner) -> None:
        # Before all others: whoever hears of the end finds the entries gone.
        owner.watchers.insert(0, self._owner_ended)

    def _unwatch(self, owner: Owner) -> None:
        if self._owner_ended in owner.watchers:
            owner.watchers.remove(self._owner_ended)

    def _owner_ended(self, owner: Owner) -> None:
        """Nothing of it stays; a notice of somebody unknown leaves no trace."""
        owned = self._owned.pop(owner, NO_ROWS)
        for entry in owned.values():
            self._take_out(entry)
        self._unwatch(owner)
        self._counts.ended += len(owned)
        self._tell(*[Unregistered(entry=one, ended=True) for one in owned.values()])

    # --- batches ---------------------------------------------------------------------------------

    def _each(
        self,
        operations: Collection[Operation[Ref]],
        step: Callable[[Operation[Ref]], None],
        batch: Batch[Ref],
    ) -> None:
        for number, operation in enumerate(operations, 1):
            try:
                step(operation)
            except Exception as error:
                self._undo(batch.undo)
                error.add_note(
                    f"operation {number} of {len(operations)}; nothing of it was done"
                )
                raise

    def _do(self, batch: Batch[Ref], operation: Operation[Ref]) -> None:
        match operation:
            case Register():
                self._do_register(batch, operation)
            case Unregister():
                for entry in self._all_own(operation.key, operation.owner):
                    self._take_out(entry)
                    gone = Unregistered(entry=entry, ended=False)
                    batch.did(gone, partial(self._put, entry))
            case Update():
                old = self._mine(operation.key, operation.owner)
                new = updated(old, operation)
                self._swap(old, new)
                batch.did(Updated(entry=new, old=old), partial(self._swap, new, old))
            case _:
                assert_never(operation)

    def _do_register(self, batch: Batch[Ref], asked: Register[Ref]) -> None:
        place = exact(asked.key)
        self._admit(asked.key, place, asked.owner)
        attributes = freeze_attributes(asked.attributes)
        entry = self._make(
            asked.key, place, asked.ref, asked.owner, asked.value, attributes
        )
        self._put(entry)
        batch.did(Registered(entry=entry), partial(self._take_out, entry))

    def _all_own(self, key: object, owner: Owner) -> list[Entry[Ref]]:
        own = self._own(key, owner)
        if own:
            return own
        others = self._of(exact(key))
        if others:
            raise KeyTaken(key, others[0].ref)
        raise _unknown(key)

    def _undo(self, steps: list[Callable[[], None]]) -> None:
        for step in reversed(steps):
            step()

    def _count_batch(self, told: list[Happening[Ref]]) -> None:
        for one in told:
            if isinstance(one, Registered):
                self._counts.registered += 1
            elif isinstance(one, Unregistered):
                self._counts.unregistered += 1

    # --- queries ---------------------------------------------------------------------------------

    def _plan(self, query: Query) -> Plan[Ref]:
        """The fewest entries that may fulfil it, and what is left to ask them."""
        equal: list[Rows[Ref]] = []
        criteria: list[Where] = []
        for criterion in query.where:
            index = self._indexes.get(criterion.steps)
            if index is not None and criterion.op is Op.EQ:
                (place,) = criterion.wanted
                equal.append(index.buckets.get(place, NO_ROWS))
            else:
                criteria.append(criterion)
        plan = self._join(equal, criteria)
        rows = plan.rows
        if criteria:
            rows = self._fewer_by_value(criteria, rows)
        if query.key is not ANY:
            rows = self._fewer_by_key(query.key, rows)
        return plan if rows is plan.rows else Plan(rows, equal, criteria)

    def _join(self, equal: list[Rows[Ref]], criteria: list[Where]) -> Plan[Ref]:
        """Walk the smallest, ask the others."""
        rows = min(equal, key=len) if equal else self._entries
        return Plan(rows, [one for one in equal if one is not rows], criteria)

    def _count_query(self, examined: int) -> None:
        self._counts.queries += 1
        self._counts.rows += examined

    def _fewer_by_value(self, criteria: list[Where], rows: Rows[Ref]) -> Rows[Ref]:
        by_path: dict[tuple[str, ...], list[Where]] = {}
        for criterion in criteria:
            by_path.setdefault(criterion.steps, []).append(criterion)
        for steps, on_path in by_path.items():
            index = self._indexes.get(steps)
            buckets = index.buckets_in(on_path) if index is not None else None
            if buckets is not None:
                fewer = union(buckets, len(rows))
                rows = fewer if fewer is not None else rows
        return rows

    def _fewer_by_key(self, key: object, rows: Rows[Ref]) -> Rows[Ref]:
        """A key that is no pattern is looked up."""
        parts = key if isinstance(key, tuple) else (key,)
        if not all(type(part) in PLAIN for part in parts):
            return rows
        if self._is_unique:
            entry = self._unique.get(key)
            same = {entry.number: entry} if entry is not None else {}
        else:
            same = self._shared.get(key, NO_ROWS)
        return same if len(same) < len(rows) else rows

    def _ask(self, plan: Plan[Ref]) -> list[Entry[Ref]]:
        """Who fulfils the plan, oldest registration first."""
        rows = plan.rows
        numbers: Collection[int] = rows
        for other in plan.asked:
            # Walks the smaller of the two, in C: a third of the time of a loop.
            numbers = other.keys() & numbers
        entries = map(rows.__getitem__, sorted(numbers))
        found = [entry for entry in entries if not entry.owner.ended]
        for criterion in plan.criteria:
            found = [entry for entry in found if criterion.holds(entry.attributes)]
        return found

    def _fitting(self, entries: Iterable[Entry[Ref]], query: Query) -> list[Entry[Ref]]:
        with self._calling():
            return [entry for entry in entries if query.fits(entry)]

    # --- calling out -----------------------------------------------------------------------------

    @contextmanager
    def _calling(self) -> Iterator[None]:
        before, self._calling_out = self._calling_out, True
        try:
            yield
        finally:
            self._calling_out = before

    def _tell(self, *happenings: Happening[Ref]) -> None:
        if not (self._listeners and happenings):
            return
        with self._calling():
            for happening in happenings:
                for listener in tuple(self._listeners):
                    self._tell_one(listener, happening)

    def _tell_one(
        self, listener: Callable[[Happening[Ref]], object], happening: Happening[Ref]
    ) -> None:
        try:
            listener(happening)
        except Exception as error:  # noqa: BLE001 - one listener's bug is not an owner's
            self._listener_faults += 1
            self._last_listener_fault = Fault.capture(error)

    def _unlisten(self, listener: Callable[[Happening[Ref]], object]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)


def _unknown(key: object) -> NameUnknown:
    return NameUnknown(repr(key), f"nobody is registered as {key!r}")
