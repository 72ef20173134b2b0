"""One host, as a client of ours knows it: how it has behaved, and what it may be asked."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from treewarden.errors import HttpFailed, TimedOut
from treewarden.resilience import Policy, Retry

from .http_policy import SiteStatistics

if TYPE_CHECKING:
    from treewarden.resilience import (
        Bulkhead,
        Circuits,
        Limiter,
        Policies,
        Timeout,
    )

    from .http_policy import HttpPolicy


class Site:
    """A host's own circuit and retry budget, with the limits that it shares with others."""

    __slots__ = ("active", "name", "policy", "requests")

    def __init__(
        self,
        client: str,
        host: str,
        rules: HttpPolicy,
        *,
        circuits: Circuits,
        timeout: Timeout,
        attempt_timeout: Timeout,
        connections: Bulkhead,
        limiter: Limiter | None,
    ) -> None:
        self.name = host
        full = f"{client}/{host}"
        self.policy = Policy(
            name=full,
            timeout=timeout,
            retry=None if rules.attempts == 1 else _retry(full, rules),
            circuit=None
            if rules.circuit is None
            else circuits.circuit(full, rules.circuit),
            rate=limiter,
            bulkhead=connections,
            attempt_timeout=attempt_timeout,
        )
        self.active = self.requests = 0

    def show(self, policies: Policies) -> None:
        """Have an operator see it, if there is room to."""
        with suppress(ValueError):
            policies.add(self.policy)

    def forget(self, policies: Policies, circuits: Circuits) -> None:
        """Show it no longer, and forget its circuit."""
        if policies.get(self.policy.name) is self.policy:
            policies.remove(self.policy.name)
        circuits.remove(self.policy.name)

    def statistics(self) -> SiteStatistics:
        """The host as it stands."""
        circuit = self.policy.circuit
        return SiteStatistics(
            site=self.name,
            active=self.active,
            requests=self.requests,
            circuit=circuit.state if circuit is not None else None,
        )


def _retry(name: str, rules: HttpPolicy) -> Retry:
    return Retry(
        name=name,
        attempts=rules.attempts,
        total_timeout=rules.timeout,
        backoff=rules.backoff,
        # Not when our own line is full: that is to be heard at once.
        on=(HttpFailed, TimedOut),
    )
