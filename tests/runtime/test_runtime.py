"""The composed whole: its tree, its face, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    ChildStartFailed,
    Config,
    IntensityExceeded,
    NameAmbiguous,
    NameUnknown,
    NotRunning,
    StoreLocked,
    SupervisorSpec,
    current_runtime,
    open_runtime,
    open_supervisor,
)
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import Runtime


class Note(msgspec.Struct):
    text: str = ""


class Pad(Agent[Note]):
    async def write(self, text: str) -> None:
        self.state.text = text

    async def read(self) -> str:
        return self.state.text

    async def fail(self) -> None:
        raise ValueError("torn")

    async def name_of_runtime(self) -> str:
        assert current_runtime() is self.runtime
        return self.runtime.name


class Scratch(Pad):
    persistence = "none"


@pytest.fixture
def clock() -> Iterator[MockClock]:
    """For what is counted within seconds, which a slow machine may take for a step."""
    with store_clock() as clock:
        yield clock


def config(tmp_path: Path, **options: Any) -> Config:
    return Config(store=tmp_path / "test.db", socket=False, **options)


async def running_again(runtime: Runtime, path: str) -> None:
    """Real threads are involved, so this waits for the condition, bounded."""
    with trio.fail_after(30):
        while True:
            node = runtime.directory.find(path)
            if node is not None and node.incarnation == 2 and node.state == "running":
                return
            await trio.lowlevel.checkpoint()


def pads(*ids: str) -> Application:
    return Application("pads", [ChildSpec(id_, Pad) for id_ in ids])


async def test_the_system_stands_before_the_application(tmp_path: Path) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
        paths = [node.path for node in runtime.tree().nodes]
        assert paths == [
            "/",
            "/system",
            "/system/store",
            "/system/bus",
            "/system/edge",
            "/system/pools",
            "/system/transactions",
            "/system/circuits",
            "/system/limits",
            "/system/cache",
            "/system/exchange",
            "/system/monitors",
            "/system/monitors/tasks",
            "/system/monitors/crew",
            "/system/monitors/signals",
            "/system/monitors/readings",
            "/system/monitors/deadlines",
            "/system/programs",
            "/system/http",
            "/system/telemetry",
            "/system/heartbeat",
            "/system/watchdog",
            "/application",
            "/a",
            "/workflows",
            "/workflows/running",
            "/workflows/recovery",
        ]
        assert all(node.state == "running" for node in runtime.tree().nodes)


async def test_a_failed_part_of_the_system_takes_what_stands_on_it(
    clock: MockClock, tmp_path: Path
) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
        ref = runtime.ref("a", Pad)
        await ref.call(Pad.write, "kept")
        runtime.injections.crash("/system/store")
        await running_again(runtime, "/a")
        assert await ref.call(Pad.read) == "kept"
        assert runtime.tree()["/system/store"].incarnation == 2
        budget = runtime.tree()["/"].budget
        assert budget is not None
        assert budget[0] == 1


async def test_a_part_that_nobody_stands_on_is_restarted_alone(tmp_path: Path) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
        runtime.injections.crash("/system/heartbeat")
        await running_again(runtime, "/system/heartbeat")
        assert runtime.tree()["/a"].incarnation == 1
        assert runtime.tree()["/system/store"].incarnation == 1


async def test_a_ref_is_found_by_path_and_by_unique_id(tmp_path: Path) -> None:
    """STA-06: of a supervisor, too, and also through the one above it."""
    app = Application(
        "pads",
        [
            ChildSpec("left", SupervisorSpec([ChildSpec("pad", Pad)])),
            ChildSpec("right", SupervisorSpec([ChildSpec("pad", Pad)])),
            ChildSpec("single", Pad),
        ],
    )
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        assert runtime.ref("single").path == "/single"
        assert runtime.ref("/left/pad", Pad).path == "/left/pad"
        above = runtime.supervisor("/application")
        for left in (
            runtime.supervisor("/left"),
            runtime.supervisor("left"),
            above.supervisor("left"),
        ):
            assert (await left.bounce_child("pad")).path == "/left/pad"
        with pytest.raises(NameAmbiguous, match="/left/pad, /right/pad"):
            runtime.ref("pad")
        with pytest.raises(NameUnknown, match="nobody"):
            runtime.ref("nobody")
        with pytest.raises(
            NameUnknown, match="/left is no agent: its kind is supervisor"
        ):
            runtime.ref("/left")
        with pytest.raises(
            NameUnknown, match="/single is no supervisor: its kind is agent"
        ):
            runtime.supervisor("single")
        with pytest.raises(TypeError, match="is a Pad, not a Scratch"):
            runtime.ref("single", Scratch)


async def test_a_ref_stays_valid_when_its_supervisor_restarts(tmp_path: Path) -> None:
    """Pitfall 58, pitfall 59"""
    app = Application(
        "pads", [ChildSpec("group", SupervisorSpec([ChildSpec("pad", Pad)]))]
    )
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        ref = runtime.ref("/group/pad", Pad)
        await ref.call(Pad.write, "before")
        runtime.injections.crash("/group")
        await running_again(runtime, "/group/pad")
        assert await ref.call(Pad.read) == "before"


async def test_a_child_finds_its_runtime(tmp_path: Path) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
        assert await runtime.ref("a", Pad).call(Pad.name_of_runtime) == "pads"
        assert current_runtime() is runtime
    with pytest.raises(NotRunning):
        current_runtime()


async def test_without_a_store_an_agent_that_needs_one_does_not_start() -> None:
    with pytest.raises(ChildStartFailed) as caught:
        async with open_supervisor([ChildSpec("a", Pad)]):
            pass
    assert isinstance(caught.value.__cause__, NotRunning)
    assert 'persistence = "none"' in str(caught.value.__cause__)


async def test_a_second_runtime_on_the_file_is_refused_bare(tmp_path: Path) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)):
        other = Config(store=tmp_path / "test.db", socket=False, name="other")
        with pytest.raises(StoreLocked, match="belongs to another running runtime"):
            await trio.to_thread.run_sync(trio.run, _open_and_leave, other)


async def _open_and_leave(config: Config) -> None:
    async with open_runtime(pads("a"), config=config):
        pass


async def test_giving_up_cancels_the_block_and_comes_out_bare(
    clock: MockClock, tmp_path: Path
) -> None:
    with pytest.raises(IntensityExceeded, match="torn") as caught:
        async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
            # The application gives up after its budget, then the root after its own.
            for _ in range(100):
                await wait_until(lambda: runtime.directory.find("/a") is not None)
                with pytest.raises(AgentCrashed):
                    await runtime.ref("a", Pad).call(Pad.fail)
                await wait_all_tasks_blocked()
    assert caught.value.path == "/"


async def test_level_volatile_opens_no_file(tmp_path: Path) -> None:
    settings = Config(store=tmp_path / "x.db", socket=False, level="volatile")
    async with open_runtime(pads("a"), config=settings) as runtime:
        await runtime.ref("a", Pad).call(Pad.write, "gone soon")
        assert await runtime.ref("a", Pad).call(Pad.read) == "gone soon"
        assert runtime.store.level == "volatile"
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - it does not block


async def test_stop_leaves_the_block(tmp_path: Path) -> None:
    async with open_runtime(pads("a"), config=config(tmp_path)) as runtime:
        runtime.stop()
        await trio.sleep_forever()
    assert runtime.surroundings.store is None


async def test_reserved_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="'system' is reserved"):
        pads("system")
