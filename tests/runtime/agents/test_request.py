"""Requests: sent now, read later, several at once."""

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
    AgentError,
    BadArguments,
    CallingSelf,
    CallTimeout,
    ChildSpec,
    MailboxFull,
    MailboxPolicy,
    NameUnknown,
    UnknownOperation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    persistence = "none"
    mailbox = MailboxPolicy(capacity=2)

    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value

    def get(self) -> int:
        return self.state.value

    async def hang(self, seconds: float) -> str:
        await trio.sleep(seconds)
        return "slept"

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def ask_itself(self) -> None:
        self.ref.request(Counter.get)


@pytest.fixture
async def ref(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("counter", Counter)), "/counter")


async def test_several_requests_are_on_their_way_at_once(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-13"""
    first = ref.request(Counter.add, 1)
    second = ref.request(Counter.add, 2)
    third = ref.request(Counter.get)
    assert first.id != second.id
    assert not first.is_answered
    # In whatever order they are read.
    assert await third.result() == 3
    assert second.is_answered
    assert await second.result() == 3
    assert await first.result() == 1


async def test_a_request_that_is_never_read_takes_effect(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-13"""
    for _ in range(2):
        ref.request(Counter.add, 1)
    assert await ref.call(Counter.get) == 2
    await trio.sleep(10)  # past its deadline: nobody is told, nothing breaks
    assert await ref.call(Counter.get) == 2


async def test_waiting_for_an_answer_can_be_given_up_and_taken_up_again(
    ref: Any, autojump_clock: object
) -> None:
    """MSG-13"""
    request = ref.request(Counter.hang, 2)
    with trio.move_on_after(1) as scope:
        await request.result()
    assert scope.cancelled_caught
    assert await request.result() == "slept"
    assert trio.current_time() == 2


async def test_an_answer_is_read_once(ref: Any, autojump_clock: object) -> None:
    """MSG-13"""
    request = ref.request(Counter.hang, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.result)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another task waits"):
            await request.result()
    with pytest.raises(RuntimeError, match="read before"):
        await request.result()


async def test_a_cancelled_reader_has_read_nothing(
    ref: Any, autojump_clock: object
) -> None:
    request = ref.request(Counter.add, 1)
    await wait_all_tasks_blocked()
    assert request.is_answered
    with trio.CancelScope() as scope:
        scope.cancel()
        await request.result()
    assert await request.result() == 1


async def test_that_nobody_is_there_comes_out_of_the_wait(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-13"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    unknown = address(supervisor, "/nobody").request(Counter.get)
    with pytest.raises(NameUnknown, match="nobody"):
        await unknown.result()
    await supervisor.terminate_child("counter")
    stopped = address(supervisor, "/counter").request(Counter.get)
    with pytest.raises(AgentDown, match="is stopped"):
        await stopped.result()


async def test_the_end_of_the_agent_answers_its_requests(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-13"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    crashing = ref.request(Counter.fail)
    with pytest.raises(AgentCrashed, match="on purpose"):
        await crashing.result()
    ref.request(Counter.hang, 1)
    waiting = ref.request(Counter.get)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("counter")
    with pytest.raises(AgentDown):
        await waiting.result()


async def test_the_deadline_of_a_request_counts_from_its_sending(
    ref: Any, autojump_clock: object
) -> None:
    ref.with_timeout(20).request(Counter.hang, 10)
    late = ref.with_timeout(2).request(Counter.add, 5)
    await trio.sleep(3)
    with pytest.raises(CallTimeout, match="doing: hang") as caught:
        await late.result()
    assert not caught.value.begun
    # It was withdrawn: it never happens.
    assert await ref.with_timeout(20).call(Counter.get) == 0


async def test_requests_without_room_stand_in_a_line_that_has_an_end(
    ref: Any, autojump_clock: object
) -> None:
    ref.request(Counter.hang, 1)
    await wait_all_tasks_blocked()
    accepted = [ref.request(Counter.add, 1) for _ in range(4)]
    assert ref.statistics().waiting_senders == 2
    with pytest.raises(MailboxFull):
        await ref.request(Counter.add, 1).result()
    assert [await one.result() for one in accepted] == [1, 2, 3, 4]


async def test_a_request_that_is_wrong_is_refused_where_it_is_made(
    ref: Any, autojump_clock: object
) -> None:
    with pytest.raises(BadArguments, match="amount"):
        ref.request(Counter.add)
    with pytest.raises(UnknownOperation):
        ref.request(Total.__init__)
    with pytest.raises(AgentCrashed, match="CallingSelf") as caught:
        await ref.call(Counter.ask_itself)
    assert CallingSelf.__name__ in caught.value.fault.type


async def test_what_is_withdrawn_before_it_began_never_happens(
    ref: Any, autojump_clock: object
) -> None:
    begun = ref.request(Counter.hang, 1.0)
    waiting, in_line = [ref.request(Counter.add, amount) for amount in (1, 2)]
    await wait_all_tasks_blocked()
    last = ref.request(Counter.add, 4)
    assert not begun.withdraw()
    assert waiting.withdraw()
    assert not waiting.withdraw()
    assert last.withdraw()
    for request in (waiting, last):
        with pytest.raises(AgentError, match="withdrawn before it was begun"):
            await request.result()
    assert await begun.result() == "slept"
    assert await in_line.result() == 2
    assert not in_line.withdraw()
    assert ref.statistics().waiting_senders == 0


async def test_whoever_asks_is_told_once_when_nobody_will_come_any_more(
    start_agents: StartAgents, address: Address
) -> None:
    supervisor = await start_agents(ChildSpec("counter", Counter))
    body = address(supervisor, "/counter").resolve()
    told: list[str] = []
    forget = body.when_at_rest(lambda: told.append("forgotten"))
    body.when_at_rest(lambda: told.append("kept"))
    forget()
    forget()
    await supervisor.bounce_child("counter")
    assert told == []
    await supervisor.terminate_child("counter")
    await supervisor.restart_child("counter")
    await supervisor.terminate_child("counter")
    assert told == ["kept"]
