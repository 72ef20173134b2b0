"""Workflows: started by id, brought to their end whatever happens, asked about."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import treewarden.control.protocol as wire
from treewarden import (
    CallingSelf,
    Flow,
    NotRunning,
    RestoreError,
    WorkflowExists,
    WorkflowFailed,
    WorkflowParked,
    WorkflowState,
    WorkflowUnknown,
    current_runtime,
    current_step,
)
from treewarden.control import Client
from treewarden.workflows.execution import MAX_ATTEMPTS

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Diary, Open


def rows(tmp_path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        return connection.execute(query).fetchall()


def booking(diary: Diary, *names: str) -> Any:
    async def booking(flow: Flow) -> list[str]:
        return [await flow.step(diary.book, name, name=name) for name in names]

    return booking


def gate(diary: Diary, line: str) -> trio.Event:
    diary.gates[line], diary.begun[line] = trio.Event(), trio.Event()
    return diary.gates[line]


class Order(msgspec.Struct):
    what: str
    count: int = 1


async def test_arguments_and_results_come_back_as_they_are_annotated(
    open_app: Open,
) -> None:
    async def double(order: Order) -> Order:
        return Order(order.what, order.count * 2)

    async def shop(flow: Flow, order: Order, *more: Order) -> tuple[Order, ...]:
        bought = await flow.step(double, order)
        assert isinstance(bought, Order)
        return bought, *more

    async with open_app() as runtime:
        runtime.workflows.register(shop)
        ref = await runtime.workflows.start(
            shop, Order("tea"), Order("milk"), id="shop"
        )
        assert await ref.result() == (Order("tea", 2), Order("milk"))


async def test_a_step_that_is_done_is_not_run_again_in_the_next_run(
    open_app: Open, diary: Diary
) -> None:
    """S11: the cursor is kept, and each step has a key that is the same each time."""
    gate(diary, "book b")
    workflow = booking(diary, "a", "b", "c")
    async with open_app() as runtime:
        runtime.workflows.register(workflow)
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book b"].wait()
        status = await runtime.workflows.status("x")
        assert (status.state, status.steps_over) == (WorkflowState.RUNNING, 1)
    diary.gates["book b"].set()
    async with open_app() as runtime:
        runtime.workflows.register(workflow)
        names = [f"{name} booked" for name in "abc"]
        assert await runtime.workflows.ref("x").result() == names
        assert runtime.workflows.statistics().resumed == 1
    assert diary.of("book") == ["a", "b", "c"]
    assert diary.keys == ["x/1", "x/2", "x/2", "x/3"]


async def test_an_id_is_taken_once_also_after_its_workflow_has_ended(
    open_app: Open, diary: Diary
) -> None:
    """S12: also when two ask at the same time."""
    workflow = booking(diary, "a")
    async with open_app() as runtime:
        runtime.workflows.register(workflow)
        refused: list[str] = []

        async def start() -> None:
            try:
                await runtime.workflows.start(workflow, id="x")
            except WorkflowExists as error:
                refused.append(error.id)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start)
        await runtime.workflows.ref("x").result()
        await start()
    assert (refused, diary.of("book")) == (["x"] * 3, ["a"])


async def test_what_cannot_be_a_workflow_is_refused(open_app: Open) -> None:
    async def none() -> None:
        pass

    def plain(flow: Flow) -> None:
        pass

    async def known(flow: Flow, count: int) -> None:
        pass

    async with open_app() as runtime:
        register, start = runtime.workflows.register, runtime.workflows.start
        with pytest.raises(TypeError, match="must take the flow"):
            register(none)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be an async function"):
            register(plain)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a version must be an int >= 1"):
            register(known, version=0)
        register(known)
        with pytest.raises(WorkflowUnknown):
            await start("unknown", id="x")
        with pytest.raises(TypeError, match="argument"):
            await start("known", id="x")
        with pytest.raises(ValueError, match="Expected `int`"):
            await start("known", "many", id="x")
        with pytest.raises(TypeError, match="cannot be recorded"):
            await start("known", object(), id="x")
        with pytest.raises(ValueError, match="a child's id"):
            await start("known", 1, id="not/an/id")
        with pytest.raises(WorkflowUnknown):
            await runtime.workflows.status("x")
        with pytest.raises(NotRunning):
            current_step()


async def test_steps_that_differ_from_the_record_park_the_workflow_and_skip_nothing(
    open_app: Open, diary: Diary
) -> None:
    """S11: name and number of each step are compared; none is taken for another."""
    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        for id_ in "xyz":
            await runtime.workflows.start("booking", id=id_)
        await diary.wait_keys("x/2", "y/2", "z/2")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "b", "a"))
        with pytest.raises(
            WorkflowParked, match="step 1 is recorded as a, and the code"
        ):
            await runtime.workflows.ref("x").result()
    async with open_app() as runtime:
        # Parked it stays, whatever the code says now, until it is resumed.
        diary.gates["book b"].set()
        runtime.workflows.register(booking(diary, "a", "b"))
        await trio.sleep(1)
        assert (await runtime.workflows.status("x")).state is WorkflowState.PARKED
        await runtime.workflows.resume("x")
        assert await runtime.workflows.ref("x").result() == ["a booked", "b booked"]


async def test_a_workflow_that_ends_before_its_record_is_parked(
    open_app: Open, diary: Diary
) -> None:
    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book b"].wait()
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        with pytest.raises(WorkflowParked, match="2 steps are recorded"):
            await runtime.workflows.ref("x").result()


async def test_a_workflow_goes_on_with_the_version_that_it_began_with(
    open_app: Open, diary: Diary
) -> None:
    """What is registered under no such name or version is never run; it waits."""
    gate(diary, "book b")
    one, two = booking(diary, "a", "b"), booking(diary, "b", "a")
    async with open_app() as runtime:
        runtime.workflows.register(one)
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book b"].wait()
    diary.gates["book b"].set()
    async with open_app() as runtime:
        runtime.workflows.register(two, version=2)
        await trio.sleep(1)
        status = await runtime.workflows.status("x")
        assert status.state is WorkflowState.PARKED
        assert status.reason == "no workflow booking of version 1 is registered"
        await (await runtime.workflows.start("booking", id="new")).result()
        assert diary.of("book") == ["a", "b", "a"]
        runtime.workflows.register(one)
        assert await runtime.workflows.ref("x").result() == ["a booked", "b booked"]
        assert (await runtime.workflows.status("new")).version == 2


async def test_ten_incarnations_that_do_not_get_on_park_the_workflow(
    open_app: Open, diary: Diary
) -> None:
    """B8: a poison workflow is left alone; one that gets on may be restarted for ever."""
    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        ref = await runtime.workflows.start("booking", id="x")
        for _ in range(MAX_ATTEMPTS):
            await diary.begun["book b"].wait()
            diary.begun["book b"] = trio.Event()
            runtime.injections.crash("/workflows/running/x")
            await trio.sleep(6)
        with pytest.raises(WorkflowParked, match="tried 10 times"):
            await ref.result()
        diary.gates["book b"].set()
        await ref.cancel()
        with pytest.raises(WorkflowFailed, match="cancelled"):
            await ref.result()


async def test_a_stop_in_order_counts_as_no_attempt(
    open_app: Open, diary: Diary
) -> None:
    gate(diary, "book a")
    for life in range(3):
        async with open_app() as runtime:
            runtime.workflows.register(booking(diary, "a"))
            if not life:
                await runtime.workflows.start("booking", id="x")
            await diary.begun["book a"].wait()
            diary.begun["book a"] = trio.Event()
            assert (await runtime.workflows.status("x")).attempts == 1


async def test_one_step_at_a_time(open_app: Open, diary: Diary) -> None:
    async def hasty(flow: Flow) -> str:
        async def inner() -> None:
            await flow.step(diary.book, "inner")

        try:
            await flow.step(inner)
        except Exception as error:  # noqa: BLE001 - what is tested
            return str(error)
        return ""

    async with open_app() as runtime:
        runtime.workflows.register(hasty)
        ref = await runtime.workflows.start(hasty, id="x")
        assert "while inner is in hand" in await ref.result()
    assert diary.lines == []


async def test_who_waits_for_a_result_leaves_nothing_behind(
    open_app: Open, diary: Diary
) -> None:
    opens = gate(diary, "book a")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        ref = await runtime.workflows.start("booking", id="x")
        with trio.move_on_after(5):
            await ref.result()
        assert runtime.workflows.statistics().waited_for == 0
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ref.result)
            await wait_all_tasks_blocked()
            assert runtime.workflows.statistics().waited_for == 1
            opens.set()
        assert runtime.workflows.statistics().waited_for == 0


async def test_a_caller_that_is_cancelled_while_it_starts_one_loses_nothing(
    open_app: Open, diary: Diary
) -> None:
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        with trio.CancelScope() as scope:
            runtime.store.observe_commits(lambda *_: scope.cancel())
            await runtime.workflows.start("booking", id="x")
        runtime.store.observe_commits(None)
        assert await runtime.workflows.ref("x").result() == ["a booked"]


async def test_the_name_of_the_workflows_supervisor_is_not_for_applications() -> None:
    from treewarden import Application, ChildSpec

    with pytest.raises(ValueError, match="reserved"):
        Application("app", [ChildSpec("workflows", trio.sleep_forever)])


async def test_a_damaged_step_parks_its_workflow_and_no_other(
    open_app: Open, diary: Diary, tmp_path: Path
) -> None:
    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        for id_ in "xy":
            await runtime.workflows.start("booking", id=id_)
        await diary.wait_keys("x/2", "y/2")
    diary.gates["book b"].set()
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute(
            "UPDATE workflow_step SET outcome = '\"z booked\"'"
            " WHERE workflow = 'x' AND number = 1"
        )
        connection.commit()
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        with pytest.raises(WorkflowParked, match="step 1 of workflow x is damaged"):
            await runtime.workflows.ref("x").result()
        assert await runtime.workflows.ref("y").result() == ["a booked", "b booked"]


async def test_a_damaged_row_is_told_of_and_never_run(
    open_app: Open, diary: Diary, tmp_path: Path, reported: Any
) -> None:
    gate(diary, "book a")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book a"].wait()
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("UPDATE workflow SET attempts = 7")
        connection.commit()
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        with pytest.raises(WorkflowParked, match="its row is damaged"):
            await runtime.workflows.ref("x").result()
        with pytest.raises(RestoreError, match="its row is damaged"):
            await runtime.workflows.resume("x")
        told = await reported(runtime, "workflow.unreadable")
        assert {one["id"] for one in told} == {"x"}
    assert diary.lines == []


async def test_the_control_server_lists_workflows_by_state(
    open_app: Open, diary: Diary
) -> None:
    gate(diary, "book b")
    reader = Client(name="cli", operator="", uid=0, pid=0, rights=wire.Rights.RO)
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book b"].wait()
        for states, ids in (([], ["x"]), (["running"], ["x"]), (["failed"], [])):
            asked = wire.GetWorkflows(states=states)
            answer = await runtime.desk().perform("workflows", asked, reader)
            assert isinstance(answer, wire.Workflows)
            assert [row.id for row in answer.rows] == ids
            assert [row.steps_over for row in answer.rows] == [1] * len(ids)


async def test_a_workflow_cannot_wait_for_its_own_cancellation(
    open_app: Open,
) -> None:
    async def suicidal(flow: Flow) -> str:
        try:
            await current_runtime().workflows.cancel(flow.id)
        except CallingSelf as error:
            return str(error)
        return ""

    async with open_app() as runtime:
        runtime.workflows.register(suicidal)
        ref = await runtime.workflows.start(suicidal, id="x")
        assert "wait for its own end" in await ref.result()
