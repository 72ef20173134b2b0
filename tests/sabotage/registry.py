"""Broken registries, each in the place of `treewarden.registry.Registry`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

from treewarden import registry
from treewarden.registry import KeyTaken, Op, Registry
from treewarden.registry.attributes import MISSING, walk
from treewarden.registry.entry import Ref
from treewarden.registry.index import Plan
from treewarden.registry.keys import exact

from .double import Area

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from treewarden.registry import Entry, Owner, Query

DOUBLES: Final = Area("tests/runtime/registry")


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_f46_neither_unknown_notices_nor_normal_lives_leave_a_watch",
)
class KeepsItsWatch(Registry[Ref]):
    """F46: an owner without entries stays watched."""

    def _unwatch(self, owner: Owner) -> None:
        pass


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_f46_neither_unknown_notices_nor_normal_lives_leave_a_watch",
)
class RemembersStrangers(Registry[Ref]):
    """F46: a notice of somebody unknown leaves a trace."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.strangers: list[tuple[Owner, bytes]] = []

    def _owner_ended(self, owner: Owner) -> None:
        if owner not in self._owned:
            self.strangers.append((owner, bytes(100)))
        super()._owner_ended(owner)


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_f47_who_ends_while_registering_is_refused_or_taken_out_never_left",
)
class NeverAsksWhetherItLives(Registry[Ref]):
    """F47: an owner that has ended registers, and nobody takes the entry out."""

    def _admit(self, key: object, place: object, owner: Owner) -> None:
        holder = self._unique.get(place)
        if holder is not None:
            raise KeyTaken(key, holder.ref)


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_index.py::test_f53_an_equality_and_a_range_look_at_no_more_than_what_is_equal",
)
class LooksAtEverything(Registry[Ref]):
    """F53: the index is kept and never used."""

    def _plan(self, query: Query) -> Plan[Ref]:
        return Plan(self._entries, [], list(query.where))


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_criteria.py::test_h18_a_missing_attribute_is_in_no_order",
)
class MissingIsGreatest(Registry[Ref]):
    """H18: an entry without the attribute is beyond every bound."""

    def _ask(self, plan: Plan[Ref]) -> list[Entry[Ref]]:
        found = super()._ask(plan)
        for criterion in plan.criteria:
            if criterion.op in {Op.GT, Op.GTE}:
                for entry in self._entries.values():
                    if walk(entry.attributes, criterion.steps) is MISSING:
                        found.append(entry)
        return found


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_batch.py::test_h01_a_batch_that_fails_leaves_no_entry_that_outlives_its_owner",
)
class ForgetsWatchesOfAFailedBatch(Registry[Ref]):
    """H01: what the batch entered stays, and nobody watches its owners."""

    def _undo(self, steps: list[Callable[[], None]]) -> None:
        for owner in tuple(self._owned):
            owner.watchers.clear()


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_batch.py::test_f02_whichever_operation_fails_everything_is_as_it_was",
)
class UndoesOldestFirst(Registry[Ref]):
    """S02: updated twice and undone in the wrong order, the middle value stays."""

    def _undo(self, steps: list[Callable[[], None]]) -> None:
        for step in steps:
            step()


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_a_dead_owner_whose_clean_up_is_late_is_not_found_and_not_in_the_way",
)
class FindsTheDead(Registry[Ref]):
    """REG-04: an owner that has ended is still found until it is cleaned up."""

    def whereis(self, key: object) -> Any:
        entry = self._unique.get(exact(key))
        return entry.ref if entry is not None else None


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_nothing_of_an_owner_that_ended_is_left_in_any_table",
)
class NeverCleansUp(Registry[Ref]):
    """REG-03, pitfall 63: entries survive their owner."""

    def _owner_ended(self, owner: Owner) -> None:
        pass


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_a_dead_owner_whose_clean_up_is_late_is_not_found_and_not_in_the_way",
)
class TakesOutTheNextOnes(Registry[Ref]):
    """REG-04, pitfall 63: what the dead had is taken out by its key, whoever has that now."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._had: dict[int, list[object]] = {}

    def register(self, key: object, ref: Ref, **options: Any) -> Entry[Ref]:
        entry = super().register(key, ref, **options)
        self._had.setdefault(id(entry.owner), []).append(key)
        return entry

    def _owner_ended(self, owner: Owner) -> None:
        super()._owner_ended(owner)
        for key in self._had.get(id(owner), ()):
            for entry in self._of(exact(key)):
                self._take_out(entry)


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_unregistering_takes_out_only_what_is_ones_own",
)
class TakesOutAnybodys(Registry[Ref]):
    """REG-07: unregistering takes out what others have under the key."""

    def _own(self, key: object, owner: Owner) -> list[Entry[Ref]]:
        return self._of(exact(key))


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_keys.py::test_keys_of_different_types_are_different_keys",
)
class OneIsTrue(Registry[Ref]):
    """REG-10, pitfall 65: keys are compared as Python's dicts do."""

    def register(self, key: object, ref: Ref, **options: Any) -> Entry[Ref]:
        if isinstance(key, float):
            key = int(key)
        return super().register(key, ref, **options)


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_listeners_hear_what_comes_changes_and_goes",
)
class TellsDuringABatch(Registry[Ref]):
    """Listeners hear of what a batch then undoes."""

    def _put(self, entry: Entry[Ref]) -> None:
        super()._put(entry)
        for listener in self._listeners:
            listener(entry)  # type: ignore[arg-type]


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_a_lock_of_the_same_key_is_given_in_turn",
)
class LocksNobodyOut(Registry[Ref]):
    """REG-20: a lock that does not lock."""

    @asynccontextmanager
    async def lock(self, key: object) -> AsyncIterator[None]:
        yield


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_registry.py::test_of_a_hundred_tasks_that_race_for_a_key_one_wins",
)
class LooksTooEarly(Registry[Ref]):
    """REG-23, pitfall 64: free when it looked, and taken since."""

    def _admit(self, key: object, place: object, owner: Owner) -> None:
        pass


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_in_the_tree.py::test_a_name_is_free_before_anybody_hears_of_the_end",
)
class FreesNamesTooLate(Registry[Ref]):
    """MON-06, pitfall 61: whoever hears of the end still finds who ended."""

    def _owner_ended(self, owner: Owner) -> None:
        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            super(FreesNamesTooLate, self)._owner_ended(owner)

        trio.lowlevel.spawn_system_task(later)

    def lookup(self, key: object) -> tuple[Entry[Ref], ...]:
        entry = self._unique.get(exact(key))
        return (entry,) if entry is not None else ()


@DOUBLES.swaps(
    registry,
    "Registry",
    caught_by="test_index.py::test_h24_a_test_that_fails_comes_out_and_finds_nothing",
)
class IgnoresTestsThatFail(Registry[Ref]):
    """H24: a criterion that cannot be asked is left out, and more is found."""

    def _fitting(self, entries: Iterable[Entry[Ref]], query: Query) -> list[Entry[Ref]]:
        try:
            return super()._fitting(entries, query)
        except ZeroDivisionError:
            return list(entries)
