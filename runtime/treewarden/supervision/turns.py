"""A coroutine that goes on at once, in the turn of whoever has news for it.

A task that waits for news costs a pass of trio's loop each time it gets some, as much as
a tenth of a restart. A supervisor gets its news from tasks that are running anyway: a
child that ends, a child that is ready, somebody with a wish. So its coroutine is not left
to a task of its own; whoever pokes it runs its next step, as an ordinary call, in the
context of the task that `run` was called in. Nobody can tell the difference but by the
clock: it is one coroutine, one step at a time, and it waits only where it says so.

What it must not do is await anything of trio's: that would make somebody else's task wait.
And nobody's Ctrl-C tears a step in two: it is raised in trio's main task, a moment later.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import outcome
from trio.lowlevel import (
    Abort,
    Task,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

P = ParamSpec("P")
T = TypeVar("T")

_NEWS: Final = object()


@types.coroutine
def news() -> Generator[object, None, None]:
    """Wait until somebody pokes; there may be no news, so look again."""
    yield _NEWS


class Turns:
    """Runs one coroutine at a time; made anew or used again after `run` has returned."""

    __slots__ = ("_coroutine", "_parked", "_result", "_running", "_task")

    def __init__(self) -> None:
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._task: Task | None = None
        self._parked = False
        self._running = False
        self._result: outcome.Outcome[Any] | None = None

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end; what cancels the task is raised in the coroutine."""
        self._task = current_task()
        self._result = None
        self._coroutine = coroutine
        self._step(None)
        while self._result is None:
            self._parked = True
            try:
                await wait_task_rescheduled(self._abort)
            except BaseException as error:
                if self._coroutine is None:
                    raise
                self._step(error)
            else:
                if self._coroutine is not None:
                    self._step(None)
        self._task = None
        value: T = self._result.unwrap()
        return value

    def _abort(self, _: object) -> Abort:
        self._parked = False
        return Abort.SUCCEEDED

    @property
    def is_borrowed(self) -> bool:
        """Whether the step that runs is run by whoever poked, not in the task of `run`."""
        return self._parked

    def poke(self) -> None:
        """Run its next step now; nothing while it runs, for it looks before it waits."""
        if not self._running and self._coroutine is not None:
            assert self._task is not None  # noqa: S101 - set with the coroutine
            self._task.context.run(self._step, None)

    @enable_ki_protection
    def instead(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `step` while the coroutine waits, as if it did, and in its context.

        What others have news of meanwhile it does not hear of: poke it then.
        """
        assert self._task is not None  # noqa: S101 - it waits
        self._running = True
        try:
            return self._task.context.run(step, *args, **kwargs)
        finally:
            self._running = False

    def poke_soon(self) -> None:
        """Run its next step in the task of `run`, in trio's next pass."""
        if self._parked and self._task is not None:
            self._parked = False
            reschedule(self._task)

    @enable_ki_protection
    def _step(self, error: BaseException | None) -> None:
        coroutine = self._coroutine
        assert coroutine is not None  # noqa: S101 - whoever calls it has looked
        self._running = True
        try:
            told = coroutine.send(None) if error is None else coroutine.throw(error)
            while told is not _NEWS:
                told = coroutine.throw(RuntimeError("it awaits more than news"))
        except StopIteration as stop:
            self._end(outcome.Value(stop.value))
        except BaseException as raised:  # noqa: BLE001 - raised where `run` is awaited
            self._end(outcome.Error(raised))
        finally:
            self._running = False

    def _end(self, result: outcome.Outcome[Any]) -> None:
        self._coroutine = None
        self._result = result
        self.poke_soon()
