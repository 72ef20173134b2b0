"""What an exchange is, as data: its bounds, its patience, and how it has gone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from treewarden.errors import DeliveryFailed
from treewarden.resilience import (
    Backoff,
    CircuitPolicy,
    CircuitState,
    check_count,
    check_seconds,
)

# Bounds and times of the systems' specification: S18, S19 and its appendix A.
_LINE: Final = 1000
_TOTAL: Final = 10_000
_DELIVERY_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 60.0
_ATTEMPTS: Final = 10


def failed_to_deliver(error: BaseException) -> bool:
    """What counts against a receiver; what it answered, or a sender took back, does not."""
    return isinstance(error, DeliveryFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePolicy:
    """The bounds of an exchange and its patience, in messages and seconds.

    `capacity` messages may be under way to one receiver, `total` to all. A sender waits
    `delivery_timeout` for the acknowledgement, and so does each attempt. A buffered
    message that failed waits for the `backoff` and is tried again, `max_attempts` times
    in all: the waits between are such that a receiver that crashes over it does not spend
    a default restart budget. A receiver that nothing was sent to for `idle` seconds is
    forgotten, its worker and circuit with it. What counts as a failure of the `circuit`
    that each receiver has is the exchange's to say.

    Raises:
        TypeError, ValueError: a field is wrong; the message shows the value.
    """

    capacity: int = _LINE
    total: int = _TOTAL
    delivery_timeout: float = _DELIVERY_SECONDS
    max_attempts: int = _ATTEMPTS
    backoff: Backoff = field(
        default_factory=lambda: Backoff(initial=1.0, maximum=8.0, jitter=0.0)
    )
    idle: float = _IDLE_SECONDS
    circuit: CircuitPolicy = field(default_factory=CircuitPolicy)

    def __post_init__(self) -> None:
        """Refuse what is no bound."""
        for name in ("capacity", "total", "max_attempts"):
            check_count(name, getattr(self, name), 1)
        for name in ("delivery_timeout", "idle"):
            check_seconds(name, getattr(self, name))
        circuit = replace(self.circuit, counts_as_failure=failed_to_deliver)
        object.__setattr__(self, "circuit", circuit)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStatistics:
    """The messages for one receiver; counters since it was first sent to.

    accepted = delivered + failed + dropped + withdrawn + pending, at all times; `refused`
    are apart. `stalled`: what is sent to it now is buffered. `attempts`: how often the
    oldest has failed.
    """

    receiver: str
    pending: int
    stalled: bool
    circuit: CircuitState
    accepted: int
    delivered: int
    failed: int
    dropped: int
    withdrawn: int
    refused: int
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeStatistics:
    """An exchange's gauges, and its counters since the run began.

    accepted = delivered + failed + dropped + withdrawn + pending, at all times. `lines` are
    the receivers that it knows at the moment, `workers` the tasks that deliver to them.
    """

    path: str
    incarnation: int
    pending: int
    capacity: int
    total: int
    workers: int
    listeners: int
    listener_failures: int
    accepted: int
    delivered: int
    failed: int
    dropped: int
    withdrawn: int
    refused: int
    lines: tuple[LineStatistics, ...]
