"""What has taken effect, by id: the answer to "did it happen?" after a timeout or a kill.

A message's id is a row of the unit that holds what the message did, so that the file has
both or neither. Of an ordinary call no row is written: it is known by the number of its
unit in its run, and the writer keeps one row for each unbroken run of committed numbers
(`committed_range`), which grows in place.

Kept for `KEPT_NS`, and of each agent the newest `KEPT_ROWS`; then an id is forgotten. What
is trimmed is remembered by the time of the newest: an id tells when it was made, and one
that is younger and not found was never applied.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from treewarden.clock import wall_ns

from .checksums import as_stored, checksum, shown
from .retention import Horizon

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator

    from .group import Group
    from .unit import Unit, Write

KEPT_NS: Final = 7 * 24 * 3600 * 1_000_000_000
"""How long an id is remembered."""
SKEW_NS: Final = 60 * 1_000_000_000
"""How far an id may come from the future: clocks are set by a little all the time."""
KEPT_ROWS: Final = 100_000
"""Ids remembered of each agent."""
SLICE_ROWS: Final = 1000
"""Rows trimmed in one transaction: about 5 ms. An agent's rows may be more than
`KEPT_ROWS` by as many."""
DUE_ROWS: Final = 4096
"""Rows of all kinds after whose commit trimming does not wait for a rest."""
PATHS: Final = 4
"""Agents looked at for one slice; to find where an agent's surplus ends takes 2 ms."""
GROWN_PATHS: Final = 10_000
"""Agents of whom it is known that they have grown; of more it is found out at leisure."""
TRIMMED: Final = "applied_trimmed_ns"
"""The fact about the file that says from when on every id is known."""

_INSERT: Final = (
    "INSERT INTO applied (path, msg_id, at_ns, answer, crc) VALUES (?, ?, ?, ?, ?)"
)
_FIND: Final = "SELECT path, at_ns, answer, crc FROM applied WHERE msg_id = ?"
_IN_RANGE: Final = (
    "SELECT boot, first, last, at_ns, crc FROM committed_range"
    " WHERE boot = ? AND first <= ? ORDER BY first DESC LIMIT 1"
)
_INSERT_RANGE: Final = (
    "INSERT INTO committed_range (boot, first, last, at_ns, crc) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (boot, first) DO UPDATE SET last = excluded.last,"
    " at_ns = excluded.at_ns, crc = excluded.crc"
)
# Only the beginning is looked at: there is no index by time, and none is needed.
_OLD: Final = (
    "SELECT seq, at_ns FROM (SELECT seq, at_ns FROM applied ORDER BY seq LIMIT ?)"
    " WHERE at_ns < ?"
)
_OLD_RANGES: Final = _OLD.replace("applied", "committed_range")
_OLDEST: Final = "SELECT at_ns FROM applied ORDER BY seq LIMIT 1"
_GROWN: Final = "SELECT path, count(*) FROM applied WHERE seq > ? GROUP BY path"
_NEXT_PATH: Final = "SELECT path FROM applied WHERE path > ? ORDER BY path LIMIT 1"
_TOO_MANY: Final = (
    "SELECT seq, at_ns FROM applied WHERE path = ?1 AND seq <= (SELECT seq FROM applied"
    " WHERE path = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2) ORDER BY seq LIMIT ?3"
)


