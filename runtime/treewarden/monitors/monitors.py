"""The monitors of a runtime, tied together: what they find raises alarms.

The parts do not know each other. Here a pressure that rises, a subject that is not well and
a reading over its line become alarms; all news is told to whoever listens.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

import trio

from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    NodeState,
    SupervisorSpec,
)

from .alarms import AlarmNews, AlarmRule, Alarms, Severity
from .chart import HealthStatus
from .crew import Crew
from .health import Health, HealthCheck
from .listeners import Listeners
from .performance import Performance
from .pressure import Pressure
from .readings import UNKNOWN, Readings
from .resources import GaugeUnknown, PressureChange, Resources, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from treewarden.registry import Registry
    from treewarden.supervision import Directory

News: TypeAlias = AlarmNews | HealthCheck | PressureChange | GaugeUnknown

# Of what a process may have before it is told to go easy; `resources.limit` changes it.
_MEMORY_BYTES: Final = 1024 * 1024 * 1024
# Failures among fewer runs than this are no rate.
_ENOUGH_RUNS: Final = 20

# Thresholds of the original's monitor; cpu and lag must last, since a moment is none.
_RULES: Final = (
    AlarmRule(name="cpu", reading="cpu", above=0.80, clear_at=0.70, for_seconds=60.0,
              message="the process is busy"),
    AlarmRule(name="disk", reading="disk", above=0.90, clear_at=0.85,
              message="the disk of the store is nearly full"),
    AlarmRule(name="loop_lag", reading="loop_lag", above=1.0, for_seconds=30.0,
              message="something keeps the loop from running"),
    AlarmRule(name="error_rate", reading="error_rate", above=0.05,
              message="an operation fails often"),
    AlarmRule(name="response_time", reading="response_time", above=1.0,
              message="an operation is slow"),
    AlarmRule(name="failed_nodes", reading="failed_nodes", above=2.0,
              severity=Severity.CRITICAL, message="supervisors have given up on nodes"),
)  # fmt: skip

_OF_PRESSURE: Final = {
    Pressure.MODERATE: Severity.WARNING,
    Pressure.SEVERE: Severity.CRITICAL,
}
_OF_HEALTH: Final = {
    HealthStatus.DEGRADED: Severity.WARNING,
    HealthStatus.UNHEALTHY: Severity.WARNING,
    HealthStatus.UNRESPONSIVE: Severity.WARNING,
    HealthStatus.DEAD: Severity.CRITICAL,
}


class Monitors:
    """Health, resources, performance and alarms of one runtime."""

    def __init__(
        self,
        directory: Directory,
        path: str,
        *,
        registry: Registry[Any] | None = None,
        record: Callable[[str, dict[str, Any], str], None] = lambda *_: None,
        signal: Callable[[str, dict[str, Any], str], None] = lambda *_: None,
        lag: Callable[[], float] = lambda: 0.0,
        disk: Callable[[], Path | None] = lambda: None,
    ) -> None:
        """`path` is where `spec` stands; `record` gets topic, payload and source at once.

        `signal` gets the same from a task of its own, and so outside of every handler;
        `lag` is the loop's lateness in seconds, `disk` a file on the disk to look at.
        """
        self._directory = directory
        self._record = record
        self._signal = signal
        self._lag = lag
        self._disk = disk
        # CPU seconds and trio's clock at the last round.
        self._cpu: tuple[float, float] | None = None
        self.crew = Crew(directory, f"{path}/tasks")
        self.listeners: Listeners[News] = Listeners(self.crew, "listener")
        self.alarms = Alarms(told=self._alarm_news)
        self.resources = Resources(told=self._resource_news)
        self.performance = Performance()
        self.health = Health(
            self.crew, directory, registry=registry, told=self._checked
        )
        self.readings = Readings(self.alarms)
        for rule in _RULES:
            self.alarms.rule(rule)

    def spec(self) -> SupervisorSpec:
        """The tasks and who keeps them running; who tells the bus and reads the numbers."""
        return SupervisorSpec(
            [
                ChildSpec("tasks", DynamicSupervisorSpec()),
                ChildSpec("crew", self.crew.run),
                ChildSpec("signals", self._send_signals),
                ChildSpec("readings", self._read),
                ChildSpec("deadlines", self.health.run),
            ],
            strategy="rest_for_one",
        )

    async def _send_signals(self) -> None:
        await self.listeners.serve(self._send_signal)

    async def _send_signal(self, news: News) -> None:
        self._signal(*described(news))

    async def _read(self) -> None:
        """As the readings' task: what is measured by itself, and then round after round."""
        if not self.readings.statistics().sources:
            # Not sooner: a gauge is read at once, and there was no clock.
            self.resources.gauge("memory", resident_bytes, limit=_MEMORY_BYTES)
            for name, source in self._sources().items():
                self.readings.source(name, source)
        await self.readings.run()

    def _sources(self) -> dict[str, Callable[[], Mapping[str, float]]]:
        return {
            "pressure": self._measure,
            "cpu": self._cpu_share,
            "disk": self._disk_share,
            "loop_lag": lambda: {"": self._lag()},
            "error_rate": self._error_rates,
            "response_time": self._response_times,
            "failed_nodes": self._failed_nodes,
        }

    # --- what is read ------------------------------------------------------------------------

    def _measure(self) -> dict[str, float]:
        return {"": self.resources.measure().rank}

    def _cpu_share(self) -> dict[str, float]:
        """Of one core, since the last round; the first one has nothing to tell."""
        before, self._cpu = self._cpu, (time.process_time(), trio.current_time())
        if before is None or self._cpu[1] <= before[1]:
            return {}
        return {"": (self._cpu[0] - before[0]) / (self._cpu[1] - before[1])}

    def _disk_share(self) -> dict[str, float]:
        file = self._disk()
        if file is None:
            return {}
        # In line: SQLite's file is on a local disk, whose numbers the kernel has at hand.
        found = os.statvfs(file)
        usable = found.f_blocks - found.f_bfree + found.f_bavail
        return {"": 1.0 - found.f_bavail / usable} if usable else {}

    def _error_rates(self) -> dict[str, float]:
        return {
            one.name: one.recent_failures / one.recent
            for one in self.performance.statistics().operations
            if one.recent >= _ENOUGH_RUNS
        }

    def _response_times(self) -> dict[str, float]:
        return {
            one.name: one.p95
            for one in self.performance.statistics().operations
            if one.recent >= _ENOUGH_RUNS
        }

    def _failed_nodes(self) -> dict[str, float]:
        nodes = self._directory.nodes()
        return {"": sum(node.state is NodeState.FAILED for node in nodes)}

    # --- what it means -----------------------------------------------------------------------

    def _checked(self, check: HealthCheck) -> None:
        severity = _OF_HEALTH.get(check.new) if check.new is not None else None
        if severity is not None:
            message = f"{check.new}: {check.reason}"
            self.alarms.open(
                "health", check.subject, severity=severity, message=message
            )
        elif check.new is not HealthStatus.UNKNOWN:
            self.alarms.clear("health", check.subject)
        if check.is_news:
            self._publish(check)

    def _resource_news(self, news: PressureChange | GaugeUnknown) -> None:
        if isinstance(news, GaugeUnknown):
            self._gauge_unknown(news)
        elif news.new is Pressure.NORMAL:
            self.alarms.clear("pressure", news.gauge)
        else:
            message = f"{news.new}: {news.value:.4g} of {news.limit:.4g}"
            self.alarms.open(
                "pressure",
                news.gauge,
                severity=_OF_PRESSURE[news.new],
                message=message,
            )
        self._publish(news)

    def _gauge_unknown(self, news: GaugeUnknown) -> None:
        if news.error:
            self.alarms.open(UNKNOWN, news.gauge, message=news.error)
        else:
            self.alarms.clear(UNKNOWN, news.gauge)

    def _alarm_news(self, news: AlarmNews) -> None:
        self._publish(news)

    def _publish(self, news: News) -> None:
        self._record(*described(news))
        self.listeners.tell(news)


def described(news: News) -> tuple[str, dict[str, Any], str]:
    """Topic, payload and source of a piece of news, for the bus and the journal."""
    match news:
        case AlarmNews(move=move, alarm=alarm):
            payload = {
                "alarm": alarm.id,
                "name": alarm.name,
                "subject": alarm.subject,
                "severity": alarm.severity.value,
                "message": alarm.message,
                "value": alarm.value,
                "count": alarm.count,
                "by": alarm.acknowledged_by,
            }
            return f"alarm.{move}", payload, alarm.subject or alarm.name
        case HealthCheck():
            payload = {"from": news.old.value, "reason": news.reason}
            return f"health.{news.new or 'forgotten'}", payload, news.subject
        case PressureChange():
            payload = {
                "from": news.old.value,
                "value": news.value,
                "limit": news.limit,
            }
            return f"resource.{news.new}", payload, news.gauge
        case GaugeUnknown():
            word = "unknown" if news.error else "known"
            return f"resource.{word}", {"error": news.error}, news.gauge
        case _:
            assert_never(news)
