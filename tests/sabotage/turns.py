"""Supervisors whose steps run in the wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio.lowlevel import current_task

from treewarden.supervision.supervisor import Supervisor
from treewarden.supervision.turns import Turns

from .double import Area

if TYPE_CHECKING:
    from contextvars import Context

    from treewarden.supervision.node import Life

DOUBLES: Final = Area("tests/runtime/supervision")


@DOUBLES.swaps(
    Turns,
    "poke",
    caught_by="test_turns.py::test_a_step_runs_in_the_context_of_the_task_that_waits_for_it",
)
def a_step_in_the_context_of_who_brings_news(self: Turns) -> None:
    """TA-10: first start and restart differ in what they inherit."""
    if not self._running and self._coroutine is not None:
        self._step(None)


@DOUBLES.swaps(
    Turns,
    "poke",
    caught_by="test_turns.py::test_news_is_heard_in_the_turn_of_who_brings_it",
)
def news_that_waits_for_a_pass_of_the_loop(self: Turns) -> None:
    """Every decision costs a pass."""
    self.poke_soon()


_ended = Supervisor.ended


@DOUBLES.swaps(
    Supervisor,
    "ended",
    caught_by="test_turns.py::test_what_restarts_at_once_has_the_task_of_the_last_life_and_nothing_else_of_it",
)
def a_life_in_the_context_of_the_last_one(
    self: Supervisor, life: Life
) -> tuple[Life, Context] | None:
    """TA-10: what one incarnation has set, the next one finds."""
    heir = _ended(self, life)
    return (heir[0], current_task().context) if heir is not None else None
