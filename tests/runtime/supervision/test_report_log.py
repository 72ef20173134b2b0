"""Reports in Python's logging: one an event, at the right level, and harmless."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import IntensityExceeded
from treewarden.supervision import (
    ChildSpec,
    Intensity,
    Report,
    current_life,
    open_supervisor,
    report_log,
)
from treewarden.supervision.report_log import (
    CAPACITY,
    CLOSING,
    LOGGER,
    RATE,
    RESERVED,
    ReportLog,
)
from treewarden.supervision.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.runtime.supervision.conftest import World

logger = logging.getLogger(LOGGER)


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The records of all levels."""
    caplog.set_level(logging.DEBUG, LOGGER)
    return caplog


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[logging.LogRecord], None]], None]]:
    """Add a handler to the logger that does what it is told."""
    added: list[logging.Handler] = []

    def add(emit: Callable[[logging.LogRecord], None]) -> None:
        handler = logging.Handler()
        handler.emit = emit  # type: ignore[assignment,method-assign]
        logger.addHandler(handler)
        added.append(handler)

    yield add
    for handler in added:
        logger.removeHandler(handler)


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= level]


# --- one an event -------------------------------------------------------------------------


async def test_a_start_and_a_restart_are_progress(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-01"""
    async with world.open(world.child("a")):
        await world.crashed("a")
    levels = {one.getMessage(): one.levelname for one in debug.records}
    assert levels["task /a started"] == "DEBUG"
    restarted = (
        "task /a restarted after it crashed: Boom: a (1 of 3 restarts in 36000 s)"
    )
    assert levels[restarted] == "DEBUG"


async def test_a_crash_is_logged_once_however_deep_the_tree(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-06, pitfall 70"""
    leaf = world.supervisor("three", world.child("a"), limit=0)
    middle = world.supervisor("two", leaf, limit=0)
    with pytest.raises(IntensityExceeded):
        async with world.open(world.supervisor("one", middle, limit=0), limit=0):
            await world.crashed("a")
    errors = [one for one in debug.records if one.levelno >= logging.ERROR]
    assert Counter(one.__dict__["report"] for one in errors) == {
        "supervision.exited": 1,
        "supervision.gave_up": 4,
    }
    assert [one.__dict__["path"] for one in errors] == [
        *("/one/two/three/a", "/one/two/three", "/one/two", "/one", "/"),
    ]
    assert [one.levelname for one in errors] == ["ERROR"] * 4 + ["CRITICAL"]
    assert sum("Traceback" in (one.exc_text or "") for one in errors) == 1


@pytest.mark.parametrize("restart", ["temporary", "transient"])
@pytest.mark.parametrize("how", ["normal", "shutdown", "shutdown with a detail"])
async def test_an_orderly_end_is_silent(
    world: World, debug: pytest.LogCaptureFixture, restart: str, how: str
) -> None:
    """LOG-06, END-12, STA-01, pitfall 71"""
    async with world.open(world.child("a", restart=restart), world.child("b")):
        debug.clear()
        await world.ended("a", how)
    assert said(debug, logging.DEBUG)
    assert said(debug, logging.INFO) == []


async def test_a_failing_clean_up_is_an_error_though_it_was_being_stopped(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """SHD-28, pitfall 71"""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cannot clean up")

    async with world.open(ChildSpec("a", child)):
        pass
    [line] = said(debug, logging.ERROR)
    assert line == (
        "task /a crashed: ValueError: cannot clean up while it was being stopped"
    )


async def test_a_start_that_fails_is_one_error_an_attempt(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-02, LOG-06"""
    async with world.open(world.child("a", fails=[2, 3])):
        await world.crashed("a")
    errors = [one for one in debug.records if one.levelno >= logging.ERROR]
    assert [one.__dict__["report"] for one in errors] == [
        *("supervision.exited", "supervision.start_failed", "supervision.start_failed"),
    ]
    assert all("Boom: a" in (one.exc_text or "") for one in errors)


async def test_a_start_that_fails_for_its_caller_is_no_report(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-06: who asked for the start is told."""
    async with world.open(world.child("b")) as root:
        with pytest.raises(Exception, match="/a"):
            await root.start_child(world.child("a", fails=[1]))
    assert said(debug, logging.WARNING) == []


async def test_a_spent_budget_is_an_error_of_its_own(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """INT-11"""
    async with world.open(world.child("a", intensity=Intensity(0, 5.0))):
        await world.crashed("a")
    assert said(debug, logging.ERROR) == [
        "task /a crashed: Boom: a",
        "task /a has spent its own budget and stays down (1 of 0 restarts in 5 s)",
    ]


async def test_a_child_that_forgot_who_it_is_is_reported_all_the_same(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-04"""

    async def child() -> None:
        current_life.set(None)
        raise ValueError("who am I?")

    async with world.open(ChildSpec("a", child, restart="temporary")):
        await world.settle()
    assert said(debug, logging.ERROR) == ["task /a crashed: ValueError: who am I?"]


# --- as records ---------------------------------------------------------------------------


async def test_a_record_carries_fields_traceback_and_the_time_of_the_event(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-02, LOG-07, END-12"""
    async with world.open(world.supervisor("s", world.child("a"))):
        await world.crashed("a")
    [record] = [one for one in debug.records if one.levelno == logging.ERROR]
    [report] = [one for one in world.reported("exited") if one.path == "/s/a"][:1]
    assert record.name == LOGGER
    assert record.created == report.at_ns / 1e9
    assert record.msecs == report.at_ns // 1_000_000 % 1000
    shown = vars(record)
    assert (shown["path"], shown["incarnation"]) == ("/s/a", 1)
    assert (shown["supervisor"], shown["restart"]) == ("/s", "permanent")
    assert (shown["restarts_spent"], shown["restarts_limit"]) == (0, 3)
    assert logging.Formatter("%(message)s").format(record).count("Traceback") == 1


async def test_reports_are_written_off_the_trio_thread_and_in_order(
    world: World,
    debug: pytest.LogCaptureFixture,
    listen: Callable[[Callable[[logging.LogRecord], None]], None],
) -> None:
    """LOG-07, pitfall 76"""
    threads = set()
    listen(lambda _: threads.add(threading.current_thread()))
    names = [f"c{n}" for n in range(20)]
    async with world.open(*map(world.child, names)):
        await trio.sleep(1)
    assert threading.current_thread() not in threads
    started = [line for line in said(debug, logging.DEBUG) if "started" in line]
    assert started == [f"task /{name} started" for name in names]


async def test_the_level_of_the_logger_is_respected(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """LOG-07"""
    caplog.set_level(logging.CRITICAL, LOGGER)
    async with world.open(world.child("a")):
        await world.crashed("a")
        statistics = world.directory.log.statistics()
    assert caplog.records == []
    assert (statistics.waiting, statistics.logged) == (0, 0)


async def test_a_tree_alone_logs_too(debug: pytest.LogCaptureFixture) -> None:
    """Pitfall 70"""

    async def crash() -> None:
        raise ValueError("alone")

    async with open_supervisor([ChildSpec("a", crash, restart="temporary")]):
        await trio.sleep(1)
    assert said(debug, logging.ERROR) == ["task /a crashed: ValueError: alone"]


# --- and harmless -------------------------------------------------------------------------


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("I do not listen")


async def test_who_listens_and_raises_harms_nobody_and_is_counted(
    world: World,
    debug: pytest.LogCaptureFixture,
    listen: Callable[[Callable[[logging.LogRecord], None]], None],
) -> None:
    """LOG-07, pitfall 76"""
    listen(refuse)
    async with world.open(world.child("a")):
        world.directory.reporter = refuse
        await world.crashed("a")
        world.directory.reporter = world._hear
        assert world.is_up("a")
        assert world.directory.reports_failed == 2
        world.reports.clear()
    assert world.directory.log.statistics().failed == 4
    world.reports.clear()


async def test_who_listens_and_blocks_costs_the_tree_nothing_and_its_end_little(
    world: World,
    debug: pytest.LogCaptureFixture,
    listen: Callable[[Callable[[logging.LogRecord], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LOG-07, pitfall 76"""
    blocked, unblock = threading.Event(), threading.Event()
    waits: list[float] = []

    def block(_: logging.LogRecord) -> None:
        blocked.set()
        unblock.wait()

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return threading.Event.wait(world.directory.log._idle, seconds)

    listen(block)
    monkeypatch.setattr(report_log, "CLOSING", CLOSING)
    try:
        async with world.open(world.child("a"), limit=10_000):
            for _ in range(CAPACITY):
                await world.crashed("a")
            assert world.starts["a"] == CAPACITY + 1
            await trio.sleep(1)
            assert blocked.wait(30)
            for _ in range(CAPACITY):
                await world.crashed("a")
            assert world.starts["a"] == 2 * CAPACITY + 1
            statistics = world.directory.log.statistics()
            assert statistics.waiting <= CAPACITY
            assert statistics.dropped > 0
            monkeypatch.setattr(world.directory.log._idle, "wait", wait)
        assert waits == [CLOSING]
    finally:
        unblock.set()
        assert world.directory.log._idle.wait(30)


async def test_a_storm_is_cut_short_and_what_was_left_out_is_told(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-07"""
    async with world.open(world.child("a"), limit=10_000):
        for _ in range(2 * CAPACITY):
            await world.crashed("a")
        dropped = world.directory.log.statistics().dropped
        await trio.sleep(10)
    assert dropped > CAPACITY
    assert len(debug.records) <= CAPACITY + 10
    [told] = [line for line in said(debug, logging.WARNING) if "not logged" in line]
    assert told.startswith(f"{dropped} reports were not logged: they came faster")


def storm(log: ReportLog, topic: str, count: int) -> None:
    for _ in range(count):
        log.hear(Report(topic=topic, path="/a", incarnation=1, at_ns=0))


async def test_the_outcome_of_a_storm_is_not_crowded_out(
    debug: pytest.LogCaptureFixture,
) -> None:
    """LOG-07"""
    log = ReportLog(Timers())
    storm(log, "supervision.start_failed", CAPACITY + 7)
    storm(log, "supervision.gave_up", RESERVED + 7)
    assert log.statistics().waiting == CAPACITY + RESERVED
    assert log.statistics().dropped == 14


async def test_no_more_than_so_many_are_written_a_second(
    world: World, debug: pytest.LogCaptureFixture
) -> None:
    """LOG-07"""
    async with world.open(world.child("a"), limit=10**9):
        began = trio.current_time()
        for _ in range(40):
            storm(world.directory.log, "supervision.start_failed", CAPACITY)
            await trio.sleep(0.1)
            # The thread's time is real, the tree's is not: let it finish.
            world.directory.log._idle.wait(30)
        seconds = trio.current_time() - began
        logged = world.directory.log.statistics().logged
    assert logged <= RATE * (seconds + 1)


async def test_a_machine_without_threads_costs_the_reports_only(
    world: World, debug: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-07"""
    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", refuse)
    async with world.open(world.child("a")):
        await world.crashed("a")
        await trio.sleep(1)
        assert world.is_up("a")
        assert world.directory.log.statistics().dropped == 3
    assert debug.records == []
