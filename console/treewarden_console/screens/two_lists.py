"""Two lists, one above the other, and below them the row that was chosen in either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.widgets import Page, TableTree

from .view import View

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import DescendantFocus

    from treewarden_console.widgets import Spans


class TwoLists(View):
    """A screen of two lists; the lower one is there while it has rows.

    Subclasses make the lists and say what is to be read of the chosen row: that under the
    cursor of the list that had the focus last.
    """

    _below = False

    def upper(self) -> TableTree:
        """Make the upper list."""
        raise NotImplementedError

    def lower(self) -> TableTree:
        """Make the lower list."""
        raise NotImplementedError

    def detail(self, *, below: bool) -> tuple[str, list[Spans]]:
        """The chosen row of the lower or upper list: its title and its page."""
        raise NotImplementedError

    def draw_titles(self) -> None:
        """Say above the lists what is in them."""
        raise NotImplementedError

    def middle(self) -> ComposeResult:
        """The lists and the detail."""
        for table in (self.upper(), self.lower()):
            table.add_class("pane")
            yield table
        page = Page(self.ink, id="chosen")
        page.add_class("pane")
        yield page

    @property
    def rows(self) -> TableTree:
        """The list that had the focus last."""
        return self._lists()[self._below]

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        self.rows.focus()

    def show_lower(self, *, wanted: bool) -> None:
        """Have the lower list, or do without it; then the keys are the upper one's."""
        upper, lower = self._lists()
        if lower.display == wanted:
            return
        lower.display = wanted
        if self._below and not wanted:
            self._below = False
            upper.focus()

    def draw_detail(self) -> None:
        """Say anew what is in the lists, and what is chosen."""
        self.draw_titles()
        title, lines = self.detail(below=self._below)
        page = self.query_one("#chosen", Page)
        page.border_title = self.ink.title(title)
        page.show(lines)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Another list has the keys: its row is the chosen one."""
        if isinstance(event.widget, TableTree):
            self._below = event.widget is self._lists()[1]
            self.draw_detail()

    def on_table_tree_moved(self) -> None:
        """Another row is chosen."""
        self.draw_detail()

    def on_table_tree_opened(self) -> None:
        """Read all of it."""
        self.query_one("#chosen", Page).focus()

    def action_back(self) -> None:
        """Back to the rows; there, clear the filter."""
        if self.query_one("#chosen", Page).has_focus:
            self.focus_rows()
        else:
            super().action_back()

    def _lists(self) -> tuple[TableTree, TableTree]:
        upper, lower = self.query(TableTree)
        return upper, lower
