"""The messages for one receiver, oldest first: who waits, who is dropped, who is refused.

Theory of operation. A line delivers one parcel at a time: its head. The head stays where it
is until somebody knows what became of it, so that an interrupted delivery loses nothing and
nothing overtakes it. A line is *flowing* or *stalled*.

Flowing, the senders of its parcels wait to be told, or have said that they will not. What
finds the line full is refused: whoever sends too fast has to hear of it. A head that fails
is over when its sender waits; he is told and can decide.

Stalled (the receiver's circuit is open, or a head that nobody waits for has failed), every
sender is told that his parcel is buffered, and nobody waits. What finds the line full takes
the place of the oldest that is not in hand. A head that fails stays, unless it has failed
too often: then it, and not the receiver, is what is broken. An acknowledged head makes the
line flow again.

Nothing here knows of clocks, tasks or circuits; parcels are anything that can be hashed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

P = TypeVar("P")


class Room:
    """What all lines of an exchange may hold together."""

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def is_left(self) -> bool:
        """Whether one more fits."""
        return self.taken < self.limit


class Line(Generic[P]):
    """See the module's theory of operation.

    accepted = acknowledged + failed + dropped + removed + len(line), at all times.
    """

    __slots__ = (
        "_parcels",
        "_room",
        "accepted",
        "acknowledged",
        "attempts",
        "capacity",
        "dropped",
        "failed",
        "in_hand",
        "refused",
        "removed",
        "stalled",
    )

    def __init__(self, capacity: int, room: Room) -> None:
        self.capacity = capacity
        self.stalled = False
        self.in_hand: P | None = None
        # How often the head has failed.
        self.attempts = 0
        self.accepted = self.acknowledged = self.failed = 0
        self.dropped = self.removed = self.refused = 0
        self._room = room
        # Whether somebody waits to be told, by parcel.
        self._parcels: OrderedDict[P, bool] = OrderedDict()

    def __len__(self) -> int:
        """How many there are, the one in hand included."""
        return len(self._parcels)

    def __iter__(self) -> Iterator[P]:
        """Oldest first."""
        return iter(self._parcels)

    def __contains__(self, parcel: P) -> bool:
        """Whether it is not known yet what became of it."""
        return parcel in self._parcels

    @property
    def is_full(self) -> bool:
        """Whether the next one is refused, or takes somebody's place."""
        return len(self._parcels) >= self.capacity or not self._room.is_left

    def put(self, parcel: P, *, awaited: bool) -> tuple[bool, P | None]:
        """Whether it was accepted, and who had to go for it.

        In a stalled line nobody waits: tell its sender that it is buffered.
        """
        victim = None
        if self.is_full:
            victim = self._oldest_at_rest() if self.stalled else None
            if victim is None:
                self.refused += 1
                return False, None
            self._take_out(victim)
            self.dropped += 1
        self._parcels[parcel] = awaited and not self.stalled
        self._room.taken += 1
        self.accepted += 1
        return True, victim

    def take(self) -> P:
        """Take the head in hand; it stays the head. The line must not be empty."""
        self.in_hand = parcel = next(iter(self._parcels))
        return parcel

    def let_go(self) -> None:
        """Its delivery was interrupted, or did not begin."""
        self.in_hand = None

    def acknowledge(self) -> None:
        """The one in hand was delivered."""
        self._over()
        self.acknowledged += 1
        self.stalled = False

    def reject(self) -> None:
        """The one in hand was answered with an error: it, not the receiver, is at fault."""
        self._over()
        self.failed += 1
        self.stalled = False

    def fail(self, *, limit: int) -> bool:
        """The delivery of the one in hand failed; whether that is the end of it.

        If not, it is the head still and the line has to be stalled. `limit` is how often
        one that nobody waits for may fail.
        """
        parcel = self.in_hand
        assert parcel is not None  # noqa: S101 - only what is in hand can fail
        self.attempts += 1
        if self._parcels[parcel] or self.attempts >= limit:
            self._over()
            self.failed += 1
            return True
        self.let_go()
        return False

    def stall(self) -> list[P]:
        """From now on nobody waits: those whose senders did, to be told so, in order."""
        self.stalled = True
        # Whoever is in hand is about to be told something better.
        waited = [
            parcel
            for parcel, awaited in self._parcels.items()
            if awaited and parcel != self.in_hand
        ]
        for parcel in waited:
            self._parcels[parcel] = False
        return waited

    def flow(self) -> None:
        """The receiver is well, as far as is known."""
        self.stalled = False

    def remove(self, parcel: P) -> None:
        """Its sender took it back before it was begun."""
        if parcel == self.in_hand:
            self._over()
        else:
            self._take_out(parcel)
        self.removed += 1

    def clear(self) -> list[P]:
        """There is nobody any more to deliver to: all that was left."""
        left = list(self._parcels)
        self._parcels.clear()
        self._room.taken -= len(left)
        self.failed += len(left)
        self.in_hand = None
        self.attempts = 0
        return left

    def _over(self) -> None:
        parcel, self.in_hand = self.in_hand, None
        assert parcel is not None  # noqa: S101 - only what is in hand is delivered
        self._take_out(parcel)

    def _take_out(self, parcel: P) -> None:
        if parcel == next(iter(self._parcels)):
            self.attempts = 0
        del self._parcels[parcel]
        self._room.taken -= 1

    def _oldest_at_rest(self) -> P | None:
        return next((one for one in self._parcels if one != self.in_hand), None)
