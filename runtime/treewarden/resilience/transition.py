"""A circuit's changes of state, and a bounded queue of them for whoever listens."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .circuit_core import CircuitState


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A circuit changed state: why, when, on whose order, and the window then."""

    name: str
    old: CircuitState
    new: CircuitState
    at_ns: int
    reason: str
    window_calls: int
    window_failures: int
    window_slow: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionFeedStatistics:
    """received = taken + lost + waiting, at all times."""

    received: int
    taken: int
    lost: int
    waiting: int


class TransitionFeed:
    """The transitions since `Circuits.listen`, one at a time: `async for one in feed`.

    For one task. A listener that is slow delays no call and keeps no memory: when
    `capacity` transitions wait, the oldest one is dropped and counted in `lost`.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, not {capacity}")
        self._waiting: deque[Transition] = deque(maxlen=capacity)
        self._news = trio.Event()
        self._received = self._taken = 0

    def put(self, transition: Transition) -> None:
        """Add one; never waits."""
        self._received += 1
        self._waiting.append(transition)
        self._news.set()

    def __aiter__(self) -> TransitionFeed:
        """Itself: what has been taken is gone."""
        return self

    async def __anext__(self) -> Transition:
        """The oldest that waits. Cancelled, nothing is taken."""
        if self._waiting:
            await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._news = trio.Event()
            await self._news.wait()
        self._taken += 1
        return self._waiting.popleft()

    @property
    def lost(self) -> int:
        """How many were dropped because nobody took them."""
        return self._received - self._taken - len(self._waiting)

    def statistics(self) -> TransitionFeedStatistics:
        """How far the listener is."""
        return TransitionFeedStatistics(
            received=self._received,
            taken=self._taken,
            lost=self.lost,
            waiting=len(self._waiting),
        )
