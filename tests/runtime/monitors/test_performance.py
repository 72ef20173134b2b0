from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from treewarden.monitors import Ending, Performance

if TYPE_CHECKING:
    from trio.testing import MockClock

SUCCESS, ERROR, CANCELLED = Ending


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def size(root: object) -> int:
    """Bytes of everything that is reachable from it, classes and functions aside."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type) and not callable(one):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return sum(sys.getsizeof(one) for one in seen.values())


def test_f68_a_million_records_take_no_more_room_than_half_a_million() -> None:
    """F68, S34: of each of ten names the last 100, and memory flat within 5 %."""
    performance = Performance(clock=Clock())
    names = [f"operation {number}" for number in range(10)]
    sizes = []
    for _ in range(2):
        for number in range(50_000):
            for name in names:
                performance.record(name, number * 1e-6)
        sizes.append(sum(size(one) for one in performance._operations.values()))
    assert sizes[1] < 1.05 * sizes[0]
    seen = performance.statistics()
    assert seen.recorded == 1_000_000
    assert [one.recent for one in seen.operations] == [100] * 10
    assert [one.count for one in seen.operations] == [100_000] * 10


def test_f68_of_a_hundred_thousand_names_the_last_thousand_are_kept() -> None:
    """F68: names are bounded, and who is used stays."""
    performance = Performance(clock=Clock())
    for number in range(100_000):
        performance.record(f"operation {number}", 0.001)
        if number % 500 == 0:
            performance.record("often", 0.001)
    seen = performance.statistics()
    assert len(seen.operations) == 1000
    assert seen.evicted == 100_001 - 1000
    often = performance.operation("often")
    assert often is not None
    assert often.count == 200
    assert performance.operation("operation 0") is None


def test_a_name_that_nobody_used_for_an_hour_is_gone() -> None:
    """S34: by the time that passed, with no timer."""
    clock = Clock()
    performance = Performance(clock=clock)
    performance.record("old", 1.0)
    clock.now = 1800.0
    performance.record("young", 1.0)
    clock.now = 3600.0
    assert performance.operation("old") is not None
    clock.now = 3600.5
    assert performance.operation("old") is None
    seen = performance.statistics()
    assert ([one.name for one in seen.operations], seen.expired) == (["young"], 1)


@given(st.lists(st.tuples(st.floats(0.0, 1e6), st.sampled_from(Ending)), min_size=1))
def test_an_operation_is_what_its_runs_were(runs: list[tuple[float, Ending]]) -> None:
    performance = Performance(clock=Clock(), recent=10)
    for seconds, ending in runs:
        performance.record("one", seconds, ending)
    seen = performance.operation("one")
    assert seen is not None
    took = [seconds for seconds, _ in runs]
    endings = [ending for _, ending in runs]
    recent = sorted(took[-10:])
    assert (seen.minimum, seen.maximum) == (min(took), max(took))
    assert seen.mean == pytest.approx(sum(took) / len(took))
    assert sum(one <= seen.p95 for one in recent) >= 0.95 * len(recent)
    assert sum(one < seen.p95 for one in recent) < 0.95 * len(recent)
    assert seen.succeeded == endings.count(SUCCESS)
    assert seen.failed == endings.count(ERROR)
    assert seen.cancelled == endings.count(CANCELLED)
    assert seen.recent_failures == endings[-10:].count(ERROR)


async def test_a_block_is_timed_however_it_ends(autojump_clock: MockClock) -> None:
    """S34: a cancellation is neither a success nor an error."""
    performance = Performance()
    with performance.time("one"):
        await trio.sleep(1)
    with pytest.raises(KeyError), performance.time("one"):
        await trio.sleep(2)
        raise KeyError
    with trio.move_on_after(3), performance.time("one"):
        await trio.sleep_forever()
    with trio.move_on_after(3), performance.time("one"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
    seen = performance.operation("one")
    assert seen is not None
    assert (seen.succeeded, seen.failed, seen.cancelled) == (1, 1, 2)
    assert (seen.minimum, seen.maximum) == (1.0, 3.0)


async def test_a_failure_beside_cancelled_tasks_is_a_failure() -> None:
    performance = Performance()

    async def fails() -> None:
        raise KeyError

    with pytest.raises(ExceptionGroup), performance.time("one"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fails)
    seen = performance.operation("one")
    assert seen is not None
    assert seen.failed == 1


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more seconds"):
        Performance(clock=Clock()).record("one", seconds)


def test_forgetting_all_operations_keeps_the_counters() -> None:
    performance = Performance(clock=Clock())
    performance.record("one", 1.0)
    performance.reset()
    seen = performance.statistics()
    assert (seen.operations, seen.recorded) == ((), 1)


@pytest.mark.parametrize(
    "wrong", [{"names": 0}, {"recent": 0}, {"names": 1.5}, {"idle": float("nan")}]
)
def test_bounds_that_are_none_are_refused_by_name(wrong: dict[str, float]) -> None:
    """Without room for one, the first record would fail."""
    (name,) = wrong
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        Performance(**wrong)  # type: ignore[arg-type] # what is tested
