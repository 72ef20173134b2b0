"""The last entries of the journal, and how one is told in a line.

The ring is bounded. What is read stays put while new entries come and old ones leave,
because views hold on to an entry's key, not to its place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from .words import short_error, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from treewarden.control.protocol import EventRow

CAPACITY = 5000
"""Entries kept: some minutes of a busy runtime, about 5 MB."""

_MESSAGE_CHARACTERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """An entry in words: what kind of thing, about whom, what happened."""

    kind: str
    subject: str
    message: str

    def __str__(self) -> str:
        """What a filter looks at."""
        return f"{self.kind} {self.subject} {self.message}"


@dataclass(slots=True)
class Entry:
    """A row of the journal under a key of our own; told when first looked at."""

    key: str
    row: EventRow
    _telling: Telling | None = field(default=None, repr=False)

    @property
    def telling(self) -> Telling:
        """The entry in words."""
        if self._telling is None:
            self._telling = tell(self.row)
        return self._telling


class EventLog:
    """A bounded ring of entries in the order of the journal.

    `epoch` changes when entries were put in anywhere but at the end.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.entries: deque[Entry] = deque(maxlen=capacity)
        self.epoch = 0
        self.arrived = 0
        self.position = 0
        self._by_key: dict[str, Entry] = {}

    def __contains__(self, key: object) -> bool:
        """Whether the entry is still kept."""
        return key in self._by_key

    def get(self, key: str | None) -> Entry | None:
        """An entry by key, unless it left the ring."""
        return self._by_key.get(key or "")

    def extend(self, rows: Iterable[EventRow]) -> None:
        """Append new entries; what is in the journal twice is kept once."""
        for row in rows:
            if 0 < row.position <= self.position:
                continue
            self.position = max(self.position, row.position)
            self._append(row)

    def backfill(self, rows: Iterable[EventRow]) -> None:
        """Merge entries from the journal that may be older than what is here."""
        fresh = [row for row in rows if f"{row.position}" not in self._by_key]
        if all(row.position > self.position for row in fresh):
            self.extend(fresh)
            return
        # Signals have no position; they stay behind the entry that they followed.
        placed: list[tuple[int, int, EventRow]] = []
        last = 0
        for at, entry in enumerate(self.entries):
            last = max(last, entry.row.position)
            placed.append((last, at, entry.row))
        placed += [(row.position, -1, row) for row in fresh]
        self._rebuild([row for _, _, row in sorted(placed, key=lambda one: one[:2])])

    def clear(self) -> None:
        """Forget everything."""
        self._rebuild([])

    def copy(self) -> EventLog:
        """The entries as they are now, for a view that is held."""
        still = EventLog(self.entries.maxlen or CAPACITY)
        still.entries.extend(self.entries)
        still._by_key = dict(self._by_key)
        still.epoch, still.arrived = self.epoch, self.arrived
        still.position = self.position
        return still

    def _append(self, row: EventRow) -> None:
        self.arrived += 1
        key = f"{row.position}" if row.position else f"signal-{self.arrived}"
        if len(self.entries) == self.entries.maxlen:
            del self._by_key[self.entries[0].key]
        entry = Entry(key, row)
        self.entries.append(entry)
        self._by_key[key] = entry

    def _rebuild(self, rows: Iterable[EventRow]) -> None:
        self.entries.clear()
        self._by_key.clear()
        self.position = 0
        self.epoch += 1
        self.extend(rows)


def tell(row: EventRow) -> Telling:
    """Put an entry into words; whatever its payload is, it never fails."""
    try:
        payload = msgspec.json.decode(row.payload)
    except (msgspec.DecodeError, RecursionError):
        payload = "(payload is not JSON)"
    if not isinstance(payload, dict):
        return Telling(kind=row.topic, subject=row.source, message=compact(payload))
    if row.kind == "report":
        return _tell_report(row, payload)
    return Telling(kind=row.topic, subject=row.source, message=_listed(payload))


def _tell_report(row: EventRow, payload: dict[str, object]) -> Telling:
    part, _, what = row.topic.rpartition(".")
    if part == "supervision":
        kind, message = _tell_of_child(what, payload)
        return Telling(kind=kind, subject=row.source, message=message)
    if row.topic == "runtime.blocked":
        return Telling(kind="blocked", subject=row.source, message=_blocked(payload))
    # What else is reported is told under the name of the part that reports it.
    kind, words = (part, what) if part else (what, "")
    subject = row.source or compact(payload.get(kind))
    if kind == "circuit":
        words = f"{compact(payload.pop('from', ''))} to {what}"
    told = {key: value for key, value in payload.items() if value != subject}
    message = _cut("  ".join(filter(None, [words, _listed(told)])))
    return Telling(kind=kind, subject=subject, message=message)


def _tell_of_child(what: str, payload: dict[str, object]) -> tuple[str, str]:
    """A start, exit or restart: the kind of it, and a message."""
    exit_, detail = compact(payload.get("exit")), compact(payload.get("detail"))
    run = f"incarnation {compact(payload.get('incarnation'))}"
    match what:
        case "exited" if exit_.startswith("crashed"):
            return "crashed", short_error(exit_.removeprefix("crashed: "))
        case "exited" if exit_.startswith("rolled back"):
            return "rollback", short_error(exit_.removeprefix("rolled back: "))
        case "exited":
            return "exited", exit_
        case "started":
            return "started", run
        case "failed":
            return "failed", _spent(payload.get("budget")) or exit_
        case "restarted":
            cause, by = compact(payload.get("cause")), compact(payload.get("by"))
            return "restarted", f"{run}, cause: {cause}{f' by {by}' if by else ''}"
        case _:
            return what, detail or exit_


def _spent(budget: object) -> str:
    match budget:
        case {"limit": int(limit), "period": int() | float() as period}:
            return f"stays down: its {limit} restarts in {period:g} s are spent"
    return ""


def _blocked(payload: dict[str, object]) -> str:
    seconds, where = payload.get("seconds"), compact(payload.get("where"))
    told = span(seconds) if isinstance(seconds, float) else compact(seconds)
    place = where.rpartition("/")[2]
    return f"the loop, for {told}: {compact(payload.get('function'))} at {place}"


def _listed(payload: Mapping[str, object]) -> str:
    return _cut(
        "  ".join(
            f"{key} {compact(value)}"
            for key, value in payload.items()
            if value not in (None, "")
        )
    )


def _cut(text: str) -> str:
    return text[:_MESSAGE_CHARACTERS]


def compact(value: object) -> str:
    """A JSON value on one line, shortened."""
    if isinstance(value, str):
        return value[:_MESSAGE_CHARACTERS]
    if value is None:
        return ""
    return msgspec.json.encode(value).decode()[:_MESSAGE_CHARACTERS]
