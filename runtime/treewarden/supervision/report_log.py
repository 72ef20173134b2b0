"""Reports on their way into Python's `logging`, off the trio thread.

Whoever listens to the logger `treewarden.supervision` may be slow, may block on a full
pipe, may raise: none of it is the tree's business. So a report that somebody wants is put
in a bounded queue, and a moment later a thread writes down what has gathered, one report
at a time and never more than `RATE` a second. A storm beyond that is counted and told; the
journal has all of it. The worst news has places of its own, so that the reports of a crash
loop never crowd out its outcome.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from .report import FAILED, GAVE_UP, LEVELS, details, fields, headline, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outcome import Outcome

    from .report import Report
    from .timers import Timers

LOGGER: Final = "treewarden.supervision"

# Reports a second that are written down (OTP's logger, too, stops a handler at 500), and
# that wait for it. Formatting takes a thread some 0.2 ms each.
RATE: Final = 500
CAPACITY: Final = 500
# Places that only a supervisor's giving up, or a child's, may take.
RESERVED: Final = 100
# Seconds that a report waits for company: a thread a report would cost it 50 µs each.
COMPANY: Final = 0.05
# Seconds between two looks whether a thread that was busy still is.
PATIENCE: Final = 1.0
# Seconds that the end of a tree waits for the last reports to be written.
CLOSING: Final = 0.5
# Seconds of pause after each report: long enough for the trio thread to take over.
PAUSE: Final = 0.0005

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLogStatistics:
    """What became of the reports that somebody wanted to read.

    `dropped` found no room, or were still waiting when a closing tree lost patience;
    `failed` made a listener, or a formatter, raise.
    """

    waiting: int
    logged: int
    dropped: int
    failed: int


class ReportLog:
    """The reports of one tree that somebody listens to; used on the trio thread."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._waiting: deque[Report] = deque()
        self._due = False
        self._not_before = 0.0
        self._idle = threading.Event()
        self._idle.set()
        # Nobody needs the interpreter any more; nobody waits for the thread any more.
        self._hurried = False
        self._abandoned = False
        self._unheard = 0
        # Counted by the thread, of which there is one at a time.
        self._logged = 0
        self._failed = 0
        self._unwritten = 0
        self._told = 0

    def hear(self, report: Report) -> None:
        """Have it written down soon, if anybody listens at its level; never waits."""
        if not _log.isEnabledFor(LEVELS.get(report.topic) or level(report)):
            return
        waiting = self._waiting
        room = (
            CAPACITY if report.topic not in {GAVE_UP, FAILED} else CAPACITY + RESERVED
        )
        if len(waiting) >= room:
            self._unheard += 1
            return
        waiting.append(report)
        if not self._due:
            self._look_at(max(trio.current_time() + COMPANY, self._not_before))

    def close(self) -> None:
        """Write down what waits, within `CLOSING` seconds; the tree is gone.

        Blocks, so that no clock goes on: the last reports of a tree are written when its
        block has been left, unless whoever listens is slower than that.
        """
        deadline = time.monotonic() + CLOSING
        self._hurried = True
        if self._idle.wait(CLOSING) and self._waiting:
            self._hand_over()
            self._idle.wait(max(0.0, deadline - time.monotonic()))
        self._abandoned = True
        self._unheard += len(self._waiting)
        self._waiting.clear()

    def statistics(self) -> ReportLogStatistics:
        """The counters of this moment."""
        return ReportLogStatistics(
            waiting=len(self._waiting),
            logged=self._logged,
            dropped=self._unheard + self._unwritten,
            failed=self._failed,
        )

    def _look_at(self, deadline: float) -> None:
        self._due = True
        self._timers.at(deadline, self._look)

    def _look(self) -> None:
        self._due = False
        if not self._waiting:
            return
        if self._idle.is_set():
            self._hand_over()
        else:
            self._look_at(trio.current_time() + PATIENCE)

    def _hand_over(self) -> None:
        reports = tuple(self._waiting)
        self._waiting.clear()
        self._not_before = trio.current_time() + len(reports) / RATE
        self._idle.clear()
        try:
            # trio's own cache of threads: nothing of ours is left to be ended.
            trio.lowlevel.start_thread_soon(
                lambda: self._write(reports), self._written, name="treewarden reports"
            )
        except RuntimeError:
            # No more threads can be had: the reports are in the journal.
            self._unheard += len(reports)
            self._idle.set()

    # --- in the thread -----------------------------------------------------------------

    def _write(self, reports: Sequence[Report]) -> None:
        for number, report in enumerate(reports):
            if self._abandoned:
                self._unwritten += len(reports) - number
                break
            self._write_one(report)
        self._tell_dropped()

    def _write_one(self, report: Report) -> None:
        try:
            _log.handle(_record(report))
            self._logged += 1
        except Exception:  # noqa: BLE001 - a listener's failure is nobody else's
            self._failed += 1
        if not self._hurried:
            time.sleep(PAUSE)

    def _tell_dropped(self) -> None:
        dropped = self._unheard + self._unwritten - self._told
        if dropped:
            self._told += dropped
            _log.warning(
                "%d reports were not logged: they came faster than %d a second. "
                "A runtime's journal has them: `treewarden events`",
                dropped,
                RATE,
            )

    def _written(self, _: Outcome[None]) -> None:
        self._idle.set()


def _record(report: Report) -> logging.LogRecord:
    """As of when it happened, with its fields as attributes and a traceback."""
    severity = level(report)
    record = _log.makeRecord(
        LOGGER, severity, "", 0, headline(report), (), None, None, fields(report)
    )
    record.created = report.at_ns / 1e9
    record.msecs = float(report.at_ns // 1_000_000 % 1000)
    if severity >= logging.WARNING:
        record.exc_text = details(report)
    return record
