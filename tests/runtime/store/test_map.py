"""The durable map: a dict says what it must do; layers and what is remembered must not show."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from treewarden.errors import RestoreError, StateNotEncodable, StoreBroken, StoreError
from treewarden.store import DurableMap, Level, Store, Unit, open_store
from treewarden.store import map as map_module
from treewarden.store.items import ITEM_BYTES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractContextManager

    Foreign = Callable[[], AbstractContextManager[sqlite3.Connection]]


class Page(msgspec.Struct):
    """A page that was fetched."""

    title: str
    links: list[str] = []


class Owner:
    """Does to a map what an agent does: handlers, units, failures."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.map: DurableMap[str, Any] = DurableMap(store, "/a", "seen", Any)
        self.sealed: list[Unit] = []
        self.submitted: list[Unit] = []

    def seal(self, *, bad: bool = False) -> None:
        """The handler returns; its unit is not handed over yet."""
        unit = Unit("/a")
        self.map.seal(unit)
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

    async def keep(self, **values: Any) -> None:
        """A handler that sets these, and its commit."""
        for key, value in values.items():
            await self.map.set(key, value)
        self.seal()
        await self.commit()


@pytest.fixture
async def owner(store: Store) -> Owner:
    owner = Owner(store)
    await owner.map.open()
    return owner


