"""A yard: one pool in a bare tree, scripted work for it, and what must hold afterwards."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.exits import Fault
from treewarden.supervision import ChildSpec, Directory, SupervisorSpec, open_tree
from treewarden.work import Pool, PoolPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from treewarden.supervision import Report, SupervisorRef

    AllTasks = Callable[[], Iterator[trio.lowlevel.Task]]

_FAULT = Fault(type="Injected", message="on purpose")


class Boom(Exception):
    """What scripted work fails with."""


class Yard:
    """One test's pool, its work and its record."""

    boom = Boom

    def __init__(self, all_tasks: AllTasks) -> None:
        self._all_tasks = all_tasks
        self.directory = Directory()
        self.root: SupervisorRef | None = None
        self.reports: list[Report] = []
        self.begun: list[object] = []
        self.ended: list[object] = []
        self.inside = 0
        self.most = 0
        self._doors: dict[object, trio.Event] = {}
        self._violations: list[str] = []

    # --- work -----------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> float:
        """Work that takes so long; a negative number fails at once."""
        with self._present(seconds):
            if seconds < 0:
                raise Boom(seconds)
            await trio.sleep(seconds)
            return seconds

    async def hold(self, name: object) -> object:
        """Work that ends when it is let go."""
        with self._present(name):
            self._doors[name] = trio.Event()
            await self._doors[name].wait()
            return name

    def let_go(self, *names: object) -> None:
        """End what holds."""
        for name in names:
            self._doors.pop(name).set()

    def _present(self, name: object) -> _Present:
        return _Present(self, name)

    async def settle(self) -> None:
        """Wait until nobody can go on."""
        await wait_all_tasks_blocked()

    # --- the pool ---------------------------------------------------------------------------

    @asynccontextmanager
    async def open(
        self,
        size: int = 10,
        *,
        kind: str = "task",
        queue: int = 1000,
        shutdown: float | None = None,
    ) -> AsyncIterator[Pool]:
        """A tree with the pool `/p`, checked when it has closed."""
        policy = PoolPolicy(size=size, kind=kind, queue=queue)
        spec = ChildSpec("p", Pool, args=(policy,), shutdown=shutdown)
        self.directory.reporter = self.reports.append
        before = set(self._all_tasks())
        pool = Pool(self.directory, "/p")
        try:
            async with open_tree(
                SupervisorSpec([spec]), directory=self.directory
            ) as self.root:
                yield pool
        finally:
            left = [task.name for task in self._all_tasks() if task not in before]
            if left:
                self._violations.append(f"TRI-01: tasks are left: {left}")
            if self.inside:
                self._violations.append(f"TRI-01: {self.inside} calls are left")
            if len(self.directory):
                self._violations.append("TRI-02: nodes are left")

    def crash(self) -> None:
        """Have the pool itself crash."""
        node = self.directory.resolve("/p")
        life = node.life
        if life is not None:
            life.fail(_FAULT)

    def reported(self, topic: str) -> list[Report]:
        """The reports of one topic."""
        return [one for one in self.reports if one.topic == topic]

    def violations(self) -> list[str]:
        """What must not have happened but did."""
        return self._violations


class _Present:
    def __init__(self, yard: Yard, name: object) -> None:
        self.yard = yard
        self.name = name

    def __enter__(self) -> None:
        self.yard.begun.append(self.name)
        self.yard.inside += 1
        self.yard.most = max(self.yard.most, self.yard.inside)

    def __exit__(self, *_: object) -> None:
        self.yard.inside -= 1
        self.yard.ended.append(self.name)


@pytest.fixture
def yard(all_tasks: AllTasks) -> Iterator[Yard]:
    """A pool and scripted work; the invariants are checked after the test."""
    yard = Yard(all_tasks)
    yield yard
    assert yard.violations() == []
