"""The writer's thread: one job at a time, answers posted back to the trio thread.

A plain thread on a queue in C. `trio.to_thread` for each commit would cost a hop through
a pool and, with many agents, nineteen twentieths of the throughput.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from .group import Decision, Group

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from treewarden.errors import StoreBroken

    from .writer import Writer

    Question: TypeAlias = Callable[[sqlite3.Connection], None]

REST_SECONDS: Final = 1.0
"""How long nobody must have wanted anything before there is housekeeping; also how soon
a mended disk is noticed. A wake-up costs some 30 µs of processor time."""


class WriterThread:
    """Runs a `Writer` until `close`; never a daemon, so that nothing is cut off half-way.

    At most one group is under way: the store submits the next when it has the decision.
    `decided` and `felt` are called in the trio thread: with each decision, and with
    what ails the writer (None: nothing) when that changed between decisions.
    """

    def __init__(
        self,
        writer: Writer,
        decided: Callable[[Decision], None],
        felt: Callable[[StoreBroken | None], None],
    ) -> None:
        self._writer = writer
        self._decided = decided
        self._felt = felt
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[Group | Question | None] = queue.SimpleQueue()
        self._ended = trio.Event()
        self._told: StoreBroken | None = None
        self._thread = threading.Thread(target=self._run, name="treewarden writer")
        self._thread.start()

    def submit(self, group: Group) -> None:
        """Have a group written; `decided` gets the answer."""
        self._jobs.put(group)

    def ask(self, question: Question) -> None:
        """Have something read from the writer's own connection."""
        self._jobs.put(question)

    async def close(self) -> None:
        """Let it finish, end the run in the file, and wait for the thread's end."""
        self._jobs.put(None)
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=REST_SECONDS)
            except queue.Empty:
                self._rest()
                continue
            if job is None:
                break
            self._do(job)
        self._writer.close()
        self._post(self._ended.set)

    def _do(self, job: Group | Question) -> None:
        if isinstance(job, Group):
            decision = self._writer.commit(job)
            self._told = decision.broken
            self._post(self._decided, decision)
            self._writer.after_commit()
            self._tell_health()
        else:
            job(self._writer.connected())

    def _rest(self) -> None:
        self._writer.rest()
        self._tell_health()

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
