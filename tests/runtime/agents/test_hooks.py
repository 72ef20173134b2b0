"""Functions that hear of every message of an agent while somebody looks for something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    ChildSpec,
    Handled,
    Refused,
    TreewardenError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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

    async def nap(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def refuse(self) -> None:
        raise Refused("on purpose")

    async def stage_when_told(self) -> None:
        def stage(_: Handled) -> None:
            self.ref.uninstall(stage)
            self.cast(self.ref, Counter.add, 100)

        self.ref.install(stage)


@pytest.fixture
async def ref(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> Any:
    return address(await start_agents(ChildSpec("counter", Counter)), "/counter")


class Heard:
    """A hook that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[Handled] = []

    def tell(self, handled: Handled) -> None:
        self.messages.append(handled)

    @property
    def names(self) -> list[str]:
        return [one.operation for one in self.messages]


async def test_a_hook_hears_of_every_message_and_what_became_of_it(ref: Any) -> None:
    """SYS-04, SYS-06"""
    heard = Heard()
    await ref.call(Counter.get)
    ref.install(heard.tell)
    await ref.call(Counter.add, 1)
    await ref.call(Counter.get)
    with pytest.raises(Refused):
        await ref.call(Counter.refuse)
    with pytest.raises(AgentCrashed):
        await ref.call(Counter.fail)
    await ref.cast(Counter.add, 1)
    await wait_all_tasks_blocked()
    assert [(one.operation, one.outcome) for one in heard.messages] == [
        ("add", "done"),
        ("get", "done"),
        ("refuse", "refused"),
        ("fail", "crashed"),
        ("add", "done"),
    ]
    assert ref.recent()[1:] == tuple(heard.messages)


async def test_a_hook_that_is_installed_twice_is_there_once(ref: Any) -> None:
    """SYS-06: one that is the same method of the same object is the same."""
    heard = Heard()
    ref.install(heard.tell)
    ref.install(heard.tell)
    await ref.call(Counter.get)
    assert heard.names == ["get"]
    ref.uninstall(heard.tell)
    await ref.call(Counter.get)
    assert heard.names == ["get"]


async def test_a_hook_that_is_uninstalled_hears_no_more_and_others_do(ref: Any) -> None:
    """SYS-06: with the last of them the ring is the plain one again."""
    first, second = Heard(), Heard()
    await ref.call(Counter.get)
    plain = type(ref.resolve().ring)
    ref.install(first.tell)
    ref.install(second.tell)
    await ref.call(Counter.get)
    ref.uninstall(first.tell)
    ref.uninstall(first.tell)
    await ref.call(Counter.add, 1)
    assert (first.names, second.names) == (["get"], ["get", "add"])
    assert type(ref.resolve().ring) is not plain
    ref.uninstall(second.tell)
    assert type(ref.resolve().ring) is plain
    assert [one.operation for one in ref.recent()] == ["get", "get", "add"]


async def test_all_hooks_are_off_at_once_and_what_was_handled_is_still_known(
    ref: Any,
) -> None:
    """SYS-06: off, they cost nothing: the ring is the plain one again."""
    ref.uninstall_all()
    heard = Heard(), Heard()
    await ref.call(Counter.get)
    plain = type(ref.resolve().ring)
    for one in heard:
        ref.install(one.tell)
    await ref.call(Counter.add, 1)
    ref.uninstall_all()
    await ref.call(Counter.add, 2)
    assert [one.names for one in heard] == [["add"], ["add"]]
    assert [one.operation for one in ref.recent()] == ["get", "add", "add"]
    assert type(ref.resolve().ring) is plain


async def test_a_hook_that_fails_is_uninstalled_and_hurts_nobody(
    ref: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """SYS-06"""
    heard, told = Heard(), 0

    def failing(_: Handled) -> None:
        nonlocal told
        told += 1
        raise LookupError("on purpose")

    ref.install(failing)
    ref.install(heard.tell)
    assert await ref.call(Counter.add, 1) == 1
    assert await ref.call(Counter.add, 1) == 2
    assert (told, heard.names, ref.incarnation) == (1, ["add", "add"], 1)
    (record,) = caplog.records
    assert "/counter" in record.getMessage()
    assert record.exc_info is not None


async def test_a_hook_may_take_itself_off(ref: Any) -> None:
    """SYS-06: as OTP's does by answering `done`."""
    heard = Heard()

    def once(handled: Handled) -> None:
        heard.tell(handled)
        ref.uninstall(once)

    ref.install(once)
    await ref.call(Counter.get)
    await ref.call(Counter.get)
    assert heard.names == ["get"]


async def test_a_hook_that_comes_in_the_middle_of_a_batch_hears_the_rest_of_it(
    ref: Any,
) -> None:
    """SYS-06"""
    heard = Heard()
    await ref.cast(Counter.nap, 1)
    await ref.cast(Counter.add, 1)
    await wait_all_tasks_blocked()
    ref.install(heard.tell)
    await trio.sleep(2)
    assert heard.names == ["nap", "add"]


async def test_a_hook_is_no_part_of_a_handler(
    ref: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """SYS-06: what it tried to stage would leave with somebody else's message."""
    await ref.call(Counter.stage_when_told)
    assert await ref.call(Counter.get) == 0
    await wait_all_tasks_blocked()
    assert await ref.call(Counter.get) == 0
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TreewardenError)
