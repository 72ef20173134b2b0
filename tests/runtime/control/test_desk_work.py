"""What an operator sees of workflows, gauges and operations, and does about the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

import treewarden.control.protocol as wire
from treewarden import Flow, Retry, WorkflowUnknown
from treewarden.bus import Overflow, SubscriptionStatistics
from treewarden.control import Client
from treewarden.control.views import subscription_row
from treewarden.errors import NotAllowed
from treewarden.testing import open_sandbox, store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA = Client(name="test", operator="ada", uid=0, pid=0, rights=wire.Rights.RW)
ONCE = Retry(attempts=1)


class Trip:
    """A workflow that books, waits for its turn, and then fails unless it may go."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.may_go = trio.Event()
        self.undone: list[str] = []
        self.undo_fails = False

    async def take(self, flow: Flow) -> str:
        await flow.step(self.book, name="book", compensate=self.unbook)
        return await flow.step(self.travel, name="travel", retry=ONCE)

    async def book(self) -> str:
        return "seat 4711"

    async def unbook(self, seat: str) -> None:
        if self.undo_fails:
            raise OSError("nobody is at the desk")
        self.undone.append(seat)

    async def travel(self) -> str:
        self.begun.set()
        await self.may_go.wait()
        raise ValueError("the train has gone")


@pytest.fixture
def clock() -> Iterator[trio.abc.Clock]:
    with store_clock() as clock:
        yield clock


async def ask(desk: Any, method: str, params: wire.Message) -> Any:
    return await desk.perform(method, params, ADA)


async def test_the_steps_of_a_workflow_are_told_but_not_what_they_returned(
    clock: trio.abc.Clock,
) -> None:
    async with open_sandbox() as sandbox:
        runtime, trip = sandbox.runtime, Trip()
        runtime.workflows.register(trip.take, name="trip")
        await runtime.workflows.start("trip", id="t")
        await trip.begun.wait()
        answer = await ask(runtime.desk(), "steps", wire.GetSteps(workflow="t"))
        assert answer.workflow == "t"
        told = [(step.number, step.name, step.state) for step in answer.rows]
        assert [one[1:] for one in told] == [("book", "done"), ("travel", "begun")]
        assert answer.rows[0].compensation == "unbook"
        assert "4711" not in repr(answer)
        trip.may_go.set()
        await wait_until(lambda: trip.undone == ["seat 4711"])
        answer = await ask(runtime.desk(), "steps", wire.GetSteps(workflow="t"))
        assert "ValueError: the train has gone" in answer.rows[1].error
        with pytest.raises(WorkflowUnknown):
            await ask(runtime.desk(), "steps", wire.GetSteps(workflow="x"))


async def test_an_operator_cancels_a_workflow_and_is_in_the_journal_with_the_name(
    clock: trio.abc.Clock,
) -> None:
    async with open_sandbox() as sandbox:
        runtime, trip = sandbox.runtime, Trip()
        runtime.workflows.register(trip.take, name="trip")
        await runtime.workflows.start("trip", id="t")
        await trip.begun.wait()
        act = wire.WorkflowAct(act="cancel", id="t")
        done = await ask(runtime.desk(), "workflow", act)
        assert done.sentence == "workflow t is cancelling now"
        await wait_until(lambda: trip.undone == ["seat 4711"])
        await runtime.store.settled()
        entries = await runtime.store.entries(
            since=None, limit=100, pattern="operator.>"
        )
        [entry] = entries
        assert entry.topic == "operator.workflow.cancel"
        assert msgspec.json.decode(entry.payload) == {"workflow": "t", "by": "ada"}
        with pytest.raises(WorkflowUnknown):
            await ask(
                runtime.desk(), "workflow", wire.WorkflowAct(act="cancel", id="x")
            )


async def test_only_a_workflow_that_stands_still_is_resumed(
    clock: trio.abc.Clock,
) -> None:
    async with open_sandbox() as sandbox:
        runtime, trip = sandbox.runtime, Trip()
        trip.undo_fails = True
        runtime.workflows.register(trip.take, name="trip")
        ref = await runtime.workflows.start("trip", id="t")
        await trip.begun.wait()
        act = wire.WorkflowAct(act="resume", id="t")
        with pytest.raises(NotAllowed, match="is running, it does not wait"):
            await ask(runtime.desk(), "workflow", act)
        trip.may_go.set()
        with pytest.raises(Exception, match="nobody is at the desk"):
            await ref.result()
        listed = await ask(runtime.desk(), "workflows", wire.GetWorkflows())
        assert [row.state for row in listed.rows] == ["needs_attention"]
        trip.undo_fails = False
        done = await ask(runtime.desk(), "workflow", act)
        assert done.sentence == "workflow t is compensating now"
        await wait_until(lambda: trip.undone == ["seat 4711"])


async def test_gauges_and_operations_are_told_as_they_are(
    clock: trio.abc.Clock,
) -> None:
    async with open_sandbox() as sandbox:
        monitors = sandbox.runtime.monitors
        monitors.resources.gauge("entries", limit=100)
        monitors.resources.report("entries", 97)
        monitors.performance.record("get", 0.25)
        desk = sandbox.runtime.desk()
        gauges = (await ask(desk, "gauges", wire.GetGauges())).rows
        entries = next(one for one in gauges if one.name == "entries")
        assert (entries.value, entries.limit, entries.share) == (97, 100, 0.97)
        assert entries.pressure == "severe"
        [get] = (await ask(desk, "operations", wire.GetOperations())).rows
        assert (get.name, get.count, get.p95, get.failed) == ("get", 1, 0.25, 0)


def test_publishers_in_line_are_not_told_as_events_to_be_tried_again() -> None:
    seen = SubscriptionStatistics(
        id="s",
        pattern=">",
        owner="/a",
        capacity=1,
        overflow=Overflow.WAIT,
        published=2,
        delivered=1,
        dropped=0,
        pending=1,
        reserved=0,
        waiting=3,
        dropped_by={},
    )
    row = subscription_row(seen)
    assert (row.waiting, row.pending, row.overflow) == (0, 1, "wait")
