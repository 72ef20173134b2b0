"""The registry: spec 1.16, systems S01, and the flaws F46 and F47."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import NameUnknown, NotRunning
from treewarden.registry import (
    ANY,
    KeyTaken,
    OwnerScope,
    Registered,
    Registry,
    RegistryFull,
    Unregistered,
    Updated,
    Where,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.registry import Entry


def values(entries: Any) -> list[object]:
    return [entry.value for entry in entries]


# --- registering ---------------------------------------------------------------------------


def test_an_owner_has_a_unique_key_once(
    unique: Registry[str], owner: OwnerScope
) -> None:
    """REG-01"""
    unique.register("hello", "me", owner=owner, value=1)
    with pytest.raises(KeyTaken) as taken:
        unique.register("hello", "me", owner=owner, value=2)
    assert taken.value.holder == "me"
    unique.register("world", "me", owner=owner, value=3)
    assert unique.keys(owner) == ["hello", "world"]
    assert unique.values("hello", owner) == [1]
    assert unique.values("world", owner) == [3]
    assert unique.values("nobody", owner) == []


def test_a_unique_key_names_who_holds_it(
    unique: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-02"""
    unique.register("hello", "first", owner=owner)
    with pytest.raises(KeyTaken, match="'hello' is registered already, by 'first'"):
        unique.register("hello", "second", owner=other)
    assert unique.whereis("hello") == "first"
    assert unique.values("hello", other) == []


@pytest.mark.parametrize("kind", ["unique", "shared"])
def test_nothing_of_an_owner_that_ended_is_left_in_any_table(
    kind: str, end: Any, tables: Any, owner: OwnerScope
) -> None:
    """REG-03, pitfall 63"""
    registry = Registry[str](kind)
    registry.declare("tags")
    registry.declare("load", ordered=True)
    empty = tables(registry)
    for key in ("a", "b", ("c", 1.0)):
        attributes = {"tags": ["x", "x", "y"], "load": len(key)}
        registry.register(key, "me", owner=owner, attributes=attributes)
    end(owner)
    assert tables(registry) == empty
    assert owner.watchers == []
    assert registry.statistics().ended == 3


def test_a_dead_owner_whose_clean_up_is_late_is_not_found_and_not_in_the_way(
    unique: Registry[str], shared: Registry[str], other: OwnerScope
) -> None:
    """REG-04, pitfall 63"""
    dead = OwnerScope()
    unique.register("hello", "dead", owner=dead, attributes={"kind": 1})
    shared.register("hello", "dead", owner=dead)
    dead.ended = True  # its watchers were not called yet
    late = tuple(dead.watchers)
    assert unique.whereis("hello") is None
    assert unique.lookup("hello") == shared.lookup("hello") == ()
    assert unique.find(kind=1) == ()
    with pytest.raises(NameUnknown):
        unique.update("hello", str, owner=dead)
    unique.register("hello", "alive", owner=other)
    assert unique.whereis("hello") == "alive"
    for watcher in late:
        watcher(dead)
    assert unique.whereis("hello") == "alive"
    assert dead.watchers == []
    assert unique.count() == 1
    assert shared.count() == 0


