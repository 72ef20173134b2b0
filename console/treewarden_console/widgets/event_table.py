"""The journal's last entries as rows, following the newest unless somebody reads."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from treewarden_console.state import Filter, Line, time_of_day

from .ink import Ink, Tone, event_look
from .table_tree import BLANK_ROW, Cell, Column, TableTree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treewarden_console.state import Desk, Entry, EventLog

_COLUMNS: Final = (
    Column("TIME", 12),
    Column("KIND", 14),
    Column("SUBJECT", 20),
    Column("MESSAGE", 0),
    Column("TRACE", 8, least=110),
    Column("POS", 7, right=True, least=96),
)


# A strip is a few rows high; what is further back is on the screen of events.
_STRIP_LINES: Final = 50


class EventTable(TableTree):
    """The entries that pass a filter; new ones are looked at once, as they come.

    A `strip` of them has no cursor, and of the application's own events only the newest
    of each topic: twenty a second must not push out what went wrong.
    """

    def __init__(
        self,
        desk: Desk,
        ink: Ink,
        *,
        id: str,  # noqa: A002 - Textual's name
        strip: bool = False,
    ) -> None:
        super().__init__(ink, _COLUMNS, self._event_cells, id=id, cursor=not strip)
        self.following = True
        self._strip = strip
        self._desk = desk
        self._drawn: EventLog | None = None
        self._epoch = self._arrived = 0
        self._filter = Filter()
        self._lines: list[Line] = []

    def draw(self, wanted: Filter | None = None) -> None:
        """Show what arrived; with another filter, look at everything again."""
        log = self._desk.shown.events
        wanted = wanted or Filter()
        same = log is self._drawn and log.epoch == self._epoch
        if same and wanted == self._filter:
            new = min(log.arrived - self._arrived, len(log.entries))
            fresh: Iterable[Entry] = islice(log.entries, len(log.entries) - new, None)
        else:
            self._drawn, self._epoch, self._filter = log, log.epoch, wanted
            self._lines, fresh = [], log.entries
        self._arrived = log.arrived
        self._lines += [
            Line(id=entry.key)
            for entry in fresh
            if not wanted or wanted.matches(str(entry.telling))
        ]
        gone = next(
            (at for at, line in enumerate(self._lines) if line.id in log),
            len(self._lines),
        )
        del self._lines[:gone]
        if self._strip:
            self._lines = self._folded(log)
        self.show(self._lines, follow=self.following)

    def _folded(self, log: EventLog) -> list[Line]:
        kept: list[Line] = []
        told: set[str] = set()
        for line in reversed(self._lines):
            entry = log.get(line.id)
            topic = entry.row.topic if entry and entry.row.kind == "event" else ""
            if topic not in told:
                kept.append(line)
            if topic:
                told.add(topic)
            if len(kept) == _STRIP_LINES:
                break
        return kept[::-1]

    def follow(self) -> None:
        """Go to the newest entry and stay with the news."""
        self.following = True
        self.go(len(self._lines) - 1)

    def go(self, row: int) -> None:
        """Put the cursor on a row; off the last one, it stays with what is read."""
        super().go(row)
        self.following = self.outline.row >= len(self._lines) - 1

    def below(self) -> int:
        """How many entries came after the one under the cursor."""
        return len(self._lines) - 1 - self.outline.row

    def _event_cells(self, line: Line) -> tuple[Cell, ...]:
        entry = self._desk.shown.events.get(line.id)
        if entry is None:
            return BLANK_ROW
        told, row = entry.telling, entry.row
        look = event_look(told.kind)
        return (
            Cell(time_of_day(row.at_ns, self._desk.zone), Tone.MUTED),
            Cell(f"{self._ink.glyph(look)} {told.kind}", look.tone),
            Cell(told.subject, Tone.TEXT),
            Cell(told.message, Tone.TEXT),
            Cell(row.trace[:8] or "-", Tone.FAINT),
            Cell(f"{row.position}" if row.position else "-", Tone.FAINT),
        )
