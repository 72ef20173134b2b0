"""What the original's workflows got wrong, by its names: F10 to F21, H11 to H21."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import (
    ChildSpec,
    Flow,
    WorkflowFailed,
    WorkflowState,
    current_step,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import Runtime

    from .conftest import Diary, Open

MANY = 10_000 if "SOAK" in os.environ else 300
PARTS = (
    "/workflows",
    "/workflows/running",
    "/workflows/recovery",
    "/system/telemetry",
    "/system/heartbeat",
    "/clerk",
)


class Effects:
    """A file that takes a line for a key once; steps take some time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()

    async def append(self) -> int:
        await trio.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - a test's dice
        key = current_step().key
        if key not in self.lines():
            with self.file.open("a") as lines:
                lines.write(f"{key}\n")
        return len(key)

    def lines(self) -> list[str]:
        return self.file.read_text().split()


def ten(effects: Effects) -> Any:
    async def ten(flow: Flow) -> int:
        return sum([await flow.step(effects.append) for _ in range(10)])

    return ten


async def clerk() -> None:
    await trio.sleep_forever()


async def killed(runtime: Runtime, path: str) -> None:
    """Kill a part and wait until it runs again; children of workflows are let be."""
    node = runtime.directory.find(path)
    assert node is not None
    before = node.incarnation
    runtime.injections.crash(path)

    def again() -> bool:
        now = runtime.directory.find(path)
        return now is not None and now.incarnation > before and now.state == "running"

    await wait_until(again, f"{path} runs again")


async def test_f10_every_part_is_killed_and_all_workflows_complete_with_each_effect_once(
    open_app: Open, tmp_path: Path
) -> None:
    """F10, F17: 20 workflows of 10 steps; parts and workflows are killed at random."""
    dice = random.Random(10)  # noqa: S311 - a seed, not a secret
    effects = Effects(tmp_path / "effects")
    ids = [f"w{number}" for number in range(20)]
    async with open_app([ChildSpec("clerk", clerk)]) as runtime:
        runtime.workflows.register(ten(effects))
        for id_ in ids:
            await runtime.workflows.start("ten", id=id_)
        for part in dice.sample(PARTS, len(PARTS)):
            await trio.sleep(dice.uniform(0.01, 0.3))
            await killed(runtime, part)
        for id_ in dice.sample(ids, 10):
            await trio.sleep(dice.uniform(0.0, 0.05))
            if runtime.directory.find(f"/workflows/running/{id_}") is not None:
                runtime.injections.crash(f"/workflows/running/{id_}")
        for id_ in ids:
            assert await runtime.workflows.ref(id_).result() > 0
        assert runtime.workflows.statistics().completed == 20
    expected = [f"{id_}/{number}" for id_ in ids for number in range(1, 11)]
    assert sorted(effects.lines()) == sorted(expected)


async def test_f17_nobody_keeps_a_list_of_the_workflows_that_run(
    open_app: Open, diary: Diary
) -> None:
    """F17: the file has them, and the tree."""
    diary.gates["book a"] = trio.Event()

    async def wait(flow: Flow) -> None:
        await flow.step(diary.book, "a")

    async with open_app() as runtime:
        runtime.workflows.register(wait)
        for number in range(10):
            await runtime.workflows.start(wait, id=f"w{number}")
        await diary.wait_keys(*(f"w{number}/1" for number in range(10)))
        assert runtime.workflows.statistics().running == 10
        held = [vars(runtime.workflows), vars(runtime.workflows._recovery)]
        sizes = [
            len(value)
            for attributes in held
            for name, value in attributes.items()
            if name != "_counts" and isinstance(value, (dict, set, list))
        ]
        assert sizes
        assert max(sizes) < 10


async def test_f18_workflows_run_at_the_same_time_and_questions_do_not_wait(
    open_app: Open,
) -> None:
    """F18: 200 workflows of 3 steps of 50 ms take less than a second, not 30."""

    async def work() -> None:
        await trio.sleep(0.05)

    async def three(flow: Flow) -> None:
        for _ in range(3):
            await flow.step(work)

    async with open_app() as runtime:
        runtime.workflows.register(three)
        began = trio.current_time()
        for number in range(200):
            await runtime.workflows.start(three, id=f"w{number}")
            asked = trio.current_time()
            await runtime.workflows.status("w0")
            assert trio.current_time() - asked < 0.01
        for number in range(200):
            await runtime.workflows.ref(f"w{number}").result()
        assert trio.current_time() - began < 1.0


