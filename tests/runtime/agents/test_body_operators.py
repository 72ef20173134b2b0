"""What an operator can do with a live agent: hold it, look into it, change it."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, tzinfo
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
    ChildStartFailed,
    Config,
    DynamicSupervisorSpec,
    Exit,
    MailboxPolicy,
    Refused,
    StateNotEncodable,
    open_runtime,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import Runtime

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Total(msgspec.Struct):
    value: int = 0


class Counter(Agent[Total]):
    persistence = "none"

    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value

    def get(self) -> int:
        return self.state.value

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def refuse(self) -> None:
        raise Refused("not today")

    async def fail_without_words(self) -> None:
        raise Unprintable

    def hold_itself(self) -> str:
        self.ref.suspend()
        return "held"

    async def set_own(self) -> None:
        await self.ref.replace_state(Total())

    def end(self) -> None:
        self.stop()


class Kept(Counter):
    persistence = "write_through"


class Stateless(Agent[None]):
    async def ping(self) -> None: ...


class Account(msgspec.Struct):
    owner: str = "nobody"
    pin: str = ""


class Bank(Agent[Account]):
    async def open(self, owner: str, pin: str) -> None:
        self.state.owner = owner
        self.state.pin = pin

    async def pay(self, amount: int, pin: str) -> None:
        accounts: dict[str, int] = {}
        try:
            accounts[pin] -= amount
        except KeyError as error:
            raise ValueError(f"no money behind {pin}") from error

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        if self.state.owner == "bad":
            raise ValueError(f"closed with {self.state.pin}")

    @classmethod
    def redact(cls, state: Account) -> object:
        state.pin = "***"
        return state

    @classmethod
    def redact_error(cls, text: str) -> str:
        return text.replace("1234", "***")

    @classmethod
    def redact_message(cls, operation: str, arguments: dict[str, object]) -> object:
        return {**arguments, "pin": "***", "asked": operation}


class Careless(Bank):
    @classmethod
    def redact(cls, state: Account) -> object:
        raise ValueError(f"cannot hide {state.pin}")

    @classmethod
    def redact_message(cls, operation: str, arguments: dict[str, object]) -> object:
        raise KeyError(arguments["pin"])

    @classmethod
    def redact_error(cls, text: str) -> str:
        raise ValueError(text)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.fixture
async def ref(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("counter", Counter)), "/counter")


def opened(path: Path, kind: Any) -> AbstractAsyncContextManager[Runtime]:
    config = Config(store=path / "test.db", socket=False)
    return open_runtime(Application("test", [ChildSpec("one", kind)]), config=config)


async def test_a_suspended_agent_takes_no_message_until_it_is_resumed(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-03"""
    await ref.call(Counter.add, 1)
    ref.suspend()
    ref.suspend()
    assert ref.statistics().doing == "suspended"
    with pytest.raises(CallTimeout, match="doing: suspended") as caught:
        await ref.with_timeout(1).call(Counter.get)
    assert not caught.value.begun
    await ref.cast(Counter.add, 1)
    waiting = ref.request(Counter.get)
    await wait_all_tasks_blocked()
    assert not waiting.is_answered
    ref.resume()
    ref.resume()
    assert await waiting.result() == 2
    assert ref.statistics().doing == "idle"


