"""Sending telemetry to a collector, as one child of the system tree.

The trio thread only reads the metrics now and then. A daemon thread of ours empties the
buffers and talks to the collector; when that does not answer, the thread is left behind.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from .settings import export_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .otel import Sender
    from .settings import ExportSettings
    from .telemetry import ExportStatistics, Telemetry

# Seconds for the last records to leave: a full buffer takes 0.4 s. Two seconds are promised
# for the end of the process; the other one is for a busy machine.
FLUSH_BUDGET: Final = 1.0

# Importing the SDK takes some 0.3 s: not on the trio thread, and one at a time.
_imports = trio.CapacityLimiter(1)


class Exporter:
    """An export that runs; `settings` is None when no endpoint is configured."""

    def __init__(self, settings: ExportSettings | None, sender: Sender | None) -> None:
        self.settings = settings
        self._sender = sender

    def statistics(self) -> ExportStatistics | None:
        """What was sent and lost; None when nothing is exported."""
        return self._sender.statistics() if self._sender is not None else None


@asynccontextmanager
async def export(
    telemetry: Telemetry,
    *,
    endpoint: str | None,
    service_name: str,
    service_instance: str,
) -> AsyncIterator[Exporter]:
    """Export what `telemetry` records while the block runs.

    `endpoint` is the base URL of an OTLP/HTTP collector; None leaves it to the `OTEL_*`
    variables, which also overrule the service's name and attributes. Without an endpoint
    anywhere, nothing is recorded, imported or sent.

    Leaving sends what is left, for at most `FLUSH_BUDGET` seconds, also when cancelled;
    what a collector does not take in that time is lost.

    Raises:
        ConfigError: an endpoint or variable cannot be honoured; nothing was started.
    """
    settings = export_settings(endpoint, os.environ)
    if settings is None:
        telemetry.listen(spans=False, logs=False, exported=None)
        yield Exporter(None, None)
        return
    sender = await trio.to_thread.run_sync(
        _make_sender, telemetry, settings, service_name, service_instance,
        limiter=_imports,
    )  # fmt: skip
    telemetry.listen(
        spans=sender.wants_spans,
        logs=settings.logs is not None,
        exported=sender.statistics,
    )
    sender.start(trio.lowlevel.current_trio_token())
    try:
        yield Exporter(settings, sender)
    finally:
        telemetry.listen(spans=False, logs=False, exported=None)
        sender.finish(telemetry.metrics.read())
        with trio.move_on_after(FLUSH_BUDGET, shield=True):
            await sender.finished.wait()
        sender.abandon()


def _make_sender(
    telemetry: Telemetry,
    settings: ExportSettings,
    service_name: str,
    service_instance: str,
) -> Sender:
    from .otel import Sender

    return Sender(telemetry, settings, service_name, service_instance)
