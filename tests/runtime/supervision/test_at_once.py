"""Starts that wait for nothing are over in the turn in which they are decided."""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import (
    IGNORE,
    Agent,
    AgentCrashed,
    AgentRef,
    ChildSpec,
    Intensity,
    Stop,
)
from treewarden.agents.operation import never_waits, run_through
from treewarden.errors import (
    AlreadyStarted,
    ChildStartFailed,
    IntensityExceeded,
    ShuttingDown,
    UnknownChild,
)
from treewarden.exits import Crash, Fault, Shutdown, describe
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.supervision import Kind, Supervisor, as_supervisor, current_life

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from treewarden.exits import Exit
    from treewarden.supervision import SupervisorRef

    from .conftest import World

_colour: ContextVar[str] = ContextVar("colour", default="none")


class Passes(trio.abc.Instrument):
    """How often trio's loop has gone round."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.fixture
async def passes() -> AsyncIterator[Passes]:
    """Counted from here on."""
    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    yield passes
    trio.lowlevel.remove_instrument(passes)


class Prompt(Agent[None]):
    """Starts without waiting, and tells where and when."""

    persistence = "none"

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    async def on_start(self) -> None:
        self.note("up")

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - Agent names it so
        self.note("down")

    async def crash(self) -> None:
        self.note("crash")
        raise ValueError("no")

    async def colour(self) -> str:
        return _colour.get()


class Patient(Prompt):
    """Waits in its start."""

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        self.note(trio.lowlevel.current_task().name)


class Painted(Prompt):
    """Leaves something in its context."""

    async def on_start(self) -> None:
        self.note(_colour.get())
        _colour.set(self.path)


class Stubborn(Prompt):
    """Does not start a second time."""

    async def on_start(self) -> None:
        self.note("up")
        if self.incarnation > 1:
            raise ValueError("not again")


class Looping(Prompt):
    """Crashes in its first message, in so many of its lives."""

    times = 0

    async def on_start(self) -> None:
        self.note("up")
        if self.incarnation <= self.times:
            self.continue_with(Looping.crash)


class Absent(Prompt):
    """Is not there, and that is no error."""

    async def on_start(self) -> Any:
        self.note("up")
        return IGNORE


class Cut(Prompt):
    """Is interrupted while it starts."""

    async def on_start(self) -> None:
        raise KeyboardInterrupt


class Quitter(Prompt):
    """Raises what only trio and Python raise."""

    async def on_start(self) -> None:
        self.note("up")
        raise GeneratorExit


def prompt(
    world: World, agent: type[Prompt] = Prompt, id_: str = "a", **spec: Any
) -> ChildSpec:
    return ChildSpec(id_, agent, args=(world.note,), **spec)


def address(root: SupervisorRef, path: str = "/a") -> AgentRef[Any]:
    return AgentRef(root.directory, path)


def supervisor_at(world: World, path: str) -> Supervisor:
    node = world.directory.find(path)
    assert node is not None
    supervisor = as_supervisor(node)
    assert supervisor is not None
    return supervisor


# --- when ---------------------------------------------------------------------------------------


async def test_a_start_that_waits_for_nothing_is_over_in_the_turn_that_asks_for_it(
    world: World, passes: Passes
) -> None:
    at: list[int] = []
    spec = ChildSpec("a", Prompt, args=(lambda _: at.append(passes.count),))
    async with world.open() as root:
        asked = passes.count
        info = await root.start_child(spec)
        assert info is not None
        assert (at, info.state) == ([asked], "running")
        assert passes.count == asked


async def test_whoever_starts_many_gives_way_every_32nd_time(
    world: World, passes: Passes
) -> None:
    """In whichever supervisors: a task in its turn is everybody's delay."""
    inner = world.supervisor("inner", limit=0)
    async with world.open(inner) as root:
        before = passes.count
        for number in range(160):
            await root.start_child(prompt(world, id_=f"a-{number}"))
            await root.supervisor("inner").start_child(prompt(world, id_=f"b-{number}"))
        assert passes.count - before == 2 * 160 // 32


async def test_whoever_is_refused_gives_way_each_time(
    world: World, passes: Passes
) -> None:
    async with world.open(prompt(world)) as root:
        before = passes.count
        for _ in range(5):
            with pytest.raises(AlreadyStarted):
                await root.start_child(prompt(world))
        assert passes.count - before == 5


