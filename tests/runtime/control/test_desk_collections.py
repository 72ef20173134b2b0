"""What an operator sees of durable collections, and whom a filter on states finds."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

import treewarden.control.protocol as wire
from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableMap,
    DurableQueue,
    open_runtime,
)
from treewarden.control import Client, Desk
from treewarden.errors import NotAllowed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import Runtime

READER = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.RO)


class Shelf(msgspec.Struct):
    """What a stock keeper knows; the code is a secret."""

    count: int = 0
    code: str = "4711"


class Stock(Agent[Shelf]):
    orders: DurableQueue[int]
    places: DurableMap[str, int]

    async def fill(self, count: int) -> None:
        self.state.count = count
        for number in range(count):
            await self.orders.put(number)
            await self.places.set(str(number % 2), number)

    @classmethod
    def redact(cls, state: Shelf) -> object:
        return {"count": state.count, "code": "hidden"}


class Other(Agent[Shelf]):
    pass


@asynccontextmanager
async def stocks(tmp_path: Path) -> AsyncIterator[tuple[Runtime, Desk]]:
    names = [f"s{number}" for number in range(5)]
    children = [*(ChildSpec(name, Stock) for name in names), ChildSpec("other", Other)]
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(Application("shop", children), config=config) as runtime:
        for count, name in enumerate(names):
            await runtime.ref(name, Stock).call(Stock.fill, count + 1)
        yield runtime, runtime.desk()


async def found(desk: Desk, *where: wire.Criterion, of: str = "Stock") -> list[str]:
    asked = wire.GetAgents(type=of, where=list(where))
    answer = await desk.perform("agents", asked, READER)
    assert isinstance(answer, wire.Agents)
    assert answer.rows_examined is not None
    return [row.path for row in answer.rows]


async def test_queues_and_maps_are_listed_with_what_is_committed(
    tmp_path: Path,
) -> None:
    async with stocks(tmp_path) as (_, desk):
        answer = await desk.perform("queues", wire.GetQueues(), READER)
        assert isinstance(answer, wire.Queues)
        rows = [(row.path, row.name, row.kind, row.items) for row in answer.rows]
        assert rows[:4] == [
            ("/s0", "orders", "queue", 1),
            ("/s0", "places", "map", 1),
            ("/s1", "orders", "queue", 2),
            ("/s1", "places", "map", 2),
        ]
        assert len(rows) == 10


async def test_agents_are_found_by_their_state_with_and_without_an_index(
    tmp_path: Path,
) -> None:
    async with stocks(tmp_path) as (runtime, desk):
        many = wire.Criterion(field="count", op="gte", value=4)
        assert await found(desk, many) == ["/s3", "/s4"]
        await runtime.store.index_states("Stock", "count")
        assert await found(desk, many) == ["/s3", "/s4"]
        answer = await desk.perform(
            "agents", wire.GetAgents(type="Stock", where=[many]), READER
        )
        assert isinstance(answer, wire.Agents)
        assert answer.rows_examined == 2
        assert await found(desk, of="Stock") == [f"/s{number}" for number in range(5)]
        assert await found(desk, many, of="Other") == []


@pytest.mark.parametrize(("op", "value"), [("eq", "4711"), ("neq", "0"), ("like", "%")])
async def test_nobody_is_found_by_what_is_redacted(
    tmp_path: Path, op: str, value: str
) -> None:
    async with stocks(tmp_path) as (_, desk):
        raw = {"field": "code", "op": op, "value": value}
        assert await found(desk, msgspec.convert(raw, wire.Criterion)) == []


async def test_what_is_no_criterion_is_refused(tmp_path: Path) -> None:
    async with stocks(tmp_path) as (_, desk):
        with pytest.raises(NotAllowed, match="names with dots"):
            await found(desk, wire.Criterion(field="a b", op="eq", value=1))
