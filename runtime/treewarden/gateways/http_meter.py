"""What OpenTelemetry's conventions for HTTP clients measure, of all clients of a runtime.

https://opentelemetry.io/docs/specs/semconv/http/http-metrics/

Each attempt counts, as each is a request to whoever answers it. Hosts are names made from
data; beyond the limit of series of a metric they share one (`telemetry.metrics`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from treewarden.telemetry import MetricKind

from . import http_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from treewarden.telemetry import Attributes, Metrics

    from .http_span import Outcome

REQUEST_DURATION: Final = "http.client.request.duration"
ACTIVE_REQUESTS: Final = "http.client.active_requests"

# Seconds; those that the conventions name.
BOUNDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip

_Target = frozenset[tuple[str, str | int]]


class HttpMeter:
    """How long attempts take, and how many are under way, by host and method."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._active: Counter[_Target] = Counter()
        metrics.observe(
            ACTIVE_REQUESTS,
            "{request}",
            "Requests under way",
            self._points,
            MetricKind.UPDOWN,
        )

    def begin(self, request: httpx.Request) -> None:
        """An attempt leaves; `end` it however it ends."""
        self._active[_target(request)] += 1

    def end(self, request: httpx.Request, outcome: Outcome, seconds: float) -> None:
        """What became of it; None: it was cancelled, or late."""
        target = _target(request)
        self._active[target] -= 1
        if not self._active[target]:
            del self._active[target]
        self._metrics.histogram(
            REQUEST_DURATION,
            "s",
            BOUNDS,
            {**dict(target), **http_span.ending(outcome)},
            "How long a request took, with its answer",
        ).record(seconds)

    def _points(self) -> Iterable[tuple[Attributes, int]]:
        return [(dict(target), active) for target, active in self._active.items()]


def _target(request: httpx.Request) -> _Target:
    return frozenset(http_span.target(request).items())
