"""Agents that register: their entries live exactly as long as their incarnation."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentRef,
    Application,
    ChildSpec,
    ChildStartFailed,
    Config,
    Down,
    Intensity,
    NameUnknown,
    NotRunning,
    Refused,
    Runtime,
    SupervisorSpec,
    open_runtime,
    open_supervisor,
)
from treewarden.registry import KeyTaken, OwnerScope, Registry
from treewarden.supervision import current_life

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from treewarden import SupervisorRef

Names = Registry[AgentRef[Any]]


class Worker(Agent[None]):
    persistence = "none"

    def __init__(self, names: Names, key: object = "worker") -> None:
        self.names = names
        self.key = key

    async def on_start(self) -> None:
        self.register(
            self.key,
            self.incarnation,
            registry=self.names,
            kind="worker",
            path=self.path,
        )

    async def ping(self) -> str:
        return self.path

    async def fail(self) -> None:
        raise ValueError("broken")

    async def hang(self) -> None:
        await trio.sleep_forever()

    async def leave(self) -> int:
        return self.unregister(self.key, registry=self.names)

    async def enter_and_refuse(self) -> None:
        self.register("second", registry=self.names)
        raise Refused("no")


class Watcher(Agent[None]):
    persistence = "none"

    def __init__(self, names: Names, seen: list[tuple[Down, object]]) -> None:
        self.names = names
        self.seen = seen

    async def watch(self, ref: AgentRef[Any]) -> None:
        self.monitor(ref)

    async def on_down(self, down: Down) -> None:
        found = [entry.value for entry in self.names.lookup("worker")]
        self.seen.append((down, found))


@pytest.fixture
def names() -> Names:
    registry = Names()
    registry.declare("kind")
    return registry


@pytest.fixture
async def tree() -> AsyncIterator[SupervisorRef]:
    async with open_supervisor() as supervisor:
        yield supervisor


def is_empty(names: Names, tables: Any) -> bool:
    return bool(tables(names) == tables_of_none(tables))


def tables_of_none(tables: Any) -> Any:
    nobody = Names()
    nobody.declare("kind")
    return tables(nobody)


async def test_a_killed_agent_leaves_no_entry_of_any_kind(
    tree: SupervisorRef, names: Names, tables: Any, autojump_clock: trio.abc.Clock
) -> None:
    """REG-03"""
    spec = ChildSpec("w", Worker, args=(names,), shutdown=0.0, restart="temporary")
    await tree.start_child(spec)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ignore_down, names.ref("worker"))
        await wait_all_tasks_blocked()
        await tree.terminate_child("w")
    assert is_empty(names, tables)


async def _ignore_down(ref: AgentRef[Worker]) -> None:
    try:
        await ref.call(Worker.hang)
    except Exception:  # noqa: BLE001 - how it is told is not what is tested
        return


async def test_a_name_is_free_before_anybody_hears_of_the_end(
    tree: SupervisorRef, names: Names
) -> None:
    """MON-06, G20, REG-03, pitfall 61"""
    seen: list[tuple[Down, object]] = []
    await tree.start_child(ChildSpec("watcher", Watcher, args=(names, seen)))
    spec = ChildSpec("w", Worker, args=(names,), restart="temporary")
    await tree.start_child(spec)
    watcher = AgentRef[Watcher](tree.directory, "/watcher")
    await watcher.call(Watcher.watch, names.ref("worker"))
    await tree.terminate_child("w")
    await wait_all_tasks_blocked()
    ((down, found),) = seen
    assert (down.path, found) == ("/w", [])


async def test_a_restarted_agent_registers_the_same_key_again(
    tree: SupervisorRef, names: Names
) -> None:
    """REG-25"""
    await tree.start_child(ChildSpec("w", Worker, args=(names,)))
    for incarnation in (1, 2, 3):
        (entry,) = names.find(kind="worker")
        assert entry.value == incarnation
        with pytest.raises(AgentCrashed):
            await entry.ref.call(Worker.fail)
        await wait_all_tasks_blocked()
    statistics = names.statistics()
    assert (statistics.registered, statistics.ended, statistics.refused) == (4, 3, 0)


async def test_whoever_is_looked_up_in_a_crash_loop_answers_all_the_same(
    tree: SupervisorRef, names: Names, autojump_clock: trio.abc.Clock
) -> None:
    """MSG-06, REG-25, pitfall 59: between look-up and call it was restarted, or is now."""
    answers: list[str] = []
    crashes = 40

    async def crash() -> None:
        for _ in range(crashes):
            await address.cast(Worker.fail)
            await trio.lowlevel.checkpoint()

    async def ask() -> None:
        for _ in range(crashes):
            for entry in names.lookup("worker"):
                await trio.lowlevel.checkpoint()
                answers.append(await entry.ref.with_timeout(inf).call(Worker.ping))
            await trio.lowlevel.checkpoint()

    budget = Intensity(crashes, 1.0)
    await tree.start_child(ChildSpec("w", Worker, args=(names,), intensity=budget))
    address = AgentRef[Worker](tree.directory, "/w")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        for _ in range(3):
            nursery.start_soon(ask)
    assert address.incarnation == crashes + 1
    assert len(answers) > crashes
    assert set(answers) == {"/w"}
    assert trio.current_time() == 0


async def test_a_group_that_is_restarted_registers_again_in_order(
    names: Names,
) -> None:
    """REG-25"""
    children = [ChildSpec(name, Worker, args=(names, name)) for name in ("a", "b", "c")]
    async with open_supervisor() as tree:
        spec = SupervisorSpec(children, strategy="one_for_all")
        await tree.start_child(ChildSpec("group", spec))
        with pytest.raises(AgentCrashed):
            await names.ref("b").call(Worker.fail)
        await wait_all_tasks_blocked()
        assert [entry.key for entry in names.select()] == ["a", "b", "c"]
        assert [entry.value for entry in names.select()] == [2, 2, 2]
        await tree.terminate_child("group")
        assert names.count() == 0


async def test_an_agent_whose_key_is_taken_does_not_start(
    tree: SupervisorRef, names: Names
) -> None:
    """REG-18"""
    await tree.start_child(ChildSpec("first", Worker, args=(names,)))
    with pytest.raises(ChildStartFailed) as failed:
        await tree.start_child(ChildSpec("second", Worker, args=(names,)))
    taken = failed.value.__cause__
    assert isinstance(taken, KeyTaken)
    assert await taken.holder.call(Worker.ping) == "/first"  # type: ignore[attr-defined]
    assert names.count() == 1


async def test_a_start_that_fails_after_registering_leaves_nothing(
    tree: SupervisorRef, names: Names, tables: Any
) -> None:
    """REG-03, INI"""

    class Unlucky(Worker):
        async def on_start(self) -> None:
            await super().on_start()
            raise ValueError("no")

    with pytest.raises(ChildStartFailed):
        await tree.start_child(ChildSpec("w", Unlucky, args=(names,)))
    assert is_empty(names, tables)


async def test_an_agent_unregisters_and_a_refusal_leaves_it_registered(
    tree: SupervisorRef, names: Names
) -> None:
    """REG-07"""
    await tree.start_child(ChildSpec("w", Worker, args=(names,)))
    ref = names.ref("worker")
    with pytest.raises(Refused):
        await ref.call(Worker.enter_and_refuse)
    assert names.whereis("second") == ref
    assert await ref.call(Worker.leave) == 1
    assert names.whereis("worker") is None


async def test_a_function_child_owns_entries_by_its_life(
    tree: SupervisorRef,
) -> None:
    """REG-24"""
    names = Registry[str]()

    async def poll(*, task_status: trio.TaskStatus[None]) -> None:
        life = current_life.get()
        assert life is not None
        names.register("poller", life.node.path, owner=life)
        task_status.started()
        await trio.sleep_forever()

    await tree.start_child(ChildSpec("poll", poll))
    assert names.whereis("poller") == "/poll"
    await tree.terminate_child("poll")
    assert names.whereis("poller") is None


async def test_an_agent_without_a_runtime_has_no_registry_but_the_one_it_is_given(
    tree: SupervisorRef,
) -> None:
    """REG-19"""

    class Lost(Agent[None]):
        persistence = "none"

        async def on_start(self) -> None:
            self.register("lost")

    with pytest.raises(ChildStartFailed) as failed:
        await tree.start_child(ChildSpec("lost", Lost))
    assert isinstance(failed.value.__cause__, NotRunning)


# --- in a runtime ------------------------------------------------------------------------------


class Tally(msgspec.Struct):
    total: int = 0


class Counter(Agent[Tally]):
    async def on_start(self) -> None:
        self.register(("counter", 1), kind="counter", site="docs")

    async def add(self, n: int) -> int:
        self.state.total += n
        return self.state.total

    async def fail(self) -> None:
        raise ValueError("broken")


def app() -> Application:
    return Application("names", [ChildSpec("c", Counter)])


async def _back(runtime: Runtime, incarnation: int) -> None:
    """Real threads are involved, so this waits for the condition, bounded."""
    with trio.fail_after(30):
        while runtime.ref("c").incarnation < incarnation:
            await trio.lowlevel.checkpoint()
        while runtime.registry.whereis(("counter", 1)) is None:
            await trio.lowlevel.checkpoint()


async def test_a_registered_key_is_a_name_to_call_by_in_every_incarnation() -> None:
    """REG-18, STA-06"""
    config = Config(level="volatile", socket=False)
    async with open_runtime(app(), config=config) as runtime:
        runtime.registry.declare("kind")
        ref = runtime.registry.ref(("counter", 1))
        assert ref == runtime.ref("/c") == runtime.ref("c", Counter)
        await ref.cast(Counter.add, 1)
        assert await ref.call(Counter.add, 2) == 3
        assert runtime.registry.whereis(("counter", 1)) == ref
        with pytest.raises(AgentCrashed):
            await ref.call(Counter.fail)
        await _back(runtime, 2)
        (entry,) = runtime.registry.find(kind="counter", site="docs")
        assert await entry.ref.call(Counter.add, 4) == 7
        with pytest.raises(NameUnknown):
            runtime.ref("counter")
    assert runtime.registry.count() == 0
    assert runtime.registry.statistics().owners == 0


async def test_a_plain_task_shares_the_runtimes_registry_through_a_scope() -> None:
    """REG-24"""
    config = Config(level="volatile", socket=False)
    async with open_runtime(app(), config=config) as runtime:
        with OwnerScope() as me:
            runtime.registry.register("alias", runtime.ref("c"), owner=me)
            assert await runtime.registry.ref("alias").call(Counter.add, 1) == 1
        assert runtime.registry.whereis("alias") is None
