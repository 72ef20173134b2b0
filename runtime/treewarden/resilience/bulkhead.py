"""So many calls at once and no more, so that one slow thing cannot sink the ship.

`places` decides who gets in; this module lets callers sleep until then, for at most
`max_wait` seconds. The function runs in its caller's task, and its place is given back
however it ends. The limit is a number, or a rule that finds it (`adaptive`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.errors import BulkheadFull

from .bounds import check_count, check_wait
from .kinds import DEFAULT_KINDS, ErrorKind
from .places import Claim, Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from .adaptive import AdaptiveLimit
    from .kinds import ErrorKinds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Ten tenths are a hair more than one.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadShare:
    """What is set apart for a group of callers, and what it has taken, in places."""

    group: str
    set_apart: int
    taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadStatistics:
    """A bulkhead as it stands; counters since it was made.

    `in_flight` calls hold `taken` places, their weights, of `limit`; `rule` says where the
    limit comes from. `entered` = `ended` + `in_flight`. Of those in line, `gave_up` waited
    as long as they may and `left` were cancelled; `refused` found no room in it. Of the
    ended, `dropped` were too slow for the other side, or it had no room for them.
    """

    name: str
    rule: str
    limit: int
    taken: int
    in_flight: int
    queue: int
    waiting: int
    entered: int
    ended: int
    refused: int
    gave_up: int
    left: int
    dropped: int
    shares: tuple[BulkheadShare, ...]


class Bulkhead:
    """At most `limit` calls at once, and `queue` in line, each for `max_wait` seconds.

    Use `call` around one async function, `guard` around a block, `guard_nowait` around a
    block that must not wait. A call may weigh more than one place, and one of a higher
    priority goes before all of a lower.

    `shares` are parts of the limit, in all at most 1, that are set apart for groups of
    callers, by the name of the group. A group may take more than its own while there is
    room, and nobody takes what is another's.
    """

    def __init__(
        self,
        limit: int | AdaptiveLimit,
        queue: int = 100,
        *,
        max_wait: float = 10.0,
        shares: Mapping[str, float] | None = None,
        name: str = "bulkhead",
        kinds: ErrorKinds = DEFAULT_KINDS,
    ) -> None:
        """A bulkhead with nobody in it.

        A limit that adapts takes deadlines, and what `kinds` calls a matter of resources,
        for signs of too much load; other exceptions say nothing about it.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        if isinstance(limit, (int, float)):
            check_count("limit", limit, 1)
        check_count("queue", queue, 0)
        check_wait("max_wait", max_wait)
        own = _checked(shares or {})
        self.name = name
        self.queue = queue
        self.max_wait = max_wait
        self._kinds = kinds
        self._adaptive = None if isinstance(limit, int) else limit
        self._places = Places(limit if isinstance(limit, int) else limit.limit, own)
        self._groups = frozenset(own)
        self._entered = self._ended = self._dropped = 0
        self._refused = self._gave_up = self._left = 0

    @asynccontextmanager
    async def guard(
        self, weight: int = 1, priority: int = 0, group: str = ""
    ) -> AsyncIterator[None]:
        """Hold places while a block runs: `async with bulkhead.guard(): ...`.

        Entering is a checkpoint; cancelled, it leaves the line and holds nothing.

        Raises:
            BulkheadFull: at entry, the line is full, or nobody left in time.
            ValueError: at entry, it weighs more than there ever are, or there is no
                share for its group.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._try(weight, priority, group):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait(weight, priority, group)
        with self._held(weight, group):
            yield

    @contextmanager
    def guard_nowait(
        self, weight: int = 1, priority: int = 0, group: str = ""
    ) -> Iterator[None]:
        """The same with a plain `with`, for who must not wait.

        Raises:
            BulkheadFull, ValueError: at entry; the block did not run.
        """
        if not self._try(weight, priority, group):
            raise self._refuse()
        with self._held(weight, group):
            yield

    async def call(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        weight: int = 1,
        priority: int = 0,
        group: str = "",
    ) -> T:
        """`await fn(*args)` in this task, once there is a place.

        A checkpoint if `fn` is one, or if it had to wait.

        Raises:
            BulkheadFull, ValueError: the function was not called; see `guard`.
        """
        if not self._try(weight, priority, group):
            await self._wait(weight, priority, group)
        began = self._now()
        try:
            result = await fn(*args)
        except BaseException as error:
            self._end(weight, group, began, error)
            raise
        self._end(weight, group, began, None)
        return result

    @contextmanager
    def _held(self, weight: int, group: str) -> Iterator[None]:
        began = self._now()
        try:
            yield
        except BaseException as error:
            self._end(weight, group, began, error)
            raise
        self._end(weight, group, began, None)

    def _now(self) -> float:
        # Only a limit that adapts wants to know.
        return 0.0 if self._adaptive is None else trio.current_time()

    def _try(self, weight: int, priority: int, group: str) -> bool:
        # This way round, what is no number is refused as well.
        if not weight >= 1 or (self._adaptive is None and weight > self._places.limit):
            raise ValueError(
                f"bulkhead {self.name} has {self._places.limit} places, never {weight}"
            )
        if group and group not in self._groups:
            raise ValueError(f"bulkhead {self.name} has no share for {group!r}")
        if not self._places.try_take(weight, priority, group):
            return False
        self._entered += 1
        return True

    def _refuse(self) -> BulkheadFull:
        self._refused += 1
        return BulkheadFull(self.name, self._places.limit, self._places.waiting)

    async def _wait(self, weight: int, priority: int, group: str) -> None:
        if self._places.waiting >= self.queue:
            raise self._refuse()
        claim = _Waiting(weight, priority, group)
        self._places.join(claim)
        try:
            with trio.move_on_after(self.max_wait):
                await claim.turn.wait()
        except BaseException:
            # Nearly always it stands in line still; Ctrl-C may come after its turn did.
            self._left += 1
            self._tell(self._places.withdraw(claim))
            raise
        if not claim.granted:
            self._gave_up += 1
            self._tell(self._places.withdraw(claim))
            places = self._places
            raise BulkheadFull(self.name, places.limit, places.waiting, self.max_wait)
        self._entered += 1

    def _end(
        self, weight: int, group: str, began: float, error: BaseException | None
    ) -> None:
        self._ended += 1
        try:
            if self._adaptive is not None:
                self._learn(self._adaptive, trio.current_time() - began, error)
        finally:
            # Whatever somebody's rule makes of it: the place is free.
            self._tell(self._places.release(weight, group))

    def _learn(
        self, limit: AdaptiveLimit, seconds: float, error: BaseException | None
    ) -> None:
        dropped = error is not None and self._is_about_load(error)
        self._dropped += dropped
        # What failed for another reason, or was cancelled, says nothing about the time.
        if error is None or dropped:
            limit.sample(seconds, self._places.taken, dropped=dropped)
            self._places.limit = max(1, limit.limit)

    def _is_about_load(self, error: BaseException) -> bool:
        if isinstance(error, (trio.TooSlowError, TimeoutError)):
            return True
        return (
            isinstance(error, Exception) and self._kinds.of(error) is ErrorKind.RESOURCE
        )

    def _tell(self, admitted: list[Claim]) -> None:
        for claim in admitted:
            if isinstance(claim, _Waiting):
                claim.turn.set()

    def statistics(self) -> BulkheadStatistics:
        """The bulkhead as it stands."""
        places, rule = self._places, self._adaptive
        return BulkheadStatistics(
            name=self.name,
            rule="fixed" if rule is None else rule.describe(),
            limit=places.limit,
            taken=places.taken,
            in_flight=self._entered - self._ended,
            queue=self.queue,
            waiting=places.waiting,
            entered=self._entered,
            ended=self._ended,
            refused=self._refused,
            gave_up=self._gave_up,
            left=self._left,
            dropped=self._dropped,
            shares=tuple(
                BulkheadShare(
                    group=group,
                    set_apart=places.set_apart(group),
                    taken=places.taken_by(group),
                )
                for group in sorted(self._groups)
            ),
        )


class _Waiting(Claim):
    """A claim that a task sleeps on."""

    __slots__ = ("turn",)

    def __init__(self, weight: int, priority: int, group: str) -> None:
        super().__init__(weight, priority, group)
        self.turn = trio.Event()


def _checked(shares: Mapping[str, float]) -> dict[str, float]:
    for group, share in shares.items():
        if not group or not 0 < share <= 1:
            raise ValueError(
                "shares are parts of 1 by the names of groups, not "
                f"{group!r}: {share!r}"
            )
    if sum(shares.values()) > 1 + _ROUNDING:
        raise ValueError(f"shares must be at most 1 in all, not {dict(shares)}")
    return dict(shares)
