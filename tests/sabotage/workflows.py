"""Broken workflows: steps, sagas, recovery."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden import exits
from treewarden.agents import Transaction
from treewarden.errors import TooManyChildren, UnknownChild
from treewarden.store import StoredStep, Unit, WorkflowState
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Node,
    NodeState,
    SupervisorSpec,
)
from treewarden.workflows import (
    Step,
    Workflows,
    flow,
    recovery,
    saga,
    workflow,
    workflows,
)
from treewarden.workflows.execution import Execution
from treewarden.workflows.flow import Flow
from treewarden.workflows.ledger import Ledger
from treewarden.workflows.recovery import Recovery
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

    def going_on(self: Flow, *args: Any, **how: Any) -> None:
        init(self, *args, **{**how, "unwinding": False})

    replace(Flow, "__init__", going_on)


@DOUBLES.swaps(
    Recovery,
    "stop",
    caught_by="test_flaws.py::test_h12_a_cancel_stops_the_work_and_its_status_is_not_overwritten",
)
async def a_flag_is_flipped(self: Recovery, id_: str) -> None:
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


# --- what may happen to one ------------------------------------------------------------------

_EXECUTION: Final = "test_execution.py"


@DOUBLES.swaps(
    Flow,
    "_failed",
    caught_by=f"{_EXECUTION}::test_f25_whatever_is_lost_on_the_way_no_workflow_stays_running",
)
async def f25_a_lost_answer_is_waited_for(
    self: Flow, step: StoredStep, error: Exception
) -> StoredStep:
    """F25: what was lost hangs the workflow that asked."""
    await trio.sleep_forever()
    return step


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_a_failure_whose_text_no_file_takes_is_undone_like_any_other"
)
def a_failure_that_no_file_takes(replace: Replace) -> None:
    """A failure that cannot be recorded is no failure, and nothing is undone."""
    replace(exits, "writable", lambda text: text)


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_a_name_is_something_that_can_be_read_and_kept"
)
def a_name_that_no_file_takes(replace: Replace) -> None:
    """A step may have a name that cannot be recorded."""
    replace(flow, "checked_name", lambda what, name: name)
    replace(workflow, "checked_name", lambda what, name: name)


@DOUBLES.swaps(
    flow,
    "_compensation",
    caught_by=f"{_EXECUTION}::test_what_undoes_a_step_is_a_function",
)
def anything_undoes_a_step(compensate: object) -> str:
    """That nothing can undo a step is found out when it is to be undone."""
    return "compensation" if compensate is not None else ""


@DOUBLES.breaks(caught_by=f"{_EXECUTION}::test_a_list_of_workflows_has_a_limit")
def a_list_without_a_limit(replace: Replace) -> None:
    """A list of -1 workflows is one of all."""
    replace(workflows, "check_count", lambda *_: None)


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_a_recorded_result_that_the_code_no_longer_returns_parks_the_workflow"
)
def a_result_of_another_kind_is_a_crash(replace: Replace) -> None:
    """New code that cannot read an old result has all of the work undone."""

    async def decoded(self: Flow, asked: Any, step: StoredStep, result: bytes) -> Any:
        return asked.decode(result)

    replace(Flow, "_decoded", decoded)


@DOUBLES.swaps(
    Flow,
    "check_cut",
    caught_by=f"{_EXECUTION}::test_a_workflow_that_cancels_its_own_step_and_goes_on_is_parked",
)
def a_step_that_was_cut_short_is_over(self: Flow) -> None:
    """A step of which nobody knows whether it happened is passed over."""


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_a_cancel_and_a_resume_at_once_are_one_after_the_other"
)
def everybody_acts_at_once(replace: Replace) -> None:
    """What was read before a cancellation is written after it, and undoes it."""

    class NoTurn(recovery._Line):
        def __init__(self) -> None:
            self.turn = trio.Semaphore(1000)  # type: ignore[assignment]
            self.asking = 0

    replace(recovery, "_Line", NoTurn)


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_h11_a_workflow_that_does_not_let_itself_be_stopped_holds_up_no_other"
)
def h11_its_supervisor_waits_for_it(replace: Replace) -> None:
    """H11: one workflow that does not end keeps all others from being started."""

    async def stop(self: Recovery, id_: str) -> None:
        with suppress(UnknownChild):
            await self._supervisor.terminate_child(id_)

    replace(Recovery, "stop", stop)


@DOUBLES.breaks(
    caught_by=f"{_EXECUTION}::test_a_cancel_that_is_given_up_while_it_waits_leaves_the_workflow_going"
)
def stopped_and_left_there(replace: Replace) -> None:
    """A workflow stands still because somebody wanted to cancel it and did not."""
    replace(Execution, "is_stopped", property(lambda self: False))


@DOUBLES.swaps(
    recovery,
    "_state_of",
    caught_by=f"{_EXECUTION}::test_a_workflow_whose_end_its_supervisor_has_not_come_to_is_resumed",
)
def a_child_that_has_ended_still_runs(node: Node | None) -> NodeState | None:
    """A workflow is resumed while its last child is counted, and never goes on."""
    return node.state if node is not None else None


@DOUBLES.swaps(
    workflows,
    "_check_sound",
    caught_by=f"{_EXECUTION}::test_what_is_damaged_is_neither_cancelled_nor_resumed_nor_touched",
)
def what_is_damaged_is_written_over(one: StoredWorkflow) -> None:
    """What is left of a damaged row is lost when a person cancels it."""
