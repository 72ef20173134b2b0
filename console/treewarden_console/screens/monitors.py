"""The monitors: what is wrong now, how subjects are, how full and how slow things are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual.binding import Binding, BindingType

from treewarden.control.protocol import (
    Acknowledge,
    AlarmRow,
    GaugeRow,
    GetGauges,
    GetHealth,
    GetOperations,
    HealthRow,
    OperationRow,
    Rights,
)
from treewarden_console.state import age, span
from treewarden_console.widgets import (
    BLANK,
    Cell,
    Tone,
    alarm_page,
    gauge_page,
    gauged,
    health_page,
    operation_page,
    state_look,
)

from .listing import Listing, Shown, name, number, quiet
from .lists import ListsScreen
from .view import Hint
from .wants import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import Message
    from treewarden_console.widgets import Spans

_WORST: Final = (
    "dead", "unresponsive", "unhealthy", "degraded", "unknown", "healthy",
)  # fmt: skip
_PRESSURES: Final = ("severe", "moderate", "normal")


class AlarmList(Listing[AlarmRow]):
    """All open alarms, in the order of their opening."""

    ID = "alarms"
    ONE = "open alarm"
    NOTHING = "no alarm is open"
    TABLES: ClassVar[tuple[str, ...]] = ("alarms",)
    BY_ID = False
    HINTS: ClassVar[tuple[Hint, ...]] = (Hint("A", "acknowledge", Rights.RW),)

    def columns(self) -> Sequence[Shown[AlarmRow]]:
        """How bad, what, of what, since when, and whether somebody knows."""
        return (
            Shown("SEVERITY", 10, lambda row: self.sign(state_look(row.severity))),
            Shown("ALARM", 15, lambda row: name(row.name)),
            Shown("SUBJECT", 18, lambda row: quiet(row.subject), least=100),
            Shown("SINCE", 5, lambda row: self.since(row.opened_at_ns), right=True),
            Shown("COUNT", 5, lambda row: number(row.count), right=True, least=90),
            Shown("VALUE", 7, _value, right=True),
            Shown("KNOWN TO", 10, _known),
            Shown("MESSAGE", 0, lambda row: Cell(row.message)),
        )

    def orders(self) -> Mapping[str, Callable[[AlarmRow], Any]]:
        """The critical and unknown first; what one subject has together."""
        return {
            "severity": lambda row: (
                row.severity != "critical",
                bool(row.acknowledged_by),
            ),
            "subject": lambda row: row.subject,
        }

    def words(self, row: AlarmRow) -> str:
        """Name, subject, severity and message."""
        return f"{row.name} {row.subject} {row.severity} {row.message}"

    def notes(self, rows: Mapping[str, AlarmRow]) -> Iterable[str]:
        """How many nobody knows of."""
        unknown = sum(not row.acknowledged_by for row in rows.values())
        return [f"{unknown} not acknowledged"] if unknown else []

    def heading(self, id_: str) -> str:
        """Its number."""
        return f"alarm {id_}"

    def page(self, row: AlarmRow) -> list[Spans]:
        """What it says."""
        return alarm_page(row, self.desk, self.ink)

    def node(self, row: AlarmRow) -> str:
        """Its subject, if that is a node."""
        return row.subject

    def propose(self, act: str, row: AlarmRow) -> Proposal | str:
        """Say that somebody knows."""
        effect = "Others see that you know of it; it stays open until it is over."
        return Proposal(
            method="acknowledge",
            params=Acknowledge(alarm=row.id),
            title=f"acknowledge alarm {row.id}",
            page=[[(effect, Tone.TEXT)], BLANK, *self.page(row)],
            verb="Acknowledge",
        )


class HealthList(Listing[HealthRow]):
    """The subjects of the health checks."""

    ID = "health"
    ONE = "health subject"
    NOTHING = "nothing is checked: runtime.monitors.health has no subjects"
    TABLES: ClassVar[tuple[str, ...]] = ("health",)

    def columns(self) -> Sequence[Shown[HealthRow]]:
        """How it is, since when, and why."""
        return (
            Shown("SUBJECT", 0, lambda row: name(row.subject)),
            Shown("STATUS", 11, lambda row: self.sign(state_look(row.status))),
            Shown("SINCE", 5, lambda row: self.since(row.since_ns), right=True),
            Shown("CHECKS", 6, lambda row: number(row.checks), right=True, least=72),
            Shown("FAILED", 6, lambda row: number(row.failures, Tone.BAD), right=True),
            Shown("LATE", 5, lambda row: number(row.late, Tone.WORRY), right=True),
            Shown("REASON", 30, lambda row: Cell(row.reason, Tone.WORRY)),
        )

    def orders(self) -> Mapping[str, Callable[[HealthRow], Any]]:
        """The worst first."""
        return {"status": lambda row: (*_WORST, row.status).index(row.status)}

    def words(self, row: HealthRow) -> str:
        """Subject, status and reason."""
        return f"{row.subject} {row.status} {row.reason}"

    def notes(self, rows: Mapping[str, HealthRow]) -> Iterable[str]:
        """How many are not well."""
        states = Counter(row.status for row in rows.values())
        for status in _WORST[:-1]:
            if states[status]:
                look = state_look(status)
                yield f"{self.ink.glyph(look)} {states[status]} {look.word}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("health", GetHealth())]

    def page(self, row: HealthRow) -> list[Spans]:
        """What the last check found."""
        return health_page(row, self.desk, self.ink)

    def node(self, row: HealthRow) -> str:
        """The subject, if it is a node."""
        return row.subject


class GaugeList(Listing[GaugeRow]):
    """How full things are."""

    ID = "resources"
    ONE = "gauge"
    NOTHING = "no gauge is read"
    TABLES: ClassVar[tuple[str, ...]] = ("gauges",)

    def columns(self) -> Sequence[Shown[GaugeRow]]:
        """Value, limit, and what that means."""
        return (
            Shown("GAUGE", 0, lambda row: name(row.name)),
            Shown("PRESSURE", 10, lambda row: self.sign(state_look(_pressure(row)))),
            Shown("VALUE", 9, lambda row: Cell(gauged(row, row.value)), right=True),
            Shown("LIMIT", 9, lambda row: quiet(gauged(row, row.limit)), right=True),
            Shown("FULL", 5, _full, right=True),
            Shown("READ", 5, lambda row: quiet(age(row.age)), right=True),
        )

    def orders(self) -> Mapping[str, Callable[[GaugeRow], Any]]:
        """The fullest first."""
        return {"full": lambda row: -(row.share or 0.0)}

    def words(self, row: GaugeRow) -> str:
        """Name and pressure."""
        return f"{row.name} {_pressure(row)}"

    def notes(self, rows: Mapping[str, GaugeRow]) -> Iterable[str]:
        """How many are not normal."""
        states = Counter(map(_pressure, rows.values()))
        for pressure in ("unknown", *_PRESSURES[:-1]):
            if states[pressure]:
                look = state_look(pressure)
                yield f"{self.ink.glyph(look)} {states[pressure]} {look.word}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("gauges", GetGauges())]

    def page(self, row: GaugeRow) -> list[Spans]:
        """What it measured, and what it guards."""
        return gauge_page(row, self.ink)


class OperationList(Listing[OperationRow]):
    """How long things take."""

    ID = "performance"
    ONE = "timed operation"
    NOTHING = "nothing is timed: runtime.monitors.performance has no operations"
    TABLES: ClassVar[tuple[str, ...]] = ("operations",)

    def columns(self) -> Sequence[Shown[OperationRow]]:
        """How often, how it ended, how long it took."""
        return (
            Shown("OPERATION", 0, lambda row: name(row.name)),
            Shown("RUNS", 5, lambda row: number(row.count), right=True),
            Shown("FAIL", 5, lambda row: number(row.failed, Tone.BAD), right=True),
            Shown("CANCEL", 6, lambda row: number(row.cancelled), right=True, least=72),
            Shown("MEAN", 7, lambda row: Cell(span(row.mean)), right=True),
            Shown("P95", 7, lambda row: Cell(span(row.p95)), right=True),
            Shown("MAX", 7, lambda row: quiet(span(row.maximum)), right=True),
        )

    def orders(self) -> Mapping[str, Callable[[OperationRow], Any]]:
        """The slowest, the most often, the most often in vain."""
        return {
            "p95": lambda row: -row.p95,
            "runs": lambda row: -row.count,
            "failed": lambda row: -row.failed,
        }

    def words(self, row: OperationRow) -> str:
        """Its name."""
        return row.name

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("operations", GetOperations())]

    def page(self, row: OperationRow) -> list[Spans]:
        """All that was counted."""
        return operation_page(row)


class MonitorsScreen(ListsScreen):
    """Alarms, health, gauges and operations."""

    TAB: ClassVar[int] = 7
    LISTS: ClassVar[tuple[type[Listing[Any]], ...]] = (
        AlarmList,
        HealthList,
        GaugeList,
        OperationList,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("A", "propose('acknowledge')", show=False),
    ]


def _value(row: AlarmRow) -> Cell:
    return quiet("" if row.value is None else f"{row.value:.4g}")


def _known(row: AlarmRow) -> Cell:
    known = row.acknowledged_by
    return Cell(known, Tone.MUTED) if known else Cell("nobody", Tone.WORRY)


def _pressure(row: GaugeRow) -> str:
    return row.pressure if row.value is not None else "unknown"


def _full(row: GaugeRow) -> Cell:
    if row.share is None:
        return quiet("")
    return Cell(f"{row.share:.0%}", state_look(row.pressure).tone)
