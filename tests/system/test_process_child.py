"""Children in processes of their own: real ones, ended in every way there is."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import ChildStartFailed, StartTimeout
from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.supervision import (
    ChildSpec,
    Directory,
    Kind,
    Report,
    SupervisorRef,
    SupervisorSpec,
    open_tree,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def children_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def child(name: str, *args: object, **options: Any) -> ChildSpec:
    start = f"process_children:{name}"
    defaults: dict[str, Any] = {"restart": "temporary", "shutdown": 10.0}
    return ChildSpec("c", start, args=args, isolation="process", **defaults | options)


class Tree:
    """A tree, and the exits that it reported."""

    def __init__(self, root: SupervisorRef, reports: list[Report]) -> None:
        self.root = root
        self._reports = reports

    async def start(self, name: str, *args: object, **options: Any) -> Any:
        """Start a child; what it was ready with."""
        await self.root.start_child(child(name, *args, **options))
        node = self.root.directory.find("/c")
        return node.life.value if node is not None and node.life is not None else None

    async def exit(self) -> Exit | None:
        """How the child ended, when it has."""
        await until(lambda: any(one.topic == EXITED for one in self._reports))
        return next(one.exit for one in self._reports if one.topic == EXITED)

    async def stopped(self) -> Exit | None:
        """How the child ended when it was told to stop."""
        await self.root.terminate_child("c")
        return await self.exit()


EXITED = "supervision.exited"


@asynccontextmanager
async def tree() -> AsyncIterator[Tree]:
    directory, reports = Directory(), list[Report]()
    directory.reporter = reports.append
    with trio.fail_after(90):
        async with open_tree(SupervisorSpec(), directory=directory) as root:
            yield Tree(root, reports)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition outside of this process, bounded."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - another process cannot set an event
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not, and is told apart from one that is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_reaped(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def children() -> set[int]:
    """The children of this process, zombies included; other tests may have left some."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        # A thread may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, task.read_text().split()))
    return found


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# --- starting -------------------------------------------------------------------------------


async def test_a_process_is_a_node_with_its_number_for_a_label() -> None:
    """INI-08"""
    async with tree() as world:
        point = {"x": 1, "y": 2}
        pid, *given = await world.start(
            "ready_with_pid", point, point | {"x": 3}, kwargs={"named": point}
        )
        node = world.root.directory.snapshot(trio.current_time())["/c"]
        assert (node.kind, node.label, node.state) == (
            Kind.PROCESS,
            f"pid {pid}",
            "running",
        )
        assert pid != os.getpid()
        assert given == [1, 3, 1]
        assert os.getsid(pid) == os.getpgid(pid) == pid


async def test_a_function_object_is_found_by_the_other_process() -> None:
    children = importlib.import_module("process_children")
    point = children.Point(x=7, y=0)
    spec = ChildSpec("c", children.ready_with_pid, args=(point,), isolation="process")
    async with tree() as world:
        await world.root.start_child(spec)
        node = world.root.directory.find("/c")
        assert node is not None
        assert node.life is not None
        assert isinstance(node.life.value, list)
        assert node.life.value[1] == 7


async def test_a_process_that_is_never_ready_is_gone_when_its_start_fails() -> None:
    """INI-02"""
    async with tree() as world:
        with pytest.raises(StartTimeout):
            await world.start("never_ready", start_timeout=0.5)
        assert world.root.which_children() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forgetful", "ended before it said that it was ready"),
        ("nobody", "ImportError: process_children has no nobody"),
        ("is_nobody.at_all", "ImportError"),
        ("ready_with_a_lock", "TypeError: Encoding objects of type _thread.lock"),
    ],
)
async def test_a_process_that_does_not_start_says_why(name: str, message: str) -> None:
    """INI-03, INI-09, INI-12"""
    async with tree() as world:
        with pytest.raises(ChildStartFailed, match=message):
            await world.start(name, start_timeout=60.0)


async def test_a_process_may_ignore_its_start() -> None:
    """INI-03"""
    async with tree() as world:
        assert await world.root.start_child(child("ignored")) is None


