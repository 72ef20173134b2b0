"""The single writer: groups of units into transactions, and what a crash leaves of them.

Theory of operation. A group is what piled up while the one before it was written. It
becomes one transaction: the newest state of each agent, the collections' writes in their
order, the journal's entries with the next positions, crash records; then one COMMIT, which
syncs (level durable). Only after COMMIT has returned is anything acknowledged.

What a crash leaves behind:

- Before COMMIT has returned, nothing was acknowledged, and SQLite's log holds all of the
  group or none of it (`test_store_kill.py`: killed at random, whole units and nothing
  acknowledged lost).
- After it, everything is on disk: the log was synced, and a checkpoint copies from the
  log only what is in it and synced. Checkpoints run here, between commits, never beside
  one.
- A group cannot be reordered against another: there is one connection and one thread, and
  a group is taken only when the one before it is decided
  (`test_units_commit_in_the_order_of_their_hand_over`).
- A COMMIT that fails is not an answer: its frames may be in the log, complete. They are
  not seen, because the readers keep the log's index alive while the connection is
  replaced, and the next commit writes over them; only if the process dies before that
  may the next run find them. Hence "did not happen, unless asked by id"
  (`test_a_full_disk_fails_the_group_and_everything_behind_it`).

Whose fault. A row that cannot be stored is its unit's: the group is rolled back and tried
again unit by unit, each in a savepoint, and what builds on a failed unit fails with it
(`test_a_bad_row_fails_its_unit_and_those_that_build_on_it`). An I/O error is the world's:
the whole group fails, nothing is tried again, and a fresh connection is made for the next.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from treewarden.clock import wall_ns
from treewarden.errors import StoreError
from treewarden.injection import places

from . import failures
from .applied import AppliedTrimmer, CommittedRanges, spans_of
from .checking import DamagedRow
from .database import BUSY_MS, end_run, set_meta
from .dead_letters import LetterTrimmer
from .faults import INSERT_FAULTS, fault_row
from .filter import StateIndex
from .group import Decision
from .holders import holders
from .journal import INSERT_ENTRIES, entry_rows
from .pruning import Pruning
from .retention import Retention
from .scrubber import Scrubber
from .snapshots import (
    CRASHES_KEPT,
    INSERT_CRASHES,
    TRIM_CRASHES,
    UPSERT_STATES,
    CrashRecord,
    crash_row,
    state_rows,
)
from .unit import StagedEvent, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from treewarden.errors import StoreBroken

    from .applied import Span
    from .database import Opened
    from .group import Group, Step
    from .journal import Tail
    from .unit import StateWrite, Write

IDLE_PAGES: Final = 250
"""Pages in the log (1 MB) at which it is copied into the file when nobody waits."""
BUSY_PAGES: Final = 1000
"""Pages in the log (4 MB) at which it is copied in any case: a stop of some 5 ms.

