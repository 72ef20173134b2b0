"""What tests of agents need."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import (
    IGNORE,
    Agent,
    AgentCrashed,
    AgentDown,
    AlreadyStarted,
    Application,
    Backoff,
    ChildSpec,
    ChildStartFailed,
    Config,
    Intensity,
    NotRunning,
    Refused,
    SupervisorSpec,
    UnknownChild,
    open_runtime,
    testing,
)
from treewarden.testing import (
    DeadLetter,
    Sandbox,
    crash,
    open_sandbox,
    store_clock,
    wait_gone,
    wait_handled,
    wait_restarted,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    def __init__(self, log: list[str] | None = None, name: str = "") -> None:
        self.ends = log
        self.name = name

    async def add(self) -> int:
        self.state.value += 1
        return self.state.value

    async def refuse(self) -> None:
        raise Refused("no")

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def on_stop(self, exit: object) -> None:  # noqa: A002
        if self.ends is not None:
            self.ends.append(self.name)


class Faulty(Agent[None]):
    async def on_start(self) -> None:
        raise ValueError("cannot start")


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
async def sandbox(clock: MockClock) -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


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


# --- the sandbox -----------------------------------------------------------------------------


async def test_what_a_test_starts_is_ready_and_has_a_store(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01"""
    counter = await sandbox.start_supervised(Counter)
    assert await counter.call(Counter.add) == 1
    assert counter.path == "/Counter"
    info = await sandbox.start_supervised(ChildSpec("other", Counter, args=([], "x")))
    assert info is not None
    assert await sandbox.runtime.ref(info, Counter).call(Counter.add) == 1
    assert list(sandbox.runtime.registry.select()) == []


