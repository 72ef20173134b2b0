"""Points: free without a plan, exact with one, and never broken for longer than leased."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import ConfigError
from treewarden.injection import (
    POINTS,
    Deed,
    Home,
    InjectedCrash,
    InjectionPlan,
    Loaded,
    Rule,
    load_plan,
    places,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


COST_ROUNDS = 9


@pytest.fixture
def loaded() -> Iterator[list[Loaded]]:
    """Plans to be lifted at the end of the test."""
    plans: list[Loaded] = []
    yield plans
    for plan in plans:
        plan.lift()


def rule(do: Deed = Deed.RAISE, **more: object) -> InjectionPlan:
    one = Rule(point="store.commit.before", do=do, **more)  # type: ignore[arg-type]
    return InjectionPlan(name="one", injections=(one,))


def failures(reaches: int) -> list[int]:
    """Which of so many reaches of a point raised, counted from 1."""
    failed = []
    for number in range(1, reaches + 1):
        try:
            places.BEFORE_COMMIT.reach()
        except sqlite3.OperationalError:
            failed.append(number)
    return failed


def test_there_are_at_least_forty_points_and_each_says_where_it_is() -> None:
    """A2: what a drill can choose from."""
    assert len(POINTS) >= 40
    assert all(point.about and point.kinds for point in POINTS.values())
    assert {Deed.KILL, Deed.STALL} <= set.intersection(
        *(set(point.kinds) for point in POINTS.values())
    )


def test_only_places_in_tasks_and_turns_can_cancel() -> None:
    cancelling = {p.home for p in POINTS.values() if Deed.CANCEL in p.kinds}
    assert cancelling == {Home.TASK, Home.TURN}


def test_without_a_plan_a_point_does_nothing_and_counts_nothing() -> None:
    before = places.BEFORE_COMMIT.reached
    assert failures(3) == []
    assert places.BEFORE_COMMIT.armed is None
    assert places.BEFORE_COMMIT.reached == before


def test_a_point_without_a_plan_costs_no_more_than_an_empty_call_or_two() -> None:
    class Empty:
        def call(self) -> None:
            pass

    empty = Empty()
    costs = [
        (cost(places.BEFORE_COMMIT.reach), cost(empty.call)) for _ in range(COST_ROUNDS)
    ]
    assert min(point for point, _ in costs) <= 2 * min(call for _, call in costs)


def cost(call: Callable[[], None]) -> float:
    began = time.process_time()
    for _ in range(20_000):
        call()
    return time.process_time() - began


def test_while_a_plan_is_loaded_every_point_counts_its_reaches(
    loaded: list[Loaded],
) -> None:
    loaded.append(load_plan(InjectionPlan(name="census")))
    before = places.PRUNE.reached
    places.PRUNE.reach()
    assert places.PRUNE.reached == before + 1


def test_a_rule_is_carried_out_from_the_nth_reach_on_as_often_as_it_says(
    loaded: list[Loaded],
) -> None:
    loaded.append(load_plan(rule(nth=3, times=2)))
    assert failures(6) == [3, 4]
    assert loaded[0].done == 2


def test_times_0_is_without_end(loaded: list[Loaded]) -> None:
    loaded.append(load_plan(rule(times=0)))
    assert failures(5) == [1, 2, 3, 4, 5]


def test_a_probability_is_drawn_from_the_seed(loaded: list[Loaded]) -> None:
    drawn = []
    for seed in (1, 1, 2):
        plan = load_plan(rule(times=0, probability=0.5, seed=seed))
        drawn.append(failures(40))
        plan.lift()
    assert drawn[0] == drawn[1] != drawn[2]
    assert 5 < len(drawn[0]) < 35


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ("", sqlite3.OperationalError, sqlite3.SQLITE_IOERR),
        ("full", sqlite3.OperationalError, sqlite3.SQLITE_FULL),
        ("row", sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT),
        ("ENOSPC", OSError, 28),
        ("crash", InjectedCrash, 0),
    ],
)
def test_what_is_raised_is_what_the_world_would_raise(
    loaded: list[Loaded], error: str, kind: type[Exception], code: int
) -> None:
    loaded.append(load_plan(rule(error=error)))
    with pytest.raises(kind, match=r"injected at store\.commit\.before") as raised:
        places.BEFORE_COMMIT.reach()
    found = getattr(raised.value, "sqlite_errorcode", getattr(raised.value, "errno", 0))
    assert found == code


def test_a_stall_in_a_thread_takes_its_time(loaded: list[Loaded]) -> None:
    loaded.append(load_plan(rule(Deed.STALL, delay=0.02)))
    began = time.monotonic()
    places.BEFORE_COMMIT.reach()
    assert time.monotonic() - began >= 0.02


async def test_a_stall_in_a_task_is_trios_sleep(
    autojump_clock: trio.testing.MockClock, loaded: list[Loaded]
) -> None:
    stall = Rule(point="bus.publish", do=Deed.STALL, delay=50.0)
    loaded.append(load_plan(InjectionPlan(name="slow", injections=(stall,))))
    began = trio.current_time()
    await places.BUS_PUBLISH.pass_by()
    assert trio.current_time() == began + 50.0
    await places.BUS_PUBLISH.pass_by()
    assert trio.current_time() == began + 50.0


async def test_a_cancellation_waits_for_somebody_to_cancel(
    loaded: list[Loaded],
) -> None:
    somebody = iter([False, False, True])
    cancel = Rule(point="agent.take", do=Deed.CANCEL)
    plan = InjectionPlan(name="cancel", injections=(cancel,))
    loaded.append(load_plan(plan, cancel=lambda: next(somebody)))
    for _ in range(4):
        places.AGENT_TAKE.reach()
    assert loaded[0].done == 1


async def test_a_cancelled_task_notices_at_the_point(loaded: list[Loaded]) -> None:
    cancel = Rule(point="bus.publish", do=Deed.CANCEL)
    with trio.CancelScope() as scope:

        def cancel_it() -> bool:
            scope.cancel()
            return True

        plan = InjectionPlan(name="cancel", injections=(cancel,))
        loaded.append(load_plan(plan, cancel=cancel_it))
        await places.BUS_PUBLISH.pass_by()
        pytest.fail("it went on")
    assert scope.cancelled_caught


def test_a_lease_that_is_over_counts_for_nothing(loaded: list[Loaded]) -> None:
    one = Rule(point="store.commit.before", do=Deed.RAISE, times=0)
    plan = InjectionPlan(name="short", injections=(one,), seconds=1e-9)
    loaded.append(load_plan(plan))
    assert failures(3) == []
    assert loaded[0].seconds_left == 0.0


def test_a_lifted_plan_breaks_nothing_and_leaves_the_others(
    loaded: list[Loaded],
) -> None:
    loaded.append(load_plan(rule(times=0)))
    loaded.append(load_plan(InjectionPlan(name="other")))
    loaded[0].lift()
    loaded[0].lift()
    assert failures(3) == []
    assert places.BEFORE_COMMIT.armed == ()
    loaded[1].lift()
    assert places.BEFORE_COMMIT.armed is None


def test_a_pattern_means_every_point_of_that_name_that_can_do_it() -> None:
    points = Rule(point="store.*", do=Deed.RAISE).points()
    assert "store.commit.before" in points
    assert "store.decision" not in points  # a commit's answer cannot be refused
    assert "bus.publish" not in points


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"point": "store.nowhere"}, "no injection point"),
        ({"do": Deed.CANCEL}, "cannot cancel; it can kill, raise, stall"),
        ({"error": "EMILY"}, "error 'EMILY'"),
        ({"delay": 61.0}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"nth": 0}, "nth 0"),
        ({"times": -1}, "times -1"),
        ({"probability": 1.5}, "probability"),
    ],
)
def test_a_rule_that_could_not_be_carried_out_is_refused(
    wrong: dict[str, object], words: str
) -> None:
    right: dict[str, object] = {"point": "store.commit.before", "do": Deed.RAISE}
    with pytest.raises(ConfigError, match=words):
        Rule(**(right | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -1.0, 3601.0, float("nan"), float("inf")])
def test_a_plan_without_an_end_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="at most 3600 seconds"):
        InjectionPlan(name="for ever", seconds=seconds)
