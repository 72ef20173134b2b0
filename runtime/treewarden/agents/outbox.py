"""What a commit has set free and what found no room: it leaves in order, one by one.

An agent whose outbox holds something takes no next message, so that a slow receiver slows
its sender and not the memory. The outbox belongs to the node: what was committed is
delivered by the next incarnation when this one crashes. What can never be delivered is
counted where it was lost: a cast as a dead letter, an event by its subscription.

Agents that all wait for each other's room would wait for ever. Who waits for whom is
followed whenever one begins to wait, so that the last to do so finds the ring, and loses
what would have closed it (reason `cycle`).
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from treewarden.bus import Event, Reason
from treewarden.errors import CallingSelf, TreewardenError
from treewarden.injection import places

from .message_spans import record_publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.bus import Bus, Subscription
    from treewarden.store import StagedEvent

    from .body import AgentBody
    from .envelope import Envelope
    from .staged import Staged


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

    def waits_for(self) -> AgentBody | None:
        """The agent that must take a message before this can leave, if there is one."""
        ...


NO_DELIVERIES: Final[deque[Delivery]] = deque(maxlen=0)
"""Of an agent whose outbox was never needed; it can hold nothing."""


def send(sender: AgentBody, staged: Staged) -> None:
    """After the commit: events first, then casts, in order; the rest waits."""
    if places.AGENT_SEND.armed is not None:
        places.AGENT_SEND.reach()
    sender.sent += len(staged.events) + len(staged.casts)
    bus = sender.surroundings.bus
    for staged_event, payload in staged.events:
        if bus is not None:
            record_publish(sender.surroundings.telemetry, staged_event)
            event = _as_event(staged_event, payload)
            if sender.outbox:
                _deliver(sender, EventDelivery(sender, bus, event))
            elif waiting := bus.offer(event):
                _deliver(sender, EventDelivery(sender, bus, event, waiting))
    for target, envelope in staged.casts:
        # Most find room at once: no delivery for those.
        if sender.outbox or envelope.is_kept or not target.put(envelope):
            _deliver(sender, target.delivery(sender, envelope))
    if sender.outbox:
        # It takes no next message before these have left.
        sender.wake()


def _deliver(sender: AgentBody, delivery: Delivery) -> None:
    if not sender.outbox and delivery.at_once():
        return
    if sender.resting:
        delivery.lose("its sender is down")
    elif len(sender.outbox) >= sender.mailbox.capacity:
        delivery.lose("outbox_full")
    else:
        if sender.outbox is NO_DELIVERIES:
            sender.outbox = deque()
        sender.outbox.append(delivery)
        sender.called_away = True


def _as_event(staged: StagedEvent, payload: object) -> Event:
    return Event(
        topic=staged.topic,
        payload=payload,
        position=staged.position,
        at_ns=staged.at_ns,
        source=staged.source,
        trace=staged.trace,
    )


async def stand_in_line(
    sender: AgentBody, target: AgentBody, envelope: Envelope
) -> None:
    """In a handler of `sender`: wait for room at `target`.

    Raises:
        CallingSelf: that would be for ever; it was not sent.
    """
    if target.mailbox.would_wait and closes_a_ring(sender, target):
        raise would_wait_for_itself(sender, target)
    with standing_before(sender, target, envelope):
        await target.accept_and_wait(envelope)


def would_wait_for_itself(sender: AgentBody, target: AgentBody) -> CallingSelf:
    """The error for a cast that would close a ring."""
    return CallingSelf(
        f"{sender.node.path} casts to {target.node.path}, which cannot make room "
        f"before {sender.node.path} takes a message; use self.cast"
    )


@contextmanager
def standing_before(
    sender: AgentBody, target: AgentBody, envelope: Envelope
) -> Iterator[None]:
    """While a handler waits for room at `target`, for who looks for rings."""
    entry = target, envelope
    sender.standing += (entry,)
    try:
        yield
    finally:
        sender.standing = tuple(one for one in sender.standing if one is not entry)


def _waits_for(body: AgentBody) -> list[AgentBody]:
    """The agents that must make room before this one takes a message."""
    found = [target for target, envelope in body.standing if envelope.task is not None]
    if body.outbox:
        first = body.outbox[0].waits_for()
        if first is not None:
            found.append(first)
    return found


def closes_a_ring(sender: AgentBody, target: AgentBody) -> bool:
    """Whether `target`, which has no room, cannot make any before `sender` has some.

    An agent takes no message while it waits for room elsewhere.
    """
    seen: set[int] = set()
    ahead = [target]
    while ahead:
        body = ahead.pop()
        if body is sender:
            return True
        if id(body) not in seen:
            seen.add(id(body))
            ahead += _waits_for(body)
    return False


class CastDelivery:
    """A staged cast."""

    __slots__ = ("_envelope", "_in_line", "_sender", "_target")

    def __init__(
        self, sender: AgentBody, target: AgentBody, envelope: Envelope
    ) -> None:
        self._sender = sender
        self._target = target
        self._envelope = envelope
        self._in_line = False

    def at_once(self) -> bool:
        """See `Delivery`."""
        if self._target.mailbox.would_wait:
            return self._breaks_a_ring()
        self._target.accept_or_lose(self._envelope)
        return True

    async def deliver(self) -> None:
        """See `Delivery`."""
        if self._target.mailbox.would_wait and self._breaks_a_ring():
            return
        self._in_line = True
        try:
            await self._target.accept_and_wait(self._envelope)
        except TreewardenError as error:
            self.lose(type(error).__name__)
        finally:
            self._in_line = False

    def _breaks_a_ring(self) -> bool:
        if closes_a_ring(self._sender, self._target):
            self.lose("cycle")
            return True
        return False

    def lose(self, why: str) -> None:
        """See `Delivery`."""
        self._target.dead_letter(self._envelope, why)

    def waits_for(self) -> AgentBody | None:
        """See `Delivery`."""
        if self._in_line:
            # Once it has moved up, its task only has to notice.
            waits = self._envelope.task is not None
        else:
            waits = self._target.mailbox.would_wait
        return self._target if waits else None


class EventDelivery:
    """A committed event, for the `wait` subscriptions that had no room for it.

    `waiting` are those, once it was offered.
    """

    __slots__ = ("_bus", "_event", "_in_line", "_offered", "_sender", "_waiting")

    def __init__(
        self,
        sender: AgentBody,
        bus: Bus,
        event: Event,
        waiting: tuple[Subscription, ...] | None = None,
    ) -> None:
        self._sender = sender
        self._bus = bus
        self._event = event
        self._offered = waiting is not None
        self._in_line = False
        self._waiting: deque[Subscription] = deque(waiting or ())

    def at_once(self) -> bool:
        """See `Delivery`."""
        if not self._offered:
            self._offered = True
            self._waiting.extend(self._bus.offer(self._event))
        self._break_rings()
        return not self._waiting

    async def deliver(self) -> None:
        """See `Delivery`."""
        while not self.at_once():
            self._in_line = True
            try:
                await self._waiting[0].put(self._event)
            finally:
                self._in_line = False
            self._waiting.popleft()

    def _break_rings(self) -> None:
        while (owner := self.waits_for()) and closes_a_ring(self._sender, owner):
            self._waiting.popleft().drop_new(Reason.FULL)

    def lose(self, why: str) -> None:
        """See `Delivery`."""
        self.at_once()
        for subscription in self._waiting:
            subscription.drop_new(Reason.FULL)
        self._waiting.clear()

    def waits_for(self) -> AgentBody | None:
        """See `Delivery`."""
        if not self._waiting or (self._in_line and not self._waiting[0].line):
            return None
        owner = self._sender.agent_at(self._waiting[0].owner)
        # With room in the mailbox it fetches its events before it waits for anybody.
        return owner if owner is not None and not owner.mailbox.has_room else None