async def test_a_crash_costs_only_its_own_message(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01: the example of the module."""
    counter = await sandbox.start_supervised(Counter)
    await counter.call(Counter.add)
    await crash(counter)
    await wait_restarted(counter, 2)
    assert await counter.call(Counter.add) == 2


async def test_what_does_not_start_fails_the_test(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01"""
    with pytest.raises(ChildStartFailed, match="ValueError: cannot start"):
        await sandbox.start_supervised(Faulty)


async def test_what_was_started_is_stopped_the_last_one_first(clock: MockClock) -> None:
    """FIX-01: before whatever the sandbox stands on."""
    ends: list[str] = []
    async with open_sandbox() as sandbox:
        for name in ("a", "b", "c"):
            spec = ChildSpec(name, Counter, args=(ends, name))
            await sandbox.start_supervised(spec)
        assert ends == []
    assert ends == ["c", "b", "a"]


async def test_a_permanent_child_is_restarted_and_a_temporary_one_is_not(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01: however often it is crashed."""
    counter = await sandbox.start_supervised(Counter)
    for incarnation in range(2, 20):
        fault = await crash(counter, "again")
        assert fault.incarnation == incarnation - 1
        await wait_restarted(counter, incarnation)
    spec = ChildSpec("once", Counter, restart="temporary")
    await sandbox.start_supervised(spec)
    once = sandbox.runtime.ref("once", Counter)
    await crash(once)
    await wait_gone(once)
    with pytest.raises(AgentDown):
        await once.call(Counter.add)


async def test_an_id_that_is_taken_is_reported(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01"""
    await sandbox.start_supervised(Counter)
    with pytest.raises(AlreadyStarted, match="Counter"):
        await sandbox.start_supervised(Counter)


async def test_a_child_can_be_stopped_before_the_test_ends(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01"""
    counter = await sandbox.start_supervised(Counter)
    await sandbox.stop_supervised(counter)
    assert sandbox.root.which_children() == []
    with pytest.raises(UnknownChild, match="Counter"):
        await sandbox.stop_supervised("Counter")
    spec = ChildSpec("once", Counter, restart="temporary")
    for _ in range(2):
        await sandbox.start_supervised(spec)
        await sandbox.stop_supervised("once")


async def test_a_transient_child_that_ended_can_be_started_again(
    sandbox: Sandbox, clock: MockClock
) -> None:
    """FIX-01: OTP's fixture says that it is there already."""
    spec = ChildSpec("counter", Counter, restart="transient")
    for _ in range(2):
        await sandbox.start_supervised(spec)
        counter = sandbox.runtime.ref("counter", Counter)
        await counter.stop()
        await wait_gone(counter)


async def test_a_child_that_ignores_its_start_is_none(
    sandbox: Sandbox, clock: MockClock
) -> None:
    async def ignoring(*, task_status: trio.TaskStatus[object]) -> None:
        task_status.started(IGNORE)

    spec = ChildSpec("x", ignoring, restart="temporary")
    assert await sandbox.start_supervised(spec) is None


async def test_a_closed_sandbox_starts_nothing(clock: MockClock) -> None:
    """FIX-01: outside of a test."""
    async with open_sandbox() as sandbox:
        pass
    with pytest.raises(NotRunning, match="sandbox is closed"):
        await sandbox.start_supervised(Counter)
    with pytest.raises(NotRunning, match="sandbox is closed"):
        await sandbox.stop_supervised("Counter")


async def test_a_sandbox_can_have_a_real_file(clock: MockClock, tmp_path: Path) -> None:
    config = Config(store=tmp_path / "test.db", socket=False)
    for expected in (1, 2):
        async with open_sandbox(config=config) as sandbox:
            counter = await sandbox.start_supervised(Counter)
            assert await counter.call(Counter.add) == expected


async def test_an_agent_is_crashed_in_the_middle_of_a_message(
    sandbox: Sandbox, clock: MockClock
) -> None:
    counter = await sandbox.start_supervised(Counter)
    hanging = counter.request(Counter.hang, 60)
    await wait_until(lambda: counter.statistics().doing == "hang")
    fault = await crash(counter, "pulled out")
    with pytest.raises(AgentCrashed, match="pulled out") as caught:
        await hanging.result()
    assert caught.value.fault == fault


async def test_nobody_is_crashed_who_does_not_run(
    sandbox: Sandbox, clock: MockClock
) -> None:
    await sandbox.start_supervised(ChildSpec("counter", Counter))
    counter = sandbox.runtime.ref("counter", Counter)
    await sandbox.root.terminate_child("counter")
    with pytest.raises(NotRunning, match="nothing to crash"):
        await crash(counter)


async def test_waiting_for_a_restart_lets_a_backoff_run_off(
    sandbox: Sandbox, clock: MockClock
) -> None:
    backoff = Backoff(initial=3600, maximum=3600, jitter=0)
    await sandbox.start_supervised(ChildSpec("counter", Counter, backoff=backoff))
    counter = sandbox.runtime.ref("counter", Counter)
    await crash(counter)
    began = trio.current_time()
    await wait_restarted(counter, 2)
    assert 3600 <= trio.current_time() - began < 3700
    assert await counter.call(Counter.add) == 1


async def test_waiting_for_messages_counts_all_that_were_begun(
    sandbox: Sandbox, clock: MockClock
) -> None:
    counter = await sandbox.start_supervised(Counter)
    for operation in (Counter.add, Counter.refuse, Counter.fail, Counter.add):
        await counter.cast(operation)
    await counter.cast(Counter.hang, 30)
    await wait_handled(counter, 5)
    assert trio.current_time() >= 30
    assert await counter.call(Counter.add) == 3


async def test_what_nobody_handled_is_seen(sandbox: Sandbox, clock: MockClock) -> None:
    counter = await sandbox.start_supervised(Counter)
    await counter.cast(Counter.fail)
    await wait_restarted(counter, 2)
    await counter.cast(Counter.refuse)
    await wait_handled(counter, 2)
    assert sandbox.dead_letters == [
        DeadLetter(path="/Counter", operation="fail", reason="crashed"),
        DeadLetter(path="/Counter", operation="refuse", reason="refused"),
    ]


async def test_a_budget_is_seen_in_a_supervisor_of_its_own(
    sandbox: Sandbox, clock: MockClock
) -> None:
    spec = SupervisorSpec([ChildSpec("counter", Counter)], intensity=Intensity(1, 5.0))
    await sandbox.start_supervised(ChildSpec("inner", spec, restart="temporary"))
    counter = sandbox.runtime.ref("counter", Counter)
    await crash(counter)
    await wait_restarted(counter, 2)
    await crash(counter)
    await wait_gone(counter)
    await wait_until(lambda: sandbox.root.which_children() == [])


async def test_a_wait_that_is_in_vain_says_for_what(
    sandbox: Sandbox, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = await sandbox.start_supervised(Counter)
    monkeypatch.setattr(testing, "PATIENCE_SECONDS", 0.0)
    for wait, what in (
        (wait_gone(counter), "/Counter is gone"),
        (wait_restarted(counter, 2), "/Counter runs in incarnation 2"),
        (wait_handled(counter, 1), "/Counter has handled 1 messages"),
    ):
        with pytest.raises(TimeoutError, match=what):
            await wait
