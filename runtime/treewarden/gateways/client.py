"""An HTTP client: bounded connections of its own, and manners towards each host.

A request is made in its caller's task, under the host's policy (`site`), on the connections
that the client's child keeps (`transport`). There is no other way: when the child does not
run, nothing is sent. Each attempt is a span by OpenTelemetry's conventions for HTTP, and
the other side is told of it (W3C Trace Context).
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

import treewarden.telemetry as tracing
from treewarden.clock import wall_ns
from treewarden.errors import (
    AlreadyStarted,
    BulkheadFull,
    HttpFailed,
    HttpRefused,
    RateLimited,
)
from treewarden.resilience import Bulkhead, CallOptions, Timeout
from treewarden.supervision import ChildSpec, cleanup

from . import http_span
from .door import Door, sender_settled
from .http_policy import HttpStatistics
from .site import Site
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from treewarden.resilience import Circuits, Limiter, Limits, Policies
    from treewarden.supervision import SupervisorRef
    from treewarden.telemetry import Telemetry

    from .http_meter import HttpMeter
    from .http_policy import HttpPolicy
    from .response import HttpResponse
    from .transport import Transport

# For so many seconds at most: a host that asks for a year is asked again in an hour.
_LONGEST_REST: Final = 3600.0
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class HttpClient:
    """One client of a runtime, made by `runtime.http.client`; it outlives its child.

    `request`, or `get`, `post`, `put`, `delete`: a handler's request leaves once what its
    agent did before is committed. Redirections are not followed, cookies not kept.
    """

    def __init__(
        self,
        name: str,
        policy: HttpPolicy,
        *,
        base_url: str,
        headers: Mapping[str, str],
        supervisor: SupervisorRef,
        circuits: Circuits,
        limits: Limits,
        policies: Policies,
        telemetry: Telemetry,
        meter: HttpMeter,
    ) -> None:
        """A client that does not run yet; made by `Http`."""
        self.name = name
        self.policy = policy
        self.base_url = base_url
        self.headers = dict(headers)
        self._supervisor = supervisor
        self._circuits = circuits
        self._policies = policies
        self._spans = telemetry.spans
        self._meter = meter
        self._door = Door(f"http client {name}")
        # Its own: lookups of names that hang take all of trio's threads.
        self._opening = trio.CapacityLimiter(1)
        self._transport: Transport | None = None
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._timeout = Timeout(policy.timeout, name=f"a request of {name}")
        self._attempt_timeout = Timeout(
            policy.attempt_timeout, name=f"an attempt of {name}"
        )
        self._connections = Bulkhead(
            policy.connections,
            policy.queue,
            max_wait=policy.max_wait,
            name=f"connections of {name}",
        )
        self.limiter_name = f"http/{name}"
        self._limiter: Limiter | None = None
        if policy.rate is not None:
            self._limiter = limits.limiter(self.limiter_name, policy.rate)
        self._tally = Tally()
        self._retired = False

    # --- requests --------------------------------------------------------------------------

    async def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """GET; see `request`."""
        return await self.request("GET", url, params=params, headers=headers)

    async def post(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: object = None,
        key: str | None = None,
    ) -> HttpResponse:
        """POST; see `request`."""
        return await self.request(
            "POST",
            url,
            params=params,
            headers=headers,
            content=content,
            json=json,
            key=key,
        )

    async def put(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: object = None,
    ) -> HttpResponse:
        """PUT; see `request`."""
        return await self.request(
            "PUT", url, headers=headers, content=content, json=json
        )

    async def delete(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """DELETE; see `request`."""
        return await self.request("DELETE", url, headers=headers)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: object = None,
        key: str | None = None,
    ) -> HttpResponse:
        """Ask, within the policy, and read the whole answer.

        `url` may be relative to the client's base. A `Host` header also says whose circuit
        and rate count. `key` goes along as `Idempotency-Key`; with one a POST or PATCH may
        be tried again, since the other side can tell that it is the same.

        Cancelled, the connection is closed; what was sent may have had its effect.

        Raises:
            HttpFailed: no answer, or 429 or one of the five hundreds, and not to be tried
                again (`HttpRefused`: by our own rules).
            RetriesExhausted: the last of several such failures is its cause.
            TimedOut: it took too long.
            CircuitOpen, RateLimited, BulkheadFull: it was not sent.
            StoreError: what led to it was not kept; it was not sent.
            NotRunning, ShuttingDown: the client does not run, or was stopped meanwhile.
            ChildStartFailed: it cannot: a proxy or a certificate of the environment.
            TypeError, ValueError: an argument makes no sense.
        """
        await trio.lowlevel.checkpoint()
        await self._start()
        await sender_settled()
        with self._tally.request(), self._door.outside():
            assert self._transport is not None  # noqa: S101 - the door is open
            request = self._transport.request(
                method.upper(),
                url,
                params=params,
                headers=_with_key(headers, key),
                content=content,
                json=json,
            )
            errand = _Errand(self._transport, request)
            return await self._run(errand, key)

    async def _run(self, errand: _Errand, key: str | None) -> HttpResponse:
        options = CallOptions(
            idempotent=errand.request.method in _IDEMPOTENT, rate_key=errand.host
        )
        if key is not None:
            options["key"] = key
        with self._at(errand.host) as site:
            try:
                answer = await site.policy.call(self._attempt, errand, **options)
            except BulkheadFull:
                self._tally.refused += 1
                raise
        if isinstance(answer, HttpRefused):
            raise answer
        return replace(answer, attempts=errand.attempts)

    async def _attempt(self, errand: _Errand) -> HttpResponse | HttpRefused:
        began, began_ns = trio.current_time(), wall_ns()
        parent = tracing.current.get()
        context = tracing.new_context(parent) if self._spans.enabled else parent
        if context is not None:
            errand.request.headers["traceparent"] = context.traceparent()
        errand.attempts += 1
        self._meter.begin(errand.request)
        outcome: HttpResponse | HttpRefused | HttpFailed | None = None
        try:
            outcome = await errand.ask()
        except HttpFailed as failure:
            outcome = failure
            self._heed(errand.host, failure)
            raise
        finally:
            took = trio.current_time() - began
            self._tally.attempt(outcome, took)
            self._meter.end(errand.request, outcome, took)
            if self._spans.enabled and context is not None:
                self._spans.record(
                    http_span.name(errand.request), context, parent, began_ns, wall_ns(),
                    tracing.SpanKind.CLIENT,
                    http_span.attributes(errand.request, outcome, errand.attempts - 1),
                    (), http_span.error(outcome),
                )  # fmt: skip
        return outcome

    def _heed(self, host: str, failure: HttpFailed) -> None:
        """Who asks to be left alone is left alone by all callers, where there is a rate."""
        if self._limiter is not None and failure.retry_after:
            seconds = min(failure.retry_after, _LONGEST_REST)
            # No room for one more host: the failure is what is to be told.
            with suppress(RateLimited):
                self._limiter.penalise(trio.current_time() + seconds, host)

    # --- hosts -----------------------------------------------------------------------------

    @contextmanager
    def _at(self, host: str) -> Iterator[Site]:
        site = self._sites.get(host) or self._add(host)
        self._sites.move_to_end(host)
        site.active += 1
        site.requests += 1
        try:
            yield site
        finally:
            site.active -= 1

    def _add(self, host: str) -> Site:
        if len(self._sites) >= self.policy.max_hosts:
            self._make_room()
        site = self._sites[host] = Site(
            self.name,
            host,
            self.policy,
            circuits=self._circuits,
            timeout=self._timeout,
            attempt_timeout=self._attempt_timeout,
            connections=self._connections,
            limiter=self._limiter,
        )
        site.show(self._policies)
        return site

    def _make_room(self) -> None:
        # All of them in use: the line is short, so that few more are known for a while.
        oldest = next((one for one in self._sites.values() if not one.active), None)
        if oldest is not None:
            del self._sites[oldest.name]
            oldest.forget(self._policies, self._circuits)

    @contextmanager
    def retiring(self) -> Iterator[None]:
        """Start no more from now on; should the block fail, do again as before.

        `Http.close` is around its child's end: whoever asked meanwhile would start
        another child, which nobody would ever end.
        """
        self._retired = True
        try:
            yield
        except BaseException:
            self._retired = False
            raise

    def forget_hosts(self) -> None:
        """Forget all hosts with their circuits; `Http.close` does."""
        for site in self._sites.values():
            site.forget(self._policies, self._circuits)
        self._sites.clear()

    # --- life ------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._door.is_open or self._retired:
            return
        try:
            await self._supervisor.start_child(ChildSpec(self.name, self.serve))
        except AlreadyStarted:
            # It is starting, or being restarted: others were quicker.
            with trio.move_on_after(self.policy.connect_timeout):
                await self._door.wait_open()

    async def serve(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """A child that keeps the connections until it is stopped.

        Whoever is waiting for an answer then is cancelled and gets NotRunning.
        """
        transport = await trio.to_thread.run_sync(self._open, limiter=self._opening)
        self._transport = transport
        self._door.open()
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._door.close()
            self._transport = None
            with cleanup():
                await self._door.wait_home()
                await transport.aclose()

    def _open(self) -> Transport:
        # In a thread: the import takes a tenth of a second, the certificates half of that.
        module = importlib.import_module("treewarden.gateways.transport")
        transport: Transport = module.Transport(
            self.policy, self.base_url, self.headers
        )
        return transport

    def statistics(self) -> HttpStatistics:
        """The client as it stands; never waits for a request under way."""
        tally, connections = self._tally, self._connections.statistics()
        return HttpStatistics(
            name=self.name,
            running=self._door.is_open,
            connections=self.policy.connections,
            queue=self.policy.queue,
            active=tally.active,
            waiting=connections.waiting,
            requests=tally.requests,
            answered=tally.answered,
            failed=tally.failed,
            cancelled=tally.cancelled,
            refused=tally.refused,
            attempts=tally.attempts,
            statuses=tuple(sorted(tally.statuses.items())),
            errors=tuple(sorted(tally.errors.items())),
            cut_off=tally.cut_off,
            received_bytes=tally.received_bytes,
            mean_seconds=tally.mean_seconds,
            most_seconds=tally.most_seconds,
            sites=tuple(site.statistics() for site in self._sites.values()),
        )


class _Errand:
    """One request, through all its attempts."""

    __slots__ = ("_transport", "attempts", "host", "request")

    def __init__(self, transport: Transport, request: httpx.Request) -> None:
        self._transport = transport
        self.request = request
        self.host = request.headers["Host"].lower()
        self.attempts = 0

    async def ask(self) -> HttpResponse | HttpRefused:
        return await self._transport.ask(self.request)


def _with_key(headers: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    known = dict(headers or {})
    if key is not None:
        known["Idempotency-Key"] = key
    return known
