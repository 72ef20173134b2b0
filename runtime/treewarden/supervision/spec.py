"""What a child is: specifications, checked when they are written, not when they run.

A specification is data. Building one starts nothing, and a wrong one is refused where it
stands, with the value in the message (OTP's `check_childspecs`, done at construction).
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import CodeType, FunctionType
from typing import Final, TypeVar, cast

from treewarden.config import valid_name
from treewarden.errors import ConfigError
from treewarden.ids import CHILD_ID
from treewarden.resilience import Backoff

from .importable import freeze, import_path
from .intensity import Intensity
from .strategy import AutoShutdown, Restart, Strategy

_DEFAULT_SHUTDOWN: Final = 5.0
_DEFAULT_START: Final = 30.0
# What a child can be started from, for whoever gave something else.
_STARTS: Final = (
    "an Agent subclass, an async function, an async context manager factory "
    "or a supervisor's spec"
)
_E = TypeVar("_E", bound=StrEnum)


class Start(StrEnum):
    """The kinds of thing that a child can be started from."""

    AGENT = "agent"
    FUNCTION = "function"
    RESOURCE = "resource"
    SUPERVISOR = "supervisor"


class Isolation(StrEnum):
    """What a child shares with its siblings: the process, or nothing."""

    TASK = "task"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start, restart and stop one child.

    `start` is an Agent subclass, an async function (ready when spawned or, if its
    signature names `task_status`, when it says so), an async context manager factory, a
    SupervisorSpec or a DynamicSupervisorSpec. `args` and `kwargs` are given at every
    start, the same objects each time: what one incarnation changes in them the next one
    sees. `start_timeout` is how many seconds it has to become ready: 30, and for ever for
    supervisors, unless it is given. `shutdown` is how many it has to clean up: 0 cuts it
    off at once, None means 5 s, and for ever for supervisors. `intensity` gives the child
    a budget of its own (one_for_one supervisors only). `backoff` waits between attempts to
    restart; each attempt counts. The end of a `significant` child can end its supervisor,
    whose `auto_shutdown` says so; it is transient or temporary, for a permanent one never
    ends.

    `isolation="process"` runs the function in an interpreter of its own. It is the only
    true kill: a task that never awaits, or swallows its cancellation, can only be waited
    for, a process is gone at the end of its shutdown time. `start` is then an async
    function at the top of a module (which may well block: it has the process to itself),
    or its import path (`"package.module:name"`); its arguments, and what it is ready
    with, are values that msgspec can encode, and it has no runtime.

    Raises:
        TypeError, ValueError: a field is wrong; the message shows the value.
    """

    id: str
    start: object
    args: Sequence[object] = field(default=(), kw_only=True)
    kwargs: Mapping[str, object] = field(default_factory=dict, kw_only=True)
    restart: str = field(default=Restart.PERMANENT, kw_only=True)
    shutdown: float | None = field(default=None, kw_only=True)
    significant: bool = field(default=False, kw_only=True)
    start_timeout: float = field(default=_DEFAULT_START, kw_only=True)
    isolation: str = field(default=Isolation.TASK, kw_only=True)
    intensity: Intensity | None = field(default=None, kw_only=True)
    backoff: Backoff | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what cannot be a child; what was not given needs no look."""
        check_id(self.id)
        if self.isolation is not Isolation.TASK:
            isolation = _choice(Isolation, f"{self.id}: isolation", self.isolation)
            _set(self, "isolation", isolation)
        kind = None
        if self.isolation is Isolation.PROCESS:
            import_path(self.id, self.start)
        else:
            kind = classify(self.id, self.start)
        if type(self.args) is not tuple:
            _set(self, "args", _tuple(self.id, self.args))
        _check_kwargs(self)
        if self.restart is not Restart.PERMANENT:
            _set(self, "restart", _choice(Restart, f"{self.id}: restart", self.restart))
        if self.shutdown is not None:
            _seconds(f"{self.id}: shutdown", self.shutdown, zero=True)
        if self.significant is not False:
            _check_significant(self)
        if self.start_timeout is not _DEFAULT_START:
            _seconds(f"{self.id}: start_timeout", self.start_timeout, zero=False)
        elif kind is Start.SUPERVISOR:
            # Each child below has a limit of its own; OTP sets no other, either.
            _set(self, "start_timeout", math.inf)
        if self.intensity is not None:
            _instance(f"{self.id}: intensity", self.intensity, Intensity)
        if self.backoff is not None:
            _instance(f"{self.id}: backoff", self.backoff, Backoff)
        if kind is Start.SUPERVISOR and (self.args or self.kwargs):
            raise ValueError(f"{self.id}: a supervisor takes no args or kwargs")
        if self.isolation is Isolation.PROCESS:
            freeze(self.id, self.start, self.args, self.kwargs)

    def shutdown_seconds(self) -> float:
        """The shutdown time in force."""
        if self.shutdown is not None:
            return self.shutdown
        if isinstance(self.start, (SupervisorSpec, DynamicSupervisorSpec)):
            return math.inf
        return _DEFAULT_SHUTDOWN


@dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """A supervisor with a fixed list of children, started in order.

    With more restarts than its `intensity` allows it gives up: it stops its children, in
    reverse order, and ends as crashed with `IntensityExceeded`. So its own supervisor
    starts it again unless it is temporary. (In OTP it ends with `shutdown`, and a transient
    one stays down, with all below it.)

    With `auto_shutdown` it stops, its other children in reverse order, when "any" or "all"
    of its significant children have ended by themselves and are not restarted. Its exit is
    Shutdown: no error, so that of its own restart types only permanent brings it back.
    """

    children: Sequence[ChildSpec] = ()
    strategy: str = field(default=Strategy.ONE_FOR_ONE, kw_only=True)
    intensity: Intensity = field(default_factory=Intensity, kw_only=True)
    auto_shutdown: str = field(default=AutoShutdown.NEVER, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse wrong children, duplicate ids, unknown strategies."""
        _set(self, "children", check_children(self.children))
        _set(self, "strategy", _choice(Strategy, "strategy", self.strategy))
        mode = _choice(AutoShutdown, "auto_shutdown", self.auto_shutdown)
        _set(self, "auto_shutdown", mode)
        if not isinstance(self.intensity, Intensity):
            raise TypeError(f"intensity must be an Intensity, not {self.intensity!r}")
        for child in self.children:
            self.check_child(child)

    def check_child(self, child: ChildSpec) -> None:
        """Refuse a child that asks for what this supervisor does not do."""
        if child.intensity and self.strategy != Strategy.ONE_FOR_ONE:
            raise ValueError(
                f"{child.id}: a budget of its own needs strategy one_for_one, "
                f"not {self.strategy}"
            )
        if child.significant and self.auto_shutdown == AutoShutdown.NEVER:
            raise ValueError(
                f"{child.id}: a significant child needs a supervisor with auto_shutdown "
                f'"any_significant" or "all_significant", not "never"'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSupervisorSpec:
    """A supervisor whose children come and go at run time; it starts with none.

    `child_intensity` gives each child a budget of its own, so that one bad child ends as
    failed and costs its siblings nothing; None: they all share `intensity`.

    With `remember` its children are rows in the store, and are started again, in the
    order of their first start, whenever the supervisor starts: in the next run, before
    the runtime is ready, and within one. A row is written before `start_child` returns
    and is gone with `terminate_child`, or with the child when it ends for good. A child
    is then started from what has an import path, with arguments that msgspec can encode.
    The rows belong to the supervisor's path, and stay when it is taken away.
    """

    max_children: float = math.inf
    intensity: Intensity = field(default_factory=Intensity)
    child_intensity: Intensity | None = field(default_factory=Intensity)
    remember: bool = False

    def __post_init__(self) -> None:
        """Refuse wrong numbers."""
        if isinstance(self.max_children, bool) or not (
            self.max_children == math.inf
            or (isinstance(self.max_children, int) and self.max_children >= 0)
        ):
            raise ValueError(
                f"max_children must be an int >= 0 or inf, not {self.max_children!r}"
            )
        if not isinstance(self.intensity, Intensity):
            raise TypeError(f"intensity must be an Intensity, not {self.intensity!r}")
        _instance("child_intensity", self.child_intensity, Intensity)
        if not isinstance(self.remember, bool):
            raise TypeError(f"remember must be a bool, not {self.remember!r}")

    def check_child(self, child: ChildSpec) -> None:
        """Refuse a child that asks for what a dynamic supervisor does not do."""
        if child.significant:
            raise ValueError(
                f"{child.id}: a dynamic supervisor has no significant children"
            )


@dataclass(frozen=True, slots=True)
class Application:
    """A named tree: what `run` and `open_runtime` start beside the system's own."""

    name: str
    children: Sequence[ChildSpec]
    strategy: str = field(default=Strategy.ONE_FOR_ONE, kw_only=True)
    intensity: Intensity = field(default_factory=Intensity, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what a supervisor refuses, and ids that the system tree has."""
        check_id(self.name, "an application's name")
        try:
            valid_name(self.name, "an application")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        _set(self, "children", self.supervisor().children)
        for child in self.children:
            if child.id in RESERVED:
                raise ValueError(
                    f"child id {child.id!r} is reserved; choose another name"
                )

    def supervisor(self) -> SupervisorSpec:
        """The application's own supervisor."""
        return SupervisorSpec(
            self.children, strategy=self.strategy, intensity=self.intensity
        )


RESERVED: Final = frozenset({"system", "application", "workflows"})
"""Ids that an application's own children cannot have: they are the runtime's."""


def check_id(id_: object, what: str = "a child's id") -> None:
    """Refuse an id that cannot be a word of a path."""
    if not isinstance(id_, str):
        raise TypeError(f"{what} must be a str, not {id_!r}")
    if not CHILD_ID.fullmatch(id_):
        raise ValueError(
            f"{what} must be 1 to 128 of A-Z a-z 0-9 _ . : @ + - "
            f"and begin with a letter, digit or _, not {id_!r}"
        )


def check_children(children: object) -> tuple[ChildSpec, ...]:
    """The children as a tuple, or why they are none."""
    if isinstance(children, (str, bytes, Mapping)) or not isinstance(
        children, Sequence
    ):
        raise TypeError(f"children must be a sequence of ChildSpec, not {children!r}")
    seen: set[str] = set()
    for child in children:
        if not isinstance(child, ChildSpec):
            raise TypeError(f"a child must be a ChildSpec, not {child!r}")
        if child.id in seen:
            raise ValueError(f"two children have the id {child.id!r}")
        seen.add(child.id)
    return tuple(children)


def classify(id_: str, start: object) -> Start:
    """What kind of thing `start` is; refuses what cannot be a child, with a hint."""
    if isinstance(start, (SupervisorSpec, DynamicSupervisorSpec)):
        return Start.SUPERVISOR
    if isinstance(start, type):
        if inspect.isabstract(start):
            lacks = ", ".join(sorted(getattr(start, "__abstractmethods__", ())))
            raise TypeError(
                f"{id_}: {start.__qualname__} is abstract; it lacks {lacks}"
            )
        if hasattr(start, "make_body"):
            return Start.AGENT
        if hasattr(start, "__aenter__"):
            return Start.RESOURCE
        raise TypeError(
            f"{id_}: {start.__qualname__} is no Agent subclass; start must be {_STARTS}"
        )
    if inspect.iscoroutine(start):
        start.close()
        raise TypeError(
            f"{id_}: start is a coroutine; give the function itself, with args=…"
        )
    if not callable(start):
        raise TypeError(f"{id_}: start must be {_STARTS}, not {start!r}")
    return _classify_callable(id_, start)


def _classify_callable(id_: str, start: Callable[..., object]) -> Start:
    function: object = start
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.iscoroutinefunction(function):
        return Start.FUNCTION
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and inspect.isasyncgenfunction(wrapped):
        return Start.RESOURCE
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{id_}: start is an async generator; decorate it with "
            "contextlib.asynccontextmanager"
        )
    raise TypeError(f"{id_}: start must be async: {_STARTS}, not {start!r}")


def says_ready(start: object) -> bool:
    """Whether a function's signature names `task_status`."""
    if isinstance(start, FunctionType) and not hasattr(start, "__wrapped__"):
        # What a signature would say, at a twentieth of the price.
        code = start.__code__
        return "task_status" in code.co_varnames[: _parameters(code)]
    try:
        signature = inspect.signature(cast("Callable[..., object]", start))
    except (TypeError, ValueError):
        return False
    return "task_status" in signature.parameters


def _parameters(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount


def _set(spec: object, name: str, value: object) -> None:
    object.__setattr__(spec, name, value)


def _tuple(id_: str, args: object) -> tuple[object, ...]:
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise TypeError(f"{id_}: args must be a sequence such as a tuple, not {args!r}")
    return tuple(args)


def _check_kwargs(child: ChildSpec) -> None:
    kwargs = child.kwargs
    if type(kwargs) is dict and not kwargs:
        return
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"{child.id}: kwargs must be a mapping, not {kwargs!r}")
    if not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"{child.id}: kwargs must have names, not {kwargs!r}")
    # As the arguments are a tuple: what is done to the mapping later changes nothing.
    _set(child, "kwargs", dict(kwargs))


def _choice(kind: type[_E], what: str, value: object) -> _E:
    try:
        return kind(cast("str", value))
    except ValueError:
        names = ", ".join(kind)
        raise ValueError(f"{what} must be one of {names}, not {value!r}") from None


def _check_significant(child: ChildSpec) -> None:
    if not isinstance(child.significant, bool):
        raise TypeError(
            f"{child.id}: significant must be a bool, not {child.significant!r}"
        )
    if child.significant and child.restart == Restart.PERMANENT:
        raise ValueError(
            f"{child.id}: a significant child must be transient or temporary; "
            "a permanent one never ends"
        )


def _seconds(what: str, value: object, *, zero: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {value!r}")
    if not (value >= 0 if zero else value > 0):
        raise ValueError(f"{what} must be {'>=' if zero else '>'} 0, not {value}")
    # Python's ints have no end; added to trio's clock such a one would be no time at all.
    if isinstance(value, int) and value > sys.float_info.max:
        raise ValueError(f"{what} must fit into a float, not {value}; inf is for ever")


def _instance(what: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{what} must be None or {kind.__name__}, not {value!r}")
