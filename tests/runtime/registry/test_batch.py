"""Batches: all of it or nothing, undone in reverse (design.md 6, S01, H01, F02)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from treewarden import NameUnknown, NotRunning
from treewarden.registry import (
    BATCH_LIMIT,
    KeyTaken,
    OwnerScope,
    Register,
    Registered,
    Registry,
    Unregister,
    Unregistered,
    Update,
    Updated,
)


def entering(key: object, owner: OwnerScope, **options: Any) -> Register[str]:
    return Register(key=key, ref="x", owner=owner, **options)


def test_a_batch_does_all_of_it_and_then_tells(
    unique: Registry[str], owner: OwnerScope
) -> None:
    heard: list[type] = []
    unique.register("old", "x", owner=owner, value=1)
    unique.listen(lambda it: heard.append(type(it)))
    entries = unique.apply(
        [
            entering("a", owner, value=1),
            Update(key="a", owner=owner, value=2),
            Update(key="a", owner=owner, attributes={"kind": 1}),
            Unregister(key="old", owner=owner),
            entering("old", owner, value=3),
        ]
    )
    assert heard == [Registered, Updated, Updated, Unregistered, Registered]
    assert [(e.key, e.value) for e in entries] == [
        ("a", 1), ("a", 2), ("a", 2), ("old", 3),
    ]  # fmt: skip
    assert dict(unique.lookup("a")[0].attributes) == {"kind": 1}
    statistics = unique.statistics()
    assert (statistics.entries, statistics.registered, statistics.unregistered) == (
        2, 3, 1,
    )  # fmt: skip
    assert unique.apply([]) == ()


def test_h01_a_batch_that_fails_leaves_no_entry_that_outlives_its_owner(
    unique: Registry[str], owner: OwnerScope, tables: Any, end: Any
) -> None:
    """H01"""
    first, second, third = OwnerScope(), OwnerScope(), OwnerScope()
    unique.register("taken", "x", owner=owner)
    unique.register("before", "x", owner=second)
    before = tables(unique)
    with pytest.raises(KeyTaken) as failed:
        unique.apply(
            [entering("a", first), entering("b", second), entering("taken", third)]
        )
    assert failed.value.__notes__ == ["operation 3 of 3; nothing of it was done"]
    assert tables(unique) == before
    assert first.watchers == third.watchers == []
    end(first)
    end(second)
    assert unique.lookup("a") == unique.lookup("b") == unique.lookup("before") == ()
    assert unique.keys(owner) == ["taken"]


def test_h01_what_a_batch_before_the_failed_one_did_still_goes_with_its_owner(
    unique: Registry[str], owner: OwnerScope, end: Any
) -> None:
    """H01"""
    first = OwnerScope()
    unique.apply([entering("a", first), entering("b", owner)])
    with pytest.raises(KeyTaken):
        unique.apply([Unregister(key="a", owner=first), entering("b", first)])
    assert unique.whereis("a") == "x"
    end(first)
    assert unique.whereis("a") is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda owner: Register(key=[], ref="x", owner=owner), TypeError),
        (lambda owner: entering("k", owner, attributes={"a": object()}), TypeError),
        (lambda owner: Update(key=float("nan"), owner=owner), ValueError),
        (lambda _: "register", TypeError),
        (lambda _: entering("k", ended()), NotRunning),
    ],
)
def test_a_batch_is_validated_whole_before_its_first_change(
    unique: Registry[str], owner: OwnerScope, wrong: Any, error: type[Exception]
) -> None:
    heard: list[object] = []
    unique.listen(heard.append)
    numbers = unique._number
    with pytest.raises(error) as failed:
        unique.apply([entering("a", owner), wrong(owner)])
    assert failed.value.__notes__ == ["operation 2 of 2; nothing of it was done"]
    assert heard == []
    assert unique._number == numbers


def ended() -> OwnerScope:
    owner = OwnerScope()
    owner.ended = True
    return owner


def test_a_batch_takes_out_only_ones_own(
    unique: Registry[str], owner: OwnerScope, other: OwnerScope
) -> None:
    unique.register("a", "x", owner=owner)
    with pytest.raises(KeyTaken):
        unique.apply([Unregister(key="a", owner=other)])
    with pytest.raises(NameUnknown):
        unique.apply([Unregister(key="b", owner=other)])


def test_a_batch_is_bounded(unique: Registry[str], owner: OwnerScope) -> None:
    with pytest.raises(ValueError, match="at most 1000 operations, not 1001"):
        unique.apply([entering(n, owner) for n in range(BATCH_LIMIT + 1)])
    assert unique.count() == 0


class Lists:
    """Random operations over six keys and three owners, some of which must fail."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.owners = [OwnerScope() for _ in range(3)]

    def operation(self) -> Any:
        pick = self._random
        key, owner = pick.randrange(6), pick.choice(self.owners)
        attributes = {"kind": pick.randrange(3), "load": pick.random()}
        match pick.randrange(4):
            case 0:
                return Unregister(key=key, owner=owner)
            case 1:
                return Update(key=key, owner=owner, value=pick.random())
            case 2:
                return Update(key=key, owner=owner, attributes=attributes)
            case _:
                return entering(key, owner, value=pick.random(), attributes=attributes)

    def filled(self) -> Registry[str]:
        registry = Registry[str]()
        registry.declare("kind")
        registry.declare("load", ordered=True)
        for key in range(0, 6, 2):
            owner = self._random.choice(self.owners)
            registry.register(key, "x", owner=owner, attributes={"kind": key})
        return registry

    def many(self) -> list[Any]:
        return [self.operation() for _ in range(self._random.randrange(1, 12))]


@pytest.mark.parametrize("seed", range(5))
def test_f02_whichever_operation_fails_everything_is_as_it_was(
    seed: int, tables: Any
) -> None:
    """F02 for batches: 500 random lists, a failing operation at every index."""
    lists = Lists(seed)
    for _ in range(100):
        registry, operations = lists.filled(), lists.many()
        before = tables(registry)
        for index in range(len(operations) + 1):
            broken = [*operations[:index], Unregister(key="no", owner=lists.owners[0])]
            with pytest.raises((KeyTaken, NameUnknown)):
                registry.apply(broken)
            assert tables(registry) == before
        for owner in lists.owners:
            registry._owner_ended(owner)
        assert registry.count() == 0
        assert all(owner.watchers == [] for owner in lists.owners)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_that_succeeds_is_its_operations_one_by_one(seed: int) -> None:
    lists = Lists(seed)
    for _ in range(100):
        single, whole = Registry[str](), Registry[str]()
        succeeded: list[Any] = []
        for operation in lists.many():
            try:
                single.apply([operation])
            except (KeyTaken, NameUnknown):
                continue
            succeeded.append(operation)
        whole.apply(succeeded)
        assert rows(whole) == rows(single)
        for owner in lists.owners:
            assert owner.watchers.count(whole._owner_ended) == bool(whole.keys(owner))
            whole._owner_ended(owner)
            single._owner_ended(owner)


def rows(registry: Registry[str]) -> list[tuple[object, ...]]:
    return [
        (entry.key, entry.ref, entry.owner, entry.value, dict(entry.attributes))
        for entry in registry.select()
    ]
