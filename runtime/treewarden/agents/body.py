"""What of an agent outlives its incarnations, and the loop that serves its mailbox.

Theory of operation. The body belongs to the node, with its mailbox, its memory (the state
as bytes, the newest and the last committed ones) and what waits for a commit. An
incarnation is an `Agent` object made from those bytes, and a loop: take a message, run its
handler, seal what it did.

Sealing encodes the state there and then. If anything changed, a unit of work is handed to
the store and the answer is left with it; the agent does not wait and takes its next
message on its uncommitted state. Everybody else sees the last committed one: an answer
that tells of uncommitted state is released by the commit that holds it. When a commit
fails, the body falls back to its committed bytes and the incarnation is replaced, which
costs no budget.

The message in hand when an incarnation ends: after a crash its caller gets the fault;
after a stop that is not its fault it goes back to the head of the mailbox.

What a message carries from its sender's uncommitted work (`Envelope.needs`) goes on with
all that it sets off: units fail with what they build on, casts leave after it.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final, cast

import outcome
import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

import treewarden.telemetry as tracing
from treewarden.errors import (
    AgentCrashed,
    AgentDown,
    CallTimeout,
    MailboxFull,
    StateNotEncodable,
    StoreError,
    TreewardenError,
)
from treewarden.exits import Crash, Exit, Fault, Normal, Shutdown
from treewarden.injection import places
from treewarden.store import CrashRecord, Unit
from treewarden.supervision import (
    IGNORE,
    Kind,
    Life,
    NodeState,
    Stop,
    cleanup,
    raised_by_itself,
)

from .crash import fault_of, keep_crash
from .envelope import GO_ON, Envelope
from .mailbox import NO_MESSAGES, Admission, Mailbox
from .memory import Memory
from .message_spans import begin_span, end_span, trace_id
from .operation import (
    SCALARS,
    Operation,
    missing,
    operation_name,
    refuse_unawaited,
    run_through,
)
from .orders import ON_STOP
from .outbox import NO_DELIVERIES, CastDelivery, Delivery
from .recent import NOTHING_YET, Handled, Outcome, Ring, as_record, new_ring
from .release import (
    Held,
    Release,
    after,
    decided,
    hand_over,
    own_copy,
    release,
    undecided,
)
from .request_id import id_to_ask_by, note_applied
from .staged import Staged
from .surroundings import NOTHING, Surroundings
from .ties import Ties

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Sequence

    from treewarden.store import Store
    from treewarden.supervision import Directory, Node
    from treewarden.telemetry import Histogram

    from .agent import Agent
    from .seat import Seat

_NO_BATCH: Final[Iterator[int]] = iter(())
_NO_SPANS: Final = tracing.Spans(enabled=False, capacity=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatistics:
    """Depths in messages; counters since the run began; `state` is the committed one."""

    path: str
    incarnation: int
    mailbox: int
    capacity: int
    waiting_senders: int
    accepted: int
    handled: int
    crashed: int
    refused: int
    dropped: int
    dead_letters: int
    outbox: int
    sent: int
    doing: str
    type: str
    state_revision: int
    state_bytes: int
    uncommitted: bool


current_body: ContextVar[AgentBody | None] = ContextVar(
    "treewarden_agent", default=None
)
"""The agent whose handler is running; None in plain tasks."""


class AgentBody:
    """An agent's node: see the module's theory of operation."""

    kind = Kind.AGENT

    __slots__ = (
        "_args",
        "_asleep",
        "_crash",
        "_doing",
        "_early",
        "_handled",
        "_kwargs",
        "_life",
        "agent",
        "agent_class",
        "agent_type",
        "batch",
        "blocked",
        "by_function",
        "called_away",
        "crashed",
        "dead_letters",
        "directory",
        "exit_after",
        "first_steps",
        "histograms",
        "idle",
        "in_hand",
        "last_crash",
        "mailbox",
        "memory",
        "node",
        "on_the_way",
        "orders",
        "outbox",
        "refused",
        "resting",
        "ring",
        "seat",
        "sent",
        "spans",
        "staged",
        "standing",
        "surroundings",
        "suspended",
        "ties",
        "turns",
    )

    def __init__(
        self,
        agent_type: type[Agent[Any]],
        node: Node,
        directory: Directory,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        self.agent_type = agent_type
        self.node = node
        self.directory = directory
        services = directory.services
        self.surroundings = services if isinstance(services, Surroundings) else NOTHING
        telemetry = self.surroundings.telemetry
        self.spans = telemetry.spans if telemetry is not None else _NO_SPANS
        self.mailbox = Mailbox(agent_type.mailbox)
        self._handled = self.crashed = self.refused = 0
        self.dead_letters = self.sent = 0
        self.last_crash: CrashRecord | None = None
        self.agent_class = agent_type.treewarden_class
        self.memory = Memory(self)
        # The message that waits until what its sender did before is committed.
        self._early: Envelope | None = None
        self.turns = self.surroundings.turns
        self.by_function = self.agent_class.by_function
        self._args = args
        self._kwargs = kwargs
        self.agent: Agent[Any] | None = None
        self._life: Life | None = None
        # Parked for want of messages; and, of those, open to handlers in a caller's turn.
        self._asleep: Task | None = None
        self.idle: Task | None = None
        self.in_hand: Envelope | None = None
        # As many steps as there are messages of the batch in hand still to come.
        self.batch = _NO_BATCH
        self.histograms: tuple[Histogram, Histogram] | None = None
        self._doing = ""
        self.staged: Staged | None = None
        self.exit_after: Exit | None = None
        self._crash: Exit | None = None
        # Whether anything may have come up that is to be seen to before the next message:
        # its end, an order, a delivery. What brings such a thing sets it, so that one look
        # a message is enough.
        self.called_away = False
        self.resting = ""
        # What the last commits could not deliver for lack of room.
        self.outbox: deque[Delivery] = NO_DELIVERIES
        # What `on_start` wants to happen first, in this incarnation or not at all.
        self.first_steps: Sequence[Envelope] = ()
        # Where the handler in hand waits for room, and with what.
        self.standing: tuple[tuple[AgentBody, Envelope], ...] = ()
        # Events and casts of handlers that are not committed yet.
        self.on_the_way = 0
        self.blocked: trio.CancelScope | None = None
        # An operator's: no message is taken while it is set and not opened; and what is
        # done before any message, also then.
        self.suspended: trio.Event | None = None
        self.orders: deque[Envelope] = NO_MESSAGES
        # The place in a transaction that it has now.
        self.seat: Seat | None = None
        # What was handled lately.
        self.ring: Ring = NOTHING_YET
        self.ties: Ties | None = None

    # --- one incarnation ------------------------------------------------------------------

    def begin(self, life: Life) -> Exit | None:
        """Restore and start, if neither has to wait for anything.

        A pass of the loop in which the agent's task does it is a tenth of a restart.
        """
        if not self._starts_at_once:
            return None
        is_there = False
        try:
            self._enter(life)
            agent = self._make()
            self.memory.give(agent)
            self.agent = agent
            is_there = self._is_up(life, self._start_at_once())
        finally:
            if not is_there:
                self._end_incarnation()
        return None if is_there else Normal()

    def first_turn(self, life: Life) -> Exit | None:
        """The message that waits, if its handler never does: who crashes again at once.

        A pass of the loop is a fifth of such a restart.
        """
        mailbox = self.mailbox
        if (
            not mailbox.items
            or mailbox.waiting
            or self.called_away
            or life.cancelled
            or self.orders
            or self.outbox
            or self.suspended is not None
            or self.ties is not None
            or self.memory.newest is not None
            or places.AGENT_TAKE.armed is not None
        ):
            return None
        envelope, store = mailbox.items[0], self.surroundings.store
        if envelope.is_call or envelope.needs or envelope.operation.waits:
            return None
        if store is not None and not store.has_room:
            return None
        is_over = True
        try:
            mailbox.items.popleft()
            mailbox.taken += 1
            exit_ = self._handle_plain(envelope)
            is_over = isinstance(exit_, Crash)
        finally:
            if is_over:
                self._end_incarnation()
        if is_over or exit_ is None:
            return exit_
        # It has to take its leave, which may wait.
        self.exit_after = exit_
        return None

    @property
    def _starts_at_once(self) -> bool:
        return (
            self.agent_class.starts_at_once
            and places.AGENT_START.armed is None
            and places.AGENT_RESTORED.armed is None
            and not self.node.rolled_back
            and self.memory.is_at_hand
        )

    async def run(self, life: Life) -> Exit | None:
        """Restore, start, serve until told to stop or crashed."""
        begun = self._life is life
        try:
            if not begun and not await self._start(life):
                return Normal()
            # Not in a coroutine of its own: that would be 270 bytes of each agent.
            task, store = current_task(), self.surroundings.store
            while True:
                exit_ = self._crash or self.exit_after
                if exit_ is not None or life.stopping:
                    break
                if self.ties is not None:
                    # The mailbox has room again, or there is a new incarnation.
                    self.ties.flush()
                    events = self.ties.events
                    if events is not None and not events.is_open:
                        await self._wait(events.open_all, life)
                        continue
                if life.injected is not None:
                    # Cancelled while it was about to go on: nothing more is handled.
                    await checkpoint()
                elif self.orders:
                    exit_ = self._handle_order()
                    if exit_ is not None:
                        break
                elif self.outbox:
                    await self._deliver_outbox(life)
                elif self.suspended is not None:
                    await self._wait(self.suspended.wait, life)
                elif self._early is not None and store is not None:
                    early, self._early = self._early, None
                    await self._wait(partial(self._wait_for_sender, early, store), life)
                elif (
                    self.memory.newest is not None and self._is_too_far_ahead and store
                ):
                    await self._wait(partial(self.memory.wait_decided, store), life)
                elif store is not None and not store.has_room:
                    await self._wait(store.wait_room, life)
                elif not self.mailbox.items:
                    begun = self.called_away = False
                    if self.first_steps:
                        self.first_steps = ()
                    self.idle = self._asleep = task
                    await park(self._abort_idle)
                elif begun:
                    # Its first turn; the one before was another's.
                    begun = False
                else:
                    await checkpoint()
                exit_ = await self._handle_batch(life)
                if self.batch is not _NO_BATCH:
                    self._end_batch()
                if exit_ is not None:
                    break
            if isinstance(exit_, Crash):
                return exit_
            return await self._leave(life, exit_)
        finally:
            self._end_incarnation()

    async def _start(self, life: Life) -> bool:
        """Make the agent and report it ready; False when there is none to run."""
        self._enter(life)
        if places.AGENT_START.armed is not None:
            await places.AGENT_START.pass_by()
        agent = self._make()
        await self._restore(agent)
        if places.AGENT_RESTORED.armed is not None:
            await places.AGENT_RESTORED.pass_by()
        self.agent = agent
        # Without an on_start there is nothing to run: no coroutine for that.
        first = self.agent_class.on_start
        value = await self._run_on_start(first) if first is not None else None
        return self._is_up(life, value)

    def _enter(self, life: Life) -> None:
        current_body.set(self)
        self._life = life
        self._crash = self.exit_after = None

    def _make(self) -> Agent[Any]:
        try:
            agent = self.agent_type(*self._args, **self._kwargs)
        except AttributeError as error:
            if error.name in _LATER:
                raise TypeError(_too_early(self.agent_type)) from error
            raise
        agent.treewarden_body = self
        return agent

    def _is_up(self, life: Life, value: object) -> bool:
        """`on_start` is through, with this value."""
        if self.ties is not None:
            self.ties.renew_subscriptions()
        if value is IGNORE:
            life.started(IGNORE)
            return False
        self.resting = ""
        life.started()
        return True

    async def _restore(self, agent: Agent[Any]) -> None:
        await self.memory.restore(agent)

    async def _run_on_start(self, operation: Operation) -> object:
        """Run `on_start` as a handler."""
        self._doing = operation.name
        store = self.surroundings.store
        if self.node.rolled_back and store is not None and not store.is_healthy:
            # What it stages would fail like the last time, again and again.
            await store.wait_healthy()
        try:
            value = await operation.function(self.agent)
            life = self._life
            if life is not None and life.rolled_back:
                await checkpoint()  # raises: what it stood on is gone
            self._keep_start(operation, value)
        except BaseException:
            self.discard()
            raise
        finally:
            self._doing = ""
        return value

    def _start_at_once(self) -> object:
        """As `_run_on_start`, of one that waits for nothing, if there is one."""
        operation = self.agent_class.on_start
        if operation is None:
            return None
        self._doing = operation.name
        try:
            value = run_through(operation.function(self.agent))
            self._keep_start(operation, value)
        except BaseException:
            self.discard()
            raise
        finally:
            self._doing = ""
        return value

    def _keep_start(self, operation: Operation, value: object) -> None:
        """Its changes are a unit like any other handler's."""
        _refuse_answer(value)
        memory, staged = self.memory, self.staged
        payload = memory.encode()
        if payload == memory.latest and staged is None and not memory.collections:
            return  # as nearly always
        envelope = Envelope(operation, (), {})
        unit, staged = self.seal(envelope, payload)
        if unit is not None:
            unit.release.append(
                Release(self, memory.epoch, unit, staged, envelope, None)
            )
            memory.newest = unit
            hand_over(self.surroundings.store, unit)
        elif staged is not None and staged.leaving:
            self._release_clean(staged, envelope, outcome.Value(None))
        if staged is not None and staged.continuations:
            self.go_on_with(staged.continuations, envelope, unit)
            self.first_steps = staged.continuations

    def _abort_idle(self, _: object) -> Abort:
        self.idle = self._asleep = None
        return Abort.SUCCEEDED

    async def _wait(self, wait: Callable[[], Any], life: Life) -> bool:
        """Wait for room somewhere; False when a stop came first."""
        with trio.CancelScope() as self.blocked:
            if life.stopping:
                self.blocked.cancel()
            try:
                await wait()
            finally:
                self.blocked = None
            return True
        return False

    @property
    def _is_too_far_ahead(self) -> bool:
        # What is not committed may all find no room: the outbox stays bounded only if
        # the agent does not run further ahead than that.
        return (
            self.on_the_way >= self.mailbox.capacity and self.memory.newest is not None
        )

    async def _wait_for_sender(self, envelope: Envelope, store: Store) -> None:
        for unit in envelope.needs:
            await decided(store, unit)

    async def _deliver_outbox(self, life: Life) -> None:
        await places.AGENT_DELIVER.pass_by()
        if await self._wait(self.outbox[0].deliver, life):
            self.outbox.popleft()

    async def _leave(self, life: Life, exit_: Exit | None) -> Exit:
        """`on_stop`, within what is left of the shutdown time; then the last commit."""
        agent = self.agent
        final = exit_ if exit_ is not None else Shutdown()
        if self.memory.newest is None and not self.agent_class.has_on_stop:
            # Nothing to wait for: a scope would be most of the cost of stopping it.
            return final
        with cleanup():
            try:
                await places.AGENT_LEAVE.pass_by()
                if agent is not None:
                    self._doing = "on_stop"
                    await agent.on_stop(final)
            except Stop:
                raise
            except Exception as error:  # noqa: BLE001 - the hook's boundary
                final = Crash(self._failed_to_leave(error))
            finally:
                store = self.surroundings.store
                if store is not None:
                    await self.memory.wait_decided(store)
        return final

    def _failed_to_leave(self, error: Exception) -> Fault:
        """It is kept like any crash, with the state that it ends in."""
        fault = fault_of(self, error)
        envelope = Envelope(ON_STOP, (), {})
        self.crashed += 1
        self._remember(envelope, "crashed")
        self._fail_owed(lambda: AgentCrashed(fault))
        keep_crash(self, envelope, fault)
        return fault

    def _end_incarnation(self) -> None:
        if self.batch is not _NO_BATCH:
            self._end_batch()
        self._record_idle_crash()
        self.agent = self.idle = self._asleep = self._life = None
        self.staged = self.suspended = self._early = None
        self._doing = ""
        if self.first_steps:
            # The next one sets its own.
            steps, self.first_steps = self.first_steps, ()
            if self.mailbox.items:
                for envelope in steps:
                    self.take_back(envelope)
        ties = self.ties
        if ties is not None:
            path = self.node.path
            ties.fail_owed(lambda: AgentDown(path, "it stopped before it answered"))
            ties.let_go()

    def _record_idle_crash(self) -> None:
        """A crash that was injected between two messages is kept like any other."""
        life, last = self._life, self.last_crash
        if life is None or life.injected is None or life.rolled_back:
            return
        if life.ready and (last is None or last.incarnation != life.incarnation):
            self._crashed(None, life.injected)

    # --- as a body of the supervisor ------------------------------------------------------

    def ask_to_stop(self, life: Life) -> None:
        """Finish the message in hand, run `on_stop`, end."""
        self.called_away = True
        if not life.ready:
            life.cancel()
        if self.blocked is not None:
            self.blocked.cancel()
        if self.seat is not None:
            self.seat.ask_to_leave()
        self.wake()

    def kill(self, life: Life) -> None:
        """End now, in the middle of a handler if need be."""
        self.called_away = True
        life.kill()

    def shown(self, fault: Fault) -> Fault:
        """As its class lets people see it; also what `__init__` or `on_start` raised."""
        return self.agent_class.redaction.fault(fault)

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nobody will answer: tell those who wait, and those who come."""
        if gone:
            self.resting = "it is gone for good"
        elif self.node.state is NodeState.FAILED and isinstance(exit_, Crash):
            self.resting = f"it has failed: {exit_.fault.summary()}"
        else:
            self.resting = "it is stopped"
        for envelope in (*self.orders, *self.mailbox.empty()):
            self._lose(envelope, self.resting, exit_)
        self.orders.clear()
        for delivery in self.outbox:
            delivery.lose("its sender is down")
        self.outbox.clear()
        if self.ties is not None:
            self.ties.drop_subscriptions(keep=frozenset())
            if self.ties.events is not None:
                self.ties.events.keep_only(frozenset())
            self.ties.say_farewell()
        if gone and self.memory.newest is not None:
            self._leave_undecided(self.memory.newest)

    def _leave_undecided(self, unit: Unit) -> None:
        undecided, path = self.surroundings.undecided, self.node.path
        undecided[path] = unit

        def is_decided(_: StoreError | None) -> None:
            if undecided.get(path) is unit:
                del undecided[path]

        unit.release.append(is_decided)

    def _lose(self, envelope: Envelope, why: str, exit_: Exit | None = None) -> None:
        if envelope.is_call or envelope.task is not None:
            envelope.answer(outcome.Error(AgentDown(self.node.path, why, exit_)))
        else:
            self.dead_letter(envelope, why)

    def dead_letter(
        self, envelope: Envelope, why: str, fault: Fault | None = None
    ) -> None:
        """A message to this agent is lost for good: count it and tell."""
        if envelope.take_back(why, fault):
            return
        self.dead_letters += 1
        tell = self.surroundings.dead_letter
        if tell is not None:
            tell(self.node.path, envelope.operation.name, why)

    def forgive_crash(self) -> None:
        """The crash to come costs the supervisor's budget nothing."""
        if self._life is not None:
            self._life.uncounted = True

    def wake(self) -> None:
        idle = self.idle
        if idle is not None:
            self.idle = self._asleep = None
            reschedule(idle, GO_ON)

    # --- sending to it --------------------------------------------------------------------

    def operation(self, named: object) -> Operation:
        """The operation of this name on the agent's own class.

        Raises:
            UnknownOperation: it has none.
        """
        name = operation_name(named)
        operation = self.agent_class.operations.get(name)
        if operation is None:
            raise missing(self.agent_type, self.agent_class.operations, name)
        return operation

    def found(
        self, named: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Operation:
        """The operation that is meant, once it is known that it would take these.

        Raises:
            UnknownOperation, BadArguments: nothing was sent.
        """
        try:
            operation = self.agent_class.by_function[named]
        except (KeyError, TypeError):
            operation = self.operation(named)
        if kwargs or len(args) != operation.arity:
            operation.check(args, kwargs)
        return operation

    def make_cast(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Envelope:
        """A message to this agent with its arguments as they are now.

        Raises:
            StateNotEncodable: one cannot be copied.
        """
        return Envelope(operation, *operation.copy_arguments(args, kwargs))

    def put(self, envelope: Envelope) -> bool:
        """Take a message if there is room; all that `accept` does for most of them."""
        mailbox = self.mailbox
        items = mailbox.items
        if mailbox.waiting or len(items) >= mailbox.capacity or self.resting:
            return False
        if self.spans.enabled:
            envelope.sent_at_ns = time.time_ns()
        if items:
            items.append(envelope)
        else:
            mailbox.put(envelope)
        idle = self.idle
        if idle is not None:
            self.idle = self._asleep = None
            reschedule(idle, GO_ON)
        return True

    def accept(self, envelope: Envelope) -> Admission:
        """Offer a message to the mailbox and wake the agent.

        Raises:
            AgentDown: nobody will ever take it.
            MailboxFull: the policy is to refuse.
        """
        if self.put(envelope):
            return Admission.ACCEPTED
        places.AGENT_FULL.reach()
        if self.resting:
            raise AgentDown(self.node.path, self.resting)
        if self.spans.enabled:
            envelope.sent_at_ns = time.time_ns()
        admission, victim = self.mailbox.offer(envelope)
        if admission is Admission.REJECTED or (victim is envelope and envelope.is_call):
            raise MailboxFull(self.node.path, self.mailbox.capacity)
        if victim is not None:
            self._overflowed(victim)
        self.wake()
        return admission

    def accept_request(self, envelope: Envelope) -> None:
        """As `accept`, for one that no task waits with: the line has an end too.

        Raises:
            AgentDown: nobody will ever take it.
            MailboxFull: there is no room, in the line neither.
        """
        mailbox = self.mailbox
        if mailbox.would_wait and len(mailbox.waiting) >= mailbox.capacity:
            raise MailboxFull(self.node.path, mailbox.capacity)
        self.accept(envelope)

    async def accept_and_wait(self, envelope: Envelope) -> None:
        """Take a cast, or let its sender stand in line until there is room.

        Cancelled while it waits: it was not sent.
        """
        if self.accept(envelope) is not Admission.WAITING:
            return
        envelope.task = current_task()

        def abort(_: object) -> Abort:
            envelope.task = None
            self.mailbox.withdraw(envelope)
            return Abort.SUCCEEDED

        await park(abort)

    def accept_or_lose(self, envelope: Envelope) -> None:
        """Take a cast whose sender is not there to be told."""
        try:
            self.accept(envelope)
        except TreewardenError as error:
            self.dead_letter(envelope, type(error).__name__)

    def delivery(self, sender: AgentBody, envelope: Envelope) -> Delivery:
        """How a staged cast of `sender`, committed with its handler, comes here."""
        return CastDelivery(sender, self, envelope)

    def _overflowed(self, victim: Envelope) -> None:
        if victim.is_call:
            error = MailboxFull(self.node.path, self.mailbox.capacity)
            victim.answer(outcome.Error(error))
        else:
            self.dead_letter(victim, "mailbox_full")

    def expire(self, envelope: Envelope, seconds: float) -> None:
        """Its caller has waited `seconds`, and that is too long."""
        self.mailbox.withdraw(envelope)
        error = CallTimeout(
            self.node.path,
            envelope.operation.name,
            seconds,
            begun=envelope.begun,
            doing=self.doing_for(envelope),
            sender=envelope.sender,
            id_=id_to_ask_by(self, envelope),
        )
        envelope.answer(outcome.Error(error), last=not envelope.begun)

    def agent_at(self, path: str) -> AgentBody | None:
        """The agent there, in the same tree."""
        node = self.directory.find(path)
        return (
            node.body if node is not None and isinstance(node.body, AgentBody) else None
        )

    # --- handling -------------------------------------------------------------------------

    async def _handle_batch(self, life: Life) -> Exit | None:
        """All that was there when it woke, one pass of the loop for the lot.

        One coroutine a batch, not one a message, and nothing that can be spared: a
        message that changes nothing takes 0.5 µs, and each step 0.003 of it.
        """
        mailbox, agent, spans = self.mailbox, self.agent, self.spans
        memory = self.memory
        items = mailbox.items
        if not items or life.injected is not None:
            return None
        has_more = self.called_away or memory.newest is not None
        if has_more and self._has_else_to_do(life):
            return None
        self.called_away = False
        assert agent is not None  # noqa: S101 - it is there as long as it serves
        if places.AGENT_TAKE.armed is not None:
            places.AGENT_TAKE.reach()
        if self.ring is NOTHING_YET:
            self.ring = new_ring()
        codec = self.agent_class.codec
        write = codec.write if codec is not None else _no_state
        # What stays as it is until the next start.
        itself = (agent,)
        is_plain, has_spans = not memory.collections, spans.enabled
        # `wall_ns` of the clock, with one call less.
        now_ns = time.time_ns
        for _ in self._begin_batch(len(items)):
            if self.called_away or not items:
                mailbox.taken -= 1
                self._handled -= 1
                break
            # As `take` does, at half of its cost.
            envelope = items.popleft()
            if mailbox.waiting:
                self._moved_up(mailbox.move_up())
            is_call = envelope.is_call
            if is_call:
                if envelope.task is None and not envelope.is_wanted:
                    if envelope.id:
                        envelope.settle()
                    self._handled -= 1
                    continue  # withdrawn before it was begun: it never happens
                envelope.begun = True
            elif self.ties is not None:
                # Of casts that are not bound to its incarnation nobody asks it.
                envelope.begun = True
            if envelope.needs:
                if self._is_early(envelope):
                    self._handled -= 1
                    break
                if self._refuse_orphan(envelope):
                    self._handled -= 1
                    continue
            if has_spans:
                self._handled -= 1
                exit_ = await self._handle(envelope)
            else:
                operation = envelope.operation
                self.in_hand = envelope
                try:
                    if envelope.kwargs:
                        value = operation.function(
                            agent, *envelope.args, **envelope.kwargs
                        )
                    else:
                        # `agent, *args` would be gathered in a list first.
                        value = operation.function(*(itself + envelope.args))
                    if operation.is_async:
                        value = await value
                except BaseException as error:
                    self._handled -= 1
                    if not isinstance(error, Exception) and not raised_by_itself(error):
                        self._interrupted(envelope)
                        raise
                    exit_ = self._raised(envelope, error, 0)
                else:
                    try:
                        payload = write(agent.state)
                    except Exception:  # noqa: BLE001 - `_returned` finds out what is wrong
                        payload = None
                    if (
                        payload == memory.latest
                        and self.staged is None
                        and memory.newest is None
                        and is_plain
                        and life.injected is None
                        # Of a plain one that was only told also: it may be a coroutine.
                        and (
                            value is None
                            or (operation.is_async and not is_call)
                            or type(value) in SCALARS
                        )
                    ):
                        # As `_returned` does when nothing has changed or leaves.
                        self.ring.append(
                            (operation.name, envelope.sender, now_ns(), "done")
                        )
                        if is_call:
                            envelope.reply(value)
                        continue
                    self._handled -= 1
                    exit_ = self._returned(envelope, value, 0, payload)
            if exit_ is not None:
                return exit_
            if self._has_to_pause(life):
                break
        self.in_hand = None
        return None

    def _begin_batch(self, count: int) -> Iterator[int]:
        """Count so many messages as taken and handled; what is not is taken off again.

        A counter a message would be a hundredth of its cost.
        """
        self.mailbox.taken += count
        self._handled += count
        self.batch = batch = iter(range(count))
        return batch

    def _end_batch(self) -> None:
        """No more of it is taken; what is left comes with the next."""
        left = length_hint(self.batch)
        self.mailbox.taken -= left
        self._handled -= left
        self.batch = _NO_BATCH

    @property
    def taken(self) -> int:
        """How many messages were taken out of the mailbox so far."""
        return self.mailbox.taken - length_hint(self.batch)

    @property
    def handled(self) -> int:
        """How many messages were handled so far, the one in hand not included."""
        in_hand = self.batch is not _NO_BATCH and not self.spans.enabled
        return self._handled - length_hint(self.batch) - in_hand

    def _has_else_to_do(self, life: Life) -> bool:
        """Whether something comes before the next message: what `called_away` may mean."""
        return bool(
            self._crash is not None
            or life.stopping
            or self.exit_after is not None
            or self.suspended is not None
            or self.orders
            or self.outbox
            or self._has_to_pause(life)
        )

    def _has_to_pause(self, life: Life) -> bool:
        """Whether what it did must get further before it takes a message."""
        if life.injected is not None:
            return True
        if self.memory.newest is None:
            return False
        # One agent alone may fill the store's queue, or its bytes.
        store = self.surroundings.store
        return self._is_too_far_ahead or (store is not None and not store.has_room)

    async def _handle(self, envelope: Envelope) -> Exit | None:
        """One message, at leisure: with a span if there is to be one."""
        operation = envelope.operation
        envelope.begun = True
        self.in_hand = envelope
        started = begin_span(envelope) if self.spans.enabled else 0
        try:
            value = operation.function(self.agent, *envelope.args, **envelope.kwargs)
            if operation.is_async:
                value = await value
        except BaseException as error:
            if not isinstance(error, Exception) and not raised_by_itself(error):
                self._interrupted(envelope)
                raise
            return self._raised(envelope, error, started)
        return self._returned(envelope, value, started)

    def _moved_up(self, envelope: Envelope | None) -> None:
        """A cast that stood in line is accepted: its sender goes on."""
        if envelope is not None and not envelope.is_call:
            envelope.reply(None)

    def take_back(self, envelope: Envelope) -> None:
        """A message that it sent itself is not to be handled; nothing when it was."""
        self._moved_up(self.mailbox.remove(envelope))

    def handle_inline(self, envelope: Envelope) -> None:
        """Run a plain handler now, in the caller's turn but in the agent's context.

        Nobody can tell it from a message that was queued: same answer, crash, restart and
        order.
        """
        task, self.idle = self.idle, None
        assert task is not None  # noqa: S101 - it was looked at in the same step
        mailbox = self.mailbox
        mailbox.taken += 1
        failure: outcome.Error | None = None
        try:
            exit_ = task.context.run(self._handle_plain, envelope)
        except BaseException as error:  # noqa: BLE001 - raised in the agent's own task
            # KeyboardInterrupt, SystemExit: the agent ends with it, not its caller.
            exit_, failure = None, outcome.Error(error)
        if self._asleep is not task:
            return  # cancelled meanwhile: it is on its way already
        if exit_ is not None:
            self._crash = exit_
            self.called_away = True
        if failure is not None or self.called_away or mailbox.items:
            self._asleep = None
            reschedule(task, failure or GO_ON)
        else:
            self.idle = task

    def _handle_order(self) -> Exit | None:
        envelope = self.orders.popleft()
        if not envelope.is_wanted or (envelope.needs and self._refuse_orphan(envelope)):
            return None
        self.mailbox.taken += 1
        if self.ties is not None:
            self.ties.idle_since += 1  # an operator's look is no message
        return self._handle_plain(envelope)

    def _handle_plain(self, envelope: Envelope) -> Exit | None:
        envelope.begun = True
        self.in_hand = envelope
        started = begin_span(envelope) if self.spans.enabled else 0
        agent, function = self.agent, envelope.operation.function
        try:
            if envelope.kwargs:
                value = function(agent, *envelope.args, **envelope.kwargs)
            else:
                value = function(agent, *envelope.args)
            if envelope.operation.is_async:
                # As `run_through` does, which would be a frame of the fault.
                try:
                    value.send(None)
                except StopIteration as stop:
                    value = stop.value
        except Exception as error:  # noqa: BLE001 - the handler's boundary
            return self._raised(envelope, error, started)
        except BaseException as error:
            if raised_by_itself(error):
                return self._raised(envelope, error, started)
            self._interrupted(envelope)
            raise
        return self._returned(envelope, value, started)

    def _is_early(self, envelope: Envelope) -> bool:
        """Whether it must wait for its sender's commit: then it is put back."""
        if not self.agent_class.awaits_senders or not undecided(*envelope.needs):
            return False
        if any(unit.error is not None for unit in envelope.needs):
            return False
        self.mailbox.put_back(envelope)
        self._early = envelope
        return True

    def _refuse_orphan(self, envelope: Envelope) -> bool:
        """Whether its sender's work was lost while it waited: then it never was sent."""
        failed = next((u.error for u in envelope.needs if u.error is not None), None)
        if failed is None:
            return False
        if envelope.is_call:
            envelope.answer(outcome.Error(own_copy(failed)))
        else:
            self.dead_letter(envelope, "its sender was rolled back")
        return True

    def _returned(
        self,
        envelope: Envelope,
        value: object,
        started: int,
        payload: bytes | None = None,
    ) -> Exit | None:
        life = self._life
        if life is not None and life.rolled_back:
            # It came to its end before it noticed; what it stood on is gone.
            self._interrupted(envelope)
            return None
        unit = staged = None
        memory = self.memory
        try:
            reply = value
            if type(value) not in SCALARS:
                reply = self._copied(envelope, value)
            if payload is None:
                payload = memory.encode()
            if payload != memory.latest or self.staged or memory.collections:
                unit, staged = self.seal(envelope, payload)
        except Exception as error:  # noqa: BLE001 - what cannot be kept did not happen
            return self._raised(envelope, error, started)
        self._handled += 1
        # `_remember`, written out: two calls less for every message.
        if self.ring is NOTHING_YET:
            self.ring = new_ring()
        self.ring.append(
            (envelope.operation.name, envelope.sender, time.time_ns(), "done")
        )
        self.in_hand = None
        if started:
            end_span(self, envelope, started, "")
        if unit is not None:
            envelope.unit = unit
            if envelope.id:
                note_applied(self, unit, envelope, reply)
            unit.release.append(
                Release(self, memory.epoch, unit, staged, envelope, reply)
            )
            memory.newest = unit
            hand_over(self.surroundings.store, unit)
        elif staged is None and memory.newest is None:
            if envelope.is_call:
                envelope.reply(reply)
            return None
        else:
            self._release_clean(staged, envelope, outcome.Value(reply))
        if staged is not None and staged.continuations:
            self.go_on_with(staged.continuations, envelope, unit)
        return None

    def _copied(self, envelope: Envelope, value: object) -> object:
        """What a handler returned, as its caller may have it."""
        refuse_unawaited(envelope.operation.name, value)
        if not envelope.is_call or self.puts_off:
            return None
        return envelope.operation.copy_reply(value)

    def go_on_with(
        self, continuations: list[Envelope], after: Envelope, unit: Unit | None
    ) -> None:
        """Before any other message; never without what the handler did."""
        last = unit or self.memory.newest
        needs = after.needs
        if last is not None or needs:
            needs = undecided(last, *needs)
        for envelope in reversed(continuations):
            envelope.needs = needs
            self.mailbox.put_first(envelope)

    def _release_clean(
        self,
        staged: Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        """Nothing to commit; but what it tells may be uncommitted still.

        What leaves for others also waits for what its sender had not committed.
        """
        if (
            staged is None
            and envelope.is_call
            and not (envelope.is_wanted or envelope.inline or envelope.id)
        ):
            return  # nobody waits for the answer, or will ever ask
        newest = self.memory.newest
        needs = envelope.needs if staged is not None and staged.leaving else ()
        if newest is not None or needs:
            held = Held(self, staged, envelope, result)
            after(undecided(newest, *needs), held)
        elif staged is not None:
            release(self, None, staged, envelope, result)
        elif envelope.is_call:
            envelope.answer(result)

    def _raised(
        self, envelope: Envelope, error: BaseException, started: int
    ) -> Exit | None:
        life = self._life
        if life is not None and life.rolled_back:
            # What it made of being cancelled for a failed commit is not its crash.
            self._interrupted(envelope)
            return None
        self.discard()
        self.in_hand = None
        trace = trace_id()
        if started:
            end_span(self, envelope, started, fault_of(self, error, trace).summary())
        # By its type: an exception may lie about its class, or fail when it is asked.
        if issubclass(type(error), Stop):
            exit_ = cast("Stop", error).exit
            self._remember(envelope, "stopped")
            self._lose(envelope, "it stopped itself", exit_)
            return exit_
        if self._is_refusal(error):
            self._refuse(envelope, error)
            return None
        fault = fault_of(self, error, trace)
        self._crashed(envelope, fault)
        return Crash(fault)

    def _is_refusal(self, error: BaseException) -> bool:
        kind = type(error)
        return issubclass(kind, self.agent_type.refuses) and not issubclass(
            kind, StateNotEncodable
        )

    def _refuse(self, envelope: Envelope, error: BaseException) -> None:
        """An answer, not a crash: what it did goes back, the agent lives."""
        self.refused += 1
        self._remember(envelope, "refused")
        self.memory.reset()
        if not envelope.is_call:
            self.dead_letter(envelope, "refused")
            return
        self._release_clean(None, envelope, outcome.Error(error))

    def _crashed(self, envelope: Envelope | None, fault: Fault) -> None:
        """Tell the caller at once; keep what the console shows of it."""
        if places.AGENT_CRASHED.armed is not None:
            places.AGENT_CRASHED.reach()
        self.crashed += 1
        if envelope is not None:  # else it was idle
            self._remember(envelope, "crashed")
            if envelope.is_call:
                envelope.answer(outcome.Error(AgentCrashed(fault)))
            else:
                self.dead_letter(envelope, "crashed", fault)
        if self.ties is not None:
            self.ties.fail_owed(lambda: AgentCrashed(fault))
        keep_crash(self, envelope, fault)

    def _interrupted(self, envelope: Envelope) -> None:
        """Cancelled in the middle: whose fault was it?"""
        self.discard()
        self.in_hand = None
        life = self._life
        if life is not None and life.injected is not None and not life.rolled_back:
            self._crashed(envelope, life.injected)
            return
        envelope.begun = False
        self._remember(envelope, "interrupted")
        self.mailbox.put_back(envelope)

    def _remember(self, envelope: Envelope, outcome: Outcome) -> None:
        if self.ring is NOTHING_YET:
            self.ring = new_ring()
        entry = envelope.operation.name, envelope.sender, time.time_ns(), outcome
        self.ring.append(entry)

    # --- staging and commits --------------------------------------------------------------

    def stage(self) -> Staged:
        """What the handler in hand has staged, to add to it.

        Raises:
            TreewardenError: no handler of this agent is asking, or it may stage nothing.
        """
        if current_body.get() is not self:
            raise TreewardenError(
                f"only a handler of {self.node.path} can stage something; "
                "outside of it use bus.publish or ref.cast"
            )
        if self._doing == "on_stop":
            raise TreewardenError(f"on_stop of {self.node.path} cannot stage anything")
        if self.staged is None:
            self.staged = Staged(self)
        return self.staged

    @property
    def puts_off(self) -> bool:
        """Whether the handler in hand has put off its answer."""
        return self.staged is not None and self.staged.deferred is not None

    def owes(self, envelope: Envelope) -> bool:
        """Whether its answer was put off, and somebody still waits."""
        if self.staged is not None and self.staged.deferred is envelope:
            return True
        ties = self.ties
        return ties is not None and envelope in ties.owed and envelope.is_wanted

    def seal(
        self, envelope: Envelope, payload: bytes
    ) -> tuple[Unit | None, Staged | None]:
        """Make a unit of what the handler did; None when there is nothing to commit.

        Raises:
            StateNotEncodable: no incarnation could load the state; nothing was sealed.
        """
        memory = self.memory
        changed = payload != memory.latest
        if places.AGENT_SEAL.armed is not None:
            places.AGENT_SEAL.reach()
        if changed:
            codec = self.agent_class.codec
            assert codec is not None  # noqa: S101 - what has none does not change
            codec.check(payload, self.node.path)
        # From here on nothing can fail.
        staged, self.staged = self.staged, None
        if staged is not None:
            self.on_the_way += staged.leaving
            self._account(staged)
        collections = memory.collections
        dirty = [c for c in collections.values() if c.dirty] if collections else ()
        write = memory.take(payload) if changed else None
        if not (
            write is not None
            or dirty
            or (staged is not None and (staged.events or staged.posts))
            or (envelope.id and (changed or staged is not None))
        ):
            return None, staged
        unit = Unit(self.node.path, write)
        if staged is not None and staged.events:
            unit.events = [event for event, _ in staged.events]
        if envelope.needs:
            unit.needs = undecided(memory.newest, *envelope.needs)
        elif memory.newest is not None:
            # It is not decided, or has failed and nobody here was told yet.
            unit.needs = (memory.newest,)
        for collection in dirty:
            collection.seal(unit)
        if staged is not None and staged.posts:
            staged.post(self.surroundings.store, unit)
        return unit, staged

    def _account(self, staged: Staged) -> None:
        """The handler is through: what it put off is owed, what it answered is not."""
        if staged.deferred is not None:
            self.tied.owe(staged.deferred)
        for envelope, _ in staged.replies:
            self.tied.owed.pop(envelope, None)

    def discard(self) -> None:
        """The handler failed: what it staged never was."""
        self.exit_after = None
        staged, self.staged = self.staged, None
        for timer in staged.timers if staged is not None else ():
            timer.cancel()
        collections = self.memory.collections
        if collections:
            for collection in collections.values():
                collection.discard()

    def commit_failed(self, error: StoreError, epoch: int) -> None:
        """Fall back to the committed state; the incarnation is replaced, uncounted.

        Once a fall: a unit that was built on the one that failed before it (an older
        epoch) fails later, when a new incarnation may have gone on from the committed
        state, and must not undo that.
        """
        if epoch != self.memory.epoch:
            return
        self.memory.fall_back()
        self._fail_owed(lambda: own_copy(error))
        life = self._life
        if life is not None and not life.ended:
            fault = Fault.capture(
                error, path=self.node.path, incarnation=self.node.incarnation
            )
            life.fail(fault, rolled_back=True)

    def _fail_owed(self, error: Callable[[], Exception]) -> None:
        if self.ties is not None:
            self.ties.fail_owed(error)

    @property
    def tied(self) -> Ties:
        """Its ties, made when the first is knotted."""
        ties = self.ties
        if ties is None:
            ties = self.ties = Ties(self)
        return ties

    def unsettled(self) -> tuple[Unit, ...]:
        """What must be committed before anything that the agent tells now.

        Its own newest work, and what the sender of the message in hand had not committed.
        """
        newest, in_hand = self.memory.newest, self.in_hand
        if in_hand is not None and in_hand.needs:
            return undecided(newest, *in_hand.needs)
        return (newest,) if newest is not None else ()

    def when_settled(self, tell: Callable[[StoreError | None], None]) -> bool:
        """Have `tell` called once all `unsettled()` is decided; False: nothing is."""
        units = self.unsettled()
        if not units:
            return False
        after(units, tell)
        return True

    def when_at_rest(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have `tell` called once, when nobody will come any more; what takes it back.

        A crash that is restarted says nothing. `tell` is plain, short and must not raise.
        """
        farewells = self.tied.farewells
        farewells[tell] = None
        return lambda: self.tied.farewells.pop(tell, None)

    # --- for those who look ---------------------------------------------------------------

    @property
    def doing(self) -> str:
        """The operation in hand, or a word for none."""
        if self.in_hand is not None:
            return self.in_hand.operation.name
        if self._doing:
            return self._doing
        return "idle" if self.idle is not None else str(self.node.state)

    def doing_for(self, envelope: Envelope) -> str:
        """What keeps the sender of `envelope` waiting."""
        if envelope.begun and envelope is not self.in_hand:
            if self.owes(envelope):
                return f"{self.doing} and has put off the answer"
            return "waiting for the commit of its answer"
        return self.doing

    def recent(self) -> tuple[Handled, ...]:
        """See `AgentRef.recent`."""
        return tuple(as_record(entry) for entry in self.ring)

    def statistics(self) -> AgentStatistics:
        """What may be seen of it."""
        mailbox = self.mailbox
        return AgentStatistics(
            path=self.node.path,
            incarnation=self.node.incarnation,
            mailbox=len(mailbox),
            capacity=mailbox.capacity,
            waiting_senders=len(mailbox.waiting),
            accepted=mailbox.accepted - length_hint(self.batch),
            handled=self.handled,
            crashed=self.crashed,
            refused=self.refused,
            dropped=mailbox.dropped,
            dead_letters=self.dead_letters,
            outbox=len(self.outbox),
            sent=self.sent,
            doing=self.doing,
            type=self.agent_class.name,
            state_revision=self.memory.committed_revision,
            state_bytes=len(self.memory.committed),
            uncommitted=self.memory.newest is not None,
        )


# What an agent has from `on_start` on.
_LATER: Final = frozenset({"treewarden_body", "state"})


def _refuse_answer(value: object) -> None:
    """`on_start` answers nobody; what looks like an answer was meant to be IGNORE."""
    if value is not None and value is not IGNORE:
        raise TypeError(f"on_start returns None or IGNORE, not {value!r}")


def _too_early(agent_type: type[Agent[Any]]) -> str:
    return (
        f"{agent_type.__qualname__}.__init__ asks what the agent is or knows; its state, "
        "path, ref and runtime are there from on_start on"
    )


def _no_state(_: object) -> bytes:
    return b""
