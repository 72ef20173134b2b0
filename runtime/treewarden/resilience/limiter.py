"""Waiting for a permit: the thin part of a rate limit.

`rate_limit` says when a permit can be had and `lane` whose turn it is; this module reads
the clock and puts callers to sleep. Only the first in a line is woken when its turn should
have come; everybody whose turn has come is told then, and the next one is to be woken. So
there is no task of our own, and a wake-up gives as many permits as are due.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.errors import RateLimited

from .kept_limiter import KeptLane, KeptLimiter
from .lane import Lane, Ticket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .rate_limit import RateLimit

# Telling of so many keys takes about 4 ms of the loop's time, once a second.
_DUMPED_KEYS: Final = 500

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStatistics:
    """A limiter as it stands; counters since it was made.

    `granted` and `refused` count callers, `permits` their weights. `waiting` stand in line
    now; of those that did, `gave_up` had waited as long as the limit allows and `left`
    were cancelled. `penalised` counts the calls of `penalise`; `penalty` is the longest
    that any key is still to be left alone, in seconds. `forgotten` keys had used something
    when they had to make room.
    """

    name: str
    limit: str
    keys: int
    granted: int
    permits: int
    refused: int
    waited: int
    waiting: int
    gave_up: int
    left: int
    penalised: int
    penalty: float
    forgotten: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatistics:
    """One key of a limiter: what is left of its capacity, and when one more could go.

    `retry_after` and `penalty` are in seconds; 0.0 is now.
    """

    key: str
    capacity: int
    remaining: int
    waiting: int
    retry_after: float
    penalty: float


class Limiter:
    """Lets callers through no faster than its limit; each key is counted apart.

    `acquire` waits in line, `acquire_nowait` takes a permit or raises, `reserve` takes a
    place in the line for later, `call` runs a function once it has a permit. Permits are
    not given back: they come again with time. First come, first served.
    """

    def __init__(self, limit: RateLimit, name: str = "limiter") -> None:
        """A limiter of which nothing is used."""
        self.name = name
        self.limit = limit
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._granted = self._permits = self._refused = self._waited = 0
        self._gave_up = self._left = self._forgotten = self._penalised = 0
        self._keys_changed = 0

    # --- permits ---------------------------------------------------------------------------

    def acquire_nowait(self, key: str = "", weight: int = 1) -> None:
        """Take a permit without waiting.

        Raises:
            RateLimited: there is none, or others wait for the next one.
            ValueError: the weight is more than there ever is at once.
        """
        now = trio.current_time()
        lane = self._lane(key, now)
        if not self._try(lane, weight, now):
            self._refused += 1
            raise RateLimited(self.name, lane.delay(now, weight))

    async def acquire(self, key: str = "", weight: int = 1) -> None:
        """Wait in line for a permit; a checkpoint in any case.

        Cancelled, it leaves the line and nothing was taken.

        Raises:
            RateLimited: the line is full, or its end is further off than `max_wait`;
                or it has become so, by a penalty, while this waited.
            ValueError: the weight is more than there ever is at once.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        lane = self._lane(key, now)
        if self._try(lane, weight, now):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait(self._join(lane, weight, now))

    def reserve(self, key: str = "", weight: int = 1) -> Reservation:
        """A place at the end of the line, to be waited for later or left again.

        Its turn comes, and its permit is spent, whether or not somebody waits for it then.

        Raises:
            RateLimited, ValueError: as `acquire`.
        """
        now = trio.current_time()
        lane = self._lane(key, now)
        if self._try(lane, weight, now):
            place = _Place(lane, weight, now, 0.0)
            place.granted = True
        else:
            place = self._join(lane, weight, now)
        return Reservation(self, place)

    async def call(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        key: str = "",
        weight: int = 1,
    ) -> T:
        """`await fn(*args)` in this task, once it has a permit.

        A checkpoint if `fn` is one, or if it had to wait.

        Raises:
            RateLimited: the function was not called; see `acquire`.
        """
        now = trio.current_time()
        lane = self._lane(key, now)
        if not self._try(lane, weight, now):
            await self._wait(self._join(lane, weight, now))
        return await fn(*args)

    def penalise(self, until: float, key: str = "") -> None:
        """Let nobody through before the instant `until` of trio's clock; 429 has told us.

        It is only ever extended: an earlier instant changes nothing.

        Raises:
            RateLimited: there is no room for one more key; all others are waited for.
            ValueError: that is no instant; nobody could ever take back a penalty for ever.
        """
        if not math.isfinite(until):
            raise ValueError(f"until must be an instant that comes, not {until}")
        now = trio.current_time()
        lane = self._lane(key, now)
        lane.penalise(until)
        self._penalised += 1
        self._arm(lane, now)

    def _try(self, lane: Lane, weight: int, now: float) -> bool:
        if not 0 < weight <= self.limit.capacity:
            raise ValueError(
                f"limiter {self.name} gives 1 to {self.limit.capacity} permits at once,"
                f" never {weight}"
            )
        if not lane.try_take(now, weight):
            return False
        self._granted += 1
        self._permits += weight
        return True

    # --- the line --------------------------------------------------------------------------

    def _join(self, lane: Lane, weight: int, now: float) -> _Place:
        delay = lane.delay(now, weight)
        if lane.waiting >= self.limit.queue or delay > self.limit.max_wait:
            self._refused += 1
            raise RateLimited(self.name, delay)
        place = _Place(lane, weight, now, delay)
        lane.join(place)
        self._waited += 1
        return place

    async def _wait(self, place: _Place) -> None:
        if place.granted:
            await trio.lowlevel.checkpoint()
            return
        if place.attended or place not in place.lane:
            raise RuntimeError("a place in a line is waited for once")
        place.attended = True
        place.gives_up_at = trio.current_time() + self.limit.max_wait
        try:
            while not place.granted and trio.current_time() < place.gives_up_at:
                await self._sleep(place)
        except BaseException:
            self._left += 1
            self._leave(place)
            raise
        if not place.granted:
            self._gave_up += 1
            self._leave(place)
            delay = place.lane.delay(trio.current_time(), place.weight)
            raise RateLimited(self.name, delay)

    async def _sleep(self, place: _Place) -> None:
        with trio.CancelScope(deadline=place.gives_up_at) as place.scope:
            self._arm(place.lane, trio.current_time())
            await place.turn.wait()
        place.scope = None
        if not place.granted:
            self._settle(place.lane, trio.current_time())

    def _cancel(self, place: _Place) -> bool:
        self._settle(place.lane, trio.current_time())
        if place.attended or place not in place.lane:
            return False
        self._left += 1
        self._leave(place)
        return True

    def _leave(self, place: _Place) -> None:
        """Close the gap; who stood behind a heavy one may be ready at once."""
        place.lane.leave(place)
        self._settle(place.lane, trio.current_time())

    def _settle(self, lane: Lane, now: float) -> None:
        """Tell those whose turn has come, and give the timer to the next one."""
        for ticket in lane.settle(now):
            self._granted += 1
            self._permits += ticket.weight
            if isinstance(ticket, _Place):
                ticket.turn.set()
        self._arm(lane, now)

    def _arm(self, lane: Lane, now: float) -> None:
        head = lane.head()
        if isinstance(head, _Place):
            head.look_at(lane.due(now))

    # --- keys ------------------------------------------------------------------------------

    def _lane(self, key: str, now: float) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            return self._add(key, now)
        self._lanes.move_to_end(key)
        if lane.waiting:
            self._settle(lane, now)
        return lane

    def _add(self, key: str, now: float) -> Lane:
        if len(self._lanes) >= self.limit.max_keys:
            self._make_room(now)
        lane = self._lanes[key] = Lane(self.limit.rule())
        self._keys_changed += 1
        return lane

    def _make_room(self, now: float) -> None:
        for key, lane in self._lanes.items():
            if lane.waiting:
                self._settle(lane, now)
            if not lane.waiting:
                self._forgotten += not lane.is_quiet(now)
                del self._lanes[key]
                self._keys_changed += 1
                return
        self._refused += 1
        soonest = min(lane.due(now) for lane in self._lanes.values())
        raise RateLimited(self.name, max(0.0, soonest - now))

    def clean_up(self) -> int:
        """Forget the keys that a fresh start would treat the same; how many there were.

        Nothing depends on it but memory.
        """
        now = trio.current_time()
        for lane in list(self._lanes.values()):
            if lane.waiting:
                self._settle(lane, now)
        quiet = [key for key, lane in self._lanes.items() if lane.is_quiet(now)]
        for key in quiet:
            del self._lanes[key]
        self._keys_changed += len(quiet)
        return len(quiet)

    # --- across processes ------------------------------------------------------------------

    def dump(self, now_ns: int) -> KeptLimiter:
        """What is used, for `load` in another process; `now_ns` is wall time.

        Of the keys used last, as many as can be told without holding the loop for long.
        """
        now = trio.current_time()
        used = {}
        for key, lane in islice(reversed(self._lanes.items()), _DUMPED_KEYS):
            if not lane.is_quiet(now):
                used[key] = KeptLane(*lane.dump(now))
        return KeptLimiter(
            at_ns=now_ns,
            limit=self.limit.describe(),
            keys=used,
            period=self.limit.period,
        )

    def load(self, kept: KeptLimiter, now_ns: int) -> None:
        """Take up what `dump` has told, as much of it as time has not undone.

        What was used of another limit is forgotten; who is to be left alone still is.
        """
        now, passed = trio.current_time(), kept.passed(now_ns)
        # The one used last was told first.
        for key, lane in reversed(kept.keys.items()):
            taken = lane.taken if kept.limit == self.limit.describe() else []
            self._lane(key, now).load(
                now,
                lane.penalty - passed,
                [(age + passed, weight) for age, weight in taken],
            )

    # --- what there is to see --------------------------------------------------------------

    def lane(self, key: str = "") -> LaneStatistics:
        """One key as it stands; looking does not make it known."""
        now = trio.current_time()
        lane = self._lanes.get(key)
        if lane is None:
            lane = Lane(self.limit.rule())
        elif lane.waiting:
            self._settle(lane, now)
        capacity = self.limit.capacity
        return LaneStatistics(
            key=key,
            capacity=capacity,
            remaining=max(0, capacity - lane.used(now)),
            waiting=lane.waiting,
            retry_after=lane.delay(now, 1),
            penalty=lane.penalty(now),
        )

    def statistics(self) -> LimiterStatistics:
        """The limiter as it stands."""
        now = trio.current_time()
        lanes = self._lanes.values()
        return LimiterStatistics(
            name=self.name,
            limit=self.limit.describe(),
            keys=len(lanes),
            granted=self._granted,
            permits=self._permits,
            refused=self._refused,
            waited=self._waited,
            waiting=sum(lane.waiting for lane in lanes),
            gave_up=self._gave_up,
            left=self._left,
            penalised=self._penalised,
            penalty=max((lane.penalty(now) for lane in lanes), default=0.0),
            forgotten=self._forgotten,
        )

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        ended = self._granted + self._refused + self._gave_up + self._left
        return ended + self._waited + self._penalised + self._keys_changed


