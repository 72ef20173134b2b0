"""Our records as the objects of OpenTelemetry's SDK, which knows how to encode them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LogRecord as OtelLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtelHistogram
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from treewarden.clock import wall_ns

from .logs import Severity
from .metrics import DistributionSeries, MetricKind, Series
from .spans import SpanKind
from .tracer import sdk_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource

    from .logs import LogRecord
    from .metrics import Distribution, Reading
    from .spans import AttributeValue, Span

_KINDS: Final = {
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
}
_SEVERITIES: Final = {
    Severity.DEBUG: SeverityNumber.DEBUG,
    Severity.INFO: SeverityNumber.INFO,
    Severity.WARN: SeverityNumber.WARN,
    Severity.ERROR: SeverityNumber.ERROR,
    Severity.FATAL: SeverityNumber.FATAL,
}
_UNSET: Final = trace.Status(trace.StatusCode.UNSET)


class Converter:
    """Makes the SDK's objects, all of one resource."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("treewarden")

    def log(self, log: LogRecord) -> ReadableLogRecord:
        """A log record as the SDK would have made it."""
        return ReadableLogRecord(_log(log), self._resource, self._scope)

    def metrics(self, readings: Sequence[Reading], since_ns: int) -> MetricsData:
        """Readings of this moment; totals are cumulative from `since_ns`."""
        now_ns = wall_ns()
        metrics = [_metric(reading, since_ns, now_ns) for reading in readings]
        scope = ScopeMetrics(scope=self._scope, metrics=metrics, schema_url="")
        return MetricsData(
            [
                ResourceMetrics(
                    resource=self._resource,
                    scope_metrics=[scope],
                    schema_url=self._resource.schema_url,
                )
            ]
        )

    def span(self, span: Span) -> ReadableSpan:
        """A span as the SDK would have made it, sampled."""
        return ReadableSpan(
            _utf8(span.name),
            context=sdk_context(span.context),
            parent=sdk_context(span.parent) if span.parent is not None else None,
            resource=self._resource,
            attributes=span.attributes,
            links=[trace.Link(sdk_context(link)) for link in span.links],
            kind=_KINDS[span.kind],
            status=_UNSET if span.error is None else _failure(span.error),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


def _failure(error: str) -> trace.Status:
    return trace.Status(trace.StatusCode.ERROR, _utf8(error))


def _log(log: LogRecord) -> OtelLogRecord:
    context = otel_context.Context()
    if log.context is not None:
        span = trace.NonRecordingSpan(sdk_context(log.context))
        context = trace.set_span_in_context(span, context)
    return OtelLogRecord(
        timestamp=log.at_ns,
        observed_timestamp=log.at_ns,
        context=context,
        severity_text=log.severity.upper(),
        severity_number=_SEVERITIES[log.severity],
        body=_utf8(log.body),
        attributes={name: _clean(value) for name, value in log.attributes.items()},
        event_name=log.event or None,
    )


def _metric(reading: Reading, since_ns: int, now_ns: int) -> Metric:
    data: Gauge | Sum | OtelHistogram
    match reading:
        case DistributionSeries():
            data = OtelHistogram(
                [_buckets(d, since_ns, now_ns) for d in reading.distributions],
                AggregationTemporality.CUMULATIVE,
            )
        case Series():
            data = _numbers(reading, since_ns, now_ns)
    return Metric(reading.name, reading.description, reading.unit, data)


def _numbers(series: Series, since_ns: int, now_ns: int) -> Gauge | Sum:
    points = [
        NumberDataPoint(attributes, since_ns, now_ns, value)
        for attributes, value in series.points
    ]
    if series.kind is MetricKind.GAUGE:
        return Gauge(points)
    rising = series.kind is MetricKind.COUNTER
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=rising)


def _buckets(
    distribution: Distribution, since_ns: int, now_ns: int
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=distribution.attributes,
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=sum(distribution.counts),
        sum=distribution.total,
        bucket_counts=distribution.counts,
        explicit_bounds=distribution.bounds,
        min=distribution.least,
        max=distribution.most,
    )


def _clean(value: AttributeValue) -> AttributeValue:
    return _utf8(value) if isinstance(value, str) else value


def _utf8(text: str) -> str:
    """`text` without lone surrogates, which no encoder takes."""
    return text if text.isascii() else text.encode(errors="replace").decode()
