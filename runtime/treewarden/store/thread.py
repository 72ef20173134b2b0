"""The writer's thread: one job at a time, answers posted back to the trio thread.

A plain thread on a queue in C. `trio.to_thread` for each commit would cost a hop through
a pool and, with many agents, nineteen twentieths of the throughput.

It is no daemon, and a process waits for such threads at its end. So it ends when it is
told to, when it fails, and when the thread that could tell it is no more: a loop that
crashed in trio's own hands unwinds nobody.
"""

from __future__ import annotations

import queue
import threading
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from treewarden.errors import StoreBroken, StoreClosed, StoreError
from treewarden.injection import places

from .copies import begin_copy
from .group import Decision, Group

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from .subscriptions import Holding
    from .writer import Finding, Writer

    Question: TypeAlias = Callable[[sqlite3.Connection], None]

COPY_PAGES: Final = 256
"""Pages copied between two looks at what waits: 1 MiB, about a millisecond."""
LET_GO_SECONDS: Final = 10.0
"""How long somebody who was cancelled waits for a copy's next slice."""
BUSY_SECONDS: Final = 10.0
"""How long there may be no housekeeping because somebody always wants something."""
REST_SECONDS: Final = 1.0
"""How long nobody must have wanted anything before there is housekeeping. A wake-up costs
some 30 µs of processor time."""
EARLY_REST_SECONDS: Final = 0.75
"""The same for a busy loop, which has it done before the thread would wake by itself."""
TROUBLED_SECONDS: Final = 0.25
"""The same while the disk is bad: how soon a mended one is noticed."""


class Rest(Enum):
    """A job: housekeeping now."""

    NOW = auto()


class CopyJob:
    """A copy of the database that is made; `over` is set when it is, or has failed."""

    def __init__(self, partial: Path) -> None:
        self.partial = partial
        self.over = trio.Event()
        self.error: BaseException | None = None
        self.abandoned = False
        """Set by whoever does not want it any more; the copying ends soon."""


