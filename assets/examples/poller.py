"""Polls addresses for ever, four at a time; which ones, and when, survives `kill -9`.

    treewarden run poller:app
    treewarden call polls add url=http://127.0.0.1:8000/
    treewarden call polls found url=http://127.0.0.1:8000/
    treewarden queues

The list of what is to be asked is a durable queue: an address is leased to who asks it, and
goes to the back again, to be taken when it is due. The fetchers hold nothing, so they may
crash: whom they were asking is free again when its lease runs out.
"""

from __future__ import annotations

import hashlib

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    Backoff,
    ChildSpec,
    DurableMap,
    DurableQueue,
    GatewayError,
    HttpPolicy,
    Intensity,
    RateLimit,
    ResilienceError,
    current_runtime,
)

FETCHERS = 4
EVERY_SECONDS = 60.0
IDLE_SECONDS = 0.5
LATER = Backoff(initial=5.0, factor=2.0, maximum=600.0, jitter=0.0)
POLICY = HttpPolicy(
    timeout=20.0, attempt_timeout=5.0, attempts=3, rate=RateLimit(rate=5)
)


class Page(msgspec.Struct, frozen=True):
    """What was there last: the body's hash, or what went wrong and how often in a row."""

    hash: str = ""
    error: str = ""
    failures: int = 0


class Counts(msgspec.Struct):
    """How often something else was there than before."""

    changes: int = 0


class Polls(Agent[Counts]):
    """Which addresses are asked, when, and what was there."""

    queue: DurableQueue[str]
    pages: DurableMap[str, Page]

    async def add(self, url: str) -> bool:
        """Ask this address from now on; False if it is asked already."""
        return await self.queue.put(url, key=url)

    async def take(self) -> str | None:
        """An address that is due, to be asked within a minute; None when none is."""
        item = await self.queue.take(lease=60.0)
        return item.value if item is not None else None

    async def done(self, url: str, hash: str) -> None:  # noqa: A002 - as in Page
        """It answered; it is due again in a while."""
        before = await self.pages.get(url)
        if before is not None and before.hash != hash:
            self.state.changes += 1
            self.publish("page.changed", {"url": url})
        await self.pages.set(url, Page(hash=hash))
        await self.queue.nack(url, EVERY_SECONDS)

    async def failed(self, url: str, error: str) -> None:
        """It did not; it is due again later, and later each time."""
        page = await self.pages.get(url) or Page()
        failures = page.failures + 1
        await self.pages.set(url, Page(page.hash, error, failures))
        await self.queue.nack(url, LATER.delay(failures, lambda: 0.0))

    async def found(self, url: str) -> Page | None:
        """What was there last."""
        return await self.pages.get(url)


async def fetch() -> None:
    """Ask what is due, one address after the other."""
    runtime = current_runtime()
    polls = runtime.ref("polls", Polls)
    http = runtime.http.client("pages", policy=POLICY)
    while True:
        url = await polls.call(Polls.take)
        if url is None:
            await trio.sleep(IDLE_SECONDS)
            continue
        try:
            answer = await http.get(url)
        except (GatewayError, ResilienceError) as error:
            await polls.call(Polls.failed, url, str(error))
        else:
            hash_ = hashlib.sha256(answer.body).hexdigest()
            await polls.call(Polls.done, url, hash_)


# A fetcher that finds nobody to talk to crashes, and tries again in a while: its budget is
# its own, so that it never costs anybody else anything.
app = Application(
    "poller",
    [
        ChildSpec("polls", Polls),
        *(
            ChildSpec(
                f"fetcher-{number}",
                fetch,
                intensity=Intensity(10, 60.0),
                backoff=Backoff(initial=0.1, maximum=10.0),
            )
            for number in range(1, FETCHERS + 1)
        ),
    ],
)
