"""The rows of one workflow, written by its one incarnation; nothing goes on before they are.

Its incarnation is the row's only writer, and writes it whole from what it knows. A commit
that fails is nobody's crash: the incarnation ends as rolled back, once the disk takes
something again, and the next one begins from what is committed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from treewarden.errors import NotRunning, StoreError
from treewarden.exits import Fault
from treewarden.store import UNFINISHED, Unit, keep_step, update_workflow
from treewarden.supervision import current_life

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import Store, StoredStep, StoredWorkflow, Write


AGAIN_SECONDS: Final = 1.0
"""Until a store that failed is asked again: one that can be written may not be readable."""


class Ledger:
    """What is recorded of one workflow, and how more is."""

    __slots__ = ("_store", "workflow")

    def __init__(self, store: Callable[[], Store], workflow: StoredWorkflow) -> None:
        self._store = store
        self.workflow = workflow

    async def note(self, step: StoredStep) -> None:
        """Record how far a step is; returns once that is on the disk."""
        await self._write([keep_step(step)], self.workflow)

    async def note_done(self, step: StoredStep) -> None:
        """The same of a step that is done or undone."""
        await self._write(self.writes_of(step), self.workflow)

    def writes_of(self, step: StoredStep) -> list[Write]:
        """What records that: the workflow got on, and what it did in vain is forgotten."""
        writes = [keep_step(step)]
        if self.workflow.attempts > 1:
            self.workflow = replace(self.workflow, attempts=1)
            writes.append(update_workflow(self.workflow))
        return writes

    async def become(self, workflow: StoredWorkflow) -> None:
        """Record how far the workflow is."""
        await self._write([update_workflow(workflow)], workflow)

    def take_back_attempt(self) -> None:
        """It was stopped in order, which is not its fault; nobody waits for this."""
        if self.workflow.state not in UNFINISHED:
            return
        fewer = replace(self.workflow, attempts=max(0, self.workflow.attempts - 1))
        unit = Unit(self._path)
        unit.writes = [update_workflow(fewer)]
        try:
            self._store().hand_over(unit)
        except (NotRunning, StoreError):
            # Then it counts: the workflow is one attempt nearer to being parked.
            return

    async def _write(self, writes: list[Write], workflow: StoredWorkflow) -> None:
        unit = Unit(self._path)
        unit.writes = writes
        try:
            store = self._store()
            await store.wait_room()
            store.hand_over(unit)
            # From here on it happens, also when this is cancelled.
            self.workflow = workflow
            await store.wait(unit)
        except (NotRunning, StoreError) as error:
            await self.fall_back(error)

    async def fall_back(self, error: Exception) -> NoReturn:
        """See `fall_back`."""
        await fall_back(self._store, error)

    @property
    def _path(self) -> str:
        return f"workflow {self.workflow.id}"


async def fall_back(store: Callable[[], Store], error: Exception) -> NoReturn:
    """End this incarnation for what the store did: what it knows is not what is recorded."""
    life = current_life.get()
    assert life is not None  # noqa: S101 - a workflow is a child
    try:
        await trio.sleep(AGAIN_SECONDS)
        await store().wait_healthy()
    except NotRunning:
        # The store is gone, and takes along everything that stands on it.
        await trio.sleep_forever()
    fault = Fault.capture(error, path=life.node.path, incarnation=life.incarnation)
    life.fail(fault, rolled_back=True)
    await trio.sleep_forever()
    raise AssertionError("it was cancelled")
