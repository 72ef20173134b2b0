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
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

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
    MailboxFull,
    NotRunning,
    StateNotEncodable,
    StoreBroken,
    StoreError,
    TreewardenError,
)
from treewarden.exits import Crash, Exit, Fault, Normal, Shutdown
from treewarden.store import CrashRecord, DurableQueue, StagedEvent, StateWrite, Unit
from treewarden.supervision import IGNORE, Kind, Life, NodeState, Stop, cleanup

from .envelope import Envelope
from .mailbox import Admission, Mailbox
from .monitor import Down, Monitor
from .operation import Operation, missing, operation_name
from .outbox import CastDelivery, Delivery, EventDelivery, closes_a_ring
from .recent import Handled, Outcome, Ring, as_records, new_ring
from .reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from treewarden.bus import Bus, Subscription
    from treewarden.store import Store
    from treewarden.supervision import Directory, Node, Timer
    from treewarden.telemetry import Histogram, Telemetry

    from .agent import Agent
    from .codec import StateCodec
    from .redaction import Redaction
    from .ref import AgentRef

_ENCODE: Final = msgspec.json.Encoder().encode
# From this many timers (answers owed) on, those that nobody wants are looked for.
_TRIM_FROM: Final = 16


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


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the agents of one tree live in; None is what does not run there."""

    store: Store | None = None
    bus: Bus | None = None
    telemetry: Telemetry | None = None
    runtime: object | None = None
    dead_letter: Callable[[str, str, str], None] | None = None
    """Called with path, operation and reason when a cast is lost for good."""
    undecided: dict[str, Unit] = field(default_factory=dict)
    """By path: the newest unit of a node that is gone. Whoever comes to that path reads
    what is committed only after it."""


_NOTHING: Final = Surroundings()


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
    doing: str
    type: str
    state_revision: int
    state_bytes: int
    uncommitted: bool


current_body: ContextVar[AgentBody | None] = ContextVar(
    "treewarden_agent", default=None
)
"""The agent whose handler is running; None in plain tasks."""


class _Staged:
    """What the handler in hand wants to happen with its commit."""

    __slots__ = ("casts", "continuations", "deferred", "events", "replies", "timers")

    def __init__(self) -> None:
        # The message in hand, when its answer is put off; and answers put off before.
        self.deferred: Envelope | None = None
        self.replies: list[tuple[Envelope, object]] = []
        self.continuations: list[Envelope] = []
        self.events: list[tuple[StagedEvent, object]] = []
        self.casts: list[tuple[AgentBody, Envelope]] = []
        # Armed already: the agent's own clock runs ahead with it.
        self.timers: list[Timer] = []

    def __len__(self) -> int:
        """How many things leave the agent with the commit."""
        return len(self.events) + len(self.casts) + len(self.replies)


class AgentBody:
    """An agent's node: see the module's theory of operation."""

    kind = Kind.AGENT

    __slots__ = (
        "_agent",
        "_arguments",
        "_asleep",
        "_blocked",
        "_class",
        "_collections",
        "_committed",
        "_crash",
        "_doing",
        "_exit_after",
        "_from_start",
        "_histograms",
        "_idle",
        "_in_hand",
        "_life",
        "_loaded",
        "_monitors",
        "_newest",
        "_on_the_way",
        "_orders",
        "_outbox",
        "_owed",
        "_owed_limit",
        "_recent",
        "_renewed",
        "_resting",
        "_revision",
        "_staged",
        "_standing",
        "_state_bytes",
        "_subscriptions",
        "_suspended",
        "_timers",
        "_timers_limit",
        "agent_type",
        "committed_at_ns",
        "committed_revision",
        "counts",
        "directory",
        "epoch",
        "last_crash",
        "mailbox",
        "node",
        "surroundings",
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
        self.surroundings = services if isinstance(services, Surroundings) else _NOTHING
        self.mailbox = Mailbox(agent_type.mailbox)
        self.counts = _Counts()
        self.committed_revision = 0
        self.committed_at_ns: int | None = None
        self.last_crash: CrashRecord | None = None
        # How often uncommitted state was given up after a failed commit.
        self.epoch = 0
        self._class = agent_type.treewarden_class
        self._arguments = args, kwargs
        self._agent: Agent[Any] | None = None
        self._life: Life | None = None
        # Parked for want of messages; and, of those, open to handlers in a caller's turn.
        self._asleep: Task | None = None
        self._idle: Task | None = None
        self._in_hand: Envelope | None = None
        self._histograms: tuple[Histogram, Histogram] | None = None
        self._doing = ""
        self._staged: _Staged | None = None
        self._exit_after: Exit | None = None
        self._crash: Exit | None = None
        self._resting = ""
        # State: what handlers have made of it, and what of that is on disk.
        self._loaded = False
        self._state_bytes = b""
        self._committed = b""
        self._revision = 0
        self._newest: Unit | None = None
        self._collections: dict[str, DurableQueue[Any]] | None = None
        # What the last commits could not deliver for lack of room.
        self._outbox: deque[Delivery] = deque()
        # Where the handler in hand waits for room, and with what.
        self._standing: list[tuple[AgentBody, Envelope]] = []
        # Events and casts of handlers that are not committed yet.
        self._on_the_way = 0
        self._blocked: trio.CancelScope | None = None
        # An operator's: no message is taken while it is set and not opened; and what is
        # done before any message, also then.
        self._suspended: trio.Event | None = None
        self._orders: deque[Envelope] = deque()
        self._recent: Ring | None = None
        # By pattern; they outlive a crash, so that no event is missed meanwhile.
        self._subscriptions: dict[str, Subscription] = {}
        self._renewed: set[str] = set()
        # Those of this incarnation.
        self._monitors: set[Monitor] = set()
        # Messages whose answer was put off, in order.
        self._owed: dict[Envelope, None] = {}
        self._owed_limit = _TRIM_FROM
        self._from_start: list[Envelope] = []
        self._timers: list[Timer] = []
        self._timers_limit = _TRIM_FROM

    # --- one incarnation -------------------------------------------------------------------

    async def run(self, life: Life) -> Exit | None:
        """Restore, start, serve until told to stop or crashed."""
        current_body.set(self)
        self._life = life
        self._crash = self._exit_after = None
        try:
            args, kwargs = self._arguments
            agent = self.agent_type(*args, **kwargs)
            agent.treewarden_body = self
            await self._restore(agent)
            self._agent = agent
            ignored = await self._run_on_start() is IGNORE
            self._drop_subscriptions(keep=self._renewed)
            if ignored:
                life.started(IGNORE)
                return Normal()
            self._resting = ""
            life.started(self.node.path)
            exit_ = await self._serve(life)
            if isinstance(exit_, Crash):
                return exit_
            return await self._leave(life, exit_)
        finally:
            self._end_incarnation()

    def _end_incarnation(self) -> None:
        self._record_idle_crash()
        self._agent = self._idle = self._asleep = self._life = None
        self._staged = self._suspended = None
        self._doing = ""
        self._renewed.clear()
        self._fail_owed(
            lambda: AgentDown(self.node.path, "it stopped before it answered")
        )
        for envelope in self._from_start:
            self.mailbox.remove(envelope)
        self._from_start.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for monitor in tuple(self._monitors):
            monitor.cancel()

    def _record_idle_crash(self) -> None:
        """A crash that was injected between two messages is kept like any other."""
        life, last = self._life, self.last_crash
        if life is None or life.injected is None or life.rolled_back:
            return
        if life.ready and (last is None or last.incarnation != life.incarnation):
            self._crashed(None, life.injected)

    async def _serve(self, life: Life) -> Exit | None:
        items = self.mailbox.items
        store = self.surroundings.store
        while True:
            if self._crash is not None:
                return self._crash
            if self._exit_after is not None:
                return self._exit_after
            if life.stopping:
                return None
            if self._subscriptions:
                # The mailbox has room again, or there is a new incarnation.
                for subscription in self._subscriptions.values():
                    subscription.flush()
            if life.injected is not None:
                # Cancelled while it was about to go on: nothing more is handled.
                await checkpoint()
            elif self._orders:
                exit_ = self._handle_order()
                if exit_ is not None:
                    return exit_
            elif self._outbox:
                await self._deliver_outbox(life)
            elif self._suspended is not None:
                await self._wait(self._suspended.wait, life)
            elif self._is_too_far_ahead and store is not None:
                await self._wait(partial(self._wait_decided, store), life)
            elif store is not None and not store.has_room:
                await self._wait(store.wait_room, life)
            elif not items:
                self._idle = self._asleep = current_task()
                await park(self._abort_idle)
            else:
                await checkpoint()
            # All that was there when it woke, one pass of the loop for the lot.
            for _ in range(len(items)):
                if self._is_interrupted(life) or not items:
                    break
                exit_ = await self._handle_next()
                if exit_ is not None:
                    return exit_

    def _is_interrupted(self, life: Life) -> bool:
        return bool(
            self._outbox
            or self._suspended is not None
            or self._orders
            or life.stopping
            or life.injected is not None
            or self._crash is not None
            or self._exit_after is not None
            or (self._newest is not None and self._is_too_far_ahead)
        )

    @property
    def _is_too_far_ahead(self) -> bool:
        # What is not committed may all find no room: the outbox stays bounded only if
        # the agent does not run further ahead than that.
        return self._on_the_way >= self.mailbox.capacity and self._newest is not None

    async def _wait_decided(self, store: Store) -> None:
        newest = self._newest
        if newest is not None:
            await _decided(store, newest)

    def _abort_idle(self, _: object) -> Abort:
        self._idle = self._asleep = None
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
                if agent is not None:
                    self._doing = "on_stop"
                    await agent.on_stop(final)
            finally:
                store = self.surroundings.store
                if store is not None:
                    await self._wait_decided(store)
        return final

    # --- as a body of the supervisor ---------------------------------------------------------

    def ask_to_stop(self, life: Life) -> None:
        """Finish the message in hand, run `on_stop`, end."""
        if not life.ready:
            life.scope.cancel()
        if self._blocked is not None:
            self._blocked.cancel()
        self._wake()

    def kill(self, life: Life) -> None:
        """End now, in the middle of a handler if need be."""
        life.kill()

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """Nobody will answer: tell those who wait, and those who come."""
        self._resting = "it is gone for good" if gone else "it is stopped"
        for envelope in (*self._orders, *self.mailbox.empty()):
            self._lose(envelope, self._resting)
        self._orders.clear()
        for delivery in self._outbox:
            delivery.lose("its sender is down")
        self._outbox.clear()
        self._drop_subscriptions(keep=frozenset())
        if gone and self._newest is not None:
            self._leave_undecided(self._newest)

    def _leave_undecided(self, unit: Unit) -> None:
        undecided, path = self.surroundings.undecided, self.node.path
        undecided[path] = unit

        def decided(_: StoreError | None) -> None:
            if undecided.get(path) is unit:
                del undecided[path]

        unit.release.append(decided)

    def _lose(self, envelope: Envelope, why: str) -> None:
        if envelope.is_call or envelope.task is not None:
            envelope.answer(outcome.Error(AgentDown(self.node.path, why)))
        else:
            self.dead_letter(envelope, why)

    def dead_letter(self, envelope: Envelope, why: str) -> None:
        """A message to this agent is lost for good: count it and tell."""
        self.counts.dead_letters += 1
        tell = self.surroundings.dead_letter
        if tell is not None:
            tell(self.node.path, envelope.operation.name, why)

    def _wake(self) -> None:
        idle = self._idle
        if idle is not None:
            self._idle = self._asleep = None
            reschedule(idle)

    # --- sending to it -----------------------------------------------------------------------

    def operation(self, named: object) -> Operation:
        """The operation of this name on the agent's own class.

        Raises:
            UnknownOperation: it has none.
        """
        if type(named) is FunctionType:
            # As written in nearly every call, and not overridden.
            operation = self._class.by_function.get(named)
            if operation is not None:
                return operation
        name = operation_name(named)
        operation = self._class.operations.get(name)
        if operation is None:
            raise missing(self.agent_type, self._class.operations, name)
        return operation

    def accept(self, envelope: Envelope) -> Admission:
        """Offer a message to the mailbox and wake the agent.

        Raises:
            AgentDown: nobody will ever take it.
            MailboxFull: the policy is to refuse.
        """
        if self._resting:
            raise AgentDown(self.node.path, self._resting)
        telemetry = self.surroundings.telemetry
        if telemetry is not None and telemetry.spans.enabled:
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

    @property
    def is_idle(self) -> bool:
        """Whether a plain handler may run in its caller's turn."""
        return self._idle is not None and not self.mailbox.items and not self._outbox

    def handle_inline(self, envelope: Envelope) -> None:
        """Run a plain handler now, in the caller's turn but in the agent's context.

        Nobody can tell it from a message that was queued: same answer, crash, restart and
        order.
        """
        task, self._idle = self._idle, None
        assert task is not None  # noqa: S101 - is_idle was asked in the same step
        self.mailbox.accepted += 1
        self.mailbox.taken += 1
        result: outcome.Outcome[None] = outcome.Value(None)
        try:
            exit_ = task.context.run(self._handle_plain, envelope)
        except BaseException as error:  # noqa: BLE001 - raised in the agent's own task
            # KeyboardInterrupt, SystemExit: the agent ends with it, not its caller.
            exit_, result = None, outcome.Error(error)
        if self._asleep is not task:
            return  # cancelled meanwhile: it is on its way already
        self._crash = exit_
        if (
            exit_ is not None
            or isinstance(result, outcome.Error)
            or self._exit_after is not None
            or self._outbox
            or self._orders
            or self._suspended is not None
            or self.mailbox.items
        ):
            self._asleep = None
            reschedule(task, result)
        else:
            self._idle = task

    @property
    def doing(self) -> str:
        """The operation in hand, or a word for none."""
        if self._doing:
            return self._doing
        return "idle" if self._idle is not None else str(self.node.state)

    def doing_for(self, envelope: Envelope) -> str:
        """What keeps the sender of `envelope` waiting."""
        if envelope.begun and envelope is not self._in_hand:
            if self.owes(envelope):
                return f"{self.doing} and has put off the answer"
            return "waiting for the commit of its answer"
        return self.doing

    # --- handling ----------------------------------------------------------------------------

    async def _handle_next(self) -> Exit | None:
        envelope, moved = self.mailbox.take()
        if moved is not None and not moved.is_call:
            # A cast that stood in line is accepted: its sender goes on.
            moved.answer(outcome.Value(None))
        if envelope.is_call and envelope.task is None and not envelope.is_wanted:
            return None  # withdrawn before it was begun: it never happens
        if envelope.needs and self._refuse_orphan(envelope):
            return None
        operation = envelope.operation
        if not operation.is_async:
            return self._handle_plain(envelope)
        started = self._begin(envelope)
        try:
            value = await operation.function(
                self._agent, *envelope.args, **envelope.kwargs
            )
        except Exception as error:  # noqa: BLE001 - the handler's boundary
            return self._raised(envelope, error, started)
        except BaseException:
            self._interrupted(envelope)
            raise
        return self._returned(envelope, value, started)

    def _handle_plain(self, envelope: Envelope) -> Exit | None:
        started = self._begin(envelope)
        try:
            value = envelope.operation.function(
                self._agent, *envelope.args, **envelope.kwargs
            )
        except Exception as error:  # noqa: BLE001 - the handler's boundary
            return self._raised(envelope, error, started)
        except BaseException:
            self._interrupted(envelope)
            raise
        return self._returned(envelope, value, started)

    def _refuse_orphan(self, envelope: Envelope) -> bool:
        """Whether its sender's work was lost while it waited: then it never was sent."""
        failed = next((u.error for u in envelope.needs if u.error is not None), None)
        if failed is None:
            return False
        if envelope.is_call:
            envelope.answer(outcome.Error(_own_copy(failed)))
        else:
            self.dead_letter(envelope, "its sender was rolled back")
        return True

    def _begin(self, envelope: Envelope) -> int:
        envelope.begun = True
        self._in_hand = envelope
        self._doing = envelope.operation.name
        telemetry = self.surroundings.telemetry
        if telemetry is None or not telemetry.spans.enabled:
            return 0
        context = tracing.new_context(envelope.trace)
        tracing.current.set(context)
        return time.time_ns()

    def _returned(self, envelope: Envelope, value: object, started: int) -> Exit | None:
        life = self._life
        if life is not None and life.rolled_back:
            # It came to its end before it noticed; what it stood on is gone.
            self._interrupted(envelope)
            return None
        operation = envelope.operation
        try:
            if envelope.is_call and (self._staged is None or not self._puts_off):
                reply = operation.copy_reply(value)
            else:
                reply = None
            unit, staged = self._seal(envelope)
        except Exception as error:  # noqa: BLE001 - what cannot be kept did not happen
            return self._raised(envelope, error, started)
        self.counts.handled += 1
        recent = self._recent
        if recent is None:
            recent = self._recent = new_ring()
        # `_remember`, written out: one call less for every message.
        recent.append((operation.name, envelope.sender, wall_ns(), "done"))
        self._in_hand = None
        self._doing = ""
        if started:
            self._trace(envelope, started, "")
        if unit is not None:
            unit.release.append(_Release(self, unit, staged, envelope, reply))
            self._hand_over(unit)
        elif staged is None and self._newest is None:
            if envelope.is_call:
                envelope.answer(outcome.Value(reply))
            return None
        else:
            self._release_clean(staged, envelope, outcome.Value(reply))
        if staged is not None and staged.continuations:
            self._continue(staged.continuations, envelope, unit)
        return None

    def _continue(
        self, continuations: list[Envelope], after: Envelope, unit: Unit | None
    ) -> None:
        """Before any other message; never without what the handler did."""
        needs = _undecided(unit or self._newest, *after.needs)
        for envelope in reversed(continuations):
            envelope.needs = needs
            self.mailbox.put_first(envelope)

    def _release_clean(
        self,
        staged: _Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        """Nothing to commit; but what it tells may be uncommitted still.

        What leaves for others also waits for what its sender had not committed.
        """
        newest = self._newest
        needs = envelope.needs if staged else ()
        if newest is not None or needs:
            held = _Held(self, staged, envelope, result)
            _after(_undecided(newest, *needs), held)
        elif staged is not None:
            self.release(None, staged, envelope, result)
        elif envelope.is_call:
            envelope.answer(result)

    def _raised(
        self, envelope: Envelope, error: Exception, started: int
    ) -> Exit | None:
        life = self._life
        if life is not None and life.rolled_back:
            # What it made of being cancelled for a failed commit is not its crash.
            self._interrupted(envelope)
            return None
        self._discard()
        self._in_hand = None
        self._doing = ""
        trace = _trace_id()
        if started:
            self._trace(envelope, started, f"{type(error).__name__}: {error}")
        if isinstance(error, Stop):
            self._remember(envelope, "stopped")
            self._lose(envelope, "it stopped itself")
            return error.exit
        if self._is_refusal(error):
            self._refuse(envelope, error)
            return None
        fault = Fault.capture(
            error,
            path=self.node.path,
            incarnation=self.node.incarnation,
            trace=trace,
        )
        self._crashed(envelope, fault)
        return Crash(fault)

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, self.agent_type.refuses) and not isinstance(
            error, StateNotEncodable
        )

    def _refuse(self, envelope: Envelope, error: Exception) -> None:
        """An answer, not a crash: what it did goes back, the agent lives."""
        self.counts.refused += 1
        self._remember(envelope, "refused")
        self._reset_state()
        if not envelope.is_call:
            self.dead_letter(envelope, "refused")
            return
        self._release_clean(None, envelope, outcome.Error(error))

    def _crashed(self, envelope: Envelope | None, fault: Fault) -> None:
        """Tell the caller at once; keep what the console shows of it."""
        self.counts.crashed += 1
        if envelope is not None:  # else it was idle
            self._remember(envelope, "crashed")
            if envelope.is_call:
                envelope.answer(outcome.Error(AgentCrashed(fault)))
            else:
                self.dead_letter(envelope, "crashed")
        self._fail_owed(lambda: AgentCrashed(fault))
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
        )

    def _interrupted(self, envelope: Envelope) -> None:
        """Cancelled in the middle: whose fault was it?"""
        self._discard()
        self._in_hand = None
        self._doing = ""
        life = self._life
        if life is not None and life.injected is not None and not life.rolled_back:
            self._crashed(envelope, life.injected)
            return
        envelope.begun = False
        self._remember(envelope, "interrupted")
        self.mailbox.put_back(envelope)

    def _remember(self, envelope: Envelope, outcome: Outcome) -> None:
        recent = self._recent
        if recent is None:
            recent = self._recent = new_ring()
        recent.append((envelope.operation.name, envelope.sender, wall_ns(), outcome))

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
        try:
            value = await operation.function(self._agent)
            life = self._life
            if life is not None and life.rolled_back:
                await checkpoint()  # raises: what it stood on is gone
            unit, staged = self._seal(envelope)
        except BaseException:
            self._discard()
            raise
        finally:
            self._doing = ""
        if unit is not None:
            unit.release.append(_Release(self, unit, staged, envelope, None))
            self._hand_over(unit)
        elif staged is not None:
            self._release_clean(staged, envelope, outcome.Value(None))
        if staged is not None and staged.continuations:
            self._continue(staged.continuations, envelope, unit)
            self._from_start = staged.continuations
        return value

    # --- state and commits ---------------------------------------------------------------------

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
            await _decided(store, unit)

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
        self._state_bytes = codec.encode(agent.state, path)
        codec.check(self._state_bytes, path)

    async def _attach_collections(self, agent: Agent[Any]) -> None:
        if self._collections is None:
            from .agent import collections_of

            declared = collections_of(self.agent_type)  # type: ignore[arg-type] # a class is hashable
            store = self.surroundings.store
            if declared and store is None:
                raise NotRunning(f"{self.node.path} has durable queues and no store")
            opened: dict[str, DurableQueue[Any]] = {}
            for name, item_type in declared.items():
                assert store is not None  # noqa: S101 - refused above
                opened[name] = DurableQueue(store, self.node.path, name, item_type)
                await opened[name].open()
            self._collections = opened
        for name, queue in self._collections.items():
            setattr(agent, name, queue)

    def _reset_state(self) -> None:
        codec, agent = self._class.codec, self._agent
        if codec is not None and agent is not None:
            self._set_state(agent, codec)

    def _seal(self, envelope: Envelope) -> tuple[Unit | None, _Staged | None]:
        """Encode what the handler did, there and then; None when it did nothing."""
        codec = self._class.codec
        write: StateWrite | None = None
        changed = False
        if codec is not None and self._agent is not None:
            payload = codec.encode(self._agent.state, self.node.path)
            changed = payload != self._state_bytes
            if changed:
                codec.check(payload, self.node.path)
        # From here on nothing can fail.
        staged, self._staged = self._staged, None
        if staged is not None:
            self._on_the_way += len(staged)
            self._account(staged)
        collections = self._collections
        dirty = [c for c in collections.values() if c.dirty] if collections else ()
        persistent = self._loaded
        if changed:
            self._state_bytes = payload
            if not persistent:
                self._committed = payload
        if not ((changed and persistent) or dirty or (staged and staged.events)):
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
        unit.needs = _undecided(self._newest, *envelope.needs)
        for collection in dirty:
            collection.seal(unit)
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

    def committed(self, unit: Unit) -> None:
        """The store has it: what others may see moves on."""
        if unit.state is not None:
            self._committed = unit.state.payload
            self.committed_revision = unit.state.revision
            self.committed_at_ns = wall_ns()
        if self._newest is unit:
            self._newest = None

    def release(
        self,
        error: StoreError | None,
        staged: _Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        """What a handler did is decided: events and casts first, then the answer."""
        if staged is not None:
            self._on_the_way -= len(staged)
            if error is None:
                self._send(staged)
            for owed, value in staged.replies:
                owed.answer(
                    outcome.Value(value)
                    if error is None
                    else outcome.Error(_own_copy(error))
                )
            if staged.deferred is not None:
                return
        if envelope.is_call:
            envelope.answer(
                result if error is None else outcome.Error(_own_copy(error))
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
        self._fail_owed(lambda: _own_copy(error))
        life = self._life
        if life is not None and not life.ended:
            fault = Fault.capture(
                error, path=self.node.path, incarnation=self.node.incarnation
            )
            life.fail(fault, rolled_back=True)

    # --- staging -------------------------------------------------------------------------------

    def _stage(self) -> _Staged:
        if current_body.get() is not self:
            raise TreewardenError(
                f"only a handler of {self.node.path} can stage something; "
                "outside of it use bus.publish or ref.cast"
            )
        if self._doing == "on_stop":
            raise TreewardenError(f"on_stop of {self.node.path} cannot stage anything")
        if self._staged is None:
            self._staged = _Staged()
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
        envelope = Envelope(operation, *operation.copy_arguments(args, kwargs))
        envelope.sender = self.node.path
        envelope.trace = tracing.current.get()
        self._stage().casts.append((body, envelope))

    def _send(self, staged: _Staged) -> None:
        """After the commit: events first, then casts, in order; the rest waits."""
        bus = self.surroundings.bus
        for event, payload in staged.events:
            if bus is not None:
                self._trace_publish(event)
                self._deliver(EventDelivery(self, bus, _published(event, payload)))
        for body, envelope in staged.casts:
            self._deliver(CastDelivery(self, body, envelope))
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
        entry = target, envelope
        self._standing.append(entry)
        try:
            await target.accept_and_wait(envelope)
        finally:
            self._standing.remove(entry)

    def _deliver(self, delivery: Delivery) -> None:
        if not self._outbox and delivery.at_once():
            return
        if self._resting:
            delivery.lose("its sender is down")
        elif len(self._outbox) >= self.mailbox.capacity:
            delivery.lose("outbox_full")
        else:
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
        if self._resting:
            raise AgentDown(self.node.path, self._resting)
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
        return envelope in self._owed and envelope.is_wanted

    def stage_reply(self, envelope: Envelope, value: object) -> None:
        """See `Reply.send`."""
        staged = self._stage()
        if not self.owes(envelope) or any(one is envelope for one, _ in staged.replies):
            return
        staged.replies.append((envelope, envelope.operation.copy_reply(value)))

    def _account(self, staged: _Staged) -> None:
        """The handler is through: what it put off is owed, what it answered is not."""
        if staged.deferred is not None:
            if len(self._owed) >= self._owed_limit:
                self._owed = {one: None for one in self._owed if one.is_wanted}
                self._owed_limit = max(_TRIM_FROM, 2 * len(self._owed))
            self._owed[staged.deferred] = None
        for envelope, _ in staged.replies:
            self._owed.pop(envelope, None)

    def _fail_owed(self, error: Callable[[], Exception]) -> None:
        owed, self._owed = self._owed, {}
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
        self._renewed.add(pattern)
        kept = self._subscriptions.get(pattern)
        if kept is not None and (kept.capacity, kept.overflow) == (capacity, overflow):
            return kept
        if kept is not None:
            kept.close()
        self._subscriptions[pattern] = subscription = bus.attach(
            pattern,
            self._take_event,
            overflow=overflow,
            owner=self.node.path,
            capacity=capacity,
        )
        return subscription

    def _drop_subscriptions(self, keep: Collection[str]) -> None:
        for pattern in [one for one in self._subscriptions if one not in keep]:
            self._subscriptions.pop(pattern).close()

    def _take_event(self, event: Event) -> bool:
        if self._resting or len(self.mailbox) >= self.mailbox.capacity:
            return False
        self._own_message(self._class.on_event, (event,), {})
        return True

    def _own_message(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self.mailbox.force(Envelope(operation, args, kwargs))
        self._wake()

    def send_after(
        self,
        seconds: float,
        named: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Timer:
        """See `Agent.send_after`."""
        if not seconds >= 0:
            raise ValueError(f"seconds must be >= 0, not {seconds!r}")
        operation = self.operation(named)
        operation.check(args, kwargs)
        message = operation.copy_arguments(args, kwargs)
        staged = self._stage()

        def due() -> None:
            self._own_message(operation, *message)

        timer = self.directory.timers.at(trio.current_time() + seconds, due)
        staged.timers.append(timer)
        self._keep_timer(timer)
        return timer

    def _keep_timer(self, timer: Timer) -> None:
        if len(self._timers) >= self._timers_limit:
            self._timers = [one for one in self._timers if one.callback is not None]
            self._timers_limit = max(_TRIM_FROM, 2 * len(self._timers))
        self._timers.append(timer)

    def monitor(self, ref: AgentRef[Any]) -> Monitor:
        """See `Agent.monitor`."""
        node = self.directory.find(ref.path)
        life = node.life if node is not None else None
        return Monitor(ref.path, life, self._down, self._monitors)

    def _down(self, down: Down) -> None:
        self._own_message(self._class.on_down, (down,), {})

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
            return _undecided(newest, *in_hand.needs)
        return (newest,) if newest is not None else ()

    def when_settled(self, tell: Callable[[StoreError | None], None]) -> bool:
        """Have `tell` called once all `unsettled()` is decided; False: nothing is."""
        units = self.unsettled()
        if not units:
            return False
        _after(units, tell)
        return True

    def statistics(self) -> AgentStatistics:
        """What may be seen of it."""
        counts, mailbox = self.counts, self.mailbox
        return AgentStatistics(
            path=self.node.path,
            incarnation=self.node.incarnation,
            mailbox=len(mailbox),
            capacity=mailbox.capacity,
            waiting_senders=len(mailbox.waiting),
            accepted=mailbox.accepted,
            handled=counts.handled,
            crashed=counts.crashed,
            refused=counts.refused,
            dropped=mailbox.dropped,
            dead_letters=counts.dead_letters,
            outbox=len(self._outbox),
            doing=self.doing,
            type=self._class.name,
            state_revision=self.committed_revision,
            state_bytes=len(self._committed),
            uncommitted=self._newest is not None,
        )


class _Counts:
    __slots__ = ("crashed", "dead_letters", "handled", "refused")

    def __init__(self) -> None:
        self.handled = 0
        self.crashed = 0
        self.refused = 0
        self.dead_letters = 0


class _Release:
    """What a unit's decision sets free: events and casts first, then the reply."""

    __slots__ = ("_body", "_envelope", "_epoch", "_reply", "_staged", "_unit")

    def __init__(
        self,
        body: AgentBody,
        unit: Unit,
        staged: _Staged | None,
        envelope: Envelope,
        reply: object,
    ) -> None:
        self._body = body
        self._epoch = body.epoch
        self._unit = unit
        self._staged = staged
        self._envelope = envelope
        self._reply = reply

    def __call__(self, error: StoreError | None) -> None:
        if error is None:
            self._body.committed(self._unit)
        else:
            self._body.commit_failed(error, self._epoch)
        result = outcome.Value(self._reply)
        self._body.release(error, self._staged, self._envelope, result)


class _Held:
    """An answer that tells of uncommitted state and waits for its commit."""

    __slots__ = ("_body", "_envelope", "_result", "_staged")

    def __init__(
        self,
        body: AgentBody,
        staged: _Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        self._body = body
        self._staged = staged
        self._envelope = envelope
        self._result = result

    def __call__(self, error: StoreError | None) -> None:
        self._body.release(error, self._staged, self._envelope, self._result)


def _replace_state(agent: Agent[Any], payload: bytes) -> None:
    codec = agent.treewarden_class.codec
    assert codec is not None  # noqa: S101 - there was one to encode it
    agent.state = codec.decode(payload, agent.path)


REPLACE_STATE: Final = Operation("replace_state", _replace_state)
"""What an operator's new state is handled by: a handler like any other."""


class Ending:
    """How the incarnation ended that took a stop; waited for by who asked for it."""

    __slots__ = ("exit", "over", "wanted")

    def __init__(self, wanted: Exit) -> None:
        self.wanted = wanted
        self.exit: Exit | None = None
        self.over = trio.Event()

    def __call__(self, life: Life) -> None:
        # Rolled back, it takes the message again in its next life.
        if not life.rolled_back:
            self.exit = life.exit
            self.over.set()


def _stop(agent: Agent[Any], ending: Ending) -> None:
    life = agent.treewarden_body.node.life
    assert life is not None  # noqa: S101 - it runs this
    life.watchers.append(ending)
    agent.stop(ending.wanted)


STOP: Final = Operation("stop", _stop)
"""What somebody else's wish to end is handled by, in its turn."""


def _after(units: tuple[Unit, ...], tell: Callable[[StoreError | None], None]) -> None:
    """Call `tell` once all of `units` are decided, with the error of one that failed."""
    for unit in units:
        if not unit.decided:
            unit.release.append(lambda _: _after(units, tell))
            return
    tell(next((unit.error for unit in units if unit.error is not None), None))


def _own_copy(error: StoreError) -> StoreError:
    # A shared exception would gather the traceback of everybody it is raised to.
    return type(error)(str(error))


def _undecided(*units: Unit | None) -> tuple[Unit, ...]:
    # A failed one counts too: what builds on it must fail with it.
    return tuple(
        unit
        for unit in units
        if unit is not None and (not unit.decided or unit.error is not None)
    )


async def _decided(store: Store, unit: Unit) -> None:
    try:
        await store.wait(unit)
    except StoreError:
        # Its callers were told; here it only matters that it is over.
        return


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
