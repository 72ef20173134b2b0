"""What ties an agent to others, beside the messages in its mailbox.

Most agents have none of it, and an idle agent is to be small: a body makes its ties when
the first is knotted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import trio

from treewarden.errors import NotRunning

from .envelope import Envelope
from .events import durable_events
from .monitor import Down, Monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from treewarden.bus import DurablePolicy, Event, Start, Subscriber, Subscription
    from treewarden.supervision import ChildInfo, SupervisorRef, Timer

    from .body import AgentBody
    from .events import DurableEvents
    from .operation import Operation
    from .ref import AgentRef

# From this many entries on, those that nobody wants any more are looked for.
_TRIM_FROM = 16


class Ties:
    """Subscriptions and farewells belong to the node, all else to one incarnation."""

    __slots__ = (
        "_body",
        "_bound_limit",
        "_owed_limit",
        "_timers_limit",
        "bound",
        "events",
        "farewells",
        "idle_since",
        "idle_timer",
        "monitors",
        "owed",
        "renewed",
        "subscriptions",
        "timers",
    )

    def __init__(self, body: AgentBody) -> None:
        self._body = body
        # Who is told that no incarnation runs and none will soon.
        self.farewells: dict[Callable[[], None], None] = {}
        # By pattern; they outlive a crash, so that no event is missed meanwhile.
        self.subscriptions: dict[str, Subscription] = {}
        self.renewed: set[str] = set()
        self.events: DurableEvents | None = None
        self.monitors: set[Monitor] = set()
        # Messages whose answer was put off, in order.
        self.owed: dict[Envelope, None] = {}
        self._owed_limit = _TRIM_FROM
        # Messages that nobody but this incarnation is to handle.
        self.bound: list[Envelope] = []
        self._bound_limit = _TRIM_FROM
        self.timers: list[Timer] = []
        self._timers_limit = _TRIM_FROM
        # The one that any message calls off, and how many were taken when it was set.
        self.idle_timer: Timer | None = None
        self.idle_since = 0

    def let_go(self) -> None:
        """The incarnation is over: whatever was only its own goes with it."""
        self.renewed.clear()
        if self.events is not None:
            self.events.let_go()
        for envelope in self.bound:
            self._body.take_back(envelope)
        self.bound.clear()
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
        for monitor in tuple(self.monitors):
            monitor.cancel()

    def say_farewell(self) -> None:
        """Tell each of those who asked to hear of it, once."""
        told, self.farewells = self.farewells, {}
        for tell in told:
            tell()

    # --- answers that are owed ---------------------------------------------------------------

    def owe(self, envelope: Envelope) -> None:
        """Its answer is put off."""
        if len(self.owed) >= self._owed_limit:
            self.owed = {one: None for one in self.owed if one.is_wanted}
            self._owed_limit = max(_TRIM_FROM, 2 * len(self.owed))
        self.owed[envelope] = None

    def fail_owed(self, error: Callable[[], Exception]) -> None:
        """There will be no answer: tell all who wait for one."""
        owed, self.owed = self.owed, {}
        for envelope in owed:
            # Each its own: a shared exception would gather everybody's traceback.
            envelope.answer(outcome.Error(error()))

    # --- subscriptions -----------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        capacity: int,
        overflow: str,
        key: Callable[[Event], str],
    ) -> Subscription:
        """See `Agent.subscribe`."""
        body = self._body
        bus = body.surroundings.bus
        if bus is None:
            raise NotRunning(f"{body.node.path} subscribes and there is no bus")
        self.renewed.add(pattern)
        kept = self.subscriptions.get(pattern)
        if kept is not None and (kept.capacity, kept.overflow) == (capacity, overflow):
            return kept
        if kept is not None:
            kept.close()
        self.subscriptions[pattern] = subscription = bus.attach(
            pattern,
            self._take_event,
            overflow=overflow,
            owner=body.node.path,
            capacity=capacity,
            key=key,
        )
        return subscription

    def _take_event(self, event: Event) -> bool:
        body = self._body
        if body.resting or len(body.mailbox) >= body.mailbox.capacity:
            return False
        self._send(body.agent_class.on_event, (event,), {})
        return True

    def subscribe_durable(
        self,
        pattern: str,
        *,
        name: str,
        group: str,
        policy: DurablePolicy,
        start: Start,
    ) -> Subscriber:
        """See `Agent.subscribe`."""
        if self.events is None:
            self.events = durable_events(self._body)
        return self.events.subscribe(
            pattern, name=name, group=group, policy=policy, start=start
        )

    def flush(self) -> None:
        """Have events that wait become messages: there may be room again."""
        for subscription in self.subscriptions.values():
            subscription.flush()
        if self.events is not None:
            self.events.flush()

    def renew_subscriptions(self) -> None:
        """After `on_start`: keep what it asked for."""
        self.drop_subscriptions(keep=self.renewed)
        if self.events is not None:
            self.events.renew()

    def drop_subscriptions(self, keep: Collection[str]) -> None:
        """Close those of other patterns."""
        for pattern in [one for one in self.subscriptions if one not in keep]:
            self.subscriptions.pop(pattern).close()

    # --- messages to itself ------------------------------------------------------------------

    def _send(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Envelope:
        envelope = Envelope(operation, args, kwargs)
        self._body.mailbox.force(envelope)
        self._body.wake()
        return envelope

    def bind(self, envelope: Envelope) -> None:
        """Have it go with this incarnation: the next one sets its own timers."""
        if len(self.bound) >= self._bound_limit:
            self.bound = [one for one in self.bound if not one.begun]
            self._bound_limit = max(_TRIM_FROM, 2 * len(self.bound))
        self.bound.append(envelope)

    # --- timers ------------------------------------------------------------------------------

    def send_after(
        self,
        seconds: float,
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Timer:
        """See `Agent.send_after`."""
        return self._set_timer(seconds, named, args, kwargs, lambda: True)

    def when_idle(
        self,
        seconds: float,
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Timer:
        """See `Agent.when_idle`."""
        body = self._body

        def is_idle() -> bool:
            return body.taken == self.idle_since and not body.mailbox.items

        timer = self._set_timer(seconds, named, args, kwargs, is_idle)
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        self.idle_timer, self.idle_since = timer, body.taken
        return timer

    def _set_timer(
        self,
        seconds: float,
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        is_wanted: Callable[[], bool],
    ) -> Timer:
        if not seconds >= 0:
            raise ValueError(f"seconds must be >= 0, not {seconds!r}")
        body = self._body
        operation = body.operation(named)
        operation.check(args, kwargs)
        message = operation.copy_arguments(args, kwargs)
        staged = body.stage()

        def due() -> None:
            if is_wanted():
                self.bind(self._send(operation, *message))

        timer = body.directory.timers.at(trio.current_time() + seconds, due)
        staged.timers.append(timer)
        self._keep_timer(timer)
        return timer

    def _keep_timer(self, timer: Timer) -> None:
        if len(self.timers) >= self._timers_limit:
            self.timers = [one for one in self.timers if one.callback is not None]
            self._timers_limit = max(_TRIM_FROM, 2 * len(self.timers))
        self.timers.append(timer)

    # --- monitors ----------------------------------------------------------------------------

    def monitor(self, ref: AgentRef[Any] | SupervisorRef | ChildInfo) -> Monitor:
        """See `Agent.monitor`."""
        node = self._body.directory.find(ref.path)
        life = node.life if node is not None else None
        # What it sent before its end comes before the notice.
        settle = getattr(node.body, "when_settled", None) if node is not None else None
        return Monitor(ref.path, life, self.tell_down, self.monitors, settle)

    def tell_down(self, down: Down) -> Callable[[], None]:
        """Have it handled by `on_down`; called, the answer takes it back."""
        envelope = self._send(self._body.agent_class.on_down, (down,), {})
        self.bind(envelope)
        return partial(self._body.take_back, envelope)
