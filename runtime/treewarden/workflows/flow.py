"""What a workflow's function works with: its steps, recorded one after the other.

Theory of operation. `Course` has what is recorded. A step that is done is not run: its
result comes from the record. The first that is not done is run, and so is every one after
it, each recorded before the function goes on. So the function passes twice, or ten times,
through the same code; what it does outside of steps must not matter, and what it decides
must follow from its arguments and its steps' results.

A flow that only looks for what is to be undone (`unwinding`) ends where its record does. A
step that was in hand then may have happened: it is run to its end first when there is a
compensation for it, and otherwise left.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, TypeVarTuple, Unpack

import msgspec
import trio

from treewarden.errors import StepFailed, StoreBroken
from treewarden.exits import Fault
from treewarden.store import StepState

from .saga import Undo
from .step import Mismatch, Step, running
from .values import checked_name, decode_result, encode, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from treewarden.agents import AgentRef, Transaction
    from treewarden.resilience import Retry
    from treewarden.store import StoredStep

    from .ledger import Ledger
    from .step import Course

    OpenTransaction = Callable[..., AbstractAsyncContextManager[Transaction]]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked(Generic[T]):
    """A step as the workflow asks for it.

    `attempt` runs it once and answers with its result, encoded; when it `commits`, it has
    recorded that it is done.
    """

    name: str
    compensation: str
    retry: Retry
    attempt: Callable[[StoredStep], Awaitable[bytes]]
    decode: Callable[[bytes], T]
    undo: Callable[[T, StoredStep], Awaitable[None]] | None
    commits: bool


class Flow:
    """One run of a workflow's function, from its beginning; see the module.

    One step at a time. `id` is the workflow's.
    """

    def __init__(
        self,
        course: Course,
        ledger: Ledger,
        retry: Retry,
        open_transaction: OpenTransaction,
        tell: Callable[[str, StoredStep], None],
        *,
        is_cut_off: Callable[[], bool],
        unwinding: bool,
    ) -> None:
        self.id = ledger.workflow.id
        self.scope = trio.CancelScope()
        self.undos: list[Undo] = []
        self.mismatch = ""
        self._course = course
        self._ledger = ledger
        self._retry = retry
        self._open_transaction = open_transaction
        self._tell = tell
        self._is_cut_off = is_cut_off
        self._unwinding = unwinding
        self._in_hand = ""
        # The step that was cancelled while it was in hand.
        self._cut = ""

    def check_cut(self) -> None:
        """A mismatch if the workflow has cancelled a step of its own and gone on.

        Whether that step has happened is not known, and the next run would take it up
        again, out of turn: no later step may build on that, and no compensation.
        """
        if self._cut and not self.mismatch and not self._is_cut_off():
            self.mismatch = (
                f"step {self._cut} was cancelled by the workflow's own code, which went"
                " on; a time limit belongs into the step"
            )

    async def step(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        compensate: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """`await fn(*args)`, at least once, and never again once it is recorded as done.

        Its result is recorded as JSON, and given back as its return annotation says.
        `retry` says what is tried again, and how often; `current_step().key` is the same
        each time. `name` is what it is recorded as, its function's name unless given.
        When the workflow fails or is cancelled, `compensate` is called with the result,
        after those of all later steps; it must do no harm when it runs a second time.

        Cancelled, it may have happened; the next incarnation runs it again. A time limit
        belongs into `fn` or `retry`: a workflow that cancels a step of its own and goes on
        is parked, for nobody knows then what was done.

        Raises:
            StepFailed: it failed for good; that is recorded.
            TypeError, ValueError: it cannot have that name; nothing was begun.
        """
        run = partial(_attempt, fn, args)
        return await self._run(
            _Asked(
                name=checked_name("a step", name if name is not None else name_of(fn)),
                compensation=_compensation(compensate),
                retry=retry if retry is not None else self._retry,
                attempt=run,
                decode=partial(decode_result, fn),
                undo=None if compensate is None else partial(_undo, compensate),
                commits=False,
            )
        )

    async def transaction(
        self,
        agents: Sequence[AgentRef[Any]],
        fn: Callable[[Transaction, Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        compensate: Callable[[Transaction, T], Awaitable[object]] | None = None,
    ) -> T:
        """`await fn(transaction, *args)` in a transaction of `agents`: exactly once.

        What it does to them and the record that it is done are one commit. A step that
        fails has changed nothing. `compensate` runs in a transaction of the same agents,
        and is recorded with it, so that it happens exactly once too. Otherwise as `step`.

        Raises:
            StepFailed: it failed for good; that is recorded.
        """
        run = partial(self._attempt_in_transaction, agents, fn, args)
        undo = (
            partial(self._undo_in_transaction, agents, compensate)
            if compensate is not None
            else None
        )
        return await self._run(
            _Asked(
                name=checked_name("a step", name if name is not None else name_of(fn)),
                compensation=_compensation(compensate),
                retry=retry if retry is not None else self._retry,
                attempt=run,
                decode=partial(decode_result, fn),
                undo=undo,
                commits=True,
            )
        )

    # --- the course of a step ----------------------------------------------------------------

    async def _run(self, asked: _Asked[T]) -> T:
        if self._in_hand:
            raise RuntimeError(
                f"step {asked.name} was asked for while {self._in_hand} is in hand:"
                " a workflow takes one step at a time"
            )
        self.check_cut()
        if self.mismatch:
            await self._end()
        self._in_hand = asked.name
        try:
            step, result = await self._result(asked)
        except trio.Cancelled:
            if not self.scope.cancel_called:
                self._cut = asked.name
            raise
        finally:
            self._in_hand = ""
        value = await self._decoded(asked, step, result)
        if asked.undo is not None:
            undo = partial(asked.undo, value)
            self.undos.append(Undo(step=step, run=undo, commits=asked.commits))
        return value

    async def _result(self, asked: _Asked[T]) -> tuple[StoredStep, bytes]:
        try:
            step = self._course.take(asked.name, asked.compensation)
        except Mismatch as mismatch:
            self.mismatch = str(mismatch)
            await self._end()
        if step.state is StepState.BEGUN:
            step = await self._take(asked, step)
        else:
            await trio.lowlevel.checkpoint()
        if step.state is StepState.FAILED:
            fault = msgspec.json.decode(step.outcome, type=Fault)
            raise StepFailed(self.id, step.name, fault)
        return step, step.outcome

    async def _decoded(self, asked: _Asked[T], step: StoredStep, result: bytes) -> T:
        try:
            return asked.decode(result)
        except (TypeError, ValueError) as error:
            # A result of this run was read back before it was recorded.
            self.mismatch = (
                f"the result of step {step.number} ({step.name}) is recorded as something"
                f" else than the code returns now: {error}"
            )
            await self._end()

    async def _take(self, asked: _Asked[T], step: StoredStep) -> StoredStep:
        # A transaction that is not recorded as done has not happened.
        may_have_happened = step.attempts > 0 and not asked.commits
        if self._unwinding and not (may_have_happened and asked.undo is not None):
            await self._end()
        attempts = _Attempts(self._ledger, asked, step)
        try:
            result = await asked.retry.call(attempts.one)
        except Exception as error:  # noqa: BLE001 - recorded, and raised as StepFailed
            return await self._failed(attempts.step, error)
        done = replace(attempts.step, state=StepState.DONE, outcome=result)
        if not asked.commits:
            await self._ledger.note_done(done)
        return done

    async def _failed(self, step: StoredStep, error: Exception) -> StoredStep:
        fault = msgspec.json.encode(Fault.capture(error))
        failed = replace(step, state=StepState.FAILED, outcome=fault)
        await self._ledger.note(failed)
        self._tell("workflow.step_failed", failed)
        return failed

    async def _end(self) -> NoReturn:
        """Leave the function from here, whatever it catches."""
        self.scope.cancel()
        await trio.lowlevel.checkpoint()
        raise Mismatch(
            self.mismatch or "a workflow that is undone asks for no new steps"
        )

    # --- in transactions ---------------------------------------------------------------------

    async def _attempt_in_transaction(
        self,
        agents: Sequence[AgentRef[Any]],
        fn: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        step: StoredStep,
    ) -> bytes:
        before = self._ledger.workflow
        try:
            async with self._open_transaction(*agents) as transaction:
                value = await fn(transaction, *args)
                result = _encoded(fn, value, step)
                done = replace(step, state=StepState.DONE, outcome=result)
                transaction.also(*self._ledger.writes_of(done))
        except BaseException as error:
            self._ledger.workflow = before
            if isinstance(error, StoreBroken):
                # Whether it is in the file, only the file can say.
                await self._ledger.fall_back(error)
            raise
        return result

    async def _undo_in_transaction(
        self,
        agents: Sequence[AgentRef[Any]],
        compensate: Callable[[Transaction, T], Awaitable[object]],
        value: T,
        undone: StoredStep,
    ) -> None:
        before = self._ledger.workflow
        try:
            async with self._open_transaction(*agents) as transaction:
                await compensate(transaction, value)
                transaction.also(*self._ledger.writes_of(undone))
        except BaseException as error:
            self._ledger.workflow = before
            if isinstance(error, StoreBroken):
                await self._ledger.fall_back(error)
            raise


class _Attempts(Generic[T]):
    """The attempts of one step; each is counted in the file before it begins."""

    def __init__(self, ledger: Ledger, asked: _Asked[T], step: StoredStep) -> None:
        self.step = step
        self._ledger = ledger
        self._asked = asked

    async def one(self) -> bytes:
        self.step = replace(self.step, attempts=self.step.attempts + 1)
        await self._ledger.note(self.step)
        token = running.set(
            Step(
                workflow=self.step.workflow,
                number=self.step.number,
                name=self.step.name,
                attempt=self.step.attempts,
            )
        )
        try:
            return await self._asked.attempt(self.step)
        finally:
            running.reset(token)


async def _attempt(
    fn: Callable[..., Awaitable[object]], args: tuple[object, ...], step: StoredStep
) -> bytes:
    return _encoded(fn, await fn(*args), step)


async def _undo(
    compensate: Callable[[T], Awaitable[object]], value: T, _: StoredStep
) -> None:
    await compensate(value)


def _encoded(fn: Callable[..., object], value: object, step: StoredStep) -> bytes:
    result = encode(value, f"the result of step {step.name}")
    # What could not be read back would stop every later run of the workflow.
    decode_result(fn, result)
    return result


def _compensation(compensate: Callable[..., object] | None) -> str:
    """What a compensation is recorded as; a lambda, made anew in each run, has no name."""
    if compensate is None:
        return ""
    if not callable(compensate):
        raise TypeError(f"compensate must be a function, not {compensate!r}")
    with suppress(ValueError):
        return name_of(compensate)
    return "compensation"
