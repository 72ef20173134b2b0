"""The address of an agent: what others hold, and the calls and casts they make with it.

`ref.call(Counter.add, 3)` is checked by mypy and pyright as written: the operation is the
unbound method, so arguments and answer have their types. It is resolved by name on the
agent's own class when it arrives.
"""

from __future__ import annotations

import math
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

import outcome
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
)
from trio.lowlevel import wait_task_rescheduled as park

import treewarden.telemetry as tracing
from treewarden.errors import (
    AgentCrashed,
    AgentDown,
    AgentError,
    AlreadyApplied,
    CallingSelf,
    MailboxFull,
    NameUnknown,
)
from treewarden.exits import Crash, Normal, as_exit, describe
from treewarden.ids import new_id
from treewarden.supervision import Kind

from . import hooks, orders, request_id
from .body import AgentBody, AgentStatistics, current_body
from .durable import DurableBody
from .envelope import UNANSWERED, Envelope
from .monitor import Monitor, tell_nobody
from .outbox import stand_in_line
from .request import Request, RequestEnvelope
from .seat import refuse_inside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.exits import Exit
    from treewarden.supervision import Directory, Patience

    from .agent import Agent
    from .operation import Operation
    from .recent import Handled

A = TypeVar("A", bound="Agent[Any]")
P = ParamSpec("P")
R = TypeVar("R")


