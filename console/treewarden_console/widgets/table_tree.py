"""A tree with columns; a list is a tree of depth 0. The one widget for rows.

Textual's own Tree and DataTable cost in proportion to what they hold. This one is drawn a
line at a time from a flat outline, and asks for a row's cells only while the row is in
view: at 10,000 nodes 200 changed rows cost about a millisecond, and no change of content
ever changes a column's width (the measurements are in spec/console.md, section 6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView

from treewarden_console.state import Changes, Line, Outline

from .ink import Ink, Span, Tone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.events import Click, Resize
    from textual.strip import Strip


class Cell(NamedTuple):
    """What a row shows in a column."""

    text: str
    tone: Tone = Tone.TEXT


BLANK_ROW = (Cell(""),) * 16
"""For a row that went between an update and the next tick."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of fixed width; exactly one column of a table has width 0: the rest.

    `least` is the table's width from which on the column is shown.
    """

    title: str
    width: int
    right: bool = field(default=False, kw_only=True)
    least: int = field(default=0, kw_only=True)


class TableTree(ScrollView, can_focus=True):
    """Rows by id under fixed columns, with a cursor that stays on its id."""

    DEFAULT_CSS = "TableTree { overflow-x: hidden; overflow-y: auto; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("left,h", "fold", show=False),
        Binding("right,l", "unfold", show=False),
        Binding("g,home", "first", show=False),
        Binding("G,end", "last", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Moved(Message):
        """The cursor is on another id now."""

    class Opened(Message):
        """The operator wants to see more of the cursor's row."""

    class Folded(Message):
        """A fold changed; the outline's lines must be made anew."""

    def __init__(
        self,
        ink: Ink,
        columns: Sequence[Column],
        cells: Callable[[Line], Sequence[Cell]],
        *,
        id: str,  # noqa: A002 - Textual's name
        foldable: bool = False,
        cursor: bool = True,
    ) -> None:
        super().__init__(id=id)
        self.outline = Outline()
        self._ink = ink
        self._columns = columns
        self._cells = cells
        self._foldable = foldable
        self._with_cursor = cursor
        self._shown: list[tuple[int, Column, int]] = []
        self._nothing = ""

    # --- what is shown ----------------------------------------------------------------

    @property
    def cursor(self) -> str | None:
        """The id under the cursor."""
        return self.outline.cursor

    def show(self, lines: Sequence[Line], *, follow: bool = False) -> None:
        """Replace the lines; what is read stays where it is on the screen.

        With `follow` the last line is shown and the cursor goes to it.
        """
        before, row = self.cursor, self.outline.row
        self.outline.show(lines)
        if follow:
            self.outline.go(len(lines) - 1)
        drift = self.outline.row - row
        self.virtual_size = Size(self.size.width, len(lines) + 1)
        if not follow:
            self._scroll(round(self.scroll_y) + drift)
        self._reveal()
        self.refresh()
        if self.cursor != before:
            self.post_message(self.Moved())

    def update(self, changes: Changes) -> None:
        """Draw changed rows anew, if they are in view."""
        top = self.scroll_offset.y
        rows = range(top, min(top + self.size.height - 1, len(self.outline.lines)))
        lines = self.outline.lines
        dirty = [self._region(row) for row in rows if lines[row].id in changes.ids]
        if dirty:
            self.refresh(*dirty)

    def say_nothing(self, why: str) -> None:
        """What to say while there are no rows."""
        if why != self._nothing:
            self._nothing = why
            self.refresh()

    def mark_cursor(self, *, shown: bool) -> None:
        """Show the cursor, or not: the keys are another list's."""
        if shown is not self._with_cursor:
            self._with_cursor = shown
            self.refresh()

    def redraw(self) -> None:
        """Draw all rows in view anew, for ages."""
        self.refresh()

    def select(self, id_: str) -> None:
        """Put the cursor on an id, if it is visible."""
        row = self.outline.index.get(id_)
        if row is not None:
            self.go(row)

    # --- drawing ----------------------------------------------------------------------

    def on_resize(self, event: Resize) -> None:
        """Lay the columns out for the new width."""
        self._lay_out()
        self.virtual_size = Size(self.size.width, len(self.outline.lines) + 1)
        self._reveal()

    def _lay_out(self) -> None:
        width = self.scrollable_content_region.width
        fitting = [
            (at, column)
            for at, column in enumerate(self._columns)
            if width >= column.least
        ]
        fixed = sum(column.width + 1 for _, column in fitting)
        self._shown = [
            (at, column, column.width or max(4, width - fixed - 1))
            for at, column in fitting
        ]

    def render_line(self, y: int) -> Strip:
        """The titles, or one row."""
        width = self.scrollable_content_region.width
        row = self.scroll_offset.y + y - 1
        spans: Sequence[Span] = ()
        cursor = False
        if y == 0:
            spans = self._titles()
        elif row < len(self.outline.lines):
            line = self.outline.lines[row]
            cursor = self._with_cursor and line.id == self.outline.cursor
            spans = self._row(line, cursor=cursor)
        elif row == 0:
            spans = [(f" {self._nothing}", Tone.MUTED)]
        strip = self._ink.strip(spans, width, cursor=cursor)
        return strip.apply_style(self.rich_style)

    def _titles(self) -> list[Span]:
        spans: list[Span] = [(" ", Tone.HEAD)]
        for _, column, width in self._shown:
            title = self._ink.fit(column.title, width, right=column.right)
            spans.append((f"{title} ", Tone.HEAD))
        return spans

    def _row(self, line: Line, *, cursor: bool) -> list[Span]:
        spans: list[Span] = [(">" if cursor else " ", Tone.ACCENT)]
        cells = self._cells(line)
        for place, (at, column, width) in enumerate(self._shown):
            text, tone = cells[at]
            if place == 0 and self._foldable:
                lead = self._lead(line)
                spans.append((lead, Tone.MUTED))
                text = self._ink.fit(text, max(0, width - len(lead)))
            else:
                text = self._ink.fit(text, width, right=column.right)
            # Only the word takes the tone: a reversed one must not fill its column.
            body = text.lstrip(" ")
            word = body.rstrip(" ")
            spans.append((" " * (len(text) - len(body)), Tone.TEXT))
            spans.append((word, tone))
            spans.append((" " * (len(body) - len(word) + 1), Tone.TEXT))
        return spans

    def _lead(self, line: Line) -> str:
        fold = "  "
        if line.children:
            shut = self._ink.pick("▸", "+")
            fold = (shut if line.folded else self._ink.pick("▾", "-")) + " "
        # A very deep tree must not push its names out of the column.
        return "  " * min(line.depth, 12) + fold

    def _region(self, row: int) -> Region:
        return Region(0, row - self.scroll_offset.y + 1, self.size.width, 1)

    # --- moving -----------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        """One row up or down."""
        self.go(self.outline.row + by)

    def action_page(self, by: int) -> None:
        """One screenful up or down."""
        self.go(self.outline.row + by * max(1, self.size.height - 2))

    def action_first(self) -> None:
        """The first row."""
        self.go(0)

    def action_last(self) -> None:
        """The last row."""
        self.go(len(self.outline.lines) - 1)

    def action_fold(self) -> None:
        """Fold, or go to the parent."""
        self._refold(self.outline.fold)

    def action_unfold(self) -> None:
        """Unfold, or go to the first child."""
        self._refold(self.outline.unfold)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a list left and right are free for the screen."""
        return self._foldable or action not in ("fold", "unfold")

    def action_open(self) -> None:
        """See more of this row."""
        self.post_message(self.Opened())

    def on_click(self, event: Click) -> None:
        """Choose a row; a click on its fold mark folds it."""
        row = self.scroll_offset.y + event.y - 1
        if event.y < 1 or row >= len(self.outline.lines):
            return
        self.go(row)
        line = self.outline.lines[row]
        if line.children and event.x <= 2 * line.depth + 2:
            self.outline.toggle(line.id)
            self.post_message(self.Folded())

    def go(self, row: int) -> None:
        """Put the cursor on a row, as far as there are rows."""
        before = self.outline.row
        self.outline.go(row)
        if self.outline.row == before:
            return
        self.refresh(self._region(before), self._region(self.outline.row))
        self._reveal()
        self.post_message(self.Moved())

    def _refold(self, change: Callable[[], bool]) -> None:
        row = self.outline.row
        if change():
            self.post_message(self.Folded())
        elif self.outline.row != row:
            self.refresh()
            self._reveal()
            self.post_message(self.Moved())

    def _reveal(self) -> None:
        # The titles cover the first line: row r is in view from y = r + 1 - scroll.
        height = self.size.height - 1
        if height < 1:
            return
        top, row = round(self.scroll_y), self.outline.row
        if row < top:
            self._scroll(row)
        elif row >= top + height:
            self._scroll(row - height + 1)

    def _scroll(self, top: int) -> None:
        top = max(0, min(top, self.max_scroll_y))
        if top != round(self.scroll_y):
            # Forced: the scrollbar, which would allow it, comes with the next layout.
            self.scroll_to(y=top, animate=False, force=True)
