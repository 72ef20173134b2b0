"""How things look: tones, glyphs, and the one way from foreign text to the screen.

Every state is glyph, word and colour, so that any one of them can be missing. Colours are
the Okabe-Ito set, which stays apart under the common kinds of colour blindness. All text
of the runtime comes through `Ink.strip` or `Ink.title`, which make it plain and never read
markup: a name such as `[@click=app.quit]x[/]` is shown as it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip

from treewarden.control.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

# Text of the runtime may be long; no line of a terminal is.
_TEXT_CHARACTERS: Final = 2000


class Tone(Enum):
    """What a piece of text means; the ink decides how that looks."""

    TEXT = auto()
    STRONG = auto()
    MUTED = auto()
    FAINT = auto()
    HEAD = auto()
    ACCENT = auto()
    GOOD = auto()
    MOVING = auto()
    WORRY = auto()
    BAD = auto()
    FAILED = auto()
    PAUSED = auto()
    NOTE = auto()
    TAB = auto()


Span: TypeAlias = tuple[str, Tone]
Spans: TypeAlias = Sequence[Span]

_COLOURS: Final[dict[Tone, Style]] = {
    Tone.TEXT: Style(color="#d5dde5"),
    Tone.STRONG: Style(color="#ffffff", bold=True),
    Tone.MUTED: Style(color="#8695a3"),
    Tone.FAINT: Style(color="#4d5b68"),
    Tone.HEAD: Style(color="#8695a3", bold=True),
    Tone.ACCENT: Style(color="#56b4e9", bold=True),
    Tone.GOOD: Style(color="#009e73"),
    Tone.MOVING: Style(color="#56b4e9"),
    Tone.WORRY: Style(color="#e69f00"),
    Tone.BAD: Style(color="#d55e00"),
    Tone.FAILED: Style(color="#d55e00", bold=True, reverse=True),
    Tone.PAUSED: Style(color="#cc79a7"),
    Tone.NOTE: Style(color="#f0e442"),
    Tone.TAB: Style(color="#0d1218", bgcolor="#56b4e9", bold=True),
}
# With NO_COLOR the same screen uses bold, dim and reverse only.
_ATTRIBUTES: Final[dict[Tone, Style]] = {
    Tone.TEXT: Style(),
    Tone.STRONG: Style(bold=True),
    Tone.MUTED: Style(dim=True),
    Tone.FAINT: Style(dim=True),
    Tone.HEAD: Style(bold=True),
    Tone.ACCENT: Style(bold=True),
    Tone.GOOD: Style(),
    Tone.MOVING: Style(),
    Tone.WORRY: Style(bold=True),
    Tone.BAD: Style(bold=True),
    Tone.FAILED: Style(bold=True, reverse=True),
    Tone.PAUSED: Style(bold=True),
    Tone.NOTE: Style(bold=True),
    Tone.TAB: Style(bold=True, reverse=True),
}
_CURSOR_COLOUR: Final = Style(bgcolor="#1d3448")
_CURSOR_ATTRIBUTE: Final = Style(reverse=True)
_FADED: Final = Style(dim=True)


@dataclass(frozen=True, slots=True)
class Look:
    """A state's glyph, its ASCII stand-in, its word and its tone."""

    glyph: str
    ascii: str
    word: str
    tone: Tone


NODE_LOOKS: Final = {
    "running": Look("●", "o", "run", Tone.GOOD),
    "starting": Look("◐", "(", "start", Tone.MOVING),
    "stopping": Look("◑", ")", "stopping", Tone.MOVING),
    "restarting": Look("↻", "r", "back", Tone.WORRY),
    "suspended": Look("‖", "=", "suspended", Tone.PAUSED),
    "stopped": Look("○", ".", "stopped", Tone.MUTED),
    "failed": Look("✖", "X", "failed", Tone.FAILED),
    "stuck": Look("!", "!", "stuck", Tone.FAILED),
}
DEGRADED: Final = Look("↻", "r", "degraded", Tone.WORRY)