class AgentRef(Generic[A]):
    """An agent's address; it stays valid across restarts of the agent.

    `with_timeout` gives one whose calls wait another number of seconds. Any task may use
    it, in the tree or not; a thread that trio started uses it through trio:
    `trio.from_thread.run(ref.call, Counter.add, 3)`.
    """

    __slots__ = ("_body", "_directory", "_patience", "_seconds", "path")

    def __init__(
        self, directory: Directory, path: str, *, seconds: float | None = None
    ) -> None:
        self.path = path
        self._directory = directory
        self._seconds = seconds
        self._body: AgentBody | None = None
        self._patience: Patience | None = None

    def __repr__(self) -> str:
        """The path says who it is."""
        return f"AgentRef({self.path!r})"

    def __eq__(self, other: object) -> bool:
        """Two refs to one path in one tree are the same address."""
        return (
            isinstance(other, AgentRef)
            and other.path == self.path
            and other._directory is self._directory
        )

    def __hash__(self) -> int:
        """By path."""
        return hash(self.path)

    @overload
    async def call(
        self,
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    async def call(
        self,
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    async def call(
        self, operation: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Ask, and wait for the answer; when it comes, what was done is committed.

        Waits at most the agent's `call_timeout`, room in the mailbox included. Cancelled
        before the agent began: it never happens. Later: it may happen, even durably.

        Raises:
            CallTimeout: no answer in time.
            AgentCrashed: the handler raised; nothing of it happened.
            AgentDown, NameUnknown: there is nobody.
            Refused (and what the agent's `refuses` names): the agent's own answer.
            MailboxFull, UnknownOperation, BadArguments, CallingSelf: it was not sent.
            StoreBroken: the commit failed; nothing of it happened.
        """
        body = self._body
        if body is None or body.resting:
            body = self.resolve()
        sender = current_body.get()
        if sender is body:
            raise CallingSelf(f"{self.path} calls itself and would wait for itself")
        if body.seat is not None:
            refuse_inside(body)
        try:
            # As `found` does, with one call less.
            found = body.by_function[operation]
            if kwargs or len(args) != found.arity:
                found.check(args, kwargs)
        except (KeyError, TypeError):
            found = body.found(operation, args, kwargs)
        envelope = Envelope(found, args, kwargs, True)
        if sender is not None or body.spans.enabled:
            _sign(envelope, sender)
        if (
            not found.is_async
            and body.idle is not None
            and not (envelope.needs and body.agent_class.awaits_senders)
        ):
            await checkpoint_if_cancelled()
            envelope.inline = True
            body.handle_inline(envelope)
            if envelope.value is not UNANSWERED:
                await cancel_shielded_checkpoint()
                return envelope.value
            if envelope.result is not None:
                await cancel_shielded_checkpoint()
                return envelope.result.unwrap()
            envelope.inline = False
        elif not body.put(envelope):
            body.accept(envelope)
        # Nothing is awaited between acceptance and parking, so no answer comes early.
        envelope.task = current_task()
        self.arm(body, envelope)
        return await park(envelope.give_up)

    async def send_call(
        self, operation: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Any:  # noqa: ANN401 - typed by call()
        """`call` without types: `operation` may be a name. For the control server."""
        return await self.call(operation, *args, **kwargs)  # type: ignore[call-overload]

    @overload
    def request(
        self,
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Request[R]: ...

    @overload
    def request(
        self,
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Request[R]: ...

    def request(
        self, operation: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Request[Any]:
        """Ask now, read the answer later: `await request.result()`.

        As `call` in all else. Without room in the mailbox it stands in line there, with
        at most as many others as the mailbox holds. That there is nobody, or no room,
        comes out of `result` too.

        Raises:
            UnknownOperation, BadArguments, CallingSelf: it was not sent.
        """
        try:
            body = self.resolve()
        except AgentError as error:
            return Request.refused(operation, error)
        sender = current_body.get()
        if sender is body:
            raise CallingSelf(f"{self.path} asks itself and would wait for itself")
        refuse_inside(body)
        found = body.found(operation, args, kwargs)
        envelope = RequestEnvelope(found, args, kwargs, True)
        _sign(envelope, sender)
        request_id.expect(body, envelope, new_id())
        try:
            body.accept_request(envelope)
        except AgentError as error:
            envelope.answer(outcome.Error(error))
        else:
            self.arm(body, envelope)
        return Request(envelope)

    async def cast(
        self,
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Tell; returns once accepted. At most once: a crash or `kill -9` may lose it.

        With a durable mailbox it returns once committed, and is applied once, or a dead
        letter. Cancelled meanwhile, it may have been.

        Checks for cancellation each time and gives way at least every 32nd.

        Raises:
            MailboxFull: the agent's policy is to reject.
            CallingSelf: in a handler, it would wait for ever, in a ring of agents too.
            AgentDown, NameUnknown, UnknownOperation, BadArguments: it was not sent.
        """
        await checkpoint_if_cancelled()
        body = self._body
        if body is None or body.resting:
            body = self.resolve()
        if body.seat is not None:
            refuse_inside(body)
        sender = current_body.get()
        try:
            # As `found` does, with one call less.
            found = body.by_function[operation]
            if kwargs or len(args) != found.arity:
                found.check(args, kwargs)
        except (KeyError, TypeError):
            found = body.found(operation, args, kwargs)
        if body.agent_class.keeps:
            await _keep(body, found, args, kwargs, sender)
            return
        envelope = Envelope(found, args, kwargs)
        mailbox = body.mailbox
        items = mailbox.items
        if sender is not None or body.spans.enabled:
            _sign(envelope, sender)
        elif items and len(items) < mailbox.capacity and not mailbox.waiting:
            # With something in its mailbox it is awake: all that `put` has left to do.
            items.append(envelope)
            if next(body.turns):
                await cancel_shielded_checkpoint()
            return
        if not body.put(envelope):
            if not body.mailbox.would_wait:
                body.accept(envelope)
            elif sender is not None:
                await stand_in_line(sender, body, envelope)
            else:
                await body.accept_and_wait(envelope)
        if next(body.turns):
            await cancel_shielded_checkpoint()

    def cast_nowait(
        self,
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Tell, or raise MailboxFull where `cast` would wait.

        For a durable mailbox it returns before the message is kept, nobody hears when it
        is not, and what the same sender sends meanwhile may come before it.
        """
        body = self.resolve()
        refuse_inside(body)
        if isinstance(body, DurableBody):
            found = body.found(operation, args, kwargs)
            kept = body.make_cast(found, args, kwargs)
            _sign(kept, current_body.get())
            body.cast_nowait(kept)
            return
        if body.mailbox.would_wait:
            raise MailboxFull(self.path, body.mailbox.capacity)
        envelope = Envelope(body.found(operation, args, kwargs), args, kwargs)
        _sign(envelope, current_body.get())
        body.accept(envelope)

    async def stop(self, exit: Exit | None = None) -> None:  # noqa: A002 - design.md
        """Have it end with `exit` (Normal) once it has handled what waits; wait for that.

        Its supervisor then does what it does about such an exit: a permanent agent is
        started again. `SupervisorRef.terminate_child` stops one for good, at once.

        Raises:
            AgentCrashed, AgentDown: it ended otherwise, or is not there.
            CallTimeout: it did not come to it; it still will if it had begun.
            MailboxFull: there was no room for the wish, or other messages took it.
            CallingSelf, NameUnknown: it was not asked.
            TypeError: that is no exit.
        """
        wanted = Normal() if exit is None else as_exit(exit)
        body = self.resolve()
        sender = current_body.get()
        if sender is body:
            raise CallingSelf(f"{self.path} stops itself; use self.stop()")
        refuse_inside(body)
        ending = orders.Ending(wanted)
        envelope = Envelope(orders.STOP, (ending,), {}, True)
        _sign(envelope, sender)
        body.accept(envelope)
        envelope.task = current_task()
        self.arm(body, envelope)
        await park(envelope.give_up)
        await ending.over.wait()
        if ending.exit == ending.wanted:
            return
        if isinstance(ending.exit, Crash):
            raise AgentCrashed(ending.exit.fault)
        raise AgentDown(self.path, f"it ended with {describe(ending.exit)}")

    def with_timeout(self, seconds: float) -> AgentRef[A]:
        """The same address, whose calls wait `seconds` (math.inf: for ever)."""
        if not seconds >= 0:
            raise ValueError(f"a timeout must be >= 0 seconds, not {seconds!r}")
        return AgentRef(self._directory, self.path, seconds=seconds)

    def with_id(self, id: str) -> IdentifiedRef[A]:  # noqa: A002 - as Request.id
        """The same address, for a request that is applied once however often it is made.

        `id` is the id of an earlier `Request`, or `CallTimeout.id`, or one of your own
        that nobody else uses.
        """
        return IdentifiedRef(self._directory, self.path, id, seconds=self._seconds)

    @property
    def incarnation(self) -> int:
        """Which life the agent is in."""
        return self.resolve().node.incarnation

    def monitor(self) -> Monitor:
        """Watch the present incarnation from a plain task.

            with ref.monitor() as monitor:
                down = await monitor.wait_down()

        With nobody there it has ended already, with the exit None. What it answered
        before its end is there before the notice is, also an answer that had to wait for
        a commit. An agent uses `self.monitor`, which tells it through `on_down`.
        """
        node = self._directory.find(self.path)
        if node is None:
            return Monitor(self.path, None, tell_nobody, set())
        body = node.body
        settle = body.when_settled if isinstance(body, AgentBody) else None
        return Monitor(self.path, node.life, tell_nobody, set(), settle)

    def statistics(self) -> AgentStatistics:
        """What may be seen of the agent."""
        return self.resolve().statistics()

    def recent(self) -> tuple[Handled, ...]:
        """The last 50 messages that it handled, oldest first, crashes included."""
        return self.resolve().recent()

    def install(self, hook: Callable[[Handled], None]) -> None:
        """Have `hook` called with every message that it has handled from now on.

        It is called in the agent's turn, right after the message and before its answer
        leaves, so it is plain and short; one that raises is uninstalled, which is logged.
        It stays through crashes and restarts. Installed twice is once.
        """
        hooks.install(self.resolve(), hook)

    def uninstall(self, hook: Callable[[Handled], None]) -> None:
        """Call `hook` no more; nothing when it is not installed."""
        hooks.uninstall(self.resolve(), hook)

    def uninstall_all(self) -> None:
        """Call no hook any more."""
        hooks.uninstall_all(self.resolve())

    def inspect(self) -> bytes:
        """The last committed state as JSON, redacted; waits for nobody."""
        return self.resolve().memory.shown()

    def suspend(self) -> None:
        """Have it take no message after the one in hand, until `resume`.

        Messages wait, also with their deadlines; what it sent leaves; `replace_state` and
        a stop still work. The suspension ends with the incarnation. Twice is once.

        Raises:
            AgentDown: it does not run.
        """
        orders.suspend(self.resolve())

    def resume(self) -> None:
        """Let it go on; nothing when it is not suspended."""
        orders.resume(self.resolve())

    async def replace_state(self, state: object) -> None:
        """For operators: give it another state between two messages, and commit that.

        A state of its type, or its JSON as `msgspec.Raw`. Waits like a call.

        Raises:
            StateNotEncodable: it is no state of this agent; nothing was done.
            CallTimeout, AgentDown, NameUnknown, CallingSelf, StoreBroken: as for a call.
        """
        body = self.resolve()
        sender = current_body.get()
        if sender is body:
            raise CallingSelf(f"{self.path} replaces its own state; assign self.state")
        refuse_inside(body)
        payload = orders.encode_state(body, state)
        envelope = Envelope(orders.REPLACE_STATE, (payload,), {}, True)
        _sign(envelope, sender)
        orders.order(body, envelope)
        envelope.task = current_task()
        self.arm(body, envelope)
        await park(envelope.give_up)

    def resolve(self) -> AgentBody:
        """The agent's body, found again when its supervisor has made another.

        Raises:
            NameUnknown: there is no such node, or it is no agent.
        """
        body = self._body
        node = self._directory.find(self.path)
        if body is not None and node is not None and node.body is body:
            return body
        if node is None or node.body.kind is not Kind.AGENT:
            if node is not None:
                kind = node.body.kind
                raise NameUnknown(
                    self.path, f"{self.path} is no agent: its kind is {kind}"
                )
            if self._body is not None:
                raise AgentDown(self.path, "it is gone for good")
            raise NameUnknown(self.path)
        self._body = body = cast("AgentBody", node.body)
        return body

    def arm(self, body: AgentBody, envelope: Envelope) -> None:
        """Begin to count the seconds that its caller waits; not for users."""
        envelope.body = body
        seconds = self._seconds
        if seconds is None:
            seconds = body.agent_type.call_timeout
        patience = self._patience
        if patience is not None and patience.seconds == seconds:
            patience.arm(envelope)
            return
        if seconds == math.inf:
            return
        timers = self._directory.timers
        self._patience = patience = timers.patience(seconds)
        if patience is not None:
            patience.arm(envelope)
        else:
            expire = partial(envelope.expire, seconds)
            envelope.timer = timers.at(timers.now() + seconds, expire)


class IdentifiedRef(Generic[A]):
    """Where a request goes whose id has been decided; see `AgentRef.with_id`."""

    __slots__ = ("_ref", "id")

    def __init__(
        self,
        directory: Directory,
        path: str,
        id_: str,
        *,
        seconds: float | None = None,
    ) -> None:
        if not id_:
            raise ValueError("an id must not be empty")
        self.id = id_
        self._ref: AgentRef[A] = AgentRef(directory, path, seconds=seconds)

    @overload
    async def call(
        self,
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    async def call(
        self,
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    async def call(
        self, operation: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """As `AgentRef.call`, unless a request of this id was applied before.

        Then the answer is the one of that time. One that is still on its way is waited
        for first. What raised, was refused or changed nothing was not applied, and is
        done again.

        Raises:
            AlreadyApplied: it was applied before, and its answer was not kept.
            NotRunning: there is no store.
            As `AgentRef.call` does.
        """
        body = self._ref.resolve()
        sender = current_body.get()
        if sender is body:
            raise CallingSelf(
                f"{body.node.path} calls itself and would wait for itself"
            )
        found = body.found(operation, args, kwargs)
        applied = await request_id.applied(body, self.id)
        if applied is not None:
            if applied.answer is None or not applied.sound:
                raise AlreadyApplied(body.node.path, self.id)
            return found.parse_reply(applied.answer)
        # Nothing was awaited since: no other request of this id is on its way.
        envelope = RequestEnvelope(found, args, kwargs, True)
        _sign(envelope, sender)
        request_id.expect(body, envelope, self.id)
        try:
            body.accept_request(envelope)
        except AgentError as error:
            envelope.answer(outcome.Error(error))
        else:
            self._ref.arm(body, envelope)
        return await Request[Any](envelope).result()


async def _keep(
    body: AgentBody,
    found: Operation,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    sender: AgentBody | None,
) -> None:
    assert isinstance(body, DurableBody)  # noqa: S101 - only they keep what they are sent
    envelope = body.make_cast(found, args, kwargs)
    _sign(envelope, sender)
    await body.cast_durably(envelope, sender)


def _sign(envelope: Envelope, sender: AgentBody | None) -> None:
    """Say by whom, and because of what, it was sent."""
    if sender is not None:
        envelope.needs = sender.unsettled()
        envelope.sender = sender.node.path
        sender.sent += 1
    envelope.trace = tracing.current.get()
