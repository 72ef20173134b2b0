from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from treewarden import (
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    Refused,
    open_runtime,
)
from treewarden.demo.document import Page
from treewarden.demo.index import Index, index_path, indexed
from treewarden.demo.indexer import Indexer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import Runtime

URL = "http://healthy.localhost/json.html"
PAGE = Page(url=URL, title="json", text="encoder")


@asynccontextmanager
async def open_indexer(store: Path) -> AsyncIterator[Runtime]:
    index = Index(index_path(store))
    app = Application("index", [ChildSpec("indexer", Indexer, args=(index,))])
    async with open_runtime(app, config=Config(store=store, socket=False)) as runtime:
        yield runtime


async def test_a_page_is_added_once_also_after_a_crash(tmp_path: Path) -> None:
    store = tmp_path / "demo.db"
    async with open_indexer(store) as runtime:
        indexer = runtime.ref("/indexer", Indexer)
        assert await indexer.call(Indexer.add, PAGE)
        runtime.injections.crash("/indexer")
        assert not await indexer.call(Indexer.add, PAGE)
        assert indexer.incarnation == 2
        assert indexed(store) == (frozenset({URL}), 0)


async def test_an_index_that_cannot_be_written_refuses_pages_until_it_can(
    tmp_path: Path,
) -> None:
    store = tmp_path / "demo.db"
    async with open_indexer(store) as runtime:
        indexer = runtime.ref("/indexer", Indexer)
        with closing(sqlite3.connect(index_path(store))) as other:
            # Somebody else's broken trigger stands for a full disk: OperationalError.
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON additions BEGIN "
                "INSERT INTO missing VALUES (1); END"
            )
            with pytest.raises(Refused, match=r"demo\.index\.db cannot be written"):
                await indexer.call(Indexer.add, PAGE)
            other.execute("DROP TRIGGER full")
        assert await indexer.call(Indexer.add, PAGE)
        assert indexer.incarnation == 1


async def test_a_page_that_breaks_a_rule_of_the_index_crashes_the_indexer(
    tmp_path: Path,
) -> None:
    store = tmp_path / "demo.db"
    async with open_indexer(store) as runtime:
        indexer = runtime.ref("/indexer", Indexer)
        with closing(sqlite3.connect(index_path(store))) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON additions BEGIN "
                "SELECT raise(ABORT, 'no'); END"
            )
        with pytest.raises(AgentCrashed, match="IntegrityError: no"):
            await indexer.call(Indexer.add, PAGE)
