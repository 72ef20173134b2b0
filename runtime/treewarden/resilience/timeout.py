"""A deadline of our own around a call, told apart from everybody else's.

The scope is trio's. What it adds: the exception says whose deadline passed, while a
cancellation from outside stays one; the deadlines that passed are counted; and code that
does not obey is seen. A call that runs on past its deadline is `overdue`, in the
statistics, for as long as it does, and reported when it ends: Python cannot stop it.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.errors import TimedOut

from .bounds import check_number, check_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrun:
    """A call that ended `seconds` after its deadline, which it was not given."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutStatistics:
    """A timeout as it stands; counters since it was made.

    calls = returned + raised + timed_out + cancelled + in_flight, at all times. `overdue`
    run on now, though their deadline has passed by more than `grace`; `overruns` did and
    have ended.
    """

    name: str
    seconds: float
    calls: int
    returned: int
    raised: int
    timed_out: int
    cancelled: int
    in_flight: int
    overdue: int
    overruns: int
    listener_failures: int


class Timeout:
    """Gives each call `seconds`, then cancels it and raises `TimedOut`.

    Use `call` around one async function, `guard` around a block. `on_overrun` is told of
    calls that ended more than `grace` seconds after their deadline, because they did not
    obey or the whole loop was late; it must not block, and what it raises is counted and
    goes no further. Without one they are logged.
    """

    def __init__(
        self,
        seconds: float = 30.0,
        *,
        grace: float = 1.0,
        name: str = "call",
        on_overrun: Callable[[Overrun], None] | None = None,
    ) -> None:
        """A timeout that nobody used; `math.inf` seconds only count.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        check_number("seconds", seconds)
        if not seconds > 0:
            raise ValueError(f"seconds must be > 0, not {seconds}")
        check_wait("grace", grace)
        self.name = name
        self.seconds = seconds
        self.grace = grace
        self._on_overrun = on_overrun if on_overrun is not None else _log_overrun
        self._scopes: set[trio.CancelScope] = set()
        self._calls = self._returned = self._raised = self._timed_out = 0
        self._cancelled = self._overruns = self._listener_failures = 0

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """`await fn(*args)` in this task, cancelled when its time is over.

        What it returns, or raises, after its deadline without obeying, counts as usual.

        Raises:
            TimedOut: it was cancelled by this deadline, not by anybody else.
        """
        with self.guard():
            return await fn(*args)

    @contextmanager
    def guard(self) -> Iterator[trio.CancelScope]:
        """The same around a block: `with timeout.guard(): ...`.

        Raises:
            TimedOut: at the end of the block.
        """
        self._calls += 1
        scope = trio.CancelScope(deadline=trio.current_time() + self.seconds)
        self._scopes.add(scope)
        try:
            with scope:
                yield scope
        except Exception:
            self._raised += 1
            raise
        except BaseException:
            self._cancelled += 1
            raise
        else:
            if not scope.cancelled_caught:
                self._returned += 1
                return
            self._timed_out += 1
        finally:
            self._scopes.discard(scope)
            if scope.cancel_called:
                self._look_back(trio.current_time() - scope.deadline)
        raise TimedOut(self.name, self.seconds)

    def _look_back(self, late: float) -> None:
        if late <= self.grace:
            return
        self._overruns += 1
        try:
            self._on_overrun(Overrun(name=self.name, seconds=late))
        except Exception:  # noqa: BLE001 - a listener never fails somebody's call
            self._listener_failures += 1

    def statistics(self) -> TimeoutStatistics:
        """What happened so far, and who is overdue now."""
        past = trio.current_time() - self.grace if self._scopes else -math.inf
        return TimeoutStatistics(
            name=self.name,
            seconds=self.seconds,
            calls=self._calls,
            returned=self._returned,
            raised=self._raised,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            in_flight=len(self._scopes),
            overdue=sum(scope.deadline < past for scope in self._scopes),
            overruns=self._overruns,
            listener_failures=self._listener_failures,
        )


def _log_overrun(overrun: Overrun) -> None:
    _log.warning(
        "%s ended %.1f s after it was cancelled", overrun.name, overrun.seconds
    )
