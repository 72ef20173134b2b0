"""Who may not publish for now, because the journal is full of what somebody has not taken."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from treewarden.errors import PublisherPaused

from .policy import durable_id
from .topic import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from treewarden.store import Holding, Owned

_taken: Final[ContextVar[frozenset[Owned]]] = ContextVar("taken", default=frozenset())


@contextmanager
def taking(key: Owned) -> Iterator[None]:
    """Inside of it this task, and those that it starts, take events of a subscription.

    They are not paused: they would wait for themselves.
    """
    before = _taken.get()
    _taken.set(before | {key})
    try:
        yield
    finally:
        _taken.set(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What one durable subscription does to the journal and to publishers.

    It `holds` when the journal is beyond its limits for what is behind its cursor. So many
    publishers wait for it now (`paused`), and so many events of those who could not wait
    were `refused` since the bus began.
    """

    holds: bool
    paused: int
    refused: int


class Pauses:
    """The durable subscriptions that pause publishers now, and the publishers that wait."""

    def __init__(self, news: Callable[[str, dict[str, object]], None]) -> None:
        """`news` is told of each that begins to."""
        self._news = news
        self._pausing: tuple[Holding, ...] = ()
        self._paused = trio.lowlevel.ParkingLot()
        self._waiting: Counter[Owned] = Counter()
        self._refused: Counter[Owned] = Counter()
        self.refused = 0
        """How many events were refused, for the sake of any subscription."""
        self.activity = 0
        """A number that only grows, and has when one of the counts has changed."""

    def update(self, held: Iterable[Holding]) -> None:
        """These have the journal beyond its limits; others have not, or no more."""
        before = {one.key for one in self._pausing}
        self._pausing = tuple(one for one in held if one.pauses)
        for one in self._pausing:
            if one.key not in before:
                self._news(
                    "bus.paused",
                    {"subscription": durable_id(*one.key), "pattern": one.pattern},
                )
        self._paused.unpark_all()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._pausing)

    @property
    def waiting(self) -> int:
        """How many publishers wait."""
        return len(self._paused)

    def waiting_for(self, key: Owned) -> int:
        """How many publishers wait for this subscription."""
        return self._waiting[key]

    def refused_for(self, key: Owned) -> int:
        """How many events were refused for its sake."""
        return self._refused[key]

    def forget(self, key: Owned) -> None:
        """The subscription is no more."""
        self._refused.pop(key, None)

    def check(self, topic: str, taken: Collection[Owned] = ()) -> None:
        """Refuse a publisher who cannot wait, unless he takes the events himself.

        Raises:
            PublisherPaused: one that wants this topic pauses publishers.
        """
        pausing = self._find(topic, taken or _taken.get())
        if pausing is not None:
            self.activity += 1
            self.refused += 1
            self._refused[pausing.key] += 1
            raise PublisherPaused(durable_id(*pausing.key))

    async def wait(self, topic: str) -> None:
        """Until nobody else who wants this topic pauses publishers; no checkpoint if so."""
        while (pausing := self._find(topic, _taken.get())) is not None:
            with self._counted(pausing.key):
                await self._paused.park()

    @contextmanager
    def _counted(self, key: Owned) -> Iterator[None]:
        self.activity += 1
        self._waiting[key] += 1
        try:
            yield
        finally:
            self.activity += 1
            self._waiting[key] -= 1
            # A counter keeps its zeroes, and names may come and go.
            self._waiting += Counter()

    def _find(self, topic: str, taken: Collection[Owned]) -> Holding | None:
        for one in self._pausing:
            if one.key not in taken and matches(one.pattern, topic):
                return one
        return None
