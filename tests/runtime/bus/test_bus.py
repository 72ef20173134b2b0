"""Publish and subscribe, journaled and in memory."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from treewarden.bus import Bus, Event, Overflow, Reason, Subscription
from treewarden.errors import (
    Backpressure,
    BusError,
    NotRunning,
    StoreBroken,
    StoreBusy,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.bus import Decided


class Ledger:
    """A journal in memory that commits when it is told to, or at once."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.entries: list[tuple[str, object]] = []
        self.taken: deque[tuple[str, bytes, Decided]] = deque()
        self.room = trio.Event()
        self.room.set()
        self.refuses: StoreError | None = None

    async def wait_room(self) -> None:
        await self.room.wait()

    def append_nowait(
        self, topic: str, payload: bytes, source: str, trace: str, decided: Decided
    ) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.taken.append((topic, payload, decided))
        if self.at_once:
            self.commit()

    def commit(self) -> None:
        while self.taken:
            topic, payload, decided = self.taken.popleft()
            self.entries.append((topic, msgspec.json.decode(payload)))
            decided((len(self.entries), 1_000 + len(self.entries)))

    def fail(self, error: StoreError) -> None:
        while self.taken:
            self.taken.popleft()[-1](error)


async def collect(subscription: Subscription, seen: list[object]) -> None:
    async for event in subscription:
        seen += [event.payload]


def accounts_add_up(bus: Bus) -> bool:
    statistics = bus.statistics()
    return statistics.dropped == sum(statistics.dropped_by.values()) and all(
        row.published == row.delivered + row.dropped + row.pending
        and row.pending + row.reserved <= row.capacity
        for row in statistics.subscriptions
    )


# --- publish -------------------------------------------------------------------------------


