"""The census counts what the frontier announces, whatever dies in between."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from treewarden import Application, ChildSpec, Config, open_runtime
from treewarden.demo.census import Census
from treewarden.demo.frontier import Frontier, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import Runtime

A, B = (f"http://healthy.localhost/{name}" for name in "ab")
C = "http://slow.localhost/c"
HERE, THERE = "healthy.localhost", "slow.localhost"


@asynccontextmanager
async def open_crawl(folder: Path) -> AsyncIterator[Runtime]:
    scope = Scope(seeds=(A, C), limit=100)
    children = [
        ChildSpec("census", Census),
        ChildSpec("frontier", Frontier, args=(scope,)),
    ]
    config = Config(store=folder / "crawl.db", socket=False)
    async with open_runtime(Application("crawl", children), config=config) as runtime:
        yield runtime


async def settle(runtime: Runtime, *urls: str) -> None:
    """Take each address and have it done, twice."""
    frontier = runtime.ref("/frontier", Frontier)
    for url in urls:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.done, "f-1", url, [B])
        await frontier.call(Frontier.done, "f-2", url, [B])


async def wait_counted(runtime: Runtime, pages: int) -> dict[str, int]:
    census = runtime.ref("/census", Census)
    with trio.fail_after(30):
        while (  # noqa: ASYNC110 - it hears of events in its own time
            sum((counts := await census.call(Census.counts)).values()) < pages
        ):
            await trio.sleep(0.005)
    return counts


async def test_each_page_is_counted_once_though_it_is_settled_twice(
    tmp_path: Path,
) -> None:
    async with open_crawl(tmp_path) as runtime:
        await settle(runtime, A, C, B)
        assert await wait_counted(runtime, 3) == {HERE: 2, THERE: 1}
        node = runtime.tree()["/census"]
        assert node.label == "healthy 2, slow 1"


async def test_what_is_announced_while_nobody_counts_is_counted_later_and_once(
    tmp_path: Path,
) -> None:
    async with open_crawl(tmp_path) as runtime:
        await settle(runtime, A)
        await wait_counted(runtime, 1)
        runtime.injections.crash("/census", by="a test")
        await settle(runtime, C)
        await wait_counted(runtime, 2)
        await runtime.supervisor("/application").terminate_child("census")
        await settle(runtime, B)
    async with open_crawl(tmp_path) as runtime:
        assert await wait_counted(runtime, 3) == {HERE: 2, THERE: 1}
        await runtime.ref("/frontier", Frontier).call(Frontier.skip, "f-1", A, [])
        assert await wait_counted(runtime, 3) == {HERE: 2, THERE: 1}


async def test_a_page_that_is_skipped_is_not_announced(tmp_path: Path) -> None:
    async with open_crawl(tmp_path) as runtime:
        frontier = runtime.ref("/frontier", Frontier)
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.skip, "f-1", A, [])
        account = await frontier.call(Frontier.account)
        assert account.announced == 0
        topics = [one.topic for one in await runtime.store.entries(since=0, limit=100)]
        assert "page.indexed" not in topics
