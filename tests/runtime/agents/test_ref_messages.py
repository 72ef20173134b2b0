"""Cases of messages and monitors that OTP tests and nothing else here does."""

from __future__ import annotations

import logging
import math
import sqlite3
from functools import partial
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
    Application,
    CallingSelf,
    CallTimeout,
    ChildSpec,
    Config,
    Crash,
    Down,
    Exit,
    Killed,
    NameUnknown,
    Normal,
    Shutdown,
    Stop,
    open_runtime,
)
from treewarden.registry import Registry
from treewarden.resilience import Backoff
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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

    def missing_inside_at_once(self) -> None:
        self.no_such_thing()  # type: ignore[attr-defined]

    async def tell_and_leave(self, whom: Any, words: list[str]) -> None:
        for word in words:
            self.cast(whom, Watcher.hear, word)
        self.stop()

    async def leave(self, how: Exit) -> None:
        raise Stop(how)

    async def call_itself(self, refs: list[AgentRef[Server]]) -> list[str]:
        return [type(error).__name__ for ref in refs for error in await refusals(ref)]

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

    async def watch_another(self, whom: Any) -> None:
        self.monitor(whom)

    async def hear(self, word: str) -> None:
        self.heard.append(word)

    async def on_down(self, down: Down) -> None:
        self.heard.append(down)


class Kept(Agent[Notes]):
    async def note_and_tell(self, whom: Any) -> None:
        self.state.seen.append("noted")
        self.cast(whom, Watcher.hear, "noted")

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def go(self) -> None:
        self.stop()


class Careless(Agent[None]):
    async def watch(self, whom: Any) -> None:
        self.monitor(whom)

    async def on_down(self, down: Down) -> None:
        self.no_such_thing()  # type: ignore[attr-defined]


async def refusals(ref: AgentRef[Any]) -> list[Exception]:
    """What an agent hears that asks something of itself, whose address is `ref`."""
    refused: list[Exception] = []
    for ask in (
        partial(ref.call, Server.seen),
        partial(ref.with_timeout(math.inf).call, Server.seen),
        ref.stop,
        partial(ref.replace_state, Notes()),
    ):
        try:
            await ask()
        except CallingSelf as error:
            refused.append(error)
    try:
        ref.request(Server.seen)
    except CallingSelf as error:
        refused.append(error)
    return refused


@pytest.fixture
async def ref(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("server", Server)), "/server")


async def test_an_answer_that_comes_too_late_reaches_nobody(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-04, pitfall 54"""
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
    with pytest.raises(AgentCrashed, match="nonsense returned what") as caught:
        await ref.call(Server.nonsense)
    await wait_all_tasks_blocked()
    assert ref.incarnation == 2
    assert ref.resolve().node.last_exit == Crash(caught.value.fault)


async def test_who_answers_and_stops_is_heard_before_it_is_down(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-09, MON-05, G22"""
    supervisor = await start_agents(ChildSpec("server", Server, restart="temporary"))
    heard: list[Any] = []
    ref = address(supervisor, "/server")
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(heard, ref)))
    await address(supervisor, "/watcher").call(Watcher.watch_and_ask)
    await wait_all_tasks_blocked()
    assert heard == ["bye", Down(path="/server", incarnation=1, exit=Normal())]


