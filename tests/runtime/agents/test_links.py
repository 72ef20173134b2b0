"""Agents that end together: what a link takes along, what it leaves, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    ChildSpec,
    Crash,
    Down,
    Exit,
    Killed,
    NameUnknown,
    Normal,
    Shutdown,
    StoreBroken,
    open_supervisor,
)
from treewarden.exits import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden import SupervisorRef

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Twin(Agent[None]):
    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard

    async def link_with(self, path: str) -> None:
        self.link(self.other(path))

    async def unlink_from(self, path: str) -> None:
        self.unlink(self.other(path))

    async def watch_and_link(self, path: str) -> None:
        self.monitor(self.other(path))
        self.link(self.other(path))

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def hang(self, seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"

    def ping(self) -> str:
        return "pong"

    async def on_down(self, down: Down) -> None:
        self.heard.append((self.path, down.path, down.incarnation, down.exit))

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self.heard.append((self.path, exit))

    def other(self, path: str) -> AgentRef[Twin]:
        return AgentRef(self.treewarden_body.directory, path)


class Trapping(Twin):
    trap_exits = True


class Joined(Twin):
    """Linked from its first moment."""

    async def on_start(self) -> None:
        self.link(self.other("/a"))


class Twins:
    """Agents below one supervisor, none of which is started again, unless told."""

    def __init__(self, supervisor: SupervisorRef, address: Address) -> None:
        self.supervisor = supervisor
        self.address = address
        self.heard: list[Any] = []
        self.exits: dict[str, Exit | None] = {}

    async def start(self, id_: str, kind: type[Twin] = Twin, **options: Any) -> Any:
        options = {"restart": "temporary", **options}
        spec = ChildSpec(id_, kind, args=(self.heard,), **options)
        await self.supervisor.start_child(spec)
        ref = self.address(self.supervisor, f"/{id_}")
        ref.resolve().node.life.watchers.append(self._ended)
        return ref

    def _ended(self, life: Any) -> None:
        self.exits[life.node.id] = life.exit

    def fault(self, id_: str) -> Fault:
        exit_ = self.exits[id_]
        assert isinstance(exit_, Crash)
        return exit_.fault


@pytest.fixture
async def twins(start_agents: StartAgents, address: Address) -> Twins:
    return Twins(await start_agents(), address)


@pytest.mark.parametrize("first", ["a", "b"])
async def test_when_one_of_two_crashes_so_does_the_other(
    twins: Twins, first: str, autojump_clock: object
) -> None:
    """MON-12: whichever of them made the link."""
    refs = {"a": await twins.start("a"), "b": await twins.start("b")}
    await refs["a"].call(Twin.link_with, "/b")
    with pytest.raises(AgentCrashed):
        await refs[first].call(Twin.fail)
    await wait_all_tasks_blocked()
    (other,) = {"a", "b"} - {first}
    assert twins.fault(first).type == "ValueError"
    fault = twins.fault(other)
    assert fault.path == f"/{other}"
    assert fault.summary() == (
        f"LinkBroken: /{first}, which it was linked with, "
        "crashed: ValueError: on purpose"
    )
    assert fault.cause == twins.fault(first)
    # A crash has no on_stop.
    assert twins.heard == []


async def test_a_link_does_not_wait_for_the_message_in_hand(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: its caller is told at once, with the link's fault."""
    a, b = await twins.start("a"), await twins.start("b")
    await a.call(Twin.link_with, "/b")
    busy = b.request(Twin.hang, 3)
    await wait_all_tasks_blocked()
    with pytest.raises(AgentCrashed):
        await a.call(Twin.fail)
    with pytest.raises(AgentCrashed, match="LinkBroken"):
        await busy.result()
    assert trio.current_time() == 0


