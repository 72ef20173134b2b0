"""Cases of messages and monitors that OTP tests and nothing else here does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    CallTimeout,
    ChildSpec,
    Crash,
    Down,
    Normal,
    Shutdown,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Notes(msgspec.Struct):
    seen: list[str] = []


class Server(Agent[Notes]):
    persistence = "none"

    async def note(self, word: str) -> None:
        self.state.seen.append(word)

    def note_plainly(self, word: str) -> None:
        self.state.seen.append(word)

    async def slow(self, word: str, seconds: float) -> str:
        self.state.seen.append(f"{word} begins")
        await trio.sleep(seconds)
        self.state.seen.append(f"{word} ends")
        return word

    async def seen(self) -> list[str]:
        return self.state.seen

    async def nonsense(self) -> int:
        return object()  # type: ignore[return-value]

    async def missing_inside(self) -> None:
        self.no_such_thing()  # type: ignore[attr-defined]

    async def leave(self, detail: str) -> None:
        raise Stop(Shutdown(detail))

    async def answer_and_leave(self) -> str:
        self.stop()
        return "bye"

    async def remind(self) -> None:
        self.send_after(5, Server.note, "timer")

    async def call_other(self, path: str, back: str) -> None:
        other: AgentRef[Server] = AgentRef(self.treewarden_body.directory, path)
        if back:
            await other.call(Server.call_other, back, "")
        else:
            await other.call(Server.note, "never")

    async def rename(self, text: str) -> None:
        self.label = text


class Watcher(Agent[None]):
    def __init__(self, log: list[Any], whom: Any) -> None:
        self.heard = log
        self.whom = whom

    async def watch_and_ask(self) -> None:
        self.monitor(self.whom)
        self.heard.append(await self.whom.call(Server.answer_and_leave))

    async def watch(self, times: int) -> None:
        for _ in range(times):
            self.monitor(self.whom)

    async def on_down(self, down: Down) -> None:
        self.heard.append(down)


@pytest.fixture
async def ref(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("server", Server)), "/server")


async def test_an_answer_that_comes_too_late_reaches_nobody(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-04"""
    with pytest.raises(CallTimeout):
        await ref.with_timeout(1).call(Server.slow, "late", 2)
    # Neither this task's next call nor anything else of it sees that answer.
    assert await ref.call(Server.slow, "next", 1) == "next"
    await trio.sleep(5)
    assert ref.incarnation == 1


async def test_an_answer_that_is_none_of_its_type_is_a_crash(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-05"""
    with pytest.raises(AgentCrashed):
        await ref.call(Server.nonsense)
    await wait_all_tasks_blocked()
    assert ref.incarnation == 2


async def test_who_answers_and_stops_is_heard_before_it_is_down(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-09, MON-05"""
    supervisor = await start_agents(ChildSpec("server", Server, restart="temporary"))
    heard: list[Any] = []
    ref = address(supervisor, "/server")
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(heard, ref)))
    await address(supervisor, "/watcher").call(Watcher.watch_and_ask)
    await wait_all_tasks_blocked()
    assert heard == ["bye", Down(path="/server", incarnation=1, exit=Normal())]


async def test_who_stops_without_an_answer_tells_its_caller(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-10"""
    supervisor = await start_agents(ChildSpec("server", Server, restart="transient"))
    with pytest.raises(AgentDown, match="stopped itself"):
        await address(supervisor, "/server").call(Server.leave, "enough")
    await wait_all_tasks_blocked()
    assert supervisor.which_children()[0].last_exit == Shutdown("enough")


async def test_a_cast_may_set_a_timer_and_stop(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-16, MON-14"""
    supervisor = await start_agents(ChildSpec("server", Server, restart="transient"))
    ref = address(supervisor, "/server")
    await ref.cast(Server.remind)
    await trio.sleep(6)
    assert await ref.call(Server.seen) == ["timer"]
    await ref.cast(Server.answer_and_leave)
    await wait_all_tasks_blocked()
    assert supervisor.which_children()[0].state == "stopped"


async def test_something_missing_inside_a_handler_is_no_unknown_operation(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-20"""
    with pytest.raises(AgentCrashed, match=r"AttributeError.*no_such_thing"):
        await ref.call(Server.missing_inside)


async def test_messages_of_one_sender_keep_their_order(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-26: calls, casts, requests, async and plain handlers alike."""
    ref.request(Server.slow, "a", 1)
    expected = ["a begins", "a ends"]
    for number in range(0, 40, 4):
        ref.request(Server.note, f"{number}")
        await ref.cast(Server.note_plainly, f"{number + 1}")
        ref.cast_nowait(Server.note, f"{number + 2}")
        await ref.call(Server.note_plainly, f"{number + 3}")
        expected += [str(one) for one in range(number, number + 4)]
    assert await ref.call(Server.seen) == expected


async def test_a_call_may_wait_for_ever_or_not_at_all(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-29"""
    with pytest.raises(CallTimeout):
        await ref.call(Server.slow, "default", 6)
    assert trio.current_time() == 5
    with pytest.raises(CallTimeout):
        await ref.with_timeout(0).call(Server.slow, "zero", 1)
    assert trio.current_time() == 5
    assert await ref.with_timeout(math.inf).call(Server.slow, "long", 9e4) == "long"
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match="must be >= 0"):
            ref.with_timeout(wrong)


async def test_a_cancelled_caller_goes_and_its_request_may_still_run(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-30"""
    with trio.move_on_after(1) as scope:
        await ref.call(Server.slow, "a", 2)
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert await ref.call(Server.seen) == ["a begins", "a ends"]


async def test_a_thread_reaches_an_agent_through_trio(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-31: and so does any task, as this test."""

    def in_a_thread() -> str:
        answer: str = trio.from_thread.run(ref.call, Server.slow, "thread", 0)
        return answer

    assert await trio.to_thread.run_sync(in_a_thread) == "thread"


async def test_agents_that_call_each_other_in_a_circle_are_told_in_time(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-33: the deadline ends it."""
    supervisor = await start_agents(ChildSpec("a", Server), ChildSpec("b", Server))
    with pytest.raises(CallTimeout, match=r"/a did not answer call_other"):
        await address(supervisor, "/a").call(Server.call_other, "/b", "/a")
    assert trio.current_time() == 5


async def test_a_handler_that_waits_lets_no_message_in(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-34"""
    for word in ("a", "b"):
        ref.request(Server.slow, word, 1)
    await ref.call(Server.note_plainly, "c")
    seen = await ref.call(Server.seen)
    assert seen == ["a begins", "a ends", "b begins", "b ends", "c"]


async def test_each_monitor_tells_once_and_never_of_a_later_life(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-02, MON-07"""
    supervisor = await start_agents(ChildSpec("server", Server))
    ref = address(supervisor, "/server")
    heard: list[Any] = []
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(heard, ref)))
    await address(supervisor, "/watcher").call(Watcher.watch, 3)
    for _ in range(2):
        with pytest.raises(AgentCrashed):
            await ref.call(Server.missing_inside)
        await wait_all_tasks_blocked()
    assert [down.incarnation for down in heard] == [1, 1, 1]
    assert all(isinstance(down.exit, Crash) for down in heard)


async def test_a_label_shows_in_the_tree(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-15"""
    supervisor = await start_agents(ChildSpec("server", Server))
    await address(supervisor, "/server").call(Server.rename, "x" * 100)
    tree = supervisor.directory.snapshot(trio.current_time())
    assert tree["/server"].label == "x" * 80
    with pytest.raises(AgentCrashed, match="a label is a str, not 5"):
        await address(supervisor, "/server").call(Server.rename, 5)
