"""Deadlines of many waits, kept by one heap and one task.

A cancel scope a wait costs 5 to 8 µs in trio, more than half a call; an entry in this heap
costs a fraction of one. Entries that were called off are dropped when they reach the top
or outnumber the live ones, so that one long deadline keeps nothing else alive.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

# Below this many entries it is not worth rebuilding the heap.
_TRIM_FROM = 64


class Timer:
    """A callback that will run at `deadline` (trio's clock) unless called off."""

    __slots__ = ("_timers", "callback", "deadline", "number")

    def __init__(
        self,
        timers: Timers,
        deadline: float,
        number: int,
        callback: Callable[[], None],
    ) -> None:
        self._timers = timers
        self.deadline = deadline
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Timer) -> bool:
        """Earlier deadline first; equal ones in order of arming."""
        if self.deadline == other.deadline:
            return self.number < other.number
        return self.deadline < other.deadline

    def cancel(self) -> None:
        """Call it off; after it ran, nothing happens."""
        if self.callback is not None:
            self.callback = None
            self._timers.forget_one()


class Timers:
    """All armed timers of one tree; `run` must be running for them to fire."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._called_off = 0
        self._armed = 0
        self._scope: trio.CancelScope | None = None

    def __len__(self) -> int:
        """How many timers are held, called-off ones included."""
        return len(self._heap)

    def at(self, deadline: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` (plain, short, must not raise) at `deadline`."""
        self._armed += 1
        timer = Timer(self, deadline, self._armed, callback)
        heapq.heappush(self._heap, timer)
        scope = self._scope
        if scope is not None and deadline < scope.deadline:
            # No need to wake the task: trio moves the deadline where it stands.
            scope.deadline = deadline
        return timer

    def forget_one(self) -> None:
        """An entry was called off; trim when they outnumber the live ones."""
        self._called_off += 1
        if self._called_off > _TRIM_FROM and self._called_off * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._called_off = 0

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            self._fire(trio.current_time())
            next_deadline = self._heap[0].deadline if self._heap else math.inf
            with trio.CancelScope(deadline=next_deadline) as self._scope:
                await trio.sleep_forever()
            self._scope = None

    def _fire(self, now: float) -> None:
        while self._heap and (
            self._heap[0].callback is None or self._heap[0].deadline <= now
        ):
            timer = heapq.heappop(self._heap)
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._called_off -= 1
            else:
                callback()
