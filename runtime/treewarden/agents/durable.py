"""A mailbox that outlives the process: each message is applied once, or is a dead letter.

Theory of operation. A cast to such an agent is a row of the store's inbox before it counts
as accepted, and enters the mailbox in memory when the row is committed; so the order of
the mailbox is the order of the file. The unit of its handler deletes the row, notes the
message's id as applied, and holds what the handler changed: all of it or nothing.

A cast that a handler stages is a row of that handler's own unit. Both agents are in one
file, so the row in the target's inbox is all the outbox there is: a message is never in
neither and never in both. The sender waits for the target's room afterwards.

Attempts are counted in the file before a handler runs, else a kill would never count: in
one commit for up to `COUNTED_TOGETHER` messages that were never tried, and for each that
was alone. So a kill may count one attempt too many for those that stood behind the message
in hand, but never a second one, and nobody's last.

What goes wrong, and where the message is then:

- its handler crashes, refuses or stops the agent: at the head of the mailbox, one attempt
  the more; after the last one a dead letter;
- a stop, or a commit that fails: at the head, no attempt the more;
- the agent ends: in the file, for whoever comes to its path;
- the process is killed: in the file, its attempt counted.

Calls are not kept: who calls is told what became of it, and may ask by id.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
import outcome
import trio
from trio.lowlevel import Abort, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

from treewarden.clock import wall_ns
from treewarden.errors import (
    AgentDown,
    MailboxFull,
    NotRunning,
    RestoreError,
    StoreClosed,
    StoreError,
    TreewardenError,
)
from treewarden.ids import new_id
from treewarden.store import (
    StoredMessage,
    Unit,
    count_attempts,
    delete_effects,
    delete_message,
    insert_applied,
    insert_effect,
    insert_letter,
    insert_message,
    load_effects,
    load_messages,
)

from .body import AgentBody
from .envelope import Envelope
from .mailbox import MailboxOverflow
from .outbox import (
    CastDelivery,
    closes_a_ring,
    standing_before,
    would_wait_for_itself,
)
from .release import decided, settle, undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from treewarden.exits import Exit, Fault
    from treewarden.store import Store, Write
    from treewarden.supervision import Life

    from .agent import Agent
    from .operation import Operation
    from .outbox import Delivery

COUNTED_TOGETHER: Final = 32
"""Messages whose first attempt is counted in one commit: what that costs each of them is
small beside the commit of its own handler."""

_MAILBOX: Final = "mailbox"


class DurableEnvelope(Envelope, eq=False):
    """A cast that is a row. `attempts` are those that are over and count."""

    message: StoredMessage | None = None
    arguments: bytes = b"{}"
    attempts: int = 0
    # What keeps it, once it has got its place.
    posted: Unit | None = None
    # What counts the attempt to come; it must be committed before the handler runs.
    counting: Unit | None = None
    # Of outside calls made by the handler in hand.
    calls: int = 0
    effects: dict[int, bytes] | None = None

    @property
    def is_kept(self) -> bool:
        """It is."""
        return True

    def post(self, target: str, store: Store, unit: Unit) -> None:
        """See `Envelope`."""
        self.message = StoredMessage(
            seq=store.next_sequence(),
            path=target,
            id=new_id(),
            operation=self.operation.name,
            arguments=self.arguments,
            sender=self.sender,
            at_ns=wall_ns(),
        )
        _add(unit, [insert_message(self.message)])

    @property
    def row(self) -> StoredMessage:
        """What is stored of it."""
        assert self.message is not None  # noqa: S101 - it has been posted
        return self.message


def _add(unit: Unit, writes: Iterable[Write]) -> None:
    if unit.writes is None:
        unit.writes = []
    unit.writes += writes


class Inbox:
    """The mailbox as one of the agent's collections: what its handlers took out of it."""

    kind = _MAILBOX
    name = _MAILBOX

    def __init__(self, body: DurableBody) -> None:
        self._body = body
        self._taken: DurableEnvelope | None = None
        # Handled, in order, and their units not decided; and given back by a failure.
        self._handled: deque[DurableEnvelope] = deque()
        self._lost: deque[DurableEnvelope] = deque()

    @property
    def path(self) -> str:
        """Whose it is."""
        return self._body.node.path

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._body.mailbox)

    @property
    def committed(self) -> int:
        """The same: what waits is in the file."""
        return len(self._body.mailbox) + len(self._handled)

    async def open(self) -> None:
        """See `Collection`; the body reads the rows."""
        await trio.lowlevel.checkpoint()

    def take(self, envelope: DurableEnvelope) -> None:
        """Its handler begins."""
        self._taken = envelope

    @property
    def dirty(self) -> bool:
        """Whether the message in hand is one of ours."""
        return self._taken is not None

    def seal(self, unit: Unit) -> None:
        """The handler returned: the row goes, and the id is known, with its unit."""
        envelope, self._taken = self._taken, None
        if envelope is None:
            return
        row = envelope.row
        writes = [
            delete_message(row),
            insert_applied(row.path, row.id, wall_ns(), None),
        ]
        if envelope.effects is not None:
            writes.append(delete_effects(row.path, row.id))
        _add(unit, writes)
        self._handled.append(envelope)
        unit.release.append(partial(self._decided, envelope))

    def discard(self) -> None:
        """The handler failed."""
        self._taken = None

    def reset(self) -> None:
        """A commit failed: what was handled and not kept is to be handled again."""
        self._taken = None
        self._lost.extend(self._handled)
        self._handled.clear()

    def take_lost(self) -> list[DurableEnvelope]:
        """What `reset` gave back, the newest first."""
        lost = [*reversed(self._lost)]
        self._lost.clear()
        return lost

    def _decided(self, envelope: DurableEnvelope, error: StoreError | None) -> None:
        if not self._handled or self._handled[0] is not envelope:
            return
        if error is None:
            self._handled.popleft()
        elif self._body.is_own_fault():
            # Not the disk: what it did cannot be stored, and will not be the next time.
            envelope.attempts += 1
            envelope.counting = None


