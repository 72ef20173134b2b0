"""Deadlines of many waits, kept by one heap and one task.

A cancel scope a wait costs 5 to 8 µs in trio, more than half a call; an entry in this heap
costs a fraction of one. Entries that were called off are dropped when they reach the top
or outnumber the live ones, so that one long deadline keeps nothing else alive.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from treewarden.injection import places

if TYPE_CHECKING:
    from collections.abc import Callable

# Below this many entries it is not worth rebuilding the heap, or a queue.
_TRIM_FROM = 64
# Lengths of waits are constants in a program; those that are computed go to the heap.
_MOST_LENGTHS = 64


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

    @property
    def remaining(self) -> float | None:
        """Seconds until it runs; None when it ran or was called off."""
        if self.callback is None:
            return None
        return max(0.0, self.deadline - trio.current_time())

    def cancel(self) -> None:
        """Call it off; after it ran, nothing happens."""
        if self.callback is not None:
            self.callback = None
            self._timers.forget_one()


class Waiting(Protocol):
    """Somebody who waits for so long and no longer."""

    deadline: float

    @property
    def is_wanted(self) -> bool:
        """Whether he waits still."""
        ...

    def expire(self, seconds: float) -> None:
        """Told once, at the deadline, if he waits still; `seconds` after he began."""
        ...


class Patience:
    """Waits of one length: in order of deadline by nature, so a queue and not a heap.

    To arm one is to append it, and nothing has to be called off. Those that are over leave
    with the oldest, or when the queue has doubled: one long wait keeps nothing else.
    """

    __slots__ = ("_limit", "_queue", "_timer", "_timers", "seconds")

    def __init__(self, timers: Timers, seconds: float) -> None:
        self.seconds = seconds
        self._timers = timers
        self._queue: deque[Waiting] = deque()
        self._limit = _TRIM_FROM
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """How many are held, those that are over included."""
        return len(self._queue)

    def arm(self, waiting: Waiting) -> None:
        """Tell `waiting` when it has waited too long."""
        waiting.deadline = deadline = self._timers.now() + self.seconds
        queue = self._queue
        queue.append(waiting)
        if len(queue) >= self._limit:
            self._trim()
        if self._timer is None:
            self._timer = self._timers.at(deadline, self._sweep)

    def _trim(self) -> None:
        self._queue = deque([one for one in self._queue if one.is_wanted])
        self._limit = max(_TRIM_FROM, 2 * len(self._queue))

    def _sweep(self) -> None:
        self._timer = None
        queue, now = self._queue, self._timers.now()
        while queue and (queue[0].deadline <= now or not queue[0].is_wanted):
            waiting = queue.popleft()
            if waiting.is_wanted:
                waiting.expire(self.seconds)
        self._limit = max(_TRIM_FROM, 2 * len(queue))
        if queue:
            self._timer = self._timers.at(queue[0].deadline, self._sweep)


class Timers:
    """All armed timers of one tree; `run` must be running for them to fire."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._called_off = 0
        self._armed = 0
        self._scope: trio.CancelScope | None = None
        self._patience: dict[float, Patience] = {}
        # trio's clock, without the way to it: that is half of what it costs to look.
        self._clock: trio.abc.Clock | None = None

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

    def now(self) -> float:
        """What `trio.current_time` says."""
        clock = self._clock
        if clock is None:
            self._clock = clock = trio.lowlevel.current_clock()
        return clock.current_time()

    def patience(self, seconds: float) -> Patience | None:
        """What keeps waits of this length; None: there are too many lengths already."""
        patience = self._patience.get(seconds)
        if patience is None and len(self._patience) < _MOST_LENGTHS:
            self._patience[seconds] = patience = Patience(self, seconds)
        return patience

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
                places.TIMER_FIRE.reach()
                callback()
