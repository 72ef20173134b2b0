"""When a busy loop gives a sign of life unasked, and stands aside for other threads.

CPython's interpreter lock goes to a thread that has waited for it for 5 ms, unless its
holder lets go of it for a moment meanwhile: then the wait begins anew. A busy loop does
that once a pass, for the microsecond that `epoll` takes. The thread that waits is woken,
comes too late, and waits on: it gets nothing done, and each waking of it costs the loop
several microseconds, up to a third of its time. Every thread that only looks in now and
then, twelve times a second or once, is such a thread.

So a loop that is busy does not wait for that. It gives its watchdog a sign of life before
the thread would come for one, and waits while that is taken. And when the process changes
threads far more often than it has anything from, somebody waits in vain: it stands aside
for a moment, in which a thread wakes up and does what it came for.

Plain, and time is passed in, in seconds: `now` is monotonic, `cpu` the loop's thread's
processor time, `switches` how often a thread of the process gave up its processor of its
own will.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

ASIDE: Final = 0.0002
"""Seconds that the loop stands aside: three times what a thread takes to wake up."""
SOON: Final = 0.02
"""Seconds until it looks whether that has helped: standing aside costs it a hundredth."""
BUSY: Final = 0.25
"""The share of its time from which a loop is busy."""
STARVING: Final = 350.0
"""Switches a second from which a thread waits in vain: two for each pass of the loop. While
somebody holds the interpreter all the time it makes 200, and a beat itself at most 100."""
_TELLING: Final = SOON / 2
"""A shorter time tells nothing. It is what a clock makes of it that does not run."""


class Beat(NamedTuple):
    """What the loop does now; `aside` in seconds."""

    sign: bool
    aside: float


_NOTHING: Final = Beat(sign=False, aside=0.0)


class Pulse:
    """Of one loop. `wait` is how long until its next beat; infinite while it rests."""

    __slots__ = ("_at", "_cpu", "_period", "_signed", "_switches", "wait")

    def __init__(self, period: float, now: float, cpu: float, switches: int) -> None:
        self._period = period
        self._at = self._signed = now
        self._cpu = cpu
        self._switches = switches
        # As if it were busy: it often is when it has just begun.
        self.wait = period

    def beat(self, now: float, cpu: float, switches: int) -> Beat:
        """Judge the time since the last beat."""
        elapsed = now - self._at
        used, switched = cpu - self._cpu, switches - self._switches
        self._at, self._cpu, self._switches = now, cpu, switches
        if elapsed < _TELLING or used < elapsed * BUSY:
            self.wait = math.inf
            return _NOTHING
        starving = switched > elapsed * STARVING
        sign = now - self._signed >= self._period - SOON
        if sign:
            self._signed = now
        left = self._signed + self._period - now
        self.wait = min(SOON, left) if starving else left
        return Beat(sign, ASIDE if starving else 0.0)
