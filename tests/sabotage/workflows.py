"""Broken workflows: steps, sagas, recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.agents import Transaction
from treewarden.errors import TooManyChildren
from treewarden.store import StoredStep, Unit, WorkflowState
from treewarden.supervision import ChildSpec, DynamicSupervisorSpec, SupervisorSpec
from treewarden.workflows import Step, Workflows, saga
from treewarden.workflows.execution import Execution
from treewarden.workflows.flow import Flow
from treewarden.workflows.ledger import Ledger
from treewarden.workflows.step import Course

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import StoredWorkflow, Write
    from treewarden.workflows.saga import Undo

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/workflows")

# --- sagas ---------------------------------------------------------------------------------


@DOUBLES.swaps(
    saga,
    "owed",
    caught_by="test_saga.py::test_f06_when_a_step_fails_those_before_it_are_undone_newest_first_once_each",
)
def oldest_first(undos: list[Undo]) -> list[Undo]:
    """F06: what was done first is undone first."""
    return list(undos)


@DOUBLES.swaps(
    saga,
    "_undone",
    caught_by="test_saga.py::test_f06_a_crash_in_the_middle_of_compensation_repeats_none_that_is_done",
)
def an_undone_step_stays_done(step: StoredStep) -> StoredStep:
    """F06: that a compensation is done is not recorded."""
    return step


@DOUBLES.breaks(
    caught_by="test_saga.py::test_f06_a_compensation_that_fails_twice_is_tried_again_and_all_is_undone"
)
def one_attempt_to_undo(replace: Replace) -> None:
    """F06: a compensation is tried once."""
    replace(saga, "UNDO_ATTEMPTS", 1)


@DOUBLES.swaps(
    Execution,
    "_stand_still",
    caught_by="test_saga.py::test_f06_a_compensation_that_fails_four_times_needs_attention_and_is_listed",
)
async def nobody_is_needed(self: Execution, state: WorkflowState, reason: str) -> None:
    """F06: what could not be undone counts as undone."""
    await self._end(WorkflowState.COMPENSATED, reason, self._ledger.workflow.outcome)


@DOUBLES.swaps(
    Transaction,
    "also",
    caught_by="test_saga.py::test_a_transaction_step_and_its_compensation_are_one_commit_with_their_record",
)
def a_record_of_its_own(self: Transaction, *writes: Write) -> None:
    """S03: what a transaction does and the record of it are two commits."""
    unit = Unit("a record")
    unit.writes = list(writes)
    store = self._surroundings.store
    assert store is not None
    store.hand_over(unit)


# --- steps ---------------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f10_every_part_is_killed_and_all_workflows_complete_with_each_effect_once"
)
def a_key_for_each_attempt(replace: Replace) -> None:
    """F10: the other side cannot tell that it is asked again."""

    def key(self: Step) -> str:
        return f"{self.workflow}/{self.number}/{self.attempt}"

    replace(Step, "key", property(key))


@DOUBLES.breaks(
    caught_by="test_workflows.py::test_steps_that_differ_from_the_record_park_the_workflow_and_skip_nothing"
)
def whatever_is_recorded_will_do(replace: Replace) -> None:
    """S11: a step takes the result of the one that was in its place."""

    def take(self: Course, name: str, compensation: str) -> StoredStep:
        self.taken += 1
        if self.taken > len(self._recorded):
            return self._new(name, compensation)
        return self._recorded[self.taken - 1]

    replace(Course, "take", take)


@DOUBLES.swaps(
    Ledger,
    "take_back_attempt",
    caught_by="test_workflows.py::test_a_stop_in_order_counts_as_no_attempt",
)
def every_stop_counts(self: Ledger) -> None:
    """B8: ten deployments park a workflow that waits."""


# --- one for each, and none for all ----------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f17_nobody_keeps_a_list_of_the_workflows_that_run"
)
def a_list_of_all(replace: Replace) -> None:
    """F17: who starts workflows keeps them, too."""
    begun = Workflows._begun

    def kept(
        self: Workflows, workflow: StoredWorkflow, error: Exception | None
    ) -> None:
        vars(self).setdefault("workflows", {})[workflow.id] = workflow
        begun(self, workflow, error)

    replace(Workflows, "_begun", kept)


def _behind_a_lock(run: Callable[[Execution], Any]) -> Callable[[Execution], Any]:
    locks: list[trio.Lock] = []

    async def alone(self: Execution) -> None:
        if not locks:
            locks.append(trio.Lock())
        async with locks[0]:
            await run(self)

    return alone


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f18_workflows_run_at_the_same_time_and_questions_do_not_wait"
)
def one_workflow_at_a_time(replace: Replace) -> None:
    """F18: all go through one coordinator."""
    replace(Execution, "run", _behind_a_lock(Execution.run))


def _shared_budget(self: Workflows) -> SupervisorSpec:
    return SupervisorSpec(
        [
            ChildSpec("running", DynamicSupervisorSpec(child_intensity=None)),
            ChildSpec("recovery", self._recovery.run),
        ],
        strategy="rest_for_one",
    )


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f19_one_workflow_that_always_raises_ends_alone"
)
def one_budget_for_all(replace: Replace) -> None:
    """F19: the first bad workflow spends what all have."""
    replace(Workflows, "supervisor", _shared_budget)


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_h11_a_bad_workflow_costs_no_other_its_life"
)
def one_bad_workflow_ends_all(replace: Replace) -> None:
    """H11: its supervisor goes, and takes the others along."""
    replace(Workflows, "supervisor", _shared_budget)


# --- cancelling, ending ------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f21_after_a_cancel_at_step_65_of_3000_at_most_one_further_step_starts"
)
def cancelled_it_goes_on(replace: Replace) -> None:
    """F21: what is being cancelled takes one step after the other."""
    init = Flow.__init__

    def going_on(self: Flow, *args: Any, unwinding: bool) -> None:
        init(self, *args, unwinding=False)

    replace(Flow, "__init__", going_on)


@DOUBLES.swaps(
    Workflows,
    "_stop",
    caught_by="test_flaws.py::test_h12_a_cancel_stops_the_work_and_its_status_is_not_overwritten",
)
async def a_flag_is_flipped(self: Workflows, id_: str) -> None:
    """H12: nobody tells the workflow that it was cancelled."""


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_h20_any_number_of_finished_workflows_refuses_nothing"
)
def ten_and_no_more(replace: Replace) -> None:
    """H20: those that have finished count as running."""
    begin = Workflows._begin

    async def refusing(self: Workflows, workflow: StoredWorkflow) -> None:
        if self.statistics().started >= 10:
            raise TooManyChildren("/workflows", 10)
        await begin(self, workflow)

    replace(Workflows, "_begin", refusing)


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_h21_a_workflow_that_has_finished_is_gone_from_memory"
)
def finished_and_still_there(replace: Replace) -> None:
    """H21: the task of a workflow outlives it."""
    run = Execution.run

    async def staying(self: Execution) -> None:
        await run(self)
        await trio.sleep_forever()

    replace(Execution, "run", staying)
