from __future__ import annotations

from treewarden.monitors import HealthStatus, Reading
from treewarden.monitors.chart import Chart


def test_h32_a_check_that_raises_makes_the_subject_unknown_whatever_it_was() -> None:
    """H32: nobody is taken for healthy because nobody could ask."""
    chart = Chart(30.0, 0.0)
    chart.answered(Reading(), 0.0)
    chart.failed("OSError: no", 30.0)
    assert (chart.status, chart.reason) == (HealthStatus.UNKNOWN, "OSError: no")
    assert (chart.since, chart.due) == (30.0, 35.0)


def test_the_fourth_failure_in_a_row_is_a_finding_and_is_tried_again_each_minute() -> (
    None
):
    """S24: check_failing, every 60 s."""
    chart = Chart(10.0, 0.0)
    seen = []
    for now in range(5):
        chart.failed("broken", float(now))
        seen.append((chart.status, chart.due - now))
    unknown, unhealthy = HealthStatus.UNKNOWN, HealthStatus.UNHEALTHY
    assert seen == [(unknown, 5.0)] * 3 + [(unhealthy, 60.0)] * 2
    assert chart.reason == "check_failing: broken"


def test_one_answer_ends_a_row_of_failures() -> None:
    chart = Chart(10.0, 0.0)
    for now in (0.0, 1.0, 2.0):
        chart.failed("broken", now)
    chart.answered(Reading(), 3.0)
    chart.failed("broken", 4.0)
    assert chart.status is HealthStatus.UNKNOWN
    assert (chart.checks, chart.failures) == (5, 4)


def test_a_subject_in_trouble_is_looked_at_sooner_and_never_later() -> None:
    for interval, soon in ((30.0, 5.0), (2.0, 2.0)):
        chart = Chart(interval, 0.0)
        chart.answered(Reading(), 0.0)
        assert chart.due == interval
        chart.answered(Reading(status=HealthStatus.DEGRADED), 0.0)
        assert chart.due == soon
        chart.missed(5.0, 0.0)
        assert chart.due == soon
    assert chart.status is HealthStatus.UNRESPONSIVE
    assert chart.reason == "no answer in 5 s"
    assert chart.late == 1
