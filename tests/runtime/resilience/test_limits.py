"""All limiters of a runtime, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden.errors import RateLimited
from treewarden.resilience import (
    Limiter,
    Limits,
    RateLimit,
    kept_limiter,
    limiter_is_over,
    limits,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

LIMIT = RateLimit(rate=2, period=60.0)
KEPT = RateLimit(rate=2, period=60.0, persist=True)


class Memory:
    """What outlives a `Limits`, as the store does."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.written = 0

    def kept(self, name: str) -> bytes | None:
        return self.states.get(name)

    def keep(self, name: str, state: bytes | None) -> None:
        self.written += 1
        if state is None:
            self.states.pop(name, None)
        else:
            self.states[name] = state


def test_a_name_has_one_limiter() -> None:
    all_limits = Limits()
    limiter = all_limits.limiter("search", LIMIT)
    assert all_limits.limiter("search") is limiter
    assert all_limits.limiter("search", RateLimit(rate=2, period=60.0)) is limiter
    assert all_limits.get("search") is limiter
    assert all_limits.get("other") is None


def test_a_second_limit_of_the_same_name_is_refused() -> None:
    all_limits = Limits()
    all_limits.limiter("search", LIMIT)
    with pytest.raises(
        ValueError, match=r"'search' exists with another limit: .*rate=2"
    ):
        all_limits.limiter("search", RateLimit(rate=3))


def test_a_limiter_that_nobody_made_needs_a_limit_and_a_name() -> None:
    with pytest.raises(ValueError, match="there is no limiter 'search'"):
        Limits().limiter("search")
    with pytest.raises(ValueError, match="needs a name"):
        Limits().limiter("", LIMIT)


def test_names_made_from_data_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LIMIT", 2)
    all_limits = Limits()
    for name in "ab":
        all_limits.limiter(name, LIMIT)
    with pytest.raises(ValueError, match="'c' is one too many"):
        all_limits.limiter("c", LIMIT)
    assert all_limits.limiter("a") is not None


