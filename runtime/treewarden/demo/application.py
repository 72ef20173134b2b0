"""The demo as a tree: sites, frontier, fetchers, indexer, and those who watch them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from treewarden import (
    Application,
    ChildSpec,
    ConfigError,
    DynamicSupervisorSpec,
    SupervisorSpec,
)

from .census import Census
from .crew import Crew
from .document import absolute
from .fetcher import Pace
from .frontier import Frontier, Scope
from .index import Index, index_path
from .indexer import Indexer
from .lookout import Lookout
from .pages import SITES, index_of, library_folder, render_library
from .progress import Progress
from .sites import serve_site
from .survey import Surveyor
from .web import GUEST_MANNERS, OWN_MANNERS, Web

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import Config

    from .sites import Ports

NAME: Final = "demo"
PAGES: Final = 500
"""How many addresses of a real site are taken up, unless told otherwise."""

_FETCHERS: Final = 6
# So that one can watch it: about 25 pages a second among six, done within half a minute.
_OWN_PACE: Final = Pace(between=0.2, attempts=math.inf)
# A guest's manners: one request a second, and no page is asked for more than ten times.
_GUEST_PACE: Final = Pace(between=1.0, attempts=10)
# Rendering takes 5 s on an idle core; a loaded machine may take ten times as long.
_RENDER_SECONDS: Final = 120.0


def application(
    config: Config, *, url: str | None = None, pages: int = PAGES
) -> Application:
    """The demo: a crawl of the standard library's documentation, or of the site at `url`.

    The index and the request logs stand beside the store. A crawl of a site is an
    application of its own name, with a store of its own.

    Raises:
        ConfigError: the URL is none, or the store is volatile.
    """
    if config.level == "volatile":
        raise ConfigError("the demo keeps what it found: level cannot be volatile")
    if url is not None:
        return _guest(config, url, pages)
    store = config.store_path(NAME)
    ports: Ports = {}
    seeds = tuple(map(index_of, SITES))
    web = Web(ports, OWN_MANNERS)
    return Application(
        NAME,
        [
            ChildSpec(
                "library",
                render_library,
                args=(library_folder(),),
                restart="transient",
                start_timeout=_RENDER_SECONDS,
            ),
            ChildSpec("sites", _sites(ports, logs_folder(store))),
            *_crawl(web, store, Scope(seeds=seeds, limit=10_000), _OWN_PACE, _FETCHERS),
            ChildSpec("lookout", Lookout, args=(web, seeds)),
            ChildSpec("surveyor", Surveyor, args=(web, seeds)),
        ],
    )


def logs_folder(store: Path) -> Path:
    """Where the sites' request logs are."""
    return store.with_name(f"{store.stem}.requests")


def _guest(config: Config, url: str, pages: int) -> Application:
    seed = absolute(url, "")
    if seed is None:
        raise ConfigError(
            f"--url: expected an http:// or https:// address, not {url!r}"
        )
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(seed).netloc)
    name = f"{NAME}-{host}"[:64]
    scope = Scope(seeds=(seed,), limit=pages)
    crawl = _crawl(
        Web({}, GUEST_MANNERS), config.store_path(name), scope, _GUEST_PACE, 1
    )
    return Application(name, crawl)


def _sites(ports: Ports, logs: Path) -> SupervisorSpec:
    kwargs = {"library": library_folder(), "logs": logs}
    return SupervisorSpec(
        [ChildSpec(s, serve_site, args=(s, ports), kwargs=kwargs) for s in SITES]
    )


def _crawl(
    web: Web, store: Path, scope: Scope, pace: Pace, fetchers: int
) -> list[ChildSpec]:
    return [
        ChildSpec("census", Census),
        ChildSpec("indexer", Indexer, args=(Index(index_path(store)),)),
        ChildSpec("frontier", Frontier, args=(scope,)),
        ChildSpec("fetchers", DynamicSupervisorSpec(max_children=fetchers)),
        ChildSpec("crew", Crew, args=(web, pace, fetchers)),
        ChildSpec("progress", Progress),
    ]
