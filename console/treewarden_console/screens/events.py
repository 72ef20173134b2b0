"""The events: what happened, in the journal's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from treewarden_console.state import plural
from treewarden_console.widgets import EventTable, Page, event_page

from .view import Hint, View
from .wants import WantWhy

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from treewarden_console.state import News


class EventsScreen(View):
    """The last entries of the journal, and the selected one."""

    TAB: ClassVar[int] = 2
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("f", "follow"),
        Hint("w", "why"),
        Hint("enter", "read"),
        Hint("/", "filter"),
        Hint("p", "freeze"),
        Hint("?", "help"),
        Hint("q", "leave"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", show=False),
        Binding("w", "why", show=False),
    ]

    def middle(self) -> ComposeResult:
        """The rows and the detail."""
        table = EventTable(self.desk, self.ink, id="events")
        table.add_class("pane")
        yield table
        page = Page(self.ink, id="event")
        page.add_class("pane")
        yield page

    @property
    def rows(self) -> EventTable:
        """The rows."""
        return self.query_one("#events", EventTable)

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        self.rows.focus()

    def take(self, news: News) -> None:
        """Draw what arrived."""
        if news.events:
            self.rows.draw(self.filter)
            self._draw_detail()

    def _draw_detail(self) -> None:
        table = self.rows
        total = plural(len(self.desk.shown.events.entries), "event")
        below = f"reading, {plural(table.below(), 'entry', 'entries')} below"
        place = "following" if table.following else below
        title = f"{total}  {place}{self.filter_words()}"
        table.border_title = self.ink.title(title)
        entry = self.desk.shown.events.get(table.cursor)
        page = self.query_one("#event", Page)
        page.border_title = self.ink.title(entry.telling.kind if entry else "")
        page.show(event_page(entry, self.ink, self.desk.zone))

    def on_table_tree_moved(self) -> None:
        """Another entry is selected."""
        self._draw_detail()

    def on_table_tree_opened(self) -> None:
        """Read the whole entry."""
        self.query_one("#event", Page).focus()

    def action_back(self) -> None:
        """Back to the rows; there, clear the filter."""
        if self.query_one("#event", Page).has_focus:
            self.focus_rows()
        else:
            super().action_back()

    def action_follow(self) -> None:
        """Stay with the newest entry, or stop doing so."""
        if self.rows.following:
            self.rows.following = False
        else:
            self.rows.follow()
        self._draw_detail()

    def action_why(self) -> None:
        """Why did the node that this is about restart?"""
        entry = self.desk.shown.events.get(self.rows.cursor)
        if entry is None:
            return
        for path in (entry.telling.subject, entry.row.source):
            if path in self.desk.shown.nodes.rows:
                self.post_message(WantWhy(path))
                return
