"""The demo's web sites and its way out, over real sockets."""

from __future__ import annotations

import itertools
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from treewarden import (
    Application,
    ChildSpec,
    CircuitOpen,
    CircuitPolicy,
    Config,
    ConfigError,
    DynamicSupervisorSpec,
    HttpFailed,
    HttpRefused,
    Intensity,
    RetriesExhausted,
    Runtime,
    WorkflowRef,
    WorkflowUnknown,
    open_runtime,
)
from treewarden.control import Client
from treewarden.control.protocol import GetSteps, Rights
from treewarden.demo import application
from treewarden.demo.census import Census
from treewarden.demo.crew import Crew
from treewarden.demo.fetcher import Pace
from treewarden.demo.frontier import Frontier, Scope
from treewarden.demo.index import Index, index_path, indexed
from treewarden.demo.indexer import Indexer
from treewarden.demo.pages import SITES, site_of
from treewarden.demo.sites import Habit, log_path, serve_site
from treewarden.demo.survey import Surveyor
from treewarden.demo.web import OWN_MANNERS, TROUBLE, Web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden.demo.sites import Ports

PATIENCE = 120
# As the demo asks its own sites, but as patient as a busy machine wants it.
MANNERS = replace(
    OWN_MANNERS,
    timeout=PATIENCE,
    attempt_timeout=PATIENCE,
    connect_timeout=PATIENCE,
    circuit=CircuitPolicy(failure_threshold=4, reset_timeout=4.0),
)
READER = Client(name="test", operator="ada", uid=0, pid=0, rights=Rights.RO)
HOST = "healthy.localhost"
NAMES = [
    name for name in map("page{}".format, range(40)) if site_of(name) == "healthy"
][:3]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Three pages, all at the healthy site."""
    for name in NAMES:
        (tmp_path / f"{name}.html").write_text(f"<title>{name}</title>{name}")
    found = {"rendered": NAMES, "skipped": {}}
    (tmp_path / "pages.json").write_text(json.dumps(found))
    return tmp_path


@asynccontextmanager
async def open_site(
    library: Path, ports: Ports, habit: Habit | None = None
) -> AsyncIterator[None]:
    serve = partial(serve_site, library=library, logs=library, habit=habit or Habit())
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, "healthy", ports)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_web(folder: Path) -> AsyncIterator[Runtime]:
    app = Application("web", [])
    config = Config(store=folder / "web.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        yield runtime


def requests(library: Path) -> list[dict[str, Any]]:
    lines = log_path(library, "healthy").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "path" in entry]


async def test_a_site_serves_its_pages_and_logs_what_it_serves_and_answers(
    library: Path,
) -> None:
    ports: Ports = {}
    async with open_site(library, ports), httpx.AsyncClient() as client:
        site = f"http://127.0.0.1:{ports[HOST]}"
        page = await client.get(f"{site}/{NAMES[0]}.html")
        assert page.text == f"<title>{NAMES[0]}</title>{NAMES[0]}"
        assert NAMES[2] in (await client.get(f"{site}/")).text
        assert (await client.get(f"{site}/robots.txt")).status_code == 200
        assert (await client.get(f"{site}/../pages.json")).status_code == 404
        assert (
            await client.post(f"{site}/", content=b"x" * 100_000)
        ).status_code == 405
        assert (await client.head(f"{site}/")).text == ""

    first = json.loads(log_path(library, "healthy").read_text().splitlines()[0])
    assert first["serves"] == sorted(["/", *(f"/{name}.html" for name in NAMES)])
    statuses = [entry["status"] for entry in requests(library)]
    assert statuses == [200, 200, 200, 404, 405, 200]


async def test_a_site_outlives_clients_that_talk_nonsense_or_hang_up(
    library: Path,
) -> None:
    ports: Ports = {}
    async with open_site(library, ports):
        for nonsense in (b"\x16\x03\x01 this is TLS\r\n\r\n", b"GET / HT", b""):
            stream = await trio.open_tcp_stream("127.0.0.1", ports[HOST])
            await stream.send_all(nonsense)
            await stream.aclose()
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{ports[HOST]}/")
        assert answer.status_code == 200


async def test_a_site_comes_back_at_the_port_it_had_unless_that_was_taken(
    library: Path,
) -> None:
    ports: Ports = {}
    async with open_site(library, ports):
        port = ports[HOST]
    async with open_site(library, ports):
        assert ports[HOST] == port
    with socket.create_server(("127.0.0.1", port)):
        async with open_site(library, ports):
            assert ports[HOST] != port


async def test_a_flaky_site_fails_the_same_requests_in_every_run(library: Path) -> None:
    runs = []
    for _ in range(2):
        ports: Ports = {}
        statuses = []
        habit = Habit(fails=0.3, hangs_up=0.3)
        async with open_site(library, ports, habit), httpx.AsyncClient() as client:
            for _ in range(20):
                try:
                    answer = await client.get(f"http://127.0.0.1:{ports[HOST]}/")
                    statuses.append(answer.status_code)
                except httpx.RemoteProtocolError:
                    statuses.append(0)
        runs.append(statuses)
    assert runs[0] == runs[1]
    assert set(runs[0]) == {0, 200, 500}


async def test_the_circuit_of_a_site_opens_when_it_dies_and_closes_when_it_is_back(
    library: Path,
) -> None:
    ports: Ports = {}
    web = Web(ports, MANNERS)
    url = f"http://{HOST}/"
    async with open_web(library) as runtime:
        async with open_site(library, ports):
            assert (await web.get(url)).status == 200
        circuit = runtime.circuits.get(f"web/{HOST}")
        assert circuit is not None
        for _ in range(2):
            with pytest.raises(TROUBLE):
                await web.get(url)
        assert circuit.state == "open", "four failures: each was tried again once"
        with pytest.raises(CircuitOpen) as rejected:
            await web.get(url)
        assert rejected.value.retry_after is not None
        async with open_site(library, ports):
            with trio.fail_after(PATIENCE):
                while circuit.state != "half_open":  # noqa: ASYNC110 - it opens by time
                    await trio.sleep(0.02)
            assert (await web.get(url)).status == 200
        assert circuit.state == "closed"
        [policy] = runtime.policies.statistics()
        assert [layer.value for layer, _ in policy.layers] == [
            "timeout", "retry", "circuit", "rate", "bulkhead", "attempt_timeout"
        ]  # fmt: skip


async def test_an_answer_that_says_later_is_trouble_and_not_found_is_an_answer(
    library: Path,
) -> None:
    ports: Ports = {}
    web = Web(ports, MANNERS)
    async with open_web(library):
        async with open_site(library, ports, Habit(fails=1.0)):
            with pytest.raises(RetriesExhausted, match="500"):
                await web.get(f"http://{HOST}/")
            assert (await web.get(f"http://{HOST}/nowhere")).status == 404
        with pytest.raises(HttpFailed, match="not up yet"):
            await web.get("http://slow.localhost/")


async def test_a_page_that_is_too_long_for_us_is_refused(library: Path) -> None:
    ports: Ports = {}
    web = Web(ports, replace(MANNERS, limit_bytes=10))
    async with open_web(library), open_site(library, ports):
        with pytest.raises(HttpRefused, match="longer than 10 bytes"):
            await web.get(f"http://{HOST}/")


async def test_a_page_that_the_exchange_has_only_buffered_stays_on_the_list(
    library: Path, tmp_path: Path
) -> None:
    ports: Ports = {}
    store = tmp_path / "crawl.db"
    web = Web(ports, MANNERS)
    scope = Scope(seeds=(f"http://{HOST}/",), limit=10)
    app = Application(
        "crawl",
        [
            ChildSpec("census", Census),
            ChildSpec("indexer", Indexer, args=(Index(index_path(store)),)),
            ChildSpec("frontier", Frontier, args=(scope,)),
            ChildSpec("fetchers", DynamicSupervisorSpec()),
            ChildSpec("crew", Crew, args=(web, Pace(between=0.0, attempts=10), 1)),
        ],
        intensity=Intensity(limit=10),
    )
    config = Config(store=store, socket=False)
    with trio.fail_after(PATIENCE):
        async with open_site(library, ports), open_runtime(app, config=config) as own:
            indexer = own.ref("/indexer", Indexer)
            circuit = own.exchange.circuit(indexer)
            while circuit is None:
                await trio.sleep(0.001)
                circuit = own.exchange.circuit(indexer)
            circuit.trip()
            frontier = own.ref("/frontier", Frontier)
            while own.exchange.statistics().pending == 0:  # noqa: ASYNC110 - no event
                await trio.sleep(0.001)
            account = await frontier.call(Frontier.account)
            assert account.pending > 0
            circuit.reset()
            while (await frontier.call(Frontier.account)).pending:  # noqa: ASYNC110
                await trio.sleep(0.01)
    urls, twice = indexed(store)
    assert len(urls) == 1 + len(NAMES)
    assert twice == 0


async def test_a_survey_goes_on_in_the_next_run_with_the_step_that_it_was_at(
    library: Path, tmp_path: Path
) -> None:
    """What is done is not done again, and in the end it has counted every page."""
    ports: Ports = {}
    web, seed = Web(ports, MANNERS), f"http://{HOST}/"
    store = tmp_path / "survey.db"
    config = Config(store=store, socket=False)
    crawl = [
        ChildSpec("census", Census),
        ChildSpec("indexer", Indexer, args=(Index(index_path(store)),)),
        ChildSpec("frontier", Frontier, args=(Scope(seeds=(seed,), limit=10),)),
        ChildSpec("surveyor", Surveyor, args=(web, (seed,))),
    ]
    fetching = [
        ChildSpec("fetchers", DynamicSupervisorSpec()),
        ChildSpec("crew", Crew, args=(web, Pace(between=0.0, attempts=10), 1)),
    ]
    with trio.fail_after(PATIENCE):
        async with open_site(library, ports):
            first = Application("survey", crawl)
            async with open_runtime(first, config=config) as runtime:
                survey = runtime.workflows.ref("survey-healthy")
                while await steps_over(survey) < 1:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
            second = Application("survey", [*crawl, *fetching])
            async with open_runtime(second, config=config) as runtime:
                survey = runtime.workflows.ref("survey-healthy")
                assert await survey.result() == 1 + len(NAMES)
                steps = GetSteps(workflow=survey.id)
                told: Any = await runtime.desk().perform("steps", steps, READER)
    assert [(step.name, step.state) for step in told.rows] == [
        ("rules", "done"), ("crawl", "done"), ("count", "done"),
    ]  # fmt: skip
    assert told.rows[0].attempts == 1


async def steps_over(survey: WorkflowRef[Any]) -> int:
    """How many steps are over; none before it was begun."""
    try:
        return (await survey.status()).steps_over
    except WorkflowUnknown:
        return 0


async def test_a_guest_asks_a_site_for_its_rules_first_and_then_once_a_second(
    library: Path, tmp_path: Path
) -> None:
    ports: Ports = {}
    async with open_site(library, ports):
        url = f"http://127.0.0.1:{ports[HOST]}"
        config = Config(store=tmp_path / "guest.db", socket=False)
        app = application(config, url=url, pages=1 + len(NAMES))
        assert app.name == f"demo-127.0.0.1-{ports[HOST]}"
        with trio.fail_after(PATIENCE):
            async with open_runtime(app, config=config) as runtime:
                frontier = runtime.ref("/frontier", Frontier)
                while (  # noqa: ASYNC110 - a bounded wait, from outside
                    await frontier.call(Frontier.account)
                ).pending:
                    await trio.sleep(0.05)

    urls, twice = indexed(tmp_path / "guest.db")
    assert len(urls) == 1 + len(NAMES)
    assert f"{url}/" in urls
    assert twice == 0
    asked = requests(library)
    assert [entry["path"] for entry in asked[:2]] == ["/robots.txt", "/"]
    gaps = [b["at"] - a["at"] for a, b in itertools.pairwise(asked)]
    assert len(gaps) == 1 + len(NAMES)
    # When they arrive, not when they leave: a late one is nearer to the next.
    assert median(gaps) >= 900_000_000


def test_the_demo_is_refused_a_url_that_is_none_and_a_store_in_memory() -> None:
    with pytest.raises(ConfigError, match="--url"):
        application(Config(), url="example.org")
    with pytest.raises(ConfigError, match="volatile"):
        application(Config(level="volatile"))


def test_the_demo_names_every_part_that_the_documentation_names(tmp_path: Path) -> None:
    app = application(Config(store=tmp_path / "demo.db"))
    ids = {child.id for child in app.children}
    assert {
        "sites",
        "frontier",
        "fetchers",
        "indexer",
        "census",
        "lookout",
        "surveyor",
    } <= ids
    sites = next(child for child in app.children if child.id == "sites").start
    assert [child.id for child in getattr(sites, "children", ())] == list(SITES)
