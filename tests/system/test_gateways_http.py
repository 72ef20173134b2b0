"""HTTP clients against a real server on loopback; time stands still unless it is moved."""

from __future__ import annotations

import inspect
import sqlite3
from collections import Counter, defaultdict, deque
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    Application,
    Backoff,
    BulkheadFull,
    ChildSpec,
    CircuitOpen,
    CircuitPolicy,
    Config,
    HttpClient,
    HttpFailed,
    HttpPolicy,
    HttpRefused,
    NotRunning,
    RateLimit,
    RetriesExhausted,
    TimedOut,
    current_runtime,
    open_runtime,
)
from treewarden.injection import (
    Deed,
    InjectionPlan,
    InjectionPoint,
    Rule,
    load_plan,
    places,
)
from treewarden.resilience import RetryEnd, RetryStatistics
from treewarden.telemetry import Span, SpanKind
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, Request, Runtime

ONCE = HttpPolicy(attempts=1, trust_env=False)
SOON = HttpPolicy(backoff=Backoff(initial=0.001, maximum=0.001), trust_env=False)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


class Site:
    """A server: what it was asked, and what it says to a path, once each; else OK.

    An answer of b"" is none: it stalls until its peer hangs up.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self.open = self.hung_up = 0
        self.port = 0

    @property
    def paths(self) -> Counter[str]:
        return Counter(head.split()[1] for head in self.asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def header(self, name: str) -> list[str]:
        """What each request said in that header."""
        lines = [line for head in self.asked for line in head.split("\r\n")]
        begin = f"{name}: ".lower()
        return [line[len(begin) :] for line in lines if line.lower().startswith(begin)]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            head = await self._head(stream)
            if head:
                self.asked.append(head)
                await self._answer(stream, head.split()[1])
        except trio.BrokenResourceError:
            self.hung_up += 1
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _head(self, stream: trio.SocketStream) -> str:
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.receive_some()
            if not more:
                return ""
            head += more
        return head.decode()

    async def _answer(self, stream: trio.SocketStream, path: str) -> None:
        answers = self.answers[path]
        answer = answers.popleft() if answers else OK
        if answer:
            await stream.send_all(answer)
        if b"Connection: close" not in answer:
            while await stream.receive_some():
                pass
            self.hung_up += 1


def says(status: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    site = Site()
    serve = partial(trio.serve_tcp, site.serve, 0, host="127.0.0.1")
    (listener,) = await nursery.start(serve)
    site.port = listener.socket.getsockname()[1]
    return site


@asynccontextmanager
async def running(
    *children: ChildSpec, store: Path | None = None
) -> AsyncIterator[Runtime]:
    config = Config(
        level="volatile" if store is None else "durable", store=store, socket=False
    )
    async with open_runtime(Application("app", children), config=config) as runtime:
        yield runtime


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with running() as runtime:
        yield runtime


async def in_background(nursery: trio.Nursery, client: HttpClient, path: str) -> Any:
    """A request on its way; what became of it is found in the list."""
    ends: list[object] = []

    async def ask() -> None:
        try:
            ends.append(await client.get(path))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    nursery.start_soon(ask)
    return ends


# --- asking --------------------------------------------------------------------------------


async def test_a_request_is_answered_whole_and_counted(
    runtime: Runtime, site: Site
) -> None:
    """S30: request, statistics."""
    site.answers["/a?q=1"].append(
        says(404, "Content-Type: application/json", "X-More: 7", body=b'{"a": [1]}')
    )
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    answer = await client.get("/a", params={"q": "1"}, headers={"X-Mine": "8"})
    assert (answer.status, answer.ok, answer.text) == (404, False, '{"a": [1]}')
    assert answer.json(dict[str, list[int]]) == {"a": [1]}
    assert answer.headers["x-more"] == "7"
    assert answer.url == f"{site.url}/a?q=1"
    assert site.header("X-Mine") == ["8"]
    statistics = client.statistics()
    assert (statistics.requests, statistics.answered, statistics.active) == (1, 1, 0)
    assert statistics.statuses == ((404, 1),)
    assert statistics.received_bytes == 10
    assert statistics.sites[0].site == f"127.0.0.1:{site.port}"
    assert runtime.http.statistics() == (statistics,)
    assert "/system/http/pages" in [node.path for node in runtime.tree().nodes]


async def test_every_method_and_body_arrives(runtime: Runtime, site: Site) -> None:
    client = runtime.http.client(
        "api", ONCE, base_url=site.url, headers={"Authorization": "Bearer x"}
    )
    await client.post("/p", json={"n": 1}, key="k-1")
    await client.put("/p", content=b"raw")
    await client.delete("/p")
    assert [head.split()[0] for head in site.asked] == ["POST", "PUT", "DELETE"]
    assert site.header("Idempotency-Key") == ["k-1"]
    assert site.header("Authorization") == ["Bearer x"] * 3
    assert site.header("Content-Length") == ["7", "3"]


async def test_redirections_are_not_followed_and_cookies_not_kept(
    runtime: Runtime, site: Site
) -> None:
    site.answers["/old"].append(says(301, "Location: /new", "Set-Cookie: who=me"))
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    answer = await client.get("/old")
    assert (answer.status, answer.location) == (301, "/new")
    await client.get("/new")
    assert site.header("Cookie") == []


async def test_an_address_that_cannot_be_asked_is_refused_and_nothing_is_sent(
    runtime: Runtime, site: Site
) -> None:
    client = runtime.http.client("pages", ONCE)
    for url in ("ftp://host/x", "/no-base", "http://", "http://host:port/"):
        with pytest.raises(HttpRefused) as refused:
            await client.get(url)
        assert refused.value.kind == "address"
    assert site.asked == []
    assert client.statistics().failed == 4


async def test_what_http_cannot_say_is_refused_and_is_not_the_hosts_fault(
    runtime: Runtime, site: Site
) -> None:
    client = runtime.http.client(
        "pages", HttpPolicy(trust_env=False), base_url=site.url
    )
    with pytest.raises(HttpRefused, match="header") as refused:
        await client.get("/", headers={"X-Bad": "a\nb"})
    assert refused.value.kind == "request"
    assert site.asked == []
    (circuit,) = runtime.circuits.statistics()
    assert (circuit.calls, circuit.failed) == (1, 0)


async def test_an_answer_over_the_bound_is_not_taken_and_its_connection_closed(
    runtime: Runtime, site: Site
) -> None:
    site.answers["/big"].append(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 200_000
    )
    policy = HttpPolicy(limit_bytes=1000, trust_env=False)
    client = runtime.http.client("pages", policy, base_url=site.url)
    with pytest.raises(HttpRefused, match="longer than 1000 bytes") as refused:
        await client.get("/big")
    assert refused.value.kind == "too_large"
    await wait_until(lambda: site.hung_up == 1 and site.open == 0)
    # The host did nothing wrong, and asking again would not help.
    assert runtime.circuits.statistics()[0].failed == 0
    assert site.paths["/big"] == 1
    site.answers["/fits"].append(says(200, body=b"x" * 1000))
    assert len((await client.get("/fits")).body) == 1000


# --- failures, retries, circuits ---------------------------------------------------------------


async def test_what_went_wrong_is_told_by_kind(runtime: Runtime, site: Site) -> None:
    site.answers["/half"].append(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf"
    )
    site.answers["/noise"].append(b"what? Connection: close\r\n\r\n")
    site.answers["/down"].append(says(503, "Retry-After: 7"))
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    free = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nobody = free[0].socket.getsockname()[1]
    await free[0].aclose()
    for url, kind in {
        f"http://127.0.0.1:{nobody}/": "connect",
        "/half": "broken",
        "/noise": "broken",
        "/down": "status",
    }.items():
        with pytest.raises(HttpFailed) as failed:
            await client.get(url)
        assert failed.value.kind == kind
    assert (failed.value.status, failed.value.retry_after) == (503, 7.0)
    statistics = client.statistics()
    assert statistics.errors == (("broken", 2), ("connect", 1))
    assert statistics.statuses == ((503, 1),)
    assert statistics.failed == 4


async def test_it_is_asked_again_when_the_site_says_so(
    runtime: Runtime, site: Site, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    site.answers["/"].extend([says(503, "Retry-After: 20"), says(429)])
    client = runtime.http.client(
        "pages", HttpPolicy(trust_env=False), base_url=site.url
    )
    ends = await in_background(nursery, client, "/")
    await wait_until(lambda: site.paths["/"] == 1 and not site.open)
    await wait_until(lambda: retrying(runtime) == 1)
    mock_clock.jump(19.9)
    await wait_all_tasks_blocked()
    assert site.paths["/"] == 1
    mock_clock.jump(0.7)
    await wait_until(lambda: site.paths["/"] == 2)
    await wait_until(lambda: retrying(runtime) == 1)
    mock_clock.jump(2.0)
    await wait_until(lambda: ends)
    assert (ends[0].status, ends[0].attempts) == (200, 3)
    assert client.statistics().statuses == ((200, 1), (429, 1), (503, 1))


def retrying(runtime: Runtime) -> int:
    """How many requests wait for their next attempt."""
    policies = runtime.policies.statistics()
    layers = [layer for policy in policies for _, layer in policy.layers]
    return sum(one.waiting for one in layers if isinstance(one, RetryStatistics))


async def test_what_must_not_be_done_twice_is_asked_once(
    runtime: Runtime, site: Site
) -> None:
    client = runtime.http.client("api", SOON, base_url=site.url)
    site.answers["/p"].extend([says(503)] * 3)
    with pytest.raises(HttpFailed) as failed:
        await client.post("/p")
    assert (failed.value.status, site.paths["/p"]) == (503, 1)
    # With a key the other side can tell.
    assert (await client.post("/p", key="k-2")).attempts == 3
    assert site.header("Idempotency-Key") == ["k-2"] * 3


async def test_who_is_told_to_come_back_too_late_is_told_so_at_once(
    runtime: Runtime, site: Site
) -> None:
    site.answers["/"].append(says(429, "Retry-After: 3600"))
    client = runtime.http.client(
        "pages", HttpPolicy(trust_env=False), base_url=site.url
    )
    with pytest.raises(RetriesExhausted) as failed:
        await client.get("/")
    assert failed.value.why == RetryEnd.TOLD
    assert site.paths["/"] == 1


async def test_with_a_rate_all_callers_leave_a_host_alone_that_asks_for_it(
    runtime: Runtime, site: Site, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    policy = HttpPolicy(attempts=1, rate=RateLimit(rate=100), trust_env=False)
    client = runtime.http.client("pages", policy, base_url=site.url)
    site.answers["/"].append(says(429, "Retry-After: 5"))
    with pytest.raises(HttpFailed, match="status 429"):
        await client.get("/")
    later = await in_background(nursery, client, "/later")
    await client.get("/", headers={"Host": "other.test"})
    await wait_all_tasks_blocked()
    assert site.paths["/later"] == 0
    mock_clock.jump(5.0)
    await wait_until(lambda: later)
    assert later[0].ok


async def test_each_host_has_a_circuit_of_its_own(runtime: Runtime, site: Site) -> None:
    policy = HttpPolicy(
        attempts=1, circuit=CircuitPolicy(failure_threshold=2), trust_env=False
    )
    client = runtime.http.client("pages", policy, base_url=site.url)
    site.answers["/"].extend([says(500)] * 2)
    for _ in range(2):
        with pytest.raises(HttpFailed):
            await client.get("/", headers={"Host": "bad.test"})
    with pytest.raises(CircuitOpen, match=r"pages/bad\.test"):
        await client.get("/", headers={"Host": "bad.test"})
    assert (await client.get("/", headers={"Host": "good.test"})).ok
    assert site.paths["/"] == 3
    states = {one.site: one.circuit for one in client.statistics().sites}
    assert states == {"bad.test": "open", "good.test": "closed"}
    assert [one.name for one in runtime.policies.statistics()] == [
        "pages/bad.test",
        "pages/good.test",
    ]


async def test_of_too_many_hosts_the_one_asked_longest_ago_is_forgotten(
    runtime: Runtime, site: Site
) -> None:
    policy = HttpPolicy(attempts=1, max_hosts=2, trust_env=False)
    client = runtime.http.client("pages", policy, base_url=site.url)
    for host in ("a.test", "b.test", "a.test", "c.test"):
        await client.get("/", headers={"Host": host})
    assert [one.site for one in client.statistics().sites] == ["a.test", "c.test"]
    assert [one.name for one in runtime.circuits.list()] == [
        "pages/a.test",
        "pages/c.test",
    ]
    assert len(runtime.policies.statistics()) == 2


# --- bounds and deadlines --------------------------------------------------------------------


async def test_f61_requests_beyond_the_slots_wait_or_are_refused_and_nobody_else_waits(
    runtime: Runtime, site: Site, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """S30, D4: 200 requests to a stalled server with 20 slots and 100 places in line."""
    site.answers["/stall"].extend([b""] * 200)
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    ends = [await in_background(nursery, client, "/stall") for _ in range(200)]
    await wait_until(lambda: site.paths["/stall"] == 20)
    await wait_until(lambda: client.statistics().refused == 80)
    # Answered here and now, though everything stalls.
    statistics = client.statistics()
    assert (statistics.active, statistics.waiting) == (120, 100)
    refused = [one[0] for one in ends if one]
    assert len(refused) == 80
    assert all(isinstance(one, BulkheadFull) for one in refused)
    assert site.open == 20
    # Without its child nothing is sent, in line least of all.
    await runtime.http.close("pages")
    await wait_until(lambda: all(ends))
    stopped = [one[0] for one in ends if isinstance(one[0], NotRunning)]
    assert len(stopped) == 120
    with pytest.raises(NotRunning, match="http client pages"):
        await client.get("/stall")
    assert (client.statistics().active, site.paths["/stall"]) == (0, 20)
    await wait_until(lambda: site.open == 0)


async def test_f62_a_request_ends_at_its_deadline_and_its_socket_is_closed(
    runtime: Runtime, site: Site, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    assert HttpPolicy().timeout == 60.0
    site.answers["/stall"].append(b"")
    policy = HttpPolicy(timeout=0.1, trust_env=False)
    client = runtime.http.client("pages", policy, base_url=site.url)
    await client.get("/")
    ends = await in_background(nursery, client, "/stall")
    await wait_until(lambda: site.paths["/stall"] == 1)
    mock_clock.jump(0.099)
    await wait_all_tasks_blocked()
    assert (ends, site.open, client.statistics().active) == ([], 1, 1)
    mock_clock.jump(0.002)
    await wait_until(lambda: ends)
    assert isinstance(ends[0], TimedOut)
    assert ends[0].seconds == 0.1
    await wait_until(lambda: site.open == 0)
    assert (site.hung_up, client.statistics().active) == (1, 0)


async def test_f62_every_public_wait_ends_by_a_policy_with_a_finite_default() -> None:
    for name, method in inspect.getmembers(HttpClient, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            parameters = inspect.signature(method).parameters
            assert not {"timeout", "deadline"} & parameters.keys(), name
    policy = HttpPolicy()
    for field in ("timeout", "attempt_timeout", "connect_timeout", "max_wait"):
        assert 0 < getattr(policy, field) < float("inf")
    with pytest.raises(ValueError, match="timeout must be > 0 seconds and finite"):
        HttpPolicy(timeout=float("inf"))


async def test_a_late_attempt_counts_against_the_host_and_is_made_again(
    runtime: Runtime, site: Site, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    site.answers["/slow"].append(b"")
    client = runtime.http.client(
        "pages", HttpPolicy(trust_env=False), base_url=site.url
    )
    ends = await in_background(nursery, client, "/slow")
    await wait_until(lambda: site.paths["/slow"] == 1)
    mock_clock.jump(30.0)
    await wait_until(lambda: retrying(runtime) == 1)
    assert runtime.circuits.statistics()[0].failed == 1
    mock_clock.jump(1.0)
    await wait_until(lambda: ends)
    assert ends[0].attempts == 2


async def test_a_cancelled_caller_closes_the_socket_and_is_nobodys_failure(
    runtime: Runtime, site: Site
) -> None:
    site.answers["/stall"].append(b"")
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.get, "/stall")
        await wait_until(lambda: site.open == 1)
        nursery.cancel_scope.cancel()
    await wait_until(lambda: site.open == 0)
    statistics = client.statistics()
    assert (statistics.cancelled, statistics.active, statistics.cut_off) == (1, 0, 1)
    assert runtime.circuits.statistics()[0].failed == 0
    assert (await client.get("/")).ok


# --- instances, life -------------------------------------------------------------------------


async def test_f49_two_clients_are_independent_and_a_name_taken_twice_is_told(
    runtime: Runtime, site: Site, nursery: trio.Nursery
) -> None:
    site.answers["/stall"].append(b"")
    narrow = HttpPolicy(connections=1, queue=0, attempts=1, trust_env=False)
    a = runtime.http.client("a", narrow, base_url=site.url)
    b = runtime.http.client("b", narrow, base_url=site.url)
    held = await in_background(nursery, a, "/stall")
    await wait_until(lambda: site.open == 1)
    with pytest.raises(BulkheadFull, match="connections of a"):
        await a.get("/")
    assert (await b.get("/")).ok
    assert [one.requests for one in runtime.http.statistics()] == [2, 1]
    # The same question has the same answer; another one is told what is there.
    assert runtime.http.client("a") is runtime.http.client("a", narrow) is a
    assert runtime.http["b"] is b
    with pytest.raises(ValueError, match="http client 'a' exists with another policy"):
        runtime.http.client("a", HttpPolicy())
    with pytest.raises(ValueError, match="'b' exists with another base_url"):
        runtime.http.client("b", base_url="http://other")
    with pytest.raises(ValueError, match="'b' exists with other headers"):
        runtime.http.client("b", headers={"X": "1"})
    await runtime.http.close("a")
    assert isinstance(held[0], NotRunning)
    assert (await b.get("/")).ok


async def test_many_first_requests_start_one_child(
    runtime: Runtime, site: Site
) -> None:
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(client.get, "/")
    assert site.paths["/"] == 10
    assert runtime.tree()["/system/http/pages"].incarnation == 1


@pytest.mark.parametrize("path", ["/system/http/pages", "/system/http"])
async def test_a_client_outlives_its_child_and_its_supervisor(
    path: str, runtime: Runtime, site: Site, nursery: trio.Nursery
) -> None:
    site.answers["/stall"].append(b"")
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    ends = await in_background(nursery, client, "/stall")
    await wait_until(lambda: site.open == 1)
    runtime.injections.crash(path)
    await wait_until(lambda: ends)
    assert isinstance(ends[0], NotRunning)
    await wait_until(lambda: runtime.tree()[path].incarnation == 2)
    await wait_until(lambda: runtime.tree()[path].state == "running")
    assert (await client.get("/")).ok
    assert client.statistics().requests == 2


async def test_a_closed_client_is_gone_and_can_be_made_again(
    runtime: Runtime, site: Site
) -> None:
    http = runtime.http
    for rate in (1, 2):
        policy = HttpPolicy(rate=RateLimit(rate=rate), trust_env=False)
        client = http.client("brief", policy, base_url=site.url)
        await client.get("/")
        await http.close("brief")
        with pytest.raises(NotRunning):
            await client.get("/")
    http.client("unused")
    await http.close("unused")
    assert (http.statistics(), runtime.circuits.list(), runtime.limits.list()) == (
        (), (), (),
    )  # fmt: skip
    assert runtime.policies.statistics() == ()


# --- leaving the store waits -----------------------------------------------------------------


class Total(msgspec.Struct):
    value: int = 0


class Teller(Agent[Total]):
    async def add(self, number: int) -> None:
        self.state.value += number

    async def tell(self) -> int:
        return (await current_runtime().http["out"].get("/told")).status


def patiently(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout = 60000").fetchall()


@contextmanager
def writer_held(runtime: Runtime, store: Path) -> Iterator[None]:
    """The store's writer waits at its next BEGIN, however long it is."""
    runtime.store._thread.ask(patiently)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def told_uncommitted(ref: AgentRef[Teller]) -> Request[int]:
    """A handler is on its way out, and what its agent did before is not committed."""
    await ref.cast(Teller.add, 5)
    request = ref.request(Teller.tell)
    await wait_until(lambda: "tell" in ref.statistics().doing)
    await wait_all_tasks_blocked()
    return request