class WriterThread:
    """Runs a `Writer` until `close`; never a daemon, so that nothing is cut off half-way.

    At most one group is under way: the store submits the next when it has the decision.
    `decided`, `felt`, `found` and `held` are called in the trio thread: with each decision,
    with what ails the writer (None: nothing) when that changed between decisions, with
    what housekeeping has found, and with who holds the journal, after each look at it.
    `failed` gets a fault of our own, which has ended the thread.
    """

    def __init__(
        self,
        writer: Writer,
        decided: Callable[[Decision], None],
        felt: Callable[[StoreBroken | None], None],
        found: Callable[[list[Finding]], None],
        held: Callable[[tuple[Holding, ...]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._writer = writer
        self._decided = decided
        self._felt = felt
        self._found = found
        self._held = held
        self._failed = failed
        self._told_held: tuple[Holding, ...] = ()
        # When it last had nothing to do, and when it was last given something.
        self._rested = self._given = time.monotonic()
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[Group | Question | CopyJob | Rest | None] = (
            queue.SimpleQueue()
        )
        # Held while a group is the writer's; and while it does the housekeeping it was asked
        # for.
        self._written, self._rested_now = threading.Lock(), threading.Lock()
        self._ended = trio.Event()
        self._told: StoreBroken | None = None
        self._loop_thread = threading.current_thread()
        self._thread = threading.Thread(target=self._run, name="treewarden writer")
        places.THREAD_START.reach()
        self._thread.start()

    def submit(self, group: Group) -> None:
        """Have a group written; `decided` gets the answer."""
        self._written.acquire(blocking=False)
        self._put(group)

    def stand_aside(self, seconds: float) -> None:
        """Leave the interpreter to it until the group is written, at most so long."""
        if self._written.acquire(timeout=seconds):
            self._written.release()

    def rest(self, seconds: float) -> None:
        """Have it do its housekeeping, if that is soon due, and wait for it at most so long."""
        free = max(self._rested, self._given)
        if time.monotonic() - free < EARLY_REST_SECONDS:
            return
        if self._rested_now.acquire(blocking=False):
            self._put(Rest.NOW)
            if self._rested_now.acquire(timeout=seconds):
                self._rested_now.release()

    def ask(self, question: Question) -> None:
        """Have something read from the writer's own connection."""
        self._put(question)

    def _put(self, job: Group | Question | CopyJob | Rest) -> None:
        self._given = time.monotonic()
        self._jobs.put(job)

    async def copy(self, partial: Path) -> None:
        """Copy the database, a slice whenever nothing else waits; one at a time.

        Cancelled, it waits until the thread has let go of the file.

        Raises:
            StoreError, sqlite3.Error, OSError: what became of the copy instead.
        """
        job = CopyJob(partial)
        self._put(job)
        try:
            await job.over.wait()
        except trio.Cancelled:
            # The file is the thread's until then: one slice, or one commit.
            job.abandoned = True
            with trio.move_on_after(LET_GO_SECONDS, shield=True):
                await job.over.wait()
            raise
        if job.error is not None:
            raise job.error

    async def close(self) -> None:
        """Let it finish, end the run in the file, and wait for the thread's end."""
        self.dismiss()
        await self._ended.wait()
        self._thread.join()

    def dismiss(self) -> None:
        """Have it end once it has done what it was given; not waited for."""
        self._jobs.put(None)

    def _run(self) -> None:
        try:
            self._serve()
            self._writer.close()
        except BaseException as fault:  # noqa: BLE001 - raised in the trio thread, see `failed`
            self._post(self._failed, fault)
            # What is in the file is whole, but that the run ended well is not noted.
            self._writer.drop()
        self._post(self._ended.set)

    def _serve(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._patience())
            except queue.Empty:
                if not self._loop_thread.is_alive():
                    return
                self._rest()
                continue
            if job is None:
                return
            self._do(job)
            if self._jobs.empty() and time.monotonic() - self._rested > BUSY_SECONDS:
                self._rest()

    def _do(self, job: Group | Question | CopyJob | Rest) -> None:
        if isinstance(job, Group):
            decision = self._writer.commit(job)
            self._told = decision.broken
            places.DECISION.reach()
            # First: once it is told, the next group may come, and is to find it free.
            self._written.release()
            self._post(self._decided, decision)
            self._writer.after_commit()
            self._tell()
        elif isinstance(job, CopyJob):
            self._copy(job)
        elif isinstance(job, Rest):
            self._rest()
            self._rested_now.release()
        else:
            job(self._writer.connected())

    def _copy(self, job: CopyJob) -> None:
        try:
            connection = self._writer.connected()
            begin_copy(
                connection,
                job.partial,
                pages=COPY_PAGES,
                between=lambda: self._between(job, connection),
            )
        except Exception as failure:  # noqa: BLE001 - whoever waits for the copy gets it
            job.error = failure
        self._post(job.over.set)

    def _between(self, job: CopyJob, connection: sqlite3.Connection) -> None:
        """Commits go before copying; they go into the copy as well."""
        places.COPY_SLICE.reach()
        while not self._jobs.empty():
            waiting = self._jobs.get()
            if waiting is None:
                self._jobs.put(None)
                raise StoreClosed("the store is closed; the copy was not finished")
            self._do(waiting)
        if job.abandoned:
            raise StoreError("nobody waits for the copy any more")
        if self._writer.connection is not connection:
            raise StoreBroken("a commit failed while the copy was made; try again")

    def _patience(self) -> float:
        return REST_SECONDS if self._writer.trouble is None else TROUBLED_SECONDS

    def _rest(self) -> None:
        self._rested = time.monotonic()
        self._writer.rest()
        self._tell()

    def _tell(self) -> None:
        self._tell_health()
        if self._writer.found:
            self._post(self._found, self._writer.take_found())
        held = self._writer.pruning.held
        if held is not self._told_held:
            self._told_held = held
            self._post(self._held, held)

    def _tell_health(self) -> None:
        trouble = self._writer.trouble
        if trouble is not self._told:
            self._told = trouble
            self._post(self._felt, trouble)

    def _post(self, function: Callable[..., None], *values: object) -> None:
        try:
            self._token.run_sync_soon(function, *values)
        except trio.RunFinishedError:
            # Nobody is left to tell; `close` cannot come any more either.
            self._jobs.put(None)
