"""A runtime's own injections: plans with a lease, told in the journal, asked for by clients."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, open_runtime
from treewarden.control import Client
from treewarden.control import protocol as wire
from treewarden.errors import ConfigError, NameUnknown, StoreBroken
from treewarden.injection import POINTS, Deed, InjectionPlan, Rule, places
from treewarden.testing import store_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime

ALICE = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.CHAOS)
FULL = Rule(point="store.commit.before", do=Deed.RAISE, error="full")
PLAN = InjectionPlan(name="a full disk", injections=(FULL,), seconds=30.0)

STALL = InjectionPlan(
    name="stall",
    injections=(Rule(point="store.copy.*", do=Deed.STALL),),
    seconds=5.0,
)


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value


async def idle() -> None:
    while True:
        await places.BUS_PUBLISH.pass_by()
        await trio.sleep(0.01)


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Runtime]:
    app = Application("test", [ChildSpec("counter", Counter), ChildSpec("idle", idle)])
    config = Config(store=folder / "db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime


async def topics(runtime: Runtime, pattern: str) -> list[tuple[str, Any]]:
    runtime.record("test.last", {})
    with trio.fail_after(30):
        while not await runtime.store.entries(since=0, limit=1, pattern="test.last"):
            await trio.lowlevel.checkpoint()
    entries = await runtime.store.entries(since=0, limit=100, pattern=pattern)
    return [(entry.topic, msgspec.json.decode(entry.payload)) for entry in entries]


async def test_a_commit_that_a_plan_fails_is_told_and_the_next_succeeds(
    tmp_path: Path, clock: MockClock
) -> None:
    """In virtual time: that of a report, which comes a moment later, is not this one."""
    async with opened(tmp_path) as runtime:
        counter = runtime.ref("counter", Counter)
        await counter.call(Counter.add, 1)
        loaded = runtime.injections.load(PLAN, by="alice")
        with pytest.raises(StoreBroken, match="full"):
            await counter.call(Counter.add, 1)
        assert loaded.done == 1
        assert await counter.call(Counter.add, 1) == 2


async def test_a_plan_is_in_the_journal_with_who_loaded_it_and_what_it_did(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as runtime:
        runtime.injections.load(STALL, by="alice")
        runtime.injections.lift("stall")
        assert runtime.injections.loaded == []
        assert await topics(runtime, "injection.*") == [
            (
                "injection.loaded",
                {
                    "plan": "stall",
                    "by": "alice",
                    "seconds": 5.0,
                    "deeds": ["stall at store.copy.*"],
                },
            ),
            ("injection.lifted", {"plan": "stall", "by": "alice", "done": 0}),
        ]


async def test_a_lease_ends_by_itself(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as runtime:
        runtime.injections.load(PLAN)
        await trio.sleep(PLAN.seconds - 0.1)
        assert len(runtime.injections.loaded) == 1
        await trio.sleep(0.2)
        assert runtime.injections.loaded == []
        assert places.BEFORE_COMMIT.armed is None


async def test_the_end_of_the_runtime_ends_its_plans(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        runtime.injections.load(PLAN)
        assert places.BEFORE_COMMIT.armed
    assert places.BEFORE_COMMIT.armed is None


async def test_a_plan_of_the_same_name_is_refused_while_one_holds(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as runtime:
        runtime.injections.load(PLAN)
        with pytest.raises(ConfigError, match="loaded already"):
            runtime.injections.load(PLAN)
        runtime.injections.lift(PLAN.name)
        with pytest.raises(NameUnknown, match="no plan 'a full disk'"):
            runtime.injections.lift(PLAN.name)


async def test_a_cancellation_kills_the_child_in_whose_turn_it_is(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as runtime:
        cancel = Rule(point="bus.publish", do=Deed.CANCEL)
        runtime.injections.load(InjectionPlan(name="c", injections=(cancel,)))
        with trio.fail_after(30):
            while (
                runtime.tree()["/idle"].incarnation == 1
                or runtime.tree()["/idle"].state != "running"
            ):
                await trio.lowlevel.checkpoint()
        assert runtime.tree()["/idle"].restarts == 1
        assert runtime.tree()["/counter"].restarts == 0


async def test_a_client_loads_sees_and_lifts_a_plan(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        desk = runtime.desk()
        plan = wire.Raw(msgspec.json.encode(PLAN))
        done: Any = await desk.perform("load", wire.Load(plan=plan), ALICE)
        assert done.sentence == (
            "the plan 'a full disk' is loaded; it ends by itself in 30 s"
        )
        seen: Any = await desk.perform("injections", wire.GetInjections(), ALICE)
        assert [row.name for row in seen.points] == list(POINTS)
        [row] = seen.plans
        assert (row.name, row.by, row.injections) == ("a full disk", "alice", 1)
        assert 0 < row.seconds_left <= 30
        armed = {row.name: row.armed for row in seen.points}
        assert armed["store.commit.before"] == 1
        await desk.perform("lift", wire.Lift(name="a full disk"), ALICE)
        assert runtime.injections.loaded == []


async def test_what_a_client_sends_must_be_a_plan(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        plan = wire.Raw(b'{"name": "x", "injections": [{"point": "a", "do": "kill"}]}')
        with pytest.raises(ConfigError, match="no injection point 'a'"):
            await runtime.desk().perform("load", wire.Load(plan=plan), ALICE)
        with pytest.raises(ConfigError, match="no plan of injections"):
            await runtime.desk().perform("load", wire.Load(plan=wire.Raw(b"3")), ALICE)


def test_only_chaos_rights_may_break_anything() -> None:
    assert wire.METHODS["load"].rights is wire.Rights.CHAOS
    assert wire.METHODS["lift"].rights is wire.Rights.CHAOS
    assert wire.METHODS["injections"].rights is wire.Rights.RO
