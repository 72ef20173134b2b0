"""A bounded number of places, checked against a naive model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from treewarden.resilience.places import Claim, Places

GROUPS = ("", "a", "b")


class PlacesMachine(RuleBasedStateMachine):
    """The model is a list of who is in and a list of who waits, in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 4
        self.shares: dict[str, float] = {}
        self.places = Places(self.limit)
        self.inside: list[tuple[int, str]] = []
        self.waiting: list[Claim] = []
        self.granted: list[Claim] = []

    @initialize(shares=st.sampled_from([{}, {"a": 0.5}, {"a": 0.5, "b": 0.25}]))
    def begin(self, shares: dict[str, float]) -> None:
        self.shares = shares
        self.places = Places(self.limit, shares)

    def left_of(self, group: str) -> int:
        own = int(self.limit * self.shares.get(group, 0))
        return max(0, own - sum(weight for weight, by in self.inside if by == group))

    def fits(self, weight: int, group: str) -> bool:
        used = sum(weight for weight, _ in self.inside)
        kept = sum(self.left_of(other) for other in self.shares if other != group)
        return not self.inside or used + weight + kept <= self.limit

    def fits_its_own(self, weight: int, group: str) -> bool:
        used = sum(weight for weight, _ in self.inside)
        return weight <= self.left_of(group) and used + weight <= self.limit

    def next(self) -> Claim | None:
        line = sorted(self.waiting, key=lambda claim: -claim.priority)
        if line and self.fits(line[0].weight, line[0].group):
            return line[0]
        for place, claim in enumerate(line):
            first = all(claim.group != other.group for other in line[:place])
            if first and self.fits_its_own(claim.weight, claim.group):
                return claim
        return None

    def admit(self) -> list[Claim]:
        admitted = []
        while (claim := self.next()) is not None:
            self.waiting.remove(claim)
            self.inside.append((claim.weight, claim.group))
            admitted.append(claim)
        self.granted += admitted
        return admitted

    @rule(
        weight=st.integers(1, 5),
        priority=st.integers(0, 2),
        group=st.sampled_from(GROUPS),
    )
    def somebody_comes(self, weight: int, priority: int, group: str) -> None:
        ahead = [claim for claim in self.waiting if claim.priority >= priority]
        if ahead:
            own = all(claim.group != group for claim in ahead)
            expected = own and self.fits_its_own(weight, group)
        else:
            expected = self.fits(weight, group)
        assert self.places.try_take(weight, priority, group) == expected
        if expected:
            self.inside.append((weight, group))
            return
        claim = Claim(weight, priority, group)
        self.places.join(claim)
        self.waiting.append(claim)

    @precondition(lambda self: self.inside)
    @rule(place=st.integers(0, 9))
    def somebody_ends(self, place: int) -> None:
        weight, group = self.inside.pop(place % len(self.inside))
        assert self.places.release(weight, group) == self.admit()

    @precondition(lambda self: self.waiting)
    @rule(place=st.integers(0, 9))
    def somebody_leaves_the_line(self, place: int) -> None:
        claim = self.waiting.pop(place % len(self.waiting))
        assert self.places.withdraw(claim) == self.admit()
        assert not claim.granted
        assert self.places.withdraw(claim) == []

    @precondition(lambda self: self.granted)
    @rule()
    def somebody_is_cancelled_as_his_turn_has_come(self) -> None:
        claim = self.granted.pop()
        if (claim.weight, claim.group) in self.inside:
            self.inside.remove((claim.weight, claim.group))
            assert self.places.withdraw(claim) == self.admit()

    @rule(limit=st.integers(1, 8))
    def the_limit_moves(self, limit: int) -> None:
        self.limit = self.places.limit = limit
        assert self.places.admit() == self.admit()

    @invariant()
    def they_agree(self) -> None:
        assert self.places.taken == sum(weight for weight, _ in self.inside)
        assert self.places.waiting == len(self.waiting)
        lines = self.places._lines.values()
        assert sum(len(line) for line in lines) == len(self.waiting)


TestPlacesMachine = PlacesMachine.TestCase
TestPlacesMachine.settings = settings(
    max_examples=max(500, settings().max_examples), stateful_step_count=12
)
