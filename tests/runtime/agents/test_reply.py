"""Answers that are put off, and given by a later handler."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    Application,
    CallTimeout,
    ChildSpec,
    Config,
    Refused,
    TreewardenError,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from treewarden.agents import Reply

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Asked(msgspec.Struct):
    count: int = 0


class Desk(Agent[Asked]):
    """Answers when somebody else says so."""

    persistence = "none"

    def __init__(self) -> None:
        self.owed: list[Reply] = []

    async def ask(self) -> int:
        self.state.count += 1
        self.owed.append(self.defer())
        return -1

    def ask_plainly(self) -> int:
        self.owed.append(self.defer())
        return -1

    async def ask_list(self) -> list[int]:
        self.owed.append(self.defer())
        return []

    async def ask_badly(self, how: str) -> int:
        self.owed.append(self.defer())
        if how == "crash":
            raise ValueError("on purpose")
        raise Refused("not today")

    async def ask_and_answer(self) -> int:
        self.defer().send(7)
        return -1

    async def answer(self, value: int) -> None:
        self.owed[0].send(value)

    async def answer_twice(self) -> None:
        self.owed[0].send(1)
        self.owed[0].send(2)

    async def answer_list(self) -> None:
        numbers = [1]
        self.owed[0].send(numbers)
        numbers.append(2)

    async def answer_and_fail(self, value: int) -> None:
        self.owed[0].send(value)
        raise Refused("after all not")

    async def wanted(self) -> list[bool]:
        return [one.is_wanted for one in self.owed]

    async def asked(self) -> int:
        return self.state.count

    async def fail(self) -> None:
        raise ValueError("later")


class Kept(Desk):
    persistence = "write_through"

    async def answer_and_count(self, value: int) -> None:
        self.state.count += 100
        self.owed[0].send(value)


class Hasty(Agent[None]):
    async def on_start(self) -> None:
        self.defer()


@pytest.fixture
async def desk(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("desk", Desk)), "/desk")


@pytest.mark.parametrize("operation", [Desk.ask, Desk.ask_plainly])
async def test_an_answer_may_come_from_a_later_handler(
    desk: Any, operation: Any, autojump_clock: object
) -> None:
    """MSG-02"""
    request = desk.request(operation)
    answers: list[int] = []

    async def call() -> None:
        answers.append(await desk.call(operation))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        assert not request.is_answered
        await desk.call(Desk.answer, 5)
        assert await request.result() == 5
        assert answers == []
        nursery.cancel_scope.cancel()


async def test_an_inline_call_can_be_put_off(desk: Any, autojump_clock: object) -> None:
    """MSG-02"""
    answers: list[int] = []

    async def call() -> None:
        answers.append(await desk.call(Desk.ask_plainly))

    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        assert answers == []
        await desk.cast(Desk.answer, 9)
    assert answers == [9]


async def test_an_answer_given_in_the_same_handler_counts(
    desk: Any, autojump_clock: object
) -> None:
    """MSG-02"""
    assert await desk.call(Desk.ask_and_answer) == 7


async def test_the_second_answer_is_ignored(desk: Any, autojump_clock: object) -> None:
    """MSG-27"""
    request = desk.request(Desk.ask)
    await desk.call(Desk.answer_twice)
    assert await request.result() == 1
    await desk.call(Desk.answer, 3)
    assert await desk.call(Desk.wanted) == [False]


async def test_an_answer_to_somebody_who_has_gone_is_no_error(
    desk: Any, autojump_clock: object
) -> None:
    """MSG-27"""
    with trio.move_on_after(1):
        await desk.call(Desk.ask)
    assert await desk.call(Desk.wanted) == [False]
    await desk.call(Desk.answer, 3)
    assert desk.incarnation == 1


async def test_a_cast_wants_no_answer(desk: Any, autojump_clock: object) -> None:
    """MSG-27"""
    await desk.cast(Desk.ask)
    await desk.call(Desk.answer, 3)
    assert await desk.call(Desk.asked) == 1


async def test_the_deadline_goes_on_and_the_error_says_what_is_going_on(
    desk: Any, autojump_clock: object
) -> None:
    """MSG-02, MSG-03"""
    with pytest.raises(CallTimeout, match="has put off the answer") as caught:
        await desk.with_timeout(2).call(Desk.ask)
    assert trio.current_time() == 2
    assert caught.value.begun


async def test_answers_that_nobody_wants_any_more_are_not_kept(
    desk: Any, autojump_clock: object
) -> None:
    for _ in range(100):
        with pytest.raises(CallTimeout):
            await desk.with_timeout(1).call(Desk.ask)
    assert len(desk.resolve().tied.owed) <= 16


async def test_a_crash_answers_what_was_put_off(
    desk: Any, autojump_clock: object
) -> None:
    """MSG-02, MSG-07"""
    first, second = desk.request(Desk.ask), desk.request(Desk.ask)
    with pytest.raises(AgentCrashed, match="later"):
        await desk.call(Desk.fail)
    for request in (first, second):
        with pytest.raises(AgentCrashed, match="later"):
            await request.result()
    # The next incarnation owes nothing, and answers anew.
    third = desk.request(Desk.ask)
    await desk.call(Desk.answer, 4)
    assert await third.result() == 4


async def test_a_stop_answers_what_was_put_off(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-02, MSG-07"""
    supervisor = await start_agents(ChildSpec("desk", Desk))
    request = address(supervisor, "/desk").request(Desk.ask)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("desk")
    with pytest.raises(AgentDown, match="before it answered"):
        await request.result()
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("how", "error"), [("crash", AgentCrashed), ("refuse", Refused)]
)
async def test_a_handler_that_fails_has_put_nothing_off(
    desk: Any, how: str, error: type[Exception], autojump_clock: object
) -> None:
    with pytest.raises(error):
        await desk.call(Desk.ask_badly, how)
    assert trio.current_time() == 0


