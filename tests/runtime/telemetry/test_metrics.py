from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.telemetry import Histogram, MetricKind, Metrics, metrics
from treewarden.telemetry.metrics import DistributionSeries, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.telemetry import Attributes

rising = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8, unique=True).map(sorted)


@given(bounds=rising, values=st.lists(st.floats(-1e7, 1e7), min_size=1))
def test_a_histogram_counts_each_value_below_its_bound(
    bounds: list[float], values: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.record(value)
    found = histogram.distribution()
    upto = [sum(value <= bound for value in values) for bound in bounds]
    assert [sum(found.counts[: n + 1]) for n in range(len(bounds))] == upto
    assert sum(found.counts) == len(values)
    assert found.total == pytest.approx(sum(values))
    assert (found.least, found.most) == (min(values), max(values))


def test_a_distribution_does_not_change_when_the_histogram_goes_on() -> None:
    histogram = Histogram((1.0,))
    histogram.record(0.5)
    before = histogram.distribution()
    histogram.record(0.5)
    assert before.counts == (1, 0)


def test_bounds_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="bounds must rise"):
        Histogram((1.0, 1.0))


def test_the_bounds_of_durations_and_sizes_rise() -> None:
    Histogram(metrics.DURATION_BOUNDS)
    Histogram(metrics.SIZE_BOUNDS)


def test_a_metric_is_asked_for_its_points_at_each_reading() -> None:
    depth = {"/a": 1}
    found = Metrics()
    found.observe(
        metrics.MAILBOX_DEPTH,
        "{message}",
        "messages that wait",
        lambda: [({"path": path}, n) for path, n in depth.items()],
    )
    assert [r.points for r in found.read() if isinstance(r, Series)] == [
        (({"path": "/a"}, 1),)
    ]
    depth["/b"] = 7
    [reading] = found.read()
    assert isinstance(reading, Series)
    assert reading.points == (({"path": "/a"}, 1), ({"path": "/b"}, 7))
    assert (reading.unit, reading.kind) == ("{message}", MetricKind.GAUGE)


def test_the_latest_source_of_a_name_counts() -> None:
    found = Metrics()
    found.observe("n", "1", "", lambda: [({}, 1)], "counter")
    found.observe("n", "1", "", lambda: [({}, 2)], "counter")
    [reading] = found.read()
    assert isinstance(reading, Series)
    assert (reading.points, reading.kind) == ((({}, 2),), MetricKind.COUNTER)


def test_an_unknown_kind_of_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        Metrics().observe("n", "1", "", list, "speed")


def test_a_source_that_raises_costs_its_own_metric_only() -> None:
    def broken() -> Iterator[tuple[Attributes, int]]:
        yield {}, 1
        raise ZeroDivisionError("no agents")

    found = Metrics()
    found.observe("broken", "1", "", broken)
    found.observe("whole", "1", "", lambda: [({}, 1)])
    assert [reading.name for reading in found.read()] == ["whole"]
    assert found.statistics().failed_reads == 1
    assert found.statistics().last_error == "broken: ZeroDivisionError: no agents"


def test_a_metric_without_points_is_left_out() -> None:
    found = Metrics()
    found.observe("nothing", "1", "", list)
    found.histogram("unused", "s", (1.0,))
    assert found.read() == []


def test_points_beyond_the_limit_of_series_are_dropped_and_counted() -> None:
    found = Metrics(series_limit=3)
    found.observe("n", "1", "", lambda: [({"i": i}, i) for i in range(5)])
    [reading] = found.read()
    assert isinstance(reading, Series)
    assert [value for _, value in reading.points] == [0, 1, 2]
    assert found.statistics().dropped_points == 2


def test_a_histogram_of_the_same_name_and_attributes_is_the_same() -> None:
    found = Metrics()
    one = found.histogram("h", "s", (1.0,), {"a": 1, "b": 2})
    assert found.histogram("h", "s", (1.0,), {"b": 2, "a": 1}) is one
    assert found.histogram("h", "s", (1.0,), {"a": 1}) is not one


def test_histograms_of_one_name_are_read_together() -> None:
    found = Metrics()
    for agent in ("x", "y"):
        found.histogram("h", "s", (1.0,), {"agent": agent}).record(0.5)
    [reading] = found.read()
    assert isinstance(reading, DistributionSeries)
    assert [d.attributes for d in reading.distributions] == [
        {"agent": "x"},
        {"agent": "y"},
    ]


def test_histograms_beyond_the_limit_of_series_share_one_that_says_so() -> None:
    found = Metrics(series_limit=3)
    for number in range(5):
        found.histogram("h", "s", (1.0,), {"n": number}).record(0.5)
    [reading] = found.read()
    assert isinstance(reading, DistributionSeries)
    assert [(d.attributes, sum(d.counts)) for d in reading.distributions] == [
        ({"n": 0}, 1),
        ({"n": 1}, 1),
        ({"otel.metric.overflow": True}, 3),
    ]
