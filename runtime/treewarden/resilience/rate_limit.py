"""How much may go through in what time: two pure rules behind one record.

*Sliding window*: at most `rate` in any `period`, wherever one looks; not in fixed windows,
of which two neighbours together let twice as much through. It remembers when each permit
of the last period was given, so it is as large as its rate.

*Token bucket*, in the form of the generic cell rate algorithm (ITU-T I.371): a steady
`rate` a `period`, of which up to `burst` may be used at once; over any time t at most
burst + rate * t / period. It is one number, the instant at which the bucket would be full.

Both answer the same questions: from when on could a permit be had, and it is taken then.
Times are seconds on any monotonic clock, passed in; they must not go backwards.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from .bounds import check_count, check_seconds, check_wait

_QUEUE: Final = 1000
_MAX_KEYS: Final = 10_000
# What a float of a clock that has run for some days still tells apart.
_SHORTEST: Final = 1e-9
# So many pairs a key are kept of a window, however many permits it gave: a permit may
# come back a tenth of its period too late.
_DUMPED: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `rate` permits in any `period` seconds; with a `burst`, a steady flow of them.

    Without `burst` all `rate` permits may be taken at once, and then none until the first
    is a period old. With it `burst` may be taken at once, and then one each `period /
    rate` seconds.

    Up to `queue` callers a key wait in line, each for at most `max_wait` seconds; the next
    one, and one that would have to wait longer, is refused. Up to `max_keys` keys are
    counted apart; beyond, the one that was not used for the longest time is forgotten.

    With `persist` a limiter of a runtime keeps in the store, once a second, what is used
    of the 500 keys used last: a restart does not hand out everything again.
    """

    rate: int
    period: float = 1.0
    burst: int | None = None
    queue: int = _QUEUE
    max_wait: float = 30.0
    max_keys: int = _MAX_KEYS
    persist: bool = False

    def __post_init__(self) -> None:
        """Refuse what would let nothing through, or everything."""
        check_count("rate", self.rate, 1)
        check_count("queue", self.queue, 0)
        check_count("max_keys", self.max_keys, 1)
        if self.burst is not None:
            check_count("burst", self.burst, 1)
        check_seconds("period", self.period)
        if not self.period / self.rate >= _SHORTEST:
            raise ValueError(
                f"rate must be at most a permit a nanosecond, not {self.describe()}"
            )
        check_wait("max_wait", self.max_wait)

    @property
    def capacity(self) -> int:
        """What can be had at once; a permit of more weight than this never comes."""
        return self.rate if self.burst is None else self.burst

    def rule(self) -> Rule:
        """A fresh rule, of which nothing is used."""
        if self.burst is None:
            return SlidingWindow(self.rate, self.period)
        return TokenBucket(self.rate, self.period, self.burst)

    def describe(self) -> str:
        """The limit for people: `10 in any 1 s`, `5 at once, then 10 a 1 s`."""
        if self.burst is None:
            return f"{self.rate} in any {self.period:g} s"
        return f"{self.burst} at once, then {self.rate} a {self.period:g} s"


class Rule(Protocol):
    """What both rules can be asked."""

    def ready(self, now: float, weight: int) -> float:
        """The instant from which on `weight` permits could be taken; `now` at the earliest.

        More than the capacity: when the last of them could be, taken one by one.
        """
        ...

    def take(self, now: float, weight: int) -> None:
        """Take them; only when they are ready."""
        ...

    def used(self, now: float) -> int:
        """How much of the capacity is used, rounded up; 0: as good as fresh."""
        ...

    def dump(self, now: float) -> list[tuple[float, int]]:
        """What is used, as (age in seconds, weight); for `load`, in another process."""
        ...

    def load(self, now: float, taken: list[tuple[float, int]]) -> None:
        """Take up what `dump` has told, as long ago as it says."""
        ...