A log that is copied is written from its beginning again. A commit that makes its file
longer took 380 µs (median), one that writes over what was there 220; so the log turns back
early: at 4000 pages a durable call alone had 0.68 of the rate of a bare one, at 1000 0.92.
"""
TRUNCATE_BYTES: Final = 16 << 20
"""A log file larger than this is cut, once everything in it is in the main file."""
REST_BYTES: Final = 8 << 20
"""The same when nobody waits."""
HELD_SECONDS: Final = 1.0
"""How long a read may keep a log that is too large; then somebody is told who reads."""
PLACE_SECONDS: Final = 0.1
"""How long a file that was taken away from under the writer may be taken for still there.
A look costs some 20 µs, a tenth of a commit."""
TRIM_SLICES: Final = 4
"""Slices of ids and letters forgotten at a time, a transaction each."""
VACUUM_PAGES: Final = 256
"""Free pages given back in one idle slice: about a millisecond."""

_STATEMENT: Final = itemgetter(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHeld:
    """A read that does not end keeps the log from being reused; it grows.

    `holders` are the other processes that have the file open, as far as can be told.
    """

    wal_bytes: int
    holders: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMended:
    """An index did not agree with its rows; all of them were made anew from the rows.

    What it had said wrong until then was read so.
    """

    error: str

    def __str__(self) -> str:
        """For people."""
        return f"an index was damaged ({self.error}) and was made anew from its rows"


Finding: TypeAlias = DamagedRow | IndexMended | LogHeld


class Writer:
    """Owns the read-write connection; every method is called by the writer thread.

    Nothing here raises for what units, reports or the disk do: `commit` answers with a
    decision, `rest` with the state of health.
    """

    def __init__(self, opened: Opened, retention: Retention | None = None) -> None:
        self.database = opened.database
        self.connection: sqlite3.Connection | None = opened.connection
        self.tail: Tail = opened.tail
        self.trouble: StoreBroken | None = None
        self.pruning = Pruning(retention or Retention())
        self._ranges = CommittedRanges(opened.boot)
        self._range: Span | None = None
        self._noted = 0
        self._applied = AppliedTrimmer()
        self._letters = LetterTrimmer()
        self._place_due = 0.0
        self._index = StateIndex()
        self.scrubber = Scrubber()
        self.found: list[Finding] = []
        self._pages = _Pages()
        self._held_since: float | None = None
        self._held_told = False
        # Any thread may look: whether it waits for the disk, or for a lock on the file, and
        # for nothing else; and how long a sync takes at least, as of late.
        self.is_outside = False
        self.sync_seconds = 0.0

    # --- committing -------------------------------------------------------------------

    def commit(self, group: Group) -> Decision:
        """Write a group; returns once it is on disk, or once it is known to have failed."""
        started = time.perf_counter()
        decision = Decision(group)
        try:
            self._run(partial(self._commit, decision=decision))
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - whatever failed, somebody waits for an answer
            decision.errors.clear()
            decision.broken = self._break(error)
        decision.seconds = time.perf_counter() - started
        return decision

    def _commit(self, connection: sqlite3.Connection, decision: Decision) -> None:
        before, self._noted = connection.total_changes, 0
        try:
            self._commit_merged(connection, decision)
        except Exception as error:
            if not failures.is_of_the_row(error):
                raise
            _roll_back(connection)
            self._commit_one_by_one(connection, decision)
        # What tells of units by their numbers is nobody's row.
        decision.rows = max(0, connection.total_changes - before - self._noted)
        self._pages.add(decision.rows)
        self._applied.note(decision.rows)

    def _commit_merged(
        self, connection: sqlite3.Connection, decision: Decision
    ) -> None:
        group, errors = decision.group, decision.errors
        _doom(group.units, errors)
        units = group.units
        if errors:
            units = [unit for unit in units if unit not in errors]
        units = _whole(units)
        states = {unit.path: unit.state for unit in units if unit.state is not None}
        writes = [write for unit in units if unit.writes for write in unit.writes]
        events = _events(group, units)
        if not (states or writes or events or group.crashes):
            return
        self._begin(connection)
        self._write_states(connection, states.items())
        self._write_collections(connection, writes)
        tail = _append(connection, events, self.tail)
        _insert_crashes(connection, _newest(group.crashes))
        self._note_range(connection, decision)
        self._end(connection)
        self._committed(decision, events, tail)

    def _commit_one_by_one(
        self, connection: sqlite3.Connection, decision: Decision
    ) -> None:
        errors = decision.errors
        errors.clear()
        journal: list[StagedEvent] = []
        tail = self.tail
        self._begin(connection)
        for step in decision.group.steps():
            if isinstance(step, Unit) and _is_doomed(step, errors):
                continue
            connection.execute("SAVEPOINT step")
            try:
                places.STEP.reach()
                events = self._write(connection, step)
                tail = _append(connection, events, tail)
                journal += events
            except Exception as error:
                if not failures.is_of_the_row(error):
                    raise
                connection.execute("ROLLBACK TO step")
                _blame(step, error, decision)
            connection.execute("RELEASE step")
        self._note_range(connection, decision)
        self._end(connection)
        self._committed(decision, journal, tail)

    def _begin(self, connection: sqlite3.Connection) -> None:
        self.is_outside = True
        try:
            _begin(connection)
        finally:
            self.is_outside = False

    def _end(self, connection: sqlite3.Connection) -> None:
        self.is_outside, started = True, time.perf_counter()
        try:
            _end(connection)
        finally:
            self.is_outside = False
            took = time.perf_counter() - started
            # To come back may take longer than to sync, but seldom does every time.
            self.sync_seconds = min(took, self.sync_seconds * 1.25 + 1e-5)

    def _write(self, connection: sqlite3.Connection, step: Step) -> list[StagedEvent]:
        """Write all of one step but its events, which are returned for the journal."""
        if isinstance(step, StagedEvent):
            return [step]
        if isinstance(step, CrashRecord):
            _insert_crashes(connection, [step])
            return []
        if step.state is not None:
            self._write_states(connection, [(step.path, step.state)])
        self._write_collections(connection, step.writes or ())
        for part in step.parts:
            self._write(connection, part)
        return step.events or []

    def _write_states(
        self,
        connection: sqlite3.Connection,
        states: Collection[tuple[str, StateWrite]],
    ) -> None:
        if states:
            places.WRITE_STATE.reach()
            UPSERT_STATES.run(connection, state_rows(states, wall_ns()))
            self._index.note(connection, states)

    def _write_collections(
        self, connection: sqlite3.Connection, writes: Iterable[Write]
    ) -> None:
        """In order; what has the same statement goes to SQLite at once."""
        for statement, run in groupby(writes, _STATEMENT):
            places.WRITE_COLLECTION.reach()
            connection.executemany(statement, [values for _, values in run])
            self._index.written(statement)

    def _note_range(self, connection: sqlite3.Connection, decision: Decision) -> None:
        spans = spans_of(decision.group, decision.errors)
        self._range = self._ranges.write(connection, spans, wall_ns())
        self._noted = len(spans)

    def _committed(
        self, decision: Decision, journal: list[StagedEvent], tail: Tail
    ) -> None:
        for position, event in enumerate(journal, self.tail.position + 1):
            event.position = position
            if event.fault:
                self.pruning.faults.note(event.source)
        decision.journal = journal
        self.tail = tail
        self._ranges.committed(self._range)

    # --- health -----------------------------------------------------------------------

    def connected(self) -> sqlite3.Connection:
        """The read-write connection, made anew when a failure has cost the last one.

        Raises:
            StoreBroken, StoreLocked: the file is not where it was, or not ours any more.
        """
        now = time.monotonic()
        if self.connection is None or now >= self._place_due:
            self._check_place()
            self._place_due = now + PLACE_SECONDS
        if self.connection is None:
            places.RECONNECT.reach()
            self.connection = self.database.connect()
        return self.connection

    def _check_place(self) -> None:
        try:
            self.database.check_place()
        except StoreError:
            if self.connection is not None:
                # What is acknowledged goes into the main file, wherever that is now.
                with suppress(sqlite3.Error):
                    self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            raise

    def _break(self, error: Exception) -> StoreBroken:
        """Note a failure of the world and drop the connection.

        What it believes of the file may be wrong. In memory it *is* the database and stays.
        """
        self.trouble = broken = failures.broken(error, self.database.name)
        if self.database.path is not None:
            self.drop()
        elif self.connection is not None:
            _roll_back(self.connection)
        return broken

    def drop(self) -> None:
        """Let go of the connection, and of what is not committed."""
        if self.connection is not None:
            _roll_back(self.connection)
            self.connection.close()
            self.connection = None

    # --- when there is nothing to write -----------------------------------------------

    def after_commit(self) -> None:
        """What cannot wait for a rest: the log, or the journal, has grown too long."""
        if self.pruning.is_far_over(self.tail):
            self._attempt(self._prune)
        elif self.pruning.held and self.trouble is None:
            self._attempt(self._prune_if_moved)
        if self._applied.is_due and self.trouble is None:
            self._attempt(self._trim_applied)
        if self._pages.estimate >= BUSY_PAGES:
            self._attempt(self._checkpoint)

    def rest(self) -> None:
        """Housekeeping while nobody waits; also tries whether a broken disk is back."""
        if self.trouble is not None:
            self._attempt(self._probe)
        if self.trouble is None:
            self._attempt(self._tidy)
        if self.trouble is None:
            self._attempt(self._scrub)
        if self.trouble is None:
            self.database.keep_reserve()

    def _attempt(self, step: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._run(step)
        except Exception as error:  # noqa: BLE001 - housekeeping has no caller to raise to
            self._break(error)

    def _run(self, step: Callable[[sqlite3.Connection], object]) -> None:
        """Do something with the connection; once more when an index is in its way.

        A bit that flips in an indexed column, or in an index, has SQLite refuse to change
        the row ever after: a message that can be neither handled nor given up, an agent
        that fails everybody's group whenever it crashes.
        """
        connection = self.connected()
        try:
            step(connection)
        except sqlite3.DatabaseError as error:
            if not failures.is_of_an_index(error):
                raise
            _roll_back(connection)
            # From the rows, which tell of their own damage.
            connection.execute("REINDEX")
            self.found.append(IndexMended(error=str(error)))
            step(connection)

    def _probe(self, connection: sqlite3.Connection) -> None:
        places.PROBE.reach()
        # A commit, not a look: it also writes over what a failed one left in the log.
        set_meta(connection, "probed_at_ns", str(wall_ns()))
        self.trouble = None

    def _tidy(self, connection: sqlite3.Connection) -> None:
        self._prune(connection)
        self._vacuum(connection)
        self.pruning.trim_faults(connection)
        self._trim_applied(connection)
        if (
            self._pages.estimate >= IDLE_PAGES
            or self._held_since is not None
            or self.database.wal_bytes() > REST_BYTES
        ):
            self._checkpoint(connection, REST_BYTES)

    def _prune_if_moved(self, connection: sqlite3.Connection) -> None:
        # Publishers may wait for it.
        if self.pruning.has_moved(connection):
            self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> int:
        places.PRUNE.reach()
        deleted = self.pruning.advance(connection, self.tail)
        if deleted:
            self._pages.add(deleted)
        return deleted

    def _vacuum(self, connection: sqlite3.Connection) -> None:
        # Whoever freed the pages, and when: most are freed while somebody waits.
        if connection.execute("PRAGMA freelist_count").fetchone()[0]:
            places.VACUUM.reach()
            # A page is a row of no columns, and a cursor ends at the first of those.
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def _trim_applied(self, connection: sqlite3.Connection) -> None:
        for _ in range(TRIM_SLICES):
            connection.execute("BEGIN IMMEDIATE")
            deleted = self._applied.trim(connection) + self._letters.trim(connection)
            connection.execute("COMMIT" if deleted else "ROLLBACK")
            if not deleted:
                break
            self._pages.add(deleted)

    def _checkpoint(
        self, connection: sqlite3.Connection, keep_bytes: int = TRUNCATE_BYTES
    ) -> None:
        if self.database.path is None:
            return
        places.CHECKPOINT.reach()
        _, pages, copied = connection.execute(
            "PRAGMA wal_checkpoint(PASSIVE)"
        ).fetchone()
        if pages == copied:
            self._held_since = None
            if self.database.wal_bytes() > keep_bytes:
                _truncate(connection)
        else:
            self._note_held(self.database.path)
        # What a reader kept from being copied counts again from here.
        self._pages.learn(pages)

    def _note_held(self, file: Path) -> None:
        """Somebody's read keeps the log from being copied: name them, once, if it lasts.

        Our own reads are short, so it is another process, or a backup of one.
        """
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
            self._held_told = False
        wal_bytes = self.database.wal_bytes()
        if self._held_told or wal_bytes <= TRUNCATE_BYTES:
            return
        if now - self._held_since >= HELD_SECONDS:
            self._held_told = True
            self.found.append(LogHeld(wal_bytes=wal_bytes, holders=holders(file)))

    def _scrub(self, connection: sqlite3.Connection) -> None:
        places.SCRUB.reach()
        self.found += self.scrubber.advance(connection)

    def take_found(self) -> list[Finding]:
        """What was found since the last call: for the store to tell of."""
        found, self.found = self.found, []
        return found

    def close(self) -> None:
        """End the run: everything into the main file, and the note that it is so."""
        self.database.free_reserve()
        if self.connection is None and self.trouble is None:
            return
        self._attempt(end_run)
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class _Pages:
    """How many pages the log holds, estimated from rows written.

    SQLite tells only at a checkpoint, so each one corrects the number of pages a row
    takes. A wrong guess costs a checkpoint too early or too late, nothing else.
    """

    def __init__(self) -> None:
        self.estimate = 0.0
        self._pages_a_row = 1.0
        self._rows = 0

    def add(self, rows: int) -> None:
        """A commit wrote `rows`; it touched at least two pages."""
        self._rows += rows
        self.estimate += max(2.0, rows * self._pages_a_row)

    def learn(self, pages: int) -> None:
        """A checkpoint found this many pages."""
        if self._rows:
            self._pages_a_row = min(max(pages / self._rows, 0.05), 4.0)
        self.estimate = 0.0
        self._rows = 0


def _begin(connection: sqlite3.Connection) -> None:
    places.BEFORE_BEGIN.reach()
    connection.execute("BEGIN IMMEDIATE")
    places.AFTER_BEGIN.reach()


def _end(connection: sqlite3.Connection) -> None:
    places.BEFORE_COMMIT.reach()
    connection.execute("COMMIT")
    places.AFTER_COMMIT.reach()


def _doom(units: list[Unit], errors: dict[Unit, StoreBroken]) -> None:
    for unit in units:
        for need in unit.needs:
            # Nearly always neither, and then nothing else is asked.
            if need.error is not None or errors:
                _is_doomed(unit, errors)


def _is_doomed(unit: Unit, errors: dict[Unit, StoreBroken]) -> bool:
    """Fail a unit that builds on one that failed, in an earlier group or in this one."""
    for need in unit.needs:
        cause = need.error or errors.get(need)
        if cause is not None:
            errors[unit] = failures.orphaned(unit.path, cause)
            return True
    return False


def _whole(units: list[Unit]) -> list[Unit]:
    """Units in order, each with its parts."""
    if not any(unit.parts for unit in units):
        return units
    found: list[Unit] = []
    for unit in units:
        found.append(unit)
        if unit.parts:
            found += unit.parts
    return found


def _blame(step: Step, error: Exception, decision: Decision) -> None:
    if isinstance(step, Unit):
        decision.errors[step] = failures.refused(error, step.path)
    else:
        decision.refused += 1


def _events(group: Group, units: list[Unit]) -> list[StagedEvent]:
    """What the journal gets of `units` and of the group's reports, in order."""
    if not group.reports:
        return [event for unit in units if unit.events for event in unit.events]
    alive = set(units)
    events: list[StagedEvent] = []
    for step in group.steps():
        if isinstance(step, StagedEvent):
            events.append(step)
        elif isinstance(step, Unit) and step.events and step in alive:
            events += step.events
    return events


