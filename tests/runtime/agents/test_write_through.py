"""Every way to change a state is written through: an answer, a tick, a bad end heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, Intensity, open_runtime
from treewarden.testing import crash, store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Down, Runtime


class Fields(msgspec.Struct, frozen=True):
    first: int = 0
    second: str = ""


class Kept(Agent[Fields]):
    async def change(self, first: int, second: str) -> None:
        self.state = Fields(first, second)

    async def change_later(self) -> None:
        self.send_after(1.0, Kept.change, 2, "tick")

    async def watch(self) -> None:
        self.monitor(self.runtime.ref("other", Kept))

    async def on_down(self, down: Down) -> None:
        self.state = Fields(3, f"{down.path} is down")

    async def fields(self) -> Fields:
        return self.state


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


def opened(path: Path) -> AbstractAsyncContextManager[Runtime]:
    children = [ChildSpec("kept", Kept), ChildSpec("other", Kept)]
    app = Application("fields", children, intensity=Intensity(100, 5.0))
    return open_runtime(app, config=Config(store=path / "f.db", socket=False))


@pytest.mark.parametrize("way", ["command", "tick", "error"])
async def test_f15_all_fields_are_kept_however_they_were_changed(
    tmp_path: Path, clock: MockClock, way: str
) -> None:
    """F15: the original's hook was wired to some callbacks and not to others."""
    expected = {
        "command": Fields(1, "command"),
        "tick": Fields(2, "tick"),
        "error": Fields(3, "/other is down"),
    }[way]
    async with opened(tmp_path) as runtime:
        kept = runtime.ref("kept", Kept)
        match way:
            case "command":
                await kept.call(Kept.change, 1, "command")
            case "tick":
                await kept.call(Kept.change_later)
                await trio.sleep(2)
            case _:
                await kept.call(Kept.watch)
                await crash(runtime.ref("other", Kept))
        await wait_until(lambda: kept.inspect() == msgspec.json.encode(expected))
        await crash(kept)
        assert await kept.call(Kept.fields) == expected
    async with opened(tmp_path) as runtime:
        assert await runtime.ref("kept", Kept).call(Kept.fields) == expected


def test_f15_an_option_that_is_none_is_refused_where_the_class_is_written() -> None:
    with pytest.raises(ValueError, match="persistence"):
        type("Wrong", (Kept,), {"persistence": "sometimes"})
