"""Named places in the runtime that can be made to fail.

An `InjectionPoint` is a name and a call that does nothing unless a plan is loaded: an
attribute that is None, some 20 ns. While any plan is loaded, every point counts how often
it is reached, and those that the plan names kill the process, raise, stall or cancel the
child in whose turn they are reached. `POINTS` lists all of them: a drill's choice, and the
parameter list of the test that breaks the runtime at each (`spec/reliability.md`, A2).

Points belong to the process, not to a runtime. Some are reached in threads (the store's
writer, its readers, the exporter's), some in trio tasks at a place that may await, some in
plain code between two awaits; what each can do is in its `kinds`. Where the code around a
place promises that nothing can fail from there on, the point does not raise.

After SQLite's and DBOS's named trigger points.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
import time
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from .crash import InjectedCrash

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plan import InjectionPlan, Rule


class Deed(StrEnum):
    """What can be done at a point."""

    KILL = "kill"
    """The process dies at once, as by `kill -9`."""
    RAISE = "raise"
    """An error comes out of the place."""
    CANCEL = "cancel"
    """The child in whose turn it is reached is killed: cancelled, and restarted."""
    STALL = "stall"
    """Nothing goes on for a while; trio's own time where the place may await."""


class Home(StrEnum):
    """Who reaches a point."""

    THREAD = "thread"
    TASK = "task"
    TURN = "turn"


_SQLITE: Final = {
    "io": (sqlite3.OperationalError, sqlite3.SQLITE_IOERR, "disk I/O error"),
    "full": (sqlite3.OperationalError, sqlite3.SQLITE_FULL, "database or disk is full"),
    "busy": (sqlite3.OperationalError, sqlite3.SQLITE_BUSY, "database is locked"),
    "row": (sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT, "constraint failed"),
}
_CRASH: Final = "crash"
_ERRNOS: Final = {name: number for number, name in errno.errorcode.items()}
ERRORS: Final = frozenset({*_SQLITE, _CRASH, *_ERRNOS})
"""What a point can raise: SQLite's I/O error, full disk, lock or refused row; `crash`;
an OSError by the name of its number."""

# One decision at a time: points are reached in several threads.
_lock = threading.Lock()


def _error(name: str, point: str) -> Exception:
    if name in _SQLITE:
        kind, code, words = _SQLITE[name]
        failure = kind(f"{words} (injected at {point})")
        failure.sqlite_errorcode = code
        return failure
    if name in _ERRNOS:
        number = _ERRNOS[name]
        return OSError(number, f"{os.strerror(number)} (injected at {point})")
    return InjectedCrash(f"injected at {point}")


class InjectionPoint:
    """A place that can fail; `error` names what it raises unless a plan says otherwise."""

    __slots__ = ("about", "armed", "error", "home", "kinds", "name", "reached")

    def __init__(
        self, name: str, about: str, home: Home, kinds: frozenset[Deed], error: str
    ) -> None:
        self.name = name
        self.about = about
        self.home = home
        self.kinds = kinds
        self.error = error
        self.reached = 0
        """How often it was reached while a plan was loaded."""
        self.armed: tuple[Armed, ...] | None = None
        """What is to be done here; None while no plan is loaded in this process."""

    def __repr__(self) -> str:
        """For debuggers and failing tests."""
        return f"<InjectionPoint {self.name}>"

    def reach(self) -> None:
        """Do what a plan wants here; in any thread. Nothing without a plan.

        Raises:
            sqlite3.Error, OSError, InjectedCrash: the plan says so.
        """
        if self.armed is not None:
            armed = self._due()
            if armed is not None and not self._act(armed):
                time.sleep(armed.rule.delay)

    async def pass_by(self) -> None:
        """As `reach`, in a task, where a stall is trio's sleep.

        A checkpoint only when something is done.
        """
        if self.armed is not None:
            armed = self._due()
            if armed is not None and not self._act(armed):
                await trio.sleep(armed.rule.delay)
            elif armed is not None:
                await trio.lowlevel.checkpoint_if_cancelled()

    def _due(self) -> Armed | None:
        with _lock:
            self.reached += 1
            for armed in self.armed or ():
                if armed.is_due():
                    return armed
        return None

    def _act(self, armed: Armed) -> bool:
        """Do it; False when it is to stall."""
        match armed.rule.do:
            case Deed.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Deed.RAISE:
                raise _error(armed.rule.error or self.error, self.name)
            case Deed.CANCEL:
                if not armed.cancel():
                    armed.undone()
            case Deed.STALL:
                return False
        return True


