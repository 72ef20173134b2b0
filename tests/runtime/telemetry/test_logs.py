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
    [record] = logs.take(1)
    assert record.context == context


def test_a_log_record_is_of_now_unless_told() -> None:
    logs = Logs(enabled=True)
    logs.record(Severity.INFO, "first")
    logs.record(Severity.INFO, "second")
    first, second = logs.take(2)
    assert 0 < first.at_ns <= second.at_ns


def test_log_records_beyond_the_capacity_are_dropped_and_counted() -> None:
    logs = Logs(enabled=True, capacity=1)
    logs.record(Severity.INFO, "kept")
    logs.record(Severity.INFO, "dropped")
    assert [record.body for record in logs.take(9)] == ["kept"]
    assert logs.statistics().dropped == 1