class _Place(Ticket):
    """A ticket that a task can sleep on."""

    __slots__ = ("gives_up_at", "lane", "scope", "told_at", "turn")

    def __init__(self, lane: Lane, weight: int, now: float, delay: float) -> None:
        super().__init__(weight, now)
        self.lane = lane
        self.told_at = now + delay
        self.gives_up_at = math.inf
        self.turn = trio.Event()
        self.scope: trio.CancelScope | None = None

    def look_at(self, instant: float) -> None:
        """Wake up then, to see whose turn it is: this is the first in line."""
        if self.scope is not None:
            self.scope.deadline = min(instant, self.gives_up_at)


class Reservation:
    """A place in a limiter's line; made by `Limiter.reserve`."""

    __slots__ = ("_limiter", "_place")

    def __init__(self, limiter: Limiter, place: _Place) -> None:
        self._limiter = limiter
        self._place = place

    @property
    def delay(self) -> float:
        """Seconds until its turn, as far as could be told; those before it may leave."""
        return max(0.0, self._place.told_at - trio.current_time())

    async def wait(self) -> None:
        """Wait for its turn; a checkpoint in any case. Cancelled, it leaves the line.

        Raises:
            RateLimited: its turn was put off, by a penalty, beyond `max_wait`.
            RuntimeError: somebody waits for it already, or it has left the line.
        """
        await self._limiter._wait(self._place)  # noqa: SLF001 - the two are one mechanism

    def cancel(self) -> bool:
        """Leave the line; False when its turn has come, and its permit is spent.

        Whoever waits for it is cancelled by its own scope, not by this.
        """
        return self._limiter._cancel(self._place)  # noqa: SLF001
