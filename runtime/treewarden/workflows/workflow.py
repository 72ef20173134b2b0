"""What a workflow is: an async function with a name and a version, and how far one is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from treewarden.resilience import Retry, RetryBudget
from treewarden.store import WorkflowState

from .values import checked_name, name_of, plain

if TYPE_CHECKING:
    from treewarden.store import StoredWorkflow

AnyWorkflow: TypeAlias = Callable[..., Awaitable[Any]]
"""A function whose first parameter is the `Flow`, or a method of an object."""

STEP_ATTEMPTS: Final = 3
"""Attempts of a step that says nothing about it, on failures that pass by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow as it is registered; `retry` is for steps that bring none."""

    name: str
    version: int
    function: AnyWorkflow
    retry: Retry


def workflow_of(
    function: AnyWorkflow, name: str | None, version: int, retry: Retry | None
) -> Workflow:
    """A workflow to register.

    Raises:
        TypeError, ValueError: the function, its name or version cannot be one.
    """
    called = checked_name("a workflow", name if name is not None else name_of(function))
    underlying = plain(function)
    if not (
        inspect.iscoroutinefunction(underlying)
        or inspect.iscoroutinefunction(getattr(underlying, "__call__", None))  # noqa: B004 - what is async of it
    ):
        raise TypeError(
            f"workflow {called} must be an async function, not {function!r}"
        )
    if not inspect.signature(function).parameters:
        raise TypeError(f"workflow {called} must take the flow as its first argument")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"a version must be an int >= 1, not {version!r}")
    return Workflow(
        name=called,
        version=version,
        function=function,
        retry=retry if retry is not None else _retry(called),
    )


def _retry(name: str) -> Retry:
    # Without a budget: what is given up here is undone, and three attempts are few.
    return Retry(
        attempts=STEP_ATTEMPTS, budget=RetryBudget(ratio=math.inf), name=f"{name}: step"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStatus:
    """How far a workflow is; see `WorkflowState`.

    `steps_over` of its steps are done, failed or compensated. `attempts` count the
    incarnations since it last got on. `reason` says why it failed, is compensated, or
    stands still; a parked one that waits for its code to be registered needs nobody.
    Times are nanoseconds since the epoch, `ended_at_ns` None until it has ended.
    """

    id: str
    name: str
    version: int
    state: WorkflowState
    steps_over: int
    attempts: int
    reason: str
    begun_at_ns: int
    ended_at_ns: int | None


def status_of(
    stored: StoredWorkflow, steps_over: int, waits_for: str
) -> WorkflowStatus:
    """What may be seen of a workflow; `waits_for` is what keeps an unfinished one."""
    return WorkflowStatus(
        id=stored.id,
        name=stored.name,
        version=stored.version,
        state=WorkflowState.PARKED if waits_for else stored.state,
        steps_over=steps_over,
        attempts=stored.attempts,
        reason=waits_for or stored.reason,
        begun_at_ns=stored.begun_ns,
        ended_at_ns=stored.ended_ns or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStatistics:
    """Workflows of one runtime since it began; `running` have a child in the tree.

    `registered` are names with their versions, `waited_for` ids whose end somebody waits
    for. `resumed` were found unfinished by a recovery.
    """

    registered: int
    running: int
    waited_for: int
    started: int
    resumed: int
    completed: int
    failed: int
    compensated: int
    cancelled: int
    parked: int
    needs_attention: int
