"""Durable subscriptions: a cursor that outlives the process, and what is done with it."""

from __future__ import annotations

import math
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from treewarden.bus import DurablePolicy, Event, Reason, Start, by_topic, unordered
from treewarden.bus.durable import SAVED_EVERY
from treewarden.errors import BusError, NotRunning, RestoreError, StoreBroken
from treewarden.exits import Fault
from treewarden.resilience import Backoff
from treewarden.store import Unit, load_letters, load_subscriptions
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden.bus import LeasedEvent, Subscriber

    from .conftest import OpenStation, Station

AT_ONCE = Backoff(initial=0.0, maximum=0.0)
AT_MOST_TWO = DurablePolicy(capacity=2)


async def take(member: Subscriber, count: int) -> list[LeasedEvent]:
    # Far longer than any wait here; the clock jumps.
    with trio.fail_after(1000):
        return [await member.__anext__() for _ in range(count)]


async def acked(member: Subscriber, count: int) -> list[object]:
    """Take and acknowledge so many; their payloads."""
    found = []
    for _ in range(count):
        (leased,) = await take(member, 1)
        assert await leased.ack()
        found.append(leased.event.payload)
    return found


async def publish(station: Station, *payloads: object, topic: str = "t") -> None:
    for payload in payloads:
        await station.bus.publish(topic, payload)


def unstorable() -> Unit:
    """A unit whose commit fails, and that is not the disk's fault."""
    unit = Unit("/a")
    unit.writes = [("INSERT INTO meta (key, value, crc) VALUES ('boot', 1, 0)", ())]
    return unit


# --- the cursor ----------------------------------------------------------------------------


