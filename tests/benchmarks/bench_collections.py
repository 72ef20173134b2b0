"""Durable collections: what an operation costs must not depend on how much there is.

    python tests/benchmarks/bench_collections.py              our rows
    python tests/benchmarks/bench_collections.py --compare    in rounds, against the goals

Each operation is a handler of its own, committed with those that came meanwhile (level
durable). Cost is CPU time of the whole process, the writer's thread included. Small and
large take turns within one measurement, so that both see the same machine.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Protocol

import trio
from rounds import Goal, emit, main

from treewarden.ids import new_id
from treewarden.store import DurableMap, DurableQueue, Store, Unit, open_store
from treewarden.store.checksums import checksum

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

TURNS: Final = 7
OPERATIONS: Final = 1000
SMALL_QUEUE, SMALL_MAP, LARGE = 1_000, 10, 1_000_000
PATH, NAME = "/crawl/frontier", "pending"
VALUE: Final = "https://docs.example.org/library/asyncio-task.html"
pick = random.Random(1)  # noqa: S311 - choosing, not keeping secrets

GOALS = tuple(
    Goal(
        what=f"{collection} of {LARGE:,}: {operation}",
        ours=f"treewarden.{collection}.{operation}.{LARGE}",
        than=f"treewarden.{collection}.{operation}.{small}",
        at_most=1.3,
    )
    for collection, small, operations in (
        ("queue", SMALL_QUEUE, ("put", "put_key", "take", "take_ack")),
        ("map", SMALL_MAP, ("set", "replace", "get", "get_hot")),
    )
    for operation in operations
)


class Collection(Protocol):
    """What a handler's end needs."""

    def seal(self, unit: Unit) -> None: ...


def fill(file: Path, table: str, count: int) -> None:
    """As if so many items had been put and committed."""
    payload = f'"{VALUE}"'
    queue = table == "queue_item"

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(1, count + 1):
            key = new_id() if queue else str(number)
            middle = (number, 0, None) if queue else ()
            crc = checksum(payload.encode(), PATH, NAME, key, *middle)
            yield PATH, NAME, key, *middle, payload, crc

    columns = "path, name, key, seq, attempts, free_at, payload, crc"
    if not queue:
        columns = "path, name, key, payload, crc"
    marks = ", ".join("?" for _ in columns.split(","))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA cache_size = -200000")
        connection.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - our own names
            rows(),
        )
        connection.commit()


async def made(stack: AsyncExitStack, folder: Path, table: str, count: int) -> Store:
    """A store with so many items in one collection."""
    file = folder / f"{table}-{count}.db"
    async with open_store(file):
        pass
    await trio.to_thread.run_sync(fill, file, table, count)
    return await stack.enter_async_context(open_store(file))


async def microseconds(
    store: Store, collection: Collection, operation: Callable[[], Awaitable[object]]
) -> float:
    """CPU time of one operation, each a handler that commits."""
    began = time.process_time()
    for _ in range(OPERATIONS):
        await operation()
        unit = Unit(PATH)
        collection.seal(unit)
        if unit.writes:
            await store.wait_room()
            store.hand_over(unit)
    await store.settled()
    return (time.process_time() - began) / OPERATIONS * 1e6


async def queue_rows(stack: AsyncExitStack, folder: Path, rows: Rows) -> None:
    """What queues cost, into `rows`."""
    queues: dict[int, tuple[Store, DurableQueue[str]]] = {}
    for count in (SMALL_QUEUE, LARGE):
        store = await made(stack, folder, "queue_item", count)
        queues[count] = store, DurableQueue(store, PATH, NAME, str)
        await queues[count][1].open()
    for _ in range(TURNS):
        for count, (store, queue) in queues.items():

            async def take_and_ack(queue: DurableQueue[str] = queue) -> None:
                item = await queue.take()
                assert item is not None
                await item.ack()

            async def put_key(queue: DurableQueue[str] = queue) -> None:
                await queue.put(VALUE, key=f"{VALUE}?{pick.random()}")

            async def put(queue: DurableQueue[str] = queue) -> None:
                await queue.put(VALUE)

            for name, operation in (
                ("put", put),
                ("take", queue.take),
                ("put_key", put_key),
                ("take_ack", take_and_ack),
            ):
                cost = await microseconds(store, queue, operation)
                rows.setdefault(f"treewarden.queue.{name}.{count}", []).append(cost)


async def map_rows(stack: AsyncExitStack, folder: Path, rows: Rows) -> None:
    """What maps cost, into `rows`."""
    maps: dict[int, tuple[Store, DurableMap[str, str]]] = {}
    for count in (SMALL_MAP, LARGE):
        store = await made(stack, folder, "map_item", count)
        maps[count] = store, DurableMap(store, PATH, NAME, str)
        await maps[count][1].open()
    for _ in range(TURNS):
        for count, (store, items) in maps.items():

            def any_key(count: int = count) -> str:
                return str(pick.randrange(1, count + 1))

            async def replace(
                store: Store = store, items: DurableMap[str, str] = items
            ) -> None:
                # Nothing is in memory: each one reads the file, and is a group.
                await store.settled()
                items.outdated()
                await items.set(any_key(), f"{VALUE}?{pick.random()}")

            async def set_new(items: DurableMap[str, str] = items) -> None:
                await items.set(new_id(), VALUE)

            async def get(items: DurableMap[str, str] = items) -> None:
                items.outdated()
                assert await items.get(any_key()) is not None

            async def get_hot(items: DurableMap[str, str] = items) -> None:
                assert await items.get("1") is not None

            for name, operation in (
                ("replace", replace),
                ("get", get),
                ("get_hot", get_hot),
                ("set", set_new),
            ):
                cost = await microseconds(store, items, operation)
                rows.setdefault(f"treewarden.map.{name}.{count}", []).append(cost)


Rows = dict[str, list[float]]


def measure(_with_bare: bool) -> None:
    """Every row: the best of the turns; what disturbs only ever adds."""

    async def turns(folder: Path) -> Rows:
        rows: Rows = {}
        for measured in (queue_rows, map_rows):
            async with AsyncExitStack() as stack:
                await measured(stack, folder, rows)
        return rows

    with TemporaryDirectory() as folder:
        for name, costs in trio.run(turns, Path(folder)).items():
            emit(name, min(costs), "us")


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, ()))
