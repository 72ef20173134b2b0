"""F13: the store belongs to the system, not to those who use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from treewarden import Agent, Application, ChildSpec, Intensity, open_runtime
from treewarden.config import Config
from treewarden.errors import AgentCrashed
from treewarden.testing import store_clock, wait_restarted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime


class Count(msgspec.Struct):
    n: int = 0


class Counter(Agent[Count]):
    async def add(self) -> int:
        self.state.n += 1
        return self.state.n

    async def fail(self) -> None:
        raise ValueError("on purpose")


APP = Application(
    "counters",
    [
        ChildSpec("one", Counter, intensity=Intensity(limit=10, period=5.0)),
        ChildSpec("two", Counter),
    ],
)


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


async def test_f13_three_crashes_of_an_agent_leave_the_store_as_it_was(
    clock: MockClock, tmp_path: Path
) -> None:
    """F13: the original's tables died with the process that had made them."""
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        store, one = runtime.store, runtime.ref("/one", Counter)
        for crashes in range(1, 4):
            assert await one.call(Counter.add) == crashes
            with pytest.raises(AgentCrashed):
                await one.call(Counter.fail)
            await wait_restarted(one, crashes + 1)
        assert await one.call(Counter.add) == 4
        assert runtime.store is store
        assert runtime.tree()["/system/store"].incarnation == 1


async def test_f13_a_store_that_crashed_is_opened_again_before_its_users(
    clock: MockClock, tmp_path: Path
) -> None:
    """F13: reopened, nothing lost, and who stood on it is started after it."""
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(APP, config=config) as runtime:
        store = runtime.store
        refs = [runtime.ref(path, Counter) for path in ("/one", "/two")]
        for ref in refs:
            await ref.call(Counter.add)
        runtime.injections.crash("/system/store")
        for ref in refs:
            await wait_restarted(ref, 2)
        assert runtime.store is not store
        for ref in refs:
            assert await ref.call(Counter.add) == 2
        begun = await second_lives(runtime)
        assert begun.index("/system/store") < begun.index("/one") < begun.index("/two")


async def second_lives(runtime: Runtime) -> list[str]:
    """Whose second incarnation began, in order, as the journal has it."""
    await runtime.store.settled()
    entries = await runtime.store.entries(since=0, limit=1000)
    topics = {"supervision.started", "supervision.restarted"}
    return [
        one.source
        for one in entries
        if one.topic in topics and msgspec.json.decode(one.payload)["incarnation"] == 2
    ]
