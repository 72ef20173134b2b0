"""F58, F59, F60: a bus that is full says so, and one slow subscriber is its own affair."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from treewarden.bus import Overflow, Reason
from treewarden.errors import Backpressure, NotRunning
from treewarden.exits import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from treewarden.bus import Bus, Event, Subscription

    from .conftest import Station


async def test_f58_what_a_sink_raises_is_told_with_its_line_and_the_event(
    clock: MockClock, station: Station, caplog: pytest.LogCaptureFixture
) -> None:
    """F58: in the statistics, the journal and the log; and the publisher goes on."""

    def sink(event: Event) -> bool:
        if event.payload == "bad":
            raise ValueError("cannot take this")
        return True

    with caplog.at_level(logging.ERROR, "treewarden.bus"):
        one = station.bus.attach("t", sink, owner="/reader")
        station.bus.signal("t", "bad")
        await station.bus.publish("t", "good")
    account = one.statistics()
    assert account.dropped_by == {Reason.FAILED: 1}
    assert account.last_fault == "ValueError: cannot take this"
    (failure,) = station.told("bus.failed")
    assert failure["subscription"] == one.id
    assert failure["event"] == {"topic": "t", "position": 0, "payload": "bad"}
    fault = failure["fault"]
    assert isinstance(fault, Fault)
    assert (fault.path, fault.frames[-1][2]) == ("/reader", "sink")
    assert 'raise ValueError("cannot take this")' in caplog.text


def publish(bus: Bus, number: int) -> None:
    bus.publish_nowait("t", number)


async def test_f59_a_full_bus_refuses_counts_and_warns_once_a_second(
    clock: MockClock, station: Station, caplog: pytest.LogCaptureFixture
) -> None:
    """F59: of 15,000 events 10,000 wait and 5,000 are refused, and everybody knows."""
    bus = station.bus
    async with bus.subscribe("t", capacity=10_000, overflow="reject") as stalled:
        refused = 0
        with caplog.at_level(logging.WARNING, "treewarden.bus"):
            for number in range(15_000):
                try:
                    await bus.publish("t", number)
                except Backpressure:
                    refused += 1
                    if refused % 500 == 0:
                        await trio.sleep(0.25)
        assert (refused, stalled.pending) == (5_000, 10_000)
        statistics = bus.statistics()
        assert (statistics.refused, statistics.published) == (5_000, 10_000)
        assert stalled.statistics().refused == 5_000
        # 5,000 refusals in 2.5 seconds.
        assert len(caplog.records) == len(station.told("bus.overflowed")) == 3
        assert (await stalled.__anext__()).payload == 0
        assert (await bus.publish("t", "new")).position == 10_001
    bus.close()
    with pytest.raises(NotRunning):
        await bus.publish("t", "too late")


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
@pytest.mark.parametrize("send", [publish, lambda bus, number: bus.signal("t", number)])
async def test_f60_one_stalled_subscriber_costs_nine_fast_ones_nothing(
    clock: MockClock,
    station: Station,
    overflow: Overflow,
    send: Callable[[Bus, int], object],
) -> None:
    """F60, pitfall 66: all 20,000 events reach each of the nine.

    The tenth lost what it could not hold.
    """
    bus = station.bus
    seen = [0] * 9

    async def read(number: int, *, task_status: trio.TaskStatus[Subscription]) -> None:
        async with bus.subscribe("t", overflow="wait") as subscription:
            task_status.started(subscription)
            async for event in subscription:
                assert event.payload == seen[number]
                assert not event.missed
                seen[number] += 1

    async with (
        bus.subscribe("t", overflow=overflow) as stalled,
        trio.open_nursery() as nursery,
    ):
        for number in range(9):
            await nursery.start(read, number)
        for number in range(20_000):
            send(bus, number)
            if number % 500 == 499:
                await bus.publish("other", None)
                await trio.testing.wait_all_tasks_blocked()
        assert seen == [20_000] * 9
        account = stalled.statistics()
        reason = Reason(overflow.value.removeprefix("drop_"))
        assert account.dropped_by == {reason: 19_000}
        assert (account.published, account.pending) == (20_000, 1_000)
        first = await stalled.__anext__()
        missed = 19_000 if overflow is Overflow.DROP_OLDEST else 0
        assert first.missed == missed
        nursery.cancel_scope.cancel()


async def test_f60_a_stalled_durable_subscriber_costs_nobody_anything(
    clock: MockClock, station: Station
) -> None:
    """F60: and it loses nothing: what does not fit into memory is in the journal."""
    bus = station.bus
    async with (
        bus.subscribe_durable("stalled", "t") as stalled,
        bus.subscribe("t", capacity=20_000) as fast,
    ):
        for number in range(20_000):
            publish(bus, number)
            if number % 500 == 499:
                await bus.publish("other", None)
        assert fast.pending == 20_000
        account = station.account("stalled")
        assert (account.pending, account.unread) == (20_000, 19_000)
        assert (await stalled.__anext__()).event.payload == 0
