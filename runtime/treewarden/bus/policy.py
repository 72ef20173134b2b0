"""How a durable subscription delivers, and what people call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from treewarden.resilience import Backoff

from .event import by_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from .event import Event

MAX_ATTEMPTS: Final = 10
LEASE_SECONDS: Final = 30.0
DEFAULT_BACKOFF: Final = Backoff()


@dataclass(frozen=True, slots=True, kw_only=True)
class DurablePolicy:
    """How a durable subscription delivers.

    `key`: events of one key are delivered one at a time, in their order. A lease ends
    after `lease` seconds; after an attempt that failed there is a wait (`backoff`); after
    `max_attempts` an event is a dead letter. `capacity` events are in memory.
    """

    key: Callable[[Event], str] = by_topic
    capacity: int = 1000
    max_attempts: int = MAX_ATTEMPTS
    lease: float = LEASE_SECONDS
    backoff: Backoff = DEFAULT_BACKOFF

    def __post_init__(self) -> None:
        """Refuse what could never deliver."""
        if self.capacity < 1:
            raise ValueError(f"capacity must be >= 1 event, not {self.capacity}")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be >= 1, not {self.max_attempts}")
        if not self.lease > 0:
            raise ValueError(f"lease must be > 0 seconds, not {self.lease}")


def durable_id(owner: str, name: str) -> str:
    """A durable subscription as people name it."""
    return f"{owner}:{name}" if owner else name
