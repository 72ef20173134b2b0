"""What to stop and what to start when a child has ended: pure plans, no tasks.

The three strategies are OTP's. `one_for_one` touches the child alone, `one_for_all`
everybody, `rest_for_one` the child and those started after it. Stops are in reverse start
order and all done before the first start. A group restart revives every non-temporary
sibling in range, also one that had ended normally or was stopped by hand, as in OTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from treewarden.exits import Exit, is_abnormal

if TYPE_CHECKING:
    from collections.abc import Sequence


class Strategy(StrEnum):
    """Whom a child's end takes along."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Restart(StrEnum):
    """When a child is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class AutoShutdown(StrEnum):
    """Which significant children end their supervisor when they end by themselves."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a plan needs to know of a child."""

    id: str
    restart: Restart
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ids to stop, in order; then ids to forget; then ids to start, in order."""

    stops: tuple[str, ...] = ()
    forgets: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()


def is_restarted(restart: Restart, exit_: Exit) -> bool:
    """Whether a child of this restart type that ended so is started again."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return is_abnormal(exit_)
        case Restart.TEMPORARY:
            return False


def is_finished(mode: AutoShutdown, *, others: bool) -> bool:
    """Whether a supervisor's work is done, now that a significant child is gone for good.

    `others` says whether another significant child runs or is about to be restarted.
    """
    match mode:
        case AutoShutdown.NEVER:
            return False
        case AutoShutdown.ANY_SIGNIFICANT:
            return True
        case AutoShutdown.ALL_SIGNIFICANT:
            return not others


def plan_restart(strategy: Strategy, members: Sequence[Member], ended: str) -> Plan:
    """The plan for restarting `ended`, one of `members` (in start order)."""
    if strategy is Strategy.ONE_FOR_ONE:
        return Plan(starts=(ended,))
    first = 0
    if strategy is Strategy.REST_FOR_ONE:
        first = next(n for n, member in enumerate(members) if member.id == ended)
    group = members[first:]
    return Plan(
        stops=tuple(
            member.id
            for member in reversed(group)
            if member.running and member.id != ended
        ),
        forgets=tuple(m.id for m in group if m.restart is Restart.TEMPORARY),
        starts=tuple(m.id for m in group if m.restart is not Restart.TEMPORARY),
    )
