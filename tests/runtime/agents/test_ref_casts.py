"""Casts: what their sender waits for, and how often it gives way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import Agent, ChildSpec, MailboxPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Heard(msgspec.Struct):
    numbers: list[int] = []


class Listener(Agent[Heard]):
    persistence = "none"

    def hear(self, number: int) -> None:
        self.state.numbers.append(number)

    async def listen(self, number: int) -> None:
        self.state.numbers.append(number)

    def all_heard(self) -> list[int]:
        return self.state.numbers


class Forgetful(Listener):
    mailbox = MailboxPolicy(capacity=1, overflow="drop_newest")


async def listeners(
    start: StartAgents, address: Address, kind: type, count: int = 1
) -> list[Any]:
    ids = [f"listener-{number}" for number in range(count)]
    supervisor = await start(*(ChildSpec(id_, kind) for id_ in ids))
    return [address(supervisor, f"/{id_}") for id_ in ids]


async def turns_of_others(send: Callable[[int], Any], casts: int) -> int:
    """How often another task gets a turn while `casts` casts are made."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await wait_all_tasks_blocked_but_one()
        turns = 0
        for number in range(casts):
            await send(number)
        nursery.cancel_scope.cancel()
    return turns


async def wait_all_tasks_blocked_but_one() -> None:
    """Let what was started come to where it goes round."""
    for _ in range(10):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", [Listener, Forgetful])
async def test_a_sender_gives_way_at_least_every_32nd_cast(
    start_agents: StartAgents, address: Address, kind: type
) -> None:
    (ref,) = await listeners(start_agents, address, kind)
    turns = await turns_of_others(lambda number: ref.cast(Listener.listen, number), 320)
    assert turns >= 320 // 32 - 1


async def test_a_sender_gives_way_as_often_however_many_it_casts_to(
    start_agents: StartAgents, address: Address
) -> None:
    refs = await listeners(start_agents, address, Listener, 40)
    turns = await turns_of_others(
        lambda number: refs[number % 40].cast(Listener.listen, number), 320
    )
    assert turns >= 320 // 32 - 1


async def test_a_cast_by_a_cancelled_task_is_not_sent(
    start_agents: StartAgents, address: Address
) -> None:
    (ref,) = await listeners(start_agents, address, Listener)
    await ref.cast(Listener.listen, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.cast(Listener.listen, 2)
    assert scope.cancelled_caught
    assert await ref.call(Listener.all_heard) == [1]


async def test_casts_and_calls_of_one_sender_keep_their_order(
    start_agents: StartAgents, address: Address
) -> None:
    (ref,) = await listeners(start_agents, address, Listener)
    for number in range(100):
        await (ref.cast if number % 3 else ref.call)(
            Listener.hear if number % 2 else Listener.listen, number
        )
    assert await ref.call(Listener.all_heard) == list(range(100))


async def test_what_a_listener_never_heard_costs_no_queue(
    start_agents: StartAgents, address: Address
) -> None:
    """An empty deque is 760 bytes: idle agents share one, and none gets into it."""
    silent, spoken_to = await listeners(start_agents, address, Listener, 2)
    await wait_all_tasks_blocked()
    shared = silent.resolve().mailbox.items
    assert spoken_to.resolve().mailbox.items is shared
    await spoken_to.cast(Listener.listen, 1)
    assert await spoken_to.call(Listener.all_heard) == [1]
    assert spoken_to.resolve().mailbox.items is not shared
    assert silent.resolve().mailbox.items is shared
    assert len(shared) == 0
