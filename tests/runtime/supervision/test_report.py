"""A report in words: how bad it is, how much of it is shown, and as a collector gets it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden.errors import IntensityExceeded
from treewarden.exits import Crash, Fault, Killed, Normal, Shutdown, as_exit
from treewarden.supervision import (
    Cause,
    CauseKind,
    ChildSpec,
    Kind,
    Report,
    Stop,
    log_record,
)
from treewarden.supervision.report import (
    ITEM_LIMIT,
    LINE_LIMIT,
    TEXT_LIMIT,
    cut,
    details,
    fields,
    headline,
    level,
    name_of,
    one_line,
)
from treewarden.telemetry import Severity, SpanContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.exits import Exit

EXITED = "supervision.exited"
STARTED = "supervision.started"


def fault_of(error: BaseException, **fields: Any) -> Fault:
    try:
        raise error  # noqa: TRY301 - its traceback is what is wanted
    except BaseException as raised:  # noqa: BLE001 - whatever a child may raise
        return Fault.capture(raised, **fields)


CRASH = Crash(fault_of(ValueError("no such page"), path="/a"))
ROLLED_BACK = Crash(
    Fault(type="treewarden.errors.StoreBroken", message="disk full", rolled_back=True)
)
GAVE_UP = Crash(fault_of(IntensityExceeded("/s", ("a",), None, "")))


def report(topic: str = EXITED, exit_: Exit | None = None, **fields: Any) -> Report:
    known: dict[str, Any] = {"path": "/a", "incarnation": 2, "at_ns": 5}
    return Report(topic=topic, exit=exit_, **(known | fields))


def spec(**fields: Any) -> ChildSpec:
    return ChildSpec("a", trio.sleep_forever, **fields)


# --- in the journal -----------------------------------------------------------------------

CAUSE = Cause(
    kind=CauseKind.GROUP, origin="/b", exit=CRASH, at_ns=4, by="me", took_down=("/c",)
)


def test_each_report_tells_of_its_own_exit_whatever_was_told_before() -> None:
    others = Crash(fault_of(KeyError("other"), path="/b"))
    told = []
    for exit_ in (CRASH, CRASH, None, others, Killed(), CRASH):
        written = msgspec.json.decode(report("supervision.restarted", exit_).encode())
        told.append((written.get("exit"), "where" in written))
    crashed = ("crashed: ValueError: no such page", True)
    assert told == [
        crashed,
        crashed,
        (None, False),
        ("crashed: KeyError: 'other'", True),
        ("killed", False),
        crashed,
    ]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (report(STARTED), {}),
        (report(STARTED, Normal()), {"exit": "returned"}),
        (report(EXITED, CRASH), {"exit": "crashed: ValueError: no such page"}),
        (report(EXITED, Killed()), {"exit": "killed"}),
        (report(EXITED, Killed(), stopping=True), {"exit": "killed", "stopping": True}),
        (report(EXITED, Shutdown(), stopping=True), {"exit": "stopped"}),
        (report("supervision.stuck", detail="shielded"), {"detail": "shielded"}),
        (
            report("supervision.restarted", cause=CAUSE, budget=(1, 3, 5.0)),
            {
                "cause": "group",
                "origin": "/b",
                "by": "me",
                "took_down": ["/c"],
                "budget": {"spent": 1, "limit": 3, "period": 5.0},
            },
        ),
    ],
)
def test_the_journal_gets_what_there_is_to_say_and_nothing_else(
    one: Report, expected: dict[str, object]
) -> None:
    content = msgspec.json.decode(one.encode())
    assert content.pop("incarnation") == 2
    if isinstance(one.exit, Crash):
        file, _, line = content.pop("where").rpartition(":")
        assert file == __file__
        assert line.isdecimal()
    assert content == expected


# --- how bad it is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (report("supervision.started"), logging.DEBUG),
        (report("supervision.restarted", CRASH), logging.DEBUG),
        (report("supervision.start_failed", CRASH), logging.ERROR),
        (report("supervision.failed", CRASH), logging.ERROR),
        (report("supervision.gave_up", CRASH), logging.ERROR),
        (report("supervision.gave_up", CRASH, path="/"), logging.CRITICAL),
        (report("supervision.stuck"), logging.WARNING),
        (report("work.crashed", CRASH), logging.ERROR),
        (report(exit_=CRASH), logging.ERROR),
        (report(exit_=CRASH, stopping=True), logging.ERROR),
        (report(exit_=ROLLED_BACK), logging.WARNING),
        (report("supervision.start_failed", ROLLED_BACK), logging.WARNING),
        (report(exit_=GAVE_UP, kind=Kind.SUPERVISOR), logging.DEBUG),
        (report(exit_=GAVE_UP), logging.ERROR),
        (report(exit_=Killed(), stopping=True, spec=spec()), logging.WARNING),
        (report(exit_=Killed(), stopping=True, spec=spec(shutdown=0)), logging.DEBUG),
        (report(exit_=Killed(), spec=spec(shutdown=0)), logging.WARNING),
        (report(exit_=Shutdown()), logging.DEBUG),
        (report(exit_=Shutdown("enough")), logging.DEBUG),
        (report(exit_=Normal(), spec=spec(restart="temporary")), logging.DEBUG),
        (report(exit_=Normal(), spec=spec(restart="transient")), logging.DEBUG),
        (report(exit_=Normal(), spec=spec()), logging.INFO),
        (report(exit_=Normal(), spec=spec(), stopping=True), logging.DEBUG),
    ],
)
def test_a_report_is_as_bad_as_in_otp(one: Report, expected: int) -> None:
    """LOG-01, LOG-06, END-12, SHD-12"""
    assert level(one) == expected


# --- in words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (report("supervision.started"), "task /a started"),
        (
            report("supervision.restarted", CRASH, budget=(2, 3, 5.0)),
            "task /a restarted after it crashed: ValueError: no such page"
            " (2 of 3 restarts in 5 s)",
        ),
        (
            report(exit_=CRASH, kind=Kind.AGENT, label="site 7"),
            "agent /a (site 7) crashed: ValueError: no such page",
        ),
        (
            report(exit_=CRASH, stopping=True),
            "task /a crashed: ValueError: no such page while it was being stopped",
        ),
        (
            report(exit_=Killed(), stopping=True),
            "task /a was killed while it was being stopped",
        ),
        (report(exit_=ROLLED_BACK), "task /a was rolled back: StoreBroken: disk full"),
        (
            report("supervision.restarted", ROLLED_BACK),
            "task /a restarted after it was rolled back: StoreBroken: disk full",
        ),
        (report(exit_=Normal()), "task /a returned"),
        (report(exit_=Shutdown("enough"), stopping=True), "task /a stopped: enough"),
        (
            report("supervision.start_failed", CRASH, detail="it did not"),
            "task /a did not start: it did not",
        ),
        (
            report("supervision.failed", CRASH, budget=(4, 3, 0.5)),
            "task /a has spent its own budget and stays down"
            " (4 of 3 restarts in 0.5 s)",
        ),
        (
            report("supervision.gave_up", CRASH, kind=Kind.SUPERVISOR, detail="enough"),
            "supervisor /a gave up: enough",
        ),
        (
            report("supervision.stuck", detail="it does not end"),
            "task /a is stuck: it does not end",
        ),
        (
            report("work.crashed", CRASH, kind=Kind.POOL, detail="#3 fetch"),
            "pool /a #3 fetch crashed: ValueError: no such page",
        ),
    ],
)
def test_every_report_has_one_line(one: Report, line: str) -> None:
    """LOG-02"""
    assert headline(one) == line


def test_a_report_says_whose_child_it_was_and_how_it_was_to_be_restarted() -> None:
    """LOG-02, LOG-04"""
    cause = Cause(
        kind=CauseKind.GROUP, origin="/s/b", exit=CRASH, at_ns=4, took_down=("/s/c",)
    )
    one = report(
        exit_=CRASH,
        supervisor="/s",
        spec=spec(restart="transient", shutdown=2.0),
        cause=cause,
        budget=(1, 3, 5.0),
        stopping=True,
    )
    assert fields(one) == {
        "report": EXITED,
        "path": "/a",
        "incarnation": 2,
        "kind": "task",
        "supervisor": "/s",
        "start": "trio.sleep_forever",
        "restart": "transient",
        "shutdown": 2.0,
        "exit": "crashed: ValueError: no such page",
        "stopping": True,
        "cause": "group",
        "origin": "/s/b",
        "took_down": "/s/c",
        "restarts_spent": 1,
        "restarts_limit": 3,
        "restarts_period": 5.0,
    }
    said = details(one)
    assert "  supervisor: /s\n" in said
    assert said.endswith("ValueError: no such page")
    assert "in fault_of" in said


def test_many_children_are_given_as_a_number() -> None:
    """LOG-02"""

    def took_down(count: int) -> object:
        paths = tuple(f"/s/{n}" for n in range(count))
        cause = Cause(
            kind=CauseKind.CRASH, origin="/a", exit=CRASH, at_ns=4, took_down=paths
        )
        return fields(report("supervision.restarted", CRASH, cause=cause))["took_down"]

    assert took_down(2) == "/s/0, /s/1"
    assert took_down(11) == "11 children"


def test_arguments_of_a_start_are_not_shown() -> None:
    """Pitfall 74"""
    start = partial(trio.sleep, 42)
    secret = ChildSpec("a", start, args=("hunter2",), kwargs={"key": "hunter3"})
    said = headline(report(spec=secret)) + details(report(spec=secret))
    assert "hunter" not in said
    assert "trio.sleep" in said


class Callable_:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (trio.sleep, "trio.sleep"),
        (partial(partial(trio.sleep, 1)), "trio.sleep"),
        (Callable_, f"{__name__}.Callable_"),
        (Callable_(), f"{__name__}.Callable_"),
    ],
)
def test_what_a_child_runs_has_a_name(start: Callable[..., object], name: str) -> None:
    """LOG-04"""
    assert name_of(start) == name


def test_causes_are_shown_first_and_only_so_many() -> None:
    """LOG-04"""
    error = ValueError("0")
    for depth in range(1, 9):
        outer = ValueError(str(depth))
        outer.__cause__ = error
        error = outer
    said = details(report(exit_=Crash(fault_of(error))))
    shown = [depth for depth in range(9) if f"\nValueError: {depth}" in said]
    assert shown == [4, 5, 6, 7, 8]
    assert said.index("ValueError: 4") < said.index("ValueError: 5")
    assert said.count("The above led to this") == 4


# --- limits -------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Sly(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no length")


class SlyMessage(Exception):
    def __str__(self) -> str:
        return Sly("abc")


class SlyGroup(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no exceptions")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unprintable(), "<Unprintable.__str__ failed>"),
        (SlyMessage(), "abc"),
        (SlyGroup("all", [ValueError()]), "<SlyGroup.__str__ failed>"),
        (ExceptionGroup("all", [Unprintable()]), "<Unprintable.__str__ failed>"),
        (
            ExceptionGroup("all", [ValueError("x")] * 5_000),
            "ValueError: x; and 4990 mo",
        ),
    ],
)
def test_a_message_that_raises_does_not_cost_the_report(
    error: Exception, words: str
) -> None:
    """Pitfall 75"""
    one = report(exit_=Crash(fault_of(error)))
    assert words in headline(one)
    assert words in details(one)
    assert words in str(log_record(one).attributes["exception.message"])


def test_groups_in_groups_in_groups_end_somewhere() -> None:
    """Pitfall 75"""
    error: Exception = ValueError("deep")
    for _ in range(5_000):
        error = ExceptionGroup("g", [error])
    assert len(headline(report(exit_=Crash(fault_of(error))))) < LINE_LIMIT


@pytest.mark.parametrize("where", ["exception", "detail", "label", "state", "group"])
def test_ten_megabytes_of_text_are_cut(where: str) -> None:
    """LOG-05, pitfall 75"""
    huge = "x" * 10_000_000
    error: BaseException = ValueError(huge if where == "exception" else "small")
    if where == "group":
        error = ExceptionGroup("all", [ValueError(huge[:9_000])] * 1_000)
    one = report(
        exit_=Crash(fault_of(error)),
        detail=huge if where == "detail" else "",
        label=huge if where == "label" else "",
        in_hand=InHand(payload=huge.encode()) if where == "state" else None,
    )
    assert len(headline(one)) < LINE_LIMIT + 100
    assert len(details(one)) < TEXT_LIMIT + 100
    values = log_record(one).attributes.values()
    assert sum(len(str(value)) for value in values) < TEXT_LIMIT + 10 * ITEM_LIMIT


def test_less_room_means_less_text_and_the_end_of_a_traceback_is_kept() -> None:
    """LOG-05"""
    one = report(exit_=CRASH)
    assert len(details(one, limit=200)) < len(details(one))
    assert details(one, limit=200).endswith("ValueError: no such page")
    assert cut("abc", 3) == "abc"
    assert cut("aabbbbcd", 6) == "aa … (2 characters left out) … bbcd"


def test_a_line_stays_one_line_and_holds_nothing_that_moves_a_cursor() -> None:
    error = ValueError("first\nERROR treewarden all is lost\x1b[2J\u2028end")
    said = headline(report(exit_=Crash(fault_of(error))))
    assert said.isprintable()
    assert one_line("a\tb\r\nc", 99) == "a b  c"


# --- the message in hand ------------------------------------------------------------------


class InHand:
    at_ns = 5
    operation = "fetch"
    sender = "/b"
    message = b'{"args":["http://example.org"]}'

    def __init__(
        self, payload: bytes | None = b'{"pages":3}', sender: str = "/b"
    ) -> None:
        self.payload = payload
        self.sender = sender


def test_the_message_that_an_agent_crashed_with_is_shown_with_sender_and_state() -> (
    None
):
    """LOG-03"""
    one = report(exit_=CRASH, kind=Kind.AGENT, in_hand=InHand())
    assert headline(one).endswith("ValueError: no such page, handling fetch")
    content = msgspec.json.decode(one.encode())
    assert (content["operation"], content["sender"]) == ("fetch", "/b")
    shown = fields(one)
    assert shown["operation"] == "fetch"
    assert shown["arguments"] == '{"args":["http://example.org"]}'
    assert shown["sender"] == "/b"
    assert shown["state"] == '{"pages":3}'


def test_a_sender_that_is_no_node_is_said_to_be_outside() -> None:
    """LOG-03"""
    one = report(exit_=CRASH, in_hand=InHand(sender="", payload=None))
    shown = fields(one)
    assert shown["sender"] == "outside the tree"
    assert "state" not in shown


# --- for a collector ----------------------------------------------------------------------


def test_a_collector_gets_the_exception_by_the_semantic_conventions() -> None:
    """LOG-07"""
    trace = f"{7:032x}"
    crash = Crash(fault_of(ValueError("no such page"), trace=trace))
    record = log_record(report(exit_=crash, supervisor="/"))
    assert record.severity is Severity.ERROR
    assert record.event == EXITED
    assert record.body == "task /a crashed: ValueError: no such page"
    assert (record.at_ns, record.context) == (5, SpanContext(7, 0))
    assert record.attributes["exception.type"] == "ValueError"
    assert record.attributes["exception.message"] == "no such page"
    assert "in fault_of" in str(record.attributes["exception.stacktrace"])
    assert record.attributes["treewarden.path"] == "/a"
    assert record.attributes["treewarden.incarnation"] == 2


@pytest.mark.parametrize(
    "topic", ["supervision.restarted", "supervision.failed", "supervision.gave_up"]
)
def test_what_follows_a_crash_does_not_show_it_again(topic: str) -> None:
    """LOG-06, pitfall 70"""
    one = report(topic, CRASH)
    assert not [name for name in log_record(one).attributes if "exception" in name]
    assert "Traceback" not in details(one)


@pytest.mark.parametrize(
    ("exit_", "severity"),
    [(Normal(), Severity.DEBUG), (Killed(), Severity.WARN), (CRASH, Severity.ERROR)],
)
def test_a_collector_gets_the_severity_of_the_level(
    exit_: Exit, severity: Severity
) -> None:
    assert log_record(report(exit_=exit_)).severity is severity


# --- words that no file takes ---------------------------------------------------------------

STRAY = "\udcff"


def test_a_report_is_written_whatever_words_somebody_put_into_it() -> None:
    """Pitfall 76: it rides in a commit, and there a failure would end the runtime."""
    one = report(
        exit_=Shutdown(STRAY),
        cause=Cause(
            kind=CauseKind.OPERATOR, origin="/a", exit=Normal(), at_ns=1, by=STRAY
        ),
        detail=STRAY,
    )
    written = msgspec.json.decode(one.encode())
    assert written["exit"] == "stopped: \\udcff"
    assert (written["by"], written["detail"]) == ("\\udcff", "\\udcff")


def test_a_fault_can_be_written_wherever_its_code_lies() -> None:
    """A folder may have any name: Python has what is no UTF-8 as lone surrogates."""
    code = compile("raise ValueError('no')", f"/srv/{STRAY}/app.py", "exec")
    with pytest.raises(ValueError, match="no") as caught:
        exec(code, {})  # noqa: S102 - a module that lies there
    fault = Fault.capture(caught.value)
    assert fault.where() == "/srv/\\udcff/app.py:1"
    assert msgspec.json.decode(msgspec.json.encode(fault), type=Fault) == fault


@pytest.mark.parametrize("made", [Stop, as_exit], ids=["stop", "as_exit"])
def test_an_exit_can_be_written_whatever_it_says(made: Any) -> None:
    found = made(Shutdown(STRAY))
    exit_ = found.exit if isinstance(found, Stop) else found
    assert exit_ == Shutdown("\\udcff")


class Unhashable(type):
    """Of classes that compare, and so cannot be keys."""

    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class Odd(Exception, metaclass=Unhashable):
    """Raised on purpose."""


def test_a_class_that_cannot_be_a_key_has_its_name_all_the_same() -> None:
    """Pitfall 75"""
    fault = Fault.capture(Odd("no ink"))
    assert fault.type == f"{__name__}.Odd"
    assert fault.message == "no ink"