CIRCUIT_LOOKS: Final = {
    "closed": Look("●", "o", "closed", Tone.GOOD),
    "half_open": Look("◇", "v", "half", Tone.NOTE),
    "open": Look("▲", "^", "open", Tone.BAD),
    "forced_open": Look("▲", "^", "forced", Tone.PAUSED),
    "disabled": Look("·", "-", "off", Tone.MUTED),
    "metrics_only": Look("·", "-", "metrics", Tone.MUTED),
}

# What is not a node: workflows and their steps, alarms, health, pressure.
_OTHER_LOOKS: Final = {
    "cancelling": Look("◑", ")", "cancelling", Tone.MOVING),
    "compensating": Look("↻", "r", "undoing", Tone.WORRY),
    "parked": Look("‖", "=", "parked", Tone.PAUSED),
    "needs_attention": Look("✖", "X", "attention", Tone.FAILED),
    "completed": Look("✓", "*", "done", Tone.GOOD),
    "compensated": Look("○", ".", "undone", Tone.MUTED),
    "cancelled": Look("○", ".", "cancelled", Tone.MUTED),
    "begun": Look("◐", "(", "begun", Tone.MOVING),
    "done": Look("✓", "*", "done", Tone.GOOD),
    "warning": Look("!", "!", "warning", Tone.WORRY),
    "critical": Look("✖", "X", "critical", Tone.FAILED),
    "healthy": Look("●", "o", "healthy", Tone.GOOD),
    "degraded": Look("↻", "r", "degraded", Tone.WORRY),
    "unhealthy": Look("▲", "^", "unhealthy", Tone.BAD),
    "unresponsive": Look("!", "!", "no answer", Tone.BAD),
    "dead": Look("✖", "X", "dead", Tone.FAILED),
    "unknown": Look("?", "?", "unknown", Tone.NOTE),
    "normal": Look("●", "o", "normal", Tone.GOOD),
    "moderate": Look("▲", "^", "moderate", Tone.WORRY),
    "severe": Look("✖", "X", "severe", Tone.FAILED),
}

STANDING_LOOKS: Final = {
    "LIVE": Look("●", "o", "LIVE", Tone.GOOD),
    "HELD": Look("‖", "=", "HELD", Tone.PAUSED),
    "LAGGING": Look("!", "!", "LAGGING", Tone.NOTE),
    "STALE": Look("?", "?", "STALE", Tone.FAILED),
    "CONNECTING": Look("◐", "(", "CONNECTING", Tone.MOVING),
}

MARK_TONES: Final = {
    "=": Tone.MUTED,
    "~": Tone.MOVING,
    "-": Tone.BAD,
    "+": Tone.GOOD,
}

# What a kind of event looks like: the first word that begins it decides.
_EVENT_LOOKS: Final = (
    (("crash", "fail", "gave", "stuck", "start_failed"), "✖", "X", Tone.BAD),
    (("restart", "rollback"), "↻", "r", Tone.WORRY),
    (("circuit",), "▲", "^", Tone.WORRY),
    (("injection", "alarm", "store", "agent", "blocked"), "!", "!", Tone.NOTE),
    (("operator", "control"), "▪", "#", Tone.PAUSED),
    (("start",), "●", "o", Tone.GOOD),
    (("stop", "exit"), "○", ".", Tone.MUTED),
)


def node_look(state: str) -> Look:
    """How a node's state looks; an unknown one, of a newer runtime, is shown raw."""
    return NODE_LOOKS.get(state) or Look("?", "?", state, Tone.MUTED)


def state_look(state: str) -> Look:
    """How any other state looks: a workflow's, a step's, an alarm's, a subject's."""
    known = _OTHER_LOOKS.get(state) or NODE_LOOKS.get(state)
    return known or Look("?", "?", state.replace("_", " "), Tone.MUTED)


def circuit_look(state: str) -> Look:
    """How a circuit's state looks."""
    return CIRCUIT_LOOKS.get(state) or Look("?", "?", state, Tone.MUTED)


def event_look(kind: str) -> Look:
    """How a kind of event looks."""
    for words, glyph, stand_in, tone in _EVENT_LOOKS:
        if kind.startswith(words):
            return Look(glyph, stand_in, kind, tone)
    return Look("·", "-", kind, Tone.TEXT)


