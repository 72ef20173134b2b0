"""An agent whose stored state cannot be read stays down alone until that is mended."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentDown,
    Application,
    ChildSpec,
    ChildStartFailed,
    Config,
    Crash,
    DynamicSupervisorSpec,
    Intensity,
    RestoreError,
    Runtime,
    SupervisorSpec,
    open_runtime,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import ChildInfo


class Note(msgspec.Struct):
    text: str = ""


class Pad(Agent[Note]):
    async def write(self, text: str) -> None:
        self.state.text = text

    async def read(self) -> str:
        return self.state.text

    async def fail(self) -> None:
        raise ValueError("torn")


class Ledger(Pad):
    pass


def pads(*ids: str, **options: Any) -> Application:
    return Application("pads", [ChildSpec(id_, Pad) for id_ in ids], **options)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=tmp_path / "pads.db", socket=False)


def sql(config: Config, statement: str, path: str) -> None:
    """As somebody's disk, or somebody who mends, changes the file."""
    assert config.store is not None
    with closing(sqlite3.connect(config.store, isolation_level=None)) as connection:
        assert connection.execute(statement, (path,)).rowcount == 1


def damage(config: Config, path: str) -> None:
    sql(config, "UPDATE agent_state SET crc = crc + 1 WHERE path = ?", path)


def mend(config: Config, path: str) -> None:
    sql(config, "UPDATE agent_state SET crc = crc - 1 WHERE path = ?", path)


async def write_all(config: Config, app: Application, *paths: str) -> None:
    async with open_runtime(app, config=config) as runtime:
        for path in paths:
            await runtime.ref(path, Pad).call(Pad.write, path)


def child(runtime: Runtime, id_: str, supervisor: str = "/application") -> ChildInfo:
    children = runtime.supervisor(supervisor).which_children()
    return next(one for one in children if one.id == id_)


def damaged(info: ChildInfo) -> bool:
    exit_ = info.last_exit
    return isinstance(exit_, Crash) and exit_.fault.type.endswith(".RestoreError")


async def failures(runtime: Runtime) -> list[tuple[str, str]]:
    """(path, detail) of the starts that failed, as the journal has them."""
    pattern = "supervision.start_failed"
    with trio.fail_after(30):
        # Reports are nobody's to wait for.
        while not (
            found := await runtime.store.entries(since=0, limit=10, pattern=pattern)
        ):
            await trio.lowlevel.checkpoint()
    return [(e.source, msgspec.json.decode(e.payload)["detail"]) for e in found]


async def test_a_damaged_agent_is_down_with_the_reason_while_its_siblings_run(
    config: Config,
) -> None:
    app = pads("a", "b", "c", intensity=Intensity(0, 5.0))
    await write_all(config, app, "/a", "/b", "/c")
    damage(config, "/b")
    async with open_runtime(app, config=config) as runtime:
        assert await runtime.ref("a", Pad).call(Pad.read) == "/a"
        assert await runtime.ref("c", Pad).call(Pad.read) == "/c"
        info = child(runtime, "b")
        assert (info.state, info.incarnation, damaged(info)) == ("failed", 1, True)
        with pytest.raises(AgentDown, match=r"/b.*stored state of /b is damaged"):
            await runtime.ref("b", Pad).call(Pad.read)
        with pytest.raises(AgentDown, match="damaged"):
            await runtime.ref("b", Pad).cast(Pad.write, "x")
        ((path, detail),) = await failures(runtime)
        assert path == "/b"
        assert "stays down until its state is mended" in detail
        budget = runtime.tree()["/application"].budget
        assert budget is not None
        assert budget[0] == 0
        assert child(runtime, "b").incarnation == 1  # not tried again


async def test_a_mended_agent_comes_back_with_its_state_when_it_is_restarted(
    config: Config,
) -> None:
    app = pads("a", "b")
    await write_all(config, app, "/a", "/b")
    damage(config, "/b")
    async with open_runtime(app, config=config) as runtime:
        supervisor = runtime.supervisor("/application")
        with pytest.raises(ChildStartFailed, match="damaged") as caught:
            await supervisor.restart_child("b")
        assert isinstance(caught.value.__cause__, RestoreError)
        assert child(runtime, "b").state == "failed"
        mend(config, "/b")
        await supervisor.restart_child("b")
        ref = runtime.ref("b", Pad)
        assert await ref.call(Pad.read) == "/b"
        assert child(runtime, "b").state == "running"
        await ref.call(Pad.write, "later")
    async with open_runtime(app, config=config) as runtime:
        assert await runtime.ref("b", Pad).call(Pad.read) == "later"


async def test_an_agent_whose_row_was_not_found_comes_back_when_that_is_mended(
    config: Config,
) -> None:
    await write_all(config, pads("a"), "/a")
    sql(config, "UPDATE agent_state SET path = '/q' WHERE path = ?", "/a")
    async with open_runtime(pads("a"), config=config) as runtime:
        assert damaged(child(runtime, "a"))
        sql(config, "UPDATE agent_state SET path = '/a' WHERE path = ?", "/q")
        await runtime.supervisor("/application").restart_child("a")
        assert await runtime.ref("a", Pad).call(Pad.read) == "/a"


