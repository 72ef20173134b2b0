"""One subscriber's end of the bus: an iterator for a task, or a sink for an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from treewarden.bus import Event, Offered, Overflow, Reason, Subscription, by_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.bus import Sink


def event(number: int) -> Event:
    return Event(topic="t", payload=number)


def subscription(
    capacity: int = 10,
    overflow: Overflow = Overflow.WAIT,
    sink: Sink | None = None,
    key: Callable[[Event], str] = by_topic,
) -> Subscription:
    return Subscription(
        "t",
        capacity=capacity,
        overflow=overflow,
        owner="",
        number=1,
        leave=lambda one: None,
        sink=sink,
        key=key,
    )


def fill(one: Subscription, *numbers: int) -> None:
    for number in numbers:
        one.offer(event(number))


async def test_events_come_in_order_and_the_end_is_the_end(
    nursery: trio.Nursery,
) -> None:
    one = subscription()
    seen: list[object] = []

    async def consume() -> None:
        nonlocal seen
        async for each in one:
            seen += [each.payload]
        ended.set()

    ended = trio.Event()
    nursery.start_soon(consume)
    await trio.testing.wait_all_tasks_blocked()
    fill(one, 1, 2)
    await trio.testing.wait_all_tasks_blocked()
    fill(one, 3)
    await trio.testing.wait_all_tasks_blocked()
    one.close()
    await ended.wait()
    assert seen == [1, 2, 3]


async def test_a_burst_wakes_its_subscriber_once(nursery: trio.Nursery) -> None:
    one = subscription(capacity=100)
    passes: list[int] = []

    async def consume() -> None:
        async for _ in one:
            passes.append(trio.lowlevel.current_statistics().tasks_runnable)
            if one.pending == 0:
                done.set()

    done = trio.Event()
    nursery.start_soon(consume)
    await trio.testing.wait_all_tasks_blocked()
    fill(one, *range(100))
    # One pass of the loop: the subscriber runs once, and the burst is gone.
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    assert len(passes) == 100
    assert done.is_set()
    nursery.cancel_scope.cancel()


async def test_a_subscriber_that_feeds_itself_starves_nobody(
    nursery: trio.Nursery,
) -> None:
    one = subscription()
    seen = 0

    async def consume() -> None:
        nonlocal seen
        async for each in one:
            seen += 1
            one.offer(each)

    fill(one, 1)
    nursery.start_soon(consume)
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    assert 0 < seen <= 20
    nursery.cancel_scope.cancel()


async def test_a_cancelled_step_has_taken_nothing() -> None:
    one = subscription()
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(one)
    fill(one, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(one)
    assert (one.delivered, one.pending) == (0, 1)
    assert (await anext(one)).payload == 1


async def test_a_loop_that_was_left_half_way_can_be_taken_up_again() -> None:
    one = subscription()
    fill(one, 1, 2, 3)
    async for each in one:
        if each.payload == 2:
            break
    assert (await anext(one)).payload == 3


async def test_two_tasks_cannot_iterate_one_subscription(nursery: trio.Nursery) -> None:
    one = subscription()
    nursery.start_soon(anext, one)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await anext(one)
    fill(one, 1)


async def test_closing_ends_the_iteration_and_drops_what_waits() -> None:
    one = subscription()
    fill(one, 1, 2)
    one.close()
    assert [each async for each in one] == []
    assert one.statistics().dropped_by == {Reason.CLOSED: 2}


async def test_loss_is_visible_to_the_subscriber() -> None:
    one = subscription(capacity=1, overflow=Overflow.DROP_OLDEST)
    fill(one, 1, 2, 3)
    assert (await anext(one)).payload == 3
    assert one.lost == 2


# --- putting what was offered in vain --------------------------------------------------------


async def test_what_found_no_room_is_put_when_there_is_some(
    nursery: trio.Nursery,
) -> None:
    one = subscription(capacity=1)
    fill(one, 1)
    assert one.offer(event(2)) is Offered.NO_ROOM
    put: list[bool] = []

    async def later() -> None:
        put.append(await one.put(event(2)))

    nursery.start_soon(later)
    await trio.testing.wait_all_tasks_blocked()
    assert put == []
    assert (await anext(one)).payload == 1
    await trio.testing.wait_all_tasks_blocked()
    assert put == [True]
    assert (await anext(one)).payload == 2


async def test_every_step_of_a_batch_lets_one_that_waits_in(
    nursery: trio.Nursery,
) -> None:
    one = subscription(capacity=3)
    fill(one, 1, 2, 3)
    for number in (4, 5, 6):
        nursery.start_soon(one.put, event(number))
    await trio.testing.wait_all_tasks_blocked()
    for left in (2, 1, 0):
        await anext(one)
        assert one.statistics().waiting == left
    await trio.testing.wait_all_tasks_blocked()
    assert one.pending == 3


async def test_a_cancelled_put_has_put_nothing_and_holds_no_place() -> None:
    one = subscription(capacity=1)
    for blocked in (False, True):
        if blocked:
            fill(one, 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.put(event(2))
        assert scope.cancelled_caught
    statistics = one.statistics()
    assert (statistics.published, statistics.reserved, statistics.waiting) == (1, 0, 0)


async def test_a_put_that_waits_ends_with_the_subscription(
    nursery: trio.Nursery,
) -> None:
    one = subscription(capacity=1)
    fill(one, 1)
    put: list[bool] = []

    async def later() -> None:
        put.append(await one.put(event(2)))

    nursery.start_soon(later)
    await trio.testing.wait_all_tasks_blocked()
    one.close()
    await trio.testing.wait_all_tasks_blocked()
    assert put == [False]


# --- sinks ---------------------------------------------------------------------------------


class Box:
    """A sink with room for so many."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got: list[object] = []

    def put(self, each: Event) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.got.append(each.payload)
        return True