async def test_the_tree_shows_who_is_suspended(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SYS-03"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    version = supervisor.directory.version
    ref.suspend()
    assert supervisor.which_children()[0].state == "suspended"
    assert supervisor.directory.version > version
    ref.resume()
    assert supervisor.which_children()[0].state == "running"


async def test_a_busy_agent_finishes_its_message_before_it_is_held(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-03"""
    hanging = ref.request(Counter.hang, 1)
    later = ref.request(Counter.add, 1)
    await wait_all_tasks_blocked()
    ref.suspend()
    await hanging.result()
    await wait_all_tasks_blocked()
    assert not later.is_answered


async def test_a_plain_handler_can_hold_its_own_agent(
    ref: Any, autojump_clock: object
) -> None:
    await wait_all_tasks_blocked()
    assert await ref.call(Counter.hold_itself) == "held"
    with pytest.raises(CallTimeout):
        await ref.with_timeout(1).call(Counter.get)


async def test_a_suspended_agent_can_be_stopped(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SYS-03"""
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    ref.suspend()
    waiting = ref.request(Counter.get)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("counter")
    assert trio.current_time() == 0
    with pytest.raises(AgentDown):
        await waiting.result()
    with pytest.raises(AgentDown, match="stopped"):
        ref.suspend()
    with pytest.raises(AgentDown, match="stopped"):
        await ref.replace_state(Total())


async def test_a_suspension_ends_with_its_incarnation(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    supervisor = await start_agents(ChildSpec("counter", Counter))
    ref = address(supervisor, "/counter")
    ref.suspend()
    waiting = ref.request(Counter.add, 1)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("counter")
    await supervisor.restart_child("counter")
    assert supervisor.which_children()[0].state == "running"
    assert await ref.call(Counter.add, 1) == 1
    with pytest.raises(AgentDown):
        await waiting.result()


@pytest.mark.parametrize("suspended", [False, True])
async def test_the_state_of_a_live_agent_can_be_replaced(
    ref: Any, suspended: bool, autojump_clock: object
) -> None:
    """SYS-02, pitfall 69"""
    await ref.call(Counter.add, 1)
    if suspended:
        ref.suspend()
    await ref.replace_state(Total(value=10))
    # Before what waits, and a state in JSON is as good.
    waiting = ref.request(Counter.add, 1)
    await ref.replace_state(msgspec.Raw(b'{"value": 20}'))
    assert waiting.is_answered is not suspended
    ref.resume()
    assert await waiting.result() == 21
    assert ref.incarnation == 1


async def test_a_busy_agent_gets_its_new_state_between_two_messages(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-02"""
    ref.request(Counter.hang, 1)
    later = ref.request(Counter.add, 1)
    await wait_all_tasks_blocked()
    await ref.replace_state(Total(value=10))
    assert trio.current_time() == 1
    assert await later.result() == 11


@pytest.mark.parametrize(
    "wrong", [object(), {"value": "many"}, msgspec.Raw(b"no json"), None]
)
async def test_what_is_no_state_is_refused_and_the_agent_lives(
    ref: Any, wrong: object, autojump_clock: object
) -> None:
    """SYS-02"""
    await ref.call(Counter.add, 1)
    with pytest.raises(StateNotEncodable):
        await ref.replace_state(wrong)
    assert await ref.call(Counter.get) == 1
    assert ref.incarnation == 1


async def test_an_agent_without_state_has_none_to_replace(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    supervisor = await start_agents(ChildSpec("one", Stateless))
    with pytest.raises(StateNotEncodable, match="keeps no state"):
        await address(supervisor, "/one").replace_state(Total())


async def test_an_operator_waits_no_longer_than_a_caller(
    ref: Any, autojump_clock: object
) -> None:
    ref.with_timeout(50).request(Counter.hang, 20)
    await wait_all_tasks_blocked()
    with pytest.raises(CallTimeout, match="replace_state"):
        await ref.replace_state(Total(value=10))
    assert trio.current_time() == 5
    assert await ref.with_timeout(50).call(Counter.get) == 0


async def test_an_agent_does_not_replace_its_own_state(
    ref: Any, autojump_clock: object
) -> None:
    with pytest.raises(AgentCrashed, match="CallingSelf"):
        await ref.call(Counter.set_own)


async def test_a_replaced_state_is_committed_before_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    """SYS-02"""
    async with opened(tmp_path, Kept) as runtime:
        ref = runtime.ref("one", Kept)
        ref.suspend()
        await ref.replace_state(Total(value=10))
        found = sqlite3.connect(tmp_path / "test.db")
        ((payload,),) = found.execute("SELECT payload FROM agent_state").fetchall()
        found.close()
        assert msgspec.json.decode(payload) == {"value": 10}
        ref.resume()
        assert await ref.call(Kept.add, 1) == 11


async def test_state_is_seen_while_the_agent_is_busy_or_suspended(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-01"""
    await ref.call(Counter.add, 3)
    ref.request(Counter.hang, 1)
    await wait_all_tasks_blocked()
    assert msgspec.json.decode(ref.inspect()) == {"value": 3}
    ref.suspend()
    assert msgspec.json.decode(ref.inspect()) == {"value": 3}


async def test_the_last_messages_are_remembered_with_what_became_of_them(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-04"""
    await ref.call(Counter.add, 1)
    with pytest.raises(Refused):
        await ref.call(Counter.refuse)
    with pytest.raises(AgentCrashed):
        await ref.call(Counter.fail)
    await ref.call(Counter.get)
    recent = ref.recent()
    assert [(one.operation, one.outcome) for one in recent] == [
        ("add", "done"),
        ("refuse", "refused"),
        ("fail", "crashed"),
        ("get", "done"),
    ]
    assert [one.at_ns for one in recent] == sorted(one.at_ns for one in recent)


async def test_no_more_than_fifty_messages_are_remembered(
    ref: Any, autojump_clock: object
) -> None:
    """SYS-04"""
    await ref.call(Counter.add, 1)
    for _ in range(50):
        await ref.call(Counter.get)
    assert [one.operation for one in ref.recent()] == ["get"] * 50


@pytest.mark.parametrize(
    ("come_up", "left", "incarnation"),
    [(Counter.hold_itself, 1, 1), (Counter.end, 0, 2)],
    ids=["suspended", "stopped"],
)
async def test_what_a_handler_brings_up_is_seen_to_before_the_next_message(
    ref: Any,
    come_up: Callable[..., object],
    left: int,
    incarnation: int,
    autojump_clock: object,
) -> None:
    """Though both messages were there when the agent woke."""
    await ref.cast(come_up)
    await ref.cast(Counter.add, 1)
    await wait_all_tasks_blocked()
    assert (ref.statistics().mailbox, ref.incarnation) == (left, incarnation)
    ref.resume()
    assert await ref.call(Counter.get) == 1


async def test_what_comes_up_while_a_handler_waits_is_seen_to_before_the_next_message(
    ref: Any, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Pitfall 69: an operator's state is there before what waited longer than he did."""
    await ref.cast(Counter.hang, 1)
    await ref.cast(Counter.add, 1)
    await wait_all_tasks_blocked()
    nursery.start_soon(ref.replace_state, Total(value=10))
    await trio.sleep(2)
    assert await ref.call(Counter.get) == 11


async def test_what_a_class_redacts_is_shown_to_nobody(tmp_path: Path) -> None:
    """SYS-07"""
    async with opened(tmp_path, Bank) as runtime:
        ref = runtime.ref("one", Bank)
        await ref.call(Bank.open, "ada", "1234")
        await runtime.store.settled()
        assert msgspec.json.decode(ref.inspect()) == {"owner": "ada", "pin": "***"}
        with pytest.raises(AgentCrashed):
            await ref.call(Bank.pay, 5, pin="1234")
        crash = ref.resolve().last_crash
        assert crash is not None
        assert b"1234" not in (crash.payload or b"") + crash.message
        assert msgspec.json.decode(crash.message) == {
            "amount": 5,
            "pin": "***",
            "asked": "pay",
        }
        # What is restored from is whole.
        assert b"1234" in ref.resolve().memory.committed


async def test_the_text_of_an_error_is_redacted_wherever_it_goes(
    tmp_path: Path,
) -> None:
    """SYS-07: to the caller, into the record, with its causes, and out of on_stop."""
    async with opened(tmp_path, Bank) as runtime:
        ref = runtime.ref("one", Bank)
        with pytest.raises(AgentCrashed) as caught:
            await ref.call(Bank.pay, 5, "1234")
        assert caught.value.fault.summary() == "ValueError: no money behind ***"
        assert caught.value.fault.cause is not None
        assert caught.value.fault.cause.summary() == "KeyError: '***'"
        crash = ref.resolve().last_crash
        assert crash is not None
        assert b"1234" not in crash.fault_json()
        await ref.call(Bank.open, "bad", "1234")
        with pytest.raises(AgentCrashed, match=r"closed with \*\*\*"):
            await ref.stop()


@pytest.mark.parametrize("traced", [True, False])
async def test_an_error_without_words_is_told_all_the_same(
    tmp_path: Path, traced: bool
) -> None:
    """Pitfall 75: nobody waits for ever because a text could not be had."""
    async with opened(tmp_path, Counter) as runtime:
        runtime.telemetry.spans.enabled = traced
        with trio.fail_after(30):
            with pytest.raises(AgentCrashed, match="__str__ failed"):
                await runtime.ref("one", Counter).call(Counter.fail_without_words)


async def test_a_redactor_that_fails_leaks_nothing_and_hurts_nobody(
    tmp_path: Path,
) -> None:
    """SYS-07, pitfall 74"""
    async with opened(tmp_path, Careless) as runtime:
        ref = runtime.ref("one", Careless)
        await ref.call(Careless.open, "ada", "1234")
        await runtime.store.settled()
        shown = msgspec.json.decode(ref.inspect())
        assert shown == "not shown: redact() failed with ValueError"
        with pytest.raises(AgentCrashed):
            await ref.call(Careless.pay, 5, "1234")
        crash = ref.resolve().last_crash
        assert crash is not None
        assert (
            b"1234" not in (crash.payload or b"") + crash.message + crash.fault_json()
        )
        assert b"redact_error() failed with ValueError" in crash.fault_json()
        await ref.call(Careless.open, "bob", "4321")


def test_a_redactor_must_not_need_an_agent() -> None:
    with pytest.raises(TypeError, match=r"redact must be a classmethod"):

        class Wrong(Agent[Total]):
            def redact(self, state: Total) -> object:  # type: ignore[override]
                return state


class Tight(Counter):
    mailbox = MailboxPolicy(capacity=1)


async def test_senders_in_line_wait_out_a_suspension(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SYS-03"""
    ref = address(await start_agents(ChildSpec("one", Tight)), "/one")
    ref.suspend()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ref.cast, Tight.add, 1)
        await wait_all_tasks_blocked()
        assert ref.statistics().waiting_senders == 2
        ref.resume()
    assert await ref.call(Tight.get) == 3


async def test_a_full_mailbox_keeps_neither_an_operator_nor_a_stop_waiting(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SYS-01 to SYS-03, pitfall 69: they go before all that waits, in no place of its own."""
    supervisor = await start_agents(ChildSpec("one", Tight))
    ref = address(supervisor, "/one")
    hanging = ref.request(Tight.hang, 1)
    await wait_all_tasks_blocked()
    ended: list[int] = []

    async def wait_in_line(number: int) -> None:
        with pytest.raises(AgentDown):
            await ref.call(Tight.get)
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait_in_line, number)
        await wait_all_tasks_blocked()
        assert ref.statistics().waiting_senders == 2
        assert ref.inspect() == b'{"value":0}'
        ref.suspend()
        await ref.replace_state(Total(value=10))
        assert trio.current_time() == 1
        assert hanging.is_answered
        assert ref.inspect() == b'{"value":10}'
        await supervisor.terminate_child("one")
    assert trio.current_time() == 1
    assert sorted(ended) == [0, 1, 2]


class Talker(Agent[Total]):
    persistence = "none"

    async def tell(self, ref: Any, times: int) -> None:
        for _ in range(times):
            self.cast(ref, Counter.add, 1)

    async def ask(self, ref: Any) -> int:
        answer: int = await ref.call(Counter.add, 1)
        return answer

    async def tell_and_fail(self, ref: Any) -> None:
        self.cast(ref, Counter.add, 1)
        raise ValueError("on purpose")


async def test_messages_are_counted_in_and_out(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """SYS-05: with the time since when; a staged message that never left is none."""
    supervisor = await start_agents(
        ChildSpec("talker", Talker), ChildSpec("counter", Counter)
    )
    talker, counter = (address(supervisor, f"/{id_}") for id_ in ("talker", "counter"))
    await talker.call(Talker.tell, counter, 3)
    await talker.call(Talker.ask, counter)
    with pytest.raises(AgentCrashed):
        await talker.call(Talker.tell_and_fail, counter)
    await wait_all_tasks_blocked()
    told, asked = talker.statistics(), counter.statistics()
    assert (told.accepted, told.handled, told.crashed, told.sent) == (3, 2, 1, 4)
    assert (asked.accepted, asked.handled, asked.sent) == (4, 4, 0)
    node = supervisor.directory.snapshot(trio.current_time())["/counter"]
    assert node.started_at_ns is not None


class NewTotal(msgspec.Struct):
    amount: int = 0


class Renewed(Agent[NewTotal]):
    store_as = "Kept"
    state_version = 2

    @classmethod
    def migrate(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        raise KeyError("what was it called?")

    def get(self) -> int:
        return self.state.amount


async def test_a_change_of_the_code_that_fails_leaves_what_was(tmp_path: Path) -> None:
    """SYS-09: the new class does not start, and the old one goes on."""
    async with opened(tmp_path, Kept) as runtime:
        await runtime.ref("one", Kept).call(Kept.add, 3)
    async with opened(tmp_path, Renewed) as runtime:
        with pytest.raises(AgentDown, match="could not be migrated from version 1"):
            await runtime.ref("one", Renewed).call(Renewed.get)
    async with opened(tmp_path, Kept) as runtime:
        assert await runtime.ref("one", Kept).call(Kept.get) == 3


class Nowhere(tzinfo):
    """A time zone that does not know how far from UTC it is."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        raise ZeroDivisionError

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> None:
        return None


class Minefield(Agent[None]):
    def step(self, on: Any) -> None:
        raise ValueError("boom")


async def test_an_argument_that_fails_when_it_is_shown_costs_no_report(
    start_agents: StartAgents, address: Address
) -> None:
    """Pitfall 75: the crash that is kept is the handler's own."""
    ref = address(await start_agents(ChildSpec("one", Minefield)), "/one")
    with pytest.raises(AgentCrashed, match="ValueError: boom"):
        await ref.call(Minefield.step, datetime(2000, 1, 1, tzinfo=Nowhere()))
    await wait_all_tasks_blocked()
    crash = ref.resolve().last_crash
    assert crash is not None
    assert crash.message == b'"not encodable"'
    assert ref.resolve().node.last_exit.fault.message == "boom"


class Sealed(msgspec.Struct):
    pin: str = "1234"


class Vault(Agent[Sealed]):
    """It tells its pin whenever it does not start: at the second and the third time."""

    starts = 0

    @classmethod
    def redact_error(cls, text: str) -> str:
        return text.replace("1234", "***")

    async def on_start(self) -> None:
        Vault.starts += 1
        if Vault.starts in {2, 3}:
            raise ValueError(f"no door behind {self.state.pin}")

    async def fail(self) -> None:
        raise ValueError("on purpose")


async def test_what_a_start_raises_is_redacted_too(tmp_path: Path) -> None:
    """SYS-07, pitfall 74: whoever asked for the start is told no more, nor is the journal."""
    Vault.starts = 0
    children = [ChildSpec("one", Vault), ChildSpec("some", DynamicSupervisorSpec())]
    app = Application("test", children)
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        with pytest.raises(ChildStartFailed) as caught:
            await runtime.supervisor("/some").start_child(ChildSpec("two", Vault))
        said = "/some/two did not start: ValueError: no door behind ***"
        assert str(caught.value) == said
        assert caught.value.__cause__ is None
        with pytest.raises(AgentCrashed):
            await runtime.ref("one").call(Vault.fail)
        await wait_until(lambda: runtime.tree()["/one"].restarts == 1)
    text = (tmp_path / "test.db").read_bytes()
    assert b"no door behind ***" in text
    assert b"no door behind 1234" not in text
