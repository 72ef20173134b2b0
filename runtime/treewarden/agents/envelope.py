"""A message on its way: what is asked, by whom, and where the answer goes."""

# ruff: noqa: TC004 - msgspec asks a struct for its names here, never for its types
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import outcome
from trio.lowlevel import Abort, Task, reschedule

from .request_id import settle

if TYPE_CHECKING:
    from treewarden.exits import Fault
    from treewarden.store import Store, Unit
    from treewarden.supervision import Timer
    from treewarden.telemetry import SpanContext

    from .body import AgentBody
    from .operation import Operation


class _Unanswered:
    __slots__ = ()

    def unwrap(self) -> None:
        pass


GO_ON: Final[Any] = _Unanswered()
"""What a task is woken with that is told nothing.

trio makes an `outcome.Value` otherwise, which is 0.4 µs, a twentieth of a call.
"""
UNANSWERED: Final[object] = GO_ON
"""The `value` of an envelope that was not answered with one."""


class Envelope(msgspec.Struct, eq=False):
    """One message. `task` is who waits: for the answer, or (a cast) for room."""

    # One is made for every message. As a msgspec struct it takes 0.06 µs, as a class
    # with __slots__ and an __init__ of its own 0.12 µs.
    operation: Operation
    args: tuple[object, ...]
    kwargs: dict[str, object]
    is_call: bool = False
    begun: bool = False
    # In its caller's turn the answer is left here: that task is not parked.
    inline: bool = False
    value: object = UNANSWERED
    result: outcome.Outcome[object] | None = None
    task: Task | None = None
    # Of a call that waits: on whom, and until when (seconds, trio's clock).
    body: AgentBody | None = None
    deadline: float = 0.0
    timer: Timer | None = None
    # What its sender had not committed yet: what this message makes happen must not be
    # committed without it.
    needs: tuple[Unit, ...] = ()
    # By what its effect is remembered, "" when nobody may ever ask; and, once it is
    # handled, the unit that holds it.
    id: str = ""
    unit: Unit | None = None
    sender: str = ""
    sent_at_ns: int = 0
    trace: SpanContext | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it is a row of the store before it is a message."""
        return False

    def take_back(self, why: str, fault: Fault | None) -> bool:
        """Whether whoever sent it has it again, now that it was not handled."""
        return False

    def post(self, target: str, store: Store, unit: Unit) -> None:
        """Have it kept for the agent at `target` with `unit`; only what `is_kept`."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the answer."""
        return self.task is not None

    def reply(self, value: object) -> None:
        """`answer` with a value: all that most messages need, at a third of the cost."""
        task = self.task
        if task is None:
            if self.inline:
                self.value = value
            elif self.id:
                self.settle()
        else:
            self.value = value
            self.task = None
            if self.timer is not None:
                self.disarm()
            # trio asks of what it hands over that it can be unwrapped, and no more.
            reschedule(task, self)  # type: ignore[arg-type]

    def unwrap(self) -> object:
        """The value that it was answered with."""
        return self.value

    def answer(self, result: outcome.Outcome[object], *, last: bool = True) -> None:
        """Wake whoever waits; nothing when nobody does any more.

        Not the `last` word: what becomes of the message is open still.
        """
        if self.inline:
            self.result = result
            return
        self.disarm()
        if last and self.id:
            self.settle()
        task = self.task
        if task is not None:
            self.task = None
            reschedule(task, result)

    def settle(self) -> None:
        """What became of it is decided: tell whoever asks by id."""
        if self.body is not None:
            settle(self.body, self)

    def give_up(self, _: object) -> Abort:
        """The task that waits was cancelled."""
        self.task = None
        self.disarm()
        if self.body is not None:
            self.body.mailbox.withdraw(self)
        return Abort.SUCCEEDED

    def expire(self, seconds: float) -> None:
        """The deadline is over; it was `seconds` after the sending."""
        self.timer = None
        if self.body is not None:
            self.body.expire(self, seconds)

    def disarm(self) -> None:
        """No deadline any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
