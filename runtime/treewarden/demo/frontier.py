"""The agent that knows what is to be fetched: addresses found, and those still to do.

Why nothing is lost and nothing indexed twice, whenever the process dies. An address is
leased, not removed. Its page is committed to the index first; only then does the fetcher
say `done`, and one commit removes the address and adds what its page links to. A death
before that commit leaves the address in the queue: it is fetched again, and the index,
which takes an address once, changes nothing. A death after it leaves nothing to do. The
same commit announces the page (`INDEXED`), so there is one event for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from treewarden import Agent, DurableQueue

INDEXED: Final = "page.indexed"
"""The topic of `Indexed`."""

# A fetcher that is alive asks again long before; this is for one that is gone for good.
_LEASE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What belongs to a crawl: where it begins, and how many addresses it may take up.

    Only addresses on the hosts of the seeds belong to it.
    """

    seeds: tuple[str, ...]
    limit: int

    def includes(self, url: str) -> bool:
        """Whether the address is on one of the seeds' hosts."""
        return urlsplit(url).netloc in {urlsplit(seed).netloc for seed in self.seeds}


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """An address to fetch; `attempt` counts from 1."""

    url: str
    attempt: int


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """A page is in the index: where it is, on which host, how many addresses it links to."""

    url: str
    host: str
    links: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Where a crawl stands, in addresses: found = done + skipped + pending.

    `held` of those that are pending are with a fetcher now; `announced` of those that are
    done were told of in an event (all, unless the store is from before there were any).
    """

    found: int
    pending: int
    held: int
    skipped: int
    announced: int


class FrontierState(msgspec.Struct):
    """Counters of the whole crawl, and who holds which address."""

    done: int = 0
    announced: int = 0
    skipped: int = 0
    given_back: int = 0
    held: dict[str, str] = msgspec.field(default_factory=dict)


class Frontier(Agent[FrontierState]):
    """Hands out addresses, each to one fetcher at a time, until all are done."""

    store_as: ClassVar[str] = "Frontier"

    pending: DurableQueue[str]
    # A queue that nobody takes from is a set, one row an address.
    seen: DurableQueue[str]

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    async def on_start(self) -> None:
        """Begin with the seeds; on a later start they are known already."""
        await self.seen.open()
        await self.pending.open()
        await self._find(self._scope.seeds)

    async def take(self, fetcher: str) -> Errand | None:
        """The next address for this fetcher, or None when there is none now.

        A fetcher holds one at a time. If it asks without having settled the last one, it
        died over it, or its answer was lost: that one goes back to the queue first.
        """
        left = self.state.held.pop(fetcher, None)
        if left is not None:
            await self.pending.nack(left)
        item = await self.pending.take(lease=_LEASE_SECONDS)
        if item is None:
            return None
        self.state.held[fetcher] = item.key
        return Errand(url=item.value, attempt=item.attempts)

    async def done(self, fetcher: str, url: str, links: list[str]) -> None:
        """The page is in the index, and this is what it links to."""
        if await self._settle(fetcher, url):
            self.state.done += 1
            host = urlsplit(url).netloc
            self.state.announced += 1
            self.publish(INDEXED, Indexed(url=url, host=host, links=len(links)))
        await self._find(links)

    async def skip(self, fetcher: str, url: str, links: list[str]) -> None:
        """There is no page at this address, and never will be; `links`: where it went."""
        if await self._settle(fetcher, url):
            self.state.skipped += 1
        await self._find(links)

    async def give_back(self, fetcher: str, url: str, delay: float) -> None:
        """It could not be fetched now; somebody tries again in `delay` seconds."""
        self.state.held.pop(fetcher, None)
        if await self.pending.nack(url, delay):
            self.state.given_back += 1

    async def account(self) -> Account:
        """Where the crawl stands."""
        return Account(
            found=len(self.seen),
            pending=len(self.pending),
            held=len(self.state.held),
            skipped=self.state.skipped,
            announced=self.state.announced,
        )

    async def _settle(self, fetcher: str, url: str) -> bool:
        """Take an address off the list; False if somebody else did so before."""
        self.state.held.pop(fetcher, None)
        return await self.pending.ack(url)

    async def _find(self, urls: tuple[str, ...] | list[str]) -> None:
        for url in urls:
            if len(self.seen) >= self._scope.limit:
                return
            if self._scope.includes(url) and await self.seen.put(url, key=url):
                await self.pending.put(url, key=url)
