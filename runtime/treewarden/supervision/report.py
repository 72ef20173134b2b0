"""What happened to a node, as one record, and as people and collectors read it.

A supervisor that reports only fills the record in; everything that takes time (the frames
of a fault, the name of a start, cutting what is too long) is left to whoever reads it, on
a thread of their own. The kinds and levels are those of OTP's supervisor and crash
reports: progress is for the curious, an orderly end is silent, a crash is an error once.
What a supervisor that gave up ends with is no second error: the giving up was one. What is
rolled back because a commit failed is a warning: nothing is wrong with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from treewarden.errors import IntensityExceeded
from treewarden.exits import (
    Crash,
    Exit,
    Fault,
    Killed,
    Normal,
    describe,
    is_rolled_back,
    said_of,
    writable,
)
from treewarden.telemetry import LogRecord, Severity, SpanContext

from .cause import Cause, CauseKind
from .node import Kind
from .spec import ChildSpec
from .strategy import Restart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

Field: TypeAlias = str | int | float | bool

# Characters of one line, of one item in it, and of everything that is said of one report.
LINE_LIMIT: Final = 500
ITEM_LIMIT: Final = 1_000
TEXT_LIMIT: Final = 16_000
# More children than this are given as a number.
NAMES_LIMIT: Final = 10

STARTED: Final = "supervision.started"
RESTARTED: Final = "supervision.restarted"
EXITED: Final = "supervision.exited"
START_FAILED: Final = "supervision.start_failed"
GAVE_UP: Final = "supervision.gave_up"
FAILED: Final = "supervision.failed"
STUCK: Final = "supervision.stuck"

LEVELS: Final = {
    # OTP's progress reports are `info`, and hidden, because its default is `notice`. Ours
    # is info: a program that starts well says nothing.
    STARTED: logging.DEBUG,
    RESTARTED: logging.DEBUG,
    FAILED: logging.ERROR,
    STUCK: logging.WARNING,
}
"""Of those that are always as bad, by topic; `level` has those of the others."""
_SEVERITIES: Final = {
    logging.DEBUG: Severity.DEBUG,
    logging.INFO: Severity.INFO,
    logging.WARNING: Severity.WARN,
    logging.ERROR: Severity.ERROR,
    logging.CRITICAL: Severity.FATAL,
}
# They follow the report of the end that led to them.
_TELL_NO_FAULT: Final = frozenset({RESTARTED, GAVE_UP, FAILED})
_GAVE_UP_TYPE: Final = f"{IntensityExceeded.__module__}.{IntensityExceeded.__name__}"


class InHand(Protocol):
    """The message that an agent crashed with, as its class lets people see it.

    `message` and `payload`, the last committed state, are redacted JSON.
    """

    @property
    def at_ns(self) -> int: ...
    @property
    def operation(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def message(self) -> bytes: ...
    @property
    def payload(self) -> bytes | None: ...


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that happened to a node; `topic` is its name in the journal.

    Topics: supervision.started, .restarted, .exited, .start_failed, .gave_up, .failed
    (a child spent its own budget), .stuck; and work.crashed, of a pool. `stopping`: it
    was being stopped when it ended. `budget` is (spent, limit, period in seconds), where
    it matters.
    """

    # A struct: on the way of every start and end, it takes a tenth of a dataclass's time.
    topic: str
    path: str
    incarnation: int
    at_ns: int
    exit: Exit | None = None
    cause: Cause | None = None
    detail: str = ""
    trace: str = ""
    kind: Kind = Kind.TASK
    supervisor: str = ""
    label: str = ""
    spec: ChildSpec | None = None
    stopping: bool = False
    in_hand: InHand | None = None
    budget: tuple[int, int, float] | None = None

    def encode(self) -> bytes:
        """As it goes into the journal: JSON, without what every entry has."""
        if self.topic == STARTED and self.exit is None and self.cause is None:
            # Ten thousand of them may come in a second.
            return b'{"incarnation":%d}' % self.incarnation
        content = _content(self)
        try:
            return _to_json(content)
        except UnicodeEncodeError:
            # Somebody's words, with what no file takes. They ride in a commit, which is
            # no place to fail.
            return _to_json(_in_unicode(msgspec.to_builtins(content)))


class _Budget(msgspec.Struct, frozen=True, gc=False):
    spent: int
    limit: int
    period: float


