"""The store: where units of work are handed over, and where what is committed is read.

Everything here runs in the trio thread; SQLite is in the writer's thread and in readers.

Theory of operation. The first unit handed over schedules a flush for the end of the tick,
so that all of the tick go in. A flush gives what is pending to the writer as one group; the
next flush comes when that group is decided. So there is no timer: while the writer is busy
the next group piles up by itself, and the busier it is the larger the groups. Replies wait
(in their unit's `release`), agents do not.

A failure of the world fails the group and everything piled up behind it, because later
states build on lost ones. Reports and crash records are kept and ride in the next group.
A fault of our own, here or in the writer's thread, fails everything undecided and ends the
run: what was acknowledged is in the file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

import msgspec
import trio

from treewarden.clock import wall_ns
from treewarden.errors import StoreBroken, StoreClosed, StoreError
from treewarden.exits import Fault
from treewarden.ids import new_id
from treewarden.injection import places

from . import failures
from .allocation import keep_freed_memory
from .applied import Applied, Outcome, find_applied, find_outcome
from .checking import DamagedRow, StructureCheck
from .copies import Backup, discard, free_name, partial_name, verify_copy
from .courtesy import LONGEST, Courtesy
from .database import connect_read_only, open_database
from .end_of_tick import EndOfTick
from .faults import FAULTS_KEPT, FaultRecord, load_faults
from .filter import FoundStates, StateFilter, filter_slice, index_writes
from .group import Decision, Group
from .journal import END, JournalEntry, entry_of, load_entries
from .level import Level
from .loading import StateLoader
from .reader import FileReader, Reader, WriterReader
from .snapshots import CrashRecord, StoredState, load_crashes
from .statistics import Accounts, StoreStatistics
from .thread import WriterThread
from .unit import StagedEvent, Unit
from .writer import LogHeld, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from .database import Opened
    from .retention import Retention
    from .subscriptions import Holding
    from .unit import Content
    from .writer import Finding

T = TypeVar("T")

QUEUE_UNITS: Final = 10_000
"""Units handed over and not decided, beyond which senders should wait."""
QUEUE_BYTES: Final = 64 << 20
"""The same in bytes."""
GROUP_UNITS: Final = 1024
"""Units in one transaction. 1000 callers of 100 agents get 160 k answers a second with
this bound and 105 k with 128; a group of this size takes 5 ms."""
GROUP_BYTES: Final = 256 << 10
"""Bytes in one transaction, unless its first unit alone is larger."""
REPORTS: Final = 10_000
"""Reports that wait for a commit; then the oldest is dropped and counted."""
MANY_REPORTS: Final = 4_096
"""Reports that are enough company: the sooner they are begun, the fewer of a mass start
drop (of 50,000 in a row, which take 1.5 s, 37,000 do)."""
REPORT_SECONDS: Final = 0.05
"""How long reports alone wait for company: a restart took 78 µs (median; 1,071 at the
99th percentile) when each woke the writer at once, 72 and 252 when they waited."""
FEW_REPORTS: Final = 64
"""Reports in a group up to which the loop stands aside for them: more are those of a storm,
and not to take the interpreter from the restarts that they tell of."""
STORM_SECONDS: Final = 0.25
"""The same once some were dropped: what the journal has of a storm is a sample."""
GROUP_REPORTS: Final = 512
"""Reports that ride in one transaction; put into words they take 0.4 MB."""
CRASHES: Final = 1000
"""Crash records that wait for a commit; then the oldest is dropped and counted."""
LARGE_STATE_BYTES: Final = 64 << 10
"""A state larger than this is told of; all of it is encoded and written at each change."""
LARGE_STATES: Final = 1000
"""Agents remembered as told of; beyond these one may be told of again."""
CLOSE_SECONDS: Final = 10.0
"""How long closing waits for a disk that does not answer."""


waiting_observer: ContextVar[Callable[[bool], None] | None] = ContextVar(
    "treewarden_waiting_observer", default=None
)
"""Told, like `Store.observe_waiting`, of every store opened under it, and of the opening
itself. Set by virtual clocks before the store is there."""


_open: Final[WeakSet[Store]] = WeakSet()


def _disown_all() -> None:
    for store in tuple(_open):
        store.disown()


os.register_at_fork(after_in_child=_disown_all)


def _lost(commits: int) -> str:
    return (
        f"the log was damaged: {commits} commits behind the damaged place are lost;"
        " compare with a backup"
    )


class _Waiting(msgspec.Struct, eq=False):
    """A task that waits for its unit; an event would cost twice as much."""

    task: trio.lowlevel.Task | None

    def __call__(self, _: StoreError | None) -> None:
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def give_up(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class _Settling:
    """Somebody who waits until the first `target` units are decided."""

    __slots__ = ("decided", "error", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.decided = trio.Event()
        self.error: StoreError | None = None


class Store:
    """One open database. Made by `open_store`; used in the trio thread only."""

    def __init__(
        self, opened: Opened, boot: str, retention: Retention | None = None
    ) -> None:
        self.path = opened.database.path
        self.level = opened.database.level
        self.boot = boot
        self.position = opened.tail.position
        self.recovered = opened.recovered
        """Whether the run before this one ended without closing the store."""
        self._database = opened.database
        self._sequence = opened.sequence
        self._token = trio.lowlevel.current_trio_token()

        self._pending: list[Unit] = []
        self._under_way: list[Unit] = []  # what the writer has
        self._riding = 0  # and with them, how many reports
        self._reports: deque[StagedEvent] = deque()
        # Reports lost when it was last asked whether to write those that wait.
        self._dropped = 0
        self._crash_records: deque[CrashRecord] = deque()
        self._end_of_tick = EndOfTick(self._flush, self._stand_aside)
        self._courtesy = Courtesy()
        self._busy = False  # a flush is scheduled, or the writer has a group
        self._closing = False
        self._why_closed = "the store is closed"
        self._disowned = self._has_failed = False
        _open.add(self)

        self._handed_over = 0
        self._decided = 0
        self._queued_bytes = 0
        self.has_room = True
        """Whether fewer than `QUEUE_UNITS` and `QUEUE_BYTES` are undecided."""
        self._room = trio.lowlevel.ParkingLot()
        self._quiet = trio.Event()
        self._settling: list[_Settling] = []
        self._sinks: list[Callable[[list[JournalEntry]], None]] = []
        observer = waiting_observer.get()
        self._observers: list[Callable[[bool], None]] = [observer] if observer else []
        self._commit_observer: Callable[[float, int], None] | None = None
        self.held: tuple[Holding, ...] = ()
        """The durable subscriptions for which the journal is beyond its limits."""
        self._held_observer: Callable[[], None] | None = None
        self._later: Callable[[float, Callable[[], None]], object] | None = None
        self._reports_timed = False
        self._awaited = 0

        self._large_states: set[str] = set()
        self._accounts = Accounts()
        self._loader = StateLoader(self.read, looks_for_lost=self.path is not None)
        self._copying = trio.Lock()
        # Ids of messages whose fate is open, and who waits for it.
        self._expected: dict[str, trio.Event | None] = {}
        self._healed = trio.lowlevel.ParkingLot()
        self._trouble: StoreBroken | None = None

        self._writer = Writer(opened, retention)
        self._thread = WriterThread(
            self._writer,
            self._on_decision,
            self._on_health,
            self._on_found,
            self._on_held,
            self._on_fault,
        )
        self._reader: Reader = (
            WriterReader(self._thread)
            if self.path is None
            else FileReader(opened.readers)
        )
        self._check = (
            StructureCheck(partial(connect_read_only, self.path), self._on_checked)
            if self.path is not None and opened.unchecked
            else None
        )
        if opened.lost_commits:
            self._note_structure([_lost(opened.lost_commits)])

    # --- handing over -----------------------------------------------------------------

    def hand_over(self, unit: Unit) -> None:
        """Have `unit` committed after all that were handed over before it.

        Returns at once; the outcome goes to `unit.release`. Never refuses for want of
        room: look at `has_room` before the work that leads here.

        Raises:
            StoreClosed: the store is closing.
        """
        if self._closing:
            raise StoreClosed(self._why_closed)
        if places.HAND_OVER.armed is not None:
            places.HAND_OVER.reach()
        size = unit.weigh()
        self._queued_bytes = queued = self._queued_bytes + size
        if size > LARGE_STATE_BYTES:
            unit.release.append(partial(self._note_size, unit))
        self._handed_over = unit.number = number = self._handed_over + 1
        self._pending.append(unit)
        if number - self._decided >= QUEUE_UNITS or queued >= QUEUE_BYTES:
            self.has_room = False
        if not self._busy:
            self._flush_soon()
        elif not self._under_way:
            # Behind reports, for which nobody waits.
            self._end_of_tick.stay()

    async def wait_room(self) -> None:
        """Wait until `has_room`."""
        await trio.lowlevel.checkpoint()
        while not self.has_room:
            await self._room.park()

    @property
    def is_healthy(self) -> bool:
        """Whether the disk took what it was given last."""
        return self._trouble is None

    async def wait_healthy(self) -> None:
        """Wait until the disk takes something again; it is tried about once a second."""
        await trio.lowlevel.checkpoint()
        while self._trouble is not None:
            await self._healed.park()

    async def wait(self, unit: Unit) -> None:
        """Wait until `unit`, handed over before, is decided.

        Cancelled, it stops waiting; the unit is decided all the same.

        Raises:
            StoreError: the unit failed, and nothing of it happened.
        """
        if unit.decided:
            await trio.lowlevel.checkpoint()
        else:
            waiting = _Waiting(trio.lowlevel.current_task())
            unit.release.append(waiting)
            await trio.lowlevel.wait_task_rescheduled(waiting.give_up)
        if unit.error is not None:
            raise StoreBroken(str(unit.error)) from unit.error

    async def settled(self) -> None:
        """Wait until everything handed over before now is decided.

        What leaves the store (a request, a reply to somebody outside) waits for this,
        so that it never tells of something that is then lost.

        Raises:
            StoreBroken: a unit that was undecided when this was called has failed.
        """
        if self._decided == self._handed_over:
            await trio.lowlevel.checkpoint()
            return
        settling = _Settling(self._handed_over)
        self._settling.append(settling)
        await settling.decided.wait()
        if settling.error is not None:
            raise StoreBroken(str(settling.error)) from settling.error

    def report(
        self,
        topic: str,
        payload: bytes | Content,
        source: str = "",
        trace: str = "",
        at_ns: int = 0,
        fault: bool = False,
    ) -> None:
        """Have something noted in the journal; never waits and never fails.

        `payload` is JSON or, from whoever is in a hurry, what will make it and does not
        change any more. A report rides in the next group commit, after the units handed
        over before it; what waits beyond `REPORTS` is dropped, oldest first, and counted.
        `at_ns` is when it happened, by default now. A `fault` is also kept in the history
        of its source.
        """
        at_ns = at_ns or wall_ns()
        after = self._handed_over
        if isinstance(payload, bytes):
            json, content = payload, None
        else:
            json, content = b"", payload
        reports = self._reports
        # By position, and in one call: ten thousand of them may come in a second.
        reports.append(
            StagedEvent(
                topic, json, at_ns, source, trace, "report", 0, content, fault, after
            )
        )
        waiting = len(reports)
        if waiting > REPORTS:
            reports.popleft()
            self._accounts.reports_dropped += 1
        if not self._reports_timed or waiting == MANY_REPORTS:
            self._flush_reports()

    def record_crash(self, record: CrashRecord) -> None:
        """Keep what an agent knew before a crash; rides like a report."""
        records = self._crash_records
        records.append(record)
        if len(records) > CRASHES:
            records.popleft()
            self._accounts.reports_dropped += 1
        if not self._reports_timed:
            self._flush_reports()

    def next_sequence(self) -> int:
        """A number larger than any given before, in this run or an earlier one."""
        self._sequence += 1
        return self._sequence

    # --- ids --------------------------------------------------------------------------

    def expect(self, id_: str) -> None:
        """A message of this id is on its way: `outcome` waits until `known`."""
        self._expected[id_] = None

    def known(self, id_: str) -> None:
        """What became of it is decided."""
        waiting = self._expected.pop(id_, None)
        if waiting is not None:
            waiting.set()

    def is_expected(self, id_: str) -> bool:
        """Whether a message of this id is on its way."""
        return id_ in self._expected

    async def wait_known(self, id_: str) -> None:
        """Wait until no message of this id is on its way in this run."""
        await trio.lowlevel.checkpoint()
        while id_ in self._expected:
            waiting = self._expected[id_]
            if waiting is None:
                self._expected[id_] = waiting = trio.Event()
            await waiting.wait()
        boot, _, number = id_.partition(":")
        if boot == self.boot and number.isdecimal() and int(number) > self._decided:
            # What fails is told by its not being there.
            with suppress(StoreBroken):
                await self.settled()

    async def outcome(self, id: str) -> Outcome:  # noqa: A002 - design.md names it so
        """What became of a request or call: `Request.id`, `CallTimeout.id`, `StoreBroken.id`.

        `applied`: it changed what is stored, once. `not_applied`: it did not, and never
        will. `forgotten`: it is too old to tell (7 days, or 100,000 later ones of the
        same agent), or what would tell is damaged. Waits as long as it may still happen
        in this run.

        Raises:
            StoreBroken, StoreClosed: the file cannot be asked.
        """
        await self.wait_known(id)
        return await self.read(partial(find_outcome, id_=id))

    async def applied(self, path: str, id_: str) -> Applied | None:
        """What is kept of a message of this id that the agent at `path` has handled."""
        await self.wait_known(id_)
        found = await self.read(partial(find_applied, id_=id_))
        mine = [one for one in found if one.path == path]
        if mine:
            return mine[0]
        outcome = await self.read(partial(find_outcome, id_=id_))
        if ":" in id_ and outcome is Outcome.APPLIED:
            return Applied(path=path, answer=None, sound=True)
        return None

    # --- reading ----------------------------------------------------------------------

    async def load(self, path: str, store_as: str) -> StoredState | None:
        """The last committed state of the agent at `path`, or None.

        Gives way when it reads; one in many calls does, when agents start in the order
        in which they first did.

        Raises:
            RestoreError: the row is damaged, or of another type; it was left untouched.
        """
        if self._closing:
            raise StoreClosed(self._why_closed)
        is_settled = self._decided == self._handed_over
        as_of = self._handed_over if is_settled else None
        return await self._loader.load(path, store_as, as_of)

    async def index_states(self, store_as: str, field: str) -> None:
        """Have `query` find states of one type by one field without reading the others.

        Returns once it is committed; made once, it stays. It costs each change of such a
        state a few microseconds.

        Raises:
            ValueError: `field` is not names with dots between.
            StoreError: it could not be made.
        """
        unit = Unit("/system/store")
        unit.writes = index_writes(store_as, field)
        self.hand_over(unit)
        await self.wait(unit)

    async def query(
        self,
        store_as: str,
        filters: Sequence[StateFilter] = (),
        *,
        after: str = "",
        limit: int = 100,
    ) -> FoundStates:
        """Committed states of the type `store_as` ("": of any) that fulfil all filters.

        In order of their paths, at most `limit`, behind the path `after`; the answer says
        where to go on, and how many rows it took.
        """
        answer = FoundStates()
        place: str | None = after
        while place is not None and len(answer.found) < limit:
            left = limit - len(answer.found)
            looked = await self.read(
                partial(
                    filter_slice,
                    store_as=store_as,
                    filters=filters,
                    after=place,
                    limit=left,
                )
            )
            answer.add(looked)
            place = looked.after
        return answer

    async def crashes(self, path: str) -> list[CrashRecord]:
        """The last crashes of the agent at `path`, oldest first."""
        return await self.read(partial(load_crashes, path=path))

    async def faults(
        self, path: str, *, since_ns: int = 0, limit: int = FAULTS_KEPT
    ) -> list[FaultRecord]:
        """What failed in the node at `path` within the last day, oldest first.

        The newest `limit`, of those since `since_ns`. What happened this moment may still
        be on its way to the file.
        """
        return await self.read(
            partial(load_faults, path=path, since_ns=since_ns, limit=limit)
        )

    async def entries(
        self, *, since: int | None, limit: int, pattern: str = ">", until: int = END
    ) -> list[JournalEntry]:
        """Journal entries that match `pattern`, oldest first, at most `limit`.

        Those after position `since`; None: the newest ones. With `until`, those that
        were there when the journal ended at that position.
        """
        return await self.read(
            partial(
                load_entries, since=since, limit=limit, pattern=pattern, until=until
            )
        )

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the database something short; `question` runs in another thread.

        Raises:
            StoreClosed: the store is closing.
            StoreBroken: the file cannot be read.
        """
        if self._closing:
            raise StoreClosed(self._why_closed)
        self._owe(+1)
        try:
            return await self._reader.read(question)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise failures.unreadable(error, self._database.name) from error
        finally:
            self._owe(-1)

    # --- copies -----------------------------------------------------------------------

    async def backup(self, target: Path) -> Backup:
        """Copy the database to `target` while it is used; commits go before copying.

        Returns once the copy is synced, checked and named; it holds everything that was
        acknowledged before the call, and some of what came later. Cancelled, it leaves
        no file.

        Raises:
            StoreError: there is a file of that name, or the store is closing.
            StoreBroken: the disk failed.
        """
        if self._closing:
            raise StoreClosed(self._why_closed)
        async with self._copying:
            self._owe(+1)
            partial_copy: Path | None = None
            try:
                target = await trio.to_thread.run_sync(free_name, target)
                partial_copy = partial_name(target)
                await self._thread.copy(partial_copy)
                return await trio.to_thread.run_sync(
                    partial(verify_copy, partial_copy, target, paced=True)
                )
            except (sqlite3.Error, OSError) as error:
                raise failures.uncopied(error, str(target)) from error
            finally:
                self._owe(-1)
                if partial_copy is not None:
                    with trio.move_on_after(CLOSE_SECONDS, shield=True):
                        await trio.to_thread.run_sync(discard, partial_copy)

    # --- watching ---------------------------------------------------------------------

    def follow(self, sink: Callable[[list[JournalEntry]], None]) -> Callable[[], None]:
        """Have `sink` called with what each commit added to the journal.

        It runs in the trio thread, after the units' `release`; what it raises is
        reported and stops nobody. Returns what ends it.
        """
        self._sinks.append(sink)
        return partial(self._sinks.remove, sink)

    def observe_waiting(self, callback: Callable[[bool], None]) -> None:
        """Have `callback` told when a thread begins (True) and ends to owe an answer.

        For virtual clocks, which must stand still meanwhile.
        """
        self._observers.append(callback)

    def observe_commits(self, observer: Callable[[float, int], None] | None) -> None:
        """Have `observer` told of each commit: its seconds and its number of units."""
        self._commit_observer = observer

    def observe_held(self, observer: Callable[[], None] | None) -> None:
        """Have `observer` told when `held` may have changed."""
        self._held_observer = observer

    def statistics(self) -> StoreStatistics:
        """How the store is doing."""
        damaged = self._trouble or self._accounts.damage
        return StoreStatistics(
            level=self.level,
            health="degraded" if damaged else "ok",
            queued=self._handed_over - self._decided,
            file_bytes=self._database.file_bytes(),
            wal_bytes=self._database.wal_bytes(),
            scrubbed_rows=self._writer.scrubber.rows,
            scrub_passes=self._writer.scrubber.passes,
            **asdict(self._accounts),
        )

    # --- groups -----------------------------------------------------------------------

    def delay_reports(
        self, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """Have groups of nothing but reports wait `REPORT_SECONDS`, by way of `later`.

        A report of a crash would else wake the writer at once, and it would take the
        interpreter from the restart that is under way. Units never wait.
        """
        self._later = later

    def _flush_reports(self) -> None:
        if self._busy or self._closing:
            return
        dropped = self._accounts.reports_dropped
        # Once some are lost all the same, the others take their time: they are not to take
        # the interpreter from those who are to weather the storm.
        is_storm, self._dropped = dropped > self._dropped, dropped
        many = len(self._reports) >= MANY_REPORTS and not is_storm
        if self._later is None or (many and self.is_healthy):
            self._flush_soon()
        elif not self._reports_timed:
            self._reports_timed = True
            seconds = STORM_SECONDS if is_storm else REPORT_SECONDS
            self._later(seconds, self._reports_due)

    def _reports_due(self) -> None:
        self._reports_timed = False
        riding = self._reports or self._crash_records
        if riding and not self._busy and not self._closing:
            self._flush_soon()

    def _flush_left_over(self) -> None:
        if (self._reports or self._crash_records) and not self._has_failed:
            self._flush_soon()

    def _flush_soon(self) -> None:
        # After this tick's handlers: what they hand over goes into the same group.
        self._busy = True
        self._owe(+1)
        self._end_of_tick.want()

    def rest(self) -> None:
        """Have the writer do its housekeeping soon due, while the loop stands aside for it.

        For a busy loop, now and then: the thread would else wake by itself, and wait for
        the interpreter in vain.
        """
        if not (self._busy or self._closing):
            self._thread.rest(LONGEST)

    def _stand_aside(self, timeout: float) -> bool:
        """Whether the writer is to have its turn; if the loop is busy, let it go on."""
        is_awaited = self._under_way or self._pending
        if not is_awaited and (not self._busy or self._riding > FEW_REPORTS):
            return False
        if timeout <= 0:
            writer = self._writer
            outside = writer.sync_seconds if writer.is_outside else None
            seconds = self._courtesy.due(time.perf_counter(), outside)
            if seconds:
                self._thread.stand_aside(seconds)
        return True

    def _flush(self) -> None:
        self._courtesy.begin(time.perf_counter())
        try:
            self._thread.submit(self._next_group())
        except BaseException as fault:
            self._fail(fault)
            raise

    def _next_group(self) -> Group:
        places.FLUSH.reach()
        count = self._group_size()
        reports = self._riding_reports(self._decided + count)
        units, self._pending = self._pending[:count], self._pending[count:]
        crashes = list(self._crash_records)
        self._crash_records.clear()
        self._under_way, self._riding = units, len(reports)
        return Group(
            units=units, reports=reports, crashes=crashes, handed_over=self._decided
        )

    def _group_size(self) -> int:
        count = min(len(self._pending), GROUP_UNITS)
        if self._queued_bytes <= GROUP_BYTES:
            return count
        size = 0
        newest: dict[str, int] = {}
        for number, unit in enumerate(islice(self._pending, count)):
            size += unit.bytes
            if unit.state is not None:
                # Of an agent's states in one group only the newest is written.
                size -= newest.get(unit.path, 0)
                newest[unit.path] = len(unit.state.payload)
            if size > GROUP_BYTES and number > 0:
                return number
        return count

    def _riding_reports(self, handed_over: int) -> list[StagedEvent]:
        """Reports made before unit number `handed_over` was; later ones wait."""
        reports = self._reports
        riding: list[StagedEvent] = []
        while (
            reports and reports[0].after <= handed_over and len(riding) < GROUP_REPORTS
        ):
            riding.append(reports.popleft())
        return riding

    def _on_decision(self, decision: Decision) -> None:
        if self._has_failed:
            return
        try:
            self._carry_out(decision)
        except BaseException as fault:
            self._fail(fault)
            raise

    def _carry_out(self, decision: Decision) -> None:
        places.DECIDED.reach()
        self._owe(-1)
        self._count(decision)
        units = decision.group.units
        if decision.broken is None:
            for unit, error in decision.errors.items():
                unit.error = error
        else:
            self._put_back(decision.group)
            units, self._pending = units + self._pending, []
            for unit in units:
                # One exception each: a shared one would gather everybody's traceback.
                unit.error = StoreBroken(str(decision.broken))
        self._decide(units)
        self._under_way = []
        # The writer gets its next group before anybody is told, so that it is not idle.
        try:
            self._go_on(broken=decision.broken is not None)
        finally:
            self._release(units)
        self._tell_sinks(decision.journal)
        self._settle()

    def _decide(self, units: Sequence[Unit]) -> None:
        size = 0
        for number, unit in enumerate(units, self._decided + 1):
            unit.decided = True
            unit.needs = ()
            size += unit.bytes
            if unit.error is not None:
                self._accounts.failed_units += 1
                self._spoil(number, unit.error)
        self._decided += len(units)
        self._queued_bytes -= size
        self.has_room = (
            self._handed_over - self._decided < QUEUE_UNITS
            and self._queued_bytes < QUEUE_BYTES
        )

    def _go_on(self, *, broken: bool) -> None:
        # What waits after a failure of the world waits for the next unit, or for the
        # disk: trying again at once would only spin.
        riding = bool(self._reports or self._crash_records) and not broken
        # Reports alone take their time: written without a pause, those of a storm would
        # take the interpreter from the restarts that they tell of.
        at_once = riding and (self._closing or self._later is None)
        self._busy = bool(self._pending) or at_once
        if self._busy:
            self._owe(+1)
            self._flush()
        else:
            self._quiet.set()
            if riding:
                self._flush_reports()
        if self.has_room:
            self._room.unpark_all()

    def _release(self, units: Sequence[Unit]) -> None:
        for unit in units:
            for tell in unit.release:
                try:
                    if places.RELEASE.armed is not None:
                        places.RELEASE.reach()
                    tell(unit.error)
                except Exception as error:  # noqa: BLE001 - one listener's failure must not silence the others
                    self._note_failure(unit.path, error)
            unit.release.clear()

    def _tell_sinks(self, journal: list[StagedEvent]) -> None:
        if not journal:
            return
        self.position = journal[-1].position
        if not self._sinks:
            return
        entries = [entry_of(event) for event in journal]
        for sink in tuple(self._sinks):
            try:
                places.TELL.reach()
                sink(entries)
            except Exception as error:  # noqa: BLE001 - as above
                self._note_failure("", error)

    def _settle(self) -> None:
        if not self._settling:
            return
        waiting, self._settling = self._settling, []
        for settling in waiting:
            if settling.target <= self._decided:
                settling.decided.set()
            else:
                self._settling.append(settling)

    def _spoil(self, number: int, error: StoreError) -> None:
        for settling in self._settling:
            if number <= settling.target:
                settling.error = settling.error or error

    def _put_back(self, group: Group) -> None:
        self._reports.extendleft(reversed(group.reports))
        self._bound(self._reports, REPORTS)
        self._crash_records.extendleft(reversed(group.crashes))
        self._bound(self._crash_records, CRASHES)

    def _bound(self, waiting: deque[T], limit: int) -> None:
        while len(waiting) > limit:
            waiting.popleft()
            self._accounts.reports_dropped += 1

    # --- faults of our own ------------------------------------------------------------

    def _on_fault(self, fault: BaseException) -> None:
        """The writer's thread has ended by a fault; the run ends by it too."""
        self._fail(fault)
        raise fault

    def _fail(self, fault: BaseException) -> None:
        """Have nobody wait for what will not come any more.

        What the writer has under way may still be in the file: it is not acknowledged.
        """
        if self._has_failed:
            return
        self._has_failed = self._closing = True
        self._why_closed = f"the store failed: {type(fault).__name__}: {fault}"
        self._busy = False
        self._quiet.set()
        units = self._under_way + self._pending
        self._under_way, self._pending = [], []
        for unit in units:
            unit.error = StoreBroken(self._why_closed)
        self._decide(units)
        self._release(units)
        self._settle()

    # --- accounts ---------------------------------------------------------------------

    def _count(self, decision: Decision) -> None:
        self._accounts.count(decision)
        self._note_health(decision.broken)
        if self._commit_observer is not None and decision.broken is None:
            self._commit_observer(decision.seconds, len(decision.group.units))

    def _note_health(self, trouble: StoreBroken | None) -> None:
        self._trouble = trouble
        if trouble is None:
            self._healed.unpark_all()

    def _on_health(self, trouble: StoreBroken | None) -> None:
        self._note_health(trouble)
        if trouble is not None:
            self._accounts.last_error = str(trouble)
        elif not self._busy:
            self._flush_left_over()

    def _on_found(self, findings: list[Finding]) -> None:
        for finding in findings:
            if isinstance(finding, LogHeld):
                topic = "system.store.log_held"
            else:
                self._accounts.note_damage(finding)
                is_row = isinstance(finding, DamagedRow)
                self._accounts.damaged_rows += is_row
                part = "row_damaged" if is_row else "index_mended"
                topic = f"system.store.{part}"
            payload = msgspec.json.encode(asdict(finding))
            self.report(topic, payload, source="/system/store")

    def _on_held(self, held: tuple[Holding, ...]) -> None:
        self.held = held
        if self._held_observer is not None:
            self._held_observer()

    def _on_checked(self, problems: list[str]) -> None:
        """The file's structure was looked at; runs in the thread that did it."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._note_structure, problems)

    def _note_structure(self, problems: list[str]) -> None:
        if problems and not self._closing:
            self._accounts.note_damage(problems[0])
            payload = msgspec.json.encode({"problems": problems})
            self.report("system.store.damaged", payload, source="/system/store")

    def _note_size(self, unit: Unit, error: StoreError | None) -> None:
        """Tell, once a run, of an agent whose state is rewritten at too great a cost."""
        size = len(unit.state.payload) if unit.state is not None else 0
        known = unit.path in self._large_states
        if error is not None or known or size <= LARGE_STATE_BYTES:
            return
        if len(self._large_states) == LARGE_STATES:
            self._large_states.clear()
        self._large_states.add(unit.path)
        remedy = (
            "all of it is written at each change; keep what grows in a DurableMap or a"
            " DurableQueue, a row an item"
        )
        payload = msgspec.json.encode({"bytes": size, "remedy": remedy})
        self.report("store.large_state", payload, source=unit.path)

    def _note_failure(self, path: str, error: Exception) -> None:
        fault = Fault.capture(error, path=path)
        self._accounts.last_error = fault.summary()
        self.report(
            "system.store.release_failed",
            msgspec.json.encode({"path": path, "error": fault.format()}),
            source="/system/store",
        )

    def _owe(self, change: int) -> None:
        before = self._awaited
        self._awaited = before + change
        if not before or not self._awaited:
            for observer in self._observers:
                observer(self._awaited > 0)

    # --- closing ----------------------------------------------------------------------

    def disown(self) -> None:
        """In a process forked from the one that owns the store: touch nothing.

        The writer's thread is not there, and SQLite's connections must not be used on
        both sides of a fork. The lock stays the other process's alone.
        """
        self._closing = self._disowned = True
        self._why_closed = (
            "the store belongs to the process that this one was forked from"
        )
        self._database.close()

    async def aclose(self) -> None:
        """Commit what was handed over, end the run in the file and let go of it.

        Not cut short by cancellation, but by `CLOSE_SECONDS`. In a forked process it
        does nothing.

        Raises:
            StoreBroken: the disk did not answer; the lock is kept until the process ends.
        """
        if self._disowned:
            await trio.lowlevel.checkpoint()
            return
        places.CLOSE.reach()
        with trio.move_on_after(CLOSE_SECONDS, shield=True) as waiting:
            await self._drain()
            self._owe(+1)
            if self._check is not None:
                await trio.to_thread.run_sync(self._check.stop)
            # Readers first: whoever closes last tidies up the log's files.
            await self._reader.aclose()
            await self._thread.close()
            self._owe(-1)
        self._end_of_tick.leave()
        if waiting.cancelled_caught:
            broken = StoreBroken(
                f"{self._database.name} could not be closed within {CLOSE_SECONDS:g} s:"
                " the disk does not answer"
            )
            # Whenever it does, the thread ends, and does not keep the process from it.
            self._thread.dismiss()
            self._fail(broken)
            raise broken
        self._database.close()
        _open.discard(self)

    async def _drain(self) -> None:
        self._closing = True
        if self._trouble is not None:
            # Kept for this: what is still to be said fits on a full disk.
            self._database.free_reserve()
        if not self._busy:
            self._flush_left_over()
        while self._busy:
            self._quiet = trio.Event()
            await self._quiet.wait()


@asynccontextmanager
async def open_store(
    path: Path | None,
    *,
    level: Level = Level.DURABLE,
    application: str = "",
    retention: Retention | None = None,
) -> AsyncIterator[Store]:
    """Open the database at `path`, making it if it is not there; close it at the end.

    `application` is kept in the file, and a file of another application is refused. Level
    `volatile` opens no file. `retention` is what the journal keeps; without it a week, in
    at most a gigabyte. On leaving, everything handed over is committed first.

    Raises:
        StoreLocked: another runtime owns the file.
        DowngradeRefused: a newer version wrote it; it was not touched.
        StoreError: it is no treewarden database, or another application's.
        StoreBroken: it cannot be opened, or is damaged.
        MigrationFailed: its schema could not be brought up to date.
    """
    keep_freed_memory()
    boot = new_id()
    observer = waiting_observer.get()
    if observer is not None:
        observer(True)
    try:
        opened = await trio.to_thread.run_sync(
            partial(
                open_database,
                path,
                level=Level(level),
                application=application,
                boot=boot,
            ),
            limiter=trio.CapacityLimiter(1),
        )
    finally:
        if observer is not None:
            observer(False)
    store = Store(opened, boot, retention)
    try:
        yield store
    finally:
        await store.aclose()
