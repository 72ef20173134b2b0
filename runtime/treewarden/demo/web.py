"""The way out: one HTTP client, with rules for each site, and each site's own rules.

A host of the demo is looked up among the ports where the sites listen in this run; any
other goes through DNS. Fetchers and the lookout share the client, and with it a circuit, a
retry budget and a rate limit for each site, so that whoever finds a site dead spares the
others finding out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from treewarden import (
    Backoff,
    BulkheadFull,
    CircuitOpen,
    CircuitPolicy,
    HttpFailed,
    HttpPolicy,
    RateLimit,
    RateLimited,
    RetriesExhausted,
    TimedOut,
    current_runtime,
)

from .pages import DOMAIN
from .sites import LOOPBACK

if TYPE_CHECKING:
    from treewarden import HttpResponse

    from .sites import Ports

AGENT: Final = "treewarden-demo"
CLIENT: Final = "web"
"""The client's name: a site's circuit and policy are `web/` and its host."""

# Five failures would mostly be found by six fetchers at once; four in a row are rare at
# the flaky site (0.4 %) and come within 2 s from the lookout alone at a dead one.
_CIRCUIT: Final = CircuitPolicy(failure_threshold=4, reset_timeout=1.0)

OWN_MANNERS: Final = HttpPolicy(
    connections=8,
    queue=16,
    timeout=10.0,
    attempt_timeout=3.0,
    connect_timeout=1.0,
    attempts=2,
    backoff=Backoff(initial=0.1, maximum=1.0, jitter=1.0),
    circuit=_CIRCUIT,
    rate=RateLimit(rate=25, burst=5),
    limit_bytes=4 * 1024 * 1024,
    # A proxy that the environment names cannot reach our loopback.
    trust_env=False,
)
"""Towards our own sites, which are to be put under some strain."""

GUEST_MANNERS: Final = HttpPolicy(
    connections=2,
    queue=4,
    timeout=30.0,
    attempt_timeout=10.0,
    attempts=1,
    circuit=_CIRCUIT,
    rate=RateLimit(rate=1),
    limit_bytes=4 * 1024 * 1024,
)
"""Towards somebody else's: one request a second, and none again at once.

How long a site wants to be left alone between two is in its rules, which the fetcher knows.
"""

TROUBLE: Final = (HttpFailed, RetriesExhausted, TimedOut)
"""What `Web.get` raises when a site did not answer as it should; trying again may help."""

REJECTED: Final = (CircuitOpen, RateLimited, BulkheadFull)
"""What `Web.get` raises when the site was not asked."""


class Web:
    """Shared by those who fetch."""

    def __init__(self, ports: Ports, manners: HttpPolicy) -> None:
        self._ports = ports
        self._manners = manners
        self._rules: dict[str, RobotFileParser] = {}

    async def get(self, url: str) -> HttpResponse:
        """Fetch an address, as the manners towards its site allow.

        In a handler: what its agent did before is committed when the request leaves.

        Raises:
            CircuitOpen, RateLimited, BulkheadFull: the site was not asked. `REJECTED`
                names them.
            HttpFailed, RetriesExhausted, TimedOut: no answer, or a status that says
                "later" (429 and the five hundreds). `TROUBLE` names them. HttpRefused
                among them: too long, or no address; it will not help to try again.
            NotRunning, StoreError: it was not sent.
        """
        address, headers = self._address(url)
        runtime = current_runtime()
        client = runtime.http.client(
            CLIENT, self._manners, headers={"User-Agent": AGENT}
        )
        with runtime.monitors.performance.time(f"get {urlsplit(url).netloc}"):
            return await client.get(address, headers=headers)

    def rules(self, url: str) -> RobotFileParser | None:
        """What the site of this address lets robots do; None until `learn_rules`."""
        return self._rules.get(urlsplit(url).netloc)

    async def learn_rules(self, url: str) -> None:
        """Ask the site of this address for its robots.txt, unless its rules are known.

        One request, however many want to know at the same time: the others wait for it.

        Raises:
            What `get` raises.
        """
        host = urlsplit(url).netloc
        async with current_runtime().locks.hold(f"rules of {host}"):
            if host not in self._rules:
                self._rules[host] = robots(await self.get(robots_url(url)))

    def _address(self, url: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        if not parts.netloc.endswith(DOMAIN):
            return url, {}
        port = self._ports.get(parts.netloc)
        if port is None:
            raise HttpFailed("GET", url, "connect", f"{parts.netloc} is not up yet")
        address = parts._replace(netloc=f"{LOOPBACK}:{port}").geturl()
        return address, {"Host": parts.netloc}


def robots_url(url: str) -> str:
    """Where the site of `url` keeps its rules for robots."""
    return urlsplit(url)._replace(path="/robots.txt", query="").geturl()


def robots(answer: HttpResponse) -> RobotFileParser:
    """The rules that an answer to a request for robots.txt gives (RFC 9309, 2.3.1)."""
    rules = RobotFileParser()
    if answer.status in {401, 403}:
        rules.parse(["User-agent: *", "Disallow: /"])
    else:
        rules.parse(answer.text.splitlines() if answer.status == 200 else [])
    return rules
