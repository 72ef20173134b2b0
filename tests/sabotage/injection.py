"""Injections that break more, or for longer, than the plan says."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any, Final

from treewarden.injection import Deed, InjectionPoint, Injections, points
from treewarden.runtime import runtime

from .double import Area

if TYPE_CHECKING:
    from treewarden.injection import InjectionPlan, Loaded

DOUBLES: Final = Area("tests/runtime/injection")


@DOUBLES.swaps(
    points,
    "Loaded",
    caught_by="test_points.py::test_a_lease_that_is_over_counts_for_nothing",
)
class HoldsForEver(points.Loaded):
    """A lease that is over goes on breaking things."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for _, armed in self.deeds():
            armed.until = math.inf


@DOUBLES.swaps(
    Injections,
    "lift_all",
    caught_by="test_injections.py::test_the_end_of_the_runtime_ends_its_plans",
)
def outlives_its_runtime(injections: Injections) -> None:
    """A plan goes on in the process when its runtime has ended."""


@DOUBLES.swaps(
    Injections,
    "load",
    caught_by=(
        "test_injections.py::test_a_lease_ends_by_itself",
        "test_injections.py::test_a_plan_is_in_the_journal_with_who_loaded_it_and_what_it_did",
    ),
)
def loads_in_silence(
    injections: Injections, plan: InjectionPlan, *, by: str = ""
) -> Loaded:
    """A plan is put in force without a word, and without anybody to end it."""
    loaded = points.load_plan(plan, by=by)
    injections._loaded[plan.name] = loaded
    return loaded


@DOUBLES.swaps(
    points.Armed,
    "is_due",
    caught_by="test_points.py::test_a_rule_is_carried_out_from_the_nth_reach_on_as_often_as_it_says",
)
def at_the_first_reach(armed: points.Armed) -> bool:
    """The number of the reach is not looked at."""
    armed.seen += 1
    armed.done += 1
    return armed.done <= armed.rule.times


@DOUBLES.swaps(
    runtime,
    "cancel_child",
    caught_by="test_injections.py::test_a_cancellation_kills_the_child_in_whose_turn_it_is",
)
def cancels_nobody() -> bool:
    """A cancellation is said to be done, and nobody was cancelled."""
    return True


@DOUBLES.swaps(
    InjectionPoint,
    "pass_by",
    caught_by="test_points.py::test_a_stall_in_a_task_is_trios_sleep",
)
async def stops_the_loop(point: InjectionPoint) -> None:
    """A stall in a task holds up every other task too."""
    for armed in point.armed or ():
        if armed.is_due() and armed.rule.do is Deed.STALL:
            time.sleep(0.01)  # noqa: ASYNC251 - the point of it


@DOUBLES.swaps(
    InjectionPoint,
    "reach",
    caught_by="test_points.py::test_a_point_without_a_plan_costs_no_more_than_an_empty_call_or_two",
)
def asks_the_environment(point: InjectionPoint) -> None:
    """A point looks for a plan each time it is passed."""
    if "TREEWARDEN_PLAN" in os.environ:
        raise AssertionError(point.name)
