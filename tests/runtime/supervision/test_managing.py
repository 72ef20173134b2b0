"""Children managed by hand, and what is left of those that do not start."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import IGNORE, Agent, AgentCrashed, AgentDown, AgentRef, Stop
from treewarden.errors import (
    AlreadyPresent,
    AlreadyStarted,
    CallingSelf,
    ChildStartFailed,
    NotRunning,
    ShuttingDown,
    StartTimeout,
    UnknownChild,
)
from treewarden.exits import Crash, Shutdown
from treewarden.registry import Registry
from treewarden.resilience import Backoff
from treewarden.supervision import (
    ChildCounts,
    ChildSpec,
    Directory,
    Ignore,
    Intensity,
    SupervisorRef,
    SupervisorSpec,
    cleanup,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .conftest import World

PATIENT = Backoff(initial=10.0, maximum=10.0, jitter=0.0)
Keys = Registry[AgentRef[Any]]


class Holder(Agent[None]):
    """Has a key from its start on, and then starts as it is told to."""

    def __init__(self, keys: Keys, how: str = "", fails: tuple[int, ...] = ()) -> None:
        self.keys = keys
        self.how = how
        self.fails = fails

    async def on_start(self) -> Ignore | None:
        self.register("key", registry=self.keys)
        if self.how == "raise" or self.incarnation in self.fails:
            raise ValueError("no ink")
        if self.how == "stop":
            raise Stop(Shutdown("no wish to"))
        if self.how == "hang":
            await trio.sleep_forever()
        return IGNORE if self.how == "ignore" else None

    async def who(self) -> int:
        return self.incarnation

    async def fail(self) -> None:
        raise ValueError("on purpose")


class Caller(Agent[None]):
    """Asks something of a supervisor while it starts."""

    def __init__(self, ask: Callable[[], Awaitable[object]], told: list[str]) -> None:
        self.ask = ask
        self.told = told

    async def on_start(self) -> None:
        try:
            await self.ask()
        except CallingSelf as error:
            self.told.append(str(error))


@asynccontextmanager
async def room() -> AsyncIterator[None]:
    yield


def holder(root: SupervisorRef, id_: str = "a") -> AgentRef[Holder]:
    return AgentRef(root.directory, f"/{id_}")


def counts(specs: int, active: int) -> ChildCounts:
    return ChildCounts(specs=specs, active=active, supervisors=0, workers=specs)


# --- by hand ----------------------------------------------------------------------------


async def test_a_child_lives_a_whole_life_by_hand(world: World) -> None:
    """MGT-09: added, called, stopped, started, called again, stopped and forgotten."""
    spec = ChildSpec("a", Holder, args=(Registry(),))
    async with world.open() as root:
        added = await root.start_child(spec)
        assert added is not None
        assert root.which_children() == [added]
        assert (added.state, added.kind, added.path) == ("running", "agent", "/a")
        assert root.count_children() == counts(1, 1)
        assert await holder(root).call(Holder.who) == 1
        with pytest.raises(AlreadyStarted):
            await root.delete_child("a")
        await root.terminate_child("a")
        assert world.states(root) == {"a": "stopped"}
        assert root.count_children() == counts(1, 0)
        with pytest.raises(AgentDown):
            await holder(root).call(Holder.who)
        again = await root.restart_child("a")
        assert (again.state, again.incarnation) == ("running", 2)
        assert await holder(root).call(Holder.who) == 2
        await root.terminate_child("a")
        await root.delete_child("a")
        assert (root.which_children(), root.count_children()) == ([], counts(0, 0))
        await root.stop()


async def test_a_child_is_named_by_its_id_and_by_nothing_else(world: World) -> None:
    """MGT-01: not by its ref, its info or its path."""
    spec = ChildSpec("a", Holder, args=(Registry(),))
    async with world.open(spec) as root:
        (info,) = root.which_children()
        names: list[Any] = [holder(root), info, "/a", "A", "", None]
        for name in names:
            for wish in (
                root.terminate_child(name),
                root.restart_child(name),
                root.bounce_child(name),
                root.delete_child(name),
            ):
                with pytest.raises(UnknownChild, match="/ has no child"):
                    await wish
            with pytest.raises(UnknownChild):
                root.get_childspec(name)
        assert root.which_children() == [info]


async def test_who_is_not_running_says_so_whatever_is_asked(world: World) -> None:
    """MGT-02: unknown, stopped, and between two lives; not that it has no children."""
    inner = world.supervisor(
        "s", world.child("a"), limit=0, restart="permanent", backoff=PATIENT
    )
    async with world.open(inner) as root:
        s = root.supervisor("s")
        await all_refused(world, SupervisorRef(Directory(), "/s"), "there is no superv")
        await all_refused(world, SupervisorRef(root.directory, "/x"), "there is no")
        await root.terminate_child("s")
        await all_refused(world, s, "supervisor /s is not running")
        await root.restart_child("s")
        await world.crashed("a")
        assert world.states(root) == {"s": "restarting"}
        await all_refused(world, s, "supervisor /s is not running")
        await trio.sleep(20)
        assert world.states(s) == {"a": "running"}


async def all_refused(world: World, whom: SupervisorRef, message: str) -> None:
    for wish in (
        whom.start_child(world.child("b")),
        whom.terminate_child("a"),
        whom.restart_child("a"),
        whom.bounce_child("a"),
        whom.delete_child("a"),
        whom.reconfigure(SupervisorSpec()),
    ):
        with pytest.raises(NotRunning, match=message):
            await wish
    for look in (
        whom.which_children,
        whom.count_children,
        partial(whom.get_childspec, "a"),
        partial(whom.supervisor, "a"),
    ):
        with pytest.raises(NotRunning, match=message):
            look()


@pytest.mark.parametrize("kind", ["static", "dynamic"])
async def test_every_way_to_look_tells_the_same(world: World, kind: str) -> None:
    """MGT-05: through add, crash, terminate and delete."""
    kinds = {"static": world.supervisor("s"), "dynamic": world.dynamic("s")}
    async with world.open(kinds[kind]) as root:
        s = root.supervisor("s")
        assert looked_at(world, s) == []
        await s.start_child(world.child("a", backoff=PATIENT))
        assert looked_at(world, s) == ["running"]
        await world.crashed("a")
        assert looked_at(world, s) == ["restarting"]
        await trio.sleep(20)
        assert looked_at(world, s) == ["running"]
        await s.terminate_child("a")
        if kind == "static":
            assert looked_at(world, s) == ["stopped"]
            await s.delete_child("a")
        assert looked_at(world, s) == []


def looked_at(world: World, s: SupervisorRef) -> list[str]:
    states = world.states(s)
    for id_, state in states.items():
        assert world.directory.resolve(f"{s.path}/{id_}").state == state
        assert s.get_childspec(id_).id == id_
    if not states:
        assert world.directory.find(f"{s.path}/a") is None
        with pytest.raises(UnknownChild):
            s.get_childspec("a")
    active = list(states.values()).count("running")
    assert s.count_children() == counts(len(states), active)
    return list(states.values())


async def test_who_comes_second_is_told_whose_id_it_is(world: World) -> None:
    """MGT-12"""
    async with world.open() as root, trio.open_nursery() as nursery:
        nursery.start_soon(root.start_child, world.child("a", start_takes=1.0))
        await world.settle()
        with pytest.raises(AlreadyStarted) as caught:
            await root.start_child(world.child("a"))
        assert caught.value.path == world.info(root, "a").path == "/a"


async def test_what_a_terminated_child_held_is_free_when_that_returns(
    world: World,
) -> None:
    """MGT-14"""
    keys: Keys = Registry()
    async with world.open(ChildSpec("a", Holder, args=(keys,))) as root:
        assert keys.whereis("key") == holder(root)
        await root.terminate_child("a")
        assert keys.whereis("key") is None
        await root.start_child(ChildSpec("b", Holder, args=(keys,)))
        assert keys.whereis("key") == holder(root, "b")


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "wish", ["start", "terminate", "restart", "bounce", "delete", "reconfigure", "stop"]
)
async def test_whoever_is_waited_for_cannot_ask_those_who_wait(
    world: World, wish: str, depth: int
) -> None:
    """MGT-15: of those above it all wait for it to start, and none could answer."""
    told: list[str] = []
    async with world.open(world.child("other")) as root:
        wishes: dict[str, Callable[[], Awaitable[object]]] = {
            "start": lambda: root.start_child(world.child("b")),
            "terminate": lambda: root.terminate_child("other"),
            "restart": lambda: root.restart_child("other"),
            "bounce": lambda: root.bounce_child("other"),
            "delete": lambda: root.delete_child("other"),
            "reconfigure": lambda: root.reconfigure(SupervisorSpec()),
            "stop": root.stop,
        }
        spec = ChildSpec("a", Caller, args=(wishes[wish], told))
        for level in range(depth):
            spec = ChildSpec(f"s{level}", SupervisorSpec([spec]))
        await root.start_child(spec)
        assert len(told) == 1
        assert trio.current_time() == 0
        assert world.states(root) == {"other": "running", spec.id: "running"}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("wish", ["start", "terminate"])
async def test_a_wish_that_waits_is_refused_when_its_asker_is_to_stop_first(
    world: World, wish: str, nested: bool
) -> None:
    """MGT-15, SHD-20: each would wait for the other until the shutdown time is over."""
    door = trio.Event()

    async def asks(root: SupervisorRef) -> None:
        if door.is_set():
            await trio.sleep_forever()
        with cleanup():
            await door.wait()
            try:
                if wish == "start":
                    await root.start_child(world.child("d"))
                else:
                    await root.terminate_child("slow")
            except ShuttingDown as error:
                world.note(str(error))
        await trio.sleep_forever()

    async with world.open(world.child("a"), strategy="one_for_all") as root:
        spec = ChildSpec("b", asks, args=(root,))
        if nested:
            spec = ChildSpec("s", SupervisorSpec([spec]))
        await root.start_child(spec)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.start_child, world.child("slow", start_takes=1.0))
            await world.settle()
            world.crash("a")
            await world.settle()
            door.set()
        await trio.sleep(5)
        assert (1.0, f"/{spec.id} is being stopped, and asks /") in world.at
        assert world.incarnations(root) == {"a": 2, spec.id: 2, "slow": 2}


# --- what did not start -----------------------------------------------------------------


async def test_there_are_several_ways_not_to_start_and_each_is_told_apart(
    world: World,
) -> None:
    """INI-03, RFL-01: and none of them is reported as the crash of a running child."""
    keys: Keys = Registry()
    async with world.open() as root:

        def start(how: str) -> Awaitable[object]:
            spec = ChildSpec("a", Holder, args=(keys, how), restart="temporary")
            return root.start_child(spec)

        assert await start("ignore") is None
        with pytest.raises(
            ChildStartFailed, match=r"/a did not start.*no wish"
        ) as stop:
            await start("stop")
        assert stop.value.exit == Shutdown("no wish to")
        assert stop.value.__cause__ is None
        with pytest.raises(
            ChildStartFailed, match=r"/a did not start.*no ink"
        ) as crash:
            await start("raise")
        assert isinstance(crash.value.exit, Crash)
        assert isinstance(crash.value.__cause__, ValueError)
        assert (root.which_children(), keys.whereis("key")) == ([], None)
    assert [one for one in world.reports if one.path == "/a"] == []


async def test_after_a_start_that_took_too_long_the_id_and_the_names_are_free(
    world: World,
) -> None:
    """INI-02"""
    keys: Keys = Registry()
    async with world.open() as root:
        for _ in range(2):
            slow = ChildSpec("a", Holder, args=(keys, "hang"), start_timeout=2.0)
            with pytest.raises(StartTimeout):
                await root.start_child(slow)
            assert (root.which_children(), keys.whereis("key")) == ([], None)
        await root.start_child(ChildSpec("a", Holder, args=(keys,)))
        # No incarnation is ever used twice, and two began.
        assert await holder(root).call(Holder.who) == 3
        assert trio.current_time() == 4


@pytest.mark.parametrize(
    ("start", "args", "message"),
    [
        (Holder, (), "missing 1 required positional argument: 'keys'"),
        (Holder, (1, 2, 3, 4), "positional arguments but 5 were given"),
        (trio.sleep, (), "missing 1 required positional argument"),
        (room, (1,), "takes 0 positional arguments but 1 was given"),
    ],
)
async def test_arguments_that_do_not_fit_are_a_failed_start_and_nothing_else(
    world: World, start: object, args: tuple[object, ...], message: str
) -> None:
    """INI-12"""
    async with world.open() as root:
        with pytest.raises(ChildStartFailed, match=message) as caught:
            await root.start_child(ChildSpec("a", start, args=args))
        assert isinstance(caught.value.__cause__, TypeError)
        assert root.which_children() == []
    assert [one for one in world.reports if one.path == "/a"] == []


async def test_a_key_taken_by_a_restart_that_fails_is_free_for_the_next(
    world: World,
) -> None:
    """RFL-15: a hundred times; a key that were left would be the next one's error."""
    keys: Keys = Registry()
    fails = tuple(range(2, 102))
    spec = ChildSpec("a", Holder, args=(keys,), kwargs={"fails": fails})
    async with world.open(spec, limit=101) as root:
        with pytest.raises(AgentCrashed, match="on purpose"):
            await holder(root).call(Holder.fail)
        await world.settle()
        assert await holder(root).call(Holder.who) == 102
        assert keys.whereis("key") == holder(root)
    failed = [one.detail for one in world.reported("start_failed")]
    assert len(failed) == 100
    assert all("no ink" in detail for detail in failed)


