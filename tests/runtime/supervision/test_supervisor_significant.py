"""Significant children: a supervisor that ends when its work is done, by the letter of OTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import ChildStartFailed, UnknownChild
from treewarden.exits import Crash, Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import Intensity, SupervisorSpec

if TYPE_CHECKING:
    from tests.runtime.supervision.conftest import World

MODES = ["any_significant", "all_significant"]
EVERY_MODE = ["never", *MODES]
STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
ENDS = ["normal", "shutdown", "shutdown with a detail", "crash", "killed"]
ABNORMAL = ["crash", "killed"]
WELL = ["normal", "shutdown", "shutdown with a detail"]


# --- children that are not significant ---------------------------------------------------------


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("how", [*ENDS, "by its supervisor"])
async def test_a_temporary_child_that_is_not_significant_ends_nobody_else(
    world: World, mode: str, how: str
) -> None:
    """SIG-01"""
    x, other = world.child("x", restart="temporary"), world.child("other")
    async with world.open(world.supervisor("s", x, other, auto_shutdown=mode)) as root:
        if how == "by its supervisor":
            await root.supervisor("s").terminate_child("x")
        else:
            await world.ended("x", how)
        assert world.states(root) == {"s": "running"}
        assert world.states(root.supervisor("s")) == {"other": "running"}
    assert world.starts == {"x": 1, "other": 1}


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("how", [*ENDS, "by its supervisor"])
async def test_a_transient_child_that_is_not_significant_ends_nobody_else(
    world: World, mode: str, how: str
) -> None:
    """SIG-02"""
    t, other = world.child("t", restart="transient"), world.child("other")
    async with world.open(world.supervisor("s", t, other, auto_shutdown=mode)) as root:
        if how == "by its supervisor":
            await root.supervisor("s").terminate_child("t")
        else:
            await world.ended("t", how)
        after = "running" if how in ABNORMAL else "stopped"
        assert world.states(root.supervisor("s")) == {"t": after, "other": "running"}
    assert world.starts["t"] == (2 if how in ABNORMAL else 1)


# --- significant children ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
async def test_any_end_of_a_significant_temporary_child_ends_its_supervisor(
    world: World, how: str
) -> None:
    """SIG-03: the first of them, whoever else is significant."""
    x = world.child("x", restart="temporary", significant=True)
    y = world.child("y", restart="temporary", significant=True)
    inner = world.supervisor(
        "s",
        x,
        y,
        world.child("other"),
        auto_shutdown="any_significant",
        restart="temporary",
    )
    async with world.open(inner, world.child("aside")) as root:
        await world.ended("x", how)
        assert world.states(root) == {"aside": "running"}
        assert not world.is_up("other")


@pytest.mark.parametrize("restart", ["temporary", "transient"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_significant_child_that_was_terminated_ends_nobody_else(
    world: World, restart: str, mode: str
) -> None:
    """SIG-03, SIG-04"""
    children = [world.child(i, restart=restart, significant=True) for i in "ab"]
    async with world.open(world.supervisor("s", *children, auto_shutdown=mode)) as root:
        await root.supervisor("s").terminate_child("a")
        await root.supervisor("s").terminate_child("b")
        await world.settle()
        # As it was: a permanent one that had ended would run again by now.
        assert world.incarnations(root) == {"s": 1}


@pytest.mark.parametrize("how", ENDS)
async def test_all_significant_temporary_children_must_have_ended(
    world: World, how: str
) -> None:
    """SIG-03"""
    children = [world.child(i, restart="temporary", significant=True) for i in "abc"]
    inner = world.supervisor(
        "s",
        *children,
        world.child("other"),
        auto_shutdown="all_significant",
        restart="transient",
    )
    async with world.open(inner) as root:
        await world.ended("b", how)
        await world.ended("a", how)
        assert world.states(root.supervisor("s")) == {
            "c": "running",
            "other": "running",
        }
        await world.ended("c", how)
        assert world.states(root) == {"s": "stopped"}
    assert world.starts["other"] == 1


@pytest.mark.parametrize("how", WELL)
async def test_a_significant_transient_child_that_ended_well_ends_its_supervisor(
    world: World, how: str
) -> None:
    """SIG-04"""
    t = world.child("t", restart="transient", significant=True)
    inner = world.supervisor(
        "s", t, auto_shutdown="any_significant", restart="transient"
    )
    async with world.open(inner) as root:
        await world.ended("t", how)
        assert world.states(root) == {"s": "stopped"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ABNORMAL)
async def test_a_significant_transient_child_that_failed_is_restarted(
    world: World, mode: str, how: str
) -> None:
    """SIG-04"""
    t = world.child("t", restart="transient", significant=True)
    async with world.open(world.supervisor("s", t, auto_shutdown=mode)) as root:
        await world.ended("t", how)
        assert world.incarnations(root.supervisor("s")) == {"t": 2}
        assert world.incarnations(root) == {"s": 1}


async def test_all_significant_transient_children_must_have_ended(world: World) -> None:
    """SIG-04"""
    children = [world.child(i, restart="transient", significant=True) for i in "ab"]
    inner = world.supervisor(
        "s", *children, auto_shutdown="all_significant", restart="transient"
    )
    async with world.open(inner) as root:
        await world.ended("a", "normal")
        await world.ended("b", "crash")
        assert world.states(root.supervisor("s")) == {"a": "stopped", "b": "running"}
        await world.ended("b", "normal")
        assert world.states(root) == {"s": "stopped"}


async def test_two_that_end_in_one_moment_end_their_supervisor_once(
    world: World,
) -> None:
    """SIG-03, TRI-04"""
    children = [world.child(i, restart="temporary", significant=True) for i in "ab"]
    inner = world.supervisor("s", *children, auto_shutdown="all_significant")
    async with world.open(inner) as root:
        world.tell("a", None)
        world.tell("b", None)
        await world.settle()
        assert world.incarnations(root) == {"s": 2}
    assert world.starts == {"a": 2, "b": 2}


@pytest.mark.parametrize("restart", ["temporary", "transient"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_significant_siblings_stopped_for_another_crash_end_nobody(
    world: World, strategy: str, mode: str, restart: str
) -> None:
    """SIG-06"""
    one = world.child("one", restart=restart, significant=True)
    two = world.child("two", restart=restart, significant=True)
    inner = world.supervisor(
        "s", world.child("p"), one, two, strategy=strategy, auto_shutdown=mode
    )
    async with world.open(inner) as root:
        await world.crashed("p")
        assert world.incarnations(root) == {"s": 1}
        assert world.info(root.supervisor("s"), "p").incarnation == 2


@pytest.mark.parametrize("significant", [True, False])
@pytest.mark.parametrize("restart", ["temporary", "transient"])
async def test_a_supervisor_that_ended_so_ends_its_parent_if_it_is_significant_there(
    world: World, restart: str, significant: bool
) -> None:
    """SIG-07"""
    x = world.child("x", restart="temporary", significant=True)
    low = world.supervisor(
        "low",
        x,
        auto_shutdown="any_significant",
        restart=restart,
        significant=significant,
    )
    high = world.supervisor(
        "high",
        low,
        world.child("other"),
        auto_shutdown="any_significant",
        restart="transient",
    )
    async with world.open(high) as root:
        await world.ended("x", "normal")
        state = "stopped" if significant else "running"
        assert world.states(root) == {"high": state}
        assert world.is_up("other") is not significant


async def test_a_child_stopped_by_hand_does_not_count_until_it_runs_again(
    world: World,
) -> None:
    """SIG-08, G19"""
    children = [world.child(i, restart="transient", significant=True) for i in "ab"]
    inner = world.supervisor(
        "s", *children, auto_shutdown="all_significant", restart="transient"
    )
    async with world.open(inner) as root:
        s = root.supervisor("s")
        await world.ended("a", "normal")
        await s.terminate_child("b")
        await world.settle()
        assert world.states(s) == {"a": "stopped", "b": "stopped"}
        await s.restart_child("a")
        await world.ended("a", "normal")
        assert world.states(root) == {"s": "stopped"}


async def test_the_rest_is_stopped_in_reverse_order_and_the_exit_is_no_error(
    world: World,
) -> None:
    """SIG-09, G23"""
    x = world.child("x", restart="temporary", significant=True)
    rest = [world.child(i) for i in "abc"]
    inner = world.supervisor(
        "s", x, *rest, auto_shutdown="any_significant", restart="transient"
    )
    async with world.open(inner) as root:
        world.cut()
        await world.ended("x", "crash")
        assert world.cut() == ["end x", "end c", "end b", "end a"]
        assert world.info(root, "s").last_exit == Shutdown("significant child x ended")
    assert [(one.path, type(one.exit)) for one in world.reported("exited")] == [
        ("/s/x", Crash),
        ("/s/c", Shutdown),
        ("/s/b", Shutdown),
        ("/s/a", Shutdown),
        ("/s", Shutdown),
    ]


async def test_a_permanent_supervisor_that_ended_so_begins_anew(world: World) -> None:
    """SIG-07, SIG-09"""
    x = world.child("x", restart="temporary", significant=True)
    inner = world.supervisor("s", x, auto_shutdown="any_significant")
    async with world.open(inner) as root:
        await world.ended("x", "normal")
        assert world.incarnations(root) == {"s": 2}
        s = root.supervisor("s")
        assert world.states(s) == {"x": "running"}
        await root.terminate_child("s")
        # What ended it once is not what it ended of now.
        assert world.info(root, "s").last_exit == Shutdown()


async def test_a_child_that_waits_to_be_restarted_still_counts(world: World) -> None:
    """SIG-10"""
    a = world.child(
        "a", restart="transient", significant=True, backoff=Backoff(initial=10.0)
    )
    b = world.child("b", restart="transient", significant=True)
    inner = world.supervisor(
        "s", a, b, auto_shutdown="all_significant", restart="transient"
    )
    async with world.open(inner) as root:
        await world.crashed("a")
        await world.ended("b", "normal")
        s = root.supervisor("s")
        assert world.states(s) == {"a": "restarting", "b": "stopped"}
        await trio.sleep(20)
        assert world.states(s) == {"a": "running", "b": "stopped"}
        await world.ended("a", "normal")
        assert world.states(root) == {"s": "stopped"}


async def test_a_significant_child_whose_own_budget_is_spent_has_ended(
    world: World,
) -> None:
    """SIG-04 carried over to budgets of their own."""
    t = world.child(
        "t", restart="transient", significant=True, intensity=Intensity(0, 1.0)
    )
    inner = world.supervisor(
        "s", t, auto_shutdown="any_significant", restart="transient"
    )
    async with world.open(inner) as root:
        await world.crashed("t")
        assert world.states(root) == {"s": "stopped"}


async def test_a_root_whose_work_is_done_ends_the_block(world: World) -> None:
    """SIG-09 at the root: as if it had been stopped from within."""
    x = world.child("x", restart="temporary", significant=True)
    spec = SupervisorSpec([world.child("a"), x], auto_shutdown="any_significant")
    async with world.open_spec(spec):
        await world.ended("x", "normal")
        pytest.fail("the block went on")
    assert world.trace == ["start a", "start x", "end x", "end a"]


# --- refusals at run time ------------------------------------------------------------------------


async def test_a_significant_child_is_refused_where_it_would_mean_nothing(
    world: World,
) -> None:
    """SIG-05, SIG-11"""
    x = world.child("x", restart="temporary", significant=True)
    async with world.open(world.dynamic(), world.supervisor("s")) as root:
        with pytest.raises(ValueError, match="x: a dynamic supervisor has no signif"):
            await root.supervisor("dyn").start_child(x)
        with pytest.raises(ValueError, match="x: a significant child needs"):
            await root.supervisor("s").start_child(x)
        assert root.supervisor("dyn").which_children() == []
        assert root.supervisor("s").which_children() == []
    assert world.starts["x"] == 0


async def test_a_significant_child_added_at_run_time_counts(world: World) -> None:
    """SIG-03, SIG-11"""
    inner = world.supervisor("s", auto_shutdown="any_significant", restart="temporary")
    async with world.open(inner) as root:
        x = world.child("x", restart="temporary", significant=True)
        await root.supervisor("s").start_child(x)
        await world.ended("x", "normal")
        with pytest.raises(UnknownChild):
            root.supervisor("s")


async def test_a_significant_child_that_could_not_be_added_ends_nobody(
    world: World,
) -> None:
    """SIG-03: it never was there."""
    inner = world.supervisor("s", auto_shutdown="any_significant")
    async with world.open(inner) as root:
        x = world.child("x", restart="temporary", significant=True, fails=[1])
        with pytest.raises(ChildStartFailed):
            await root.supervisor("s").start_child(x)
        assert world.incarnations(root) == {"s": 1}
