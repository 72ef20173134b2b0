"""What a transport reads from headers."""

from __future__ import annotations

import time

import pytest

from treewarden.gateways.transport import seconds_of

# Sun, 06 Nov 1994 08:49:37 GMT
NOW_NS = 784_111_777_000_000_000


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("²", None),
        ("9" * 400, float("inf")),
        ("\u0663", None),
        # The two old forms (RFC 9110, 5.6.7), and a zone that says that it is none.
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:50:37 -0000", 60.0),
        ("Sun, 06 Nov 99999 08:50:37 GMT", None),
        ("Sun, 06 Nov 199444444444444 08:50:37 GMT", None),
        ("Sun, 06 Nov 1994 08:50:37 +99999999999999", None),
        ("Sun, 06 Nov 1994 08:50:37 +04444444444400", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_noise_is_nothing(
    header: str | None,
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """RFC 9110, 10.2.3, wherever on Earth it is read."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    request.addfinalizer(time.tzset)
    request.addfinalizer(monkeypatch.undo)
    assert seconds_of(header, NOW_NS) == seconds
