"""Turns: a coroutine that goes on in the turn of whoever has news for it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio
from trio.lowlevel import currently_ki_protected
from trio.testing import wait_all_tasks_blocked

from treewarden.exits import Fault, Shutdown
from treewarden.supervision import ChildSpec
from treewarden.supervision.turns import Turns, news

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.supervision import Life

    from .conftest import World

_whose: ContextVar[str] = ContextVar("whose", default="nobody's")


async def test_news_is_heard_in_the_turn_of_who_brings_it(
    nursery: trio.Nursery,
) -> None:
    turns = Turns()
    heard: list[int] = []

    async def listen() -> None:
        while len(heard) < 3:
            await news()
            heard.append(len(heard))

    async def run() -> None:
        await turns.run(listen())
        heard.append(-1)

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    for number in range(3):
        turns.poke()
        assert heard[-1] == number
    # Nobody is left to hear it.
    turns.poke()
    turns.poke_soon()
    await wait_all_tasks_blocked()
    assert heard == [0, 1, 2, -1]


async def test_a_step_runs_in_the_context_of_the_task_that_waits_for_it(
    nursery: trio.Nursery,
) -> None:
    """TA-10"""
    turns = Turns()
    found: list[str] = []

    async def listen() -> None:
        await news()
        found.append(_whose.get())
        _whose.set("listener's too")

    async def run() -> None:
        _whose.set("listener's")
        await turns.run(listen())
        found.append(_whose.get())

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    _whose.set("poker's")
    turns.poke()
    await wait_all_tasks_blocked()
    assert found == ["listener's", "listener's too"]
    assert _whose.get() == "poker's"


async def test_what_is_done_in_place_of_a_step_is_done_as_one(
    nursery: trio.Nursery,
) -> None:
    """TA-10; and what it brings news of is for the next step."""
    turns = Turns()
    steps: list[str] = []

    async def listen() -> None:
        await news()
        steps.append("listened")

    async def run() -> None:
        _whose.set("listener's")
        await turns.run(listen())

    def step(name: str) -> str:
        steps.append(name)
        turns.poke()
        return _whose.get()

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    assert turns.instead(step, "instead") == "listener's"
    assert steps == ["instead"]
    turns.poke()
    assert steps == ["instead", "listened"]


async def test_no_interrupt_is_raised_in_a_step(nursery: trio.Nursery) -> None:
    """Half a step would leave a child that nobody waits for, or waits for in vain."""
    turns = Turns()
    seen: list[bool] = []

    async def listen() -> None:
        await news()
        seen.append(currently_ki_protected())

    nursery.start_soon(turns.run, listen())
    await wait_all_tasks_blocked()
    assert turns.instead(currently_ki_protected)
    turns.poke()
    assert (seen, currently_ki_protected()) == ([True], False)


async def test_what_a_step_raises_comes_out_where_it_is_awaited(
    nursery: trio.Nursery,
) -> None:
    turns = Turns()

    async def fail() -> None:
        await news()
        raise KeyError("mine")

    async def run() -> None:
        with pytest.raises(KeyError, match="mine"):
            await turns.run(fail())

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    turns.poke()


async def test_what_cancels_the_task_is_raised_in_the_coroutine() -> None:
    turns = Turns()
    seen: list[str] = []

    async def listen() -> None:
        try:
            await news()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    with trio.move_on_after(0.0) as scope:
        await turns.run(listen())
    assert seen == ["cancelled"]
    assert scope.cancelled_caught


async def test_a_poke_out_of_a_step_waits_for_nobody(nursery: trio.Nursery) -> None:
    turns = Turns()
    steps: list[int] = []

    async def listen() -> None:
        for number in range(2):
            await news()
            turns.poke()
            steps.append(number)

    nursery.start_soon(turns.run, listen())
    await wait_all_tasks_blocked()
    turns.poke()
    assert steps == [0]
    turns.poke()
    assert steps == [0, 1]


async def test_a_poke_for_later_is_heard_in_the_listeners_own_task(
    nursery: trio.Nursery,
) -> None:
    turns = Turns()
    tasks: list[trio.lowlevel.Task] = []

    async def listen() -> None:
        await news()
        tasks.append(trio.lowlevel.current_task())

    async def run() -> None:
        await turns.run(listen())
        assert tasks == [trio.lowlevel.current_task()]

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    turns.poke_soon()
    turns.poke_soon()
    assert tasks == []
    await wait_all_tasks_blocked()
    assert len(tasks) == 1


async def test_to_await_anything_else_is_refused() -> None:
    async def listen() -> None:
        await trio.sleep(1)

    with pytest.raises(RuntimeError, match="awaits more than news"):
        await Turns().run(listen())


async def test_a_coroutine_that_needs_no_news_is_through_at_once() -> None:
    turns = Turns()

    async def known(answer: str) -> str:
        return answer

    assert await turns.run(known("yes")) == "yes"
    assert await turns.run(known("still")) == "still"


def test_what_restarts_at_once_has_the_task_of_the_last_life_and_nothing_else_of_it(
    new_world: Callable[[], World], play: Callable[..., None]
) -> None:
    """TA-4, TA-10, RST-03"""
    found: list[tuple[str, trio.lowlevel.Task]] = []

    async def work() -> None:
        found.append((_whose.get(), trio.lowlevel.current_task()))
        _whose.set("the last life's")
        await trio.lowlevel.checkpoint()
        if len(found) < 3:
            raise ValueError(len(found))
        await trio.sleep_forever()

    async def main() -> None:
        async with new_world().open(ChildSpec("a", work)):
            await wait_all_tasks_blocked()
            assert [whose for whose, _ in found] == ["nobody's"] * 3
            assert len({task for _, task in found}) == 1

    play(main)


async def test_a_loop_of_crashes_lets_others_run(world: World) -> None:
    """pitfall 1: time need not pass for them to have their turns."""
    passes = 0

    async def crash() -> None:
        raise ValueError

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        with pytest.raises(Exception, match="restart"):
            async with world.open(ChildSpec("a", crash), limit=50):
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert passes > 50


def life_of(world: World, path: str) -> Life:
    node = world.directory.find(path)
    assert node is not None
    assert node.life is not None
    return node.life


async def test_a_life_has_the_scope_of_the_last_one_unless_that_was_cancelled(
    world: World,
) -> None:
    """Pitfall 23, TA-4: nothing of what was asked of one life reaches the next."""
    async with world.open(world.child("a")) as root:
        first = life_of(world, "/a")
        await world.crashed("a")
        second = life_of(world, "/a")
        assert second is not first
        assert second.scope is first.scope
        second.fail(Fault(type="Broken", message="on purpose"))
        await world.settle()
        third = life_of(world, "/a")
        assert third.scope is not second.scope
        assert world.is_up("a")
        await root.terminate_child("a")
        assert world.info(root, "a").last_exit == Shutdown()
