"""The store as agents use it: hand over, wait, report, follow, read."""

from __future__ import annotations

import resource
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.clock import wall_ns
from treewarden.errors import RestoreError, StoreBroken, StoreClosed, StoreError
from treewarden.store import CrashRecord, JournalEntry, Level, Store, Unit, open_store
from treewarden.store.store import (
    CLOSE_SECONDS,
    GROUP_REPORTS,
    GROUP_UNITS,
    MANY_REPORTS,
    QUEUE_BYTES,
    QUEUE_UNITS,
    REPORTS,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from treewarden.store.group import Decision, Group

    from .conftest import MakeUnit

    Gate = Callable[[], AbstractContextManager[None]]

LARGE = b'"' + b"x" * 900_000 + b'"'


@contextmanager
def no_room_on_disk(store: Store) -> Iterator[None]:
    """Make every write beyond the log's present size fail, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = store.statistics().wal_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def note(order: list[int], number: int, _: StoreError | None) -> None:
    order.append(number)


async def revision(store: Store, path: str = "/a") -> int | None:
    stored = await store.load(path, "Counter")
    return stored.revision if stored is not None else None


# --- handing over ---------------------------------------------------------------------


async def test_what_is_committed_is_read_back(store: Store, make: MakeUnit) -> None:
    unit = make("/a", 3, payload=b'{"n":42}')
    store.hand_over(unit)
    await store.wait(unit)
    stored = await store.load("/a", "Counter")
    assert stored is not None
    assert (stored.revision, stored.payload) == (3, b'{"n":42}')
    assert await store.load("/b", "Counter") is None


async def test_what_is_committed_is_there_in_the_next_run(
    file: Path, make: MakeUnit
) -> None:
    async with open_store(file) as store:
        store.hand_over(make("/a", 1, events=("a",)))
        first_boot = store.boot
    async with open_store(file) as store:
        assert store.boot != first_boot
        assert not store.recovered
        assert store.position == 1
        assert await revision(store) == 1


async def test_nothing_is_released_before_its_commit(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    unit = make("/a", 1)
    released: list[StoreError | None] = []
    unit.release.append(released.append)
    with gate():
        store.hand_over(unit)
        await wait_all_tasks_blocked()
        assert not unit.decided
        assert released == []
        assert await revision(store) is None
    await store.wait(unit)
    assert released == [None]


async def test_units_commit_in_the_order_of_their_hand_over(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    order: list[int] = []
    units = [make(f"/{n % 3}", n, events=(f"e{n}",)) for n in range(50)]
    for number, unit in enumerate(units):
        unit.release.append(partial(note, order, number))
    with gate():
        for unit in units:
            store.hand_over(unit)
            await trio.lowlevel.checkpoint()
    await store.settled()
    assert order == list(range(50))
    entries = await store.entries(since=0, limit=100)
    assert [entry.topic for entry in entries] == [f"e{n}" for n in range(50)]
    assert [entry.position for entry in entries] == list(range(1, 51))


async def test_what_piles_up_behind_a_commit_is_one_group(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with gate():
        store.hand_over(make("/a", 0))
        await wait_all_tasks_blocked()  # the writer has it
        for number in range(1, 100):
            store.hand_over(make("/a", number))
            await trio.lowlevel.checkpoint()
    await store.settled()
    assert store.statistics().commits == 2
    assert store.statistics().largest_group == 99


async def test_a_group_is_bounded(store: Store, make: MakeUnit) -> None:
    for number in range(GROUP_UNITS + 1):
        store.hand_over(make("/a", number))
    await store.settled()
    assert store.statistics().largest_group == GROUP_UNITS
    assert store.statistics().commits == 2
    for _ in range(3):
        store.hand_over(make("/a", 1, payload=LARGE))
    await store.settled()
    assert store.statistics().commits == 5


async def test_an_agents_large_states_share_a_group(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    """Of them only the newest is written: 100 calls to a large agent are one commit."""
    payload = b'"' + b"x" * (64 << 10) + b'"'
    before = store.statistics().commits
    with gate():
        store.hand_over(make("/b", 1))
        await wait_all_tasks_blocked()
        for revision in range(1, 101):
            store.hand_over(make("/a", revision, payload=payload))
    await store.settled()
    assert store.statistics().commits == before + 2


async def test_releases_of_one_unit_run_in_order_and_one_that_raises_stops_nobody(
    store: Store, make: MakeUnit
) -> None:
    told: list[str] = []
    first, second = make("/a", 1), make("/b", 1)

    def fail(error: StoreError | None) -> None:
        told.append("fails")
        raise ValueError("a listener's bug")

    first.release += [fail, lambda _: told.append("first")]
    second.release.append(lambda _: told.append("second"))
    store.hand_over(first)
    store.hand_over(second)
    await store.settled()
    assert told == ["fails", "first", "second"]
    assert "a listener's bug" in store.statistics().last_error


async def test_a_decided_unit_keeps_nothing_alive(store: Store, make: MakeUnit) -> None:
    first = make("/a", 1)
    second = make("/a", 2, needs=(first,))
    store.hand_over(first)
    store.hand_over(second)
    await store.wait(second)
    assert second.needs == ()
    assert second.release == []


# --- waiting --------------------------------------------------------------------------


async def test_settled_waits_for_what_was_handed_over_before_it(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    unit = make("/a", 1)
    async with trio.open_nursery() as nursery:
        with gate():
            store.hand_over(unit)
            nursery.start_soon(store.settled)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
    assert unit.decided
    await store.settled()


async def test_settled_raises_when_something_that_was_undecided_fails(
    store: Store, make: MakeUnit
) -> None:
    store.hand_over(make("/a", 1))
    store.hand_over(make("/b", 1, bad=True))
    store.hand_over(make("/c", 1))
    with pytest.raises(StoreBroken, match="/b"):
        await store.settled()
    await store.settled()


async def test_settled_does_not_raise_for_what_came_after_it(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    async with trio.open_nursery() as nursery:
        with gate():
            store.hand_over(make("/a", 1))
            await wait_all_tasks_blocked()  # the writer has it
            store.hand_over(make("/b", 1))
            nursery.start_soon(store.settled)
            await wait_all_tasks_blocked()
            store.hand_over(make("/c", 1, bad=True))  # in the group of /b


async def test_wait_raises_the_failure_of_its_unit_also_afterwards(
    store: Store, make: MakeUnit
) -> None:
    unit = make("/a", 1, bad=True)
    store.hand_over(unit)
    for _ in range(2):
        with pytest.raises(StoreBroken, match="UNIQUE"):
            await store.wait(unit)


async def test_a_cancelled_wait_leaves_the_unit_to_be_committed(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    unit = make("/a", 1)
    with gate():
        store.hand_over(unit)
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.wait(unit)
    await store.settled()
    assert unit.error is None
    assert await revision(store) == 1


async def test_there_is_no_room_while_too_many_units_wait(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    async with trio.open_nursery() as nursery:
        with gate():
            for number in range(QUEUE_UNITS):
                assert store.has_room
                store.hand_over(make("/a", number))
            assert not store.has_room
            nursery.start_soon(store.wait_room)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            store.hand_over(make("/a", QUEUE_UNITS))  # never refuses
    assert store.has_room


async def test_there_is_no_room_while_too_many_bytes_wait(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with gate():
        for number in range(QUEUE_BYTES // len(LARGE) + 1):
            assert store.has_room
            store.hand_over(make("/a", number, payload=LARGE))
        assert not store.has_room
    await store.wait_room()
    await store.settled()
    assert store.has_room


# --- failures -------------------------------------------------------------------------


async def test_a_bad_row_fails_what_builds_on_it_also_in_later_groups(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    bad = make("/a", 1, bad=True)
    later = make("/a", 2, needs=(bad,))
    last = make("/a", 3, needs=(later,))
    innocent = make("/b", 1)
    with gate():
        store.hand_over(bad)
        await wait_all_tasks_blocked()  # the writer has it
        store.hand_over(later)
        store.hand_over(innocent)
    bad.release.append(lambda _: store.hand_over(last))
    with pytest.raises(StoreBroken):
        await store.wait(later)
    with pytest.raises(StoreBroken, match="builds on"):
        await store.wait(last)
    await store.wait(innocent)
    assert await revision(store, "/a") is None
    assert await revision(store, "/b") == 1
    statistics = store.statistics()
    assert (statistics.units, statistics.failed_units) == (1, 3)
    assert statistics.health == "ok"


async def test_a_full_disk_fails_the_group_and_everything_behind_it(
    store: Store, make: MakeUnit, gate: Gate, file: Path
) -> None:
    kept = make("/a", 1)
    store.hand_over(kept)
    await store.wait(kept)
    first = make("/a", 2, payload=LARGE, events=("lost",))
    behind = [make("/a", 3), make("/b", 1)]
    with no_room_on_disk(store):
        with gate():
            store.hand_over(first)
            await wait_all_tasks_blocked()
            for unit in behind:
                store.hand_over(unit)
        for unit in (first, *behind):
            with pytest.raises(StoreBroken, match=str(file)):
                await store.wait(unit)
        assert store.statistics().health == "degraded"
        assert len({id(unit.error) for unit in (first, *behind)}) == 3
        assert await revision(store, "/a") == 1
        assert first.events is not None
        assert (first.events[0].position, store.position) == (0, 0)
    again = make("/a", 2, payload=LARGE, events=("kept",))
    store.hand_over(again)
    await store.wait(again)
    [entry] = await store.entries(since=0, limit=5, pattern="kept")
    assert (entry.topic, entry.position) == ("kept", 1)
    statistics = store.statistics()
    assert statistics.health == "ok"
    assert (statistics.failed_commits, statistics.failed_units) == (1, 3)
    assert await revision(store, "/a") == 2
    assert await revision(store, "/b") is None


async def test_reports_and_crashes_survive_a_failed_commit(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with no_room_on_disk(store):
        with gate():
            store.hand_over(make("/a", 1, payload=LARGE))
            store.report("node.crashed", b"1")
            store.record_crash(crash("/a", 1))
            await wait_all_tasks_blocked()
            store.report("node.restarted", b"2")
        with pytest.raises(StoreBroken):
            await store.settled()
        for _ in range(20):  # time enough for what would try again and again
            await store.load("/a", "Counter")
        assert store.statistics().failed_commits == 1
    store.hand_over(make("/b", 1))
    await store.settled()
    entries = await store.entries(since=0, limit=10)
    assert [entry.topic for entry in entries] == ["node.crashed", "node.restarted"]
    assert [record.incarnation for record in await store.crashes("/a")] == [1]


async def test_failures_of_many_callers_share_no_traceback(
    store: Store, make: MakeUnit
) -> None:
    unit = make("/a", 1, bad=True)
    store.hand_over(unit)
    for _ in range(20):
        with pytest.raises(StoreBroken):
            await store.wait(unit)
    assert unit.error is not None
    assert unit.error.__traceback__ is None


# --- reports and the journal ----------------------------------------------------------


async def test_a_report_is_journaled_by_itself(store: Store) -> None:
    store.report("node.started", b'{"n":1}', source="/a", trace="t")
    await committed(store, 1)
    [entry] = await store.entries(since=None, limit=5)
    assert (entry.topic, entry.payload, entry.kind) == (
        "node.started",
        b'{"n":1}',
        "report",
    )
    assert (entry.source, entry.trace, entry.position) == ("/a", "t", 1)


async def test_reports_beyond_the_bound_drop_the_oldest_and_are_counted(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with gate():
        store.hand_over(make("/a", 1))
        await wait_all_tasks_blocked()
        for number in range(REPORTS + 5):
            store.report(f"r.{number}", b"1")
    await committed(store, REPORTS)
    [oldest] = await store.entries(since=0, limit=1)
    assert oldest.topic == "r.5"
    assert store.statistics().reports_dropped == 5


async def test_a_storm_of_reports_is_written_a_group_at_a_time_with_a_pause_between(
    store: Store, make: MakeUnit
) -> None:
    """The restarts that they tell of go on meanwhile; a unit takes them along at once."""
    due: list[Callable[[], None]] = []
    store.delay_reports(lambda _, callback: due.append(callback))
    for number in range(3 * GROUP_REPORTS):
        store.report(f"r.{number}", b"1")
    assert (store.position, len(due)) == (0, 1)
    due.pop()()
    await committed(store, GROUP_REPORTS)
    assert (store.position, len(due)) == (GROUP_REPORTS, 1)
    store.hand_over(make("/a", 1))
    await committed(store, 2 * GROUP_REPORTS)
    due.pop()()
    await committed(store, 3 * GROUP_REPORTS)
    assert due == []


async def test_many_reports_wait_for_no_company(store: Store) -> None:
    """So that a mass start, which makes them faster than that, loses none."""
    due: list[Callable[[], None]] = []
    store.delay_reports(lambda _, callback: due.append(callback))
    for number in range(MANY_REPORTS - 1):
        store.report(f"r.{number}", b"1")
    await wait_all_tasks_blocked()
    assert (store.position, len(due)) == (0, 1)
    for number in range(GROUP_REPORTS + 1):
        store.report(f"s.{number}", b"1")
    await committed(store, 2 * GROUP_REPORTS)
    await wait_all_tasks_blocked()
    assert (store.position, len(due)) == (2 * GROUP_REPORTS, 1)


async def test_once_a_storm_makes_some_drop_the_others_take_their_time(
    store: Store, gate: Gate
) -> None:
    """Written without a pause, they would take the interpreter from what they tell of."""
    due: list[Callable[[], None]] = []
    store.delay_reports(lambda _, callback: due.append(callback))
    with gate():
        store.report("first", b"1")
        due.pop()()
        await wait_all_tasks_blocked()
        for number in range(REPORTS + 1):
            store.report(f"r.{number}", b"1")
    await committed(store, 1)
    await wait_all_tasks_blocked()
    assert (store.position, len(due)) == (1, 1)
    due.pop()()
    # Nothing more was lost: it was no storm after all.
    await committed(store, 1 + 3 * GROUP_REPORTS)
    assert store.statistics().reports_dropped == 1


async def test_on_a_bad_disk_many_reports_wait_as_few_do(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    due: list[Callable[[], None]] = []
    store.delay_reports(lambda _, callback: due.append(callback))
    with no_room_on_disk(store):
        with gate():
            store.hand_over(make("/a", 1, payload=LARGE))
            await wait_all_tasks_blocked()
            for number in range(MANY_REPORTS + 1):
                store.report(f"r.{number}", b"1")
        with pytest.raises(StoreBroken):
            await store.settled()
        store.report("late", b"1")
        for _ in range(20):  # time enough for what would try again and again
            await store.load("/a", "Counter")
        assert (store.statistics().failed_commits, len(due)) == (1, 1)


async def test_a_report_has_the_time_of_what_it_tells_of(store: Store) -> None:
    at_ns = wall_ns() - 5
    store.report("r", b"1", at_ns=at_ns)
    await committed(store, 1)
    [entry] = await store.entries(since=0, limit=1)
    assert entry.at_ns == at_ns


async def test_a_store_that_closes_pauses_no_more(file: Path) -> None:
    async with open_store(file) as store:
        store.delay_reports(lambda _, __: None)
        for number in range(2 * GROUP_REPORTS + 1):
            store.report(f"r.{number}", b"1")
    async with open_store(file) as store:
        assert store.position == 2 * GROUP_REPORTS + 1


async def test_followers_get_what_was_committed_after_it_was_released(
    store: Store, make: MakeUnit
) -> None:
    seen: list[object] = []
    unit = make("/a", 1, events=("a.b", "c"))
    unit.release.append(lambda _: seen.append("released"))
    unfollow = store.follow(
        lambda entries: seen.extend((entry.position, entry.topic) for entry in entries)
    )
    store.hand_over(unit)
    await store.settled()
    assert seen == ["released", (1, "a.b"), (2, "c")]
    assert store.position == 2
    unfollow()
    store.hand_over(make("/a", 2, events=("d",)))
    await store.settled()
    assert len(seen) == 3


async def test_a_follower_that_raises_stops_nobody(
    store: Store, make: MakeUnit
) -> None:
    seen: list[JournalEntry] = []

    def fail(entries: list[JournalEntry]) -> None:
        raise ValueError(entries[0].topic)

    unfollow = store.follow(fail)
    store.follow(seen.extend)
    store.hand_over(make("/a", 1, events=("a",)))
    await store.settled()
    unfollow()
    assert [entry.topic for entry in seen] == ["a"]
    assert "ValueError: a" in store.statistics().last_error


async def test_entries_are_chosen_by_position_number_and_pattern(
    store: Store, make: MakeUnit
) -> None:
    store.hand_over(make(events=("a.x", "b.x", "a.y", "b.y.z", "a.x")))
    await store.settled()

    async def topics(since: int | None, limit: int, pattern: str = ">") -> list[str]:
        found = await store.entries(since=since, limit=limit, pattern=pattern)
        return [f"{entry.position} {entry.topic}" for entry in found]

    assert await topics(3, 10) == ["4 b.y.z", "5 a.x"]
    assert await topics(0, 2) == ["1 a.x", "2 b.x"]
    assert await topics(None, 2) == ["4 b.y.z", "5 a.x"]
    assert await topics(None, 2, "a.*") == ["3 a.y", "5 a.x"]
    assert await topics(0, 10, "b.>") == ["2 b.x", "4 b.y.z"]
    assert await topics(0, 10, "nobody") == []


def names_beside(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


def flip_a_bit(file: Path, text: bytes) -> None:
    """Change one bit of the file, in the first byte of `text`."""
    content = bytearray(file.read_bytes())
    content[content.index(text)] ^= 1
    file.write_bytes(content)


def crash(path: str, incarnation: int) -> CrashRecord:
    return CrashRecord(
        path=path,
        at_ns=1,
        incarnation=incarnation,
        operation="add",
        message=b"[1]",
        fault=b"{}",
        revision=0,
        payload=None,
    )


async def committed(store: Store, position: int) -> None:
    """Wait until the journal has reached `position`."""
    reached = trio.Event()

    def look(entries: list[JournalEntry]) -> None:
        if entries[-1].position >= position:
            reached.set()

    unfollow = store.follow(look)
    if store.position < position:
        await reached.wait()
    unfollow()


# --- opening, closing, watching -------------------------------------------------------


async def test_after_closing_nothing_is_accepted(file: Path) -> None:
    async with open_store(file) as store:
        pass
    with pytest.raises(StoreClosed):
        store.hand_over(Unit("/a"))
    with pytest.raises(StoreClosed):
        await store.load("/a", "Counter")


class Speechless:
    def encode(self) -> bytes:
        raise ValueError("no words")


async def test_a_report_that_finds_no_words_is_dropped_alone(
    store: Store, make: MakeUnit
) -> None:
    store.report("before", b"1")
    store.hand_over(make(revision=1))
    store.report("speechless", Speechless())
    store.report("after", b"2")
    await committed(store, 2)
    entries = await store.entries(since=0, limit=10)
    assert [entry.topic for entry in entries] == ["before", "after"]
    assert await revision(store) == 1
    assert store.statistics().reports_dropped == 1


def test_a_fault_of_the_stores_own_fails_whoever_waits_and_ends_the_run(
    file: Path, make: MakeUnit
) -> None:
    kept, lost = make("/kept", revision=1), make("/lost", revision=1)
    told: list[StoreError | None] = []

    def fail() -> Group:
        raise ValueError("no group")

    async def main() -> None:
        async with open_store(file) as store:
            store.hand_over(kept)
            await store.wait(kept)
            lost.release.append(told.append)
            store.hand_over(lost)
            store._next_group = fail  # type: ignore[method-assign]
            with pytest.raises(StoreBroken, match="no group"):
                await store.settled()
            with pytest.raises(StoreClosed, match="no group"):
                store.hand_over(make())
            await trio.sleep_forever()

    async def look() -> None:
        async with open_store(file) as store:
            assert await revision(store, "/kept") == 1
            assert await revision(store, "/lost") is None

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    assert [str(error) for error in told] == ["the store failed: ValueError: no group"]
    trio.run(look)


async def test_closing_on_a_disk_that_does_not_answer_keeps_nobody(
    file: Path, make: MakeUnit, mock_clock: trio.testing.MockClock
) -> None:
    """Neither those who wait for their units, nor the process."""
    answered = threading.Event()
    told: list[StoreError | None] = []
    opening = open_store(file)
    store = await opening.__aenter__()
    commit = store._writer.commit

    def commit_late(group: Group) -> Decision:
        answered.wait()
        return commit(group)

    store._writer.commit = commit_late  # type: ignore[method-assign]
    for number in (1, 2):
        unit = make(revision=number)
        unit.release.append(told.append)
        store.hand_over(unit)
        await wait_all_tasks_blocked()

    async def pass_time() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(CLOSE_SECONDS)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_time)
            with pytest.raises(StoreBroken, match="does not answer"):
                await opening.__aexit__(None, None, None)
        assert [type(error) for error in told] == [StoreBroken, StoreBroken]
    finally:
        answered.set()
    await trio.to_thread.run_sync(store._thread._thread.join, 30.0)
    assert not store._thread._thread.is_alive()
    await store._reader.aclose()
    store._database.close()


async def test_closing_commits_what_was_handed_over_and_reported(
    file: Path, make: MakeUnit
) -> None:
    units = [make("/a", n, events=("e",)) for n in range(3000)]
    async with open_store(file) as store:
        for unit in units:
            store.hand_over(unit)
        store.report("last.words", b"1")
    assert all(unit.decided and unit.error is None for unit in units)
    async with open_store(file) as store:
        assert await revision(store) == 2999
        [last] = await store.entries(since=None, limit=1)
        assert (last.topic, last.position) == ("last.words", 3001)


async def test_a_cancelled_block_still_commits_what_was_handed_over(
    file: Path, make: MakeUnit
) -> None:
    with trio.CancelScope() as scope:
        async with open_store(file) as store:
            store.hand_over(make("/a", 1))
            scope.cancel()
    async with open_store(file) as store:
        assert not store.recovered
        assert await revision(store) == 1


async def test_closing_writes_the_reports_that_a_failed_commit_left(
    file: Path, make: MakeUnit
) -> None:
    async with open_store(file) as store:
        with no_room_on_disk(store):
            store.hand_over(make("/a", 1))
            store.report("node.crashed", b"1")
            with pytest.raises(StoreBroken):
                await store.settled()
    async with open_store(file) as store:
        entries = await store.entries(since=0, limit=5)
        assert [entry.topic for entry in entries] == ["node.crashed"]


async def test_closing_waits_for_those_who_read(file: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def read(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)
        connection.execute("SELECT * FROM journal").fetchall()

    async with trio.open_nursery() as nursery, open_store(file) as store:
        nursery.start_soon(store.read, read)
        await trio.to_thread.run_sync(begun.wait)
        nursery.start_soon(_after_the_others, go_on.set)
    assert names_beside(file) == ["store.db", "store.db.lock"]


async def _after_the_others(function: Callable[[], None]) -> None:
    await wait_all_tasks_blocked()
    function()


async def test_closing_leaves_only_the_file_and_its_lock(
    file: Path, make: MakeUnit
) -> None:
    async with open_store(file) as store:
        store.hand_over(make("/a", 1))
    assert names_beside(file) == ["store.db", "store.db.lock"]


async def test_a_volatile_store_opens_no_file(tmp_path: Path, make: MakeUnit) -> None:
    async with open_store(tmp_path / "x.db", level=Level.VOLATILE) as store:
        store.hand_over(make("/a", 1, events=("a",)))
        await store.settled()
        assert await revision(store) == 1
        assert len(await store.entries(since=None, limit=5)) == 1
        assert store.path is None
    assert names_beside(tmp_path / "x.db") == []


async def test_a_volatile_store_survives_a_failed_group(make: MakeUnit) -> None:
    async with open_store(None, level=Level.VOLATILE) as store:
        store.hand_over(make("/a", 1))
        await store.settled()
        await store.read(
            lambda connection: connection.execute("PRAGMA max_page_count=1").fetchall()
        )
        store.hand_over(make("/a", 2, payload=LARGE))
        with pytest.raises(StoreBroken):
            await store.settled()
        assert await revision(store) == 1


@pytest.mark.parametrize(
    ("level", "synchronous"), [(Level.DURABLE, 2), (Level.CRASH_SAFE, 1)]
)
async def test_a_level_is_what_sqlite_is_told(
    file: Path, level: Level, synchronous: int
) -> None:
    async with open_store(file, level=level) as store:
        connection = store._thread._writer.connected()
        assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.statistics().level is level


async def test_readers_cannot_write(store: Store) -> None:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = OFF")
        connection.execute("DELETE FROM meta")

    with pytest.raises(StoreBroken, match="readonly"):
        await store.read(write)


async def test_observers_are_told_while_a_thread_owes_an_answer(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    told: list[bool] = []
    store.observe_waiting(told.append)
    with gate():
        store.hand_over(make("/a", 1))
        await wait_all_tasks_blocked()
        assert told == [True]
        await store.load("/a", "Counter")  # nested: no second notice
        assert told == [True]
    await store.settled()
    assert told == [True, False]
    await store.load("/a", "Counter")
    assert told == [True, False, True, False]


async def test_one_flipped_bit_of_a_state_is_seen(file: Path, make: MakeUnit) -> None:
    async with open_store(file) as store:
        store.hand_over(make("/a", 1, payload=b'{"needle":1}'))
        store.hand_over(make("/b", 1))
    flip_a_bit(file, b"needle")
    async with open_store(file) as store:
        with pytest.raises(RestoreError, match=r"/a is damaged"):
            await store.load("/a", "Counter")
        assert await revision(store, "/b") == 1


async def test_the_state_of_another_type_is_refused_and_kept(
    store: Store, make: MakeUnit
) -> None:
    store.hand_over(make("/a", 1))
    await store.settled()
    with pytest.raises(RestoreError, match="'Counter', not 'Account'"):
        await store.load("/a", "Account")
    assert await revision(store) == 1


async def test_reports_alone_wait_for_company_and_units_do_not(tmp_path: Path) -> None:
    due: list[tuple[float, Callable[[], None]]] = []
    async with open_store(tmp_path / "x.db") as store:
        store.delay_reports(lambda seconds, callback: due.append((seconds, callback)))
        store.report("a.b", b"1")
        store.report("a.c", b"2")
        ((seconds, flush),) = due
        assert seconds > 0
        assert store.statistics().commits == 0
        unit = Unit("/a")
        store.hand_over(unit)
        await store.wait(unit)
        # They rode with the unit; the timer finds nothing left to do.
        assert store.position == 2
        flush()
        assert store.statistics().commits == 1
        store.report("a.d", b"3")
        due[-1][1]()
    async with open_store(tmp_path / "x.db") as store:
        entries = await store.entries(since=None, limit=10)
        assert [entry.topic for entry in entries] == ["a.b", "a.c", "a.d"]


async def test_on_a_full_disk_the_kept_room_is_given_back_before_the_last_commit(
    file: Path, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody finds out in time that there is room again, or takes some of it.
    for rest in ("TROUBLED_SECONDS", "REST_SECONDS"):
        monkeypatch.setattr(f"treewarden.store.thread.{rest}", 3600.0)
    reserve = file.with_name("store.db.reserve")
    there: list[bool] = []
    async with open_store(file) as store:
        store._database.keep_reserve()
        with no_room_on_disk(store):
            store.hand_over(unit := make("/a", 1, payload=LARGE))
            with pytest.raises(StoreBroken):
                await store.wait(unit)
        assert reserve.exists()
        store.observe_commits(lambda *_: there.append(reserve.exists()))
        store.report("system.shutdown", b"{}")
    assert there == [False]
    async with open_store(file) as store:
        assert not store.recovered
        entries = await store.entries(since=0, limit=9)
        assert [entry.topic for entry in entries] == ["system.shutdown"]


async def test_a_store_that_never_rests_is_looked_after_all_the_same(
    store: Store, make: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention and scrubbing are not put off for ever by a steady trickle of commits."""
    monkeypatch.setattr("treewarden.store.thread.BUSY_SECONDS", 0.0)
    number = 0
    while store.statistics().scrub_passes == 0:
        number += 1
        unit = make("/a", number)
        store.hand_over(unit)
        await store.wait(unit)
    assert store.statistics().scrubbed_rows > 0
