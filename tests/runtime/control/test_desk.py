"""What an operator sees and does, without a socket between."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import treewarden.control.protocol as wire
from treewarden import (
    Agent,
    Application,
    BadArguments,
    ChildSpec,
    Config,
    NameUnknown,
    Policy,
    RateLimit,
    SupervisorSpec,
    open_runtime,
)
from treewarden.control import Client, Desk
from treewarden.control.session import split_rows
from treewarden.errors import CallTimeout, NotAllowed, Outdated
from treewarden.testing import store_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime


class Sum(msgspec.Struct):
    total: int = 0


class Adder(Agent[Sum]):
    async def add(self, amount: int, times: int = 1) -> int:
        self.state.total += amount * times
        return self.state.total

    async def fail(self, text: str) -> None:
        raise ValueError(text)


ALICE = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.CHAOS)


@asynccontextmanager
async def desk_of(tmp_path: Path) -> AsyncIterator[tuple[Runtime, Desk]]:
    app = Application(
        "desk",
        [
            ChildSpec("one", Adder),
            ChildSpec(
                "chain",
                SupervisorSpec(
                    [ChildSpec(id_, Adder) for id_ in ("a", "b", "c")],
                    strategy="rest_for_one",
                ),
            ),
        ],
    )
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime, runtime.desk()


async def up_again(runtime: Runtime, path: str, incarnation: int) -> None:
    with trio.fail_after(30):
        while (
            runtime.tree()[path].incarnation < incarnation
            or runtime.tree()[path].state != "running"
        ):
            await trio.lowlevel.checkpoint()


async def test_the_tree_lists_parents_before_children(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (_, desk):
        answer = await desk.perform("tree", wire.GetTree(), ALICE)
        assert isinstance(answer, wire.Tree)
        seen: set[str | None] = {None}
        for row in answer.rows:
            assert row.parent in seen
            seen.add(row.path)
        assert {"/one", "/chain", "/chain/a", "/system/store"} <= seen


async def test_rows_that_did_not_change_are_the_same_objects(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        before = desk.rows(wire.Topic.TREE)
        runtime.injections.crash("/one")
        await up_again(runtime, "/one", 2)
        after = desk.rows(wire.Topic.TREE)
        assert after["/chain/a"] is before["/chain/a"]
        assert after["/one"] != before["/one"]


async def test_the_numbers_of_a_policy_are_told_as_they_are_and_as_they_change(
    tmp_path: Path,
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        circuit = runtime.circuits.circuit("site")
        limit = RateLimit(rate=20, burst=5)
        policy = Policy(name="site", circuit=circuit, rate=limit, bulkhead=4)
        assert desk.rows(wire.Topic.POLICIES) == {}
        runtime.policies.add(policy)
        before = desk.version(wire.Topic.POLICIES)
        await policy.call(trio.lowlevel.checkpoint)
        assert desk.version(wire.Topic.POLICIES) > before
        [row] = desk.rows(wire.Topic.POLICIES).values()
        assert isinstance(row, wire.PolicyRow)
        assert (row.calls, row.succeeded, row.in_flight) == (1, 1, 0)
        told = msgspec.json.decode(msgspec.json.encode(row), type=wire.PolicyRow)
        circuit_row, rate, bulkhead = (one.numbers for one in told.layers)
        assert circuit_row["state"] == "closed"
        assert "since" not in circuit_row, "an instant of trio's clock says nothing"
        assert rate["limit"] == "5 at once, then 20 a 1 s"
        assert bulkhead["limit"] == 4
        assert isinstance(bulkhead["limit"], int)
        answer = await desk.perform("circuits", wire.GetCircuits(), ALICE)
        assert isinstance(answer, wire.Circuits)
        assert answer.policies == [row]


async def test_open_alarms_are_told_as_they_change(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        topic = wire.Topic.ALARMS
        assert desk.rows(topic) == {}
        before = desk.version(topic)
        runtime.alarms.open("noise", "/one", message="it hums")
        assert desk.version(topic) > before
        [(key, row)] = desk.rows(topic).items()
        assert isinstance(row, wire.AlarmRow)
        assert (key, row.subject, row.count) == (f"{row.id}", "/one", 1)
        version = desk.version(topic)
        assert desk.version(topic) == version, "nothing happened"
        assert desk.rows(topic)[key] is row
        await desk.perform("acknowledge", wire.Acknowledge(alarm=row.id), ALICE)
        [later] = desk.rows(topic).values()
        assert isinstance(later, wire.AlarmRow)
        assert later.acknowledged_by == "alice"
        runtime.alarms.clear("noise", "/one")
        assert desk.rows(topic) == {}


async def test_as_many_alarms_as_there_can_be_are_told_in_several_frames(
    tmp_path: Path,
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        for number in range(1000):
            runtime.alarms.open("noise", f"/{number}", message="☃" * 300)
        answer = await desk.perform("alarms", wire.GetAlarms(), ALICE)
        assert isinstance(answer, wire.OpenAlarms)
        assert len(msgspec.json.encode(answer)) > wire.MAX_FRAME_BYTES
        parts = list(split_rows(answer))
        assert all(
            len(msgspec.json.encode(part)) < wire.MAX_FRAME_BYTES for part in parts
        )
        told = [row for part in parts for row in part.rows]
        assert told == answer.rows


async def test_what_is_left_of_an_open_time_is_told_anew_each_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        runtime.circuits.circuit("site").trip()
        now = 100.0
        clock = SimpleNamespace(monotonic=lambda: now)
        monkeypatch.setattr("treewarden.control.desk.time", clock)
        before = desk.version(wire.Topic.CIRCUITS)
        now = 100.9
        assert desk.version(wire.Topic.CIRCUITS) == before
        now = 101.0
        assert desk.version(wire.Topic.CIRCUITS) == before + 1


async def test_the_state_shown_is_the_committed_one(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        await runtime.ref("one", Adder).call(Adder.add, 3)
        answer = await desk.perform("state", wire.GetState(agent="one"), ALICE)
        assert isinstance(answer, wire.AgentState)
        assert msgspec.json.decode(answer.state) == {"total": 3}
        assert (answer.path, answer.version, answer.type) == ("/one", 1, "Adder")


async def test_why_tells_a_crash_with_message_fault_and_state(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        ref = runtime.ref("one", Adder)
        await ref.call(Adder.add, 3)
        with pytest.raises(Exception, match="boom"):
            await ref.call(Adder.fail, "boom")
        await runtime.store.settled()
        await up_again(runtime, "/one", 2)
        answer: Any = await desk.perform("why", wire.Why(path="/one"), ALICE)
        assert answer.cause == "crash"
        assert "ValueError: boom" in answer.sentence
        assert answer.fault.frames[-1][2] == "fail"
        assert msgspec.json.decode(answer.state_before) == {"total": 3}


async def test_s50_why_tells_what_failed_before_also_in_earlier_runs(
    tmp_path: Path,
) -> None:
    """S50"""
    async with desk_of(tmp_path) as (runtime, _):
        with pytest.raises(Exception, match="boom"):
            await runtime.ref("one", Adder).call(Adder.fail, "boom")
        await up_again(runtime, "/one", 2)
    async with desk_of(tmp_path) as (_, desk):
        answer: Any = await desk.perform("why", wire.Why(path="/one"), ALICE)
    assert (answer.cause, answer.faults_total) == ("none", 1)
    told = msgspec.json.decode(answer.faults[0].payload)
    assert (told["exit"], told["operation"]) == ("crashed: ValueError: boom", "fail")


async def test_why_of_a_bystander_names_the_origin(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        runtime.injections.crash("/chain/b", by="alice")
        await up_again(runtime, "/chain/c", 2)
        origin: Any = await desk.perform("why", wire.Why(path="/chain/b"), ALICE)
        assert origin.message == ""
        assert "made to crash on purpose: injected by alice" in origin.sentence
        assert (origin.cause, origin.took_down) == ("injection", ["/chain/c"])
        bystander: Any = await desk.perform("why", wire.Why(path="/chain/c"), ALICE)
        assert (bystander.cause, bystander.origin) == ("group", "/chain/b")
        untouched: Any = await desk.perform("why", wire.Why(path="/chain/a"), ALICE)
        assert untouched.cause == "none"


async def test_a_preview_says_what_then_happens(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        preview: Any = await desk.perform(
            "preview", wire.GetPreview(act=wire.Act.CRASH, path="/chain/b"), ALICE
        )
        assert preview.stops == ["/chain/b", "/chain/c"]
        assert preview.starts == ["/chain/b", "/chain/c"]
        assert (preview.spent, preview.limit, preview.gives_up) == (0, 3, False)
        runtime.injections.crash("/chain/b")
        await up_again(runtime, "/chain/c", 2)
        assert runtime.tree()["/chain/a"].incarnation == 1
        assert runtime.tree()["/chain/b"].incarnation == 2


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


async def test_a_preview_warns_when_the_budget_is_spent(
    clock: MockClock, tmp_path: Path
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        for n in range(3):
            runtime.injections.crash("/chain/c")
            await up_again(runtime, "/chain/c", n + 2)
        preview: Any = await desk.perform(
            "preview", wire.GetPreview(act=wire.Act.CRASH, path="/chain/c"), ALICE
        )
        assert preview.gives_up
        assert "/chain gives up" in preview.sentence


async def test_an_act_on_an_incarnation_that_is_gone_is_refused(
    tmp_path: Path,
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        act = wire.Restart(path="/one", incarnation=1)
        await desk.perform("restart", act, ALICE)
        assert runtime.tree()["/one"].incarnation == 2
        with pytest.raises(Outdated, match="incarnation 2 now, not 1"):
            await desk.perform("restart", act, ALICE)


async def test_a_suspended_agent_takes_no_message_until_it_is_resumed(
    clock: MockClock, tmp_path: Path
) -> None:
    add = wire.Call(
        agent="one", operation="add", arguments={"amount": wire.Raw(b"2")}, seconds=1.0
    )
    async with desk_of(tmp_path) as (runtime, desk):
        act = wire.Suspend(path="/one", incarnation=1)
        done: Any = await desk.perform("suspend", act, ALICE)
        assert done.sentence == "/one takes no more messages until it is resumed"
        assert runtime.tree()["/one"].state == "suspended"
        with pytest.raises(CallTimeout):
            await desk.perform("call", add, ALICE)
        await desk.perform("resume", wire.Resume(path="/one"), ALICE)
        assert runtime.tree()["/one"].state == "running"
        answer: Any = await desk.perform("call", add, ALICE)
        assert msgspec.json.decode(answer.value) == 2


@pytest.mark.parametrize("act", [wire.Act.SUSPEND, wire.Act.RESUME])
async def test_only_agents_are_suspended_and_the_incarnation_counts(
    tmp_path: Path, act: wire.Act
) -> None:
    kind = wire.Suspend if act is wire.Act.SUSPEND else wire.Resume
    async with desk_of(tmp_path) as (_, desk):
        with pytest.raises(NotAllowed, match="/chain is a supervisor, not an agent"):
            await desk.perform(act, kind(path="/chain"), ALICE)
        with pytest.raises(NotAllowed, match="not an agent"):
            await desk.perform(
                "preview", wire.GetPreview(act=act, path="/chain"), ALICE
            )
        with pytest.raises(Outdated):
            await desk.perform(act, kind(path="/one", incarnation=7), ALICE)
        told: Any = await desk.perform(
            "preview", wire.GetPreview(act=act, path="/one"), ALICE
        )
        assert (told.stops, told.starts, told.gives_up) == ([], [], False)
        assert "/one takes" in told.sentence


async def test_an_operators_acts_are_in_the_journal_with_the_name(
    tmp_path: Path,
) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        await desk.perform("stop", wire.Stop(path="/one"), ALICE)
        assert runtime.tree()["/one"].state == "stopped"
        await wait_all_tasks_blocked()
        with trio.fail_after(30):
            while True:
                answer: Any = await desk.perform(
                    "events", wire.GetEvents(pattern="operator.*"), ALICE
                )
                if answer.rows:
                    break
        (row,) = answer.rows
        assert (row.topic, row.source) == ("operator.stop", "/one")
        assert msgspec.json.decode(row.payload)["by"] == "alice"


async def test_a_call_by_name_checks_its_arguments(tmp_path: Path) -> None:
    def call(**arguments: object) -> wire.Call:
        raw = {k: wire.Raw(msgspec.json.encode(v)) for k, v in arguments.items()}
        return wire.Call(agent="one", operation="add", arguments=raw)

    async with desk_of(tmp_path) as (_, desk):
        answer: Any = await desk.perform("call", call(amount=2, times=3), ALICE)
        assert msgspec.json.decode(answer.value) == 6
        for wrong in (call(amount="two"), call(), call(amount=1, colour=2)):
            with pytest.raises(BadArguments):
                await desk.perform("call", wrong, ALICE)


async def test_the_root_is_shut_down_not_restarted(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (_, desk):
        with pytest.raises(NotAllowed, match="root"):
            await desk.perform("restart", wire.Restart(path="/"), ALICE)
        with pytest.raises(NameUnknown):
            await desk.perform("stop", wire.Stop(path="/nobody"), ALICE)


async def test_shutdown_stops_the_runtime(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (_, desk):
        await desk.perform("shutdown", wire.Shutdown(), ALICE)
        await trio.sleep_forever()


async def test_the_process_row_counts(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (runtime, desk):
        await runtime.ref("one", Adder).call(Adder.add, 1)
        row: Any = await desk.perform("process", wire.GetProcess(), ALICE)
        assert row.nodes == len(runtime.tree().nodes)
        assert row.units == 1
        assert row.rss_bytes > 1 << 20
        assert row.store_health == "ok"
