"""What all full screens share: two lines above, one below, a filter, a way to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.suggester import SuggestFromList
from textual.widgets import Input

from treewarden.control.protocol import Rights
from treewarden_console.state import EVERYTHING, Desk, Filter, News
from treewarden_console.widgets import (
    Bar,
    Ink,
    Span,
    Tab,
    Tone,
    headline,
    tab_line,
)

from .places import PLACES
from .wants import WantPlace

if TYPE_CHECKING:
    from textual.app import ComposeResult

TABS = (
    Tab("Tree", "Tree"),
    Tab("Circuits", "Circ"),
    Tab("Events", "Evt"),
    Tab("Agents", "Agt"),
    Tab("Bus", "Bus"),
    Tab("Coordination", "Coord"),
    Tab("Work", "Work"),
    Tab("Monitors", "Mon"),
)


class Hint(NamedTuple):
    """A key for the bottom line; `least` is the width from which it has room."""

    key: str
    does: str
    needs: Rights = Rights.RO
    least: int = 0


class View(Screen[None]):
    """A full screen over the desk. Subclasses give the middle and read the desk."""

    HINTS: ClassVar[tuple[Hint, ...]] = ()
    TAB: ClassVar[int] = 0
    # Keys that change something: not bound at all without the rights.
    NEEDS: ClassVar[dict[str, Rights]] = {}
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before any widget sees them: what is typed right behind, or pasted, is for the
        # line that they open, and no key of the screen.
        Binding("slash", "filter", show=False, priority=True),
        Binding("colon", "go_to", show=False, priority=True),
        Binding("escape", "back", show=False),
    ]

    def __init__(self, desk: Desk, ink: Ink) -> None:
        super().__init__()
        self.desk = desk
        self.ink = ink
        self.filter = Filter()
        self.set_class(ink.ascii_only, "-ascii")

    def compose(self) -> ComposeResult:
        """The lines and the middle."""
        yield Bar(self.ink, id="header")
        yield Bar(self.ink, id="tabs")
        with Container(id="middle"):
            yield from self.middle()
        yield Bar(self.ink, id="footer")
        names = SuggestFromList(sorted(PLACES))
        for line in (
            Input(id="filter", compact=True, select_on_focus=False),
            Input(id="place", compact=True, placeholder="go to", suggester=names),
        ):
            line.cursor_blink = False
            line.display = False
            yield line

    def hints(self) -> tuple[Hint, ...]:
        """The keys that work now."""
        return self.HINTS

    def choose(self, id_: str) -> None:
        """Give the keys to a list of this screen."""

    def ask(self) -> None:
        """Ask for what is shown here and nobody tells unasked; once a second."""

    def middle(self) -> ComposeResult:
        """What lies between the lines."""
        raise NotImplementedError

    def take(self, news: News) -> None:
        """Draw what changed."""
        raise NotImplementedError

    def answered(self) -> None:
        """A reply changed the desk: read again what depends on answers."""

    def on_screen_resume(self) -> None:
        """Read everything: changes went by while another screen was shown."""
        self.take(EVERYTHING)
        self.draw_lines()
        self.ask()

    def on_resize(self) -> None:
        """Lines and pages depend on the width."""
        self.take(EVERYTHING)
        self.draw_lines()

    def fade(self) -> None:
        """The link went down, or is back: everything looks different."""
        for pane in self.query(ScrollView):
            pane.refresh()

    # --- the lines --------------------------------------------------------------------

    def draw_lines(self) -> None:
        """Say header, tabs and footer anew; they draw only what changed."""
        width = self.size.width
        self.query_one("#header", Bar).say(*headline(self.desk, self.ink, width))
        self.query_one("#tabs", Bar).say(
            *tab_line(TABS, self.TAB, self.desk.shown, width)
        )
        self.query_one("#footer", Bar).say(self._footer(width))

    def _footer(self, width: int) -> list[Span]:
        note = self.desk.note
        if note is not None:
            sign = self.ink.pick("✓", "ok") if note.good else self.ink.pick("✖", "X")
            tone = Tone.GOOD if note.good else Tone.BAD
            return [(f" {sign} ", tone), (note.text, Tone.STRONG)]
        if width < 60 or self.size.height < 15:
            return [(" 60x15 cells or more, please", Tone.NOTE)]
        spans: list[Span] = [(" ", Tone.TEXT)]
        for hint in self.hints():
            if self.desk.allows(hint.needs) and width >= hint.least:
                tone = Tone.ACCENT if hint.needs is Rights.RO else Tone.NOTE
                spans += [(hint.key, tone), (f" {hint.does}  ", Tone.MUTED)]
        return spans

    # --- what is typed into the bottom line -----------------------------------------------

    def action_filter(self) -> None:
        """Type a filter."""
        self._type_into("filter", self.filter.text)

    def action_go_to(self) -> None:
        """Type where to go."""
        self._type_into("place", "")

    def _type_into(self, id_: str, text: str) -> None:
        line = self.query_one(f"#{id_}", Input)
        self.query_one("#footer", Bar).display = False
        line.display = True
        line.value = text
        # Not `line.focus()`, which is only so after the keys that wait already.
        self.set_focus(line)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        event.stop()
        if event.input.id == "filter" and event.input.display:
            self._set_filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, or go there."""
        event.stop()
        self._close_line()
        if event.input.id == "place" and event.value.strip():
            self.post_message(WantPlace(event.value.strip()))

    def action_back(self) -> None:
        """Leave the bottom line; clear the filter."""
        if self.query_one("#place", Input).display:
            self._close_line()
        elif self.query_one("#filter", Input).display or self.filter:
            self._close_line()
            self._set_filter("")

    def _close_line(self) -> None:
        for line in self.query(Input):
            if line.display:
                line.display = False
                self.query_one("#footer", Bar).display = True
                self.focus_rows()

    def _set_filter(self, text: str) -> None:
        if text != self.filter.text:
            self.filter = Filter(text)
            self.filtered()

    def filtered(self) -> None:
        """The filter changed."""
        self.take(EVERYTHING)

    def focus_rows(self) -> None:
        """Give the keys back to the rows."""
        raise NotImplementedError

    def filter_words(self) -> str:
        """For a title: the filter, if there is one."""
        return f"  filter: {self.filter.text}" if self.filter else ""

    # --- rights -----------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys above this console's rights are not bound at all.

        Nor are those that open a line, while one is open: they can be typed into it.
        """
        if action in ("filter", "go_to"):
            return not any(line.display for line in self.query(Input))
        needed = self.NEEDS.get(action)
        return needed is None or self.desk.allows(needed)
