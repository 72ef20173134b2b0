"""An agent's place in a transaction: the message that takes it there, and what it does there.

A seat waits in the mailbox like any call, so that what the same sender sent before is
handled before. Its handler runs in the agent's own task for as long as the transaction
lasts: it parks, is given one operation after the other, and keeps what they did apart. When
the transaction is over the agent takes its next message, on the state that the seat has
sealed or on the one from before.

An agent that waits for messages has nothing else to do before. Nobody waits until it has
sat down: its first operation is left with the seat.

Whatever else ends that handler (a stop, a crash from outside, a failed commit) ends the
transaction too.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec
import outcome
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

from treewarden.errors import AgentCrashed, AgentDown, TransactionMisuse
from treewarden.exits import Fault
from treewarden.supervision import Stop, raised_by_itself

from .envelope import GO_ON, Envelope
from .operation import Operation, run_through
from .staged import Staged, gathered

if TYPE_CHECKING:
    from treewarden.store import Unit

    from .agent import Agent
    from .body import AgentBody
    from .transaction import Transaction


class Order(msgspec.Struct, eq=False):
    """One operation that a transaction asks of a participant."""

    operation: Operation
    args: tuple[object, ...]
    kwargs: dict[str, object]


inside: ContextVar[Transaction | None] = ContextVar(
    "treewarden_transaction", default=None
)
"""The transaction whose block, or one of whose handlers, is running."""


def refuse_inside(body: AgentBody) -> None:
    """Refuse a message to a participant from inside its own transaction.

    Raises:
        TransactionMisuse: it could only be handled when the transaction is over.
    """
    seat = body.seat
    if seat is not None and not seat.over and inside.get() is seat.transaction:
        raise TransactionMisuse(
            f"{body.node.path} takes part in the transaction around this: a message would"
            " wait for its end; use tx.call, or self.cast in a handler"
        )


async def _take_part(agent: Agent[Any]) -> None:
    body = agent.treewarden_body
    seat = body.in_hand
    assert isinstance(seat, Seat)  # noqa: S101 - nothing else is handled by this
    body.seat = seat
    try:
        await seat.serve(agent)
    finally:
        body.seat = None


JOIN: Final = Operation("transaction", _take_part)
"""What takes an agent into a transaction is handled by."""


class Seat(Envelope, eq=False):
    """One participant of one transaction."""

    transaction: Transaction | None = None
    taken: bool = False
    over: bool = False
    sealed: bool = False
    left: bool = False
    # How often the agent had fallen back when it was taken.
    epoch: int = 0
    agent: Agent[Any] | None = None
    # The agent's task, when it waits here for an order; and who waits for the agent.
    parked: Task | None = None
    caller: Task | None = None
    # What it is to obey next, or obeys now.
    order: Order | None = None
    scope: trio.CancelScope | None = None
    # What the orders made of the state, and what they staged.
    payload: bytes = b""
    staged: list[Staged] = msgspec.field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        """Whether the agent is still to be taken."""
        return not self.over

    @property
    def place(self) -> AgentBody:
        """The participant."""
        assert self.body is not None  # noqa: S101 - set before it is sent
        return self.body

    def reply(self, value: object) -> None:
        """Nothing: a transaction is told of its end by its unit."""

    def answer(self, result: outcome.Outcome[object], *, last: bool = True) -> None:
        """What its agent, or whoever keeps the mailbox, has to say: it is over."""
        if isinstance(result, outcome.Error):
            self.leave(result.error)

    # --- in the agent's task -----------------------------------------------------------------

    async def serve(self, agent: Agent[Any]) -> None:
        """Take orders until the transaction is over."""
        body, self.agent = self.place, agent
        inside.set(self.transaction)
        self.taken = True
        self.epoch, self.payload = body.memory.epoch, body.memory.latest
        try:
            if self.order is None:
                self._wake(GO_ON)
            while not (self.over or self._is_stopping):
                if self.order is None:
                    self.parked = current_task()
                    await park(self._abort)
                else:
                    await self._obey(self.order)
        finally:
            inside.set(None)
            self.agent = None
            if not self.sealed:
                self._undo()
            if not self.over:
                self.leave(AgentDown(body.node.path, self._why()))

    @property
    def _is_stopping(self) -> bool:
        life = self.place.node.life
        return life is None or life.stopping

    def _abort(self, _: object) -> Abort:
        # At once, not when the agent notices: nothing may be sealed from here on.
        self.parked = None
        self.leave(AgentDown(self.place.node.path, self._why()))
        return Abort.SUCCEEDED

    def _why(self) -> str:
        life = self.place.node.life
        if life is not None and life.injected is not None:
            return f"it crashed: {life.injected.summary()}"
        return "it is being stopped"

    async def _obey(self, order: Order) -> None:
        if order.operation.waits:
            with trio.CancelScope() as self.scope:
                await self._carry_out(order)
        else:
            await self._carry_out(order)

    async def _carry_out(self, order: Order) -> None:
        try:
            result = await self._outcome(order)
        finally:
            self.order = self.scope = None
        if not self._is_lost:
            self._wake(result)

    @property
    def _is_lost(self) -> bool:
        # It stands on what a failed commit has taken back.
        return self.place.memory.epoch != self.epoch

    async def _outcome(self, order: Order) -> outcome.Outcome[object]:
        try:
            value = order.operation.function(self.agent, *order.args, **order.kwargs)
            if order.operation.is_async:
                value = await value
            return outcome.Value(self._keep(order.operation, value))
        except Exception as error:  # noqa: BLE001 - raised to the transaction's own task
            return outcome.Error(self._as_error(error))
        except BaseException as error:
            if not raised_by_itself(error):
                raise
            return outcome.Error(self._as_error(error))

    # --- in the task of the transaction ------------------------------------------------------

    def run_here(self, order: Order) -> object:
        """Run a handler that does not wait now, in the agent's context.

        Raises:
            What the handler raises.
        """
        assert self.parked is not None  # noqa: S101 - whoever calls it has looked
        return self.parked.context.run(self._run_through, order)

    def _run_through(self, order: Order) -> object:
        try:
            value = order.operation.function(self.agent, *order.args, **order.kwargs)
            if order.operation.is_async:
                value = run_through(value)
            return self._keep(order.operation, value)
        except Stop as error:
            raise self._as_error(error) from error

    def _keep(self, operation: Operation, value: object) -> object:
        """What one order did is kept, checked, with the rest; its answer.

        Raises:
            StateNotEncodable: no incarnation could load the state.
            TransactionMisuse: the handler put off its answer.
        """
        reply = operation.copy_reply(value)
        place = self.place
        payload, codec = place.memory.encode(), place.agent_class.codec
        if codec is not None and payload != place.memory.latest:
            codec.check(payload, place.node.path)
        if place.puts_off:
            raise TransactionMisuse(
                f"{place.node.path} defers its answer in a transaction"
            )
        self.payload = payload
        staged, place.staged = place.staged, None
        if staged is not None:
            self.staged.append(staged)
            assert self.transaction is not None  # noqa: S101 - it gave the order
            self.transaction.staged.append((self, staged))
        return reply

    def _as_error(self, error: BaseException) -> Exception:
        path = self.place.node.path
        if isinstance(error, Stop):
            return TransactionMisuse(
                f"{path} raised Stop in a transaction; self.stop() ends it after that"
            )
        if isinstance(error, Exception):
            return error
        fault = Fault.capture(error, path=path, incarnation=self.place.node.incarnation)
        return AgentCrashed(fault)

    async def wait(self) -> object:
        """Wait for what the agent has to say next.

        Raises:
            What an order raised, or why the agent has left.
        """
        self.caller = current_task()

        def give_up(_: object) -> Abort:
            self.caller = None
            return Abort.SUCCEEDED

        return await park(give_up)

    def give(self, order: Order) -> None:
        """Have the agent's task obey, once it is here; `wait` for the answer."""
        self.order = order
        self._let_go()

    def seal(self) -> Unit | None:
        """What it has kept, as a part of its transaction's unit; None: nothing."""
        if not self.taken:
            return None
        self.sealed, place = True, self.place
        place.staged = gathered(place, self.staged)
        if self.payload == place.memory.latest and not (
            place.staged or place.memory.collections
        ):
            return None
        unit, _ = place.seal(self, self.payload)
        return unit

    def release(self) -> None:
        """The transaction is over: let the agent go on."""
        if self.over:
            return
        self.over = True
        if self.scope is not None:
            self.scope.cancel()
        if not self.taken:
            self.place.mailbox.withdraw(self)
        self._give_up_place()
        caller, self.caller = self.caller, None
        if caller is not None:
            assert self.transaction is not None  # noqa: S101 - it released this
            reschedule(caller, outcome.Error(self.transaction.why_over()))
        self._let_go()

    def ask_to_leave(self) -> None:
        """The agent is being stopped: that comes first."""
        self._let_go()

    def leave(self, error: BaseException) -> None:
        """The agent cannot take part any more."""
        if self.over:
            return
        self.over = self.left = True
        self._give_up_place()
        caller, self.caller = self.caller, None
        assert self.transaction is not None  # noqa: S101 - it released this
        why = self.transaction.lose(self, error)
        if caller is not None:
            reschedule(caller, outcome.Error(why))

    def _give_up_place(self) -> None:
        if self.place.seat is self and not self.taken:
            self.place.seat = None

    def _let_go(self) -> None:
        task, self.parked = self.parked, None
        if task is not None:
            reschedule(task, GO_ON)

    def _wake(self, result: Any) -> None:  # noqa: ANN401 - an outcome, or GO_ON
        caller, self.caller = self.caller, None
        if caller is not None:
            reschedule(caller, result)

    def _undo(self) -> None:
        for staged in self.staged:
            for timer in staged.timers:
                timer.cancel()
        self.staged.clear()
        self.place.discard()
        self.place.memory.reset()
