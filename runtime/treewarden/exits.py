"""How a node ended: four exits, and the fault that a crash leaves behind.

The exits are Erlang's: a child returned (`Normal`), was asked to go (`Shutdown`), failed
(`Crash`) or did not go in time and was cut off (`Killed`). A `Fault` is what is kept of
an exception. It holds no live object: a kept exception keeps its frames, and with them
arguments and state, alive. Frames are recorded as (file, line, name) at the crash and
formatted when somebody reads them, because formatting costs five times a restart.
"""

from __future__ import annotations

import linecache
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

# A deep recursion has thousands of frames; its ends say what happened.
_HEAD_FRAMES = 10
_TAIL_FRAMES = 40
_MESSAGE_LIMIT = 2000
_CAUSE_DEPTH = 4
_GROUP_LIMIT = 10

Frame: TypeAlias = tuple[str, int, str]

_to_json: Final = msgspec.json.Encoder().encode


class Fault(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The record of one failure: what was raised, where, in whom and when.

    `frames` are (file, line, function), outermost first. Source lines shown by
    `format()` are read when it is called and may be newer than the crash. `rolled_back`:
    a commit failed, and whoever had uncommitted state went back to the committed one;
    that is nobody's crash.
    """

    # A struct, as the exits are: made in a fifth of a dataclass's time, on the way of
    # every restart, and out of the garbage collector's sight.
    type: str
    message: str
    frames: tuple[Frame, ...] = ()
    path: str = ""
    incarnation: int = 0
    at_ns: int = 0
    trace: str = ""
    cause: Fault | None = None
    rolled_back: bool = False

    @classmethod
    def capture(
        cls,
        error: BaseException,
        *,
        path: str = "",
        incarnation: int = 0,
        trace: str = "",
        below: int = 0,
    ) -> Fault:
        """Record `error` without keeping it, its traceback or its arguments.

        The outermost `below` frames are left out: those of whoever calls other people's
        code and catches what it raises, which explain nothing. Never fails, whatever the
        exception does when it is looked at: it is called where one failure must not
        become another.

        Raises:
            KeyboardInterrupt, SystemExit: it came while somebody's `__str__` ran.
        """
        at_ns = time.time_ns()
        try:
            return _record(error, path, incarnation, trace, at_ns, _CAUSE_DEPTH, below)
        except Exception:  # noqa: BLE001 - user code inside the crash path
            return _unseen(error, path, incarnation, trace, at_ns)

    def format(self) -> str:
        """The fault as Python would print it, causes first."""
        lines: list[str] = []
        if self.cause is not None:
            lines += [self.cause.format(), "", "The above led to this:", ""]
        if self.frames:
            lines.append("Traceback (most recent call last):")
        for file, line, name in self.frames:
            lines.append(f'  File "{file}", line {line}, in {name}')
            source = linecache.getline(file, line).strip()
            if source:
                lines.append(f"    {source}")
        lines.append(f"{self.type}: {self.message}" if self.message else self.type)
        return "\n".join(lines)

    def encode(self) -> bytes:
        """As it is kept: JSON, of fields by name."""
        return _to_json(self)

    def summary(self) -> str:
        """One line: the type, without its module, and the message."""
        name = self.type.rsplit(".", 1)[-1]
        return f"{name}: {self.message}" if self.message else name

    def where(self) -> str:
        """The innermost frame as `file:line`, or an empty string."""
        if not self.frames:
            return ""
        file, line, _ = self.frames[-1]
        return f"{file}:{line}"


def writable(text: str) -> str:
    """`text` as UTF-8 can hold it: lone surrogates, as in odd file names, as escapes.

    A record that no file takes would turn one failure into another, for ever.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _capture(
    error: BaseException,
    path: str,
    incarnation: int,
    trace: str,
    at_ns: int,
    depth: int,
) -> Fault:
    try:
        return _record(error, path, incarnation, trace, at_ns, depth, 0)
    except Exception:  # noqa: BLE001 - user code inside the crash path
        return _unseen(error, path, incarnation, trace, at_ns)


def _unseen(
    error: BaseException, path: str, incarnation: int, trace: str, at_ns: int
) -> Fault:
    return Fault(
        type=type(error).__name__,
        message=f"<{type(error).__name__} cannot be looked at>",
        path=path,
        incarnation=incarnation,
        at_ns=at_ns,
        trace=trace,
    )


def _record(
    error: BaseException,
    path: str,
    incarnation: int,
    trace: str,
    at_ns: int,
    depth: int,
    below: int = 0,
) -> Fault:
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return Fault(
        type=_name_of(type(error)),
        message=_message(error),
        frames=_frames(error.__traceback__, below),
        path=path,
        incarnation=incarnation,
        at_ns=at_ns,
        trace=trace,
        cause=_capture(cause, path, incarnation, trace, at_ns, depth - 1)
        if cause is not None and depth > 0
        else None,
    )


# What they are called, in one text for all of a kind; and for so many kinds.
_names: Final[dict[type[BaseException], str]] = {}
_NAMES: Final = 256


def _name_of(kind: type[BaseException]) -> str:
    try:
        name = _names.get(kind)
    except Exception:  # noqa: BLE001 - a class that cannot be hashed is a name's all the same
        return _full_name(kind)
    if name is None:
        name = _full_name(kind)
        if len(_names) >= _NAMES:
            _names.clear()
        _names[kind] = name
    return name


def _full_name(kind: type[BaseException]) -> str:
    module, name = kind.__module__, kind.__qualname__
    return writable(name if module == "builtins" else f"{module}.{name}")


def _message(error: BaseException, depth: int = _CAUSE_DEPTH) -> str:
    # A failing or huge __str__ must not turn one crash into another.
    try:
        text = _said(error, depth)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - user code inside the crash path
        return f"<{type(error).__name__}.__str__ failed>"
    text = writable(text)
    if len(text) > _MESSAGE_LIMIT:
        return f"{text[:_MESSAGE_LIMIT]}… ({len(text)} characters)"
    return text


def _said(error: BaseException, depth: int) -> str:
    # A str and nothing that inherits from it, with methods of its own.
    text = str.__str__(str(error))
    if not isinstance(error, BaseExceptionGroup) or depth == 0:
        return text
    inner = [
        f"{type(one).__name__}: {_message(one, depth - 1)}"
        for one in error.exceptions[:_GROUP_LIMIT]
    ]
    if len(error.exceptions) > _GROUP_LIMIT:
        inner.append(f"and {len(error.exceptions) - _GROUP_LIMIT} more")
    return f"{text}: {'; '.join(inner)}"


def _frames(traceback: TracebackType | None, below: int = 0) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    while below and traceback is not None and traceback.tb_next is not None:
        traceback, below = traceback.tb_next, below - 1
    while traceback is not None:
        code = traceback.tb_frame.f_code
        file = code.co_filename
        if not file.isascii():
            file = writable(file)
        frames.append((file, traceback.tb_lineno, code.co_name))
        traceback = traceback.tb_next
    if len(frames) > _HEAD_FRAMES + _TAIL_FRAMES:
        left_out = len(frames) - _HEAD_FRAMES - _TAIL_FRAMES
        marker: Frame = ("…", 0, f"{left_out} frames left out")
        frames = [*frames[:_HEAD_FRAMES], marker, *frames[-_TAIL_FRAMES:]]
    return _same_as_last(tuple(frames))


# Those of the last fault: a storm is of one kind, and its reports wait in thousands.
_last: Final[list[tuple[Frame, ...]]] = [()]


def _same_as_last(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The very object that was made last, if it is equal."""
    last = _last[0]
    if frames == last:
        return last
    _last[0] = frames
    return frames


class Normal(msgspec.Struct, frozen=True, gc=False):
    """It returned by itself."""


class Shutdown(msgspec.Struct, frozen=True, gc=False):
    """It was asked to stop, or chose to; never an error."""

    detail: str | None = None


class Crash(msgspec.Struct, frozen=True, gc=False):
    """It failed; `fault` says how."""

    fault: Fault


class Killed(msgspec.Struct, frozen=True, gc=False):
    """It did not end within its shutdown time and was cut off."""


Exit: TypeAlias = Normal | Shutdown | Crash | Killed


def as_exit(given: object) -> Exit:
    """What somebody wants to end with, if that is an exit, as a report can tell it.

    Raises:
        TypeError: it is none, or holds what an exit of its kind does not.
    """
    match given:
        case Shutdown(detail=str(detail)):
            return Shutdown(writable(detail))
        case Normal() | Killed() | Shutdown(detail=None) | Crash(fault=Fault()):
            return given
        case _:
            raise TypeError(
                "an exit is Normal(), Shutdown(detail), Crash(fault) with a Fault, or "
                f"Killed(), not {given!r}; to crash, raise an exception of your own"
            )


def is_abnormal(exit_: Exit) -> bool:
    """Whether a transient child that ended so is restarted."""
    return isinstance(exit_, (Crash, Killed))


def describe(exit_: Exit | None) -> str:
    """One line for people: `crashed: ValueError: no such page`."""
    match exit_:
        case None:
            return ""
        case Normal():
            return "returned"
        case Shutdown(detail=None):
            return "stopped"
        case Shutdown(detail=detail):
            return f"stopped: {detail}"
        case Crash(fault=fault) if fault.rolled_back:
            return f"rolled back: {fault.summary()}"
        case Crash(fault=fault):
            return f"crashed: {fault.summary()}"
        case Killed():
            return "killed"


def is_rolled_back(exit_: Exit | None) -> bool:
    """Whether it ended because a commit failed, and not by a fault of its own."""
    return isinstance(exit_, Crash) and exit_.fault.rolled_back


def said_of(exit_: Exit | None) -> str:
    """As `describe`, after somebody's name: a node never kills, it `was killed`."""
    passive = isinstance(exit_, Killed) or is_rolled_back(exit_)
    return f"was {describe(exit_)}" if passive else describe(exit_)
