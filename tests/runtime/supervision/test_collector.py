"""Python's collector in a runtime's hands."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.supervision.collector import Collector, Growth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World


@pytest.fixture(autouse=True)
def pythons_own() -> Iterator[None]:
    """As it is in a fresh process; and afterwards as it was: `conftest` has frozen it."""
    before, was_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.enable()
    gc.set_threshold(*before)
    gc.unfreeze()
    if was_frozen:
        gc.freeze()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One that has taken over."""
    collector = Collector()
    collector.take_over()
    yield collector
    collector.give_back()


class Garbage:
    """What only the collector finds, for it keeps itself."""

    def __init__(self) -> None:
        self.itself = self


def is_old(thing: object) -> bool:
    return any(one is thing for one in gc.get_objects(generation=2))


# --- growth ---------------------------------------------------------------------------------


def test_every_so_many_nodes_a_tree_is_larger_than_it_ever_was() -> None:
    growth = Growth(step=10)
    assert [size for size in range(35) if growth.passes(size)] == [10, 20, 30]


def test_a_tree_that_shrinks_and_grows_again_is_not_larger_than_it_ever_was() -> None:
    growth = Growth(step=10)
    assert growth.passes(25)
    assert not any(growth.passes(size) for size in [*range(35)] * 3)
    assert growth.passes(35)


@given(st.lists(st.integers(0, 1000)), st.integers(1, 100))
def test_a_tree_passes_at_most_once_for_each_step_that_it_ever_had(
    sizes: list[int], step: int
) -> None:
    growth = Growth(step)
    assert sum(growth.passes(size) for size in sizes) <= max([*sizes, 0]) // step


# --- the collector --------------------------------------------------------------------------


def test_it_looks_less_often_until_it_is_given_back() -> None:
    collector = Collector()
    collector.take_over()
    assert gc.get_threshold() == (5000, 10, 10)
    collector.give_back()
    assert gc.get_threshold() == (700, 10, 10)


def test_who_has_chosen_how_often_keeps_that() -> None:
    gc.set_threshold(123, 4, 5)
    collector = Collector()
    collector.take_over()
    gc.collect(0)  # it is due at once, and would find `young`
    young = Garbage()
    collector.grown(1000)
    assert not is_old(young)
    collector.give_back()
    assert gc.get_threshold() == (123, 4, 5)


def test_who_chooses_meanwhile_keeps_that_too(collector: Collector) -> None:
    gc.set_threshold(123, 4, 5)
    gc.collect(0)  # it is due at once, and would find `young`
    young = Garbage()
    collector.grown(1000)
    assert not is_old(young)
    collector.give_back()
    assert gc.get_threshold() == (123, 4, 5)


def test_what_is_young_counts_as_old_when_the_tree_has_grown(
    collector: Collector,
) -> None:
    young = Garbage()
    collector.grown(1)
    assert not is_old(young)
    collector.grown(1000)
    assert is_old(young)
    assert gc.get_freeze_count() == 0


def test_garbage_that_counts_as_old_is_found_by_the_next_full_collection(
    collector: Collector,
) -> None:
    gone = weakref.ref(Garbage())
    collector.grown(1000)
    gc.collect(0)
    assert gone() is not None
    gc.collect()
    assert gone() is None


def test_what_somebody_has_frozen_stays_frozen(collector: Collector) -> None:
    frozen = Garbage()
    gc.freeze()
    count = gc.get_freeze_count()
    collector.grown(1000)
    assert gc.get_freeze_count() >= count - 10
    assert not is_old(frozen)


def test_a_collector_that_was_switched_off_is_left_alone(collector: Collector) -> None:
    gc.disable()
    young = Garbage()
    collector.grown(1000)
    assert not is_old(young)


async def test_a_tree_tells_of_every_node_that_it_has_more(world: World) -> None:
    sizes: list[int] = []
    async with world.open() as root:
        world.directory.grown = sizes.append
        for id_ in ("a", "b"):
            await root.start_child(world.child(id_))
        await root.terminate_child("a")
        await root.delete_child("a")
        await root.start_child(world.child("c"))
    assert sizes == [2, 3, 3]
