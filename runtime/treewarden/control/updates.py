"""What one client watches, and what it has to be told since it was told last.

A watched topic is a mapping of keys to rows. The client is sent what differs from the
rows it was sent before, so however slow it is, the next update brings it up to date and
the updates between are simply never made: slowness costs the runtime one mapping a topic.
Events cannot be merged that way; they wait in a bounded backlog that drops the oldest and
counts.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .protocol import NOTICES, EventRow, EventsUpdate, Message, Topic, Update

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A client that stops reading may cost 4 MiB; half of it is the frame in its hands.
BACKLOG_ENTRIES: Final = 4096
BACKLOG_BYTES: Final = 1 << 20
# What an entry costs besides its payload: measured, a row of 7 short fields.
_ENTRY_BYTES: Final = 300


@dataclass(slots=True)
class WatchedRows:
    """One topic of one client: what it was sent, and what the next update says.

    `missed` counts the updates that were not made because the client was not ready.
    """

    topic: Topic
    version: int | None = None
    sent: Mapping[str, Message] = field(default_factory=dict)
    sequence: int = 0
    missed: int = 0
    due_at: float = -math.inf

    def update(self, version: int, rows: Mapping[str, Message]) -> Update | None:
        """The change from what was sent to `rows`; None when there is none."""
        first = self.version is None
        self.version = version
        sent, self.sent = self.sent, rows
        changed = [row for key, row in rows.items() if _differs(sent.get(key), row)]
        gone = [key for key in sent if key not in rows]
        if not (first or changed or gone):
            return None
        self.sequence += 1
        lost, self.missed = self.missed, 0
        kind: Any = NOTICES[f"{self.topic}.update"]
        update: Update = kind(
            sequence=self.sequence, full=first, lost=lost, gone=gone, rows=changed
        )
        return update


def _differs(old: Message | None, new: Message) -> bool:
    return old is not new and old != new


@dataclass(slots=True)
class WatchedEvents:
    """The entries that wait for one client; `push` never waits, the oldest go first."""

    sequence: int = 0
    lost: int = 0
    _waiting: deque[EventRow] = field(default_factory=deque)
    _bytes: int = 0

    def push(self, rows: Iterable[EventRow]) -> None:
        """Keep `rows` until the next update, within the backlog's bounds."""
        for row in rows:
            self._waiting.append(row)
            self._bytes += _cost(row)
        while len(self._waiting) > BACKLOG_ENTRIES or (
            self._bytes > BACKLOG_BYTES and len(self._waiting) > 1
        ):
            self._bytes -= _cost(self._waiting.popleft())
            self.lost += 1

    def snapshot(self, history: Iterable[EventRow], position: int) -> EventsUpdate:
        """The first update: the journal's end, then what came while it was read."""
        newer = [row for row in self._take() if not 0 < row.position <= position]
        return self._update([*history, *newer], full=True)

    def update(self) -> EventsUpdate | None:
        """The entries since the last one; None when there are none."""
        if not (self._waiting or self.lost):
            return None
        return self._update(self._take(), full=False)

    def _take(self) -> list[EventRow]:
        rows = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return rows

    def _update(self, rows: list[EventRow], *, full: bool) -> EventsUpdate:
        self.sequence += 1
        lost, self.lost = self.lost, 0
        return EventsUpdate(sequence=self.sequence, full=full, lost=lost, rows=rows)


def _cost(row: EventRow) -> int:
    return _ENTRY_BYTES + len(row.payload)
