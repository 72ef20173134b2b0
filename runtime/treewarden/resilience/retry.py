"""Trying again, with manners.

A retry helps one caller and harms everybody when all of them do it at once. So each wait
grows and is left to chance, the number of attempts and their time are bounded, and all
callers of one `Retry` share a budget (`retry_budget`) that keeps their extra load to a
tenth. `_judge` decides, from the row of attempts, the exception and the time; `call`
waits.

Some things are never tried again: a cancellation, `MemoryError`, what the error kinds
call a validation error, a circuit that stays open for longer than there is time, and a
call that was said not to be idempotent and has no key by which the other side could tell
that it is the same one.
"""

from __future__ import annotations

import math
import random as chance
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.errors import CircuitOpen, RetriesExhausted
from treewarden.exits import Fault

from .backoff import Backoff
from .kinds import DEFAULT_KINDS, ErrorKind, ErrorKinds
from .retriable import Retriable, Worth, members
from .retry_budget import RetryBudget, RetryBudgetStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Of a call that is tried very often: where it began, and how it went lately.
_FIRST_FAULTS: Final = 10
_LAST_FAULTS: Final = 90

_patience: ContextVar[_Patience | None] = ContextVar(
    "treewarden_patience", default=None
)


class RetryEnd(StrEnum):
    """What ends a row of attempts."""

    ATTEMPTS = "no attempt is left"
    TIME = "no time is left"
    TOLD = "it is to be left alone for longer than there is time"
    BUDGET = "the retry budget is spent"
    PROGRESS = "it made no progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStatistics:
    """A retry as it stands; counters since it was made.

    calls = succeeded + not_retried + exhausted + cancelled + in_flight, at all times.
    `retried` of the succeeded needed more than one attempt. `not_retried` raised what is
    never, or not here, tried again. `waiting` sleep before their next attempt.
    """

    name: str
    calls: int
    attempts: int
    succeeded: int
    retried: int
    not_retried: int
    exhausted: int
    cancelled: int
    in_flight: int
    waiting: int
    budget: RetryBudgetStatistics


