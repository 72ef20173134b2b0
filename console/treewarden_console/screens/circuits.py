"""The circuits: which calls are let through, and why not."""

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
    flat_lines,
    sorted_ids,
    strip,
)
from treewarden_console.widgets import (
    BLANK_ROW,
    Cell,
    Column,
    Page,
    TableTree,
    Tone,
    circuit_look,
    circuit_page,
)

from .view import Hint, View
from .wants import WantCircuit

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from treewarden.control.protocol import CircuitRow
    from treewarden_console.state import Desk
    from treewarden_console.widgets import Ink

_STRIP = 20
_COLUMNS: Final = (
    Column(key="name", title="CIRCUIT", width=0),
    Column(key="state", title="STATE", width=9),
    Column(key="fails", title="FAILS", width=7, right=True),
    Column(key="share", title="RATE", width=5, right=True),
    Column(key="since", title="SINCE", width=5, right=True),
    Column(key="next", title="NEXT", width=5, right=True),
    Column(key="calls", title="CALLS", width=5, right=True, least=90),
    Column(key="rejected", title="REJ", width=5, right=True, least=72),
    Column(key="opened", title="OPENED", width=6, right=True, least=100),
    Column(key="strip", title="LAST 5 MIN", width=_STRIP, least=76),
)
_SORTS: Final = ("name", "state", "failures", "rejected")
_WORST: Final = ("open", "forced_open", "half_open", "disabled", "metrics_only")


class CircuitsScreen(View):
    """All circuits, and the selected one."""

    TAB: ClassVar[int] = 1
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("T", "trip", Rights.RW),
        Hint("C", "close", Rights.RW),
        Hint("D", "disable", Rights.RW),
        Hint("s", "sort"),
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
        Binding("s", "sort", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__(desk, ink)
        self._sort = 0

    def middle(self) -> ComposeResult:
        """The rows and the detail."""
        table = TableTree(self.ink, _COLUMNS, self._cells, id="circuits")
        table.add_class("pane")
        yield table
        page = Page(self.ink, id="circuit")
        page.add_class("pane")
        yield page

    @property
    def rows(self) -> TableTree:
        """The rows."""
        return self.query_one("#circuits", TableTree)

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        self.rows.focus()

    def take(self, news: News) -> None:
        """Draw what changed."""
        if news.circuits.reshaped or (news.second and self._sort):
            self.rows.show(self._lines())
        elif news.second:
            self.rows.redraw()
        else:
            self.rows.update(Changes(ids=news.circuits.ids))
        if news.circuits or news.second:
            self._draw_detail()

    def _draw_detail(self) -> None:
        rows = self.desk.shown.circuits.rows
        states = [row.state for row in rows.values()]
        words = [f"{len(rows)} circuits" if len(rows) != 1 else "1 circuit"]
        for state in _WORST:
            if (number := states.count(state)) > 0:
                look = circuit_look(state)
                words.append(f"{self.ink.glyph(look)} {number} {look.word}")
        sort = f"sort: {_SORTS[self._sort]}" if self._sort else ""
        title = "  ".join(filter(None, [*words, sort]))
        self.rows.border_title = self.ink.title(title + self.filter_words())
        page = self.query_one("#circuit", Page)
        page.border_title = self.ink.title(self.rows.cursor or "")
        page.show(circuit_page(self.desk, self.ink, self.rows.cursor))

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

    def on_table_tree_moved(self) -> None:
        """Another circuit is selected."""
        self._draw_detail()

    def action_sort(self) -> None:
        """The next order."""
        self._sort = (self._sort + 1) % len(_SORTS)
        self.rows.show(self._lines())
        self._draw_detail()

    def action_circuit(self, act: Literal["trip", "reset", "disable"]) -> None:
        """Operate the selected circuit."""
        if (name := self.rows.cursor) is not None:
            self.post_message(WantCircuit(act, name))
