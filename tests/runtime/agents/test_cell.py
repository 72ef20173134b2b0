"""Elixir's Agent, a value that others read and change: here any agent with such methods.

What callers bring are functions over the state, as arguments like others.
"""

from __future__ import annotations

from collections.abc import Callable
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
    DynamicSupervisorSpec,
    StateNotEncodable,
    open_runtime,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import StartAgents


class Value(msgspec.Struct):
    number: int = 0


Change = Callable[[int], int]


class Cell(Agent[Value]):
    persistence = "none"

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def initial_state(self) -> Value:
        return Value(self.number)

    def get(self, read: Change = lambda number: number) -> int:
        return read(self.state.number)

    def update(self, change: Change) -> None:
        self.state.number = change(self.state.number)

    def get_and_update(self, change: Change) -> int:
        before = self.state.number
        self.update(change)
        return before

    async def update_slowly(self, change: Change) -> None:
        await trio.sleep(10)
        self.update(change)


@pytest.fixture
async def cell(start_agents: StartAgents, address: Callable[..., Any]) -> Any:
    spec = ChildSpec("cell", Cell, args=(3,), restart="temporary")
    return address(await start_agents(spec), "/cell")


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise ValueError(f"not {number}")


async def test_a_value_is_read_changed_and_stopped(
    cell: Any, autojump_clock: object
) -> None:
    """CEL-01"""
    assert await cell.call(Cell.get) == 3
    assert await cell.call(Cell.get, double) == 6
    await cell.call(Cell.update, double)
    assert await cell.call(Cell.get_and_update, lambda number: number + 1) == 6
    assert await cell.call(Cell.get) == 7
    await cell.stop()
    with pytest.raises(AgentDown):
        await cell.call(Cell.get)


async def test_a_value_is_found_by_name_and_changed_by_casts(tmp_path: Path) -> None:
    """CEL-02"""
    app = Application("test", [ChildSpec("cell", Cell)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        for name in ("cell", "/cell"):
            cell = runtime.ref(name, Cell)
            await cell.cast(Cell.update, lambda number: number + 4)
        assert await cell.call(Cell.get) == 8


@pytest.mark.parametrize("operation", [Cell.get, Cell.update, Cell.get_and_update])
async def test_a_function_that_raises_crashes_the_cell_and_tells_why(
    cell: Any, operation: Any, autojump_clock: object
) -> None:
    """CEL-03"""
    with pytest.raises(AgentCrashed, match="ValueError: not 3"):
        await cell.call(operation, fail)
    await wait_all_tasks_blocked()
    with pytest.raises(AgentDown):
        await cell.call(Cell.get)


async def test_a_function_goes_on_when_its_caller_has_no_more_patience(
    cell: Any, autojump_clock: object
) -> None:
    """CEL-03"""
    with pytest.raises(CallTimeout):
        await cell.call(Cell.update_slowly, double)
    assert trio.current_time() == 5
    assert await cell.with_timeout(20).call(Cell.get) == 6


@pytest.mark.parametrize("suspended", [True, False])
async def test_a_value_that_cannot_be_changes_nothing(
    cell: Any, suspended: bool, autojump_clock: object
) -> None:
    """CEL-04"""
    if suspended:
        cell.suspend()
    with pytest.raises(StateNotEncodable):
        await cell.replace_state(msgspec.Raw(b'{"number": "many"}'))
    await cell.replace_state(Value(40))
    cell.resume()
    assert await cell.call(Cell.get) == 40


async def test_a_cell_is_a_child_like_any_other(
    start_agents: StartAgents, address: Callable[..., Any], autojump_clock: object
) -> None:
    """CEL-05: with its first value, under any supervisor, at every start."""
    supervisor = await start_agents(
        ChildSpec("cell", Cell, kwargs={"number": 5}),
        ChildSpec("cells", DynamicSupervisorSpec()),
    )
    cells = supervisor.supervisor("cells")
    for number in range(3):
        await cells.start_child(ChildSpec(f"c{number}", Cell, args=(number,)))
    values = [
        await address(supervisor, f"/cells/c{number}").call(Cell.get)
        for number in range(3)
    ]
    assert values == [0, 1, 2]
    cell = address(supervisor, "/cell")
    await cell.call(Cell.update, double)
    with pytest.raises(AgentCrashed):
        await cell.call(Cell.update, fail)
    assert await cell.call(Cell.get) == 5
