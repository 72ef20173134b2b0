"""The permits of one key, given in the order of a line.

First come, first served: nobody overtakes, neither a light one a heavy one nor one who
only tries those who wait. A permit is taken from the rule at the moment it is given, never
ahead of it: who leaves the line has nothing to give back, and a loop that is late gives
its permits late instead of too many at once. Pure: time is passed in, and who asks for
anything while there is a line must `settle` it first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rate_limit import Rule


class Ticket:
    """A place in the line: its weight, since when, and whether its turn has come."""

    __slots__ = ("attended", "granted", "since", "weight")

    def __init__(self, weight: int, since: float) -> None:
        self.weight = weight
        self.since = since
        self.granted = False
        # Somebody waits for its turn. If nobody does, it gets its permit at the very
        # moment that was told, not when the lane is looked at the next time.
        self.attended = False


class Lane:
    """One key: its rule, the line before it, and until when it is to be left alone."""

    __slots__ = ("_last", "_line", "_penalty", "_rule", "_weight")

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._line: OrderedDict[Ticket, None] = OrderedDict()
        self._weight = 0
        self._penalty = self._last = -math.inf

    def __contains__(self, ticket: Ticket) -> bool:
        """Whether it stands in this line."""
        return ticket in self._line

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def head(self) -> Ticket | None:
        """The first in line for whom somebody waits."""
        return next((ticket for ticket in self._line if ticket.attended), None)

    def due(self, now: float) -> float:
        """When the first in line gets its permit; for ever off when there is none."""
        if not self._line:
            return math.inf
        return self._ready(now, next(iter(self._line)).weight)

    def delay(self, now: float, weight: int) -> float:
        """Seconds that one more, behind all who wait now, would have to wait."""
        return self._ready(now, self._weight + weight) - now

    def _ready(self, now: float, weight: int) -> float:
        return self._rule.ready(max(now, self._penalty), weight)

    def try_take(self, now: float, weight: int) -> bool:
        """Take a permit now, or not at all; not while somebody waits."""
        if self._line or now < self._penalty or self._rule.ready(now, weight) > now:
            return False
        self._take(now, weight)
        return True

    def _take(self, at: float, weight: int) -> None:
        self._rule.take(at, weight)
        self._last = at

    def join(self, ticket: Ticket) -> None:
        """Stand at the end of the line."""
        self._line[ticket] = None
        self._weight += ticket.weight

    def leave(self, ticket: Ticket) -> None:
        """Leave the line, wherever in it; nothing when its turn has come."""
        if ticket in self._line:
            del self._line[ticket]
            self._weight -= ticket.weight

    def settle(self, now: float) -> list[Ticket]:
        """Give permits to whose turn has come, and tell to whom."""
        granted = []
        while self._line:
            ticket = next(iter(self._line))
            asked = now if ticket.attended else max(ticket.since, self._last)
            at = self._ready(asked, ticket.weight)
            if at > now:
                break
            self._take(at, ticket.weight)
            self.leave(ticket)
            ticket.granted = True
            granted.append(ticket)
        return granted

    def penalise(self, until: float) -> None:
        """Give no permit before `until`; what was told before is never shortened."""
        self._penalty = max(self._penalty, until)

    def penalty(self, now: float) -> float:
        """Seconds for which it is to be left alone."""
        return max(0.0, self._penalty - now)

    def used(self, now: float) -> int:
        """How much of the capacity is used."""
        return self._rule.used(now)

    def is_quiet(self, now: float) -> bool:
        """Whether a fresh lane would do the same."""
        return not self._line and now >= self._penalty and self._rule.used(now) == 0

    def dump(self, now: float) -> tuple[float, list[tuple[float, int]]]:
        """The penalty in seconds, and what is used; see `Rule.dump`."""
        return self.penalty(now), self._rule.dump(now)

    def load(self, now: float, penalty: float, taken: list[tuple[float, int]]) -> None:
        """Take up what `dump` has told."""
        if penalty > 0:
            self.penalise(now + penalty)
        self._rule.load(now, taken)