class RoomDelivery:
    """A cast to a durable mailbox has arrived; its sender goes on when there is room."""

    __slots__ = ("_sender", "_target")

    def __init__(self, sender: AgentBody, target: DurableBody) -> None:
        self._sender = sender
        self._target = target

    def at_once(self) -> bool:
        """See `Delivery`."""
        target = self._target
        return not target.is_over_full or closes_a_ring(self._sender, target)

    async def deliver(self) -> None:
        """See `Delivery`."""
        while not self.at_once():
            await self._target.wait_room()

    def lose(self, why: str) -> None:
        """See `Delivery`: the message is in the file and cannot be lost."""

    def waits_for(self) -> AgentBody | None:
        """See `Delivery`."""
        return self._target if self._target.is_over_full else None


class DurableBody(AgentBody):
    """The body of an agent whose mailbox is durable."""

    __slots__ = ("_inbox", "_is_read", "_line", "_loaded_to", "_reserved", "_room")

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - as AgentBody
        super().__init__(*arguments)
        self._inbox = Inbox(self)
        # Whether the rows are in memory; and the newest of those that were read.
        self._is_read = False
        self._loaded_to = 0
        # Rows on their way into the file, whose place is taken.
        self._reserved = 0
        # Casts without room, in order; and staged ones' senders, whose casts are here.
        self._line: deque[DurableEnvelope] = deque()
        self._room = trio.lowlevel.ParkingLot()

    # --- sending to it -----------------------------------------------------------------

    def make_cast(
        self, operation: Operation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Envelope:
        """A message with its arguments as they are now.

        Raises:
            StateNotEncodable, BadArguments: they cannot be stored.
        """
        arguments = operation.pack(args, kwargs)
        envelope = DurableEnvelope(operation, *operation.unpack(arguments))
        envelope.arguments = arguments
        return envelope

    async def cast_durably(self, envelope: Envelope, sender: AgentBody | None) -> None:
        """Keep a cast; returns once its row is committed.

        Cancelled before it has room: it was not sent. Later: it was.

        Raises:
            MailboxFull, AgentDown, CallingSelf: it was not sent.
            StoreBroken: it was not kept.
        """
        assert isinstance(envelope, DurableEnvelope)  # noqa: S101 - `make_cast` made it
        if self._is_full or self._line:
            await self._stand_in_line(envelope, sender)
        else:
            envelope.posted = self._post(envelope)
        assert envelope.posted is not None  # noqa: S101 - it has got its place
        await self._open_store().wait(envelope.posted)

    async def _stand_in_line(
        self, envelope: DurableEnvelope, sender: AgentBody | None
    ) -> None:
        if self.resting:
            raise AgentDown(self.node.path, self.resting)
        if self.mailbox.overflow is MailboxOverflow.REJECT:
            raise MailboxFull(self.node.path, self.mailbox.capacity)
        if sender is None:
            await self._wait_turn(envelope)
            return
        if closes_a_ring(sender, self):
            raise would_wait_for_itself(sender, self)
        with standing_before(sender, self, envelope):
            await self._wait_turn(envelope)

    async def _wait_turn(self, envelope: DurableEnvelope) -> None:
        def abort(_: object) -> Abort:
            envelope.task = None
            self._line.remove(envelope)
            return Abort.SUCCEEDED

        envelope.task = current_task()
        self._line.append(envelope)
        await park(abort)

    def _move_up(self) -> None:
        """Let those in line in, in their order, as far as there is room."""
        while self._line and (self.resting or not self._is_full):
            envelope = self._line.popleft()
            task, envelope.task = envelope.task, None
            try:
                envelope.posted = self._post(envelope)
                result: outcome.Outcome[object] = outcome.Value(None)
            except TreewardenError as error:
                result = outcome.Error(error)
            if task is not None:
                reschedule(task, result)
        if self._room and not self.is_over_full:
            self._room.unpark_all()

    def cast_nowait(self, envelope: Envelope) -> None:
        """Keep a cast, soon: nobody is told when, or that it failed.

        Raises:
            MailboxFull, AgentDown: it was not sent.
        """
        assert isinstance(envelope, DurableEnvelope)  # noqa: S101 - `make_cast` made it
        if self._is_full or self._line:
            raise MailboxFull(self.node.path, self.mailbox.capacity)
        self._post(envelope)

    def _post(self, envelope: DurableEnvelope) -> Unit:
        if self.resting:
            raise AgentDown(self.node.path, self.resting)
        store = self._open_store()
        unit = Unit(self.node.path)
        unit.needs, envelope.needs = undecided(*envelope.needs), ()
        envelope.post(self.node.path, store, unit)
        unit.release.append(partial(self._posted, envelope))
        store.hand_over(unit)
        self._reserved += 1
        return unit

    def _posted(self, envelope: DurableEnvelope, error: StoreError | None) -> None:
        self._reserved -= 1
        if error is None:
            self.arrive(envelope)
        else:
            self._move_up()

    def arrive(self, envelope: DurableEnvelope) -> None:
        """Its row is committed: have it handled in its turn.

        When nobody runs here it stays in the file, for whoever comes.
        """
        if not self.resting:
            # Rows commit in the order of their numbers.
            if envelope.row.seq > self._loaded_to:
                self.mailbox.force(envelope)
                self.wake()
            return
        heir = self.agent_at(self.node.path)
        if isinstance(heir, DurableBody) and heir is not self and not heir.resting:
            heir.inherit(envelope.row)

    def inherit(self, row: StoredMessage) -> None:
        """Take a message that was on its way to the one who was here before."""
        if row.seq > self._loaded_to:
            self._take_rows([row], self.mailbox.force)
            self.wake()

    def delivery(self, sender: AgentBody, envelope: Envelope) -> Delivery:
        """How a staged cast of `sender`, committed with its handler, comes here."""
        if not isinstance(envelope, DurableEnvelope):
            return CastDelivery(sender, self, envelope)
        self.arrive(envelope)
        return RoomDelivery(sender, self)

    @property
    def _is_full(self) -> bool:
        return len(self.mailbox.items) + self._reserved >= self.mailbox.capacity

    @property
    def is_over_full(self) -> bool:
        """Whether it holds more than it should."""
        return not self.resting and len(self.mailbox.items) > self.mailbox.capacity

    async def wait_room(self) -> None:
        """Wait until it has perhaps no more than it should."""
        await self._room.park()

    def _open_store(self) -> Store:
        store = self.surroundings.store
        if store is None:
            raise NotRunning(f"{self.node.path} has a durable mailbox and no store")
        return store

    # --- what waits in the file --------------------------------------------------------

    async def _restore(self, agent: Agent[Any]) -> None:
        await super()._restore(agent)
        # A collection like any other, but no attribute of the agent.
        self.memory.collections = {
            **(self.memory.collections or {}),
            _MAILBOX: self._inbox,
        }
        for envelope in self._inbox.take_lost():
            envelope.begun = False
            self.mailbox.put_back(envelope)
        if not self._is_read:
            await self._read_rows()

    async def _read_rows(self) -> None:
        store = self._open_store()
        await settle(store)
        rows = await store.read(partial(load_messages, path=self.node.path))
        # Some have come in since the mailbox was there.
        known = {
            one.row.seq
            for one in self.mailbox.items
            if isinstance(one, DurableEnvelope)
        }
        self._take_rows(
            [row for row in reversed(rows) if row.seq not in known],
            self.mailbox.put_first,
        )
        self._loaded_to = max((row.seq for row in rows), default=0)
        self._is_read = True

    def _take_rows(
        self, rows: Iterable[StoredMessage], put: Callable[[Envelope], None]
    ) -> None:
        for row in rows:
            try:
                put(self._message_of(row, row.attempts))
            except TreewardenError as error:
                self._bury(row, row.attempts, str(error))

    def _message_of(self, row: StoredMessage, attempts: int) -> DurableEnvelope:
        if not row.sound:
            raise RestoreError("its row is damaged")
        operation = self.operation(row.operation)
        envelope = DurableEnvelope(operation, *operation.unpack(row.arguments))
        envelope.message, envelope.arguments = row, row.arguments
        envelope.attempts, envelope.sender = attempts, row.sender
        return envelope

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """See `AgentBody`; what is in the file stays there."""
        begun = [
            one
            for one in self.mailbox.items
            if isinstance(one, DurableEnvelope) and one.counting is not None
        ]
        if begun:
            self._hand_in(count_attempts(one.row, one.attempts) for one in begun)
        super().at_rest(exit_, gone=gone)
        self._inbox.reset()
        self._inbox.take_lost()
        self._is_read = False
        self._loaded_to = 0
        self._move_up()

    def _hand_in(self, writes: Iterable[Write]) -> Unit | None:
        """Have the inbox changed, whatever becomes of the state; None: it is closed."""
        unit = Unit(self.node.path)
        _add(unit, writes)
        try:
            self._open_store().hand_over(unit)
        except (StoreClosed, NotRunning):
            return None
        return unit

    # --- handling ----------------------------------------------------------------------

    async def _handle_batch(self, life: Life) -> Exit | None:
        """All that was there when it woke, each counted before it is begun."""
        mailbox = self.mailbox
        for _ in range(len(mailbox.items)):
            if not mailbox.items or self._has_else_to_do(life):
                break
            first = mailbox.items[0]
            if isinstance(first, DurableEnvelope) and not await self._may_begin(
                first, life
            ):
                break
            if not mailbox.items or mailbox.items[0] is not first:
                break
            if self._has_else_to_do(life):
                break
            envelope, moved = mailbox.take()
            self._moved_up(moved)
            self._move_up()
            if envelope.is_call and not envelope.is_wanted:
                if envelope.id:
                    envelope.settle()
                continue
            if envelope.needs:
                if self._is_early(envelope):
                    break
                if self._refuse_orphan(envelope):
                    continue
            exit_ = await self._handle(envelope)
            if exit_ is not None:
                return exit_
        return None

    async def _handle(self, envelope: Envelope) -> Exit | None:
        """One message; its row goes with what its handler does."""
        if isinstance(envelope, DurableEnvelope):
            envelope.calls, envelope.effects = 0, None
            self._inbox.take(envelope)
        return await super()._handle(envelope)

    # --- attempts ----------------------------------------------------------------------

    async def _may_begin(self, envelope: DurableEnvelope, life: Life) -> bool:
        """Whether its attempt is counted in the file; False: look again."""
        store = self._open_store()
        if not store.is_healthy:
            await self._wait(store.wait_healthy, life)
            return False
        if envelope.attempts >= self._max_attempts:
            self.mailbox.take()
            self._bury(envelope.row, envelope.attempts, "attempts")
            return False
        if envelope.counting is None:
            self._count(envelope)
        counting = envelope.counting
        if counting is None:
            return False
        if not counting.decided:
            await self._wait(partial(decided, store, counting), life)
        if counting.decided and counting.error is not None:
            envelope.counting = None
            return False
        return counting.decided

    def _count(self, first: DurableEnvelope) -> None:
        group = [first]
        if not first.attempts and self._max_attempts > 1:
            group = [
                one
                for one in islice(self.mailbox.items, COUNTED_TOGETHER)
                if isinstance(one, DurableEnvelope)
                and not one.attempts
                and one.counting is None
            ]
        unit = self._hand_in(count_attempts(one.row, one.attempts + 1) for one in group)
        for one in group:
            one.counting = unit

    @property
    def _max_attempts(self) -> int:
        return self.agent_type.mailbox.max_attempts

    def dead_letter(
        self, envelope: Envelope, why: str, fault: Fault | None = None
    ) -> None:
        """A message failed: is it to be tried again?"""
        if not isinstance(envelope, DurableEnvelope):
            super().dead_letter(envelope, why, fault)
        elif not self.resting and why != "commit_failed":
            # At rest it stays in the file; and a failed commit gives back what it took.
            self._tried(envelope, why)

    def _tried(self, envelope: DurableEnvelope, why: str) -> None:
        envelope.attempts += 1
        envelope.counting = None
        envelope.begun = False
        if why == "crashed" and envelope.attempts > 1 and self._life is not None:
            self._life.uncounted = True
        if envelope.attempts < self._max_attempts:
            self.mailbox.put_back(envelope)
        else:
            self._bury(envelope.row, envelope.attempts, why)

    def _bury(self, row: StoredMessage, attempts: int, why: str) -> None:
        """Make a dead letter of it, in one commit; if that fails it waits on."""
        store = self._open_store()
        unit = Unit(self.node.path)
        letter = insert_letter(row, store.next_sequence(), attempts, wall_ns(), why)
        _add(unit, [delete_message(row), *letter])

        def tell(error: StoreError | None) -> None:
            if error is None:
                self.dead_letters += 1
                if self.surroundings.dead_letter is not None:
                    self.surroundings.dead_letter(self.node.path, row.operation, why)
            elif not self.resting:
                # One that nobody can make out stays in the file until the next start.
                with suppress(TreewardenError):
                    self.mailbox.put_first(self._message_of(row, attempts))
                    self.wake()

        unit.release.append(tell)
        store.hand_over(unit)

    def is_own_fault(self) -> bool:
        """Whether a commit that failed now failed for what was in it."""
        return self._open_store().is_healthy

    # --- outside calls -----------------------------------------------------------------

    async def once(self, call: Callable[[], Any]) -> object:
        """See `Agent.once`."""
        envelope, store = self.in_hand, self._open_store()
        if not isinstance(envelope, DurableEnvelope):
            raise TreewardenError(
                f"{self.node.path}: once() is for handlers of durable casts; this is none"
            )
        number, envelope.calls = envelope.calls, envelope.calls + 1
        row = envelope.row
        if envelope.effects is None:
            envelope.effects = await store.read(
                partial(load_effects, path=row.path, id_=row.id)
            )
        if number not in envelope.effects:
            for unit in self.unsettled():
                await store.wait(unit)
            value = call()
            if hasattr(value, "__await__"):
                value = await value
            result = msgspec.json.encode(value)
            kept = Unit(row.path)
            _add(kept, [insert_effect(row.path, row.id, number, result)])
            store.hand_over(kept)
            await store.wait(kept)
            envelope.effects[number] = result
        return msgspec.json.decode(envelope.effects[number])