async def test_a_process_that_is_stopped_while_its_interpreter_starts_is_gone() -> None:
    """SHD-18, SHD-29"""
    before = children()
    async with tree() as world:
        with pytest.raises(StartTimeout):
            await world.start("never_ready", start_timeout=0.01)
        assert children() <= before


# --- ending by itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "exit_"),
    [
        ("nothing", (), Normal()),
        ("leave", (0,), Normal()),
        ("vanish", (0,), Normal()),
        ("stop_itself", (), Shutdown("enough")),
        ("die_of", (signal.SIGTERM,), Shutdown("SIGTERM")),
        ("die_of", (signal.SIGKILL,), Killed()),
        ("fork_and_die", (), Killed()),
    ],
)
async def test_each_end_has_its_exit(
    name: str, args: tuple[object, ...], exit_: Exit
) -> None:
    async with tree() as world:
        await world.start(name, *args)
        assert await world.exit() == exit_


@pytest.mark.parametrize(
    ("name", "args", "summary"),
    [
        ("leave", (3,), "SystemExit: 3"),
        ("vanish", (4,), "ProcessDied: .* without a word: exit status 4"),
        ("die_of", (signal.SIGSEGV,), "ProcessDied: .* Segmentation fault"),
        ("babble", (), "DecodeError"),
    ],
)
async def test_each_abnormal_end_is_a_crash_that_says_how(
    name: str, args: tuple[object, ...], summary: str
) -> None:
    async with tree() as world:
        await world.start(name, *args)
        exit_ = await world.exit()
        assert isinstance(exit_, Crash)
        with pytest.raises(RuntimeError, match=summary):
            raise RuntimeError(exit_.fault.summary())


async def test_a_crash_arrives_with_its_frames_and_causes() -> None:
    async with tree() as world:
        await world.start("crash")
        exit_ = await world.exit()
        assert isinstance(exit_, Crash)
        fault = exit_.fault
        assert fault.summary() == "ValueError: no such page"
        assert (fault.path, fault.incarnation) == ("/c", 1)
        assert fault.frames[-1][2] == "crash"
        assert fault.cause is not None
        assert fault.cause.frames[-1][2] == "_divide"


async def test_each_end_has_its_exit_even_if_whoever_started_us_ignores_sigchld() -> (
    None
):
    """The system then keeps no status, and who was killed would have ended well."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with tree() as world:
            await world.start("die_of", signal.SIGKILL)
            assert await world.exit() == Killed()
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_a_process_whose_end_nobody_could_tell_is_not_started() -> None:
    """Another thread's loop cannot have the system keep it."""

    async def start() -> None:
        async with tree() as world:
            with pytest.raises(ChildStartFailed, match="SIGCHLD is ignored"):
                await world.start("nothing")

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        await trio.to_thread.run_sync(trio.run, start)
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_a_permanent_process_is_restarted() -> None:
    async with tree() as world:
        [pid, _] = await world.start(
            "ready_with_pid", {"x": 1, "y": 1}, restart="permanent"
        )
        os.kill(pid, signal.SIGKILL)
        node = world.root.directory.find("/c")
        assert node is not None
        await until(lambda: node.incarnation == 2 and node.state == "running")
        assert node.label != f"pid {pid}"
        assert is_reaped(pid)


async def gone(sleeper: int) -> None:
    """It goes with its parent; a test that fails here leaves nobody behind either."""
    try:
        await until(lambda: not is_alive(sleeper))
    except trio.TooSlowError:
        os.kill(sleeper, signal.SIGKILL)
        raise


async def test_what_it_leaves_behind_goes_with_it() -> None:
    async with tree() as world:
        sleeper = await world.start("leave_a_sleeper")
        assert await world.exit() == Normal()
        await gone(sleeper)


async def test_a_thread_that_it_forgot_does_not_keep_it() -> None:
    async with tree() as world:
        await world.start("linger", shutdown=0.0)
        assert await world.exit() == Normal()


# --- being stopped --------------------------------------------------------------------------


