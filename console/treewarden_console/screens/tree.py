"""The main screen: the supervision tree, the selected node, the latest events."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Container

from treewarden.control.protocol import Act, NodeRow, Rights, Why
from treewarden_console.state import (
    Changes,
    Line,
    News,
    age,
    count,
    flat_lines,
    plural,
    rate,
    sorted_ids,
    tree_lines,
)
from treewarden_console.widgets import (
    BLANK_ROW,
    DEGRADED,
    Cell,
    Column,
    EventTable,
    Page,
    TableTree,
    Tone,
    node_look,
    node_page,
)

from .view import Hint, View
from .wants import WantAct, WantAnswers, WantWhy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from textual.app import ComposeResult

    from treewarden_console.state import Desk
    from treewarden_console.widgets import Ink

_COLUMNS: Final = (
    Column("NODE", 0),
    Column("ROLE", 12, least=66),
    Column("STATE", 11),
    Column("INC", 4, right=True, least=73),
    Column("RST", 4, right=True),
    Column("UP", 5, right=True),
    Column("MBX", 5, right=True),
    Column("MSG/s", 5, right=True, least=50),
)
_SORTS: Final = ("tree", "restarts", "mailbox", "rate", "name")
_SYSTEM: Final = "/system"


class TreeScreen(View):
    """What runs, what is unhealthy, and why it restarted."""

    TAB: ClassVar[int] = 0
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("enter", "fold", least=100),
        Hint("w", "why"),
        Hint("X", "crash", Rights.CHAOS),
        Hint("R", "restart", Rights.RW),
        Hint("S", "stop", Rights.RW),
        Hint("Z", "suspend", Rights.RW, least=120),
        Hint("/", "filter", least=100),
        Hint("s", "sort"),
        Hint("p", "freeze"),
        Hint("tab", "pane", least=100),
        Hint("?", "help"),
        Hint("q", "leave"),
    )
    NEEDS: ClassVar[dict[str, Rights]] = {
        "crash": Rights.CHAOS,
        "restart": Rights.RW,
        "stop": Rights.RW,
        "suspend": Rights.RW,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "why", show=False),
        Binding("s", "sort", show=False),
        Binding("X", "crash", show=False),
        Binding("R", "restart", show=False),
        Binding("S", "stop", show=False),
        Binding("Z", "suspend", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__(desk, ink)
        self._sort = 0
        self._asked: tuple[str, int, int, str] | None = None
        # What the filter lets through: rows show the way to each as well.
        self._matching: Mapping[str, NodeRow] = {}

    def middle(self) -> ComposeResult:
        """The tree, its detail, the strip of events."""
        with Container(id="upper"):
            tree = TableTree(self.ink, _COLUMNS, self._cells, id="tree", foldable=True)
            # The runtime's own branch is there for who looks for it.
            tree.outline.folded.add(_SYSTEM)
            tree.add_class("pane")
            yield tree
            detail = Page(self.ink, id="detail")
            detail.add_class("pane")
            yield detail
        strip = EventTable(self.desk, self.ink, id="strip", strip=True)
        strip.can_focus = False
        strip.add_class("pane")
        strip.border_title = self.ink.title("latest events")
        yield strip

    @property
    def rows(self) -> TableTree:
        """The rows."""
        return self.query_one("#tree", TableTree)

    def focus_rows(self) -> None:
        """Give the keys back to the tree."""
        self.rows.focus()

    # --- drawing ----------------------------------------------------------------------

    def take(self, news: News) -> None:
        """Draw what changed."""
        ordered = self._sort or self.filter
        if news.of("nodes").reshaped or (news.second and ordered):
            self.rows.show(self._lines())
        elif news.second:
            self.rows.redraw()
        else:
            self.rows.update(Changes(ids=self._visible(news.of("nodes", "agents").ids)))
        if news.of("nodes", "agents") or news.second:
            self._draw_titles()
            self._draw_detail()
        if news.events:
            self.query_one("#strip", EventTable).draw()

    def answered(self) -> None:
        """An explanation came."""
        self._draw_detail()

    def _draw_titles(self) -> None:
        tree, rows = self.rows, self.desk.shown.nodes.rows
        sort = "" if not self._sort else f"  sort: {_SORTS[self._sort]}"
        found = f"{len(self._matching)} of " if self.filter else ""
        title = f"{found}{plural(len(rows), 'node')}{sort}{self.filter_words()}"
        tree.border_title = self.ink.title(title)
        place = f"{tree.outline.row + 1}/{len(tree.outline.lines)}"
        tree.border_subtitle = self.ink.title(place)
        node = rows.get(tree.cursor or "")
        detail = self.query_one("#detail", Page)
        detail.border_title = self.ink.title(node.id if node is not None else "")

    def _draw_detail(self) -> None:
        brief = self.size.width < 100
        path = self.rows.cursor
        page = node_page(self.desk, self.ink, path, brief=brief)
        self.query_one("#detail", Page).show(page)
        self._ask_why(path)

    def _ask_why(self, path: str | None) -> None:
        """Ask once for each restart or end of the selected node; the answer comes later."""
        node = self.desk.model.nodes.rows.get(path or "")
        is_known = node is not None and (node.restarts or node.last_exit)
        if node is None or not (is_known or node.state == "stuck"):
            return
        asked = (node.path, node.incarnation, node.restarts, node.state)
        if asked != self._asked:
            self._asked = asked
            self.post_message(WantAnswers(("why", Why(path=node.path))))

    def _lines(self) -> list[Line]:
        nodes = self.desk.shown.nodes.rows
        kept = nodes
        if self.filter:
            kept = {path: node for path, node in nodes.items() if self._keep(node)}
        self._matching = kept
        if self._sort:
            return flat_lines(sorted_ids(kept, self._sort_key()))
        keep = kept.__contains__ if self.filter else None
        return tree_lines(nodes, self.rows.outline.folded, keep)

    def _keep(self, node: NodeRow) -> bool:
        return self.filter.matches(f"{node.path} {node.state} {node.label}")

    def filtered(self) -> None:
        """Show what passes; the cursor goes to the first that does, not to its parents."""
        super().filtered()
        if self.filter and self.rows.cursor not in self._matching:
            rows = (line.id for line in self.rows.outline.lines)
            first = next((path for path in rows if path in self._matching), None)
            if first is not None:
                self.rows.select(first)

    def _sort_key(self) -> Callable[[NodeRow], tuple[float, str]]:
        model, sort = self.desk.shown, _SORTS[self._sort]

        def key(node: NodeRow) -> tuple[float, str]:
            agent = model.agents.rows.get(node.path)
            match sort:
                case "restarts":
                    return (-node.restarts, "")
                case "mailbox":
                    return (-agent.mailbox if agent is not None else 1, "")
                case "rate":
                    return (-model.rates.get(node.path), "")
                case _:
                    return (0, node.id)

        return key

    def _visible(self, ids: Iterable[str]) -> frozenset[str]:
        """The rows that show these nodes: themselves, or what they are folded into."""
        index, nodes = self.rows.outline.index, self.desk.shown.nodes.rows
        rows: set[str] = set()
        for id_ in ids:
            at: str | None = id_
            while at is not None and at not in index:
                node = nodes.get(at)
                at = node.parent if node is not None else None
            if at is not None:
                rows.add(at)
        return frozenset(rows)

    # --- a row ------------------------------------------------------------------------

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        node = self.desk.shown.nodes.rows.get(line.id)
        if node is None:
            return BLANK_ROW
        agent = self.desk.shown.agents.rows.get(node.path)
        up = self.desk.shown.seconds_since(node.started_at_ns, self.desk.now())
        mailbox, moved = Cell("-", Tone.FAINT), Cell("-", Tone.FAINT)
        if agent is not None:
            full = bool(agent.capacity) and agent.mailbox >= agent.capacity
            tone = Tone.WORRY if agent.mailbox else Tone.MUTED
            text = f"{count(agent.mailbox)}!" if full else count(agent.mailbox)
            mailbox = Cell(text, Tone.BAD if full else tone)
            speed = self.desk.shown.rates.get(node.path)
            moved = Cell(rate(speed), Tone.TEXT if speed else Tone.MUTED)
        return (
            self._label(node, line),
            self._role(node),
            self._state(node, line),
            Cell(f"{node.incarnation}", Tone.MUTED),
            Cell(f"{node.restarts}", Tone.WORRY if node.restarts else Tone.MUTED),
            Cell(age(up) if node.state == "running" else "-", Tone.MUTED),
            mailbox,
            moved,
        )

    def _label(self, node: NodeRow, line: Line) -> Cell:
        name = node.id if self._sort == 0 else node.path
        if line.folded:
            name = f"{name} ({line.children})"
        if node.system:
            return Cell(name, Tone.MUTED)
        return Cell(name, Tone.STRONG if node.kind == "supervisor" else Tone.TEXT)

    def _role(self, node: NodeRow) -> Cell:
        if node.strategy:
            return Cell(node.strategy, Tone.MUTED)
        agent = self.desk.shown.agents.rows.get(node.path)
        known = node.label or (agent.type if agent is not None else "") or node.kind
        return Cell(known, Tone.MUTED)

    def _state(self, node: NodeRow, line: Line) -> Cell:
        look = node_look(node.state)
        troubled = line.id in self.desk.shown.troubled()
        if line.folded and node.state == "running" and troubled:
            look = DEGRADED
        return Cell(self.ink.sign(look), look.tone)

    # --- keys -------------------------------------------------------------------------

    def on_table_tree_moved(self) -> None:
        """Another node is selected."""
        self._draw_titles()
        self._draw_detail()

    def on_table_tree_folded(self) -> None:
        """A branch opened or closed."""
        self.rows.show(self._lines())
        self._draw_titles()

    def on_table_tree_opened(self) -> None:
        """Fold a branch; of a leaf, read the detail."""
        tree = self.rows
        line = tree.outline.lines[tree.outline.row] if tree.outline.lines else None
        if line is not None and line.children and not self.filter:
            tree.outline.toggle(line.id)
            self.on_table_tree_folded()
        elif line is not None:
            self.query_one("#detail", Page).focus()

    def action_back(self) -> None:
        """Back to the tree; there, clear the filter."""
        if self.query_one("#detail", Page).has_focus:
            self.focus_rows()
        else:
            super().action_back()

    def find(self, path: str) -> None:
        """Put the cursor on a node, whatever hides it."""
        if self.filter and path not in self.rows.outline.index:
            super().action_back()
        nodes = self.desk.shown.nodes.rows
        at = nodes.get(path)
        while at is not None and at.parent is not None:
            self.rows.outline.folded.discard(at.parent)
            at = nodes.get(at.parent)
        self.rows.show(self._lines())
        self.rows.select(path)
        self.focus_rows()

    def action_why(self) -> None:
        """Why did it restart?"""
        if (path := self.rows.cursor) is not None:
            self.post_message(WantWhy(path))

    def action_sort(self) -> None:
        """The next order."""
        self._sort = (self._sort + 1) % len(_SORTS)
        self.rows.show(self._lines())
        self._draw_titles()

    def action_crash(self) -> None:
        """Crash the selected node."""
        self._want(Act.CRASH)

    def action_restart(self) -> None:
        """Restart the selected node."""
        self._want(Act.RESTART)

    def action_stop(self) -> None:
        """Stop the selected node."""
        self._want(Act.STOP)

    def action_suspend(self) -> None:
        """Suspend the selected agent; one that is suspended goes on."""
        node = self.desk.shown.nodes.rows.get(self.rows.cursor or "")
        is_suspended = node is not None and node.state == "suspended"
        self._want(Act.RESUME if is_suspended else Act.SUSPEND)

    def _want(self, act: Act) -> None:
        if (path := self.rows.cursor) is not None:
            self.post_message(WantAct(act, path))