class _Content(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The journal's words for a report; what says nothing is left out."""

    incarnation: int
    exit: str | None = None
    where: str | None = None
    cause: CauseKind | None = None
    origin: str | None = None
    by: str = ""
    took_down: tuple[str, ...] = ()
    budget: _Budget | None = None
    stopping: bool = False
    operation: str | None = None
    sender: str | None = None
    detail: str = ""


_to_json: Final = msgspec.json.Encoder().encode
_AGENT: Final = Kind.AGENT


def _in_unicode(value: object) -> object:
    match value:
        case str():
            return writable(value)
        case dict():
            return {name: _in_unicode(one) for name, one in value.items()}
        case list() | tuple():
            return [_in_unicode(one) for one in value]
        case _:
            return value


def _content(report: Report) -> _Content:
    exit_, cause, doing = report.exit, report.cause, report.in_hand
    content = _Content(
        incarnation=report.incarnation,
        stopping=report.stopping and isinstance(exit_, (Crash, Killed)),
        detail=report.detail,
    )
    content.exit, content.where = _told(exit_)
    if cause is not None:
        content.cause, content.origin = cause.kind, cause.origin
        content.by, content.took_down = cause.by, cause.took_down
    if report.budget is not None:
        content.budget = _Budget(*report.budget)
    if doing is not None and doing.operation:
        content.operation, content.sender = doing.operation, doing.sender
    return content


# The exit that was told of last, in words and where: a crash is told of twice in a row,
# as an end and as what led to a restart. In one assignment: any thread may have a runtime.
_last: Final[list[tuple[Exit | None, str | None, str | None]]] = [(None, None, None)]


def _told(exit_: Exit | None) -> tuple[str | None, str | None]:
    """An exit in words, and where it crashed."""
    last, said, where = _last[0]
    if exit_ is not last:
        said = describe(exit_) if exit_ is not None else None
        where = exit_.fault.where() if isinstance(exit_, Crash) else None
        _last[0] = exit_, said, where
    return said, where


def in_hand(node: Node, fault: Fault) -> InHand | None:
    """The message that an agent crashed with; None for others, and between messages."""
    body: Any = node.body
    if body.kind is not _AGENT:
        return None
    crash: InHand | None = body.last_crash
    return crash if crash is not None and crash.at_ns == fault.at_ns else None


# --- how bad it is ------------------------------------------------------------------------


def level(report: Report) -> int:
    """The level of `logging` that a report has."""
    topic = report.topic
    if topic == EXITED:
        exit_ = report.exit
        return (
            _crash_level(report, exit_) if type(exit_) is Crash else _exit_level(report)
        )
    found = LEVELS.get(topic)
    if found is not None:
        return found
    if topic == GAVE_UP:
        # Of the root: nobody is left to restart it, and the program ends.
        return logging.CRITICAL if report.path == "/" else logging.ERROR
    if topic == START_FAILED:
        return logging.WARNING if is_rolled_back(report.exit) else logging.ERROR
    return logging.ERROR if isinstance(report.exit, Crash) else logging.INFO


def _crash_level(report: Report, crash: Crash) -> int:
    # Not a case of `match`, which takes three times as long: one for every restart.
    if crash.fault.rolled_back:
        return logging.WARNING
    told = report.kind is Kind.SUPERVISOR and crash.fault.type == _GAVE_UP_TYPE
    return logging.DEBUG if told else logging.ERROR


def _exit_level(report: Report) -> int:
    match report.exit:
        case Killed():
            wanted = report.stopping and _shutdown(report) == 0
            return logging.DEBUG if wanted else logging.WARNING
        case Normal() if not report.stopping and _restart(report) == Restart.PERMANENT:
            return logging.INFO
        case _:
            return logging.DEBUG


def _shutdown(report: Report) -> float | None:
    return report.spec.shutdown if report.spec is not None else None


def _restart(report: Report) -> str:
    return report.spec.restart if report.spec is not None else ""


# --- in words -----------------------------------------------------------------------------


def headline(report: Report) -> str:
    """One line of bounded length, without control characters."""
    return one_line(f"{_whom(report)} {_what(report)}", LINE_LIMIT)


def _whom(report: Report) -> str:
    label = f" ({one_line(report.label, 80)})" if report.label else ""
    return f"{report.kind} {report.path}{label}"


def _what(report: Report) -> str:
    match report.topic:
        case "supervision.started":
            return "started"
        case "supervision.restarted":
            return f"restarted after it {_how(report.exit)}{_counted(report)}"
        case "supervision.exited":
            return _how(report.exit) + _meanwhile(report)
        case "supervision.start_failed":
            return f"did not start: {report.detail or describe(report.exit)}"
        case "supervision.failed":
            return f"has spent its own budget and stays down{_counted(report)}"
        case "supervision.gave_up":
            return f"gave up: {report.detail}"
        case "supervision.stuck":
            return f"is stuck: {report.detail}"
        case _:
            return f"{report.detail} {describe(report.exit)}".strip()


def _how(exit_: Exit | None) -> str:
    return said_of(exit_) or "ended"


def _meanwhile(report: Report) -> str:
    during = " while it was being stopped" if _failed_to_stop(report) else ""
    doing = report.in_hand
    if doing is None or not doing.operation:
        return during
    return f"{during}, handling {doing.operation}"


def _failed_to_stop(report: Report) -> bool:
    return report.stopping and isinstance(report.exit, (Crash, Killed))


def _counted(report: Report) -> str:
    if report.budget is None:
        return ""
    spent, limit, period = report.budget
    return f" ({spent} of {limit} restarts in {period:g} s)"


def details(report: Report, limit: int = TEXT_LIMIT) -> str:
    """All of it, an item a line, then the traceback; at most `limit` characters or so."""
    lines = [f"  {name}: {value}" for name, value in fields(report).items()]
    fault = crash_of(report)
    if fault is not None:
        lines += ["", fault.format()]
    return cut("\n".join(lines), limit)


def crash_of(report: Report) -> Fault | None:
    """The fault to show with a report; None when it has none, or another has shown it."""
    if report.topic in _TELL_NO_FAULT or not isinstance(report.exit, Crash):
        return None
    return None if report.exit.fault.rolled_back else report.exit.fault


def fields(report: Report) -> dict[str, Field]:
    """Everything by name, as `logging` calls `extra`; only what there is, each cut."""
    return {
        name: one_line(value, ITEM_LIMIT) if isinstance(value, str) else value
        for name, value in _fields(report)
        if value != ""
    }


def _fields(report: Report) -> Iterator[tuple[str, Field]]:
    yield "report", report.topic
    yield "path", report.path
    yield "incarnation", report.incarnation
    yield "kind", report.kind.value
    yield "label", report.label
    yield "supervisor", report.supervisor
    if report.spec is not None:
        yield from _spec_fields(report.spec)
    yield "exit", describe(report.exit)
    if report.stopping:
        yield "stopping", True
    if report.cause is not None:
        yield from _cause_fields(report.cause)
    if report.budget is not None:
        spent, limit, period = report.budget
        yield "restarts_spent", spent
        yield "restarts_limit", limit
        yield "restarts_period", period
    if report.in_hand is not None:
        yield from _in_hand_fields(report.in_hand)
    yield "detail", report.detail
    yield "trace", report.trace


def _spec_fields(spec: ChildSpec) -> Iterator[tuple[str, Field]]:
    # Without its arguments: they may be secret, and are seldom what went wrong.
    yield "start", name_of(spec.start)
    yield "restart", str(spec.restart)
    yield "shutdown", spec.shutdown_seconds()


def _cause_fields(cause: Cause) -> Iterator[tuple[str, Field]]:
    yield "cause", cause.kind.value
    yield "origin", cause.origin
    yield "by", cause.by
    yield "took_down", names(cause.took_down)


def _in_hand_fields(crash: InHand) -> Iterator[tuple[str, Field]]:
    yield "operation", crash.operation
    if crash.operation:
        yield "sender", crash.sender or "outside the tree"
        yield "arguments", _json(crash.message)
    yield "state", _json(crash.payload or b"")


def _json(payload: bytes) -> str:
    text = payload[: 4 * ITEM_LIMIT].decode(errors="replace")
    left_out = len(payload) - len(text.encode(errors="replace"))
    return f"{text} (and {left_out} bytes)" if left_out > 0 else text


def name_of(start: object) -> str:
    """What a child runs, as `module.name`: of a function, a class, a partial."""
    start = getattr(start, "func", start)
    named = start if hasattr(start, "__qualname__") else type(start)
    return f"{named.__module__}.{getattr(named, '__qualname__', '?')}"


def names(paths: tuple[str, ...]) -> str:
    """A few by name, many as a number."""
    if len(paths) > NAMES_LIMIT:
        return f"{len(paths)} children"
    return ", ".join(paths)


def one_line(text: str, limit: int) -> str:
    """`text` on one line: cut, with every control character as a space."""
    text = cut(text, limit)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def cut(text: str, limit: int) -> str:
    """The beginning and, since a traceback ends with what was raised, more of the end."""
    if len(text) <= limit:
        return text
    head = limit // 3
    tail = limit - head
    return f"{text[:head]} … ({len(text) - limit} characters left out) … {text[-tail:]}"


# --- for a collector ----------------------------------------------------------------------


def log_record(report: Report) -> LogRecord:
    """As OpenTelemetry's log record, by its semantic conventions for exceptions."""
    attributes: dict[str, Field] = {
        f"treewarden.{name}": value for name, value in fields(report).items()
    }
    fault = crash_of(report)
    if fault is not None:
        attributes["exception.type"] = fault.type
        attributes["exception.message"] = fault.message
        attributes["exception.stacktrace"] = cut(fault.format(), TEXT_LIMIT)
    return LogRecord(
        _SEVERITIES[level(report)],
        headline(report),
        attributes,
        report.at_ns,
        _context(report),
        report.topic,
    )


def _context(report: Report) -> SpanContext | None:
    trace = report.trace
    if not trace and isinstance(report.exit, Crash):
        trace = report.exit.fault.trace
    # A report knows the trace that it happened in, but no span of it.
    return SpanContext(int(trace, 16), 0) if trace else None
