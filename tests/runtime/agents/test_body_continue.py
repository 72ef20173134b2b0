"""Continuations: what a handler wants done next, before any other message."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    Fault,
    Refused,
    StoreBroken,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from treewarden import Down

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Notes(msgspec.Struct):
    seen: list[str] = []


class Stepper(Agent[Notes]):
    persistence = "none"

    def __init__(self, gate: trio.Event, *, at_start: bool = False) -> None:
        self.gate = gate
        self.at_start = at_start

    async def on_start(self) -> None:
        if self.at_start:
            self.continue_with(Stepper.wait, "prepared")

    async def wait(self, word: str) -> None:
        await self.gate.wait()
        self.state.seen.append(word)

    async def note(self, word: str) -> None:
        self.state.seen.append(word)

    def begin(self, *words: str) -> str:
        for word in words:
            self.continue_with(Stepper.note, word)
        return "begun"

    async def put_off_and_go_on(self) -> str:
        reply = self.defer()
        self.later = reply
        self.continue_with(Stepper.give)
        return ""

    async def give(self) -> None:
        self.later.send("given")

    async def count_down(self, number: int) -> None:
        self.state.seen.append(str(number))
        if number:
            self.continue_with(Stepper.count_down, number - 1)

    async def stop_next(self) -> str:
        self.continue_with(Stepper.leave)
        return "soon"

    async def leave(self) -> None:
        self.stop()

    async def ask_timer(self) -> None:
        self.send_after(1, Stepper.begin, "after the timer")

    async def watch(self, whom: Any) -> None:
        self.monitor(whom)

    async def on_down(self, down: Down) -> None:
        self.continue_with(Stepper.note, f"after {down.path}")

    async def begin_and_fail(self) -> None:
        self.continue_with(Stepper.note, "never")
        raise Refused("on purpose")

    async def crash_next(self) -> None:
        self.continue_with(Stepper.crash)

    async def crash(self) -> None:
        raise ValueError("in the continuation")

    async def copies(self) -> None:
        words = ["as it was"]
        self.continue_with(Stepper.note_all, words)
        words.append("changed")

    async def note_all(self, words: list[str]) -> None:
        self.state.seen += words

    async def seen(self) -> list[str]:
        return self.state.seen


class Saver(Agent[Notes]):
    async def save(self, word: str) -> None:
        self.state.seen.append(word)
        self.continue_with(Saver.follow, word)

    async def follow(self, word: str) -> None:
        self.state.seen.append(f"after {word}")

    async def seen(self) -> list[str]:
        return self.state.seen


@pytest.fixture
async def stepper(start_agents: StartAgents, address: Address) -> Any:
    gate = trio.Event()
    gate.set()
    supervisor = await start_agents(ChildSpec("stepper", Stepper, args=(gate,)))
    return address(supervisor, "/stepper")


async def test_a_continuation_of_the_start_comes_first_and_delays_nobody(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """INI-10, INI-11: what OTP makes of an idle timeout of 0."""
    gate = trio.Event()
    spec = ChildSpec("stepper", Stepper, args=(gate,), kwargs={"at_start": True})
    with trio.fail_after(1):
        supervisor = await start_agents(spec)
    ref = address(supervisor, "/stepper")
    await ref.cast(Stepper.note, "a message")
    await wait_all_tasks_blocked()
    assert ref.statistics().doing == "wait"
    gate.set()
    assert await ref.call(Stepper.seen) == ["prepared", "a message"]


async def test_an_unfinished_continuation_of_the_start_is_the_next_ones_own(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """A new incarnation starts anew: what the old one had before it is not done twice."""
    gate = trio.Event()
    spec = ChildSpec(
        "stepper", Stepper, args=(gate,), kwargs={"at_start": True}, shutdown=0
    )
    supervisor = await start_agents(spec)
    ref = address(supervisor, "/stepper")
    await wait_all_tasks_blocked()
    node = supervisor.directory.find("/stepper")
    assert node is not None
    assert node.life is not None
    await ref.cast(Stepper.note, "a message")
    node.life.fail(_fault(), rolled_back=True)
    gate.set()
    await wait_all_tasks_blocked()
    assert ref.incarnation == 2
    assert await ref.call(Stepper.seen) == ["prepared", "a message"]


def _fault() -> Fault:
    return Fault.capture(ValueError("rolled back"), path="/stepper", incarnation=1)


@pytest.mark.parametrize("how", ["queued", "inline"])
async def test_continuations_come_before_what_waits_and_in_order(
    stepper: Any, how: str, autojump_clock: object
) -> None:
    """MSG-21"""
    if how == "inline":
        await wait_all_tasks_blocked()
        assert await stepper.call(Stepper.begin, "one", "two") == "begun"
        stepper.cast_nowait(Stepper.note, "message")
    else:
        begun = stepper.request(Stepper.begin, "one", "two")
        stepper.cast_nowait(Stepper.note, "message")
        assert await begun.result() == "begun"
    assert await stepper.call(Stepper.seen) == ["one", "two", "message"]


async def test_a_put_off_answer_can_be_given_by_a_continuation(
    stepper: Any, autojump_clock: object
) -> None:
    """MSG-21"""
    assert await stepper.call(Stepper.put_off_and_go_on) == "given"


async def test_a_continuation_can_go_on_and_nothing_comes_between(
    stepper: Any, autojump_clock: object
) -> None:
    """MSG-21"""
    stepper.cast_nowait(Stepper.count_down, 2)
    stepper.cast_nowait(Stepper.note, "message")
    assert await stepper.call(Stepper.seen) == ["2", "1", "0", "message"]


async def test_a_continuation_may_stop_the_agent(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-21"""
    spec = ChildSpec("stepper", Stepper, args=(trio.Event(),), restart="transient")
    supervisor = await start_agents(spec)
    assert await address(supervisor, "/stepper").call(Stepper.stop_next) == "soon"
    await wait_all_tasks_blocked()
    (child,) = supervisor.which_children()
    assert child.state == "stopped"