async def test_an_answer_goes_back_with_the_handler_that_gave_it(
    desk: Any, autojump_clock: object
) -> None:
    request = desk.request(Desk.ask)
    with pytest.raises(Refused):
        await desk.call(Desk.answer_and_fail, 1)
    assert not request.is_answered
    await desk.call(Desk.answer, 2)
    assert await request.result() == 2


async def test_an_answer_is_as_it_was_when_it_was_given(
    desk: Any, autojump_clock: object
) -> None:
    request = desk.request(Desk.ask_list)
    await desk.call(Desk.answer_list)
    assert await request.result() == [1]


async def test_only_a_called_handler_has_an_answer_to_put_off(
    start_agents: StartAgents, desk: Any, autojump_clock: object
) -> None:
    with pytest.raises(Exception, match="has no caller"):
        await start_agents(ChildSpec("hasty", Hasty))
    request = desk.request(Desk.ask)
    await desk.call(Desk.asked)
    (reply,) = desk.resolve().agent.owed
    with pytest.raises(TreewardenError, match="only a handler"):
        reply.send(1)
    assert not request.is_answered


async def test_an_answer_leaves_with_the_commit_of_the_handler_that_gave_it(
    tmp_path: Path,
) -> None:
    """MSG-02"""
    config = Config(store=tmp_path / "test.db", socket=False)
    app = Application("test", [ChildSpec("desk", Kept)])
    async with open_runtime(app, config=config) as runtime:
        desk = runtime.ref("desk", Kept)
        request = desk.request(Kept.ask)
        await runtime.store.settled()
        await wait_all_tasks_blocked()
        foreign = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        await desk.cast(Kept.answer_and_count, 5)
        await wait_all_tasks_blocked()
        assert desk.statistics().uncommitted
        assert not request.is_answered
        foreign.execute("ROLLBACK")
        foreign.close()
        assert await request.result() == 5
        assert await desk.call(Kept.asked) == 101
