"""A message on its way: what is asked, by whom, and where the answer goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import Task, reschedule

if TYPE_CHECKING:
    import outcome

    from treewarden.store import Unit
    from treewarden.supervision import Timer
    from treewarden.telemetry import SpanContext

    from .operation import Operation


class Envelope:
    """One message. `task` is who waits: for the answer, or (a cast) for room."""

    __slots__ = (
        "args",
        "begun",
        "inline",
        "is_call",
        "kwargs",
        "needs",
        "operation",
        "result",
        "sender",
        "sent_at_ns",
        "task",
        "timer",
        "trace",
    )

    def __init__(
        self,
        operation: Operation,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.is_call = False
        self.begun = False
        # In its caller's turn the answer is left here: that task is not parked.
        self.inline = False
        self.result: outcome.Outcome[object] | None = None
        self.task: Task | None = None
        self.timer: Timer | None = None
        # What its sender had not committed yet: what this message makes happen must not
        # be committed without it.
        self.needs: tuple[Unit, ...] = ()
        self.sender = ""
        self.sent_at_ns = 0
        self.trace: SpanContext | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the answer."""
        return self.task is not None

    def answer(self, result: outcome.Outcome[object]) -> None:
        """Wake whoever waits; nothing when nobody does any more."""
        if self.inline:
            self.result = result
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        task = self.task
        if task is not None:
            self.task = None
            reschedule(task, result)
