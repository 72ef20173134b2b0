"""What an agent has handled lately: a ring of fixed size, for people who look."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

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


Ring: TypeAlias = deque[tuple[str, str, int, Outcome]]
"""Plain tuples, oldest first: one is written for every message."""


def new_ring() -> Ring:
    """An empty one."""
    return deque(maxlen=KEPT)


def as_records(ring: Ring | None) -> tuple[Handled, ...]:
    """What it holds, oldest first."""
    return tuple(
        Handled(operation=operation, sender=sender, at_ns=at_ns, outcome=outcome)
        for operation, sender, at_ns, outcome in ring or ()
    )
