"""Limiters and the cache as parts of a runtime: what they outlive, and what outlives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from treewarden import Agent, Application, ChildSpec, RateLimit, open_runtime
from treewarden.config import Config
from treewarden.errors import RateLimited
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime

KEPT = RateLimit(rate=3, period=3600.0, persist=True)


class Pad(Agent[None]):
    persistence = "none"

    def initial_state(self) -> None:
        return None


APP = Application("app", [ChildSpec("pad", Pad)])


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


async def runs_again(runtime: Runtime, path: str, incarnation: int) -> None:
    def is_ready() -> bool:
        node = runtime.tree()[path]
        return node.incarnation >= incarnation and node.state == "running"

    await wait_until(is_ready, path)


async def test_a_limiter_that_persists_outlives_the_runtime(
    clock: MockClock, tmp_path: Path
) -> None:
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        runtime.limits.limiter("search", KEPT).acquire_nowait("user", weight=2)
        await trio.sleep(2.0)
        # What happens after the last time it was kept is kept at the end.
        runtime.limits.limiter("search").acquire_nowait("user")
    async with open_runtime(APP, config=config) as runtime:
        limiter = runtime.limits.limiter("search", KEPT)
        assert limiter.lane("user").remaining == 0
        with pytest.raises(RateLimited) as refused:
            limiter.acquire_nowait("user")
        assert 3500.0 < refused.value.retry_after <= 3600.0
        runtime.limits.remove("search")
    async with open_runtime(APP, config=config) as runtime:
        assert runtime.limits.limiter("search", KEPT).lane("user").remaining == 3


async def test_h09_limits_outlive_the_part_that_cleans_them_up(
    clock: MockClock, tmp_path: Path
) -> None:
    """H09: the original's limits went with the process that had made them."""
    config = Config(level="volatile", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        limiter = runtime.limits.limiter("search", RateLimit(rate=1, period=3600.0))
        limiter.acquire_nowait()
        for crashes in range(1, 4):
            runtime.injections.crash("/system/limits")
            await runs_again(runtime, "/system/limits", crashes + 1)
            with pytest.raises(RateLimited):
                limiter.acquire_nowait()
            assert runtime.limits.get("search") is limiter
            await trio.sleep(6.0)


async def test_h17_a_cache_that_restarts_is_empty_and_fails_nobody(
    clock: MockClock, tmp_path: Path
) -> None:
    config = Config(level="volatile", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        cache = runtime.cache
        cache.put("page", "text")
        runtime.injections.crash("/system/cache")
        await runs_again(runtime, "/system/cache", 2)
        assert cache.get("page", "default") == "default"
        cache.put("page", "again")
        assert cache.get("page") == "again"
        assert runtime.tree()["/pad"].incarnation == 1
    assert cache.get("page", "default") == "default"
    assert cache.statistics().unavailable == 1


async def test_h17_the_journal_tells_once_that_a_closed_cache_was_asked(
    clock: MockClock, tmp_path: Path
) -> None:
    config = Config(level="volatile", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        runtime.cache.close()
        for _ in range(3):
            assert runtime.cache.get("page", 7) == 7
        # Reports wait for company.
        await trio.sleep(1.0)
        await runtime.store.settled()
        entries = await runtime.store.entries(since=0, limit=1000)
        told = [one for one in entries if one.topic == "cache.closed"]
        assert len(told) == 1
