"""The agents that fetch: one address at a time, from the frontier to the index."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from treewarden import (
    Agent,
    AgentError,
    Backoff,
    Buffered,
    BulkheadFull,
    BusError,
    HttpRefused,
    NotRunning,
    StoreError,
)

from .document import absolute, read_page
from .frontier import Errand, Frontier
from .indexer import Indexer
from .web import AGENT, REJECTED, TROUBLE

if TYPE_CHECKING:
    from treewarden import AgentRef, HttpResponse

    from .document import Page
    from .web import Web

_BACKOFF: Final = Backoff(initial=0.2, maximum=2.0, factor=2.0, jitter=0.5)
_IDLE_SECONDS: Final = 0.25
# The site was not asked, so there is no need to be polite to it; the others wait.
_REJECTED_SECONDS: Final = 0.02
# Somebody is being healed: supervisors take milliseconds.
_HEALING_SECONDS: Final = 0.2
# Taking a page apart costs 10 ms a 100 kB, up to half a second: not in trio's thread.
_READING: Final = trio.CapacityLimiter(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a fetcher behaves: seconds between requests, and when it gives up on a page."""

    between: float
    attempts: float


class FetcherState(msgspec.Struct):
    """Counters over all lives of this fetcher, and the last address it fetched."""

    fetched: int = 0
    failed: int = 0
    last: str = ""


class Fetcher(Agent[FetcherState]):
    """Asks the frontier for an address, fetches it, has it indexed, says so; again.

    The order of these steps is the promise (see `frontier`). A step that fails leaves the
    address with the frontier.
    """

    def __init__(self, web: Web, pace: Pace) -> None:
        self._web = web
        self._pace = pace

    async def on_start(self) -> None:
        """Go to work."""
        self.send_after(0.0, Fetcher.work)

    async def work(self) -> None:
        """One address, then the next in a while."""
        try:
            rest = await self._turn()
        except (AgentError, BusError, StoreError, NotRunning) as error:
            # Whoever was to answer is being healed. What this fetcher holds goes back
            # to the queue when it asks for more.
            self.label = f"waiting: {error}"
            rest = _HEALING_SECONDS
        self.send_after(rest, Fetcher.work)

    async def _turn(self) -> float:
        frontier = self.runtime.ref("/frontier", Frontier)
        errand = await frontier.call(Frontier.take, self.path)
        if errand is None:
            self.label = "idle"
            return _IDLE_SECONDS
        self.label = errand.url
        try:
            await self._fetch(errand, frontier)
            return max(self._pace.between, self._patience(errand.url))
        except REJECTED as rejection:
            delay = _BACKOFF.maximum
            if not isinstance(rejection, BulkheadFull):
                delay = rejection.retry_after or delay
            await frontier.call(Frontier.give_back, self.path, errand.url, delay)
            return _REJECTED_SECONDS
        except HttpRefused:
            # Too long for us, and the next time too.
            await frontier.call(Frontier.skip, self.path, errand.url, [])
        except TROUBLE:
            await self._failed(errand, frontier)
        return self._pace.between

    async def _fetch(self, errand: Errand, frontier: AgentRef[Frontier]) -> None:
        """One request, and what follows from it."""
        url = errand.url
        rules = self._web.rules(url)
        if rules is None:
            await self._web.learn_rules(url)
            await frontier.call(Frontier.give_back, self.path, url, 0.0)
            return
        if not rules.can_fetch(AGENT, url):
            await frontier.call(Frontier.skip, self.path, url, [])
            return
        answer = await self._web.get(url)
        kind = answer.headers.get("Content-Type", "")
        if answer.status != 200 or "html" not in kind:
            links = _moved(url, answer)
            await frontier.call(Frontier.skip, self.path, url, links)
            return
        page, found = await trio.to_thread.run_sync(
            read_page, url, answer.text, limiter=_READING
        )
        if not await self._index(page):
            await frontier.call(Frontier.give_back, self.path, url, _BACKOFF.maximum)
            return
        await frontier.call(Frontier.done, self.path, url, list(found))
        self.state.fetched += 1
        self.state.last = url

    async def _index(self, page: Page) -> bool:
        """Whether the page is in the index for certain.

        What the exchange has buffered, because the indexer is in trouble, will be; but if
        the process dies before, it will not. So its address stays on the list, and the
        index takes it once, whoever brings it first.
        """
        indexer = self.runtime.ref("/indexer", Indexer)
        sent = await self.runtime.exchange.send(indexer, Indexer.add, page)
        return not isinstance(sent, Buffered)

    def _patience(self, url: str) -> float:
        """Seconds that the site itself wants between two requests."""
        rules = self._web.rules(url)
        return float(rules.crawl_delay(AGENT) or 0.0) if rules is not None else 0.0

    async def _failed(self, errand: Errand, frontier: AgentRef[Frontier]) -> None:
        self.state.failed += 1
        if errand.attempt >= self._pace.attempts:
            await frontier.call(Frontier.skip, self.path, errand.url, [])
            return
        delay = _BACKOFF.delay(errand.attempt, random.random)
        await frontier.call(Frontier.give_back, self.path, errand.url, delay)


def _moved(url: str, answer: HttpResponse) -> list[str]:
    target = absolute(url, answer.location) if answer.location else None
    return [target] if target is not None else []
