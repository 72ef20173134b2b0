"""What undoes the steps of a workflow that failed: newest first, each until it has worked.

A saga (Garcia-Molina and Salem, 1987) has no isolation: everybody sees what its steps did
until a compensation takes it back. A compensation runs at least once, in the same order on
every attempt, and once it is recorded as done never again. It is tried `UNDO_ATTEMPTS`
times, over restarts too; then a person has to look, and what is older stays as it is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from treewarden.exits import Fault
from treewarden.resilience import Backoff
from treewarden.store import StepState

from .step import Step, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.store import StoredStep

    from .ledger import Ledger

UNDO_ATTEMPTS: Final = 4
"""Failures of one compensation after which a person is needed."""
UNDO_BACKOFF: Final = Backoff(initial=0.5, maximum=10.0)
"""Between two attempts of one compensation."""

_CHANCE: Final = random.Random()  # noqa: S311 - spreading, not secrecy


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """A step that is done, and what undoes it.

    `run` is given the step as it will be recorded. When `commits` it records that itself,
    in one commit with what it undoes.
    """

    step: StoredStep
    run: Callable[[StoredStep], Awaitable[None]]
    commits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A compensation that failed as often as it may."""

    step: StoredStep
    fault: Fault


def owed(undos: list[Undo]) -> list[Undo]:
    """What is still to be undone, in its order: newest first."""
    return [one for one in reversed(undos) if one.step.state is StepState.DONE]


async def compensate(
    undos: list[Undo], ledger: Ledger, tell: Callable[[str, StoredStep], None]
) -> Stuck | None:
    """Undo all that is owed; None when that is done.

    `tell` hears of each compensation that was done or has failed. Cancelled, what is
    recorded stays so, and the rest is still owed.
    """
    for undo in owed(undos):
        fault = await _undo(undo, ledger, tell)
        if fault is not None:
            return Stuck(step=undo.step, fault=fault)
    return None


async def _undo(
    undo: Undo, ledger: Ledger, tell: Callable[[str, StoredStep], None]
) -> Fault | None:
    step = undo.step
    while True:
        try:
            await _attempt(undo, step)
        except Exception as error:  # noqa: BLE001 - counted, and told of
            step = replace(step, undo_failures=step.undo_failures + 1)
            await ledger.note(step)
            tell("workflow.compensation_failed", step)
            if step.undo_failures >= UNDO_ATTEMPTS:
                return Fault.capture(error)
            await trio.sleep(UNDO_BACKOFF.delay(step.undo_failures, _CHANCE.random))
        else:
            if not undo.commits:
                await ledger.note_done(_undone(step))
            tell("workflow.compensated_step", step)
            return None


async def _attempt(undo: Undo, step: StoredStep) -> None:
    token = running.set(
        Step(
            workflow=step.workflow,
            number=step.number,
            name=step.compensation,
            attempt=step.undo_failures + 1,
            is_compensation=True,
        )
    )
    try:
        await undo.run(_undone(step))
    finally:
        running.reset(token)


def _undone(step: StoredStep) -> StoredStep:
    return replace(step, state=StepState.COMPENSATED)
