"""Streams: order, bounds, failures in their place, and nothing left behind."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any, assert_type

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from treewarden.errors import PoolFull, PoolReentered, WorkTimeout
from treewarden.supervision import ChildSpec, cleanup, open_supervisor
from treewarden.work import Done, Failed, Outcome, Pool, PoolPolicy, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.runtime.work.conftest import Yard


def shape(outcomes: list[Outcome[float]]) -> list[object]:
    """Values, and the types of errors."""
    return [
        one.value if isinstance(one, Done) else type(one.error).__name__
        for one in outcomes
    ]


async def read(stream: Stream[Any]) -> list[Any]:
    async with stream as outcomes:
        return [one async for one in outcomes]


@pytest.mark.parametrize("limit", [1, 2, 4, 9, None])
async def test_results_are_in_order_whatever_the_limit(
    yard: Yard, limit: int | None
) -> None:
    """STM-01"""
    async with yard.open() as pool:
        stream = pool.stream(yard.sleep, [1, 2, 3, 4], limit=limit)
        outcomes = await read(assert_type(stream, Stream[Outcome[float]]))
        assert outcomes == [Done(value=n, item=n) for n in (1, 2, 3, 4)]
    assert yard.most == min(limit or 10, 4)


async def test_a_stream_of_nothing_ends_at_once(yard: Yard) -> None:
    """STM-01"""
    async with yard.open() as pool:
        assert await read(pool.stream(yard.sleep, [])) == []


async def test_order_is_kept_when_the_slowest_is_first(yard: Yard) -> None:
    """STM-02"""
    async with yard.open() as pool:
        stream = pool.stream(yard.sleep, [9, 1, 2], failures="raise")
        assert await read(stream) == [9, 1, 2]
    assert yard.ended == [1, 2, 9]


@pytest.mark.parametrize(("limit", "expected"), [(3, [1, 2, 3]), (1, [3, 1, 2])])
async def test_unordered_results_come_as_they_finish(
    yard: Yard, limit: int, expected: list[float]
) -> None:
    """STM-03"""
    async with yard.open() as pool:
        stream = pool.stream(
            yard.sleep, [3, 1, 2], ordered=False, limit=limit, failures="raise"
        )
        assert await read(stream) == expected


@pytest.mark.parametrize("ordered", [True, False])
async def test_f44_a_failing_item_is_a_value_in_its_place(
    yard: Yard, ordered: bool
) -> None:
    """F44, STM-04, STM-06, STM-07: [ok, raises, sleeps for ever, ok]"""
    async with yard.open() as pool:
        items = [0.1, -1, 1000, 0.15]
        outcomes = await read(
            pool.stream(yard.sleep, items, timeout=0.2, ordered=ordered)
        )
        assert pool.statistics().timed_out == 1
    if ordered:
        assert shape(outcomes) == [0.1, "Boom", "WorkTimeout", 0.15]
    assert sorted(map(str, shape(outcomes))) == ["0.1", "0.15", "Boom", "WorkTimeout"]
    failed = {one.item: one.error for one in outcomes if isinstance(one, Failed)}
    assert failed.keys() == {-1, 1000}
    assert isinstance(failed[1000], trio.TooSlowError)
    assert yard.inside == 0


async def test_the_first_failure_is_raised_when_that_is_asked_for(yard: Yard) -> None:
    """STM-05"""
    async with yard.open() as pool:
        got: list[float] = []
        with pytest.raises(WorkTimeout, match="longer than 2 s"):
            async with pool.stream(
                yard.sleep, [1, 1000, 1000], timeout=2, failures="raise"
            ) as values:
                got.extend([await anext(values)])
                await anext(values)
        assert got == [1]
        assert pool.works() == []
        with pytest.raises(yard.boom):
            await read(pool.stream(yard.sleep, [-1, 1], failures="raise"))


async def test_waiting_for_a_slot_is_not_part_of_an_items_time(yard: Yard) -> None:
    async with yard.open(size=1) as pool:
        outcomes = await read(pool.stream(yard.sleep, [3, 3, 3], timeout=4, limit=3))
        assert shape(outcomes) == [3, 3, 3]


async def test_an_infinite_timeout_waits(yard: Yard) -> None:
    """STM-13"""
    async with yard.open() as pool:
        outcomes = await read(pool.stream(yard.sleep, [10_000], timeout=math.inf))
        assert shape(outcomes) == [10_000]
        assert shape(await read(pool.stream(yard.sleep, [31]))) == ["WorkTimeout"]


class Outside(Exception):
    pass


@pytest.mark.parametrize("way", ["break", "exception", "cancelled", "returned"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_leaving_early_leaves_nothing(
    yard: Yard, way: str, ordered: bool
) -> None:
    """STM-08, STM-09, STM-11, STM-17, TRI-01"""
    closed: list[str] = []

    def source() -> Iterator[float]:
        try:
            for number in range(100):
                yield 1.0 + number
        finally:
            closed.append("source")

    async def consume(pool: Pool) -> None:
        async with pool.stream(yard.sleep, source(), limit=4, ordered=ordered) as all_:
            async for _ in all_:
                if way == "break":
                    break
                if way == "returned":
                    return
                if way == "exception":
                    raise Outside
                await trio.sleep_forever()

    async with yard.open() as pool:
        with trio.move_on_after(5) as scope:
            if way == "exception":
                with pytest.raises(Outside):
                    await consume(pool)
            else:
                await consume(pool)
        assert scope.cancelled_caught == (way == "cancelled")
        assert yard.inside == 0
        assert pool.works() == []
        assert closed == ["source"]
        # What nobody took back was stopped, and no item beyond the limit was begun.
        assert len(yard.begun) <= 5


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("items", "first"), [([1, 2, 3], 1), ([-1, 2, 3], "Boom"), ([9, 2, 3], 9)]
)
@pytest.mark.parametrize("who", ["consumer", "source"])
async def test_whoever_stops_early_the_other_gets_what_there_was(
    yard: Yard, items: list[float], first: object, who: str, ordered: bool
) -> None:
    """STM-07, STM-09: after a success, a failure, and with the slowest first."""
    closed: list[bool] = []

    def source() -> Iterator[float]:
        try:
            yield from items[:1] if who == "source" else items
        finally:
            closed.append(True)

    async with yard.open() as pool:
        got: list[Outcome[float]] = []
        stream = pool.stream(yard.sleep, source(), limit=2, ordered=ordered)
        async with stream as outcomes:
            async for one in outcomes:
                got.append(one)
                if who == "consumer":
                    break
        if who == "consumer" and not ordered and first == 9:
            first = 2  # it came first
        assert shape(got) == [first]
        assert [one.item for one in got] == [2 if first == 2 else items[0]]
        assert yard.inside == 0
        assert pool.works() == []
    assert closed == [True]


async def test_leaving_waits_for_the_clean_up_of_what_runs(yard: Yard) -> None:
    """STM-11"""

    async def tidy(number: int) -> int:
        if number == 0:
            return number
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(2)
                yard.ended.append(number)
        return number

    async with yard.open() as pool:
        async with pool.stream(tidy, range(3)) as outcomes:
            async for _ in outcomes:
                break
        assert sorted(yard.ended, key=str) == [1, 2]


async def test_a_source_that_fails_ends_the_stream(yard: Yard) -> None:
    """STM-09, STM-11"""

    def source() -> Iterator[float]:
        yield 1
        yield 2
        raise Outside

    async with yard.open() as pool:
        got: list[object] = []
        with pytest.raises(Outside):
            async with pool.stream(yard.sleep, source(), limit=1) as outcomes:
                got.append(await anext(outcomes))
                got.append(await anext(outcomes))
                await anext(outcomes)
        assert got == [Done(value=1, item=1), Done(value=2, item=2)]
        assert yard.inside == 0


async def test_two_streams_are_read_in_step(yard: Yard) -> None:
    """STM-10"""
    async with yard.open() as pool:
        async with (
            pool.stream(yard.sleep, [3, 1, 2], failures="raise") as left,
            pool.stream(yard.sleep, [2, 3, 1], failures="raise") as right,
        ):
            got = [(one, await anext(right)) async for one in left]
        assert got == [(3, 2), (1, 3), (2, 1)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit": 0}, "limit must be >= 1, not 0"),
        ({"limit": 1.5}, "limit must be None or an int, not 1.5"),
        ({"timeout": 0}, "timeout must be > 0 seconds, not 0"),
        ({"timeout": math.nan}, "timeout must be > 0"),
        ({"timeout": "soon"}, "timeout must be a number of seconds, not 'soon'"),
        ({"failures": "ignore"}, "failures must be values or raise, not 'ignore'"),
        ({"items": 3}, "items must be a plain iterable, not 3"),
    ],
)
async def test_a_wrong_option_is_refused_when_the_stream_is_made(
    yard: Yard, options: dict[str, Any], error: str
) -> None:
    """STM-12"""
    async with yard.open() as pool:
        stream: Any = pool.stream
        with pytest.raises((TypeError, ValueError), match=error):
            stream(yard.sleep, options.pop("items", [1]), **options)


async def test_a_full_pool_ends_the_stream_cleanly(yard: Yard) -> None:
    """STM-14"""
    async with yard.open(size=1, queue=0) as pool:
        pool.start(yard.hold, "first").ignore()
        with pytest.raises(PoolFull):
            await read(pool.stream(yard.sleep, [1, 2]))
        yard.let_go("first")
        await yard.settle()
        with pytest.raises(PoolFull):
            await read(pool.stream(yard.sleep, [1, 2], limit=2))
        assert yard.inside == 0
        assert pool.works() == []


async def test_a_stream_made_here_is_read_there(yard: Yard) -> None:
    """STM-15"""
    async with yard.open() as pool:
        stream = pool.stream(yard.sleep, [2, 1], failures="raise")
        got: list[float] = []

        async def consume() -> None:
            got.extend(await read(stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
        assert got == [2, 1]


async def test_other_work_of_the_pool_does_not_confuse_a_stream(yard: Yard) -> None:
    """STM-16"""
    async with yard.open() as pool:

        async def both(number: int) -> list[float]:
            return await read(
                pool.stream(yard.sleep, [number, number], failures="raise")
            )

        noise = [pool.start(yard.sleep, n / 7).ignore() for n in range(1, 4)]
        lists = await read(pool.stream(both, [1, 2], failures="raise"))
        assert lists == [[1, 1], [2, 2]]
        assert noise == [None] * 3


async def test_a_stream_is_read_inside_its_block_once_and_by_one(yard: Yard) -> None:
    """STM-17: no use that could leave a task behind."""
    async with yard.open() as pool:
        stream = pool.stream(yard.sleep, [5])
        with pytest.raises(RuntimeError, match="inside `async with`"):
            await anext(stream)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(anext, stream)
            await yard.settle()
            with pytest.raises(trio.BusyResourceError):
                await anext(stream)
        with pytest.raises(RuntimeError, match="read once"):
            await read(stream)
        with pytest.raises(RuntimeError, match="inside"):
            await anext(stream)


async def test_a_half_read_stream_that_is_dropped_leaves_no_task(yard: Yard) -> None:
    """STM-17, pitfall 32: garbage collection"""
    async with yard.open() as pool:

        async def half() -> None:
            stream = pool.stream(yard.sleep, [1, 500, 500])
            await stream.__aenter__()
            await anext(stream)
            del stream
            gc.collect()

        with pytest.warns(ResourceWarning, match="dropped with work in flight"):
            await half()
        await yard.settle()
        assert yard.inside == 0
        assert pool.works() == []


async def test_a_generator_around_a_stream_may_be_left_early(yard: Yard) -> None:
    """STM-17, pitfall 32"""
    async with yard.open() as pool:

        async def doubled() -> AsyncIterator[float]:
            async with pool.stream(
                yard.sleep, [1, 500, 500], failures="raise"
            ) as values:
                async for value in values:
                    yield 2 * value

        generator = doubled()
        async for value in generator:
            assert value == 2
            break
        await generator.aclose()  # type: ignore[attr-defined]
        assert yard.inside == 0


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_stream_takes_no_more_than_its_limit_ahead(
    yard: Yard, ordered: bool
) -> None:
    """STM-18, also behind a slow head"""
    taken = delivered = most = 0

    def source() -> Iterator[float]:
        nonlocal taken, most
        for number in range(30):
            taken += 1
            most = max(most, taken - delivered)
            yield 100.0 if number == 0 else 1.0

    async with (
        yard.open() as pool,
        pool.stream(
            yard.sleep, source(), limit=4, ordered=ordered, timeout=math.inf
        ) as outcomes,
    ):
        assert taken == 0
        async for _ in outcomes:
            delivered += 1
            await trio.sleep(3)
    assert delivered == 30
    assert most == 4


async def test_a_cancelled_read_loses_nothing(yard: Yard) -> None:
    async with yard.open() as pool:
        stream = pool.stream(yard.sleep, [2, 3], failures="raise")
        async with stream:
            with trio.move_on_after(1):
                await anext(stream)
            assert [one async for one in stream] == [2, 3]


async def test_a_stream_inside_its_own_pool_uses_what_is_free(yard: Yard) -> None:
    async with yard.open(size=3) as pool:

        async def outer() -> list[float]:
            return await read(pool.stream(yard.sleep, [1] * 5, failures="raise"))

        assert await pool.run(outer) == [1] * 5
        assert yard.most == 2
    async with yard.open(size=1) as pool:
        with pytest.raises(PoolReentered):
            await pool.run(outer)


@given(
    items=st.lists(
        st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.5, 60.0]), min_size=0, max_size=15
    ),
    limit=st.integers(1, 6),
    size=st.integers(1, 4),
    ordered=st.booleans(),
)
def test_a_stream_equals_a_plain_loop(
    items: list[float], limit: int, size: int, ordered: bool
) -> None:
    """F44: each item exactly once, in its place, whatever the sizes."""

    async def work(item: float) -> float:
        if item < 0:
            raise ValueError(item)
        await trio.sleep(item)
        return item

    def expected(item: float) -> object:
        if item < 0:
            return "ValueError"
        return item if item < 30 else "WorkTimeout"

    async def main() -> list[object]:
        spec = ChildSpec("p", Pool, args=(PoolPolicy(size=size),))
        async with open_supervisor([spec]) as root:
            pool = Pool(root.directory, "/p")
            outcomes = await read(
                pool.stream(work, items, limit=limit, ordered=ordered)
            )
            assert pool.works() == []
            return shape(outcomes)

    got = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    wanted = [expected(item) for item in items]
    if ordered:
        assert got == wanted
    else:
        assert sorted(map(str, got)) == sorted(map(str, wanted))
