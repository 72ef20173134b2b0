"""What a runtime breaks on purpose: nodes that crash now, plans that hold for a while."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from treewarden.clock import wall_ns
from treewarden.errors import ConfigError, NameUnknown
from treewarden.exits import Fault

from .crash import InjectedCrash
from .points import load_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from .crash import Breakable
    from .plan import InjectionPlan
    from .points import Loaded


def _nobody() -> bool:
    return False


def _never(_: float, __: Callable[[], None]) -> None:
    """There is no clock here: a lease that is over is noticed at the next reach."""


class Injections:
    """What can be broken, and how often it was.

    `find` is asked for the node to crash, `report` is told of a crash, `record` of plans;
    `cancel` kills the running child, and `later` calls back after so many seconds.
    """

    def __init__(
        self,
        find: Callable[[str], Breakable],
        report: Callable[[Fault, str], None],
        *,
        record: Callable[[str, dict[str, Any]], None] | None = None,
        cancel: Callable[[], bool] = _nobody,
        later: Callable[[float, Callable[[], None]], object] = _never,
    ) -> None:
        self._find = find
        self._report = report
        self._record = record
        self._cancel = cancel
        self._later = later
        self._loaded: dict[str, Loaded] = {}
        self.crashes = 0

    @property
    def loaded(self) -> list[Loaded]:
        """The plans that are in force, oldest first."""
        return list(self._loaded.values())

    def crash(self, path: str, *, by: str = "") -> Fault:
        """Crash the node at `path` (or of that unique id); returns the fault it gets.

        Raises:
            NameUnknown, NameAmbiguous: there is no such node.
            NotRunning: it does not run; nothing was done.
        """
        target = self._find(path)
        fault = Fault(
            type=f"{InjectedCrash.__module__}.{InjectedCrash.__qualname__}",
            message=f"injected by {by}" if by else "injected",
            path=target.path,
            incarnation=target.incarnation,
            at_ns=wall_ns(),
        )
        target.crash(fault)
        self.crashes += 1
        self._report(fault, by)
        return fault

    def load(self, plan: InjectionPlan, *, by: str = "") -> Loaded:
        """Put a plan in force; it ends with its lease, with `lift` or with the runtime.

        Raises:
            ConfigError: a plan of that name is in force.
        """
        if plan.name in self._loaded:
            raise ConfigError(
                f"the plan {plan.name!r} is loaded already; lift it first"
            )
        loaded = load_plan(plan, cancel=self._cancel, by=by)
        self._loaded[plan.name] = loaded
        deeds = [f"{rule.do} at {rule.point}" for rule in plan.injections]
        self._note(
            "injection.loaded", loaded, {"seconds": plan.seconds, "deeds": deeds}
        )
        self._later(plan.seconds, partial(self._lift, loaded))
        return loaded

    def lift(self, name: str) -> Loaded:
        """End the plan of that name now; what it did stays done.

        Raises:
            NameUnknown: no such plan is in force.
        """
        loaded = self._loaded.get(name)
        if loaded is None:
            raise NameUnknown(name, f"no plan {name!r} is loaded")
        self._lift(loaded)
        return loaded

    def lift_all(self) -> None:
        """End every plan: the runtime is going."""
        for loaded in self.loaded:
            self._lift(loaded)

    def _lift(self, loaded: Loaded) -> None:
        if self._loaded.get(loaded.plan.name) is loaded:
            del self._loaded[loaded.plan.name]
            loaded.lift()
            self._note("injection.lifted", loaded, {"done": loaded.done})

    def _note(self, topic: str, loaded: Loaded, more: dict[str, Any]) -> None:
        if self._record is not None:
            self._record(topic, {"plan": loaded.plan.name, "by": loaded.by, **more})
