"""One line of the screen: something at its left, something at its right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip
from textual.widget import Widget

from .ink import Ink, Spans, Tone, length_of

if TYPE_CHECKING:
    from textual.app import RenderResult


class Bar(Widget):
    """A line that is drawn anew only when what it says has changed."""

    DEFAULT_CSS = "Bar { height: 1; width: 1fr; }"

    def __init__(self, ink: Ink, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._ink = ink
        self._left: Spans = ()
        self._right: Spans = ()

    def say(self, left: Spans, right: Spans = ()) -> None:
        """Show this from now on; when room is short the right part stays whole."""
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line."""
        return self._drawn(self.size.width).apply_style(self.rich_style)

    def _drawn(self, width: int) -> Strip:
        if not self._right:
            return self._ink.strip(self._left, width, fading=False)
        right = [*self._right, (" ", Tone.TEXT)]
        taken = min(length_of(right), width)
        return Strip.join(
            [
                self._ink.strip(self._left, width - taken, fading=False),
                self._ink.strip(right, taken, fading=False),
            ]
        )

    def render(self) -> RenderResult:
        """Nothing: the line is drawn by `render_line`."""
        return ""
