"""A runtime for workflows: virtual time, a real file, and a diary of what steps did."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import Application, Config, current_step, open_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import ChildSpec, Runtime

    Open = Callable[..., AbstractAsyncContextManager[Runtime]]


class Diary:
    """What steps and compensations did, in order; it outlives runtimes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.keys: list[str] = []
        # How often what is named so still fails, and what it waits for.
        self.failures: Counter[str] = Counter()
        self.gates: dict[str, trio.Event] = {}
        self.begun: dict[str, trio.Event] = {}

    async def book(self, what: str) -> str:
        """A step."""
        await self._do("book", what)
        return f"{what} booked"

    async def undo(self, booking: str) -> None:
        """Its compensation."""
        await self._do("undo", booking.removesuffix(" booked"))

    async def _do(self, verb: str, what: str) -> None:
        line = f"{verb} {what}"
        self.keys.append(current_step().key)
        if line in self.begun:
            self.begun[line].set()
        if line in self.gates:
            await self.gates[line].wait()
        if self.failures[line]:
            self.failures[line] -= 1
            self.lines.append(f"{line} fails")
            raise ConnectionError(f"{what}: nobody answers")
        self.lines.append(line)

    async def wait_lines(self, line: str, count: int) -> None:
        """Until it was done so often."""
        while self.lines.count(line) < count:  # noqa: ASYNC110 - time is to pass
            await trio.sleep(0.01)

    async def wait_keys(self, *keys: str) -> None:
        """Until all these have begun."""
        while not set(keys) <= set(self.keys):  # noqa: ASYNC110 - time is to pass
            await trio.sleep(0.01)

    def of(self, verb: str) -> list[str]:
        """What was done so, in order."""
        words = [line.split() for line in self.lines]
        return [word[1] for word in words if word[0] == verb and len(word) == 2]


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def open_app(tmp_path: Path) -> Open:
    """Opens a runtime on the test's one file."""

    @asynccontextmanager
    async def opened(
        children: Sequence[ChildSpec] = (), **options: Any
    ) -> AsyncIterator[Runtime]:
        config = Config(store=tmp_path / "test.db", socket=False, **options)
        async with open_runtime(Application("app", children), config=config) as runtime:
            yield runtime

    return opened


@pytest.fixture
def reported() -> Callable[..., Any]:
    """The payloads of all reports on a topic, once they are in the journal."""

    async def of(runtime: Runtime, topic: str) -> list[Any]:
        await runtime.store.settled()
        runtime.store.report("test.mark", b"{}")
        entries = runtime.store.entries
        while not await entries(since=0, limit=1, pattern="test.mark"):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        found = await entries(since=0, limit=1000, pattern=topic)
        return [msgspec.json.decode(entry.payload) for entry in found]

    return of
