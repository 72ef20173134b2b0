"""Remembering answers, and asking only once for what nobody has."""

from __future__ import annotations

import math
import os
import random
from contextlib import suppress
from itertools import permutations, product
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import CallingSelf
from treewarden.resilience import Cache, Hit, Miss, MissReason

if TYPE_CHECKING:
    from trio.testing import MockClock

OPERATIONS = 1_000_000 if "SOAK" in os.environ else 100_000


class Source:
    """What the cache is for: something slow, that says how often it was asked."""

    def __init__(self, *, takes: float = 1.0) -> None:
        self.takes = takes
        self.asked = 0

    async def load(self, key: str) -> str:
        self.asked += 1
        number = self.asked
        await trio.sleep(self.takes)
        return f"{key} {number}"


# --- entries -----------------------------------------------------------------------------


async def test_what_was_put_is_found_until_its_time_is_over(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, int] = Cache(ttl=10.0)
    cache.put("one", 1)
    cache.put("two", 2, ttl=5.0)
    cache.put("ever", 3, ttl=math.inf)
    await trio.sleep(5.0)
    assert (cache.get("one"), cache.get("two"), cache.get("two", 0)) == (1, None, 0)
    await trio.sleep(5.0)
    assert (cache.get("one"), cache.get("ever")) == (None, 3)


async def test_none_is_a_value_and_no_key(autojump_clock: MockClock) -> None:
    cache: Cache[str | None, int | None] = Cache()
    cache.put("nothing", None)
    assert cache.get("nothing", 7) is None
    for attempt in (cache.get, cache.lookup, cache.delete):
        with pytest.raises(ValueError, match="None is no key"):
            attempt(None)
    with pytest.raises(ValueError, match="None is no key"):
        cache.put(None, 1)


async def test_f66_a_miss_says_why_and_over_is_said_once(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, int] = Cache(ttl=1.0)
    cache.put("key", 1)
    await trio.sleep(1.0)
    reasons = [cache.lookup("key"), cache.lookup("key"), cache.lookup("other")]
    assert reasons == [
        Miss(MissReason.EXPIRED),
        Miss(MissReason.NOT_FOUND),
        Miss(MissReason.NOT_FOUND),
    ]


async def test_f66_hits_and_misses_are_all_gets(autojump_clock: MockClock) -> None:
    """10^5 operations of any kind, 10^6 in a soak."""
    chance = random.Random(41)  # noqa: S311 - a test's choice
    cache: Cache[int, int] = Cache(ttl=5.0, size=50)
    gets = 0
    for number in range(OPERATIONS):
        key, action = chance.randrange(100), chance.random()
        if action < 0.6:
            gets += 1
            cache.get(key)
        elif action < 0.9:
            cache.put(key, number)
        elif action < 0.99:
            cache.delete(key)
        else:
            autojump_clock.jump(chance.random())
    s = cache.statistics()
    assert s.gets == gets == s.hits + s.not_found + s.expired + s.closed
    assert min(s.hits, s.not_found, s.expired, s.deletes, s.evicted) > 0
    assert s.entries <= 50
    assert 0 < s.hit_rate < 1


async def test_a_version_removes_what_was_seen_and_nothing_newer(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, int] = Cache()
    cache.put("key", 1)
    seen = cache.lookup("key")
    assert isinstance(seen, Hit)
    cache.put("key", 2)
    assert not cache.delete("key", seen.version)
    assert cache.get("key") == 2
    again = cache.lookup("key")
    assert isinstance(again, Hit)
    assert cache.delete("key", again.version)
    assert cache.get("key") is None


