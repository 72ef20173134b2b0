"""Numbers that are read now and then, and what becomes of those that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.monitors import AlarmRule, Alarms, Readings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock


class Gauges:
    """A source that a test sets, or makes fail."""

    def __init__(self, **values: float) -> None:
        self.values = values
        self.error: Exception | None = None
        self.read_at: list[float] = []

    def __call__(self) -> Mapping[str, float]:
        self.read_at.append(trio.current_time())
        if self.error is not None:
            raise self.error
        return self.values


def hot() -> Alarms:
    """Alarms with one rule."""
    alarms = Alarms()
    alarms.rule(AlarmRule(name="hot", reading="heat", above=0.9))
    return alarms


def opened(alarms: Alarms) -> list[tuple[str, str]]:
    return [(one.name, one.subject) for one in alarms.list()]


async def test_sources_are_read_at_once_and_then_every_half_minute(
    autojump_clock: MockClock,
) -> None:
    """S33: one task for all of them."""
    readings, first, second = Readings(hot()), Gauges(a=0.1), Gauges(b=0.1)
    readings.source("heat", first)
    readings.source("cold", second)
    began = trio.current_time()
    with trio.move_on_after(95):
        await readings.run()
    assert [at - began for at in first.read_at] == [0, 30, 60, 90]
    assert second.read_at == first.read_at
    assert readings.statistics().rounds == 4


async def test_h32_a_source_that_raises_is_unknown_and_harms_no_other() -> None:
    """H32: an alarm of its own, once; what it opened before stays as it is."""
    alarms = hot()
    readings, broken, sound = Readings(alarms), Gauges(a=0.95), Gauges(b=0.5)
    readings.source("heat", broken)
    readings.source("cold", sound)
    readings.read()
    broken.error = OSError("no such sensor")
    for _ in range(3):
        readings.read()
    assert opened(alarms) == [("hot", "a"), ("reading_unknown", "heat")]
    assert "no such sensor" in alarms.list()[1].message
    assert len(sound.read_at) == 4
    assert readings.statistics().failures == 3
    broken.error = None
    readings.read()
    assert opened(alarms) == [("hot", "a")]


async def test_who_is_not_mentioned_any_more_has_no_alarm() -> None:
    alarms = hot()
    readings, source = Readings(alarms), Gauges(a=0.95, b=0.95)
    readings.source("heat", source)
    readings.read()
    assert opened(alarms) == [("hot", "a"), ("hot", "b")]
    source.values = {"b": 0.95}
    readings.read()
    assert opened(alarms) == [("hot", "b")]


async def test_a_source_that_is_dropped_takes_its_alarms_along() -> None:
    alarms = hot()
    readings, source = Readings(alarms), Gauges(a=0.95)
    readings.source("heat", source)
    readings.read()
    source.error = ValueError()
    readings.read()
    assert len(opened(alarms)) == 2
    assert readings.drop("heat")
    assert not readings.drop("heat")
    assert opened(alarms) == []
    readings.read()
    assert len(source.read_at) == 2


def test_sources_are_bounded_and_one_of_a_name_is_replaced() -> None:
    readings = Readings(hot())
    for number in range(1000):
        readings.source(f"source {number}", dict)
    readings.source("source 0", dict)
    with pytest.raises(ValueError, match="1000 sources"):
        readings.source("one more", dict)
    assert len(readings.statistics().sources) == 1000


@pytest.mark.parametrize("noise", ["warm", object(), 10**400, [1.0]])
async def test_h32_a_source_of_what_is_no_number_harms_no_other(noise: object) -> None:
    """H32: it is unknown, and the task that reads all of them goes on."""
    alarms = hot()
    readings = Readings(alarms)
    readings.source("heat", lambda: {"a": 1.0, "b": noise})  # type: ignore[dict-item] # what is tested
    readings.source("other", Gauges(a=0.1))
    readings.read()
    assert opened(alarms) == [("reading_unknown", "heat")]
    assert readings.statistics().failures == 1


async def test_a_number_that_is_unknown_says_nothing_about_the_others() -> None:
    alarms = hot()
    readings = Readings(alarms)
    readings.source("heat", lambda: {"a": 1.0, "b": None})
    readings.read()
    assert opened(alarms) == [("hot", "a")]
