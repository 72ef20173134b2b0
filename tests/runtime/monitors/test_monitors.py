"""The parts together: what is read by itself, what is an alarm, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import ChildSpec, Intensity
from treewarden.monitors import AlarmRule, Ending, Severity

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

WARNING, CRITICAL = Severity


@pytest.mark.parametrize(
    ("reading", "fine", "wrong", "clear", "lasts", "severity"),
    [
        ("cpu", 0.80, 0.81, 0.70, 60, WARNING),
        ("disk", 0.90, 0.91, 0.85, 0, WARNING),
        ("loop_lag", 1.0, 1.1, 1.0, 30, WARNING),
        ("error_rate", 0.05, 0.06, 0.05, 0, WARNING),
        ("response_time", 1.0, 1.1, 1.0, 0, WARNING),
        ("failed_nodes", 2.0, 3.0, 2.0, 0, CRITICAL),
    ],
)
async def test_what_is_wrong_without_any_rule_of_the_application(
    autojump_clock: MockClock,
    ward: Any,
    reading: str,
    fine: float,
    wrong: float,
    clear: float,
    lasts: float,
    severity: Severity,
) -> None:
    """S33: the thresholds, how long they must be crossed, and where it is over."""
    alarms = ward.monitors.alarms
    alarms.read(reading, fine, subject="one")
    assert alarms.list() == ()
    alarms.read(reading, wrong, subject="one")
    if lasts:
        await trio.sleep(lasts - 1)
        alarms.read(reading, wrong, subject="one")
        assert alarms.list() == ()
        await trio.sleep(1)
        alarms.read(reading, wrong, subject="one")
    [alarm] = alarms.list()
    assert (alarm.name, alarm.subject) == (reading, "one")
    assert alarm.severity is severity
    alarms.read(reading, clear, subject="one")
    assert alarms.list() == ()


async def test_operations_that_fail_often_or_are_slow_are_alarms_of_their_own(
    autojump_clock: MockClock, ward: Any
) -> None:
    """Of the last hundred runs, and of fewer than twenty nothing is said."""
    performance = ward.monitors.performance
    for number in range(20):
        failed = number in (3, 7)
        performance.record("fails", 0.1, Ending.ERROR if failed else Ending.SUCCESS)
        performance.record("is slow", 1.5)
        if number:
            performance.record("is young", 1.5, Ending.ERROR)
    await trio.sleep(31)
    assert ward.open_alarms() == [("error_rate", "fails"), ("response_time", "is slow")]
    for _ in range(100):
        performance.record("fails", 0.1)
        performance.record("is slow", 0.1)
    await trio.sleep(30)
    assert ward.open_alarms() == []


async def test_nodes_that_were_given_up_are_counted(
    autojump_clock: MockClock, ward: Any
) -> None:
    async def fails() -> None:
        raise KeyError("no")

    for number in range(3):
        assert ward.open_alarms() == []
        once = Intensity(0, 5.0)
        await ward.root.start_child(
            ChildSpec(f"failing-{number}", fails, intensity=once)
        )
        await trio.sleep(31)
    [alarm] = ward.monitors.alarms.list()
    assert (alarm.name, alarm.value) == ("failed_nodes", 3.0)


async def test_a_loop_that_is_late_must_be_so_for_half_a_minute(
    autojump_clock: MockClock, ward: Any
) -> None:
    ward.lag = 2.0
    await trio.sleep(31)
    assert ward.open_alarms() == []
    await trio.sleep(30)
    assert ward.open_alarms() == [("loop_lag", "")]
    ward.lag = 0.0
    await trio.sleep(30)
    assert ward.open_alarms() == []


async def test_the_disk_is_read_where_the_file_is(
    autojump_clock: MockClock, ward: Any, tmp_path: Path
) -> None:
    """A share from 0 to 1; without a file nothing is said, and a lost one is unknown."""
    ward.monitors.alarms.rule(AlarmRule(name="any", reading="disk", above=-1.0))
    await trio.sleep(31)
    assert ward.open_alarms() == []
    ward.disk = tmp_path
    await trio.sleep(30)
    [alarm] = [one for one in ward.monitors.alarms.list() if one.name == "any"]
    assert 0.0 <= alarm.value <= 1.0
    ward.disk = tmp_path / "gone"
    await trio.sleep(30)
    assert ("reading_unknown", "disk") in ward.open_alarms()


class WakeUps(trio.abc.Instrument):
    """Counts how often any task but this one takes a step."""

    def __init__(self) -> None:
        self.here = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self.count += task is not self.here


async def test_monitors_with_nothing_to_do_wake_up_twice_a_minute(
    autojump_clock: MockClock, ward: Any
) -> None:
    """S15: no timer but the round of the readings."""
    # The timers of the start have run out.
    await trio.sleep(100)
    wake_ups = WakeUps()
    trio.lowlevel.add_instrument(wake_ups)
    await trio.sleep(600)
    trio.lowlevel.remove_instrument(wake_ups)
    assert wake_ups.count == 20
