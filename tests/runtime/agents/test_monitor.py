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
    Application,
    ChildSpec,
    Config,
    Crash,
    Down,
    Exit,
    Monitor,
    Normal,
    Registry,
    Shutdown,
    SupervisorRef,
    SupervisorSpec,
    open_runtime,
)
from treewarden.agents.monitor import tell_nobody

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


class Purse(Agent[int]):
    def initial_state(self) -> int:
        return 0

    async def add(self) -> int:
        self.state += 1
        return self.state

    def add_at_once(self) -> int:
        self.state += 1
        return self.state

    async def add_and_leave(self) -> int:
        self.stop()
        return await self.add()

    async def fail(self) -> None:
        raise ValueError("on purpose")


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


@pytest.mark.parametrize(
    ("operation", "exit_"),
    [(Purse.add, Crash), (Purse.add_at_once, Crash), (Purse.add_and_leave, Normal)],
)
async def test_what_was_answered_before_the_end_is_heard_before_it(
    tmp_path: Path, operation: Any, exit_: type[Exit]
) -> None:
    """MON-05, G22, pitfall 61: also an answer that waits for its commit."""
    app = Application("test", [ChildSpec("purse", Purse)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        purse = runtime.ref("purse", Purse)
        with purse.monitor() as monitor:
            answer = purse.request(operation)
            await purse.cast(Purse.fail)
            down = await monitor.wait_down()
        assert isinstance(down.exit, exit_)
        assert answer.is_answered
        assert await answer.result() == 1


async def test_a_monitor_that_is_called_off_while_its_notice_waits_tells_nothing(
    show: Show, autojump_clock: object
) -> None:
    """MON-04: the commit that it waits for comes later."""
    star = await show.star()
    commits: list[Callable[[None], None]] = []

    def settle(tell: Callable[..., None]) -> bool:
        commits.append(tell)
        return True

    life = star.resolve().node.life
    told, untold = (
        Monitor("/star", life, tell_nobody, set(), settle) for _ in range(2)
    )
    await star.stop()
    assert told.down is None
    untold.cancel()
    for commit in commits:
        commit(None)
    assert (await told.wait_down()).exit == Normal()
    assert untold.down is None


async def test_a_monitor_that_is_set_in_the_middle_of_an_end_tells_once(
    show: Show, autojump_clock: object
) -> None:
    """MON-02, MON-03, pitfall 60: before all others are told, among them, and after."""
    fan = await show.fan()
    await show.supervisor.start_child(ChildSpec("star", Star, restart="temporary"))
    star = show.address(show.supervisor, "/star")
    life: Any = star.resolve().node.life
    watch = fan.resolve().agent.monitor
    set_when: list[str] = []

    def at(moment: str) -> Callable[[object], None]:
        def ended(_: object) -> None:
            set_when.append(moment)
            watch(star)

        return ended

    life.watchers.append(at("first"))
    await fan.call(Fan.watch, star)
    life.watchers.append(at("last"))
    await star.stop()
    watch(star)
    await wait_all_tasks_blocked()
    assert set_when == ["first", "last"]
    exits = [down.exit for down in show.heard]
    # Whoever came when it was over already is told so; the order is that of the moments.
    assert exits == [None, Normal(), None, None]


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


async def test_children_that_are_no_agents_are_watched_like_agents(
    tmp_path: Path,
) -> None:
    """MON-01, MON-03, MON-11: functions and supervisors, by path, id or info."""
    heard: list[Down] = []
    inner = SupervisorSpec([ChildSpec("poll", trio.sleep_forever)])
    children = [ChildSpec("fan", Fan, args=(heard,)), ChildSpec("inner", inner)]
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(Application("test", children), config=config) as runtime:
        (info,) = runtime.supervisor("inner").which_children()
        await runtime.ref("fan", Fan).call(Fan.watch, info)
        with (
            runtime.monitor("poll") as poll,
            runtime.monitor(info) as same,
            runtime.monitor("/inner") as supervisor,
            runtime.monitor("/nobody") as nobody,
        ):
            await runtime.supervisor("/application").terminate_child("inner")
            downs = [await one.wait_down() for one in (poll, same, supervisor, nobody)]
        await wait_all_tasks_blocked()
    assert [(down.path, down.exit) for down in downs] == [
        ("/inner/poll", Shutdown()),
        ("/inner/poll", Shutdown()),
        ("/inner", Shutdown()),
        ("/nobody", None),
    ]
    assert heard == downs[:1]


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
