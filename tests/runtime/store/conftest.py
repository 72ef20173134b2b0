"""Stores to test with, and units to hand over."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from treewarden.clock import wall_ns
from treewarden.store import StagedEvent, StateWrite, Store, Unit, open_store
from treewarden.store.database import Opened, open_database
from treewarden.store.level import Level
from treewarden.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


class MakeUnit(Protocol):
    """Makes a unit of `path` with some of the things that units have."""

    def __call__(
        self,
        path: str = "/a",
        revision: int | None = None,
        *,
        payload: bytes | None = None,
        events: tuple[str, ...] = (),
        bad: bool = False,
        needs: tuple[Unit, ...] = (),
    ) -> Unit: ...


@pytest.fixture
def make() -> MakeUnit:
    """A maker of units; `bad` ones break a constraint of the file."""

    def make(
        path: str = "/a",
        revision: int | None = None,
        *,
        payload: bytes | None = None,
        events: tuple[str, ...] = (),
        bad: bool = False,
        needs: tuple[Unit, ...] = (),
    ) -> Unit:
        unit = Unit(path)
        if revision is not None:
            unit.state = StateWrite("Counter", 1, revision, payload or b'{"n":1}')
        if events:
            # Of now: what is older than a week may go whenever nobody waits.
            unit.events = [StagedEvent(topic, b"null", wall_ns()) for topic in events]
        if bad:
            statement = "INSERT INTO meta (key, value, crc) VALUES (?, ?, 0)"
            unit.writes = [(statement, ("boot", "a second one"))]
        unit.needs = needs
        return unit

    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store's file is."""
    return tmp_path / "store.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Store]:
    """A durable store."""
    async with open_store(file) as store:
        yield store


@pytest.fixture
def opened(file: Path) -> Iterator[Opened]:
    """A database opened for one writer, without threads."""
    opened = open_database(file, level=Level.DURABLE, application="", boot="boot")
    yield opened
    for reader in opened.readers:
        reader.close()
    opened.database.close()


@pytest.fixture
def writer(opened: Opened) -> Iterator[Writer]:
    """A writer, to be called by the test itself."""
    writer = Writer(opened)
    yield writer
    writer.close()


@pytest.fixture
def foreign(file: Path) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
    """Makes connections as another process would have them."""

    @contextmanager
    def foreign() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            yield connection

    return foreign


@pytest.fixture
def gate(
    foreign: Callable[[], AbstractContextManager[sqlite3.Connection]],
) -> Callable[[], AbstractContextManager[None]]:
    """Holds the writer at its next transaction, as a foreign process would."""

    @contextmanager
    def gate() -> Iterator[None]:
        with foreign() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    return gate
