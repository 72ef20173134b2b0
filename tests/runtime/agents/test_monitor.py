"""Watching an incarnation: from an agent, from a plain task, and until it is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentRef,
    ChildSpec,
    Crash,
    Down,
    Monitor,
    Normal,
    Registry,
    Shutdown,
    SupervisorRef,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Star(Agent[None]):
    def __init__(self, stage: Registry[AgentRef[Any]] | None = None) -> None:
        self.stage = stage

    async def take_the_lead(self) -> None:
        assert self.stage is not None
        self.register("lead", registry=self.stage)

    async def fail(self) -> None:
        raise ValueError("on purpose")

    def ping(self) -> str:
        return "pong"


class Fan(Agent[None]):
    def __init__(self, heard: list[Down]) -> None:
        self.heard = heard
        self.monitor_of: dict[str, Monitor] = {}

    async def watch(self, ref: Any) -> None:
        self.monitor_of[ref.path] = self.monitor(ref)

    async def hang_and_forget(self, path: str) -> None:
        await trio.sleep(1)
        self.monitor_of[path].cancel()
        self.monitor_of[path].cancel()

    async def hang_and_fail(self) -> None:
        await trio.sleep(1)
        raise ValueError("on purpose")

    async def on_down(self, down: Down) -> None:
        self.heard.append(down)


class Show:
    def __init__(self, supervisor: SupervisorRef, address: Address) -> None:
        self.supervisor = supervisor
        self.address = address
        self.heard: list[Down] = []

    async def fan(self) -> Any:
        await self.supervisor.start_child(ChildSpec("fan", Fan, args=(self.heard,)))
        return self.address(self.supervisor, "/fan")

    async def star(self, id_: str = "star", *args: object) -> Any:
        await self.supervisor.start_child(ChildSpec(id_, Star, args=args))
        return self.address(self.supervisor, f"/{id_}")


@pytest.fixture
async def show(start_agents: StartAgents, address: Address) -> Show:
    return Show(await start_agents(), address)


async def test_a_monitor_stays_with_whom_the_name_led_to(
    show: Show, autojump_clock: object
) -> None:
    """MON-08"""
    stage: Registry[AgentRef[Any]] = Registry()
    fan = await show.fan()
    first, second = [await show.star(name, stage) for name in ("first", "second")]
    await first.call(Star.take_the_lead)
    (lead,) = stage.lookup("lead")
    await fan.call(Fan.watch, lead.ref)
    with pytest.raises(AgentCrashed):
        await first.call(Star.fail)
    await wait_all_tasks_blocked()
    # It never heard of whoever took the name afterwards.
    await second.call(Star.take_the_lead)
    with pytest.raises(AgentCrashed):
        await second.call(Star.fail)
    await wait_all_tasks_blocked()
    assert [down.path for down in show.heard] == ["/first"]


async def test_children_are_down_before_their_supervisor(
    show: Show, autojump_clock: object
) -> None:
    """MON-10"""
    fan = await show.fan()
    inner = SupervisorSpec([ChildSpec(id_, Star) for id_ in ("a", "b")])
    outer = SupervisorSpec([ChildSpec("inner", inner), ChildSpec("c", Star)])
    await show.supervisor.start_child(ChildSpec("outer", outer))
    directory = show.supervisor.directory
    for path in ("/outer", "/outer/inner"):
        await fan.call(Fan.watch, SupervisorRef(directory, path))
    for path in ("/outer/inner/a", "/outer/inner/b", "/outer/c"):
        await fan.call(Fan.watch, AgentRef[Star](directory, path))
    await show.supervisor.terminate_child("outer")
    await wait_all_tasks_blocked()
    assert [(down.path, down.exit) for down in show.heard] == [
        ("/outer/c", Shutdown()),
        ("/outer/inner/b", Shutdown()),
        ("/outer/inner/a", Shutdown()),
        ("/outer/inner", Shutdown()),
        ("/outer", Shutdown()),
    ]


async def test_a_plain_task_can_wait_for_an_end(
    show: Show, autojump_clock: object
) -> None:
    """MON-11, MON-01"""
    star = await show.star()
    with star.monitor() as monitor:
        with trio.move_on_after(1) as scope:
            await monitor.wait_down()
        assert scope.cancelled_caught
        with pytest.raises(AgentCrashed):
            await star.call(Star.fail)
        down = await monitor.wait_down()
        assert isinstance(down.exit, Crash)
        assert (down.path, down.incarnation) == ("/star", 1)
        # It tells of that one, however often it is asked.
        assert await star.call(Star.ping) == "pong"
        assert await monitor.wait_down() is down


async def test_leaving_the_block_ends_the_watch(
    show: Show, autojump_clock: object
) -> None:
    """MON-11, MON-09: whoever waits for it still is told so."""
    star = await show.star()
    told: list[str] = []

    async def wait(monitor: Monitor) -> None:
        with pytest.raises(RuntimeError, match="called off"):
            await monitor.wait_down()
        told.append("off")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with star.monitor() as monitor:
                nursery.start_soon(wait, monitor)
                await wait_all_tasks_blocked()
                assert len(star.resolve().node.life.watchers) == 1
    assert told == ["off"]
    assert star.resolve().node.life.watchers == []
    with pytest.raises(RuntimeError, match="called off"):
        await monitor.wait_down()


async def test_a_plain_task_that_watches_nobody_is_told_at_once(
    show: Show, autojump_clock: object
) -> None:
    """MON-03, MON-11, G13"""
    nobody = show.address(show.supervisor, "/nobody")
    with nobody.monitor() as monitor:
        down = await monitor.wait_down()
    assert down == Down(path="/nobody", incarnation=0, exit=None)


async def test_a_notice_that_waits_is_taken_back_with_its_monitor(
    show: Show, autojump_clock: object
) -> None:
    """MON-04: twice is once."""
    fan, star = await show.fan(), await show.star()
    await fan.call(Fan.watch, star)
    forgetting = fan.request(Fan.hang_and_forget, "/star")
    await wait_all_tasks_blocked()
    await star.stop()
    assert fan.statistics().mailbox == 1
    await forgetting.result()
    await wait_all_tasks_blocked()
    assert show.heard == []
    assert fan.statistics().mailbox == 0


async def test_a_notice_is_for_the_incarnation_that_watched(
    show: Show, autojump_clock: object
) -> None:
    """MON-09: the next one watches for itself, and hears of nobody twice."""
    fan, star = await show.fan(), await show.star()
    await fan.call(Fan.watch, star)
    failing = fan.request(Fan.hang_and_fail)
    await wait_all_tasks_blocked()
    await star.stop(Normal())
    with pytest.raises(AgentCrashed):
        await failing.result()
    await wait_all_tasks_blocked()
    assert show.heard == []
    await fan.call(Fan.watch, star)
    await star.stop()
    await wait_all_tasks_blocked()
    assert [down.incarnation for down in show.heard] == [2]


async def test_ten_thousand_dead_watchers_leave_no_trace(
    show: Show, autojump_clock: object
) -> None:
    """MON-09"""
    star = await show.star()
    life: Any = star.resolve().node.life
    for _ in range(10_000):
        with star.monitor():
            pass
    assert life.watchers == []
