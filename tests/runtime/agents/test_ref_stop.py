"""Stopping an agent through its address, and how it says goodbye."""

from __future__ import annotations

import math
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    IGNORE,
    Agent,
    AgentCrashed,
    AgentDown,
    CallTimeout,
    ChildSpec,
    ChildStartFailed,
    Crash,
    Down,
    Exit,
    Fault,
    Killed,
    NameUnknown,
    Normal,
    Shutdown,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden import SupervisorRef
    from treewarden.supervision import Ignore

    from .conftest import StartAgents

    Address = Callable[..., Any]

FAULT = Fault(type="Overdue", message="the rent")


class Notes(msgspec.Struct):
    seen: list[str] = []


class Guest(Agent[Notes]):
    persistence = "none"

    def __init__(self, log: list[Any], goodbye: str = "", hello: str = "") -> None:
        self.heard = log
        self.goodbye = goodbye
        self.hello = hello

    async def on_start(self) -> Ignore | None:
        if self.hello == "fail":
            raise ValueError("in on_start")
        if self.hello == "stop":
            raise Stop(Shutdown("full"))
        return IGNORE if self.hello == "ignore" else None

    async def note(self, word: str) -> None:
        self.heard.append(word)

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def ping(self) -> str:
        return "pong"

    async def stop_itself(self) -> None:
        await self.ref.stop()

    async def leave(self) -> str:
        self.stop(Shutdown("checked out"))
        return "bye"

    async def leave_at_once(self) -> None:
        raise Stop(Shutdown("checked out"))

    async def nonsense(self) -> int:
        return object()  # type: ignore[return-value]

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self.heard.append(exit)
        if self.goodbye == "hang":
            await trio.sleep_forever()
        if self.goodbye == "take leave":
            await trio.sleep(2)
            self.heard.append("left")
        if self.goodbye == "fail":
            raise ValueError("in on_stop")


class Plain(Agent[None]):
    async def ping(self) -> str:
        return "pong"


class Watcher(Agent[None]):
    def __init__(self, log: list[Any]) -> None:
        self.heard = log

    async def watch(self, whom: Any) -> None:
        self.monitor(whom)

    async def on_down(self, down: Down) -> None:
        self.heard.append(down.exit)


class Hotel:
    def __init__(self, supervisor: SupervisorRef, address: Address) -> None:
        self.supervisor = supervisor
        self.guest = address(supervisor, "/guest")
        self.watcher = address(supervisor, "/watcher")
        self.heard: list[Any] = []
        self.downs: list[Any] = []

    async def open(self, goodbye: str = "", **options: Any) -> None:
        options = {"restart": "temporary", **options}
        guest = ChildSpec("guest", Guest, args=(self.heard, goodbye), **options)
        await self.supervisor.start_child(guest)
        watcher = ChildSpec("watcher", Watcher, args=(self.downs,))
        await self.supervisor.start_child(watcher)
        await self.watcher.call(Watcher.watch, self.guest)


@pytest.fixture
async def hotel(start_agents: StartAgents, address: Address) -> Hotel:
    return Hotel(await start_agents(), address)


