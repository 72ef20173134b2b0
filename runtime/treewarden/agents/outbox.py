"""What a commit has set free and what found no room: it leaves in order, one by one.

An agent whose outbox holds something takes no next message, so that a slow receiver slows
its sender and not the memory. The outbox belongs to the node: what was committed is
delivered by the next incarnation when this one crashes. What can never be delivered is
counted where it was lost: a cast as a dead letter, an event by its subscription.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from treewarden.bus import Reason
from treewarden.errors import TreewardenError

if TYPE_CHECKING:
    from treewarden.bus import Bus, Event, Subscription

    from .body import AgentBody
    from .envelope import Envelope


class Delivery(Protocol):
    """One thing on its way out."""

    def at_once(self) -> bool:
        """Deliver it if nobody has to wait for that; False: not (all of it) yet."""
        ...

    async def deliver(self) -> None:
        """Wait for room and deliver it. Cancelled: call again, nothing comes twice."""
        ...

    def lose(self, why: str) -> None:
        """It will never be delivered; count it."""
        ...


class CastDelivery:
    """A staged cast."""

    __slots__ = ("_envelope", "_sender", "_target")

    def __init__(
        self, sender: AgentBody, target: AgentBody, envelope: Envelope
    ) -> None:
        self._sender = sender
        self._target = target
        self._envelope = envelope

    def at_once(self) -> bool:
        """See `Delivery`."""
        if self._target.mailbox.would_wait:
            return self._closes_a_ring()
        self._target.accept_or_lose(self._envelope)
        return True

    async def deliver(self) -> None:
        """See `Delivery`."""
        if self._target.mailbox.would_wait and self._closes_a_ring():
            return
        try:
            await self._target.accept_and_wait(self._envelope)
        except TreewardenError as error:
            self.lose(type(error).__name__)

    def _closes_a_ring(self) -> bool:
        # It would wait for room that only it can make.
        if self._target is self._sender:
            self.lose("cycle")
            return True
        return False

    def lose(self, why: str) -> None:
        """See `Delivery`."""
        self._target.dead_letter(self._envelope, why)


class EventDelivery:
    """A committed event, for the `wait` subscriptions that had no room for it."""

    __slots__ = ("_bus", "_event", "_offered", "_waiting")

    def __init__(self, bus: Bus, event: Event) -> None:
        self._bus = bus
        self._event = event
        self._offered = False
        self._waiting: deque[Subscription] = deque()

    def at_once(self) -> bool:
        """See `Delivery`."""
        if not self._offered:
            self._offered = True
            for subscription in self._bus.offer(self._event):
                if subscription.owner == self._event.source:
                    # It would wait for room that only it can make.
                    subscription.drop_new(Reason.FULL)
                else:
                    self._waiting.append(subscription)
        return not self._waiting

    async def deliver(self) -> None:
        """See `Delivery`."""
        self.at_once()
        while self._waiting:
            await self._waiting[0].put(self._event)
            self._waiting.popleft()

    def lose(self, why: str) -> None:
        """See `Delivery`."""
        self.at_once()
        for subscription in self._waiting:
            subscription.drop_new(Reason.FULL)
        self._waiting.clear()
