"""One incarnation of one workflow: from its record to its end, or as far as it comes.

It is a child like any other: when it crashes it is restarted, within a budget of its own,
and goes on from the record. What the function means to say (a step that failed for good, a
`Refused`) is no crash: it ends the workflow at once, and what was done is compensated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import trio

from treewarden.clock import wall_ns
from treewarden.errors import (
    CallingSelf,
    NotRunning,
    Refused,
    RestoreError,
    StepFailed,
    StoreError,
)
from treewarden.exits import Fault
from treewarden.store import UNFINISHED, WorkflowState, load_steps, load_workflow
from treewarden.supervision import current_life

from .flow import Flow
from .ledger import Ledger, fall_back
from .saga import compensate
from .step import Course, Mismatch
from .values import decode_arguments, encode

if TYPE_CHECKING:
    from treewarden.store import Store, StoredStep, StoredWorkflow
    from treewarden.supervision import Life

    from .flow import OpenTransaction
    from .workflow import Workflow

STUCK_SECONDS: Final = 5.0
"""After which an incarnation that was stopped and has not ended is told of."""
MAX_ATTEMPTS: Final = 10
"""Incarnations without a step done between them; then somebody has to look. One that was
stopped in order is not counted."""

Tell: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Told the topic and payload of what happens to workflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What workflows live in; `wake` is told the id of each that ended or stands still."""

    store: Callable[[], Store]
    open_transaction: OpenTransaction
    find: Callable[[str, int], Workflow | None]
    tell: Tell
    wake: Callable[[str], None]


