"""The agents, and what the selected one knows: its last committed state, by version."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType

from treewarden.control.protocol import GetState
from treewarden_console.state import (
    Changes,
    Line,
    News,
    count,
    flat_lines,
    plural,
    tree_lines,
)
from treewarden_console.widgets import (
    BLANK_ROW,
    Cell,
    Column,
    Page,
    TableTree,
    Tone,
    node_look,
    state_page,
)

from .view import Hint, View
from .wants import WantAnswers, WantWhy

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from treewarden_console.state import Desk
    from treewarden_console.widgets import Ink

_COLUMNS: Final = (
    Column("", 1),
    Column("AGENT", 0),
    Column("STATE", 9, least=38),
    Column("VER", 5, right=True),
    Column("MBX", 5, right=True, least=44),
)


class AgentsScreen(View):
    """All agents in tree order, and the state of one."""

    TAB: ClassVar[int] = 3
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("left right", "version"),
        Hint("enter", "read"),
        Hint("w", "why"),
        Hint("/", "filter"),
        Hint("p", "freeze"),
        Hint("?", "help"),
        Hint("q", "leave"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "version(-1)", show=False),
        Binding("right,l", "version(1)", show=False),
        Binding("w", "why", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__(desk, ink)
        self._asked: tuple[str, int, int] | None = None

    def middle(self) -> ComposeResult:
        """The rows and the state."""
        table = TableTree(self.ink, _COLUMNS, self._cells, id="agents")
        table.add_class("pane")
        yield table
        page = Page(self.ink, id="state", indent=24)
        page.add_class("pane")
        yield page

    @property
    def rows(self) -> TableTree:
        """The rows."""
        return self.query_one("#agents", TableTree)

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        self.rows.focus()

    def take(self, news: News) -> None:
        """Draw what changed."""
        if news.of("nodes", "agents").reshaped:
            self.rows.show(self._lines())
        else:
            self.rows.update(Changes(ids=news.of("nodes", "agents").ids))
        if news.of("nodes", "agents"):
            self._draw_detail()

    def answered(self) -> None:
        """A state came."""
        self._draw_detail()

    def _draw_detail(self) -> None:
        path = self.rows.cursor
        agents = self.desk.shown.agents.rows
        title = f"{plural(len(agents), 'agent')}{self.filter_words()}"
        self.rows.border_title = self.ink.title(title)
        page = self.query_one("#state", Page)
        page.border_title = self.ink.title(path or "")
        page.show(state_page(self.desk.histories.get(path), self.ink, self.desk.zone))
        self._ask_state(path)

    def _ask_state(self, path: str | None) -> None:
        """Ask once for each version of the selected agent's state."""
        agent = self.desk.shown.agents.rows.get(path or "")
        if agent is None:
            return
        asked = (agent.path, agent.state_version, agent.incarnation)
        if asked != self._asked:
            self._asked = asked
            self.post_message(WantAnswers(("state", GetState(agent=agent.path))))

    def _lines(self) -> list[Line]:
        agents = self.desk.shown.agents.rows
        ordered = tree_lines(self.desk.shown.nodes.rows, set())
        return flat_lines(
            line.id
            for line in ordered
            if line.id in agents and self.filter.matches(line.id)
        )

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        agent = self.desk.shown.agents.rows.get(line.id)
        node = self.desk.shown.nodes.rows.get(line.id)
        if agent is None or node is None:
            return BLANK_ROW
        look = node_look(node.state)
        tone = Tone.MUTED if node.system else Tone.TEXT
        return (
            Cell(self.ink.glyph(look), look.tone),
            Cell(node.path.removeprefix("/"), tone),
            Cell(look.word, look.tone),
            Cell(count(agent.state_version), Tone.MUTED),
            Cell(count(agent.mailbox), Tone.WORRY if agent.mailbox else Tone.MUTED),
        )

    def on_table_tree_moved(self) -> None:
        """Another agent is selected."""
        self._draw_detail()

    def on_table_tree_opened(self) -> None:
        """Read the state."""
        self.query_one("#state", Page).focus()

    def action_back(self) -> None:
        """Back to the rows; there, clear the filter."""
        if self.query_one("#state", Page).has_focus:
            self.focus_rows()
        else:
            super().action_back()

    def action_version(self, by: int) -> None:
        """An older or newer version of the state."""
        history = self.desk.histories.get(self.rows.cursor)
        if history is not None:
            history.step(by)
            self._draw_detail()

    def action_why(self) -> None:
        """Why did it restart?"""
        if (path := self.rows.cursor) is not None:
            self.post_message(WantWhy(path))
