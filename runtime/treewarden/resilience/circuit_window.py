"""The outcomes that a circuit judges by: those of its last calls, or of the last seconds.

Both windows add an outcome and forget the oldest in constant time. Time is passed in, as
everywhere in a circuit's rules; a window of calls does not look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

if TYPE_CHECKING:
    from .circuit_policy import CircuitPolicy

_FAILED: Final = 1
_SLOW: Final = 2

_SLOTS: Final = 10
"""Parts of a window of seconds; Hystrix and Polly cut theirs as fine."""


class CountWindow:
    """The last `size` calls."""

    __slots__ = ("_outcomes", "_total", "failures", "slow")

    forgotten: ClassVar[int] = 0
    """Calls that time alone has made it forget."""

    def __init__(self, size: int) -> None:
        self._outcomes = bytearray(size)
        self._total = 0
        self.failures = 0
        self.slow = 0

    @property
    def calls(self) -> int:
        """How many calls the window holds."""
        return min(self._total, len(self._outcomes))

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """One call more; the oldest one goes if the window is full."""
        slot = self._total % len(self._outcomes)
        self._total += 1
        before = self._outcomes[slot]
        if not (failed or slow or before):
            return
        self._outcomes[slot] = failed * _FAILED | slow * _SLOW
        self.failures += failed - (before & _FAILED)
        self.slow += slow - (before // _SLOW)

    def add_clean(self) -> None:
        """The same for a quick success, while the window holds nothing else."""
        self._total += 1

    def pass_time(self, now: float) -> None:
        """Time alone changes nothing."""

    def clear(self) -> None:
        """Forget everything."""
        self._outcomes = bytearray(len(self._outcomes))
        self._total = self.failures = self.slow = 0


class TimeWindow:
    """The calls of the last `seconds`, kept as counts in a ring of ten slots of time.

    A call is forgotten with all others of its slot: it counts for at least nine tenths of
    the window and at most for all of it.
    """

    __slots__ = (
        "_calls",
        "_failures",
        "_now",
        "_slow",
        "_width",
        "calls",
        "failures",
        "forgotten",
        "slow",
    )

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _SLOTS
        self._calls = [0] * _SLOTS
        self._failures = [0] * _SLOTS
        self._slow = [0] * _SLOTS
        self._now = 0
        self.calls = self.failures = self.slow = self.forgotten = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """One call more, at `now`."""
        self.pass_time(now)
        slot = self._now % _SLOTS
        self._calls[slot] += 1
        self.calls += 1
        if failed:
            self._failures[slot] += 1
            self.failures += 1
        if slow:
            self._slow[slot] += 1
            self.slow += 1

    def pass_time(self, now: float) -> None:
        """Forget what is too old by `now`."""
        number = int(now // self._width)
        passed = number - self._now
        if passed <= 0:
            return
        for slot in range(self._now + 1, self._now + 1 + min(passed, _SLOTS)):
            self._empty(slot % _SLOTS)
        self._now = number

    def _empty(self, slot: int) -> None:
        self.calls -= self._calls[slot]
        self.forgotten += self._calls[slot]
        self.failures -= self._failures[slot]
        self.slow -= self._slow[slot]
        self._calls[slot] = self._failures[slot] = self._slow[slot] = 0

    def clear(self) -> None:
        """Forget everything."""
        for slot in range(_SLOTS):
            self._empty(slot)


Window: TypeAlias = CountWindow | TimeWindow


def window_of(policy: CircuitPolicy) -> Window:
    """The empty window that a policy asks for."""
    if policy.window_seconds is None:
        return CountWindow(policy.window)
    return TimeWindow(policy.window_seconds)
