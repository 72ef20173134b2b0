"""What may be shown of an address: everything but its secrets.

User and password go, and so does the value of each query parameter that is known to be a
credential: those that OpenTelemetry's conventions name, and the usual words.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_HIDDEN: Final = "REDACTED"
_SECRET: Final = re.compile(
    r"""(?ix)
    ( (?:^|&|;) [^=&;]* (?: sig(?:nature)? | token | secret | passw(?:or)?d | pwd
      | api_?-?key | access_?-?key(?:_?-?id)? | credentials? | auth | session ) [^=&;]* = )
    [^&;]*
    """
)


def without_secrets(url: str) -> str:
    """The address for errors, spans and people; half a character of UTF-16 becomes `?`."""
    url = url.encode(errors="replace").decode()
    try:
        parts = urlsplit(url)
    except ValueError:
        # What cannot be read cannot be cleaned.
        return _HIDDEN
    return SplitResult(
        parts.scheme,
        parts.netloc.rpartition("@")[2],
        parts.path,
        _SECRET.sub(rf"\1{_HIDDEN}", parts.query),
        "",
    ).geturl()
