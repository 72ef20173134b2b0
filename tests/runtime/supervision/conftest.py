"""Scripted children, and what must hold after every test of supervision.

A `World` makes children that do what a test tells them to, writes down what happened in
one list, opens trees, and checks the invariants TRI-01 to TRI-05 when a tree has closed.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.exits import Killed, Shutdown
from treewarden.supervision import (
    IGNORE,
    ChildInfo,
    ChildSpec,
    Directory,
    DynamicSupervisorSpec,
    Intensity,
    Report,
    Stop,
    SupervisorRef,
    SupervisorSpec,
    cleanup,
    open_tree,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Collection,
        Iterator,
    )

    from treewarden.resilience import Backoff

    AllTasks = Callable[[], Iterator[trio.lowlevel.Task]]

LONG = 36_000.0


class Boom(Exception):
    """What scripted children crash with."""


class Options(TypedDict, total=False):
    """The fields of a ChildSpec that a test may care about."""

    restart: str
    shutdown: float | None
    significant: bool
    start_timeout: float
    intensity: Intensity | None
    backoff: Backoff | None


class Script:
    """What one child does; counted from 1, a start may fail, be ignored or be slow."""

    def __init__(
        self,
        *,
        fails: Collection[int] = (),
        ignores: Collection[int] = (),
        start_takes: float = 0.0,
        stop_takes: float = 0.0,
    ) -> None:
        self.fails = fails
        self.ignores = ignores
        self.start_takes = start_takes
        self.stop_takes = stop_takes


class World:
    """One test's children, trees and record."""

    boom = Boom
    ENDS = ("normal", "shutdown", "shutdown with a detail", "crash", "killed")

    def __init__(self, all_tasks: AllTasks) -> None:
        self._all_tasks = all_tasks
        self.directory = Directory()
        self.reports: list[Report] = []
        self.heard: list[tuple[float, str, str]] = []
        self.trace: list[str] = []
        self.at: list[tuple[float, str]] = []
        self.starts: Counter[str] = Counter()
        self._present: set[str] = set()
        self._doors: dict[str, trio.Event] = {}
        self._orders: dict[str, Exception | None] = {}
        self._violations: list[str] = []

    # --- children -------------------------------------------------------------------------

    def child(
        self,
        id_: str,
        *,
        fails: Collection[int] = (),
        ignores: Collection[int] = (),
        start_takes: float = 0.0,
        stop_takes: float = 0.0,
        **spec: Unpack[Options],
    ) -> ChildSpec:
        """A child that is ready when it says so and ends when it is told to."""
        script = Script(
            fails=fails, ignores=ignores, start_takes=start_takes, stop_takes=stop_takes
        )

        async def run(*, task_status: trio.TaskStatus[object]) -> None:
            await self._enter(id_, script, task_status)

        return ChildSpec(id_, run, **spec)

    def supervisor(
        self,
        id_: str,
        *children: ChildSpec,
        strategy: str = "one_for_one",
        limit: int = 3,
        auto_shutdown: str = "never",
        **spec: Unpack[Options],
    ) -> ChildSpec:
        """A child that is a supervisor with a very long period."""
        inner = SupervisorSpec(
            children,
            strategy=strategy,
            intensity=Intensity(limit, LONG),
            auto_shutdown=auto_shutdown,
        )
        return ChildSpec(id_, inner, **spec)

    def dynamic(
        self,
        id_: str = "dyn",
        *,
        limit: int = 3,
        max_children: float = math.inf,
        child_intensity: Intensity | None = None,
    ) -> ChildSpec:
        """A child that is a dynamic supervisor; its children share one budget."""
        inner = DynamicSupervisorSpec(
            intensity=Intensity(limit, LONG),
            max_children=max_children,
            child_intensity=child_intensity,
        )
        return ChildSpec(id_, inner)

    async def _enter(
        self, id_: str, script: Script, status: trio.TaskStatus[object]
    ) -> None:
        if id_ in self._present:
            self._violations.append(f"TRI-05: two live incarnations of {id_}")
        self._present.add(id_)
        self.starts[id_] += 1
        try:
            await self._act(id_, script, self.starts[id_], status)
        finally:
            self._present.discard(id_)

    async def _act(
        self, id_: str, script: Script, number: int, status: trio.TaskStatus[object]
    ) -> None:
        if script.start_takes:
            await trio.sleep(script.start_takes)
        if number in script.fails:
            self.note(f"fail {id_}")
            raise Boom(id_)
        if number in script.ignores:
            self.note(f"ignore {id_}")
            status.started(IGNORE)
            return
        self._doors[id_] = door = trio.Event()
        self.note(f"start {id_}")
        status.started(number)
        try:
            await door.wait()
            order = self._orders.pop(id_)
            if order is not None:
                raise order
        finally:
            del self._doors[id_]
            if script.stop_takes:
                with cleanup():
                    await trio.sleep(script.stop_takes)
            self.note(f"end {id_}")

    def note(self, event: str) -> None:
        """Write down what happened, and when."""
        self.trace.append(event)
        self.at.append((trio.current_time(), event))

    def cut(self) -> list[str]:
        """The trace since the last cut."""
        trace, self.trace = self.trace, []
        return trace

    def is_up(self, id_: str) -> bool:
        """Whether a child is running."""
        return id_ in self._doors

    # --- orders ---------------------------------------------------------------------------

    def tell(self, id_: str, order: Exception | None) -> None:
        """Have a child raise `order`, or return; nothing when it is not running."""
        door = self._doors.get(id_)
        if door is not None:
            self._orders[id_] = order
            door.set()

    def crash(self, *ids: str) -> None:
        """Have children crash, all in the same moment."""
        for id_ in ids:
            self.tell(id_, Boom(id_))

    async def crashed(self, *ids: str) -> None:
        """Have children crash and wait until everything is quiet again."""
        self.crash(*ids)
        await self.settle()

    async def ended(self, id_: str, how: str) -> None:
        """Have a child end in one of the ways of `ENDS`, and wait until all is quiet."""
        self.tell(id_, self.order(id_, how))
        await self.settle()

    def order(self, id_: str, how: str) -> Exception | None:
        """What a child raises to end in one of the ways of `ENDS`."""
        return {
            "normal": None,
            "shutdown": Stop(Shutdown()),
            "shutdown with a detail": Stop(Shutdown("enough")),
            "crash": Boom(id_),
            "killed": Stop(Killed()),
        }[how]

    async def settle(self) -> None:
        """Wait until nobody can go on."""
        await wait_all_tasks_blocked()

    # --- trees ----------------------------------------------------------------------------

    @asynccontextmanager
    async def open(
        self,
        *children: ChildSpec,
        strategy: str = "one_for_one",
        limit: int = 3,
        period: float = LONG,
    ) -> AsyncIterator[SupervisorRef]:
        """A tree of these children, checked when it has closed."""
        spec = SupervisorSpec(
            children, strategy=strategy, intensity=Intensity(limit, period)
        )
        async with self.open_spec(spec) as root:
            yield root

    @asynccontextmanager
    async def open_spec(self, spec: SupervisorSpec) -> AsyncIterator[SupervisorRef]:
        """A tree of this specification, checked when it has closed."""
        self.directory = directory = Directory()
        directory.reporter = self._hear
        before = set(self._all_tasks())
        try:
            async with open_tree(spec, directory=directory) as root:
                yield root
        except BaseExceptionGroup:
            self._violations.append("TRI-03: a group left the tree")
            raise
        finally:
            left = [task.name for task in self._all_tasks() if task not in before]
            if left:
                self._violations.append(f"TRI-01: tasks are left: {left}")
            if len(directory):
                self._violations.append(f"TRI-02: {len(directory)} nodes are left")
            if self._present:
                self._violations.append(f"TRI-01: children are left: {self._present}")

    def info(self, supervisor: SupervisorRef, id_: str) -> ChildInfo:
        """A child as its supervisor lists it."""
        return next(one for one in supervisor.which_children() if one.id == id_)

    def states(self, supervisor: SupervisorRef) -> dict[str, str]:
        """The states of all children by id, in the supervisor's order."""
        return {one.id: one.state for one in supervisor.which_children()}

    def incarnations(self, supervisor: SupervisorRef) -> dict[str, int]:
        """The incarnations of all children by id."""
        return {one.id: one.incarnation for one in supervisor.which_children()}

    def _hear(self, report: Report) -> None:
        self.reports.append(report)
        topic = report.topic.removeprefix("supervision.")
        self.heard.append((trio.current_time(), topic, report.path))

    def violations(self) -> list[str]:
        """What must not have happened but did."""
        return [*self._violations, *_wrong_reports(self.reports)]

    def reported(self, topic: str) -> list[Report]:
        """The reports of one topic, without its first word."""
        return [one for one in self.reports if one.topic == f"supervision.{topic}"]


def _wrong_reports(reports: list[Report]) -> Iterator[str]:
    """TRI-04: each start has one end; and no incarnation is used twice."""
    begun = Counter(
        (one.path, one.incarnation)
        for one in reports
        if one.topic in {"supervision.started", "supervision.restarted"}
    )
    ended = Counter(
        (one.path, one.incarnation)
        for one in reports
        if one.topic == "supervision.exited"
    )
    for life, times in begun.items():
        if times != 1:
            yield f"TRI-04: {life} started {times} times"
        if ended[life] != 1:
            yield f"TRI-04: {life} ended {ended[life]} times"
    for life in ended.keys() - begun.keys():
        yield f"TRI-04: {life} ended but never started"


@pytest.fixture
def world(new_world: Callable[[], World]) -> Iterator[World]:
    """Scripted children; the invariants are checked after the test."""
    world = new_world()
    yield world
    assert world.violations() == []


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log records: writing thousands of them down takes longer than what they tell."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def new_world(all_tasks: AllTasks) -> Callable[[], World]:
    """For tests that need many worlds; they ask for `violations()` themselves."""
    return partial(World, all_tasks)
