"""Broken health checks, gauges, tokens, alarms, listeners and records of performance."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import ShuttingDown
from treewarden.monitors import AlarmRule, Pressure, Reading, Readings
from treewarden.monitors import performance as performance_module
from treewarden.monitors import readings as readings_module
from treewarden.monitors import resources as resources_module
from treewarden.monitors.alarms import AlarmTable
from treewarden.monitors.chart import Chart
from treewarden.monitors.crew import Crew
from treewarden.monitors.health import Health
from treewarden.monitors.listeners import Listeners
from treewarden.monitors.performance import Performance
from treewarden.monitors.resources import Resources

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treewarden.monitors import Token

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/monitors")


@DOUBLES.swaps(
    Health,
    "_ask",
    caught_by="test_health.py::test_h10_one_bad_probe_of_a_hundred_harms_no_other",
)
async def a_probe_without_a_guard(self: Health, one: Any) -> Reading:
    """H10: what a probe raises ends the task."""
    return await self._reading(one)


@DOUBLES.swaps(
    Chart,
    "failed",
    caught_by="test_chart.py::test_h32_a_check_that_raises_makes_the_subject_unknown_whatever_it_was",
)
def a_default_for_what_failed(self: Chart, why: str, now: float) -> None:
    """H32: who cannot be asked is taken for healthy."""
    self.answered(Reading(), now)


@DOUBLES.swaps(
    AlarmTable,
    "_update",
    caught_by="test_alarms.py::test_h23_a_condition_that_holds_for_a_hundred_checks_is_one_alarm",
)
def an_alarm_a_check(self: AlarmTable, key: Any, *rest: Any) -> object:
    """H23: a condition that lasts is opened anew at each check."""
    del self._open[key]
    return self.open(*key, *rest[1:])


@DOUBLES.swaps(
    Resources,
    "_judge",
    caught_by=(
        "test_resources.py::test_f64_a_table_that_is_nearly_full_is_severe_at_once_and_one_alert",
        "test_resources.py::test_f64_a_source_that_reports_is_judged_at_once",
    ),
)
def measured_and_not_judged(self: Resources, gauge: Any, value: float) -> None:
    """F64: a new measurement changes no state."""


@DOUBLES.swaps(
    Resources,
    "_token_ended",
    caught_by="test_resources.py::test_h30_tokens_end_with_their_owner_and_are_not_given_back_twice",
)
def tokens_of_the_dead(self: Resources, token: Token) -> None:
    """H30: a token outlives its owner."""


@DOUBLES.swaps(
    Listeners,
    "_leave",
    caught_by="test_listeners.py::test_h31_listeners_of_agents_that_ended_leave_nothing",
)
def listeners_of_the_dead(self: Listeners[Any], listener: Any) -> None:
    """H31: who has ended is told for ever."""


@DOUBLES.swaps(
    Listeners,
    "tell",
    caught_by="test_listeners.py::test_f65_a_listener_that_hangs_or_raises_costs_only_itself",
)
def told_in_line(self: Listeners[Any], news: Any) -> None:
    """F65: callbacks run one after another, where the news is made."""
    for listener in self._listeners.values():
        listener.tell(news).__await__().send(None)


@DOUBLES.swaps(
    Performance,
    "_expire",
    caught_by="test_performance.py::test_a_name_that_nobody_used_for_an_hour_is_gone",
)
def names_for_ever(self: Performance, now: float) -> None:
    """F68: names that nobody uses are kept."""


@DOUBLES.swaps(
    resources_module,
    "next_pressure",
    caught_by="test_resources.py::test_f64_a_source_that_reports_is_judged_at_once",
)
def severe_for_ever(now: Pressure, share: float) -> Pressure:
    """F64: once severe, a lower reading does not end it."""
    return Pressure.SEVERE if share > 0.95 else now


@DOUBLES.swaps(
    performance_module,
    "deque",
    caught_by=(
        "test_performance.py::test_f68_a_million_records_take_no_more_room_than_half_a_million"
    ),
)
def every_run_is_kept(items: Iterable[Any] = (), maxlen: int | None = None) -> Any:
    """F68: the durations of an operation have no end."""
    return deque(items)


@DOUBLES.swaps(
    Performance,
    "_begin",
    caught_by="test_performance.py::test_f68_of_a_hundred_thousand_names_the_last_thousand_are_kept",
)
def names_without_end(self: Performance, name: str) -> object:
    """F68: a new name takes nobody's place."""
    operation = performance_module._Operation(self._recent)
    self._operations[name] = operation
    return operation


