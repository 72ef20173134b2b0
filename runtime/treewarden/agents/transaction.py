"""Several agents change together, or none of them does.

Theory of operation. The participants are taken one after the other, sorted by path: whoever
takes agents in one order cannot wait in a ring (Havender, 1968). From then on each of them
does what this transaction asks of it and nothing else. What their handlers change and stage
stays with their seats. When the block is left, all of it is sealed in one step, becomes one
unit of the store, and the participants go on with their next messages on what was sealed.
The store commits the unit as a whole or not at all, and leaving the block returns when it
has. So nobody reads a half of it: not in the file, not from a participant, not in events.

Anything else (an error, a deadline, a cancelled block, a participant that ends) undoes what
the seats have kept; there is nothing in the store to undo.

With participants outside the store (`enlist`) it is a two-phase commit, in which the unit
carries the decision: see `participants`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    TypeVar,
    overload,
)

import outcome
import trio
from trio.lowlevel import (
    Abort,
    Task,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
)
from trio.lowlevel import wait_task_rescheduled as park

import treewarden.telemetry as tracing
from treewarden.errors import (
    StoreError,
    TransactionConflict,
    TransactionMisuse,
    TransactionTimeout,
)
from treewarden.ids import new_id
from treewarden.store import Unit, Verdict, log_transaction

from .body import AgentBody, current_body
from .envelope import GO_ON
from .ref import AgentRef
from .release import after, hand_over, own_copy, release, undecided
from .seat import JOIN, Order, Seat, inside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from treewarden.store import Write
    from treewarden.supervision import Directory

    from .agent import Agent
    from .participants import Participant, Participants
    from .staged import Staged
    from .surroundings import Surroundings

A = TypeVar("A", bound="Agent[Any]")
P = ParamSpec("P")
R = TypeVar("R")

_NOTHING: Final = outcome.Value(None)
MOST_PARTICIPANTS: Final = 64
"""Agents in one transaction; all of them stand still while it is open."""


class Transaction:
    """All or nothing on the persisted state, collections, events and casts of its agents.

    Isolated from everybody else, and as durable as the store's level. Made by
    `Runtime.transaction`.
    """

    def __init__(
        self,
        seats: list[Seat],
        seconds: float,
        surroundings: Surroundings,
        participants: Participants,
    ) -> None:
        self.staged: list[tuple[Seat, Staged]] = []
        self._seats = seats
        self._by_path = {seat.place.node.path: seat for seat in seats}
        self._seconds = seconds
        self._open = self._is_over = False
        # Why it can only be undone, and what led to that.
        self._doomed = ""
        self._cause: BaseException | None = None
        self._awaited: Seat | None = None
        # The unit is decided when this is set; and who waits for that.
        self._decided = False
        self._error: StoreError | None = None
        self._waiter: Task | None = None
        self._enlisted: dict[str, Participant] = {}
        self._participants = participants
        self._surroundings = surroundings
        self._is_logged = False
        self._writes: list[Write] = []

    # --- for users ---------------------------------------------------------------------------

    @cached_property
    def id(self) -> str:
        """What outside participants know it by."""
        return new_id()

    @overload
    async def call(
        self,
        agent: AgentRef[A],
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    async def call(
        self,
        agent: AgentRef[A],
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    async def call(
        self,
        agent: AgentRef[Any],
        operation: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Have a participant run an operation; its answer is unconfirmed.

        What the handler changes and stages counts when the block is left, and not before.
        Cancelled, or with an error out of the handler, the transaction is undone: nobody
        crashes, and nothing else can be called. It checks for cancellation each time and
        gives way at least every 32nd.

        Raises:
            What the handler raises, as it is.
            TransactionConflict: a participant has ended.
            TransactionMisuse: it is no participant, runs a call already, or it is over.
            UnknownOperation, BadArguments: it was not called.
        """
        seat = self._seat_of(agent)
        body = seat.place
        found = body.found(operation, args, kwargs)
        await checkpoint_if_cancelled()
        self._check_open()
        if seat.order is not None:
            raise TransactionMisuse(f"{agent.path} runs another call of it already")
        order = Order(found, args, kwargs)
        try:
            if found.waits or seat.parked is None:
                seat.give(order)
                return await seat.wait()
            return seat.run_here(order)
        except trio.Cancelled as cancelled:
            self._undo(f"{found.name} of {agent.path} was cancelled", cancelled)
            raise
        except BaseException as error:
            self._undo(f"{found.name} of {agent.path} failed: {error}", error)
            raise
        finally:
            # A loop of calls to handlers that do not wait lets others run, at a fourth of
            # what it costs to do so each time: a transaction is two or three of them.
            if not found.waits and next(body.turns):
                await cancel_shielded_checkpoint()

    def enlist(self, participant: Participant) -> None:
        """Bring in something outside the store, by two-phase commit; twice is once.

        When the block is left it is asked to `prepare`. If all do, it is told to `commit`,
        soon after leaving and as often as it takes, also by a later run. In any other
        case it is told to `abort`.

        Raises:
            TransactionMisuse: it was not registered with `Runtime.participants`, so that
                a later run could not find it; or the transaction is over.
        """
        self._check_open()
        self._enlisted[self._participants.name_of(participant)] = participant

    def also(self, *writes: Write) -> None:
        """Have rows written with it: they are there when it has happened, and only then.

        For what stands above agents and keeps rows of its own.

        Raises:
            TransactionMisuse: it is over.
        """
        self._check_open()
        self._writes += writes

    @property
    def is_open(self) -> bool:
        """Whether it can be given more to do."""
        return self._open and not self._is_over

    # --- its course --------------------------------------------------------------------------

    async def take(self) -> None:
        """Wait for each agent to come to a message boundary.

        Raises:
            AgentDown, MailboxFull, StoreBroken: one cannot be had.
        """
        await checkpoint_if_cancelled()
        for seat in self._seats:
            # One that waits for messages is as good as taken: this comes next there.
            is_idle = seat.place.idle is not None
            seat.place.accept(seat)
            if is_idle:
                seat.place.seat = seat
            elif not seat.over:
                self._awaited = seat
                await seat.wait()
        self._awaited, self._open = None, True
        self._check_open()

    async def vote(self) -> None:
        """Ask those outside; what they say is no decision yet.

        Raises:
            TransactionConflict: one said no, failed, or lags too far behind.
            StoreError: it could not be noted that they are asked.
        """
        self._check_open()
        if not self._enlisted:
            return
        self._participants.check_heard(self._enlisted)
        self._is_logged = True
        await self._participants.log(self.id, Verdict.UNDECIDED, tuple(self._enlisted))
        for name, participant in self._enlisted.items():
            if not await _prepared(name, participant, self.id):
                raise TransactionConflict(f"{name} voted no; nothing was changed")

    def hand_over(self) -> None:
        """Seal everything in one step and leave it with the store.

        Raises:
            TransactionConflict, TransactionMisuse: it is undone instead.
        """
        self._check_open()
        for path, seat in self._by_path.items():
            if seat.order is not None:
                raise TransactionMisuse(f"the block was left while {path} runs a call")
        self._is_over = True
        whole = Unit(" and ".join(self._by_path) or f"transaction {self.id}")
        parts = self._seal(whole)
        if whole.parts or whole.events or whole.writes:
            whole.release.append(lambda error: self._settle(whole, parts, error))
            hand_over(self._surroundings.store, whole)
        else:
            after(whole.needs, lambda error: self._settle(whole, parts, error))
        for seat, staged in self.staged:
            seat.place.go_on_with(staged.continuations, seat, whole)

    def _seal(self, whole: Unit) -> list[tuple[Seat, Unit]]:
        # From here on nothing can fail: every part was checked when it was kept.
        needs = [unit for seat in self._seats for unit in seat.place.unsettled()]
        whole.needs = undecided(*dict.fromkeys(needs))
        parts = []
        for seat in self._seats:
            part = seat.seal()
            if part is not None:
                parts.append((seat, part))
                part.events, part.needs = None, ()
                # What it does from now on builds on the whole.
                seat.place.memory.newest = whole
            seat.release()
        events = [event for _, staged in self.staged for event, _ in staged.events]
        whole.parts, whole.events = tuple(part for _, part in parts), events or None
        writes = self._writes
        if self._is_logged:
            names = tuple(self._enlisted)
            writes = [*writes, log_transaction(self.id, Verdict.COMMIT, names)]
        whole.writes = writes or None
        return parts

    def _settle(
        self, whole: Unit, parts: list[tuple[Seat, Unit]], error: StoreError | None
    ) -> None:
        """The unit is decided: all states first, then events and casts, in order."""
        for seat, part in parts:
            for tell in part.release:
                tell(error)
            part.release.clear()
            if error is None:
                seat.place.memory.committed_by(part, whole)
            else:
                seat.place.commit_failed(error, seat.epoch)
        for seat, staged in self.staged:
            release(seat.place, error, staged, seat, _NOTHING)
        self._tell_participants(commit=error is None)
        self._decided, self._error = True, error
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            reschedule(waiter, GO_ON)

    async def wait_decided(self) -> None:
        """Wait for the store. Cancelled, it stops waiting; the transaction stands.

        Raises:
            StoreBroken: the commit failed; nothing was changed.
        """
        if self._decided:
            await checkpoint_if_cancelled()
            await cancel_shielded_checkpoint()
        else:
            self._waiter = current_task()
            await park(self._stop_waiting)
        if self._error is not None:
            raise own_copy(self._error)

    def _stop_waiting(self, _: object) -> Abort:
        self._waiter = None
        return Abort.SUCCEEDED

    def undo(self) -> None:
        """Nothing of it happens; nothing when it was handed over."""
        self._undo("", None)

    def _undo(self, why: str, cause: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over, self._doomed, self._cause = True, why, cause
        for seat in self._seats:
            seat.release()
        self._tell_participants(commit=False)

    def _tell_participants(self, *, commit: bool) -> None:
        if self._is_logged:
            verdict = Verdict.COMMIT if commit else Verdict.ABORT
            self._participants.settle(self.id, verdict, tuple(self._enlisted))

    def lose(self, seat: Seat, error: BaseException) -> Exception:
        """A participant has left: undo everything; what its caller is told."""
        was_open, path = self._open, seat.place.node.path
        self._undo(f"{path} has left: {error}", error)
        if not was_open and isinstance(error, Exception):
            return error
        return self.why_over()

    def too_late(self) -> TransactionTimeout:
        """The error for a deadline that has passed."""
        if self._awaited is None:
            return TransactionTimeout(self._seconds)
        body = self._awaited.place
        return TransactionTimeout(self._seconds, body.node.path, body.doing)

    # --- checks ------------------------------------------------------------------------------

    def _seat_of(self, agent: AgentRef[Any]) -> Seat:
        seat = self._by_path.get(agent.path)
        if seat is None or agent.resolve() is not seat.place:
            raise TransactionMisuse(
                f"{agent.path} is no participant; name it in runtime.transaction(...)"
            )
        return seat

    def _check_open(self) -> None:
        if self._is_over:
            raise self.why_over()

    def why_over(self) -> StoreError:
        """The error for whoever wants something of it after its end."""
        if self._cause is None:
            return TransactionMisuse(f"the transaction is over")  # noqa: F541
        text = f"the transaction is undone, nothing was changed: {self._doomed}"
        has_left = any(seat.left for seat in self._seats)
        error = TransactionConflict(text) if has_left else TransactionMisuse(text)
        error.__cause__ = self._cause
        return error


async def _prepared(name: str, participant: Participant, id_: str) -> bool:
    try:
        return await participant.prepare(id_)
    except Exception as error:
        raise TransactionConflict(
            f"{name} could not prepare; nothing was changed: {error}"
        ) from error


@asynccontextmanager
async def open_transaction(
    agents: tuple[AgentRef[Any], ...],
    seconds: float,
    *,
    directory: Directory,
    surroundings: Surroundings,
    participants: Participants,
) -> AsyncIterator[Transaction]:
    """See `Runtime.transaction`."""
    if not seconds >= 0:
        raise ValueError(f"a timeout must be >= 0 seconds, not {seconds!r}")
    seats = _seats(agents, directory)
    transaction = Transaction(seats, seconds, surroundings, participants)
    for seat in seats:
        seat.transaction = transaction
    before = inside.get()
    try:
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            try:
                await transaction.take()
                inside.set(transaction)
                try:
                    yield transaction
                finally:
                    inside.set(before)
                await transaction.vote()
                await checkpoint_if_cancelled()
                transaction.hand_over()
            except BaseException:
                transaction.undo()
                raise
        if scope.cancelled_caught:
            raise transaction.too_late()
        await transaction.wait_decided()
    finally:
        # Nobody asks a seat any more; without this each would wait for the collector.
        for seat in seats:
            seat.transaction = None


def _seats(agents: tuple[AgentRef[Any], ...], directory: Directory) -> list[Seat]:
    """A seat for each participant, in the order in which they are taken.

    Raises:
        TransactionMisuse: they cannot be in one transaction, or not in this one.
        NameUnknown, AgentDown: one is not there.
    """
    around = inside.get()
    if around is not None and around.is_open:
        raise TransactionMisuse("a transaction inside of another one: name all at once")
    if len(agents) > MOST_PARTICIPANTS:
        raise TransactionMisuse(
            f"a transaction has at most {MOST_PARTICIPANTS} agents, not {len(agents)}"
        )
    for agent in agents:
        if not isinstance(agent, AgentRef):
            raise TypeError(f"a transaction takes AgentRefs, not {agent!r}")
    ordered = sorted(agents, key=attrgetter("path"))
    for one, next_one in pairwise(ordered):
        if one.path == next_one.path:
            raise TransactionMisuse(f"{one.path} is named twice")
    sender, trace = current_body.get(), tracing.current.get()
    return [_seat(agent.resolve(), directory, sender, trace) for agent in ordered]


def _seat(
    body: AgentBody,
    directory: Directory,
    sender: AgentBody | None,
    trace: tracing.SpanContext | None,
) -> Seat:
    path = body.node.path
    if body.directory is not directory:
        raise TransactionMisuse(f"{path} is an agent of another runtime")
    if body is sender:
        raise TransactionMisuse(f"{path} would take itself and wait for itself")
    if body.agent_type.persistence != "write_through":
        raise TransactionMisuse(
            f'{path} cannot take part: persistence = "none" keeps nothing to take back'
        )
    seat = Seat(JOIN, (), {}, True)
    seat.body, seat.trace = body, trace
    if sender is not None:
        seat.needs, seat.sender = sender.unsettled(), sender.node.path
    return seat
