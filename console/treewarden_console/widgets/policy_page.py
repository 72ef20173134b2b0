"""The detail of a policy: its layers, the outermost first, and what each of them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden_console.state import count, layer_word

from .ink import Ink, Span, Spans, Tone, circuit_look
from .page import labelled

if TYPE_CHECKING:
    from treewarden.control.protocol import LayerRow, PolicyRow

# What an operator should look at when it is not zero, by any layer's word for it.
_WORRIES: Final = frozenset(
    {
        "failed", "raised", "timed_out", "overdue", "overruns", "exhausted", "refused",
        "rejected", "gave_up", "dropped", "budget.refused", "penalty", "slow",
        "listener_failures", "last_error",
    }
)  # fmt: skip
# Said elsewhere on the page, or only interesting to programs (`--json` has all of it).
_UNSAID: Final = frozenset({"name", "state", "since_ns", "shares"})


def policy_page(policy: PolicyRow, ink: Ink) -> list[Spans]:
    """The page of a policy; numbers that are zero are left out."""
    calls: list[Span] = [
        (f"{count(policy.calls)} = ", Tone.TEXT),
        (f"{count(policy.succeeded)} succeeded", Tone.GOOD),
        (" + ", Tone.MUTED),
        (f"{count(policy.failed)} failed", Tone.BAD if policy.failed else Tone.MUTED),
        (f" + {count(policy.cancelled)} cancelled", Tone.MUTED),
        (f" + {count(policy.in_flight)} under way", Tone.TEXT),
    ]
    return [labelled("calls", *calls), *(_line(one, ink) for one in policy.layers)]


def _line(row: LayerRow, ink: Ink) -> Spans:
    spans: list[Span] = []
    if (state := layer_word(row, "state")) is not None:
        look = circuit_look(state)
        spans.append((f"{ink.sign(look)}  ", look.tone))
    for name, value in row.numbers.items():
        if value and name not in _UNSAID:
            tone = Tone.WORRY if name in _WORRIES else Tone.TEXT
            said = name.replace("_", " ").replace(".", " ")
            spans += [(f"{said} ", Tone.MUTED), (f"{_value(value)}  ", tone)]
    return labelled(row.layer.replace("_", " "), *spans)


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if value != int(value) else count(value)
