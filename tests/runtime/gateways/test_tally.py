"""What a client counts."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from treewarden.errors import HttpFailed
from treewarden.gateways import HttpResponse
from treewarden.gateways.tally import Tally


def answer(status: int, body: bytes = b"") -> HttpResponse:
    return HttpResponse(url="", status=status, headers={}, body=body)


async def test_every_request_has_one_end() -> None:
    tally = Tally()
    with tally.request():
        assert (tally.requests, tally.active) == (1, 1)
    with suppress(ValueError), tally.request():
        raise ValueError
    with trio.CancelScope() as scope, tally.request():
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert (tally.answered, tally.failed, tally.cancelled) == (1, 1, 1)
    assert (tally.requests, tally.active) == (3, 0)


def test_attempts_are_counted_by_what_came_of_them() -> None:
    tally = Tally()
    assert tally.mean_seconds == 0.0
    tally.attempt(answer(200, b"12345"), 1.0)
    tally.attempt(HttpFailed("GET", "", "status", "", status=503), 3.0)
    tally.attempt(HttpFailed("GET", "", "connect", ""), 100.0)
    tally.attempt(None, 100.0)
    assert tally.attempts == 4
    assert dict(tally.statuses) == {200: 1, 503: 1}
    assert dict(tally.errors) == {"connect": 1}
    assert (tally.cut_off, tally.received_bytes) == (1, 5)
    assert tally.mean_seconds == pytest.approx(2.0)
    assert tally.most_seconds == 3.0
