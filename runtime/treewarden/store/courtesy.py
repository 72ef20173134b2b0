"""When a busy loop stands aside for the writer's thread.

CPython's interpreter lock goes to a thread that has waited for it for 5 ms, unless its
holder lets go of it for a moment meanwhile: then the wait begins anew. A loop that is
busy does that once a pass, for a microsecond, in which no other thread wakes up. So a
loop of passes of half a millisecond starves every other thread: of 200 commits, each of
0.3 ms, not one was through in three seconds, and all that waited for one waited on.

So a loop that has something to do, while somebody waits for a commit, stands aside for a
moment now and then: longer than a thread needs to wake up, seldom enough to cost little,
and the longer the commit has taken, the longer: on a machine that is busy itself, to wake
up may take milliseconds. What decides is plain and takes time as an argument
(`time.perf_counter`, in seconds).
"""

from __future__ import annotations

from typing import Final

SHORTEST: Final = 0.0002
"""Seconds that the loop stands aside at least: three times what a thread takes to wake."""
PATIENCE: Final = 0.005
"""Seconds that a commit may take before: what the interpreter itself has in mind. Most
take less, and the loop has the next one's work to do meanwhile."""
BETWEEN: Final = 0.0008
"""Seconds that the loop goes on between two times."""
LONGEST: Final = 0.004
"""The same while the thread waits for the disk, however long that may take."""
_PART: Final = 1 / 16
"""Of what the commit has taken so far, how much it stands aside at once."""
_SHARE: Final = 1 / 2
"""The most that this may be of the time between two times."""


class Courtesy:
    """Of one commit at a time; `begin` with each."""

    __slots__ = ("_begun", "_last")

    def __init__(self) -> None:
        self._begun = self._last = 0.0

    def begin(self, now: float) -> None:
        """A commit is the thread's from `now` on."""
        self._begun = now
        self._last = now + PATIENCE - BETWEEN

    def due(self, now: float, needs_none: float = 0.0) -> float:
        """How many seconds the loop is to stand aside at `now`; 0.0: not at all.

        `needs_none`: the thread waits for the disk, and so long, as a rule, it needs no
        interpreter; but it cannot say when it does again.
        """
        since = now - self._last
        if since < max(BETWEEN, min(needs_none, LONGEST)):
            return 0.0
        seconds = max(SHORTEST, (now - self._begun) * _PART)
        if since < seconds / _SHARE:
            return 0.0
        self._last = now + seconds
        return seconds