async def test_a_handlers_request_leaves_when_what_led_to_it_is_committed(
    site: Site, tmp_path: Path
) -> None:
    """Design 6, leaving the store waits."""
    store = tmp_path / "test.db"
    async with running(ChildSpec("teller", Teller), store=store) as runtime:
        client = runtime.http.client("out", ONCE, base_url=site.url)
        await client.get("/")
        ref = runtime.ref("teller", Teller)
        with writer_held(runtime, store):
            request = await told_uncommitted(ref)
            assert site.paths["/told"] == 0
        assert await request.result() == 200


async def test_a_handlers_request_is_never_sent_for_what_is_lost(
    site: Site, tmp_path: Path
) -> None:
    rule = Rule(point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="io")
    plan = InjectionPlan(name="fail", injections=(rule,))
    store = tmp_path / "test.db"
    async with running(ChildSpec("teller", Teller), store=store) as runtime:
        runtime.http.client("out", ONCE, base_url=site.url)
        ref = runtime.ref("teller", Teller)
        loaded = load_plan(plan)
        with writer_held(runtime, store):
            request = await told_uncommitted(ref)
        # The message is no part of the failure: the next incarnation handles it again.
        assert await request.result() == 200
        loaded.lift()
        assert (ref.incarnation, site.paths["/told"]) == (2, 1)


