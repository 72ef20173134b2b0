"""Who delivers what was sent: one worker for each receiver.

Theory of operation. An exchange is a dynamic supervisor. For each agent that something was
sent to it has a `Receiver`: the `Line` of messages, a circuit, and a worker, which is its
child. The worker takes the head of the line in hand, puts it into the agent's mailbox, waits
for the answer and only then goes on; so each receiver gets its messages in order, and one
that hangs holds up nobody but its own worker.

The lines belong to the node. A worker that crashes lets go of its parcel and is started
again; what it had put into the mailbox already it does not put there twice, but waits for
the answer. The same holds when no answer came in time: a message that the agent has begun
is never given to it again, and one that it has not begun is taken back first.

The end of a receiver is told to the exchange by the agent's node, in the same step; a crash
that is restarted is no end. Then nothing of the receiver is left here.
"""

from __future__ import annotations

import math
from collections import Counter
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import outcome
import trio

from treewarden.agents import AgentRef, Estates, Surroundings, current_body
from treewarden.errors import (
    AgentCrashed,
    AgentDown,
    AgentError,
    CallingSelf,
    CircuitOpen,
    DeliveryFailed,
    LineFull,
    MailboxFull,
    NameUnknown,
    NotRunning,
    ShuttingDown,
    StoreBroken,
)
from treewarden.resilience import Circuit, CircuitState
from treewarden.supervision import (
    ChildSpec,
    NodeState,
)

from .line import Line, Room
from .parcel import Buffered, Delivered, Parcel
from .policy import ExchangePolicy, ExchangeStatistics
from .receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from treewarden.agents import AgentBody
    from treewarden.registry import Owner
    from treewarden.resilience import Transition
    from treewarden.supervision import Supervisor

_OPEN: Final = (CircuitState.OPEN, CircuitState.FORCED_OPEN)
# A receiver that loses messages at any rate is reported at most so often, in seconds.
_WARN_EVERY: Final = 1.0
# An id has at most 128 characters, and its number follows.
_WORD: Final = 100
_ERROR_TEXT: Final = 200


Answer: TypeAlias = outcome.Value[object] | outcome.Error
"""What an agent answered: a value, or why its sender gets none."""


Listener: TypeAlias = "Callable[[Transition], object]"


class _Withdrawn(Exception):
    """The sender took it back while it was in hand: nothing to be held against anybody."""