@pytest.mark.parametrize("exit_", [Normal(), Shutdown(), Shutdown("enough")])
async def test_who_stops_without_an_answer_tells_its_caller(
    start_agents: StartAgents,
    address: Address,
    exit_: Exit,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    """MSG-10: and nobody calls that a crash."""
    supervisor = await start_agents(ChildSpec("server", Server, restart="transient"))
    with pytest.raises(AgentDown, match="stopped itself") as caught:
        await address(supervisor, "/server").call(Server.leave, exit_)
    assert caught.value.exit == exit_
    await wait_all_tasks_blocked()
    assert supervisor.which_children()[0].last_exit == exit_
    supervisor.directory.log.close()
    assert [one for one in caplog.records if one.levelno > logging.INFO] == []


async def test_who_waits_for_somebody_who_is_killed_is_told_at_once(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-07: whoever is being answered, and whoever stands in line."""
    supervisor = await start_agents(ChildSpec("server", Server, shutdown=0))
    ref = address(supervisor, "/server").with_timeout(math.inf)
    begun, waiting = ref.request(Server.slow, "a", 60), ref.request(Server.seen)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("server")
    for request in (begun, waiting):
        with pytest.raises(AgentDown, match="/server is down: it is stopped") as told:
            await request.result()
        assert told.value.exit == Killed()
    assert trio.current_time() == 0


async def test_a_cast_to_nobody_is_told_at_once_and_one_to_whoever_comes_back_waits(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-15: a sender who is told nothing would go on for ever."""
    late = Backoff(initial=10.0, maximum=10.0, jitter=0.0)
    supervisor = await start_agents(
        ChildSpec("gone", Server, restart="temporary"),
        ChildSpec("stopped", Server),
        ChildSpec("late", Server, backoff=late),
        ChildSpec("server", Server),
    )
    refs = {id_: address(supervisor, f"/{id_}") for id_ in ("gone", "stopped", "late")}
    for ref in refs.values():
        assert await ref.call(Server.seen) == []
    for id_ in ("gone", "stopped"):
        await supervisor.terminate_child(id_)
    with pytest.raises(AgentCrashed):
        await refs["late"].call(Server.missing_inside)
    nobody = address(supervisor, "/nobody")
    for ref, error in (
        (nobody, NameUnknown),
        (refs["gone"], AgentDown),
        (refs["stopped"], AgentDown),
    ):
        with pytest.raises(error):
            await ref.cast(Server.note, "word")
        with pytest.raises(error):
            ref.cast_nowait(Server.note, "word")
    with pytest.raises(NameUnknown):
        await address(supervisor, "/server").call(Server.tell_and_leave, nobody, ["x"])
    await refs["late"].cast(Server.note, "one")
    refs["late"].cast_nowait(Server.note, "two")
    assert trio.current_time() == 0
    assert await refs["late"].with_timeout(60).call(Server.seen) == ["one", "two"]


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
    for operation in (Server.missing_inside, Server.missing_inside_at_once):
        with pytest.raises(AgentCrashed, match=r"AttributeError.*no_such_thing"):
            await ref.call(operation)


async def test_something_missing_inside_a_hook_is_no_missing_hook(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-20: OTP's handle_info; else the notice would be logged and dropped."""
    supervisor = await start_agents(
        ChildSpec("server", Server), ChildSpec("careless", Careless)
    )
    ref = address(supervisor, "/careless")
    await ref.call(Careless.watch, address(supervisor, "/server"))
    await address(supervisor, "/server").stop()
    await wait_all_tasks_blocked()
    exit_ = ref.resolve().node.last_exit
    assert isinstance(exit_, Crash)
    assert "no_such_thing" in exit_.fault.message
    assert ref.incarnation == 2


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


async def test_what_was_sent_before_the_end_comes_before_the_notice_of_it(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-26: as one sender's signals keep their order in OTP."""
    supervisor = await start_agents(ChildSpec("server", Server, restart="temporary"))
    heard: list[Any] = []
    ref = address(supervisor, "/server")
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(heard, ref)))
    watcher = address(supervisor, "/watcher")
    await watcher.call(Watcher.watch, 1)
    await ref.call(Server.tell_and_leave, watcher, ["one", "two"])
    await wait_all_tasks_blocked()
    assert heard == [
        *("one", "two"),
        Down(path="/server", incarnation=1, exit=Normal()),
    ]


@pytest.mark.parametrize("how", ["fail", "leave", "terminate"])
async def test_a_cast_that_waits_for_its_commit_comes_before_the_notice(
    tmp_path: Path, how: str
) -> None:
    """MSG-26: also when its sender has crashed meanwhile."""
    heard: list[Any] = []
    app = Application(
        "test",
        [ChildSpec("kept", Kept), ChildSpec("watcher", Watcher, args=(heard, None))],
    )
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        kept, watcher = runtime.ref("kept", Kept), runtime.ref("watcher", Watcher)
        await watcher.call(Watcher.watch_another, kept)
        await runtime.store.settled()
        await wait_all_tasks_blocked()
        foreign = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        await kept.cast(Kept.note_and_tell, watcher)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            if how == "terminate":
                application = runtime.supervisor("application")
                nursery.start_soon(application.terminate_child, "kept")
            else:
                await kept.cast(Kept.fail if how == "fail" else Kept.go)
            await wait_all_tasks_blocked()
            before = list(heard)
            foreign.execute("ROLLBACK")
            foreign.close()
        await wait_until(lambda: len(heard) == 2)
    assert before == []
    assert heard[0] == "noted"
    assert isinstance(heard[1], Down)


async def test_by_whatever_name_nobody_asks_himself(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-08: at once, and without harm to him who catches it."""
    supervisor = await start_agents(ChildSpec("server", Server))
    ref = address(supervisor, "/server")
    registry: Registry[AgentRef[Any]] = Registry()
    registry.register("self", ref, owner=ref.resolve().node.life)
    names = [ref, address(supervisor, "/server"), registry.ref("self")]
    assert await ref.call(Server.call_itself, names) == ["CallingSelf"] * 15
    assert (ref.incarnation, trio.current_time()) == (1, 0)


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

    def in_a_thread() -> list[object]:
        trio.from_thread.run(ref.cast, Server.note, "cast")
        trio.from_thread.run_sync(ref.cast_nowait, Server.note, "at once")
        monitor = trio.from_thread.run_sync(ref.monitor)
        answer: str = trio.from_thread.run(ref.call, Server.slow, "thread", 0)
        seen: list[str] = trio.from_thread.run(ref.call, Server.seen)
        trio.from_thread.run(ref.stop)
        down: Down = trio.from_thread.run(monitor.wait_down)
        return [*seen, answer, down.exit]

    assert await trio.to_thread.run_sync(in_a_thread) == [
        *("cast", "at once", "thread begins", "thread ends", "thread", Normal())
    ]


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
    """MSG-34, pitfall 67"""
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
    """MON-15: as long as there is somebody to show."""
    supervisor = await start_agents(ChildSpec("server", Server))
    await address(supervisor, "/server").call(Server.rename, "x" * 100)
    tree = supervisor.directory.snapshot(trio.current_time())
    assert tree["/server"].label == "x" * 80
    with pytest.raises(AgentCrashed, match="a label is a str, not 5"):
        await address(supervisor, "/server").call(Server.rename, 5)
    await supervisor.terminate_child("server")
    await supervisor.delete_child("server")
    with pytest.raises(NameUnknown):
        address(supervisor, "/server").statistics()
    with pytest.raises(KeyError):
        supervisor.directory.snapshot(trio.current_time())["/server"]