def _append(
    connection: sqlite3.Connection, events: list[StagedEvent], tail: Tail
) -> Tail:
    """Add `events` to the journal after `tail`; returns the new tail."""
    if not events:
        return tail
    places.WRITE_JOURNAL.reach()
    rows, end = entry_rows(events, tail)
    INSERT_ENTRIES.run(connection, rows)
    faults = [
        fault_row(event, position)
        for position, event in enumerate(events, tail.position + 1)
        if event.fault
    ]
    if faults:
        places.WRITE_FAULT.reach()
        INSERT_FAULTS.run(connection, faults)
    return end


def _truncate(connection: sqlite3.Connection) -> None:
    """Cut the log file, unless a reader is in it: that is not worth waiting for."""
    places.TRUNCATE.reach()
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


def _insert_crashes(connection: sqlite3.Connection, records: list[CrashRecord]) -> None:
    if records:
        places.WRITE_CRASH.reach()
        INSERT_CRASHES.run(connection, [crash_row(record) for record in records])
        paths = {record.path for record in records}
        connection.executemany(TRIM_CRASHES, [(path, CRASHES_KEPT) for path in paths])


def _newest(crashes: list[CrashRecord]) -> list[CrashRecord]:
    """Those that are not trimmed at once for later ones of the same agent."""
    if len(crashes) <= CRASHES_KEPT:
        return crashes
    left: dict[str, int] = {}
    newest = []
    for record in reversed(crashes):
        left[record.path] = left.get(record.path, CRASHES_KEPT) - 1
        if left[record.path] >= 0:
            newest.append(record)
    return newest[::-1]


def _roll_back(connection: sqlite3.Connection) -> None:
    """Undo what is open; after some errors SQLite has done so by itself."""
    places.ROLL_BACK.reach()
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        # The connection is unusable; the caller drops it.
        return
