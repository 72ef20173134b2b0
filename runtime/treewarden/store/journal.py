"""The journal: published events and reports, in the order in which they were committed.

Positions are given by the writer alone: they rise by one from entry to entry, have no
gaps (what is rolled back gives its position back) and never repeat, because retention
keeps the newest entry for ever. Each row carries the running total of bytes, so that the
journal's size is a subtraction of two rows and not a scan.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from .checksums import as_stored, checksum, shown, whole
from .insert import Insert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator

    from .unit import StagedEvent

EntryKind: TypeAlias = Literal["event", "report"]
"""Published by somebody, or told by the runtime itself."""
DELETE_ROWS: Final = 1000
"""Rows deleted in one transaction: about 5 ms, so that retention delays no commit."""
_ROW_BYTES = 64
"""What an entry costs besides its text: keys, numbers, page overhead (estimated)."""
_WINDOW = 5000
"""Entries looked at in one query, some 10 ms: a read-only snapshot that lives longer
keeps the writer from reusing its log."""

INSERT_ENTRIES: Final = Insert(
    "INSERT INTO journal"
    " (position, topic, kind, at_ns, source, trace, payload, end_bytes, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT = (
    "SELECT position, topic, kind, at_ns, source, trace, end_bytes, payload, crc"
    " FROM journal"
)
_TOPICS = (
    "SELECT position, topic, kind FROM journal WHERE position > ? AND position <= ?"
    " ORDER BY position LIMIT ?"
)
_SINCE = "SELECT position FROM journal WHERE at_ns >= ? ORDER BY position LIMIT 1"
_OLDEST = (
    "SELECT position, at_ns, end_bytes FROM journal"
    " WHERE position < ? ORDER BY position LIMIT ?"
)
_FIRST = "SELECT position FROM journal WHERE position > ? ORDER BY position LIMIT 1"
_NEXT = (
    "SELECT at_ns, end_bytes FROM journal WHERE position > ? AND position < ?"
    " ORDER BY position LIMIT 1"
)
END: Final = (1 << 62) - 1
"""A position that no journal comes to."""
_LOOKED_AT = 100
"""Entries among which the oldest sound one is looked for."""


class Tail(NamedTuple):
    """The end of the journal: the newest position and the running total of bytes."""

    position: int
    end_bytes: int


class Head(NamedTuple):
    """The beginning of the journal: its oldest sound entry, the total with and without."""

    at_ns: int
    end_bytes: int
    begin_bytes: int


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A committed event or report; `payload` is JSON.

    An entry whose checksum does not match is `damaged`: its payload is `null`, so that
    nobody reads a wrong value, and the entries around it stay readable.
    """

    # A struct: whoever follows has one made for each report, in a quarter of the time.

    position: int
    topic: str
    payload: bytes
    at_ns: int
    source: str = ""
    trace: str = ""
    kind: EntryKind = "event"
    damaged: bool = False


def entry_rows(
    events: Iterable[StagedEvent], tail: Tail
) -> tuple[list[tuple[Any, ...]], Tail]:
    """The parameters of `INSERT_ENTRIES` for entries after `tail`, and the new tail."""
    position, end_bytes = tail
    rows: list[tuple[Any, ...]] = []
    for event in events:
        topic, kind, at_ns = event.topic, event.kind, event.at_ns
        source, trace = event.source, event.trace
        if event.content is not None:
            # Here, in the writer's thread: nobody who reports waits for it.
            event.payload, event.content = event.content.encode(), None
        payload = event.payload
        position += 1
        end_bytes += len(payload) + len(topic) + _ROW_BYTES
        # `checksum`, written out: of all that a commit does for an event it was a third.
        key = f"{position}\0{topic}\0{kind}\0{at_ns}\0{source}\0{trace}\0{end_bytes}"
        crc = crc32(key.encode() + payload)
        text = payload.decode()
        rows.append((position, topic, kind, at_ns, source, trace, text, end_bytes, crc))
    return rows, Tail(position, end_bytes)


def entry_of(event: StagedEvent) -> JournalEntry:
    """A committed event as those who follow the journal get it."""
    return JournalEntry(
        position=event.position,
        topic=event.topic,
        payload=event.payload,
        at_ns=event.at_ns,
        source=event.source,
        trace=event.trace,
        kind=event.kind,
    )