# --- telemetry -------------------------------------------------------------------------------


def spans(runtime: Runtime) -> list[Span]:
    taken = runtime.telemetry.spans.take(1000)
    return [
        span for span in taken if span.kind is SpanKind.CLIENT and span.name != "commit"
    ]


async def test_each_attempt_is_a_span_by_the_conventions_without_secrets(
    runtime: Runtime, site: Site
) -> None:
    """Design 11; OpenTelemetry's conventions for HTTP clients."""
    runtime.telemetry.listen(spans=True, logs=False, exported=None)
    client = runtime.http.client("pages", SOON)
    site.answers["/x?q=1&api_key=very"].append(says(503))
    address = f"127.0.0.1:{site.port}/x?q=1&api_key=very"
    await client.get(f"http://me:hush@{address}")
    first, second = spans(runtime)
    assert (first.name, first.kind, first.error is not None) == ("GET", "client", True)
    assert first.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": site.port,
        "url.full": f"{site.url}/x?q=1&api_key=REDACTED",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert second.error is None
    assert second.attributes["http.request.resend_count"] == 1
    assert site.header("traceparent") == [
        span.context.traceparent() for span in (first, second)
    ]


async def test_secrets_are_in_no_error(runtime: Runtime, site: Site) -> None:
    site.answers["/x?token=very"].append(says(500))
    client = runtime.http.client("pages", ONCE)
    with pytest.raises(HttpFailed) as failed:
        await client.get(f"http://me:hush@127.0.0.1:{site.port}/x?token=very#frag")
    assert failed.value.url == f"{site.url}/x?token=REDACTED"
    assert str(failed.value) == f"GET {failed.value.url}: status 500 So"
    assert site.header("Authorization") == ["Basic bWU6aHVzaA=="]


