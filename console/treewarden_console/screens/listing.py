"""One list of a screen: where its rows come from, and how each of them is shown.

A list is declared: its columns with what they say of a row, its orders, what the filter
looks at, the page of a row, the acts. How lists share a screen is `lists`' business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from treewarden_console.state import (
    Changes,
    Line,
    age,
    count,
    flat_lines,
    plural,
    sorted_ids,
)
from treewarden_console.widgets import BLANK_ROW, Cell, Column, Look, TableTree, Tone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import Message
    from treewarden_console.state import Desk, Filter, News
    from treewarden_console.widgets import Ink, Spans

    from .view import Hint
    from .wants import Proposal

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Shown(Column, Generic[Row]):
    """A column, and what it says of a row."""

    cell: Callable[[Row], Cell]


class Listing(ABC, Generic[Row]):
    """A list over the desk, and the table that shows it.

    Subclasses say what is in it. `TABLES` are the model's tables that its rows come from,
    the first of which also says whether there are more than it holds. Unless the operator
    wants another order they stand by id, or as they were told.
    """

    ID: ClassVar[str]
    ONE: ClassVar[str]
    MANY: ClassVar[str] = ""
    NOTHING: ClassVar[str]
    TABLES: ClassVar[tuple[str, ...]]
    BY_ID: ClassVar[bool] = True
    HINTS: ClassVar[tuple[Hint, ...]] = ()

    def __init__(self, desk: Desk, ink: Ink) -> None:
        self.desk = desk
        self.ink = ink
        self._columns = tuple(self.columns())
        told = None if not self.BY_ID else lambda _: 0
        self._orders = {"": told, **self.orders()}
        self._order = ""
        self.table = TableTree(ink, self._columns, self._cells, id=self.ID)
        self.table.add_class("pane")

    # --- what is declared -------------------------------------------------------------

    @abstractmethod
    def columns(self) -> Sequence[Shown[Row]]:
        """The columns, from the left."""

    def rows(self) -> Mapping[str, Row]:
        """The rows by id."""
        rows: Mapping[str, Row] = getattr(self.desk.shown, self.TABLES[0]).rows
        return rows

    def find(self, id_: str) -> Row | None:
        """The row of an id."""
        return self.rows().get(id_)

    @abstractmethod
    def words(self, row: Row) -> str:
        """What the filter looks at."""

    @abstractmethod
    def page(self, row: Row) -> list[Spans]:
        """All about a row."""

    def heading(self, id_: str) -> str:
        """The title of a row's page."""
        return id_

    def orders(self) -> Mapping[str, Callable[[Row], Any]]:
        """Other orders, by the names that the operator sees."""
        return {}

    def notes(self, rows: Mapping[str, Row]) -> Iterable[str]:
        """What else the title says of all rows; empty words are left out."""
        return ()

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Requests that bring what nobody tells unasked, once a second while it is seen."""
        return ()

    def asks_about(self, row: Row) -> Iterable[tuple[str, Message]]:
        """Requests that bring what nobody tells unasked of the chosen row."""
        return ()

    def propose(self, act: str, row: Row) -> Proposal | str:
        """What an act on a row would be, or why there is no such act."""
        return f"{act} is not for {self.many}"

    def node(self, row: Row) -> str:
        """The path of the node that a row is about, or nothing."""
        return ""

    # --- what is shown ----------------------------------------------------------------

    @property
    def many(self) -> str:
        """What several rows are called."""
        return self.MANY or f"{self.ONE}s"

    @property
    def chosen(self) -> tuple[str, Row] | None:
        """The row under the cursor, and its id."""
        id_ = self.table.cursor
        row = self.find(id_) if id_ is not None else None
        return (id_, row) if id_ is not None and row is not None else None

    def take(self, news: News, wanted: Filter) -> None:
        """Draw what changed."""
        changes = news.of(*self.TABLES)
        if changes.reshaped or (news.second and (self._order or wanted)):
            self.show(wanted)
        elif news.second:
            self.table.redraw()
        else:
            self.table.update(Changes(ids=changes.ids))

    def show(self, wanted: Filter) -> None:
        """Put the rows that the filter lets through into their order."""
        rows = self.rows()
        kept = {
            id_: row for id_, row in rows.items() if wanted.matches(self.words(row))
        }
        by = self._orders[self._order]
        self.table.show(flat_lines(kept if by is None else sorted_ids(kept, by)))
        self.table.say_nothing("nothing matches the filter" if rows else self._nothing)

    @property
    def _nothing(self) -> str:
        # Not of a runtime that does not know the question, or has not answered yet.
        return (
            self.NOTHING if self.TABLES[0] in self.desk.shown.told else "not told yet"
        )

    def next_order(self) -> None:
        """Go to the next order; `show` it then."""
        names = list(self._orders)
        self._order = names[(names.index(self._order) + 1) % len(names)]

    def title(self, wanted: Filter) -> str:
        """How many rows there are, and what is to be known of all of them."""
        rows = self.rows()
        total = plural(len(rows), self.ONE, self.many) if rows else f"no {self.many}"
        if self.TABLES[0] in self.desk.shown.cut:
            total = f"the first {total}"
        if wanted:
            total = f"{len(self.table.outline.lines)} of {total}"
        order = f"sort: {self._order}" if self._order else ""
        filtered = f"filter: {wanted.text}" if wanted else ""
        words = [total, *self.notes(rows), order, filtered]
        return "  ".join(filter(None, words))

    def detail(self) -> tuple[str, list[Spans]]:
        """The chosen row: its title and its page."""
        if self.chosen is None:
            return "", []
        id_, row = self.chosen
        return self.heading(id_), self.page(row)

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        row = self.find(line.id)
        if row is None:
            return BLANK_ROW
        return tuple(column.cell(row) for column in self._columns)

    # --- cells that many lists have ---------------------------------------------------

    def sign(self, look: Look) -> Cell:
        """A state: glyph and word."""
        return Cell(self.ink.sign(look), look.tone)

    def since(self, at_ns: int | None) -> Cell:
        """How long ago it was."""
        seconds = self.desk.shown.seconds_since(at_ns, self.desk.now())
        return Cell(age(seconds), Tone.MUTED)


def name(text: str) -> Cell:
    """What a row is called."""
    return Cell(text, Tone.STRONG)


def quiet(text: str) -> Cell:
    """What is good to know."""
    return Cell(text or "-", Tone.MUTED)


def number(value: float | None, tone: Tone = Tone.MUTED) -> Cell:
    """A count; `tone` is for one that is not zero."""
    if value is None:
        return Cell("-", Tone.MUTED)
    return Cell(count(value), tone if value else Tone.MUTED)


def share(part: float, whole: float, full: Tone = Tone.BAD) -> Cell:
    """So many of so many; `full` is for as many as there can be."""
    tone = full if part >= whole else Tone.TEXT
    return Cell(f"{count(part)}/{count(whole)}", tone)
