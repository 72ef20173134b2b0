"""Spans, metrics and logs of a runtime, and their way to an OpenTelemetry collector.

Recording is cheap and bounded: a tuple in a buffer, a number in a bucket. Exporting is
somebody else's time: `export` hands the records to OpenTelemetry's SDK on a thread of its
own, and only then is the SDK imported. A collector that is slow or gone costs memory up to
a bound, then records are dropped and counted; it never holds up the runtime or its exit.
"""

from .buffer import BufferStatistics
from .export import Exporter, export
from .logs import LogRecord, Logs, Severity
from .metrics import (
    BUS_DROPPED,
    BUS_PENDING,
    BUS_PUBLISHED,
    CIRCUIT_STATE,
    CIRCUIT_TRANSITIONS,
    DURATION_BOUNDS,
    HANDLER_DURATION,
    LOOP_LAG,
    MAILBOX_DEPTH,
    MAILBOX_WAIT,
    NODE_EXITS,
    NODE_RESTARTS,
    SIZE_BOUNDS,
    STORE_COMMIT_DURATION,
    STORE_GROUP_SIZE,
    TASKS,
    Histogram,
    MetricKind,
    Metrics,
    MetricsStatistics,
)
from .settings import ExportSettings, export_settings
from .spans import Attributes, Span, SpanContext, SpanKind, Spans, current, new_context
from .telemetry import ExportStatistics, Telemetry, TelemetryStatistics

__all__ = [
    "BUS_DROPPED",
    "BUS_PENDING",
    "BUS_PUBLISHED",
    "CIRCUIT_STATE",
    "CIRCUIT_TRANSITIONS",
    "DURATION_BOUNDS",
    "HANDLER_DURATION",
    "LOOP_LAG",
    "MAILBOX_DEPTH",
    "MAILBOX_WAIT",
    "NODE_EXITS",
    "NODE_RESTARTS",
    "SIZE_BOUNDS",
    "STORE_COMMIT_DURATION",
    "STORE_GROUP_SIZE",
    "TASKS",
    "Attributes",
    "BufferStatistics",
    "ExportSettings",
    "ExportStatistics",
    "Exporter",
    "Histogram",
    "LogRecord",
    "Logs",
    "MetricKind",
    "Metrics",
    "MetricsStatistics",
    "Severity",
    "Span",
    "SpanContext",
    "SpanKind",
    "Spans",
    "Telemetry",
    "TelemetryStatistics",
    "current",
    "export",
    "export_settings",
    "new_context",
]
