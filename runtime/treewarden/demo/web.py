"""The way out: one HTTP client, a circuit for each site, and each site's own rules.

A host of the demo is looked up among the ports where the sites listen in this run; any
other goes through DNS. Fetchers and the lookout share a circuit by the site's name, so
that whoever finds a site dead spares the others finding out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import httpx
import trio

from treewarden import CircuitPolicy, NotRunning, current_runtime

from .pages import DOMAIN
from .sites import LOOPBACK

if TYPE_CHECKING:
    from treewarden import Circuit

    from .sites import Ports

AGENT: Final = "treewarden-demo"
PAGE_BYTES: Final = 4 * 1024 * 1024

# The whole of one answer; every read on the way has its own, shorter deadline.
_ANSWER_SECONDS: Final = 10.0
_READ_SECONDS: Final = 3.0
# Five failures would mostly be found by six fetchers at once; four in a row are rare at
# the flaky site (0.4 %) and come within 4 s from the lookout alone at a dead one.
_CIRCUIT: Final = CircuitPolicy(failure_threshold=4, reset_timeout=1.0)

TROUBLE: Final = (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError)
"""What `Web.get` raises when a site did not answer as it should; trying again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a site said; `location` is where it says that the page has gone."""

    status: int
    kind: str
    body: str
    location: str | None = None


class Web:
    """Shared by those who fetch; usable while `connect` runs as a child."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._client: httpx.AsyncClient | None = None
        self._rules: dict[str, RobotFileParser] = {}

    async def connect(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """A child that keeps the client and its connections until it is stopped."""
        client = httpx.AsyncClient(
            timeout=httpx.Timeout(_READ_SECONDS),
            headers={"User-Agent": AGENT},
            # A proxy that the environment names cannot reach our loopback.
            mounts={f"all://{LOOPBACK}": httpx.AsyncHTTPTransport()},
        )
        try:
            async with client:
                self._client = client
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._client = None

    async def get(self, url: str) -> Answer:
        """Fetch an address through its site's circuit.

        Raises:
            CircuitOpen: the site was not asked.
            httpx.HTTPError, trio.TooSlowError: no answer, or a status that says "later"
                (429 and the five hundreds). `TROUBLE` names them.
            NotRunning: `connect` is down.
        """
        with circuit_of(url).guard(), trio.fail_after(_ANSWER_SECONDS):
            return await self._ask(url)

    def rules(self, url: str) -> RobotFileParser | None:
        """What the site of this address lets robots do; None until `learn_rules`."""
        return self._rules.get(urlsplit(url).netloc)

    async def learn_rules(self, url: str) -> None:
        """Ask the site of this address for its robots.txt; one request.

        Raises:
            What `get` raises.
        """
        self._rules[urlsplit(url).netloc] = robots(await self.get(robots_url(url)))

    async def _ask(self, url: str) -> Answer:
        if self._client is None:
            raise NotRunning("the web client is not running")
        address, headers = self._address(url)
        async with self._client.stream("GET", address, headers=headers) as response:
            if response.status_code == 429 or response.status_code >= 500:
                response.raise_for_status()
            body = await _read(response)
            return Answer(
                status=response.status_code,
                kind=response.headers.get("Content-Type", ""),
                body=body.decode(response.encoding or "utf-8", errors="replace"),
                location=response.headers.get("Location"),
            )

    def _address(self, url: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        if not parts.netloc.endswith(DOMAIN):
            return url, {}
        port = self._ports.get(parts.netloc)
        if port is None:
            raise httpx.ConnectError(f"{parts.netloc} is not up yet")
        address = parts._replace(netloc=f"{LOOPBACK}:{port}").geturl()
        return address, {"Host": parts.netloc}


def circuit_of(url: str) -> Circuit:
    """The circuit of an address's site, called by the site's name."""
    name = urlsplit(url).netloc.removesuffix(DOMAIN)
    return current_runtime().circuits.circuit(name, _CIRCUIT)


def robots_url(url: str) -> str:
    """Where the site of `url` keeps its rules for robots."""
    return urlsplit(url)._replace(path="/robots.txt", query="").geturl()


def robots(answer: Answer) -> RobotFileParser:
    """The rules that an answer to a request for robots.txt gives (RFC 9309, 2.3.1)."""
    rules = RobotFileParser()
    if answer.status in {401, 403}:
        rules.parse(["User-agent: *", "Disallow: /"])
    else:
        rules.parse(answer.body.splitlines() if answer.status == 200 else [])
    return rules


async def _read(response: httpx.Response) -> bytes:
    """At most `PAGE_BYTES` of the body; the rest is left."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= PAGE_BYTES:
            break
    return bytes(body[:PAGE_BYTES])
