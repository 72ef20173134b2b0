"""A ward: a tree with monitors in it, agents to watch, and everything that was told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from treewarden import ChildSpec, Registry, open_supervisor
from treewarden.agents import Surroundings
from treewarden.monitors import HealthStatus, Monitors, Reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, SupervisorRef
    from treewarden.monitors import Probe


class Ward:
    """What one test watches, and what it heard."""

    def __init__(self, root: SupervisorRef) -> None:
        self.root = root
        self.directory = root.directory
        self.directory.services = Surroundings()
        self.registry: Registry[AgentRef[Any]] = Registry()
        self.records: list[tuple[str, str]] = []
        self.signals: list[tuple[str, str]] = []
        self.lag = 0.0
        self.disk: Path | None = None
        self.monitors = Monitors(
            self.directory,
            "/monitors",
            registry=self.registry,
            record=lambda topic, _, source: self.records.append((topic, source)),
            signal=lambda topic, _, source: self.signals.append((topic, source)),
            lag=lambda: self.lag,
            disk=lambda: self.disk,
        )
        self.health = self.monitors.health

    async def open(self) -> None:
        """Start the monitors, and let them come to rest."""
        await self.root.start_child(ChildSpec("monitors", self.monitors.spec()))
        await wait_all_tasks_blocked()

    def status(self, subject: str) -> HealthStatus:
        """What is known of it."""
        return self.health.subject(subject).status

    def open_alarms(self) -> list[tuple[str, str]]:
        """Names and subjects."""
        return [(one.name, one.subject) for one in self.monitors.alarms.list()]


@asynccontextmanager
async def opened() -> AsyncIterator[Ward]:
    """A ward that is closed when the block is left."""
    async with open_supervisor() as root:
        ward = Ward(root)
        await ward.open()
        yield ward


@pytest.fixture
def open_ward() -> Any:
    return opened


@pytest.fixture
async def ward(autojump_clock: MockClock) -> AsyncIterator[Ward]:
    """A test names the clock too: pytest-trio looks nowhere else."""
    async with opened() as ward:
        yield ward


@pytest.fixture
def answers() -> Any:
    """Makes a probe that answers with a status."""

    def make(status: HealthStatus = HealthStatus.HEALTHY) -> Probe:
        async def probe() -> Reading:
            return Reading(status=status)

        return probe

    return make
