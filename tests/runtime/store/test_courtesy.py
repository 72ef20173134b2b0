"""A busy loop and the thread that commits: who waits for a commit gets one."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.store import open_store
from treewarden.store.courtesy import LONGEST, PATIENCE, SHORTEST, Courtesy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from treewarden.store import Store

    from .conftest import MakeUnit

    Gate = Callable[[], AbstractContextManager[None]]


def asides(
    step: float, seconds: float, outside: float | None = None
) -> list[tuple[float, float]]:
    """When a loop stands aside that asks every `step`, and for how long."""
    courtesy, found, now = Courtesy(), [], 0.0
    courtesy.begin(now)
    while now < seconds:
        now += step
        aside = courtesy.due(now, outside)
        if aside:
            found.append((now, aside))
            now += aside
    return found


def test_most_commits_are_over_before_the_loop_stands_aside() -> None:
    [(first, aside), *_] = asides(step=0.0001, seconds=0.1)
    assert first == pytest.approx(PATIENCE, abs=0.0002)
    assert SHORTEST <= aside < 2 * SHORTEST


@pytest.mark.parametrize("outside", [None, 0.0001, 10.0])
@pytest.mark.parametrize("step", [0.00005, 0.0005, 0.002, 0.02, 0.2])
def test_the_loop_keeps_most_of_its_time_however_long_a_commit_takes(
    step: float, outside: float | None
) -> None:
    found = asides(step, 30.0, outside)
    given = sum(aside for _, aside in found) / 30.0
    assert given < (0.36 if outside is None else 0.21)
    assert given > 0.15 or step > 0.001
    assert max(aside for _, aside in found) <= LONGEST


def test_the_longer_a_commit_takes_the_longer_the_loop_stands_aside() -> None:
    lengths = [aside for _, aside in asides(step=0.001, seconds=1.0)]
    assert lengths == sorted(lengths)
    assert lengths[0] < LONGEST / 4 < lengths[-1] == LONGEST


def test_who_waits_for_the_disk_is_left_the_interpreter_less_often() -> None:
    inside, outside = asides(0.0001, 1.0), asides(0.0001, 1.0, outside=0.002)
    assert sum(one for _, one in outside) < sum(one for _, one in inside) * 2 / 3
    for (before, aside), (after, _) in pairwise(outside):
        assert 0.002 <= after - (before + aside) < 0.006


def test_each_commit_begins_with_patience() -> None:
    courtesy = Courtesy()
    courtesy.begin(0.0)
    assert courtesy.due(1.0) > 0
    courtesy.begin(1.1)
    assert courtesy.due(1.1 + PATIENCE / 2) == 0.0


async def spin(seconds: float) -> None:
    """Passes of the loop that leave no time between them."""
    while True:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()


async def test_a_busy_loop_does_not_starve_who_waits_for_a_commit(
    tmp_path: Path, make: MakeUnit
) -> None:
    """In passes of half a millisecond not one in three seconds was through."""
    async with open_store(tmp_path / "db") as store, trio.open_nursery() as nursery:
        nursery.start_soon(spin, 0.0005)
        with trio.fail_after(30):
            for revision in range(1, 101):
                unit = make(revision=revision)
                store.hand_over(unit)
                await store.wait(unit)
        nursery.cancel_scope.cancel()


async def test_only_a_busy_loop_stands_aside_and_only_for_who_waits(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    asides = 0

    def count(seconds: float) -> None:
        nonlocal asides
        asides += seconds > 0

    store._thread.stand_aside = count  # type: ignore[method-assign]
    with gate():
        store.report("test.nobody_waits", b"1")
        with trio.move_on_after(20 * PATIENCE):
            await spin(0.0001)
        assert asides == 0
        # It finds a commit under way that has taken long already.
        store.hand_over(make(revision=1))
        await trio.sleep(20 * PATIENCE)
        assert asides < 3  # a pass may find its deadline over already
        with trio.move_on_after(30):
            while not asides:
                await trio.lowlevel.checkpoint()
        assert asides > 0
    await store.settled()
