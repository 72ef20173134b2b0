"""When a circuit lets a call through: the rules, without a clock and without tasks.

Theory of operation. A closed circuit lets everything through and watches outcomes; when
they are bad enough it opens and rejects at once, so that a service in trouble is left
alone and its callers do not queue up behind it. After `reset_timeout` it is half open: a
few calls go through as probes, and what becomes of them closes or opens it again. (Michael
Nygard, "Release It!", 2007.) Three more states are an operator's: forced open, disabled
(lets everything through, watches nothing) and metrics only (watches, never acts).

Three things go wrong in most circuit breakers, and the numbers called *permits* are here
to prevent them. Every state change and every probe draws the next number of one sequence.
A call holds its permit: the number of the state that admitted it, or its own number when
it is a probe.

* A late result of an earlier state must not move the present one. It holds a number below
  that of the present state, and is counted, but decides nothing.
* At most `half_open_calls` probes are out at once: `_probes` holds their numbers, and a
  probe leaves it however it ends, also cancelled.
* A probe that never ends must not keep the circuit half open for ever. Its place is on
  lease; when that runs out another probe may go. Should the slow one come back after all
  while the circuit is still half open, its result is as good as any.

Times are seconds on any monotonic clock, passed in; they must not go backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class CircuitState(StrEnum):
    """What a circuit does with calls; the last three are set by an operator."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_HALF_OPEN: Final = CircuitState.HALF_OPEN
_FORCED_OPEN: Final = CircuitState.FORCED_OPEN
_WATCHED: Final = frozenset({CircuitState.CLOSED, CircuitState.METRICS_ONLY})

REJECTED: Final = 0
"""The permit of a call that may not go."""


def _is_ordinary(error: BaseException) -> bool:
    return isinstance(error, Exception)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitPolicy:
    """When a circuit opens, for how long, and what closes it again.

    It opens after `failure_threshold` failures in a row (None: that rule is off), or when
    among the last `window` calls, if they are at least `minimum_calls`, the share of
    failures reaches `failure_rate` (None: that rule is off). Whichever comes first.

    After `reset_timeout` seconds up to `half_open_calls` probes are out at once, each for
    at most `probe_lease` seconds (None: as long as `reset_timeout`) before another may go
    in its place. `success_threshold` successful probes close the circuit, one failed probe
    opens it again.

    `counts_as_failure` looks at what a call raised. False means not counted: no failure,
    and no sign of health either. A call that its caller cancelled is never asked about.
    """

    failure_threshold: int | None = 5
    window: int = 20
    failure_rate: float | None = None
    minimum_calls: int = 10
    reset_timeout: float = 30.0
    half_open_calls: int = 1
    success_threshold: int = 1
    probe_lease: float | None = None
    counts_as_failure: Callable[[BaseException], bool] = _is_ordinary

    def __post_init__(self) -> None:
        """Refuse a policy that could never open, or never close."""
        for name in ("window", "minimum_calls", "half_open_calls", "success_threshold"):
            _at_least_one(name, getattr(self, name))
        if self.failure_threshold is not None:
            _at_least_one("failure_threshold", self.failure_threshold)
        elif self.failure_rate is None:
            raise ValueError("failure_threshold and failure_rate cannot both be None")
        self._check_rate()
        _positive("reset_timeout", self.reset_timeout)
        if self.probe_lease is not None:
            _positive("probe_lease", self.probe_lease)

    def _check_rate(self) -> None:
        if self.failure_rate is None:
            return
        if not 0 < self.failure_rate <= 1:
            raise ValueError(
                f"failure_rate must be above 0 and at most 1, not {self.failure_rate}"
            )
        if self.minimum_calls > self.window:
            raise ValueError(
                f"minimum_calls must be at most window ({self.window}),"
                f" not {self.minimum_calls}"
            )

    @property
    def lease(self) -> float:
        """Seconds for which a probe holds its place."""
        return self.reset_timeout if self.probe_lease is None else self.probe_lease

    def describe(self) -> str:
        """When it opens, for people: `5 in a row`, `50% of the last 20`."""
        rules = []
        if self.failure_threshold is not None:
            rules.append(f"{self.failure_threshold} in a row")
        if self.failure_rate is not None:
            rules.append(f"{self.failure_rate:.0%} of the last {self.window}")
        return " or ".join(rules)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be >= 1, not {value}")


