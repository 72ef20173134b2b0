"""The HTTP clients of a runtime, by name: each with connections and rules of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from treewarden.errors import NameUnknown, UnknownChild
from treewarden.supervision import SupervisorRef, check_id

from .address import without_secrets
from .client import HttpClient
from .http_meter import HttpMeter
from .http_policy import HttpPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from treewarden.resilience import Circuits, Limits, Policies
    from treewarden.supervision import Directory
    from treewarden.telemetry import Telemetry

    from .http_policy import HttpStatistics

LIMIT: Final = 1000
"""Clients that are kept at most: names made from data must not fill the memory."""


class Http:
    """The clients below one dynamic supervisor; `runtime.http` is those of the runtime."""

    def __init__(
        self,
        directory: Directory,
        path: str,
        *,
        circuits: Circuits,
        limits: Limits,
        policies: Policies,
        telemetry: Telemetry,
    ) -> None:
        """No clients yet; theirs are the circuits, limiters and policies of a runtime."""
        self.path = path
        self._supervisor = SupervisorRef(directory, path)
        self._circuits = circuits
        self._limits = limits
        self._policies = policies
        self._telemetry = telemetry
        self._meter = HttpMeter(telemetry.metrics)
        self._by_name: dict[str, HttpClient] = {}

    def client(
        self,
        name: str,
        policy: HttpPolicy | None = None,
        *,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpClient:
        """The client of this name; made at the first use, started by its first request.

        None stands for what an existing client has, and for a new one for the default
        policy, no base and no headers. What it sends along with each request may be a
        secret; it is shown nowhere.

        Raises:
            ValueError: there is one, and it is not as asked; the name is no word of a
                path; or there are too many.
        """
        known = self._by_name.get(name)
        if known is None:
            return self._make(name, policy or HttpPolicy(), base_url or "", headers)
        if policy is not None and policy != known.policy:
            raise _other(name, f"another policy: {known.policy}")
        if base_url is not None and base_url != known.base_url:
            shown = without_secrets(known.base_url)
            raise _other(name, f"another base_url: {shown!r}")
        if headers is not None and dict(headers) != known.headers:
            raise _other(name, "other headers")
        return known

    def _make(
        self,
        name: str,
        policy: HttpPolicy,
        base_url: str,
        headers: Mapping[str, str] | None,
    ) -> HttpClient:
        check_id(name)
        if len(self._by_name) >= LIMIT:
            raise ValueError(
                f"there are {LIMIT} http clients, and {name!r} is one too many"
            )
        client = self._by_name[name] = HttpClient(
            name,
            policy,
            base_url=base_url,
            headers=headers or {},
            supervisor=self._supervisor,
            circuits=self._circuits,
            limits=self._limits,
            policies=self._policies,
            telemetry=self._telemetry,
            meter=self._meter,
        )
        return client

    def __getitem__(self, name: str) -> HttpClient:
        """The client of this name.

        Raises:
            NameUnknown: there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise NameUnknown(f"{self.path}/{name}") from None

    async def close(self, name: str) -> None:
        """Close a client and its connections, and forget it; returns when it is gone.

        Who waits for an answer gets NotRunning, and so does whoever goes on using it; who
        asks for the name next makes another one.

        Raises:
            NameUnknown: there is none.
            NotRunning, ShuttingDown, CallingSelf: as for any child; it is not forgotten.
        """
        client = self[name]
        # Nobody has asked it for anything: it has no child.
        with client.retiring(), suppress(UnknownChild):
            await self._supervisor.terminate_child(name)
        client.forget_hosts()
        self._limits.remove(client.limiter_name)
        self._by_name.pop(name, None)

    def statistics(self) -> tuple[HttpStatistics, ...]:
        """One record a client, by name."""
        return tuple(self._by_name[name].statistics() for name in sorted(self._by_name))


def _other(name: str, what: str) -> ValueError:
    return ValueError(f"http client {name!r} exists with {what}")
