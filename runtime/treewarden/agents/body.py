"""What of an agent outlives its incarnations, and the loop that serves its mailbox.

Theory of operation. The body belongs to the node: mailbox, the newest state as bytes, the
last committed bytes, what waits for a commit. An incarnation is an `Agent` object made
from those bytes, and a loop: take a message, run its handler, seal what it did.

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
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
import outcome
import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

import treewarden.telemetry as tracing
from treewarden.bus import Event, check_topic, to_json
from treewarden.clock import wall_ns
from treewarden.errors import (
    AgentCrashed,
    AgentDown,
    CallingSelf,
    CallTimeout,
    MailboxFull,
    NotRunning,
    StateNotEncodable,
    StoreBroken,
    StoreError,
    TransactionMisuse,
    TreewardenError,
)
from treewarden.exits import Crash, Exit, Fault, Normal, Shutdown
from treewarden.ids import new_id
from treewarden.injection import places
from treewarden.store import (
    CrashRecord,
    StagedEvent,
    StateWrite,
    Unit,
    call_id,
    insert_applied,
)
from treewarden.supervision import (
    IGNORE,
    Kind,
    Life,
    NodeState,
    Stop,
    cleanup,
    raised_by_itself,
)

from .envelope import GO_ON, Envelope
from .mailbox import NO_MESSAGES, Admission, Mailbox
from .monitor import Down, Monitor
from .operation import SCALARS, Operation, missing, operation_name
from .orders import ON_STOP
from .outbox import (
    NO_DELIVERIES,
    CastDelivery,
    Delivery,
    EventDelivery,
    closes_a_ring,
)
from .recent import Handled, Outcome, Ring, as_records, new_ring
from .release import Held, Release, after, decided, own_copy, told_to, undecided
from .reply import Reply
from .seat import Seat
from .staged import Staged, gathered
from .surroundings import NOTHING, Surroundings
from .ties import Ties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treewarden.bus import Subscription
    from treewarden.store import Applied, Collection, Declaration, Store
    from treewarden.supervision import Directory, Node, SupervisorRef, Timer
    from treewarden.telemetry import Histogram, Telemetry

    from .agent import Agent
    from .codec import StateCodec
    from .redaction import Redaction
    from .ref import AgentRef

_ENCODE: Final = msgspec.json.Encoder().encode

KEPT_ANSWER_BYTES: Final = 64 << 10
"""A longer answer is not kept with the id of its request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClass:
    """What is worked out once for each Agent subclass; `on_start` None: not overridden."""

    name: str
    operations: dict[str, Operation]
    by_function: dict[object, Operation]
    codec: StateCodec | None
    on_start: Operation | None
    has_on_stop: bool
    on_event: Operation
    on_down: Operation
    redaction: Redaction
    collections: tuple[Declaration, ...]


