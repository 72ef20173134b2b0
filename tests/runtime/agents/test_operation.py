from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from treewarden import Agent, ChildSpec, UnknownOperation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Greeter(Agent[None]):
    def greet(self) -> str:
        return "hello"

    async def part(self) -> str:
        return "bye"

    see_off = part


class Loud(Greeter):
    def greet(self) -> str:
        return super().greet().upper()

    async def part(self) -> str:
        return "BYE"


class Named:
    """Something that goes by the name of an operation and cannot be hashed."""

    __name__ = "greet"
    __hash__ = None  # type: ignore[assignment]


async def loud(start: StartAgents, address: Address) -> Any:
    supervisor = await start(ChildSpec("loud", Loud))
    return address(supervisor, "/loud")


async def test_an_override_wins_over_the_method_that_a_caller_named(
    start_agents: StartAgents, address: Address
) -> None:
    ref = await loud(start_agents, address)
    assert await ref.call(Greeter.greet) == "HELLO"
    assert await ref.call(Loud.greet) == "HELLO"
    assert await ref.call(Greeter.part) == "BYE"


async def test_an_operation_is_found_by_what_goes_by_its_name(
    start_agents: StartAgents, address: Address
) -> None:
    ref = await loud(start_agents, address)
    assert await ref.call(Greeter.see_off) == "BYE"
    assert await ref.call("see_off") == "bye"
    assert await ref.call(Named()) == "HELLO"


async def test_a_function_of_another_class_is_meant_by_its_name(
    start_agents: StartAgents, address: Address
) -> None:
    class Stranger(Agent[None]):
        def greet(self) -> str:
            return "who are you?"

        def rob(self) -> None:
            """No operation of a greeter."""

    ref = await loud(start_agents, address)
    assert await ref.call(Stranger.greet) == "HELLO"
    with pytest.raises(UnknownOperation, match="has no operation 'rob'"):
        await ref.call(Stranger.rob)


async def test_what_has_no_name_is_no_operation(
    start_agents: StartAgents, address: Address
) -> None:
    ref = await loud(start_agents, address)
    unnamed: tuple[Any, ...] = ([], 3, lambda agent: None)
    for nothing in unnamed:
        with pytest.raises(UnknownOperation):
            await ref.call(nothing)
        with pytest.raises(UnknownOperation):
            await ref.cast(nothing)
