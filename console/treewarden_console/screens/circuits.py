"""The circuits and policies: which calls are let through, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from textual.binding import Binding, BindingType

from treewarden.control.protocol import Rights
from treewarden_console.state import (
    Changes,
    Line,
    News,
    age,
    count,
    find_layer,
    flat_lines,
    layer_number,
    layer_word,
    plural,
    rate,
    sorted_ids,
    strip,
)
from treewarden_console.widgets import (
    BLANK_ROW,
    Cell,
    Column,
    Spans,
    TableTree,
    Tone,
    circuit_look,
    circuit_page,
    policy_page,
)

from .two_lists import TwoLists
from .view import Hint
from .wants import WantCircuit

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.control.protocol import CircuitRow, LayerRow
    from treewarden_console.state import Desk
    from treewarden_console.widgets import Ink

_STRIP = 20
_COLUMNS: Final = (
    Column(key="name", title="CIRCUIT", width=0),
    Column(key="state", title="STATE", width=9),
    Column(key="fails", title="FAILS", width=7, right=True),
    Column(key="share", title="RATE", width=5, right=True, least=84),
    Column(key="since", title="SINCE", width=5, right=True),
    Column(key="next", title="NEXT", width=5, right=True),
    Column(key="calls", title="CALLS", width=5, right=True, least=90),
    Column(key="rejected", title="REJ", width=5, right=True, least=72),
    Column(key="opened", title="OPENED", width=6, right=True, least=100),
    Column(key="strip", title="LAST 5 MIN", width=_STRIP, least=76),
)
_POLICY_COLUMNS: Final = (
    Column(key="policy", title="POLICY", width=0),
    Column(key="circuit", title="CIRCUIT", width=9),
    Column(key="rate", title="CALL/S", width=6, right=True),
    Column(key="calls", title="CALLS", width=5, right=True, least=72),
    Column(key="failed", title="FAIL", width=5, right=True),
    Column(key="retries", title="RETRY", width=5, right=True),
    Column(key="limit", title="RATE LIMIT", width=26, least=100),
    Column(key="waiting", title="WAIT", width=4, right=True),
    Column(key="places", title="PLACES", width=7, right=True),
    Column(key="queue", title="QUEUE", width=5, right=True),
)
_SORTS: Final = ("name", "state", "failures", "rejected")
_WORST: Final = ("open", "forced_open", "half_open", "disabled", "metrics_only")


class CircuitsScreen(TwoLists):
    """All circuits, the policies that calls are made under, and the selected one."""

    TAB: ClassVar[int] = 1
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("T", "trip", Rights.RW),
        Hint("C", "close", Rights.RW),
        Hint("D", "disable", Rights.RW),
        Hint("s", "sort"),
        Hint("tab", "policies", least=100),
        Hint("p", "freeze"),
        Hint("/", "filter"),
        Hint("?", "help"),
        Hint("q", "leave"),
    )
    NEEDS: ClassVar[dict[str, Rights]] = {"circuit": Rights.RW}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("T", "circuit('trip')", show=False),
        Binding("C", "circuit('reset')", show=False),
        Binding("D", "circuit('disable')", show=False),
        Binding("M", "circuit('metrics-only')", show=False),
        Binding("s", "sort", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__(desk, ink)
        self._sort = 0

    def upper(self) -> TableTree:
        """The circuits."""
        return TableTree(self.ink, _COLUMNS, self._cells, id="circuits")

    def lower(self) -> TableTree:
        """The policies."""
        return TableTree(self.ink, _POLICY_COLUMNS, self._policy_cells, id="policies")

    @property
    def circuits(self) -> TableTree:
        """The rows of the circuits."""
        return self.query_one("#circuits", TableTree)

    @property
    def policies(self) -> TableTree:
        """The rows of the policies."""
        return self.query_one("#policies", TableTree)

    def take(self, news: News) -> None:
        """Draw what changed."""
        if news.circuits.reshaped or (news.second and self._sort):
            self.circuits.show(self._lines())
        elif news.second:
            self.circuits.redraw()
        else:
            self.circuits.update(Changes(ids=news.circuits.ids))
        if news.policies.reshaped:
            self.show_lower(wanted=bool(self.desk.shown.policies.rows))
            self.policies.show(self._policy_lines())
        else:
            self.policies.update(news.policies)
        if news.circuits or news.policies or news.second:
            self.draw_detail()

    def detail(self, *, below: bool) -> tuple[str, list[Spans]]:
        """The chosen policy or circuit."""
        if below:
            name = self.policies.cursor
            return name or "", policy_page(self.desk, self.ink, name)
        name = self.circuits.cursor
        return name or "", circuit_page(self.desk, self.ink, name)

    def draw_titles(self) -> None:
        """How many, and how many of them are not as they should be."""
        rows = self.desk.shown.circuits.rows
        states = [row.state for row in rows.values()]
        words = [plural(len(rows), "circuit")]
        for state in _WORST:
            if (number := states.count(state)) > 0:
                look = circuit_look(state)
                words.append(f"{self.ink.glyph(look)} {number} {look.word}")
        sort = f"sort: {_SORTS[self._sort]}" if self._sort else ""
        title = "  ".join(filter(None, [*words, sort]))
        self.circuits.border_title = self.ink.title(title + self.filter_words())
        number = len(self.desk.shown.policies.rows)
        self.policies.border_title = self.ink.title(
            plural(number, "policy", "policies")
        )

    def _lines(self) -> list[Line]:
        rows = self.desk.shown.circuits.rows
        kept = {
            name: row
            for name, row in rows.items()
            if self.filter.matches(f"{name} {row.state}")
        }
        return flat_lines(sorted_ids(kept, self._sort_key()))

    def _sort_key(self) -> Callable[[CircuitRow], int]:
        match _SORTS[self._sort]:
            case "state":
                return lambda row: (*_WORST, "closed", row.state).index(row.state)
            case "failures":
                return lambda row: -row.window_failures
            case "rejected":
                return lambda row: -row.rejected
            case _:
                return lambda row: 0

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        row = self.desk.shown.circuits.rows.get(line.id)
        if row is None:
            return BLANK_ROW
        look = circuit_look(row.state)
        calls, failures = row.window_calls, row.window_failures
        since = self.desk.shown.seconds_since(row.since_ns, self.desk.now())
        after = "-" if row.retry_after is None else age(row.retry_after)
        shares = self.desk.shown.strips.get(row.name)
        bars = strip(shares, _STRIP, top=1.0, ascii_only=self.ink.ascii_only)
        worry = Tone.BAD if failures else Tone.MUTED
        return (
            Cell(row.name, Tone.STRONG),
            Cell(self.ink.sign(look), look.tone),
            Cell(f"{count(failures)}/{count(calls)}" if calls else "-", worry),
            Cell(f"{failures / calls:.0%}" if calls else "-", worry),
            Cell(age(since), Tone.MUTED),
            Cell(after, Tone.MUTED if row.retry_after is None else Tone.WORRY),
            Cell(count(row.calls), Tone.MUTED),
            Cell(count(row.rejected), Tone.WORRY if row.rejected else Tone.MUTED),
            Cell(count(row.opened), Tone.WORRY if row.opened else Tone.MUTED),
            Cell(
                bars.replace(" ", self.ink.pick("·", ".")),
                Tone.BAD if any(shares) else Tone.FAINT,
            ),
        )

    def _policy_lines(self) -> list[Line]:
        rows = self.desk.shown.policies.rows
        return flat_lines(name for name in sorted(rows) if self.filter.matches(name))

    def _policy_cells(self, line: Line) -> tuple[Cell, ...]:
        row = self.desk.shown.policies.rows.get(line.id)
        if row is None:
            return BLANK_ROW
        circuit = find_layer(row, "circuit")
        retry = find_layer(row, "retry")
        limiter = find_layer(row, "rate")
        bulkhead = find_layer(row, "bulkhead")
        return (
            Cell(row.name, Tone.STRONG),
            self._circuit_cell(circuit),
            Cell(rate(self.desk.shown.call_rates.get(row.name))),
            Cell(count(row.calls), Tone.MUTED),
            Cell(count(row.failed), Tone.BAD if row.failed else Tone.MUTED),
            _worry(_retries(retry)),
            Cell(layer_word(limiter, "limit") or "-", Tone.MUTED),
            _worry(layer_number(limiter, "waiting")),
            _places(bulkhead),
            _worry(layer_number(bulkhead, "waiting")),
        )

    def _circuit_cell(self, circuit: LayerRow | None) -> Cell:
        state = layer_word(circuit, "state")
        if state is None:
            return Cell("-", Tone.MUTED)
        look = circuit_look(state)
        return Cell(self.ink.sign(look), look.tone)

    def action_sort(self) -> None:
        """The next order."""
        self._sort = (self._sort + 1) % len(_SORTS)
        self.circuits.show(self._lines())
        self.draw_detail()

    def action_circuit(
        self, act: Literal["trip", "reset", "disable", "metrics-only"]
    ) -> None:
        """Operate the selected circuit, or that of the selected policy."""
        if (name := self._chosen_circuit()) is not None:
            self.post_message(WantCircuit(act, name))

    def _chosen_circuit(self) -> str | None:
        if self.rows is self.circuits:
            return self.circuits.cursor
        policy = self.desk.shown.policies.rows.get(self.policies.cursor or "")
        return layer_word(find_layer(policy, "circuit"), "name") if policy else None


def _retries(retry: LayerRow | None) -> float | None:
    """Attempts beyond the first ones."""
    attempts = layer_number(retry, "attempts")
    calls = layer_number(retry, "calls")
    return None if attempts is None or calls is None else max(0, attempts - calls)


def _places(bulkhead: LayerRow | None) -> Cell:
    taken, limit = (layer_number(bulkhead, name) for name in ("taken", "limit"))
    if taken is None or limit is None:
        return Cell("-", Tone.MUTED)
    return Cell(
        f"{count(taken)}/{count(limit)}", Tone.WORRY if taken >= limit else Tone.TEXT
    )


def _worry(number: float | None) -> Cell:
    """A number that is best when it is zero."""
    if number is None:
        return Cell("-", Tone.MUTED)
    return Cell(count(number), Tone.WORRY if number else Tone.MUTED)
