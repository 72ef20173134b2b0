"""Lists, one above the other, and below them the row that was chosen in any of them.

Where there is no room for all, only the chosen list is open; of the others a line says
what is in them. One that is empty is never more than its line, unless it is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType

from treewarden.control.protocol import Rights
from treewarden_console.widgets import Page, TableTree

from .view import Hint, View
from .wants import WantAnswers, WantDone, WantNode, WantTold

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import DescendantFocus

    from treewarden.control.protocol import Message
    from treewarden_console.state import Desk, News
    from treewarden_console.widgets import Ink

    from .listing import Listing

_TALL = 30
"""Lines of a terminal from which on all lists are open."""
_FRAME = 3
"""Lines of a list that are not rows: its frame and its titles."""


class ListsScreen(View):
    """A screen of lists; the chosen one is that which had the keys last."""

    LISTS: ClassVar[tuple[type[Listing[Any]], ...]]
    NEEDS: ClassVar[dict[str, Rights]] = {"propose": Rights.RW}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", show=False),
        Binding("o", "node", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__(desk, ink)
        self.listings = [listing(desk, ink) for listing in self.LISTS]
        self.chosen = self.listings[0]

    def middle(self) -> ComposeResult:
        """The lists and the page."""
        for listing in self.listings:
            yield listing.table
        page = Page(self.ink, id="chosen")
        page.add_class("pane")
        yield page

    def hints(self) -> tuple[Hint, ...]:
        """The keys of the chosen list, and those that all lists have."""
        at = self.listings.index(self.chosen)
        others = [*self.listings[at + 1 :], *self.listings[:at]]
        after = [one.ID.replace("-", " ") for one in others[:1]]
        return (
            *self.chosen.HINTS,
            Hint("s", "sort"),
            *(Hint("tab", list_, least=76) for list_ in after),
            Hint("p", "freeze", least=100),
            Hint("/", "filter"),
            Hint("?", "help"),
            Hint("q", "leave"),
        )

    # --- drawing ----------------------------------------------------------------------

    def take(self, news: News) -> None:
        """Draw what changed."""
        tables = [name for listing in self.listings for name in listing.TABLES]
        for listing in self.listings:
            listing.take(news, self.filter)
        if news.second or news.of(*tables):
            self._arrange()
            self._draw_detail()

    def answered(self) -> None:
        """A reply may be about the chosen row."""
        self._draw_detail()

    def ask(self) -> None:
        """Ask for what is shown here and nobody tells unasked."""
        self._want(*(one for listing in self.listings for one in listing.asks()))
        self._ask_about()

    def _ask_about(self) -> None:
        if (chosen := self.chosen.chosen) is not None:
            self._want(*self.chosen.asks_about(chosen[1]))

    def _want(self, *requests: tuple[str, Message]) -> None:
        # What is held would not show the answers.
        if requests and not self.desk.held:
            self.post_message(WantAnswers(*requests))

    def _arrange(self) -> None:
        """Share the height among the lists."""
        tall = self.size.height >= _TALL
        for listing in self.listings:
            table, chosen = listing.table, listing is self.chosen
            rows = len(table.outline.lines)
            table.mark_cursor(shown=chosen)
            table.set_class(not chosen and not (tall and rows), "-shut")
            table.styles.max_height = None if chosen else rows + _FRAME

    def _draw_detail(self) -> None:
        for listing in self.listings:
            title = listing.title(self.filter)
            if listing.table.has_class("-shut"):
                title = f" {title} "  # a frame's corners would keep it apart
            listing.table.border_title = self.ink.title(title)
        title, lines = self.chosen.detail()
        page = self.query_one("#chosen", Page)
        page.border_title = self.ink.title(title)
        page.show(lines)

    # --- keys -------------------------------------------------------------------------

    @property
    def rows(self) -> TableTree:
        """The list that had the keys last."""
        return self.chosen.table

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        self.rows.focus()

    def choose(self, id_: str) -> None:
        """Give the keys to a list."""
        for listing in self.listings:
            if id_ == listing.ID:
                listing.table.focus()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Another list has the keys: its row is the chosen one."""
        for listing in self.listings:
            if event.widget is listing.table and listing is not self.chosen:
                self.chosen = listing
                self._arrange()
                self._draw_detail()
                self.draw_lines()

    def on_table_tree_moved(self) -> None:
        """Another row is chosen."""
        self._draw_detail()
        self._ask_about()

    def on_table_tree_opened(self) -> None:
        """Read all of it."""
        self.query_one("#chosen", Page).focus()

    def action_back(self) -> None:
        """Back to the rows; there, clear the filter."""
        if self.query_one("#chosen", Page).has_focus:
            self.focus_rows()
        else:
            super().action_back()

    def action_sort(self) -> None:
        """The next order of the chosen list."""
        self.chosen.next_order()
        self.chosen.show(self.filter)
        self._draw_detail()

    def action_propose(self, act: str) -> None:
        """Do something to the chosen row, or say why not."""
        if (chosen := self.chosen.chosen) is None:
            return
        proposal = self.chosen.propose(act, chosen[1])
        if isinstance(proposal, str):
            self.post_message(WantTold(proposal))
        else:
            self.post_message(WantDone(proposal))

    def action_node(self) -> None:
        """Show the node that the chosen row is about, in the tree."""
        chosen = self.chosen.chosen
        if chosen is not None and (path := self.chosen.node(chosen[1])):
            self.post_message(WantNode(path))
