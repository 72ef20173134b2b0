"""Durable collections of an agent: declared as annotations, changed by handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NewType

import msgspec
import pytest

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    DurableMap,
    DurableQueue,
    StoreBroken,
    open_runtime,
)
from treewarden.errors import ChildStartFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import Runtime

    from .conftest import StartAgents

    Opened = Callable[[], AbstractAsyncContextManager[Runtime]]

Address = NewType("Address", str)


class Page(msgspec.Struct, frozen=True):
    title: str


class Totals(msgspec.Struct):
    changes: int = 0


class Index(Agent[Totals]):
    pages: DurableMap[Address, Page]
    work: DurableQueue[str]
    unresolved: Opened
    names: ClassVar[dict[str, int]] = {}

    async def add(self, address: str, title: str) -> int:
        self.state.changes += 1
        await self.pages.set(Address(address), Page(title))
        await self.work.put(address, key=address)
        return len(self.pages)

    async def add_and_fail(self, address: str) -> None:
        await self.add(address, "never")
        raise ValueError("after a change")

    async def move(self, old: str, new: str) -> None:
        page = await self.pages.get(Address(old))
        assert page is not None
        await self.pages.delete(Address(old))
        await self.pages.set(Address(new), page)
        await self.work.ack(old)

    async def found(self) -> tuple[dict[Address, str], int, int]:
        pages = {address: page.title async for address, page in self.pages.items()}
        assert len(self.pages) == len(pages)
        return pages, len(self.work), self.state.changes


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a runtime with an index, again and again on one file."""

    def opened() -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=tmp_path / "index.db", socket=False)
        return open_runtime(
            Application("test", [ChildSpec("index", Index)]), config=config
        )

    return opened


async def test_a_map_a_queue_and_the_state_change_as_one_thing(opened: Opened) -> None:
    async with opened() as runtime:
        index = runtime.ref("index", Index)
        assert await index.call(Index.add, "/a", "A") == 1
        with pytest.raises(AgentCrashed):
            await index.call(Index.add_and_fail, "/b")
        assert await index.call(Index.found) == ({"/a": "A"}, 1, 1)
        await index.call(Index.move, "/a", "/c")
    async with opened() as runtime:
        index = runtime.ref("index", Index)
        assert await index.call(Index.found) == ({"/c": "A"}, 0, 1)


async def test_after_a_failed_commit_memory_is_what_the_file_is(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as runtime:
        index = runtime.ref("index", Index)
        await index.call(Index.add, "/a", "A")
        writer = runtime.store._writer

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer, "_commit", full)
            with pytest.raises(StoreBroken):
                await index.call(Index.add, "/b", "B")
        assert await index.call(Index.found) == ({"/a": "A"}, 1, 1)
        assert await index.call(Index.add, "/b", "B") == 2


async def test_collections_need_a_store(start_agents: StartAgents) -> None:
    class Lists(Agent[None]):
        pages: DurableMap[str, int]

    with pytest.raises(ChildStartFailed) as caught:
        await start_agents(ChildSpec("lists", Lists))
    assert "has durable collections and no store" in str(caught.value)


# --- at class definition --------------------------------------------------------------


def declaring(**annotations: Any) -> type[Agent[None]]:
    """An agent's class with these annotations, as if they were written in this module."""
    body = {"__annotations__": annotations, "__module__": __name__}
    return type("Lists", (Agent,), body)


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        ("DurableQueue", r"Lists\.items: say DurableQueue\[ItemType\]"),
        ("DurableMap", r"Lists\.items: say DurableMap\[str, ValueType\]"),
        ("DurableQueue[Any]", r"Lists\.items: .* is Any"),
        ("DurableMap[str, list[Any]]", r"Lists\.items: .* is Any"),
        ("DurableMap[int, str]", r"Lists\.items: keys are str, not int"),
        ("DurableMap[Any, str]", r"Lists\.items: keys are str, not Any"),
        (
            "DurableQueue[Callable]",
            r"Lists\.items: DurableQueue\[Callable\] cannot be read",
        ),
        ("DurableQueue[Application]", r"Lists\.items: .*cannot be stored"),
        (DurableQueue, r"say DurableQueue\[ItemType\]"),
    ],
)
def test_a_collection_of_what_cannot_be_stored_is_refused_at_class_definition(
    hint: object, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        declaring(items=hint)


def test_a_subclass_has_the_collections_of_its_bases_and_may_say_more() -> None:
    class Base(Agent[None]):
        one: DurableQueue[int]
        two: DurableQueue[int]

    class More(Base):
        two: DurableMap[str, int]  # type: ignore[assignment]
        three: DurableMap[str, int]

    declared = More.treewarden_class.collections
    assert [one.name for one in declared] == ["one", "two", "three"]


def test_annotations_that_declare_no_collection_are_left_alone() -> None:
    cls = declaring(number="int", unknown="Whatever", wrong="1 +", plain=int)
    assert not cls.treewarden_class.collections
