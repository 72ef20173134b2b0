"""What a commit sets free and what finds no room: it waits, in order, and is counted."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    MailboxPolicy,
    open_runtime,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import Runtime


class Heard(msgspec.Struct):
    numbers: list[int] = []


class Receiver(Agent[Heard]):
    mailbox = MailboxPolicy(capacity=1)

    def __init__(self, gate: trio.Event) -> None:
        self.gate = gate

    async def hold(self) -> None:
        await self.gate.wait()

    async def note(self, number: int) -> None:
        self.state.numbers.append(number)

    async def heard(self) -> list[int]:
        return self.state.numbers


class Sender(Agent[Heard]):
    mailbox = MailboxPolicy(capacity=5)

    async def tell(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.cast(self.runtime.ref("receiver", Receiver), Receiver.note, number)

    async def announce(self, number: int) -> None:
        self.publish("news", number)

    async def announce_and_tell(self, number: int) -> None:
        self.publish("news", number)
        self.cast(self.runtime.ref("receiver", Receiver), Receiver.note, number)

    async def tell_what_it_knows(self) -> None:
        self.state.numbers = [1]
        self.cast(self.runtime.ref("heap", Heap), Heap.take, self.state.numbers)
        self.state.numbers.append(2)

    async def tell_itself(self, count: int) -> None:
        for number in range(count):
            self.cast(self.ref, Sender.announce, number)

    async def ping(self) -> str:
        return "pong"

    async def fail(self) -> None:
        raise ValueError("sender")


class Heap(Agent[Heard]):
    async def take(self, numbers: list[int]) -> None:
        self.state.numbers = numbers

    async def heard(self) -> list[int]:
        return self.state.numbers


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    def make(gate: trio.Event, **sender: Any) -> AbstractAsyncContextManager[Runtime]:
        children = [
            ChildSpec("receiver", Receiver, args=(gate,)),
            ChildSpec("sender", Sender, **sender),
            ChildSpec("heap", Heap),
        ]
        config = Config(store=tmp_path / "test.db", socket=False)
        return open_runtime(Application("test", children), config=config)

    return make


@contextmanager
def held_back(path: Path) -> Iterator[None]:
    """The store's writer cannot commit while a foreign connection holds the lock."""
    foreign = sqlite3.connect(path / "test.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        foreign.execute("ROLLBACK")
        foreign.close()


async def until_quiet(runtime: Runtime) -> None:
    """Everything committed, and everybody parked."""
    await runtime.store.settled()
    await wait_all_tasks_blocked()


async def hold_receiver(runtime: Runtime, nursery: trio.Nursery) -> None:
    nursery.start_soon(runtime.ref("receiver", Receiver).call, Receiver.hold)
    await wait_all_tasks_blocked()


async def test_staged_casts_without_room_wait_in_order(opened: Any) -> None:
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        await sender.call(Sender.tell, 0, 3)
        await wait_all_tasks_blocked()
        assert sender.statistics().outbox == 2
        # Meanwhile it takes no message.
        nursery.start_soon(sender.call, Sender.tell, 3, 2)
        await wait_all_tasks_blocked()
        assert sender.statistics().mailbox == 1
        gate.set()
        await until_quiet(runtime)
        receiver = runtime.ref("receiver", Receiver)
        assert await receiver.call(Receiver.heard) == [0, 1, 2, 3, 4]


async def test_the_outbox_survives_a_crash_of_its_sender(opened: Any) -> None:
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        await sender.call(Sender.tell, 0, 3)
        await wait_all_tasks_blocked()
        runtime.injections.crash("/sender")
        await wait_all_tasks_blocked()
        assert sender.incarnation == 2
        gate.set()
        await until_quiet(runtime)
        receiver = runtime.ref("receiver", Receiver)
        assert await receiver.call(Receiver.heard) == [0, 1, 2]


async def test_an_agent_with_a_full_outbox_obeys_a_stop_and_counts_what_is_lost(
    opened: Any,
) -> None:
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        await sender.call(Sender.tell, 0, 3)
        await wait_all_tasks_blocked()
        await runtime.supervisor("/application").terminate_child("sender")
        assert runtime.vitals.dead_letters == 2
        gate.set()


async def test_what_the_outbox_cannot_hold_is_a_dead_letter(opened: Any) -> None:
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        await sender.call(Sender.tell, 0, 10)
        await wait_all_tasks_blocked()
        assert sender.statistics().outbox == 5
        assert runtime.vitals.dead_letters == 4
        gate.set()


async def test_an_agent_does_not_run_further_ahead_than_its_outbox_holds(
    opened: Any,
) -> None:
    """Its casts are not committed yet, and may all find no room."""
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        for first in range(0, 20, 2):
            nursery.start_soon(sender.call, Sender.announce_and_tell, first)
        gate.set()
        receiver = runtime.ref("receiver", Receiver)
        await wait_until(lambda: receiver.statistics().handled == 11)
        assert runtime.vitals.dead_letters == 0
        assert sorted(await receiver.call(Receiver.heard)) == list(range(0, 20, 2))


async def test_a_full_subscription_holds_the_agent_and_not_the_loop(
    opened: Any,
) -> None:
    async with opened(trio.Event()) as runtime:
        sender = runtime.ref("sender", Sender)
        async with (
            runtime.bus.subscribe("news", capacity=1) as slow,
            runtime.bus.subscribe("news") as quick,
            trio.open_nursery() as nursery,
        ):
            for number in range(3):
                nursery.start_soon(sender.call, Sender.announce, number)
                await wait_all_tasks_blocked()
            await until_quiet(runtime)
            assert sender.statistics().outbox >= 1
            assert slow.pending == 1
            # The others are served.
            assert await runtime.ref("heap", Heap).call(Heap.heard) == []
            received = [(await anext(slow)).payload for _ in range(3)]
            assert received == [0, 1, 2]
            assert [(await anext(quick)).payload for _ in range(3)] == [0, 1, 2]


async def test_an_event_does_not_overtake_what_waits_in_the_outbox(
    opened: Any, tmp_path: Path
) -> None:
    """Committed while something waits: it goes behind that, though it has room."""
    gate = trio.Event()
    async with opened(gate) as runtime, trio.open_nursery() as nursery:
        sender = runtime.ref("sender", Sender)
        await hold_receiver(runtime, nursery)
        async with runtime.bus.subscribe("news") as events:
            with held_back(tmp_path):
                nursery.start_soon(sender.call, Sender.announce_and_tell, 0)
                await wait_all_tasks_blocked()
                nursery.start_soon(sender.call, Sender.announce_and_tell, 1)
                await wait_all_tasks_blocked()
                assert not sender.statistics().outbox
                await runtime.ref("receiver", Receiver).cast(Receiver.note, 100)
            await wait_until(lambda: sender.statistics().outbox == 3)
            assert events.pending == 1
            gate.set()
            assert [(await anext(events)).payload for _ in range(2)] == [0, 1]


async def test_a_cast_to_a_full_mailbox_of_ones_own_is_a_dead_letter(
    opened: Any,
) -> None:
    """MSG-32: nobody waits for himself."""
    async with opened(trio.Event()) as runtime:
        sender = runtime.ref("sender", Sender)
        await sender.call(Sender.tell_itself, 8)
        assert await sender.call(Sender.ping) == "pong"
        entries = await letters(runtime)
        assert [entry["reason"] for entry in entries] == ["cycle"] * 3


async def letters(runtime: Runtime) -> list[dict[str, str]]:
    runtime.record("test.mark", {})
    with trio.fail_after(30):
        while True:
            # Reports wait for company.
            await trio.sleep(0.1)
            found = await runtime.store.entries(since=None, limit=1000)
            if any(one.topic == "test.mark" for one in found):
                break
    return [
        msgspec.json.decode(one.payload)
        for one in found
        if one.topic == "agent.dead_letter"
    ]


async def test_arguments_of_a_staged_cast_are_as_they_were_when_staged(
    opened: Any,
) -> None:
    async with opened(trio.Event()) as runtime:
        await runtime.ref("sender", Sender).call(Sender.tell_what_it_knows)
        assert await runtime.ref("heap", Heap).call(Heap.heard) == [1]


async def test_what_is_committed_after_its_sender_is_gone_is_delivered_or_counted(
    opened: Any, tmp_path: Path
) -> None:
    gate = trio.Event()
    async with (
        opened(gate, restart="temporary") as runtime,
        trio.open_nursery() as nursery,
    ):
        sender = runtime.ref("sender", Sender)
        receiver = runtime.ref("receiver", Receiver)
        await hold_receiver(runtime, nursery)
        with held_back(tmp_path):
            for number in range(2):
                nursery.start_soon(sender.call, Sender.announce_and_tell, number)
                await wait_all_tasks_blocked()
            with pytest.raises(AgentCrashed):
                await sender.call(Sender.fail)
            await wait_all_tasks_blocked()
            assert runtime.directory.find("/sender") is None
        await wait_until(lambda: runtime.vitals.dead_letters == 1)
        assert receiver.statistics().mailbox == 1
        gate.set()
