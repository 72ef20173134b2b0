"""How an incarnation of an agent ends: once, as what it was, and with what it knew."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    Application,
    ChildSpec,
    Config,
    Crash,
    Down,
    Exit,
    Killed,
    Normal,
    Shutdown,
    Stop,
    open_runtime,
    open_supervisor,
)
from treewarden.supervision import Directory, Report, SupervisorSpec, open_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Fatal(BaseException):
    """Not an Exception: a sloppy barrier lets it through."""


class Notes(msgspec.Struct):
    seen: list[str] = []


def by_hand(kind: str) -> BaseException:
    """An exception that looks as if it came from somewhere else."""
    if kind == "Cancelled":
        return trio.Cancelled._create(source="unknown")
    if kind == "group":
        return BaseExceptionGroup("several", [GeneratorExit(), ValueError("and")])
    return {"Fatal": Fatal, "GeneratorExit": GeneratorExit}[kind]("by hand")


class Actor(Agent[Notes]):
    persistence = "none"

    def __init__(self, last_words: str = "") -> None:
        self.last_words = last_words

    async def raise_by_hand(self, kind: str) -> None:
        raise by_hand(kind)

    def raise_by_hand_now(self, kind: str) -> None:
        raise by_hand(kind)

    async def raise_in_a_nursery(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            async with trio.open_nursery() as inner:
                inner.start_soon(self.boom)

    async def boom(self) -> None:
        raise ValueError("deep down")

    async def leave_the_program(self) -> None:
        raise SystemExit(3)

    async def note(self, word: str) -> list[str]:
        self.state.seen.append(word)
        return self.state.seen

    async def chain(self) -> None:
        try:
            await self.boom()
        except ValueError as error:
            raise RuntimeError("because of that") from error

    async def until_cancelled(self, then: str) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if then == "returns":
                return "late"
            if then == "raises":
                raise ValueError("late") from None
            raise
        return "never"

    async def cancels_itself(self) -> str:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        return "went on"

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        if self.last_words == "fail":
            raise ValueError("in on_stop")
        if self.last_words == "change their mind":
            raise Stop(Shutdown("after all"))


class Kept(Actor):
    persistence = "write_through"


class Witness(Agent[None]):
    def __init__(self, downs: list[Down]) -> None:
        self.downs = downs

    async def watch(self, whom: Any, times: int) -> None:
        for _ in range(times):
            self.monitor(whom)

    async def on_down(self, down: Down) -> None:
        self.downs.append(down)


async def test_a_crash_has_one_report_that_says_all(autojump_clock: object) -> None:
    """MSG-11: what failed, where, on which message of whom, in which state."""
    reports: list[Report] = []
    directory = Directory()
    directory.reporter = reports.append
    spec = SupervisorSpec([ChildSpec("one", Actor)])
    async with open_tree(spec, directory=directory):
        ref: AgentRef[Actor] = AgentRef(directory, "/one")
        await ref.call(Actor.note, "kept")
        with pytest.raises(AgentCrashed) as caught:
            await ref.call(Actor.raise_by_hand, "Fatal")
        await wait_all_tasks_blocked()
        body = ref.resolve()
    fault = caught.value.fault
    assert (fault.type, fault.path, fault.incarnation) == (
        f"{__name__}.Fatal",
        "/one",
        1,
    )
    exits = [
        one.exit
        for one in reports
        if one.path == "/one" and isinstance(one.exit, Crash) and one.incarnation == 1
    ]
    assert {exit_.fault.message for exit_ in exits} == {"by hand"}
    topics = [one.topic for one in reports if one.path == "/one"]
    assert topics.count("supervision.exited") == 2  # the crash, and the tree's end
    crash = body.last_crash
    assert crash is not None
    assert crash.operation == "raise_by_hand"
    assert msgspec.json.decode(crash.message)["args"] == ["Fatal"]
    assert msgspec.json.decode(crash.payload or b"") == {"seen": ["kept"]}
    assert body.recent()[-1].outcome == "crashed"


async def test_a_cause_is_told_and_no_group_is_made_of_it(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-11, RST-18: an error is what it was raised as, with what led to it."""
    ref = address(await start_agents(ChildSpec("one", Actor)), "/one")
    with pytest.raises(AgentCrashed) as caught:
        await ref.call(Actor.chain)
    assert caught.value.fault.type == "RuntimeError"
    assert caught.value.fault.cause is not None
    assert caught.value.fault.cause.summary() == "ValueError: deep down"
    # From the handler's own frame on: who called it is the same for all of them.
    assert [name for _, _, name in caught.value.fault.frames] == ["chain"]
    with pytest.raises(AgentCrashed) as caught:
        await ref.call(Actor.raise_in_a_nursery)
    # The handler's own nurseries made these groups: they are the reason as it stands.
    assert caught.value.fault.type == "ExceptionGroup"
    assert "ExceptionGroup: Exceptions from Trio nursery" in caught.value.fault.message
    assert "ValueError: deep down" in caught.value.fault.message


