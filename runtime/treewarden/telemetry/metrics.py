"""Numbers about a runtime: read when they are exported, not pushed when they change.

Counters and gauges are read from the records that every part keeps anyway; only
distributions need a place of their own, a `Histogram` of fixed buckets. Recording into one
of the SDK's costs sixty times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from math import inf
from typing import Final, TypeAlias

from treewarden.clock import wall_ns

from .spans import NO_ATTRIBUTES, Attributes

MAILBOX_DEPTH: Final = "treewarden.agent.mailbox.depth"
MAILBOX_WAIT: Final = "treewarden.agent.mailbox.wait"
HANDLER_DURATION: Final = "treewarden.agent.handler.duration"
NODE_RESTARTS: Final = "treewarden.node.restarts"
NODE_EXITS: Final = "treewarden.node.exits"
BUS_PUBLISHED: Final = "treewarden.bus.published"
BUS_DROPPED: Final = "treewarden.bus.dropped"
BUS_PENDING: Final = "treewarden.bus.pending"
CIRCUIT_STATE: Final = "treewarden.circuit.state"
CIRCUIT_TRANSITIONS: Final = "treewarden.circuit.transitions"
STORE_COMMIT_DURATION: Final = "treewarden.store.commit.duration"
STORE_GROUP_SIZE: Final = "treewarden.store.group.size"
LOOP_LAG: Final = "treewarden.loop.lag"
TASKS: Final = "treewarden.tasks"

# Seconds: a handler takes 10 µs when it is fast and 10 s when it is stuck.
DURATION_BOUNDS: Final = (
    0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
)  # fmt: skip
# Units in a group commit; a group holds at most some hundreds.
SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

# Series of one name; the OpenTelemetry specification's default limit.
SERIES_LIMIT: Final = 2_000
OVERFLOW: Final[Attributes] = {"otel.metric.overflow": True}

Number: TypeAlias = int | float
Source: TypeAlias = Callable[[], Iterable[tuple[Attributes, Number]]]


class MetricKind(StrEnum):
    """How values of one series relate: a total, a level, or a level that adds up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    UPDOWN = "updown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram at one moment; `counts` has one more item than `bounds`."""

    attributes: Attributes
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What one metric said when it was read: points, or distributions."""

    name: str
    unit: str
    description: str
    kind: MetricKind
    points: tuple[tuple[Attributes, Number], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionSeries:
    """The distributions of one name."""

    name: str
    unit: str
    description: str
    distributions: tuple[Distribution, ...]


Reading: TypeAlias = Series | DistributionSeries


class Histogram:
    """How often a value fell between which bounds; upper bounds are inclusive."""

    __slots__ = ("attributes", "bounds", "counts", "least", "most", "total")

    def __init__(
        self, bounds: Sequence[float], attributes: Attributes = NO_ATTRIBUTES
    ) -> None:
        self.bounds = tuple(bounds)
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds must rise, not {self.bounds}")
        self.attributes = attributes
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.least = inf
        self.most = -inf

    def record(self, value: float) -> None:
        """Count `value`, in the histogram's unit (seconds, where it is a duration)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        if value > self.most:
            self.most = value
        if value < self.least:
            self.least = value

    def distribution(self) -> Distribution:
        """A copy of this moment."""
        return Distribution(
            attributes=self.attributes,
            bounds=self.bounds,
            counts=tuple(self.counts),
            total=self.total,
            least=self.least,
            most=self.most,
        )


@dataclass(slots=True)
class _Observed:
    unit: str
    description: str
    source: Source
    kind: MetricKind


@dataclass(slots=True)
class _Histograms:
    unit: str
    description: str
    by_attributes: dict[frozenset[tuple[str, object]], Histogram] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsStatistics:
    """How many metrics there are, and what went wrong in reading them."""

    observed: int
    histograms: int
    failed_reads: int
    dropped_points: int
    last_error: str | None


class Metrics:
    """All metrics of a runtime, read together by the exporter.

    Totals count from `since_ns`, nanoseconds since the epoch.
    """

    def __init__(self, *, series_limit: int = SERIES_LIMIT) -> None:
        self.since_ns = wall_ns()
        self._series_limit = series_limit
        self._observed: dict[str, _Observed] = {}
        self._histograms: dict[str, _Histograms] = {}
        self._failed_reads = 0
        self._dropped_points = 0
        self._last_error: str | None = None

    def observe(
        self,
        name: str,
        unit: str,
        description: str,
        source: Source,
        kind: MetricKind | str = MetricKind.GAUGE,
    ) -> None:
        """Ask `source` for this metric's points whenever metrics are read.

        `source` runs on the trio thread and must not block. Asked again for the same
        name, the latest source counts: a restarted part registers itself anew.
        """
        self._observed[name] = _Observed(unit, description, source, MetricKind(kind))

    def histogram(
        self,
        name: str,
        unit: str,
        bounds: Sequence[float],
        attributes: Attributes = NO_ATTRIBUTES,
        description: str = "",
    ) -> Histogram:
        """The histogram of this name and these attributes; the same one each time.

        Beyond the limit of series (2,000 a name) all share one that says `overflow`.
        """
        family = self._histograms.setdefault(name, _Histograms(unit, description))
        key = frozenset(attributes.items())
        if key not in family.by_attributes and self._is_full(family):
            attributes, key = OVERFLOW, frozenset(OVERFLOW.items())
        return family.by_attributes.setdefault(key, Histogram(bounds, attributes))

    def read(self) -> list[Reading]:
        """Every metric at this moment; one whose source raises is left out, counted."""
        observed = (self._series(*item) for item in list(self._observed.items()))
        families = (_distributions(*item) for item in self._histograms.items())
        return [reading for reading in (*observed, *families) if reading is not None]

    def statistics(self) -> MetricsStatistics:
        """The counters of this moment."""
        return MetricsStatistics(
            observed=len(self._observed),
            histograms=sum(len(f.by_attributes) for f in self._histograms.values()),
            failed_reads=self._failed_reads,
            dropped_points=self._dropped_points,
            last_error=self._last_error,
        )

    def _is_full(self, family: _Histograms) -> bool:
        # One place is kept for the series that takes the overflow.
        return len(family.by_attributes) >= self._series_limit - 1

    def _series(self, name: str, observed: _Observed) -> Series | None:
        try:
            points = iter(observed.source())
            kept = tuple(islice(points, self._series_limit))
            self._dropped_points += sum(1 for _ in points)
        except Exception as error:  # noqa: BLE001 - a bad source costs its metric only
            self._failed_reads += 1
            self._last_error = f"{name}: {type(error).__name__}: {error}"
            return None
        if not kept:
            return None
        return Series(
            name=name,
            unit=observed.unit,
            description=observed.description,
            kind=observed.kind,
            points=kept,
        )


def _distributions(name: str, family: _Histograms) -> DistributionSeries | None:
    used = [h for h in family.by_attributes.values() if any(h.counts)]
    if not used:
        return None
    return DistributionSeries(
        name=name,
        unit=family.unit,
        description=family.description,
        distributions=tuple(histogram.distribution() for histogram in used),
    )