_NO_COLLECTIONS: Final[dict[str, Collection]] = {}
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
    keeps: ClassVar[bool] = False
    """Whether a cast is a row of the store before it is a message."""

    __slots__ = (
        "_agent",
        "_args",
        "_asleep",
        "_blocked",
        "_class",
        "_collections",
        "_committed",
        "_crash",
        "_doing",
        "_early",
        "_exit_after",
        "_histograms",
        "_in_hand",
        "_kwargs",
        "_life",
        "_loaded",
        "_newest",
        "_on_the_way",
        "_orders",
        "_outbox",
        "_recent",
        "_revision",
        "_staged",
        "_standing",
        "_state_bytes",
        "_suspended",
        "_ties",
        "agent_type",
        "awaits_senders",
        "by_function",
        "committed_at_ns",
        "committed_revision",
        "crashed",
        "dead_letters",
        "directory",
        "epoch",
        "handled",
        "idle",
        "last_crash",
        "mailbox",
        "node",
        "refused",
        "resting",
        "seat",
        "sent",
        "spans",
        "surroundings",
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
        self.handled = self.crashed = self.refused = self.dead_letters = self.sent = 0
        self.committed_revision = 0
        self.committed_at_ns: int | None = None
        self.last_crash: CrashRecord | None = None
        # How often uncommitted state was given up after a failed commit.
        self.epoch = 0
        self._class = agent_type.treewarden_class
        # Whether a message has to wait until what its sender did before is committed;
        # and the one that waits now.
        self.awaits_senders = agent_type.persistence == "none"
        self._early: Envelope | None = None
        self.turns = self.surroundings.turns
        self.by_function = self._class.by_function
        self._args = args
        self._kwargs = kwargs
        self._agent: Agent[Any] | None = None
        self._life: Life | None = None
        # Parked for want of messages; and, of those, open to handlers in a caller's turn.
        self._asleep: Task | None = None
        self.idle: Task | None = None
        self._in_hand: Envelope | None = None
        self._histograms: tuple[Histogram, Histogram] | None = None
        self._doing = ""
        self._staged: Staged | None = None
        self._exit_after: Exit | None = None
        self._crash: Exit | None = None
        self.resting = ""
        # State: what handlers have made of it, and what of that is on disk.
        self._loaded = False
        self._state_bytes = b""
        self._committed = b""
        self._revision = 0
        self._newest: Unit | None = None
        self._collections: dict[str, Collection] | None = None
        # What the last commits could not deliver for lack of room.
        self._outbox: deque[Delivery] = NO_DELIVERIES
        # Where the handler in hand waits for room, and with what.
        self._standing: tuple[tuple[AgentBody, Envelope], ...] = ()
        # Events and casts of handlers that are not committed yet.
        self._on_the_way = 0
        self._blocked: trio.CancelScope | None = None
        # An operator's: no message is taken while it is set and not opened; and what is
        # done before any message, also then.
        self._suspended: trio.Event | None = None
        self._orders: deque[Envelope] = NO_MESSAGES
        # The place in a transaction that it has now.
        self.seat: Seat | None = None
        self._recent: Ring | None = None
        self._ties: Ties | None = None

    # --- one incarnation -------------------------------------------------------------------

    async def run(self, life: Life) -> Exit | None:
        """Restore, start, serve until told to stop or crashed."""
        current_body.set(self)
        self._life = life
        self._crash = self._exit_after = None
        try:
            if not await self._start(life):
                return Normal()
            # Not in a coroutine of its own: that would be 270 bytes of each agent.
            task, store = current_task(), self.surroundings.store
            while True:
                exit_ = self._crash or self._exit_after
                if exit_ is not None or life.stopping:
                    break
                if self._ties is not None:
                    # The mailbox has room again, or there is a new incarnation.
                    for subscription in self._ties.subscriptions.values():
                        subscription.flush()
                if life.injected is not None:
                    # Cancelled while it was about to go on: nothing more is handled.
                    await checkpoint()
                elif self._orders:
                    exit_ = self._handle_order()
                    if exit_ is not None:
                        break
                elif self._outbox:
                    await self._deliver_outbox(life)
                elif self._suspended is not None:
                    await self._wait(self._suspended.wait, life)
                elif self._early is not None and store is not None:
                    early, self._early = self._early, None
                    await self._wait(partial(self._wait_for_sender, early, store), life)
                elif self._newest is not None and self._is_too_far_ahead and store:
                    await self._wait(partial(self._wait_decided, store), life)
                elif store is not None and not store.has_room:
                    await self._wait(store.wait_room, life)
                elif not self.mailbox.items:
                    self.idle = self._asleep = task
                    await park(self._abort_idle)
                else:
                    await checkpoint()
                exit_ = await self._handle_batch(life)
                if exit_ is not None:
                    break
            if isinstance(exit_, Crash):
                return exit_
            return await self._leave(life, exit_)
        finally:
            self._end_incarnation()

    async def _start(self, life: Life) -> bool:
        """Make the agent and report it ready; False when there is none to run."""
        await places.AGENT_START.pass_by()
        agent = self.agent_type(*self._args, **self._kwargs)
        agent.treewarden_body = self
        await self._restore(agent)
        await places.AGENT_RESTORED.pass_by()
        self._agent = agent
        ignored = await self._run_on_start() is IGNORE
        if self._ties is not None:
            self._ties.drop_subscriptions(keep=self._ties.renewed)
        if ignored:
            life.started(IGNORE)
            return False
        self.resting = ""
        life.started(self.node.path)
        return True

    def _end_incarnation(self) -> None:
        self._record_idle_crash()
        self._agent = self.idle = self._asleep = self._life = None
        self._staged = self._suspended = self._early = None
        self._doing = ""
        ties = self._ties
        if ties is not None:
            self._untie(ties)

    def _untie(self, ties: Ties) -> None:
        ties.renewed.clear()
        self._fail_owed(
            lambda: AgentDown(self.node.path, "it stopped before it answered")
        )
        for envelope in ties.bound:
            self._take_back(envelope)
        ties.bound.clear()
        for timer in ties.timers:
            timer.cancel()
        ties.timers.clear()
        for monitor in tuple(ties.monitors):
            monitor.cancel()

    @property
    def _tied(self) -> Ties:
        ties = self._ties
        if ties is None:
            ties = self._ties = Ties()
        return ties

    def _record_idle_crash(self) -> None:
        """A crash that was injected between two messages is kept like any other."""
        life, last = self._life, self.last_crash
        if life is None or life.injected is None or life.rolled_back:
            return
        if life.ready and (last is None or last.incarnation != life.incarnation):
            self._crashed(None, life.injected)

    @property
    def _is_too_far_ahead(self) -> bool:
        # What is not committed may all find no room: the outbox stays bounded only if
        # the agent does not run further ahead than that.
        return self._on_the_way >= self.mailbox.capacity and self._newest is not None

    async def _wait_decided(self, store: Store) -> None:
        newest = self._newest
        if newest is not None:
            await decided(store, newest)

    def _abort_idle(self, _: object) -> Abort:
        self.idle = self._asleep = None
        return Abort.SUCCEEDED

    async def _leave(self, life: Life, exit_: Exit | None) -> Exit:
        """`on_stop`, within what is left of the shutdown time; then the last commit."""
        agent = self._agent
        final = exit_ if exit_ is not None else Shutdown()
        if self._newest is None and not self._class.has_on_stop:
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
                    await self._wait_decided(store)
        return final

    def _failed_to_leave(self, error: Exception) -> Fault:
        """It is kept like any crash, with the state that it ends in."""
        fault = self._fault_of(error)
        envelope = Envelope(ON_STOP, (), {})
        self.crashed += 1
        self._remember(envelope, "crashed")
        self._fail_owed(lambda: AgentCrashed(fault))
        self._keep_crash(envelope, fault)
        return fault

    # --- as a body of the supervisor ---------------------------------------------------------

    def ask_to_stop(self, life: Life) -> None:
        """Finish the message in hand, run `on_stop`, end."""
        if not life.ready:
            life.scope.cancel()
        if self._blocked is not None:
            self._blocked.cancel()
        if self.seat is not None:
            self.seat.ask_to_leave()
        self._wake()

    def kill(self, life: Life) -> None:
        """End now, in the middle of a handler if need be."""
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nobody will answer: tell those who wait, and those who come."""
        if gone:
            self.resting = "it is gone for good"
        elif self.node.state is NodeState.FAILED and isinstance(exit_, Crash):
            self.resting = f"it has failed: {exit_.fault.summary()}"
        else:
            self.resting = "it is stopped"
        for envelope in (*self._orders, *self.mailbox.empty()):
            self._lose(envelope, self.resting)
        self._orders.clear()
        for delivery in self._outbox:
            delivery.lose("its sender is down")
        self._outbox.clear()
        if self._ties is not None:
            self._ties.drop_subscriptions(keep=frozenset())
        if gone and self._newest is not None:
            self._leave_undecided(self._newest)

    def _leave_undecided(self, unit: Unit) -> None:
        undecided, path = self.surroundings.undecided, self.node.path
        undecided[path] = unit

        def is_decided(_: StoreError | None) -> None:
            if undecided.get(path) is unit:
                del undecided[path]

        unit.release.append(is_decided)

    def _lose(self, envelope: Envelope, why: str) -> None:
        if envelope.is_call or envelope.task is not None:
            envelope.answer(outcome.Error(AgentDown(self.node.path, why)))
        else:
            self.dead_letter(envelope, why)

    def dead_letter(self, envelope: Envelope, why: str) -> None:
        """A message to this agent is lost for good: count it and tell."""
        self.dead_letters += 1
        tell = self.surroundings.dead_letter
        if tell is not None:
            tell(self.node.path, envelope.operation.name, why)

    def _wake(self) -> None:
        idle = self.idle
        if idle is not None:
            self.idle = self._asleep = None
            reschedule(idle, GO_ON)

    # --- sending to it -----------------------------------------------------------------------

    def operation(self, named: object) -> Operation:
        """The operation of this name on the agent's own class.

        Raises:
            UnknownOperation: it has none.
        """
        name = operation_name(named)
        operation = self._class.operations.get(name)
        if operation is None:
            raise missing(self.agent_type, self._class.operations, name)
        return operation

    def found(
        self, named: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Operation:
        """The operation that is meant, once it is known that it would take these.

        Raises:
            UnknownOperation, BadArguments: nothing was sent.
        """
        try:
            operation = self._class.by_function[named]
        except (KeyError, TypeError):
            operation = self.operation(named)
        if kwargs or not operation.needed <= len(args) <= operation.most:
            operation.check(args, kwargs)
        return operation

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
            mailbox.accepted += 1
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
        self._wake()
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
            id_=self._ask_by(envelope),
        )
        envelope.answer(outcome.Error(error), last=not envelope.begun)

    def _ask_by(self, envelope: Envelope) -> str:
        """The id of a call that goes on without its caller, if it does."""
        store = self.surroundings.store
        if envelope.begun and envelope.unit is None and not envelope.id:
            # Not sealed yet: from now on its unit keeps it.
            self.expect(envelope, new_id())
        return self.id_of(envelope) or (new_id() if store is not None else "")

    def expect(self, envelope: Envelope, id_: str) -> None:
        """Have what becomes of a message remembered by `id_`."""
        store = self.surroundings.store
        if store is not None:
            envelope.id, envelope.body = id_, self
            store.expect(id_)

    def settle(self, envelope: Envelope) -> None:
        """What became of a message with an id is decided."""
        store = self.surroundings.store
        if store is not None:
            store.known(envelope.id)

    async def applied(self, id_: str) -> Applied | None:
        """What is kept of a request of this id; None: it is neither done nor under way.

        Raises:
            NotRunning: nothing is kept without a store.
        """
        store = self.surroundings.store
        if store is None:
            raise NotRunning(f"{self.node.path} remembers no ids without a store")
        while True:
            found = await store.applied(self.node.path, id_)
            if found is not None or not store.is_expected(id_):
                return found

    def id_of(self, envelope: Envelope) -> str:
        """By what the store knows a message; "" when it does not."""
        store, unit = self.surroundings.store, envelope.unit
        if envelope.id or unit is None or store is None:
            return envelope.id
        return call_id(store.boot, unit.number)

    def _note_applied(self, unit: Unit, envelope: Envelope, reply: object) -> None:
        """Have the message's id, and what it is answered, kept with its effect."""
        try:
            answer: bytes | None = _ENCODE(reply)
        except Exception:  # noqa: BLE001 - an answer that cannot be kept is not kept
            answer = None
        if answer is not None and len(answer) > KEPT_ANSWER_BYTES:
            answer = None
        if unit.writes is None:
            unit.writes = []
        path = self.node.path
        unit.writes.append(insert_applied(path, envelope.id, wall_ns(), answer))

    def handle_inline(self, envelope: Envelope) -> None:
        """Run a plain handler now, in the caller's turn but in the agent's context.

        Nobody can tell it from a message that was queued: same answer, crash, restart and
        order.
        """
        task, self.idle = self.idle, None
        assert task is not None  # noqa: S101 - it was looked at in the same step
        mailbox = self.mailbox
        mailbox.accepted += 1
        mailbox.taken += 1
        failure: outcome.Error | None = None
        try:
            exit_ = task.context.run(self._handle_plain, envelope)
        except BaseException as error:  # noqa: BLE001 - raised in the agent's own task
            # KeyboardInterrupt, SystemExit: the agent ends with it, not its caller.
            exit_, failure = None, outcome.Error(error)
        if self._asleep is not task:
            return  # cancelled meanwhile: it is on its way already
        self._crash = exit_
        if (
            exit_ is not None
            or failure is not None
            or self._exit_after is not None
            or self._outbox
            or self._orders
            or self._suspended is not None
            or mailbox.items
        ):
            self._asleep = None
            reschedule(task, failure or GO_ON)
        else:
            self.idle = task

    @property
    def doing(self) -> str:
        """The operation in hand, or a word for none."""
        if self._in_hand is not None:
            return self._in_hand.operation.name
        if self._doing:
            return self._doing
        return "idle" if self.idle is not None else str(self.node.state)

    def doing_for(self, envelope: Envelope) -> str:
        """What keeps the sender of `envelope` waiting."""
        if envelope.begun and envelope is not self._in_hand:
            if self.owes(envelope):
                return f"{self.doing} and has put off the answer"
            return "waiting for the commit of its answer"
        return self.doing

    # --- handling ----------------------------------------------------------------------------

    async def _handle_batch(self, life: Life) -> Exit | None:
        """All that was there when it woke, one pass of the loop for the lot.

        One coroutine a batch, not one a message, and no call that can be spared: each
        costs 0.05 µs, and a message that changes nothing takes 0.6.
        """
        mailbox, agent, spans = self.mailbox, self._agent, self.spans
        items, store = mailbox.items, self.surroundings.store
        if not items or self._crash is not None:
            return None
        assert agent is not None  # noqa: S101 - it is there as long as it serves
        if places.AGENT_TAKE.armed is not None:
            places.AGENT_TAKE.reach()
        codec, recent = self._class.codec, self._ring()
        write = codec.write if codec is not None else _no_state
        for _ in range(len(items)):
            if (
                not items
                or self._outbox
                or self._suspended is not None
                or self._orders
                or life.stopping
                or life.injected is not None
                or self._exit_after is not None
                or (self._newest is not None and self._is_too_far_ahead)
                # One agent alone may fill the store's queue, or its bytes.
                or (self._newest is not None and store and not store.has_room)
            ):
                break
            # As `take` does, at half of its cost.
            envelope = items.popleft()
            mailbox.taken += 1
            if mailbox.waiting:
                self._moved_up(mailbox.move_up())
            if envelope.task is None and envelope.is_call and not envelope.is_wanted:
                if envelope.id:
                    envelope.settle()
                continue  # withdrawn before it was begun: it never happens
            if envelope.needs:
                if self._is_early(envelope):
                    break
                if self._refuse_orphan(envelope):
                    continue
            operation = envelope.operation
            envelope.begun = True
            self._in_hand = envelope
            started = self._trace_begun(envelope) if spans.enabled else 0
            try:
                if envelope.kwargs:
                    value = operation.function(agent, *envelope.args, **envelope.kwargs)
                else:
                    value = operation.function(agent, *envelope.args)
                if operation.is_async:
                    value = await value
            except BaseException as error:
                if not isinstance(error, Exception) and not raised_by_itself(error):
                    self._interrupted(envelope)
                    raise
                exit_ = self._raised(envelope, error, started)
            else:
                try:
                    payload = write(agent.state)
                except Exception:  # noqa: BLE001 - `_returned` finds out what is wrong
                    payload = None
                if (
                    payload == self._state_bytes
                    and self._staged is None
                    and self._newest is None
                    and type(value) in SCALARS
                    and not started
                    and not self._collections
                    and not life.rolled_back
                ):
                    # As `_returned` does when nothing has changed or leaves.
                    self.handled += 1
                    recent.append((operation.name, envelope.sender, wall_ns(), "done"))
                    self._in_hand = None
                    if envelope.is_call:
                        envelope.reply(value)
                    continue
                exit_ = self._returned(envelope, value, started, payload)
            if exit_ is not None:
                return exit_
        return None

    def _moved_up(self, envelope: Envelope | None) -> None:
        """A cast that stood in line is accepted: its sender goes on."""
        if envelope is not None and not envelope.is_call:
            envelope.reply(None)

    def _handle_plain(self, envelope: Envelope) -> Exit | None:
        envelope.begun = True
        self._in_hand = envelope
        started = self._trace_begun(envelope) if self.spans.enabled else 0
        try:
            if envelope.kwargs:
                value = envelope.operation.function(
                    self._agent, *envelope.args, **envelope.kwargs
                )
            else:
                value = envelope.operation.function(self._agent, *envelope.args)
        except Exception as error:  # noqa: BLE001 - the handler's boundary
            return self._raised(envelope, error, started)
        except BaseException as error:
            if raised_by_itself(error):
                return self._raised(envelope, error, started)
            self._interrupted(envelope)
            raise
        return self._returned(envelope, value, started)

    def _is_early(self, envelope: Envelope) -> bool:
        """Whether it must wait for its sender's commit: then it is put back.

        Memory that no commit holds cannot go back when that one fails.
        """
        if not self.awaits_senders or not undecided(*envelope.needs):
            return False
        if any(unit.error is not None for unit in envelope.needs):
            return False
        self.mailbox.put_back(envelope)
        self._early = envelope
        return True

    async def _wait_for_sender(self, envelope: Envelope, store: Store) -> None:
        for unit in envelope.needs:
            await decided(store, unit)

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

    def _trace_begun(self, envelope: Envelope) -> int:
        tracing.current.set(tracing.new_context(envelope.trace))
        return time.time_ns()

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
        try:
            reply = value
            if type(value) not in SCALARS:
                reply = self._copied(envelope, value)
            if payload is None:
                payload = self._encoded()
            if payload != self._state_bytes or self._staged or self._collections:
                unit, staged = self._seal(envelope, payload)
        except Exception as error:  # noqa: BLE001 - what cannot be kept did not happen
            return self._raised(envelope, error, started)
        self.handled += 1
        # `_remember`, written out: two calls less for every message.
        recent = self._recent
        if recent is None:
            recent = self._ring()
        recent.append((envelope.operation.name, envelope.sender, wall_ns(), "done"))
        self._in_hand = None
        if started:
            self._trace(envelope, started, "")
        if unit is not None:
            envelope.unit = unit
            if envelope.id:
                self._note_applied(unit, envelope, reply)
            unit.release.append(Release(self, unit, staged, envelope, reply))
            self._hand_over(unit)
        elif staged is None and self._newest is None:
            if envelope.is_call:
                envelope.reply(reply)
            return None
        else:
            self._release_clean(staged, envelope, outcome.Value(reply))
        if staged is not None and staged.continuations:
            self._continue(staged.continuations, envelope, unit)
        return None

    def _copied(self, envelope: Envelope, value: object) -> object:
        """What a handler returned, as its caller may have it."""
        if not envelope.is_call or self._puts_off:
            return None
        return envelope.operation.copy_reply(value)

    def _continue(
        self, continuations: list[Envelope], after: Envelope, unit: Unit | None
    ) -> None:
        """Before any other message; never without what the handler did."""
        needs = undecided(unit or self._newest, *after.needs)
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
        newest = self._newest
        needs = envelope.needs if staged is not None and staged.leaving else ()
        if newest is not None or needs:
            held = Held(self, staged, envelope, result)
            after(undecided(newest, *needs), held)
        elif staged is not None:
            self.release(None, staged, envelope, result)
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
        self._discard()
        self._in_hand = None
        trace = _trace_id()
        if started:
            self._trace(envelope, started, self._fault_of(error, trace).summary())
        if isinstance(error, Stop):
            self._remember(envelope, "stopped")
            self._lose(envelope, "it stopped itself")
            return error.exit
        if self._is_refusal(error):
            self._refuse(envelope, error)
            return None
        fault = self._fault_of(error, trace)
        self._crashed(envelope, fault)
        return Crash(fault)

    def _fault_of(self, error: BaseException, trace: str = "") -> Fault:
        """As its class lets people see it; an error's own text may fail."""
        return self._class.redaction.fault(
            Fault.capture(
                error,
                path=self.node.path,
                incarnation=self.node.incarnation,
                trace=trace,
            )
        )

    def _is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, self.agent_type.refuses) and not isinstance(
            error, StateNotEncodable
        )

    def _refuse(self, envelope: Envelope, error: BaseException) -> None:
        """An answer, not a crash: what it did goes back, the agent lives."""
        self.refused += 1
        self._remember(envelope, "refused")
        self._reset_state()
        if not envelope.is_call:
            self.dead_letter(envelope, "refused")
            return
        self._release_clean(None, envelope, outcome.Error(error))

    def _crashed(self, envelope: Envelope | None, fault: Fault) -> None:
        """Tell the caller at once; keep what the console shows of it."""
        places.AGENT_CRASHED.reach()
        self.crashed += 1
        if envelope is not None:  # else it was idle
            self._remember(envelope, "crashed")
            if envelope.is_call:
                envelope.answer(outcome.Error(AgentCrashed(fault)))
            else:
                self.dead_letter(envelope, "crashed")
        self._fail_owed(lambda: AgentCrashed(fault))
        self._keep_crash(envelope, fault)

    def _keep_crash(self, envelope: Envelope | None, fault: Fault) -> None:
        self.last_crash = self._crash_record(envelope, fault)
        store = self.surroundings.store
        if store is not None:
            store.record_crash(self.last_crash)

    def _crash_record(self, envelope: Envelope | None, fault: Fault) -> CrashRecord:
        return CrashRecord(
            path=self.node.path,
            at_ns=fault.at_ns,
            incarnation=self.node.incarnation,
            operation=envelope.operation.name if envelope is not None else "",
            message=self._class.redaction.message(envelope)
            if envelope is not None
            else b"null",
            fault=_ENCODE(fault),
            revision=self.committed_revision,
            payload=self.shown_state(),
            sender=envelope.sender if envelope is not None else "",
        )

    def _interrupted(self, envelope: Envelope) -> None:
        """Cancelled in the middle: whose fault was it?"""
        self._discard()
        self._in_hand = None
        life = self._life
        if life is not None and life.injected is not None and not life.rolled_back:
            self._crashed(envelope, life.injected)
            return
        envelope.begun = False
        self._remember(envelope, "interrupted")
        self.mailbox.put_back(envelope)

    def _remember(self, envelope: Envelope, outcome: Outcome) -> None:
        entry = envelope.operation.name, envelope.sender, wall_ns(), outcome
        self._ring().append(entry)

    def _ring(self) -> Ring:
        recent = self._recent
        if recent is None:
            recent = self._recent = new_ring()
        return recent

    def _trace(self, envelope: Envelope, started: int, error: str) -> None:
        telemetry = self.surroundings.telemetry
        context = tracing.current.get()
        if telemetry is not None and context is not None:
            ended = time.time_ns()
            self._measure(telemetry, envelope, started, ended)
            telemetry.spans.record(
                f"{self._class.name}.{envelope.operation.name}",
                context,
                envelope.trace,
                started,
                ended,
                tracing.SpanKind.CONSUMER,
                {
                    "treewarden.path": self.node.path,
                    "treewarden.incarnation": self.node.incarnation,
                },
                (),
                error or None,
            )
            tracing.current.set(None)

    def _measure(
        self, telemetry: Telemetry, envelope: Envelope, started: int, ended: int
    ) -> None:
        if self._histograms is None:
            attributes = {"agent": self._class.name}
            make = telemetry.metrics.histogram
            self._histograms = (
                make(
                    tracing.HANDLER_DURATION, "s", tracing.DURATION_BOUNDS, attributes
                ),
                make(tracing.MAILBOX_WAIT, "s", tracing.DURATION_BOUNDS, attributes),
            )
        handling, waiting = self._histograms
        handling.record((ended - started) / 1e9)
        if envelope.sent_at_ns:
            waiting.record((started - envelope.sent_at_ns) / 1e9)

    # --- hooks -------------------------------------------------------------------------------

    async def _run_on_start(self) -> object:
        """Run `on_start` as a handler: its changes are a unit like any other's."""
        operation = self._class.on_start
        if operation is None:
            return None
        envelope = Envelope(operation, (), {})
        self._doing = operation.name
        store = self.surroundings.store
        if self.node.rolled_back and store is not None and not store.is_healthy:
            # What it stages would fail like the last time, again and again.
            await store.wait_healthy()
        try:
            value = await operation.function(self._agent)
            life = self._life
            if life is not None and life.rolled_back:
                await checkpoint()  # raises: what it stood on is gone
            unit, staged = self._seal(envelope, self._encoded())
        except BaseException:
            self._discard()
            raise
        finally:
            self._doing = ""
        if unit is not None:
            unit.release.append(Release(self, unit, staged, envelope, None))
            self._hand_over(unit)
        elif staged is not None:
            self._release_clean(staged, envelope, outcome.Value(None))
        if staged is not None and staged.continuations:
            self._continue(staged.continuations, envelope, unit)
            self._tied.bound += staged.continuations
        return value

    # --- state and commits ---------------------------------------------------------------------

    @property
    def collections(self) -> tuple[Collection, ...]:
        """Its durable collections, once they are open."""
        return tuple((self._collections or _NO_COLLECTIONS).values())

    @property
    def committed_state(self) -> bytes:
        """The last committed state as JSON; empty when there is none."""
        return self._committed

    def shown_state(self) -> bytes:
        """`committed_state` for people: as the class's `redact` leaves it."""
        codec = self._class.codec
        return self._class.redaction.state(self._committed, codec, self.node.path)

    async def _restore(self, agent: Agent[Any]) -> None:
        await self._wait_for_predecessor()
        codec = self._class.codec
        if self.agent_type.persistence == "write_through" and codec is not None:
            await self._restore_stored(agent, codec)
        elif codec is not None:
            self._state_bytes = b""
            self._set_state(agent, codec)
            self._committed = self._state_bytes
        else:
            agent.state = None
        await self._attach_collections(agent)

    async def _wait_for_predecessor(self) -> None:
        unit = self.surroundings.undecided.get(self.node.path)
        store = self.surroundings.store
        if unit is not None and store is not None:
            await decided(store, unit)

    async def _restore_stored(self, agent: Agent[Any], codec: StateCodec) -> None:
        if not self._loaded:
            await self._load(codec)
        self._set_state(agent, codec)

    async def _load(self, codec: StateCodec) -> None:
        store, path = self.surroundings.store, self.node.path
        if store is None:
            raise NotRunning(
                f"{path} keeps its state in a store and none is running: use "
                'open_runtime, or persistence = "none"'
            )
        stored = await store.load(path, self._class.name)
        if stored is not None:
            self._committed = self._state_bytes = codec.migrate(
                self.agent_type, stored.payload, stored.state_version, path
            )
            self._revision = self.committed_revision = stored.revision
            self.committed_at_ns = stored.at_ns
        self._loaded = True

    def _set_state(self, agent: Agent[Any], codec: StateCodec) -> None:
        path = self.node.path
        if self._state_bytes:
            agent.state = codec.decode(self._state_bytes, path)
            return
        agent.state = agent.initial_state()
        # Remembered, so that a handler that changes nothing writes nothing.
        self._state_bytes = codec.encode_first(agent.state, path)

    async def _attach_collections(self, agent: Agent[Any]) -> None:
        if self._collections is None:
            store, path = self.surroundings.store, self.node.path
            opened: dict[str, Collection] = {}
            for declaration in self._class.collections:
                if store is None:
                    raise NotRunning(f"{path} has durable collections and no store")
                collection = declaration.make(store, path)
                await collection.open()
                opened[declaration.name] = collection
            self._collections = opened or _NO_COLLECTIONS
        for name, collection in self._collections.items():
            setattr(agent, name, collection)

    def _reset_state(self) -> None:
        codec, agent = self._class.codec, self._agent
        if codec is not None and agent is not None:
            self._set_state(agent, codec)

    def _encoded(self) -> bytes:
        """The state as the handler left it."""
        codec, agent = self._class.codec, self._agent
        if codec is None or agent is None:
            return b""
        try:
            return codec.write(agent.state)
        except Exception:  # noqa: BLE001 - raised again, with what is wrong
            return codec.encode(agent.state, self.node.path)

    def _seal(
        self, envelope: Envelope, payload: bytes
    ) -> tuple[Unit | None, Staged | None]:
        """Make a unit of what the handler did; None when there is nothing to commit."""
        codec = self._class.codec
        write: StateWrite | None = None
        changed = payload != self._state_bytes
        if places.AGENT_SEAL.armed is not None:
            places.AGENT_SEAL.reach()
        if changed and codec is not None:
            codec.check(payload, self.node.path)
        # From here on nothing can fail.
        staged, self._staged = self._staged, None
        if staged is not None:
            self._on_the_way += staged.leaving
            self._account(staged)
        collections = self._collections
        dirty = [c for c in collections.values() if c.dirty] if collections else ()
        persistent = self._loaded
        if changed:
            self._state_bytes = payload
            if not persistent:
                self._committed = payload
        if not (
            (changed and persistent)
            or dirty
            or (staged is not None and staged.events)
            or (staged is not None and staged.posts)
            or (envelope.id and (changed or staged is not None))
        ):
            return None, staged
        unit = Unit(self.node.path)
        if changed and persistent and codec is not None:
            self._revision += 1
            write = StateWrite(
                self._class.name,
                self.agent_type.state_version,
                self._revision,
                self._state_bytes,
            )
            unit.state = write
        if staged is not None and staged.events:
            unit.events = [event for event, _ in staged.events]
        if self._newest is not None or envelope.needs:
            unit.needs = undecided(self._newest, *envelope.needs)
        for collection in dirty:
            collection.seal(unit)
        if staged is not None and staged.posts:
            staged.post(self.surroundings.store, unit)
        return unit, staged

    def _hand_over(self, unit: Unit) -> None:
        store = self.surroundings.store
        self._newest = unit
        try:
            if store is None:
                raise NotRunning("the store is not running")
            store.hand_over(unit)
        except TreewardenError as error:
            # The whole is being stopped: the store goes before its agents only then.
            unit.decided = True
            unit.error = StoreBroken(f"what {unit.path} changed was not kept: {error}")
            for release in unit.release:
                release(unit.error)

    def _discard(self) -> None:
        self._exit_after = None
        staged, self._staged = self._staged, None
        for timer in staged.timers if staged is not None else ():
            timer.cancel()
        for collection in (self._collections or {}).values():
            collection.discard()

    def committed(self, unit: Unit, whole: Unit | None = None) -> None:
        """The store has it, as part of a `whole`: what others may see moves on."""
        if places.AGENT_COMMITTED.armed is not None:
            places.AGENT_COMMITTED.reach()
        if unit.state is not None:
            self._committed = unit.state.payload
            self.committed_revision = unit.state.revision
            self.committed_at_ns = wall_ns()
        if self._newest is (whole or unit):
            self._newest = None

    def release(
        self,
        error: StoreError | None,
        staged: Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        """What a handler did is decided: events and casts first, then the answer."""
        if staged is not None:
            self._on_the_way -= staged.leaving
            if error is None:
                self._send(staged)
            for owed, value in staged.replies:
                owed.answer(
                    outcome.Value(value)
                    if error is None
                    else outcome.Error(told_to(owed, error))
                )
            if staged.deferred is not None:
                return
        if envelope.is_call:
            envelope.answer(
                result if error is None else outcome.Error(told_to(envelope, error))
            )
        elif error is not None and envelope.operation is not self._class.on_start:
            self.dead_letter(envelope, "commit_failed")

    def commit_failed(self, error: StoreError, epoch: int) -> None:
        """Fall back to the committed state; the incarnation is replaced, uncounted.

        Once a fall: a unit that was built on the one that failed before it (an older
        epoch) fails later, when a new incarnation may have gone on from the committed
        state, and must not undo that.
        """
        if epoch != self.epoch:
            return
        self.epoch += 1
        self._newest = None
        self._state_bytes = self._committed
        self._revision = self.committed_revision
        for collection in (self._collections or {}).values():
            collection.reset()
        self._fail_owed(lambda: own_copy(error))
        life = self._life
        if life is not None and not life.ended:
            fault = Fault.capture(
                error, path=self.node.path, incarnation=self.node.incarnation
            )
            life.fail(fault, rolled_back=True)

    # --- taking part in a transaction -----------------------------------------------------------

    async def take_part(self) -> None:
        """The message in hand is a seat: do what its transaction wants, until it is over."""
        seat, agent = self._in_hand, self._agent
        assert isinstance(seat, Seat)  # noqa: S101 - nothing else leads here
        assert agent is not None  # noqa: S101 - it is there as long as it serves
        self.seat = seat
        try:
            await seat.serve(agent)
        finally:
            self.seat = None

    @property
    def newest_state(self) -> bytes:
        """The state as the last handler left it, committed or not."""
        return self._state_bytes

    def keep_part(self) -> tuple[bytes, Staged | None]:
        """What a handler has made of the state, and what it staged: nothing is sealed yet.

        Raises:
            StateNotEncodable: no incarnation could load it.
            TransactionMisuse: it put off its answer.
        """
        payload, codec = self._encoded(), self._class.codec
        if payload != self._state_bytes and codec is not None:
            codec.check(payload, self.node.path)
        if self._puts_off:
            raise TransactionMisuse(
                f"{self.node.path} defers its answer in a transaction"
            )
        staged, self._staged = self._staged, None
        return payload, staged

    def undo_part(self) -> None:
        """Go back to the state before the transaction, and forget what is staged."""
        self._discard()
        self._reset_state()

    def seal_part(self, seat: Seat) -> Unit | None:
        """What the seat has kept as a unit, a part of its transaction's; None: nothing."""
        self._staged = gathered(seat.staged)
        if seat.payload == self._state_bytes and not (
            self._staged or self._collections
        ):
            return None
        unit, _ = self._seal(seat, seat.payload)
        return unit

    def stand_on(self, whole: Unit) -> None:
        """What it does from now on builds on that transaction."""
        self._newest = whole

    def go_on_after(self, seat: Seat, staged: Staged, whole: Unit) -> None:
        """Put what a handler in a transaction wants to go on with before all else."""
        if staged.continuations:
            self._continue(staged.continuations, seat, whole)

    # --- staging -------------------------------------------------------------------------------

    def _stage(self) -> Staged:
        if current_body.get() is not self:
            raise TreewardenError(
                f"only a handler of {self.node.path} can stage something; "
                "outside of it use bus.publish or ref.cast"
            )
        if self._doing == "on_stop":
            raise TreewardenError(f"on_stop of {self.node.path} cannot stage anything")
        if self._staged is None:
            self._staged = Staged()
        return self._staged

    def stage_event(self, topic: str, payload: object) -> None:
        """See `Agent.publish`."""
        bus = self.surroundings.bus
        if bus is None:
            raise NotRunning(f"{self.node.path} publishes and there is no bus")
        check_topic(topic)
        encoded, plain = to_json(topic, payload)
        staged = StagedEvent(
            topic=topic,
            payload=encoded,
            at_ns=wall_ns(),
            source=self.node.path,
            trace=_trace_id(),
        )
        self._stage().events.append((staged, plain))

    def stage_cast(
        self,
        ref: AgentRef[Any],
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        """See `Agent.cast`."""
        body = ref.resolve()
        operation = body.operation(named)
        operation.check(args, kwargs)
        envelope = body.make_cast(operation, args, kwargs)
        envelope.sender = self.node.path
        envelope.trace = tracing.current.get()
        self._stage().casts.append((body, envelope))

    def make_cast(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Envelope:
        """A message to this agent with its arguments as they are now.

        Raises:
            StateNotEncodable: one cannot be copied.
        """
        return Envelope(operation, *operation.copy_arguments(args, kwargs))

    def delivery(self, sender: AgentBody, envelope: Envelope) -> Delivery:
        """How a staged cast of `sender`, committed with its handler, comes here."""
        return CastDelivery(sender, self, envelope)

    def _send(self, staged: Staged) -> None:
        """After the commit: events first, then casts, in order; the rest waits."""
        if places.AGENT_SEND.armed is not None:
            places.AGENT_SEND.reach()
        self.sent += len(staged.events) + len(staged.casts)
        bus = self.surroundings.bus
        for event, payload in staged.events:
            if bus is not None:
                self._trace_publish(event)
                self._deliver(EventDelivery(self, bus, _published(event, payload)))
        for body, envelope in staged.casts:
            self._deliver(body.delivery(self, envelope))
        if self._outbox:
            # It takes no next message before these have left.
            self._wake()

    def waits_for(self) -> list[AgentBody]:
        """The agents that must make room before this one takes a message."""
        found = [body for body, envelope in self._standing if envelope.task is not None]
        if self._outbox:
            first = self._outbox[0].waits_for()
            if first is not None:
                found.append(first)
        return found

    def agent_at(self, path: str) -> AgentBody | None:
        """The agent there, in the same tree."""
        node = self.directory.find(path)
        return (
            node.body if node is not None and isinstance(node.body, AgentBody) else None
        )

    async def stand_in_line(self, target: AgentBody, envelope: Envelope) -> None:
        """In a handler: wait for room at `target`.

        Raises:
            CallingSelf: that would be for ever; it was not sent.
        """
        if target.mailbox.would_wait and closes_a_ring(self, target):
            raise CallingSelf(
                f"{self.node.path} casts to {target.node.path}, which cannot make room "
                f"before {self.node.path} takes a message; use self.cast"
            )
        with self.standing_before(target, envelope):
            await target.accept_and_wait(envelope)

    @contextmanager
    def standing_before(self, target: AgentBody, envelope: Envelope) -> Iterator[None]:
        """While its handler waits for room at `target`, for who looks for rings."""
        entry = target, envelope
        self._standing += (entry,)
        try:
            yield
        finally:
            self._standing = tuple(one for one in self._standing if one is not entry)

    def _deliver(self, delivery: Delivery) -> None:
        if not self._outbox and delivery.at_once():
            return
        if self.resting:
            delivery.lose("its sender is down")
        elif len(self._outbox) >= self.mailbox.capacity:
            delivery.lose("outbox_full")
        else:
            if self._outbox is NO_DELIVERIES:
                self._outbox = deque()
            self._outbox.append(delivery)

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

    def _trace_publish(self, event: StagedEvent) -> None:
        telemetry = self.surroundings.telemetry
        if telemetry is not None and telemetry.spans.enabled:
            telemetry.spans.record(
                f"publish {event.topic}",
                tracing.new_context(),
                None,
                event.at_ns,
                time.time_ns(),
                tracing.SpanKind.PRODUCER,
                {"treewarden.path": event.source, "messaging.position": event.position},
            )

    def accept_or_lose(self, envelope: Envelope) -> None:
        """Take a cast whose sender is not there to be told."""
        try:
            self.accept(envelope)
        except TreewardenError as error:
            self.dead_letter(envelope, type(error).__name__)

    async def _deliver_outbox(self, life: Life) -> None:
        await places.AGENT_DELIVER.pass_by()
        if await self._wait(self._outbox[0].deliver, life):
            self._outbox.popleft()

    async def _wait(self, wait: Callable[[], Any], life: Life) -> bool:
        """Wait for room somewhere; False when a stop came first."""
        with trio.CancelScope() as self._blocked:
            if life.stopping:
                self._blocked.cancel()
            try:
                await wait()
            finally:
                self._blocked = None
            return True
        return False

    # --- operators ---------------------------------------------------------------------------

    def suspend(self) -> None:
        """See `AgentRef.suspend`."""
        if self._suspended is not None:
            return
        if self.node.state is not NodeState.RUNNING:
            raise AgentDown(self.node.path, f"it is {self.node.state}")
        self._suspended = trio.Event()
        self.node.state = NodeState.SUSPENDED
        self.directory.touch()
        self._wake()

    def resume(self) -> None:
        """See `AgentRef.resume`."""
        suspended, self._suspended = self._suspended, None
        if suspended is None:
            return
        suspended.set()
        if self.node.state is NodeState.SUSPENDED:
            self.node.state = NodeState.RUNNING
            self.directory.touch()

    def encode_state(self, state: object) -> bytes:
        """`state` as this agent's class keeps it.

        Raises:
            StateNotEncodable: it is no state of this agent.
        """
        codec, path = self._class.codec, self.node.path
        if codec is None:
            raise StateNotEncodable(f"{path} keeps no state")
        payload = codec.encode(state, path)
        codec.check(payload, path)
        return codec.encode(codec.decode(payload, path), path)

    def order(self, envelope: Envelope) -> None:
        """Have it done at the next message boundary, before all that waits.

        Raises:
            AgentDown: nobody will ever do it.
        """
        if self.resting:
            raise AgentDown(self.node.path, self.resting)
        if self._orders is NO_MESSAGES:
            self._orders = deque()
        self._orders.append(envelope)
        if self._blocked is not None:
            self._blocked.cancel()
        self._wake()

    def _handle_order(self) -> Exit | None:
        envelope = self._orders.popleft()
        if not envelope.is_wanted or (envelope.needs and self._refuse_orphan(envelope)):
            return None
        self.mailbox.accepted += 1
        self.mailbox.taken += 1
        if self._ties is not None:
            self._ties.idle_since += 1  # an operator's look is no message
        return self._handle_plain(envelope)

    def recent(self) -> tuple[Handled, ...]:
        """See `AgentRef.recent`."""
        return as_records(self._recent)

    # --- answers put off, continuations ------------------------------------------------------

    def defer(self) -> Reply:
        """See `Agent.defer`."""
        staged, envelope = self._stage(), self._in_hand
        if envelope is None:
            raise TreewardenError(f"on_start of {self.node.path} has no caller")
        if envelope.is_call:
            staged.deferred = envelope
        return Reply(self, envelope)

    @property
    def _puts_off(self) -> bool:
        return self._staged is not None and self._staged.deferred is not None

    def owes(self, envelope: Envelope) -> bool:
        """Whether its answer was put off, and somebody still waits."""
        staged = self._staged
        if staged is not None and staged.deferred is envelope:
            return True
        ties = self._ties
        return ties is not None and envelope in ties.owed and envelope.is_wanted

    def stage_reply(self, envelope: Envelope, value: object) -> None:
        """See `Reply.send`."""
        staged = self._stage()
        if not self.owes(envelope) or any(one is envelope for one, _ in staged.replies):
            return
        staged.replies.append((envelope, envelope.operation.copy_reply(value)))

    def _account(self, staged: Staged) -> None:
        """The handler is through: what it put off is owed, what it answered is not."""
        if staged.deferred is not None:
            self._tied.owe(staged.deferred)
        for envelope, _ in staged.replies:
            self._tied.owed.pop(envelope, None)

    def _fail_owed(self, error: Callable[[], Exception]) -> None:
        ties = self._ties
        if ties is None:
            return
        owed, ties.owed = ties.owed, {}
        for envelope in owed:
            # Each its own: a shared exception would gather everybody's traceback.
            envelope.answer(outcome.Error(error()))

    def stage_continuation(
        self, named: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """See `Agent.continue_with`."""
        operation = self.operation(named)
        operation.check(args, kwargs)
        envelope = Envelope(operation, *operation.copy_arguments(args, kwargs))
        envelope.sender = self.node.path
        envelope.trace = tracing.current.get()
        self._stage().continuations.append(envelope)

    # --- subscriptions, timers, monitors -----------------------------------------------------

    def subscribe(self, pattern: str, capacity: int, overflow: str) -> Subscription:
        """See `Agent.subscribe`."""
        bus = self.surroundings.bus
        if bus is None:
            raise NotRunning(f"{self.node.path} subscribes and there is no bus")
        ties = self._tied
        ties.renewed.add(pattern)
        kept = ties.subscriptions.get(pattern)
        if kept is not None and (kept.capacity, kept.overflow) == (capacity, overflow):
            return kept
        if kept is not None:
            kept.close()
        ties.subscriptions[pattern] = subscription = bus.attach(
            pattern,
            self._take_event,
            overflow=overflow,
            owner=self.node.path,
            capacity=capacity,
        )
        return subscription

    def _take_event(self, event: Event) -> bool:
        if self.resting or len(self.mailbox) >= self.mailbox.capacity:
            return False
        self._own_message(self._class.on_event, (event,), {})
        return True

    def _own_message(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Envelope:
        envelope = Envelope(operation, args, kwargs)
        self.mailbox.force(envelope)
        self._wake()
        return envelope

    def _take_back(self, envelope: Envelope) -> None:
        moved = self.mailbox.remove(envelope)
        if moved is not None and not moved.is_call:
            moved.reply(None)

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
        ties = self._tied

        def is_idle() -> bool:
            mailbox = self.mailbox
            return mailbox.taken == ties.idle_since and not mailbox.items

        timer = self._set_timer(seconds, named, args, kwargs, is_idle)
        if ties.idle_timer is not None:
            ties.idle_timer.cancel()
        ties.idle_timer, ties.idle_since = timer, self.mailbox.taken
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
        operation = self.operation(named)
        operation.check(args, kwargs)
        message = operation.copy_arguments(args, kwargs)
        staged = self._stage()

        def due() -> None:
            if is_wanted():
                self._tied.bind(self._own_message(operation, *message))

        timer = self.directory.timers.at(trio.current_time() + seconds, due)
        staged.timers.append(timer)
        self._tied.keep_timer(timer)
        return timer

    def monitor(self, ref: AgentRef[Any] | SupervisorRef) -> Monitor:
        """See `Agent.monitor`."""
        node = self.directory.find(ref.path)
        life = node.life if node is not None else None
        return Monitor(ref.path, life, self.tell_down, self._tied.monitors)

    def tell_down(self, down: Down) -> Callable[[], None]:
        """Have it handled by `on_down`; called, the answer takes it back."""
        envelope = self._own_message(self._class.on_down, (down,), {})
        self._tied.bind(envelope)
        return partial(self._take_back, envelope)

    def stop_after(self, exit_: Exit) -> None:
        """See `Agent.stop`."""
        self._exit_after = exit_

    # --- for those who look ------------------------------------------------------------------

    def unsettled(self) -> tuple[Unit, ...]:
        """What must be committed before anything that the agent tells now.

        Its own newest work, and what the sender of the message in hand had not committed.
        """
        newest, in_hand = self._newest, self._in_hand
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

    def statistics(self) -> AgentStatistics:
        """What may be seen of it."""
        mailbox = self.mailbox
        return AgentStatistics(
            path=self.node.path,
            incarnation=self.node.incarnation,
            mailbox=len(mailbox),
            capacity=mailbox.capacity,
            waiting_senders=len(mailbox.waiting),
            accepted=mailbox.accepted,
            handled=self.handled,
            crashed=self.crashed,
            refused=self.refused,
            dropped=mailbox.dropped,
            dead_letters=self.dead_letters,
            outbox=len(self._outbox),
            sent=self.sent,
            doing=self.doing,
            type=self._class.name,
            state_revision=self.committed_revision,
            state_bytes=len(self._committed),
            uncommitted=self._newest is not None,
        )


def _no_state(_: object) -> bytes:
    return b""


def _trace_id() -> str:
    context = tracing.current.get()
    return context.trace_hex if context is not None else ""


def _published(staged: StagedEvent, payload: object) -> Event:
    return Event(
        topic=staged.topic,
        payload=payload,
        position=staged.position,
        at_ns=staged.at_ns,
        source=staged.source,
        trace=staged.trace,
    )
