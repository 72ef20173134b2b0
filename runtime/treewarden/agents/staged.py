"""What a handler wants to happen with its commit, and not without it."""

# ruff: noqa: TC004 - msgspec asks a struct for its names here, never for its types
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

import treewarden.telemetry as tracing
from treewarden.bus import check_topic, to_json
from treewarden.clock import wall_ns
from treewarden.errors import NotRunning, TreewardenError
from treewarden.store import StagedEvent

from .envelope import Envelope
from .message_spans import trace_id
from .reply import Reply

if TYPE_CHECKING:
    from treewarden.store import Store, Unit
    from treewarden.supervision import Timer

    from .body import AgentBody
    from .ref import AgentRef


class Staged(msgspec.Struct, eq=False):
    """What the handler in hand wants to happen with its commit."""

    body: AgentBody
    # The message in hand, when its answer is put off; and answers put off before.
    deferred: Envelope | None = None
    replies: list[tuple[Envelope, object]] = msgspec.field(default_factory=list)
    continuations: list[Envelope] = msgspec.field(default_factory=list)
    events: list[tuple[StagedEvent, object]] = msgspec.field(default_factory=list)
    casts: list[tuple[AgentBody, Envelope]] = msgspec.field(default_factory=list)
    # Armed already: the agent's own clock runs ahead with it.
    timers: list[Timer] = msgspec.field(default_factory=list)

    # --- by the handler ----------------------------------------------------------------------

    def publish(self, topic: str, payload: object) -> None:
        """See `Agent.publish`."""
        body = self.body
        bus = body.surroundings.bus
        if bus is None:
            raise NotRunning(f"{body.node.path} publishes and there is no bus")
        check_topic(topic)
        if bus.pauses_publishers:
            ties = body.ties
            events = None if ties is None else ties.events
            bus.check_paused(topic, () if events is None else events.keys)
        encoded, plain = to_json(topic, payload)
        event = StagedEvent(
            topic=topic,
            payload=encoded,
            at_ns=wall_ns(),
            source=body.node.path,
            trace=trace_id(),
        )
        self.events.append((event, plain))

    def cast(
        self,
        ref: AgentRef[Any],
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        """See `Agent.cast`."""
        target = ref.resolve()
        operation = target.found(named, args, kwargs)
        envelope = self._signed(target.make_cast(operation, args, kwargs))
        self.casts.append((target, envelope))

    def continue_with(
        self, named: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """See `Agent.continue_with`."""
        operation = self.body.found(named, args, kwargs)
        copies = operation.copy_arguments(args, kwargs)
        self.continuations.append(self._signed(Envelope(operation, *copies)))

    def _signed(self, envelope: Envelope) -> Envelope:
        envelope.sender = self.body.node.path
        envelope.trace = tracing.current.get()
        return envelope

    def defer(self) -> Reply:
        """See `Agent.defer`."""
        body = self.body
        if body.in_hand is None:
            raise TreewardenError(f"on_start of {body.node.path} has no caller")
        if body.in_hand.is_call:
            self.deferred = body.in_hand
        return Reply(body, body.in_hand)

    def answer(self, envelope: Envelope, value: object) -> None:
        """See `Reply.send`."""
        is_answered = any(one is envelope for one, _ in self.replies)
        if self.body.owes(envelope) and not is_answered:
            self.replies.append((envelope, envelope.operation.copy_reply(value)))

    # --- when it is sealed -------------------------------------------------------------------

    @property
    def posts(self) -> bool:
        """Whether one of the casts is a row of the target's inbox."""
        # A loop: to ask `any` takes a quarter of a microsecond, of every cast.
        for _, envelope in self.casts:  # noqa: SIM110
            if envelope.is_kept:
                return True
        return False

    def post(self, store: Store | None, unit: Unit) -> None:
        """Have those rows committed with `unit`, which is handed over next."""
        for body, envelope in self.casts:
            if envelope.is_kept and store is not None:
                envelope.post(body.node.path, store, unit)

    @property
    def leaving(self) -> int:
        """How many things leave the agent with the commit."""
        return len(self.events) + len(self.casts) + len(self.replies)


def gathered(body: AgentBody, several: list[Staged]) -> Staged | None:
    """What several handlers of one transaction staged, in order."""
    if len(several) <= 1:
        return several[0] if several else None
    whole = Staged(body)
    for staged in several:
        whole.replies += staged.replies
        whole.continuations += staged.continuations
        whole.events += staged.events
        whole.casts += staged.casts
        whole.timers += staged.timers
    return whole
