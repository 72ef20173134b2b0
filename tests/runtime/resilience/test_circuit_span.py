from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from treewarden import Application, Config, open_runtime
from treewarden.errors import CircuitOpen
from treewarden.resilience import CircuitPolicy, Circuits
from treewarden.telemetry import Spans, current, new_context

if TYPE_CHECKING:
    from treewarden.resilience import Circuit
    from treewarden.telemetry import Span

POLICY = CircuitPolicy(failure_threshold=1)


def traced() -> tuple[Circuit, Spans]:
    spans = Spans(enabled=True)
    return Circuits(spans=spans).circuit("site", POLICY), spans


def taken(spans: Spans) -> list[Span]:
    return list(spans.take(100))


async def fail() -> None:
    raise OSError("down")


async def test_a_call_is_a_span_below_the_one_it_was_made_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit, spans = traced()
    around = new_context()
    before = current.set(around)
    try:
        inside = await circuit.call(_current)
        assert current.get() == around
    finally:
        current.reset(before)
    [span] = taken(spans)
    assert (span.name, span.context, span.parent) == ("circuit", inside, around)
    assert span.attributes == {
        "treewarden.circuit": "site",
        "treewarden.circuit.state": "closed",
    }
    assert span.error is None
    assert span.started_ns <= span.ended_ns


async def _current() -> object:
    await trio.lowlevel.checkpoint()
    return current.get()


async def test_a_call_that_fails_and_one_that_is_rejected_say_so_in_their_spans(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit, spans = traced()
    with pytest.raises(OSError, match="down"):
        await circuit.call(fail)
    with pytest.raises(CircuitOpen):
        await circuit.call(fail)
    with pytest.raises(CircuitOpen), circuit.guard():
        pass
    failed, *rejected = taken(spans)
    assert failed.error == "OSError: down"
    assert [one.attributes["treewarden.circuit.state"] for one in rejected] == [
        "open"
    ] * 2
    assert all(one.error and "CircuitOpen" in one.error for one in rejected)
    assert current.get() is None


async def test_a_guard_is_a_span_and_a_cancelled_call_is_one_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit, spans = traced()
    with circuit.guard():
        inside = current.get()
    with trio.move_on_after(1):
        await circuit.call(trio.sleep_forever)
    guarded, cancelled = taken(spans)
    assert guarded.context == inside
    assert guarded.error is None
    assert cancelled.error == "cancelled"
    assert circuit.state == "closed"


async def test_nothing_is_recorded_while_nobody_takes_spans(
    autojump_clock: trio.testing.MockClock,
) -> None:
    spans = Spans(enabled=False)
    circuit = Circuits(spans=spans).circuit("site", POLICY)
    assert await circuit.call(_current) is None
    with circuit.guard():
        assert current.get() is None
    assert taken(spans) == []


async def test_the_circuits_of_a_runtime_are_spans_when_there_is_a_listener() -> None:
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("traced", []), config=config) as runtime:
        circuit = runtime.circuits.circuit("site")
        await circuit.call(trio.lowlevel.checkpoint)
        runtime.telemetry.listen(spans=True, logs=False, exported=None)
        await circuit.call(trio.lowlevel.checkpoint)
        runtime.telemetry.listen(spans=False, logs=False, exported=None)
        named = [one.name for one in taken(runtime.telemetry.spans)]
    assert named.count("circuit") == 1
