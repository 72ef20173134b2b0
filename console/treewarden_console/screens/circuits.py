"""The circuits, policies and gateways: which calls are let through, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from textual.binding import Binding, BindingType

from treewarden.control.protocol import CircuitAct, CircuitRow, PolicyRow, Rights
from treewarden_console.state import (
    age,
    count,
    find_layer,
    layer_number,
    layer_word,
    rate,
    strip,
)
from treewarden_console.widgets import (
    Cell,
    Tone,
    circuit_look,
    circuit_page,
    policy_page,
)

from .gateways import GatewayList
from .listing import Listing, Shown, name, number, quiet, share
from .lists import ListsScreen
from .view import Hint
from .wants import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import LayerRow
    from treewarden_console.widgets import Spans

    _Word = Literal["trip", "reset", "disable", "metrics-only"]

_STRIP: Final = 20
_WORST: Final = ("open", "forced_open", "half_open", "disabled", "metrics_only")
_ACTS: Final = {
    "trip": ("Trip", "calls are rejected until somebody closes it"),
    "reset": ("Close", "calls are let through again, and its window starts empty"),
    "disable": ("Disable", "calls are let through and not counted until it is closed"),
    "metrics-only": (
        "Only watch",
        "calls are let through and counted, and it never opens",
    ),
}
_HINTS: Final = (
    Hint("T", "trip", Rights.RW),
    Hint("C", "close", Rights.RW),
    Hint("D", "disable", Rights.RW),
    Hint("M", "only watch", Rights.RW, least=110),
)


def _proposal(act: str, circuit: str) -> Proposal:
    verb, effect = _ACTS[act]
    return Proposal(
        method="circuit",
        params=CircuitAct(name=circuit, act=cast("_Word", act)),
        title=f"{verb.lower()} {circuit}",
        page=[[(circuit, Tone.STRONG), (f": {effect}", Tone.TEXT)]],
        verb=verb,
    )


class CircuitList(Listing[CircuitRow]):
    """All circuits."""

    ID = "circuits"
    ONE = "circuit"
    NOTHING = "no circuit was made yet"
    TABLES: ClassVar[tuple[str, ...]] = ("circuits",)
    HINTS: ClassVar[tuple[Hint, ...]] = _HINTS

    def columns(self) -> Sequence[Shown[CircuitRow]]:
        """State, window, what it lets through, and the last five minutes."""
        return (
            Shown("CIRCUIT", 0, lambda row: name(row.name)),
            Shown("STATE", 9, lambda row: self.sign(circuit_look(row.state))),
            Shown("FAILS", 7, lambda row: _failures(row, _fraction), right=True),
            Shown("RATE", 5, lambda row: _failures(row, _share), right=True, least=84),
            Shown("SINCE", 5, lambda row: self.since(row.since_ns), right=True),
            Shown("NEXT", 5, _next, right=True),
            Shown("CALLS", 5, lambda row: number(row.calls), right=True, least=90),
            Shown(
                "REJ", 5, lambda row: number(row.rejected, Tone.WORRY),
                right=True, least=72,
            ),
            Shown(
                "OPENED", 6, lambda row: number(row.opened, Tone.WORRY),
                right=True, least=100,
            ),
            Shown("LAST 5 MIN", _STRIP, self._strip, least=76),
        )  # fmt: skip

    def orders(self) -> Mapping[str, Callable[[CircuitRow], Any]]:
        """The worst first, by three measures."""
        return {
            "state": lambda row: (*_WORST, "closed", row.state).index(row.state),
            "failures": lambda row: -row.window_failures,
            "rejected": lambda row: -row.rejected,
        }

    def words(self, row: CircuitRow) -> str:
        """Its name and state."""
        return f"{row.name} {row.state}"

    def notes(self, rows: Mapping[str, CircuitRow]) -> Iterable[str]:
        """How many are not as they should be."""
        states = [row.state for row in rows.values()]
        for state in _WORST:
            if (many := states.count(state)) > 0:
                look = circuit_look(state)
                yield f"{self.ink.glyph(look)} {many} {look.word}"

    def page(self, row: CircuitRow) -> list[Spans]:
        """Its window, its counters, what it last stumbled over."""
        return circuit_page(row, self.desk, self.ink)

    def propose(self, act: str, row: CircuitRow) -> Proposal | str:
        """Operate it."""
        return _proposal(act, row.name)

    def _strip(self, row: CircuitRow) -> Cell:
        shares = self.desk.shown.strips.get(row.name)
        bars = strip(shares, _STRIP, top=1.0, ascii_only=self.ink.ascii_only)
        blank = self.ink.pick("·", ".")
        return Cell(bars.replace(" ", blank), Tone.BAD if any(shares) else Tone.FAINT)


class PolicyList(Listing[PolicyRow]):
    """The policies that calls are made under."""

    ID = "policies"
    ONE = "policy"
    MANY = "policies"
    NOTHING = "no policy was made yet"
    TABLES: ClassVar[tuple[str, ...]] = ("policies",)
    HINTS: ClassVar[tuple[Hint, ...]] = _HINTS

    def columns(self) -> Sequence[Shown[PolicyRow]]:
        """Calls, and what each layer has to say of them."""
        return (
            Shown("POLICY", 0, lambda row: name(row.name)),
            Shown("CIRCUIT", 9, self._circuit),
            Shown("CALL/S", 6, self._rate, right=True),
            Shown("CALLS", 5, lambda row: number(row.calls), right=True, least=72),
            Shown("FAIL", 5, lambda row: number(row.failed, Tone.BAD), right=True),
            Shown("RETRY", 5, lambda row: _worry(_retries(row)), right=True),
            Shown("RATE LIMIT", 26, _limit, least=100),
            Shown("WAIT", 4, lambda row: _worry(_waiting(row, "rate")), right=True),
            Shown("PLACES", 7, _places, right=True),
            Shown(
                "QUEUE", 5, lambda row: _worry(_waiting(row, "bulkhead")), right=True
            ),
        )

    def orders(self) -> Mapping[str, Callable[[PolicyRow], Any]]:
        """Where most goes wrong, and where most goes on."""
        rates = self.desk.shown.call_rates
        return {
            "failed": lambda row: -row.failed,
            "rate": lambda row: -rates.get(row.name),
        }

    def words(self, row: PolicyRow) -> str:
        """Its name."""
        return row.name

    def page(self, row: PolicyRow) -> list[Spans]:
        """Layer by layer."""
        return policy_page(row, self.ink)

    def propose(self, act: str, row: PolicyRow) -> Proposal | str:
        """Operate its circuit, if it has one."""
        circuit = layer_word(find_layer(row, "circuit"), "name")
        if circuit is None:
            return f"{row.name} has no circuit"
        return _proposal(act, circuit)

    def _circuit(self, row: PolicyRow) -> Cell:
        state = layer_word(find_layer(row, "circuit"), "state")
        return quiet("") if state is None else self.sign(circuit_look(state))

    def _rate(self, row: PolicyRow) -> Cell:
        return Cell(rate(self.desk.shown.call_rates.get(row.name)))


class CircuitsScreen(ListsScreen):
    """All circuits, the policies that calls are made under, and the ways out."""

    TAB: ClassVar[int] = 1
    LISTS: ClassVar[tuple[type[Listing[Any]], ...]] = (
        CircuitList,
        PolicyList,
        GatewayList,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("T", "propose('trip')", show=False),
        Binding("C", "propose('reset')", show=False),
        Binding("D", "propose('disable')", show=False),
        Binding("M", "propose('metrics-only')", show=False),
    ]


def _failures(row: CircuitRow, words: Callable[[CircuitRow], str]) -> Cell:
    if not row.window_calls:
        return quiet("")
    return Cell(words(row), Tone.BAD if row.window_failures else Tone.MUTED)


def _fraction(row: CircuitRow) -> str:
    return f"{count(row.window_failures)}/{count(row.window_calls)}"


def _share(row: CircuitRow) -> str:
    return f"{row.window_failures / row.window_calls:.0%}"


def _next(row: CircuitRow) -> Cell:
    if row.retry_after is None:
        return quiet("")
    return Cell(age(row.retry_after), Tone.WORRY)


def _retries(row: PolicyRow) -> float | None:
    """Attempts beyond the first ones."""
    retry = find_layer(row, "retry")
    attempts, calls = layer_number(retry, "attempts"), layer_number(retry, "calls")
    return None if attempts is None or calls is None else max(0, attempts - calls)


def _limit(row: PolicyRow) -> Cell:
    return quiet(layer_word(find_layer(row, "rate"), "limit") or "")


def _waiting(row: PolicyRow, layer: str) -> float | None:
    return layer_number(find_layer(row, layer), "waiting")


def _places(row: PolicyRow) -> Cell:
    bulkhead: LayerRow | None = find_layer(row, "bulkhead")
    taken, limit = (layer_number(bulkhead, one) for one in ("taken", "limit"))
    if taken is None or limit is None:
        return quiet("")
    return share(taken, limit, full=Tone.WORRY)


def _worry(value: float | None) -> Cell:
    """A number that is best when it is zero."""
    return number(value, Tone.WORRY)
