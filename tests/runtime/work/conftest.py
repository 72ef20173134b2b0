"""A yard: one pool in a bare tree, scripted work for it, and what must hold afterwards."""

from __future__ import annotations

import inspect
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from treewarden.exits import Fault
from treewarden.supervision import ChildSpec, Directory, SupervisorSpec, open_tree
from treewarden.work import Pool, PoolPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from treewarden.supervision import Report, SupervisorRef

# These work with threads, processes or a store, which no clock of ours can hurry.
IN_REAL_TIME = {"test_pool_kinds.py", "test_pools.py"}


_FAULT = Fault(type="Injected", message="on purpose")


class Boom(Exception):
    """What scripted work fails with."""


class Yard:
    """One test's pool, its work and its record."""

    boom = Boom

    def __init__(self) -> None:
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
        before = set(_all_tasks())
        pool = Pool(self.directory, "/p")
        try:
            async with open_tree(
                SupervisorSpec([spec]), directory=self.directory
            ) as self.root:
                yield pool
        finally:
            left = [task.name for task in _all_tasks() if task not in before]
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


def _all_tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    pending = [root] if root is not None else []
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)


def run_in_virtual_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """trio.run on a clock that jumps, with the order of trio's batches fixed by a seed."""
    # pytest-randomly seeds `random` before each test, so that a failure can be repeated.
    trio._core._run._r.seed(random.getrandbits(64))
    clock = clock or MockClock(autojump_threshold=0)
    trio.run(main, clock=clock, instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The async tests of this folder run in virtual time, where that is possible."""
    here = Path(__file__).parent
    for item in items:
        function = getattr(item, "function", None)
        if (
            here in item.path.parents
            and item.path.name not in IN_REAL_TIME
            and inspect.iscoroutinefunction(function)
        ):
            marker = pytest.mark.trio(run=run_in_virtual_time)
            item.add_marker(marker, append=False)


@pytest.fixture
def yard() -> Iterator[Yard]:
    """A pool and scripted work; the invariants are checked after the test."""
    yard = Yard()
    yield yard
    assert yard.violations() == []
