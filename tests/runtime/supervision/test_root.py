"""The root: where a tree meets the program around it."""

from __future__ import annotations

import math
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import IntensityExceeded, NotRunning, ShuttingDown
from treewarden.exits import Crash, Killed, Shutdown
from treewarden.supervision import (
    ChildSpec,
    Directory,
    Node,
    SupervisorSpec,
    cleanup,
    open_supervisor,
    open_tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Books
    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import SupervisorRef


# --- the block ----------------------------------------------------------------------------------


async def test_leaving_the_block_stops_the_children_in_reverse_order(
    world: World,
) -> None:
    """STA-17"""
    async with world.open(world.child("a"), world.child("b")):
        pass
    assert world.trace == ["start a", "start b", "end b", "end a"]


async def test_an_error_of_the_block_comes_out_as_it_was_when_the_children_are_gone(
    world: World,
) -> None:
    """STA-17, TRI-03: unwrapped, the same object, its own context untouched."""
    context, cause = KeyError("context"), KeyError("cause")
    error = ValueError("body")
    error.__context__, error.__cause__ = context, cause
    pair = [world.child(id_, stop_takes=1.0) for id_ in "ab"]
    with pytest.raises(ValueError, match="body") as caught:
        async with world.open(*pair):
            raise error
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (context, cause)
    assert world.at[2:] == [(1.0, "end b"), (2.0, "end a")]


async def test_a_group_that_the_block_raised_stays_a_group(
    new_world: Callable[[], World],
) -> None:
    """TA-7"""
    error = ValueError("one")
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with new_world().open():
            raise ExceptionGroup("mine", [error])
    assert caught.value.exceptions == (error,)


async def test_when_the_root_gives_up_the_block_is_cancelled_and_the_reason_raised(
    world: World,
) -> None:
    """STA-18, ESC-08, TRI-03"""
    with pytest.raises(IntensityExceeded) as caught:
        async with world.open(world.child("a"), world.child("b"), limit=0):
            world.crash("b")
            try:
                await trio.sleep_forever()
            finally:
                world.note("body cancelled")
    assert world.trace[2:] == ["end b", "end a", "body cancelled"]
    assert (caught.value.path, caught.value.spent) == ("/", ("b",))
    assert caught.value.fault is not None
    assert caught.value.fault.message == "b"


async def test_an_error_of_the_cancelled_block_does_not_hide_why_the_root_gave_up(
    world: World,
) -> None:
    """TA-15"""
    with pytest.raises(IntensityExceeded) as caught:
        async with world.open(world.child("a"), limit=0):
            world.crash("a")
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleaning up")
    assert isinstance(caught.value.__context__, ValueError)


async def test_stopping_the_root_ends_the_block_without_an_error(world: World) -> None:
    """STA-12"""
    async with world.open(world.child("a")) as root:
        await root.stop()
        world.note("stopped")
        await trio.sleep_forever()
    assert world.trace == ["start a", "end a", "stopped"]


async def test_the_address_of_a_closed_tree_says_that_it_is_not_running(
    world: World,
) -> None:
    """MGT-02"""
    async with world.open(world.child("a")) as root:
        pass
    for asked in (
        root.start_child(world.child("b")),
        root.terminate_child("a"),
        root.restart_child("a"),
        root.bounce_child("a"),
        root.delete_child("a"),
        root.stop(),
    ):
        with pytest.raises(NotRunning, match="no supervisor at /"):
            await asked
    for look in (
        root.which_children,
        root.count_children,
        partial(root.get_childspec, "a"),
        partial(root.supervisor, "a"),
    ):
        with pytest.raises(NotRunning):
            look()


async def test_two_addresses_of_one_supervisor_are_the_same_and_say_whose(
    world: World,
) -> None:
    async with world.open(world.supervisor("sub")) as root, open_supervisor() as other:
        sub = root.supervisor("sub")
        assert sub == root.supervisor("sub")
        assert len({root, sub, root.supervisor("sub"), other}) == 3
        assert (root == other, sub == root, sub == "/sub") == (False, False, False)
        assert repr(sub) == "SupervisorRef('/sub')"


async def test_open_supervisor_is_a_tree_without_a_runtime(world: World) -> None:
    """STA-06"""
    pair = [world.child("a"), world.child("b")]
    async with open_supervisor(pair, strategy="one_for_all") as root:
        await world.crashed("a")
        assert world.incarnations(root) == {"a": 2, "b": 2}
    async with open_supervisor() as root:
        assert root.which_children() == []


async def test_a_bug_of_ours_stops_the_children_in_order_and_comes_out_bare(
    world: World, monkeypatch: pytest.MonkeyPatch, balanced_books: Books
) -> None:
    """ESC-09"""
    balanced_books.pardoned.add("TRI-04")  # a broken supervisor reports no more ends
    bugs = [AssertionError("bug")]

    def report(*args: Any, **rest: Any) -> None:
        Directory.report(world.directory, *args, **rest)
        if bugs:
            raise bugs.pop()

    with pytest.raises(AssertionError, match="bug"):
        async with world.open(*(world.child(id_) for id_ in "abc")):
            monkeypatch.setattr(world.directory, "report", report)
            world.crash("b")
            await trio.sleep_forever()
    assert world.trace[3:] == ["end b", "end c", "end a"]


async def test_a_bug_of_ours_below_the_root_is_its_supervisors_end_and_no_childs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESC-09"""
    bugs = [AssertionError("bug")]

    def report(topic: str, node: Node, **rest: Any) -> None:
        Directory.report(world.directory, topic, node, **rest)
        if bugs and node.path == "/sub/b":
            raise bugs.pop()

    sub = world.supervisor("sub", *(world.child(id_) for id_ in "abc"), limit=0)
    async with world.open(sub, world.child("z"), limit=1) as root:
        monkeypatch.setattr(world.directory, "report", report)
        world.cut()
        await world.crashed("b")
        assert world.trace[:3] == ["end b", "end c", "end a"]
        assert world.incarnations(root) == {"sub": 2, "z": 1}
        exit_ = world.info(root, "sub").last_exit
        assert isinstance(exit_, Crash)
        assert (exit_.fault.type, exit_.fault.message) == ("AssertionError", "bug")


# --- cancellation from outside ------------------------------------------------------------------


async def test_a_timeout_around_the_start_stops_what_had_started_before_it_shows(
    world: World,
) -> None:
    """STA-19"""
    slow = world.child("c", start_takes=100, start_timeout=math.inf)
    pair = [world.child("a", stop_takes=1.0), world.child("b", stop_takes=1.0)]
    with trio.move_on_after(2) as scope:
        async with world.open(*pair, slow):
            pytest.fail("the block was entered")
    assert scope.cancelled_caught
    assert world.at[2:] == [(3.0, "end b"), (4.0, "end a")]


async def test_cancelled_from_outside_the_children_stop_in_order_within_their_times(
    world: World,
) -> None:
    """SHD-23, STA-17, TA-5, pitfalls 16 and 19"""
    children = [
        world.child("a", stop_takes=1.0),
        world.child("b", stop_takes=100, shutdown=3.0),
        world.child("c", stop_takes=1.0),
    ]
    with trio.move_on_after(10) as scope:
        async with world.open(*children):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert world.at[3:] == [(11.0, "end c"), (14.0, "end b"), (15.0, "end a")]


async def test_who_starts_a_child_in_a_tree_that_is_cancelled_is_told_and_it_is_gone(
    world: World,
) -> None:
    """STA-20, SHD-18: nobody cancels who asks, and no start goes on behind his back."""

    async def start(root: SupervisorRef) -> None:
        with pytest.raises(ShuttingDown):
            await root.start_child(world.child("slow", start_takes=5.0))
        world.note("told")
        with pytest.raises(ShuttingDown):
            await root.start_child(world.child("late"))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            async with world.open(world.child("a", stop_takes=2.0)) as root:
                nursery.start_soon(start, root)
                await trio.sleep_forever()
    assert world.at[1:] == [(1.0, "told"), (3.0, "end a")]
    assert world.starts["late"] == 0


async def test_a_cancellation_during_the_stop_neither_hurries_nor_breaks_it(
    world: World,
) -> None:
    """SHD-23, pitfall 20, pitfall 19"""
    pair = [world.child("a", stop_takes=2.0), world.child("b", stop_takes=2.0)]
    with trio.move_on_after(1) as scope:
        async with world.open(*pair):
            pass
        await trio.lowlevel.checkpoint()
        pytest.fail("the cancellation was lost")
    assert scope.cancelled_caught
    assert world.at[2:] == [(2.0, "end b"), (4.0, "end a")]


async def test_a_tree_that_is_cancelled_before_its_first_step_ends(
    new_world: Callable[[], World],
) -> None:
    """Prototype trap 16"""
    for _ in range(20):
        world = new_world()
        with trio.CancelScope() as scope:
            scope.cancel()
            async with world.open(world.child("a"), world.child("b")):
                pytest.fail("the block was entered")
        assert scope.cancelled_caught
        assert world.starts["b"] == 0
        assert world.violations() == []


async def test_a_failing_neighbour_in_the_nursery_outside_stops_the_tree_in_order(
    world: World,
) -> None:
    """SHD-23"""

    async def neighbour() -> None:
        await trio.sleep(1)
        raise world.boom("next door")

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour)
            async with world.open(world.child("a"), world.child("b")):
                await trio.sleep_forever()
    assert caught.group_contains(world.boom, depth=1)
    assert world.trace[2:] == ["end b", "end a"]


class AtStep(trio.abc.Instrument):
    """Does something before the n-th step of any task once a tree is there."""

    def __init__(self, step: int, directory: Callable[[], Directory]) -> None:
        self.step = step
        self.steps = 0
        self.acted_at: float | None = None
        self.act: Callable[[], None] = lambda: None
        self._directory = directory

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._directory().root is None:
            return
        self.steps += 1
        if self.steps == self.step:
            self.acted_at = trio.current_time()
            self.act()


async def drama(world: World) -> None:
    """Starts, crashes, group restarts, additions, all of them slow enough to be hit."""
    b = world.child("b", start_takes=0.5, stop_takes=0.5)
    c = world.child("c", start_takes=0.5, stop_takes=1.0)
    sub = world.supervisor("sub", b, c, strategy="one_for_all", shutdown=4.0)
    async with world.open(
        world.child("a", stop_takes=1.0), sub, world.dynamic()
    ) as root:
        world.crash("b")
        await trio.sleep(0.1)
        await root.start_child(world.child("d", start_takes=0.5, fails=[2]))
        await root.bounce_child("a")
        world.crash("d")
        await root.supervisor("dyn").start_child(world.child("e", stop_takes=0.5))
        await root.terminate_child("e" if "e" in world.states(root) else "d")
        await trio.sleep(1)
        await root.supervisor("sub").stop()
        await root.restart_child("sub")
        world.crash("c")
        await trio.sleep(2.5)
        world.crash("b")
        await trio.sleep(2.5)


# How long the stop of the drama may take: a, c and b one after another, e beside them,
# and the half second of a start that is on its way when the stop arrives.
STOP_TAKES = 1.0 + 1.0 + 0.5 + 0.5 + 0.5


@pytest.mark.parametrize("act", ["cancel", "hurry", "interrupt", "stop"])
def test_whatever_comes_at_whatever_step_the_tree_ends_in_order_and_in_time(
    new_world: Callable[[], World], play: Callable[..., None], act: str
) -> None:
    """SHD-23, SHD-29, TRI-01 to TRI-05, pitfall 24, prototype invariant 8"""
    step, done = 0, False
    while not done:
        step += 1
        world = new_world()
        done = _drama_with(world, play, act, step)
        assert world.violations() == [], f"step {step}"
    assert step > 80


def _drama_with(world: World, play: Callable[..., None], act: str, step: int) -> bool:
    """Play it, doing `act` at `step`; whether it ended before that step."""
    instrument = AtStep(step, lambda: world.directory)
    before: list[str] = []
    ended: list[float] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            acts: dict[str, Callable[[], None]] = {
                "cancel": scope.cancel,
                "hurry": lambda: world.directory.hurry(),
                "interrupt": lambda: world.directory.interrupted(KeyboardInterrupt()),
                "stop": lambda: _stop(world),
            }

            def once() -> None:
                before.extend(world.trace)
                acts[act]()

            instrument.act = once
            try:
                await drama(world)
            except (ShuttingDown, NotRunning, KeyboardInterrupt) as error:
                world.note(type(error).__name__)
            finally:
                ended.append(trio.current_time())

    play(main, seed=step, instruments=[instrument])
    if instrument.acted_at is None:
        return True
    allowed = 0.0 if act == "hurry" else STOP_TAKES
    assert ended[0] - instrument.acted_at <= allowed
    if act == "interrupt":
        assert world.trace[-1] == "KeyboardInterrupt"
    after = world.trace[len(before) :]
    # b and d are told to crash, so their ends may come at any time.
    last = [event[4] for event in after if event.startswith("end") and event[4] in "ac"]
    restarted = {event[6] for event in after if event.startswith("start")}
    if not restarted and act != "hurry":
        assert last == sorted(last, reverse=True)
    return False


def _stop(world: World) -> None:
    root = world.directory.root
    if root is not None and root.life is not None:
        root.body.ask_to_stop(root.life)


# --- interrupts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("depth", [0, 2])
async def test_an_interrupt_out_of_a_child_stops_the_tree_in_order_and_comes_out_bare(
    world: World, error: type[BaseException], depth: int
) -> None:
    """TA-8, pitfall 17, pitfall 18: it is no crash, nothing is restarted."""

    async def interrupted(levels: int) -> None:
        if not levels:
            await trio.sleep(1)
            raise error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted, levels - 1)

    sub = world.supervisor("sub", ChildSpec("x", interrupted, args=(depth,)))
    with pytest.raises(error):
        async with world.open(world.child("a"), sub, world.child("b", stop_takes=1.0)):
            await trio.sleep_forever()
    assert world.at[2:] == [(2.0, "end b"), (2.0, "end a")]
    assert world.reported("restarted") == []
    assert {report.exit for report in world.reported("exited")} == {
        Shutdown(),
        Shutdown("interrupted"),
    }


async def test_an_interrupt_while_a_child_starts_is_not_a_failed_start(
    world: World,
) -> None:
    """TA-8"""

    async def interrupted(*, task_status: trio.TaskStatus[None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with world.open(world.child("a"), ChildSpec("x", interrupted)):
            pytest.fail("the block was entered")
    assert world.trace == ["start a", "end a"]


async def test_an_interrupt_wins_over_what_it_makes_of_the_block(world: World) -> None:
    """TA-8"""

    async def interrupted() -> None:
        await trio.sleep(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        async with world.open(ChildSpec("x", interrupted)):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleaning up")
    assert isinstance(caught.value.__context__, ValueError)


async def test_an_interrupt_in_the_block_stops_the_tree_in_order(world: World) -> None:
    """SHD-24"""
    with pytest.raises(KeyboardInterrupt):
        async with world.open(world.child("a"), world.child("b", stop_takes=1.0)):
            raise KeyboardInterrupt
    assert world.at[2:] == [(1.0, "end b"), (1.0, "end a")]


class Interrupts(trio.abc.Instrument):
    """Sends SIGINT while trio waits, as a hand on the keyboard does."""

    def __init__(self) -> None:
        self.wanted = 0

    def before_io_wait(self, timeout: float) -> None:
        if self.wanted:
            self.wanted -= 1
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize(("signals", "ended"), [(1, Shutdown()), (2, Killed())])
def test_the_first_ctrl_c_stops_in_order_and_the_second_hurries(
    new_world: Callable[[], World],
    play: Callable[..., None],
    signals: int,
    ended: Shutdown | Killed,
    cancelled: bool,
) -> None:
    """SHD-24, pitfall 21: a cancellation stops it as the first Ctrl-C would."""
    world, keyboard = new_world(), Interrupts()

    async def stops_slowly(presses: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(1)
                keyboard.wanted = presses
                await trio.sleep(1000)

    spec = ChildSpec("a", stops_slowly, args=(signals - 1,), shutdown=math.inf)

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with world.open(spec):
                await world.settle()
                if cancelled:
                    scope.cancel()
                else:
                    keyboard.wanted = 1
                await trio.sleep_forever()

    with suppress(KeyboardInterrupt) if cancelled else pytest.raises(KeyboardInterrupt):
        play(main, instruments=[keyboard])
    assert world.violations() == []
    [report] = world.reported("exited")
    assert report.exit == ended
    assert world.heard[-1][0] == (1.0 if signals == 2 else 1001.0)


# --- stopped before it was ready ----------------------------------------------------------------


async def test_a_tree_that_is_stopped_while_it_starts_says_so(world: World) -> None:
    async def hurries(directory: Directory) -> None:
        await trio.sleep(1)
        directory.hurry()

    directory = Directory()
    spec = SupervisorSpec([world.child("a"), world.child("b", start_takes=10)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hurries, directory)
        with pytest.raises(ShuttingDown, match="before it was ready"):
            async with open_tree(spec, directory=directory):
                pytest.fail("the block was entered")
    assert world.at == [(0.0, "start a"), (1.0, "end a")]


async def test_a_given_directory_is_the_trees_and_is_empty_afterwards(
    world: World,
) -> None:
    """TRI-02"""
    directory = Directory()
    root: SupervisorRef
    async with open_tree(
        SupervisorSpec([world.child("a")]), directory=directory
    ) as root:
        assert directory.resolve("a").path == "/a"
        assert (root.path, len(directory)) == ("/", 2)
    assert len(directory) == 0