class TokenBucket:
    """A steady flow, of which `burst` may come at once."""

    __slots__ = ("_begun", "_burst", "_every", "_taken")

    def __init__(self, rate: int, period: float, burst: int) -> None:
        self._every = period / rate
        self._burst = burst
        # When it was full last, and what was taken since. A count and one product: adding
        # the same float over and over rounds to the same side each time, and a bucket that
        # is never full would give more and more than its rate.
        self._begun = -math.inf
        self._taken = 0

    @property
    def _full_at(self) -> float:
        return self._begun + self._taken * self._every

    def ready(self, now: float, weight: int) -> float:
        """See `Rule`."""
        begun, taken = self._begun, self._taken
        if self._full_at < now:
            begun, taken = now, 0
        # The order of the sum matters: a bucket that is full has its burst to the last bit.
        return max(now, begun + (taken + weight - self._burst) * self._every)

    def take(self, now: float, weight: int) -> None:
        """See `Rule`."""
        # Full at this very instant, it goes on counting: nothing is rounded by that.
        if self._full_at < now:
            self._begun, self._taken = now, 0
        self._taken += weight

    def used(self, now: float) -> int:
        """See `Rule`."""
        full_at = self._full_at
        if full_at <= now:
            return 0
        return math.ceil((full_at - now) / self._every - _ROUNDING)

    def dump(self, now: float) -> list[tuple[float, int]]:
        """See `Rule`; its one number is the age of the moment when it will be full."""
        full_at = self._full_at
        return [(now - full_at, 0)] if full_at > now else []

    def load(self, now: float, taken: list[tuple[float, int]]) -> None:
        """See `Rule`."""
        for age, _ in taken:
            # Not more than a bucket can owe, whatever the file says.
            owed = min(-age, self._burst * self._every)
            if now + owed > self._full_at:
                self._begun, self._taken = now + owed, 0


# What is left of a permit after sums of floats is none.
_ROUNDING: Final = 1e-6


class SlidingWindow:
    """At most `limit` in any `period`; a permit is as old as the period and counts no more."""

    __slots__ = ("_limit", "_period", "_taken", "_used")

    def __init__(self, limit: int, period: float) -> None:
        self._limit = limit
        self._period = period
        self._taken: deque[tuple[float, int]] = deque()
        self._used = 0

    def ready(self, now: float, weight: int) -> float:
        """See `Rule`."""
        self._forget(now)
        if self._used + weight <= self._limit:
            return now
        rounds, rest = divmod(weight - 1, self._limit)
        return self._first_with_room(now, rest + 1) + rounds * self._period

    def _first_with_room(self, now: float, weight: int) -> float:
        used, at = self._used, now
        for taken_at, taken in self._taken:
            if used + weight <= self._limit:
                break
            used -= taken
            at = taken_at + self._period
        return at

    def take(self, now: float, weight: int) -> None:
        """See `Rule`."""
        self._forget(now)
        self._taken.append((now, weight))
        self._used += weight

    def _forget(self, now: float) -> None:
        # The very sum that `ready` promises: the other way round it would be rounded
        # differently, and the promise be a hair too early.
        while self._taken and self._taken[0][0] + self._period <= now:
            self._used -= self._taken.popleft()[1]

    def used(self, now: float) -> int:
        """See `Rule`."""
        self._forget(now)
        return self._used

    def dump(self, now: float) -> list[tuple[float, int]]:
        """See `Rule`; of very many permits, neighbours are told as one, of the newest."""
        self._forget(now)
        taken = [(now - at, weight) for at, weight in self._taken]
        step = math.ceil(len(taken) / _DUMPED) or 1
        parts = (taken[i : i + step] for i in range(0, len(taken), step))
        return [(part[-1][0], sum(weight for _, weight in part)) for part in parts]

    def load(self, now: float, taken: list[tuple[float, int]]) -> None:
        """See `Rule`."""
        for age, weight in taken:
            if 0 <= age < self._period and 0 < weight <= self._limit - self._used:
                self._taken.append((now - age, weight))
                self._used += weight