async def test_a_durable_subscription_goes_on_where_the_last_run_was(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    async with open_station(file) as one:
        async with one.bus.subscribe_durable("billing", "t") as member:
            await publish(one, 1, 2, 3)
            assert await acked(member, 2) == [1, 2]
        await publish(one, 4)
    async with (
        open_station(file) as two,
        two.bus.subscribe_durable("billing", "t") as member,
    ):
        assert two.account("billing").pending == 2
        await publish(two, 5)
        assert await acked(member, 3) == [3, 4, 5]
        account = two.account("billing")
        assert (account.published, account.delivered, account.pending) == (3, 3, 0)


async def test_what_was_published_while_nobody_was_there_is_delivered(
    clock: MockClock,
    station: Station,
) -> None:
    async with station.bus.subscribe_durable("billing", "t"):
        pass
    await publish(station, *range(10))
    async with station.bus.subscribe_durable("billing", "t") as member:
        assert await acked(member, 10) == list(range(10))


async def test_an_event_is_not_acknowledged_before_that_is_committed(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    async with (
        open_station(file) as station,
        station.bus.subscribe_durable("billing", "t") as member,
    ):
        await publish(station, 1)
        (leased,) = await take(member, 1)
        unit = Unit("/a")
        assert leased.settle(unit)
        account = station.account("billing")
        assert (account.delivered, account.pending) == (0, 1)
        station.store.hand_over(unit)
        await station.store.wait(unit)
        assert station.account("billing").delivered == 1


async def test_a_commit_that_fails_delivers_its_event_again(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(backoff=AT_ONCE)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1)
        (leased,) = await take(member, 1)
        unit = unstorable()
        leased.settle(unit)
        station.store.hand_over(unit)
        with pytest.raises(StoreBroken):
            await station.store.wait(unit)
        (again,) = await take(member, 1)
        assert (again.event.payload, again.attempt) == (1, 2)
        assert not await leased.ack()
        assert await again.ack()
        assert station.account("b").delivered == 1


async def test_what_is_given_back_and_leased_again_at_once_ends_in_one_dead_letter(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(max_attempts=1, lease=5.0)
    async with (
        station.bus.subscribe_durable("b", "t", policy=policy) as member,
        station.bus.subscribe_durable("b", "t", policy=policy) as other,
        trio.open_nursery() as nursery,
    ):
        await publish(station, 1, 2)
        (leased,) = await take(member, 1)
        nursery.start_soon(take, other, 1)
        await trio.testing.wait_all_tasks_blocked()
        # The other one has it in the same instant: both leases would run out together.
        assert leased.give_back()
        await trio.sleep(6.0)
        assert await acked(member, 1) == [2]
        account = station.account("b")
        assert (account.delivered, account.dropped, account.pending) == (1, 1, 0)


async def test_what_was_handed_out_behind_a_commit_that_fails_is_not_kept(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(backoff=AT_ONCE)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1, 2)
        (first,) = await take(member, 1)
        failing = unstorable()
        assert first.settle(failing)
        # Its turn has come: what was done for the first is on its way.
        (second,) = await take(member, 1)
        station.store.hand_over(failing)
        with pytest.raises(StoreBroken):
            await station.store.wait(failing)
        with pytest.raises(StoreBroken, match="builds on"):
            await second.ack()
        assert await acked(member, 2) == [1, 2]
        assert station.account("b").delivered == 2


async def test_what_only_failed_with_the_one_before_was_no_attempt(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(max_attempts=2)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "bad", "good")
        for _ in range(2):
            (bad,) = await take(member, 1)
            assert bad.event.payload == "bad"
            failing, behind = unstorable(), Unit("/a")
            bad.settle(failing)
            (good,) = await take(member, 1)
            assert (good.event.payload, good.attempt) == ("good", 1)
            good.settle(behind)
            station.store.hand_over(failing)
            station.store.hand_over(behind)
            with pytest.raises(StoreBroken):
                await station.store.wait(behind)
        (good,) = await take(member, 1)
        assert (good.event.payload, good.attempt) == ("good", 1)
        assert await good.ack()
        (letter,) = await station.store.read(lambda one: load_letters(one, 0, 10))
        assert letter.id == "1"
        assert station.account("b").delivered == 1


async def test_nobody_sees_an_event_done_before_the_dead_letter_of_the_one_ahead(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(max_attempts=1)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1, 2)
        (first,) = await take(member, 1)
        assert first.nack("no")
        # The dead letter is on its way; the next one's turn comes meanwhile.
        (second,) = await take(member, 1)
        assert await second.ack()
        letters = await station.store.read(lambda one: load_letters(one, 0, 10))
        assert [letter.id for letter in letters] == ["1"]


async def test_what_can_never_be_committed_becomes_a_dead_letter(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(max_attempts=2)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "bad", "good")
        for attempt in (1, 2):
            (leased,) = await take(member, 1)
            assert (leased.event.payload, leased.attempt) == ("bad", attempt)
            unit = unstorable()
            leased.settle(unit)
            station.store.hand_over(unit)
            with pytest.raises(StoreBroken):
                await station.store.wait(unit)
        assert await acked(member, 1) == ["good"]
        assert station.account("b").dropped_by == {Reason.DEAD_LETTER: 1}


async def test_more_events_than_fit_into_memory_wait_in_the_journal(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(capacity=10)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, *range(100))
        account = station.account("b")
        assert (account.published, account.pending, account.unread) == (100, 100, 90)
        assert await acked(member, 100) == list(range(100))
        account = station.account("b")
        assert (account.delivered, account.pending, account.lag) == (100, 0, 0)


async def test_what_the_journal_deleted_first_is_counted_and_seen_as_a_gap(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(capacity=2)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, *range(10))
        await publish(station, "other", topic="u")
        cut = Unit("/a")
        cut.writes = [("DELETE FROM journal WHERE position <= 7", ())]
        station.store.hand_over(cut)
        await station.store.wait(cut)
        seen = []
        for _ in range(5):
            (leased,) = await take(member, 1)
            await leased.ack()
            seen.append((leased.event.payload, leased.event.missed))
        assert seen == [(0, 0), (1, 0), (7, 5), (8, 0), (9, 0)]
        account = station.account("b")
        assert account.dropped_by == {Reason.EXPIRED: 5}
        assert (account.published, account.delivered) == (10, 5)
    assert station.told("bus.lost")


async def test_only_what_matches_is_delivered_and_signals_are_not(
    clock: MockClock,
    station: Station,
) -> None:
    async with station.bus.subscribe_durable("b", "orders.>") as member:
        await publish(station, 1, topic="orders.eu")
        await publish(station, 2, topic="invoices")
        station.bus.signal("orders.eu", 3)
        await publish(station, 4, topic="orders.us.new")
        assert await acked(member, 2) == [1, 4]
        assert station.account("b").published == 2


# --- attempts ---------------------------------------------------------------------------------


async def test_what_fails_is_tried_again_after_a_growing_wait_then_a_dead_letter(
    clock: MockClock,
    station: Station,
) -> None:
    backoff = Backoff(initial=1.0, maximum=60.0, factor=2.0, jitter=0.0)
    policy = DurablePolicy(max_attempts=4, backoff=backoff)
    begun: list[tuple[int, float]] = []
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "poison", "next")
        while len(begun) < 4:
            (leased,) = await take(member, 1)
            begun.append((leased.attempt, trio.current_time()))
            leased.nack("no")
        waits = [
            round(later - earlier, 3) for (_, earlier), (_, later) in pairwise(begun)
        ]
        assert [attempt for attempt, _ in begun] == [1, 2, 3, 4]
        assert waits == [1.0, 2.0, 4.0]
        assert await acked(member, 1) == ["next"]
        account = station.account("b")
        assert account.dropped_by == {Reason.DEAD_LETTER: 1}
        assert account.redelivered == 3
    (letter,) = await station.store.read(lambda c: load_letters(c, 0, 10))
    assert (letter.subscription, letter.operation) == ("b", "t")
    assert (letter.attempts, letter.reason) == (4, "no")
    assert b'"payload":"poison"' in letter.arguments


async def test_by_default_the_tenth_failure_is_the_last(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(backoff=AT_ONCE)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "poison", "next")
        for attempt in range(1, 11):
            (leased,) = await take(member, 1)
            assert (leased.event.payload, leased.attempt) == ("poison", attempt)
            leased.nack()
        assert await acked(member, 1) == ["next"]


async def test_an_attempt_is_counted_in_the_file_before_it_is_begun(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    """What kills the process is not tried for ever."""
    file, copy = tmp_path / "a.db", tmp_path / "killed.db"
    policy = DurablePolicy(max_attempts=2, backoff=AT_ONCE)
    async with (
        open_station(file) as station,
        station.bus.subscribe_durable("b", "t", policy=policy) as member,
    ):
        await publish(station, "poison", "next")
        await take(member, 1)
        # What a kill would leave behind now.
        await station.store.backup(copy)
    for attempt in (2, None):
        async with (
            open_station(copy) as station,
            station.bus.subscribe_durable("b", "t", policy=policy) as member,
        ):
            (leased,) = await take(member, 1)
            if attempt is None:
                # Counted with the poison in one commit, but never a second time.
                assert (leased.event.payload, leased.attempt) == ("next", 2)
                break
            assert (leased.event.payload, leased.attempt) == ("poison", attempt)
            killed = tmp_path / "again.db"
            await station.store.backup(killed)
        copy = killed


async def test_a_lease_that_runs_out_is_an_attempt_and_its_ack_comes_too_late(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(lease=5.0, backoff=AT_ONCE)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1)
        (late,) = await take(member, 1)
        before = trio.current_time()
        (again,) = await take(member, 1)
        assert trio.current_time() - before == pytest.approx(5.0)
        assert again.attempt == 2
        assert not await late.ack()
        assert not late.nack()
        assert await again.ack()


async def test_f58_what_a_handler_raises_is_kept_with_its_line_and_the_event(
    clock: MockClock,
    station: Station,
) -> None:
    """F58: nothing that a handler raises is swallowed."""
    policy = DurablePolicy(max_attempts=2, backoff=AT_ONCE)
    handled = []

    async def handle(event: Event) -> None:
        await trio.lowlevel.checkpoint()
        if event.payload == "bad":
            raise ValueError("cannot do this")
        handled.append(event.payload)

    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "bad", "good")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.serve, handle)
            await wait_until(lambda: handled == ["good"])
            nursery.cancel_scope.cancel()
        assert station.account("b").last_fault == "ValueError: cannot do this"
    failures = station.told("bus.failed")
    assert len(failures) == 2
    fault = failures[0]["fault"]
    assert isinstance(fault, Fault)
    assert fault.frames[-1][2] == "handle"
    assert 'raise ValueError("cannot do this")' in fault.format()
    assert failures[0]["event"] == {"topic": "t", "position": 1, "payload": "bad"}
    (letter,) = await station.store.read(lambda c: load_letters(c, 0, 10))
    assert letter.reason == "ValueError: cannot do this"


async def test_a_key_that_cannot_be_found_makes_a_dead_letter_and_holds_nobody_up(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(key=lambda event: str(event.payload["id"]))  # type: ignore[index]
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, "none", {"id": 1})
        assert await acked(member, 1) == [{"id": 1}]
        assert station.account("b").dropped_by == {Reason.DEAD_LETTER: 1}


# --- members and order -------------------------------------------------------------------------


async def test_events_of_one_key_come_one_at_a_time_and_in_order(
    clock: MockClock,
    station: Station,
) -> None:
    async with station.bus.subscribe_durable("b", "*") as member:
        await publish(station, 1, 2, topic="a")
        await publish(station, 3, topic="b")
        first, other = await take(member, 2)
        assert (first.event.payload, other.event.payload) == (1, 3)
        with trio.move_on_after(10):
            await take(member, 1)
            pytest.fail("2 must wait for 1")
        first.nack(delay=0.0)
        (again,) = await take(member, 1)
        assert again.event.payload == 1
        await again.ack()
        assert await acked(member, 1) == [2]


async def test_members_share_one_cursor_and_each_event_goes_to_one(
    clock: MockClock,
    station: Station,
) -> None:
    policy = DurablePolicy(key=unordered)
    seen: list[list[object]] = [[], [], []]

    async def work(number: int) -> None:
        async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
            async for leased in member:
                seen[number].append(leased.event.payload)
                await leased.ack()

    async with (
        station.bus.subscribe_durable("b", "t", policy=policy),
        trio.open_nursery() as nursery,
    ):
        for number in range(3):
            nursery.start_soon(work, number)
        await trio.testing.wait_all_tasks_blocked()
        await publish(station, *range(90))
        await wait_until(lambda: sum(map(len, seen)) == 90)
        nursery.cancel_scope.cancel()
    assert sorted(chain(*seen)) == list(range(90))  # type: ignore[type-var]
    assert all(one == sorted(one) and one for one in seen)  # type: ignore[type-var]


async def test_what_a_dead_member_held_goes_to_the_others(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(key=unordered)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as survivor:
        await publish(station, 1, 2, 3)
        with pytest.raises(ZeroDivisionError):
            async with station.bus.subscribe_durable("b", "t") as victim:
                assert [one.event.payload for one in await take(victim, 2)] == [1, 2]
                raise ZeroDivisionError
        # Now, and not when their leases have run out.
        with trio.fail_after(5):
            found = await take(survivor, 3)
        assert sorted((one.event.payload, one.attempt) for one in found) == [
            (1, 2),
            (2, 2),
            (3, 1),
        ]


async def test_a_member_that_just_leaves_has_tried_nothing(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t") as survivor:
        await publish(station, 1)
        async with station.bus.subscribe_durable("b", "t") as other:
            await take(other, 1)
        (leased,) = await take(survivor, 1)
        assert leased.attempt == 1


async def test_a_name_has_one_pattern(clock: MockClock, station: Station) -> None:
    async with station.bus.subscribe_durable("b", "t"):
        with pytest.raises(ValueError, match="subscribes to 't' already"):
            station.bus.join_durable("b", "u")


async def test_cancelled_while_it_waits_a_member_has_taken_nothing(
    clock: MockClock,
    station: Station,
) -> None:
    async with station.bus.subscribe_durable("b", "t") as member:
        with trio.move_on_after(1):
            await take(member, 1)
        await publish(station, 1)
        assert await acked(member, 1) == [1]


async def test_a_closed_bus_ends_the_iteration(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t") as member:
        station.bus.close()
        assert [one async for one in member] == []
    with pytest.raises(NotRunning):
        station.bus.join_durable("b", "t")


# --- where it begins ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (Start(after=0), [0, 1, 2, 3, "new"]),
        (Start(after=2), [2, 3, "new"]),
        (Start(), ["new"]),
    ],
)
async def test_a_new_name_begins_where_it_is_told(
    clock: MockClock, station: Station, start: Start, found: list[object]
) -> None:
    await publish(station, *range(4))
    async with station.bus.subscribe_durable("b", "t", start=start) as member:
        await publish(station, "new")
        assert await acked(member, len(found)) == found
        assert station.account("b").pending == 0


async def test_a_new_name_may_begin_with_the_last_of_each_key(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    async with open_station(file) as station:
        for number, topic in enumerate(("a", "b", "a", "c", "b")):
            await publish(station, number, topic=topic)
        async with station.bus.subscribe_durable(
            "b", "*", start=Start(last=True)
        ) as member:
            assert await acked(member, 1) == [2]
    async with (
        open_station(file) as station,
        station.bus.subscribe_durable("b", "*") as member,
    ):
        await publish(station, 9, topic="a")
        assert sorted(await acked(member, 3)) == [3, 4, 9]  # type: ignore[type-var]
        assert station.account("b").pending == 0


async def test_a_start_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="one of after, at_ns and last"):
        Start(after=1, last=True)
    with pytest.raises(ValueError, match="after must be >= 0"):
        Start(after=-1)


async def test_a_name_that_is_forgotten_begins_anew(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t") as member:
        await publish(station, 1)
        with pytest.raises(BusError, match="has members"):
            await station.bus.forget_durable("b")
        assert await acked(member, 1) == [1]
    assert await station.bus.forget_durable("b")
    assert not await station.bus.forget_durable("b")
    async with station.bus.subscribe_durable("b", "t", start=Start(after=0)) as member:
        assert await acked(member, 1) == [1]


async def test_cancelled_while_it_is_opened_it_is_opened_by_the_next(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t", policy=AT_MOST_TWO):
        pass
    await publish(station, *range(5))
    first = station.bus.join_durable("b", "t")
    for steps in range(12):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.subscription.open, Start())
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    await first.subscription.open(Start())
    assert station.account("b").published == 5
    async with station.bus.subscribe_durable("b", "t") as member:
        first.leave()
        assert await acked(member, 5) == list(range(5))


# --- damage -----------------------------------------------------------------------------------------


async def test_a_damaged_cursor_is_never_a_fresh_start(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t"):
        pass
    break_it = Unit("/a")
    break_it.writes = [("UPDATE subscription SET name = 'c' WHERE name = 'b'", ())]
    station.store.hand_over(break_it)
    await station.store.wait(break_it)
    with pytest.raises(RestoreError, match="may be the one whose row is damaged"):
        async with station.bus.subscribe_durable("b", "t"):
            pytest.fail("it must not begin again")


async def test_rows_of_what_is_over_do_not_pile_up(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "t") as member:
        await publish(station, *range(200))
        assert await acked(member, 200) == list(range(200))
    await station.store.settled()

    def rows(connection: object) -> int:
        (count,) = connection.execute("SELECT count(*) FROM delivery").fetchone()  # type: ignore[attr-defined]
        return int(count)

    assert await station.store.read(rows) == 0
    (row,) = await station.store.read(load_subscriptions)
    assert (row.cursor, row.begun) == (200, 200)


async def test_a_cursor_follows_the_journal_also_when_nothing_is_wanted(
    clock: MockClock, station: Station
) -> None:
    async with station.bus.subscribe_durable("b", "rare") as member:
        for number in range(SAVED_EVERY + 10):
            station.bus.publish_nowait("t", number)
            if number % 100 == 0:
                await station.store.settled()
        await station.store.settled()
        await publish(station, 1, topic="rare")
        (row,) = await station.store.read(load_subscriptions)
        assert row.cursor >= SAVED_EVERY
        assert await acked(member, 1) == [1]


def test_events_are_kept_together_by_their_topic_unless_told() -> None:
    event = Event(topic="a.b", payload=1, position=7)
    assert by_topic(event) == "a.b"
    assert unordered(event) == "7"
    with pytest.raises(ValueError, match="max_attempts must be >= 1"):
        DurablePolicy(max_attempts=0)


# --- what else may come ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "\udcff", "a\nb", "x" * 256])
async def test_a_name_is_something_that_can_be_typed_and_kept(
    clock: MockClock, station: Station, name: str
) -> None:
    with pytest.raises(ValueError, match="1 to 255 printable characters, not"):
        station.bus.join_durable(name, "t")
    with pytest.raises(TypeError, match="must be a str, not 3"):
        station.bus.join_durable(3, "t")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, math.nan, True, 1.5, "3"])
def test_a_policy_of_durable_delivery_refuses_what_is_no_bound(bad: Any) -> None:
    for field in ("capacity", "max_attempts"):
        with pytest.raises((TypeError, ValueError), match=f"{field} must be"):
            DurablePolicy(**{field: bad})
    if bad != 1.5:
        with pytest.raises((TypeError, ValueError), match="lease must be"):
            DurablePolicy(lease=bad)


@pytest.mark.parametrize("bad", [-1, math.nan, True, 1.5, "3"])
def test_a_start_refuses_what_is_no_place_in_a_journal(bad: Any) -> None:
    for field in ("after", "at_ns"):
        with pytest.raises((TypeError, ValueError), match=f"{field} must be"):
            Start(**{field: bad})
    with pytest.raises(TypeError, match="last must be a bool"):
        Start(last=None if bad is True else bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, True])
async def test_a_delay_that_is_none_is_refused_and_the_event_still_held(
    clock: MockClock, station: Station, bad: float
) -> None:
    async with station.bus.subscribe_durable("b", "t") as member:
        await publish(station, 1)
        (leased,) = await take(member, 1)
        with pytest.raises((TypeError, ValueError), match="delay must be"):
            leased.nack(delay=bad)
        assert await leased.ack()


async def test_a_key_that_cannot_be_one_makes_a_dead_letter_and_fails_nobody(
    clock: MockClock, station: Station
) -> None:
    def key(event: Event) -> Any:
        return [] if event.payload == 1 else "k"

    policy = DurablePolicy(key=key)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1, 2)
        assert await acked(member, 1) == [2]
        with trio.fail_after(60):
            await wait_until(lambda: station.account("b").dropped == 1)


