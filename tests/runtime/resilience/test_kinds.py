"""What sort of failure an exception is."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from treewarden import errors
from treewarden.resilience import DEFAULT_KINDS, ErrorKind, ErrorKinds, Recovery


def test_f67_an_unknown_kind_is_refused_when_the_table_is_made() -> None:
    with pytest.raises(ValueError, match="'flaky' is not a valid ErrorKind"):
        ErrorKind("flaky")
    with pytest.raises(ValueError, match="kind of OSError must be one of transient, "):
        ErrorKinds({OSError: "flaky"})


def test_f67_an_unknown_recovery_is_refused() -> None:
    with pytest.raises(ValueError, match="'pray' is not a valid Recovery"):
        Recovery("pray")


def test_f67_every_kind_has_a_recovery() -> None:
    assert {kind: kind.recovery for kind in ErrorKind} == {
        ErrorKind.TRANSIENT: Recovery.RETRY,
        ErrorKind.RESOURCE: Recovery.CIRCUIT_BREAK,
        ErrorKind.PERMANENT: Recovery.PROPAGATE,
        ErrorKind.VALIDATION: Recovery.PROPAGATE,
        ErrorKind.SYSTEM: Recovery.COMPENSATE,
    }


def test_only_classes_of_exceptions_have_kinds() -> None:
    with pytest.raises(
        TypeError, match="expected a class of exceptions, not 'OSError'"
    ):
        ErrorKinds({"OSError": ErrorKind.TRANSIENT})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), ErrorKind.TRANSIENT),
        (TimeoutError(), ErrorKind.TRANSIENT),
        (trio.TooSlowError(), ErrorKind.TRANSIENT),
        (errors.TimedOut("x", 1.0), ErrorKind.TRANSIENT),
        (errors.WorkTimeout("x", 1.0), ErrorKind.TRANSIENT),
        (errors.CircuitOpen("x", "open", 1.0), ErrorKind.RESOURCE),
        (errors.RateLimited("x", 1.0), ErrorKind.RESOURCE),
        (errors.BulkheadFull("x", 1, 0), ErrorKind.RESOURCE),
        (MemoryError(), ErrorKind.RESOURCE),
        (FileNotFoundError(), ErrorKind.PERMANENT),
        (errors.Refused("no"), ErrorKind.PERMANENT),
        (
            errors.HttpFailed("GET", "u", "status", "503", status=503),
            ErrorKind.TRANSIENT,
        ),
        (errors.HttpRefused("GET", "u", "address", "none"), ErrorKind.PERMANENT),
        (errors.ProgramFailed("ls", 1, ""), ErrorKind.PERMANENT),
        (errors.RetriesExhausted("x", 3, (), "why"), ErrorKind.PERMANENT),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), ErrorKind.VALIDATION),
        (TypeError(), ErrorKind.VALIDATION),
        (KeyError(), ErrorKind.SYSTEM),
        (RuntimeError(), ErrorKind.SYSTEM),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_an_exception_is_of_the_kind_of_its_nearest_base(
    error: Exception, kind: ErrorKind
) -> None:
    assert DEFAULT_KINDS.of(error) is kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EHOSTUNREACH, ErrorKind.TRANSIENT),
        (errno.ENOSPC, ErrorKind.RESOURCE),
        (errno.EROFS, ErrorKind.PERMANENT),
        (errno.EIO, ErrorKind.SYSTEM),
        (None, ErrorKind.SYSTEM),
    ],
)
def test_a_plain_os_error_is_what_its_number_says(
    number: int | None, kind: ErrorKind
) -> None:
    error = OSError("no number") if number is None else OSError(number, "text")
    assert DEFAULT_KINDS.of(error) is kind


def test_a_name_that_was_not_found_for_now_may_be_found_later() -> None:
    later = socket.gaierror(socket.EAI_AGAIN, "try again")
    never = socket.gaierror(socket.EAI_NONAME, "no such name")
    assert DEFAULT_KINDS.of(later) is ErrorKind.TRANSIENT
    assert DEFAULT_KINDS.of(never) is ErrorKind.PERMANENT


def test_a_group_is_of_the_kind_that_can_least_be_helped_among_its_members() -> None:
    hopeful = ExceptionGroup("both", [ConnectionError(), TimeoutError()])
    hopeless = ExceptionGroup(
        "both", [ConnectionError(), ExceptionGroup("", [KeyError()])]
    )
    assert DEFAULT_KINDS.of(hopeful) is ErrorKind.TRANSIENT
    assert DEFAULT_KINDS.of(hopeless) is ErrorKind.SYSTEM


def test_classes_that_are_made_while_it_runs_do_not_fill_the_memory() -> None:
    kinds = ErrorKinds({OSError: ErrorKind.TRANSIENT})
    for number in range(5000):
        made = type(f"Made{number}", (ConnectionError,), {})
        assert kinds.of(made()) is ErrorKind.TRANSIENT
    assert len(kinds._known) <= 1000


def test_an_extended_table_knows_more_and_leaves_the_one_it_came_from_alone() -> None:
    class Flaky(RuntimeError):
        pass

    class VeryFlaky(Flaky):
        pass

    taught = DEFAULT_KINDS.extended({Flaky: "transient", OSError: ErrorKind.TRANSIENT})
    assert taught.of(VeryFlaky()) is ErrorKind.TRANSIENT
    assert taught.of(OSError(errno.ENOSPC, "full")) is ErrorKind.TRANSIENT
    assert taught.of(FileNotFoundError()) is ErrorKind.PERMANENT
    assert DEFAULT_KINDS.of(VeryFlaky()) is ErrorKind.SYSTEM
