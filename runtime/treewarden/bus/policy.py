"""How a durable subscription delivers, and what people call it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from treewarden.resilience import Backoff, check_count, check_number
from treewarden.store import DurableRetention

from .event import by_topic
from .topic import MAX_LENGTH

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
    `max_attempts` an event is a dead letter. `capacity` events are in memory. `retention`
    says what the journal does when it has come to its limits and the subscription has not
    come as far, also while nobody takes its events: see `DurableRetention`.
    """

    key: Callable[[Event], str] = by_topic
    capacity: int = 1000
    max_attempts: int = MAX_ATTEMPTS
    lease: float = LEASE_SECONDS
    backoff: Backoff = DEFAULT_BACKOFF
    retention: DurableRetention | str = DurableRetention.DROP_AND_MARK_GAP

    def __post_init__(self) -> None:
        """Refuse what could never deliver."""
        check_count("capacity", self.capacity, 1)
        check_count("max_attempts", self.max_attempts, 1)
        object.__setattr__(self, "retention", DurableRetention(self.retention))
        check_number("lease", self.lease)
        if not self.lease > 0:
            raise ValueError(f"lease must be > 0 seconds, not {self.lease}")


def check_delay(seconds: float) -> None:
    """Refuse what is no time after which something is tried again.

    Raises:
        TypeError, ValueError: with the value.
    """
    check_number("delay", seconds)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"delay must be >= 0 seconds and finite, not {seconds}")


def check_name(name: object) -> None:
    """Refuse what nobody can type, or no file takes.

    Raises:
        TypeError, ValueError: with the name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a durable subscription's name must be a str, not {name!r}")
    if not 1 <= len(name) <= MAX_LENGTH or not name.isprintable():
        raise ValueError(
            f"a durable subscription's name is 1 to {MAX_LENGTH} printable characters,"
            f" not {name[:40]!r} ({len(name)})"
        )


def durable_id(owner: str, name: str) -> str:
    """A durable subscription as people name it."""
    return f"{owner}:{name}" if owner else name
