"""Questions and long answers, shown over a screen: confirm, why, help, leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from treewarden_console.widgets import BLANK, Bar, Ink, Page, Spans, Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from treewarden_console.state import Owner

Leaving: TypeAlias = Literal["stop", "leave"]


class Confirm(ModalScreen[bool]):
    """Shows what an act would do, and asks. Cancel has the focus.

    With `name` the operator must type it: for what cannot be undone.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(
        self, ink: Ink, title: str, lines: Sequence[Spans], verb: str, name: str = ""
    ) -> None:
        super().__init__()
        self._ink = ink
        self._title = title
        self._lines = lines
        self._verb = verb
        self._typed = name
        self.set_class(ink.ascii_only, "-ascii")

    def compose(self) -> ComposeResult:
        """The page, the name to type, the buttons."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._ink.title(self._title)
            page = Page(self._ink, id="page")
            page.can_focus = False
            yield page
            if self._typed:
                yield Bar(self._ink, id="ask")
                line = Input(id="name", compact=True)
                line.cursor_blink = False
                yield line
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button(
                    self._verb, id="go", compact=True, disabled=bool(self._typed)
                )

    def on_mount(self) -> None:
        """Say it; the name, else Cancel, has the focus."""
        self.query_one(Page).show(self._lines)
        if not self._typed:
            self.query_one("#cancel", Button).focus()
            return
        ask: Spans = [
            (" type ", Tone.MUTED),
            (self._typed, Tone.STRONG),
            (" and press enter", Tone.MUTED),
        ]
        self.query_one("#ask", Bar).say(ask)
        self.query_one("#name", Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The act is possible once the name is right."""
        event.stop()
        self.query_one("#go", Button).disabled = event.value != self._typed

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter after the right name does it; after a wrong one, nothing."""
        event.stop()
        if event.value == self._typed:
            self.dismiss(True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button was chosen."""
        event.stop()
        self.dismiss(event.button.id == "go")

    def action_cancel(self) -> None:
        """Do nothing."""
        self.dismiss(False)


class Reading(ModalScreen[None]):
    """A page to read; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,w,question_mark", "close", show=False)
    ]

    def __init__(
        self, ink: Ink, title: str, lines: Sequence[Spans], *, indent: int = 11
    ) -> None:
        super().__init__()
        self._ink = ink
        self._title = title
        self._lines = lines
        self._indent = indent
        self.set_class(ink.ascii_only, "-ascii")

    def compose(self) -> ComposeResult:
        """The page."""
        page = Page(self._ink, id="reading", indent=self._indent)
        page.add_class("dialog")
        page.border_title = self._ink.title(self._title)
        page.border_subtitle = self._ink.title("esc: close")
        yield page

    def on_mount(self) -> None:
        """Say it."""
        self.query_one(Page).show(self._lines)

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss(None)


class Leave(ModalScreen["Leaving | None"]):
    """Stop the runtime, or leave it running?"""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "stay", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, ink: Ink, owner: Owner) -> None:
        super().__init__()
        self._ink = ink
        self._owner = owner
        self.set_class(ink.ascii_only, "-ascii")

    def compose(self) -> ComposeResult:
        """The question and its answers."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._ink.title("leave")
            box.border_subtitle = self._ink.title("esc: stay")
            yield Bar(self._ink, id="question")
            yield Bar(self._ink, id="consequence")
            with Horizontal(id="buttons"):
                yield Button("Stop the runtime", id="stop", compact=True)
                yield Button("Leave it running", id="leave", compact=True)

    def on_mount(self) -> None:
        """What was started for a look is stopped, what was run is left."""
        self.query_one("#question", Bar).say(
            [(" What shall become of the runtime?", Tone.STRONG)]
        )
        self.query_one("#consequence", Bar).say(
            [(" `treewarden attach` comes back to one that runs on.", Tone.MUTED)]
        )
        first = "#stop" if self._owner == "demo" else "#leave"
        self.query_one(first, Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """An answer."""
        event.stop()
        self.dismiss("stop" if event.button.id == "stop" else "leave")

    def action_stay(self) -> None:
        """Do not leave."""
        self.dismiss(None)


_HELP = (
    ("MOVE", ""),
    ("up down k j", "row"),
    ("left right h l", "fold, unfold; on Agents: versions of the state"),
    ("g G, page keys", "top, bottom, a screenful"),
    ("enter, esc", "open, back; esc also clears the filter"),
    ("tab", "next list, or pane"),
    ("1 2 3 4", "Tree, Circuits (policies, gateways), Events, Agents"),
    ("5 6 7 8", "Bus, Coordination, Work, Monitors"),
    (":", "go to a list by its name (locks, alarms ...), or to a node by its own"),
    ("o", "of a row: show its node in the tree"),
    ("", ""),
    ("LOOK", ""),
    ("w", "why it restarted, is down or hangs: the whole story"),
    ("/", "filter: an expression; !text inverts, ~text is fuzzy"),
    ("s", "the next order"),
    ("f", "Events: follow the newest, or stop"),
    ("p", "freeze this view; the runtime goes on"),
    ("", ""),
    ("ACT (upper case changes things)", ""),
    ("X", "crash the node, on purpose (rights: chaos)"),
    ("R S Z", "restart, stop, suspend or resume the node (rights: rw)"),
    ("T C D M", "trip, close, disable, only watch the circuit (rights: rw)"),
    ("B F P", "Bus: deliver again, forget; forget all dead letters (rights: rw)"),
    ("S R", "Work: cancel the workflow; have it go on (rights: rw)"),
    ("A", "Monitors: say that you know of the alarm (rights: rw)"),
    ("", "You see first what an act would do; Cancel has the focus."),
    ("", "Keys above your rights do nothing; the runtime refuses as well."),
    ("", ""),
    ("LEAVE", ""),
    ("q, ctrl+c", "leave; asks when this console started the runtime"),
    ("ctrl+q", "leave at once; the runtime goes on"),
)


def help_page() -> list[Spans]:
    """Every key."""
    lines: list[Spans] = []
    for keys, does in _HELP:
        if not keys and not does:
            lines.append(BLANK)
        elif not does:
            lines.append([(keys, Tone.HEAD)])
        else:
            lines.append([(f"  {keys:<16} ", Tone.ACCENT), (does, Tone.TEXT)])
    return lines