async def test_when_it_is_full_what_was_written_longest_ago_goes(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[int, int] = Cache(size=10)
    for number in range(20):
        cache.put(number, number)
    found = [number for number in range(20) if cache.get(number) is not None]
    assert found == list(range(10, 20))
    assert cache.statistics().evicted == 10


async def test_h17_writing_a_key_anew_at_capacity_evicts_nobody(
    autojump_clock: MockClock,
) -> None:
    """H17: the original evicted another key first, and its size went down."""
    cache: Cache[int, int] = Cache(size=3)
    for number in range(3):
        cache.put(number, number)
    for _ in range(5):
        cache.put(1, 100)
    assert [cache.get(number) for number in range(3)] == [0, 100, 2]
    statistics = cache.statistics()
    assert (statistics.entries, statistics.evicted) == (3, 0)


async def test_h17_a_closed_cache_answers_with_the_default_and_says_so_once(
    autojump_clock: MockClock,
) -> None:
    """H17: in the original the caller of a stopped cache exited."""
    told: list[str] = []
    cache: Cache[str, int] = Cache(name="pages", on_unavailable=told.append)
    cache.put("key", 1)
    cache.close()
    assert cache.get("key", 7) == 7
    cache.put("key", 2)
    assert not cache.delete("key")
    assert cache.clear() == 0
    assert cache.lookup("key") == Miss(MissReason.CLOSED)
    assert told == ["get"]
    statistics = cache.statistics()
    assert (statistics.closed, statistics.unavailable) == (2, 5)
    cache.open()
    assert cache.get("key") is None
    cache.close()
    cache.put("key", 3)
    assert told == ["get", "put"]


async def test_h17_a_closed_cache_still_loads(autojump_clock: MockClock) -> None:
    cache: Cache[str, str] = Cache()
    cache.close()
    source = Source()
    assert await cache.get_or_load("key", source.load, "key") == "key 1"
    assert await cache.get_or_load("key", source.load, "key") == "key 2"
    assert cache.statistics().entries == 0


async def test_a_listener_that_fails_fails_nobody(autojump_clock: MockClock) -> None:
    def fail(operation: str) -> None:
        raise LookupError(operation)

    cache: Cache[str, int] = Cache(on_unavailable=fail)
    cache.close()
    assert cache.get("key") is None
    assert cache.statistics().listener_failures == 1


async def test_clearing_says_how_many_there_were(autojump_clock: MockClock) -> None:
    cache: Cache[int, int] = Cache()
    for number in range(7):
        cache.put(number, number)
    assert (cache.clear(), cache.clear()) == (7, 0)


async def test_while_it_runs_what_is_over_is_removed_without_being_asked_for(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[int, int] = Cache(ttl=30.0)
    await nursery.start(cache.run)
    for number in range(2000):
        cache.put(number, number)
    cache.put(-1, 1, ttl=1000.0)
    await trio.sleep(61.0)
    statistics = cache.statistics()
    assert (statistics.entries, statistics.swept) == (1, 2000)
    nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()
    assert cache.lookup(-1) == Miss(MissReason.CLOSED)


async def test_f66_a_sweep_does_not_remove_what_was_written_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[int, str] = Cache(ttl=1.0)
    for number in range(2000):
        cache.put(number, "old")
    await trio.sleep(1.0)
    sweeping = True

    async def sweep() -> None:
        nonlocal sweeping
        await cache.sweep()
        sweeping = False

    nursery.start_soon(sweep)
    # It begins in the first pass of the loop, and looks at 500 in each one after that.
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    assert 500 <= cache.statistics().swept <= 1500
    for number in range(1500, 2000):
        cache.put(number, "fresh", ttl=60.0)
    assert sweeping
    await wait_all_tasks_blocked()
    assert not sweeping
    assert all(cache.get(number) == "fresh" for number in range(1500, 2000))


# --- loading -----------------------------------------------------------------------------


async def test_what_is_missing_is_loaded_and_kept(autojump_clock: MockClock) -> None:
    cache: Cache[str, str] = Cache(ttl=10.0)
    source = Source()
    for expected in ("key 1", "key 1"):
        assert await cache.get_or_load("key", source.load, "key") == expected
    await trio.sleep(10.0)
    assert await cache.get_or_load("key", source.load, "key") == "key 2"
    statistics = cache.statistics()
    assert (statistics.hits, statistics.not_found, statistics.expired) == (1, 1, 1)


async def test_a_hundred_who_miss_it_together_ask_once(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, str] = Cache()
    source, results = Source(), []

    async def ask() -> None:
        results.append(await cache.get_or_load("key", source.load, "key"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert results == ["key 1"] * 100
    statistics = cache.statistics()
    assert (source.asked, statistics.loads, statistics.shared) == (1, 1, 99)
    assert statistics.loading == 0


async def test_different_keys_do_not_wait_for_each_other(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, str] = Cache()
    source = Source()
    async with trio.open_nursery() as nursery:
        for key in "abc":
            nursery.start_soon(cache.get_or_load, key, source.load, key)
    assert trio.current_time() == 1.0


async def test_when_the_one_who_loads_is_cancelled_the_next_one_loads(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[str, str] = Cache()
    source, results = Source(takes=10.0), []
    first = trio.CancelScope()

    async def lead() -> None:
        with first:
            await cache.get_or_load("key", source.load, "key")

    async def follow() -> None:
        results.append(await cache.get_or_load("key", source.load, "key"))

    nursery.start_soon(lead)
    await wait_all_tasks_blocked()
    for _ in range(5):
        nursery.start_soon(follow)
    await trio.sleep(5.0)
    first.cancel()
    await trio.sleep(10.1)
    assert results == ["key 2"] * 5
    assert source.asked == 2


async def test_when_one_who_waits_is_cancelled_the_others_go_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[str, str] = Cache()
    source = Source()
    nursery.start_soon(cache.get_or_load, "key", source.load, "key")
    await wait_all_tasks_blocked()
    with trio.move_on_after(0.5):
        await cache.get_or_load("key", source.load, "key")
    assert await cache.get_or_load("key", source.load, "key") == "key 1"


async def test_any_order_of_ends_leaves_no_flight_behind(
    autojump_clock: MockClock,
) -> None:
    """Three who ask for the same key, each of them patient, cancelled or failing."""
    for ends, order in product(
        product(("stays", "leaves"), repeat=3), permutations(range(3))
    ):
        cache: Cache[str, str] = Cache()
        source, results = Source(takes=10.0), []

        async def ask(end: str) -> None:
            with trio.move_on_after(3.0 if end == "leaves" else 100.0):
                results.append(  # noqa: B023 - used in this round only
                    await cache.get_or_load("key", source.load, "key")  # noqa: B023
                )

        async with trio.open_nursery() as nursery:
            for who in order:
                nursery.start_soon(ask, ends[who])
                await wait_all_tasks_blocked()
                await trio.sleep(1.0)
        assert len(results) == ends.count("stays")
        assert len(set(results)) <= 1
        assert cache.statistics().loading == 0


async def test_what_the_loader_raises_all_get_and_the_next_one_asks_anew(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, str] = Cache()
    asked = 0

    async def fail() -> str:
        nonlocal asked
        asked += 1
        await trio.sleep(1.0)
        raise LookupError(f"attempt {asked}")

    lengths = []

    async def ask() -> None:
        with pytest.raises(LookupError, match="attempt 1") as failed:
            await cache.get_or_load("key", fail)
        lengths.append(len(failed.traceback))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert asked == 1
    # One exception raised fifty times does not gather fifty times the frames.
    assert max(lengths) <= 6
    assert await cache.get_or_load("key", Source().load, "key") == "key 1"
    assert cache.statistics().load_failures == 1


async def test_f66_what_was_written_during_a_load_is_newer_and_stays(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[str, str] = Cache()
    nursery.start_soon(cache.get_or_load, "key", Source().load, "key")
    await trio.sleep(0.5)
    cache.put("key", "fresh")
    await trio.sleep(1.0)
    assert cache.get("key") == "fresh"


@pytest.mark.parametrize("how", ["delete", "clear", "close"])
async def test_f66_what_was_removed_during_a_load_stays_removed(
    autojump_clock: MockClock, nursery: trio.Nursery, how: str
) -> None:
    cache: Cache[str, str] = Cache()
    source, results = Source(), []

    async def ask() -> None:
        results.append(await cache.get_or_load("key", source.load, "key"))

    nursery.start_soon(ask)
    await trio.sleep(0.5)
    if how == "delete":
        cache.delete("key")
    elif how == "clear":
        cache.clear()
    else:
        cache.close()
        cache.open()
    assert await cache.get_or_load("key", source.load, "key") == "key 2"
    assert results == ["key 1"]
    assert cache.get("key") == "key 2"


@pytest.mark.parametrize("seed", range(5))
async def test_f66_nobody_gets_what_was_over_before_he_asked(
    autojump_clock: MockClock, seed: int
) -> None:
    """Readers, writers, removers, failing loads and cancellations, in random order.

    Who asks after a write gets that value or a newer one, and nobody hangs.
    """
    chance = random.Random(seed)  # noqa: S311 - a test's choice
    cache: Cache[str, int] = Cache(ttl=3.0, size=2)
    truth = dict.fromkeys("abc", 0)
    answered = 0

    async def load(key: str) -> int:
        number = truth[key]
        await trio.sleep(chance.uniform(0, 2.0))
        if chance.random() < 0.1:
            raise LookupError(key)
        return number

    async def read(after: float, key: str, patience: float) -> None:
        nonlocal answered
        await trio.sleep(after)
        oldest = truth[key]
        with trio.move_on_after(patience), suppress(LookupError):
            assert await cache.get_or_load(key, load, key) >= oldest
            answered += 1

    async def write(after: float, key: str, puts: bool) -> None:
        await trio.sleep(after)
        truth[key] += 1
        if puts:
            cache.put(key, truth[key])
        else:
            cache.delete(key)

    # Chosen here: trio runs tasks that are due at once in an order of its own.
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            after, key = chance.uniform(0, 30.0), chance.choice("abc")
            nursery.start_soon(read, after, key, chance.choice((0.5, 100.0)))
        for _ in range(100):
            after, key = chance.uniform(0, 30.0), chance.choice("abc")
            nursery.start_soon(write, after, key, chance.random() < 0.5)
    statistics = cache.statistics()
    assert answered > 100
    assert min(statistics.shared, statistics.load_failures, statistics.hits) > 0
    assert statistics.loading == 0


async def test_who_waited_for_a_cancelled_load_takes_what_was_written_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cache: Cache[str, str] = Cache()
    source, results = Source(takes=10.0), []
    first = trio.CancelScope()

    async def lead() -> None:
        with first:
            await cache.get_or_load("key", source.load, "key")

    async def follow() -> None:
        results.append(await cache.get_or_load("key", source.load, "key"))

    nursery.start_soon(lead)
    await wait_all_tasks_blocked()
    nursery.start_soon(follow)
    await wait_all_tasks_blocked()
    cache.put("key", "written")
    first.cancel()
    await wait_all_tasks_blocked()
    assert (results, source.asked) == (["written"], 1)


async def test_a_loader_that_needs_its_own_key_is_refused(
    autojump_clock: MockClock,
) -> None:
    cache: Cache[str, str] = Cache(name="pages")

    async def load() -> str:
        return await cache.get_or_load("key", load)

    with pytest.raises(CallingSelf, match="loader of 'key' in cache pages needs it"):
        await cache.get_or_load("key", load)


async def test_a_hit_is_a_checkpoint_too(autojump_clock: MockClock) -> None:
    cache: Cache[str, str] = Cache()
    cache.put("key", "value")
    with trio.CancelScope() as scope:
        scope.cancel()
        await cache.get_or_load("key", Source().load, "key")
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("fields", "names"),
    [({"ttl": 0.0}, "ttl"), ({"ttl": math.nan}, "ttl"), ({"size": 0}, "size")],
)
def test_a_cache_that_makes_no_sense_is_refused_by_name(
    fields: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Cache(**fields)  # type: ignore[arg-type]


async def test_a_time_that_makes_no_sense_is_refused(autojump_clock: MockClock) -> None:
    cache: Cache[str, int] = Cache()
    with pytest.raises(ValueError, match="ttl must be > 0 seconds, not -1"):
        cache.put("key", 1, ttl=-1.0)


@pytest.mark.parametrize("size", [math.nan, math.inf, 1.5, True])
def test_a_size_that_is_no_bound_is_refused(size: float) -> None:
    with pytest.raises(TypeError, match=f"size must be an int, not {size}"):
        Cache(size=size)  # type: ignore[arg-type] # what is tested


async def test_a_task_that_the_loader_started_is_refused_its_key_too(
    autojump_clock: MockClock,
) -> None:
    """It would wait for the loader, and the loader for it, until somebody cancels."""
    cache: Cache[str, str] = Cache()

    async def load() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.get_or_load, "a", load)
        return "never"

    with trio.fail_after(1.0), pytest.raises(ExceptionGroup) as caught:
        await cache.get_or_load("a", load)
    assert caught.group_contains(CallingSelf, match="'a'")
    assert cache.statistics().loading == 0


async def test_loaders_that_wait_for_each_other_in_a_ring_are_told_so(
    autojump_clock: MockClock,
) -> None:
    """Two caches, three keys, three tasks: who closes the ring gets the error."""
    caches: list[Cache[str, str]] = [Cache(), Cache()]
    ends: list[str] = []

    async def load(number: int) -> str:
        await trio.sleep(1.0)
        following = (number + 1) % 3
        return await caches[following % 2].get_or_load(str(following), load, following)

    async def ask(number: int) -> None:
        try:
            await caches[number % 2].get_or_load(str(number), load, number)
        except CallingSelf as error:
            ends.append(str(error))

    with trio.fail_after(5.0):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, number)
    assert len(set(ends)) == 1
    assert len(ends) == 3
    assert sum(cache.statistics().loading for cache in caches) == 0


async def test_loaders_may_need_what_others_load_while_that_is_no_ring(
    autojump_clock: MockClock,
) -> None:
    """A diamond: two ways from the top to the same bottom, which is loaded once."""
    cache: Cache[str, str] = Cache()
    loaded: list[str] = []

    async def load(key: str) -> str:
        loaded.append(key)
        below = {"top": ["left", "right"], "left": ["bottom"], "right": ["bottom"]}
        async with trio.open_nursery() as nursery:
            for one in below.get(key, []):
                nursery.start_soon(cache.get_or_load, one, load, one)
        await trio.sleep(1.0)
        return key

    async with trio.open_nursery() as nursery:
        for key in ("top", "right", "bottom", "left"):
            nursery.start_soon(cache.get_or_load, key, load, key)
    assert sorted(loaded) == ["bottom", "left", "right", "top"]
