"""What somebody asks of a supervisor, and the answer to it.

A wish is carried out by the supervisor, in its turn; whoever has it waits, and may stop
waiting: that takes nothing back. Its failure is the asker's to handle, and nobody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import outcome
from trio.lowlevel import (
    Abort,
    Task,
    cancel_shielded_checkpoint,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .node import Node


class Wish:
    """Something to be done once, for one task that waits for it, if it still does.

    `asker` is the supervisor's child that the task is part of, if it is part of one.
    """

    __slots__ = ("_result", "_run", "_task", "asker")

    def __init__(
        self, run: Callable[[], Awaitable[Any]], asker: Node | None = None
    ) -> None:
        self._run = run
        self.asker = asker
        self._task: Task | None = None
        self._result: outcome.Outcome[Any] | None = None

    async def carry_out(self) -> None:
        """Do it and answer; what it awaits is the supervisor's to await."""
        if self._result is not None:
            return  # It was refused meanwhile.
        try:
            value = await self._run()
        except Exception as error:  # noqa: BLE001 - it is the asker's to handle
            self._answer(outcome.Error(error))
        else:
            self._answer(outcome.Value(value))

    def refuse(self, error: Exception) -> None:
        """It will not be done."""
        self._answer(outcome.Error(error))

    def _answer(self, result: outcome.Outcome[Any]) -> None:
        self._result = result
        task, self._task = self._task, None
        if task is not None:
            reschedule(task, result)

    async def wait(self) -> Any:  # noqa: ANN401 - each wish has its own answer
        """The answer, or what came out instead.

        Shielded when it is there already: a cancellation comes too late for it.
        """
        if self._result is not None:
            await cancel_shielded_checkpoint()
            return self._result.unwrap()
        self._task = current_task()
        return await wait_task_rescheduled(self._give_up)

    def _give_up(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
