"""What a transport reads from headers."""

from __future__ import annotations

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
    ],
)
def test_retry_after_is_seconds_or_a_date_and_noise_is_nothing(
    header: str | None, seconds: float | None
) -> None:
    """RFC 9110, 10.2.3."""
    assert seconds_of(header, NOW_NS) == seconds