class Armed:
    """One rule of a loaded plan at one point."""

    __slots__ = ("_random", "cancel", "done", "rule", "seen", "until")

    def __init__(self, rule: Rule, until: float, cancel: Callable[[], bool]) -> None:
        self.rule = rule
        self.until = until
        self.cancel = cancel
        self.seen = self.done = 0
        self._random = Random(rule.seed)  # noqa: S311 - a repeatable choice, no secret

    def is_due(self) -> bool:
        """Count a reach; whether the rule is to be carried out at this one."""
        rule = self.rule
        self.seen += 1
        if self.seen < rule.nth or (rule.times and self.done >= rule.times):
            return False
        if rule.probability < 1.0 and self._random.random() >= rule.probability:
            return False
        # A lease that has run out counts for nothing, whoever forgot to end it.
        if time.monotonic() >= self.until:
            return False
        self.done += 1
        return True

    def undone(self) -> None:
        """There was nobody to cancel here: the next reach is to be tried."""
        with _lock:
            self.done -= 1


class Loaded:
    """A plan that is in force, until `lift` or the end of its lease."""

    def __init__(
        self, plan: InjectionPlan, cancel: Callable[[], bool], by: str = ""
    ) -> None:
        self.plan = plan
        self.by = by
        self.until = time.monotonic() + plan.seconds
        self._rules = [
            (POINTS[name], Armed(rule, self.until, cancel))
            for rule in plan.injections
            for name in rule.points()
        ]
        with _lock:
            _loaded.append(self)
            _arm()

    @property
    def seconds_left(self) -> float:
        """What is left of the lease; 0 when it is over."""
        return max(0.0, self.until - time.monotonic())

    @property
    def done(self) -> int:
        """How many times it broke something."""
        return sum(armed.done for _, armed in self._rules)

    def deeds(self) -> list[tuple[InjectionPoint, Armed]]:
        """Each point it names, with the rule there and what became of it."""
        return list(self._rules)

    def lift(self) -> None:
        """End it; doing so twice is no error."""
        with _lock:
            if self in _loaded:
                _loaded.remove(self)
                _arm()


_loaded: list[Loaded] = []


def _arm() -> None:
    by_point: dict[InjectionPoint, list[Armed]] = {}
    for loaded in _loaded:
        for point, armed in loaded.deeds():
            by_point.setdefault(point, []).append(armed)
    for point in POINTS.values():
        point.armed = tuple(by_point.get(point, ())) if _loaded else None


def _nobody() -> bool:
    return False


def load_plan(
    plan: InjectionPlan, *, cancel: Callable[[], bool] = _nobody, by: str = ""
) -> Loaded:
    """Put a plan in force in this process, now.

    `cancel` kills the running child and says whether there was one. A runtime has its
    own way, which reports it: `runtime.injections.load`.
    """
    return Loaded(plan, cancel, by)


POINTS: Final[dict[str, InjectionPoint]] = {}
"""Every point, by name, in the order in which work passes them."""

_ANYWHERE: Final = frozenset({Deed.KILL, Deed.STALL})


def in_thread(
    name: str, about: str, error: str = "io", *, fails: bool = True
) -> InjectionPoint:
    """A place that a thread reaches; `fails`: an error may come out of it."""
    kinds = _ANYWHERE | {Deed.RAISE} if fails else _ANYWHERE
    return _add(InjectionPoint(name, about, Home.THREAD, kinds, error))


def in_task(name: str, about: str, error: str = _CRASH) -> InjectionPoint:
    """A place in a task that may await: `pass_by`."""
    return _add(InjectionPoint(name, about, Home.TASK, frozenset(Deed), error))


def in_turn(name: str, about: str, *kinds: Deed, error: str = _CRASH) -> InjectionPoint:
    """A place in plain code of trio's thread; `kinds`: what more than kill and stall."""
    return _add(InjectionPoint(name, about, Home.TURN, _ANYWHERE.union(kinds), error))


def _add(point: InjectionPoint) -> InjectionPoint:
    if point.name in POINTS:
        raise ValueError(f"there are two points named {point.name}")
    POINTS[point.name] = point
    return point