@pytest.mark.parametrize("kind", ["Fatal", "GeneratorExit", "Cancelled", "group"])
@pytest.mark.parametrize("operation", [Actor.raise_by_hand, Actor.raise_by_hand_now])
async def test_what_a_handler_raises_by_hand_is_its_crash(
    start_agents: StartAgents,
    address: Address,
    operation: Any,
    kind: str,
    autojump_clock: object,
) -> None:
    """END-15: whatever it inherits from; and the message is not handled again."""
    supervisor = await start_agents(
        ChildSpec("one", Actor), ChildSpec("neighbour", Actor)
    )
    ref = address(supervisor, "/one")
    with pytest.raises(AgentCrashed):
        await ref.call(operation, kind)
    assert await ref.call(Actor.note, "alive") == ["alive"]
    assert ref.incarnation == 2
    assert ref.resolve().node.cause.kind == "crash"
    assert address(supervisor, "/neighbour").incarnation == 1


@pytest.mark.parametrize("kind", ["Fatal", "GeneratorExit", "Cancelled", "group"])
async def test_what_a_function_raises_by_hand_is_its_crash(
    start_agents: StartAgents, kind: str, autojump_clock: object
) -> None:
    """END-15"""
    raised: list[str] = []

    async def one() -> None:
        if not raised:
            raised.append(kind)
            raise by_hand(kind)
        await trio.sleep_forever()

    supervisor = await start_agents(ChildSpec("one", one))
    await wait_all_tasks_blocked()
    (child,) = supervisor.which_children()
    assert isinstance(child.last_exit, Crash)
    assert (child.state, child.incarnation) == ("running", 2)


async def test_leaving_the_program_is_no_crash(autojump_clock: object) -> None:
    """END-15: the tree is stopped in order, and nobody is started again."""
    reports: list[Report] = []
    directory = Directory()
    directory.reporter = reports.append
    spec = SupervisorSpec([ChildSpec("one", Actor), ChildSpec("two", Actor)])
    with pytest.raises(SystemExit) as caught:
        async with open_tree(spec, directory=directory):
            ref: AgentRef[Actor] = AgentRef(directory, "/one")
            with pytest.raises(AgentDown):
                await ref.call(Actor.leave_the_program)
            await trio.sleep_forever()
    assert caught.value.code == 3
    topics = {one.topic for one in reports}
    assert "supervision.restarted" not in topics
    assert not any(isinstance(one.exit, Crash) for one in reports)


