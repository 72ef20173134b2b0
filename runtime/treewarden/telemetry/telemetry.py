"""What a runtime says about itself: spans, metrics and logs, in one place.

Every part records here; `export` decides whether anybody listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .logs import Logs
from .metrics import Metrics, MetricsStatistics
from .spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buffer import BufferStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStatistics:
    """What an exporter sent, and what it lost because nobody took it.

    `failing`: the latest attempt at some signal failed; `last_error` says how a failure
    began, and is None until there was one.
    """

    endpoint: str
    spans_sent: int
    spans_sampled_out: int
    spans_failed: int
    logs_sent: int
    logs_failed: int
    metric_reports_sent: int
    metric_reports_failed: int
    failing: bool
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryStatistics:
    """The counters of all of it; `export` is None while nothing is exported."""

    spans: BufferStatistics
    logs: BufferStatistics
    metrics: MetricsStatistics
    export: ExportStatistics | None

    @property
    def spans_dropped(self) -> int:
        """Spans that no collector will see, for want of room or of a collector."""
        failed = self.export.spans_failed if self.export is not None else 0
        return self.spans.dropped + failed


class Telemetry:
    """Buffers of spans and logs, and the metrics, of one runtime.

    `enabled` says whether spans and logs are recorded from the start; `export` sets it
    to what its destinations need. Histograms count in any case: the console shows them.
    """

    def __init__(self, *, enabled: bool = False) -> None:
        self.spans = Spans(enabled=enabled)
        self.logs = Logs(enabled=enabled)
        self.metrics = Metrics()
        self._exported: Callable[[], ExportStatistics] | None = None

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded for a collector."""
        return self.spans.enabled or self.logs.enabled

    def listen(
        self,
        *,
        spans: bool,
        logs: bool,
        exported: Callable[[], ExportStatistics] | None,
    ) -> None:
        """Record what somebody listens to; `exported` tells what became of it."""
        self.spans.enabled = spans
        self.logs.enabled = logs
        self._exported = exported or self._exported

    def statistics(self) -> TelemetryStatistics:
        """The counters of this moment; those of an ended export stay readable."""
        return TelemetryStatistics(
            spans=self.spans.statistics(),
            logs=self.logs.statistics(),
            metrics=self.metrics.statistics(),
            export=self._exported() if self._exported is not None else None,
        )
