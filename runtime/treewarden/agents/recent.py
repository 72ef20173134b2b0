"""What an agent has handled lately: a ring of fixed size, for people who look."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT: Final = 50
"""Messages that each agent remembers; the oldest goes."""

Outcome: TypeAlias = Literal["done", "refused", "crashed", "stopped", "interrupted"]
"""`interrupted`: it was cut off by no fault of its own, and waits again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """One message; `at_ns` is wall time when it was over, `sender` a path or ""."""

    operation: str
    sender: str
    at_ns: int
    outcome: Outcome


Entry: TypeAlias = tuple[str, str, int, Outcome]
"""A plain tuple: one is written for every message."""

Ring: TypeAlias = deque[Entry]
"""Oldest first."""

NOTHING_YET: Final[Ring] = deque(maxlen=0)
"""Of an agent that has handled nothing: the first message makes a ring."""


def new_ring(entries: Iterable[Entry] = ()) -> Ring:
    """One that holds `entries`, or the last of them."""
    return deque(entries, KEPT)


def as_record(entry: Entry) -> Handled:
    """An entry for those who look."""
    operation, sender, at_ns, outcome = entry
    return Handled(operation=operation, sender=sender, at_ns=at_ns, outcome=outcome)