async def test_timers_and_notices_may_continue(
    start_agents: StartAgents,
    address: Address,
    stepper: Any,
    autojump_clock: object,
) -> None:
    """MSG-21"""
    supervisor = await start_agents()
    await stepper.call(Stepper.watch, address(supervisor, "/nobody"))
    await stepper.call(Stepper.ask_timer)
    await trio.sleep(2)
    seen = await stepper.call(Stepper.seen)
    assert seen == ["after /nobody", "after the timer"]


async def test_what_timers_and_notices_continue_with_comes_before_what_waits(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-21"""
    gate = trio.Event()
    supervisor = await start_agents(
        ChildSpec("other", Stepper, args=(gate,), restart="temporary"),
        ChildSpec("stepper", Stepper, args=(gate,)),
    )
    stepper = address(supervisor, "/stepper")
    await stepper.call(Stepper.watch, address(supervisor, "/other"))
    await stepper.call(Stepper.ask_timer)
    stepper.cast_nowait(Stepper.wait, "busy")
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("other")
    stepper.cast_nowait(Stepper.note, "first message")
    await trio.sleep(2)
    stepper.cast_nowait(Stepper.note, "second message")
    gate.set()
    assert await stepper.call(Stepper.seen) == [
        *("busy", "after /other", "first message"),
        *("after the timer", "second message"),
    ]


async def test_a_handler_that_fails_has_no_continuation(
    stepper: Any, autojump_clock: object
) -> None:
    with pytest.raises(Refused):
        await stepper.call(Stepper.begin_and_fail)
    assert await stepper.call(Stepper.seen) == []


async def test_a_continuation_that_crashes_is_a_dead_letter(
    stepper: Any, autojump_clock: object
) -> None:
    await stepper.call(Stepper.crash_next)
    await wait_all_tasks_blocked()
    assert stepper.incarnation == 2
    assert stepper.statistics().dead_letters == 1


async def test_arguments_of_a_continuation_are_as_they_were(
    stepper: Any, autojump_clock: object
) -> None:
    await stepper.call(Stepper.copies)
    assert await stepper.call(Stepper.seen) == ["as it was"]


async def test_what_was_not_kept_is_not_continued(tmp_path: Path) -> None:
    config = Config(store=tmp_path / "test.db", socket=False)
    app = Application("test", [ChildSpec("saver", Saver)])
    async with open_runtime(app, config=config) as runtime:
        saver = runtime.ref("saver", Saver)
        await saver.call(Saver.save, "good")
        await runtime.store.settled()
        foreign = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        foreign.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON agent_state WHEN "
            """NEW.payload LIKE '%"bad"%' """
            "BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END"
        )
        foreign.close()
        with pytest.raises(StoreBroken):
            await saver.call(Saver.save, "bad")
        assert await saver.call(Saver.seen) == ["good", "after good"]
        await saver.call(Saver.save, "fine")
        assert (await saver.call(Saver.seen))[2:] == ["fine", "after fine"]


class Hasty(Agent[Notes]):
    """Has something to do as soon as it is up."""

    persistence = "none"

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    async def on_start(self) -> None:
        self.continue_with(Hasty.begin)

    async def begin(self) -> None:
        self.note("begun")

    async def fail(self) -> None:
        self.note("failed")
        raise ValueError("on purpose")


async def test_what_comes_first_waits_for_room_in_the_store_as_all_else_does(
    tmp_path: Path,
) -> None:
    noted: list[str] = []

    def note(word: str) -> None:
        noted.append(word)
        runtime.store.has_room = word != "failed"

    app = Application("test", [ChildSpec("one", Hasty, args=(noted.append,))])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        await runtime.supervisor("/application").start_child(
            ChildSpec("two", Hasty, args=(note,))
        )
        await wait_all_tasks_blocked()
        await runtime.ref("two", Hasty).cast(Hasty.fail)
        await wait_all_tasks_blocked()
        assert noted == ["begun", "begun", "failed"]
        assert runtime.ref("two", Hasty).incarnation == 2
        runtime.store.has_room = True
        runtime.store._room.unpark_all()
        await wait_all_tasks_blocked()
        assert noted == ["begun", "begun", "failed", "begun"]
        # Nor is it kept any longer than it is of use.
        assert not runtime.ref("two", Hasty).resolve().first_steps