class Retry:
    """Calls a function until it works, within bounds; shared by all callers of one thing.

    At most `attempts` calls begin (the first included), none later than `total_timeout`
    seconds after the first; one that has begun is not cut off by that: an attempt's own
    deadline is a `Timeout`. `math.inf` means for ever, for either.

    `on` is what is worth another attempt: error kinds, classes of exceptions, a function,
    or several of these. Exceptions that `kinds` does not know are bugs, and not among them
    unless you name them. `on_result` looks at what was returned; True asks for another
    attempt, and when there is none the last result is returned as it is.

    Between attempts it waits by `backoff`, longer when the exception says so
    (`retry_after`, in seconds: circuits and limiters do). What does not fit into the time
    that is left is not waited for.

    With `progress_timeout` the whole call is given up when for that many seconds nobody
    called `made_progress` inside it; the attempt under way is cancelled.
    """

    def __init__(
        self,
        *,
        attempts: float = 3,
        total_timeout: float = 30.0,
        backoff: Backoff = Backoff(initial=0.5, maximum=10.0, jitter=1.0),  # noqa: B008 - a frozen record
        on: Retriable | Iterable[Retriable] = (ErrorKind.TRANSIENT, ErrorKind.RESOURCE),
        on_result: Callable[[Any], bool] | None = None,
        retry_after: Callable[[Exception], float | None] | None = None,
        progress_timeout: float | None = None,
        budget: RetryBudget | None = None,
        kinds: ErrorKinds = DEFAULT_KINDS,
        name: str = "call",
        random: Callable[[], float] = chance.random,
    ) -> None:
        """A retry that nobody used; `random` is `random.random` or a seeded one.

        Raises:
            TypeError, ValueError: a setting makes no sense, or names an exception that is
                never tried again; the message says which.
        """
        _check_bounds(attempts, total_timeout, progress_timeout)
        if not isinstance(backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {backoff!r}")
        self.name = name
        self.attempts = attempts
        self.total_timeout = total_timeout
        self.progress_timeout = progress_timeout
        self.backoff = backoff
        self.budget = budget if budget is not None else RetryBudget()
        self._on = Worth(on, kinds)
        self._on_result = on_result
        self._retry_after = retry_after if retry_after is not None else _told
        self._random = random
        self._calls = self._attempts = self._waiting = 0
        self._succeeded = self._retried = 0
        self._not_retried = self._exhausted = self._cancelled = 0

    async def call(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        idempotent: bool = True,
        key: str | None = None,
    ) -> T:
        """`await fn(*args)` in this task, again and again until it works.

        A call that is not `idempotent` is tried once, unless it has a `key`: one that `fn`
        sends along, so that the other side does it once. What is not tried again is raised
        as it is. A checkpoint if `fn` is one, and between attempts. Cancelled, no further
        attempt begins.

        Raises:
            RetriesExhausted: from the last exception; it was worth another attempt, but
                there was no attempt, time or budget left for it.
        """
        row = _Row(trio.current_time(), once=not idempotent and key is None)
        self.budget.begin(row.began)
        self._calls += 1
        try:
            if self.progress_timeout is None:
                result = await self._run(row, fn, *args)
            else:
                result = await self._run_patiently(row, fn, *args)
        except BaseException as error:
            if row.ended_by is not None:
                self._exhausted += 1
            elif isinstance(error, Exception):
                self._not_retried += 1
            else:
                self._cancelled += 1
            raise
        if row.ended_by is not None:
            self._exhausted += 1
        else:
            self._succeeded += 1
            self._retried += row.failed > 0
        return result

    async def _run(
        self,
        row: _Row,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
    ) -> T:
        while True:
            self._attempts += 1
            row.begun += 1
            try:
                result = await fn(*args)
            except Exception as error:
                if not self._is_retriable(row, error):
                    raise
                row.note(Fault.capture(error))
                wait = self._judge(row, trio.current_time(), self._told(error))
                if wait is None:
                    raise self._gave_up(row) from error
            else:
                if row.once or self._on_result is None or not self._on_result(result):
                    return result
                row.note(None)
                wait = self._judge(row, trio.current_time(), 0.0)
                if wait is None:
                    return result
            await self._wait(wait)

    def _is_retriable(self, row: _Row, error: Exception) -> bool:
        if row.once or not self._on(error):
            return False
        if not isinstance(error, CircuitOpen):
            return True
        left = row.began + self.total_timeout - trio.current_time()
        return error.retry_after is not None and error.retry_after <= left

    def _judge(self, row: _Row, now: float, told: float) -> float | None:
        """Seconds until the next attempt; None when there is none, and `row` says why."""
        left = row.began + self.total_timeout - now
        row.wait = self.backoff.delay(row.failed, self._random, row.wait)
        if row.failed >= self.attempts:
            row.ended_by = RetryEnd.ATTEMPTS
        elif told > max(left, 0.0) or told == math.inf:
            row.ended_by = RetryEnd.TOLD
        elif row.wait > left:
            row.ended_by = RetryEnd.TIME
        elif not self.budget.take(now):
            row.ended_by = RetryEnd.BUDGET
        else:
            # All who were told the same time must not come back at that time.
            return min(told + row.wait, left)
        return None

    def _told(self, error: Exception) -> float:
        """How long the other side wants to be left alone."""
        return max(_seconds(self._retry_after(one)) for one in members(error))

    async def _wait(self, seconds: float) -> None:
        self._waiting += 1
        try:
            await trio.sleep(seconds)
        finally:
            self._waiting -= 1

    async def _run_patiently(
        self,
        row: _Row,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
    ) -> T:
        assert self.progress_timeout is not None  # noqa: S101 - `call` has looked
        with trio.CancelScope() as scope:
            patience = _Patience(scope, self.progress_timeout, _patience.get())
            patience.renew()
            token = _patience.set(patience)
            try:
                return await self._run(row, fn, *args)
            finally:
                _patience.reset(token)
        row.ended_by = RetryEnd.PROGRESS
        raise self._gave_up(row)

    def _gave_up(self, row: _Row) -> RetriesExhausted:
        assert row.ended_by is not None  # noqa: S101 - what brings us here
        return RetriesExhausted(self.name, row.begun, row.faults(), row.ended_by)

    def statistics(self) -> RetryStatistics:
        """What happened so far, and the budget as it stands."""
        ended = self._succeeded + self._not_retried + self._exhausted + self._cancelled
        return RetryStatistics(
            name=self.name,
            calls=self._calls,
            attempts=self._attempts,
            succeeded=self._succeeded,
            retried=self._retried,
            not_retried=self._not_retried,
            exhausted=self._exhausted,
            cancelled=self._cancelled,
            in_flight=self._calls - ended,
            waiting=self._waiting,
            budget=self.budget.statistics(trio.current_time()),
        )


def made_progress() -> None:
    """Tell every `Retry` around this that its call gets on; nothing without one."""
    patience = _patience.get()
    if patience is not None:
        patience.renew()


@dataclass(frozen=True, slots=True)
class _Patience:
    scope: trio.CancelScope
    seconds: float
    # A row inside of another one's call: what gets on in it gets on in both.
    around: _Patience | None

    def renew(self) -> None:
        self.scope.deadline = trio.current_time() + self.seconds
        if self.around is not None:
            self.around.renew()


class _Row:
    """The attempts of one call."""

    __slots__ = (
        "_first",
        "_last",
        "began",
        "begun",
        "ended_by",
        "failed",
        "once",
        "wait",
    )

    def __init__(self, began: float, *, once: bool) -> None:
        self.began = began
        self.once = once
        self.begun = self.failed = 0
        self.wait: float | None = None
        self.ended_by: RetryEnd | None = None
        self._first: list[Fault] = []
        self._last: deque[Fault] | None = None

    def note(self, fault: Fault | None) -> None:
        """One more attempt did not do; None when it was its result."""
        self.failed += 1
        if fault is None:
            return
        if len(self._first) < _FIRST_FAULTS:
            self._first.append(fault)
            return
        if self._last is None:
            self._last = deque(maxlen=_LAST_FAULTS)
        self._last.append(fault)

    def faults(self) -> tuple[Fault, ...]:
        return (*self._first, *(self._last or ()))


def _told(error: Exception) -> float | None:
    told = getattr(error, "retry_after", None)
    return told if isinstance(told, (int, float)) else None


def _seconds(told: float | None) -> float:
    # Somebody else's number: it may be anything.
    return told if told is not None and told > 0 else 0.0


def _check_bounds(
    attempts: float, total_timeout: float, progress_timeout: float | None
) -> None:
    if isinstance(attempts, bool) or not isinstance(attempts, (int, float)):
        raise TypeError(f"attempts must be a number, not {attempts!r}")
    if not (attempts >= 1 and (attempts == math.inf or attempts == int(attempts))):
        raise ValueError(
            f"attempts must be a whole number >= 1, or math.inf, not {attempts}"
        )
    if not total_timeout >= 0:
        raise ValueError(f"total_timeout must be >= 0 seconds, not {total_timeout}")
    if progress_timeout is not None and not progress_timeout > 0:
        raise ValueError(
            f"progress_timeout must be > 0 seconds, not {progress_timeout}"
        )