async def test_a_cancelled_caller_starts_nothing(world: World) -> None:
    async with world.open() as root:
        with trio.CancelScope() as scope:
            scope.cancel()
            await root.start_child(prompt(world))
        assert scope.cancelled_caught
        assert root.which_children() == []
    assert world.trace == []


async def test_what_a_start_asks_of_its_supervisor_comes_after_it(world: World) -> None:
    """No two of its decisions overlap, whoever makes them."""

    class Parent(Prompt):
        async def on_start(self) -> None:
            self.note("parent")
            supervisor_at(world, "/").add_soon(prompt(world, id_="b"))
            self.note("asked")

    async with world.open() as root:
        await root.start_child(prompt(world, Parent))
        assert world.cut() == ["parent", "asked", "up"]
        assert [one.path for one in world.reported("started")] == ["/a", "/b"]


async def test_a_start_that_fails_is_over_before_anything_else_is_done(
    world: World,
) -> None:
    class Failing(Prompt):
        async def on_start(self) -> None:
            supervisor_at(world, "/").add_soon(prompt(world, Observer, "b"))
            raise ValueError("no")

    class Observer(Prompt):
        async def on_start(self) -> None:
            self.note("there" if world.directory.find("/a") else "gone")

    async with world.open() as root:
        with pytest.raises(ChildStartFailed):
            await root.start_child(prompt(world, Failing))
        assert world.trace == ["gone"]


async def test_a_supervisor_that_is_about_to_end_starts_nothing(world: World) -> None:
    inner = world.supervisor("inner", limit=0)
    async with world.open(inner, limit=9) as root:
        supervisor_at(world, "/inner").crash(Fault(type="Broken", message="on purpose"))
        with pytest.raises(ShuttingDown):
            await root.supervisor("inner").start_child(prompt(world))
        await world.settle()
    assert world.trace == []


async def test_a_restart_is_over_in_the_turn_of_the_crash(
    world: World, passes: Passes
) -> None:
    at: list[tuple[str, int]] = []
    spec = ChildSpec("a", Prompt, args=(lambda what: at.append((what, passes.count)),))
    async with world.open(spec) as root:
        for _ in range(3):
            with pytest.raises(AgentCrashed):
                await address(root).call(Prompt.crash)
        what, when = zip(*at, strict=True)
        assert what == ("up", *["crash", "up"] * 3)
        assert when[1::2] == when[2::2]
        assert address(root).incarnation == 4


async def test_what_a_restart_asks_of_its_supervisor_comes_after_it(
    world: World,
) -> None:
    class Inviting(Prompt):
        async def on_start(self) -> None:
            self.note("up")
            if self.incarnation > 1:
                supervisor_at(world, "/").add_soon(prompt(world, id_="b"))
                self.note("asked")

    async with world.open(prompt(world, Inviting)) as root:
        with pytest.raises(AgentCrashed):
            await address(root).call(Prompt.crash)
        await world.settle()
        assert world.cut() == ["up", "crash", "up", "asked", "up"]
        assert [one.path for one in world.reported("restarted")] == ["/a"]
        assert world.directory.find("/b") is not None


async def test_what_fails_when_an_end_is_dealt_with_is_the_supervisors_failure(
    world: World,
) -> None:
    plan = InjectionPlan(
        name="end", injections=(Rule(point=places.CHILD_ENDED.name, do=Deed.RAISE),)
    )
    inner = world.supervisor("inner", prompt(world))
    async with world.open(inner, prompt(world, id_="b")) as root:
        loaded = load_plan(plan)
        try:
            with suppress(AgentCrashed):
                await address(root, "/inner/a").call(Prompt.crash)
            await world.settle()
        finally:
            loaded.lift()
        ended = [(one.path, describe(one.exit)) for one in world.reported("exited")]
        assert ended == [
            ("/inner/a", "crashed: ValueError: no"),
            ("/inner", "crashed: InjectedCrash: injected at supervisor.ended"),
        ]
        assert [one.path for one in world.reported("restarted")] == ["/inner"]
        assert world.cut() == ["up", "up", "crash", "up"]


