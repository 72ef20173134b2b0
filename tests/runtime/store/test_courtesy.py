"""A busy loop and the thread that commits: who waits for a commit gets one."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from treewarden.store import open_store
from treewarden.store.courtesy import LONGEST, PATIENCE, SHORTEST, Courtesy
from treewarden.store.store import FEW_REPORTS
from treewarden.store.thread import EARLY_REST_SECONDS, REST_SECONDS

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


@pytest.fixture
def asides_of(store: Store) -> list[float]:
    """For how long the loop stands aside for the store's writer, each time."""
    found: list[float] = []

    def stand_aside(seconds: float) -> None:
        found.append(seconds)

    store._thread.stand_aside = stand_aside  # type: ignore[method-assign]
    return found


async def stands_aside(asides_of: list[float]) -> None:
    del asides_of[:]
    with trio.fail_after(30):
        while not asides_of:
            await trio.lowlevel.checkpoint()


async def test_only_a_busy_loop_stands_aside(
    store: Store, make: MakeUnit, gate: Gate, asides_of: list[float]
) -> None:
    with gate():
        store.hand_over(make(revision=1))
        await trio.sleep(20 * PATIENCE)
        assert len(asides_of) < 3  # a pass may find its deadline over already
        await stands_aside(asides_of)
    await store.settled()


@pytest.mark.parametrize("count", [1, FEW_REPORTS])
async def test_the_loop_stands_aside_for_a_few_reports(
    count: int, store: Store, gate: Gate, asides_of: list[float]
) -> None:
    with gate():
        for _ in range(count):
            store.report("test.nobody_waits", b"1")
        await stands_aside(asides_of)
    await store.settled()


async def test_the_loop_does_not_stand_aside_for_the_reports_of_a_storm(
    store: Store, make: MakeUnit, gate: Gate, asides_of: list[float]
) -> None:
    with gate():
        for _ in range(FEW_REPORTS + 1):
            store.report("test.nobody_waits", b"1")
        with trio.move_on_after(20 * PATIENCE):
            await spin(0.0001)
        assert asides_of == []
        # Behind them somebody waits.
        store.hand_over(make(revision=1))
        await stands_aside(asides_of)
    await store.settled()


async def test_a_busy_loop_has_housekeeping_done_before_the_thread_wakes_for_it(
    store: Store, make: MakeUnit, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken by itself it waits for the interpreter in vain, for half a second at times."""
    assert EARLY_REST_SECONDS < REST_SECONDS
    rests = 0
    tidy = store._thread._writer.rest

    def rest() -> None:
        nonlocal rests
        tidy()
        rests += 1

    store._thread._writer.rest = rest  # type: ignore[method-assign]
    store.rest()
    assert rests == 0  # it is not due yet
    monkeypatch.setattr("treewarden.store.thread.EARLY_REST_SECONDS", 0.0)
    with trio.fail_after(30):
        while not rests:
            store.rest()
            await trio.lowlevel.checkpoint()
    await store.settled()
    with gate():
        store.hand_over(make(revision=1))
        await trio.testing.wait_all_tasks_blocked()
        asked = store._thread._given
        store.rest()
        assert store._thread._given == asked  # there is a group
    await store.settled()
