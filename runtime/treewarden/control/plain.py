"""Text from outside, made harmless to show: control characters become visible marks.

Names, messages and payloads come from user code and from the network. A terminal obeys
escape sequences, and a reader is misled by text that changes direction or takes no room
(CWE-150). So whatever is shown goes through `plain` first: one line in, one line out,
every character of it visible.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Letters and marks by category that nevertheless draw nothing.
_INVISIBLE: Final = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u3164\uffa0"
_INVISIBLE_PATTERN: Final = re.compile(f"[{_INVISIBLE}]")
# Control, format (zero-width, bidi), surrogate (cannot be written out), separators.
_MARKED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class _Marks(dict[int, str]):
    """A translation table that is filled in as characters turn up."""

    def __missing__(self, code: int) -> str:
        mark = self[code] = _mark(code)
        return mark


def _mark(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    letter = chr(code)
    if unicodedata.category(letter) in _MARKED or letter in _INVISIBLE:
        return f"\u27e8{code:x}\u27e9"
    return letter


_MARKS: Final = _Marks()


def plain(text: str, limit: int | None = None) -> str:
    r"""`text` on one line, with every control character replaced by a visible mark.

    C0 characters become their pictures (`\x1b` is `␛`, a line end `␊`), all others their
    code in angle brackets (a right-to-left override is `⟨202e⟩`). At most `limit`
    characters are looked at; what is cut off is shown as `…`.
    """
    cut = limit is not None and len(text) > limit
    if cut:
        text = text[:limit]
    if not text.isprintable() or _INVISIBLE_PATTERN.search(text):
        text = text.translate(_MARKS)
    return f"{text}…" if cut else text


def plain_lines(text: str, limit: int | None = None) -> list[str]:
    """`text` split at its line ends, each line made plain; for tracebacks and logs."""
    return [plain(line, limit) for line in text.replace("\r\n", "\n").split("\n")]
