"""How long the journal and the fault history are kept, and when something is too old.

Age goes by the time that has passed, not by what the wall clock says: a clock that is set
a month ahead makes everything look a month old, and must not empty the history.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_NS: Final = 24 * 3600 * 1_000_000_000
LEAST_BYTES: Final = 1 << 20
"""A journal that may not hold a megabyte answers no question."""
CATCH_UP: Final = 2
"""At the start nothing is too old that is not older than the oldest entry: each start under
a clock that is wrong would cost some of the history, and of a young one everything. From
then on it grows old this many times as fast, until it is as the clock says: what is a month
too old, because nobody ran for a month, is gone after a month."""


HELD_TIMES: Final = 4
"""What a durable subscription still needs is kept up to this many times the limits."""


class DurableRetention(StrEnum):
    """What the journal does when a durable subscription is behind its limits.

    `drop_and_mark_gap` deletes all the same, and the next event says how many it missed.
    `keep` deletes nothing that the subscription still needs. `pause_publisher` is the
    same, and who publishes what it wants waits until it is on its way again: a task waits,
    a handler and `publish_nowait` are refused, and only who takes its events goes on.
    Neither keeps more than `HELD_TIMES` the limits; beyond that it is as with the first.
    """

    DROP_AND_MARK_GAP = "drop_and_mark_gap"
    KEEP = "keep"
    PAUSE_PUBLISHER = "pause_publisher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the journal keeps: entries of the last `days`, in at most so many bytes."""

    days: float = 7.0
    journal_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not self.days > 0:
            raise ValueError(f"days must be > 0, not {self.days}")
        if self.journal_bytes < LEAST_BYTES:
            raise ValueError(
                f"journal_bytes must be at least {LEAST_BYTES}, not {self.journal_bytes}"
            )

    @property
    def keep_ns(self) -> int:
        """The same as `days`."""
        return int(self.days * DAY_NS)


class Horizon:
    """Before when (nanoseconds since the epoch) something is too old to be kept.

    `oldest_ns` is when the oldest of it was written, None when there is nothing.
    """

    def __init__(
        self,
        keep_ns: int,
        oldest_ns: int | None,
        *,
        wall: Callable[[], int] = wall_ns,
        elapsed: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._elapsed = elapsed
        self._began = elapsed()
        # The wall clock is read once: it may jump while we run, too.
        self._wanted = wall() - keep_ns
        self._allowed = self._wanted if oldest_ns is None else oldest_ns

    def before_ns(self) -> int:
        """What was written earlier than this may go."""
        passed = self._elapsed() - self._began
        return min(self._wanted + passed, self._allowed + CATCH_UP * passed)
