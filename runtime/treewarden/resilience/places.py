"""A bounded number of places, and the line of those who want one.

The higher priority first, and within a priority first come, first served. Nobody is
passed over because of its weight: a heavy one at the head keeps the lighter ones behind it
waiting, or it would never get in. One that is heavier than the limit, which may have
shrunk, gets in when nobody else is.

A share of the places may be set apart for a group of callers, so that the others cannot
crowd them out: what a group has not taken of its own is for nobody else, and who stands
behind somebody that does not fit gets in on what its group has left, and on nothing else.

Pure: it says who gets in, somebody else tells them.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from math import floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUNDING: Final = 1e-9
_NO_SHARES: Final[Mapping[str, float]] = MappingProxyType({})


class Claim:
    """Wants places for one call: how many, how urgently, for whom, and if it has them."""

    __slots__ = ("granted", "group", "number", "priority", "weight")

    def __init__(self, weight: int, priority: int, group: str = "") -> None:
        self.weight = weight
        self.priority = priority
        self.group = group
        self.granted = False
        self.number = 0


class Places:
    """How many are taken, and who waits. What is taken must be released once.

    `shares` are the parts of the limit, in all at most 1, that are set apart for groups.
    """

    __slots__ = (
        "_lines",
        "_numbers",
        "_shares",
        "_taken_by",
        "limit",
        "taken",
        "waiting",
    )

    def __init__(self, limit: int, shares: Mapping[str, float] = _NO_SHARES) -> None:
        self.limit = limit
        self.taken = 0
        self.waiting = 0
        self._shares = shares
        self._taken_by = dict.fromkeys(shares, 0)
        self._lines: dict[tuple[int, str], OrderedDict[Claim, None]] = {}
        self._numbers = count()

    def set_apart(self, group: str) -> int:
        """How many places are a group's own, at the limit of now."""
        # A share of 0.29 of 100 is 29, though the product is a hair less.
        return floor(self.limit * self._shares.get(group, 0.0) + _ROUNDING)

    def taken_by(self, group: str) -> int:
        """How many places a group that has a share has taken."""
        return self._taken_by[group]

    def try_take(self, weight: int, priority: int, group: str = "") -> bool:
        """Take places now, or none; not past somebody who is as urgent and waits."""
        if self.waiting and max(self._lines)[0] >= priority:
            ahead = any(
                urgency >= priority and own == group for urgency, own in self._lines
            )
            if ahead or not self._has_own(weight, group):
                return False
        elif not self._has_room(weight, group):
            return False
        self._take(weight, group)
        return True

    def _take(self, weight: int, group: str) -> None:
        self.taken += weight
        if group in self._taken_by:
            self._taken_by[group] += weight

    def _has_room(self, weight: int, group: str) -> bool:
        room = self.limit - self.taken
        if self._shares:
            room -= sum(
                self._left_of(other) for other in self._shares if other != group
            )
        return weight <= room or not self.taken

    def _has_own(self, weight: int, group: str) -> bool:
        return group in self._shares and weight <= min(
            self._left_of(group), self.limit - self.taken
        )

    def _left_of(self, group: str) -> int:
        return max(0, self.set_apart(group) - self._taken_by[group])

    def join(self, claim: Claim) -> None:
        """Stand in line, behind all who are as urgent."""
        claim.number = next(self._numbers)
        line = self._lines.setdefault((claim.priority, claim.group), OrderedDict())
        line[claim] = None
        self.waiting += 1

    def withdraw(self, claim: Claim) -> list[Claim]:
        """Leave the line, or give back what was got there; who gets in by that."""
        if claim.granted:
            return self.release(claim.weight, claim.group)
        if claim in self._lines.get((claim.priority, claim.group), ()):
            self._remove(claim)
        return self.admit()

    def release(self, weight: int, group: str = "") -> list[Claim]:
        """Give places back; who gets in by that."""
        self._take(-weight, group)
        return self.admit() if self.waiting else []

    def admit(self) -> list[Claim]:
        """Let in who has room now; to be called when the limit has changed."""
        admitted = []
        while (claim := self._next()) is not None:
            self._remove(claim)
            self._take(claim.weight, claim.group)
            claim.granted = True
            admitted.append(claim)
        return admitted

    def _next(self) -> Claim | None:
        """Who gets in next: the first, or, if it does not fit, who has places of its own."""
        if not self.waiting:
            return None
        heads = sorted(
            (next(iter(line)) for line in self._lines.values()),
            key=lambda claim: (-claim.priority, claim.number),
        )
        if self._has_room(heads[0].weight, heads[0].group):
            return heads[0]
        passed = set()
        for claim in heads:
            if claim.group not in passed and self._has_own(claim.weight, claim.group):
                return claim
            passed.add(claim.group)
        return None

    def _remove(self, claim: Claim) -> None:
        line = self._lines[claim.priority, claim.group]
        del line[claim]
        self.waiting -= 1
        if not line:
            del self._lines[claim.priority, claim.group]
