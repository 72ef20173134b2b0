"""Lines of text to read: details, explanations, help."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView

from .ink import Ink, Span, Spans, Tone, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Resize
    from textual.strip import Strip

LABEL = 10
"""Cells of the column of labels; wrapped lines go on beside it."""


class Page(ScrollView, can_focus=True):
    """Wrapped lines, scrolled when they are too many; drawn anew only when they change."""

    DEFAULT_CSS = "Page { overflow-x: hidden; overflow-y: auto; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, ink: Ink, *, id: str, indent: int = LABEL + 1) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._ink = ink
        self._indent = indent
        self._lines: Sequence[Spans] = ()
        self._wrapped: list[list[Span]] = []
        self._width = -1

    def show(self, lines: Sequence[Spans]) -> None:
        """Show these lines; where the reader is stays the same while it exists."""
        if lines != self._lines:
            self._lines = lines
            self._lay_out()

    def on_resize(self, event: Resize) -> None:
        """Wrap anew when the width changed."""
        width = self.scrollable_content_region.width
        if width != self._width:
            self._lay_out()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Lines are wrapped: left and right are free for the screen."""
        return action not in ("scroll_left", "scroll_right")

    def render_line(self, y: int) -> Strip:
        """One line of what is in view."""
        row = self.scroll_offset.y + y
        width = self.scrollable_content_region.width
        spans = self._wrapped[row] if row < len(self._wrapped) else ()
        strip = self._ink.strip([(" ", Tone.TEXT), *spans], width)
        return strip.apply_style(self.rich_style)

    def _lay_out(self) -> None:
        self._width = self.scrollable_content_region.width
        self._wrapped = [
            part
            for line in self._lines
            for part in wrap(line, self._width - 2, self._indent)
        ]
        self.virtual_size = Size(self._width, len(self._wrapped))
        self.refresh()


def labelled(label: str, *spans: Span) -> list[Span]:
    """A line with its label."""
    return [(f"{label:<{LABEL}} ", Tone.MUTED), *spans]


def heading(text: str, *more: Span) -> list[Span]:
    """A line that begins a part of the page."""
    return [(text, Tone.HEAD), *more]


BLANK: Spans = [("", Tone.TEXT)]
