"""Recovery: what a row and the tree say is missing is done, also when the disk fails."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden import Flow, StoreError, WorkflowFailed, WorkflowState
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.store import (
    StepState,
    StoredStep,
    StoredWorkflow,
    Unit,
    insert_workflow,
    keep_step,
    load_steps,
    load_workflow,
    open_store,
    prune_workflows,
)
from treewarden.store.workflows import KEPT_NS
from treewarden.supervision import NodeState
from treewarden.workflows import workflows as facade
from treewarden.workflows.recovery import Need, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Diary, Open


@contextmanager
def full_disk() -> Iterator[None]:
    """The next commit fails."""
    rule = Rule(point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="full", times=1)
    plan = InjectionPlan(name="full", injections=(rule,), seconds=60.0)
    loaded = load_plan(plan)
    try:
        yield
    finally:
        loaded.lift()


def stored(id_: str, state: WorkflowState, ended_ns: int = 0) -> StoredWorkflow:
    return StoredWorkflow(
        id=id_,
        name="w",
        version=1,
        state=state,
        attempts=0,
        begun_ns=1,
        ended_ns=ended_ns,
        resume_as="",
        reason="",
        outcome=b"null",
        arguments=b"[]",
    )


def test_only_what_has_something_to_do_is_started_and_only_once() -> None:
    for state, child, is_known in product(
        WorkflowState, [None, *NodeState], [False, True]
    ):
        need = judge(stored("x", state), is_known=is_known, child=child)
        if state not in {"running", "cancelling", "compensating"}:
            assert need is Need.NOTHING
        elif child is NodeState.FAILED:
            assert need is Need.GIVE_UP
        else:
            assert (need is Need.START) is (is_known and child is None)


async def test_what_ended_a_day_ago_is_forgotten_with_its_steps_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    """S10: kept for 24 hours; what has not ended is kept for as long as it takes."""
    now = 10 * KEPT_NS
    rows = [
        stored("old", WorkflowState.COMPLETED, now - KEPT_NS - 1),
        stored("new", WorkflowState.COMPLETED, now - KEPT_NS + 1),
        stored("stuck", WorkflowState.NEEDS_ATTENTION),
    ]
    async with open_store(tmp_path / "test.db") as store:
        unit = Unit("x")
        unit.writes = [insert_workflow(row) for row in rows]
        unit.writes += [keep_step(step_of(row.id)) for row in rows]
        unit.writes += prune_workflows(now)
        store.hand_over(unit)
        await store.wait(unit)
        for id_, kept in (("old", False), ("new", True), ("stuck", True)):
            found = await store.read(partial(load_workflow, id_=id_))
            steps = await store.read(partial(load_steps, id_=id_))
            assert (found is not None, len(steps)) == (kept, int(kept))


def step_of(id_: str) -> StoredStep:
    return StoredStep(
        workflow=id_,
        number=1,
        name="s",
        state=StepState.DONE,
        attempts=1,
        compensation="",
        undo_failures=0,
        at_ns=1,
        outcome=b"1",
    )


async def test_a_commit_that_fails_costs_a_workflow_nothing_but_time(
    open_app: Open, diary: Diary
) -> None:
    """A failed commit is nobody's crash: it goes on from what is recorded."""

    async def three(flow: Flow) -> int:
        for name in "abc":
            await flow.step(diary.book, name, name=name)
        return 3

    diary.gates["book b"], diary.begun["book b"] = trio.Event(), trio.Event()
    async with open_app() as runtime:
        runtime.workflows.register(three)
        ref = await runtime.workflows.start(three, id="x")
        await diary.begun["book b"].wait()
        with full_disk():
            diary.gates["book b"].set()
            await diary.wait_lines("book b", 1)
        assert await ref.result() == 3
        assert diary.of("book") == ["a", "b", "b", "c"]
        assert runtime.tree()["/workflows/running"].budget == (0, 3, 5.0)


async def test_a_cancelled_step_that_may_have_happened_is_found_out_about_and_undone(
    open_app: Open, diary: Diary
) -> None:
    """What has a compensation is run to its end first, what has none is left."""

    async def two(flow: Flow, name: str) -> None:
        undo = diary.undo if name == "undoable" else None
        await flow.step(diary.book, name, compensate=undo)

    async with open_app() as runtime:
        runtime.workflows.register(two)
        for name in ("undoable", "final"):
            line = f"book {name}"
            diary.gates[line], diary.begun[line] = trio.Event(), trio.Event()
            ref = await runtime.workflows.start(two, name, id=name)
            await diary.begun[line].wait()
            await ref.cancel()
            diary.gates[line].set()
            with pytest.raises(WorkflowFailed, match="cancelled"):
                await ref.result()
    assert diary.lines == ["book undoable", "undo undoable"]


async def test_workflows_that_found_no_room_are_started_when_there_is_some(
    open_app: Open, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "MAX_RUNNING", 2)
    names = [f"s{number}" for number in range(5)]
    for name in names:
        diary.gates[f"book {name}"] = trio.Event()

    async def one(flow: Flow, name: str) -> str:
        return await flow.step(diary.book, name)

    async with open_app() as runtime:
        runtime.workflows.register(one)
        for name in names:
            # All at once: none of them runs when room is looked for.
            runtime.workflows._supervisor_is_full = lambda: False  # type: ignore[method-assign]
            await runtime.workflows.start(one, name, id=name)
        await trio.sleep(1)
        assert runtime.workflows.statistics().running == 2
        for name in names:
            diary.gates[f"book {name}"].set()
        for name in names:
            assert await runtime.workflows.ref(name).result() == f"{name} booked"


async def test_a_workflow_that_cannot_be_recorded_is_not_started(
    open_app: Open, diary: Diary, tmp_path: Path
) -> None:
    async def one(flow: Flow) -> None:
        await flow.step(diary.book, "a")

    async with open_app() as runtime:
        runtime.workflows.register(one)
        await runtime.store.settled()
        with full_disk(), pytest.raises(StoreError):
            await runtime.workflows.start(one, id="x")
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        assert connection.execute("SELECT count(*) FROM workflow").fetchone() == (0,)
    assert diary.lines == []
