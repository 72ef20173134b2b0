"""Agents that would all wait for each other's room: the ring is found when it closes."""

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
    MailboxPolicy,
    open_runtime,
)
from treewarden.agents import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden import Event, SupervisorRef

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Member(Agent[None]):
    """One of a ring; `then` is the path of the one that it casts to."""

    mailbox = MailboxPolicy(capacity=1)

    def __init__(self, then: str, gate: trio.Event) -> None:
        self.then = then
        self.gate = gate

    @property
    def _next(self) -> AgentRef[Member]:
        return AgentRef(self.treewarden_body.directory, self.then)

    async def cast_when_told(self) -> None:
        await self.gate.wait()
        self.cast(self._next, Member.take)

    async def cast_at_once(self) -> None:
        await self.gate.wait()
        await self._next.cast(Member.take)

    async def go_when_told(self) -> None:
        await self.gate.wait()

    async def publish_when_told(self) -> None:
        await self.gate.wait()
        self.publish("ring.turn", 1)

    async def spread(self, depth: int) -> None:
        if depth:
            self.cast(self._next, Member.spread, depth - 1)
            self.cast(self._next, Member.spread, depth - 1)

    async def take(self) -> None: ...

    async def ping(self) -> str:
        return "pong"


class Listener(Member):
    async def on_start(self) -> None:
        self.subscribe("ring.*", capacity=1)

    async def on_event(self, event: Event) -> None: ...


class Ring:
    def __init__(self, supervisor: SupervisorRef, size: int) -> None:
        self.lost: list[tuple[str, str, str]] = []
        supervisor.directory.services = Surroundings(
            dead_letter=lambda *letter: self.lost.append(letter)
        )
        self.gates = [trio.Event() for _ in range(size)]
        self.specs = [
            ChildSpec(f"m{n}", Member, args=(f"/m{(n + 1) % size}", self.gates[n]))
            for n in range(size)
        ]
        self.refs: list[AgentRef[Member]] = [
            AgentRef(supervisor.directory, f"/m{n}") for n in range(size)
        ]

    async def fill(self, operation: Any, last: Any = None) -> list[Any]:
        """Each has a message in hand that waits at its gate, and a full mailbox."""
        held = [ref.request(operation) for ref in self.refs[:-1]]
        held.append(self.refs[-1].request(last or operation))
        await wait_all_tasks_blocked()
        for ref in self.refs:
            ref.cast_nowait(Member.take)
        return held

    async def everybody_answers(self) -> None:
        with trio.fail_after(1):
            assert [await ref.call(Member.ping) for ref in self.refs] == (
                ["pong"] * len(self.refs)
            )


@pytest.fixture
async def ring(start_agents: StartAgents) -> Any:
    async def make(size: int = 3) -> Ring:
        supervisor = await start_agents()
        ring = Ring(supervisor, size)
        for spec in ring.specs:
            await supervisor.start_child(spec)
        return ring

    return make


@pytest.mark.parametrize("size", [2, 3, 7])
async def test_a_ring_of_full_mailboxes_loses_the_cast_that_closes_it(
    ring: Any, size: int, autojump_clock: object
) -> None:
    made = await ring(size)
    held = await made.fill(Member.cast_when_told)
    for gate in made.gates:
        assert made.lost == []
        gate.set()
        await wait_all_tasks_blocked()
    assert made.lost == [("/m0", "take", "cycle")]
    for request in held:
        await request.result()
    await made.everybody_answers()
    # All else arrived: the filler, and the casts of all but the last.
    handled = [ref.statistics().handled for ref in made.refs]
    assert handled == [3] + [4] * (size - 1)


async def test_a_line_of_waiting_agents_is_no_ring(
    ring: Any, autojump_clock: object
) -> None:
    made = await ring()
    await made.fill(Member.cast_when_told, last=Member.go_when_told)
    for gate in made.gates[:2]:
        gate.set()
    await wait_all_tasks_blocked()
    assert [ref.statistics().outbox for ref in made.refs] == [1, 1, 0]
    made.gates[2].set()
    await made.everybody_answers()
    assert made.lost == []


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_a_ring_in_a_storm_ends_with_everything_handled_or_counted(
    ring: Any, size: int, autojump_clock: object
) -> None:
    made = await ring(size)
    await made.refs[0].cast(Member.spread, 9)
    await wait_all_tasks_blocked()
    accounts = [ref.statistics() for ref in made.refs]
    assert all(one.outbox == one.mailbox == 0 for one in accounts)
    assert {why for _, _, why in made.lost} <= {"cycle", "outbox_full"}
    assert sum(one.dead_letters for one in accounts) == len(made.lost) > 0
    await made.everybody_answers()


async def test_a_ring_of_casts_made_inside_handlers_is_refused(
    ring: Any, autojump_clock: object
) -> None:
    made = await ring()
    held = await made.fill(Member.cast_at_once)
    for gate in made.gates[:2]:
        gate.set()
        await wait_all_tasks_blocked()
    made.gates[2].set()
    with pytest.raises(AgentCrashed, match=r"CallingSelf.*use self\.cast"):
        await held[2].result()
    await held[0].result()
    await held[1].result()
    await made.everybody_answers()


async def test_waiting_in_a_handler_and_after_it_make_one_ring(
    ring: Any, autojump_clock: object
) -> None:
    made = await ring(2)
    inside = made.refs[0].request(Member.cast_at_once)
    after = made.refs[1].request(Member.cast_when_told)
    await wait_all_tasks_blocked()
    for ref in made.refs:
        ref.cast_nowait(Member.take)
    made.gates[0].set()
    await wait_all_tasks_blocked()
    made.gates[1].set()
    await inside.result()
    await after.result()
    assert made.lost == [("/m0", "take", "cycle")]
    await made.everybody_answers()


@pytest.mark.parametrize("first", ["publisher", "listener"])
async def test_a_ring_through_an_event_is_found_too(first: str) -> None:
    gates = {"publisher": trio.Event(), "listener": trio.Event()}
    children = [
        ChildSpec("listener", Listener, args=("/publisher", gates["listener"])),
        ChildSpec("publisher", Member, args=("/listener", gates["publisher"])),
    ]
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("test", children), config=config) as runtime:
        publisher = runtime.ref("publisher", Member)
        listener = runtime.ref("listener", Listener)
        casting = listener.request(Member.cast_when_told)
        publishing = publisher.request(Member.publish_when_told)
        await wait_all_tasks_blocked()
        for ref in (publisher, listener):
            ref.cast_nowait(Member.take)
        await runtime.bus.publish("ring.fill", 0)
        await wait_all_tasks_blocked()
        gates[first].set()
        await wait_all_tasks_blocked()
        await runtime.store.settled()
        await wait_all_tasks_blocked()
        for gate in gates.values():
            gate.set()
        with trio.fail_after(30):
            await casting.result()
            await publishing.result()
            assert await publisher.call(Member.ping) == "pong"
            assert await listener.call(Member.ping) == "pong"
            await wait_all_tasks_blocked()
        # The newest of the two was lost, and counted.
        heard = listener.statistics().handled - 3
        lost = publisher.statistics().dead_letters
        assert (heard, lost) == ((2, 1) if first == "publisher" else (1, 0))