async def walk(items: DurableMap[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [item async for item in items.items(prefix)]


async def test_what_an_earlier_unit_committed_is_there_after_a_later_one_failed(
    owner: Owner,
) -> None:
    """The failed one had hidden it, and the map had seen that it was not in the file."""
    assert await owner.map.get("a") is None
    await owner.map.set("a", 1)
    owner.seal()
    await owner.map.set("a", 2)
    owner.seal(bad=True)
    await owner.commit()
    assert await owner.map.get("a") == 1
    assert len(owner.map) == 1


def nothing_above_the_file(items: DurableMap[str, Any]) -> bool:
    layers = items._layers
    return not (layers.staged or layers.uncommitted or layers._sealed)


class Counted:
    """A store that counts how often it was read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads = 0

    async def read(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        self.reads += 1
        return await self._store.read(question)


# --- single promises ------------------------------------------------------------------


async def test_what_was_set_is_there_across_runs(file: Path) -> None:
    async with open_store(file) as store:
        await Owner(store).keep(a=1, b=2)
    async with open_store(file) as store:
        seen = Owner(store).map
        assert (await seen.get("a"), await seen.get("b"), await seen.get("c")) == (
            1,
            2,
            None,
        )
        assert len(seen) == 2


async def test_an_absent_key_has_the_default(owner: Owner) -> None:
    await owner.keep(there=None)
    assert await owner.map.get("there", "default") is None
    assert await owner.map.get("absent", "default") == "default"


async def test_a_handler_reads_what_it_wrote_and_what_is_not_committed_yet(
    owner: Owner,
) -> None:
    seen = owner.map
    await owner.keep(a="file", b="file", c="file")
    await seen.set("b", "uncommitted")
    await seen.set("c", "uncommitted")
    owner.seal()
    await seen.set("c", "staged")
    assert await walk(seen) == [("a", "file"), ("b", "uncommitted"), ("c", "staged")]
    assert [await seen.get(key) for key in "abc"] == ["file", "uncommitted", "staged"]


async def test_a_commit_does_not_hide_what_a_later_handler_changed(
    owner: Owner,
) -> None:
    seen = owner.map
    await seen.set("a", 1)
    await seen.set("b", 1)
    owner.seal()
    owner.submit()
    await seen.set("a", 2)
    await seen.delete("b")
    owner.seal()
    await owner.store.settled()
    assert await walk(seen) == [("a", 2)]
    seen.reset()
    assert await walk(seen) == [("a", 1), ("b", 1)]


async def test_a_deleted_item_is_gone_in_every_layer(owner: Owner) -> None:
    seen = owner.map
    await owner.keep(a=1, b=2)
    assert await seen.delete("a")
    assert not await seen.delete("a")
    assert await walk(seen) == [("b", 2)]
    owner.seal()
    assert await seen.get("a") is None
    assert await walk(seen) == [("b", 2)]
    await owner.commit()
    assert await seen.get("a") is None
    assert await walk(seen) == [("b", 2)]
    assert len(seen) == 1


async def test_a_failed_handler_changed_nothing(owner: Owner) -> None:
    seen = owner.map
    await owner.keep(a=1, b=2)
    await seen.set("a", 9)
    await seen.delete("b")
    await seen.set("c", 3)
    assert seen.dirty
    seen.discard()
    assert not seen.dirty
    assert await walk(seen) == [("a", 1), ("b", 2)]
    assert len(seen) == 2


async def test_a_failed_commit_takes_the_map_back_to_the_file(owner: Owner) -> None:
    seen = owner.map
    await owner.keep(a=1, b=2)
    await seen.set("a", "lost")
    owner.seal(bad=True)
    await seen.delete("b")
    await seen.set("c", "lost with it")
    owner.seal()
    assert len(seen) == 2
    await owner.commit()
    assert await walk(seen) == [("a", 1), ("b", 2)]
    assert [await seen.get(key) for key in "abc"] == [1, 2, None]
    assert len(seen) == 2


async def test_a_unit_that_commits_after_a_reset_is_seen(owner: Owner) -> None:
    seen = owner.map
    await seen.set("a", 1)
    owner.seal()
    seen.reset()
    assert await seen.get("a") is None
    assert len(seen) == 0
    await owner.commit()
    assert await seen.get("a") == 1
    assert len(seen) == 1


async def test_a_unit_that_commits_after_a_reset_while_it_is_read_is_seen(
    owner: Owner, store: Store
) -> None:
    seen = owner.map
    await seen.set("a", 1)
    owner.seal()
    seen.reset()
    seen._known.clear()  # so that the next look reads the file
    seen._store = cast("Store", Late(store, owner.commit))
    await seen.get("a")
    assert await seen.get("a") == 1


async def test_what_did_not_change_is_not_written(owner: Owner) -> None:
    await owner.keep(a=1)
    await owner.map.set("a", 1)
    assert not owner.map.dirty


async def test_what_comes_out_is_a_copy(store: Store) -> None:
    seen = DurableMap[str, Page](store, "/a", "seen", Page)
    page = Page("Home")
    await seen.set("/", page)
    page.links.append("/about")
    got = await seen.get("/")
    assert got == Page("Home")
    got.links.append("/about")
    assert await seen.get("/") == Page("Home")


async def test_items_come_in_the_order_of_their_keys_page_by_page(owner: Owner) -> None:
    keys = [f"{number:04}" for number in range(3 * map_module.PAGE_ROWS)]
    for key in reversed(keys):
        await owner.map.set(key, key)
    owner.seal()
    await owner.commit()
    await owner.map.set("0300x", "new")
    await owner.map.delete("0301")
    expected = sorted([*keys, "0300x"])
    expected.remove("0301")
    assert [key for key, _ in await walk(owner.map)] == expected
    assert [key for key, _ in await walk(owner.map, "03")] == [
        key for key in expected if key.startswith("03")
    ]


@pytest.mark.parametrize("prefix", ["", "ä", "\U0010ffff", "a\0", "%", "_"])
async def test_a_prefix_is_taken_as_it_is(owner: Owner, prefix: str) -> None:
    keys = [
        "ä",
        "äß",
        "a\0b",
        "a",
        "%x",
        "_x",
        "\U0010ffff\U0010ffff",
        "\U0010ffff",
        "z",
    ]
    for key in keys:
        await owner.map.set(key, key)
    owner.seal()
    await owner.commit()
    assert await walk(owner.map, prefix) == [
        (key, key) for key in sorted(keys) if key.startswith(prefix)
    ]


async def test_a_walk_may_delete_and_change_what_it_meets(owner: Owner) -> None:
    for number in range(600):
        await owner.map.set(f"{number:03}", number)
    owner.seal()
    await owner.commit()
    met = []
    async for key, value in owner.map.items():
        met.append(value)
        await owner.map.delete(key)
        await owner.map.delete(f"{value + 1:03}")
        await owner.map.set(f"{value + 2:03}", value + 2)
    # Every second one was deleted before it was met; the last one set two beyond.
    assert met == list(range(0, 601, 2))[: len(met)]
    assert met[:300] == list(range(0, 600, 2))


async def test_a_walk_that_outlives_its_handler_is_refused(owner: Owner) -> None:
    await owner.keep(a=1, b=2)
    items = owner.map.items()
    assert await anext(items) == ("a", 1)
    await owner.map.set("b", 3)
    owner.seal()
    with pytest.raises(StoreError, match="begin again"):
        await anext(items)


async def test_a_hot_key_is_read_from_the_file_once(owner: Owner, store: Store) -> None:
    await owner.keep(a=1)
    seen = DurableMap[str, int](store, "/a", "seen", int)
    counted = Counted(store)
    seen._store = cast("Store", counted)
    await seen.open()
    for _ in range(10):
        assert await seen.get("a") == 1
        assert await seen.get("absent") is None
        await seen.set("a", 1)
    assert counted.reads == 3


async def test_what_is_remembered_is_bounded_in_rows_and_bytes(owner: Owner) -> None:
    known = owner.map._known
    for number in range(3000):
        await owner.map.set(str(number), number)
    owner.seal()
    await owner.commit()
    assert len(known) == map_module.KNOWN_ROWS
    for number in range(20):
        await owner.map.set(str(number), "x" * (1 << 19))
    owner.seal()
    await owner.commit()
    assert len(known) <= map_module.KNOWN_BYTES >> 19
    assert nothing_above_the_file(owner.map)
    for number in range(20):
        assert await owner.map.get(str(number)) == "x" * (1 << 19)
    assert len(known) <= map_module.KNOWN_BYTES >> 19


async def test_a_value_that_cannot_come_back_is_refused_when_set(store: Store) -> None:
    seen = DurableMap[str, Page](store, "/a", "seen", Page)
    with pytest.raises(StateNotEncodable, match=r"item of /a\.seen"):
        await seen.set("/", {"links": []})  # type: ignore[arg-type]
    with pytest.raises(StateNotEncodable, match="bytes, not"):
        await seen.set("/", Page("x" * ITEM_BYTES))
    with pytest.raises(StateNotEncodable, match="bytes, not"):
        await seen.set("k" * ITEM_BYTES, Page(""))
    with pytest.raises(StateNotEncodable, match="surrogates"):
        await seen.set("\ud800", Page(""))
    with pytest.raises(TypeError, match="key is text, not 3"):
        await seen.set(3, Page(""))  # type: ignore[arg-type]
    assert not seen.dirty


async def test_a_member_of_an_enumeration_is_the_key_that_it_spells(
    owner: Owner,
) -> None:
    class Colour(str, Enum):  # noqa: UP042 - whose str() is not its text
        RED = "red"

    await owner.map.set(Colour.RED, 1)
    owner.seal()
    await owner.commit()
    owner.map.outdated()
    assert await walk(owner.map) == [("red", 1)]
    assert await owner.map.get(Colour.RED) == 1


async def test_maps_and_queues_of_one_agent_are_apart(store: Store) -> None:
    unit = Unit("/a")
    maps = [DurableMap[str, int](store, "/a", name, int) for name in ("one", "two")]
    for number, one in enumerate(maps):
        await one.set("k", number)
        one.seal(unit)
    store.hand_over(unit)
    await store.wait(unit)
    for number, one in enumerate(maps):
        one.outdated()
        assert await one.get("k") == number


async def test_a_map_that_is_not_open_has_no_length(store: Store) -> None:
    with pytest.raises(StoreError, match="not open"):
        len(DurableMap[str, int](store, "/a", "seen", int))


# --- damage ---------------------------------------------------------------------------


async def damaged(owner: Owner, foreign: Foreign) -> DurableMap[str, Any]:
    await owner.keep(a=1, b=2, c=3)
    with foreign() as connection:
        connection.execute("UPDATE map_item SET payload = '9' WHERE key = 'b'")
    owner.map.outdated()
    return owner.map


async def test_a_damaged_item_is_named_and_the_others_are_read(
    owner: Owner, foreign: Foreign
) -> None:
    seen = await damaged(owner, foreign)
    with pytest.raises(RestoreError, match=r"item 'b' of /a\.seen is damaged"):
        await seen.get("b")
    assert (await seen.get("a"), await seen.get("c")) == (1, 3)
    items = seen.items()
    assert await anext(items) == ("a", 1)
    with pytest.raises(RestoreError, match="'b'"):
        await anext(items)
    assert [item async for item in items] == [("c", 3)]


async def test_a_damaged_item_can_be_set_again_or_deleted(
    owner: Owner, foreign: Foreign
) -> None:
    seen = await damaged(owner, foreign)
    await seen.set("b", 9)  # what the damaged row says as well
    assert seen.dirty
    assert await seen.get("b") == 9
    seen.discard()
    assert await seen.delete("b")
    owner.seal()
    await owner.commit()
    assert await walk(seen) == [("a", 1), ("c", 3)]


async def test_an_item_that_the_type_outgrew_is_refused_when_read(
    owner: Owner, store: Store
) -> None:
    await owner.keep(k="just text")
    seen = DurableMap[str, Page](store, "/a", "seen", Page)
    with pytest.raises(RestoreError, match=r"'k'.* not of the declared type"):
        await seen.get("k")
    assert await seen.delete("k")


# --- what meets -----------------------------------------------------------------------


class Late:
    """A store whose answers arrive only after `meanwhile` has happened."""

    def __init__(self, store: Store, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def read(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        answer = await self._store.read(question)
        await self._meanwhile()
        return answer


async def test_a_commit_between_a_reading_and_its_arrival_is_not_missed(
    owner: Owner, store: Store
) -> None:
    await owner.keep(a=1, c=3)
    await owner.map.set("b", 2)
    await owner.map.delete("c")
    owner.seal()
    owner.map._store = cast("Store", Late(store, owner.commit))
    assert await walk(owner.map) == [("a", 1), ("b", 2)]


async def test_a_failed_commit_between_a_reading_and_its_arrival_ends_the_walk(
    owner: Owner, store: Store
) -> None:
    await owner.keep(a=1)
    await owner.map.set("b", "lost")
    owner.seal(bad=True)
    owner.map._store = cast("Store", Late(store, owner.commit))
    with pytest.raises(StoreError, match="begin again"):
        await walk(owner.map)
    assert await walk(owner.map) == [("a", 1)]


async def test_tasks_of_one_handler_may_read_at_once(owner: Owner) -> None:
    await owner.keep(**{str(number): number for number in range(20)})
    owner.map.outdated()
    found: list[Any] = []

    async def get(key: str) -> None:
        found.append(await owner.map.get(key))
        found.extend(value for _, value in await walk(owner.map, key) if value == 7)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(get, str(number))
    assert sorted(found) == sorted([*range(20), 7])


# --- the model ------------------------------------------------------------------------


@dataclass
class Model:
    """A map as a dict, and what it was when each unit was sealed."""

    items: dict[str, int] = field(default_factory=dict)
    handler: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    sealed: list[tuple[bool, dict[str, int]]] = field(default_factory=list)

    def seal(self, *, bad: bool) -> None:
        self.sealed.append((bad, dict(self.items)))
        self.handler = dict(self.items)

    def discard(self) -> None:
        self.items = dict(self.handler)

    def commit(self) -> None:
        for bad, items in self.sealed:
            if bad:
                self.items = dict(self.committed)
                break
            self.committed = items
        self.sealed = []
        self.handler = dict(self.items)

    def submit(self) -> bool:
        if any(bad for bad, _ in self.sealed):
            return False
        self.committed = self.sealed[-1][1] if self.sealed else self.committed
        self.sealed = []
        return True

    def reopen(self) -> None:
        self.items, self.handler = dict(self.committed), dict(self.committed)
        self.sealed = []


keys = st.sampled_from(["a", "aa", "aä", "ab", "b", "ba", "bab", "ä"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, st.integers(0, 3)),
        st.tuples(st.just("set"), keys, st.integers(0, 3)),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("delete"), keys),
        st.tuples(st.just("walk"), st.sampled_from(["", "a", "ä", "ba"])),
        st.tuples(st.just("sweep"), st.sampled_from(["", "a"]), keys),
        st.tuples(st.just("seal")),
        st.tuples(st.just("seal")),
        st.tuples(st.just("submit")),
        st.tuples(st.just("submit")),
        st.tuples(st.just("commit")),
        st.tuples(st.just("discard")),
        st.tuples(st.just("fail")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("reopen")),
    ),
    min_size=30,
    max_size=80,
)


class Machine:
    """Does each step to the map and to the model, and compares."""

    def __init__(self) -> None:
        self.model = Model()

    async def run(
        self, stores: AsyncGenerator[Store, None], steps: list[tuple[Any, ...]]
    ) -> None:
        self.owner = Owner(await anext(stores))
        for name, *values in steps:
            if name == "reopen":
                self.model.commit()
                await self.owner.commit()
                self.owner = Owner(await anext(stores))
                self.model.reopen()
            else:
                await getattr(self, name)(*values)
            await self.owner.map.open()
            assert len(self.owner.map) == len(self.model.items)
        await self.commit()
        await self.walk("")
        assert nothing_above_the_file(self.owner.map)
        assert self.owner.map.committed == len(self.model.items)

    async def set(self, key: str, value: int) -> None:
        self.model.items[key] = value
        await self.owner.map.set(key, value)

    async def get(self, key: str) -> None:
        assert await self.owner.map.get(key) == self.model.items.get(key)

    async def delete(self, key: str) -> None:
        expected = self.model.items.pop(key, None) is not None
        assert await self.owner.map.delete(key) == expected

    async def walk(self, prefix: str) -> None:
        assert await walk(self.owner.map, prefix) == self._found(prefix)

    async def sweep(self, prefix: str, extra: str) -> None:
        """A walk that deletes what it meets, and what it has not met yet."""
        left = self._found(prefix)
        async for key, value in self.owner.map.items(prefix):
            left = [one for one in left if one[0] in self.model.items]
            assert (key, value) == left.pop(0)
            await self.delete(key)
            await self.delete(extra)
        assert [one for one in left if one[0] in self.model.items] == []

    def _found(self, prefix: str) -> list[tuple[str, int]]:
        items = sorted(self.model.items.items())
        return [(key, value) for key, value in items if key.startswith(prefix)]

    async def seal(self, *, bad: bool = False) -> None:
        self.owner.seal(bad=bad)
        self.model.seal(bad=bad)

    async def commit(self) -> None:
        await self.seal()
        self.model.commit()
        await self.owner.commit()

    async def discard(self) -> None:
        self.owner.map.discard()
        self.model.discard()

    async def fail(self) -> None:
        await self.seal(bad=True)

    async def crash(self) -> None:
        """The agent's commit failed before the store says so."""
        await self.fail()
        self.model.commit()
        self.owner.map.reset()
        await self.owner.commit()
        self.model.discard()

    async def submit(self) -> None:
        if self.model.submit():
            self.owner.submit()


async def reopened(file: Path) -> AsyncGenerator[Store, None]:
    """Runs of one store, one after another."""
    while True:
        async with open_store(file, level=Level.CRASH_SAFE) as store:
            yield store


@pytest.mark.parametrize(("page_rows", "known_rows"), [(256, 1024), (3, 2)])
@given(steps=steps)
def test_the_map_does_what_a_dict_does(
    page_rows: int, known_rows: int, steps: list[tuple[Any, ...]]
) -> None:
    async def main(folder: str) -> None:
        async with aclosing(reopened(Path(folder, "x.db"))) as stores:
            await Machine().run(stores, steps)

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Small pages show their edges with few items.
        patch.setattr(map_module, "PAGE_ROWS", page_rows)
        patch.setattr(map_module, "KNOWN_ROWS", known_rows)
        trio.run(main, folder)
