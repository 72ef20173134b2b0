"""One message on its way through an exchange, and what its sender is told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    import outcome

    from treewarden.agents import Request

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered(Generic[R]):
    """The receiver has handled it, and what it did is committed; `value` is its answer."""

    value: R


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered:
    """The receiver is in trouble; the message waits behind `ahead` others for its return.

    It is delivered once when the circuit closes, or becomes a dead letter: dropped for
    newer ones, given up after too many attempts, or left by a receiver that is gone. It is
    kept in memory, and is lost with the process.
    """

    ahead: int


Sent: TypeAlias = Delivered[R] | Buffered


class Parcel:
    """A message, who waits for what becomes of it, and how often it was offered.

    `offer` puts it into the receiver's mailbox. `request` is what that gave, as long as it
    may still be answered: a parcel that was begun is never offered again, its answer is
    waited for instead.
    """

    __slots__ = ("deadline", "offer", "operation", "request", "result", "told")

    def __init__(
        self,
        operation: str,
        offer: Callable[[], Request[Any]],
        *,
        deadline: float = math.inf,
        awaited: bool,
    ) -> None:
        """`deadline` (trio's clock) is that of a sender who waits."""
        self.operation = operation
        self.offer = offer
        self.deadline = deadline
        self.request: Request[Any] | None = None
        self.told = trio.Event() if awaited else None
        self.result: outcome.Outcome[Sent[Any]] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether its sender waits to be told."""
        return self.told is not None and self.result is None

    def tell(self, result: outcome.Outcome[Sent[Any]]) -> None:
        """Let its sender go on with this; from now on nobody waits for it."""
        self.result = result
        self.deadline = math.inf
        if self.told is not None:
            self.told.set()
