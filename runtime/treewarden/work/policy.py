"""What a pool is, as data: where its work runs, how much of it, and how it has gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# What may wait in line before a pool, unless told: S22 of the systems' specification.
_LINE: Final = 1000


class PoolKind(StrEnum):
    """Where a pool's work runs."""

    TASK = "task"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """`size` pieces of work at a time, at most `queue` in line; the next is refused.

    Raises:
        TypeError, ValueError: a field is wrong; the message shows the value.
    """

    size: int = 10
    kind: str = PoolKind.TASK
    queue: int = _LINE

    def __post_init__(self) -> None:
        """Refuse what cannot be a pool."""
        _at_least("size", self.size, 1)
        _at_least("queue", self.queue, 0)
        if self.kind not in tuple(PoolKind):
            names = ", ".join(PoolKind)
            raise ValueError(f"kind must be one of {names}, not {self.kind!r}")


def _at_least(what: str, value: object, least: int) -> None:
    """Refuse what is not an int from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be >= {least}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool's gauges, and its counters since the run began.

    `started` = `running` + `completed` + `failed` + `stopped` + `timed_out`. `left_behind`
    are threads whose work was stopped and that still run. `busy_seconds` adds up the time
    that finished work took, by trio's clock.
    """

    path: str
    incarnation: int
    kind: PoolKind
    size: int
    queue: int
    running: int
    waiting: int
    left_behind: int
    started: int
    completed: int
    failed: int
    stopped: int
    timed_out: int
    refused: int
    busy_seconds: float
