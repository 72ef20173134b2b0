"""What a runtime has of it: with a store under it, and agents that meet by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from treewarden import (
    Agent,
    AgentRef,
    ChildSpec,
    Delivered,
    OwnerScope,
    Term,
    current_runtime,
)
from treewarden.cli import showing
from treewarden.control import protocol as wire
from treewarden.control.target import Client
from treewarden.testing import Sandbox, crash, open_sandbox, store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@dataclass
class Sums:
    total: int = 0
    seen: list[int] = field(default_factory=list)


class Account(Agent[Sums]):
    async def add(self, amount: int) -> int:
        self.state.total += amount
        self.state.seen.append(amount)
        return self.state.total

    async def pass_on(self, other: AgentRef[Account], amount: int) -> int:
        self.state.total -= amount
        sent = await self.runtime.exchange.send(other, Account.add, amount)
        assert isinstance(sent, Delivered)
        return sent.value

    async def under_lock(self, name: str, seconds: float) -> int:
        async with self.runtime.locks.hold(name) as grant:
            await trio.sleep(seconds)
            return grant.token

    async def vote(self, name: str) -> None:
        self.runtime.quorums.vote(name, "yes")


@pytest.fixture
def clock() -> Iterator[trio.abc.Clock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
async def sandbox(clock: trio.abc.Clock) -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


async def accounts(sandbox: Sandbox, *names: str) -> list[AgentRef[Account]]:
    for name in names:
        await sandbox.start_supervised(ChildSpec(name, Account))
    return [sandbox.runtime.ref(name, Account) for name in names]


async def test_what_is_delivered_is_committed_and_survives_its_receivers_crash(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    a, b = await accounts(sandbox, "a", "b")
    exchange = sandbox.runtime.exchange
    assert await exchange.send(a, Account.add, 5) == Delivered(value=5)
    assert await a.call(Account.pass_on, b, 2) == 2
    await crash(b)
    assert await exchange.send(b, Account.add, 1) == Delivered(value=3)
    assert await exchange.send(a, Account.add, 0) == Delivered(value=3)
    assert b.recent()[0].sender == "/a"


async def test_what_is_dropped_is_a_dead_letter_of_the_runtime(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    (a,) = await accounts(sandbox, "a")
    exchange = sandbox.runtime.exchange
    await exchange.send(a, Account.add, 1)
    circuit = exchange.circuit(a)
    assert circuit is not None
    circuit.trip()
    exchange.send_nowait(a, Account.add, 2)
    await sandbox.runtime.supervisor("/application").terminate_child("a")
    assert [(one.path, one.reason) for one in sandbox.dead_letters] == [
        ("/a", "receiver_not_found")
    ]


async def test_an_agents_lock_is_its_incarnations(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    a, b = await accounts(sandbox, "a", "b")
    locks = sandbox.runtime.locks
    request = a.request(Account.under_lock, "index", 3600.0)
    await wait_until(lambda: locks.holder("index"), "a has the lock")
    waiting = b.request(Account.under_lock, "index", 0.0)
    await wait_until(lambda: locks.statistics().locks[0].waiting, "b waits for it")
    await crash(a)
    assert await waiting.result() == 2
    assert locks.statistics().locks == ()
    with pytest.raises(Exception, match="crashed"):
        await request.result()


async def test_children_lead_and_vote_by_name(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    refs = await accounts(sandbox, "a", "b", "c")
    terms: list[Term] = []

    async def lead() -> None:
        async with current_runtime().elections.lead("crawl") as term:
            terms.append(term)
            await trio.sleep_forever()

    for name in ("first", "second"):
        await sandbox.start_supervised(ChildSpec(name, lead, restart="temporary"))
    await wait_until(lambda: terms, "somebody leads")
    await sandbox.runtime.supervisor("/application").terminate_child("first")
    await wait_until(lambda: len(terms) == 2, "the other one leads")
    assert sandbox.runtime.elections.leader("crawl") is terms[1]
    with sandbox.runtime.quorums.open("go", refs) as ballot:
        for ref in refs[:2]:
            await ref.call(Account.vote, "go")
        assert (await ballot.wait_decided()).accepted


async def test_barriers_are_met_by_children(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    met: list[int] = []

    async def come() -> None:
        met.append(await current_runtime().barriers.meet("start", 3))
        await trio.sleep_forever()

    started: list[Any] = []
    for number in range(3):
        assert met == []
        spec = ChildSpec(f"c{number}", come)
        started.append(await sandbox.start_supervised(spec))
    await wait_until(lambda: len(met) == 3, "all have met")
    assert sorted(met) == [0, 1, 2]


async def test_operators_see_what_waits_for_whom_and_who_holds_what(
    sandbox: Sandbox, clock: trio.abc.Clock
) -> None:
    (a,) = await accounts(sandbox, "a")
    runtime = sandbox.runtime
    await runtime.exchange.send(a, Account.add, 1)
    circuit = runtime.exchange.circuit(a)
    assert circuit is not None
    circuit.trip()
    runtime.exchange.send_nowait(a, Account.add, 2)
    desk, reader = (
        runtime.desk(),
        Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.RO),
    )
    answer = await desk.perform("exchanges", wire.GetExchanges(), reader)
    assert isinstance(answer, wire.Exchanges)
    assert [
        (row.exchange, row.receiver, row.circuit, row.pending, row.delivered)
        for row in answer.rows
    ] == [("/system/exchange", "/a", "forced_open", 1, 1)]
    assert "/a        forced_open  1/1000" in showing.exchanges_text(answer.rows)

    with OwnerScope() as me, OwnerScope() as other:
        runtime.locks.acquire_nowait("index", owner=me)
        await runtime.elections.campaign("crawl", owner=me)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(runtime.barriers.meet, "start", 2, owner=other))
            with runtime.quorums.open("go", [a], need="all"):
                await trio.testing.wait_all_tasks_blocked()
                found = await desk.perform("meetings", wire.GetMeetings(), reader)
            nursery.cancel_scope.cancel()
    assert isinstance(found, wire.Meetings)
    assert [
        (row.kind, row.name, row.holder, row.number, row.waiting) for row in found.rows
    ] == [
        ("lock", "index", "OwnerScope", 1, 0),
        ("election", "crawl", "OwnerScope", 1, 0),
        ("barrier", "start", "", 2, 1),
        ("ballot", "go", "", 1, 0),
    ]
    assert "election  crawl  OwnerScope" in showing.meetings_text(found.rows)
