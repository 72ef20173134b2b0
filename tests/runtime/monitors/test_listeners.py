from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import Agent, ChildSpec, NotRunning, OwnerScope
from treewarden.monitors import Listeners

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_f65_a_listener_that_hangs_or_raises_costs_only_itself(
    autojump_clock: MockClock, ward: Any
) -> None:
    """F65: the normal one is told once, the failure is counted, nobody waits."""
    listeners: Listeners[int] = Listeners(ward.monitors.crew, "test")
    heard = []

    async def sleeps(_: int) -> None:
        await trio.sleep(10)

    async def fails(_: int) -> None:
        raise KeyError("no")

    async def listens(news: int) -> None:
        heard.append((news, trio.current_time()))

    with OwnerScope() as me:
        for tell in (sleeps, fails, listens):
            listeners.add(tell, owner=me)
        await wait_all_tasks_blocked()
        now = trio.current_time()
        listeners.tell(1)
        assert trio.current_time() == now
        await wait_all_tasks_blocked()
        assert heard == [(1, now)]
        await trio.sleep(6)
        seen = listeners.statistics()
        assert (seen.sent, seen.told, seen.failed, seen.late) == (3, 1, 1, 1)
        assert seen.last_fault is not None
        assert seen.last_fault.message == "'no'"


async def test_a_slow_listener_loses_the_oldest_and_the_books_are_balanced(
    autojump_clock: MockClock, ward: Any
) -> None:
    listeners: Listeners[int] = Listeners(ward.monitors.crew, "test")
    heard = []

    async def slow(news: int) -> None:
        await trio.sleep(1)
        heard.append(news)

    with OwnerScope() as me:
        listeners.add(slow, owner=me)
        await wait_all_tasks_blocked()
        for news in range(250):
            listeners.tell(news)
        await trio.sleep(50.5)
        assert heard == list(range(150, 200))
        seen = listeners.statistics()
        assert (seen.sent, seen.told, seen.dropped) == (250, 50, 150)
        assert seen.waiting == 49
    assert listeners.statistics().forgotten == 49


class Listening(Agent[None]):
    persistence = "none"

    def __init__(self, listeners: Listeners[Any]) -> None:
        self.listeners = listeners

    async def on_start(self) -> None:
        self.listeners.add(self.hear)

    async def hear(self, news: object) -> None:
        await trio.lowlevel.checkpoint()


async def test_h31_listeners_of_agents_that_ended_leave_nothing(
    autojump_clock: MockClock, ward: Any
) -> None:
    """H31: a hundred agents that listen come and go, and the count is as before."""
    listeners = ward.monitors.listeners
    before = listeners.statistics().listeners, ward.monitors.crew.statistics().wanted
    for number in range(100):
        await ward.root.start_child(
            ChildSpec(f"agent-{number}", Listening, args=(listeners,))
        )
    assert listeners.statistics().listeners == before[0] + 100
    for number in range(100):
        await ward.root.terminate_child(f"agent-{number}")
    await wait_all_tasks_blocked()
    after = listeners.statistics().listeners, ward.monitors.crew.statistics().wanted
    assert after == before
    assert ward.root.supervisor("monitors").supervisor("tasks").which_children() == []


async def test_who_cannot_listen_is_refused(
    autojump_clock: MockClock, ward: Any
) -> None:
    async def hears(_: object) -> None:
        await trio.lowlevel.checkpoint()

    listeners = ward.monitors.listeners
    with pytest.raises(NotRunning, match="owns nothing"):
        listeners.add(hears)
    with OwnerScope() as me:
        listeners.add(hears, owner=me)
        with pytest.raises(ValueError, match="listens already"):
            listeners.add(hears, owner=me)
        assert listeners.remove(hears)
        assert not listeners.remove(hears)


async def test_news_that_a_listener_was_being_told_when_it_left_are_accounted_for(
    autojump_clock: MockClock, ward: Any
) -> None:
    listeners: Listeners[int] = Listeners(ward.monitors.crew, "test")

    async def slow(_: int) -> None:
        await trio.sleep(1)

    with OwnerScope() as me:
        listeners.add(slow, owner=me)
        for news in range(10):
            listeners.tell(news)
        await trio.sleep(2.5)
    await wait_all_tasks_blocked()
    seen = listeners.statistics()
    assert (seen.sent, seen.told, seen.forgotten, seen.waiting) == (10, 2, 8, 0)