async def test_a_normal_end_leaves_the_other_alone(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12"""
    a, b = await twins.start("a"), await twins.start("b")
    await a.call(Twin.link_with, "/b")
    await a.stop()
    await wait_all_tasks_blocked()
    assert twins.exits == {"a": Normal()}
    assert await b.call(Twin.ping) == "pong"
    assert b.resolve().node.life.watchers == [twins._ended]


async def test_what_is_shut_down_takes_the_other_along_in_order(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: with the same exit, after its message, and with its on_stop."""
    a, b = await twins.start("a"), await twins.start("b")
    await a.call(Twin.link_with, "/b")
    busy = b.request(Twin.hang, 1)
    waiting = b.request(Twin.ping)
    await wait_all_tasks_blocked()
    await a.stop(Shutdown("for lunch"))
    assert await busy.result() == "done"
    with pytest.raises(AgentDown):
        await waiting.result()
    assert twins.exits == {"a": Shutdown("for lunch"), "b": Shutdown("for lunch")}
    assert twins.heard == [
        ("/a", Shutdown("for lunch")),
        ("/b", Shutdown("for lunch")),
    ]


async def test_a_suspended_agent_goes_along_too(
    twins: Twins, autojump_clock: object
) -> None:
    a, b = await twins.start("a"), await twins.start("b")
    await a.call(Twin.link_with, "/b")
    b.suspend()
    await twins.supervisor.terminate_child("a")
    await wait_all_tasks_blocked()
    assert twins.exits == {"a": Shutdown(), "b": Shutdown()}


async def test_the_end_of_an_old_life_ends_no_later_one(
    twins: Twins, autojump_clock: object
) -> None:
    """A shut-down that it had not come to when it crashed is forgotten with it."""
    a, b = await twins.start("a"), await twins.start("b", restart="permanent")
    await a.call(Twin.link_with, "/b")
    b.request(Twin.hang, 1)
    await wait_all_tasks_blocked()
    await twins.supervisor.terminate_child("a")
    life: Any = b.resolve().node.life
    life.fail(Fault(type="X", message="first"))
    assert await b.call(Twin.ping) == "pong"
    assert b.incarnation == 2


@pytest.mark.parametrize("exit_", [Normal(), Shutdown("enough")])
async def test_who_traps_exits_is_told_and_lives(
    twins: Twins, exit_: Exit, autojump_clock: object
) -> None:
    """MON-12, MON-13"""
    a, b = await twins.start("a"), await twins.start("b", Trapping)
    await a.call(Twin.link_with, "/b")
    await a.stop(exit_)
    assert await b.call(Twin.ping) == "pong"
    assert twins.heard == [("/a", exit_), ("/b", "/a", 1, exit_)]


async def test_who_traps_exits_hears_of_a_crash_and_of_a_kill_alike(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-13: a kill cannot be trapped by its victim; to the others it is an exit."""
    killed = await twins.start("killed", Trapping, shutdown=0)
    crashed = await twins.start("crashed", Trapping)
    b = await twins.start("b", Trapping)
    c = await twins.start("c")
    for path in ("/killed", "/crashed"):
        await b.call(Twin.link_with, path)
    await c.call(Twin.link_with, "/killed")
    killed.request(Twin.hang, 1)
    await wait_all_tasks_blocked()
    await twins.supervisor.terminate_child("killed")
    with pytest.raises(AgentCrashed):
        await crashed.call(Twin.fail)
    assert await b.call(Twin.ping) == "pong"
    assert twins.heard == [
        ("/b", "/killed", 1, Killed()),
        ("/b", "/crashed", 1, twins.exits["crashed"]),
    ]
    assert twins.fault("c").message == "/killed, which it was linked with, was killed"
    assert twins.fault("c").cause is None


async def test_trapping_protects_nobody_else(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: each decides for itself."""
    await twins.start("a")
    b = await twins.start("b", Trapping)
    await b.call(Twin.link_with, "/a")
    with pytest.raises(AgentCrashed):
        await b.call(Twin.fail)
    await wait_all_tasks_blocked()
    assert twins.fault("a").cause == twins.fault("b")


async def test_a_chain_ends_as_a_whole_and_names_the_first(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: a ring of them as well, each once."""
    refs = [await twins.start(str(number)) for number in range(20)]
    for number, ref in enumerate(refs):
        await ref.call(Twin.link_with, f"/{(number + 1) % 20}")
    with pytest.raises(AgentCrashed):
        await refs[7].call(Twin.fail)
    await wait_all_tasks_blocked()
    assert len(twins.exits) == 20
    for number in {*range(20)} - {7}:
        fault = twins.fault(str(number))
        assert fault.cause == twins.fault("7")
        assert len(fault.message) < 100


async def test_a_link_is_one_however_often_it_is_made(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12"""
    a, b = await twins.start("a"), await twins.start("b")
    await a.call(Twin.link_with, "/b")
    await a.call(Twin.link_with, "/b")
    await b.call(Twin.link_with, "/a")
    await a.call(Twin.link_with, "/a")
    assert len(a.resolve().node.life.watchers) == 2
    await b.call(Twin.unlink_from, "/a")
    with pytest.raises(AgentCrashed):
        await a.call(Twin.fail)
    await wait_all_tasks_blocked()
    assert await b.call(Twin.ping) == "pong"
    assert b.resolve().node.life.watchers == [twins._ended]


async def test_unlinking_what_is_not_linked_does_nothing(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12"""
    a = await twins.start("a")
    await twins.start("b")
    await a.call(Twin.unlink_from, "/b")
    await a.call(Twin.unlink_from, "/nobody")
    assert await a.call(Twin.ping) == "pong"


async def test_a_link_belongs_to_two_incarnations(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: what comes after one of them is not linked."""
    a = await twins.start("a", restart="permanent")
    b = await twins.start("b", restart="permanent")
    await a.call(Twin.link_with, "/b")
    with pytest.raises(AgentCrashed):
        await a.call(Twin.fail)
    await wait_all_tasks_blocked()
    assert (a.incarnation, b.incarnation) == (2, 2)
    with pytest.raises(AgentCrashed):
        await b.call(Twin.fail)
    await wait_all_tasks_blocked()
    assert (a.incarnation, b.incarnation) == (2, 3)


async def test_there_is_no_link_with_nobody(
    twins: Twins, autojump_clock: object
) -> None:
    """MON-12: reported at once, to who traps exits as an end of nobody."""
    a = await twins.start("a")
    gone = await twins.start("gone", restart="permanent")
    await twins.supervisor.terminate_child("gone")
    with pytest.raises(AgentDown, match="nobody to be linked with"):
        await a.call(Twin.link_with, "/gone")
    with pytest.raises(NameUnknown):
        await a.call(Twin.link_with, "/nobody")
    assert a.incarnation == 1
    trapping = await twins.start("trapping", Trapping)
    await trapping.call(Twin.link_with, "/gone")
    await trapping.call(Twin.link_with, "/nobody")
    await wait_all_tasks_blocked()
    assert twins.heard[1:] == [
        ("/trapping", "/gone", 0, None),
        ("/trapping", "/nobody", 0, None),
    ]
    assert gone.resolve().node.life is None


async def test_a_link_that_is_made_in_on_start_is_made_again_after_a_restart(
    twins: Twins, autojump_clock: object
) -> None:
    a = await twins.start("a", restart="permanent")
    b = await twins.start("b", Joined, restart="permanent")
    for incarnation in (2, 3):
        await trio.sleep(10)
        with pytest.raises(AgentCrashed):
            await a.call(Twin.fail)
        await wait_all_tasks_blocked()
        assert a.incarnation == incarnation
        assert b.incarnation == incarnation


async def test_who_is_linked_and_watches_hears_nothing_of_it_in_its_next_life(
    twins: Twins, autojump_clock: object
) -> None:
    """The notice of an end that took the listener along is nobody's."""
    a = await twins.start("a")
    b = await twins.start("b", restart="permanent")
    await b.call(Twin.watch_and_link, "/a")
    with pytest.raises(AgentCrashed):
        await a.call(Twin.fail)
    await wait_all_tasks_blocked()
    assert b.incarnation == 2
    assert twins.heard == []


async def test_what_is_rolled_back_takes_the_other_along_at_no_cost(
    twins: Twins, autojump_clock: object
) -> None:
    a = await twins.start("a", restart="permanent")
    b = await twins.start("b", restart="permanent")
    for _ in range(10):  # more often than a budget lasts
        await a.call(Twin.link_with, "/b")
        before = b.incarnation
        waiting = b.request(Twin.hang, 1)
        await wait_all_tasks_blocked()
        fault = Fault.capture(StoreBroken("the disk is full"))
        a.resolve().node.life.fail(fault, rolled_back=True)
        await wait_all_tasks_blocked()
        assert b.incarnation == before + 1
        # It is no fault of this message, which is handled again.
        assert await waiting.result() == "done"


PLACES = range(6)
PAIRS = [(a, b) for a in PLACES for b in PLACES if a < b]


def taken_along(
    first: int, exit_: str, linked: set[tuple[int, int]], trapping: set[int]
) -> tuple[set[int], set[tuple[int, int]]]:
    """Naively: who ends, and who is told of whose end."""
    ended, told, ahead = {first}, set(), [first]
    while ahead:
        gone = ahead.pop()
        for pair in linked:
            (other,) = {*pair} - {gone} if gone in pair else (gone,)
            if other in ended:
                continue
            if other in trapping:
                told.add((other, gone))
            elif exit_ != "normal":
                ended.add(other)
                ahead.append(other)
    return ended, told


@given(
    first=st.sampled_from(PLACES),
    exit_=st.sampled_from(["normal", "shutdown", "crash"]),
    linked=st.sets(st.sampled_from(PAIRS)),
    trapping=st.sets(st.sampled_from(PLACES)),
)
def test_whatever_is_linked_ends_and_hears_as_a_naive_model_says(
    first: int, exit_: str, linked: set[tuple[int, int]], trapping: set[int]
) -> None:
    """MON-12, MON-13"""

    async def main() -> None:
        async with open_supervisor() as supervisor:
            twins = Twins(supervisor, lambda s, path: AgentRef(s.directory, path))
            refs = [
                await twins.start(str(n), Trapping if n in trapping else Twin)
                for n in PLACES
            ]
            for one, other in linked:
                await refs[one].call(Twin.link_with, f"/{other}")
            if exit_ == "crash":
                await refs[first].cast(Twin.fail)
            else:
                await refs[first].stop(Normal() if exit_ == "normal" else Shutdown())
            await wait_all_tasks_blocked()
            ended, told = taken_along(first, exit_, linked, trapping)
            assert {int(id_) for id_ in twins.exits} == ended
            heard = [one[:2] for one in twins.heard if len(one) == 4]
            assert sorted(heard) == sorted((f"/{a}", f"/{b}") for a, b in told)

    trio.run(main, clock=MockClock(autojump_threshold=0))
