"""What `/` means: `text` is a regular expression, `!text` inverts, `~text` is fuzzy."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as the operator typed it; the empty one lets everything through."""

    text: str = ""

    def __bool__(self) -> bool:
        """Whether it filters at all."""
        return bool(self.text.strip("!~"))

    def matches(self, subject: str) -> bool:
        """Whether `subject` passes; case does not matter."""
        if not self:
            return True
        wanted = self.text.lstrip("!")
        inverted = len(self.text) - len(wanted) == 1
        return (_pattern(wanted).search(subject) is not None) is not inverted


def _pattern(wanted: str) -> re.Pattern[str]:
    if wanted.startswith("~"):
        wanted = ".*?".join(map(re.escape, wanted[1:]))
    try:
        return re.compile(wanted, re.IGNORECASE)
    except re.error:
        # Half-typed expressions are the rule while somebody types.
        return re.compile(re.escape(wanted), re.IGNORECASE)