@pytest.mark.parametrize("how", ["stop", "terminate", "reconfigure"])
async def test_a_wish_comes_before_the_next_attempt_of_a_loop_that_never_waits(
    world: World, how: str
) -> None:
    """RFL-13: nor does such a loop keep the others from running."""
    spec = world.child("a", fails=range(2, 10**9))
    async with world.open(spec, limit=10**9) as root:
        world.crash("a")
        while world.starts["a"] < 100:
            await trio.lowlevel.checkpoint()
        before = world.starts["a"]
        if how == "stop":
            await root.stop()
        elif how == "terminate":
            await root.terminate_child("a")
        else:
            other = ChildSpec("a", trio.sleep_forever)
            endless = Intensity(10**9, 3600.0)
            await root.reconfigure(SupervisorSpec([other], intensity=endless))
            await world.settle()
            assert world.states(root) == {"a": "running"}
    # The one that was under way.
    assert world.starts["a"] - before <= 1


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ("ready", {"a": "running"}),
        ("ready with a value", {"a": "running"}),
        ("ignore", {}),
        ("raise", {"a": "restarting"}),
        ("return", {"a": "restarting"}),
        ("hang", {"a": "restarting"}),
    ],
)
async def test_a_restart_of_a_dynamic_child_may_go_all_these_ways(
    world: World, how: str, after: dict[str, str]
) -> None:
    """RFL-09"""
    door = trio.Event()

    async def child(*, task_status: trio.TaskStatus[object]) -> None:
        world.starts["a"] += 1
        if world.starts["a"] > 1:
            if how == "raise":
                raise world.boom
            if how == "return":
                return
            if how == "ignore":
                task_status.started(IGNORE)
                return
            if how == "hang":
                await trio.sleep_forever()
            task_status.started(7 if how == "ready with a value" else None)
            await trio.sleep_forever()
        task_status.started()
        await door.wait()
        raise world.boom

    spec = ChildSpec("a", child, backoff=PATIENT, start_timeout=1.0)
    async with world.open(world.dynamic(limit=9)) as root:
        dyn = root.supervisor("dyn")
        await dyn.start_child(spec)
        door.set()
        await trio.sleep(12)
        assert (world.starts["a"], world.states(dyn)) == (2, after)
        if not after:
            # As if it had never been: its id is free.
            with pytest.raises(UnknownChild):
                await dyn.terminate_child("a")
        elif after == {"a": "restarting"}:
            with pytest.raises(AlreadyPresent):
                await dyn.start_child(spec)
