"""Programs run for real: what they write, how they end, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    Application,
    BulkheadFull,
    ChildSpec,
    Config,
    NotRunning,
    ProgramFailed,
    ProgramPolicy,
    ProgramRefused,
    Programs,
    ProgramTimeout,
    current_runtime,
    open_runtime,
    open_supervisor,
)
from treewarden.gateways import running as running_programs
from treewarden.telemetry import SpanKind, Telemetry
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from treewarden.gateways import RunningProgram

PATIENCE = 60.0
SLEEP = ["sleep", "30"]
# Does not end when it is asked to, and neither does what it started.
# It lasts longer than a test waits for it to be gone.
STUBBORN = "trap '' TERM; echo up; sleep 60 & wait; wait; sleep 60"


@asynccontextmanager
async def open_programs(
    policy: ProgramPolicy | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[Programs]:
    programs = Programs(policy, name="tools", telemetry=telemetry)
    async with open_supervisor([ChildSpec("tools", programs.serve)]):
        yield programs


@pytest.fixture
async def programs() -> AsyncIterator[Programs]:
    async with open_programs() as programs:
        yield programs


async def in_background(
    nursery: trio.Nursery, programs: Programs, argv: list[str], **options: Any
) -> tuple[list[object], RunningProgram]:
    """A program on its way, when it runs; what became of it is found in the list."""
    ends: list[object] = []
    before = {one.pid for one in programs.statistics().running}

    async def run() -> None:
        try:
            ends.append(await programs.run(argv, **options))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    def begun() -> list[RunningProgram]:
        running = programs.statistics().running
        return [one for one in running if one.pid not in before]

    nursery.start_soon(run)
    await wait_until(begun, f"{argv} runs")
    return ends, begun()[0]


def group(pgid: int) -> list[int]:
    """The processes of a group that have not ended."""
    return [
        pid
        for pid, (state, _, of) in processes().items()
        if of == pgid and state != "Z"
    ]


def processes() -> dict[int, tuple[str, int, int]]:
    """State, parent and group of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(folder.name)] = words[0], int(words[1]), int(words[2])
    return found


def children_of_ours() -> set[int]:
    """Zombies included."""
    return {pid for pid, (_, parent, _) in processes().items() if parent == os.getpid()}


# The proofs of what is left of whom read /proc.
linux = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


# --- running ---------------------------------------------------------------------------------


async def test_a_program_runs_to_its_end_and_what_it_wrote_comes_back(
    programs: Programs,
) -> None:
    """S23: basic run, no shell."""
    result = await programs.run(["echo", "a  b", "$HOME; exit 3"])
    assert (result.status, result.text) == (0, "a  b $HOME; exit 3\n")
    assert (result.program, result.stderr) == ("echo", b"")
    assert not result.stdout_truncated
    statistics = programs.statistics()
    assert (statistics.started, statistics.succeeded) == (1, 1)
    assert statistics.running == ()


async def test_a_status_that_is_not_zero_is_an_error_unless_it_is_wanted(
    programs: Programs,
) -> None:
    """S23: failing command handled."""
    line = ["sh", "-c", "echo out; echo one >&2; echo why >&2; exit 3"]
    with pytest.raises(ProgramFailed, match="sh ended with status 3: why") as failed:
        await programs.run(line)
    assert (failed.value.status, failed.value.stderr) == (3, "one\nwhy\n")
    result = await programs.run(line, check=False)
    assert (result.status, result.stdout) == (3, b"out\n")
    with pytest.raises(ProgramFailed, match="signal 9"):
        await programs.run(["sh", "-c", "kill -9 $$"])
    assert programs.statistics().failed == 3


async def test_its_input_is_fed_as_fast_as_it_is_taken(programs: Programs) -> None:
    data = os.urandom(3_000_000)
    result = await programs.run(["cat"], stdin=data, limit_bytes=4_000_000)
    assert result.stdout == data
    # Who does not read its input just ends.
    assert (await programs.run(["true"], stdin=data)).status == 0
    assert (await programs.run(["cat"])).stdout == b""


