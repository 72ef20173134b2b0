"""A second attempt beside a slow first one; the answer that comes first counts.

Of many calls the slowest few are slow by bad luck: a busy replica, a lost packet. Asking
again then, while the first attempt goes on, cuts the tail for a few per cent more load
(Dean and Barroso, "The Tail at Scale", 2013). Only for calls that may run twice: nobody
can tell how far the loser came. So it is opt-in, and bounded: the second attempt begins
when the first has taken longer than 95 % of the calls lately, and to at most 5 % of all
calls, so that a service that has become slow as a whole is not asked twice for everything.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, TypeVarTuple, Unpack

import trio

from .bounds import check_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SAMPLES: Final = 256
"""Latest calls by which the delay is found."""
_LOOK_EVERY: Final = 16
"""Calls after which it is found anew: sorting 256 numbers costs as much as a call."""
_CREDIT: Final = 10.0
"""Hedges that may be saved up. More, and a bad minute after a good day is asked twice."""


class Latencies:
    """How long calls took lately, and a quantile of that."""

    __slots__ = ("_fresh", "_least", "_quantile", "_samples", "value")

    def __init__(self, quantile: float, least: int) -> None:
        self._quantile = quantile
        self._least = least
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._fresh = 0
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """One call more."""
        self._samples.append(seconds)
        self._fresh += 1
        enough = len(self._samples) >= self._least
        if enough and (self.value is None or self._fresh >= _LOOK_EVERY):
            self._fresh = 0
            ordered = sorted(self._samples)
            # The smallest that so many are not above.
            self.value = ordered[math.ceil(self._quantile * len(ordered)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeStatistics:
    """A hedge as it stands; counters since it was made.

    `hedged` calls had a second attempt, in `won` of them it was first; for `held_back` it
    was time, but not within the share. `delay` is None until enough calls were seen.
    """

    name: str
    delay: float | None
    share: float
    calls: int
    hedged: int
    won: int
    held_back: int


class Hedge:
    """Calls a function, and once more beside it when it is slow.

    `delay` None is found from the calls themselves: what `quantile` of the last 256 did
    not exceed, once there were `least` of them. At most `share` of all calls are hedged.
    What fails is not tried again: that is a `Retry`'s business.
    """

    def __init__(
        self,
        *,
        delay: float | None = None,
        quantile: float = 0.95,
        least: int = 20,
        share: float = 0.05,
        name: str = "call",
    ) -> None:
        """A hedge that has seen no call.

        Raises:
            TypeError, ValueError: a number makes no sense; the message shows it.
        """
        if delay is not None and not (math.isfinite(delay) and delay > 0):
            raise ValueError(f"delay must be > 0 seconds and finite, not {delay}")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must be between 0 and 1, not {quantile}")
        check_count("least", least, 1)
        if least > _SAMPLES:
            raise ValueError(f"least must be between 1 and {_SAMPLES}, not {least}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self.name = name
        self.share = share
        self._fixed = delay
        self._latencies = Latencies(quantile, least)
        self._credit = 0.0
        self._calls = self._hedged = self._won = self._held_back = 0

    @property
    def delay(self) -> float | None:
        """Seconds until a second attempt; None while too few calls were seen."""
        return self._fixed if self._fixed is not None else self._latencies.value

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """`await fn(*args)`, perhaps twice at once; `fn` must be safe to run twice.

        The attempt that is not needed is cancelled, and has ended when this returns. With
        two attempts, one that fails leaves the other to decide; when both fail, it is the
        first one's exception that comes out. `fn` runs in tasks of its own.
        """
        self._calls += 1
        self._credit = min(_CREDIT, self._credit + self.share)
        delay, began = self.delay, trio.current_time()
        if delay is None:
            result = await fn(*args)
        else:
            result = await self._race(delay, fn, *args)
        if self._fixed is None:
            self._latencies.add(trio.current_time() - began)
        return result

    async def _race(
        self, delay: float, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts
    ) -> T:
        race = _Race(partial(fn, *args))
        async with trio.open_nursery() as nursery:
            race.begin(nursery)
            with trio.move_on_after(delay):
                await race.over.wait()
            if not race.over.is_set() and self._may_hedge():
                race.begin(nursery)
        self._won += race.winner == 1
        return race.outcome()

    def _may_hedge(self) -> bool:
        # Sums of shares that are no binary fractions fall short by a hair.
        if self._credit < 1 - 1e-9:
            self._held_back += 1
            return False
        self._credit -= 1
        self._hedged += 1
        return True

    def statistics(self) -> HedgeStatistics:
        """How often a second attempt was made, and how often it paid."""
        return HedgeStatistics(
            name=self.name,
            delay=self.delay,
            share=self.share,
            calls=self._calls,
            hedged=self._hedged,
            won=self._won,
            held_back=self._held_back,
        )


class _Race(Generic[T]):
    """The attempts of one call, each in a task of the same nursery."""

    def __init__(self, fn: Callable[[], Awaitable[T]]) -> None:
        self._fn = fn
        self._results: list[T] = []
        self._errors: dict[int, Exception] = {}
        self._begun = 0
        self.winner: int | None = None
        self.over = trio.Event()

    def begin(self, nursery: trio.Nursery) -> None:
        """One attempt more."""
        nursery.start_soon(self._attempt, self._begun, nursery.cancel_scope)
        self._begun += 1

    async def _attempt(self, number: int, others: trio.CancelScope) -> None:
        try:
            result = await self._fn()
        except Exception as error:  # noqa: BLE001 - raised by `outcome`, in the caller's task
            self._errors[number] = error
            if len(self._errors) == self._begun:
                self.over.set()
            return
        if self.winner is None:
            self.winner = number
            self._results.append(result)
            self.over.set()
            others.cancel()

    def outcome(self) -> T:
        """What the winner returned, or what the first attempt raised."""
        if self._results:
            return self._results[0]
        raise self._errors[0]
