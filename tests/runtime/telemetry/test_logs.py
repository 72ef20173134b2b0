from __future__ import annotations

from treewarden.telemetry import LogRecord, Logs, Severity, current, new_context


def test_a_log_record_belongs_to_the_span_that_its_task_works_for() -> None:
    logs = Logs(enabled=True)
    context = new_context()
    token = current.set(context)
    logs.record(Severity.WARN, "restarted", {"path": "/a"}, at_ns=5)
    current.reset(token)
    assert logs.take(1) == [
        LogRecord(Severity.WARN, "restarted", {"path": "/a"}, 5, context)
    ]


def test_a_log_record_can_name_another_span() -> None:
    logs = Logs(enabled=True)
    context = new_context()
    logs.record(Severity.INFO, "started", context=context)
    [record] = logs.written(logs.take(1))
    assert record.context == context


def test_a_log_record_is_of_now_unless_told() -> None:
    logs = Logs(enabled=True)
    logs.record(Severity.INFO, "first")
    logs.record(Severity.INFO, "second")
    first, second = logs.written(logs.take(2))
    assert 0 < first.at_ns <= second.at_ns


def test_log_records_beyond_the_capacity_are_dropped_and_counted() -> None:
    logs = Logs(enabled=True, capacity=1)
    logs.record(Severity.INFO, "kept")
    logs.record(Severity.INFO, "dropped")
    assert [record.body for record in logs.written(logs.take(9))] == ["kept"]
    assert logs.statistics().dropped == 1


def test_a_record_that_is_put_into_words_later_is_not_written_before_it_is_asked_for() -> (
    None
):
    """LOG-07"""
    logs = Logs(enabled=True)
    written: list[str] = []

    def write(subject: str) -> LogRecord:
        written.append(subject)
        return LogRecord(Severity.INFO, subject, {}, 1, None)

    logs.defer(write, "first")
    logs.record(Severity.INFO, "second")
    logs.defer(write, "third")
    taken = logs.take(9)
    assert written == []
    assert [one.body for one in logs.written(taken)] == ["first", "second", "third"]
    assert written == ["first", "third"]


def test_a_record_that_cannot_be_put_into_words_is_dropped_and_counted() -> None:
    """LOG-07, pitfall 75"""
    logs = Logs(enabled=True)

    def write(_: str) -> LogRecord:
        raise ValueError("no words")

    logs.defer(write, "first")
    logs.record(Severity.INFO, "second")
    assert [one.body for one in logs.written(logs.take(9))] == ["second"]
    statistics = logs.statistics()
    assert (statistics.taken, statistics.dropped, statistics.waiting) == (1, 1, 0)