class Execution:
    """See the module; one for a child, whose incarnations `run` it one after the other."""

    def __init__(self, setting: Setting, id_: str) -> None:
        self.id = id_
        self._setting = setting
        self._life: Life | None = None
        self._stopping = trio.CancelScope()
        self._over: trio.Event | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether there is an incarnation that `run` has not returned to."""
        return self._over is not None

    @property
    def is_stopped(self) -> bool:
        """Whether somebody had the incarnation end, or the last one."""
        return self._stopping.cancel_called

    async def stop(self) -> None:
        """Have the incarnation end, as if it was stopped in order; wait for that.

        Raises:
            CallingSelf: from inside of it.
        """
        if self._over is None:
            return
        if self._life is not None and current_life.get() is self._life:
            raise CallingSelf(f"workflow {self.id} would wait for its own end")
        self._stopping.cancel()
        over = self._over
        with trio.move_on_after(STUCK_SECONDS):
            await over.wait()
            return
        self._setting.tell("workflow.stuck", {"id": self.id})
        await over.wait()

    async def run(self) -> None:
        """Bring it to its end, or to where it is stopped; perhaps there is nothing to do."""
        self._life = current_life.get()
        self._stopping = trio.CancelScope()
        over = self._over = trio.Event()
        try:
            with self._stopping:
                await self._run()
        finally:
            self._over = None
            over.set()

    async def _run(self) -> None:
        try:
            found = await load(self._setting.store(), self.id)
        except (NotRunning, StoreError) as error:
            await fall_back(self._setting.store, error)
        if found is None or not found.sound or found.state not in UNFINISHED:
            return
        definition = self._setting.find(found.name, found.version)
        if definition is None:
            return
        self._ledger = Ledger(self._setting.store, found)
        if found.attempts >= MAX_ATTEMPTS:
            await self._park(f"it was tried {found.attempts} times and did not get on")
            return
        await self._ledger.become(replace(found, attempts=found.attempts + 1))
        try:
            await self._perform(definition)
        except trio.Cancelled:
            if self._is_stopped_in_order:
                self._ledger.take_back_attempt()
            raise

    @property
    def _is_stopped_in_order(self) -> bool:
        life = self._life
        by_its_tree = life is not None and life.stopping and not life.killed
        return by_its_tree or self._stopping.cancel_called

    @property
    def _is_cut_off(self) -> bool:
        """Whether everything in it is cancelled from outside."""
        life = self._life
        return self._stopping.cancel_called or (
            life is not None and life.scope.cancel_called
        )

    async def _perform(self, definition: Workflow) -> None:
        try:
            store = self._setting.store()
            steps = await store.read(partial(load_steps, id_=self.id))
            args = decode_arguments(
                definition.function, self._ledger.workflow.arguments
            )
        except (RestoreError, TypeError, ValueError) as error:
            await self._park(f"its record cannot be read: {error}")
            return
        except (NotRunning, StoreError) as error:
            await self._ledger.fall_back(error)
        course = Course(self.id, steps)
        state = self._ledger.workflow.state
        flow = Flow(
            course,
            self._ledger,
            definition.retry,
            self._setting.open_transaction,
            self._tell_of_step,
            is_cut_off=lambda: self._is_cut_off,
            unwinding=state is not WorkflowState.RUNNING,
        )
        if state is WorkflowState.RUNNING:
            await self._go_on(definition, course, flow, args)
        else:
            await self._unwind(definition, course, flow, args)

    # --- forward -----------------------------------------------------------------------------

    async def _go_on(
        self, definition: Workflow, course: Course, flow: Flow, args: list[Any]
    ) -> None:
        result, fault = b"null", None
        with flow.scope:
            try:
                value = await definition.function(flow, *args)
                result = encode(value, f"the result of workflow {self.id}")
            except Exception as error:
                if not flow.mismatch and not _is_meant(error):
                    raise
                fault = _fault_of(error)
        flow.check_cut()
        if fault is None and not flow.mismatch:
            flow.mismatch = _left_over(course)
        if flow.mismatch:
            await self._park(flow.mismatch)
        elif fault is None:
            await self._end(WorkflowState.COMPLETED, "", result)
        else:
            await self._fail(flow, fault)

    async def _fail(self, flow: Flow, fault: Fault) -> None:
        outcome, reason = msgspec.json.encode(fault), fault.summary()
        if not flow.undos:
            await self._end(WorkflowState.FAILED, reason, outcome)
            return
        await self._become(WorkflowState.COMPENSATING, reason, outcome)
        await self._compensate(flow)

    # --- backward ----------------------------------------------------------------------------

    async def _unwind(
        self, definition: Workflow, course: Course, flow: Flow, args: list[Any]
    ) -> None:
        """Find what undoes the steps that are recorded, by running through them."""
        # It failed before: hence the unwinding.
        with flow.scope, suppress(Exception):
            await definition.function(flow, *args)
        flow.check_cut()
        missing = course.owed - {undo.step.number for undo in flow.undos}
        if flow.mismatch or missing:
            await self._park(
                flow.mismatch
                or f"the code no longer names what undoes step {min(missing)}"
            )
        else:
            await self._compensate(flow)

    async def _compensate(self, flow: Flow) -> None:
        stuck = await compensate(flow.undos, self._ledger, self._tell_of_step)
        workflow = self._ledger.workflow
        if stuck is None:
            is_cancelled = workflow.state is WorkflowState.CANCELLING
            state = (
                WorkflowState.CANCELLED if is_cancelled else WorkflowState.COMPENSATED
            )
            await self._end(state, workflow.reason, workflow.outcome)
            return
        reason = (
            f"{stuck.step.compensation}, which undoes step {stuck.step.number}"
            f" ({stuck.step.name}), failed: {stuck.fault.summary()}"
        )
        await self._stand_still(WorkflowState.NEEDS_ATTENTION, reason)

    # --- what becomes of it ------------------------------------------------------------------

    async def _park(self, reason: str) -> None:
        await self._stand_still(WorkflowState.PARKED, reason)

    async def _stand_still(self, state: WorkflowState, reason: str) -> None:
        workflow = self._ledger.workflow
        still = replace(
            workflow,
            state=state,
            resume_as=str(workflow.state),
            reason=reason,
        )
        await self._ledger.become(still)
        self._changed()

    async def _end(self, state: WorkflowState, reason: str, outcome: bytes) -> None:
        ended = replace(
            self._ledger.workflow,
            state=state,
            reason=reason,
            outcome=outcome,
            ended_ns=wall_ns(),
        )
        await self._ledger.become(ended)
        self._changed()

    async def _become(self, state: WorkflowState, reason: str, outcome: bytes) -> None:
        workflow = self._ledger.workflow
        await self._ledger.become(
            replace(workflow, state=state, reason=reason, outcome=outcome)
        )
        self._setting.tell(f"workflow.{state}", payload_of(self._ledger.workflow))

    def _changed(self) -> None:
        workflow = self._ledger.workflow
        self._setting.tell(f"workflow.{workflow.state}", payload_of(workflow))
        self._setting.wake(workflow.id)

    def _tell_of_step(self, topic: str, step: StoredStep) -> None:
        self._setting.tell(
            topic,
            {
                "id": step.workflow,
                "step": step.name,
                "number": step.number,
                "compensation": step.compensation,
                "attempts": step.attempts,
                "undo_failures": step.undo_failures,
            },
        )


async def load(store: Store, id_: str) -> StoredWorkflow | None:
    """The workflow as it is recorded, once what was handed over before is decided."""
    await settled(store)
    return await store.read(partial(load_workflow, id_=id_))


async def settled(store: Store) -> None:
    """Until everything handed over before is decided, one way or the other."""
    # What failed is not in the file, and the file is what counts.
    with suppress(StoreError):
        await store.settled()


def payload_of(workflow: StoredWorkflow) -> dict[str, Any]:
    """What is told of a workflow."""
    return {
        "id": workflow.id,
        "workflow": workflow.name,
        "version": workflow.version,
        "state": str(workflow.state),
        "reason": workflow.reason,
    }


def _is_meant(error: Exception) -> bool:
    """Whether it is the workflow's answer, and no crash of its code."""
    if isinstance(error, ExceptionGroup):
        return all(map(_is_meant, error.exceptions))
    return isinstance(error, (StepFailed, Refused))


def _fault_of(error: Exception) -> Fault:
    # Of a step that failed, what is recorded of it says more.
    return error.fault if isinstance(error, StepFailed) else Fault.capture(error)


def _left_over(course: Course) -> str:
    try:
        course.check_end()
    except Mismatch as mismatch:
        return str(mismatch)
    return ""
