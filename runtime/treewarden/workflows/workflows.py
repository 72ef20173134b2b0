"""The workflows of a runtime: registered by name, started by id, asked about at any time.

It keeps no list of them: those that run are children in the tree, and all are rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

import msgspec
import trio

from treewarden.agents import current_body
from treewarden.clock import wall_ns
from treewarden.errors import (
    CompensationFailed,
    NotRunning,
    RestoreError,
    TooManyChildren,
    WorkflowExists,
    WorkflowFailed,
    WorkflowParked,
    WorkflowUnknown,
)
from treewarden.exits import Fault
from treewarden.resilience import check_count
from treewarden.store import (
    ENDED,
    WAITING,
    StoredWorkflow,
    Unit,
    WorkflowState,
    count_steps,
    insert_workflow,
    keep_step,
    load_steps,
    load_workflows,
    update_workflow,
)
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    SupervisorRef,
    SupervisorSpec,
    check_id,
)

from .execution import Setting, load, payload_of
from .recovery import Recovery
from .values import decode_arguments, decode_result, encode
from .workflow import WorkflowStatistics, WorkflowStatus, status_of, workflow_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from treewarden.resilience import Retry
    from treewarden.store import Store, StoredStep, Write
    from treewarden.supervision import Directory

    from .execution import Tell
    from .flow import Flow, OpenTransaction
    from .workflow import AnyWorkflow, Workflow

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_RUNNING: Final = 10_000
"""Workflows that run at the same time; beyond these none is started."""
LISTED: Final = 100
"""How many a list has unless it is told."""

_ANY: Final = frozenset(WorkflowState)


class WorkflowRef(Generic[T]):
    """The address of a workflow; stays valid across restarts of it and of the process."""

    __slots__ = ("_workflows", "id")

    def __init__(self, workflows: Workflows, id_: str) -> None:
        self._workflows = workflows
        self.id = id_

    async def result(self) -> T:
        """Wait for its end, however many restarts away; what it returned.

        Raises:
            WorkflowFailed: it failed, was compensated or cancelled.
            WorkflowParked: it stands still, for the reason in it.
            CompensationFailed: it stands still, and a person is needed.
            WorkflowUnknown: there is none of this id, or not any more.
        """
        return cast("T", await self._workflows.result(self.id))

    async def status(self) -> WorkflowStatus:
        """How far it is.

        Raises:
            WorkflowUnknown: there is none of this id, or not any more.
        """
        return await self._workflows.status(self.id)

    async def cancel(self) -> WorkflowStatus:
        """See `Workflows.cancel`."""
        return await self._workflows.cancel(self.id)


class Workflows:
    """Durable workflows: async functions whose steps are recorded, and sagas.

    `runtime.workflows` is those of the runtime; its children are below `path`.
    """

    def __init__(
        self,
        directory: Directory,
        path: str,
        *,
        store: Callable[[], Store],
        open_transaction: OpenTransaction,
        tell: Tell,
    ) -> None:
        self._store = store
        self._tell = tell
        self._known: dict[tuple[str, int], Workflow] = {}
        self._newest: dict[str, Workflow] = {}
        # Who waits for an end, by id; and ids that are being written down.
        self._waiting: dict[str, trio.Event] = {}
        self._beginning: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._supervisor = SupervisorRef(directory, f"{path}/running")
        self._recovery = Recovery(
            directory,
            self._supervisor.path,
            Setting(
                store=store,
                open_transaction=open_transaction,
                find=lambda name, version: self._known.get((name, version)),
                tell=self._heard,
                wake=self._wake,
            ),
        )

    def supervisor(self) -> SupervisorSpec:
        """Workflows, each with a budget of its own, and who starts them."""
        return SupervisorSpec(
            [
                ChildSpec("running", DynamicSupervisorSpec(max_children=MAX_RUNNING)),
                ChildSpec("recovery", self._recovery.run),
            ],
            strategy="rest_for_one",
            intensity=Intensity(3, 5.0),
        )

    # --- describing --------------------------------------------------------------------------

    def register(
        self,
        function: Callable[[Flow, Unpack[Ts]], Awaitable[T]],
        *,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
    ) -> None:
        """Have workflows of this name run by `function(flow, *args)`.

        Do it at every start: unfinished ones of earlier runs go on from then on. Change
        `version` when the steps change; those that began with another one go on with the
        function that was registered for it, and without one they wait. The newest version
        is what is started. Again under a name and version: the new one takes the place.
        `retry` is for steps that bring none; None is three attempts. `Refused` out of the
        function, or a step that failed for good, ends the workflow at once, and what was
        done is compensated; another exception is a crash, and tried again within a budget.

        Raises:
            TypeError, ValueError: it cannot be a workflow.
        """
        workflow = workflow_of(function, name, version, retry)
        self._known[workflow.name, version] = workflow
        newest = self._newest.get(workflow.name)
        if newest is None or newest.version <= version:
            self._newest[workflow.name] = workflow
        self._recovery.look_at_all()

    # --- starting ----------------------------------------------------------------------------

    @overload
    async def start(
        self,
        workflow: Callable[[Flow, Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        id: str,
    ) -> WorkflowRef[T]: ...

    @overload
    async def start(
        self, workflow: str, *args: object, id: str
    ) -> WorkflowRef[Any]: ...

    async def start(
        self,
        workflow: str | AnyWorkflow,
        *args: object,
        id: str,  # noqa: A002 - design.md names it so
    ) -> WorkflowRef[Any]:
        """Begin a workflow, by its function or name; returns once it is recorded.

        From then on it is brought to its end, whatever happens to this process. `id` says
        which one it is, for whoever asks or starts it twice. Cancelled, it may have been
        started: ask by its id. In a handler it is an outside call: it is started even if
        the handler fails.

        Raises:
            WorkflowExists: there is one of this id, perhaps ended.
            WorkflowUnknown: nobody registered it.
            TypeError, ValueError: it does not take the arguments, or the id is none.
            TooManyChildren: 10,000 are running; none was started.
            StoreError: it could not be recorded; none was started.
        """
        definition = self._definition(workflow)
        check_id(id)
        arguments = encode(args, f"the arguments of {id}")
        decode_arguments(definition.function, arguments)
        if self._supervisor_is_full():
            raise TooManyChildren(self._supervisor.path, MAX_RUNNING)
        if id in self._beginning:
            raise WorkflowExists(id)
        self._beginning.add(id)
        try:
            await self._begin(_first(id, definition, arguments))
        finally:
            self._beginning.discard(id)
        return WorkflowRef(self, id)

    async def _begin(self, workflow: StoredWorkflow) -> None:
        store = self._store()
        if await load(store, workflow.id) is not None:
            raise WorkflowExists(workflow.id)
        await store.wait_room()
        unit = Unit(f"workflow {workflow.id}")
        unit.writes = [insert_workflow(workflow)]
        sender = current_body.get()
        if sender is not None:
            unit.needs = sender.unsettled()
        unit.release.append(partial(self._begun, workflow))
        store.hand_over(unit)
        await store.wait(unit)

    def _begun(self, workflow: StoredWorkflow, error: Exception | None) -> None:
        # Here, and not after waiting: whoever waits may be cancelled.
        if error is None:
            self._note("workflow.started", workflow)
            self._recovery.look_at(workflow.id)

    def _definition(self, workflow: str | AnyWorkflow) -> Workflow:
        if isinstance(workflow, str):
            found = self._newest.get(workflow)
        else:
            known = self._newest.values()
            found = next((one for one in known if one.function == workflow), None)
        if found is None:
            raise WorkflowUnknown(f"no workflow {workflow!r} is registered")
        return found

    def _supervisor_is_full(self) -> bool:
        try:
            return self._supervisor.count_children().specs >= MAX_RUNNING
        except NotRunning:
            return False

    # --- asking ------------------------------------------------------------------------------

    def ref(self, id_: str) -> WorkflowRef[Any]:
        """The address of the workflow of this id; nobody looks whether there is one."""
        return WorkflowRef(self, id_)

    async def status(self, id_: str) -> WorkflowStatus:
        """How far a workflow is; see `WorkflowRef.status`."""
        return await self._status(await self._load(id_))

    async def list(
        self, states: Collection[WorkflowState] = _ANY, *, limit: int = LISTED
    ) -> tuple[WorkflowStatus, ...]:
        """Workflows in one of these states, those that were started last first.

        At most `limit`, and 1000. Ended ones are kept for a day, the newest 10,000.

        Raises:
            TypeError, ValueError: there is no such limit.
        """
        check_count("limit", limit, 0)
        question = partial(_listed, states=states, limit=limit)
        found = await self._store().read(question)
        return tuple(
            status_of(one, steps_over, self._waits_for(one))
            for one, steps_over in found
        )

    async def result(self, id_: str) -> object:
        """What a workflow returned; see `WorkflowRef.result`."""
        while True:
            # Before looking: it may end between the two.
            waiting = self._waiting.get(id_)
            if waiting is None:
                waiting = self._waiting[id_] = trio.Event()
            try:
                workflow = await self._load(id_)
                if workflow.state in ENDED | WAITING:
                    return self._answer(workflow)
                await waiting.wait()
            finally:
                if not waiting.statistics().tasks_waiting:
                    self._forget(id_, waiting)

    def _answer(self, workflow: StoredWorkflow) -> object:
        id_, reason = workflow.id, workflow.reason
        match workflow.state:
            case WorkflowState.COMPLETED:
                definition = self._known.get((workflow.name, workflow.version))
                if definition is None:
                    return msgspec.json.decode(workflow.outcome)
                return decode_result(definition.function, workflow.outcome)
            case WorkflowState.PARKED:
                raise WorkflowParked(id_, reason)
            case WorkflowState.NEEDS_ATTENTION:
                raise CompensationFailed(id_, reason, _fault(workflow))
            case _:
                raise WorkflowFailed(id_, workflow.state, reason, _fault(workflow))

    # --- acting ------------------------------------------------------------------------------

    async def cancel(self, id_: str) -> WorkflowStatus:
        """Stop a workflow for good; what it has done is compensated.

        Returns once it is recorded and the step in hand has been stopped; `result` waits
        for the compensations. A step that may have happened, and has a compensation, is
        run to its end before it is undone. One that has ended stays as it is, and one
        that stands still is cancelled too. One that does not let itself be stopped is
        told of (`workflow.stuck`) and waited for. Cancelled itself, it did nothing, or all.

        Raises:
            WorkflowUnknown: there is none of this id.
            RestoreError: its row is damaged, and stays as it is.
            CallingSelf: from inside of it; raise `Refused` instead.
            StoreError: it could not be recorded; the workflow goes on.
        """
        async with self._recovery.acting_on(id_):
            await self._recovery.stop(id_)
            workflow = await self._load(id_)
            _check_sound(workflow)
            if workflow.state not in ENDED:
                workflow = await self._record(
                    _moved(workflow, WorkflowState.CANCELLING), []
                )
                self._note("workflow.cancelling", workflow)
        return await self._status(workflow)

    async def resume(self, id_: str) -> WorkflowStatus:
        """Have a workflow that stands still go on where it was, with new attempts.

        Raises:
            WorkflowUnknown: there is none of this id.
            RestoreError: its row, or that of a step, is damaged.
            ValueError: it does not stand still.
            StoreError: it could not be recorded.
        """
        async with self._recovery.acting_on(id_):
            workflow = await self._load(id_)
            _check_sound(workflow)
            if workflow.state not in WAITING:
                raise ValueError(
                    f"workflow {id_} is {workflow.state}, it does not wait"
                )
            steps = await self._store().read(partial(load_steps, id_=id_))
            moved = _moved(workflow, WorkflowState(workflow.resume_as))
            workflow = await self._record(moved, _given_new_attempts(steps))
            self._note("workflow.resumed", workflow)
        return await self._status(workflow)

    async def _record(
        self, workflow: StoredWorkflow, more: Sequence[Write]
    ) -> StoredWorkflow:
        store = self._store()
        await store.wait_room()
        unit = Unit(f"workflow {workflow.id}")
        unit.writes = [update_workflow(workflow), *more]
        store.hand_over(unit)
        await store.wait(unit)
        return workflow

    # --- watching ----------------------------------------------------------------------------

    def statistics(self) -> WorkflowStatistics:
        """How they are doing, since the runtime began."""
        try:
            running = self._supervisor.count_children().specs
        except NotRunning:
            running = 0
        counts = {state: self._counts[f"workflow.{state}"] for state in _COUNTED}
        return WorkflowStatistics(
            registered=len(self._known),
            running=running,
            waited_for=len(self._waiting),
            started=self._counts["workflow.started"],
            resumed=self._recovery.resumed,
            **counts,
        )

    async def _load(self, id_: str) -> StoredWorkflow:
        workflow = await load(self._store(), id_)
        if workflow is None:
            raise WorkflowUnknown(f"there is no workflow of the id {id_!r}")
        return workflow

    async def _status(self, workflow: StoredWorkflow) -> WorkflowStatus:
        over = await self._store().read(partial(count_steps, id_=workflow.id))
        return status_of(workflow, over, self._waits_for(workflow))

    def _waits_for(self, workflow: StoredWorkflow) -> str:
        key = workflow.name, workflow.version
        if workflow.state in ENDED | WAITING or key in self._known:
            return ""
        return (
            f"no workflow {workflow.name} of version {workflow.version} is registered"
        )

    def _note(self, topic: str, workflow: StoredWorkflow) -> None:
        self._heard(topic, payload_of(workflow))

    def _heard(self, topic: str, payload: dict[str, Any]) -> None:
        self._counts[topic] += 1
        self._tell(topic, payload)

    def _wake(self, id_: str) -> None:
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            waiting.set()

    def _forget(self, id_: str, waiting: trio.Event) -> None:
        if self._waiting.get(id_) is waiting:
            del self._waiting[id_]


_COUNTED: Final = (*(state.value for state in ENDED), *(s.value for s in WAITING))


def _check_sound(workflow: StoredWorkflow) -> None:
    if not workflow.sound:
        raise RestoreError(f"workflow {workflow.id}: {workflow.reason}")


def _listed(
    connection: sqlite3.Connection, states: Collection[WorkflowState], limit: int
) -> list[tuple[StoredWorkflow, int]]:
    found = load_workflows(connection, states, limit)
    return [(one, count_steps(connection, one.id)) for one in found]


def _first(id_: str, workflow: Workflow, arguments: bytes) -> StoredWorkflow:
    return StoredWorkflow(
        id=id_,
        name=workflow.name,
        version=workflow.version,
        state=WorkflowState.RUNNING,
        attempts=0,
        begun_ns=wall_ns(),
        ended_ns=0,
        resume_as="",
        reason="",
        outcome=b"null",
        arguments=arguments,
    )


def _moved(workflow: StoredWorkflow, state: WorkflowState) -> StoredWorkflow:
    fault = _fault(workflow)
    reason = fault.summary() if fault is not None else ""
    return replace(workflow, state=state, attempts=0, resume_as="", reason=reason)


def _given_new_attempts(steps: Collection[StoredStep]) -> list[Write]:
    return [
        keep_step(replace(step, undo_failures=0))
        for step in steps
        if step.undo_failures
    ]


def _fault(workflow: StoredWorkflow) -> Fault | None:
    return msgspec.json.decode(workflow.outcome, type=Fault | None)
