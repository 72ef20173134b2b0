"""Events of durable subscriptions: handled like messages, and once into the state.

An event is leased to the agent for as long as it lives here, and becomes a message of its
mailbox. The unit of its handler notes that it is done, together with what the handler
changed: all of it or nothing. What goes wrong, and where the event is then: its handler
crashes or refuses: it waits in the subscription, one attempt the more, and is a dead letter
after the last one; the agent is stopped or replaced, or a commit fails: in the subscription,
which hands it out again before those behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from treewarden.bus import durable_id
from treewarden.errors import NotRunning

from .envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection

    from treewarden.bus import DurablePolicy, LeasedEvent, Start, Subscriber
    from treewarden.exits import Fault
    from treewarden.store import Owned, Unit

    from .body import AgentBody

_EVENTS = "events"


class EventEnvelope(Envelope, eq=False):
    """An event on its way through the mailbox."""

    leased: LeasedEvent | None = None
    events: DurableEvents | None = None

    def take_back(self, why: str, fault: Fault | None) -> bool:
        """See `Envelope`: the subscription has it again."""
        leased, events = self.leased, self.events
        if leased is None or events is None:
            return False
        if why == "crashed":
            events.crashed(leased)
        if why in ("crashed", "refused"):
            leased.nack(fault or why)
        else:
            leased.give_back()
        return True


class DurableEvents:
    """An agent's durable subscriptions, and as one of its collections what it handled."""

    kind = _EVENTS
    name = _EVENTS

    def __init__(self, body: AgentBody) -> None:
        self._body = body
        # By their ids; and where those begin that this incarnation has not opened yet.
        self._members: dict[str, Subscriber] = {}
        self._starts: dict[str, Start] = {}

    # --- as a collection -------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Whose they are."""
        return self._body.node.path

    def __len__(self) -> int:
        """Events that are neither handled nor given up."""
        return sum(one.subscription.pending for one in self._members.values())

    @property
    def committed(self) -> int:
        """The same: what waits is in the file."""
        return len(self)

    async def open(self) -> None:
        """See `Collection`."""
        await trio.lowlevel.checkpoint()

    @property
    def dirty(self) -> bool:
        """Whether the message in hand is an event of ours."""
        return isinstance(self._body.in_hand, EventEnvelope)

    def seal(self, unit: Unit) -> None:
        """The handler returned: that the event is done commits with what it did."""
        envelope = self._body.in_hand
        if isinstance(envelope, EventEnvelope) and envelope.leased is not None:
            envelope.leased.settle(unit)

    def discard(self) -> None:
        """The handler failed; see `EventEnvelope.take_back`."""

    def reset(self) -> None:
        """A commit failed: its unit tells the subscription."""

    # --- subscribing -----------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        *,
        name: str,
        group: str,
        policy: DurablePolicy,
        start: Start,
    ) -> Subscriber:
        """See `Agent.subscribe`."""
        body = self._body
        bus = body.surroundings.bus
        if bus is None:
            raise NotRunning(f"{self.path} subscribes and there is no bus")
        owner = "" if group else self.path
        name = group or name or pattern
        key = durable_id(owner, name)
        kept = self._members.get(key)
        if kept is not None and kept.subscription.pattern != pattern:
            kept.leave()
            kept = None
        if kept is None:
            kept = self._members[key] = bus.join_durable(
                name,
                pattern,
                owner=owner,
                policy=policy,
                sink=self._take,
                wants=self._has_room,
            )
        self._starts[key] = start
        return kept

    def let_go(self) -> None:
        """The incarnation is over: the next one asks for what it wants."""
        self._starts.clear()

    def renew(self) -> None:
        """After `on_start`: keep what it asked for.

        What the last incarnation left in the mailbox goes back: a failed commit may have
        returned events that come before.
        """
        self.keep_only(self._starts)
        self._empty_mailbox()
        for member in self._members.values():
            member.return_all()

    @property
    def is_open(self) -> bool:
        """Whether all of them deliver."""
        return not self._starts

    async def open_all(self) -> None:
        """Have all of them deliver.

        Raises:
            RestoreError, StoreError: one cannot be opened.
        """
        for key, start in tuple(self._starts.items()):
            await self._members[key].subscription.open(start)
            del self._starts[key]
        self.flush()

    def keep_only(self, keys: Collection[str]) -> None:
        """Leave the others; what they hold goes to whoever else takes their events."""
        for key in [one for one in self._members if one not in keys]:
            self._members.pop(key).leave()

    @property
    def keys(self) -> list[Owned]:
        """The subscriptions that it takes events of."""
        return [one.subscription.key for one in self._members.values()]

    def flush(self) -> None:
        """The mailbox has room again."""
        for member in self._members.values():
            member.flush()

    # --- events in -------------------------------------------------------------------------

    def _has_room(self) -> bool:
        body = self._body
        return not body.resting and len(body.mailbox) < body.mailbox.capacity

    def _take(self, leased: LeasedEvent) -> None:
        body = self._body
        envelope = EventEnvelope(body.agent_class.on_event, (leased.event,), {})
        envelope.leased, envelope.events = leased, self
        body.mailbox.force(envelope)
        body.wake()

    def _empty_mailbox(self) -> None:
        body = self._body
        for envelope in [
            one for one in body.mailbox.items if isinstance(one, EventEnvelope)
        ]:
            body.take_back(envelope)

    def crashed(self, leased: LeasedEvent) -> None:
        """Only its first crash counts against the agent's budget."""
        if leased.attempt > 1:
            self._body.forgive_crash()


def durable_events(body: AgentBody) -> DurableEvents:
    """Those of an agent, among its collections from now on."""
    collections = body.memory.collections or {}
    found = collections.get(_EVENTS)
    if not isinstance(found, DurableEvents):
        found = DurableEvents(body)
        body.memory.collections = {**collections, _EVENTS: found}
    return found
