from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from treewarden.telemetry import ExportStatistics, Telemetry, new_context

LOST = ExportStatistics(
    endpoint="http://c",
    spans_sent=1,
    spans_sampled_out=0,
    spans_failed=4,
    logs_sent=0,
    logs_failed=0,
    metric_reports_sent=0,
    metric_reports_failed=0,
    failing=True,
    last_error="spans: refused",
)


def test_nothing_is_recorded_until_somebody_listens() -> None:
    telemetry = Telemetry()
    assert not telemetry.enabled
    telemetry.listen(spans=True, logs=False, exported=None)
    assert (telemetry.enabled, telemetry.spans.enabled, telemetry.logs.enabled) == (
        True,
        True,
        False,
    )


def test_recording_can_be_on_from_the_start() -> None:
    assert Telemetry(enabled=True).enabled


def test_dropped_spans_are_those_without_room_and_those_without_a_collector() -> None:
    telemetry = Telemetry()
    telemetry.spans.capacity = 1
    for _ in range(3):
        telemetry.spans.record("s", new_context(), None, 1, 2)
    assert telemetry.statistics().spans_dropped == 2
    telemetry.listen(spans=True, logs=True, exported=lambda: LOST)
    assert telemetry.statistics().spans_dropped == 2 + 4


def test_the_counters_of_an_ended_export_stay_readable() -> None:
    telemetry = Telemetry()
    telemetry.listen(spans=True, logs=True, exported=lambda: LOST)
    telemetry.listen(spans=False, logs=False, exported=None)
    assert telemetry.statistics().export == LOST
    telemetry.listen(
        spans=True, logs=True, exported=lambda: replace(LOST, endpoint="http://d")
    )
    latest = telemetry.statistics().export
    assert latest is not None
    assert latest.endpoint == "http://d"


def test_recording_imports_nothing_of_opentelemetry() -> None:
    program = (
        "import sys, treewarden.telemetry as t\n"
        "t.Telemetry(enabled=True).spans.record('s', t.new_context(), None, 1, 2)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('opentelemetry', 'requests')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
