"""The bus: who takes which events, how far behind, and what nobody could be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType

from treewarden.control.protocol import Rights
from treewarden_console.state import (
    Line,
    News,
    age,
    count,
    flat_lines,
    plural,
    rate,
    sorted_ids,
)
from treewarden_console.widgets import (
    BLANK_ROW,
    Cell,
    Column,
    Spans,
    TableTree,
    Tone,
    letter_page,
    receiver,
    subscription_page,
)

from .two_lists import TwoLists
from .view import Hint
from .wants import WantBus, WantLetter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from treewarden.control.protocol import SubscriptionRow

_COLUMNS: Final = (
    Column(key="id", title="SUBSCRIPTION", width=0),
    Column(key="pattern", title="PATTERN", width=22, least=110),
    Column(key="rate", title="EV/S", width=5, right=True),
    Column(key="published", title="PUBL", width=5, right=True),
    Column(key="delivered", title="DELIV", width=5, right=True),
    Column(key="dropped", title="DROP", width=5, right=True),
    Column(key="pending", title="PEND", width=5, right=True),
    Column(key="lag", title="LAG", width=5, right=True),
    Column(key="members", title="MEMBERS", width=7, right=True, least=76),
)
_LETTER_COLUMNS: Final = (
    Column(key="number", title="NO", width=6, right=True),
    Column(key="age", title="AGE", width=5, right=True),
    Column(key="to", title="DEAD LETTER TO", width=0),
    Column(key="what", title="WHAT", width=18),
    Column(key="attempts", title="TRIES", width=5, right=True),
    Column(key="reason", title="REASON", width=16, least=72),
)
_SORTS: Final = ("name", "dropped", "pending", "lag")


class BusScreen(TwoLists):
    """All subscriptions, the dead letters, and the selected one."""

    TAB: ClassVar[int] = 4
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("s", "sort"),
        Hint("tab", "dead letters"),
        Hint("B", "deliver again", Rights.RW, least=100),
        Hint("F", "forget", Rights.RW, least=100),
        Hint("p", "freeze"),
        Hint("/", "filter"),
        Hint("?", "help"),
        Hint("q", "leave"),
    )
    NEEDS: ClassVar[dict[str, Rights]] = {"letter": Rights.RW}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", show=False),
        Binding("B", "letter('retry')", show=False),
        Binding("F", "letter('discard')", show=False),
    ]
    _sort = 0

    def upper(self) -> TableTree:
        """The subscriptions."""
        return TableTree(self.ink, _COLUMNS, self._cells, id="subscriptions")

    def lower(self) -> TableTree:
        """The dead letters."""
        return TableTree(self.ink, _LETTER_COLUMNS, self._letter_cells, id="letters")

    @property
    def subscriptions(self) -> TableTree:
        """The rows of the subscriptions."""
        return self.query_one("#subscriptions", TableTree)

    @property
    def letters(self) -> TableTree:
        """The rows of the dead letters."""
        return self.query_one("#letters", TableTree)

    def take(self, news: News) -> None:
        """Draw what changed; ask once a second for what nobody tells unasked."""
        if news.subscriptions.reshaped or (news.second and self._sort):
            self.subscriptions.show(self._lines())
        else:
            self.subscriptions.update(news.subscriptions)
        if news.letters.reshaped:
            self.show_lower(wanted=bool(self.desk.shown.letters.rows))
            self.letters.show(self._letter_lines())
        elif news.second:
            self.letters.redraw()
        if news.subscriptions or news.letters or news.second:
            self.draw_detail()
        if news.second:
            self.post_message(WantBus())

    def detail(self, *, below: bool) -> tuple[str, list[Spans]]:
        """The chosen dead letter or subscription."""
        if below:
            number = self.letters.cursor
            letter = self.desk.shown.letters.rows.get(number or "")
            title = f"dead letter {number}" if letter is not None else ""
            return title, letter_page(letter, self.desk.zone)
        id_ = self.subscriptions.cursor
        row = self.desk.shown.all_subscriptions().get(id_ or "")
        return id_ or "", subscription_page(row)

    def draw_titles(self) -> None:
        """How many, and what was lost."""
        shown = self.desk.shown
        rows = shown.all_subscriptions().values()
        words = [plural(len(rows), "subscription")]
        for number, said in (
            (sum(row.dropped for row in rows), "dropped"),
            (sum(row.pending for row in rows), "pending"),
        ):
            if number:
                words.append(f"{count(number)} {said}")
        if _SORTS[self._sort] != "name":
            words.append(f"sort: {_SORTS[self._sort]}")
        title = "  ".join(words) + self.filter_words()
        self.subscriptions.border_title = self.ink.title(title)
        number = len(shown.letters.rows)
        letters = f"the oldest {number}" if shown.more_letters else f"{number}"
        noun = "dead letter" if number == 1 else "dead letters"
        self.letters.border_title = self.ink.title(f"{letters} {noun}")

    def _lines(self) -> list[Line]:
        kept = {
            id_: row
            for id_, row in self.desk.shown.all_subscriptions().items()
            if self.filter.matches(f"{id_} {row.pattern} {row.owner}")
        }
        return flat_lines(sorted_ids(kept, self._sort_key()))

    def _sort_key(self) -> Callable[[SubscriptionRow], int]:
        match _SORTS[self._sort]:
            case "dropped":
                return lambda row: -row.dropped
            case "pending":
                return lambda row: -row.pending
            case "lag":
                return lambda row: -row.lag
            case _:
                return lambda row: 0

    def _letter_lines(self) -> list[Line]:
        rows = self.desk.shown.letters.rows.items()
        return flat_lines(
            number
            for number, row in rows
            if self.filter.matches(f"{receiver(row)} {row.operation} {row.reason}")
        )

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        row = self.desk.shown.all_subscriptions().get(line.id)
        if row is None:
            return BLANK_ROW
        lag = Cell(count(row.lag), Tone.WORRY if row.lag else Tone.MUTED)
        return (
            Cell(row.id, Tone.STRONG),
            Cell(row.pattern, Tone.MUTED),
            Cell(rate(self.desk.shown.event_rates.get(row.id))),
            Cell(count(row.published), Tone.MUTED),
            Cell(count(row.delivered), Tone.MUTED),
            Cell(count(row.dropped), Tone.BAD if row.dropped else Tone.MUTED),
            Cell(count(row.pending), _pending_tone(row)),
            lag if row.durable else Cell("-", Tone.MUTED),
            _members(row),
        )

    def _letter_cells(self, line: Line) -> tuple[Cell, ...]:
        row = self.desk.shown.letters.rows.get(line.id)
        if row is None:
            return BLANK_ROW
        since = self.desk.shown.seconds_since(row.at_ns, self.desk.now())
        return (
            Cell(f"{row.number}", Tone.MUTED),
            Cell(age(since), Tone.MUTED),
            Cell(receiver(row), Tone.STRONG),
            Cell(row.operation),
            Cell(count(row.attempts), Tone.MUTED),
            Cell(row.reason, Tone.BAD),
        )

    def action_sort(self) -> None:
        """The next order of the subscriptions."""
        self._sort = (self._sort + 1) % len(_SORTS)
        self.subscriptions.show(self._lines())
        self.draw_detail()

    def action_letter(self, act: Literal["retry", "discard"]) -> None:
        """Operate the selected dead letter."""
        if self.rows is not self.letters:
            return
        row = self.desk.shown.letters.rows.get(self.letters.cursor or "")
        if row is not None:
            self.post_message(WantLetter(act, row))


def _pending_tone(row: SubscriptionRow) -> Tone:
    if not row.pending:
        return Tone.MUTED
    return Tone.BAD if row.capacity and row.pending >= row.capacity else Tone.TEXT


def _members(row: SubscriptionRow) -> Cell:
    if not row.durable:
        return Cell("-", Tone.MUTED)
    return Cell(
        f"{row.members}" if row.members else "nobody",
        Tone.TEXT if row.members else Tone.WORRY,
    )
