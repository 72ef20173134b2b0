"""A request whose answer is read later: several may be on their way at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import outcome
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    reschedule,
)
from trio.lowlevel import wait_task_rescheduled as park

from treewarden.errors import AgentError
from treewarden.ids import new_id

from .envelope import Envelope
from .operation import Operation, operation_name

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


class RequestEnvelope(Envelope, eq=False):
    """A call that nobody has to wait for; its first answer stays with it."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is no answer yet."""
        return self.result is None

    def reply(self, value: object) -> None:
        """Keep the answer, and wake whoever reads it already."""
        self.answer(outcome.Value(value))

    def answer(self, result: outcome.Outcome[object], *, last: bool = True) -> None:
        """Keep the answer, and wake whoever reads it already."""
        if last and self.id:
            self.settle()
        if self.result is not None:
            return
        self.result = result
        self.disarm()
        task = self.task
        if task is not None:
            self.task = None
            reschedule(task)


class Request(Generic[R]):
    """Sent by `AgentRef.request`; `id` is unique for ever.

    It need not be read: it takes effect all the same. Whether it did, the store knows by
    its `id`, and `ref.with_id(id)` asks again without its happening twice.
    """

    __slots__ = ("_envelope", "_read", "id")

    def __init__(self, envelope: Envelope) -> None:
        self.id = envelope.id or new_id()
        self._envelope = envelope
        self._read = False

    @classmethod
    def refused(cls, operation: Callable[..., object], error: AgentError) -> Request[R]:
        """One that was never sent: `result` raises `error`."""
        asked = Operation(operation_name(operation), operation)
        envelope = RequestEnvelope(asked, (), {})
        envelope.answer(outcome.Error(error))
        return cls(envelope)

    @property
    def is_answered(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._envelope.result is not None

    async def result(self) -> R:
        """Wait for the answer; to be had once.

        Cancelled, the request goes on and the answer can be waited for again. The agent's
        `call_timeout` counts from the sending.

        Raises:
            As `AgentRef.call` does.
            RuntimeError: the answer was read before, or another task waits for it.
        """
        envelope = self._envelope
        if self._read:
            raise RuntimeError(f"the answer to request {self.id} was read before")
        if envelope.task is not None:
            raise RuntimeError(f"another task waits for request {self.id} already")
        if envelope.result is None:
            envelope.task = current_task()
            await park(self._abort)
        else:
            await checkpoint()
        return self._take()

    def withdraw(self) -> bool:
        """Take it back unless the agent has begun; True: it never happens.

        False: it is begun, answered or withdrawn already, and nothing is changed.
        """
        envelope = self._envelope
        if envelope.begun or not envelope.is_wanted:
            return False
        if envelope.body is not None:
            envelope.body.mailbox.withdraw(envelope)
        gone = AgentError(f"request {self.id} was withdrawn before it was begun")
        envelope.answer(outcome.Error(gone))
        return True

    def _abort(self, _: object) -> Abort:
        self._envelope.task = None
        return Abort.SUCCEEDED

    def _take(self) -> R:
        self._read = True
        result: Any = self._envelope.result
        return cast("R", result.unwrap())