def _positive(name: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{name} must be > 0 seconds and finite, not {seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of state, why it happened, and the window as it stood then."""

    old: CircuitState
    new: CircuitState
    reason: str
    window_calls: int
    window_failures: int
    by: str = ""


class Window:
    """The outcomes of the last `size` calls, each added in constant time."""

    __slots__ = ("_failed", "_total", "failures", "in_a_row")

    def __init__(self, size: int) -> None:
        self._failed = bytearray(size)
        self._total = 0
        self.failures = 0
        self.in_a_row = 0

    @property
    def calls(self) -> int:
        """How many calls the window holds."""
        return min(self._total, len(self._failed))

    def add_success(self) -> None:
        """A call went well."""
        # A window without failures holds only zeros; nothing needs to be written.
        if self.failures:
            self._put(0)
            self.in_a_row = 0
        else:
            self._total += 1

    def add_failure(self) -> None:
        """A call failed."""
        self._put(1)
        self.in_a_row += 1

    def _put(self, failed: int) -> None:
        slot = self._total % len(self._failed)
        self.failures += failed - self._failed[slot]
        self._failed[slot] = failed
        self._total += 1

    def clear(self) -> None:
        """Forget everything."""
        self._failed = bytearray(len(self._failed))
        self._total = self.failures = self.in_a_row = 0


class CircuitCore:
    """One circuit's decisions. Every call that was admitted must be settled once.

    A call is settled by `succeed`, `fail` or `let_go` (neither: cancelled, or an error
    that the policy does not count). What changes state returns the `Move`, or None.
    """

    __slots__ = (
        "_number",
        "_probe_successes",
        "_probes",
        "calls",
        "due",
        "failed",
        "generation",
        "not_counted",
        "opened",
        "policy",
        "rejected",
        "since",
        "state",
        "succeeded",
        "window",
    )

    def __init__(self, policy: CircuitPolicy, now: float) -> None:
        self.policy = policy
        self.state = CircuitState.CLOSED
        self.since = now
        self.due = math.inf
        self.window = Window(policy.window)
        self._number = 1
        self.generation = 1
        self._probes: dict[int, float] = {}
        self._probe_successes = 0
        self.calls = self.succeeded = self.failed = self.not_counted = 0
        self.rejected = self.opened = 0

    # --- calls -----------------------------------------------------------------------------

    def look(self, now: float) -> Move | None:
        """Let time do its part: an open circuit whose period is over is half open.

        Nothing happens before `due`, which is infinite unless the circuit is open.
        """
        if now < self.due:
            return None
        return self._move(_HALF_OPEN, now, f"{self.policy.reset_timeout:g} s are over")

    def admit(self, now: float) -> int:
        """A permit for one call, or `REJECTED`. Look first."""
        state = self.state
        if state is _OPEN or state is _FORCED_OPEN:
            self.rejected += 1
            return REJECTED
        if state is _HALF_OPEN:
            return self._admit_probe(now)
        self.calls += 1
        return self.generation

    def _admit_probe(self, now: float) -> int:
        self._end_leases(now)
        if len(self._probes) >= self.policy.half_open_calls:
            self.rejected += 1
            return REJECTED
        self._number += 1
        self._probes[self._number] = now + self.policy.lease
        self.calls += 1
        return self._number

    def _end_leases(self, now: float) -> None:
        # All leases are equally long and dicts keep their order: the first ends first.
        while self._probes:
            oldest = next(iter(self._probes))
            if self._probes[oldest] > now:
                return
            del self._probes[oldest]

    def succeed(self, permit: int, now: float) -> Move | None:
        """The call went well."""
        self.succeeded += 1
        if permit < self.generation:
            return None
        if self.state is _HALF_OPEN:
            return self._probe_succeeded(permit, now)
        if self.state not in _WATCHED:
            return None
        self.window.add_success()
        # A success can fill the window up to the fewest calls that a rate needs.
        return self._judge_rate(now) if self.window.failures else None

    def fail(self, permit: int, now: float) -> Move | None:
        """The call failed, in the policy's opinion."""
        self.failed += 1
        if permit < self.generation:
            return None
        if self.state is _HALF_OPEN:
            return self._move(_OPEN, now, "a probe failed")
        if self.state not in _WATCHED:
            return None
        self.window.add_failure()
        return self._judge_row(now) or self._judge_rate(now)

    def let_go(self, permit: int) -> None:
        """The call ended without telling anything; a probe's place is free again."""
        self.not_counted += 1
        self._probes.pop(permit, None)

    def _probe_succeeded(self, permit: int, now: float) -> Move | None:
        self._probes.pop(permit, None)
        self._probe_successes += 1
        needed = self.policy.success_threshold
        if self._probe_successes < needed:
            return None
        well = "a probe succeeded" if needed == 1 else f"{needed} probes succeeded"
        return self._move(_CLOSED, now, well)

    def _judge_row(self, now: float) -> Move | None:
        limit = self.policy.failure_threshold
        if self.state is not _CLOSED or limit is None or self.window.in_a_row < limit:
            return None
        return self._move(_OPEN, now, f"{self.window.in_a_row} failures in a row")

    def _judge_rate(self, now: float) -> Move | None:
        rate, window = self.policy.failure_rate, self.window
        if self.state is not _CLOSED or rate is None:
            return None
        if window.calls < self.policy.minimum_calls:
            return None
        if window.failures < rate * window.calls:
            return None
        return self._move(_OPEN, now, f"{window.failures} of {window.calls} failed")

    # --- operators -------------------------------------------------------------------------

    def trip(self, now: float, by: str) -> Move | None:
        """Reject everything until somebody resets it."""
        return self._order(CircuitState.FORCED_OPEN, now, "tripped", by)

    def reset(self, now: float, by: str) -> Move | None:
        """Close it, from any state, and forget what the window holds.

        Closed already, it forgets all the same, also the calls that are under way.
        """
        return self._order(CircuitState.CLOSED, now, "reset", by)

    def disable(self, now: float, by: str) -> Move | None:
        """Let everything through and watch nothing, until somebody resets it."""
        return self._order(CircuitState.DISABLED, now, "disabled", by)

    def observe(self, now: float, by: str) -> Move | None:
        """Let everything through and keep the window, until somebody resets it."""
        return self._order(CircuitState.METRICS_ONLY, now, "metrics only", by)

    def _order(
        self, new: CircuitState, now: float, reason: str, by: str
    ) -> Move | None:
        if new is not self.state:
            return self._move(new, now, reason, by)
        if new in _WATCHED:
            self._begin(new)
        return None

    # --- changes ---------------------------------------------------------------------------

    def _move(self, new: CircuitState, now: float, reason: str, by: str = "") -> Move:
        move = Move(
            old=self.state,
            new=new,
            reason=reason,
            window_calls=self.window.calls,
            window_failures=self.window.failures,
            by=by,
        )
        self.since = now
        self.opened += new is _OPEN
        self.due = now + self.policy.reset_timeout if new is _OPEN else math.inf
        self._begin(new)
        return move

    def _begin(self, state: CircuitState) -> None:
        self.state = state
        self._number += 1
        self.generation = self._number
        self._probes.clear()
        self._probe_successes = 0
        if state in _WATCHED:
            self.window.clear()

    def retry_after(self, now: float) -> float | None:
        """Seconds until a rejected call may be let through; None: nobody knows.

        Half open, it is when the oldest probe's place falls free at the latest.
        """
        if self.state is _OPEN:
            return self.due - now if self.due > now else 0.0
        if self.state is _HALF_OPEN and self._probes:
            return max(0.0, next(iter(self._probes.values())) - now)
        return None if self.state is _FORCED_OPEN else 0.0

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and are not settled yet."""
        return self.calls - self.succeeded - self.failed - self.not_counted
