"""What may happen to one workflow while it runs, and what must not come of it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
import trio
import trio.testing

from treewarden import (
    Agent,
    CallTimeout,
    ChildSpec,
    Flow,
    Refused,
    RestoreError,
    WorkflowFailed,
    WorkflowParked,
    WorkflowState,
    current_step,
)
from treewarden.store import ENDED, Unit

if TYPE_CHECKING:
    from treewarden import AgentRef, Runtime

    from .conftest import Diary, Open


def booking(diary: Diary, *names: str) -> Any:
    async def booking(flow: Flow) -> list[str]:
        return [
            await flow.step(diary.book, name, name=name, compensate=diary.undo)
            for name in names
        ]

    return booking


def gate(diary: Diary, line: str) -> trio.Event:
    diary.gates[line], diary.begun[line] = trio.Event(), trio.Event()
    return diary.gates[line]


async def ended(runtime: Runtime, id_: str) -> WorkflowState:
    """Wait for its end, or until it stands still."""
    with trio.fail_after(1000):
        with suppress(WorkflowFailed, WorkflowParked):
            await runtime.workflows.ref(id_).result()
    return (await runtime.workflows.status(id_)).state


# --- what is lost on the way -----------------------------------------------------------------


class Lossy(Agent[None]):
    """A way to somebody else, on which three of ten messages are lost without a word."""

    persistence = "none"

    async def carry(self, key: str, attempt: int) -> str:
        if crc32(f"{key} {attempt}".encode()) % 10 < 3:
            self.defer()
            return ""
        return key


async def test_f25_whatever_is_lost_on_the_way_no_workflow_stays_running(
    open_app: Open,
) -> None:
    """F25: 30 % of all messages are lost, and 50 workflows end within five minutes."""
    lost = 0

    async def carried(line: AgentRef[Lossy]) -> str:
        nonlocal lost
        step = current_step()
        try:
            return await line.call(Lossy.carry, step.key, step.attempt)
        except CallTimeout:
            lost += 1
            raise

    async def trip(flow: Flow) -> list[str]:
        line = lines[flow.id]

        async def there() -> str:
            return await carried(line)

        async def back(_: str) -> str:
            return await carried(line)

        return [await flow.step(there, compensate=back) for _ in range(5)]

    ids = [f"trip-{number}" for number in range(50)]
    children = [ChildSpec(id_, Lossy) for id_ in ids]
    async with open_app(children) as runtime:
        lines = {id_: runtime.ref(f"/{id_}", Lossy) for id_ in ids}
        runtime.workflows.register(trip)
        begun = trio.current_time()
        for id_ in ids:
            await runtime.workflows.start(trip, id=id_)
        found = [await ended(runtime, id_) for id_ in ids]
        assert trio.current_time() - begun < 300.0
        assert {WorkflowState.COMPLETED, WorkflowState.COMPENSATED} <= set(found)
        assert set(found) <= ENDED
        assert runtime.workflows.statistics().running == 0
    # Of 250 messages and more, enough to make some of them fail three times.
    assert lost > 75


# --- what is said and no file takes ----------------------------------------------------------


@pytest.mark.parametrize("error", [OSError, Refused])
async def test_a_failure_whose_text_no_file_takes_is_undone_like_any_other(
    open_app: Open, diary: Diary, error: type[Exception]
) -> None:
    """File names may hold bytes that are no text, and errors name files."""

    async def reading(flow: Flow) -> None:
        await flow.step(diary.book, "a", name="a", compensate=diary.undo)

        async def read() -> None:
            raise OSError("no \udcff here")

        if error is Refused:
            raise Refused("no \udcff here")
        await flow.step(read)

    async with open_app() as runtime:
        runtime.workflows.register(reading)
        ref = await runtime.workflows.start(reading, id="x")
        with pytest.raises(WorkflowFailed, match=r"no \\udcff here"):
            await ref.result()
        assert (await ref.status()).state is WorkflowState.COMPENSATED
    assert diary.of("undo") == ["a"]


@pytest.mark.parametrize("name", ["", "\udcff", "a\nb", "x" * 256, 5])
async def test_a_name_is_something_that_can_be_read_and_kept(
    open_app: Open, diary: Diary, name: Any
) -> None:
    refused: list[Exception] = []

    async def naming(flow: Flow) -> None:
        try:
            await flow.step(diary.book, "a", name=name)
        except (TypeError, ValueError) as error:
            refused.append(error)

    async with open_app() as runtime:
        with pytest.raises((TypeError, ValueError), match="the name of a workflow"):
            runtime.workflows.register(naming, name=name)
        runtime.workflows.register(naming)
        ref = await runtime.workflows.start(naming, id="x")
        await ref.result()
    assert "the name of a step must be" in str(refused[0])
    assert diary.lines == []


async def test_what_undoes_a_step_is_a_function(open_app: Open, diary: Diary) -> None:
    """Anything else would be found out when it is too late."""
    refused: list[Exception] = []

    async def careless(flow: Flow) -> None:
        try:
            await flow.step(diary.book, "a", compensate=5)  # type: ignore[arg-type]
        except TypeError as error:
            refused.append(error)

    async with open_app() as runtime:
        runtime.workflows.register(careless)
        await (await runtime.workflows.start(careless, id="x")).result()
    assert "compensate must be a function, not 5" in str(refused[0])
    assert diary.lines == []


@pytest.mark.parametrize("bad", [-1, math.nan, True, 1.5])
async def test_a_list_of_workflows_has_a_limit(open_app: Open, bad: Any) -> None:
    async with open_app() as runtime:
        with pytest.raises((TypeError, ValueError), match="limit must be"):
            await runtime.workflows.list(limit=bad)
        assert await runtime.workflows.list(limit=0) == ()


# --- code that has changed, or does what it should not ---------------------------------------


async def test_a_recorded_result_that_the_code_no_longer_returns_parks_the_workflow(
    open_app: Open, diary: Diary
) -> None:
    def version(kind: type) -> Any:
        async def count() -> Any:
            return "three"

        count.__annotations__["return"] = kind

        async def counting(flow: Flow) -> None:
            await flow.step(count, compensate=diary.undo)
            await flow.step(diary.book, "b", name="b")

        return counting

    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(version(str), name="counting")
        await runtime.workflows.start("counting", id="x")
        await diary.begun["book b"].wait()
    diary.gates["book b"].set()
    async with open_app() as runtime:
        runtime.workflows.register(version(int), name="counting")
        with pytest.raises(WorkflowParked, match="Expected `int`, got `str`"):
            await runtime.workflows.ref("x").result()
        # Nothing of it was undone, and with the code that knows it, it goes on.
        runtime.workflows.register(version(str), name="counting")
        await runtime.workflows.resume("x")
        assert await ended(runtime, "x") is WorkflowState.COMPLETED
    assert diary.of("undo") == []


@pytest.mark.parametrize("then", ["step", "return", "refuse"])
async def test_a_workflow_that_cancels_its_own_step_and_goes_on_is_parked(
    open_app: Open, diary: Diary, then: str
) -> None:
    """Nobody knows whether the step has happened: nothing may be built on it."""

    async def hasty(flow: Flow) -> None:
        with trio.move_on_after(1):
            await flow.step(diary.book, "a", name="a", compensate=diary.undo)
        if then == "step":
            await flow.step(diary.book, "b", name="b")
        if then == "refuse":
            raise Refused("too late")

    gate(diary, "book a")
    async with open_app() as runtime:
        runtime.workflows.register(hasty)
        ref = await runtime.workflows.start(hasty, id="x")
        with pytest.raises(
            WorkflowParked, match="step a was cancelled by the workflow"
        ):
            await ref.result()
        assert diary.lines == []
        # What may have happened is found out about, and undone.
        diary.gates["book a"].set()
        await ref.cancel()
        assert await ended(runtime, "x") is WorkflowState.CANCELLED
    assert diary.lines == ["book a", "undo a"]


async def test_a_step_in_a_shielded_scope_is_no_way_around_the_record(
    open_app: Open, diary: Diary
) -> None:
    """A mismatch in a scope that nobody can cancel would be waited on for ever."""

    def version(name: str) -> Any:
        async def careful(flow: Flow) -> None:
            with trio.CancelScope(shield=True):
                await flow.step(diary.book, name, name=name)
            await flow.step(diary.book, "z", name="z")

        return careful

    gate(diary, "book z")
    async with open_app() as runtime:
        runtime.workflows.register(version("a"), name="careful")
        await runtime.workflows.start("careful", id="x")
        await diary.begun["book z"].wait()
    async with open_app() as runtime:
        runtime.workflows.register(version("b"), name="careful")
        assert await ended(runtime, "x") is WorkflowState.PARKED


# --- people --------------------------------------------------------------------------------


# Who comes first is another one each time.
@pytest.mark.parametrize("attempt", range(8))
async def test_a_cancel_and_a_resume_at_once_are_one_after_the_other(
    open_app: Open, diary: Diary, attempt: int
) -> None:
    """Whatever comes first, a cancellation that was acknowledged is not taken back."""
    gate(diary, "book b")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "b"))
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book b"].wait()
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a", "c"))
        assert await ended(runtime, "x") is WorkflowState.PARKED
        runtime.workflows.register(booking(diary, "a", "b"))
        diary.gates["book b"].set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resumed_or_not, runtime)
            nursery.start_soon(runtime.workflows.cancel, "x")
        assert await ended(runtime, "x") is WorkflowState.CANCELLED
    assert "a" in diary.of("undo")


async def resumed_or_not(runtime: Runtime) -> None:
    try:
        await runtime.workflows.resume("x")
    except ValueError as error:
        assert "it does not wait" in str(error)  # noqa: PT017 - it may as well work


async def test_h11_a_workflow_that_does_not_let_itself_be_stopped_holds_up_no_other(
    open_app: Open, diary: Diary, reported: Any
) -> None:
    """H11: its own supervisor would wait for it, and start nobody."""
    begun = trio.Event()

    async def dig_in() -> None:
        with trio.CancelScope(shield=True):
            begun.set()
            await trio.sleep(100)

    async def stubborn(flow: Flow) -> None:
        await flow.step(dig_in)

    async with open_app() as runtime:
        runtime.workflows.register(stubborn)
        runtime.workflows.register(booking(diary, "a"))
        ref = await runtime.workflows.start(stubborn, id="x")
        await begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.cancel)
            await trio.sleep(10)
            other = await runtime.workflows.start("booking", id="y")
            await other.result()
            assert trio.current_time() < 50
            (told,) = await reported(runtime, "workflow.stuck")
            assert told["id"] == "x"
        assert await ended(runtime, "x") is WorkflowState.CANCELLED


async def test_a_cancel_that_is_given_up_while_it_waits_leaves_the_workflow_going(
    open_app: Open, diary: Diary
) -> None:
    """Cancelled itself it did nothing: also when what it stopped ends only later."""
    begun = trio.Event()

    async def dig_in() -> None:
        with trio.CancelScope(shield=True):
            begun.set()
            await trio.sleep(10)
        await trio.lowlevel.checkpoint()

    async def stubborn(flow: Flow) -> None:
        await flow.step(dig_in)
        await flow.step(diary.book, "a", name="a")

    async with open_app() as runtime:
        runtime.workflows.register(stubborn)
        ref = await runtime.workflows.start(stubborn, id="x")
        await begun.wait()
        with trio.move_on_after(1) as given_up:
            await ref.cancel()
        assert given_up.cancelled_caught
        assert await ended(runtime, "x") is WorkflowState.COMPLETED
    assert diary.lines == ["book a"]


async def test_a_workflow_whose_end_its_supervisor_has_not_come_to_is_resumed(
    open_app: Open, diary: Diary
) -> None:
    """It waits for another child, which a person stops and which does not end."""
    dug_in, go_on = trio.Event(), trio.Event()

    async def dig_in() -> None:
        with trio.CancelScope(shield=True):
            dug_in.set()
            await trio.sleep(100)

    async def stubborn(flow: Flow) -> None:
        await flow.step(dig_in)

    async def hasty(flow: Flow) -> None:
        await go_on.wait()
        with trio.move_on_after(1 if "book a" in diary.gates else math.inf):
            await flow.step(diary.book, "a", name="a")

    gate(diary, "book a")
    async with open_app() as runtime:
        runtime.workflows.register(stubborn)
        runtime.workflows.register(hasty)
        await runtime.workflows.start(stubborn, id="s")
        ref = await runtime.workflows.start(hasty, id="x")
        await dug_in.wait()
        children = runtime.supervisor("/workflows/running")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(children.terminate_child, "s")
            await trio.sleep(1)
            go_on.set()
            with pytest.raises(WorkflowParked):
                await ref.result()
            del diary.gates["book a"]
            await ref.status()
            await runtime.workflows.resume("x")
            await trio.sleep(1)
        assert await ended(runtime, "x") is WorkflowState.COMPLETED


async def test_a_workflow_that_crashed_too_often_is_cancelled_all_the_same(
    open_app: Open, diary: Diary
) -> None:
    async def crashing(flow: Flow) -> None:
        await flow.step(diary.book, "a", name="a", compensate=diary.undo)
        raise RuntimeError("a bug")

    gate(diary, "undo a")
    async with open_app() as runtime:
        runtime.workflows.register(crashing)
        ref = await runtime.workflows.start(crashing, id="x")
        await diary.begun["undo a"].wait()
        await ref.cancel()
        diary.gates["undo a"].set()
        assert await ended(runtime, "x") is WorkflowState.CANCELLED
    assert diary.of("undo") == ["a"]


async def test_what_is_damaged_is_neither_cancelled_nor_resumed_nor_touched(
    open_app: Open, diary: Diary
) -> None:
    gate(diary, "book a")
    async with open_app() as runtime:
        runtime.workflows.register(booking(diary, "a"))
        await runtime.workflows.start("booking", id="x")
        await diary.begun["book a"].wait()
    async with open_app() as runtime:
        unit = Unit("a cosmic ray")
        unit.writes = [("UPDATE workflow SET arguments = '[1]'", ())]
        runtime.store.hand_over(unit)
        await runtime.store.wait(unit)
        for act in (runtime.workflows.cancel, runtime.workflows.resume):
            with pytest.raises(RestoreError, match="its row is damaged"):
                await act("x")
        rows = await runtime.store.read(
            lambda one: one.execute("SELECT state, reason FROM workflow").fetchall()
        )
        assert rows == [("running", "")]
