"""Supervisors whose steps run in the wrong place."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import current_task

from treewarden.agents.body import AgentBody
from treewarden.supervision import tree
from treewarden.supervision.crash_loops import CrashLoops
from treewarden.supervision.supervisor import Supervisor
from treewarden.supervision.turns import Turns

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from treewarden.exits import Exit
    from treewarden.supervision.node import Life, Node
    from treewarden.supervision.spec import ChildSpec

    from .double import Replace

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


# --- starts in their caller's turn ----------------------------------------------------------


@DOUBLES.swaps(
    Turns,
    "instead",
    caught_by="test_at_once.py::test_what_a_start_asks_of_its_supervisor_comes_after_it",
)
def two_decisions_at_a_time(self: Turns, step: Callable[..., Any], *args: Any) -> Any:
    """While one child is begun, the supervisor turns to the next."""
    assert self._task is not None
    return self._task.context.copy().run(step, *args)


@DOUBLES.swaps(
    Supervisor,
    "_end_at_once",
    caught_by="test_at_once.py::test_what_a_restart_asks_of_its_supervisor_comes_after_it",
)
def an_end_that_forgets_who_came_meanwhile(self: Supervisor, life: Life) -> None:
    """What a restart has asked for waits until somebody else pokes."""
    self._half_done = self._turns.instead(self._child_ended, life)


@DOUBLES.swaps(
    Supervisor,
    "_end_at_once",
    caught_by="test_at_once.py::test_what_fails_when_an_end_is_dealt_with_is_the_supervisors_failure",
)
def a_failure_left_to_who_ended(self: Supervisor, life: Life) -> None:
    """The supervisor's failure comes out of its child's task, past every barrier."""
    self._half_done = self._turns.instead(self._child_ended, life)
    self.poke()


@DOUBLES.swaps(
    tree,
    "cycle",
    caught_by="test_at_once.py::test_whoever_starts_many_gives_way_every_32nd_time",
)
def starts_that_give_way_to_nobody(_: object) -> Iterator[bool]:
    """Whoever starts 10,000 children is everybody's delay."""
    return repeat(False)


@DOUBLES.swaps(
    Supervisor,
    "start_child",
    caught_by="test_at_once.py::test_a_start_that_fails_is_over_before_anything_else_is_done",
)
async def a_start_that_is_seen_through_later(
    self: Supervisor, spec: ChildSpec
) -> Node | None:
    """What came while it was begun is done first."""
    node, life = self._turns.instead(self._add_at_once, spec)
    if life.is_up:
        return node
    answer: Node | None = await self.ask(partial(self._come_up, node, life))
    return answer


_ALONE: Final = "test_at_once.py::test_who_crashes_at_once_again_and_again_gives_way_every_32nd_time"


@DOUBLES.swaps(CrashLoops, "has_time_for", caught_by=_ALONE)
def a_loop_of_crashes_for_itself(self: CrashLoops, restarts: int) -> bool:
    """Pitfall 1: who crashes at once, again and again, lets nobody else run."""
    return True


@DOUBLES.swaps(AgentBody, "first_turn", caught_by=_ALONE)
def a_pass_of_the_loop_for_each_crash(self: AgentBody, life: Life) -> Exit | None:
    """The message that comes first waits, though nothing in it does."""
    return None


@DOUBLES.breaks(
    caught_by="test_at_once.py::test_the_more_there_are_who_crash_again_the_sooner_each_gives_way"
)
def loops_of_crashes_that_know_of_no_others(replace: Replace) -> None:
    """A hundred at once keep the loop for themselves a hundred times as long."""
    replace(CrashLoops, "has_time_for", lambda self, restarts: restarts < 32)


_first_turn = AgentBody.first_turn


@DOUBLES.swaps(
    AgentBody,
    "first_turn",
    caught_by="test_at_once.py::test_who_stops_in_its_first_message_takes_its_leave",
)
def a_stop_without_a_leave(self: AgentBody, life: Life) -> Exit | None:
    """Who stops itself in its first message is not told of its end."""
    exit_, self.exit_after = _first_turn(self, life) or self.exit_after, None
    return exit_
