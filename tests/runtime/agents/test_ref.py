from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import Sequencer, wait_all_tasks_blocked

from treewarden import (
    IGNORE,
    Agent,
    AgentCrashed,
    AgentDown,
    BadArguments,
    CallTimeout,
    ChildSpec,
    Down,
    MailboxFull,
    MailboxPolicy,
    NameUnknown,
    Normal,
    Refused,
    Shutdown,
    UnknownOperation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Total(msgspec.Struct):
    value: int = 0
    items: list[int] = []


class Counter(Agent[Total]):
    persistence = "none"
    mailbox = MailboxPolicy(capacity=3)

    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value

    def get(self) -> int:
        return self.state.value

    def add_now(self, amount: int) -> int:
        self.state.value += amount
        if amount == 13:
            raise ValueError("thirteen")
        return self.state.value

    def items_of(self) -> list[int]:
        return self.state.items

    def untyped(self):  # type: ignore[no-untyped-def]  # noqa: ANN201
        return self.state.items

    async def fail(self) -> None:
        self.state.value = -1
        raise ValueError("on purpose")

    async def refuse(self) -> None:
        self.state.value = -1
        raise Refused("not today")

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def call_self(self) -> int:
        return await self.ref.call(Counter.get)

    async def finish(self) -> str:
        self.stop()
        return "bye"


class Rejecting(Counter):
    mailbox = MailboxPolicy(capacity=1, overflow="reject")


async def counter(start: StartAgents, address: Address, kind: type = Counter) -> Any:
    supervisor = await start(ChildSpec("counter", kind))
    return address(supervisor, "/counter")


async def test_a_call_returns_the_handlers_answer(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-01"""
    ref = await counter(start_agents, address)
    assert await ref.call(Counter.add, 2) == 2
    assert await ref.call(Counter.get) == 2
    assert await ref.call(Counter.add, amount=3) == 5


async def test_a_crash_is_told_to_the_caller_and_undone(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """Pitfall 52"""
    ref = await counter(start_agents, address)
    with pytest.raises(AgentCrashed, match="on purpose") as caught:
        await ref.call(Counter.fail)
    assert caught.value.fault.path == "/counter"
    assert caught.value.fault.incarnation == 1
    assert await ref.call(Counter.get) == 0
    assert ref.incarnation == 2


async def test_an_inline_crash_is_like_a_queued_one(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    await ref.call(Counter.add_now, 1)
    with pytest.raises(AgentCrashed, match="thirteen"):
        await ref.call(Counter.add_now, 13)
    # Without a store the state is gone with its incarnation.
    assert await ref.call(Counter.get) == 0
    assert ref.incarnation == 2


async def test_a_refusal_is_an_answer_and_its_changes_go_back(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-12"""
    ref = await counter(start_agents, address)
    await ref.call(Counter.add, 4)
    with pytest.raises(Refused, match="not today"):
        await ref.call(Counter.refuse)
    assert await ref.call(Counter.get) == 4
    assert ref.incarnation == 1


async def test_messages_that_wait_are_handled_by_the_next_incarnation(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """Pitfall 57"""
    ref = await counter(start_agents, address)
    answers: dict[int, object] = {}

    async def call(number: int, operation: Any, *args: object) -> None:
        try:
            answers[number] = await ref.call(operation, *args)
        except AgentCrashed:
            answers[number] = "crashed"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 1, Counter.hang, 1)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, 2, Counter.fail)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, 3, Counter.add, 5)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, 4, Counter.add, 6)
    assert answers == {1: None, 2: "crashed", 3: 5, 4: 11}