@DOUBLES.swaps(
    Readings,
    "run",
    caught_by=(
        "test_readings.py::test_sources_are_read_at_once_and_then_every_half_minute",
        "test_monitors.py::test_monitors_with_nothing_to_do_wake_up_twice_a_minute",
    ),
)
async def restless_readings(self: Readings) -> None:
    """The idle cost: a timer that is busy."""
    while True:
        self.read()
        await trio.sleep(1.0)


@DOUBLES.swaps(
    Readings,
    "_read",
    caught_by="test_readings.py::test_h32_a_source_that_raises_is_unknown_and_harms_no_other",
)
def a_reading_without_a_guard(self: Readings, name: str, source: Any) -> None:
    """H32: one source that raises ends the round of all."""
    for subject, value in source().items():
        self._alarms.read(name, value, subject=subject)


@DOUBLES.swaps(
    Crew,
    "_work",
    caught_by="test_crew.py::test_a_task_that_ends_by_itself_is_started_again_after_a_minute",
)
async def an_errand_run_once(self: Crew, errand: Any) -> None:
    """H10: a task that ended is not started again."""
    await errand.run()


@DOUBLES.swaps(
    Health,
    "run",
    caught_by=(
        "test_health.py::test_h10_probes_that_do_not_obey_are_given_up_and_keep_nobody_waiting",
        "test_health.py::test_who_forces_a_check_that_does_not_obey_is_told_all_the_same",
    ),
)
async def deaf_probes_are_waited_for(_: Health) -> None:
    """H10: twenty probes that ignore their cancellation, and nobody is asked any more."""
    await trio.sleep_forever()


@DOUBLES.swaps(
    Reading,
    "__post_init__",
    caught_by="test_health.py::test_a_reading_that_is_none_is_a_check_that_fails_and_the_next_one_comes",
)
def any_word_for_a_finding(_: Reading) -> None:
    """A probe that lies ends its subject's task, and the last status stays."""


@DOUBLES.swaps(
    readings_module,
    "_numbers",
    caught_by="test_readings.py::test_h32_a_source_of_what_is_no_number_harms_no_other",
)
def whatever_a_source_says(values: Any) -> dict[str, Any]:
    """H32: one that tells of no number ends the task that reads all of them."""
    return dict(values)


@DOUBLES.swaps(
    AlarmRule,
    "__post_init__",
    caught_by="test_alarms.py::test_a_rule_that_cannot_be_is_refused",
)
def rules_that_never_clear(_: AlarmRule) -> None:
    """H23: an alarm that no value ever clears."""


@DOUBLES.breaks(
    caught_by="test_crew.py::test_a_task_that_is_dismissed_while_nobody_can_start_it_is_never_due"
)
def what_nobody_wants_is_due(replace: Replace) -> None:
    """A start that failed is tried again for ever, without a pause."""
    start = Crew._start

    async def remembered(self: Crew, errand: Any) -> None:
        try:
            await start(self, errand)
        except ShuttingDown:
            self._due[errand.id] = trio.current_time() + self._again
            raise

    replace(Crew, "_start", remembered)


@DOUBLES.swaps(
    Listeners,
    "_tell_one",
    caught_by="test_listeners.py::test_news_that_a_listener_was_being_told_when_it_left_are_accounted_for",
)
async def news_that_vanish(self: Listeners[Any], listener: Any, news: object) -> None:
    """What a listener was being told when it left is neither told nor forgotten."""
    await listener.tell(news)
    self._told += 1


@DOUBLES.swaps(
    Resources,
    "_measure",
    caught_by="test_resources.py::test_a_gauge_that_is_forgotten_while_it_is_read_troubles_nobody",
)
def a_gauge_beyond_its_end(self: Resources, gauge: Any) -> None:
    """Trouble of a gauge that nobody watches, and that nothing ever ends."""
    self._take(gauge, float(gauge.measure()))


@DOUBLES.breaks(caught_by="test_resources.py::test_a_quota_that_is_no_bound_is_refused")
def any_number_for_a_quota(replace: Replace) -> None:
    """A quota of NaN is never used up."""

    def quota(self: Resources, kind: str, most: Any) -> None:
        self._quotas[kind] = most

    replace(Resources, "quota", quota)


@DOUBLES.swaps(
    AlarmTable,
    "_drop_abandoned",
    caught_by="test_alarms.py::test_conditions_that_nobody_speaks_of_any_more_make_room",
)
def conditions_that_stay_for_ever(_: AlarmTable, now: float) -> None:
    """A thousand subjects that went without a word, and no alarm ever opens again."""


@DOUBLES.swaps(
    performance_module,
    "check_count",
    caught_by="test_performance.py::test_bounds_that_are_none_are_refused_by_name",
)
def room_for_nothing(name: str, value: object, least: int) -> None:
    """Records of no operation at all, and the first one fails."""
