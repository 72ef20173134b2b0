"""The frontier's promises, with a real store under it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from treewarden import Application, ChildSpec, Config, open_runtime
from treewarden.demo.frontier import Account, Errand, Frontier, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import AgentRef

A, B, C = (f"http://healthy.localhost/{name}" for name in "abc")
ELSEWHERE = "http://example.org/"


@asynccontextmanager
async def open_frontier(
    folder: Path, *, limit: int = 100
) -> AsyncIterator[AgentRef[Frontier]]:
    scope = Scope(seeds=(A,), limit=limit)
    app = Application("crawl", [ChildSpec("frontier", Frontier, args=(scope,))])
    config = Config(store=folder / "crawl.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime.ref("/frontier", Frontier)


def account(*, found: int, pending: int, held: int = 0, skipped: int = 0) -> Account:
    done = found - pending - skipped
    return Account(
        found=found, pending=pending, held=held, skipped=skipped, announced=done
    )


async def test_an_address_is_found_once_however_often_it_is_linked(
    tmp_path: Path,
) -> None:
    async with open_frontier(tmp_path) as frontier:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.done, "f-1", A, [B, A, B, ELSEWHERE])
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.done, "f-1", B, [A, B])
        assert await frontier.call(Frontier.account) == account(found=2, pending=0)
        assert await frontier.call(Frontier.take, "f-1") is None


async def test_an_address_goes_to_one_fetcher_at_a_time(tmp_path: Path) -> None:
    async with open_frontier(tmp_path) as frontier:
        errand = await frontier.call(Frontier.take, "f-1")
        assert errand == Errand(url=A, attempt=1)
        assert await frontier.call(Frontier.take, "f-2") is None
        expected = account(found=1, pending=1, held=1)
        assert await frontier.call(Frontier.account) == expected


async def test_a_fetcher_that_asks_again_unsettled_gives_its_address_back(
    tmp_path: Path,
) -> None:
    async with open_frontier(tmp_path) as frontier:
        await frontier.call(Frontier.take, "f-1")
        errand = await frontier.call(Frontier.take, "f-1")
        assert errand == Errand(url=A, attempt=2)


async def test_an_address_that_was_given_back_can_be_taken_by_another(
    tmp_path: Path,
) -> None:
    async with open_frontier(tmp_path) as frontier:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.give_back, "f-1", A, 0.0)
        errand = await frontier.call(Frontier.take, "f-2")
        assert errand == Errand(url=A, attempt=2)


async def test_settling_twice_counts_once(tmp_path: Path) -> None:
    async with open_frontier(tmp_path) as frontier:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.skip, "f-1", A, [])
        await frontier.call(Frontier.skip, "f-2", A, [])
        expected = account(found=1, pending=0, skipped=1)
        assert await frontier.call(Frontier.account) == expected


async def test_no_more_addresses_are_taken_up_than_the_limit(tmp_path: Path) -> None:
    async with open_frontier(tmp_path, limit=2) as frontier:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.done, "f-1", A, [B, C])
        assert await frontier.call(Frontier.account) == account(found=2, pending=1)


async def test_after_a_restart_what_was_held_is_free_and_what_was_done_is_not(
    tmp_path: Path,
) -> None:
    async with open_frontier(tmp_path) as frontier:
        await frontier.call(Frontier.take, "f-1")
        await frontier.call(Frontier.done, "f-1", A, [B])
        await frontier.call(Frontier.take, "f-1")
    async with open_frontier(tmp_path) as frontier:
        errand = await frontier.call(Frontier.take, "f-2")
        assert errand == Errand(url=B, attempt=2)
        await frontier.call(Frontier.done, "f-2", B, [A])
        assert await frontier.call(Frontier.take, "f-2") is None
