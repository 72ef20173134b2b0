"""The durable queue: a naive list says what it must do; layers and windows must not show."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from treewarden.errors import RestoreError, StateNotEncodable, StoreBroken, StoreError
from treewarden.store import DurableQueue, Level, Store, Unit, open_store
from treewarden.store import queue as queue_module
from treewarden.store.items import ITEM_BYTES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractContextManager


class Url(msgspec.Struct, frozen=True):
    """Something to fetch."""

    path: str
    depth: int = 0


@dataclass
class Clock:
    """A clock that stands still until told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Owner:
    """Does to a queue what an agent does: handlers, units, failures."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.queue: DurableQueue[Any] = DurableQueue(
            store, "/a", "pending", Any, clock=clock
        )
        self.sealed: list[Unit] = []
        self.submitted: list[Unit] = []

    def seal(self, *, bad: bool = False) -> None:
        """The handler returns; its unit is not handed over yet."""
        unit = Unit("/a")
        self.queue.seal(unit)
        if bad:
            statement = "INSERT INTO meta (key, value, crc) VALUES (?, ?, 0)"
            unit.writes = [*(unit.writes or ()), (statement, ("boot", "again"))]
        unit.needs = tuple(self.sealed[-1:])
        self.sealed.append(unit)

    def submit(self) -> None:
        """Sealed units go to the store, which decides them when it likes."""
        for unit in self.sealed:
            self.store.hand_over(unit)
        self.submitted += self.sealed
        self.sealed = []

    async def commit(self) -> None:
        """Every sealed unit is decided."""
        self.submit()
        for unit in self.submitted:
            with suppress(StoreBroken):
                await self.store.wait(unit)
        self.submitted = []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def owner(store: Store, clock: Clock) -> Owner:
    owner = Owner(store, clock)
    await owner.queue.open()
    return owner


async def take_all(queue: DurableQueue[Any]) -> list[Any]:
    values = []
    while (item := await queue.take()) is not None:
        values.append(item.value)
    return values


# --- single promises ------------------------------------------------------------------


async def test_items_come_in_the_order_of_their_arrival_across_runs(
    file: Path, clock: Clock
) -> None:
    async with open_store(file) as store:
        owner = Owner(store, clock)
        for number in range(5):
            await owner.queue.put(number)
        owner.seal()
        await owner.commit()
    async with open_store(file) as store:
        owner = Owner(store, clock)
        await owner.queue.put(5)
        assert len(owner.queue) == 6
        assert await take_all(owner.queue) == [0, 1, 2, 3, 4, 5]


async def test_a_key_is_unique_among_the_items_in_the_queue(owner: Owner) -> None:
    queue = owner.queue
    assert await queue.put(1, key="k")
    assert not await queue.put(2, key="k")
    owner.seal()
    assert not await queue.put(3, key="k")
    await owner.commit()
    assert not await queue.put(4, key="k")
    assert await queue.ack("k")
    assert await queue.put(5, key="k")
    owner.seal()
    await owner.commit()
    assert await take_all(queue) == [5]


async def test_a_taken_item_is_leased_and_free_again_when_the_lease_runs_out(
    owner: Owner, clock: Clock
) -> None:
    await owner.queue.put("a")
    await owner.queue.put("b")
    first = await owner.queue.take(lease=10)
    assert first is not None
    assert (first.value, first.attempts) == ("a", 1)
    owner.seal()
    await owner.commit()
    clock.now += 9.9
    assert await take_all(owner.queue) == ["b"]
    owner.queue.discard()
    clock.now += 0.1
    again = await owner.queue.take()
    assert again is not None
    assert (again.value, again.attempts) == ("a", 2)


async def test_leases_and_delays_end_with_the_run(file: Path, clock: Clock) -> None:
    async with open_store(file) as store:
        owner = Owner(store, clock)
        await owner.queue.put("leased")
        await owner.queue.put("delayed", delay=1e9)
        await owner.queue.take(lease=1e9)
        owner.seal()
        await owner.commit()
        assert await owner.queue.take() is None
    async with open_store(file) as store:
        assert await take_all(Owner(store, clock).queue) == ["leased", "delayed"]


async def test_an_item_is_acknowledged_by_key_in_a_later_message(owner: Owner) -> None:
    await owner.queue.put("a", key="k")
    item = await owner.queue.take()
    assert item is not None
    owner.seal()
    await owner.commit()
    assert await item.ack()
    assert not await owner.queue.ack("k")
    owner.seal()
    await owner.commit()
    assert len(owner.queue) == 0
    assert not await owner.queue.nack("k")


async def test_a_nacked_item_goes_to_the_back_after_its_delay(
    owner: Owner, clock: Clock
) -> None:
    await owner.queue.put("a")
    await owner.queue.put("b")
    item = await owner.queue.take()
    assert item is not None
    await item.nack(delay=5)
    assert await take_all(owner.queue) == ["b"]
    await owner.queue.put("c")
    clock.now += 5
    assert await take_all(owner.queue) == ["a", "c"]


async def test_a_failed_handler_changed_nothing(owner: Owner) -> None:
    for value in ("a", "b"):
        await owner.queue.put(value, key=value)
    owner.seal()
    await owner.commit()
    await owner.queue.take()
    await owner.queue.ack("b")
    await owner.queue.put("c")
    assert owner.queue.dirty
    assert len(owner.queue) == 2
    owner.queue.discard()
    assert not owner.queue.dirty
    assert len(owner.queue) == 2
    assert await take_all(owner.queue) == ["a", "b"]


async def test_a_failed_commit_takes_the_queue_back_to_the_file(owner: Owner) -> None:
    await owner.queue.put("kept")
    owner.seal()
    await owner.commit()
    await owner.queue.put("lost")
    await owner.queue.take()
    owner.seal(bad=True)
    await owner.queue.put("lost with it")
    owner.seal()
    assert len(owner.queue) == 3
    await owner.commit()
    assert len(owner.queue) == 1
    item = await owner.queue.take()
    assert item is not None
    assert (item.value, item.attempts) == ("kept", 1)


async def test_a_failure_that_is_told_late_spares_what_came_after_the_reset(
    owner: Owner,
) -> None:
    await owner.queue.put("lost")
    owner.seal(bad=True)
    owner.queue.reset()  # the agent was quicker
    await owner.queue.put("kept")
    await owner.commit()
    assert await take_all(owner.queue) == ["kept"]
    assert len(owner.queue) == 1


async def test_a_unit_that_commits_after_a_reset_is_seen(owner: Owner) -> None:
    await owner.queue.put("a")
    owner.seal()
    owner.queue.reset()
    assert await owner.queue.take() is None
    assert len(owner.queue) == 0
    await owner.commit()
    assert len(owner.queue) == 1
    assert await take_all(owner.queue) == ["a"]


async def test_an_item_found_by_key_comes_back_when_the_handler_fails(
    owner: Owner,
) -> None:
    for value in ("a", "b"):
        await owner.queue.put(value, key=value)
    owner.seal()
    await owner.commit()
    owner.queue.reset()  # so that nothing is in memory
    await owner.queue.ack("a")
    assert await take_all(owner.queue) == ["b"]
    owner.queue.discard()
    assert await take_all(owner.queue) == ["a", "b"]


async def test_an_item_committed_under_a_handler_that_fails_comes_back(
    owner: Owner,
) -> None:
    await owner.queue.put("a")
    owner.seal()
    assert await take_all(owner.queue) == ["a"]
    await owner.commit()
    owner.queue.discard()
    assert await take_all(owner.queue) == ["a"]


async def test_a_long_queue_is_never_whole_in_memory(owner: Owner) -> None:
    for number in range(5000):
        await owner.queue.put(number)
    owner.seal()
    await owner.commit()
    queue = owner.queue
    assert len(queue) == 5000
    taken = []
    bound = queue_module.KNOWN_ROWS + 2 * queue_module.PAGE_ROWS
    for _ in range(3000):
        item = await queue.take()
        assert item is not None
        taken.append(item.value)
        await item.ack()
        owner.seal()
        if len(owner.sealed) == 100:
            await owner.commit()
        layers = queue._layers
        in_memory = len(queue._known) + len(layers.uncommitted) + len(layers.staged)
        hints = len(queue._order) + len(queue._timers)
        assert in_memory <= bound
        assert hints <= 2 * bound
    assert taken == list(range(3000))


async def test_more_expired_leases_than_a_page_are_all_given_again(
    owner: Owner, clock: Clock
) -> None:
    count = 3 * queue_module.DUE_ROWS + 1
    for number in range(count):
        await owner.queue.put(number)
    for _ in range(count):
        await owner.queue.take(lease=10)
    owner.seal()
    await owner.commit()
    owner.queue.reset()
    assert await owner.queue.take() is None
    clock.now += 10
    assert await take_all(owner.queue) == list(range(count))


async def test_peek_shows_as_many_as_it_is_asked_for_of_expired_leases(
    owner: Owner, clock: Clock
) -> None:
    count = 2 * queue_module.DUE_ROWS
    for number in range(count):
        await owner.queue.put(number)
    for _ in range(count):
        await owner.queue.take(lease=10)
    owner.seal()
    await owner.commit()
    owner.queue.reset()
    clock.now += 10
    assert await owner.queue.take() is not None
    shown = await owner.queue.peek(queue_module.PAGE_ROWS)
    assert [item.value for item in shown] == list(range(1, queue_module.PAGE_ROWS + 1))


async def test_a_value_of_another_type_is_refused_when_put(store: Store) -> None:
    queue = DurableQueue(store, "/a", "pending", Url)
    with pytest.raises(StateNotEncodable, match=r"item of /a\.pending"):
        await queue.put({"depth": 1})  # type: ignore[arg-type]
    with pytest.raises(StateNotEncodable, match="bytes, not"):
        await queue.put(Url("x" * (ITEM_BYTES + 1)))
    assert await queue.put(Url("/"))
    item = await queue.take()
    assert item is not None
    assert item.value == Url("/")


async def test_an_item_that_the_type_outgrew_is_refused_when_taken(
    store: Store, clock: Clock
) -> None:
    owner = Owner(store, clock)
    await owner.queue.put("just text", key="k")
    owner.seal()
    await owner.commit()
    queue = DurableQueue(store, "/a", "pending", Url, clock=clock)
    with pytest.raises(RestoreError, match="'k'"):
        await queue.take()
    assert await queue.ack("k")


async def test_a_damaged_item_is_refused_when_taken_and_can_be_removed(
    owner: Owner,
    foreign: Callable[[], AbstractContextManager[Any]],
) -> None:
    await owner.queue.put("a", key="k")
    owner.seal()
    await owner.commit()
    with foreign() as connection:
        connection.execute("UPDATE queue_item SET payload = '\"b\"'")
    owner.queue.reset()
    with pytest.raises(RestoreError, match="damaged"):
        await owner.queue.take()
    assert await owner.queue.ack("k")


async def test_queues_of_one_agent_are_apart(store: Store) -> None:
    first = DurableQueue(store, "/a", "first", int)
    second = DurableQueue(store, "/a", "second", int)
    unit = Unit("/a")
    await first.put(1, key="k")
    await second.put(2, key="k")
    first.seal(unit)
    second.seal(unit)
    store.hand_over(unit)
    await store.wait(unit)
    items = [await first.take(), await second.take()]
    assert [item.value for item in items if item is not None] == [1, 2]


async def test_a_queue_that_is_not_open_has_no_length(store: Store) -> None:
    with pytest.raises(StoreError, match="not open"):
        len(DurableQueue(store, "/a", "pending", int))


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
async def test_a_time_that_is_no_time_is_refused(owner: Owner, seconds: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        await owner.queue.put(1, delay=seconds)
    with pytest.raises(ValueError, match="delay"):
        await owner.queue.nack("k", delay=seconds)
    with pytest.raises(ValueError, match="lease"):
        await owner.queue.take(lease=seconds)


async def test_two_tasks_of_one_handler_never_take_the_same_item(owner: Owner) -> None:
    for number in range(20):
        await owner.queue.put(number)
    owner.seal()
    await owner.commit()
    owner.queue.reset()
    taken: list[int] = []

    async def take() -> None:
        item = await owner.queue.take()
        assert item is not None
        taken.append(item.value)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take)
    assert sorted(taken) == list(range(20))


class Late:
    """A store whose answers arrive only after `meanwhile` has happened."""

    def __init__(self, store: Store, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def read(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        answer = await self._store.read(question)
        await self._meanwhile()
        return answer

    def next_sequence(self) -> int:
        return self._store.next_sequence()


async def test_a_commit_between_a_reading_and_its_arrival_is_not_missed(
    owner: Owner, store: Store
) -> None:
    await owner.queue.put("a")
    owner.seal()
    owner.queue._forget_window()
    owner.queue._store = cast("Store", Late(store, owner.commit))
    assert await take_all(owner.queue) == ["a"]


async def test_a_failed_commit_between_a_reading_and_its_arrival_is_not_missed(
    owner: Owner, store: Store
) -> None:
    await owner.queue.put("kept")
    owner.seal()
    await owner.commit()
    await owner.queue.put("lost")
    owner.seal(bad=True)
    owner.queue._forget_window()
    owner.queue._store = cast("Store", Late(store, owner.commit))
    assert await take_all(owner.queue) == ["kept"]


async def test_a_commit_while_a_reading_begins_is_not_missed(
    owner: Owner, store: Store
) -> None:
    for number in range(50):
        await owner.queue.put(number)
        owner.seal()
        owner.queue._forget_window()  # so that the next look reads the file
        owner.submit()
        # The reading and the commit race; the item must be seen whoever wins.
        item = await owner.queue.take()
        assert item is not None
        assert item.value == number
        await item.ack()
        owner.seal()
        owner.submit()
    await store.settled()
    assert len(owner.queue) == 0
    assert await owner.queue.take() is None


# --- the model ------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelItem:
    """An item as the naive list has it."""

    key: str
    value: int
    attempts: int = 0
    free_at: float = 0.0


@dataclass
class Model:
    """A queue as a list, and what it was when each unit was sealed."""

    items: list[ModelItem] = field(default_factory=list)
    handler: list[ModelItem] = field(default_factory=list)
    committed: list[ModelItem] = field(default_factory=list)
    sealed: list[tuple[bool, list[ModelItem]]] = field(default_factory=list)

    def put(self, key: str, value: int, free_at: float) -> bool:
        if any(item.key == key for item in self.items):
            return False
        self.items.append(ModelItem(key, value, 0, free_at))
        return True

    def free(self, now: float) -> list[ModelItem]:
        return [item for item in self.items if item.free_at <= now]

    def take(self, key: str, free_at: float) -> ModelItem:
        place = next(n for n, item in enumerate(self.items) if item.key == key)
        taken = self.items[place]
        taken = replace(taken, attempts=taken.attempts + 1, free_at=free_at)
        self.items[place] = taken
        return taken

    def remove(self, key: str) -> ModelItem | None:
        for item in self.items:
            if item.key == key:
                self.items.remove(item)
                return item
        return None

    def seal(self, *, bad: bool) -> None:
        self.sealed.append((bad, list(self.items)))
        self.handler = list(self.items)

    def discard(self) -> None:
        self.items = list(self.handler)

    def commit(self) -> None:
        for bad, items in self.sealed:
            if bad:
                self.items = list(self.committed)
                break
            self.committed = items
        self.sealed = []
        self.handler = list(self.items)

    def submit(self) -> bool:
        if any(bad for bad, _ in self.sealed):
            return False
        self.committed = self.sealed[-1][1] if self.sealed else self.committed
        self.sealed = []
        return True

    def reopen(self) -> None:
        self.items = [replace(item, free_at=0.0) for item in self.committed]
        self.handler, self.committed = list(self.items), list(self.items)
        self.sealed = []


keys = st.sampled_from("abcdefgh")
delays = st.sampled_from([0.0, 0.0, 1.0, 3.0])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, delays),
        st.tuples(st.just("add"), st.integers(1, 6)),
        st.tuples(st.just("take"), st.sampled_from([1.0, 2.0, 5.0])),
        st.tuples(st.just("take"), st.sampled_from([1.0, 2.0, 5.0])),
        st.tuples(st.just("ack"), keys),
        st.tuples(st.just("ack_taken"), st.integers(0, 3)),
        st.tuples(st.just("nack"), keys, delays),
        st.tuples(st.just("nack_taken"), st.integers(0, 3), delays),
        st.tuples(st.just("peek"), st.integers(1, 5)),
        st.tuples(st.just("elapse"), st.sampled_from([0.5, 1.0, 3.0])),
        st.tuples(st.just("seal")),
        st.tuples(st.just("seal")),
        st.tuples(st.just("submit")),
        st.tuples(st.just("submit")),
        st.tuples(st.just("commit")),
        st.tuples(st.just("discard")),
        st.tuples(st.just("fail")),
        st.tuples(st.just("reopen")),
    ),
    min_size=30,
    max_size=80,
)


class Machine:
    """Does each step to the queue and to the model, and compares.

    Not `in_order` when more may become free at once than are read at a time.
    """

    def __init__(self, clock: Clock, *, in_order: bool) -> None:
        self.model = Model()
        self.clock = clock
        self.in_order = in_order
        self.value = 0
        self.taken: list[str] = []

    async def run(
        self, stores: AsyncGenerator[Store, None], steps: list[tuple[Any, ...]]
    ) -> None:
        self.owner = Owner(await anext(stores), self.clock)
        for name, *values in steps:
            if name == "reopen":
                self.model.commit()
                await self.owner.commit()
                self.owner = Owner(await anext(stores), self.clock)
                self.model.reopen()
            else:
                await getattr(self, name)(*values)
            await self.owner.queue.open()
            assert len(self.owner.queue) == len(self.model.items)
        await self.commit()
        await self.drain()

    async def drain(self) -> None:
        for _ in range(len(self.model.items) + 1):
            await self.take(1000.0)

    async def put(self, key: str, delay: float) -> None:
        self.value += 1
        free_at = self.clock.now + delay if delay else 0.0
        expected = self.model.put(key, self.value, free_at)
        queue = self.owner.queue
        assert await queue.put(self.value, key=key, delay=delay) == expected

    async def add(self, count: int) -> None:
        for _ in range(count):
            self.value += 1
            assert await self.owner.queue.put(self.value, key=f"n{self.value}")
            assert self.model.put(f"n{self.value}", self.value, 0.0)

    async def take(self, lease: float) -> None:
        now = self.clock.now
        free = self.model.free(now)
        item = await self.owner.queue.take(lease=lease)
        assert (item is None) == (not free)
        if item is None:
            return
        assert item.key in {one.key for one in free}
        if self.in_order:
            assert item.key == free[0].key
        taken = self.model.take(item.key, now + lease)
        assert (item.value, item.attempts) == (taken.value, taken.attempts)
        self.taken.append(item.key)

    async def ack(self, key: str) -> None:
        expected = self.model.remove(key) is not None
        assert await self.owner.queue.ack(key) == expected

    async def ack_taken(self, number: int) -> None:
        if self.taken:
            await self.ack(self.taken[-1 - number % len(self.taken)])

    async def nack(self, key: str, delay: float) -> None:
        item = self.model.remove(key)
        if item is not None:
            free_at = self.clock.now + delay if delay else 0.0
            self.model.items.append(replace(item, free_at=free_at))
        assert await self.owner.queue.nack(key, delay) == (item is not None)

    async def nack_taken(self, number: int, delay: float) -> None:
        if self.taken:
            await self.nack(self.taken[-1 - number % len(self.taken)], delay)

    async def peek(self, limit: int) -> None:
        now = self.clock.now
        free = [(item.key, item.value) for item in self.model.free(now)]
        seen = [(one.key, one.value) for one in await self.owner.queue.peek(limit)]
        assert len(seen) == min(limit, len(free))
        if self.in_order:
            assert seen == free[:limit]

    async def seal(self, *, bad: bool = False) -> None:
        self.owner.seal(bad=bad)
        self.model.seal(bad=bad)

    async def commit(self) -> None:
        await self.seal()
        self.model.commit()
        await self.owner.commit()

    async def discard(self) -> None:
        self.owner.queue.discard()
        self.model.discard()

    async def fail(self) -> None:
        await self.seal(bad=True)

    async def submit(self) -> None:
        if self.model.submit():
            self.owner.submit()

    async def elapse(self, seconds: float) -> None:
        self.clock.now += seconds


async def reopened(file: Path) -> AsyncGenerator[Store, None]:
    """Runs of one store, one after another."""
    while True:
        async with open_store(file, level=Level.CRASH_SAFE) as store:
            yield store


@pytest.mark.parametrize(
    ("page_rows", "due_rows", "known_rows"), [(256, 256, 1024), (5, 256, 3), (5, 2, 3)]
)
@given(steps=steps)
def test_the_queue_does_what_a_list_does(
    page_rows: int, due_rows: int, known_rows: int, steps: list[tuple[Any, ...]]
) -> None:
    async def main(folder: str) -> None:
        async with aclosing(reopened(Path(folder, "x.db"))) as stores:
            await Machine(Clock(), in_order=due_rows > 80).run(stores, steps)

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # A small window shows its edges with few items.
        patch.setattr(queue_module, "PAGE_ROWS", page_rows)
        patch.setattr(queue_module, "DUE_ROWS", due_rows)
        patch.setattr(queue_module, "KNOWN_ROWS", known_rows)
        trio.run(main, folder)
