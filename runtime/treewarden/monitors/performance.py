"""How long operations take and how they end, by name.

Nothing here grows without end: of each name the last 100 durations are kept, of names the
1000 that were used last, and one that nobody used for an hour is gone. That is found out
when something is recorded or looked at; there is no timer.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import trio

from treewarden.resilience import check_count, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_NAMES: Final = 1000
_RECENT: Final = 100
_IDLE: Final = 3600.0
_PERCENTILE: Final = 0.95


class Ending(StrEnum):
    """How one run of an operation ended."""

    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatistics:
    """One operation since its name was first used; durations in seconds.

    count = succeeded + failed + cancelled, at all times. `p95` and `recent_failures` are
    of the last `recent` runs; the others of all of them.
    """

    name: str
    count: int
    succeeded: int
    failed: int
    cancelled: int
    minimum: float
    mean: float
    maximum: float
    p95: float
    recent: int
    recent_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceStatistics:
    """All operations, the one used last at the end; counters since the beginning.

    `evicted` names had to make room for others, `expired` ones were idle for too long.
    """

    operations: tuple[OperationStatistics, ...]
    recorded: int
    evicted: int
    expired: int


class _Operation:
    __slots__ = ("cancelled", "count", "failed", "maximum", "minimum", "recent", "total",
                 "used_at")  # fmt: skip

    def __init__(self, recent: int) -> None:
        self.count = self.failed = self.cancelled = 0
        self.total = self.maximum = 0.0
        self.minimum = math.inf
        self.used_at = 0.0
        # Seconds and whether it failed.
        self.recent: deque[tuple[float, bool]] = deque(maxlen=recent)

    def add(self, seconds: float, ending: Ending, now: float) -> None:
        self.count += 1
        self.total += seconds
        self.used_at = now
        if seconds < self.minimum:
            self.minimum = seconds
        if seconds > self.maximum:
            self.maximum = seconds
        failed = ending is Ending.ERROR
        if failed:
            self.failed += 1
        elif ending is Ending.CANCELLED:
            self.cancelled += 1
        self.recent.append((seconds, failed))

    def statistics(self, name: str) -> OperationStatistics:
        return OperationStatistics(
            name=name,
            count=self.count,
            succeeded=self.count - self.failed - self.cancelled,
            failed=self.failed,
            cancelled=self.cancelled,
            minimum=self.minimum,
            mean=self.total / self.count,
            maximum=self.maximum,
            p95=_nearest_rank(sorted(seconds for seconds, _ in self.recent)),
            recent=len(self.recent),
            recent_failures=sum(failed for _, failed in self.recent),
        )


def _nearest_rank(ordered: list[float]) -> float:
    return ordered[math.ceil(_PERCENTILE * len(ordered)) - 1]


class Performance:
    """Durations and endings by the operation's name; `runtime.performance`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = trio.current_time,
        names: int = _NAMES,
        recent: int = _RECENT,
        idle: float = _IDLE,
    ) -> None:
        """At most `names` names; `idle`: seconds after which an unused one is gone.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        check_count("names", names, 1)
        check_count("recent", recent, 1)
        check_seconds("idle", idle)
        self._clock = clock
        self._names = names
        self._recent = recent
        self._idle = idle
        # The one used last at the end.
        self._operations: OrderedDict[str, _Operation] = OrderedDict()
        self._recorded = self._evicted = self._expired = 0

    def record(
        self, name: str, seconds: float, ending: Ending = Ending.SUCCESS
    ) -> None:
        """Count one run of an operation.

        Raises:
            ValueError: `seconds` is negative or no number.
        """
        if not 0.0 <= seconds < math.inf:
            raise ValueError(f"an operation takes 0 or more seconds, not {seconds}")
        now = self._clock()
        self._expire(now)
        operation = self._operations.get(name)
        if operation is None:
            operation = self._begin(name)
        else:
            self._operations.move_to_end(name)
        operation.add(seconds, ending, now)
        self._recorded += 1

    def _begin(self, name: str) -> _Operation:
        if len(self._operations) >= self._names:
            self._operations.popitem(last=False)
            self._evicted += 1
        operation = self._operations[name] = _Operation(self._recent)
        return operation

    def _expire(self, now: float) -> None:
        operations = self._operations
        while operations:
            name = next(iter(operations))
            if now - operations[name].used_at <= self._idle:
                return
            del operations[name]
            self._expired += 1

    def time(self, name: str) -> Timing:
        """Record how long a block takes and how it ends: `with performance.time(name):`.

        An exception is an error, a cancellation is one of its own.
        """
        return Timing(self, name)

    def operation(self, name: str) -> OperationStatistics | None:
        """What is known of one operation; None: nothing, or nothing any more."""
        self._expire(self._clock())
        found = self._operations.get(name)
        return found.statistics(name) if found is not None else None

    def reset(self) -> None:
        """Forget all operations; the counters go on."""
        self._operations.clear()

    def statistics(self) -> PerformanceStatistics:
        """All operations."""
        self._expire(self._clock())
        return PerformanceStatistics(
            operations=tuple(
                one.statistics(name) for name, one in self._operations.items()
            ),
            recorded=self._recorded,
            evicted=self._evicted,
            expired=self._expired,
        )


class Timing:
    """One block that is timed; see `Performance.time`."""

    __slots__ = ("_began", "_name", "_performance")

    def __init__(self, performance: Performance, name: str) -> None:
        self._performance = performance
        self._name = name
        self._began = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self._began = self._performance._clock()  # noqa: SLF001 - the two are one mechanism
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record it."""
        took = self._performance._clock() - self._began  # noqa: SLF001
        self._performance.record(self._name, max(0.0, took), _ending(error))


def _ending(error: BaseException | None) -> Ending:
    if error is None:
        return Ending.SUCCESS
    if isinstance(error, BaseExceptionGroup):
        # What was cancelled beside a failure says nothing; only that, and it was that.
        rest = error.split(trio.Cancelled)[1]
        return Ending.CANCELLED if rest is None else Ending.ERROR
    return Ending.CANCELLED if isinstance(error, trio.Cancelled) else Ending.ERROR