async def test_a_start_that_waits_has_a_task_of_its_own(world: World) -> None:
    async with world.open(prompt(world, Patient)) as root:
        assert world.cut() == ["/a"]
        with pytest.raises(AgentCrashed):
            await address(root).call(Prompt.crash)
        await world.settle()
        assert world.cut() == ["crash", "/a"]


async def test_starts_in_one_turn_are_as_many_as_the_loop_can_do_without(
    world: World, passes: Passes
) -> None:
    many = [prompt(world, id_=f"a-{number}") for number in range(1000)]
    before = passes.count
    async with world.open(*many):
        assert world.cut() == ["up"] * 1000
        assert 1000 / 128 <= passes.count - before <= 50


async def test_a_child_that_never_starts_again_leaves_the_others_their_turns(
    world: World, passes: Passes
) -> None:
    """Pitfall 1: each attempt costs one of the budget, and most of them no pass of the loop."""
    with pytest.raises(IntensityExceeded):
        async with world.open(prompt(world, Stubborn), limit=1000) as root:
            before = passes.count
            await address(root).cast(Prompt.crash)
            await trio.sleep_forever()
    assert world.trace.count("up") == 1 + 1000
    assert passes.count - before >= 1000 / 128


# --- and what comes first -------------------------------------------------------------------


def looping(times: int) -> type[Looping]:
    return type("Looping", (Looping,), {"times": times})


async def test_who_crashes_at_once_again_and_again_gives_way_every_32nd_time(
    world: World, passes: Passes
) -> None:
    """Pitfall 1: a pass of the loop is a fifth of such a restart."""
    async with world.open(limit=1000) as root:
        before = passes.count
        await root.start_child(prompt(world, looping(320)))
        await world.settle()
        assert world.cut() == [*["up", "crash"] * 320, "up"]
        assert 320 // 32 <= passes.count - before < 320 // 8