async def test_a_reason_that_no_file_takes_is_a_dead_letter_all_the_same(
    clock: MockClock, station: Station
) -> None:
    """The name of a file may hold bytes that are no text."""
    policy = DurablePolicy(max_attempts=2, backoff=AT_ONCE)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 1)
        for why in (Fault.capture(OSError("no \udcff")), "no \udcff"):
            (leased,) = await take(member, 1)
            assert leased.nack(why)
        with trio.fail_after(10):
            await wait_until(lambda: station.account("b").dropped == 1)
        (letter,) = await station.store.read(lambda c: load_letters(c, 0, 10))
        assert letter.reason == "no \\udcff"


async def test_with_one_attempt_a_kill_gives_up_only_what_was_begun(
    clock: MockClock, open_station: OpenStation, tmp_path: Path
) -> None:
    file, copy = tmp_path / "a.db", tmp_path / "killed.db"
    policy = DurablePolicy(max_attempts=1)
    async with (
        open_station(file) as one,
        one.bus.subscribe_durable("b", "t", policy=policy) as member,
    ):
        await publish(one, *range(5))
        await take(member, 1)
        await one.store.backup(copy)
    async with (
        open_station(copy) as two,
        two.bus.subscribe_durable("b", "t", policy=policy) as member,
    ):
        assert await acked(member, 4) == [1, 2, 3, 4]
        account = two.account("b")
        assert account.dropped_by == {Reason.DEAD_LETTER: 1}


