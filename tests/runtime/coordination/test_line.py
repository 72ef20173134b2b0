"""A line against a naive model: a list of what is in it, looked through."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from treewarden.coordination.line import Line, Room

ATTEMPTS = 3


@dataclass
class Row:
    number: int
    awaited: bool
    failures: int = 0


class LineModel(RuleBasedStateMachine):
    """One line beside another that shares its room."""

    @initialize(capacity=st.integers(1, 5), total=st.integers(2, 7))
    def begin(self, capacity: int, total: int) -> None:
        self.room = Room(total)
        self.line = Line[int](capacity, self.room)
        self.other = Line[int](total, self.room)
        self.capacity, self.total = capacity, total
        self.rows: list[Row] = []
        self.elsewhere = 0
        self.in_hand: Row | None = None
        self.stalled = False
        self.sent = 0
        self.fates: dict[int, str] = {}

    def idle(self) -> list[Row]:
        return [row for row in self.rows if row is not self.in_hand]

    def over(self, row: Row, fate: str) -> None:
        self.rows.remove(row)
        self.fates[row.number] = fate
        if row is self.in_hand:
            self.in_hand = None

    @rule(awaited=st.booleans())
    def put(self, awaited: bool) -> None:
        self.sent += 1
        full = len(self.rows) >= self.capacity
        full = full or len(self.rows) + self.elsewhere >= self.total
        victim = self.idle()[0] if full and self.stalled and self.idle() else None
        accepted, dropped = self.line.put(self.sent, awaited=awaited)
        assert accepted == (not full or victim is not None)
        assert dropped == (victim.number if victim is not None else None)
        if victim is not None:
            self.over(victim, "dropped")
        if accepted:
            self.rows.append(Row(self.sent, awaited and not self.stalled))

    @rule()
    def put_elsewhere(self) -> None:
        self.sent += 1
        room = len(self.rows) + self.elsewhere < self.total
        accepted, _ = self.other.put(self.sent, awaited=True)
        assert accepted is room
        self.elsewhere += room

    @rule()
    def leave_elsewhere(self) -> None:
        self.other.clear()
        self.elsewhere = 0

    @precondition(lambda self: self.rows and self.in_hand is None)
    @rule()
    def take(self) -> None:
        self.in_hand = self.rows[0]
        assert self.line.take() == self.in_hand.number

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def interrupt(self) -> None:
        self.line.let_go()
        self.in_hand = None

    @precondition(lambda self: self.in_hand is not None)
    @rule(well=st.booleans())
    def answer(self, well: bool) -> None:
        assert self.in_hand is not None
        if well:
            self.line.acknowledge()
        else:
            self.line.reject()
        self.over(self.in_hand, "acknowledged" if well else "failed")
        self.stalled = False

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def fail(self) -> None:
        row = self.in_hand
        assert row is not None
        row.failures += 1
        is_over = row.awaited or row.failures >= ATTEMPTS
        assert self.line.fail(limit=ATTEMPTS) is is_over
        if is_over:
            self.over(row, "failed")
        self.in_hand = None

    @rule()
    def stall(self) -> None:
        told = [row for row in self.idle() if row.awaited]
        assert self.line.stall() == [row.number for row in told]
        for row in told:
            row.awaited = False
        self.stalled = True

    @rule()
    def flow(self) -> None:
        self.line.flow()
        self.stalled = False

    @precondition(lambda self: self.rows)
    @rule(place=st.integers(0, 10))
    def remove(self, place: int) -> None:
        row = self.rows[place % len(self.rows)]
        self.line.remove(row.number)
        self.over(row, "removed")

    @rule()
    def clear(self) -> None:
        assert self.line.clear() == [row.number for row in self.rows]
        for row in tuple(self.rows):
            self.over(row, "failed")

    @invariant()
    def agrees(self) -> None:
        line, fates = self.line, list(self.fates.values())
        assert list(line) == [row.number for row in self.rows]
        assert line.stalled is self.stalled
        assert line.in_hand == (self.in_hand.number if self.in_hand else None)
        assert line.attempts == (self.rows[0].failures if self.rows else 0)
        assert line.acknowledged == fates.count("acknowledged")
        assert line.failed == fates.count("failed")
        assert line.dropped == fates.count("dropped")
        assert line.removed == fates.count("removed")
        assert line.accepted == len(fates) + len(self.rows)
        assert self.room.taken == len(self.rows) + self.elsewhere


TestLineModel = LineModel.TestCase
TestLineModel.settings = settings(
    max_examples=max(500, settings().max_examples), stateful_step_count=20
)


def test_f28_a_full_stalled_line_drops_its_oldest() -> None:
    line = Line[int](1000, Room(10_000))
    line.stall()
    dropped = [line.put(number, awaited=False)[1] for number in range(1, 2001)]
    assert dropped == [None] * 1000 + list(range(1, 1001))
    assert list(line) == list(range(1001, 2001))


def test_what_is_in_hand_is_never_dropped() -> None:
    line = Line[int](2, Room(10))
    for number in (1, 2):
        line.put(number, awaited=False)
    line.take()
    line.stall()
    assert line.put(3, awaited=False) == (True, 2)
    assert list(line) == [1, 3]


@pytest.mark.parametrize("stalled", [False, True])
def test_a_line_with_no_room_and_nobody_to_drop_refuses(stalled: bool) -> None:
    room = Room(1)
    other, line = Line[int](10, room), Line[int](10, room)
    other.put(1, awaited=True)
    if stalled:
        line.stall()
    assert line.put(2, awaited=True) == (False, None)
    assert line.refused == 1