def load_tail(connection: sqlite3.Connection) -> Tail:
    """Where the journal ends now.

    The running total is that of the newest sound entry: a wrong one would have
    retention delete everything.
    """
    last, end_bytes = 0, 0
    for row in connection.execute(f"{_SELECT} ORDER BY position DESC LIMIT {_WINDOW}"):
        last = last or row[0]
        if _is_sound(row):
            end_bytes = row[6]
            break
    return Tail(last, end_bytes)


def load_head(connection: sqlite3.Connection) -> Head | None:
    """Where the journal begins now; None when it is empty, or damaged there."""
    query = f"{_SELECT} ORDER BY position LIMIT {_LOOKED_AT}"
    for row in connection.execute(query):
        if _is_sound(row):
            size = len(as_stored(row[7])) + len(row[1]) + _ROW_BYTES
            return Head(row[3], row[6], row[6] - size)
    return None


def load_entries(
    connection: sqlite3.Connection,
    since: int | None,
    limit: int,
    pattern: str,
    until: int = END,
) -> list[JournalEntry]:
    """Entries that match `pattern`, oldest first, at most `limit`.

    Those after position `since`, or without it the newest ones; none after `until`. Costs
    time in proportion to the entries passed over, in short reads.
    """
    wanted = matcher(pattern)
    found: list[JournalEntry] = []
    windows = (
        _newest_first(connection, until)
        if since is None
        else _after(connection, since, until)
    )
    for rows in windows:
        found += [_entry(row) for row in rows if wanted(str(row[1]))]
        if len(found) >= limit:
            break
    found = found[:limit]
    return found[::-1] if since is None else found


class EventPage(NamedTuple):
    """Events behind a position, in order, and how far the journal was looked at for them.

    `first` is the oldest position that was there, 0 when there was none; what lies between
    it and where the page was to begin has been deleted.
    """

    events: list[JournalEntry]
    first: int
    scanned: int


def load_events(
    connection: sqlite3.Connection,
    after: int,
    until: int,
    limit: int,
    pattern: str,
    kind: EntryKind = "event",
) -> EventPage:
    """The next published events behind position `after`, up to `until`, at most `limit`.

    Or the next reports. Looks at one window of the journal, so that an empty page need
    not be the end.
    """
    wanted = matcher(pattern)
    rows = connection.execute(
        f"{_SELECT} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
        (after, until, _WINDOW),
    ).fetchall()
    found: list[JournalEntry] = []
    first = rows[0][0] if rows else 0
    for row in rows:
        if row[2] == kind and wanted(str(row[1])):
            found.append(_entry(row))
            if len(found) == limit:
                return EventPage(found, first, row[0])
    more = len(rows) == _WINDOW
    return EventPage(found, first, rows[-1][0] if more else max(after, until))


def count_events(
    connection: sqlite3.Connection, after: int, until: int, pattern: str
) -> tuple[int, int]:
    """How many published events match, of those that one window shows.

    Behind position `after`, up to `until`; and the position up to which it was counted.
    """
    wanted = matcher(pattern)
    rows = connection.execute(_TOPICS, (after, until, _WINDOW)).fetchall()
    count = sum(kind == "event" and wanted(str(topic)) for _, topic, kind in rows)
    return count, rows[-1][0] if len(rows) == _WINDOW else max(after, until)


class Backlog(NamedTuple):
    """What the journal has behind a position, and what it had there.

    `expired` entries are deleted already. Of the others `events` match the pattern, not
    counting the last `uncounted` ones, at which nobody has looked.
    """

    expired: int
    events: int
    uncounted: int
    size_bytes: int


def load_backlog(connection: sqlite3.Connection, after: int, pattern: str) -> Backlog:
    """What there is behind position `after`; of its events one window is counted."""
    last = load_tail(connection).position
    first = connection.execute(_FIRST, (after,)).fetchone()
    events, counted = count_events(connection, after, last, pattern)
    return Backlog(
        expired=first[0] - after - 1 if first is not None else 0,
        events=events,
        uncounted=max(0, last - counted),
        size_bytes=bytes_behind(connection, after),
    )


def bytes_behind(connection: sqlite3.Connection, after: int) -> int:
    """Bytes of the entries behind position `after`, as retention counts them."""
    until = f"{_SELECT} WHERE position <= ? ORDER BY position DESC LIMIT {_LOOKED_AT}"
    begin = _first_sound(connection.execute(until, (after,)))
    if begin is None:
        # Deleted already: then all that is left is behind it.
        head = load_head(connection)
        begin = 0 if head is None else head.begin_bytes
    return max(0, load_tail(connection).end_bytes - begin)


