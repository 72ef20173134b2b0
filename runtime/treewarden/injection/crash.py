"""Make a node crash now.

The crash is real: the task is cancelled where it stands, its exit is `Crash`, it counts
against the budget, and what was in hand is treated as after any crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from treewarden.clock import wall_ns
from treewarden.exits import Fault

if TYPE_CHECKING:
    from collections.abc import Callable


class InjectedCrash(Exception):
    """The type that an injected crash's fault names."""


class Breakable(Protocol):
    """What an injection asks of the tree."""

    @property
    def path(self) -> str:
        """Where it stands."""
        ...

    @property
    def incarnation(self) -> int:
        """Which life it is in."""
        ...

    def crash(self, fault: Fault) -> None:
        """Fail now, with this fault; raises NotRunning when there is nothing to fail."""
        ...


class Injections:
    """What can be broken, and how often it was."""

    def __init__(
        self,
        find: Callable[[str], Breakable],
        report: Callable[[Fault, str], None],
    ) -> None:
        self._find = find
        self._report = report
        self.crashes = 0

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
