"""When a circuit opens, for how long, what closes it again, and what counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treewarden.errors import BulkheadFull, RateLimited

from .backoff import Backoff
from .bounds import check_count, check_number, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

# A half-open circuit that has not made up its mind by then is in trouble still: the first
# probe and the one that took its place had a whole lease each.
_LEASES_TO_DECIDE = 2

# A byte a call; and of less than a tenth of this no loop can tell one slot from the next.
_LARGEST_WINDOW = 1_000_000
_SHORTEST_WINDOW = 0.001

_ASKED = (
    "counts_as_failure", "counts_as_success", "result_is_failure", "result_is_ignored",
)  # fmt: skip


def _is_failure(error: BaseException) -> bool:
    if isinstance(error, ExceptionGroup):
        return any(_is_failure(one) for one in error.exceptions)
    # Our own limits let nothing through; that says nothing about the other side.
    return isinstance(error, Exception) and not isinstance(
        error, (RateLimited, BulkheadFull)
    )


def _never(_: object) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitPolicy:
    """The rules of one circuit. Seconds everywhere; rules that are None are off.

    It opens when the first of these is true:

    * `failure_threshold` calls in a row have failed;
    * of the calls in the window, if they are at least `minimum_calls`, the share that
      failed has reached `failure_rate`;
    * or the share that took `slow_call` seconds or longer, however they ended, has
      reached `slow_rate`.

    The window is the last `window` calls or, with `window_seconds`, all calls of so many
    seconds, forgotten a tenth at a time. The row knows no window.

    Open for `reset_timeout` seconds (a `Backoff` makes that grow each time it opens again
    without having closed, and leaves some of it to chance), it is half open: at most
    `half_open_calls` probes are out at once, each for at most `probe_lease` seconds
    before another may go in its place (None: as long as `reset_timeout` to begin with).
    `success_threshold` successful probes close it; a failed or slow one opens it again,
    and so does not having decided `half_open_timeout` seconds after the first probe (None:
    two leases; `math.inf`: no limit).

    A call that took `call_timeout` seconds is cancelled, fails and counts as a failure.
    A call that its caller cancelled is never counted, and nobody is asked about it. What
    else a call raised is a failure if `counts_as_failure` says so (any `Exception` does but
    RateLimited and BulkheadFull, of limits of our own inside the circuit), a sign of health
    if `counts_as_success` does, and not counted otherwise. What it returned is a failure if
    `result_is_failure` says so, not counted if `result_is_ignored` does, and a success
    otherwise; the caller gets it all the same. Name these functions: two lambdas are never
    equal, and a circuit's name has one policy.

    `persist` keeps what is not closed in the store: after a restart of the process it
    stays open for the time that was left, and an operator's orders stand.
    """

    failure_threshold: int | None = 5
    failure_rate: float | None = None
    slow_call: float | None = None
    slow_rate: float = 0.5
    window: int = 20
    window_seconds: float | None = None
    minimum_calls: int = 10
    reset_timeout: float | Backoff = 30.0
    half_open_calls: int = 1
    success_threshold: int = 1
    probe_lease: float | None = None
    half_open_timeout: float | None = None
    call_timeout: float | None = None
    counts_as_failure: Callable[[BaseException], bool] = _is_failure
    counts_as_success: Callable[[BaseException], bool] = _never
    result_is_failure: Callable[[object], bool] | None = None
    result_is_ignored: Callable[[object], bool] | None = None
    persist: bool = False

    def __post_init__(self) -> None:
        """Refuse a policy that could never open, or never close."""
        for name in ("window", "minimum_calls", "half_open_calls", "success_threshold"):
            check_count(name, getattr(self, name), 1)
        if self.failure_threshold is not None:
            check_count("failure_threshold", self.failure_threshold, 1)
        for name in ("slow_call", "window_seconds", "probe_lease", "call_timeout"):
            _check_seconds(name, getattr(self, name))
        if self.half_open_timeout != math.inf:
            _check_seconds("half_open_timeout", self.half_open_timeout)
        self._check_window()
        self._check_reset_timeout()
        self._check_rates()
        for name in _ASKED:
            _check_function(name, getattr(self, name))

    def _check_window(self) -> None:
        if self.window > _LARGEST_WINDOW:
            raise ValueError(
                f"window must be <= {_LARGEST_WINDOW} calls, not {self.window}"
            )
        if self.window_seconds is not None and self.window_seconds < _SHORTEST_WINDOW:
            raise ValueError(
                f"window_seconds must be >= {_SHORTEST_WINDOW}, not {self.window_seconds}"
            )

    def _check_reset_timeout(self) -> None:
        if not isinstance(self.reset_timeout, Backoff):
            check_seconds("reset_timeout", self.reset_timeout)
        elif not self.reset_timeout.initial > 0:
            raise ValueError("reset_timeout must begin with more than 0 seconds")

    def _check_rates(self) -> None:
        rules = (self.failure_threshold, self.failure_rate, self.slow_call)
        if rules == (None, None, None):
            raise ValueError(
                "failure_threshold, failure_rate and slow_call cannot all be None"
            )
        if self.failure_rate is not None:
            _check_share("failure_rate", self.failure_rate)
        _check_share("slow_rate", self.slow_rate)
        judged_by_rate = self.failure_rate is not None or self.slow_call is not None
        counted = judged_by_rate and self.window_seconds is None
        if counted and self.minimum_calls > self.window:
            raise ValueError(
                f"minimum_calls must be at most window ({self.window}),"
                f" not {self.minimum_calls}"
            )

    @property
    def lease(self) -> float:
        """Seconds for which a probe holds its place."""
        if self.probe_lease is not None:
            return self.probe_lease
        if isinstance(self.reset_timeout, Backoff):
            return self.reset_timeout.initial
        return self.reset_timeout

    @property
    def time_to_decide(self) -> float:
        """Seconds from the first probe until a half-open circuit opens again."""
        if self.half_open_timeout is not None:
            return self.half_open_timeout
        return _LEASES_TO_DECIDE * self.lease

    def open_seconds(self, openings: int, chance: Callable[[], float]) -> float:
        """How long the circuit stays open, `openings` times in a row by now."""
        if isinstance(self.reset_timeout, Backoff):
            return self.reset_timeout.delay(openings, chance)
        return self.reset_timeout

    @property
    def longest_open(self) -> float:
        """Seconds that it stays open at most, however often it opened."""
        if isinstance(self.reset_timeout, Backoff):
            return self.reset_timeout.maximum
        return self.reset_timeout

    def describe(self) -> str:
        """When it opens, for people: `5 in a row`, `50% of the last 20`."""
        rules = []
        if self.failure_threshold is not None:
            rules.append(f"{self.failure_threshold} in a row")
        if self.failure_rate is not None:
            rules.append(f"{self.failure_rate:.0%} of {self._extent()}")
        if self.slow_call is not None:
            rules.append(
                f"{self.slow_rate:.0%} of {self._extent()} over {self.slow_call:g} s"
            )
        return " or ".join(rules)

    def _extent(self) -> str:
        if self.window_seconds is None:
            return f"the last {self.window}"
        return f"the last {self.window_seconds:g} s"


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None:
        check_seconds(name, seconds)


def _check_function(name: str, asked: object) -> None:
    # A class of exceptions is callable too, and what it makes of an error counts as true.
    is_error = isinstance(asked, type) and issubclass(asked, BaseException)
    if asked is not None and (is_error or not callable(asked)):
        raise TypeError(f"{name} must be a function that judges, not {asked!r}")


def _check_share(name: str, share: float) -> None:
    check_number(name, share)
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {share}")
