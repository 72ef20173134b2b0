"""A request as a span: the attributes of OpenTelemetry's conventions for HTTP clients.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from treewarden.errors import HttpFailed

from .address import without_secrets

if TYPE_CHECKING:
    import httpx

    from .response import HttpResponse

    Outcome: TypeAlias = HttpResponse | HttpFailed | None

_PORTS: Final = {"http": 80, "https": 443}
# Any other could be made from data; RFC 9110 and RFC 5789.
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_OTHER: Final = "_OTHER"


def name(request: httpx.Request) -> str:
    """What such a span is called: the method, unless it is one of somebody's own."""
    return request.method if request.method in _METHODS else "HTTP"


def attributes(
    request: httpx.Request, outcome: Outcome, resent: int
) -> dict[str, str | int]:
    """Of one attempt, made `resent` times before; None: it was cancelled, or late."""
    found = {**target(request), "url.full": without_secrets(str(request.url))}
    if request.method not in _METHODS:
        found["http.request.method_original"] = request.method
    if resent:
        found["http.request.resend_count"] = resent
    return {**found, **ending(outcome)}


def target(request: httpx.Request) -> dict[str, str | int]:
    """What is asked of whom, in few enough words to be counted by."""
    url = request.url
    return {
        "http.request.method": request.method if request.method in _METHODS else _OTHER,
        "server.address": url.host,
        "server.port": url.port or _PORTS[url.scheme],
    }


def ending(outcome: Outcome) -> dict[str, str | int]:
    """What became of an attempt, likewise."""
    found: dict[str, str | int] = {}
    if outcome is not None and outcome.status is not None:
        found["http.response.status_code"] = outcome.status
    error_type = _error_type(outcome)
    if error_type is not None:
        found["error.type"] = error_type
    return found


def error(outcome: Outcome) -> str | None:
    """One line for a span that did not go well; for a client, the four hundreds did not."""
    if outcome is None:
        return "cancelled"
    if isinstance(outcome, HttpFailed):
        return str(outcome)
    return f"status {outcome.status}" if outcome.status >= 400 else None


def _error_type(outcome: Outcome) -> str | None:
    if outcome is None:
        return "cancelled"
    if isinstance(outcome, HttpFailed) and outcome.kind != "status":
        return outcome.kind
    status = outcome.status
    return str(status) if status is not None and status >= 400 else None
