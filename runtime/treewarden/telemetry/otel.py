"""The thread that turns records into the SDK's objects and posts them.

Theory of operation. One daemon thread of ours looks at the buffers four times a second.
It exports in large batches, since a request costs as much as a hundred spans, but converts
and encodes in small slices and pauses between them, since that holds the interpreter and
the trio thread waits meanwhile: the batch that the SDK encodes is made while it is read. Metrics are read on the trio thread, where
their sources live: the thread asks through trio's token and finds the readings in one of its
next rounds. A failed export costs its batch and ends that signal's part of the round; the
SDK's exporter has then tried for its own timeout already (10 s by default), while the
buffers filled.

The SDK's own batch processor is not used: its queue costs a call's worth of time for each
span, and its shutdown was seen to block for 30 s.

`export` imports this module, and OpenTelemetry with it, only when there is an endpoint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, overload

import trio
from opentelemetry import context as otel_context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider, sampling

from treewarden.injection import places

from .convert import Converter
from .outage import Outage
from .settings import shown
from .telemetry import ExportStatistics
from .tracer import FinishedSpans, is_sampled, tracers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from enum import Enum

    from opentelemetry.sdk.trace import ReadableSpan

    from .buffer import Buffer
    from .logs import LogRecord, Unwritten
    from .metrics import Reading
    from .settings import ExportSettings
    from .spans import Span
    from .telemetry import Telemetry

# Seconds between two looks at the buffers.
POLL: Final = 0.25
# Spans converted and encoded at once. With 5,000 spans a second, the worst percent of a 1 ms
# heartbeat was 1.4 ms late with slices of 16, 2.0 with 32, 18 with 512, and 1.2 idle (one run
# on a quiet machine; six rounds on a busy one told only 512 apart from the others).
SLICE: Final = 16
# Log records in a slice: one takes as long as ten spans, for its traceback.
LOG_SLICE: Final = 1
# Spans, or log records, in a request. On a busy machine of two cores, beside its collector,
# 16 spans a request made 6,000 a second, 512 made 12,400 (17,300 with the pause below) and
# 2,048 no more; the SDK's own batch processor, in the same minutes, 9,300.
BATCH: Final = 512
# Seconds of pause between two slices: long enough for the trio thread to take over. The
# kernel makes some 0.3 ms of it.
PAUSE: Final = 0.0002

Item = TypeVar("Item")
Made = TypeVar("Made")
Batch = TypeVar("Batch")
Accepted = TypeVar("Accepted", contravariant=True)


class Sender:
    """The exporting thread, and what the trio thread may do to it.

    Made in any thread; `start`, `finish` and `abandon` are called on the trio thread and
    never block. `finished` is set on the trio thread when the last record was dealt with.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        settings: ExportSettings,
        service_name: str,
        service_instance: str,
    ) -> None:
        self.finished = trio.Event()
        self._telemetry = telemetry
        self._settings = settings
        resource = _resource(service_name, service_instance)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._users = FinishedSpans()
        self._provider.add_span_processor(self._users)
        self._convert = Converter(resource)
        outages = _Outages()
        self._traces = _Post("spans", settings.traces, OTLPSpanExporter, outages)
        self._metrics = _Post("metrics", settings.metrics, OTLPMetricExporter, outages)
        self._logs = _Post("logs", settings.logs, OTLPLogExporter, outages)
        self._posts = (self._traces, self._metrics, self._logs)
        self._spans_sampled_out = 0
        self._broken: str | None = None
        # The trio thread appends, ours takes: a deque's steps are atomic.
        self._readings: deque[list[Reading]] = deque(maxlen=1)
        self._metrics_due = 0.0
        self._stopping = False
        self._abandoned = False
        self._wake = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def wants_spans(self) -> bool:
        """Whether recording spans makes sense: somebody takes them and samples any."""
        never = (sampling.ALWAYS_OFF, sampling.DEFAULT_OFF)
        return self._traces.wanted and self._provider.sampler not in never

    def start(self, token: trio.lowlevel.TrioToken) -> None:
        """Begin to export; metrics are read in the trio thread of `token`."""
        self._token = token
        if self._traces.wanted:
            tracers.connect(self._provider)
        threading.Thread(
            target=self._run, name="treewarden telemetry", daemon=True
        ).start()

    def finish(self, readings: list[Reading]) -> None:
        """Send `readings` and what waits, then end; nothing is tried twice any more."""
        tracers.disconnect(self._provider)
        self._readings.append(readings)
        self._stopping = True
        self._wake.set()
        for post in self._posts:
            post.hurry()

    def abandon(self) -> None:
        """Let the thread go, finished or not; it ends after the request it is in."""
        self._abandoned = True
        for post in self._posts:
            post.interrupt()

    def statistics(self) -> ExportStatistics:
        """The counters of this moment."""
        errors = (post.last_error for post in self._posts if post.last_error)
        return ExportStatistics(
            endpoint=self._settings.endpoint,
            spans_sent=self._traces.sent,
            spans_sampled_out=self._spans_sampled_out,
            spans_failed=self._traces.failed + self._users.buffer.dropped,
            logs_sent=self._logs.sent,
            logs_failed=self._logs.failed,
            metric_reports_sent=self._metrics.sent,
            metric_reports_failed=self._metrics.failed,
            failing=any(post.failing for post in self._posts),
            last_error=next(errors, self._broken),
        )

    def _run(self) -> None:
        # An instrumented HTTP library must not make spans of our own requests.
        otel_context.attach(
            otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True)  # noqa: SLF001 - its only name
        )
        with ExitStack() as stack:
            for post in self._posts:
                stack.enter_context(post.listening())
            while not self._stopping:
                self._wake.wait(POLL)
                self._round()
            self._round()
        self._on_trio(self.finished.set)

    def _round(self) -> None:
        try:
            self._send_metrics()
            self._drain(self._telemetry.logs, self._send_logs)
            self._drain(self._telemetry.spans, self._send_spans)
            self._drain(self._users.buffer, self._send_users_spans)
        except Exception as error:  # noqa: BLE001 - one bad record must not end the export
            self._broken = f"{type(error).__name__}: {error}"

    def _drain(
        self, buffer: Buffer[Item], send: Callable[[Sequence[Item]], bool]
    ) -> None:
        # Only what waits now, so that a stream of spans cannot starve the other signals.
        for _ in range(0, len(buffer), BATCH):
            # What an abandoned thread leaves belongs to the next export.
            if self._abandoned or not send(buffer.take(BATCH)):
                return
            self._pause()

    def _pause(self) -> None:
        # At the end nobody waits for the interpreter any more, and time is short.
        if not self._stopping:
            time.sleep(PAUSE)

    def _send_spans(self, spans: Sequence[Span]) -> bool:
        sampled = [span for span in spans if self._is_sampled(span)]
        self._spans_sampled_out += len(spans) - len(sampled)
        batch = _Paced(sampled, self._convert.span, SLICE, self._pause)
        return self._traces.send(lambda: batch, len(sampled))

    def _send_users_spans(self, spans: Sequence[ReadableSpan]) -> bool:
        batch = _Paced(spans, _as_it_is, SLICE, self._pause)
        return self._traces.send(lambda: batch, len(spans))

    def _send_logs(self, taken: Sequence[LogRecord | Unwritten]) -> bool:
        written = self._telemetry.logs.written(taken)
        logs = [*_slowly(written, LOG_SLICE, self._pause)]
        batch = _Paced(logs, self._convert.log, SLICE, self._pause)
        return self._logs.send(lambda: batch, len(logs))

    def _send_metrics(self) -> None:
        if self._readings:
            readings = self._readings.popleft()
            since_ns = self._telemetry.metrics.since_ns
            self._metrics.send(lambda: self._convert.metrics(readings, since_ns), 1)
        if (
            self._metrics.wanted
            and not self._stopping
            and time.monotonic() >= self._metrics_due
        ):
            self._metrics_due = time.monotonic() + self._settings.metric_interval
            self._on_trio(self._read_metrics)

    def _read_metrics(self) -> None:
        # Metrics.read() contains what its sources raise: nothing may escape into trio here.
        self._readings.append(self._telemetry.metrics.read())

    def _on_trio(self, function: Callable[[], object]) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function)

    def _is_sampled(self, span: Span) -> bool:
        return is_sampled(self._provider.sampler, span.context, span.name)


