"""Who takes a durable subscription's events: one at a time, each on a lease.

A task iterates a subscriber and says of each event what became of it, or has the subscriber
`serve` a handler; an agent has a sink that is handed events while there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from treewarden.exits import Fault

from .deliveries import Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.store import Unit

    from .deliveries import Entry
    from .durable import DurableSubscription
    from .event import Event


class LeasedEvent:
    """An event that is this member's until it says what became of it, or its lease ends."""

    __slots__ = ("_entry", "_lease", "_subscription", "attempt", "event")

    def __init__(self, subscription: DurableSubscription, entry: Entry) -> None:
        self._subscription = subscription
        self._entry = entry
        self._lease = entry.lease
        self.event = entry.event
        self.attempt = entry.attempts
        """Which attempt this is, from 1."""

    @property
    def is_held(self) -> bool:
        """Whether it is still this member's."""
        entry = self._entry
        return entry.stage is Stage.LEASED and entry.lease == self._lease

    async def ack(self) -> bool:
        """It is done; returns once that is committed. False: the lease was lost before.

        Cancelled, it is done all the same.

        Raises:
            StoreError: that could not be kept; it will be delivered again.
        """
        if not self.is_held:
            await trio.lowlevel.checkpoint()
            return False
        await self._subscription.ack(self._entry)
        return True

    def settle(self, unit: Unit) -> bool:
        """It is done when `unit` is committed, and not if it is not; False: as `ack`."""
        if not self.is_held:
            return False
        self._subscription.settle(self._entry, unit)
        return True

    def nack(self, why: Fault | str = "", delay: float | None = None) -> bool:
        """It failed: have it tried again after `delay` seconds; False: as `ack`.

        After the last attempt it becomes a dead letter, `why` being the reason.

        Raises:
            TypeError, ValueError: there is no such delay; it is held still.
        """
        if not self.is_held:
            return False
        self._subscription.fail(self._entry, why, delay)
        return True

    def give_back(self) -> bool:
        """It was not tried: somebody else may have it; False: as `ack`."""
        if not self.is_held:
            return False
        self._subscription.give_back(self._entry)
        return True


class Subscriber:
    """One of those who take a durable subscription's events.

    A task iterates it and gets leased events, of a key one at a time; one task only. An
    agent has a `sink` instead, which is handed events while it `wants` them.
    """

    __slots__ = (
        "_idle",
        "_parked",
        "_sink",
        "_taken",
        "_wants",
        "id",
        "lease",
        "subscription",
    )

    def __init__(
        self,
        subscription: DurableSubscription,
        number: int,
        lease: float,
        sink: Callable[[LeasedEvent], None] | None = None,
        wants: Callable[[], bool] = lambda: True,
    ) -> None:
        self.subscription = subscription
        self.id = number
        self.lease = lease
        self._sink = sink
        self._wants = wants
        self._idle: trio.lowlevel.Task | None = None
        self._parked = False
        self._taken: LeasedEvent | None = None

    @property
    def wants(self) -> bool:
        """Whether it takes an event now."""
        return self._idle is not None if self._sink is None else self._wants()

    def take(self, leased: LeasedEvent) -> None:
        """Have it; it wants one."""
        if self._sink is not None:
            self._sink(leased)
        else:
            self._taken = leased
            self._go_on()

    def _go_on(self) -> None:
        task, self._idle = self._idle, None
        if task is not None and self._parked:
            trio.lowlevel.reschedule(task)

    def flush(self) -> None:
        """There is room again, where there was none."""
        self.subscription.pump()

    def leave(self, *, failed: str = "") -> None:
        """Take no more; what it holds goes to others, as an attempt if it has `failed`."""
        self.subscription.leave(self, failed)
        self._go_on()

    def return_all(self) -> None:
        """Give back what it holds: none of it was tried."""
        self.subscription.return_all(self)

    def __aiter__(self) -> Subscriber:
        """A member is its own iterator."""
        return self

    async def __anext__(self) -> LeasedEvent:
        """The next event, leased. Cancelled, it has none.

        Raises:
            trio.BusyResourceError: another task waits for it already.
        """
        if self._sink is not None:
            raise TypeError(f"{self.subscription.id}: its events go to a sink")
        await trio.lowlevel.checkpoint()
        if self._idle is not None:
            raise trio.BusyResourceError(
                f"another task takes from this member of {self.subscription.id}"
            )
        if not self.subscription.has(self):
            raise StopAsyncIteration
        self._idle = trio.lowlevel.current_task()
        self.subscription.pump()
        if self._idle is not None:
            self._parked = True
            try:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            finally:
                self._parked = False
        leased, self._taken = self._taken, None
        if leased is None:
            raise StopAsyncIteration
        return leased

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._idle = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def serve(self, handle: Callable[[Event], Awaitable[object]]) -> None:
        """Have every event handled: done when `handle` returns, failed when it raises.

        Returns when the subscription ends. What `handle` raised is a `Fault` with its
        line, in the subscription's statistics, the journal and, at last, a dead letter.
        """
        async for leased in self:
            try:
                await handle(leased.event)
            except Exception as error:  # noqa: BLE001 - the handler's boundary
                leased.nack(Fault.capture(error, path=self.subscription.owner))
            else:
                await leased.ack()
