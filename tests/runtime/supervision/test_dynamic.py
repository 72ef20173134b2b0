"""Dynamic supervisors: children that come and go, each on its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildStartFailed,
    TooManyChildren,
    UnknownChild,
)
from treewarden.exits import Killed, Shutdown
from treewarden.resilience import Backoff
from treewarden.supervision import (
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    Node,
    NodeState,
    SupervisorRef,
    as_supervisor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runtime.supervision.conftest import World

ENDS = ["normal", "shutdown", "shutdown with a detail", "crash", "killed"]
PATIENT = Backoff(initial=10.0, maximum=10.0, jitter=0.0)


def inside(root: SupervisorRef) -> SupervisorRef:
    return root.supervisor("dyn")


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_dynamic_child_that_does_not_come_back_is_not_kept(
    world: World, restart: str, how: str
) -> None:
    """RST-14, STR-13"""
    async with world.open(world.dynamic()) as root:
        dyn = inside(root)
        for id_ in "ab":
            await dyn.start_child(world.child(id_, restart=restart))
        await world.ended("a", how)
        again = restart == "permanent" or (
            restart == "transient" and how in {"crash", "killed"}
        )
        assert world.incarnations(dyn) == ({"a": 2, "b": 1} if again else {"b": 1})


async def test_a_dynamic_supervisor_starts_empty_and_forgets_what_is_terminated(
    world: World,
) -> None:
    """MGT-03, SPC-05, RFL-11"""
    async with world.open(world.dynamic(), world.child("other")) as root:
        dyn = inside(root)
        assert dyn.which_children() == []
        spec = world.child("a")
        await dyn.start_child(spec)
        assert dyn.get_childspec("a") is spec
        with pytest.raises(UnknownChild):
            dyn.get_childspec("other")
        with pytest.raises(AlreadyStarted):
            await dyn.start_child(spec)
        await dyn.terminate_child("a")
        for asked in (
            dyn.terminate_child("a"),
            dyn.terminate_child("other"),
            dyn.restart_child("a"),
            dyn.delete_child("a"),
        ):
            with pytest.raises(UnknownChild):
                await asked
        assert world.is_up("other")
        assert await dyn.start_child(spec) is not None


async def test_a_restarted_dynamic_supervisor_starts_empty_again(
    world: World,
) -> None:
    """ESC-05"""
    async with world.open(world.dynamic(limit=0)) as root:
        await inside(root).start_child(world.child("a"))
        await inside(root).start_child(world.child("b"))
        await world.crashed("a")
        assert world.incarnations(root) == {"dyn": 2}
        assert world.states(inside(root)) == {}
        assert not world.is_up("b")


async def test_children_without_budgets_of_their_own_share_the_supervisors(
    world: World,
) -> None:
    """INT-07, INT-02"""
    async with world.open(world.dynamic(limit=2)) as root:
        for id_ in "abc":
            await inside(root).start_child(world.child(id_))
        for id_ in "abc":
            await world.crashed(id_)
        assert world.incarnations(root) == {"dyn": 2}
    [report] = world.reported("gave_up")
    assert "too many restarts of a, b, c" in report.detail


async def test_failed_attempts_spend_the_shared_budget(world: World) -> None:
    """INT-06, RFL-05"""
    async with world.open(world.dynamic(limit=5)) as root:
        await inside(root).start_child(world.child("a", fails=range(2, 99)))
        await world.crashed("a")
        assert world.starts["a"] == 6
        assert world.incarnations(root) == {"dyn": 2}


async def test_by_default_a_bad_child_fails_alone_and_its_id_can_be_used_again(
    world: World,
) -> None:
    """Design 5"""
    async with world.open(ChildSpec("dyn", DynamicSupervisorSpec())) as root:
        dyn = inside(root)
        for id_ in "ab":
            await dyn.start_child(world.child(id_))
        for _ in range(4):
            await world.crashed("a")
        assert world.states(dyn) == {"a": "failed", "b": "running"}
        assert world.incarnations(root) == {"dyn": 1}
        again = await dyn.start_child(world.child("a"))
        assert again is not None
        assert (again.state, again.incarnation) == (NodeState.RUNNING, 5)
        await dyn.terminate_child("a")
        assert world.states(dyn) == {"b": "running"}
    [report] = world.reported("failed")
    assert report.path == "/dyn/a"


async def test_a_child_may_bring_a_budget_that_differs_from_the_default(
    world: World,
) -> None:
    async with world.open(world.dynamic(child_intensity=Intensity(9, 5.0))) as root:
        dyn = inside(root)
        await dyn.start_child(world.child("a", intensity=Intensity(0, 5.0)))
        await dyn.start_child(world.child("b"))
        await world.crashed("a")
        await world.crashed("b")
        assert world.states(dyn) == {"a": "failed", "b": "running"}


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_an_ignored_start_is_never_kept(world: World, restart: str) -> None:
    """IGN-04"""
    async with world.open(world.dynamic()) as root:
        spec = world.child("a", ignores=[1], restart=restart)
        assert await inside(root).start_child(spec) is None
        assert world.states(inside(root)) == {}


@pytest.mark.parametrize("restart", ["permanent", "transient"])
async def test_an_ignored_restart_ends_the_child(world: World, restart: str) -> None:
    """IGN-05, RFL-09"""
    async with world.open(world.dynamic()) as root:
        await inside(root).start_child(world.child("a", ignores=[3], restart=restart))
        await world.ended("a", "killed")
        await world.ended("a", "killed")
        assert world.states(inside(root)) == {}
        assert world.incarnations(root) == {"dyn": 1}


async def test_a_start_that_fails_is_told_and_not_kept(world: World) -> None:
    """RFL-01, IGN-08"""
    async with world.open(world.dynamic(limit=0)) as root:
        with pytest.raises(ChildStartFailed) as caught:
            await inside(root).start_child(world.child("a", fails=[1]))
        assert isinstance(caught.value.__cause__, world.boom)
        assert world.states(inside(root)) == {}


async def test_a_child_between_attempts_is_restarting_and_can_be_terminated(
    world: World,
) -> None:
    """RFL-05, RFL-08, RFL-11"""
    async with world.open(world.dynamic(limit=9)) as root:
        dyn = inside(root)
        for id_ in "ab":
            spec = world.child(id_, fails=[2], backoff=PATIENT)
            await dyn.start_child(spec)
        world.crash("a", "b")
        await trio.sleep(15)
        assert world.states(dyn) == {"a": "restarting", "b": "restarting"}
        with pytest.raises(AlreadyPresent):
            await dyn.start_child(world.child("a"))
        await dyn.terminate_child("a")
        await trio.sleep(30)
        assert world.incarnations(dyn) == {"b": 3}
        assert world.states(dyn) == {"b": "running"}


async def test_the_number_of_children_is_limited_and_a_restarting_one_counts(
    world: World,
) -> None:
    """RFL-10"""
    async with world.open(world.dynamic(max_children=2)) as root:
        dyn = inside(root)
        await dyn.start_child(world.child("a", fails=[2], backoff=PATIENT))
        await dyn.start_child(world.child("b"))
        await world.crashed("a")
        # It ended; then its restart failed, too.
        for starts in (1, 2):
            assert (world.starts["a"], world.states(dyn)["a"]) == (starts, "restarting")
            with pytest.raises(TooManyChildren, match="2 children"):
                await dyn.start_child(world.child("c"))
            await trio.sleep(12)
        await dyn.terminate_child("a")
        await dyn.start_child(world.child("c"))
        assert world.states(dyn) == {"b": "running", "c": "running"}


async def test_dynamic_children_are_asked_all_at_once_and_each_has_its_own_time(
    world: World,
) -> None:
    """SHD-04, SHD-08, SHD-09"""
    async with world.open(world.dynamic()) as root:
        dyn = inside(root)
        for number in range(10):
            await dyn.start_child(world.child(f"c{number}", stop_takes=2.0))
        await dyn.start_child(world.child("slow", stop_takes=1000, shutdown=3.0))
        await dyn.start_child(world.child("brutal", stop_takes=1000, shutdown=0))
        await dyn.start_child(world.child("kind", stop_takes=4.0, shutdown=math.inf))
        await root.terminate_child("dyn")
    times = {event.removeprefix("end "): at for at, event in world.at[13:]}
    assert {times.pop(f"c{number}") for number in range(10)} == {2.0}
    assert times == {"brutal": 0.0, "slow": 3.0, "kind": 4.0}
    exits = {report.path: report.exit for report in world.reported("exited")}
    assert exits["/dyn/slow"] == exits["/dyn/brutal"] == Killed()
    assert exits["/dyn/kind"] == exits["/dyn/c0"] == exits["/dyn"] == Shutdown()


async def test_a_child_that_an_operator_cannot_restart_is_kept_as_failed(
    world: World,
) -> None:
    async with world.open(world.dynamic()) as root:
        dyn = inside(root)
        await dyn.start_child(world.child("a", fails=[2]))
        with pytest.raises(ChildStartFailed):
            await dyn.bounce_child("a")
        assert world.states(dyn) == {"a": "failed"}
        assert (await dyn.restart_child("a")).state is NodeState.RUNNING


class CountsLooks(dict[str, Node]):
    """Children that notice when somebody goes through all of them."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()

    def __iter__(self) -> Iterator[str]:
        self.looks += 1
        return super().__iter__()