async def test_it_cleans_up_when_it_is_told_to_stop(tmp_path: Path) -> None:
    """SHD-22"""
    file = tmp_path / "trace"
    async with tree() as world:
        await world.start("tidy", str(file))
        assert await world.stopped() == Shutdown()
        assert file.read_text(encoding="utf-8") == "clean"


async def test_a_clean_up_that_overruns_is_killed_at_the_deadline() -> None:
    """SHD-02"""
    async with tree() as world:
        await world.start("tidy_for_ever", shutdown=0.3)
        began = trio.current_time()
        assert await world.stopped() == Killed()
        assert trio.current_time() - began >= 0.3


async def test_a_clean_up_that_fails_is_the_exit() -> None:
    """SHD-28"""
    async with tree() as world:
        await world.start("break_when_stopped")
        exit_ = await world.stopped()
        assert isinstance(exit_, Crash)
        assert exit_.fault.message == "while it was cleaning up"


async def test_a_process_without_time_to_stop_is_killed_at_once() -> None:
    """SHD-03, SHD-11"""
    async with tree() as world:
        await world.start("wait", shutdown=0.0)
        assert await world.stopped() == Killed()


@pytest.mark.parametrize("name", ["swallow", "hold_the_interpreter"])
async def test_what_no_task_can_be_forced_to_a_process_is(name: str) -> None:
    """SHD-26"""
    async with tree() as world:
        await world.start(name, shutdown=0.5)
        assert await world.stopped() == Killed()


async def test_code_that_never_awaits_is_interrupted_at_half_time(
    tmp_path: Path,
) -> None:
    file = tmp_path / "trace"
    async with tree() as world:
        await world.start("spin", str(file), shutdown=8.0)
        assert await world.stopped() == Shutdown("SIGTERM")
        assert file.read_text(encoding="utf-8") == "interrupted"


@pytest.mark.parametrize("shutdown", [10.0, 0.0])
async def test_the_whole_group_is_gone_and_reaped_when_it_is_stopped(
    shutdown: float,
) -> None:
    """Pitfall 40"""
    async with tree() as world:
        pid, sleeper = await world.start("parent_of_a_sleeper", shutdown=shutdown)
        await world.stopped()
        assert is_reaped(pid)
        await gone(sleeper)


async def test_an_injected_crash_ends_it_with_that_fault() -> None:
    async with tree() as world:
        [pid, _] = await world.start("ready_with_pid", {"x": 1, "y": 1})
        node = world.root.directory.find("/c")
        assert node is not None
        assert node.life is not None
        fault = Fault(type="Injected", message="on purpose")
        node.life.fail(fault)
        assert await world.exit() == Crash(fault)
        assert is_reaped(pid)


async def test_many_processes_leave_no_file_open_and_no_zombie() -> None:
    others = children()
    async with tree() as world:
        await world.start("nothing")
        await world.exit()
        before = open_files()
        for _ in range(5):
            await world.start("wait")
            await world.root.terminate_child("c")
        assert open_files() == before
    assert children() <= others


# --- being orphaned -------------------------------------------------------------------------

PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
import trio
from treewarden.supervision import ChildSpec, open_supervisor

async def main():
    spec = ChildSpec("c", "process_children:" + sys.argv[2], args=sys.argv[3:],
                     isolation="process", shutdown=0.5)
    async with open_supervisor([spec]) as root:
        print(root.directory.find("/c").label.removeprefix("pid "), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("name", ["wait", "swallow", "spin", "parent_of_a_sleeper"])
async def test_when_its_parent_is_killed_it_ends(name: str, tmp_path: Path) -> None:
    args = [str(tmp_path / "trace")] if name == "spin" else []
    pid = _orphan(name, *args)
    await until(lambda: not _group(pid))


def _orphan(name: str, *args: str) -> int:
    """Have a process start a child, and kill the first of the two."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(HERE), name, *args],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    return pid


def _group(group: int) -> bool:
    """Whether anybody of a process group still runs."""
    members = Path("/proc").glob("[0-9]*/stat")
    for member in members:
        try:
            fields = member.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False
