from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider, sampling

from treewarden.telemetry import current, new_context
from treewarden.telemetry.tracer import (
    FINISHED_CAPACITY,
    FinishedSpans,
    is_sampled,
    tracers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.telemetry import SpanContext


def provider_of(finished: FinishedSpans, sampler: sampling.Sampler) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(finished)
    return provider


@pytest.fixture
def finished() -> Iterator[FinishedSpans]:
    """What the users' spans of this process leave behind, while the test runs."""
    spans = FinishedSpans()
    provider = provider_of(spans, sampling.DEFAULT_ON)
    tracers.connect(provider)
    yield spans
    tracers.disconnect(provider)


@pytest.fixture
def working_for() -> Iterator[SpanContext]:
    context = new_context()
    token = current.set(context)
    yield context
    current.reset(token)


def test_a_users_span_is_a_child_of_what_the_task_works_for(
    finished: FinishedSpans, working_for: SpanContext
) -> None:
    with trace.get_tracer("mine").start_as_current_span("fetch"):
        pass
    [span] = finished.buffer.take(9)
    assert (span.name, span.context.trace_id) == ("fetch", working_for.trace_id)
    assert span.parent is not None
    assert span.parent.span_id == working_for.span_id


def test_a_users_span_inside_another_is_that_ones_child(
    finished: FinishedSpans, working_for: SpanContext
) -> None:
    tracer = trace.get_tracer("mine")
    with tracer.start_as_current_span("outer") as outer:
        tracer.start_span("inner").end()
    inner, _ = finished.buffer.take(9)
    assert inner.parent is not None
    assert inner.parent.span_id == outer.get_span_context().span_id
    assert inner.context.trace_id == working_for.trace_id


def test_a_users_span_outside_of_any_agent_begins_a_trace(
    finished: FinishedSpans,
) -> None:
    trace.get_tracer("mine").start_span("alone").end()
    [span] = finished.buffer.take(9)
    assert span.parent is None


def test_an_exception_is_recorded_in_the_users_span(finished: FinishedSpans) -> None:
    tracer = trace.get_tracer("mine")
    with (
        pytest.raises(ValueError, match="no"),
        tracer.start_as_current_span("fails"),
    ):
        raise ValueError("no")
    [span] = finished.buffer.take(9)
    assert span.status.status_code is trace.StatusCode.ERROR


def test_without_an_export_users_spans_do_nothing(working_for: SpanContext) -> None:
    with trace.get_tracer("mine").start_as_current_span("nothing") as span:
        assert not span.is_recording()


def test_a_tracer_serves_the_next_export_too() -> None:
    tracer = tracers.get_tracer("mine")
    for _ in range(2):
        spans = FinishedSpans()
        provider = provider_of(spans, sampling.DEFAULT_ON)
        tracers.connect(provider)
        tracer.start_span("again").end()
        tracers.disconnect(provider)
        assert [span.name for span in spans.buffer.take(9)] == ["again"]


def test_an_export_that_ends_late_does_not_disconnect_its_successor(
    finished: FinishedSpans,
) -> None:
    tracers.disconnect(provider_of(FinishedSpans(), sampling.DEFAULT_ON))
    trace.get_tracer("mine").start_span("kept").end()
    assert len(finished.buffer) == 1


def test_a_users_span_shares_the_fate_of_the_trace_it_is_in() -> None:
    spans = FinishedSpans()
    provider = provider_of(spans, sampling.ParentBased(sampling.TraceIdRatioBased(0.5)))
    tracers.connect(provider)
    expected = []
    for number in range(50):
        context = new_context()
        token = current.set(context)
        trace.get_tracer("mine").start_span(str(number)).end()
        current.reset(token)
        if is_sampled(provider.sampler, context, "agent.handle"):
            expected.append(str(number))
    tracers.disconnect(provider)
    assert [span.name for span in spans.buffer.take(50)] == expected
    assert 0 < len(expected) < 50


def test_users_spans_beyond_the_capacity_are_dropped_and_counted(
    finished: FinishedSpans,
) -> None:
    tracer = trace.get_tracer("mine")
    for _ in range(FINISHED_CAPACITY + 2):
        tracer.start_span("many").end()
    assert finished.buffer.statistics().dropped == 2
