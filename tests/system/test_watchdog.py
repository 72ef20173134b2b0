"""The watchdog on real loops that are really blocked (spec reliability B3)."""

from __future__ import annotations

import logging
import math
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
from treewarden.supervision.watchdog import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from treewarden import Runtime
    from treewarden.store import JournalEntry

    UntilWithin = Callable[[float], Iterator[list[float]]]

THREAD = "treewarden watchdog"


def block(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def doze(seconds: float) -> None:
    time.sleep(seconds)


def hold_the_interpreter() -> None:
    sum(range(10**8))


async def looked(watchdog: Watchdog, looks: int) -> None:
    goal = watchdog.statistics().looks + looks
    with trio.fail_after(60):
        while watchdog.statistics().looks < goal:  # noqa: ASYNC110 - a thread's
            await trio.sleep(0.5)


async def named(how: Callable[[float], None], seconds: float) -> Blocked:
    """Block, and be reported once; again if nobody has noticed."""
    found: list[Blocked] = []
    watchdog = Watchdog(found.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(watchdog.run)
        with trio.fail_after(60):
            while not found:
                how(seconds)
                await looked(watchdog, 3)
        nursery.cancel_scope.cancel()
    # The machine may have stopped us for a while somewhere else.
    [blocked] = (one for one in found if one.function == how.__name__)
    return blocked


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small our share of the machine is, we count as running."""
    monkeypatch.setattr("treewarden.supervision.watchdog._RAN_SHARE", 0.0)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("how", [block, doze])
@pytest.mark.parametrize("seconds", [0.35, 1.2])
async def test_the_blocker_is_named_once(
    how: Callable[[float], None], seconds: float, until_within: UntilWithin
) -> None:
    """Pitfall 34"""
    first = how.__code__.co_firstlineno
    for found in until_within(0.15):
        blocked = await named(how, seconds)
        assert blocked.file == __file__
        assert first < blocked.line <= first + 3
        found.append(seconds - blocked.seconds)


async def test_the_longest_is_kept(nursery: trio.Nursery) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append)
    await nursery.start(watchdog.run)
    with trio.fail_after(60):
        while not found:
            doze(0.35)
            await looked(watchdog, 1)
    assert watchdog.statistics().incidents == len(found)
    assert watchdog.statistics().longest == max(one.seconds for one in found)
    nursery.cancel_scope.cancel()


async def test_the_name_is_logged_while_the_loop_still_hangs(
    caplog: pytest.LogCaptureFixture, until_within: UntilWithin
) -> None:
    logged: list[float] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(time.monotonic())

    logger = logging.getLogger("treewarden.supervision.watchdog")
    listener = Listener()
    logger.addHandler(listener)
    try:
        for found in until_within(0.5):
            async with trio.open_nursery() as nursery:
                await nursery.start(Watchdog(lambda _: None).run)
                logged.clear()
                began = time.monotonic()
                block(1.0)
                assert len(logged) <= 1
                found.append(logged[0] - began if logged else math.inf)
                nursery.cancel_scope.cancel()
    finally:
        logger.removeHandler(listener)
    assert "is blocked at" in caplog.text
    assert "in block" in caplog.text


@pytest.mark.usefixtures("crowded")
async def test_who_does_not_let_go_of_the_interpreter_is_named_too(
    nursery: trio.Nursery,
) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append)
    await nursery.start(watchdog.run)
    with trio.fail_after(60):
        while not found:
            hold_the_interpreter()
            await trio.testing.wait_all_tasks_blocked()
    assert found[0].function == "hold_the_interpreter"
    nursery.cancel_scope.cancel()


async def test_a_busy_loop_that_turns_is_no_incident(nursery: trio.Nursery) -> None:
    found: list[Blocked] = []
    watchdog = Watchdog(found.append, threshold=1.0)
    await nursery.start(watchdog.run)
    while watchdog.statistics().looks < 6:
        block(0.01)
        await trio.lowlevel.checkpoint()
    assert found == []
    nursery.cancel_scope.cancel()


async def test_the_thread_is_gone_when_the_watchdog_is(
    until_within: UntilWithin,
) -> None:
    for found in until_within(1.0):
        async with trio.open_nursery() as nursery:
            await nursery.start(Watchdog(lambda _: None).run)
            assert THREAD in {thread.name for thread in threading.enumerate()}
            began = time.monotonic()
            nursery.cancel_scope.cancel()
        assert THREAD not in {thread.name for thread in threading.enumerate()}
        found.append(time.monotonic() - began)


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
    # The least disturbed of three: other processes make each wake-up dearer. And on a slow
    # machine it is compared with what waking up costs there.
    assert min(shares) <= 0.005 or min(shares) <= 3 * waking_share(), shares


def waking_share() -> float:
    """What a thread that wakes up as often as a watchdog uses of a core."""
    wake = threading.Event()
    cpu, began = time.thread_time(), time.monotonic()
    for _ in range(24):
        wake.wait(DEFAULT_THRESHOLD / 3)
    return (time.thread_time() - cpu) / (time.monotonic() - began)


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
    call_timeout = 60.0

    async def compute(self, seconds: float) -> None:
        block(seconds)


async def test_a_runtime_keeps_a_report_of_it(tmp_path: Path) -> None:
    app = Application("greedy", [ChildSpec("a", Greedy)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        assert runtime.tree()["/system/watchdog"].state == "running"
        entry = await first_report(runtime)
    payload = msgspec.json.decode(entry.payload)
    assert entry.source == "/system/watchdog"
    assert payload["function"] == "block"
    assert payload["where"].startswith(f"{__file__}:")
    assert payload["seconds"] > DEFAULT_THRESHOLD / 2
    assert "compute" in [name for _, _, name in payload["frames"]]


async def first_report(runtime: Runtime) -> JournalEntry:
    """Of a block; a block may be taken for a process that was stopped."""
    entries: list[JournalEntry] = []
    with trio.fail_after(60):
        while not entries:
            await runtime.ref("a", Greedy).call(Greedy.compute, 0.6)
            await runtime.store.settled()
            entries = await runtime.store.entries(
                since=0, limit=1, pattern="runtime.blocked"
            )
    return entries[0]