def find_position(connection: sqlite3.Connection, at_ns: int) -> int | None:
    """The position of the first entry that is not older than `at_ns`."""
    row = connection.execute(_SINCE, (at_ns,)).fetchone()
    return int(row[0]) if row is not None else None


def prune(
    connection: sqlite3.Connection,
    newest: Tail,
    before_ns: int,
    keep_bytes: int,
    until: int = END,
) -> int:
    """Delete the oldest entries that are too old or too many; at most `DELETE_ROWS`.

    `newest` is where the journal ends, and what came earlier than `before_ns` is too old.
    Returns how many were deleted. Only a prefix is ever deleted, nothing after position
    `until` and never the newest entry.
    """
    end = min(newest.position, until + 1)
    oldest = connection.execute(_OLDEST, (end, DELETE_ROWS)).fetchall()
    last = _last_expired(connection, oldest, before_ns, newest.end_bytes - keep_bytes)
    if last is None:
        return 0
    return connection.execute(
        "DELETE FROM journal WHERE position <= ?", (last,)
    ).rowcount


def is_expired(
    connection: sqlite3.Connection,
    after: int,
    newest: Tail,
    before_ns: int,
    keep_bytes: int,
) -> bool:
    """Whether the next entry behind position `after` would be deleted, see `prune`."""
    row = connection.execute(_NEXT, (after, newest.position)).fetchone()
    return row is not None and (
        row[0] < before_ns or row[1] <= newest.end_bytes - keep_bytes
    )


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a topic matches: words between dots, `*` one word, `>` one or more."""
    if pattern == ">":
        return bool
    words = [_word(word) for word in pattern.split(".")]
    compiled = re.compile(r"\.".join(words), re.DOTALL)
    return lambda topic: compiled.fullmatch(topic) is not None


def _word(word: str) -> str:
    return {"*": r"[^.]+", ">": r".+"}.get(word) or re.escape(word)


def _last_expired(
    connection: sqlite3.Connection,
    oldest: Iterable[tuple[int, object, object]],
    before_ns: int,
    floor: int,
) -> int | None:
    last = None
    for position, at_ns, end_bytes in oldest:
        if not (isinstance(at_ns, int) and isinstance(end_bytes, int)):
            continue
        if at_ns < before_ns or end_bytes <= floor:
            last = position
        elif _is_sound_at(connection, position):
            break
        # What a damaged entry says of itself keeps nothing: the journal would grow.
    return last


def _is_sound_at(connection: sqlite3.Connection, position: int) -> bool:
    query = f"{_SELECT} WHERE position = ?"
    return _is_sound(connection.execute(query, (position,)).fetchone())


def _after(
    connection: sqlite3.Connection, since: int, until: int
) -> Iterator[list[Any]]:
    # `until` is a number of ours, and the windows have but one place to go on from.
    query = f"{_SELECT} WHERE position > ? AND position <= {until:d}"
    return _windows(connection, f"{query} ORDER BY position LIMIT ?", since, +1)


def _newest_first(connection: sqlite3.Connection, until: int) -> Iterator[list[Any]]:
    query = f"{_SELECT} WHERE position < ? ORDER BY position DESC LIMIT ?"
    return _windows(connection, query, until + 1, -1)


def _windows(
    connection: sqlite3.Connection, query: str, place: int, direction: int
) -> Iterator[list[Any]]:
    while rows := connection.execute(query, (place, _WINDOW)).fetchall():
        yield rows
        begin, place = place, rows[-1][0]
        # A damaged position may lead back, and so for ever.
        if len(rows) < _WINDOW or (place - begin) * direction <= 0:
            return


def _first_sound(rows: Iterable[tuple[Any, ...]]) -> int | None:
    """The running total up to the first sound one."""
    return next((row[6] for row in rows if _is_sound(row)), None)


def _is_sound(row: tuple[Any, ...]) -> bool:
    *key, text, crc = row
    return bool(crc == checksum(as_stored(text), *key))


def _entry(row: tuple[Any, ...]) -> JournalEntry:
    position, topic, kind, at_ns, source, trace, _, text, _ = row
    if not _is_sound(row):
        return JournalEntry(
            position=position,
            topic=shown(topic),
            payload=b"null",
            at_ns=whole(at_ns),
            damaged=True,
        )
    return JournalEntry(
        position=position,
        topic=topic,
        payload=as_stored(text),
        at_ns=at_ns,
        source=source,
        trace=trace,
        kind=kind,
    )