async def test_another_types_row_is_left_as_it_is_and_its_agent_is_down(
    config: Config,
) -> None:
    await write_all(config, pads("a"), "/a")
    other = Application("pads", [ChildSpec("a", Ledger), ChildSpec("b", Pad)])
    async with open_runtime(other, config=config) as runtime:
        with pytest.raises(AgentDown, match=r"of type 'Pad', not 'Ledger'"):
            await runtime.ref("a", Ledger).call(Ledger.read)
        assert child(runtime, "b").state == "running"
    async with open_runtime(pads("a"), config=config) as runtime:
        assert await runtime.ref("a", Pad).call(Pad.read) == "/a"


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_damaged_child_is_kept_whatever_its_restart_type(
    config: Config, restart: str
) -> None:
    app = Application("pads", [ChildSpec("a", Pad, restart=restart)])
    await write_all(config, app, "/a")
    damage(config, "/a")
    async with open_runtime(app, config=config) as runtime:
        assert child(runtime, "a").state == "failed"
        mend(config, "/a")
        await runtime.supervisor("/application").restart_child("a")
        assert await runtime.ref("a", Pad).call(Pad.read) == "/a"


async def test_a_remembered_agent_that_is_damaged_is_remembered_further(
    config: Config,
) -> None:
    crowd = ChildSpec("crowd", DynamicSupervisorSpec(remember=True))
    app = Application("pads", [crowd])
    async with open_runtime(app, config=config) as runtime:
        for id_ in ("a", "b"):
            await runtime.supervisor("/crowd").start_child(ChildSpec(id_, Scribe))
            await runtime.ref(id_, Scribe).call(Scribe.write, id_)
    damage(config, "/crowd/a")
    async with open_runtime(app, config=config) as runtime:
        assert child(runtime, "a", "/crowd").state == "failed"
        assert await runtime.ref("b", Scribe).call(Scribe.read) == "b"
    mend(config, "/crowd/a")
    async with open_runtime(app, config=config) as runtime:
        assert await runtime.ref("a", Scribe).call(Scribe.read) == "a"


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_group_that_stands_together_is_down_together_and_comes_back_so(
    config: Config, strategy: str
) -> None:
    group = SupervisorSpec(
        [ChildSpec("a", Pad), ChildSpec("b", Pad)], strategy=strategy
    )
    app = Application("pads", [ChildSpec("group", group), ChildSpec("alone", Pad)])
    await write_all(config, app, "/group/a", "/group/b", "/alone")
    damage(config, "/group/b")
    async with open_runtime(app, config=config) as runtime:
        assert await runtime.ref("alone", Pad).call(Pad.read) == "/alone"
        info = child(runtime, "group")
        assert info.state == "failed"
        assert isinstance(info.last_exit, Crash)
        assert "/group/b is damaged" in info.last_exit.fault.message
        ((path, _),) = await failures(runtime)
        assert path == "/group"
        mend(config, "/group/b")
        await runtime.supervisor("/application").restart_child("group")
        assert await runtime.ref("/group/a", Pad).call(Pad.read) == "/group/a"
        assert await runtime.ref("/group/b", Pad).call(Pad.read) == "/group/b"


async def test_an_application_that_stands_together_does_not_start_without_a_member(
    config: Config,
) -> None:
    app = pads("a", "b", strategy="one_for_all")
    await write_all(config, app, "/a", "/b")
    damage(config, "/b")
    with pytest.raises(ChildStartFailed, match="/b is damaged"):
        async with open_runtime(app, config=config):
            pass


async def test_a_supervisor_that_is_restarted_quarantines_what_was_damaged_meanwhile(
    config: Config,
) -> None:
    group = SupervisorSpec([ChildSpec("a", Pad), ChildSpec("b", Pad)])
    app = Application("pads", [ChildSpec("group", group)])
    await write_all(config, app, "/group/a", "/group/b")
    async with open_runtime(app, config=config) as runtime:
        damage(config, "/group/a")
        runtime.injections.crash("/group")
        await wait_until(lambda: child(runtime, "group").incarnation == 2)
        await wait_until(lambda: child(runtime, "group").state == "running")
        assert await runtime.ref("/group/b", Pad).call(Pad.read) == "/group/b"
        assert child(runtime, "a", "/group").state == "failed"


async def test_a_running_agent_comes_back_from_memory_when_its_row_was_damaged(
    config: Config,
) -> None:
    await write_all(config, pads("a"), "/a")
    async with open_runtime(pads("a"), config=config) as runtime:
        damage(config, "/a")
        ref = runtime.ref("a", Pad)
        await ref.cast(Pad.fail)
        assert await ref.call(Pad.read) == "/a"
        assert ref.incarnation == 2


async def test_whoever_starts_a_damaged_agent_is_told_and_it_is_not_kept(
    config: Config,
) -> None:
    await write_all(config, pads("a", "b"), "/a", "/b")
    damage(config, "/b")
    async with open_runtime(pads("a"), config=config) as runtime:
        supervisor = runtime.supervisor("/application")
        with pytest.raises(ChildStartFailed, match="/b is damaged"):
            await supervisor.start_child(ChildSpec("b", Pad))
        assert [one.id for one in supervisor.which_children()] == ["a"]


class Scribe(Pad):
    """At the top of a module, so that it can be remembered."""