async def test_senders_in_line_survive_a_crash(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """Pitfall 14 of the prototype: capacity 1, crashes included."""
    ref = await counter(start_agents, address)
    answers: list[object] = []

    async def call(number: int) -> None:
        try:
            if number % 3 == 0:
                await ref.call(Counter.fail)
            answers.append(await ref.call(Counter.add, 0))
        except AgentCrashed:
            answers.append("crashed")

    # As many crashes as the budget allows.
    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(call, number)
    assert len(answers) == 9


async def test_a_call_that_is_late_says_what_the_agent_is_doing(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-03"""
    ref = await counter(start_agents, address)
    with pytest.raises(CallTimeout, match="doing: hang") as caught:
        await ref.with_timeout(2).call(Counter.hang, 3)
    assert trio.current_time() == 2
    error = caught.value
    assert (error.path, error.operation, error.seconds) == ("/counter", "hang", 2)
    assert error.begun
    assert isinstance(error, trio.TooSlowError)
    # It goes on as if nobody had waited.
    assert await ref.call(Counter.get) == 0
    assert (trio.current_time(), ref.incarnation) == (3, 1)


async def test_a_call_that_was_not_begun_never_happens(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.call, Counter.hang, 4)
        await wait_all_tasks_blocked()
        with pytest.raises(CallTimeout) as caught:
            await ref.with_timeout(1).call(Counter.add, 7)
        assert not caught.value.begun
    assert await ref.call(Counter.get) == 0


async def test_a_cancelled_call_that_was_not_begun_never_happens(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-30, pitfall 68"""
    ref = await counter(start_agents, address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.call, Counter.hang, 4)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await ref.call(Counter.add, 7)
        assert scope.cancelled_caught
    assert await ref.call(Counter.get) == 0


async def test_the_deadline_counts_while_a_sender_stands_in_line(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-32"""
    ref = await counter(start_agents, address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.with_timeout(100).call, Counter.hang, 50)
        await wait_all_tasks_blocked()
        for _ in range(3):
            ref.cast_nowait(Counter.add, 1)
        with pytest.raises(CallTimeout):
            await ref.with_timeout(1).call(Counter.add, 1)
        assert trio.current_time() == 1
        assert ref.statistics().waiting_senders == 0
    assert await ref.call(Counter.get) == 3


async def test_a_cast_waits_for_room(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-32"""
    ref = await counter(start_agents, address)
    sequence = Sequencer()
    order: list[str] = []

    async def sender() -> None:
        async with sequence(0):
            pass
        await ref.cast(Counter.add, 1)
        order.append("accepted")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.call, Counter.hang, 1)
        await wait_all_tasks_blocked()
        for _ in range(3):
            await ref.cast(Counter.add, 1)
        nursery.start_soon(sender)
        await wait_all_tasks_blocked()
        assert ref.statistics().waiting_senders == 1
        assert order == []
    assert order == ["accepted"]
    assert await ref.call(Counter.get) == 4


async def test_cast_nowait_refuses_where_cast_would_wait(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-32"""
    ref = await counter(start_agents, address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.call, Counter.hang, 1)
        await wait_all_tasks_blocked()
        for _ in range(3):
            ref.cast_nowait(Counter.add, 1)
        with pytest.raises(MailboxFull, match="3 messages"):
            ref.cast_nowait(Counter.add, 1)


async def test_a_mailbox_that_rejects_tells_the_caller(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-32"""
    ref = await counter(start_agents, address, Rejecting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.call, Counter.hang, 1)
        await wait_all_tasks_blocked()
        await ref.cast(Counter.add, 1)
        with pytest.raises(MailboxFull):
            await ref.call(Counter.add, 1)


async def test_a_call_to_oneself_is_refused(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-08, pitfall 55"""
    ref = await counter(start_agents, address)
    with pytest.raises(AgentCrashed, match="CallingSelf"):
        await ref.call(Counter.call_self)


async def test_wrong_arguments_are_the_callers_mistake(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    with pytest.raises(BadArguments, match="amount"):
        await ref.call(Counter.add)
    with pytest.raises(BadArguments):
        await ref.call(Counter.add, 1, 2)
    with pytest.raises(BadArguments, match="colour"):
        await ref.call(Counter.add, 1, colour="red")
    assert ref.incarnation == 1


async def test_an_unknown_operation_names_those_there_are(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    with pytest.raises(UnknownOperation, match=r"no operation 'sub'.*add"):
        await ref.send_call("sub", (), {})


async def test_a_reply_never_aliases_state(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    items = await ref.call(Counter.items_of)
    items.append(1)
    assert await ref.call(Counter.items_of) == []


async def test_an_unannotated_mutable_reply_is_refused(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    ref = await counter(start_agents, address)
    with pytest.raises(AgentCrashed, match="annotate its return type"):
        await ref.call(Counter.untyped)


async def test_a_call_to_nobody_fails_at_once(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-06, pitfall 53"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    with pytest.raises(NameUnknown):
        await address(supervisor, "/nobody").call(Counter.get)
    await supervisor.terminate_child("counter")
    with pytest.raises(AgentDown, match="stopped"):
        await address(supervisor, "/counter").call(Counter.get)
    assert trio.current_time() == 0


async def test_those_who_wait_are_told_when_the_agent_is_stopped(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-07, SHD-19"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    outcomes: list[str] = []

    async def call(operation: Any, *args: object) -> None:
        try:
            await ref.call(operation, *args)
            outcomes.append("answered")
        except AgentDown:
            outcomes.append("down")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, Counter.hang, 2)
        await wait_all_tasks_blocked()
        nursery.start_soon(call, Counter.get)
        await wait_all_tasks_blocked()
        await supervisor.terminate_child("counter")
    # A busy agent finishes its message; what waits is told that nobody will answer.
    assert sorted(outcomes) == ["answered", "down"]
    assert trio.current_time() == 2


async def test_a_busy_agent_is_cut_off_at_its_shutdown_time(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    supervisor = await start_agents(ChildSpec("counter", Counter, shutdown=3))
    ref = address(supervisor, "/counter")
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(AgentDown):
                await ref.with_timeout(100).call(Counter.hang, 50)

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        await supervisor.terminate_child("counter")
    assert trio.current_time() == 3


async def test_an_agent_can_answer_and_then_stop(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """G22: the reply first, then the end."""
    supervisor = await start_agents(ChildSpec("counter", Counter, restart="transient"))
    ref = address(supervisor, "/counter")
    assert await ref.call(Counter.finish) == "bye"
    await wait_all_tasks_blocked()
    (child,) = supervisor.which_children()
    assert child.last_exit == Normal()
    assert child.state == "stopped"


class Watcher(Agent[None]):
    def __init__(self, downs: list[Down], target: Any) -> None:
        self.downs = downs
        self.target = target

    async def watch(self) -> None:
        self.monitor(self.target)

    async def on_down(self, down: Down) -> None:
        self.downs.append(down)


async def test_a_monitor_tells_once_how_an_incarnation_ended(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-01, MON-02"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    downs: list[Down] = []
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(downs, ref)))
    await address(supervisor, "/watcher").call(Watcher.watch)
    with pytest.raises(AgentCrashed):
        await ref.call(Counter.fail)
    with pytest.raises(AgentCrashed):
        await ref.call(Counter.fail)
    await wait_all_tasks_blocked()
    (down,) = downs
    assert (down.path, down.incarnation) == ("/counter", 1)
    assert "on purpose" in repr(down.exit)


async def test_a_monitor_on_nobody_tells_at_once(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-03, pitfall 60"""
    supervisor = await start_agents()
    downs: list[Down] = []
    nobody = address(supervisor, "/nobody")
    await supervisor.start_child(ChildSpec("watcher", Watcher, args=(downs, nobody)))
    await address(supervisor, "/watcher").call(Watcher.watch)
    await wait_all_tasks_blocked()
    assert downs == [Down(path="/nobody", incarnation=0, exit=None)]


class Lifecycle(Agent[None]):
    def __init__(self, log: list[str], *, ignore: bool = False) -> None:
        self.seen = log
        self.ignore = ignore

    async def on_start(self) -> Any:
        self.seen.append("start")
        return IGNORE if self.ignore else None

    async def on_stop(self, exit: Any) -> None:  # noqa: A002
        await trio.sleep(1)
        self.seen.append(f"stop {exit!r}")

    async def fail(self) -> None:
        raise ValueError("x")


async def test_on_stop_runs_on_a_stop_and_not_after_a_crash(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SHD-22, END-10"""
    log: list[str] = []
    supervisor = await start_agents(ChildSpec("one", Lifecycle, args=(log,)))
    with pytest.raises(AgentCrashed):
        await address(supervisor, "/one").call(Lifecycle.fail)
    await wait_all_tasks_blocked()
    assert log == ["start", "start"]
    await supervisor.terminate_child("one")
    assert log == ["start", "start", f"stop {Shutdown()!r}"]


async def test_an_agent_may_ignore_its_start(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    log: list[str] = []
    supervisor = await start_agents(
        ChildSpec("one", Lifecycle, args=(log,), kwargs={"ignore": True})
    )
    (child,) = supervisor.which_children()
    assert child.state == "stopped"
    assert log == ["start"]


class Liar(Exception):
    """Fails whoever asks it anything."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Lying(Agent[None]):
    persistence = "none"

    def lie(self) -> None:
        raise Liar

    async def lie_later(self) -> None:
        await trio.lowlevel.checkpoint()
        raise Liar


@pytest.mark.parametrize("operation", [Lying.lie, Lying.lie_later])
async def test_an_exception_that_cannot_be_looked_at_is_a_crash_like_any_other(
    start_agents: StartAgents,
    address: Address,
    autojump_clock: object,
    operation: Callable[..., object],
) -> None:
    """Pitfalls 52 and 75"""
    supervisor = await start_agents(ChildSpec("one", Lying))
    with pytest.raises(AgentCrashed):
        await address(supervisor, "/one").call(operation)
    assert trio.current_time() == 0
    assert address(supervisor, "/one").incarnation == 2
