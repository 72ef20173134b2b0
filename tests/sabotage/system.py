"""Broken system trees: the flaws of the original's three applications."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.agents import Agent
from treewarden.runtime import Runtime
from treewarden.runtime import runtime as composed
from treewarden.runtime.metrics import measure
from treewarden.supervision import (
    ChildSpec,
    Intensity,
    SupervisorSpec,
    strategy,
    supervisor,
)
from treewarden.supervision.strategy import Plan
from treewarden.supervision.supervisor import Supervisor

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treewarden.bus import Subscription
    from treewarden.supervision.strategy import Member, Strategy

DOUBLES: Final = Area("tests/runtime")

_edge = Runtime._edge
_root_spec = Runtime.root_spec
_subscribe = Agent.subscribe
_plan = strategy.plan_restart


@DOUBLES.swaps(
    Runtime,
    "_edge",
    caught_by="test_system_tree.py::test_f38_the_tree_is_the_same_in_every_environment",
)
def a_tree_with_less_in_it_under_test(self: Runtime) -> SupervisorSpec:
    """F38: what is slow to start is left out of tests."""
    spec = _edge(self)
    under_test = "PYTEST_CURRENT_TEST" in os.environ
    children = spec.children[:-2] if under_test else spec.children
    return SupervisorSpec(children, intensity=spec.intensity)


@DOUBLES.swaps(
    Runtime,
    "root_spec",
    caught_by="test_system_tree.py::test_f38_the_fourth_failure_in_five_seconds_escalates_the_third_does_not",
)
def a_root_that_forgives_more(self: Runtime) -> SupervisorSpec:
    """F38: ten in five seconds, so that no test ever sees it give up."""
    spec = _root_spec(self)
    return SupervisorSpec(
        spec.children, strategy=spec.strategy, intensity=Intensity(10, 5.0)
    )


@DOUBLES.swaps(
    Runtime,
    "_edge",
    caught_by="test_system_tree.py::test_f39_no_supervisor_of_the_runtime_forgives_more_than_three_in_five",
)
def a_lenient_supervisor(self: Runtime) -> SupervisorSpec:
    """F39: the limits that crash tests had have come to stay."""
    return SupervisorSpec(_edge(self).children, intensity=Intensity(100, 10.0))


@DOUBLES.swaps(
    ChildSpec,
    "shutdown_seconds",
    caught_by="test_system_tree.py::test_f48_every_part_declares_how_it_restarts_and_how_long_its_stop_may_take",
)
def five_seconds_for_everybody(self: ChildSpec) -> float:
    """F48: what a part declares about its stop is not looked at."""
    return 5.0


@DOUBLES.swaps(
    Supervisor,
    "_stuck",
    caught_by="test_system_tree.py::test_f48_a_child_that_ignores_its_stop_is_stuck_from_its_own_limit_on",
)
def who_cannot_be_stopped_is_not_shown(self: Supervisor, *_: Any) -> None:
    """F48, pitfall 49: the runtime hangs, and nobody says on whom."""


@DOUBLES.swaps(
    Runtime,
    "root_spec",
    caught_by="test_system_tree.py::test_f50_the_stop_is_the_start_backwards_and_the_system_outlives_its_users",
)
def an_application_before_its_system(self: Runtime) -> SupervisorSpec:
    """F50: agents are started before, and stopped after, what they stand on."""
    spec = _root_spec(self)
    return SupervisorSpec(
        spec.children[::-1], strategy=spec.strategy, intensity=spec.intensity
    )


@DOUBLES.swaps(
    (strategy, supervisor),
    "plan_restart",
    caught_by="test_system_tree.py::test_f51_the_one_that_failed_and_those_after_it_restart_and_nobody_else",
)
def the_last_is_forgotten(of: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """F51: one too few is taken along."""
    plan = _plan(of, members, ended)
    last = members[-1].id
    if last == ended:
        return plan
    return Plan(
        stops=tuple(id_ for id_ in plan.stops if id_ != last),
        forgets=plan.forgets,
        starts=tuple(id_ for id_ in plan.starts if id_ != last),
    )


@DOUBLES.swaps(
    Runtime,
    "root_spec",
    caught_by="test_system_tree.py::test_f51_each_part_that_is_killed_takes_along_who_stands_on_it",
)
def an_application_that_outlives_its_store(self: Runtime) -> SupervisorSpec:
    """F51: the system is started again under agents that hold on to the old one."""
    spec = _root_spec(self)
    return SupervisorSpec(spec.children, intensity=spec.intensity)


@DOUBLES.swaps(
    Agent,
    "subscribe",
    caught_by="test_system_tree.py::test_h22_a_killed_agent_is_there_again_with_all_that_hung_on_it",
)
def only_the_first_incarnation_subscribes(
    self: Agent[Any], *args: Any, **options: Any
) -> Subscription | None:
    """H22: restarted under the same name, and deaf."""
    return _subscribe(self, *args, **options) if self.incarnation == 1 else None


@DOUBLES.swaps(
    composed,
    "measure",
    caught_by="test_system_tree.py::test_h28_no_task_of_the_runtime_is_outside_the_tree",
)
def a_part_outside_the_tree(runtime: Runtime) -> None:
    """H28: a cleaner of caches that no supervisor knows."""
    measure(runtime)
    trio.lowlevel.spawn_system_task(trio.sleep_forever, name="cache cleaner")