async def test_of_much_output_the_bound_is_kept_and_the_rest_told(
    programs: Programs,
) -> None:
    """S23: stdout cap; of stderr the end is kept, where the reason is."""
    script = "print('o' * 200_000); import sys; print('e' * 200_000 + 'END', file=sys.stderr)"
    result = await programs.run([sys.executable, "-c", script], limit_bytes=1000)
    assert result.stdout == b"o" * 1000
    assert result.stderr == b"e" * 996 + b"END\n"
    assert result.stdout_truncated
    assert result.stderr_truncated
    assert programs.statistics().truncated == 1


async def test_it_gets_a_small_environment_unless_it_is_given_one(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hush")
    monkeypatch.setenv("TZ", "UTC")
    told = (await programs.run(["env"])).text.splitlines()
    assert "TZ=UTC" in told
    assert f"PATH={os.environ['PATH']}" in told
    assert not [line for line in told if "hush" in line]
    given = {"A": "1", "PATH": os.environ["PATH"]}
    told = (await programs.run(["env"], env=given)).text.splitlines()
    assert sorted(told) == ["A=1", f"PATH={given['PATH']}"]
    (tmp_path / "mark").write_text("here")
    assert (await programs.run(["cat", "mark"], cwd=tmp_path)).text == "here"


@pytest.mark.parametrize("argv", ["ls -l", b"ls", Path("/bin/ls"), [], ["ls", 1], None])
async def test_what_is_no_list_of_arguments_is_refused(
    argv: Any, programs: Programs
) -> None:
    with pytest.raises(TypeError, match=r"arguments|argv must be a list"):
        await programs.run(argv)
    assert programs.statistics().started == 0


async def test_what_cannot_be_started_is_an_error_and_holds_no_place(
    programs: Programs, tmp_path: Path
) -> None:
    """S23: a command that cannot be started was reported as ok."""
    for argv, cwd in (
        (["no-such-program"], None),
        ([str(tmp_path)], None),
        (["ls"], "/no"),
    ):
        with pytest.raises(ProgramRefused, match="was not started"):
            await programs.run(argv, cwd=cwd)
    with pytest.raises(ValueError, match="null"):
        await programs.run(["echo", "\0"])
    with pytest.raises(ValueError, match="timeout must be > 0 seconds and finite"):
        await programs.run(["true"], timeout=float("inf"))
    statistics = programs.statistics()
    assert (statistics.not_started, statistics.started, statistics.running) == (
        3,
        0,
        (),
    )


async def test_only_what_is_allowed_is_run() -> None:
    """F63: non-listed refused."""
    async with open_programs(ProgramPolicy(allowed=frozenset({"true"}))) as programs:
        await programs.run(["true"])
        for name in ("false", "/bin/true", "./true"):
            with pytest.raises(ProgramRefused, match="not among the allowed: true"):
                await programs.run([name])
        programs.configure(ProgramPolicy(allowed=frozenset({"false"})))
        with pytest.raises(ProgramFailed):
            await programs.run(["false"])
        assert (programs.statistics().denied, programs.statistics().started) == (3, 2)


# --- ending them -----------------------------------------------------------------------------


@linux
async def test_f63_a_late_program_is_ended_and_nobody_else_waits_for_it(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Sleeping 30 s with a timeout of 0.2 s; the sixth of five places is refused."""
    policy = ProgramPolicy(limit=5, queue=0)
    async with open_programs(policy) as programs:
        ends, running = await in_background(
            nursery, programs, ["sleep", "30"], timeout=0.2
        )
        others = [await in_background(nursery, programs, SLEEP) for _ in range(4)]
        # Answered here and now.
        assert len(programs.statistics().running) == 5
        with pytest.raises(BulkheadFull, match="tools is full"):
            await programs.run(["true"])
        mock_clock.jump(0.19)
        await wait_all_tasks_blocked()
        assert ends == []
        mock_clock.jump(0.02)
        await wait_until(lambda: ends)
        assert isinstance(ends[0], ProgramTimeout)
        assert ends[0].seconds == 0.2
        assert group(running.pid) == []
        # The gateway is alive, and its place is free.
        assert (await programs.run(["true"])).status == 0
        statistics = programs.statistics()
        assert (statistics.timed_out, statistics.refused, statistics.killed) == (
            1,
            1,
            0,
        )
        mock_clock.jump(10.0)
        await wait_until(lambda: all(end for end, _ in others))


@linux
async def test_h08_who_does_not_end_at_its_deadline_is_made_to_with_all_it_started(
    programs: Programs, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    ends, running = await in_background(
        nursery, programs, ["sh", "-c", STUBBORN], timeout=0.2
    )
    await wait_until(lambda: len(group(running.pid)) == 2)
    mock_clock.jump(0.2)
    await wait_all_tasks_blocked()
    # It was asked, and has two seconds.
    assert ends == []
    mock_clock.jump(1.9)
    await wait_all_tasks_blocked()
    assert len(group(running.pid)) == 2
    mock_clock.jump(0.2)
    await wait_until(lambda: ends)
    assert isinstance(ends[0], ProgramTimeout)
    await wait_until(lambda: group(running.pid) == [])
    assert running.pid not in children_of_ours()
    statistics = programs.statistics()
    assert (statistics.killed, statistics.left_behind, statistics.running) == (1, 0, ())
    assert (await programs.run(["true"])).status == 0


@linux
async def test_f63_a_thousand_runs_leave_no_zombie_and_no_open_file(
    programs: Programs,
) -> None:
    await programs.run(["true"])
    files, before = open_files(), children_of_ours()

    async def run_some() -> None:
        for _ in range(200):
            await programs.run(["true"])

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(run_some)
    assert open_files() <= files
    assert children_of_ours() <= before
    assert programs.statistics().succeeded == 1001


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@linux
async def test_a_cancelled_caller_ends_its_program_before_it_leaves(
    programs: Programs,
) -> None:
    async with trio.open_nursery() as nursery:
        line = ["sh", "-c", "sleep 30 & sleep 30"]
        _, running = await in_background(nursery, programs, line)
        await wait_until(lambda: len(group(running.pid)) == 3)
        nursery.cancel_scope.cancel()
    await wait_until(lambda: group(running.pid) == [])
    assert running.pid not in children_of_ours()
    statistics = programs.statistics()
    assert (statistics.cancelled, statistics.running) == (1, ())


@linux
async def test_it_is_over_when_it_has_ended_though_what_it_left_holds_its_pipes(
    programs: Programs,
) -> None:
    result = await programs.run(["sh", "-c", "sleep 30 & echo $!"])
    left = int(result.text)
    await wait_until(lambda: processes().get(left, ("Z",))[0] == "Z", "it is ended too")
    assert result.seconds < 30


@linux
async def test_without_a_pidfd_it_is_over_when_its_pipes_are_closed_and_it_has_ended(
    programs: Programs,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS, and on kernels and in sandboxes that have none."""
    monkeypatch.setattr(running_programs, "_exit_fd", lambda _: None)
    assert (await programs.run(["echo", "hi"])).text == "hi\n"
    closes_its_pipes = "exec >&- 2>&-; sleep 0.01; exit 3"
    with pytest.raises(ProgramFailed, match="status 3"):
        await programs.run(["sh", "-c", closes_its_pipes])
    line = ["sh", "-c", "sleep 30 & sleep 30"]
    ends, running = await in_background(nursery, programs, line, timeout=0.2)
    await wait_until(lambda: len(group(running.pid)) == 3)
    mock_clock.jump(0.2)
    await wait_until(lambda: ends)
    assert isinstance(ends[0], ProgramTimeout)
    await wait_until(lambda: group(running.pid) == [])


@linux
async def test_with_the_gateway_all_its_programs_end(nursery: trio.Nursery) -> None:
    """S23: restart after kill; nothing outlives an orderly end."""
    async with open_programs(ProgramPolicy(limit=1)) as programs:
        ends, running = await in_background(nursery, programs, SLEEP)
        # In line.
        nursery.start_soon(expect_stopped, programs)
        await wait_until(lambda: programs.statistics().waiting == 1)
    assert isinstance(ends[0], NotRunning)
    assert group(running.pid) == []
    assert running.pid not in children_of_ours()
    with pytest.raises(NotRunning, match="tools is not running; nothing was done"):
        await programs.run(["true"])
    async with open_supervisor([ChildSpec("tools", programs.serve)]):
        assert (await programs.run(["true"])).status == 0


async def expect_stopped(programs: Programs) -> None:
    with pytest.raises(NotRunning, match="tools was stopped meanwhile"):
        await programs.run(["true"])


@linux
async def test_a_program_that_cannot_be_killed_is_not_waited_for_and_counted_while_it_is_there(
    programs: Programs,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system refuses our signals, as it does for a process stuck in a driver."""
    ends, running = await in_background(nursery, programs, SLEEP, timeout=1.0)
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    for _ in range(3):
        mock_clock.jump(2.0)
        await wait_all_tasks_blocked()
    monkeypatch.undo()
    await wait_until(lambda: ends)
    assert isinstance(ends[0], ProgramTimeout)
    assert programs.statistics().left_behind == 1
    kill(running.pid, signal.SIGKILL)
    await wait_until(lambda: programs.statistics().left_behind == 0)
    assert running.pid not in children_of_ours()


# --- answers that are kept ---------------------------------------------------------------------


async def test_an_answer_that_may_be_kept_is_asked_for_once(
    programs: Programs, tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """S23: cache effectiveness; identical concurrent commands are merged."""
    log = tmp_path / "log"
    line = ["sh", "-c", f"echo run >> {log}; cat {log}"]

    async def runs(times: int, **options: Any) -> set[str]:
        told: list[str] = []

        async def run() -> None:
            told.append((await programs.run(line, **options)).text)

        async with trio.open_nursery() as nursery:
            for _ in range(times):
                nursery.start_soon(run)
        return set(told)

    assert await runs(5, cached=True) == {"run\n"}
    assert await runs(2, cached=True) == {"run\n"}
    # Who wants it done has it done.
    assert await runs(1) == {"run\n" * 2}
    # Another question.
    assert await runs(1, cached=True, timeout=9.0) == {"run\n" * 3}
    mock_clock.jump(30.0)
    assert await runs(1, cached=True) == {"run\n" * 4}
    statistics = programs.statistics()
    assert (statistics.shared, statistics.hits, statistics.started) == (4, 2, 4)
    assert programs.clear() == 2
    assert await runs(1, cached=True) == {"run\n" * 5}


async def test_a_failure_is_not_kept(programs: Programs, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with pytest.raises(ProgramFailed):
        await programs.run(["cat", str(flag)], cached=True)
    flag.write_text("there")
    assert (await programs.run(["cat", str(flag)], cached=True)).text == "there"


async def test_who_is_cancelled_while_others_wait_leaves_them_to_begin_anew(
    programs: Programs, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = ["cat", str(pipe)]
    async with trio.open_nursery() as others:
        async with trio.open_nursery() as first:
            await in_background(first, programs, line, cached=True)
            ends: list[str] = []

            async def share() -> None:
                ends.append((await programs.run(line, cached=True)).text)

            others.start_soon(share)
            await wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        await wait_until(lambda: len(programs.statistics().running) == 1)
        with await trio.to_thread.run_sync(pipe.open, "w") as writing:
            writing.write("said")
    assert ends == ["said"]


# --- in a runtime ------------------------------------------------------------------------------


class Clerk(Agent[None]):
    persistence = "none"

    def initial_state(self) -> None:
        return None

    async def look(self, word: str) -> str:
        return (await current_runtime().programs.run(["echo", word])).text

    async def fail(self) -> None:
        await current_runtime().programs.run(["false"])


async def test_agents_run_programs_and_a_failure_is_an_answer() -> None:
    app = Application("app", [ChildSpec("clerk", Clerk)])
    config = Config(level="volatile", socket=False)
    async with open_runtime(app, config=config) as runtime:
        clerk = runtime.ref("clerk", Clerk)
        assert await clerk.call(Clerk.look, "hi") == "hi\n"
        with pytest.raises(ProgramFailed, match="false ended with status 1"):
            await clerk.call(Clerk.fail)
        assert clerk.incarnation == 1
        assert runtime.programs.statistics().started == 2
        assert runtime.tree()["/system/programs"].state == "running"


class Total(msgspec.Struct):
    value: int = 0


class Marker(Agent[Total]):
    async def add(self, number: int) -> None:
        self.state.value += number

    async def mark(self, file: str) -> int:
        return (await current_runtime().programs.run(["touch", file])).status


def patiently(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE:.0f}").fetchall()


async def test_a_handlers_program_starts_when_what_led_to_it_is_committed(
    tmp_path: Path,
) -> None:
    """Design 6, leaving the store waits."""
    store, mark = tmp_path / "test.db", tmp_path / "mark"
    app = Application("app", [ChildSpec("marker", Marker)])
    config = Config(store=store, socket=False)
    async with open_runtime(app, config=config) as runtime:
        runtime.programs.configure(ProgramPolicy(limit=1))
        ref = runtime.ref("marker", Marker)
        # However long a busy machine takes over what follows.
        runtime.store._thread.ask(patiently)
        with closing(sqlite3.connect(store, isolation_level=None)) as other:
            # The store's writer waits at its next BEGIN.
            other.execute("BEGIN IMMEDIATE")
            await ref.cast(Marker.add, 5)
            request = ref.request(Marker.mark, str(mark))
            await wait_until(lambda: "mark" in ref.statistics().doing)
            await wait_all_tasks_blocked()
            # Had it left, it would have the one place.
            await runtime.programs.run(["true"])
            assert runtime.programs.statistics().started == 1
            assert not mark.exists()
            other.execute("ROLLBACK")
        assert await request.result() == 0
        assert mark.exists()


APPLICATION = """
import trio
from treewarden import Application, ChildSpec, Config, current_runtime, run

async def work(task_status):
    programs = current_runtime().programs

    async def say():
        while not programs.statistics().running:
            await trio.lowlevel.checkpoint()
        print(programs.statistics().running[0].pid, flush=True)
        task_status.started()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        await programs.run(["sh", "-c", "sleep 30 & sleep 30"])

run(Application("app", [ChildSpec("work", work)]), Config(level="volatile", socket=False))
"""


@linux
def test_a_runtime_that_is_told_to_stop_leaves_no_program_running() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert group(pid)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    # Who was made to end has closed its files a moment before it is gone.
    give_up_at = time.monotonic() + PATIENCE
    while group(pid):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


async def test_a_run_is_a_span_that_shows_no_argument() -> None:
    """Design 11; OpenTelemetry's conventions for programs called."""
    telemetry = Telemetry(enabled=True)
    async with open_programs(telemetry=telemetry) as programs:
        await programs.run(["/bin/echo", "--password=hush"])
        with pytest.raises(ProgramFailed):
            await programs.run(["false"])
        with pytest.raises(ProgramRefused):
            await programs.run(["no-such-program"])
    good, bad, none = telemetry.spans.take(10)
    assert (good.name, good.kind, good.error) == ("run echo", SpanKind.CLIENT, None)
    assert good.attributes["process.executable.name"] == "echo"
    assert good.attributes["process.args_count"] == 2
    assert good.attributes["process.exit.code"] == 0
    assert "hush" not in repr(good)
    assert (bad.error, bad.attributes["process.exit.code"]) == ("status 1", 1)
    assert none.error == "not_started"
    assert "process.pid" not in none.attributes