def test_refused_registrations_leave_nothing_behind(
    tables: Any, owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-05"""
    registry = Registry[str](capacity=2)
    registry.declare("kind")
    registry.register("a", "me", owner=owner, attributes={"kind": 1})
    registry.register("b", "me", owner=owner)
    before = tables(registry)
    for key, error in (("a", KeyTaken), ("c", RegistryFull), ([], TypeError)):
        for who in (owner, other):
            with pytest.raises(error):
                registry.register(key, "x", owner=who, attributes={"kind": 2})
    with pytest.raises(TypeError):
        registry.register("d", "x", owner=other, attributes={"kind": object()})
    assert tables(registry) == before
    assert other.watchers == []
    assert registry.statistics().refused == 4


def test_a_shared_key_is_anybodys_and_also_twice_ones_own(
    shared: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-06"""
    shared.register("hello", "first", owner=owner, value=1)
    shared.register("hello", "first", owner=owner, value=2)
    shared.register("hello", "second", owner=other, value=3)
    assert values(shared.lookup("hello")) == [1, 2, 3]
    assert shared.keys(owner) == ["hello", "hello"]
    assert shared.values("hello", owner) == [1, 2]


@pytest.mark.parametrize("kind", ["unique", "shared"])
def test_unregistering_takes_out_only_what_is_ones_own(
    kind: str, owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-07"""
    registry = Registry[str](kind)
    registry.register("a", "me", owner=owner)
    registry.register("b", "me", owner=owner)
    assert registry.unregister("a", owner=other) == 0
    assert registry.unregister("unknown", owner=owner) == 0
    assert registry.unregister("a", owner=owner) == 1
    assert registry.unregister("a", owner=owner) == 0
    assert registry.keys(owner) == ["b"]
    assert registry.unregister("b", owner=owner) == 1
    assert owner.watchers == []


def test_all_ones_own_entries_of_a_shared_key_go_together(
    shared: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-07"""
    for who in (owner, other, owner):
        shared.register("a", "x", owner=who)
    assert shared.unregister("a", owner=owner) == 2
    assert len(shared.lookup("a")) == 1


def test_the_owner_of_a_unique_key_updates_its_value(
    unique: Registry[str], owner: OwnerScope
) -> None:
    """REG-08"""
    unique.register("n", "me", owner=owner, value=1)
    (before,) = unique.lookup("n")
    assert unique.update("n", lambda value: value + 1, owner=owner) == (2, 1)
    assert values(unique.lookup("n")) == [2]
    assert before.value == 1


def test_nobody_else_updates_it_and_the_function_is_not_called(
    unique: Registry[str], shared: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-08"""
    unique.register("n", "me", owner=owner, value=1)
    shared.register("n", "me", owner=owner, value=1)
    called: list[object] = []
    with pytest.raises(KeyTaken):
        unique.update("n", called.append, owner=other)
    with pytest.raises(NameUnknown):
        unique.update("m", called.append, owner=owner)
    with pytest.raises(TypeError, match="shared"):
        shared.update("n", called.append, owner=owner)
    assert called == []


def test_a_change_of_value_that_fails_or_meddles_changes_nothing(
    unique: Registry[str], owner: OwnerScope
) -> None:
    """REG-08"""
    unique.register("n", "me", owner=owner, value=1)
    with pytest.raises(ZeroDivisionError):
        unique.update("n", lambda value: value / 0, owner=owner)
    with pytest.raises(RuntimeError, match="must not change the registry"):
        unique.update("n", lambda _: unique.unregister("n", owner=owner), owner=owner)
    with pytest.raises(NotRunning):
        unique.update("n", lambda _: owner.__exit__(None, None, None), owner=owner)
    assert unique.count() == 0


def test_attributes_are_replaced_whole_and_found_by_the_new_ones(
    unique: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    """S01"""
    unique.declare("health")
    unique.register("a", "me", owner=owner, attributes={"health": "good", "x": 1})
    unique.put_attributes("a", {"health": "bad"}, owner=owner)
    assert unique.find(health="good") == ()
    assert dict(unique.find(health="bad")[0].attributes) == {"health": "bad"}
    with pytest.raises(KeyTaken):
        unique.put_attributes("a", {}, owner=other)
    with pytest.raises(ValueError, match="equal itself"):
        unique.put_attributes("a", {"health": float("nan")}, owner=owner)
    assert len(unique.find(health="bad")) == 1


def test_a_registry_is_bounded(owner: OwnerScope) -> None:
    registry = Registry[str]("shared", capacity=2)
    registry.register("a", "x", owner=owner)
    registry.register("a", "x", owner=owner)
    with pytest.raises(RegistryFull, match="2 entries"):
        registry.register("a", "x", owner=owner)
    registry.put_meta("a", 1)
    registry.put_meta("b", 1)
    registry.put_meta("b", 2)
    with pytest.raises(RegistryFull):
        registry.put_meta("c", 1)
    with pytest.raises(ValueError, match="capacity must be >= 1 entry, not 0"):
        Registry(capacity=0)
    with pytest.raises(ValueError, match="'twice' is not a valid Keys"):
        Registry("twice")


def test_meta_is_kept_apart_from_the_entries(unique: Registry[str]) -> None:
    assert unique.meta("a") is None
    unique.put_meta("a", 1)
    unique.put_meta(1.0, "one")
    assert (unique.meta("a"), unique.meta(1, "none"), unique.count()) == (1, "none", 0)
    unique.delete_meta("a")
    unique.delete_meta("a")
    assert unique.meta("a", 0) == 0


# --- looking up ------------------------------------------------------------------------------


def test_values_match_by_shape_and_test(
    shared: Registry[str], owner: OwnerScope
) -> None:
    """REG-09"""
    for value in ((1, "a"), (2, "b"), {"kind": "x", "n": 1}):
        shared.register("k", "me", owner=owner, value=value)
    assert values(shared.match("k", (1, ANY))) == [(1, "a")]
    assert values(shared.match("k", {"kind": "x"})) == [{"kind": "x", "n": 1}]
    assert len(shared.match("k", ANY)) == 3
    big = shared.match("k", (ANY, ANY), test=lambda entry: entry.value != (1, "a"))
    assert values(big) == [(2, "b")]
    assert shared.match("unknown", ANY) == []


@pytest.mark.parametrize("kind", ["unique", "shared"])
def test_what_matches_is_counted_and_unregistered(
    kind: str, owner: OwnerScope, other: OwnerScope
) -> None:
    """REG-12"""
    registry = Registry[str](kind)
    registry.register("k", "me", owner=owner, value=(1, "a"))
    assert registry.count_match("k", (ANY, "a")) == 1
    assert registry.count_match("k", (ANY, "a"), test=lambda _: False) == 0
    assert registry.unregister_match("k", (ANY, "a"), owner=other) == 0
    assert registry.unregister_match("k", (ANY, "b"), owner=owner) == 0
    no = registry.unregister_match("k", ANY, owner=owner, test=lambda _: False)
    assert no == 0
    assert registry.unregister_match("k", (ANY, "a"), owner=owner) == 1
    assert registry.count() == 0


def test_entries_are_counted(shared: Registry[str], owner: OwnerScope) -> None:
    """REG-14"""
    assert shared.count() == 0
    for _ in range(3):
        shared.register("k", "me", owner=owner)
    assert shared.count() == 3


def test_dispatch_calls_once_with_all_entries_of_the_key(
    shared: Registry[str], owner: OwnerScope
) -> None:
    """REG-15"""
    shared.register("k", "first", owner=owner, value=1)
    shared.register("k", "second", owner=owner, value=2)
    shared.register("other", "third", owner=owner)
    calls: list[tuple[Entry[str], ...]] = []
    shared.dispatch("k", calls.append)
    shared.dispatch("unknown", calls.append)
    assert [[(e.ref, e.value) for e in call] for call in calls] == [
        [("first", 1), ("second", 2)]
    ]


def test_what_a_dispatch_raises_comes_out_and_leaves_nothing(
    shared: Registry[str], owner: OwnerScope
) -> None:
    """REG-16"""
    shared.register("k", "me", owner=owner)

    def fail(_: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shared.dispatch("k", fail)
    assert shared.count() == 1


async def test_a_parallel_dispatch_runs_in_the_nursery_that_it_is_given(
    shared: Registry[str], owner: OwnerScope
) -> None:
    """REG-16"""
    for ref in ("first", "second"):
        shared.register("k", ref, owner=owner)
    shared.register("other", "third", owner=owner)
    started: set[str] = set()

    async def fail(entry: Entry[str]) -> None:
        started.add(entry.ref)
        await trio.lowlevel.checkpoint()
        raise ValueError(entry.ref)

    with pytest.raises(BaseExceptionGroup) as failed:
        async with trio.open_nursery() as nursery:
            shared.dispatch_soon(nursery, "k", fail)
            assert started == set()
    assert started == {"first", "second"}
    assert failed.value.subgroup(ValueError) is not None


def test_listeners_hear_what_comes_changes_and_goes(
    unique: Registry[str], owner: OwnerScope, end: Any
) -> None:
    """REG-17"""
    heard: list[tuple[type, object, object]] = []

    def hear(it: Registered[str] | Updated[str] | Unregistered[str]) -> None:
        assert it.entry.ref == "me"
        heard.append((type(it), it.entry.key, it.entry.value))

    stop = unique.listen(hear)
    unique.register("a", "me", owner=owner, value=1)
    unique.update("a", lambda _: 2, owner=owner)
    unique.register("b", "me", owner=owner, value=3)
    unique.unregister("a", owner=owner)
    end(owner)
    assert heard == [
        (Registered, "a", 1),
        (Updated, "a", 2),
        (Registered, "b", 3),
        (Unregistered, "a", 2),
        (Unregistered, "b", 3),
    ]
    stop()
    stop()
    with OwnerScope() as third:
        unique.register("c", "me", owner=third)
    assert len(heard) == 5


def test_a_listener_that_fails_or_meddles_is_counted_and_harms_nobody(
    unique: Registry[str], owner: OwnerScope
) -> None:
    """REG-17"""
    heard: list[object] = []
    unique.listen(lambda it: unique.unregister(it.entry.key, owner=owner))
    unique.listen(heard.append)
    unique.register("a", "me", owner=owner)
    statistics = unique.statistics()
    assert unique.whereis("a") == "me"
    assert len(heard) == 1
    assert statistics.listener_faults == 1
    assert statistics.last_listener_fault is not None
    assert "must not change" in statistics.last_listener_fault.message


def test_a_shared_key_cannot_be_used_as_a_name(
    unique: Registry[str], shared: Registry[str]
) -> None:
    """REG-18"""
    assert unique.whereis("nobody") is None
    with pytest.raises(NameUnknown, match=r"^nobody is registered as 'nobody'$"):
        unique.ref("nobody")
    with pytest.raises(TypeError, match="no single ref"):
        shared.whereis("k")


def test_a_closed_registry_says_so_and_its_owners_live_on(
    unique: Registry[str], owner: OwnerScope
) -> None:
    """REG-19"""
    heard: list[object] = []
    unique.register("a", "me", owner=owner)
    unique.listen(heard.append)
    unique.close()
    unique.close()
    assert [type(one) for one in heard] == [Unregistered]
    assert unique.count() == 0
    assert not owner.ended
    assert owner.watchers == []
    for refused in (
        lambda: unique.register("a", "me", owner=owner),
        lambda: unique.unregister("a", owner=owner),
        lambda: unique.apply([]),
    ):
        with pytest.raises(NotRunning, match="registry is closed"):
            refused()


# --- races, owners that are no children ------------------------------------------------------


async def test_of_a_hundred_tasks_that_race_for_a_key_one_wins(
    unique: Registry[str],
) -> None:
    """REG-23, pitfall 64"""
    won: list[int] = []
    lost: list[int] = []
    over = trio.Event()

    async def race(number: int) -> None:
        with OwnerScope() as me:
            await trio.lowlevel.checkpoint()
            try:
                unique.register("prize", str(number), owner=me)
            except KeyTaken:
                lost.append(number)
            else:
                won.append(number)
            await over.wait()

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(race, number)
        await wait_all_tasks_blocked()
        assert unique.whereis("prize") == str(won[0])
        over.set()
    assert (len(won), len(lost)) == (1, 99)
    assert unique.count() == 0


async def test_a_plain_task_has_entries_as_long_as_its_scope(
    unique: Registry[str],
) -> None:
    """REG-24"""
    with trio.CancelScope() as scope, OwnerScope() as me:
        unique.register("a", "task", owner=me)
        scope.cancel()
        assert unique.whereis("a") == "task"
        await trio.sleep_forever()
    assert unique.whereis("a") is None
    with pytest.raises(NotRunning, match="owner of 'b' has ended"):
        unique.register("b", "task", owner=me)


def test_f46_neither_unknown_notices_nor_normal_lives_leave_a_watch() -> None:
    """F46"""
    registry = Registry[str]()
    registry.declare("kind")

    def cycle(number: int) -> None:
        registry._owner_ended(OwnerScope())
        with OwnerScope() as me:
            registry.register(number, "me", owner=me, attributes={"kind": number})
            registry.register("again", "me", owner=me)
            registry.unregister("again", owner=me)
            registry.put_attributes(number, {"kind": -number}, owner=me)
            if number % 2:
                registry.unregister(number, owner=me)
                assert me.watchers == []
        assert me.watchers == []

    cycle(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            cycle(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    statistics = registry.statistics()
    assert (statistics.entries, statistics.owners) == (0, 0)
    assert statistics.indexes[0].values == 0
    assert after - before < 1_000_000


@pytest.mark.parametrize("seed", range(3))
async def test_f47_who_ends_while_registering_is_refused_or_taken_out_never_left(
    seed: int,
) -> None:
    """F47"""
    registry = Registry[str]()
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    refused: set[object] = set()
    went: set[object] = set()

    def hear(happening: object) -> None:
        if isinstance(happening, Unregistered):
            assert happening.ended
            went.add(happening.entry.key)

    registry.listen(hear)

    async def live(owner: OwnerScope, steps: int) -> None:
        with owner:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()

    async def enter(number: int, owner: OwnerScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        try:
            registry.register(number, "agent", owner=owner)
        except NotRunning:
            refused.add(number)
        assert all(not e.owner.ended for e in registry.select())

    # In hundreds, so that looking at all rows each time stays cheap.
    for first in range(0, 2000, 100):
        async with trio.open_nursery() as nursery:
            for number in range(first, first + 100):
                owner = OwnerScope()
                nursery.start_soon(live, owner, chance.randrange(6))
                nursery.start_soon(enter, number, owner, chance.randrange(6))
    assert registry.count() == 0
    assert refused | went == set(range(2000))
    assert refused & went == set()
    assert min(len(refused), len(went)) > 100


# --- locks -----------------------------------------------------------------------------------


async def test_locks_of_different_keys_do_not_meet(unique: Registry[str]) -> None:
    """REG-20"""
    async with unique.lock("a"), unique.lock("b"), unique.lock(1), unique.lock(1.0):
        assert unique.statistics().locks == 4
    assert unique.statistics().locks == 0


async def test_a_lock_of_the_same_key_is_given_in_turn(unique: Registry[str]) -> None:
    """REG-20"""
    order: list[str] = []

    async def work(name: str) -> None:
        async with unique.lock("k"):
            order.append(f"{name} in")
            await wait_all_tasks_blocked()
            order.append(f"{name} out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "a")
        nursery.start_soon(work, "b")
    first, second = order[0][0], order[2][0]
    assert order == [f"{n} {what}" for n in (first, second) for what in ("in", "out")]


@pytest.mark.parametrize("how", ["raises", "killed"])
async def test_a_lock_is_free_when_its_holder_failed(
    unique: Registry[str], how: str
) -> None:
    """REG-20"""
    if how == "raises":
        with pytest.raises(ValueError, match="no"):
            async with unique.lock("k"):
                raise ValueError("no")
    else:
        with trio.CancelScope() as scope:
            async with unique.lock("k"):
                scope.cancel()
                await trio.sleep_forever()
    async with unique.lock("k"):
        pass
    assert unique.statistics().locks == 0


async def test_a_lock_outlives_a_waiter_that_was_killed_in_the_queue(
    unique: Registry[str],
) -> None:
    """REG-20"""
    waiter = trio.CancelScope()
    held: list[str] = []

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with unique.lock("k"):
                held.append(name)

    async with trio.open_nursery() as nursery, unique.lock("k"):
        nursery.start_soon(wait, "killed", waiter)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, "patient", trio.CancelScope())
        await wait_all_tasks_blocked()
        waiter.cancel()
        await wait_all_tasks_blocked()
        assert held == []
    assert held == ["patient"]
    assert unique.statistics().locks == 0


# --- how it stands -----------------------------------------------------------------------------


def test_the_accounts_add_up(
    unique: Registry[str], owner: OwnerScope, end: Callable[[OwnerScope], None]
) -> None:
    unique.declare("kind")
    for key in ("a", "b", "c"):
        unique.register(key, "me", owner=owner, attributes={"kind": key})
    unique.unregister("a", owner=owner)
    unique.select(Where("kind", "eq", "b"))
    statistics = unique.statistics()
    assert (statistics.entries, statistics.owners, statistics.registered) == (2, 1, 3)
    assert (statistics.queries, statistics.rows_examined) == (1, 1)
    assert (statistics.indexes[0].path, statistics.indexes[0].entries) == (("kind",), 2)
    end(owner)
    statistics = unique.statistics()
    left = statistics.registered - statistics.unregistered - statistics.ended
    assert statistics.entries == left == 0
