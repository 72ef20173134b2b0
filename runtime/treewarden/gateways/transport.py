"""httpx, as a client of ours uses it: one request, one bounded answer, our own errors.

The only module that imports httpx, and loaded when the first client starts. It follows no
redirection, which would lead past the rules of the host that it leads to, and keeps no
cookies, which one agent would send for another.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpx

from treewarden.clock import wall_ns
from treewarden.errors import ConfigError, HttpFailed, HttpRefused
from treewarden.injection import places

from .address import without_secrets
from .response import HttpResponse
from .unpack import ACCEPTED, Body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .http_policy import HttpPolicy

_KEEP_ALIVE_SECONDS: Final = 5.0
_LATER: Final = 429
# What OpenSSL calls the alerts about a client's certificate (RFC 8446, 6.2). TLS 1.2 says
# of one that is missing what it says of terms that have nothing in common (RFC 5246, 7.4.6).
_OURS: Final = re.compile(
    "ALERT_(BAD|UNSUPPORTED|NO)_CERTIFICATE|ALERT_CERTIFICATE_|ALERT_UNKNOWN_CA"
    "|ALERT_HANDSHAKE_FAILURE"
)

# It tells of every request, with what its address has of secrets. A level that somebody
# has set stays.
_told: Final = logging.getLogger("httpx")
if _told.level == logging.NOTSET:
    _told.setLevel(logging.WARNING)


class Transport:
    """A client's connections; making one reads certificates, and blocks for that."""

    def __init__(
        self, policy: HttpPolicy, base_url: str, headers: Mapping[str, str]
    ) -> None:
        self._limit_bytes = policy.limit_bytes
        # Not httpx's own, which names what it would unpack, and without a bound.
        sent = httpx.Headers({"Accept-Encoding": ACCEPTED})
        sent.update(headers)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=sent,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx.Timeout(None, connect=policy.connect_timeout),
            limits=httpx.Limits(
                max_connections=policy.connections,
                max_keepalive_connections=policy.connections,
                keepalive_expiry=_KEEP_ALIVE_SECONDS,
            ),
            trust_env=policy.trust_env,
            verify=_trusted(policy.verify),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        content: bytes | str | None,
        json: object,
    ) -> httpx.Request:
        """A request that can be sent, again and again.

        Raises:
            HttpRefused: there is no such address.
            TypeError, ValueError: something else about it makes no sense.
        """
        try:
            address = httpx.URL(url)
            _check_name(address)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _no_address(method, url, str(error)) from error
        request = self._client.build_request(
            method, address, params=params, headers=headers, content=content, json=json
        )
        if request.url.scheme not in {"http", "https"} or not request.url.host:
            raise _no_address(method, url, "it needs http:// or https:// and a host")
        return request

    async def ask(self, request: httpx.Request) -> HttpResponse | HttpRefused:
        """Send it and read the whole answer, or say why we do not.

        Cancelled, the connection is closed.

        Raises:
            HttpFailed: there is no answer, or one that says "later".
        """
        url = without_secrets(str(request.url))
        try:
            await places.HTTP_REQUEST.pass_by()
            response = await self._client.send(request, stream=True)
            body = Body(response.headers.get("Content-Encoding", ""), self._limit_bytes)
            try:
                await places.HTTP_RESPONSE.pass_by()
                await _read(response, body)
            finally:
                await response.aclose()
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            return HttpRefused(request.method, url, "request", str(error))
        except (httpx.RequestError, OSError) as error:
            if why := _distrust(error):
                return HttpRefused(request.method, url, "certificate", why)
            raise HttpFailed(request.method, url, _kind(error), _why(error)) from error
        read = body.end()
        if body.wrong:
            raise HttpFailed(request.method, url, "broken", body.wrong)
        if body.is_too_large:
            why = f"the answer is longer than {self._limit_bytes} bytes"
            return HttpRefused(
                request.method, url, "too_large", why, status=response.status_code
            )
        if response.status_code == _LATER or response.status_code >= 500:
            raise _later(request.method, url, response)
        return HttpResponse(
            url=url,
            status=response.status_code,
            headers=response.headers,
            body=read,
            encoding=response.encoding or "utf-8",
        )


async def _read(response: httpx.Response, body: Body) -> None:
    wanted = True
    try:
        async for chunk in response.aiter_raw():
            wanted = body.add(chunk)
            if not wanted:
                # The next step of the loop fails, and ends all generators beneath it
                # in order; leaving them would leave that to the garbage collector.
                await response.aclose()
    except (httpx.RequestError, httpx.StreamError):
        if wanted:
            raise


def _check_name(address: httpx.URL) -> None:
    """Raise UnicodeError for a host that no resolver would be asked about.

    It would be raised on the way there, and by whoever wants to show the address.
    """
    _ = address.host
    address.raw_host.decode("ascii").encode("idna")


def _no_address(method: str, url: str, why: str) -> HttpRefused:
    return HttpRefused(method, without_secrets(url), "address", why)


def _trusted(
    verify: bool | str | os.PathLike[str] | ssl.SSLContext,
) -> bool | ssl.SSLContext:
    if not isinstance(verify, (str, os.PathLike)):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        # SSL's own errors are of that kind too, and none of them names the file.
        raise ConfigError(f"verify: {os.fspath(verify)}: {error}") from error


def _distrust(error: BaseException) -> str | None:
    """Why one side did not take the other's certificate, if it is that.

    It will not take it the next time either. With TLS 1.3 the other side's word for ours
    may come when the request is sent already; it has not been read then.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not to be trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and _OURS.search(cause.reason or ""):
            return f"it does not take our certificate or terms: {cause.reason}"
        cause = cause.__cause__ or cause.__context__
    return None


def _kind(error: httpx.RequestError | OSError) -> str:
    never_reached = (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ProxyError,
        ConnectionRefusedError,
    )
    return "connect" if isinstance(error, never_reached) else "broken"


def _why(error: httpx.RequestError | OSError) -> str:
    # Some have no text of their own, but a cause that does.
    return str(error) or type(error).__name__


def _later(method: str, url: str, response: httpx.Response) -> HttpFailed:
    status = response.status_code
    return HttpFailed(
        method,
        url,
        "status",
        f"status {status} {response.reason_phrase}".rstrip(),
        status=status,
        retry_after=seconds_of(response.headers.get("Retry-After"), wall_ns()),
    )


def seconds_of(retry_after: str | None, now_ns: int) -> float | None:
    """What a `Retry-After` header asks for (RFC 9110, 10.2.3); None when it says nothing."""
    if retry_after is None:
        return None
    said = retry_after.strip()
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        # Whoever wrote it may have chosen any number for a year, or a time zone.
        return None
    # The oldest of the three forms names no zone; like the others it is in UTC.
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - now_ns / 1e9)