async def test_stop_returns_after_the_agent_is_gone(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-01"""
    await hotel.open()
    await hotel.guest.stop()
    assert hotel.heard == [Normal()]
    assert hotel.supervisor.directory.find("/guest") is None
    with pytest.raises(AgentDown):
        await hotel.guest.stop()


@pytest.mark.parametrize(
    "exit_", [Normal(), Shutdown(), Shutdown("for lunch"), Killed(), Crash(FAULT)]
)
async def test_everybody_sees_the_exit_that_was_asked_for(
    hotel: Hotel, exit_: Exit, autojump_clock: object
) -> None:
    """END-02, END-09, MON-01"""
    await hotel.open()
    await hotel.guest.stop(exit_)
    await wait_all_tasks_blocked()
    assert hotel.downs == [exit_]
    # Who ends as if crashed says no goodbye, as who crashes.
    assert hotel.heard == ([] if isinstance(exit_, Crash) else [exit_])


async def test_killed_and_crashed_are_seen_as_what_they_are(
    hotel: Hotel, autojump_clock: object
) -> None:
    """MON-01, END-09"""
    await hotel.open(restart="permanent", shutdown=0)
    with pytest.raises(AgentCrashed):
        await hotel.guest.call(Guest.fail)
    await wait_all_tasks_blocked()
    await hotel.watcher.call(Watcher.watch, hotel.guest)
    await hotel.supervisor.terminate_child("guest")
    await wait_all_tasks_blocked()
    crash, killed = hotel.downs
    assert isinstance(crash, Crash)
    assert killed == Killed()
    # A crashed or killed agent says no goodbye.
    assert hotel.heard == []


async def test_a_permanent_agent_that_was_asked_to_end_starts_again(
    hotel: Hotel, autojump_clock: object
) -> None:
    await hotel.open(restart="permanent")
    await hotel.guest.stop()
    assert await hotel.guest.call(Guest.ping) == "pong"
    assert hotel.guest.incarnation == 2


@pytest.mark.parametrize(
    "exit_", [Normal(), Shutdown(), Shutdown("plain"), Killed(), Crash(FAULT), None]
)
async def test_an_agent_without_on_stop_can_be_stopped(
    start_agents: StartAgents,
    address: Address,
    exit_: Exit | None,
    autojump_clock: object,
) -> None:
    """END-06: for any reason; by its supervisor, too."""
    supervisor = await start_agents(ChildSpec("one", Plain, restart="temporary"))
    with address(supervisor, "/one").monitor() as monitor:
        if exit_ is not None:
            await address(supervisor, "/one").stop(exit_)
        else:
            await supervisor.terminate_child("one")
        assert (await monitor.wait_down()).exit == (exit_ or Shutdown())
    assert supervisor.directory.find("/one") is None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("leave", Shutdown("checked out")),
        ("leave_at_once", Shutdown("checked out")),
        ("stop", Normal()),
        ("terminate", Shutdown()),
        ("fail", None),
        ("nonsense", None),
        ("kill", None),
    ],
)
async def test_on_stop_is_told_what_the_monitors_are_told_or_does_not_run(
    hotel: Hotel, how: str, told: Exit | None, autojump_clock: object
) -> None:
    """END-09: not after a crash (design 5), where Elixir does, nor when killed."""
    await hotel.open(shutdown=0 if how == "kill" else 5)
    if how == "stop":
        await hotel.guest.stop()
    elif how in {"terminate", "kill"}:
        await hotel.supervisor.terminate_child("guest")
    else:
        request = hotel.guest.request(getattr(Guest, how))
        with suppress(AgentCrashed, AgentDown):
            await request.result()
    await wait_all_tasks_blocked()
    assert hotel.heard == ([] if told is None else [told])
    (down,) = hotel.downs
    if told is not None:
        assert down == told
    else:
        assert isinstance(down, Killed if how == "kill" else Crash)


@pytest.mark.parametrize("hello", ["fail", "stop", "ignore"])
async def test_who_never_came_says_no_goodbye(
    hotel: Hotel, hello: str, autojump_clock: object
) -> None:
    """END-09"""
    spec = ChildSpec("late", Guest, args=(hotel.heard,), kwargs={"hello": hello})
    with nullcontext() if hello == "ignore" else pytest.raises(ChildStartFailed):
        await hotel.supervisor.start_child(spec)
    assert hotel.heard == []


@pytest.mark.parametrize("by", ["its address", "its supervisor"])
async def test_on_stop_may_take_its_time(
    hotel: Hotel, by: str, autojump_clock: object
) -> None:
    """END-13: within the shutdown time."""
    await hotel.open("take leave", shutdown=3)
    if by == "its address":
        await hotel.guest.stop(Shutdown())
    else:
        await hotel.supervisor.terminate_child("guest")
    assert trio.current_time() == 2
    await wait_all_tasks_blocked()
    assert hotel.heard == [Shutdown(), "left"]
    assert hotel.downs == [Shutdown()]


async def test_who_ends_otherwise_than_asked_is_told_of(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-04, END-07"""
    await hotel.open("fail")
    with pytest.raises(AgentCrashed, match="in on_stop"):
        await hotel.guest.stop()
    await wait_all_tasks_blocked()
    assert isinstance(hotel.downs[0], Crash)


async def test_who_is_not_there_cannot_be_stopped(
    hotel: Hotel, address: Address, autojump_clock: object
) -> None:
    """END-04"""
    with pytest.raises(NameUnknown, match="/nobody"):
        await address(hotel.supervisor, "/nobody").stop()
    await hotel.open(restart="permanent")
    await hotel.supervisor.terminate_child("guest")
    with pytest.raises(AgentDown, match="/guest is down: it is stopped"):
        await hotel.guest.stop()


async def test_who_hangs_in_on_stop_is_cut_off_at_its_shutdown_time(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-04, END-13"""
    await hotel.open("hang", shutdown=3)
    with pytest.raises(AgentDown, match="killed"):
        await hotel.guest.stop()
    assert trio.current_time() == 3
    await wait_all_tasks_blocked()
    assert hotel.downs == [Killed()]


async def test_who_never_comes_to_it_is_not_waited_for(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-03, END-04"""
    await hotel.open()
    hotel.guest.with_timeout(60).request(Guest.hang, 20)
    await wait_all_tasks_blocked()
    with pytest.raises(CallTimeout, match="stop"):
        await hotel.guest.stop()
    with pytest.raises(ValueError, match="must be >= 0"):
        await hotel.guest.with_timeout(-1).stop()
    with pytest.raises(ValueError, match="must be >= 0"):
        await hotel.guest.with_timeout(math.nan).stop()
    # It was withdrawn: the agent lives.
    assert await hotel.guest.with_timeout(60).call(Guest.ping) == "pong"


async def test_an_agent_does_not_stop_itself_from_outside(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-05"""
    await hotel.open()
    with pytest.raises(AgentCrashed, match=r"CallingSelf.*use self\.stop"):
        await hotel.guest.call(Guest.stop_itself)


async def test_what_waited_before_the_stop_is_handled_and_what_came_after_is_told(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-11"""
    await hotel.open()
    hotel.guest.request(Guest.hang, 1)
    hotel.guest.cast_nowait(Guest.note, "before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hotel.guest.stop)
        await wait_all_tasks_blocked()
        after = hotel.guest.request(Guest.note, "after")
    with pytest.raises(AgentDown):
        await after.result()
    assert hotel.heard == ["before", Normal()]


async def test_a_stop_by_the_supervisor_overtakes_what_waits(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-10, END-11, pitfall 69"""
    await hotel.open()
    hotel.guest.request(Guest.hang, 1)
    waiting = hotel.guest.request(Guest.note, "waiting")
    await wait_all_tasks_blocked()
    await hotel.supervisor.terminate_child("guest")
    with pytest.raises(AgentDown):
        await waiting.result()
    assert hotel.heard == [Shutdown()]
