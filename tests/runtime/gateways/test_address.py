"""What may be shown of an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.gateways.address import without_secrets

PLAIN = st.text("abcdefghij0123456789", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/path?q=1&page=2", "http://host/path?q=1&page=2"),
        ("https://me:hush@host:8443/", "https://host:8443/"),
        ("http://hush@host", "http://host"),
        ("http://a:b@c:hush@host/", "http://host/"),
        ("http://host/?token=hush&q=1", "http://host/?token=REDACTED&q=1"),
        ("http://host/?a=1&API_KEY=hush", "http://host/?a=1&API_KEY=REDACTED"),
        (
            "http://host/?X-Goog-Signature=hush",
            "http://host/?X-Goog-Signature=REDACTED",
        ),
        ("http://host/?AWSAccessKeyId=hush", "http://host/?AWSAccessKeyId=REDACTED"),
        ("http://host/?sig=hush;pwd=hush", "http://host/?sig=REDACTED;pwd=REDACTED"),
        ("http://host/p#access_token=hush", "http://host/p"),
        ("/relative?session=hush", "/relative?session=REDACTED"),
        ("http://[hush", "REDACTED"),
        ("http://host/\ud800?sig=hush", "http://host/??sig=REDACTED"),
    ],
)
def test_secrets_are_taken_out_and_all_else_stays(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(PLAIN, PLAIN, PLAIN, st.sampled_from(["token", "client_secret", "Signature"]))
def test_no_password_and_no_credential_gets_through(
    user: str, path: str, value: str, name: str
) -> None:
    shown = without_secrets(
        f"https://{user}:HUSH@host/{path}?a={value}&{name}=HUSH&b={value}#HUSH"
    )
    assert "HUSH" not in shown
    assert shown == f"https://host/{path}?a={value}&{name}=REDACTED&b={value}"
