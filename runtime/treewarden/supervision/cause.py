"""Why a node was restarted: who ended first, how, and whom that took along."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from treewarden.clock import wall_ns
from treewarden.exits import Crash, Exit, Killed

if TYPE_CHECKING:
    from .node import Life, Node


class CauseKind(StrEnum):
    """Why an incarnation ended, as `why` tells it."""

    CRASH = "crash"
    KILLED = "killed"
    RETURNED = "returned"
    GROUP = "group"
    OPERATOR = "operator"
    INJECTION = "injection"
    ROLLBACK = "rollback"


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node was restarted last: who ended first, how, and whom it took along."""

    # A struct: one is made for every restart, in a quarter of a dataclass's time.
    kind: CauseKind
    origin: str
    exit: Exit
    at_ns: int
    by: str = ""
    took_down: tuple[str, ...] = ()


def cause_of(life: Life, exit_: Exit) -> Cause:
    """What follows from a life that ended by itself."""
    if life.rolled_back:
        kind = CauseKind.ROLLBACK
    elif life.injected is not None:
        kind = CauseKind.INJECTION
    else:
        kind = _kind_of(exit_)
    return Cause(kind=kind, origin=life.node.path, exit=exit_, at_ns=wall_ns())


def failed_start(node: Node, exit_: Exit) -> Cause:
    """What follows from a start that ended so."""
    kind = CauseKind.ROLLBACK if node.rolled_back else _kind_of(exit_)
    return Cause(kind=kind, origin=node.path, exit=exit_, at_ns=wall_ns())


def taking_down(cause: Cause, paths: tuple[str, ...]) -> Cause:
    """The same, for whom it began with: those at `paths` went along."""
    return replace(cause, took_down=paths)


def for_others(cause: Cause) -> Cause:
    """The same, for those that went along with whom it began with.

    Who they all were is told once, of him: of each of 2,000 it would be 54 MB of journal.
    """
    return replace(cause, kind=CauseKind.GROUP, took_down=())


def _kind_of(exit_: Exit) -> CauseKind:
    if type(exit_) is Crash:  # nearly always, and in a third of the time
        return CauseKind.CRASH
    match exit_:
        case Killed():
            return CauseKind.KILLED
        case _:
            return CauseKind.RETURNED
