"""Managing children at run time: what may be asked, in which state, with what answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildStartFailed,
    SupervisionError,
    UnknownChild,
)
from treewarden.exits import Shutdown
from treewarden.supervision import (
    CauseKind,
    ChildCounts,
    ChildSpec,
    Intensity,
    Kind,
    NodeState,
    SupervisorRef,
)

if TYPE_CHECKING:
    from tests.runtime.supervision.conftest import World


def counts(specs: int, active: int, supervisors: int, workers: int) -> ChildCounts:
    return ChildCounts(
        specs=specs, active=active, supervisors=supervisors, workers=workers
    )


async def test_every_operation_answers_by_the_childs_state(world: World) -> None:
    """MGT-01, MGT-04, MGT-09, G29: of a child that is ready with something."""
    spec = world.child("a")
    async with world.open() as root:
        assert root.count_children() == counts(0, 0, 0, 0)
        await root.start_child(spec)
        with pytest.raises(AlreadyStarted, match="/a"):
            await root.start_child(spec)
        with pytest.raises(UnknownChild, match="/ has no child 'b'"):
            await root.terminate_child("b")
        await root.terminate_child("a")
        assert root.count_children() == counts(1, 0, 0, 1)
        await root.terminate_child("a")
        with pytest.raises(AlreadyPresent, match="/a"):
            await root.start_child(spec)
        assert (await root.restart_child("a")).incarnation == 2
        with pytest.raises(AlreadyStarted):
            await root.restart_child("a")
        with pytest.raises(UnknownChild):
            await root.restart_child("b")
        with pytest.raises(AlreadyStarted):
            await root.delete_child("a")
        await root.terminate_child("a")
        await root.delete_child("a")
        assert root.count_children() == counts(0, 0, 0, 0)
        with pytest.raises(UnknownChild):
            await root.restart_child("a")
        with pytest.raises(UnknownChild):
            await root.delete_child("a")
        assert await root.start_child(spec) is not None


async def test_what_a_start_returns_says_who_and_which_incarnation(
    world: World,
) -> None:
    """IGN-07"""
    async with world.open() as root:
        info = await root.start_child(world.child("a", restart="transient"))
        assert info is not None
        assert (info.id, info.path, info.kind) == ("a", "/a", Kind.TASK)
        assert (info.state, info.incarnation) == (NodeState.RUNNING, 1)
        assert (info.restart, info.restarts, info.last_exit) == ("transient", 0, None)
        assert info.started_at == trio.current_time()


async def test_listing_and_looking_up_agree(world: World) -> None:
    """MGT-05, MGT-06, G14: in start order, where OTP lists the newest first."""
    async with world.open(world.child("b"), world.supervisor("s")) as root:
        await root.start_child(world.child("a"))
        assert [one.id for one in root.which_children()] == ["b", "s", "a"]
        assert root.count_children() == counts(3, 3, 1, 2)
        await root.terminate_child("b")
        assert world.states(root) == {"b": "stopped", "s": "running", "a": "running"}
        await root.delete_child("b")
        assert [one.id for one in root.which_children()] == ["s", "a"]
        assert root.supervisor("s").count_children() == counts(0, 0, 0, 0)


async def test_a_specification_can_be_asked_for(world: World) -> None:
    """SPC-04"""
    spec = world.child("a", shutdown=7)
    async with world.open(spec) as root:
        assert root.get_childspec("a") is spec
        with pytest.raises(UnknownChild):
            root.get_childspec("b")


async def test_only_a_supervisor_is_found_as_one(world: World) -> None:
    async with world.open(world.child("a"), world.supervisor("s")) as root:
        assert root.supervisor("s").path == "/s"
        for id_ in ("a", "nobody"):
            with pytest.raises(UnknownChild):
                root.supervisor(id_)


async def test_an_address_outlives_the_restarts_of_its_supervisor(
    world: World,
) -> None:
    async with world.open(world.supervisor("s", world.child("a"), limit=0)) as root:
        inner = root.supervisor("s")
        await world.crashed("a")
        assert world.incarnations(root) == {"s": 2}
        assert world.states(inner) == {"a": "running"}
        await inner.start_child(world.child("b"))
        assert world.is_up("b")


async def test_what_is_no_specification_is_refused_before_anybody_is_asked(
    world: World,
) -> None:
    """SPC-10"""
    async with world.open() as root:
        wrong: object = "a"
        with pytest.raises(TypeError, match="'a'"):
            await root.start_child(wrong)  # type: ignore[arg-type]
        version = world.directory.version
        with pytest.raises(ValueError, match="always"):
            await root.start_child(world.child("a", restart="always"))
        assert world.directory.version == version


async def test_a_budget_of_its_own_is_refused_to_a_child_of_a_group(
    world: World,
) -> None:
    async with world.open(strategy="one_for_all") as root:
        with pytest.raises(ValueError, match="one_for_one"):
            await root.start_child(world.child("a", intensity=Intensity()))
        assert world.states(root) == {}


async def test_terminating_a_temporary_child_forgets_it(world: World) -> None:
    """MGT-10, G25"""
    async with world.open(world.child("a", restart="temporary")) as root:
        await root.terminate_child("a")
        with pytest.raises(UnknownChild):
            await root.restart_child("a")


async def test_two_thousand_children_are_counted_right(world: World) -> None:
    """MGT-07"""
    async with world.open(limit=0) as root:
        for number in range(1000):
            await root.start_child(world.child(f"c{number}", restart="transient"))
        assert root.count_children() == counts(1000, 1000, 0, 1000)
        assert len(root.which_children()) == 1000
        for number in range(1000, 2000):
            await root.start_child(world.child(f"c{number}", restart="transient"))
        await root.start_child(world.supervisor("sub", world.child("inner")))
        assert root.count_children() == counts(2001, 2001, 1, 2000)
        assert len(root.which_children()) == 2001
        for number in range(2000):
            world.tell(f"c{number}", None)
        await world.settle()
        assert root.count_children() == counts(2001, 1, 1, 2000)


async def test_two_starts_of_one_id_at_once_are_one_start(world: World) -> None:
    """MGT-12"""
    told: list[str] = []

    async def start(root: SupervisorRef) -> None:
        try:
            await root.start_child(world.child("a", start_takes=1.0))
        except AlreadyStarted:
            told.append("already")
        else:
            told.append("started")

    async with world.open() as root:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, root)
            nursery.start_soon(start, root)
        assert sorted(told) == ["already", "started"]  # both are woken in one tick
        assert world.starts["a"] == 1


async def test_during_a_slow_start_reads_are_answered_and_the_rest_waits_in_order(
    world: World,
) -> None:
    """MGT-13, G15, TA-12, pitfall 43"""
    async with world.open(world.child("a"), limit=1) as root:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.start_child, world.child("slow", start_takes=5))
            await world.settle()
            assert world.states(root) == {"a": "running", "slow": "starting"}
            nursery.start_soon(root.start_child, world.child("b"))
            await world.settle()
            nursery.start_soon(root.terminate_child, "b")
            await world.settle()
            world.crash("a")
            await trio.sleep(1)
            assert not world.is_up("a")
        await world.settle()
        assert world.at[1:] == [
            *((0.0, "end a"), (5.0, "start slow"), (5.0, "start b"), (5.0, "end b")),
            (5.0, "start a"),
        ]
        assert world.incarnations(root) == {"a": 2, "slow": 1, "b": 1}


async def test_a_terminate_returns_when_the_child_is_gone(world: World) -> None:
    """MGT-14"""
    async with world.open(world.child("a", stop_takes=2.0)) as root:
        await root.terminate_child("a")
        assert world.at[-1] == (2.0, "end a")
        assert world.info(root, "a").last_exit == Shutdown()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_start_goes_on_when_its_caller_is_cancelled(
    world: World, fails: bool
) -> None:
    """MGT-16, pitfall 68"""
    spec = world.child("a", start_takes=5.0, fails=[1] if fails else ())
    async with world.open() as root:
        with trio.move_on_after(1) as scope:
            await root.start_child(spec)
        assert scope.cancelled_caught
        assert world.states(root) == {"a": "starting"}
        await trio.sleep(10)
        assert world.states(root) == ({} if fails else {"a": "running"})


async def test_a_caller_that_is_cancelled_already_asks_for_nothing(
    world: World,
) -> None:
    async with world.open() as root:
        with trio.CancelScope() as scope:
            scope.cancel()
            await root.start_child(world.child("a"))
        await world.settle()
        assert scope.cancelled_caught
        assert world.starts["a"] == 0


# --- restarts by an operator --------------------------------------------------------------------


async def test_an_operators_restart_stops_and_starts_and_is_told_as_such(
    world: World,
) -> None:
    async with world.open(world.child("a", stop_takes=1.0), limit=0) as root:
        info = await root.bounce_child("a", by="ada")
        assert (info.incarnation, info.restarts) == (2, 1)
        assert world.at == [(0.0, "start a"), (1.0, "end a"), (1.0, "start a")]
    [report] = world.reported("restarted")
    assert report.cause is not None
    assert (report.cause.kind, report.cause.by) == (CauseKind.OPERATOR, "ada")


async def test_an_operators_restart_starts_what_was_stopped_or_is_between_attempts(
    world: World,
) -> None:
    async with world.open(world.child("a"), world.supervisor("s")) as root:
        await root.terminate_child("a")
        assert (await root.bounce_child("a")).state is NodeState.RUNNING
        assert (await root.bounce_child("s")).incarnation == 2
        with pytest.raises(UnknownChild):
            await root.bounce_child("b")


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
async def test_an_operators_restart_may_be_ignored_by_the_child(
    world: World, restart: str
) -> None:
    async with world.open(world.child("a", ignores=[2], restart=restart)) as root:
        info = await root.bounce_child("a")
        assert info.state is NodeState.STOPPED
        expected = {} if restart == "temporary" else {"a": "stopped"}
        assert world.states(root) == expected
    assert world.reported("restarted") == []


async def test_a_temporary_child_that_an_operator_cannot_restart_is_forgotten(
    world: World,
) -> None:
    async with world.open(world.child("a", fails=[2], restart="temporary")) as root:
        with pytest.raises(ChildStartFailed):
            await root.bounce_child("a")
        assert world.states(root) == {}


async def test_an_incarnation_is_never_used_twice_at_one_path(world: World) -> None:
    """Design 3: not by a new child of an old id, nor under a restarted supervisor."""
    seen: list[int] = []

    def note(root: SupervisorRef) -> None:
        seen.append(world.info(root.supervisor("s"), "a").incarnation)

    sub = world.supervisor("s", world.child("a"), limit=1)
    async with world.open(sub) as root:
        note(root)
        await world.crashed("a")
        note(root)
        await world.crashed("a")
        note(root)
        await root.supervisor("s").terminate_child("a")
        await root.supervisor("s").delete_child("a")
        await root.supervisor("s").start_child(world.child("a"))
        note(root)
        await root.terminate_child("s")
        await root.delete_child("s")
        await root.start_child(sub)
        note(root)
        assert world.incarnations(root) == {"s": 3}
    assert seen == [1, 2, 3, 4, 5]


async def test_a_wish_that_cannot_be_carried_out_does_not_harm_the_supervisor(
    world: World,
) -> None:
    """STA-13, pitfall 78"""
    hanging = ChildSpec("x", trio.sleep_forever, shutdown=math.inf)
    async with world.open(world.child("a"), hanging) as root:
        for _ in range(3):
            for asked in (root.terminate_child("q"), root.delete_child("a")):
                with pytest.raises(SupervisionError):
                    await asked
        assert world.incarnations(root) == {"a": 1, "x": 1}
