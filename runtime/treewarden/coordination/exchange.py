"""The address of an exchange: acknowledged messages from agent to agent.

A call is answered by whoever is there, now; a cast is accepted, and no more is known of it.
An exchange stands between the two: a message is delivered once and acknowledged, a receiver
in trouble is left alone while its messages wait in order, and a sender is told which of the
two it was. The idea is the outbox of a store-and-forward relay, with Michael Nygard's
circuit in front of each receiver.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

import trio

from treewarden.agents import Agent, owner_of_caller
from treewarden.errors import (
    AgentError,
    BusError,
    CallingSelf,
    DeliveryFailed,
    NotRunning,
    TreewardenError,
)

from .body import ExchangeBody
from .policy import ExchangePolicy, ExchangeStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from treewarden.agents import AgentRef
    from treewarden.registry import Owner
    from treewarden.resilience import Circuit, Transition
    from treewarden.supervision import Directory, Node

    from .delivery import Deliveries
    from .parcel import Sent

A = TypeVar("A", bound=Agent[Any])
P = ParamSpec("P")
R = TypeVar("R")


class Exchange:
    """An exchange's address; it stays valid across the exchange's restarts.

    As the `start` of a child it makes one: `ChildSpec("exchange", Exchange)`, or with
    `args=(ExchangePolicy(capacity=100),)`. The one of the runtime is `runtime.exchange`.

    Each receiver gets its messages in the order of their sending, one at a time. Messages
    are kept in memory: they outlive crashes of sender, receiver and worker, but not the
    exchange's supervisor, nor the process. What must outlive that goes to an agent with a
    durable mailbox. Arguments are the sender's own objects, as in a call: leave them alone
    once they are sent.
    """

    __slots__ = ("_directory", "path")

    def __init__(self, directory: Directory, path: str) -> None:
        self._directory = directory
        self.path = path

    def __repr__(self) -> str:
        """The path says which."""
        return f"Exchange({self.path!r})"

    @classmethod
    def make_body(
        cls,
        node: Node,
        directory: Directory,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> ExchangeBody:
        """What a supervisor runs for it."""
        match args:
            case () if not kwargs:
                return ExchangeBody(node, directory, ExchangePolicy())
            case (ExchangePolicy() as policy,) if not kwargs:
                return ExchangeBody(node, directory, policy)
        raise TypeError(
            f"{node.path}: an exchange takes one ExchangePolicy, not {args!r}"
        )

    @overload
    async def send(
        self,
        receiver: AgentRef[A],
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Sent[R]: ...

    @overload
    async def send(
        self,
        receiver: AgentRef[A],
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Sent[R]: ...

    async def send(
        self,
        receiver: AgentRef[Any],
        operation: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Sent[Any]:
        """Send, and wait for the acknowledgement: `Delivered` with the answer.

        `Buffered` when the receiver's circuit is open, or opens meanwhile: then it is
        delivered later, once, or becomes a dead letter. In a handler it leaves at once,
        as a call does: it is not staged.

        Cancelled before the receiver began: it never happens. Later: it may.

        Raises:
            DeliveryFailed: it was not acknowledged; its `reason` says why, and nobody
                tries again.
            Backpressure (`LineFull`): there is no room for what goes to this receiver.
            UnknownOperation, BadArguments, CallingSelf: it was not sent.
            NotRunning, ShuttingDown: there is no exchange, or it ended meanwhile.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        deliveries = self.deliveries()
        parcel = deliveries.accept(receiver, operation, args, kwargs, awaited=True)
        told = cast("trio.Event", parcel.told)
        if parcel.result is not None:
            # Buffered, whoever cancels now.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return parcel.result.unwrap()
        try:
            with trio.move_on_at(parcel.deadline):
                await told.wait()
            if parcel.result is None and parcel.request is not None:
                # What was offered is ended by its worker, which has the same deadline. It
                # may have crashed, though: then there is an end all the same.
                with trio.move_on_after(deliveries.policy.delivery_timeout):
                    await told.wait()
        finally:
            never = parcel.result is None and deliveries.take_back(
                receiver.path, parcel
            )
        if parcel.result is None:
            raise DeliveryFailed(
                receiver.path, parcel.operation, "delivery_timeout", begun=not never
            )
        return parcel.result.unwrap()

    def send_nowait(
        self,
        receiver: AgentRef[A],
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Hand over, and go on: it is delivered once, or becomes a dead letter.

        A delivery that fails is tried again, up to the policy's `max_attempts`.

        Raises:
            DeliveryFailed: there is no such receiver.
            Backpressure (`LineFull`): there is no room for what goes to this receiver.
            UnknownOperation, BadArguments, CallingSelf: it was not sent.
            NotRunning, ShuttingDown: there is no exchange.
        """
        self.deliveries().accept(receiver, operation, args, kwargs, awaited=False)

    def send_all_nowait(
        self,
        receivers: Collection[AgentRef[A]],
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Hand the same message over to all of these, or to none of them.

        Room is looked for in every line before the first one gets it. What then becomes of
        it at each is its own: see `send_nowait`, also for what is raised.
        """
        deliveries = self.deliveries()
        deliveries.check_all(receivers, operation, args, kwargs)
        for receiver in receivers:
            deliveries.accept(receiver, operation, args, kwargs, awaited=False)

    def send_each_nowait(
        self,
        receivers: Collection[AgentRef[A]],
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> dict[AgentRef[A], TreewardenError]:
        """Hand the same message over to each of these that takes it; who did not, and why.

        Raises:
            NotRunning, ShuttingDown: there is no exchange.
        """
        refused: dict[AgentRef[A], TreewardenError] = {}
        deliveries = self.deliveries()
        for receiver in receivers:
            try:
                deliveries.accept(receiver, operation, args, kwargs, awaited=False)
            except (AgentError, BusError, CallingSelf) as error:
                refused[receiver] = error
        return refused

    def circuit(self, receiver: AgentRef[Any]) -> Circuit | None:
        """The circuit before a receiver, to look at or to trip, reset and disable.

        None: nothing was sent to it for a while, or it is gone.
        """
        known = self.deliveries().receivers.get(receiver.path)
        return known.circuit if known is not None else None

    def listen(
        self, tell: Callable[[Transition], object], *, owner: Owner | None = None
    ) -> None:
        """Have `tell` called once for each transition of a receiver's circuit.

        The transition's name is the receiver's path. `tell` is plain, must not block, and
        what it raises is counted and goes no further. It is forgotten with its `owner`:
        the running child or, for a plain task, an `OwnerScope`.

        Raises:
            NotRunning: there is no exchange, no owner, or the owner has ended.
        """
        self.deliveries().listen(tell, owner_of_caller(owner))

    def unlisten(self, tell: Callable[[Transition], object]) -> None:
        """Call it no more; nothing when it was not called."""
        self.deliveries().unlisten(tell)

    def statistics(self) -> ExchangeStatistics:
        """Gauges and counters, line by line; waits for nobody.

        Raises:
            NotRunning: there is no such exchange.
        """
        return self.deliveries().statistics()

    def deliveries(self) -> Deliveries:
        """What it has to deliver; for this package.

        Raises:
            NotRunning: there is none.
        """
        node = self._directory.find(self.path)
        if node is None or not isinstance(node.body, ExchangeBody):
            raise NotRunning(f"there is no exchange at {self.path}; nothing was sent")
        return node.body.deliveries
