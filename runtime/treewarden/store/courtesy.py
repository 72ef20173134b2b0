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
LONGEST: Final = 0.004
"""And at most, however long a commit takes."""
PATIENCE: Final = 0.005
"""Seconds that a commit may take before: what the interpreter itself has in mind. Most
take less, and the loop has the next one's work to do meanwhile."""
_PART: Final = 1 / 16
"""Of what the commit has taken so far, how much the loop stands aside at once."""
_BETWEEN: Final = 2.0
"""Seconds that it goes on, for each for which it stood aside before."""
_BETWEEN_OUTSIDE: Final = 4.0
"""The same while the thread waits for somebody else."""


class Courtesy:
    """Of one commit at a time; `begin` with each."""

    __slots__ = ("_begun", "_next")

    def __init__(self) -> None:
        self._begun = self._next = 0.0

    def begin(self, now: float) -> None:
        """A commit is the thread's from `now` on."""
        self._begun = now
        self._next = now + PATIENCE

    def due(self, now: float, outside: float | None = None) -> float:
        """How many seconds the loop is to stand aside at `now`; 0.0: not at all.

        `outside`: the thread waits for the disk, or for another process, and for so many
        seconds, as a rule, it needs no interpreter; but it cannot say when it does again.
        """
        if now < self._next:
            return 0.0
        seconds = min(max(SHORTEST, (now - self._begun) * _PART), LONGEST)
        if outside is None:
            between = _BETWEEN * seconds
        else:
            seconds = min(seconds, LONGEST / 4)
            between = max(_BETWEEN_OUTSIDE * seconds, min(outside, LONGEST))
        self._next = now + seconds + max(between, 4 * SHORTEST)
        return seconds
