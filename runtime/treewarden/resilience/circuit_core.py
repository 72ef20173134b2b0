"""When a circuit lets a call through: the rules, without a clock and without tasks.

Theory of operation. A closed circuit lets everything through and watches outcomes; when
they are bad enough it opens and rejects at once, so that a service in trouble is left
alone and its callers do not queue up behind it. After a while it is half open: a few calls
go through as probes, and what becomes of them closes or opens it again. (Michael Nygard,
"Release It!", 2007.) Three more states are an operator's: forced open, disabled (lets
everything through, watches nothing) and metrics only (watches, never acts).

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
  while the circuit is still half open, its result is as good as any. When nothing was
  decided in time the circuit opens again.

Times are seconds on any monotonic clock, passed in; they must not go backwards. What is
due happened when it was due, however late somebody looks: an open circuit that nobody
called for an hour has been half open for most of it. Every change of state is put into
`moves`, oldest first, for whoever tells others.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from .circuit_window import window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .circuit_policy import CircuitPolicy


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of state at `at`, why it happened, and the window as it stood then."""

    old: CircuitState
    new: CircuitState
    at: float
    reason: str
    window_calls: int
    window_failures: int
    window_slow: int
    by: str = ""


class CircuitCore:
    """One circuit's decisions. Every call that was admitted must be settled once.

    A call is settled by `succeed`, `fail` or `let_go` (neither: cancelled, or an outcome
    that the policy does not count).
    """

    __slots__ = (
        "_chance",
        "_number",
        "_probes",
        "calls",
        "due",
        "failed",
        "generation",
        "in_a_row",
        "moves",
        "not_counted",
        "opened",
        "openings",
        "policy",
        "probe_successes",
        "rejected",
        "since",
        "slow",
        "state",
        "succeeded",
        "window",
    )

    def __init__(
        self,
        policy: CircuitPolicy,
        now: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """A closed circuit; `chance` is asked when the open time has jitter."""
        self.policy = policy
        self._chance = chance
        self.state = CircuitState.CLOSED
        self.since = now
        # When time alone changes the state; infinite unless open or half open.
        self.due = math.inf
        self.moves: list[Move] = []
        self.window = window_of(policy)
        self.in_a_row = 0
        self._number = 1
        self.generation = 1
        self._probes: dict[int, float] = {}
        self.probe_successes = 0
        # Openings since it was last closed: by these the open time grows.
        self.openings = 0
        self.calls = self.succeeded = self.failed = self.not_counted = 0
        self.rejected = self.opened = self.slow = 0

    # --- calls -----------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Let time do its part; nothing happens before `due`."""
        while now >= self.due:
            if self.state is _OPEN:
                seconds = self.due - self.since
                self._move(_HALF_OPEN, self.due, f"{seconds:g} s are over")
            else:
                seconds = self.policy.time_to_decide
                self._move(_OPEN, self.due, f"undecided after {seconds:g} s")

    def admit(self, now: float) -> int:
        """A permit for one call, or `REJECTED`."""
        if now >= self.due:
            self.look(now)
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
        if self.due == math.inf:
            self.due = now + self.policy.time_to_decide
        self._number += 1
        self._probes[self._number] = now + self.policy.lease
        self.calls += 1
        return self._number

    def is_out(self, permit: int) -> bool:
        """Whether this is the permit of a probe that has a place now."""
        return permit in self._probes

    def admit_within(self) -> int:
        """A permit for a call inside of a probe, instead of its rejection.

        It is a part of that probe, which will tell: like a result of an earlier state its
        own is counted and decides nothing.
        """
        self.rejected -= 1
        self.calls += 1
        return self.generation - 1

    def _end_leases(self, now: float) -> None:
        # All leases are equally long and dicts keep their order: the first ends first.
        while self._probes:
            oldest = next(iter(self._probes))
            if self._probes[oldest] > now:
                return
            del self._probes[oldest]

    def succeed(self, permit: int, now: float, *, slow: bool = False) -> None:
        """The call went well."""
        self.succeeded += 1
        self._settle(permit, now, failed=False, slow=slow)

    def fail(self, permit: int, now: float, *, slow: bool = False) -> None:
        """The call failed, in the policy's opinion."""
        self.failed += 1
        self._settle(permit, now, failed=True, slow=slow)

    def let_go(self, permit: int) -> None:
        """The call ended without telling anything; a probe's place is free again."""
        self.not_counted += 1
        self._probes.pop(permit, None)

    def _settle(self, permit: int, now: float, *, failed: bool, slow: bool) -> None:
        self.slow += slow
        self.look(now)
        if permit < self.generation:
            return
        if self.state is _HALF_OPEN:
            self._judge_probe(permit, now, failed=failed, slow=slow)
        elif self.state in _WATCHED:
            self.window.add(now, failed=failed, slow=slow)
            self.in_a_row = self.in_a_row + 1 if failed else 0
            if self.state is _CLOSED:
                self._judge(now)

    def _judge_probe(
        self, permit: int, now: float, *, failed: bool, slow: bool
    ) -> None:
        if failed or slow:
            self._move(_OPEN, now, f"a probe {'failed' if failed else 'was slow'}")
            return
        self._probes.pop(permit, None)
        self.probe_successes += 1
        needed = self.policy.success_threshold
        if self.probe_successes >= needed:
            well = "a probe succeeded" if needed == 1 else f"{needed} probes succeeded"
            self._move(_CLOSED, now, well)

    def _judge(self, now: float) -> None:
        reason = self._row_is_bad() or self._window_is_bad()
        if reason:
            self._move(_OPEN, now, reason)

    def _row_is_bad(self) -> str:
        limit = self.policy.failure_threshold
        if limit is None or self.in_a_row < limit:
            return ""
        return f"{limit} failures in a row" if limit > 1 else "a failure"

    def _window_is_bad(self) -> str:
        policy, window = self.policy, self.window
        if not (window.failures or window.slow) or window.calls < policy.minimum_calls:
            return ""
        rate = policy.failure_rate
        if rate is not None and window.failures >= rate * window.calls:
            return f"{window.failures} of {window.calls} failed"
        if policy.slow_call is not None and (
            window.slow >= policy.slow_rate * window.calls
        ):
            return f"{window.slow} of {window.calls} were slow"
        return ""

    # --- operators -------------------------------------------------------------------------

    def trip(self, now: float, by: str) -> None:
        """Reject everything until somebody resets it."""
        self._order(CircuitState.FORCED_OPEN, now, "tripped", by)

    def reset(self, now: float, by: str) -> None:
        """Close it, from any state, and forget what the window holds.

        Closed already, it forgets all the same, also the calls that are under way.
        """
        self._order(CircuitState.CLOSED, now, "reset", by)

    def disable(self, now: float, by: str) -> None:
        """Let everything through and watch nothing, until somebody resets it."""
        self._order(CircuitState.DISABLED, now, "disabled", by)

    def observe(self, now: float, by: str) -> None:
        """Let everything through and keep the window, until somebody resets it."""
        self._order(CircuitState.METRICS_ONLY, now, "metrics only", by)

    def _order(self, new: CircuitState, now: float, reason: str, by: str) -> None:
        self.look(now)
        if new is not self.state:
            self._move(new, now, reason, by)
        elif new in _WATCHED:
            self._begin(new)

    def restore(
        self, state: CircuitState, now: float, *, left: float, openings: int
    ) -> None:
        """Be as an earlier run left it: open for `left` seconds more, or as ordered.

        What was half open may probe at once: nobody knows what became of its probes. By
        the present policy no circuit would be open for longer than its longest time.
        """
        if state in (_OPEN, _HALF_OPEN):
            left = min(left, self.policy.longest_open) if state is _OPEN else 0.0
            # Whatever was kept, this is at least the first time.
            self.openings = max(openings, 1) - 1
            self._move(_OPEN, now, f"an earlier run left it open for {left:g} s more")
            self.due = now + left
        elif state is not _CLOSED:
            self._move(state, now, "an earlier run left it so")

    # --- changes ---------------------------------------------------------------------------

    def _move(self, new: CircuitState, now: float, reason: str, by: str = "") -> None:
        self.window.pass_time(now)
        self.moves.append(
            Move(
                old=self.state,
                new=new,
                at=now,
                reason=reason,
                window_calls=self.window.calls,
                window_failures=self.window.failures,
                window_slow=self.window.slow,
                by=by,
            )
        )
        self.since = now
        self.due = math.inf
        if new is _OPEN:
            self.opened += 1
            self.openings += 1
            self.due = now + self.policy.open_seconds(self.openings, self._chance)
        elif new is not _HALF_OPEN:
            self.openings = 0
        self._begin(new)

    def _begin(self, state: CircuitState) -> None:
        self.state = state
        self._number += 1
        self.generation = self._number
        self._probes.clear()
        self.probe_successes = 0
        if state in _WATCHED:
            self.window.clear()
            self.in_a_row = 0

    # --- as it stands ----------------------------------------------------------------------

    def retry_after(self, now: float) -> float | None:
        """Seconds until a rejected call may be let through; None: nobody knows.

        Half open, it is when the oldest probe's place falls free at the latest.
        """
        if self.state is _OPEN:
            # Not `max`, which costs a tenth of a whole rejection.
            return self.due - now if self.due > now else 0.0
        if self.state is _HALF_OPEN and self._probes:
            return max(0.0, next(iter(self._probes.values())) - now)
        return None if self.state is _FORCED_OPEN else 0.0

    @property
    def probes(self) -> int:
        """Probes that are out."""
        return len(self._probes)

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and are not settled yet."""
        return self.calls - self.succeeded - self.failed - self.not_counted
