"""The registry against a naive model: a list of what is registered, looked through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from treewarden import NameUnknown, NotRunning
from treewarden.registry import (
    KeyTaken,
    OwnerScope,
    Registered,
    Registry,
    RegistryFull,
    Unregistered,
    Where,
)

CAPACITY = 6
OWNERS = st.integers(0, 3)
KEYS = st.sampled_from([1, 1.0, True, "a", ("a", 1), ("a", 1.0)])
KINDS = st.sampled_from(["x", "y", 1, 1.0, None])


def spelt(key: object) -> str:
    """Distinguishes what Python's `==` does not."""
    return repr(key)


@dataclass
class Row:
    key: object
    owner: OwnerScope
    value: int
    kind: object


class RegistryModel(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(["unique", "shared"]), indexed=st.booleans())
    def begin(self, kind: str, indexed: bool) -> None:
        self.is_unique = kind == "unique"
        self.registry = Registry[str](kind, capacity=CAPACITY)
        if indexed:
            self.registry.declare("kind")
        self.owners = [OwnerScope() for _ in range(4)]
        self.rows: list[Row] = []
        self.balance = 0
        self.registry.listen(self.hear)

    def hear(self, happening: Any) -> None:
        self.balance += isinstance(happening, Registered)
        self.balance -= isinstance(happening, Unregistered)

    def of(self, key: object) -> list[Row]:
        return [row for row in self.rows if spelt(row.key) == spelt(key)]

    def expected(self, key: object, owner: OwnerScope) -> type[Exception] | None:
        if self.is_unique and self.of(key):
            return KeyTaken
        if owner.ended:
            return NotRunning
        return RegistryFull if len(self.rows) >= CAPACITY else None

    @rule(key=KEYS, number=OWNERS, value=st.integers(0, 9), kind=KINDS)
    def register(self, key: object, number: int, value: int, kind: object) -> None:
        owner = self.owners[number]
        error = self.expected(key, owner)
        options: Any = {"owner": owner, "value": value, "attributes": {"kind": kind}}
        if error is not None:
            with pytest.raises(error):
                self.registry.register(key, "x", **options)
            return
        self.registry.register(key, "x", **options)
        self.rows.append(Row(key, owner, value, kind))

    @rule(key=KEYS, number=OWNERS)
    def unregister(self, key: object, number: int) -> None:
        own = [row for row in self.of(key) if row.owner is self.owners[number]]
        assert self.registry.unregister(key, owner=self.owners[number]) == len(own)
        self.rows = [row for row in self.rows if row not in own]

    @rule(key=KEYS, number=OWNERS, kind=KINDS)
    def change(self, key: object, number: int, kind: object) -> None:
        owner, found = self.owners[number], self.of(key)
        if not self.is_unique:
            error: type[Exception] = TypeError
        elif not found:
            error = NameUnknown
        elif found[0].owner is not owner:
            error = KeyTaken
        else:
            self.registry.put_attributes(key, {"kind": kind}, owner=owner)
            self.registry.update(key, lambda value: value + 1, owner=owner)
            found[0].kind = kind
            found[0].value += 1
            return
        with pytest.raises(error):
            self.registry.put_attributes(key, {"kind": kind}, owner=owner)

    @rule(number=OWNERS)
    def end(self, number: int) -> None:
        """The next incarnation takes its place."""
        ended, self.owners[number] = self.owners[number], OwnerScope()
        ended.__exit__(None, None, None)
        self.rows = [row for row in self.rows if row.owner is not ended]
        with pytest.raises((NotRunning, KeyTaken)):
            self.registry.register("a", "x", owner=ended)

    @rule(kind=KINDS)
    def search(self, kind: object) -> None:
        found = self.registry.select(Where("kind", "eq", kind))
        assert [spelt(entry.key) for entry in found] == [
            spelt(row.key) for row in self.rows if spelt(row.kind) == spelt(kind)
        ]

    @rule(key=KEYS)
    def look_up(self, key: object) -> None:
        assert [(entry.owner, entry.value) for entry in self.registry.lookup(key)] == [
            (row.owner, row.value) for row in self.of(key)
        ]

    @invariant()
    def agrees(self) -> None:
        statistics = self.registry.statistics()
        holders = {id(row.owner) for row in self.rows}
        assert statistics.entries == len(self.rows) == self.balance
        assert statistics.owners == len(holders)
        for owner in self.owners:
            watches = owner.watchers.count(self.registry._owner_ended)
            assert watches == (id(owner) in holders)


TestRegistryModel = RegistryModel.TestCase
