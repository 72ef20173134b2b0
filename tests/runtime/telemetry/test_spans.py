from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.telemetry import (
    Span,
    SpanContext,
    SpanKind,
    Spans,
    current,
    new_context,
)

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN = 0x00F067AA0BA902B7

contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
)


def test_a_traceparent_is_written_as_the_recommendation_says() -> None:
    context = SpanContext(TRACE, SPAN)
    assert (
        context.traceparent()
        == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )


@given(context=contexts)
def test_a_traceparent_comes_back_as_the_context_it_was_made_of(
    context: SpanContext,
) -> None:
    assert SpanContext.from_traceparent(context.traceparent()) == context


@given(context=contexts)
def test_hexadecimal_ids_have_their_full_length(context: SpanContext) -> None:
    assert (len(context.trace_hex), len(context.span_hex)) == (32, 16)
    assert int(context.trace_hex, 16) == context.trace_id
    assert int(context.span_hex, 16) == context.span_id


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_a_header_that_breaks_the_recommendation_names_no_span(header: str) -> None:
    assert SpanContext.from_traceparent(header) is None


def test_a_header_of_a_later_version_may_say_more() -> None:
    header = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"
    assert SpanContext.from_traceparent(header) == SpanContext(TRACE, SPAN)


def test_a_new_context_stays_in_the_trace_of_its_parent() -> None:
    parent = new_context()
    child = new_context(parent)
    assert child.trace_id == parent.trace_id
    assert child.span_id != parent.span_id


def test_a_new_context_without_a_parent_begins_a_trace() -> None:
    assert new_context().trace_id != new_context().trace_id


def test_nobody_works_for_a_span_unless_told() -> None:
    assert current.get() is None


def test_a_recorded_span_is_taken_as_it_was() -> None:
    spans = Spans(enabled=True)
    context, cause = new_context(), new_context()
    spans.record(
        "agent.handle",
        context,
        None,
        10,
        20,
        SpanKind.CONSUMER,
        {"n": 1},
        (cause,),
        "no",
    )
    assert spans.take(5) == [
        Span(
            name="agent.handle",
            context=context,
            parent=None,
            started_ns=10,
            ended_ns=20,
            kind=SpanKind.CONSUMER,
            attributes={"n": 1},
            links=(cause,),
            error="no",
        )
    ]


def test_a_span_is_internal_and_went_well_unless_told() -> None:
    spans = Spans(enabled=True)
    spans.record("commit", new_context(), None, 1, 2)
    [span] = spans.take(1)
    assert (span.kind, span.attributes, span.links) == (SpanKind.INTERNAL, {}, ())
    assert span.error is None


def test_spans_beyond_the_capacity_are_dropped_and_counted() -> None:
    spans = Spans(enabled=True, capacity=2)
    for number in range(5):
        spans.record(f"span {number}", new_context(), None, 1, 2)
    assert [span.name for span in spans.take(9)] == ["span 0", "span 1"]
    assert spans.statistics().dropped == 3


def test_a_burst_of_ten_thousand_spans_fits() -> None:
    spans = Spans(enabled=True)
    for _ in range(10_000):
        spans.record("burst", new_context(), None, 1, 2)
    assert spans.statistics().dropped == 0