class Outcome(StrEnum):
    """What became of a message or call, by its id."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """That a message took effect; `answer` is JSON, None when it was not kept."""

    path: str
    answer: bytes | None
    sound: bool


def insert_applied(path: str, id_: str, at_ns: int, answer: bytes | None) -> Write:
    """The statement that remembers an id, for the unit that holds its effect."""
    crc = _checksum(path, id_, at_ns, answer)
    text = None if answer is None else answer.decode()
    return _INSERT, (path, id_, at_ns, text, crc)


def call_id(boot: str, number: int) -> str:
    """The id of a call whose unit was the `number`th of its run."""
    return f"{boot}:{number}"


def find_applied(connection: sqlite3.Connection, id_: str) -> list[Applied]:
    """Whose messages of this id took effect; an id is unique to one agent."""
    found = []
    for path, at_ns, text, crc in connection.execute(_FIND, (id_,)):
        answer = None if text is None else as_stored(text)
        sound = crc == _checksum(path, id_, at_ns, answer)
        found.append(Applied(path=shown(path), answer=answer, sound=sound))
    return found


def find_outcome(connection: sqlite3.Connection, id_: str) -> Outcome:
    """What the file says about an id.

    A row that is damaged counts: that it is there is what it says. What damage keeps from
    being told is forgotten.
    """
    if connection.execute(_FIND, (id_,)).fetchone() is not None:
        return Outcome.APPLIED
    boot, colon, number = id_.partition(":")
    if colon and number.isdecimal():
        in_range = _is_in_range(connection, boot, int(number))
        if in_range is not False:
            return Outcome.APPLIED if in_range else Outcome.FORGOTTEN
    trimmed = _trimmed_ns(connection)
    made_ns = _made_ns(boot)
    if made_ns is not None and made_ns > wall_ns() + SKEW_NS:
        made_ns = None  # The clock was set back; nobody knows when that was.
    if trimmed is not None and (made_ns is None or made_ns <= trimmed):
        return Outcome.FORGOTTEN
    return Outcome.NOT_APPLIED


def _is_in_range(connection: sqlite3.Connection, boot: str, number: int) -> bool | None:
    """Whether that unit of that run is committed; None when its row is damaged."""
    row = connection.execute(_IN_RANGE, (boot, number)).fetchone()
    if row is None:
        return False
    found, first, last, at_ns, crc = row
    if crc != checksum(str(at_ns).encode(), found, first, last):
        return None
    return bool(first <= number <= last)


def _trimmed_ns(connection: sqlite3.Connection) -> float | None:
    """From when on every id is known; None: from ever. Infinite: it is damaged."""
    query = "SELECT value, crc FROM meta WHERE key = ?"
    row = connection.execute(query, (TRIMMED,)).fetchone()
    if row is None:
        return None
    text, crc = row
    return int(text) if crc == checksum(as_stored(text), TRIMMED) else math.inf


def _made_ns(id_: str) -> int | None:
    """When an id of ours was made (`ids.new_id`), to the millisecond; else None."""
    if len(id_) != 28:
        return None
    try:
        int(id_, 16)
        return int(id_[:12], 16) * 1_000_000
    except ValueError:
        return None


Span: TypeAlias = tuple[int, int]
"""The first and the last of numbers without a gap."""


def spans_of(group: Group, errors: Collection[Unit]) -> list[Span]:
    """The numbers of the units of a group, without those in `errors`."""
    first = group.handed_over + 1
    if not errors:
        return [(first, first + len(group.units) - 1)] if group.units else []
    spans: list[Span] = []
    for number, unit in enumerate(group.units, first):
        if unit in errors:
            continue
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans


class CommittedRanges:
    """What the writer notes of each transaction: the numbers of the units in it."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._open: Span | None = None

    def write(
        self, connection: sqlite3.Connection, spans: list[Span], at_ns: int
    ) -> Span | None:
        """Note `spans` of numbers in the open transaction; see `committed`."""
        open_ = self._open
        for first, last in spans:
            if open_ is not None and first == open_[1] + 1:
                open_ = (open_[0], last)
            else:
                open_ = (first, last)
            crc = checksum(str(at_ns).encode(), self._boot, *open_)
            connection.execute(_INSERT_RANGE, (self._boot, *open_, at_ns, crc))
        return open_

    def committed(self, open_: Span | None) -> None:
        """COMMIT has returned: go on from what `write` answered."""
        self._open = open_


