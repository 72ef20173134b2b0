"""How agents get their state back: fewer looks at the file, and never an earlier state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from treewarden.errors import RestoreError, StoreClosed
from treewarden.store import Store, open_store
from treewarden.store.loading import LEAST_AHEAD, MOST_AHEAD, StateLoader

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .conftest import MakeUnit

    Foreign = Callable[[], AbstractContextManager[sqlite3.Connection]]

AGENTS = 3000


def path_of(number: int) -> str:
    return f"/agent/{number}"


async def fill(store: Store, make: MakeUnit, agents: int = AGENTS) -> None:
    """Each agent at revision 1, in the order of their numbers."""
    for number in range(agents):
        payload = b'{"n":%d}' % number
        store.hand_over(make(path_of(number), 1, payload=payload))
    await store.settled()


class Looks:
    """A loader whose looks at the file are counted."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        self.loader = StateLoader(self._read, looks_for_lost=True)
        self._store = store

    async def _read(self, question: Callable[[sqlite3.Connection], object]) -> object:
        self.count += 1
        return await self._store.read(question)


@pytest.fixture
def looks(store: Store) -> Looks:
    """A loader of the same store."""
    return Looks(store)


async def test_agents_that_start_in_their_order_share_looks_at_the_file(
    store: Store, make: MakeUnit, looks: Looks
) -> None:
    await fill(store, make)
    for number in range(AGENTS):
        stored = await looks.loader.load(path_of(number), "Counter", 1)
        assert stored is not None
        assert (stored.revision, stored.payload) == (1, b'{"n":%d}' % number)
        assert stored.store_as == "Counter"
        assert stored.state_version == 1
    assert looks.count < 6 + AGENTS / MOST_AHEAD


async def test_an_agent_that_starts_alone_costs_one_look_and_a_few_rows(
    store: Store, make: MakeUnit, looks: Looks
) -> None:
    await fill(store, make)
    for number in (7, 2000, 50):
        await looks.loader.load(path_of(number), "Counter", 1)
    assert looks.count == 3
    for number in range(51, 51 + LEAST_AHEAD):
        await looks.loader.load(path_of(number), "Counter", 1)
    assert looks.count == 3
    await looks.loader.load(path_of(51 + LEAST_AHEAD), "Counter", 1)
    assert looks.count == 4


async def test_what_is_read_ahead_is_never_an_earlier_state(
    store: Store, make: MakeUnit
) -> None:
    await fill(store, make, 10)
    await store.load(path_of(0), "Counter")
    store.hand_over(make(path_of(1), 2))
    await store.settled()
    stored = await store.load(path_of(1), "Counter")
    assert stored is not None
    assert stored.revision == 2


async def test_nothing_is_read_ahead_while_a_unit_is_on_its_way(
    store: Store, make: MakeUnit, gate: Callable[[], AbstractContextManager[None]]
) -> None:
    await fill(store, make, 10)
    with gate():
        store.hand_over(make(path_of(1), 2))
        await store.load(path_of(0), "Counter")
    await store.settled()
    stored = await store.load(path_of(1), "Counter")
    assert stored is not None
    assert stored.revision == 2


@pytest.mark.parametrize(
    "damage",
    [
        "SET payload = '{}'",
        "SET store_as = 'Other'",
        "SET revision = 7",
        "SET at_ns = at_ns + 1",
        "SET crc = 0",
    ],
)
async def test_a_damaged_row_is_not_read_ahead_and_refused_to_who_asks_for_it(
    store: Store, make: MakeUnit, foreign: Foreign, damage: str
) -> None:
    await fill(store, make, 4)
    with foreign() as connection:
        connection.execute(f"UPDATE agent_state {damage} WHERE path = '/agent/1'")
    assert await store.load(path_of(0), "Counter") is not None
    with pytest.raises(RestoreError, match="checksum"):
        await store.load(path_of(1), "Counter")
    assert await store.load(path_of(2), "Counter") is not None


async def test_a_state_that_was_read_ahead_is_refused_to_another_type(
    store: Store, make: MakeUnit
) -> None:
    await fill(store, make, 2)
    await store.load(path_of(0), "Counter")
    with pytest.raises(RestoreError, match="is of type 'Counter', not 'Other'"):
        await store.load(path_of(1), "Other")


async def test_a_closed_store_gives_nothing_it_has_read_ahead(
    file: Path, make: MakeUnit
) -> None:
    async with open_store(file) as store:
        await fill(store, make, 2)
        await store.load(path_of(0), "Counter")
    with pytest.raises(StoreClosed):
        await store.load(path_of(1), "Counter")
