"""Stopping an agent through its address, and how it says goodbye."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    CallTimeout,
    ChildSpec,
    Crash,
    Down,
    Exit,
    Killed,
    Normal,
    Shutdown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden import SupervisorRef

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Notes(msgspec.Struct):
    seen: list[str] = []


class Guest(Agent[Notes]):
    persistence = "none"

    def __init__(self, log: list[Any], goodbye: str = "") -> None:
        self.heard = log
        self.goodbye = goodbye

    async def note(self, word: str) -> None:
        self.heard.append(word)

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def ping(self) -> str:
        return "pong"

    async def stop_itself(self) -> None:
        await self.ref.stop()

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self.heard.append(exit)
        if self.goodbye == "hang":
            await trio.sleep_forever()
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


@pytest.mark.parametrize("exit_", [Normal(), Shutdown(), Shutdown("for lunch")])
async def test_everybody_sees_the_exit_that_was_asked_for(
    hotel: Hotel, exit_: Exit, autojump_clock: object
) -> None:
    """END-02, END-09, MON-01"""
    await hotel.open()
    await hotel.guest.stop(exit_)
    await wait_all_tasks_blocked()
    assert hotel.heard == [exit_]
    assert hotel.downs == [exit_]


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


async def test_an_agent_without_on_stop_can_be_stopped(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """END-06"""
    supervisor = await start_agents(ChildSpec("one", Plain, restart="temporary"))
    await address(supervisor, "/one").stop(Shutdown("plain"))
    assert supervisor.directory.find("/one") is None


async def test_who_ends_otherwise_than_asked_is_told_of(
    hotel: Hotel, autojump_clock: object
) -> None:
    """END-04, END-07"""
    await hotel.open("fail")
    with pytest.raises(AgentCrashed, match="in on_stop"):
        await hotel.guest.stop()
    await wait_all_tasks_blocked()
    assert isinstance(hotel.downs[0], Crash)


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
    """END-10, END-11"""
    await hotel.open()
    hotel.guest.request(Guest.hang, 1)
    waiting = hotel.guest.request(Guest.note, "waiting")
    await wait_all_tasks_blocked()
    await hotel.supervisor.terminate_child("guest")
    with pytest.raises(AgentDown):
        await waiting.result()
    assert hotel.heard == [Shutdown()]
