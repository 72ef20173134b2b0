"""Spans on their way to a collector: what recording one costs, and exporting many.

    python tests/benchmarks/bench_telemetry.py              our rows
    python tests/benchmarks/bench_telemetry.py --compare    beside OpenTelemetry's SDK

The collector is the real one of the `rotel` wheel, on the same machine. How late the loop
gets is compared with the same loop, with nothing recorded, in the same process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio
from rounds import Goal, Peer, anchor, emit, main

from treewarden.telemetry import SpanKind, Telemetry, export, new_context

SPANS = 30_000
PER_MS = 5
ATTRIBUTES = {"agent": "a1", "op": "call"}

PEERS = (Peer(script="otel_overhead.py", needs=("rotel", "opentelemetry")),)
GOALS = (
    Goal(
        what="recording a span",
        ours="treewarden.span.record",
        than="otel.span.batch_export",
        at_most=0.1,
    ),
    Goal(
        what="record and export",
        ours="treewarden.spans.end_to_end",
        than="otel.end_to_end",
        at_least=1.0,
    ),
    Goal(
        what="lateness at 5,000 spans/s, p99",
        ours="treewarden.paced5k.loop_late.p99",
        than="treewarden.paced_none.loop_late.p99",
        at_most=1.5,
    ),
)


async def measure_export(http: int) -> None:
    """A burst from the first record to the last answer; then a paced stream."""
    paced = anchor("otel_overhead").paced
    telemetry = Telemetry()
    telemetry.spans.capacity = SPANS

    def record() -> None:
        telemetry.spans.record(
            "agent.call", new_context(), None, 1, 2, SpanKind.INTERNAL, ATTRIBUTES
        )

    async with export(
        telemetry,
        endpoint=f"http://127.0.0.1:{http}",
        service_name="bench",
        service_instance="1",
    ):
        began = time.perf_counter()
        for _ in range(SPANS):
            record()
        recorded = time.perf_counter()
        while _sent(telemetry) < SPANS:  # noqa: ASYNC110 - a thread counts
            await trio.sleep(0.005)
        emit("treewarden.span.record", (recorded - began) / SPANS * 1e6, "us")
        emit(
            "treewarden.spans.end_to_end",
            SPANS / (time.perf_counter() - began),
            "spans/s",
        )
        await paced("treewarden.paced_none", lambda: None, PER_MS)
        await paced("treewarden.paced5k", record, PER_MS)


def _sent(telemetry: Telemetry) -> int:
    found = telemetry.statistics().export
    return found.spans_sent if found is not None else 0


def measure(_: bool) -> None:
    """Every row of ours; the loop of nothing is one of them."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "collector.log"
        with anchor("otel_overhead").collector(log) as http:
            trio.run(measure_export, http)


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
