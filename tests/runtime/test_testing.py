"""What tests of agents need."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, open_runtime, testing
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    async def add(self) -> int:
        self.state.value += 1
        return self.state.value


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


async def test_time_stands_still_while_the_store_owes_an_answer(
    clock: MockClock, tmp_path: Path
) -> None:
    config = Config(store=tmp_path / "test.db", socket=False)
    app = Application("test", [ChildSpec("counter", Counter)])
    with trio.fail_after(1e-6):
        async with open_runtime(app, config=config) as runtime:
            ref = runtime.ref("counter", Counter).with_timeout(1e-6)
            # Each call waits for a commit, longer than that by any clock but this one.
            assert [await ref.call(Counter.add) for _ in range(3)] == [1, 2, 3]
    assert clock.autojump_threshold == 0


async def test_time_jumps_when_the_store_is_idle(
    clock: MockClock, tmp_path: Path
) -> None:
    config = Config(store=tmp_path / "test.db", socket=False)
    app = Application("test", [ChildSpec("counter", Counter)])
    async with open_runtime(app, config=config) as runtime:
        before = trio.current_time()
        await trio.sleep(3600)
        assert trio.current_time() == pytest.approx(before + 3600)
        assert await runtime.ref("counter", Counter).call(Counter.add) == 1


async def test_a_wait_ends_when_its_condition_is_true(clock: MockClock) -> None:
    seen: list[str] = []

    async def appear() -> None:
        await trio.lowlevel.checkpoint()
        seen.append("it")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(appear)
        with trio.fail_after(1):
            await wait_until(lambda: seen)
    assert trio.current_time() == 0


async def test_a_wait_in_vain_says_what_it_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(testing, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="Godot is not so"):
        await wait_until(lambda: False, "Godot")


def test_outside_of_its_block_no_store_knows_the_clock(tmp_path: Path) -> None:
    with store_clock() as clock:
        pass
    clock.autojump_threshold = math.inf

    async def main() -> None:
        config = Config(store=tmp_path / "test.db", socket=False)
        async with open_runtime(Application("test", []), config=config):
            pass

    trio.run(main)
    assert clock.autojump_threshold == math.inf
