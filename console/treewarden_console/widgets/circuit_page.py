"""The detail of a circuit: its window, its counters, what it last stumbled over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import age, count

from .ink import Ink, Span, Spans, Tone, circuit_look
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import CircuitRow
    from treewarden_console.state import Desk


def circuit_page(circuit: CircuitRow, desk: Desk, ink: Ink) -> list[Spans]:
    """The page of a circuit."""
    look = circuit_look(circuit.state)
    since = age(desk.shown.seconds_since(circuit.since_ns, desk.now()))
    state: list[Span] = [(ink.sign(look), look.tone), (f" since {since}", Tone.TEXT)]
    if circuit.retry_after is not None:
        state.append((f"  probe in {circuit.retry_after:.0f} s", Tone.WORRY))
    if circuit.probes:
        out = f"  {circuit.probes} of {circuit.half_open_calls} probes out"
        state.append((out, Tone.NOTE))
    window = f"{circuit.window_failures} of {circuit.window_calls} failed"
    if circuit.window_slow:
        window += f", {circuit.window_slow} slow"
    counts = [
        (circuit.calls, "calls", Tone.TEXT),
        (circuit.succeeded, "succeeded", Tone.TEXT),
        (circuit.failed, "failed", Tone.BAD),
        (circuit.rejected, "rejected", Tone.WORRY),
        (circuit.not_counted, "not counted", Tone.MUTED),
        (
            circuit.opened,
            "time open" if circuit.opened == 1 else "times open",
            Tone.WORRY,
        ),
    ]
    totals = [
        (f"{count(number)} {word}  ", tone if number else Tone.MUTED)
        for number, word, tone in counts
    ]
    lines: list[Spans] = [
        labelled("state", *state),
        labelled(
            "window",
            (window, Tone.TEXT),
            (
                f"  opens at {circuit.threshold}" if circuit.threshold else "",
                Tone.MUTED,
            ),
        ),
        labelled("so far", *totals),
    ]
    if circuit.last_error:
        lines.append(labelled("last error", (circuit.last_error, Tone.BAD)))
    return lines
