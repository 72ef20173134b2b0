"""Telemetry against real sockets: a real collector, and peers that are none.

The collector is the binary inside the `rotel` wheel, a development dependency on Linux; it
prints what it receives.
"""

from __future__ import annotations

import os
import platform
import random
import re
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import trio
from opentelemetry import trace

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    open_runtime,
)
from treewarden.telemetry import (
    DURATION_BOUNDS,
    HANDLER_DURATION,
    NODE_RESTARTS,
    Severity,
    SpanKind,
    Telemetry,
    current,
    export,
    new_context,
)
from treewarden.telemetry.export import FLUSH_BUDGET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from treewarden.telemetry import Exporter, ExportStatistics

    UntilWithin = Callable[[float], Iterator[list[float]]]

# Seconds that a condition may take on a busy machine before the test gives up.
PATIENCE = 60.0
# What telemetry may add to the end of a process, whatever the collector does.
EXIT_BUDGET = 2.0
# What a program without telemetry takes to end on a machine that is not busy.
USUAL_EXIT = 0.1


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no OpenTelemetry settings of the machine in the way."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last records leave however busy the machine is."""
    module = sys.modules["treewarden.telemetry.export"]
    monkeypatch.setattr(module, "FLUSH_BUDGET", PATIENCE)


def free_port() -> int:
    """A port that nobody has, and that the system gives to nobody who asks for any.

    By chance that no seed fixes: others run these tests at the same time.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def wait_for(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it is outside of this process
            await trio.sleep(0.02)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def exporting(
    telemetry: Telemetry, endpoint: str | None
) -> AbstractAsyncContextManager[Exporter]:
    return export(
        telemetry, endpoint=endpoint, service_name="demo", service_instance="i-1"
    )


def counters(exporter: Exporter) -> ExportStatistics:
    found = exporter.statistics()
    assert found is not None
    return found


def failing(exporter: Exporter) -> bool:
    return counters(exporter).failing


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """A running collector, and all that it printed."""

    output: Path

    def text(self) -> str:
        colours = re.compile(r"\x1b\[\d*m")
        return colours.sub("", self.output.read_text(encoding="utf-8"))

    def has(self, *texts: str) -> bool:
        printed = self.text()
        return all(text in printed for text in texts)


@asynccontextmanager
async def collecting(output: Path, port: int) -> AsyncIterator[Collector]:
    """Run a collector on `port` that prints to `output`; stopped with SIGTERM."""
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        pytest.skip("the collector's wheel exists for Linux on x86_64 and aarch64")
    wheel = find_spec("rotel")
    if wheel is None or wheel.origin is None:
        pytest.fail("the development dependency `rotel` is missing: run `make test`")
    command = [
        str(Path(wheel.origin).with_name("rotel-agent")), "start",
        "--exporter", "blackhole",
        "--otlp-http-endpoint", f"127.0.0.1:{port}",
        "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}",
        "--debug-log", "traces", "--debug-log", "metrics", "--debug-log", "logs",
        "--debug-log-verbosity", "detailed",
    ]  # fmt: skip
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)  # noqa: ASYNC220 - returns at once
    try:
        await wait_for(lambda: accepts(port))
        yield Collector(output=output)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await wait_for(lambda: process.poll() is not None)


async def test_a_collector_sees_spans_metrics_and_logs(tmp_path: Path) -> None:
    port = free_port()
    telemetry = Telemetry()
    telemetry.metrics.observe(
        NODE_RESTARTS, "{restart}", "restarts", lambda: [({"path": "/a"}, 3)], "counter"
    )
    handling = telemetry.metrics.histogram(
        HANDLER_DURATION, "s", DURATION_BOUNDS, {"agent": "Fetcher"}
    )
    handling.record(0.002)
    context, parent, cause = new_context(), new_context(), new_context()
    async with (
        collecting(tmp_path / "collector.log", port) as collector,
        exporting(telemetry, f"http://127.0.0.1:{port}"),
    ):
        telemetry.spans.record(
            "agent.handle", context, parent, 1_000, 2_000, SpanKind.CONSUMER,
            {"treewarden.operation": "add"}, (cause,), "ValueError: no",
        )  # fmt: skip
        telemetry.logs.record(
            Severity.ERROR, "restarted", {"path": "/a"}, context=context
        )
        await wait_for(lambda: collector.has("Body: Str(restarted)", "Str(/a)"))
        await wait_for(lambda: collector.has(f"Name: {NODE_RESTARTS}", "Value: 3"))
        await wait_for(lambda: collector.has(f"Name: {HANDLER_DURATION}", "Sum: 0.002"))
        expected = (
            "Name           : agent.handle",
            "service.name: Str(demo)",
            "service.instance.id: Str(i-1)",
            f"Trace ID       : {context.trace_hex}",
            f"ID             : {context.span_hex}",
            f"Parent ID      : {parent.span_hex}",
            f"-> ID: {cause.span_hex}",
            f"Span ID        : {context.span_hex}",
            "SPAN_KIND_CONSUMER",
            "treewarden.operation: Str(add)",
            "Start time: 1000\n",
            "Status message : ValueError: no",
            "SEVERITY_NUMBER_ERROR",
        )
        await wait_for(lambda: collector.has(*expected))


class Teller(Agent[None]):
    persistence = "none"

    async def pay(self, cents: int) -> None:
        raise ValueError(f"cannot pay {cents}")


async def test_a_collector_sees_every_supervision_report_with_its_exception(
    tmp_path: Path,
) -> None:
    """LOG-07: through the runtime, by the semantic conventions for exceptions."""
    port = free_port()
    app = Application("bank", [ChildSpec("teller", Teller)])
    config = Config(level="volatile", socket=False, otlp=f"http://127.0.0.1:{port}")
    async with (
        collecting(tmp_path / "collector.log", port) as collector,
        open_runtime(app, config=config) as runtime,
    ):
        with pytest.raises(AgentCrashed):
            await runtime.ref("teller", Teller).call(Teller.pay, 5)
        await wait_for(lambda: collector.has("Body: Str(agent /teller restarted"))
    assert collector.has(
        "Body: Str(agent /teller crashed: ValueError: cannot pay 5, handling pay)",
        "SEVERITY_NUMBER_ERROR",
        "exception.type: Str(ValueError)",
        "exception.message: Str(cannot pay 5)",
        "exception.stacktrace: Str(Traceback (most recent call last):",
        "treewarden.path: Str(/teller)",
        "treewarden.operation: Str(pay)",
        "treewarden.report: Str(supervision.exited)",
    )
    bodies = re.findall(r"Body: Str\((.*)\)", collector.text())
    assert (
        len([body for body in bodies if "crashed" in body and "after" not in body]) == 1
    )


@pytest.mark.usefixtures("unhurried")
async def test_what_was_recorded_last_still_leaves(tmp_path: Path) -> None:
    port = free_port()
    telemetry = Telemetry()
    total = [0]
    telemetry.metrics.observe("total", "1", "", lambda: [({}, total[0])], "counter")
    async with collecting(tmp_path / "collector.log", port) as collector:
        async with exporting(telemetry, f"http://127.0.0.1:{port}") as exporter:
            await wait_for(lambda: counters(exporter).metric_reports_sent)
            total[0] = 77
            telemetry.spans.record("the last", new_context(), None, 1, 2)
            telemetry.logs.record(Severity.INFO, "goodbye")
        await wait_for(lambda: collector.has("the last", "goodbye", "Value: 77"))


async def test_a_users_span_arrives_below_the_agents(tmp_path: Path) -> None:
    port = free_port()
    telemetry = Telemetry()
    context = new_context()
    async with (
        collecting(tmp_path / "collector.log", port) as collector,
        exporting(telemetry, f"http://127.0.0.1:{port}"),
    ):
        token = current.set(context)
        with trace.get_tracer("my.crawler").start_as_current_span("parse page"):
            pass
        current.reset(token)
        expected = (
            "Name           : parse page",
            "InstrumentationScope my.crawler",
            f"Trace ID       : {context.trace_hex}",
            f"Parent ID      : {context.span_hex}",
        )
        await wait_for(lambda: collector.has(*expected))


async def test_a_burst_of_ten_thousand_spans_arrives_whole(tmp_path: Path) -> None:
    port = free_port()
    telemetry = Telemetry()
    async with (
        collecting(tmp_path / "collector.log", port) as collector,
        exporting(telemetry, f"http://127.0.0.1:{port}") as exporter,
    ):
        for _ in range(10_000):
            telemetry.spans.record("burst", new_context(), None, 1, 2)
        await wait_for(lambda: counters(exporter).spans_sent == 10_000)
        await wait_for(
            lambda: len(re.findall(r"Name +: burst", collector.text())) == 10_000
        )
    assert telemetry.statistics().spans_dropped == 0


async def test_a_collector_that_comes_late_is_found(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What could not be sent is tried again for so many seconds.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(PATIENCE))
    port = free_port()
    telemetry = Telemetry()
    caplog.set_level("INFO", "treewarden.telemetry")
    async with exporting(telemetry, f"http://127.0.0.1:{port}") as exporter:
        telemetry.spans.record("early", new_context(), None, 1, 2)
        telemetry.logs.record(Severity.INFO, "early too")
        await wait_for(partial(failing, exporter))
        assert "Connection refused" in str(counters(exporter).last_error)
        async with collecting(tmp_path / "collector.log", port) as collector:
            await wait_for(lambda: collector.has("Name           : early"))
            await wait_for(lambda: not counters(exporter).failing)
    said = [record.getMessage() for record in caplog.records]
    assert re.match(
        f"the collector at http://127.0.0.1:{port} does not take (spans|logs|metrics):"
        " nobody listens there; start the collector, or correct its address",
        said[0],
    )
    assert said[1] == f"the collector at http://127.0.0.1:{port} takes telemetry again"
    # It is gone again before the export ends: that is another outage.
    assert len(said) <= 3
    assert {record.name for record in caplog.records} == {"treewarden.telemetry"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """An HTTP server that answers everything with one status and keeps what it got."""

    port: int
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def paths(self) -> set[str]:
        return {path for path, _, _ in self.requests}


@contextmanager
def sinking(status: int) -> Iterator[Sink]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sink.requests.append((self.path, headers, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    sink = Sink(port=server.server_port)
    thread = Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_the_standard_variables_say_where_to_and_as_whom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sinking(200) as sink:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{sink.port}"
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=forest")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-crawler")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab")
        telemetry = Telemetry()
        async with exporting(telemetry, None):
            assert telemetry.enabled
            telemetry.spans.record("s", new_context(), None, 1, 2)
            telemetry.logs.record(Severity.INFO, "l")
            await wait_for(lambda: sink.paths() >= {"/v1/traces", "/v1/logs"})
    assert {headers["x-tenant"] for _, headers, _ in sink.requests} == {"forest"}
    [body] = [body for path, _, body in sink.requests if path == "/v1/traces"]
    assert b"my-crawler" in body
    assert b"deployment.environment" in body
    assert b"i-1" in body


async def test_a_sampler_that_takes_nothing_stops_the_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with sinking(200) as sink:
        telemetry = Telemetry()
        async with exporting(telemetry, f"http://127.0.0.1:{sink.port}"):
            assert (telemetry.spans.enabled, telemetry.logs.enabled) == (False, True)


@pytest.mark.usefixtures("unhurried")
async def test_a_sampler_keeps_or_drops_whole_traces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with sinking(200) as sink:
        telemetry = Telemetry()
        async with exporting(telemetry, f"http://127.0.0.1:{sink.port}") as exporter:
            for _ in range(200):
                root = new_context()
                telemetry.spans.record("root", root, None, 1, 2)
                telemetry.spans.record("child", new_context(root), root, 1, 2)
            await wait_for(lambda: not len(telemetry.spans))
        found = counters(exporter)
    assert found.spans_sent + found.spans_sampled_out == 400
    assert 0 < found.spans_sent < 400
    bodies = b"".join(body for path, _, body in sink.requests if path == "/v1/traces")
    assert bodies.count(b"root") == bodies.count(b"child") == found.spans_sent // 2


@pytest.mark.usefixtures("unhurried")
async def test_an_error_of_one_signal_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable = "OTEL_EXPORTER_OTLP_{}_ENDPOINT"
    with sinking(404) as refusing, sinking(200) as sink:
        monkeypatch.setenv(variable.format("TRACES"), f"http://127.0.0.1:{sink.port}/t")
        monkeypatch.setenv(
            variable.format("LOGS"), f"http://127.0.0.1:{refusing.port}/l"
        )
        telemetry = Telemetry()
        async with exporting(telemetry, None) as exporter:
            telemetry.logs.record(Severity.INFO, "refused")
            await wait_for(lambda: counters(exporter).logs_failed)
            telemetry.spans.record("taken", new_context(), None, 1, 2)
        found = counters(exporter)
    assert (found.spans_sent, found.spans_failed, found.logs_failed) == (1, 0, 1)
    assert sink.paths() == {"/t"}


@pytest.mark.usefixtures("unhurried")
async def test_an_export_can_end_and_start_again() -> None:
    with sinking(200) as sink:
        telemetry = Telemetry()
        for name in (b"first", b"second"):
            async with exporting(telemetry, f"http://127.0.0.1:{sink.port}"):
                telemetry.spans.record(name.decode(), new_context(), None, 1, 2)
            assert not telemetry.enabled
            assert any(name in body for _, _, body in sink.requests)


async def test_a_source_of_metrics_is_asked_on_the_trio_thread() -> None:
    asked: list[object] = []

    def source() -> list[tuple[dict[str, str], int]]:
        asked.append(trio.lowlevel.in_trio_run())
        return [({}, 1)]

    with sinking(200) as sink:
        telemetry = Telemetry()
        telemetry.metrics.observe("n", "1", "", source)
        async with exporting(telemetry, f"http://127.0.0.1:{sink.port}"):
            await wait_for(lambda: "/v1/metrics" in sink.paths())
    assert set(asked) == {True}


# Records some of each, waits for what its second argument names, and leaves.
PROGRAM = """
import sys, trio
from treewarden import telemetry as t
from treewarden.telemetry import otel