async def test_the_more_there_are_who_crash_again_the_sooner_each_gives_way(
    world: World, passes: Passes
) -> None:
    crashes: Counter[int] = Counter()

    def note(what: str) -> None:
        if what == "crash":
            crashes[passes.count] += 1

    many = [
        ChildSpec(f"a-{number}", looping(50), args=(note,)) for number in range(100)
    ]
    async with world.open(*many, limit=10_000):
        await world.settle()
    assert crashes.total() == 100 * 50
    # Until all have come to wait for a pass, each goes on for as long as one alone.
    assert max(crashes.values()) < 2_000
    assert sorted(crashes.values())[len(crashes) // 2] <= 512


async def test_a_life_that_begins_with_a_crash_leaves_nothing_in_the_next_ones_context(
    world: World,
) -> None:
    """TA-10"""
    found: list[tuple[str, str]] = []

    class Painting(Looping):
        times = 5

        async def on_start(self) -> None:
            found.append(("on_start", _colour.get()))
            await super().on_start()

        async def crash(self) -> None:
            found.append(("crash", _colour.get()))
            _colour.set("left behind")
            raise ValueError

        async def wait(self) -> str:
            await trio.lowlevel.checkpoint()
            return _colour.get()

    async with world.open(prompt(world, Painting), limit=9) as root:
        await world.settle()
        assert found == [("on_start", "none"), ("crash", "none")] * 5 + [
            ("on_start", "none")
        ]
        assert await address(root).call(Painting.wait) == "none"


async def test_a_crash_is_told_of_alike_in_whosever_turn_it_comes(world: World) -> None:
    async with world.open(prompt(world, looping(3)), limit=9) as root:
        await world.settle()
        with pytest.raises(AgentCrashed):
            await address(root).call(Prompt.crash)
        ends = [one.exit for one in world.reported("exited")]
        faults = [end.fault for end in ends if isinstance(end, Crash)]
        assert len(faults) == 4
        [frames] = {fault.frames for fault in faults}
        assert [name for _, _, name in frames] == ["crash"]


async def test_who_stops_in_its_first_message_takes_its_leave(world: World) -> None:
    class Leaving(Looping):
        times = 2

        async def crash(self) -> None:
            if self.incarnation == 1:
                self.note("crash")
                raise ValueError
            self.note("leave")
            raise Stop(Shutdown("enough"))

    spec = prompt(world, Leaving, restart="transient")
    async with world.open(spec) as root:
        await world.settle()
        assert world.cut() == ["up", "crash", "up", "leave", "down"]
        [child] = root.which_children()
        assert child.last_exit == Shutdown("enough")


async def test_an_interrupt_in_a_first_message_ends_the_tree(world: World) -> None:
    class Interrupted(Looping):
        times = 2

        async def crash(self) -> None:
            if self.incarnation == 2:
                raise KeyboardInterrupt
            self.note("crash")
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        async with world.open(prompt(world, Interrupted)):
            await trio.sleep_forever()
    assert world.trace == ["up", "crash", "up"]


async def test_what_waits_behind_a_first_message_is_handled_after_it_in_order(
    world: World,
) -> None:
    class Busy(Looping):
        times = 2

        async def say(self, word: str) -> None:
            self.note(word)

        async def wait(self, word: str) -> None:
            await trio.lowlevel.checkpoint()
            self.note(word)

    gate = trio.Event()

    class Gated(Busy):
        async def hold(self) -> None:
            await gate.wait()
            raise ValueError

    async with world.open(prompt(world, Gated), limit=9) as root:
        await world.settle()
        world.cut()
        ref = address(root)
        await ref.cast(Gated.hold)
        for word in ("1", "2", "3"):
            await ref.cast(Busy.wait if word == "2" else Busy.say, word)
        gate.set()
        await world.settle()
        assert world.cut() == ["up", "1", "2", "3"]


# --- where --------------------------------------------------------------------------------------


async def test_what_a_start_leaves_in_its_context_is_there_for_that_incarnation_alone(
    world: World,
) -> None:
    async with world.open(prompt(world, Painted)) as root:
        await root.start_child(prompt(world, Painted, "b"))
        assert await address(root).call(Prompt.colour) == "/a"
        with pytest.raises(AgentCrashed):
            await address(root).call(Prompt.crash)
        assert await address(root).call(Prompt.colour) == "/a"
        assert await address(root, "/b").call(Prompt.colour) == "/b"
        assert world.trace == ["none", "none", "crash", "none"]
        assert (_colour.get(), current_life.get()) == ("none", None)


async def test_a_start_sees_nothing_of_the_context_of_whoever_asks_for_it(
    world: World,
) -> None:
    """Pitfall 30: also when it is over in his turn."""
    async with world.open() as root:
        _colour.set("caller's")
        await root.start_child(prompt(world, Painted))
        assert await address(root).call(Prompt.colour) == "/a"
        assert (world.trace, _colour.get()) == (["none"], "caller's")


# --- how it can end -----------------------------------------------------------------------------


async def test_what_a_start_raises_at_once_is_told_to_whoever_asked_for_it(
    world: World,
) -> None:
    """RFL-01: with what led to it; nothing of the child is left."""

    class Broken(Prompt):
        async def on_start(self) -> None:
            self.note("up")
            raise ValueError("no ink")

    async with world.open() as root:
        with pytest.raises(ChildStartFailed, match="no ink") as caught:
            await root.start_child(prompt(world, Broken))
        assert isinstance(caught.value.__cause__, ValueError)
        assert root.which_children() == []
    assert world.trace == ["up"]


async def test_the_entries_of_a_life_that_failed_at_once_are_gone(world: World) -> None:
    """Whoever watches a life is told of its end, whether it came to a task or not."""
    told: list[Exit | None] = []

    class Watched(Prompt):
        async def on_start(self) -> None:
            life = current_life.get()
            assert life is not None
            life.watchers.append(lambda life: told.append(life.exit))
            raise ValueError("no")

    async with world.open() as root:
        with pytest.raises(ChildStartFailed):
            await root.start_child(prompt(world, Watched))
    [exit_] = told
    assert isinstance(exit_, Crash)


async def test_a_start_that_is_ignored_at_once_is_kept_as_stopped(
    world: World,
) -> None:
    """IGN-01"""
    async with world.open() as root:
        info = await root.start_child(prompt(world, Absent))
        assert info is not None
        assert (info.state, info.kind) == ("stopped", Kind.AGENT)
        assert (root.count_children().specs, root.count_children().active) == (1, 0)
    assert world.trace == ["up"]


async def test_a_failed_restart_is_tried_again_and_counted(world: World) -> None:
    """INT-06"""
    with pytest.raises(IntensityExceeded):
        async with world.open(prompt(world, Stubborn), limit=3) as root:
            await address(root).cast(Prompt.crash)
            await trio.sleep_forever()
    assert world.trace == ["up", "crash", "up", "up", "up"]
    assert len(world.reported("start_failed")) == 3


async def test_a_child_is_stopped_in_order_before_its_task_has_run(
    world: World,
) -> None:
    """Whichever of the two is first, on_stop has run for each on_start."""
    async with world.open() as root, trio.open_nursery() as nursery:

        async def terminate() -> None:
            try:
                await root.terminate_child("a")
                world.note("terminated")
            except UnknownChild:
                world.note("unknown")

        nursery.start_soon(root.start_child, prompt(world))
        nursery.start_soon(terminate)
        await world.settle()
        assert world.cut() in (["up", "down", "terminated"], ["up", "unknown"])


async def test_a_start_can_be_interrupted_wherever_it_runs(world: World) -> None:
    """One that loops for ever is ended by Ctrl-C, in its caller's turn too."""

    class Watched(Prompt):
        async def on_start(self) -> None:
            self.note(str(trio.lowlevel.currently_ki_protected()))

    async with world.open(prompt(world, Watched)) as root:
        await root.start_child(prompt(world, Watched, "b"))
        assert world.trace == ["False", "False"]


async def test_an_interrupt_in_a_start_stops_the_tree(world: World) -> None:
    """TA-8"""
    with pytest.raises(KeyboardInterrupt):
        async with world.open(prompt(world)) as root:
            with pytest.raises(ChildStartFailed):
                await root.start_child(prompt(world, Cut, "b"))
            await trio.sleep_forever()
    assert world.trace == ["up", "down"]


async def test_a_start_may_raise_whatever_it_likes(world: World) -> None:
    """TA-2: also in the turn of somebody who has been cancelled, which is not its own."""

    async def cancelled(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            task_status.started()
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()

    quitter = prompt(world, Quitter, restart="temporary")
    with pytest.raises(ChildStartFailed) as caught:
        async with world.open(ChildSpec("cancelled", cancelled), quitter):
            pytest.fail("the block was entered")
    assert isinstance(caught.value.exit, Crash)
    assert caught.value.exit.fault.type == "GeneratorExit"
    assert world.trace == ["up"]


async def test_a_budget_of_its_own_is_asked_as_ever(world: World) -> None:
    poor = prompt(world, intensity=Intensity(1, 5.0))
    async with world.open(poor, limit=0) as root:
        for _ in range(2):
            with pytest.raises(AgentCrashed):
                await address(root).call(Prompt.crash)
        assert world.states(root) == {"a": "failed"}
        await trio.sleep(6)
        await root.restart_child("a")
        assert world.trace == ["up", "crash", "up", "crash", "up"]
        await root.terminate_child("a")
        assert world.info(root, "a").last_exit == Shutdown()


# --- which --------------------------------------------------------------------------------------


class Yields:
    """What everything that waits comes down to."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def _awaits() -> None:
    await Yields()


async def _iterates(lines: Any) -> list[str]:
    return [line async for line in lines]


async def _enters(place: Any) -> None:
    async with place:
        pass


async def _loops(lines: Any) -> None:
    async for _ in lines:
        pass


async def _generates() -> AsyncIterator[int]:
    yield 1


async def _returns(lines: list[str]) -> list[str]:
    with suppress(ValueError):
        return [line for line in lines if line]
    return []


def _plain() -> None: ...


@functools.wraps(_returns)
def _decorated(*args: Any) -> Any:
    return _returns(*args)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        *((one, False) for one in (_awaits, _iterates, _enters, _loops, _generates)),
        *((one, False) for one in (_plain, _decorated)),
        (_returns, True),
        (Prompt.on_start, True),
        (Patient.on_start, False),
        (Agent.on_start, True),
    ],
)
def test_a_function_never_waits_if_its_code_has_no_place_to(
    function: Any, answer: bool
) -> None:
    assert never_waits(function) is answer


def test_what_waits_after_all_is_not_run_through() -> None:
    assert run_through(_returns(["a", ""])) == ["a"]
    with pytest.raises(RuntimeError, match=r"_awaits .* waits for something"):
        run_through(_awaits())
