"""The bounded queue in front of an agent: pure bookkeeping, no tasks.

A mailbox belongs to the node and outlives incarnations. What it cannot take it does not
swallow: by policy the sender waits, is refused, or a message is dropped and counted.
Senders that wait stand in a line of their own and move up in order as messages are taken,
so that neither a crash nor a late-comer can overtake or strand one.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .envelope import Envelope


class MailboxOverflow(StrEnum):
    """What happens to a message for which there is no room."""

    WAIT = "wait"
    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


_DROPS: Final = (MailboxOverflow.DROP_OLDEST, MailboxOverflow.DROP_NEWEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxPolicy:
    """How many messages may wait, and what becomes of the next one.

    `durable`: a cast is a row in the store before it counts as accepted, and survives the
    process; its handler's changes are applied once. One whose handler crashes or refuses
    is tried again, `max_attempts` times in all, and is a dead letter then.
    """

    capacity: int = 1000
    overflow: str = MailboxOverflow.WAIT
    durable: bool = False
    max_attempts: int = 3

    def __post_init__(self) -> None:
        """Refuse what is no bound."""
        capacity = self.capacity
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise ValueError(f"capacity must be an int >= 1, not {capacity!r}")
        try:
            object.__setattr__(self, "overflow", MailboxOverflow(self.overflow))
        except ValueError:
            names = ", ".join(MailboxOverflow)
            raise ValueError(
                f"overflow must be one of {names}, not {self.overflow!r}"
            ) from None
        if not isinstance(self.durable, bool):
            raise ValueError(f"durable must be a bool, not {self.durable!r}")  # noqa: TRY004 - as for every option
        attempts = self.max_attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"max_attempts must be an int >= 1, not {attempts!r}")
        if self.durable and self.overflow in _DROPS:
            raise ValueError(
                f"a durable mailbox loses nothing: overflow must be wait or reject, not "
                f"{self.overflow}"
            )


class Admission(StrEnum):
    """What became of a message that was offered."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    REJECTED = "rejected"
    DROPPED = "dropped"


NO_MESSAGES: Final[deque[Envelope]] = deque(maxlen=0)
"""Where nothing was put yet; it can hold nothing.

An empty deque is 760 bytes, a sixth of an agent: the first message makes one.
"""


class Mailbox:
    """Messages in order, at most `capacity` of them, and the senders behind them."""

    __slots__ = (
        "_gone",
        "capacity",
        "dropped",
        "items",
        "overflow",
        "rejected",
        "taken",
        "waiting",
    )

    def __init__(self, policy: MailboxPolicy) -> None:
        self.capacity = policy.capacity
        self.overflow = MailboxOverflow(policy.overflow)
        self.items: deque[Envelope] = NO_MESSAGES
        self.waiting: deque[Envelope] = NO_MESSAGES
        self.taken = 0
        # Those that were in it and will never be taken.
        self._gone = 0
        self.dropped = 0
        self.rejected = 0

    def put(self, envelope: Envelope) -> None:
        """Append a message for which there is room."""
        if self.items is NO_MESSAGES:
            self.items = deque()
        self.items.append(envelope)

    @property
    def accepted(self) -> int:
        """How many were ever let in; worked out, for nothing is to count them twice."""
        return self.taken + len(self.items) + self._gone

    def __len__(self) -> int:
        """How many messages wait, senders in line not included."""
        return len(self.items)

    @property
    def has_room(self) -> bool:
        """Whether the next message would be accepted."""
        return len(self.items) < self.capacity and not self.waiting

    @property
    def would_wait(self) -> bool:
        """Whether the sender of the next message would have to stand in line."""
        full = len(self.items) >= self.capacity or bool(self.waiting)
        return full and self.overflow is MailboxOverflow.WAIT

    def offer(self, envelope: Envelope) -> tuple[Admission, Envelope | None]:
        """Put a message by the policy; with it, a message that had to go for it."""
        if len(self.items) < self.capacity and not self.waiting:
            self.put(envelope)
            return Admission.ACCEPTED, None
        match self.overflow:
            case MailboxOverflow.WAIT:
                if self.waiting is NO_MESSAGES:
                    self.waiting = deque()
                self.waiting.append(envelope)
                return Admission.WAITING, None
            case MailboxOverflow.REJECT:
                self.rejected += 1
                return Admission.REJECTED, None
            case MailboxOverflow.DROP_NEWEST:
                self.dropped += 1
                return Admission.DROPPED, envelope
            case MailboxOverflow.DROP_OLDEST:
                oldest = self.items.popleft()
                self.items.append(envelope)
                self._gone += 1
                self.dropped += 1
                return Admission.ACCEPTED, oldest

    def force(self, envelope: Envelope) -> None:
        """Put what must not be lost and is bounded elsewhere: a Down, a timer."""
        self.put(envelope)

    def put_first(self, envelope: Envelope) -> None:
        """Put an agent's own continuation before everything else."""
        if self.items is NO_MESSAGES:
            self.items = deque()
        self.items.appendleft(envelope)

    def remove(self, envelope: Envelope) -> Envelope | None:
        """Take a message out of its turn, if it is there; who moved up for it."""
        with suppress(ValueError):
            self.items.remove(envelope)
            self.taken += 1
        return self.move_up()

    def put_back(self, envelope: Envelope) -> None:
        """Return the message in hand to the head of the queue."""
        self.put_first(envelope)
        self.taken -= 1

    def take(self) -> tuple[Envelope, Envelope | None]:
        """The oldest message and, when a sender in line moved up, its message."""
        envelope = self.items.popleft()
        self.taken += 1
        return envelope, self.move_up() if self.waiting else None

    def move_up(self) -> Envelope | None:
        """Let the first sender in line in, if there is room; its message."""
        if not self.waiting or len(self.items) >= self.capacity:
            return None
        moved = self.waiting.popleft()
        self.put(moved)
        return moved

    def withdraw(self, envelope: Envelope) -> bool:
        """A sender in line went away; False when its message is no longer in line."""
        if not self.waiting:
            return False
        try:
            self.waiting.remove(envelope)
        except ValueError:
            return False
        return True

    def empty(self) -> list[Envelope]:
        """Everything that waits, senders in line last; the mailbox is empty then."""
        everything = [*self.items, *self.waiting]
        self._gone += len(self.items)
        self.items.clear()
        self.waiting.clear()
        return everything

    def room(self) -> float:
        """How many more messages would be accepted now."""
        return 0 if self.waiting else max(0, self.capacity - len(self.items))
