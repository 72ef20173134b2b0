"""A bus on a store in memory, with everything that it tells."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest
import trio

from treewarden.bus import Bus, StoreJournal
from treewarden.store import Level, Retention, open_store
from treewarden.testing import store_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden.bus import DurableStatistics, DurableSubscription
    from treewarden.store import Store


@dataclass
class Station:
    """A bus that is served, the store under it, and what it told."""

    bus: Bus
    store: Store
    news: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def told(self, topic: str) -> list[dict[str, object]]:
        return [payload for one, payload in self.news if one == topic]

    def durable(self, name: str, owner: str = "") -> DurableSubscription:
        found = self.bus.durable(owner, name)
        assert found is not None
        return found

    def account(self, name: str, owner: str = "") -> DurableStatistics:
        """Its statistics, once it is sure that they add up."""
        one = self.durable(name, owner).statistics()
        assert one.published == one.delivered + one.dropped + one.pending
        assert one.dropped == sum(one.dropped_by.values())
        assert one.pending >= one.leased + one.waiting + one.unread
        return one


class OpenStation(Protocol):
    """Opens a station; given a file, one that goes on where the last one was."""

    def __call__(
        self, file: Path | None = None, retention: Retention | None = None
    ) -> AbstractAsyncContextManager[Station]: ...


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
def open_station(clock: MockClock) -> OpenStation:
    @asynccontextmanager
    async def open_(
        file: Path | None = None, retention: Retention | None = None
    ) -> AsyncIterator[Station]:
        level = Level.VOLATILE if file is None else Level.CRASH_SAFE
        news: list[tuple[str, dict[str, object]]] = []
        async with open_store(file, level=level, retention=retention) as store:
            bus = Bus(
                StoreJournal(store),
                store=store,
                news=lambda topic, payload: news.append((topic, payload)),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.serve)
                yield Station(bus, store, news)
                bus.close()
                nursery.cancel_scope.cancel()

    return open_


@pytest.fixture
async def station(open_station: OpenStation) -> AsyncIterator[Station]:
    async with open_station() as station:
        yield station
