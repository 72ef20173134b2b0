"""Make a node crash now.

The crash is real: the task is cancelled where it stands, its exit is `Crash`, it counts
against the budget, and what was in hand is treated as after any crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from treewarden.exits import Fault


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
