"""Values that end, checked against a naive model, and in every order of three tasks."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from treewarden.resilience import Hit, Miss, MissReason
from treewarden.resilience.entries import Entries

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

KEYS = st.sampled_from("abcde")
SIZE = 3


class EntriesMachine(RuleBasedStateMachine):
    """The model is a list of (key, value, end), the one written last at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.entries: Entries[str, int] = Entries(SIZE)
        self.model: list[tuple[str, int, float]] = []
        self.versions: dict[int, str] = {}
        self.written = 0

    def take(self, key: str) -> tuple[str, int, float] | None:
        for entry in self.model:
            if entry[0] == key:
                self.model.remove(entry)
                return entry
        return None

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=KEYS, lasts=st.sampled_from([1, 3, math.inf]))
    def somebody_writes(self, key: str, lasts: float) -> None:
        self.written += 1
        evicted = 0
        if self.take(key) is None and len(self.model) == SIZE:
            self.model.pop(0)
            evicted = 1
        self.model.append((key, self.written, self.now + lasts))
        assert self.entries.put(key, self.written, self.now + lasts) == evicted

    @rule(key=KEYS)
    def somebody_reads(self, key: str) -> None:
        found = self.entries.look(key, self.now)
        entry = self.take(key)
        if entry is None:
            assert found == Miss(MissReason.NOT_FOUND)
        elif entry[2] <= self.now:
            assert found == Miss(MissReason.EXPIRED)
        else:
            self.model.append(entry)
            self.model.sort(key=lambda one: one[1])
            assert isinstance(found, Hit)
            assert (found.value, found.expires_at) == (entry[1], entry[2])
            self.versions[found.version] = key

    @rule(key=KEYS)
    def somebody_sweeps(self, key: str) -> None:
        over = any(one[0] == key and one[2] <= self.now for one in self.model)
        assert self.entries.end(key, self.now) == over
        if over:
            self.take(key)

    @rule(key=KEYS)
    def somebody_deletes(self, key: str) -> None:
        assert self.entries.delete(key) == (self.take(key) is not None)

    @rule(place=st.integers(0, 20))
    def somebody_deletes_what_was_read_before(self, place: int) -> None:
        if not self.versions:
            return
        version = list(self.versions)[place % len(self.versions)]
        key = self.versions[version]
        # Each write has the number of its version: a newer value has another one.
        there = any(one[0] == key and one[1] == version for one in self.model)
        assert self.entries.delete(key, version) == there
        if there:
            self.take(key)

    @rule()
    def somebody_clears(self) -> None:
        assert self.entries.clear() == len(self.model)
        self.model.clear()

    @invariant()
    def they_agree(self) -> None:
        assert len(self.entries) == len(self.model) <= SIZE
        assert self.entries.keys() == [key for key, _, _ in self.model]


TestEntriesMachine = EntriesMachine.TestCase
TestEntriesMachine.settings = settings(
    max_examples=max(500, settings().max_examples), stateful_step_count=15
)


def all_orders(steps: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every order in which tasks of so many steps can take them."""
    yield from set(
        permutations([task for task, n in enumerate(steps) for _ in range(n)])
    )


def run(order: tuple[int, ...], *tasks: Generator[None, None, None]) -> None:
    for task in order:
        next(tasks[task], None)


def remove_the_old(entries: Entries[str, str]) -> Generator[None, None, None]:
    """Look, think, remove what was old: two steps, between which others come."""
    found = entries.look("key", 0.9)
    yield
    if isinstance(found, Hit) and found.value == "old":
        entries.delete("key", found.version)
    yield


def read(entries: Entries[str, str]) -> Generator[None, None, None]:
    for _ in range(2):
        entries.look("key", 1.1)
        yield


def write(entries: Entries[str, str]) -> Generator[None, None, None]:
    yield
    entries.put("key", "fresh")
    yield


def test_f66_a_fresh_value_is_never_removed_whatever_the_order_of_three_tasks() -> None:
    """F66: between looking at an old value and removing it somebody wrote a new one."""
    for others in (remove_the_old, read):
        for order in all_orders((2, 2, 2)):
            entries: Entries[str, str] = Entries(10)
            entries.put("key", "old", 1.0)
            run(order, remove_the_old(entries), write(entries), others(entries))
            last = entries.look("key", 1.1)
            assert isinstance(last, Hit), order
            assert last.value == "fresh"


def look_twice(
    entries: Entries[str, str], missed: list[Hit[str] | Miss]
) -> Generator[None, None, None]:
    for _ in range(2):
        missed.append(entries.look("key", 1.0))
        yield


def test_f66_a_value_that_is_over_is_missed_as_such_once() -> None:
    for order in all_orders((2, 2, 2)):
        entries: Entries[str, str] = Entries(10)
        entries.put("key", "old", 1.0)
        missed: list[Hit[str] | Miss] = []
        run(order, *(look_twice(entries, missed) for _ in range(3)))
        assert missed == [Miss(MissReason.EXPIRED)] + [Miss(MissReason.NOT_FOUND)] * 5