async def test_a_limiter_that_was_removed_is_made_anew(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    all_limits = Limits(memory=memory)
    all_limits.limiter("search", KEPT).acquire_nowait(weight=2)
    all_limits.keep()
    assert all_limits.remove("search")
    assert not all_limits.remove("search")
    assert memory.states == {}
    all_limits.limiter("search", KEPT).acquire_nowait(weight=2)


async def test_its_statistics_are_one_record_a_limiter_by_name(
    autojump_clock: MockClock,
) -> None:
    all_limits = Limits()
    for name in "ba":
        all_limits.limiter(name, LIMIT)
    before = all_limits.version
    all_limits.limiter("b").acquire_nowait()
    assert [(one.name, one.granted) for one in all_limits.statistics()] == [
        ("a", 0),
        ("b", 1),
    ]
    assert all_limits.version > before
    before = all_limits.version
    all_limits.remove("b")
    assert all_limits.version > before


async def test_h09_the_clean_up_of_all_leaves_what_is_used(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """H09: three times by its own timer, while there is traffic."""
    all_limits = Limits()
    await nursery.start(all_limits.run)
    limiter = all_limits.limiter("search", RateLimit(rate=1, period=10_000.0))
    limiter.acquire_nowait("used")
    for number in range(3):
        all_limits.limiter(f"other {number}", LIMIT).acquire_nowait(str(number))
        await trio.sleep(310.0)
        assert all_limits.limiter(f"other {number}").statistics().keys == 0
        with pytest.raises(RateLimited):
            limiter.acquire_nowait("used")
    nursery.cancel_scope.cancel()


async def test_what_is_used_outlives_a_restart(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    memory = Memory()
    first = Limits(memory=memory)
    async with trio.open_nursery() as part:
        await part.start(first.run)
        limiter = first.limiter("search", KEPT)
        limiter.acquire_nowait("spent", weight=2)
        limiter.penalise(trio.current_time() + 60.0, "left alone")
        await trio.sleep(1.5)
        limiter.acquire_nowait("half")
        part.cancel_scope.cancel()
    second = Limits(memory=memory).limiter("search", KEPT)
    assert second.lane("spent").remaining == 0
    assert second.lane("spent").retry_after == pytest.approx(58.5, abs=1.0)
    assert second.lane("half").remaining == 1
    assert second.lane("left alone").penalty == pytest.approx(58.5, abs=1.0)


async def test_of_very_many_keys_those_used_last_are_kept(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    first = Limits(memory=memory)
    limiter = first.limiter("search", KEPT)
    for number in range(5000):
        limiter.acquire_nowait(str(number))
    first.keep()
    second = Limits(memory=memory).limiter("search", KEPT)
    assert second.statistics().keys == 500
    assert second.lane("4999").remaining == 1
    assert second.lane("4499").remaining == 2


async def test_a_penalty_alone_is_kept_as_well(autojump_clock: MockClock) -> None:
    memory = Memory()
    first = Limits(memory=memory)
    limiter = first.limiter("search", KEPT)
    limiter.acquire_nowait()
    first.keep()
    limiter.penalise(trio.current_time() + 60.0)
    first.keep()
    second = Limits(memory=memory).limiter("search", KEPT)
    assert second.lane().penalty > 59.0


async def test_what_time_has_undone_is_not_taken_up(autojump_clock: MockClock) -> None:
    memory = Memory()
    first = Limits(memory=memory)
    first.limiter("search", KEPT).acquire_nowait(weight=2)
    first.keep()
    kept = kept_limiter.decode(memory.states["search"])
    assert kept is not None
    # As if the other process had begun an hour later.
    long_ago = msgspec.structs.replace(kept, at_ns=kept.at_ns - 3600 * 10**9)
    memory.states["search"] = kept_limiter.encode(long_ago)
    assert Limits(memory=memory).limiter("search", KEPT).lane().remaining == 2


async def test_under_another_limit_only_penalties_are_taken_up(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    first = Limits(memory=memory)
    limiter = first.limiter("search", KEPT)
    limiter.acquire_nowait(weight=2)
    limiter.penalise(trio.current_time() + 60.0, "left alone")
    first.keep()
    other = RateLimit(rate=5, burst=5, persist=True)
    second = Limits(memory=memory).limiter("search", other)
    assert second.lane().remaining == 5
    assert second.lane("left alone").penalty > 59.0


async def test_what_no_version_of_ours_has_written_is_not_taken_up(
    autojump_clock: MockClock,
) -> None:
    memory = Memory()
    memory.states["search"] = b'{"keys": 7}'
    assert Limits(memory=memory).limiter("search", KEPT).lane().remaining == 2


async def test_only_what_is_to_be_kept_and_has_changed_is_written(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    memory = Memory()
    all_limits = Limits(memory=memory)
    await nursery.start(all_limits.run)
    kept, other = all_limits.limiter("kept", KEPT), all_limits.limiter("other", LIMIT)
    kept.acquire_nowait()
    other.acquire_nowait()
    await trio.sleep(10.0)
    assert (memory.written, list(memory.states)) == (1, ["kept"])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("limit", "penalty", "over_after"),
    [
        (RateLimit(rate=3, period=60.0), 0.0, 60.0),
        (RateLimit(rate=3, period=60.0), 500.0, 500.0),
        # Three tokens at one a minute: the last is there after three minutes.
        (RateLimit(rate=1, period=60.0, burst=3), 0.0, 180.0),
    ],
)
async def test_what_is_kept_of_a_limiter_is_over_once_time_has_given_it_all_back(
    limit: RateLimit,
    penalty: float,
    over_after: float,
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter(limit)
    for _ in range(3):
        limiter.acquire_nowait()
    limiter.penalise(trio.current_time() + penalty)
    kept = kept_limiter.encode(limiter.dump(10**18))
    over = [
        limiter_is_over(kept, 10**18 + round((over_after + more) * 1e9))
        for more in (-0.1, 0.1)
    ]
    assert over == [False, True]


def test_what_an_older_version_kept_has_a_period_without_an_end() -> None:
    """Nobody knows when it would be over, so it stays."""
    assert not limiter_is_over(b'{"at_ns":0,"limit":"3 in any 1 s","keys":{}}', 10**20)
    assert not limiter_is_over(b"noise", 10**20)
