from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Metric, Sum
from opentelemetry.sdk.metrics.export import Histogram as OtelHistogram
from opentelemetry.sdk.resources import Resource

from treewarden.telemetry import (
    LogRecord,
    MetricKind,
    Metrics,
    Severity,
    Span,
    SpanContext,
    SpanKind,
    new_context,
)
from treewarden.telemetry.convert import Converter

PARENT = SpanContext(7, 8)
CONTEXT = SpanContext(7, 9)
CAUSE = SpanContext(5, 6)
SPAN = Span(
    name="agent.handle",
    context=CONTEXT,
    parent=PARENT,
    started_ns=10,
    ended_ns=25,
    kind=SpanKind.CONSUMER,
    attributes={"path": "/a", "attempt": 2, "seconds": 0.5, "durable": True},
    links=(CAUSE,),
    error="ValueError: no",
)


@pytest.fixture
def convert() -> Converter:
    return Converter(Resource({"service.name": "demo"}))


def metric(convert: Converter, metrics: Metrics) -> Metric:
    """The only metric of `metrics`, converted."""
    converted = convert.metrics(metrics.read(), metrics.since_ns)
    [of_resource] = converted.resource_metrics
    [of_scope] = of_resource.scope_metrics
    [only] = of_scope.metrics
    return only


def test_a_span_keeps_all_that_was_recorded(convert: Converter) -> None:
    [resource_spans] = encode_spans([convert.span(SPAN)]).resource_spans
    [scope_spans] = resource_spans.scope_spans
    [span] = scope_spans.spans
    assert scope_spans.scope.name == "treewarden"
    assert (span.name, span.kind) == ("agent.handle", span.SPAN_KIND_CONSUMER)
    assert span.trace_id == (7).to_bytes(16, "big")
    assert span.parent_span_id == (8).to_bytes(8, "big")
    assert span.span_id == (9).to_bytes(8, "big")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (10, 25)
    assert {a.key for a in span.attributes} == {"path", "attempt", "seconds", "durable"}
    assert [link.span_id for link in span.links] == [(6).to_bytes(8, "big")]
    assert (span.status.code, span.status.message) == (
        span.status.STATUS_CODE_ERROR,
        "ValueError: no",
    )


def test_a_span_that_went_well_has_no_status_and_may_have_no_parent(
    convert: Converter,
) -> None:
    span = convert.span(SPAN._replace(error=None, parent=None))
    assert (span.status.status_code, span.parent) == (trace.StatusCode.UNSET, None)


@pytest.mark.parametrize("kind", SpanKind)
def test_every_kind_of_span_has_its_counterpart(
    convert: Converter, kind: SpanKind
) -> None:
    span = convert.span(SPAN._replace(kind=kind))
    assert span.kind.name.lower() == kind


def test_text_that_is_no_unicode_does_not_cost_its_slice(convert: Converter) -> None:
    span = SPAN._replace(name="broken \ud800", error="\udfff")
    log = LogRecord(Severity.WARN, "broken \ud800", {}, 1, None)
    assert encode_spans([convert.span(span)]).SerializeToString()
    assert encode_logs([convert.log(log)]).SerializeToString()


@pytest.mark.parametrize("severity", Severity)
def test_a_log_record_keeps_severity_trace_and_attributes(
    convert: Converter, severity: Severity
) -> None:
    record = LogRecord(severity, "restarted", {"path": "/a"}, 33, CONTEXT)
    [resource_logs] = encode_logs([convert.log(record)]).resource_logs
    [log] = resource_logs.scope_logs[0].log_records
    assert log.severity_text == severity.upper()
    assert log.severity_number > 0
    assert (log.time_unix_nano, log.body.string_value) == (33, "restarted")
    assert log.trace_id == (7).to_bytes(16, "big")
    assert log.span_id == (9).to_bytes(8, "big")
    assert [a.key for a in log.attributes] == ["path"]


def test_a_log_record_may_belong_to_no_trace(convert: Converter) -> None:
    record = LogRecord(Severity.INFO, "started", {}, 33, None)
    [resource_logs] = encode_logs([convert.log(record)]).resource_logs
    assert resource_logs.scope_logs[0].log_records[0].trace_id == b""


@pytest.mark.parametrize(
    ("kind", "monotonic"), [(MetricKind.COUNTER, True), (MetricKind.UPDOWN, False)]
)
def test_totals_are_cumulative_sums(
    convert: Converter, kind: MetricKind, monotonic: bool
) -> None:
    metrics = Metrics()
    metrics.observe("n", "{restart}", "restarts", lambda: [({"path": "/a"}, 3)], kind)
    found = metric(convert, metrics)
    assert (found.name, found.unit, found.description) == ("n", "{restart}", "restarts")
    assert isinstance(found.data, Sum)
    assert found.data.is_monotonic is monotonic
    assert found.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    [point] = found.data.data_points
    assert (point.value, point.attributes) == (3, {"path": "/a"})
    assert point.start_time_unix_nano == metrics.since_ns <= point.time_unix_nano


def test_levels_are_gauges(convert: Converter) -> None:
    metrics = Metrics()
    metrics.observe("lag", "s", "", lambda: [({}, 0.5)])
    found = metric(convert, metrics)
    assert isinstance(found.data, Gauge)
    assert [point.value for point in found.data.data_points] == [0.5]


def test_distributions_are_cumulative_histograms(convert: Converter) -> None:
    metrics = Metrics()
    histogram = metrics.histogram("h", "s", (1.0, 2.0), {"agent": "x"})
    for value in (0.5, 1.5, 9.0):
        histogram.record(value)
    found = metric(convert, metrics)
    assert isinstance(found.data, OtelHistogram)
    [point] = found.data.data_points
    assert (point.count, point.sum) == (3, 11.0)
    assert (point.min, point.max) == (0.5, 9.0)
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == (
        [1, 1, 1],
        [1.0, 2.0],
    )


def test_metrics_can_be_encoded(convert: Converter) -> None:
    metrics = Metrics()
    metrics.observe("n", "1", "", lambda: [({"path": "/a"}, 3)], "counter")
    metrics.observe("g", "1", "", lambda: [({}, 0.5)])
    metrics.histogram("h", "s", (1.0,)).record(0.5)
    converted = convert.metrics(metrics.read(), metrics.since_ns)
    [of_resource] = encode_metrics(converted).resource_metrics
    assert [m.name for m in of_resource.scope_metrics[0].metrics] == ["n", "g", "h"]


def test_a_new_context_is_valid_for_the_sdk(convert: Converter) -> None:
    span = convert.span(SPAN._replace(context=new_context()))
    assert span.context is not None
    assert span.context.is_valid