class Ink:
    """Draws for one terminal: with or without colour, with or without glyphs.

    While `faded` (the link is down) what is known of the runtime is drawn dim.
    """

    def __init__(self, *, colour: bool = True, ascii_only: bool = False) -> None:
        self.colour = colour
        self.ascii_only = ascii_only
        self.faded = False
        self._styles = _COLOURS if colour else _ATTRIBUTES

    def style(self, tone: Tone, *, cursor: bool = False, fading: bool = True) -> Style:
        """The terminal style of a tone; what is not `fading` stays crisp."""
        style = self._styles[tone]
        if cursor:
            style += _CURSOR_COLOUR if self.colour else _CURSOR_ATTRIBUTE
        return style + _FADED if self.faded and fading else style

    def glyph(self, look: Look) -> str:
        """The glyph alone."""
        return look.ascii if self.ascii_only else look.glyph

    def sign(self, look: Look) -> str:
        """Glyph and word."""
        return f"{self.glyph(look)} {look.word}"

    def pick(self, glyph: str, stand_in: str) -> str:
        """A drawn character, or what stands in for it."""
        return stand_in if self.ascii_only else glyph

    def fit(self, text: str, width: int, *, right: bool = False) -> str:
        """Plain text of exactly `width` cells; what is cut off ends in a mark."""
        text = plain(text, _TEXT_CHARACTERS)
        length = cell_len(text)
        if length > width:
            mark = self.pick("…", "~")
            return set_cell_size(text, width - 1) + mark if width > 0 else ""
        blank = " " * (width - length)
        return blank + text if right else text + blank

    def strip(
        self,
        spans: Iterable[Span],
        width: int,
        *,
        cursor: bool = False,
        fading: bool = True,
    ) -> Strip:
        """A line of exactly `width` cells."""
        segments: list[Segment] = []
        left = width
        for text, tone in spans:
            if left <= 0:
                break
            text = plain(text, _TEXT_CHARACTERS)
            length = cell_len(text)
            if length > left:
                text, length = self.fit(text, left), left
            style = self.style(tone, cursor=cursor, fading=fading)
            segments.append(Segment(text, style))
            left -= length
        if left > 0:
            blank = self.style(Tone.TEXT, cursor=cursor)
            segments.append(Segment(" " * left, blank))
        return Strip(segments, width)

    def title(self, text: str) -> Content:
        """A pane's title."""
        return Content(plain(text, _TEXT_CHARACTERS))


def length_of(spans: Iterable[Span]) -> int:
    """How many cells a line takes."""
    return sum(cell_len(plain(text, _TEXT_CHARACTERS)) for text, _ in spans)


def wrap(spans: Spans, width: int, indent: int) -> list[list[Span]]:
    """A line broken at spaces to fit `width` cells; what follows is indented.

    A single word that is too long is broken where it must be.
    """
    if width <= 0:
        return []
    if length_of(spans) <= width:
        return [list(spans)]
    indent = min(indent, width // 2)
    lines: list[list[Span]] = [[]]
    room = width
    for word, tone in _words(spans):
        rest = word
        while cell_len(rest) > room:
            body = rest.lstrip(" ")
            if cell_len(body) > width - indent:  # no line can hold it
                head = _head(rest, room)
                lines[-1].append((head, tone))
                body = rest[len(head) :]
            rest = body
            if not rest:
                room = 0  # blanks at the end of a line end it
                break
            lines.append([(" " * indent, Tone.TEXT)])
            room = width - indent
        lines[-1].append((rest, tone))
        room -= cell_len(rest)
    return lines


def _words(spans: Spans) -> Iterable[Span]:
    for text, tone in spans:
        shown = plain(text, _TEXT_CHARACTERS)
        start = 0
        for at in range(1, len(shown)):
            # A word owns the blanks before it, so that they vanish with a line's end.
            if shown[at] == " " and shown[at - 1] != " ":
                yield shown[start:at], tone
                start = at
        if shown:
            yield shown[start:], tone


def _head(word: str, room: int) -> str:
    head = ""
    for letter in word:
        if cell_len(head + letter) > room:
            break
        head += letter
    return head