class Deliveries:
    """All that an exchange has to deliver: see the module's theory of operation."""

    def __init__(self, workers: Supervisor, policy: ExchangePolicy) -> None:
        """`workers` is the exchange's own supervisor, which runs them."""
        self.policy = policy
        self.receivers: dict[str, Receiver] = {}
        self._workers = workers
        self._directory = workers.directory
        self._room = Room(policy.total)
        self._numbers = count(1)
        self._listeners: dict[Listener, Owner] = {}
        self._heard: Estates[Listener] = Estates(self._unheard)
        self._listener_failures = 0
        # The counters of lines that are forgotten; its room is nobody's.
        self._past: Line[Parcel] = Line(1, Room(0))

    def resume(self) -> None:
        """There are no workers any more: ask for them again.

        Also for those that have nothing to deliver: who else would forget their receivers?
        """
        for receiver in self.receivers.values():
            receiver.called = False
            self._call_worker(receiver)

    def close(self) -> None:
        """Nobody will deliver: tell those who wait, and give up the rest."""
        text = f"exchange {self._path} was stopped before it was delivered"
        for receiver in tuple(self.receivers.values()):
            self._give_up(receiver, lambda _: NotRunning(text), "exchange_stopped")
        for tell in tuple(self._listeners):
            self.unlisten(tell)

    @property
    def _path(self) -> str:
        return self._workers.path

    # --- accepting -------------------------------------------------------------------------

    def accept(
        self,
        ref: AgentRef[Any],
        operation: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        awaited: bool,
    ) -> Parcel:
        """Take a message: see `Exchange.send`."""
        self._check_running()
        body, name = self._check_receiver(ref, operation, args, kwargs)
        receiver = self._receiver(ref, body)
        # Offered in the context that it is sent in: as its sender, in the sender's trace.
        offer = partial(
            copy_context().run, receiver.ref.request, operation, *args, **kwargs
        )
        seconds = self.policy.delivery_timeout if awaited else math.inf
        deadline = trio.current_time() + seconds
        parcel = Parcel(name, offer, deadline=deadline, awaited=awaited)
        self._put(receiver, parcel)
        self._call_worker(receiver)
        return parcel

    def check_all(
        self,
        refs: Collection[AgentRef[Any]],
        operation: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        """Raise what `accept` would for any of these; nothing is taken."""
        self._check_running()
        if self._room.taken + len(refs) > self.policy.total:
            raise LineFull(_names(refs), self.policy.total, total=True)
        for ref, many in Counter(refs).items():
            self._check_receiver(ref, operation, args, kwargs)
            known = self.receivers.get(ref.path)
            line = known.line if known is not None else None
            waiting = len(line) if line is not None else 0
            full = waiting + many > self.policy.capacity
            # A stalled line has room: its oldest go.
            if full and (line is None or not line.stalled):
                raise LineFull(ref.path, self.policy.capacity)

    def _check_receiver(
        self,
        ref: AgentRef[Any],
        operation: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[AgentBody, str]:
        """Who it is, and the operation's name, if it would take this."""
        body = self._resolve(ref, operation)
        if body is current_body.get():
            raise CallingSelf(f"{ref.path} would send to itself; use self.cast")
        return body, body.found(operation, args, kwargs).name

    def _check_running(self) -> None:
        life = self._workers.node.life
        if life is None:
            raise NotRunning(f"exchange {self._path} is not running; nothing was sent")
        if life.stopping:
            raise ShuttingDown(f"exchange {self._path} is stopping; nothing was sent")

    def _resolve(self, ref: AgentRef[Any], operation: object) -> AgentBody:
        try:
            body = ref.resolve()
            if not body.resting:
                return body
            cause: AgentError = AgentDown(ref.path, body.resting)
        except (AgentDown, NameUnknown) as error:
            cause = error
        name = getattr(operation, "__name__", str(operation))
        raise DeliveryFailed(ref.path, name, "receiver_not_found") from cause

    def _receiver(self, ref: AgentRef[Any], body: AgentBody) -> Receiver:
        known = self.receivers.get(ref.path)
        if known is not None:
            # A circuit whose time has come says so to whoever looks.
            _ = known.circuit.state
            return known
        word = ref.path.rsplit("/", 1)[-1][:_WORD]
        line = Line[Parcel](self.policy.capacity, self._room)
        receiver = Receiver(ref, line, f"{word}.{next(self._numbers)}")
        receiver.circuit = Circuit(
            ref.path,
            self.policy.circuit,
            on_transition=partial(self._circuit_moved, receiver),
        )
        receiver.forget = body.when_at_rest(partial(self._gone, receiver))
        self.receivers[ref.path] = receiver
        return receiver

    def _put(self, receiver: Receiver, parcel: Parcel) -> None:
        line = receiver.line
        accepted, victim = line.put(parcel, awaited=parcel.is_awaited)
        if not accepted:
            total = not self._room.is_left
            limit = self.policy.total if total else line.capacity
            if not receiver.called:
                # There is no worker that could forget it.
                self._forget(receiver)
            raise LineFull(receiver.path, limit, total=total)
        if victim is not None:
            self._lose(receiver, victim, "exchange_full")
            self._warn(receiver)
        if line.stalled:
            parcel.tell(outcome.Value(Buffered(ahead=len(line) - 1)))
        if len(line) == 1:
            receiver.bell.ring()

    def _call_worker(self, receiver: Receiver) -> None:
        child = self._workers.children.get(receiver.worker)
        failed = child is not None and child.state is NodeState.FAILED
        if not receiver.called or failed:
            receiver.called = True
            # Transient: one that has nothing to do ends, one that crashed comes back.
            self._workers.add_soon(
                ChildSpec(
                    receiver.worker,
                    self._serve,
                    args=(receiver,),
                    restart="transient",
                )
            )

    def take_back(self, receiver: str, parcel: Parcel) -> bool:
        """Its sender waits no more; whether it will therefore never happen."""
        known = self.receivers.get(receiver)
        if known is None or parcel not in known.line:
            return False
        if parcel.request is not None and not parcel.request.withdraw():
            return False
        known.line.remove(parcel)
        return True

    # --- delivering ------------------------------------------------------------------------

    async def _serve(self, receiver: Receiver) -> None:
        """One worker: from the first message to `idle` seconds without any."""
        try:
            while await self._wait_for_parcel(receiver):
                await self._deliver(receiver)
        finally:
            # However it ends, what it had in hand stays where it was: at the head.
            receiver.line.let_go()

    async def _wait_for_parcel(self, receiver: Receiver) -> bool:
        while not receiver.line:
            if receiver.gone:
                return False
            if await receiver.bell.wait(self.policy.idle) or receiver.line:
                continue  # perhaps in the very step in which the patience ended
            # An operator's order, or a bad record that is still fresh, is not forgotten.
            if receiver.circuit.state in {CircuitState.CLOSED, CircuitState.HALF_OPEN}:
                self._forget(receiver)
                return False
        return True

    async def _deliver(self, receiver: Receiver) -> None:
        parcel = receiver.line.take()
        try:
            with receiver.circuit.guard():
                answer = await self._attempt(receiver, parcel)
        except CircuitOpen as rejected:
            receiver.line.let_go()
            self._stall(receiver)
            seconds = rejected.retry_after
            await receiver.bell.wait(math.inf if seconds is None else seconds)
        except _Withdrawn:
            # The way of a sender that left; a checkpoint all the same.
            await trio.lowlevel.checkpoint()
        except DeliveryFailed as error:
            receiver.last_error = str(error)[:_ERROR_TEXT]
            await self._failed(receiver, parcel, error)
        else:
            self._answered(receiver, parcel, answer)

    async def _attempt(self, receiver: Receiver, parcel: Parcel) -> Answer:
        """Have the message handled, once; what the agent answered.

        Raises:
            DeliveryFailed: it did not answer, and that counts against it.
            _Withdrawn: the sender took the message back.
        """
        latest = trio.current_time() + self.policy.delivery_timeout
        with trio.move_on_at(min(parcel.deadline, latest)):
            try:
                if parcel.request is None:
                    parcel.request = parcel.offer()
                return outcome.Value(await parcel.request.result())
            except Exception as error:  # noqa: BLE001 - whatever it is, the sender gets it
                parcel.request = None
                return self._judge(receiver, parcel, error)
        return self._too_late(receiver, parcel)

    def _judge(self, receiver: Receiver, parcel: Parcel, error: Exception) -> Answer:
        if parcel not in receiver.line and not receiver.gone:
            raise _Withdrawn from error
        reason = _reason(error, receiver.path)
        failure = DeliveryFailed(
            receiver.path, parcel.operation, reason or "delivery_failed"
        )
        failure.__cause__ = error
        if reason is not None:
            raise failure
        return outcome.Error(failure)

    def _too_late(self, receiver: Receiver, parcel: Parcel) -> Answer:
        request = parcel.request
        begun = request is not None and not request.withdraw()
        if not begun:
            parcel.request = None
        raise DeliveryFailed(
            receiver.path, parcel.operation, "delivery_timeout", begun=begun
        )

    def _answered(self, receiver: Receiver, parcel: Parcel, answer: Answer) -> None:
        line = receiver.line
        if parcel not in line:
            return  # given up meanwhile, with its receiver
        if isinstance(answer, outcome.Value):
            line.acknowledge()
            parcel.tell(outcome.Value(Delivered(value=answer.value)))
            return
        line.reject()
        self._end(receiver, parcel, answer, "refused")

    async def _failed(
        self, receiver: Receiver, parcel: Parcel, error: DeliveryFailed
    ) -> None:
        line = receiver.line
        if parcel not in line:
            return
        lost = error.reason == "receiver_not_found"
        if line.fail(limit=1 if lost else self.policy.max_attempts):
            self._end(receiver, parcel, outcome.Error(error), error.reason)
            return
        self._stall(receiver)
        wait = self.policy.backoff.delay(line.attempts, self._directory.random.random)
        await receiver.bell.wait(wait)

    def _end(
        self,
        receiver: Receiver,
        parcel: Parcel,
        result: outcome.Error,
        reason: str,
    ) -> None:
        """It will not be delivered: its sender is told or, if nobody waits, the tree."""
        if parcel.is_awaited:
            parcel.tell(result)
        else:
            self._lose(receiver, parcel, reason)

    def _stall(self, receiver: Receiver) -> None:
        ahead = {parcel: n for n, parcel in enumerate(receiver.line)}
        for parcel in receiver.line.stall():
            parcel.tell(outcome.Value(Buffered(ahead=ahead[parcel])))

    # --- circuits --------------------------------------------------------------------------

    def _circuit_moved(self, receiver: Receiver, moved: Transition) -> None:
        if moved.new in _OPEN:
            self._stall(receiver)
        elif moved.new is not CircuitState.HALF_OPEN or not receiver.line:
            receiver.line.flow()
        receiver.bell.ring()
        self._directory.report(
            "exchange.circuit",
            self._workers.node,
            detail=f"{moved.name}: {moved.old} to {moved.new}, {moved.reason}",
        )
        for tell in tuple(self._listeners):
            try:
                tell(moved)
            except Exception:  # noqa: BLE001 - a listener never fails a delivery
                self._listener_failures += 1

    def listen(self, tell: Listener, owner: Owner) -> None:
        """See `Exchange.listen`."""
        self.unlisten(tell)
        self._listeners[tell] = owner
        self._heard.add(owner, tell)

    def unlisten(self, tell: Listener) -> None:
        """Tell it no more; nothing when it was not told."""
        owner = self._listeners.pop(tell, None)
        if owner is not None:
            self._heard.drop(owner, tell)

    def _unheard(self, tell: Listener) -> None:
        """Its owner has ended."""
        del self._listeners[tell]

    # --- ends ------------------------------------------------------------------------------

    def _gone(self, receiver: Receiver) -> None:
        """The agent is gone for good: so is everything that the exchange had for it."""
        self._give_up(
            receiver,
            lambda parcel: DeliveryFailed(
                receiver.path, parcel.operation, "receiver_not_found"
            ),
            "receiver_not_found",
        )

    def _give_up(
        self,
        receiver: Receiver,
        error: Callable[[Parcel], Exception],
        reason: str,
    ) -> None:
        for parcel in receiver.line.clear():
            self._end(receiver, parcel, outcome.Error(error(parcel)), reason)
        self._forget(receiver)
        receiver.bell.ring()

    def _forget(self, receiver: Receiver) -> None:
        receiver.gone = True
        del self.receivers[receiver.path]
        receiver.forget()
        line, past = receiver.line, self._past
        past.accepted += line.accepted
        past.acknowledged += line.acknowledged
        past.failed += line.failed
        past.dropped += line.dropped
        past.removed += line.removed
        past.refused += line.refused

    def _lose(self, receiver: Receiver, parcel: Parcel, reason: str) -> None:
        services = self._directory.services
        if isinstance(services, Surroundings) and services.dead_letter is not None:
            services.dead_letter(receiver.path, parcel.operation, reason)

    def _warn(self, receiver: Receiver) -> None:
        now = trio.current_time()
        if now - receiver.warned_at >= _WARN_EVERY:
            receiver.warned_at = now
            self._directory.report(
                "exchange.overflow",
                self._workers.node,
                detail=f"{receiver.path}: {receiver.line.dropped} messages were dropped "
                "for newer ones",
            )

    # --- for those who look ----------------------------------------------------------------

    def statistics(self) -> ExchangeStatistics:
        """What may be seen of it."""
        known = tuple(one.statistics() for one in self.receivers.values())
        past = self._past
        return ExchangeStatistics(
            path=self._path,
            incarnation=self._workers.node.incarnation,
            pending=self._room.taken,
            capacity=self.policy.capacity,
            total=self.policy.total,
            workers=len(self._workers.children),
            listeners=len(self._listeners),
            listener_failures=self._listener_failures,
            accepted=past.accepted + sum(one.accepted for one in known),
            delivered=past.acknowledged + sum(one.delivered for one in known),
            failed=past.failed + sum(one.failed for one in known),
            dropped=past.dropped + sum(one.dropped for one in known),
            withdrawn=past.removed + sum(one.withdrawn for one in known),
            refused=past.refused + sum(one.refused for one in known),
            lines=known,
        )


def _names(refs: Iterable[AgentRef[Any]]) -> str:
    return ", ".join(sorted({ref.path for ref in refs}))


def _reason(error: Exception, receiver: str) -> str | None:
    """Why it was not delivered; None: it was, and this is the agent's own answer.

    A handler can answer with errors of these kinds too, about somebody else.
    """
    match error:
        case AgentCrashed(fault=fault) if fault.path == receiver:
            return "delivery_failed"
        case MailboxFull(path=path) if path == receiver:
            return "delivery_failed"
        case StoreBroken():
            return "delivery_failed"
        case AgentDown(path=path) if path == receiver:
            return "receiver_not_found"
        case NameUnknown(name=name) if name == receiver:
            return "receiver_not_found"
        case _:
            return None