def test_a_sink_gets_events_at_once_and_the_rest_when_it_has_room_again() -> None:
    box = Box(2)
    one = subscription(capacity=2, sink=box.put)
    fill(one, 1, 2, 3, 4)
    assert one.offer(event(5)) is Offered.NO_ROOM
    assert (box.got, one.pending, one.delivered) == ([1, 2], 2, 2)
    box.room = 10
    one.flush()
    assert (box.got, one.pending, one.delivered) == ([1, 2, 3, 4], 0, 4)


def test_a_sink_never_gets_a_newer_event_before_an_older_one() -> None:
    box = Box(0)
    one = subscription(sink=box.put)
    fill(one, 1)
    box.room = 1
    fill(one, 2)
    box.room = 1
    fill(one, 3)
    assert box.got == [1, 2]


def test_a_sink_that_raises_costs_that_event_and_fails_nobody() -> None:
    """Pitfall 66"""
    got: list[object] = []

    def sink(each: Event) -> bool:
        if each.payload == 1:
            raise RuntimeError("a bug")
        got.append(each.payload)
        return True

    one = subscription(sink=sink)
    fill(one, 1, 2)
    assert got == [2]
    assert one.statistics().dropped_by == {Reason.FAILED: 1}
    assert one.published == one.delivered + one.lost + one.pending


@pytest.mark.parametrize("overflow", list(Overflow))
@pytest.mark.parametrize("takes", [True, False])
def test_a_sink_that_publishes_to_itself_breaks_no_account(
    overflow: Overflow, *, takes: bool
) -> None:
    def sink(each: Event) -> bool:
        if each.payload == 1:
            one.offer(event(2))
            one.flush()
            assert one.published == one.delivered + one.lost + one.pending
        return takes

    one = subscription(capacity=1, overflow=overflow, sink=sink)
    fill(one, 1)
    statistics = one.statistics()
    assert one.published == one.delivered + one.lost + one.pending
    assert (statistics.reserved, one.pending) == (0, not takes)


@pytest.mark.parametrize("takes", [True, False])
def test_a_sink_that_closes_its_subscription_breaks_no_account(*, takes: bool) -> None:
    def sink(each: Event) -> bool:
        one.close()
        return takes

    one = subscription(sink=sink)
    fill(one, 1, 2)
    assert (one.published, one.delivered, one.lost) == (1, takes, not takes)
    assert (one.pending, one.reserved) == (0, 0)


async def test_an_attached_subscription_is_not_iterated() -> None:
    one = subscription(sink=lambda each: True)
    with pytest.raises(TypeError, match="attached"):
        await anext(one)


def test_what_a_sink_keeps_changing_under_its_key_goes_back_where_it_was() -> None:
    """A signal's payload is anybody's object, and its key may be gone by then."""

    def sink(event: Event) -> bool:
        assert isinstance(event.payload, dict)
        event.payload.clear()
        return False

    def key(event: Event) -> str:
        assert isinstance(event.payload, dict)
        return str(event.payload["key"])

    one = subscription(overflow=Overflow.LATEST, sink=sink, key=key)
    one.offer(Event(topic="t", payload={"key": "a"}))
    one.offer(Event(topic="t", payload={"key": "a"}))
    found = one.statistics()
    assert (found.published, found.pending) == (2, 1)
    assert found.dropped_by == {Reason.SUPERSEDED: 1}
