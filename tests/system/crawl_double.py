"""The demo's crawl on a small site, whole or broken on purpose, and killed at one point.

    python crawl_double.py DATA_DIR FRONTIER INDEX MOMENT

FRONTIER: `whole`; `acknowledges_first`, which takes an address off the list when it hands
it out; or `announces_first`, which tells of a page when it hands out its address. INDEX: `whole`, or `unguarded`, which adds a page that it has. MOMENT:
`before` or `after` the tenth page is in the index, `kill -9`; `never`: run to the end.
The judge has to tell them apart (`test_demo.py`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from treewarden import (
    Application,
    ChildSpec,
    Config,
    DynamicSupervisorSpec,
    SupervisorSpec,
    open_runtime,
)
from treewarden.demo.application import logs_folder
from treewarden.demo.census import Census
from treewarden.demo.crew import Crew
from treewarden.demo.document import Page  # noqa: TC001 - an operation's argument
from treewarden.demo.fetcher import Pace
from treewarden.demo.frontier import INDEXED, Errand, Frontier, Indexed, Scope
from treewarden.demo.index import Index, index_path
from treewarden.demo.indexer import Indexer
from treewarden.demo.modules import MODULES
from treewarden.demo.pages import SITES, index_of
from treewarden.demo.sites import Habit, serve_site
from treewarden.demo.web import OWN_MANNERS, Web

if TYPE_CHECKING:
    from treewarden.demo.sites import Ports

# As the demo asks its own sites, but as fast as they can.
FAST = replace(OWN_MANNERS, rate=None)
_PAGES = 40
_TENTH = 10


class AcknowledgesFirst(Frontier):
    """Broken: what it has handed out it forgets, unless it is told of a failure."""

    async def take(self, fetcher: str) -> Errand | None:
        errand = await super().take(fetcher)
        if errand is not None:
            await self.pending.ack(errand.url)
        return errand

    async def give_back(self, fetcher: str, url: str, delay: float) -> None:
        await self.pending.put(url, key=url, delay=delay)
        await super().give_back(fetcher, url, delay)


class AnnouncesFirst(Frontier):
    """Broken: it tells of a page before it is in the index, each time that it is tried."""

    async def take(self, fetcher: str) -> Errand | None:
        errand = await super().take(fetcher)
        if errand is not None:
            host = urlsplit(errand.url).netloc
            self.state.announced += 1
            self.publish(INDEXED, Indexed(url=errand.url, host=host, links=0))
        return errand

    async def done(self, fetcher: str, url: str, links: list[str]) -> None:
        await self.skip(fetcher, url, links)


class UnguardedIndex(Index):
    """Broken: it does not look whether it has the page."""

    def add(self, page: Page) -> bool:
        connection = self._opened()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            row = (page.title, page.text, page.url)
            connection.execute(
                "INSERT INTO words (title, text, url) VALUES (?, ?, ?)", row
            )
            connection.execute(
                "INSERT INTO additions (url, at_ns) VALUES (?, 0)", (page.url,)
            )
        return True


FRONTIERS = {
    "whole": Frontier,
    "acknowledges_first": AcknowledgesFirst,
    "announces_first": AnnouncesFirst,
}


class MortalIndexer(Indexer):
    """Takes the whole process with it at the tenth page."""

    def __init__(self, index: Index, moment: str) -> None:
        super().__init__(index)
        self._moment = moment
        self._added = 0

    async def add(self, page: Page) -> bool:
        self._added += 1
        last = self._added == _TENTH
        if last and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        added = await super().add(page)
        if last and self._moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return added


def make_library(folder: Path) -> None:
    """Pages that need no rendering; each links to its site's index."""
    names = MODULES[:_PAGES]
    folder.mkdir(exist_ok=True)
    for name in names:
        text = f'<title>{name}</title><a href="/">index</a> all about {name}'
        (folder / f"{name}.html").write_text(text, "utf-8")
    found = {"rendered": names, "skipped": {}}
    (folder / "pages.json").write_text(json.dumps(found), "utf-8")


def crawl(folder: Path, frontier: str, index: str, moment: str) -> Application:
    store = folder / "double.db"
    ports: Ports = {}
    web = Web(ports, FAST)
    scope = Scope(seeds=tuple(map(index_of, SITES)), limit=1000)
    serve = partial(
        serve_site, library=folder / "library", logs=logs_folder(store), habit=Habit()
    )
    sites = SupervisorSpec([ChildSpec(s, serve, args=(s, ports)) for s in SITES])
    index_type = UnguardedIndex if index == "unguarded" else Index
    frontier_type = FRONTIERS[frontier]
    indexer = (index_type(index_path(store)), moment)
    pace = Pace(between=0.0, attempts=1000)
    return Application(
        "double",
        [
            ChildSpec("sites", sites),
            ChildSpec("census", Census),
            ChildSpec("indexer", MortalIndexer, args=indexer),
            ChildSpec("frontier", frontier_type, args=(scope,)),
            ChildSpec("fetchers", DynamicSupervisorSpec()),
            ChildSpec("crew", Crew, args=(web, pace, 6)),
        ],
    )


async def main(folder: Path, frontier: str, index: str, moment: str) -> None:
    await trio.to_thread.run_sync(make_library, folder / "library")
    app = crawl(folder, frontier, index, moment)
    config = Config(store=folder / "double.db", socket=False)
    with trio.fail_after(120):
        async with open_runtime(app, config=config) as runtime:
            ref = runtime.ref("/frontier", Frontier)
            account = await ref.call(Frontier.account)
            # Held ones too: the broken frontier's list is empty while pages are fetched.
            while account.pending or account.held or account.found < len(SITES):
                await trio.sleep(0.01)
                account = await ref.call(Frontier.account)
            census = runtime.ref("/census", Census)
            while (  # noqa: ASYNC110 - a bounded wait, from outside
                sum((await census.call(Census.counts)).values()) < account.announced
            ):
                await trio.sleep(0.01)


if __name__ == "__main__":
    trio.run(partial(main, Path(sys.argv[1]), *sys.argv[2:]))
