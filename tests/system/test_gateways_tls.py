"""HTTP clients against a real TLS server on loopback, with authorities of its own."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden import (
    Application,
    Backoff,
    ChildStartFailed,
    Config,
    HttpFailed,
    HttpPolicy,
    HttpRefused,
    RetriesExhausted,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeAlias

    from treewarden import HttpClient, Runtime
    from treewarden.gateways import SiteStatistics

    Serve: TypeAlias = Callable[..., Awaitable["Site"]]

CERTIFICATES = Path(__file__).parents[1] / "data" / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
AT_ONCE = Backoff(initial=0.0, maximum=0.0)


class Site:
    """A server with a certificate: how many connections it had, and how many requests."""

    def __init__(self) -> None:
        self.port = self.connections = self.requests = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                more = await stream.receive_some()
                if not more:
                    return
                head += more
            self.requests += 1
            await stream.send_all(OK)
            await stream.aclose()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)


def server_context(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    return context


@pytest.fixture
def serve(nursery: trio.Nursery) -> Serve:
    async def serve(context: ssl.SSLContext) -> Site:
        site = Site()
        begin = partial(
            trio.serve_ssl_over_tcp, site.serve, 0, context, host="127.0.0.1"
        )
        (listener,) = await nursery.start(begin)
        site.port = listener.transport_listener.socket.getsockname()[1]
        return site

    return serve


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("app", []), config=config) as runtime:
        yield runtime


def client(runtime: Runtime, site: Site, verify: object = AUTHORITY) -> HttpClient:
    """One that would try three times."""
    policy = HttpPolicy(
        backoff=AT_ONCE,
        trust_env=False,
        verify=verify,  # type: ignore[arg-type]
    )
    return runtime.http.client("pages", policy, base_url=site.url)


def only_site(client: HttpClient) -> SiteStatistics:
    (site,) = client.statistics().sites
    return site


@pytest.mark.parametrize("verify", [AUTHORITY, str(AUTHORITY), "context", False])
async def test_a_host_whose_certificate_an_authority_of_ours_has_signed_is_asked(
    runtime: Runtime, serve: Serve, verify: object
) -> None:
    """S30: a private authority, by its file or in a context of one's own; or anybody."""
    site = await serve(server_context("site"))
    if verify == "context":
        verify = ssl.create_default_context(cafile=AUTHORITY)
    answer = await client(runtime, site, verify).get("/")
    assert (answer.status, answer.text) == (200, "hello")


@pytest.mark.parametrize(
    ("certificate", "verify", "why"),
    [
        ("site", True, "unable to get local issuer certificate"),
        ("expired", AUTHORITY, "certificate has expired"),
        ("elsewhere", AUTHORITY, "IP address mismatch"),
    ],
)
async def test_a_certificate_that_is_not_to_be_trusted_is_refused_and_not_tried_again(
    runtime: Runtime, serve: Serve, certificate: str, verify: object, why: str
) -> None:
    """Nothing was sent, and none of it is counted against the host's circuit."""
    site = await serve(server_context(certificate))
    pages = client(runtime, site, verify)
    with pytest.raises(HttpRefused, match=f"not to be trusted: {why}") as refused:
        await pages.get("/secret?token=x")
    assert refused.value.kind == "certificate"
    assert refused.value.url == f"{site.url}/secret?token=REDACTED"
    assert (site.connections, site.requests) == (1, 0)
    statistics = pages.statistics()
    assert statistics.errors == (("certificate", 1),)
    assert (statistics.attempts, statistics.failed) == (1, 1)
    assert only_site(pages).circuit == "closed"


async def test_who_asks_for_a_certificate_of_ours_is_shown_that_of_the_context(
    runtime: Runtime, serve: Serve
) -> None:
    site = await serve(demanding())
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.load_cert_chain(CERTIFICATES / "caller.pem")
    answer = await client(runtime, site, context).get("/")
    assert answer.text == "hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_who_asks_for_a_certificate_that_we_have_not_is_not_asked_again(
    runtime: Runtime, nursery: trio.Nursery, version: ssl.TLSVersion
) -> None:
    """By TLS 1.3 he says so when the request is on its way already."""
    demands = demanding()
    demands.minimum_version = demands.maximum_version = version
    site = Site()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.port = listener.getsockname()[1]
        nursery.start_soon(trio.to_thread.run_sync, turn_away, listener, demands)
        pages = client(runtime, site)
        with pytest.raises(HttpRefused, match="not take our certificate") as refused:
            await pages.get("/")
    assert refused.value.kind == "certificate"
    assert pages.statistics().attempts == 1


def turn_away(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Refuse one client as OpenSSL does; trio's streams would not tell him why."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(30)
        wrapped = context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        with wrapped:
            with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
                wrapped.do_handshake()
            # Else what he has sent meanwhile would have the word for him thrown away.
            raw = socket.socket(fileno=wrapped.detach())
        with raw, suppress(ConnectionError):
            raw.settimeout(30)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass


def demanding() -> ssl.SSLContext:
    """A server that wants a client's certificate."""
    context = server_context("site")
    context.load_verify_locations(AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_who_speaks_no_tls_is_tried_again_as_one_that_is_starting(
    runtime: Runtime, nursery: trio.Nursery
) -> None:
    """He may be behind something that is not up yet; what he said is told."""

    async def babble(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    begin = partial(trio.serve_tcp, babble, 0, host="127.0.0.1")
    (listener,) = await nursery.start(begin)
    site = Site()
    site.port = listener.socket.getsockname()[1]
    pages = client(runtime, site)
    with pytest.raises(RetriesExhausted) as exhausted:
        await pages.get("/")
    failed = exhausted.value.__cause__
    assert isinstance(failed, HttpFailed)
    assert failed.kind == "connect"
    assert pages.statistics().errors == (("connect", 3),)


async def test_a_file_of_authorities_that_is_not_there_is_told_by_its_name(
    runtime: Runtime, tmp_path: Path
) -> None:
    for file, why in (
        (tmp_path / "none.pem", "No such file"),
        (CERTIFICATES / "make", "no certificate"),
    ):
        policy = HttpPolicy(trust_env=False, verify=file)
        pages = runtime.http.client(file.stem, policy)
        with pytest.raises(ChildStartFailed, match=f"{file.name}.*{why}"):
            await pages.get("https://127.0.0.1:1/")


@pytest.mark.parametrize("verify", [None, 1, b"a.pem"])
def test_what_nothing_can_be_verified_with_is_refused(verify: object) -> None:
    with pytest.raises(TypeError, match="verify must be True, False, the path"):
        HttpPolicy(verify=verify)  # type: ignore[arg-type]
