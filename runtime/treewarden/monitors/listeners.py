"""Who is told of news: each apart from the others, in a bounded time, from a bounded queue.

Whoever has news never waits for those who listen, and nothing that they do comes back to
it: a listener that is slow, hangs or raises costs its own queue and nothing else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from treewarden.agents import Estates, owner_of_caller
from treewarden.exits import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.registry import Owner

    from .crew import Crew, Errand

T = TypeVar("T")

# Listeners of one kind; the next is refused.
_LIMIT: Final = 1000
# News that wait for one listener; then the oldest is dropped, counted.
_CAPACITY: Final = 100
# Seconds that a listener has for one piece of news.
_DEADLINE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenersStatistics:
    """sent = told + failed + late + dropped + forgotten + waiting (+ 1 being told each).

    `late` ones took longer than their deadline; `forgotten` waited for a listener that
    left, or were being told to it. `last_fault` is of the last one that raised.
    """

    listeners: int
    sent: int
    told: int
    failed: int
    late: int
    dropped: int
    forgotten: int
    waiting: int
    last_fault: Fault | None


class _Listener(Generic[T]):
    __slots__ = ("arrived", "errand", "owner", "tell", "waiting")

    def __init__(self, tell: Callable[[T], Awaitable[object]], owner: Owner) -> None:
        self.tell = tell
        self.owner = owner
        self.waiting: deque[T] = deque()
        self.arrived = trio.Event()
        self.errand: Errand | None = None


class Listeners(Generic[T]):
    """The listeners to one kind of news."""

    def __init__(self, crew: Crew, name: str, *, deadline: float = _DEADLINE) -> None:
        """`name` is for people, in the paths of their tasks."""
        self._crew = crew
        self._name = name
        self._deadline = deadline
        self._listeners: dict[Callable[[T], Awaitable[object]], _Listener[T]] = {}
        self._estates: Estates[_Listener[T]] = Estates(self._leave)
        self._sent = self._told = self._failed = self._late = 0
        self._dropped = self._forgotten = 0
        self._last_fault: Fault | None = None

    def add(
        self,
        tell: Callable[[T], Awaitable[object]],
        *,
        owner: Owner | None = None,
    ) -> None:
        """Have `await tell(news)` run for each piece of news from now on, in order.

        It runs in a task of its own, for at most the deadline each time. It is forgotten
        with its `owner`: the running child or, for a plain task, an `OwnerScope`.

        Raises:
            NotRunning: there is no owner, or it has ended.
            ValueError: it listens already, or there are too many.
        """
        listener = self._join(tell, owner)
        name = getattr(tell, "__qualname__", "listener")

        async def serve() -> None:
            await self._serve(listener)

        listener.errand = self._crew.want(f"{self._name}.{name}", serve)

    async def serve(self, tell: Callable[[T], Awaitable[object]]) -> None:
        """As `add`, in this task: for children that do nothing else. Never returns.

        Raises:
            NotRunning, ValueError: see `add`.
        """
        await self._serve(self._join(tell, None))

    def _join(
        self, tell: Callable[[T], Awaitable[object]], owner: Owner | None
    ) -> _Listener[T]:
        if tell in self._listeners:
            raise ValueError(f"{tell!r} listens already")
        if len(self._listeners) >= _LIMIT:
            raise ValueError(f"there are {_LIMIT} listeners, and one more is too many")
        listener = _Listener(tell, owner_of_caller(owner))
        self._listeners[tell] = listener
        self._estates.add(listener.owner, listener)
        return listener

    def remove(self, tell: Callable[[T], Awaitable[object]]) -> bool:
        """Tell it no more; whether it listened."""
        listener = self._listeners.get(tell)
        if listener is None:
            return False
        self._estates.drop(listener.owner, listener)
        self._leave(listener)
        return True

    def tell(self, news: T) -> None:
        """Tell everybody, later; never waits and never raises."""
        for listener in self._listeners.values():
            self._sent += 1
            if len(listener.waiting) >= _CAPACITY:
                listener.waiting.popleft()
                self._dropped += 1
            listener.waiting.append(news)
            listener.arrived.set()

    def _leave(self, listener: _Listener[T]) -> None:
        del self._listeners[listener.tell]
        self._forgotten += len(listener.waiting)
        listener.waiting.clear()
        if listener.errand is not None:
            self._crew.dismiss(listener.errand)

    async def _serve(self, listener: _Listener[T]) -> None:
        while True:
            while not listener.waiting:
                listener.arrived = trio.Event()
                await listener.arrived.wait()
            await self._tell_one(listener, listener.waiting.popleft())

    async def _tell_one(self, listener: _Listener[T], news: T) -> None:
        try:
            with trio.move_on_after(self._deadline) as scope:
                try:
                    await listener.tell(news)
                except Exception as error:  # noqa: BLE001 - a listener fails alone
                    self._failed += 1
                    self._last_fault = Fault.capture(error)
                else:
                    self._told += 1
        except BaseException:
            # It was called off while it was told.
            self._forgotten += 1
            raise
        if scope.cancelled_caught:
            self._late += 1
        # One that never waits must not keep the rest from running.
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ListenersStatistics:
        """How they fare, all together."""
        return ListenersStatistics(
            listeners=len(self._listeners),
            sent=self._sent,
            told=self._told,
            failed=self._failed,
            late=self._late,
            dropped=self._dropped,
            forgotten=self._forgotten,
            waiting=sum(len(one.waiting) for one in self._listeners.values()),
            last_fault=self._last_fault,
        )
