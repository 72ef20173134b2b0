"""What sort of failure an exception is, and what is usually done about it.

Five kinds, closed, each with one recovery that suits it unless somebody knows better. An
exception finds its kind by its class: the nearest of its bases that the table names. The
table is a value; a program that knows more extends it and passes the extended one on, so
that no import changes how somebody else's errors are treated.

One kind too coarse is a failure too often tried again; so what the table does not know is
`system`, a bug until somebody says otherwise, and a group of exceptions is of the kind
that can least be helped among its members.
"""

from __future__ import annotations

import errno
import socket
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from treewarden.errors import (
    AgentDown,
    AlreadyApplied,
    Backpressure,
    BadArguments,
    BulkheadFull,
    CircuitOpen,
    ConfigError,
    DeliveryFailed,
    HttpFailed,
    HttpRefused,
    LeadershipLost,
    LockHeld,
    LockLost,
    MailboxFull,
    NameAmbiguous,
    NameTaken,
    NameUnknown,
    NoSuitableAgent,
    NotAdmitted,
    NotRunning,
    PoolFull,
    ProgramFailed,
    ProgramRefused,
    RateLimited,
    Refused,
    RegistryFull,
    ResourceExhausted,
    RetriesExhausted,
    ShuttingDown,
    StateNotEncodable,
    StoreBroken,
    StoreBusy,
    TooManyChildren,
    TransactionConflict,
    TransactionMisuse,
    UnknownOperation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Recovery(StrEnum):
    """What to do about a failure."""

    RETRY = "retry"
    CIRCUIT_BREAK = "circuit_break"
    FALLBACK = "fallback"
    PROPAGATE = "propagate"
    COMPENSATE = "compensate"


class ErrorKind(StrEnum):
    """What sort of failure it is, the most hopeful first."""

    TRANSIENT = "transient"
    """It may well work the next time: a lost connection, a late answer."""
    RESOURCE = "resource"
    """Something is full or used up; trying at once makes it worse."""
    PERMANENT = "permanent"
    """The answer is no, and stays no: not found, not allowed."""
    VALIDATION = "validation"
    """What was asked makes no sense; the one who asks has to change."""
    SYSTEM = "system"
    """Something is broken: a bug, or what nobody has classified."""

    @property
    def recovery(self) -> Recovery:
        """What is done about it, unless somebody knows better."""
        return _RECOVERIES[self]


_RECOVERIES: Final[Mapping[ErrorKind, Recovery]] = MappingProxyType(
    {
        ErrorKind.TRANSIENT: Recovery.RETRY,
        ErrorKind.RESOURCE: Recovery.CIRCUIT_BREAK,
        ErrorKind.PERMANENT: Recovery.PROPAGATE,
        ErrorKind.VALIDATION: Recovery.PROPAGATE,
        ErrorKind.SYSTEM: Recovery.COMPENSATE,
    }
)

_KNOWN: Final = 1000

_HOPE: Final = {kind: place for place, kind in enumerate(ErrorKind)}


class ErrorKinds:
    """Which class of exceptions is of which kind; subclasses follow their nearest base.

    `kinds.of(error)` looks one up. `DEFAULT_KINDS` knows Python's, trio's and treewarden's
    own exceptions; `DEFAULT_KINDS.extended({...})` is how to teach it others.
    """

    __slots__ = ("_known", "_table")

    def __init__(self, table: Mapping[type[BaseException], ErrorKind | str]) -> None:
        """A table of classes.

        Raises:
            TypeError: a key is no class of exceptions.
            ValueError: a value is no kind; the message lists them.
        """
        self._table = {_error(cls): _kind(cls, kind) for cls, kind in table.items()}
        # What was looked up before.
        self._known: dict[type[BaseException], ErrorKind] = {}

    def extended(
        self, table: Mapping[type[BaseException], ErrorKind | str]
    ) -> ErrorKinds:
        """A table that knows these as well; where both name a class, these count.

        Raises:
            TypeError, ValueError: as when a table is made.
        """
        return ErrorKinds({**self._table, **table})

    def of(self, error: BaseException) -> ErrorKind:
        """The kind of one exception; of a group, the least hopeful of its members.

        A plain `OSError` says what it is by its number.
        """
        if isinstance(error, BaseExceptionGroup):
            return max(
                (self.of(one) for one in error.exceptions), key=_HOPE.__getitem__
            )
        kind = self.of_class(type(error))
        if kind is ErrorKind.SYSTEM and isinstance(error, OSError):
            return _OF_NUMBER.get(error.errno or 0, kind)
        return kind

    def of_class(self, cls: type[BaseException]) -> ErrorKind:
        """The kind of a class of exceptions that are not groups."""
        kind = self._known.get(cls)
        if kind is None:
            if len(self._known) >= _KNOWN:
                # Somebody makes classes while the program runs; they must not stay.
                self._known.clear()
            kind = self._known[cls] = self._look_up(cls)
        return kind

    def _look_up(self, cls: type[BaseException]) -> ErrorKind:
        for base in cls.__mro__:
            if base in self._table:
                return self._table[base]
        return ErrorKind.SYSTEM


def _error(cls: object) -> type[BaseException]:
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        raise TypeError(f"expected a class of exceptions, not {cls!r}")
    return cls


def _kind(cls: type[BaseException], kind: object) -> ErrorKind:
    try:
        return ErrorKind(kind)  # type: ignore[arg-type] # what it refuses, we explain
    except ValueError:
        names = ", ".join(ErrorKind)
        raise ValueError(
            f"the kind of {cls.__name__} must be one of {names}, not {kind!r}"
        ) from None


_TRANSIENT, _RESOURCE, _PERMANENT, _VALIDATION, _SYSTEM = ErrorKind

_OF_NUMBER: Final[Mapping[int, ErrorKind]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                errno.ENETDOWN,
                errno.ENETUNREACH,
                errno.EHOSTDOWN,
                errno.EHOSTUNREACH,
                socket.EAI_AGAIN,
            ),
            _TRANSIENT,
        ),
        **dict.fromkeys(
            (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EMFILE,
                errno.ENFILE,
                errno.ENOMEM,
                errno.ENOBUFS,
            ),
            _RESOURCE,
        ),
        **dict.fromkeys((errno.EROFS, socket.EAI_NONAME), _PERMANENT),
    }
)

