"""Sagas: what was done is taken back, newest first, each until it has worked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import (
    Agent,
    ChildSpec,
    CompensationFailed,
    Flow,
    Refused,
    StepFailed,
    Transaction,
    WorkflowFailed,
    WorkflowState,
)
from treewarden.workflows.saga import UNDO_ATTEMPTS

if TYPE_CHECKING:
    from .conftest import Diary, Open

import msgspec


def trip(diary: Diary, steps: int = 5) -> Any:
    """A workflow that books so many things, each with its undoing."""

    async def trip(flow: Flow) -> list[str]:
        return [
            await flow.step(
                diary.book, f"s{number}", name=f"s{number}", compensate=diary.undo
            )
            for number in range(1, steps + 1)
        ]

    return trip


async def test_f06_when_a_step_fails_those_before_it_are_undone_newest_first_once_each(
    open_app: Open, diary: Diary
) -> None:
    """F06, S03: 5 steps, the fourth fails: 3, 2, 1."""
    diary.failures["book s4"] = 3
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        ref = await runtime.workflows.start("trip", id="t")
        with pytest.raises(WorkflowFailed, match="s4: nobody answers") as caught:
            await ref.result()
        assert caught.value.state == WorkflowState.COMPENSATED
        assert caught.value.fault is not None
        assert (await ref.status()).state is WorkflowState.COMPENSATED
    assert diary.of("book") == ["s1", "s2", "s3"]
    assert diary.of("undo") == ["s3", "s2", "s1"]


async def test_f06_a_compensation_that_fails_twice_is_tried_again_and_all_is_undone(
    open_app: Open, diary: Diary
) -> None:
    """F06: compensation 2 fails twice and then works."""
    diary.failures.update({"book s4": 3, "undo s2": 2})
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        ref = await runtime.workflows.start("trip", id="t")
        with pytest.raises(WorkflowFailed):
            await ref.result()
        assert (await ref.status()).state is WorkflowState.COMPENSATED
    assert diary.of("undo") == ["s3", "s2", "s1"]
    assert diary.lines.count("undo s2 fails") == 2


async def test_f06_a_compensation_that_fails_four_times_needs_attention_and_is_listed(
    open_app: Open, diary: Diary, reported: Any
) -> None:
    """F06: what is older stays as it is, until somebody has looked and resumes it."""
    diary.failures.update({"book s4": 3, "undo s2": UNDO_ATTEMPTS})
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        async with runtime.bus.subscribe("workflow.needs_attention") as alarms:
            ref = await runtime.workflows.start("trip", id="t")
            with pytest.raises(CompensationFailed, match="undo, which undoes step 2"):
                await ref.result()
            alarm: Any = (await anext(alarms)).payload
            assert alarm["id"] == "t"
        assert diary.of("undo") == ["s3"]
        (listed,) = await runtime.workflows.list([WorkflowState.NEEDS_ATTENTION])
        assert listed.id == "t"
        assert "s2: nobody answers" in listed.reason
        assert len(await reported(runtime, "workflow.needs_attention")) == 1
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        await trio.sleep(60)
        assert diary.of("undo") == ["s3"]
        await runtime.workflows.resume("t")
        with pytest.raises(WorkflowFailed, match=r"compensated.*s4: nobody answers"):
            await runtime.workflows.ref("t").result()
    assert diary.of("undo") == ["s3", "s2", "s1"]


async def test_failures_of_a_compensation_are_counted_over_restarts(
    open_app: Open, diary: Diary
) -> None:
    diary.failures.update({"book s2": 3, "undo s1": 100})
    for life in range(2):
        async with open_app() as runtime:
            runtime.workflows.register(trip(diary))
            if not diary.lines:
                await runtime.workflows.start("trip", id="t")
            await diary.wait_lines("undo s1 fails", 1 + 2 * life)
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        with pytest.raises(CompensationFailed):
            await runtime.workflows.ref("t").result()
    assert diary.lines.count("undo s1 fails") == UNDO_ATTEMPTS


async def test_f06_a_crash_in_the_middle_of_compensation_repeats_none_that_is_done(
    open_app: Open, diary: Diary
) -> None:
    """F06: crashed in each compensation in turn, and once between two runs."""
    diary.failures["book s5"] = 3
    for name in ("undo s4", "undo s3", "undo s2", "undo s1"):
        diary.gates[name], diary.begun[name] = trio.Event(), trio.Event()
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        await runtime.workflows.start("trip", id="t")
        for name in ("undo s4", "undo s3"):
            await crash_in(runtime, diary, name)
        await diary.begun["undo s2"].wait()
        diary.begun["undo s2"] = trio.Event()
    async with open_app() as runtime:
        runtime.workflows.register(trip(diary))
        for name in ("undo s2", "undo s1"):
            await crash_in(runtime, diary, name)
        with pytest.raises(WorkflowFailed):
            await runtime.workflows.ref("t").result()
    assert diary.of("undo") == ["s4", "s3", "s2", "s1"]
    undos = [key for key in diary.keys if key.endswith("/undo")]
    assert set(undos) == {f"t/{number}/undo" for number in range(1, 5)}


async def crash_in(runtime: Any, diary: Diary, name: str) -> None:
    """Crash the workflow when it does so, and let the next incarnation do it."""
    await diary.begun[name].wait()
    diary.begun[name] = trio.Event()
    runtime.injections.crash("/workflows/running/t")
    await diary.begun[name].wait()
    diary.gates[name].set()


async def test_a_workflow_may_refuse_to_go_on_and_that_is_no_crash(
    open_app: Open, diary: Diary
) -> None:
    async def picky(flow: Flow) -> None:
        await flow.step(diary.book, "hotel", compensate=diary.undo)
        raise Refused("too dear")

    async with open_app() as runtime:
        runtime.workflows.register(picky)
        ref = await runtime.workflows.start(picky, id="t")
        with pytest.raises(WorkflowFailed, match="Refused: too dear"):
            await ref.result()
        assert (await ref.status()).attempts == 1
    assert diary.lines == ["book hotel", "undo hotel"]


async def test_a_workflow_may_catch_a_failed_step_and_take_another_way(
    open_app: Open, diary: Diary
) -> None:
    diary.failures["book train"] = 3

    faults: list[str] = []

    async def either(flow: Flow) -> str:
        try:
            return await flow.step(diary.book, "train", name="train")
        except StepFailed as failed:
            faults.append(failed.fault.message)
            return await flow.step(diary.book, "bus", name="bus")

    async with open_app() as runtime:
        runtime.workflows.register(either)
        ref = await runtime.workflows.start(either, id="t")
        assert await ref.result() == "bus booked"
        assert "nobody answers" in faults[0]
        assert (await ref.status()).state is WorkflowState.COMPLETED


class Balance(msgspec.Struct):
    amount: int = 100


class Account(Agent[Balance]):
    async def pay(self, amount: int) -> int:
        if self.state.amount < amount:
            raise Refused("too little")
        self.state.amount -= amount
        return self.state.amount

    async def balance(self) -> int:
        return self.state.amount


async def test_a_transaction_step_and_its_compensation_are_one_commit_with_their_record(
    open_app: Open, diary: Diary
) -> None:
    """S03: what it does to agents is done exactly once, and so is its undoing."""
    accounts = [ChildSpec("ada", Account), ChildSpec("bob", Account)]

    async with open_app(accounts) as runtime:
        ada, bob = runtime.ref("ada", Account), runtime.ref("bob", Account)

        async def move(tx: Transaction, amount: int) -> int:
            await tx.call(ada, Account.pay, amount)
            await tx.call(bob, Account.pay, -amount)
            return amount

        async def move_back(tx: Transaction, amount: int) -> None:
            await move(tx, -amount)

        async def payment(flow: Flow, amount: int) -> None:
            pair = (ada, bob)
            before = runtime.store.statistics().units
            await flow.transaction(pair, move, amount, compensate=move_back)
            # Its beginning, and all that it did.
            commits.append(runtime.store.statistics().units - before)
            await flow.step(diary.book, "goods")

        commits: list[int] = []
        runtime.workflows.register(payment)
        await (await runtime.workflows.start(payment, 30, id="a")).result()
        assert commits == [2]
        assert await ada.call(Account.balance) == 70
        diary.failures["book goods"] = 3
        ref = await runtime.workflows.start(payment, 30, id="b")
        with pytest.raises(WorkflowFailed, match="nobody answers"):
            await ref.result()
        ref = await runtime.workflows.start(payment, 300, id="c")
        with pytest.raises(WorkflowFailed, match="too little"):
            await ref.result()
        assert (await ref.status()).state is WorkflowState.FAILED
        balances = [await one.call(Account.balance) for one in (ada, bob)]
    assert balances == [70, 130]