@pytest.mark.parametrize("kind", ["dynamic", "static"])
async def test_dealing_with_one_child_looks_at_no_other(
    world: World, kind: str
) -> None:
    """MGT-11: pitfall 77; so ten thousand siblings cost nothing."""
    kinds = {"dynamic": world.dynamic("dyn"), "static": world.supervisor("dyn")}
    async with world.open(kinds[kind]) as root:
        dyn = inside(root)
        for number in range(5):
            await dyn.start_child(world.child(f"c{number}"))
        supervisor = as_supervisor(world.directory.resolve("dyn"))
        assert supervisor is not None
        supervisor.children = children = CountsLooks(supervisor.children)
        await dyn.start_child(world.child("d"))
        await world.crashed("c2")
        await world.ended("c3", "normal")
        await dyn.bounce_child("c4")
        assert dyn.get_childspec("c1").id == "c1"
        await dyn.terminate_child("d")
        if kind == "static":
            await dyn.restart_child("d")
            await dyn.terminate_child("d")
            await dyn.delete_child("d")
        assert children.looks == 0
        assert world.incarnations(dyn) == {"c0": 1, "c1": 1, "c2": 2, "c3": 2, "c4": 2}


async def test_ten_thousand_children_come_and_go_without_a_trace(
    world: World,
) -> None:
    """MGT-11, pitfall 77"""
    async with world.open(world.dynamic()) as root:
        dyn = inside(root)
        for number in range(10_000):
            await dyn.start_child(world.child(f"c{number % 50}", restart="temporary"))
            world.tell(f"c{number % 50}", None)
            if number % 50 == 49:
                await world.settle()
        assert world.states(dyn) == {}
        assert len(world.directory) == 2
        assert len(world.directory.timers) < 1000
