"""What was published, read again from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from treewarden.bus import Bus, Start, StoreJournal
from treewarden.errors import NotRunning
from treewarden.store import Unit, load_events

if TYPE_CHECKING:
    from trio.testing import MockClock

    from .conftest import Station


async def publish(station: Station, *payloads: object, topic: str = "t") -> None:
    for payload in payloads:
        await station.bus.publish(topic, payload)


async def replayed(station: Station, pattern: str, start: Start) -> list[object]:
    events = station.bus.replay(pattern, start=start, follow=False)
    return [event.payload async for event in events]


async def test_a_replay_begins_at_a_position(
    clock: MockClock, station: Station
) -> None:
    await publish(station, *range(5))
    await publish(station, "other", topic="u")
    assert await replayed(station, "t", Start(after=0)) == [0, 1, 2, 3, 4]
    assert await replayed(station, "t", Start(after=3)) == [3, 4]
    assert await replayed(station, "t", Start(after=99)) == []
    assert await replayed(station, "t", Start()) == []


async def test_a_replay_begins_at_a_time(clock: MockClock, station: Station) -> None:
    await publish(station, 1)
    event = await station.bus.publish("t", 2)
    assert await replayed(station, "t", Start(at_ns=event.at_ns)) == [2]
    assert await replayed(station, "t", Start(at_ns=0)) == [1, 2]
    assert await replayed(station, "t", Start(at_ns=event.at_ns + 10**18)) == []


async def test_a_replay_gives_the_last_of_each_topic_in_their_order(
    clock: MockClock, station: Station
) -> None:
    for number, topic in enumerate(("a", "b", "a", "c", "b")):
        await publish(station, number, topic=topic)
    assert await replayed(station, "*", Start(last=True)) == [2, 3, 4]


async def test_a_replay_goes_over_into_what_comes_without_gap_or_double(
    clock: MockClock, station: Station
) -> None:
    await publish(station, *range(3))
    seen: list[object] = []

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for event in station.bus.replay("t", start=Start(after=0)):
            seen.append(event.payload)
            if len(seen) == 8:
                return

    async with trio.open_nursery() as nursery:
        await nursery.start(read)
        await publish(station, 3, 4)
        await trio.sleep(1)
        assert seen == [0, 1, 2, 3, 4]
        await publish(station, 5, 6, 7)
    assert seen == list(range(8))


async def test_what_was_deleted_meanwhile_is_missed(
    clock: MockClock, station: Station
) -> None:
    await publish(station, *range(3))
    replay = station.bus.replay("t", start=Start(after=1), follow=False)
    cut = Unit("/a")
    cut.writes = [("DELETE FROM journal WHERE position <= 2", ())]
    station.store.hand_over(cut)
    await station.store.wait(cut)
    assert [(one.payload, one.missed) async for one in replay] == [(2, 1)]


async def test_reports_are_followed_apart_from_what_is_published(
    clock: MockClock, station: Station
) -> None:
    station.store.report("x.early", b"0", source="/a")
    await publish(station, "published", topic="x.early")
    reports = station.bus.reports("x.*")
    for number, topic in enumerate(("x.a", "y", "x.b", "x.a"), 1):
        station.store.report(topic, b"%d" % number, source="/a")
    await publish(station, "published", topic="x.a")
    followed = [(await anext(reports)).payload for _ in range(3)]
    assert followed == [1, 3, 4]

    async def seen(start: Start) -> list[object]:
        found = station.bus.reports("x.*", start=start, follow=False)
        return [report.payload async for report in found]

    assert await seen(Start(after=0)) == [0, 1, 3, 4]
    assert await seen(Start(last=True)) == [0, 3, 4]
    assert await replayed(station, "x.*", Start(after=0)) == ["published"] * 2


async def test_a_replay_needs_a_store_and_a_pattern(
    clock: MockClock, station: Station
) -> None:
    with pytest.raises(ValueError, match="last word of a pattern"):
        station.bus.replay("a.>.b", start=Start(after=0))
    with pytest.raises(NotRunning, match="needs a store"):
        Bus(StoreJournal(station.store)).replay("t", start=Start(after=0))
    with pytest.raises(ValueError, match="last word of a pattern"):
        station.bus.reports("a.>.b")
    with pytest.raises(NotRunning, match="needs a store"):
        Bus(StoreJournal(station.store)).reports()


async def test_a_page_of_events_tells_how_far_it_looked(
    clock: MockClock, station: Station
) -> None:
    await publish(station, *range(6))
    await publish(station, "other", topic="u")

    async def page(after: int, until: int, limit: int) -> tuple[int, int, int]:
        found = await station.store.read(
            lambda c: load_events(c, after, until, limit, "t")
        )
        return len(found.events), found.first, found.scanned

    assert await page(0, 7, 10) == (6, 1, 7)
    assert await page(0, 7, 2) == (2, 1, 2)
    assert await page(6, 7, 10) == (0, 7, 7)
    assert await page(7, 7, 10) == (0, 0, 7)


async def test_a_replay_is_one_tasks(clock: MockClock, station: Station) -> None:
    await publish(station, *range(5))
    events = station.bus.replay("t", start=Start(after=0))
    seen: list[object] = []

    async def read() -> None:
        async for event in events:
            seen[len(seen) :] = [event.payload]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5), pytest.raises(trio.BusyResourceError):
            await events.__anext__()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert seen == [0, 1, 2, 3, 4]
    with trio.move_on_after(1) as waited:
        await events.__anext__()
    assert waited.cancelled_caught
