"""Who sees to it that every unfinished workflow has a child, and only one.

There is one such task in a runtime, and a file has one runtime, so a workflow has one
owner. Whatever happened (a start, the end of a child, a new run of the process), the task
looks at the row and at the tree, `judge` says what is missing, and it is done. It keeps no
list of workflows: the file has them, and the tree has those that run.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from treewarden.clock import wall_ns
from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    NotRunning,
    RestoreError,
    ShuttingDown,
    StoreBroken,
    StoreClosed,
    TooManyChildren,
    UnknownChild,
)
from treewarden.exits import Crash, Fault, Normal
from treewarden.store import (
    PAGE,
    UNFINISHED,
    StepState,
    Unit,
    WorkflowState,
    has_ended,
    load_steps,
    load_unfinished,
    prune_workflows,
    update_workflow,
)
from treewarden.supervision import ChildSpec, NodeState, SupervisorRef, current_life

from .execution import Execution, load, payload_of, settled
from .ledger import AGAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from treewarden.exits import Exit
    from treewarden.store import StoredWorkflow
    from treewarden.supervision import Directory, Life, Node

    from .execution import Setting

PRUNE_EVERY: Final = 100
"""Workflows that end between two looks at what is too old to be kept."""


class Need(StrEnum):
    """What a workflow wants done."""

    NOTHING = "nothing"
    START = "start"
    GIVE_UP = "give up"


def judge(workflow: StoredWorkflow, *, is_known: bool, child: NodeState | None) -> Need:
    """What a workflow wants, by its row, its code and its child in the tree."""
    if not workflow.sound or workflow.state not in UNFINISHED:
        return Need.NOTHING
    if child is NodeState.FAILED:
        return Need.GIVE_UP
    return Need.START if is_known and child is None else Need.NOTHING


@dataclass(slots=True)
class _Line:
    """Those who want to act on one workflow from outside, one after the other."""

    turn: trio.Lock = field(default_factory=trio.Lock)
    asking: int = 0


class Recovery:
    """See the module; `path` is where the children of workflows are."""

    def __init__(self, directory: Directory, path: str, setting: Setting) -> None:
        self.resumed = 0
        self._directory = directory
        self._path = path
        self._setting = setting
        self._supervisor = SupervisorRef(directory, path)
        # Ids to look at, each once; and whether to look at all that are unfinished.
        self._due: dict[str, None] = {}
        self._all_due = True
        self._held: dict[str, _Line] = {}
        # How often somebody has acted on a workflow from outside.
        self._acts = 0
        self._had_no_room = False
        self._ends = 0
        self._news = trio.Event()

    # --- asking ------------------------------------------------------------------------------

    def look_at(self, id_: str) -> None:
        """Something has happened to it."""
        self._due[id_] = None
        self._news.set()

    def look_at_all(self) -> None:
        """Something has happened that concerns everybody."""
        self._all_due = True
        self._news.set()

    @asynccontextmanager
    async def acting_on(self, id_: str) -> AsyncIterator[None]:
        """Act on it from outside, alone; nobody starts it before the block is left.

        What it wants then is looked at.
        """
        line = self._held.setdefault(id_, _Line())
        line.asking += 1
        try:
            async with line.turn:
                yield
        finally:
            self._acts += 1
            line.asking -= 1
            if not line.asking:
                del self._held[id_]
            self.look_at(id_)

    async def stop(self, id_: str) -> None:
        """End the incarnation that is at work, inside of `acting_on`; wait for its end.

        Its supervisor is not asked: until one that does not end had ended, however long
        that takes, it would start no others.

        Raises:
            CallingSelf: from inside of it.
        """
        node = self._node(id_)
        at_work = _execution_of(node)
        if at_work is not None:
            await at_work.stop()
        elif node is not None and node.state is NodeState.FAILED:
            # Kept for people to see; what is done for it now begins with a new child.
            with suppress(UnknownChild, NotRunning, ShuttingDown):
                await self._supervisor.terminate_child(id_)
        await trio.lowlevel.checkpoint()

    def _node(self, id_: str) -> Node | None:
        return self._directory.find(f"{self._path}/{id_}")

    # --- the task ----------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Look, whenever there is reason to; a child of the runtime."""
        self._all_due = True
        self._news.set()
        # What the last run has left is old by now.
        self._ends = PRUNE_EVERY
        task_status.started()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            try:
                await self._look()
            except StoreBroken:
                # Nothing is lost: all are looked at again.
                self.look_at_all()
                await trio.sleep(AGAIN_SECONDS)
            except (NotRunning, StoreClosed):
                # The store is gone, and takes along everything that stands on it.
                await trio.sleep_forever()

    async def _look(self) -> None:
        if self._ends >= PRUNE_EVERY:
            self._ends = 0
            await self._prune()
        if self._all_due:
            self._all_due = False
            await self._look_at_unfinished()
        while self._due:
            id_ = next(iter(self._due))
            del self._due[id_]
            workflow = await load(self._setting.store(), id_)
            await self._see_to(id_, workflow)

    async def _look_at_unfinished(self) -> None:
        store = self._setting.store()
        await settled(store)
        after = ""
        while True:
            page = await store.read(partial(load_unfinished, after=after))
            for workflow in page:
                if not workflow.sound:
                    self._setting.tell("workflow.unreadable", payload_of(workflow))
                elif await self._see_to(workflow.id, workflow):
                    self.resumed += 1
            if len(page) < PAGE or not page[-1].id > after:
                return
            after = page[-1].id

    async def _see_to(self, id_: str, workflow: StoredWorkflow | None) -> bool:
        """Do what it wants; whether it was started."""
        if id_ in self._held:
            return False
        if workflow is None or workflow.state not in UNFINISHED:
            self._setting.wake(id_)
            return False
        node = self._node(id_)
        is_known = self._setting.find(workflow.name, workflow.version) is not None
        need = judge(workflow, is_known=is_known, child=_state_of(node))
        if need is Need.START:
            return await self._start(id_)
        if need is Need.GIVE_UP:
            await self._give_up(id_, node.last_exit if node is not None else None)
        return False

    async def _start(self, id_: str) -> bool:
        try:
            await self._supervisor.start_child(
                ChildSpec(
                    id_,
                    self._live,
                    args=(Execution(self._setting, id_),),
                    restart="transient",
                )
            )
        except TooManyChildren:
            self._had_no_room = True
        except (AlreadyPresent, AlreadyStarted, NotRunning, ShuttingDown):
            # One that is or will be there reads the same row. And a supervisor that is
            # not there takes this task with it: it begins again.
            pass
        else:
            return True
        return False

    async def _live(self, execution: Execution) -> None:
        """One incarnation of a workflow's child."""
        life = current_life.get()
        if life is not None:
            life.watchers.append(self._ended)
        if execution.id in self._held:
            # Whoever acts on it has it looked at.
            return
        await execution.run()
        if execution.is_stopped:
            # By somebody who may have left before it had ended.
            self.look_at(execution.id)

    def _ended(self, life: Life) -> None:
        # What comes of it, its supervisor decides after this; the look is later still.
        self._ends += 1
        if not isinstance(life.exit, Normal):
            self.look_at(life.node.id)
        if self._had_no_room:
            self._had_no_room = False
            self.look_at_all()
        if self._ends >= PRUNE_EVERY:
            self._news.set()

    # --- a child that was given up -----------------------------------------------------------

    async def _give_up(self, id_: str, exit_: Exit | None) -> None:
        """Its budget is spent: what it did is undone, or, if that is how far it was, parked."""
        fault = exit_.fault if isinstance(exit_, Crash) else None
        acts = self._acts
        workflow = await load(self._setting.store(), id_)
        if workflow is None or workflow.state not in UNFINISHED:
            return
        workflow = await self._given_up(workflow, fault)
        if id_ in self._held or acts != self._acts:
            # Somebody has cancelled or resumed it meanwhile, and has it looked at again.
            self.look_at(id_)
            return
        await self._record(workflow)
        # Somebody else may have, or the whole may be stopping.
        with suppress(UnknownChild, NotRunning, ShuttingDown):
            await self._supervisor.terminate_child(workflow.id)
        self._setting.tell(f"workflow.{workflow.state}", payload_of(workflow))
        self.look_at(workflow.id)

    async def _given_up(
        self, workflow: StoredWorkflow, fault: Fault | None
    ) -> StoredWorkflow:
        why = "crash_loop" + (f": {fault.summary()}" if fault is not None else "")
        if workflow.state is not WorkflowState.RUNNING:
            return _parked(workflow, why)
        store = self._setting.store()
        try:
            steps = await store.read(partial(load_steps, id_=workflow.id))
        except RestoreError as error:
            return _parked(workflow, f"{why}; {error}")
        undone = any(one.compensation and one.state in _OWING for one in steps)
        return replace(
            workflow,
            state=WorkflowState.COMPENSATING if undone else WorkflowState.FAILED,
            ended_ns=0 if undone else wall_ns(),
            attempts=0,
            reason=why,
            outcome=msgspec.json.encode(fault),
        )

    async def _record(self, workflow: StoredWorkflow) -> None:
        store = self._setting.store()
        unit = Unit(f"workflow {workflow.id}")
        unit.writes = [update_workflow(workflow)]
        store.hand_over(unit)
        await store.wait(unit)

    async def _prune(self) -> None:
        store = self._setting.store()
        if await store.read(has_ended):
            unit = Unit(self._path)
            unit.writes = prune_workflows(wall_ns())
            store.hand_over(unit)


def _execution_of(node: Node | None) -> Execution | None:
    """What the child of a workflow is at work on; None when it is not."""
    found = node.spec.args[0] if node is not None and node.spec.args else None
    return found if isinstance(found, Execution) and found.is_at_work else None


def _state_of(node: Node | None) -> NodeState | None:
    """A child whose end its supervisor has not come to yet is none any more."""
    if node is None or (node.life is not None and node.life.ended):
        return None
    return node.state


def _parked(workflow: StoredWorkflow, why: str) -> StoredWorkflow:
    return replace(
        workflow,
        state=WorkflowState.PARKED,
        resume_as=str(workflow.state),
        reason=why,
    )


# A step in hand may have happened, and is found out about before it is undone.
_OWING: Final = frozenset({StepState.BEGUN, StepState.DONE})
