"""Why a node does not run, asked while it does not."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

import treewarden.control.protocol as wire
from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    Backoff,
    ChildSpec,
    Config,
    Crash,
    Intensity,
    open_runtime,
)
from treewarden.control import Client
from treewarden.errors import CallTimeout
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime

    Ask = Callable[[str], Awaitable[Any]]

ALICE = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.RW)


class Sum(msgspec.Struct):
    total: int = 0


class Adder(Agent[Sum]):
    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    async def fail(self, text: str) -> None:
        self.state.total = -1
        raise ValueError(text)

    async def hang_deep(self, until: trio.Event) -> None:
        await deeper(until, 10)

    async def hang(self, until: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await until.wait()

    def chat(self) -> None:
        for number in range(500):
            self.publish("chat", number)


async def deeper(until: trio.Event, levels: int) -> None:
    await (deeper(until, levels - 1) if levels else until.wait())


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@asynccontextmanager
async def one(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Runtime, Ask]]:
    """An agent alone, and a way to ask why."""
    app = Application("why", [ChildSpec("one", Adder, **more)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        desk = runtime.desk()

        async def ask(path: str) -> Any:
            await runtime.store.settled()
            return await desk.perform("why", wire.Why(path=path), ALICE)

        yield runtime, ask


async def fail(runtime: Runtime, text: str) -> None:
    with suppress(AgentCrashed):
        await runtime.ref("one", Adder).call(Adder.fail, text)


def is_in(runtime: Runtime, state: str) -> Callable[[], bool]:
    return lambda: runtime.tree()["/one"].state == state


async def test_why_of_one_that_spent_its_budget_tells_so_and_its_last_crash(
    clock: MockClock, tmp_path: Path
) -> None:
    async with one(tmp_path, intensity=Intensity(1, 5.0)) as (runtime, ask):
        await runtime.ref("one", Adder).call(Adder.add, 3)
        await fail(runtime, "first")
        await wait_until(is_in(runtime, "running"))
        await fail(runtime, "second")
        await wait_until(is_in(runtime, "failed"))
        told = await ask("/one")
        assert told.sentence == (
            "/one crashed: ValueError: second; it has spent its own budget (1 in 5 s),"
            " and stays down until it is restarted by hand"
        )
        assert (told.cause, told.fault.message) == ("crash", "second")
        exit_ = runtime.tree()["/one"].last_exit
        assert isinstance(exit_, Crash)
        assert told.at_ns == exit_.fault.at_ns
        assert told.message.startswith("fail ")
        assert msgspec.json.decode(told.state_before) == {"total": 3}
        assert msgspec.json.decode(told.state_after) == {"total": 3}


async def test_why_of_one_that_waits_to_be_started_again_tells_its_last_crash(
    clock: MockClock, tmp_path: Path
) -> None:
    patient = Backoff(initial=60.0, maximum=60.0, jitter=0.0)
    async with one(tmp_path, backoff=patient) as (runtime, ask):
        await fail(runtime, "boom")
        await wait_until(is_in(runtime, "restarting"))
        told = await ask("/one")
        assert told.sentence == (
            "/one crashed: ValueError: boom; it waits to be started again"
        )
        assert (told.cause, told.fault.message) == ("crash", "boom")


async def test_why_of_one_that_is_stuck_tells_where_it_hangs(
    clock: MockClock, tmp_path: Path
) -> None:
    over = trio.Event()
    async with (
        one(tmp_path, shutdown=1.0) as (runtime, ask),
        trio.open_nursery() as nur,
    ):
        with suppress(CallTimeout):
            await runtime.ref("one", Adder).call(Adder.hang, over)
        nur.start_soon(runtime.supervisor("/application").terminate_child, "one")
        await trio.sleep(60)
        assert is_in(runtime, "stuck")()
        told = await ask("/one")
        over.set()
    assert told.cause == "stuck"
    assert told.sentence.startswith(
        "/one is stuck: it was told to end, and hangs in hang ("
    )


async def test_what_a_running_node_awaits_is_told_with_its_lines(
    clock: MockClock, tmp_path: Path
) -> None:
    over = trio.Event()
    async with one(tmp_path) as (runtime, ask), trio.open_nursery() as nur:
        assert (await ask("/one")).now == ""
        busy = runtime.ref("one", Adder).with_timeout(60.0)
        nur.start_soon(busy.call, Adder.hang, over)
        await trio.sleep(1)
        told = await ask("/one")
        over.set()
        assert (told.cause, told.sentence) == (
            "none",
            "/one was never restarted in this run",
        )
        assert told.now.startswith("hang (")
        assert "test_why.py:" in told.now
        task = await ask("/system/watchdog")
        assert task.now.startswith("_watchdog (")


async def test_of_many_calls_the_first_and_the_deepest_are_told(
    clock: MockClock, tmp_path: Path
) -> None:
    over = trio.Event()
    async with one(tmp_path) as (runtime, ask), trio.open_nursery() as nur:
        busy = runtime.ref("one", Adder).with_timeout(60.0)
        nur.start_soon(busy.call, Adder.hang_deep, over)
        await trio.sleep(1)
        told = await ask("/one")
        over.set()
    calls = [call.partition(" ")[0] for call in told.now.split(" > ")]
    assert calls == ["hang_deep", "deeper", "...", "deeper", "deeper", "wait"]


async def test_what_happened_is_found_behind_many_events(
    clock: MockClock, tmp_path: Path
) -> None:
    async with one(tmp_path) as (runtime, ask):
        await fail(runtime, "boom")
        restarted = "supervision.restarted"
        while not await runtime.store.entries(  # noqa: ASYNC110 - nobody tells of it
            since=None, limit=1, pattern=restarted
        ):
            await trio.sleep(0.1)
        await runtime.ref("one", Adder).call(Adder.chat)
        told = await ask("/one")
        topics = [row.topic for row in told.chain]
        assert topics == [
            "supervision.started",
            "supervision.exited",
            "supervision.restarted",
        ]