def _as_it_is(span: ReadableSpan) -> ReadableSpan:
    return span


def _slowly(
    items: Iterable[Item], slice_: int, pause: Callable[[], None]
) -> Iterator[Item]:
    """The items, with a pause after every `slice_` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % slice_ == 0:
            pause()


class _Paced(Sequence[Made], Generic[Item, Made]):
    """What `make` makes of the items, slowly, while somebody goes through it."""

    def __init__(
        self,
        items: Sequence[Item],
        make: Callable[[Item], Made],
        slice_: int,
        pause: Callable[[], None],
    ) -> None:
        self._items = items
        self._make = make
        self._slice = slice_
        self._pause = pause

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Made: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...

    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        if isinstance(index, slice):
            return _Paced(self._items[index], self._make, self._slice, self._pause)
        return self._make(self._items[index])

    def __iter__(self) -> Iterator[Made]:
        return _slowly(map(self._make, self._items), self._slice, self._pause)


class _Exports(Protocol[Accepted]):
    """What the SDK's three exporters have in common."""

    def export(self, batch: Accepted, /) -> Enum: ...
    def shutdown(self) -> None: ...


class _Post(Generic[Batch]):
    """The exporter of one signal, and the tally of what it achieved."""

    def __init__(
        self,
        signal: str,
        url: str | None,
        make: Callable[[str], _Exports[Batch]],
        outages: _Outages,
    ) -> None:
        self._signal = signal
        self._outage = outages.of(url)
        self._exporter = make(url) if url is not None else None
        self._hurried = False
        self._interrupted = False
        self.sent = 0
        self.failed = 0
        self.failing = False
        self.last_error: str | None = None

    @property
    def wanted(self) -> bool:
        return self._exporter is not None

    def send(self, make: Callable[[], Batch], count: int) -> bool:
        """Post the `count` records that `make` returns; False when they are lost.

        Blocks for the exporter's timeout at worst, 10 s by default.
        """
        if self._exporter is None or not count:
            return True
        delivered = self._delivered(self._exporter, make)
        if delivered:
            self.sent += count
            self._recover()
        else:
            self.failed += count
        return delivered

    def hurry(self) -> None:
        """Try nothing twice any more. Any thread."""
        self._hurried = True
        if self.failing:
            self.interrupt()

    def interrupt(self) -> None:
        """End a pause between two attempts, and refuse further ones. Any thread."""
        if self._exporter is not None and not self._interrupted:
            self._interrupted = True
            self._exporter.shutdown()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take this thread's failures out of the SDK's log, which alone gives reasons.

        It would say the same several times a second; an outage is told once.
        """
        thread = threading.get_ident()

        def keep(record: logging.LogRecord) -> bool:
            if record.thread == thread:
                self._fail(record.getMessage())
            return record.thread != thread

        logger = logging.getLogger(type(self._exporter).__module__)
        logger.addFilter(keep)
        try:
            yield
        finally:
            logger.removeFilter(keep)

    def _delivered(self, exporter: _Exports[Batch], make: Callable[[], Batch]) -> bool:
        try:
            places.EXPORT.reach()
            return exporter.export(make()).name == "SUCCESS"
        except Exception as error:  # noqa: BLE001 - a bad record costs its slice only
            self._fail(f"{type(error).__name__}: {error}")
            return False

    def _fail(self, reason: str) -> None:
        if not self.failing:
            self.failing = True
            self.last_error = f"{self._signal}: {reason}"
            self._outage.begin(self._signal, reason)
        if self._hurried:
            self.interrupt()

    def _recover(self) -> None:
        if self.failing:
            self.failing = False
            self._outage.end(self._signal)


class _Outages:
    """One for each collector: signals that go to the same one share it."""

    def __init__(self) -> None:
        self._by_address: dict[str, Outage] = {}

    def of(self, url: str | None) -> Outage:
        address = shown(url)
        return self._by_address.setdefault(address, Outage(address))


def _resource(service_name: str, service_instance: str) -> Resource:
    named = {"service.name": service_name, "service.instance.id": service_instance}
    return Resource.create({**named, **OTELResourceDetector().detect().attributes})