DEFAULT_KINDS: Final = ErrorKinds(
    {
        # Every treewarden error that a deadline raised is a TooSlowError, too.
        **dict.fromkeys(
            (
                TimeoutError,
                ConnectionError,
                BlockingIOError,
                InterruptedError,
                trio.TooSlowError,
                trio.BrokenResourceError,
                DeliveryFailed,
                HttpFailed,
                NotRunning,
                TransactionConflict,
            ),
            _TRANSIENT,
        ),
        **dict.fromkeys(
            (
                MemoryError,
                trio.WouldBlock,
                Backpressure,
                BulkheadFull,
                ResourceExhausted,
                CircuitOpen,
                LockHeld,
                MailboxFull,
                NoSuitableAgent,
                PoolFull,
                RateLimited,
                RegistryFull,
                StoreBroken,
                StoreBusy,
                TooManyChildren,
            ),
            _RESOURCE,
        ),
        **dict.fromkeys(
            (
                FileExistsError,
                FileNotFoundError,
                IsADirectoryError,
                NotADirectoryError,
                NotImplementedError,
                PermissionError,
                AgentDown,
                AlreadyApplied,
                HttpRefused,
                LeadershipLost,
                LockLost,
                NameAmbiguous,
                NameTaken,
                NameUnknown,
                NotAdmitted,
                ProgramFailed,
                ProgramRefused,
                Refused,
                # Tried often enough; a retry around a retry would multiply.
                RetriesExhausted,
                ShuttingDown,
            ),
            _PERMANENT,
        ),
        **dict.fromkeys(
            (
                TypeError,
                ValueError,
                msgspec.ValidationError,
                BadArguments,
                ConfigError,
                StateNotEncodable,
                TransactionMisuse,
                UnknownOperation,
            ),
            _VALIDATION,
        ),
    }
)
"""Python's, trio's and treewarden's own exceptions."""