async def main(endpoint, situation):
    recorded = t.Telemetry()
    recorded.metrics.observe("n", "1", "", lambda: [({}, 1)])
    async with t.export(
        recorded, endpoint=endpoint or None, service_name="demo", service_instance="i"
    ) as exporter:
        recorded.logs.record(t.Severity.INFO, "l")
        for _ in range(10_000):
            recorded.spans.record("s", t.new_context(), None, 1, 2)
        situations = {
            "at once": lambda: True,
            "while posting": lambda: recorded.logs.statistics().taken,
            "after a failure": lambda: exporter.statistics().failing,
        }
        while not situations[situation]():
            await trio.sleep(0.01)
        print("leaving", flush=True)

trio.run(main, *sys.argv[1:])
"""


async def held_up(endpoint: str, situation: str) -> float:
    """For how long an export to `endpoint` holds up the end of its program.

    When the machine is busy, what is not waiting is compared with another program's end.
    """
    took = await seconds_to_exit(endpoint, situation)
    if took <= EXIT_BUDGET:
        return took
    usual = await seconds_to_exit("", "at once")
    return FLUSH_BUDGET + (took - FLUSH_BUDGET) * min(1.0, USUAL_EXIT / usual)


async def seconds_to_exit(endpoint: str, situation: str) -> float:
    """How long a program that exports to `endpoint`, or nowhere, takes to end."""
    command = [sys.executable, "-c", PROGRAM, endpoint, situation]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(PATIENCE):
        said = await process.stdout.receive_some()
        leaving = time.monotonic()
        await process.wait()
    await process.stdout.aclose()
    assert (said.strip(), process.returncode) == (b"leaving", 0)
    return time.monotonic() - leaving


@pytest.mark.parametrize("situation", ["at once", "while posting", "after a failure"])
async def test_a_dead_collector_does_not_hold_up_the_exit(
    situation: str, until_within: UntilWithin
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    for found in until_within(EXIT_BUDGET):
        found.append(await held_up(endpoint, situation))


@pytest.mark.parametrize("situation", ["at once", "while posting"])
async def test_a_collector_that_is_silent_does_not_hold_up_the_exit(
    situation: str, until_within: UntilWithin
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for found in until_within(EXIT_BUDGET):
            found.append(await held_up(endpoint, situation))


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("situation", ["at once", "after a failure"])
async def test_a_collector_that_refuses_does_not_hold_up_the_exit(
    status: int, situation: str, until_within: UntilWithin
) -> None:
    with sinking(status) as sink:
        endpoint = f"http://127.0.0.1:{sink.port}"
        for found in until_within(EXIT_BUDGET):
            found.append(await held_up(endpoint, situation))
    assert sink.requests


async def test_nothing_is_tried_twice_at_the_end(until_within: UntilWithin) -> None:
    # The SDK would pause for a second, two, and four before it gave up.
    for found in until_within(FLUSH_BUDGET / 2):
        telemetry = Telemetry()
        async with exporting(telemetry, f"http://127.0.0.1:{free_port()}") as exporter:
            telemetry.spans.record("s", new_context(), None, 1, 2)
            await wait_for(partial(failing, exporter))
            leaving = time.monotonic()
        found.append(time.monotonic() - leaving)


async def test_a_silent_collector_costs_memory_up_to_the_bound_only() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        telemetry = Telemetry()
        telemetry.spans.capacity = 1_000
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with exporting(telemetry, endpoint):
            for _ in range(5_000):
                telemetry.spans.record("s", new_context(), None, 1, 2)
                assert len(telemetry.spans) <= 1_000
        spans = telemetry.statistics().spans
    assert spans.waiting + spans.taken + spans.dropped == 5_000
    assert spans.dropped >= 3_900
