"""The rules of an HTTP client, as data, and what there is to see of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from treewarden.resilience import (
    Backoff,
    CircuitPolicy,
    check_count,
    check_seconds,
    check_wait,
)

if TYPE_CHECKING:
    import ssl

    from treewarden.resilience import CircuitState, RateLimit

_MIB: Final = 1024 * 1024
_BACKOFF: Final = Backoff(initial=0.5, maximum=10.0, jitter=1.0)
_CIRCUIT: Final = CircuitPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """The rules of one client. Seconds everywhere.

    *Of the whole client*: at most `connections` requests at once, each on a connection of
    its own; `queue` more wait in line, each for at most `max_wait`, and the next one is
    refused at once (`BulkheadFull`). An answer of more than `limit_bytes`, unpacked, is
    not taken. `timeout` is for everything: waiting, all attempts, reading the answer.

    *Towards each host*: a `circuit` of its own (None: none), which a transport error, a
    late attempt, 429 and the five hundreds count against; at most as many requests as
    `rate` lets through (None: any number); up to `attempts` in all, `backoff` apart or as
    long as `Retry-After` says, within a budget that all callers share. Only what may be
    asked twice is: GET, HEAD, OPTIONS, PUT, DELETE, and a request that has a key.

    Each attempt may take `attempt_timeout`, of which `connect_timeout` to reach the host.
    Keep the former below `timeout`: a host that is only ever cut off by the latter is not
    known to be slow. Of more than `max_hosts` the one asked longest ago is forgotten, with
    its circuit. `trust_env` follows the proxies and the netrc file of the environment.

    `verify` says whose certificates are taken: True, those that the world trusts; a path,
    those that the authorities in that file (PEM) have signed; an `ssl.SSLContext`, what it
    says, which may also have a certificate of our own to show; False, anybody's. A host
    with another certificate is refused (`HttpRefused`, `certificate`), and not tried again.
    """

    connections: int = 20
    queue: int = 100
    max_wait: float = 10.0
    timeout: float = 60.0
    attempt_timeout: float = 30.0
    connect_timeout: float = 5.0
    attempts: int = 3
    backoff: Backoff = _BACKOFF
    circuit: CircuitPolicy | None = _CIRCUIT
    rate: RateLimit | None = None
    limit_bytes: int = 10 * _MIB
    max_hosts: int = 1000
    trust_env: bool = True
    verify: bool | str | os.PathLike[str] | ssl.SSLContext = True

    def __post_init__(self) -> None:
        """Refuse what could never work; the message shows the value."""
        for name in ("connections", "attempts", "limit_bytes", "max_hosts"):
            check_count(name, getattr(self, name), 1)
        check_count("queue", self.queue, 0)
        for name in ("timeout", "attempt_timeout", "connect_timeout"):
            check_seconds(name, getattr(self, name))
        check_wait("max_wait", self.max_wait)
        _check_verify(self.verify)


def _check_verify(verify: object) -> None:
    if isinstance(verify, (bool, str, os.PathLike)):
        return
    # Here: who has a context has loaded it.
    import ssl

    if not isinstance(verify, ssl.SSLContext):
        raise TypeError(
            "verify must be True, False, the path of a file of certificates or an"
            f" ssl.SSLContext, not {verify!r}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatistics:
    """A host as its client knows it; `circuit` is None without one."""

    site: str
    active: int
    requests: int
    circuit: CircuitState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpStatistics:
    """A client as it stands; counters since it was made.

    requests = answered + failed + cancelled + active, at all times; `waiting` of the
    active stand in line for a connection. `attempts` reached for a host: `statuses` are
    the answers by status and `errors` the others by kind, `cut_off` were cancelled or
    late. `refused` found no room in the line. Times of answered attempts are in seconds,
    0.0 before the first: `mean_seconds`, `most_seconds`.
    """

    name: str
    running: bool
    connections: int
    queue: int
    active: int
    waiting: int
    requests: int
    answered: int
    failed: int
    cancelled: int
    refused: int
    attempts: int
    statuses: tuple[tuple[int, int], ...]
    errors: tuple[tuple[str, int], ...]
    cut_off: int
    received_bytes: int
    mean_seconds: float
    most_seconds: float
    sites: tuple[SiteStatistics, ...]
