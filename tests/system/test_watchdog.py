"""The watchdog on real loops that are really blocked (spec reliability B3)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from treewarden import Agent, Application, ChildSpec, Config, open_runtime
from treewarden.supervision import Blocked, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from treewarden.store import JournalEntry

THREAD = "treewarden watchdog"


def block(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def doze(seconds: float) -> None:
    time.sleep(seconds)


def hold_the_interpreter() -> None:
    sum(range(10**8))


async def reported(watchdog: Watchdog, incidents: int = 1) -> None:
    with trio.fail_after(20):
        while watchdog.statistics().incidents < incidents:  # noqa: ASYNC110 - a thread's
            await trio.sleep(0.01)


async def looked(watchdog: Watchdog, looks: int) -> None:
    with trio.fail_after(60):
        while watchdog.statistics().looks < looks:  # noqa: ASYNC110 - a thread's
            await trio.sleep(0.5)


@pytest.mark.parametrize("how", [block, doze])
@pytest.mark.parametrize("seconds", [0.35, 1.2])
async def test_the_blocker_is_named_once(
    how: Callable[[float], None], seconds: float, nursery: trio.Nursery
) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append)
    await nursery.start(watchdog.run)
    how(seconds)
    await reported(watchdog)
    await looked(watchdog, watchdog.statistics().looks + 3)
    [blocked] = found
    assert (blocked.file, blocked.function) == (__file__, how.__name__)
    assert how.__code__.co_firstlineno < blocked.line <= how.__code__.co_firstlineno + 3
    assert seconds - 0.15 <= blocked.seconds
    assert watchdog.statistics().longest == blocked.seconds
    nursery.cancel_scope.cancel()


async def test_the_name_is_logged_while_the_loop_still_hangs(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = Watchdog(lambda _: None)
    await nursery.start(watchdog.run)
    began = time.monotonic()
    logged: list[float] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(time.monotonic() - began)

    logger = logging.getLogger("treewarden.supervision.watchdog")
    listener = Listener()
    logger.addHandler(listener)
    try:
        block(1.0)
    finally:
        logger.removeHandler(listener)
    assert len(logged) == 1
    assert logged[0] <= 0.5
    assert "is blocked at" in caplog.text
    assert "in block" in caplog.text
    nursery.cancel_scope.cancel()


async def test_who_does_not_let_go_of_the_interpreter_is_named_too(
    nursery: trio.Nursery,
) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append)
    await nursery.start(watchdog.run)
    # Again if need be: on a crowded machine it looks like a process that was stopped.
    with trio.fail_after(60):
        while not found:
            hold_the_interpreter()
            await trio.testing.wait_all_tasks_blocked()
    assert found[0].function == "hold_the_interpreter"
    nursery.cancel_scope.cancel()


async def test_a_busy_loop_that_turns_is_no_incident(nursery: trio.Nursery) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append, threshold=0.5)
    await nursery.start(watchdog.run)
    while watchdog.statistics().looks < 6:
        block(0.01)
        await trio.lowlevel.checkpoint()
    assert found == []
    nursery.cancel_scope.cancel()


async def test_the_thread_is_gone_when_the_watchdog_is(nursery: trio.Nursery) -> None:
    watchdog = Watchdog(lambda _: None)
    await nursery.start(watchdog.run)
    assert THREAD in {thread.name for thread in threading.enumerate()}
    began = time.monotonic()
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked()
    assert THREAD not in {thread.name for thread in threading.enumerate()}
    assert time.monotonic() - began <= 1.0


# --- in processes of their own: what an idle one costs, and what a stopped one is ------------

IDLE = """
import sys, time
import trio
from treewarden.supervision import Watchdog

async def main():
    found = []
    watchdog = Watchdog(found.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(watchdog.run)
        cpu, began = time.process_time(), time.monotonic()
        print("watching", flush=True)
        while watchdog.statistics().looks < int(sys.argv[1]):
            await trio.sleep(1.0)
        print((time.process_time() - cpu) / (time.monotonic() - began), len(found))
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def idle(looks: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", IDLE, str(looks)], stdout=subprocess.PIPE, text=True
    )


def outcome(process: subprocess.Popen[str]) -> tuple[float, int]:
    out, _ = process.communicate(timeout=60)
    share, incidents = out.split()[-2:]
    return float(share), int(incidents)


def test_watching_an_idle_loop_costs_under_half_a_percent_of_a_core() -> None:
    shares = []
    for _ in range(3):
        with idle(looks=24) as process:
            share, incidents = outcome(process)
        assert incidents == 0
        shares.append(share)
    # The least disturbed of three: other processes make each wake-up dearer.
    assert min(shares) <= 0.005, shares


def test_a_process_that_was_stopped_was_not_blocked() -> None:
    with idle(looks=20) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        doze(1.0)
        process.send_signal(signal.SIGCONT)
        assert outcome(process)[1] == 0


# --- in a runtime ---------------------------------------------------------------------------


class Count(msgspec.Struct):
    value: int = 0


class Greedy(Agent[Count]):
    async def compute(self, seconds: float) -> None:
        block(seconds)


async def test_a_runtime_keeps_a_report_of_it(tmp_path: Path) -> None:
    app = Application("greedy", [ChildSpec("a", Greedy)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        assert runtime.tree()["/system/watchdog"].state == "running"
        await runtime.ref("a", Greedy).call(Greedy.compute, 0.6)
        entries: list[JournalEntry] = []
        with trio.fail_after(20):
            while not entries:
                await trio.sleep(0.02)
                entries = await runtime.store.entries(
                    since=0, limit=9, pattern="runtime.blocked"
                )
    [entry] = entries
    payload = msgspec.json.decode(entry.payload)
    assert entry.source == "/system/watchdog"
    assert payload["function"] == "block"
    assert payload["where"].startswith(f"{__file__}:")
    assert 0.45 <= payload["seconds"] <= 5.0
    assert "compute" in [name for _, _, name in payload["frames"]]