async def test_a_letter_that_comes_back_while_it_is_opened_is_delivered(
    clock: MockClock, station: Station
) -> None:
    """Whether the rows were read before that or after it."""
    event = Event(topic="t", payload="again", position=7)
    member = station.bus.join_durable("b", "t", lease=math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.subscription.open, Start())
        await trio.lowlevel.checkpoint()
        station.durable("b").retried(event)
    assert station.account("b").pending == 1
    assert await acked(member, 1) == ["again"]


async def test_what_is_stuck_in_more_than_half_of_the_room_holds_up_no_others(
    clock: MockClock, station: Station
) -> None:
    policy = DurablePolicy(capacity=4, key=unordered)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, *range(10))
        for leased in await take(member, 3):
            assert leased.nack(delay=3600.0)
        with trio.fail_after(60):
            assert await acked(member, 7) == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE journal SET topic = 'u' WHERE position = 3", [0, 1, 3, 4]),
        ("UPDATE journal SET topic = 't' WHERE topic = 'u'", [0, 1, 2, 3, 4]),
        ("UPDATE journal SET kind = 'x' WHERE position >= 2", [0]),
    ],
)
async def test_a_backlog_whose_topics_are_damaged_comes_to_an_end(
    clock: MockClock, station: Station, damage: str, found: list[object]
) -> None:
    """An event that is counted and never found would be looked for without a pause."""
    policy = DurablePolicy(capacity=1)
    async with station.bus.subscribe_durable("b", "t", policy=policy) as member:
        await publish(station, 0, 1, 2)
        await publish(station, "other", topic="u")
        await publish(station, 3, 4)
        unit = Unit("a cosmic ray")
        unit.writes = [(damage, ())]
        station.store.hand_over(unit)
        await station.store.wait(unit)
        assert await acked(member, len(found)) == found
        with trio.fail_after(60):
            await wait_until(lambda: station.account("b").pending == 0)
        account = station.account("b")
        assert account.delivered == len(found)
        assert account.unread == 0
        await publish(station, 5)
        assert await acked(member, 1) == [5]
        with trio.move_on_after(5) as nothing_more:
            await member.__anext__()
        assert nothing_more.cancelled_caught
