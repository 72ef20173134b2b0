"""The users' own spans: `opentelemetry.trace` inside an agent, in the agent's trace.

A span that somebody starts with OpenTelemetry's interface becomes a child of what the
running task works for (`current`), unless a span of theirs is open already. The process can
set its global tracer provider only once, but an export can end and start again; so the
provider that is set here stays, and is connected to whichever export runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanProcessor,
    TracerProvider,
    sampling,
)
from opentelemetry.trace import SpanKind
from opentelemetry.util._decorator import _agnosticcontextmanager

from .buffer import Buffer
from .spans import SpanContext, current

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.context import Context
    from opentelemetry.util.types import Attributes

# The SDK's own bound for spans that wait for export.
FINISHED_CAPACITY: Final = 2_048


class FinishedSpans(SpanProcessor):
    """Keeps the users' finished spans for the exporter; a full buffer drops, counted."""

    def __init__(self) -> None:
        self.buffer: Buffer[ReadableSpan] = Buffer(FINISHED_CAPACITY, enabled=True)

    def on_end(self, span: ReadableSpan) -> None:
        """Called by the SDK in whichever thread ended the span."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.buffer.add(span)


_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)


def sdk_context(context: SpanContext, *, sampled: bool = True) -> trace.SpanContext:
    """`context` as the SDK's own."""
    return trace.SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=False,
        trace_flags=_SAMPLED if sampled else trace.DEFAULT_TRACE_OPTIONS,
    )


def is_sampled(sampler: sampling.Sampler, context: SpanContext, name: str) -> bool:
    """Whether the trace of `context` is exported: by its id, so that all of it is or not."""
    if sampler in {sampling.ALWAYS_ON, sampling.DEFAULT_ON}:
        return True
    chosen = sampler.should_sample(None, context.trace_id, name)
    return chosen.decision is sampling.Decision.RECORD_AND_SAMPLE


class Tracers(trace.TracerProvider):
    """The tracer provider of whichever export runs; without one, tracers do nothing."""

    def __init__(self) -> None:
        self.exporting: TracerProvider | None = None

    def connect(self, provider: TracerProvider) -> None:
        """Send spans to `provider`; the first time, become the global provider.

        A global provider that the user has set stays, and gets no spans of ours.
        """
        self.exporting = provider
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self)

    def disconnect(self, provider: TracerProvider) -> None:
        """Stop sending to `provider`, unless another has taken its place."""
        if self.exporting is provider:
            self.exporting = None

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """A tracer that outlives the export it was first used in."""
        scope = (
            instrumenting_module_name,
            instrumenting_library_version,
            schema_url,
            attributes,
        )
        return _Tracer(self, scope)


class _Tracer(trace.Tracer):
    def __init__(self, tracers: Tracers, scope: tuple[Any, ...]) -> None:
        self._tracers = tracers
        self._scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """Start a span below the user's open one, else below `current`."""
        provider = self._tracers.exporting
        if provider is None:
            return trace.NoOpTracer().start_span(name, context)
        return provider.get_tracer(*self._scope).start_span(
            name,
            _parent(context, provider.sampler),
            kind,
            attributes,
            links,
            start_time,
            record_exception,
            set_status_on_exception,
        )

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        """Start a span as `start_span` does and make it the open one in the block."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(
            span, end_on_exit, record_exception, set_status_on_exception
        ) as opened:
            yield opened


def _parent(context: Context | None, sampler: sampling.Sampler) -> Context | None:
    working_for = current.get()
    opened = trace.get_current_span(context).get_span_context()
    if working_for is None or opened.is_valid:
        return context
    sampled = is_sampled(sampler, working_for, "")
    span = trace.NonRecordingSpan(sdk_context(working_for, sampled=sampled))
    return trace.set_span_in_context(span, context)


tracers: Final = Tracers()
"""The one that this process may have set as the global tracer provider."""