async def test_a_published_event_is_in_the_journal_before_anybody_sees_it(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    async with bus.subscribe("orders.*") as orders:
        nursery.start_soon(bus.publish, "orders.new", {"n": 1})
        await trio.testing.wait_all_tasks_blocked()
        assert (len(ledger.taken), orders.pending) == (1, 0)
        ledger.commit()
        event = await anext(orders)
    assert event == Event(topic="orders.new", payload={"n": 1}, position=1, at_ns=1001)


async def test_publish_returns_the_event_with_its_position() -> None:
    bus = Bus(Ledger())
    await bus.publish("a", 1)
    event = await bus.publish("a", (2, 3), source="/me", trace="t")
    assert (event.position, event.payload) == (2, [2, 3])
    assert (event.source, event.trace) == ("/me", "t")


async def test_subscribers_get_what_matches_from_entering_to_leaving() -> None:
    bus = Bus(Ledger())
    await bus.publish("a.b", 0)
    async with bus.subscribe("a.*") as near, bus.subscribe(">") as all_of_it:
        await bus.publish("a.b", 1)
        await bus.publish("a.b.c", 2)
        assert (near.pending, all_of_it.pending) == (1, 2)
    await bus.publish("a.b", 3)
    assert (near.published, all_of_it.published) == (1, 2)


async def test_a_payload_that_cannot_be_kept_is_refused_before_anything() -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    async with bus.subscribe(">") as everything:
        with pytest.raises(TypeError, match=r"'a\.b', of type object,"):
            await bus.publish("a.b", object())
        assert (everything.reserved, everything.published) == (0, 0)
    assert ledger.entries == []


async def test_publishing_waits_for_a_subscription_that_waits(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    async with bus.subscribe("a", capacity=1) as one:
        await bus.publish("a", 1)
        nursery.start_soon(bus.publish, "a", 2)
        await trio.testing.wait_all_tasks_blocked()
        assert len(ledger.entries) == 1
        assert (await anext(one)).payload == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (await anext(one)).payload == 2


async def test_a_full_rejecting_subscription_stops_a_publish_everywhere() -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    async with (
        bus.subscribe("a") as free,
        bus.subscribe("a", capacity=1, overflow="reject", owner="/slow") as slow,
    ):
        await bus.publish("a", 1)
        with pytest.raises(Backpressure, match=r"/slow:a#2 is full \(1 events\)"):
            await bus.publish("a", 2)
        assert (free.pending, free.reserved, slow.lost) == (1, 0, 0)
    assert len(ledger.entries) == 1


async def test_publish_nowait_rejects_instead_of_waiting() -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    async with bus.subscribe("a", capacity=1) as one:
        bus.publish_nowait("a", 1)
        assert one.reserved == 1
        with pytest.raises(Backpressure, match="a#1 is full"):
            bus.publish_nowait("a", 2)
        ledger.commit()
        assert (await anext(one)).payload == 1
    assert bus.statistics().published == 1


async def test_cancelled_while_it_waits_for_room_nothing_happened(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    async with bus.subscribe("a") as free, bus.subscribe("a", capacity=1) as full:
        await bus.publish("a", 1)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await bus.publish("a", 2)
        assert scope.cancelled_caught
        for one in (free, full):
            statistics = one.statistics()
            assert (statistics.published, statistics.reserved) == (1, 0)
            assert statistics.waiting == 0
    assert len(ledger.entries) == 1


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_cancelled_while_the_journal_has_no_room_places_are_given_back(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger()
    ledger.room = trio.Event()
    bus = Bus(ledger)
    async with bus.subscribe("a", capacity=1) as one:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await bus.publish("a", 1)
        assert scope.cancelled_caught
        assert one.reserved == 0
        bus.signal("a", 2)
        assert one.pending == 1


async def test_cancelled_after_the_journal_took_it_it_is_published_all_the_same(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    async with bus.subscribe("a") as one:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await bus.publish("a", 1)
        assert scope.cancelled_caught
        ledger.commit()
        assert (await anext(one)).payload == 1
    assert ledger.entries == [("a", 1)]


async def test_an_event_that_the_journal_could_not_keep_is_seen_by_nobody(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    failed: list[str] = []

    async def publish() -> None:
        with pytest.raises(StoreBroken) as caught:
            await bus.publish("a", 1)
        failed.append(str(caught.value))

    async with bus.subscribe("a", capacity=3) as one:
        nursery.start_soon(publish)
        nursery.start_soon(publish)
        await trio.testing.wait_all_tasks_blocked()
        bus.publish_nowait("a", 2)
        assert one.reserved == 3
        ledger.fail(StoreBroken("disk full"))
        await trio.testing.wait_all_tasks_blocked()
        assert failed == ["disk full"] * 2
        assert (one.reserved, one.published) == (0, 0)
    assert bus.statistics().not_committed == 3


async def test_an_event_that_the_journal_does_not_take_holds_no_place() -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    async with bus.subscribe("a", capacity=1) as one:
        ledger.refuses = StoreBusy("full")
        with pytest.raises(StoreBusy):
            await bus.publish("a", 1)
        with pytest.raises(StoreBusy):
            bus.publish_nowait("a", 1)
        assert (one.reserved, one.published) == (0, 0)


async def test_a_subscription_that_closes_holds_no_publisher_up(
    nursery: trio.Nursery,
) -> None:
    bus = Bus(Ledger())
    async with bus.subscribe("a", capacity=1):
        await bus.publish("a", 1)
        nursery.start_soon(bus.publish, "a", 2)
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert bus.statistics().published == 2
    assert bus.statistics().dropped_by == {Reason.CLOSED: 1}


async def test_a_subscription_that_closes_before_the_commit_gets_nothing(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    async with bus.subscribe("a") as one:
        nursery.start_soon(bus.publish, "a", 1)
        await trio.testing.wait_all_tasks_blocked()
    ledger.commit()
    assert (one.published, one.pending, one.reserved) == (0, 0, 0)


async def test_one_stalled_subscriber_with_a_drop_policy_costs_nine_others_nothing(
    nursery: trio.Nursery,
) -> None:
    bus = Bus(Ledger())
    stalled = nursery.cancel_scope  # the subscription below is never iterated
    seen: list[list[object]] = [[] for _ in range(9)]
    async with bus.subscribe("a", capacity=10, overflow="drop_oldest") as stuck:
        for each in seen:
            nursery.start_soon(_subscribe_and_collect, bus, each)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1000):
            await bus.publish("a", number)
        await trio.testing.wait_all_tasks_blocked()
        assert all(each == list(range(1000)) for each in seen)
        assert (stuck.pending, stuck.lost) == (10, 990)
        assert accounts_add_up(bus)
    stalled.cancel()


async def _subscribe_and_collect(bus: Bus, seen: list[object]) -> None:
    async with bus.subscribe("a", capacity=10) as subscription:
        await collect(subscription, seen)


async def test_a_slow_subscriber_that_is_waited_for_makes_nobody_lose_anything(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bus = Bus(Ledger())
    seen: list[list[object]] = [[] for _ in range(10)]

    async def slow() -> None:
        async with bus.subscribe("a", capacity=10) as subscription:
            async for event in subscription:
                seen[0].append(event.payload)
                await trio.sleep(0.001)

    nursery.start_soon(slow)
    for each in seen[1:]:
        nursery.start_soon(_subscribe_and_collect, bus, each)
    await trio.testing.wait_all_tasks_blocked()
    start = trio.current_time()
    for number in range(500):
        await bus.publish("a", number)
    assert trio.current_time() - start == pytest.approx(0.5, rel=0.1)
    await trio.sleep(1)
    assert all(each == list(range(500)) for each in seen)
    nursery.cancel_scope.cancel()


async def test_many_publishers_to_overlapping_full_subscriptions_all_get_through(
    nursery: trio.Nursery,
) -> None:
    bus = Bus(Ledger())
    left: list[object] = []
    right: list[object] = []

    async def consume(pattern: str, seen: list[object]) -> None:
        async with bus.subscribe(pattern, capacity=1) as subscription:
            async for event in subscription:
                seen.append(event.payload)
                await trio.lowlevel.checkpoint()

    async def publish(topic: str, first: int) -> None:
        for number in range(first, first + 50):
            await bus.publish(topic, number)

    nursery.start_soon(consume, "*.x", left)
    nursery.start_soon(consume, "y.*", right)
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as publishers:
        for place, topic in enumerate(["y.x", "z.x", "y.z", "y.x"] * 3):
            publishers.start_soon(publish, topic, place * 50)
    await trio.testing.wait_all_tasks_blocked()
    assert len(set(left)) == len(left) == 9 * 50
    assert len(set(right)) == len(right) == 9 * 50
    nursery.cancel_scope.cancel()


async def test_one_publishers_events_arrive_in_its_order(nursery: trio.Nursery) -> None:
    bus = Bus(Ledger())
    seen: list[object] = []

    async def publish(name: str) -> None:
        for number in range(100):
            await bus.publish("a", [name, number])

    nursery.start_soon(_subscribe_and_collect, bus, seen)
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as publishers:
        for name in "xyz":
            publishers.start_soon(publish, name)
    await trio.testing.wait_all_tasks_blocked()
    for name in "xyz":
        own = [event for event in seen if isinstance(event, list) and event[0] == name]
        assert own == [[name, number] for number in range(100)]
    nursery.cancel_scope.cancel()


async def test_publishing_inside_a_handler_says_what_to_use() -> None:
    inside = True
    bus = Bus(Ledger(), inside_handler=lambda: inside)
    with pytest.raises(BusError, match=r"use self\.publish"):
        await bus.publish("a", 1)
    with pytest.raises(BusError, match=r"use self\.publish"):
        bus.publish_nowait("a", 1)
    inside = False
    await bus.publish("a", 1)


# --- signals -------------------------------------------------------------------------------


async def test_a_signal_reaches_whoever_has_room_and_no_journal() -> None:
    ledger = Ledger()
    bus = Bus(ledger)
    payload = object()
    async with bus.subscribe("a.>") as one, bus.subscribe("b"):
        assert bus.signal("a.b", payload, source="/me") == 1
        event = await anext(one)
    assert event.payload is payload
    assert (event.position, event.source) == (0, "/me")
    assert event.at_ns > 0
    assert ledger.entries == []


@pytest.mark.parametrize(
    ("overflow", "taken", "reason"),
    [
        (Overflow.WAIT, 0, Reason.FULL),
        (Overflow.REJECT, 0, Reason.REJECTED),
        (Overflow.DROP_NEWEST, 0, Reason.NEWEST),
        (Overflow.DROP_OLDEST, 1, Reason.OLDEST),
    ],
)
async def test_a_signal_to_a_full_subscription_never_waits_and_is_counted(
    overflow: Overflow, taken: int, reason: Reason
) -> None:
    bus = Bus(Ledger())
    async with bus.subscribe("a", capacity=1, overflow=overflow) as one:
        assert bus.signal("a", 1) == 1
        assert bus.signal("a", 2) == taken
        assert one.statistics().dropped_by == {reason: 1}
        assert accounts_add_up(bus)


async def test_a_signal_takes_no_place_that_a_publish_has_reserved(
    nursery: trio.Nursery,
) -> None:
    ledger = Ledger(at_once=False)
    bus = Bus(ledger)
    async with bus.subscribe("a", capacity=1) as one:
        nursery.start_soon(bus.publish, "a", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert bus.signal("a", 2) == 0
        ledger.commit()
        assert (await anext(one)).payload == 1


async def test_a_signal_of_uncommitted_work_is_held_until_it_is_committed() -> None:
    held: list[Callable[[], None]] = []

    def hold(send: Callable[[], None]) -> bool:
        held.append(send)
        return True

    bus = Bus(Ledger(), inside_handler=lambda: True, hold=hold)
    async with bus.subscribe("a") as one:
        assert bus.signal("a", 1) == 0
        assert one.pending == 0
        held[0]()
        assert one.pending == 1


# --- agents --------------------------------------------------------------------------------


async def test_an_offered_event_goes_where_there_is_room_and_names_where_not() -> None:
    bus = Bus(Ledger())
    async with (
        bus.subscribe("a") as free,
        bus.subscribe("a", capacity=1) as full,
        bus.subscribe("a", capacity=1, overflow="reject") as rejecting,
    ):
        first, second = (Event(topic="a", payload=n, position=n) for n in (1, 2))
        assert bus.offer(first) == ()
        assert bus.offer(second) == (full,)
        assert (free.pending, full.pending) == (2, 1)
        assert rejecting.statistics().dropped_by == {Reason.REJECTED: 1}
        assert (await anext(full)).position == 1
        assert await full.put(second)
        assert (await anext(full)).position == 2
        assert accounts_add_up(bus)


async def test_an_attached_sink_gets_events_until_it_is_closed() -> None:
    bus = Bus(Ledger())
    got: list[object] = []

    def sink(event: Event) -> bool:
        got.append(event.payload)
        return True

    subscription = bus.attach("a.*", sink, overflow="wait", owner="/agent", capacity=5)
    await bus.publish("a.b", 1)
    bus.signal("a.c", 2)
    subscription.close()
    await bus.publish("a.b", 3)
    assert got == [1, 2]
    assert (bus.statistics().delivered, bus.statistics().subscriptions) == (2, ())


@pytest.mark.parametrize(
    ("answer", "account"), [(True, (2, 0)), (False, (1, 1)), (None, (1, 1))]
)
async def test_a_sink_that_closes_its_own_subscription_is_counted_to_the_end(
    *, answer: bool | None, account: tuple[int, int]
) -> None:
    bus = Bus(Ledger())

    def sink(event: Event) -> bool:
        if event.payload == 2:
            subscription.close()
            if answer is None:
                raise ValueError
            return answer
        return True

    subscription = bus.attach("t", sink)
    versions = [bus.version]
    for number in (1, 2, 3):
        bus.signal("t", number)
        versions.append(bus.version)
    totals, own = bus.statistics(), subscription.statistics()
    assert (totals.delivered, totals.dropped) == account
    assert (own.delivered, own.dropped) == account
    assert own.published == 2
    assert totals.subscriptions == ()
    assert versions == sorted(versions)


async def test_a_signal_that_nobody_can_show_fails_its_sink_and_not_its_sender() -> (
    None
):
    class Odd:
        def __repr__(self) -> str:
            raise ValueError("no")

    def sink(_: Event) -> bool:
        raise RuntimeError("sink")

    news: list[tuple[str, dict[str, object]]] = []
    bus = Bus(Ledger(), news=lambda topic, payload: news.append((topic, payload)))
    bus.attach("t", sink)
    assert bus.signal("t", Odd()) == 1
    assert [topic for topic, _ in news] == ["bus.failed"]


async def test_a_publisher_that_waits_for_an_attached_sink_goes_on_at_its_flush(
    nursery: trio.Nursery,
) -> None:
    bus = Bus(Ledger())
    room = 0
    got: list[object] = []

    def sink(event: Event) -> bool:
        nonlocal room
        if room == 0:
            return False
        room -= 1
        got.append(event.payload)
        return True

    subscription = bus.attach("a", sink, capacity=1)
    await bus.publish("a", 1)
    nursery.start_soon(bus.publish, "a", 2)
    await trio.testing.wait_all_tasks_blocked()
    assert subscription.statistics().waiting == 1
    room = 2
    subscription.flush()
    await trio.testing.wait_all_tasks_blocked()
    assert got == [1, 2]


# --- the whole -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pattern": "a..b"}, "single dots"),
        ({"pattern": "a", "capacity": 0}, "capacity must be >= 1"),
        ({"pattern": "a", "overflow": "explode"}, "explode"),
    ],
)
async def test_a_subscription_that_makes_no_sense_is_refused_and_leaves_nothing(
    options: dict[str, str], says: str
) -> None:
    bus = Bus(Ledger())
    with pytest.raises(ValueError, match=says):
        async with bus.subscribe(**options):  # type: ignore[arg-type]
            pass
    assert bus.statistics().subscriptions == ()


async def test_a_closed_bus_ends_its_subscriptions_and_takes_nothing(
    nursery: trio.Nursery,
) -> None:
    bus = Bus(Ledger())
    seen: list[object] = []
    nursery.start_soon(_subscribe_and_collect, bus, seen)
    await trio.testing.wait_all_tasks_blocked()
    await bus.publish("a", 1)
    bus.close()
    await trio.testing.wait_all_tasks_blocked()
    assert bus.statistics().subscriptions == ()
    with pytest.raises(NotRunning, match="nothing was published"):
        await bus.publish("a", 2)
    with pytest.raises(NotRunning, match="nothing was sent"):
        bus.signal("a", 2)
    with pytest.raises(NotRunning, match="nothing was subscribed"):
        bus.attach("a", lambda event: True)


async def test_totals_keep_what_closed_subscriptions_had_counted() -> None:
    bus = Bus(Ledger())
    for _ in range(2):
        async with bus.subscribe("a", capacity=2, overflow="drop_newest") as one:
            for number in range(3):
                await bus.publish("a", number)
            await anext(one)
    statistics = bus.statistics()
    assert (statistics.published, statistics.delivered, statistics.dropped) == (6, 2, 4)
    assert statistics.dropped_by == {Reason.NEWEST: 2, Reason.CLOSED: 2}


async def test_the_version_changes_with_anything_that_is_shown() -> None:
    bus = Bus(Ledger())
    seen = [bus.version]
    async with bus.subscribe("a", capacity=1, overflow="drop_oldest") as one:
        seen.append(bus.version)
        await bus.publish("a", 1)
        seen.append(bus.version)
        await anext(one)
        seen.append(bus.version)
        bus.signal("a", 2)
        seen.append(bus.version)
        bus.signal("a", 3)
        seen.append(bus.version)
        assert bus.version == seen[-1]
    seen.append(bus.version)
    assert seen == sorted(set(seen))


kinds = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(Overflow), st.sampled_from("ab*")),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.tuples(st.sampled_from(["publish", "signal", "take", "commit"]), st.booleans()),
    max_size=60,
)


@given(kinds=kinds, steps=steps)
def test_the_accounts_add_up_whatever_happens(
    kinds: list[tuple[int, Overflow, str]], steps: list[tuple[str, bool]]
) -> None:
    async def scenario() -> None:
        ledger = Ledger(at_once=False)
        bus = Bus(ledger)
        wanted = [
            bus.subscribe(pattern, capacity=capacity, overflow=overflow)
            for capacity, overflow, pattern in kinds
        ]
        async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
            subscriptions = [await stack.enter_async_context(one) for one in wanted]
            for number, (step, first) in enumerate(steps):
                topic = "a" if first else "b"
                if step == "publish":
                    nursery.start_soon(_publish_or_not, bus, topic, number)
                elif step == "signal":
                    bus.signal(topic, number)
                elif step == "commit":
                    ledger.commit() if first else ledger.fail(StoreBroken("no"))
                else:
                    one = subscriptions[number % len(subscriptions)]
                    if one.pending:
                        await anext(one)
                await trio.testing.wait_all_tasks_blocked()
                assert accounts_add_up(bus)
            nursery.cancel_scope.cancel()
            # What the journal took is decided although its publishers are gone.
            ledger.commit()
            assert accounts_add_up(bus)
            assert all(one.reserved == 0 for one in subscriptions)
        assert all(one.reserved == 0 and not one.line for one in subscriptions)

    trio.run(scenario)


async def _publish_or_not(bus: Bus, topic: str, number: int) -> None:
    with contextlib.suppress(Backpressure, StoreBroken):
        await bus.publish(topic, number)