def measured(runtime: Runtime, name: str) -> Any:
    read = runtime.telemetry.metrics.read()
    return next((one for one in read if one.name == name), None)


async def test_each_attempt_is_measured_by_the_conventions(
    runtime: Runtime, site: Site, nursery: trio.Nursery
) -> None:
    """OpenTelemetry's conventions for HTTP metrics: duration, requests under way."""
    client = runtime.http.client("pages", SOON, base_url=site.url)
    site.answers["/x"].append(says(503))
    await client.get("/x")
    where = {"server.address": "127.0.0.1", "server.port": site.port}
    get, other = ({"http.request.method": one, **where} for one in ("GET", "_OTHER"))
    site.answers["/stalls"].append(b"")
    async with trio.open_nursery() as asking:
        # A method of one's own: as many of these as somebody makes are one.
        asking.start_soon(client.request, "PURGE", "/stalls")
        await wait_until(lambda: site.paths["/stalls"])
        under_way = measured(runtime, "http.client.active_requests")
        assert under_way.points == ((other, 1),)
        asking.cancel_scope.cancel()
    assert measured(runtime, "http.client.active_requests") is None
    durations = measured(runtime, "http.client.request.duration")
    assert durations.unit == "s"
    assert [one.attributes for one in durations.distributions] == [
        {**get, "http.response.status_code": 503, "error.type": "503"},
        {**get, "http.response.status_code": 200},
        {**other, "error.type": "cancelled"},
    ]
    assert all(sum(one.counts) == 1 for one in durations.distributions)


@pytest.mark.parametrize(
    ("point", "kind"),
    [(places.HTTP_REQUEST, "connect"), (places.HTTP_RESPONSE, "broken")],
)
async def test_a_way_out_that_is_broken_on_purpose_is_a_failure_of_the_site(
    point: InjectionPoint, kind: str, runtime: Runtime, site: Site
) -> None:
    client = runtime.http.client("pages", ONCE, base_url=site.url)
    rule = Rule(point=point.name, do=Deed.RAISE, times=1)
    loaded = load_plan(InjectionPlan(name="broken", injections=(rule,)))
    try:
        with pytest.raises(HttpFailed, match="injected at http") as failed:
            await client.get("/")
    finally:
        loaded.lift()
    assert failed.value.kind == kind
    await wait_until(lambda: site.open == 0)
    assert (await client.get("/")).ok