async def one_bad_of(count: int, open_app: Open, diary: Diary) -> list[str]:
    """Run so many, of which one always raises; the states that they ended in."""

    async def some(flow: Flow, number: int) -> None:
        await flow.step(diary.book, f"s{number}", compensate=diary.undo)
        if number == 7:
            raise ZeroDivisionError("bad specification")

    async with open_app() as runtime:
        runtime.workflows.register(some)
        before = runtime.tree()
        for number in range(count):
            await runtime.workflows.start(some, number, id=f"w{number}")
        with pytest.raises(WorkflowFailed, match="crash_loop: ZeroDivisionError: bad"):
            await runtime.workflows.ref("w7").result()
        states = []
        for number in range(count):
            if number != 7:
                await runtime.workflows.ref(f"w{number}").result()
            states.append((await runtime.workflows.status(f"w{number}")).state)
        after = runtime.tree()
        for node in before.nodes:
            assert after[node.path].incarnation == node.incarnation
        assert len(after.nodes) == len(before.nodes)
    return [str(state) for state in states]


async def test_f19_one_workflow_that_always_raises_ends_alone(
    open_app: Open, diary: Diary
) -> None:
    """F19, S10: 99 complete, the bad one ends in a crash loop, nobody else restarts."""
    states = await one_bad_of(100, open_app, diary)
    assert states.count("completed") == 99
    assert states[7] == "compensated"
    assert diary.of("book").count("s7") == 1
    assert diary.of("undo") == ["s7"]


async def test_h11_a_bad_workflow_costs_no_other_its_life(
    open_app: Open, diary: Diary
) -> None:
    """H11: the original's shared budget ended with the first bad one."""
    states = await one_bad_of(10, open_app, diary)
    assert states.count("completed") == 9


async def test_f19_what_has_nothing_to_undo_has_failed_after_three_restarts(
    open_app: Open,
) -> None:
    """F19: failed(crash_loop), by its own budget of 3 in 5 s."""
    runs = 0

    async def bad(flow: Flow) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError(flow.id)

    async with open_app() as runtime:
        runtime.workflows.register(bad)
        ref = await runtime.workflows.start(bad, id="x")
        with pytest.raises(WorkflowFailed, match="failed: crash_loop"):
            await ref.result()
        assert (await ref.status()).state is WorkflowState.FAILED
        assert runtime.supervisor("/workflows/running").which_children() == []
    assert runs == 4


async def test_f21_after_a_cancel_at_step_65_of_3000_at_most_one_further_step_starts(
    open_app: Open, diary: Diary
) -> None:
    """F21: and it stays cancelled, whatever comes after."""
    status = await cancelled_at(65, open_app, diary)
    assert status is WorkflowState.CANCELLED


async def test_h12_a_cancel_stops_the_work_and_its_status_is_not_overwritten(
    open_app: Open, diary: Diary
) -> None:
    """H12: the original ran all steps to the end and then said completed."""
    assert await cancelled_at(5, open_app, diary) is WorkflowState.CANCELLED


async def cancelled_at(step: int, open_app: Open, diary: Diary) -> WorkflowState:
    line = f"book s{step}"
    diary.gates[line], diary.begun[line] = trio.Event(), trio.Event()

    async def long(flow: Flow) -> None:
        for number in range(1, 3001):
            await flow.step(diary.book, f"s{number}", compensate=diary.undo)

    async with open_app() as runtime:
        runtime.workflows.register(long)
        ref = await runtime.workflows.start(long, id="x")
        await diary.begun[line].wait()
        cancelling = await ref.cancel()
        assert cancelling.state is WorkflowState.CANCELLING
        diary.gates[line].set()
        with pytest.raises(WorkflowFailed, match="cancelled") as caught:
            await ref.result()
        assert caught.value.fault is None
        done = diary.of("book")
        assert len(done) <= step
        assert diary.of("undo") == done[::-1]
        # Nobody makes it anything else, not even another cancel.
        await ref.cancel()
    async with open_app() as runtime:
        runtime.workflows.register(long)
        await trio.sleep(1)
        assert diary.of("book") == done
        return (await runtime.workflows.status("x")).state


async def run_many(count: int, open_app: Open) -> None:
    async def nothing(flow: Flow, number: int) -> int:
        assert flow.id == f"w{number}"
        return number

    async with open_app() as runtime:
        runtime.workflows.register(nothing)
        tasks = trio.lowlevel.current_statistics().tasks_living
        nodes = len(runtime.tree().nodes)
        for number in range(count):
            ref = await runtime.workflows.start(nothing, number, id=f"w{number}")
            assert await ref.result() == number
        assert (await ref.cancel()).state is WorkflowState.COMPLETED
        assert (await runtime.workflows.status("w0")).state is WorkflowState.COMPLETED
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert len(runtime.tree().nodes) == nodes
        assert runtime.workflows.statistics().waited_for == 0


async def test_h20_any_number_of_finished_workflows_refuses_nothing(
    open_app: Open,
) -> None:
    """H20: the original refused every command after 10 of them."""
    await run_many(50, open_app)


async def test_h21_a_workflow_that_has_finished_is_gone_from_memory(
    open_app: Open,
) -> None:
    """H21: tasks and nodes are as many as before."""
    await run_many(MANY, open_app)
