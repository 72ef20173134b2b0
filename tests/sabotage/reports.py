"""Broken reports and memory: crashes told twice or not at all, and what is kept of them."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import outcome

from treewarden import exits
from treewarden.bus.subscription import Subscription
from treewarden.errors import UnknownChild
from treewarden.supervision import Directory, ReportLog, node, report, report_log
from treewarden.supervision.supervisor import Supervisor
from treewarden.supervision.wish import Wish

from .double import Area

if TYPE_CHECKING:
    from treewarden.exits import Exit, Fault
    from treewarden.supervision import Report
    from treewarden.supervision.node import Life, Node

DOUBLES: Final = Area("tests/runtime")

_S: Final = "supervision/"
_report_exit = Supervisor._report_exit


@DOUBLES.swaps(
    Supervisor,
    "_report_exit",
    caught_by=_S
    + "test_report_log.py::test_a_crash_is_logged_once_however_deep_the_tree",
)
def a_crash_is_told_twice(self: Supervisor, one: Node, life: Life, now: float) -> None:
    """Pitfall 70: by whoever saw it and by whoever acts on it."""
    _report_exit(self, one, life, now)
    _report_exit(self, one, life, now)


@DOUBLES.swaps(
    report,
    "_exit_level",
    caught_by=_S + "test_report_log.py::test_an_orderly_end_is_silent",
)
def every_end_is_an_error(told: Report) -> int:
    """Pitfall 71: the log of a good night is red."""
    return logging.ERROR


_level = report.level


@DOUBLES.swaps(
    (report, report_log),
    "level",
    caught_by=_S
    + "test_report_log.py::test_a_failing_clean_up_is_an_error_though_it_was_being_stopped",
)
def whatever_happens_during_a_stop_is_wanted(told: Report) -> int:
    """Pitfall 71: what fails while cleaning up is not worth a line."""
    return logging.DEBUG if told.stopping else _level(told)


@DOUBLES.swaps(
    ReportLog,
    "hear",
    caught_by=_S
    + "test_report_log.py::test_a_crash_is_logged_once_however_deep_the_tree",
)
def a_crash_that_nobody_hears_of(self: ReportLog, told: Report) -> None:
    """Pitfall 70: what happened is between the child and its supervisor."""


@DOUBLES.swaps(
    ReportLog,
    "hear",
    caught_by=_S
    + "test_report_log.py::test_reports_are_written_off_the_trio_thread_and_in_order",
)
def a_log_that_the_tree_waits_for(self: ReportLog, told: Report) -> None:
    """Pitfall 76: a log handler that blocks, blocks the supervisor."""
    self._hurried = True
    self._write_one(told)


_told = report._told


@DOUBLES.swaps(
    report,
    "_told",
    caught_by=_S
    + "test_report.py::test_each_report_tells_of_its_own_exit_whatever_was_told_before",
)
def one_crash_in_the_words_of_another(exit_: Exit | None) -> Any:
    """What was said of the last exit is said of the next."""
    last, *said = report._last[0]
    return said if last is not None else _told(exit_)


@DOUBLES.swaps(
    node,
    "replace",
    caught_by=(
        "test_rolled_back.py::test_it_is_logged_as_a_warning_and_counted_as_no_crash",
        "test_rolled_back.py::test_why_says_what_was_rolled_back_and_finds_nothing_that_failed",
    ),
)
def a_full_disk_that_crashes_everybody(fault: Fault, **_: bool) -> Fault:
    """What was rolled back is told, and kept, as a fault of its own."""
    return fault


_crashed = node._crashed
_kept: list[BaseException] = []


@DOUBLES.swaps(
    node,
    "_crashed",
    caught_by=_S
    + "test_node.py::test_no_exception_is_kept_alive_after_a_hundred_crashes",
)
def crashes_are_kept_as_they_are(one: Node, life: Life, error: BaseException) -> Exit:
    """Pitfall 72: with their frames, and all that these hold."""
    _kept.append(error)
    return _crashed(one, life, error)


@DOUBLES.swaps(
    exits,
    "_message",
    caught_by=_S
    + "test_node.py::test_whatever_a_child_raises_is_its_own_crash_and_harms_no_sibling",
)
def a_message_is_taken_at_its_word(error: BaseException) -> str:
    """Pitfall 75: a `__str__` that raises makes another crash of the first."""
    return str(error)


_tell = Directory.report


@DOUBLES.swaps(
    Directory,
    "report",
    caught_by=_S
    + "test_report_log.py::test_who_listens_and_raises_harms_nobody_and_is_counted",
)
def a_listener_that_takes_the_tree_down(
    self: Directory, topic: str, one: Node, **more: Any
) -> None:
    """Pitfall 76: what a log handler raises, a supervisor raises."""
    failed = self.reports_failed
    _tell(self, topic, one, **more)
    if self.reports_failed > failed:
        raise OSError("no space left on device")


@DOUBLES.swaps(
    Supervisor,
    "_find",
    caught_by=_S + "test_dynamic.py::test_dealing_with_one_child_looks_at_no_other",
)
def a_child_is_looked_for(self: Supervisor, id_: str) -> Node:
    """Pitfall 77: among all the others, one after another."""
    for one in self.children.values():
        if one.id == id_:
            return one
    raise UnknownChild(self.path, id_)


@DOUBLES.swaps(
    Wish,
    "carry_out",
    caught_by=_S
    + "test_ref.py::test_a_wish_that_cannot_be_carried_out_does_not_harm_the_supervisor",
)
async def a_wish_that_kills(self: Wish) -> None:
    """Pitfall 78: who asks for the impossible takes everybody down."""
    self._answer(outcome.Value(await self._run()))


_hand_over = Subscription._hand_over


@DOUBLES.swaps(
    Subscription,
    "_hand_over",
    caught_by="bus/test_subscription.py::test_a_sink_that_raises_costs_that_event_and_fails_nobody",
)
def a_subscriber_that_fails_its_publisher(self: Subscription, sink: Any) -> bool:
    """Pitfall 66: what one of them raises comes out of `publish`."""
    assert isinstance(self.items, deque)
    sink(self.items[0])
    return _hand_over(self, sink)


@DOUBLES.swaps(
    report,
    "_in_unicode",
    caught_by=(
        "supervision/test_report.py::test_a_report_is_written_whatever_words_somebody_put_into_it",
    ),
)
def words_as_they_came(value: object) -> object:
    """Pitfall 76: a report that cannot be written, in the commit that it rides in."""
    return value