class AppliedTrimmer:
    """Keeps what is remembered within its bounds; used by the writer's thread.

    Age goes by the time that has passed, as with the journal. Whose rows are too many is
    looked for among those that have come in since the last look, and at leisure among all.
    """

    def __init__(
        self, horizon_of: Callable[[int, int | None], Horizon] = Horizon
    ) -> None:
        self._horizon_of = horizon_of
        self._horizon: Horizon | None = None
        self._unlooked = 0
        self._newest = 0
        self._grown: Counter[str] = Counter()
        self._path = ""

    def note(self, rows: int) -> None:
        """So many rows of whatever kind were committed."""
        self._unlooked += rows

    @property
    def is_due(self) -> bool:
        """Whether so much has come in that forgetting cannot wait for a rest."""
        return self._unlooked >= DUE_ROWS

    def trim(self, connection: sqlite3.Connection) -> int:
        """Delete the next `SLICE_ROWS` rows at most; how many. In the caller's transaction."""
        horizon = self._horizon or self._begin(connection)
        self._look(connection)
        old = SLICE_ROWS, horizon.before_ns()
        for table, query in (("applied", _OLD), ("committed_range", _OLD_RANGES)):
            rows = connection.execute(query, old).fetchall()
            if rows:
                return _forget(connection, table, rows)
        for path in self._paths(connection):
            surplus = path, KEPT_ROWS, SLICE_ROWS
            rows = connection.execute(_TOO_MANY, surplus).fetchall()
            if len(rows) == SLICE_ROWS:
                self._grown[path] += SLICE_ROWS  # There may be more.
            if rows:
                return _forget(connection, "applied", rows)
        return 0

    def _begin(self, connection: sqlite3.Connection) -> Horizon:
        self._newest = _newest(connection)
        oldest = connection.execute(_OLDEST).fetchone()
        oldest_ns = oldest[0] if oldest is not None else None
        self._horizon = self._horizon_of(KEPT_NS, oldest_ns)
        return self._horizon

    def _look(self, connection: sqlite3.Connection) -> None:
        """See whose rows have come in."""
        self._unlooked = 0
        newest = _newest(connection)
        if newest != self._newest:
            self._grown.update(dict(connection.execute(_GROWN, (self._newest,))))
            self._newest = newest
        if len(self._grown) > GROWN_PATHS:
            self._grown.clear()

    def _paths(self, connection: sqlite3.Connection) -> Iterator[str]:
        """Who has grown by enough to be looked at, then whoever comes next of all."""
        large = (path for path, rows in self._grown.items() if rows >= SLICE_ROWS)
        for path in list(islice(large, PATHS)):
            del self._grown[path]
            yield path
        row = connection.execute(_NEXT_PATH, (self._path,)).fetchone()
        self._path = row[0] if row is not None else ""
        yield self._path


def _newest(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM applied").fetchone()
    return int(seq)


def _forget(
    connection: sqlite3.Connection, table: str, rows: list[tuple[int, object]]
) -> int:
    connection.executemany(
        f"DELETE FROM {table} WHERE seq = ?",  # noqa: S608 - our own names
        [(seq,) for seq, _ in rows],
    )
    now_ns = wall_ns()
    # What a damaged row says of its time nobody knows: everything until now.
    newest = max(at if isinstance(at, int) else now_ns for _, at in rows)
    known = _trimmed_ns(connection)
    if known is None or known < newest:
        forget_earlier(connection, newest)
    elif known == math.inf:
        forget_earlier(connection, now_ns)
    return len(rows)


TELLING: Final = frozenset({"applied", "committed_range", "meta"})
"""Where a row that is gone would be taken for something that never happened."""


def forget_earlier(connection: sqlite3.Connection, at_ns: int) -> None:
    """Note that rows up to that time are gone; what is not found may have been among them."""
    text = str(at_ns)
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)",
        (TRIMMED, text, checksum(text.encode(), TRIMMED)),
    )


def _checksum(path: str, id_: str, at_ns: int, answer: bytes | None) -> int:
    return checksum(b"None" if answer is None else answer, path, id_, at_ns)