@pytest.mark.parametrize(
    ("then", "expected"),
    [("returns", "Normal"), ("raises", "Crash"), ("goes on", "Shutdown")],
)
async def test_a_function_that_is_stopped_ends_once_as_what_it_did(
    start_agents: StartAgents,
    address: Address,
    then: str,
    expected: str,
    autojump_clock: object,
) -> None:
    """END-14, and TA-1: the outcome counts, and not that somebody cancelled."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if then == "raises":
                raise ValueError("late") from None
            if then != "returns":
                raise

    downs: list[Down] = []
    supervisor = await start_agents(
        ChildSpec("one", child), ChildSpec("witness", Witness, args=(downs,))
    )
    await address(supervisor, "/witness").call(
        Witness.watch, address(supervisor, "/one"), 3
    )
    await supervisor.terminate_child("one")
    await wait_all_tasks_blocked()
    assert [type(down.exit).__name__ for down in downs] == [expected] * 3


@pytest.mark.parametrize(
    ("then", "expected"),
    # One that ignores it and comes to its end all the same was only stopped.
    [("returns", "Shutdown"), ("raises", "Crash"), ("goes on", "Killed")],
)
async def test_a_killed_agent_ends_once_as_what_it_did(
    start_agents: StartAgents,
    address: Address,
    then: str,
    expected: str,
    autojump_clock: object,
) -> None:
    """END-14"""
    downs: list[Down] = []
    supervisor = await start_agents(
        ChildSpec("one", Actor, shutdown=0),
        ChildSpec("witness", Witness, args=(downs,)),
    )
    ref = address(supervisor, "/one")
    await address(supervisor, "/witness").call(Witness.watch, ref, 3)
    busy = ref.request(Actor.until_cancelled, then)
    await wait_all_tasks_blocked()
    await supervisor.terminate_child("one")
    await wait_all_tasks_blocked()
    assert len(downs) == 3
    assert {type(down.exit).__name__ for down in downs} == {expected}
    assert busy.is_answered
    assert trio.current_time() == 0


async def test_a_handler_that_cancels_a_scope_of_its_own_goes_on(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """END-14"""
    ref = address(await start_agents(ChildSpec("one", Actor)), "/one")
    assert await ref.call(Actor.cancels_itself) == "went on"
    assert ref.incarnation == 1


async def test_cancelled_from_outside_the_tree_everybody_is_stopped_once(
    autojump_clock: object,
) -> None:
    """END-14: as a shut-down, in order."""
    reports: list[Report] = []
    directory = Directory()
    directory.reporter = reports.append
    spec = SupervisorSpec([ChildSpec("one", Actor), ChildSpec("two", Actor)])
    with trio.move_on_after(1) as scope:
        async with open_tree(spec, directory=directory):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    ends = [(r.path, r.exit) for r in reports if r.topic == "supervision.exited"]
    assert [one for one in ends if one[0] != "/"] == [
        ("/two", Shutdown()),
        ("/one", Shutdown()),
    ]


async def test_a_failed_goodbye_is_kept_with_the_state_and_the_last_message(
    tmp_path: Path,
) -> None:
    """END-08: as any crash is."""
    app = Application("test", [ChildSpec("one", Kept, args=("fail",))])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        ref = runtime.ref("one", Kept)
        await ref.call(Kept.note, "last")
        with pytest.raises(AgentCrashed, match="in on_stop"):
            await ref.stop()
        crash = ref.resolve().last_crash
        assert crash is not None
        assert (crash.operation, crash.incarnation) == ("on_stop", 1)
        assert msgspec.json.decode(crash.payload or b"") == {"seen": ["last"]}
        assert b"in on_stop" in crash.fault_json()
        assert [(one.operation, one.outcome) for one in ref.recent()] == [
            ("note", "done"),
            ("stop", "done"),
            ("on_stop", "crashed"),
        ]
        assert ref.statistics().crashed == 1
        assert ref.statistics().dead_letters == 0


async def test_who_says_goodbye_may_choose_another_exit(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    supervisor = await start_agents(
        ChildSpec("one", Actor, args=("change their mind",), restart="transient")
    )
    ref = address(supervisor, "/one")
    with pytest.raises(AgentDown, match="after all"):
        await ref.stop()
    await wait_all_tasks_blocked()
    (child,) = supervisor.which_children()
    assert child.last_exit == Shutdown("after all")
    assert ref.resolve().last_crash is None


async def test_an_idle_agent_that_is_stopped_is_shut_down_and_not_killed(
    autojump_clock: object,
) -> None:
    """END-14"""
    async with open_supervisor([ChildSpec("one", Actor, shutdown=1)]) as supervisor:
        ref: AgentRef[Actor] = AgentRef(supervisor.directory, "/one")
        await ref.call(Actor.note, "word")
        await supervisor.terminate_child("one")
        (child,) = supervisor.which_children()
        assert child.last_exit == Shutdown()


@pytest.mark.parametrize("how", ["deadline", "swallowed", "stopped", "killed"])
async def test_a_context_manager_that_leaves_by_itself_was_not_stopped(
    start_agents: StartAgents, how: str, autojump_clock: object
) -> None:
    """END-14"""

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        if how == "deadline":
            with trio.move_on_after(1):
                yield
        elif how == "swallowed":
            with suppress(ExceptionGroup):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fails)
                    yield
        else:
            yield

    async def fails() -> None:
        raise ValueError("in the background")

    restart, shutdown = "transient", 0 if how == "killed" else 5
    spec = ChildSpec("one", resource, restart=restart, shutdown=shutdown)
    supervisor = await start_agents(spec)
    await trio.sleep(2)
    if how in {"stopped", "killed"}:
        await supervisor.terminate_child("one")
    (child,) = supervisor.which_children()
    expected = {"stopped": Shutdown(), "killed": Killed()}.get(how, Normal())
    assert (child.state, child.last_exit) == ("stopped", expected)
