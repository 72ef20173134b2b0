from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from treewarden import NameUnknown
from treewarden.monitors import AlarmMove, AlarmNews, AlarmRule, Alarms, Severity
from treewarden.monitors.alarms import AlarmTable

OPENED, CHANGED, ACKNOWLEDGED, CLEARED = AlarmMove
HOT = AlarmRule(name="hot", reading="heat", above=80.0, clear_at=70.0)


class Board:
    """Alarms with a clock of their own, and what they told."""

    def __init__(self, limit: int = 1000) -> None:
        self.now = 0.0
        self.told: list[AlarmNews] = []
        self.alarms = Alarms(clock=lambda: self.now, told=self.told.append, limit=limit)

    def moves(self) -> list[AlarmMove]:
        return [news.move for news in self.told]


@pytest.fixture
def board() -> Board:
    return Board()


def test_h23_a_condition_that_holds_for_a_hundred_checks_is_one_alarm(
    board: Board,
) -> None:
    """H23, S15: opened once, updated, and resolved when it is over."""
    board.alarms.rule(HOT)
    for degrees in range(100):
        board.alarms.read("heat", 81.0 + degrees)
    (alarm,) = board.alarms.list()
    assert (alarm.count, alarm.value) == (100, 180.0)
    assert alarm.message == "heat is 180, above 80"
    board.alarms.read("heat", 60.0)
    assert board.alarms.list() == ()
    assert board.moves() == [OPENED, CLEARED]
    seen = board.alarms.statistics()
    assert (seen.opened, seen.cleared) == (1, 1)


def test_h23_an_alarm_clears_at_another_value_than_it_opens_at(board: Board) -> None:
    """H23: hovering around the threshold is no news."""
    board.alarms.rule(HOT)
    for value in (80.0, 81.0, 79.0, 81.0, 71.0, 70.0, 79.0, 80.5):
        board.alarms.read("heat", value)
    assert board.moves() == [OPENED, CLEARED, OPENED]


def test_below_is_the_same_upside_down(board: Board) -> None:
    board.alarms.rule(
        AlarmRule(name="dry", reading="water", below=10.0, clear_at=20.0, message="dig")
    )
    for value in (10.0, 9.0, 15.0, 20.0, 9.5):
        board.alarms.read("water", value)
    assert board.moves() == [OPENED, CLEARED, OPENED]
    assert board.alarms.list()[0].message == "dig (water is 9.5, below 10)"


def test_a_rule_with_a_duration_opens_when_it_held_all_the_while(board: Board) -> None:
    board.alarms.rule(
        AlarmRule(name="hot", reading="heat", above=80.0, for_seconds=60.0)
    )
    readings = [(0, 90), (59, 90), (60, 79), (61, 90), (120, 90), (121, 90)]
    opened = []
    for now, value in readings:
        board.now = now
        board.alarms.read("heat", value)
        opened.append(len(board.alarms.list()))
    assert opened == [0, 0, 0, 0, 0, 1]


def test_h32_an_unknown_reading_neither_opens_nor_clears(board: Board) -> None:
    """H32: a number that is not there is not 0."""
    board.alarms.rule(HOT)
    board.alarms.rule(AlarmRule(name="cold", reading="heat", below=10.0))
    board.alarms.read("heat", None)
    board.alarms.read("heat", math.nan)
    assert board.told == []
    board.alarms.read("heat", 90.0)
    board.alarms.read("heat", None)
    assert board.moves() == [OPENED]


def test_each_subject_has_an_alarm_of_its_own(board: Board) -> None:
    board.alarms.rule(HOT)
    for subject in "abc":
        board.alarms.read("heat", 90.0, subject=subject)
    board.alarms.read("heat", 0.0, subject="b")
    assert [one.subject for one in board.alarms.list()] == ["a", "c"]
    board.alarms.forget("heat", "a")
    assert [one.subject for one in board.alarms.list()] == ["c"]
    assert board.alarms.drop_rule("hot")
    assert not board.alarms.drop_rule("hot")
    assert board.alarms.list() == ()


def test_a_rule_of_the_same_name_takes_the_place_of_the_last(board: Board) -> None:
    board.alarms.rule(HOT)
    board.alarms.read("heat", 90.0)
    board.alarms.rule(AlarmRule(name="hot", reading="heat", above=95.0))
    assert board.moves() == [OPENED, CLEARED]
    board.alarms.read("heat", 90.0)
    assert board.alarms.list() == ()
    assert len(board.alarms.rules()) == 1


def test_an_alarm_is_acknowledged_once_and_stays_open(board: Board) -> None:
    board.alarms.open("disk", message="full")
    (alarm,) = board.alarms.list()
    assert board.alarms.acknowledge(alarm.id, "ada").acknowledged_by == "ada"
    assert board.alarms.acknowledge(alarm.id, "bob").acknowledged_by == "ada"
    board.alarms.open("disk", message="fuller")
    assert board.moves() == [OPENED, ACKNOWLEDGED]
    assert board.alarms.list()[0].message == "fuller"
    board.alarms.clear("disk")
    with pytest.raises(NameUnknown, match="no alarm 1 is open"):
        board.alarms.acknowledge(alarm.id, "ada")
    with pytest.raises(ValueError, match="somebody"):
        board.alarms.acknowledge(alarm.id, "")


def test_what_gets_worse_is_told_and_needs_another_acknowledgement(
    board: Board,
) -> None:
    board.alarms.open("disk", severity=Severity.WARNING)
    board.alarms.acknowledge(1, "ada")
    board.alarms.open("disk", severity=Severity.CRITICAL)
    assert board.alarms.list()[0].acknowledged_by == ""
    board.alarms.acknowledge(1, "ada")
    board.alarms.open("disk", severity=Severity.WARNING)
    assert board.alarms.list()[0].acknowledged_by == "ada"
    assert board.moves() == [OPENED, ACKNOWLEDGED, CHANGED, ACKNOWLEDGED, CHANGED]


def test_there_is_room_for_so_many_and_a_condition_that_lasts_gets_its_turn() -> None:
    """S15: bounded; what is refused is counted, and not lost for ever."""
    board = Board(limit=2)
    board.alarms.rule(HOT)
    for _ in range(2):
        for subject in "abc":
            board.alarms.read("heat", 90.0, subject=subject)
    assert board.alarms.statistics().refused == 2
    board.alarms.read("heat", 0.0, subject="a")
    board.alarms.read("heat", 90.0, subject="c")
    assert [one.subject for one in board.alarms.list()] == ["b", "c"]


def test_conditions_that_nobody_speaks_of_any_more_make_room() -> None:
    """Subjects made from data: two that went without a word must not silence all others."""
    board = Board(limit=2)
    board.alarms.rule(
        AlarmRule(name="hot", reading="heat", above=80.0, for_seconds=60.0)
    )
    for subject in "ab":
        board.alarms.read("heat", 90.0, subject=subject)
    board.now = 3500.0
    board.alarms.read("heat", 90.0, subject="c")
    assert board.alarms.statistics().refused == 1
    board.now = 3601.0
    board.alarms.read("heat", 90.0, subject="c")
    board.now = 3661.0
    board.alarms.read("heat", 90.0, subject="c")
    assert [one.subject for one in board.alarms.list()] == ["c"]
    assert board.alarms.statistics().pending == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"above": 1.0, "below": 2.0},
        {"above": 1.0, "clear_at": 1.5},
        {"below": 1.0, "clear_at": 0.5},
        {"above": 1.0, "for_seconds": -1.0},
        {"above": 1.0, "for_seconds": math.inf},
        {"above": math.nan},
        {"below": math.inf},
        # No value would ever clear it.
        {"above": 1.0, "clear_at": math.nan},
    ],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(
        ValueError,
        match=r"needs either|would not clear|must be (>= 0|a number, not (nan|inf))",
    ):
        AlarmRule(name="wrong", reading="heat", **wrong)  # type: ignore[arg-type]


# --- the rules, against a model ---------------------------------------------------------------

LASTING = AlarmRule(
    name="hot", reading="heat", above=80.0, clear_at=70.0, for_seconds=3.0
)
SUBJECTS = st.sampled_from("abcd")


class AlarmModel(RuleBasedStateMachine):
    """A table of three against one that remembers every reading."""

    @initialize()
    def begin(self) -> None:
        self.table = AlarmTable(3)
        self.now = 0.0
        self.opened_ids: list[int] = []
        self.open: dict[str, tuple[Severity, str]] = {}
        self.since: dict[str, float] = {}
        self.cleared = 0

    def told(
        self, subject: str, news: AlarmNews | None, move: AlarmMove | None
    ) -> None:
        assert (news.move if news is not None else None) is move
        if news is not None and move is OPENED:
            self.opened_ids.append(news.alarm.id)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(subject=SUBJECTS, value=st.sampled_from([60.0, 75.0, 90.0, None]))
    def read(self, subject: str, value: float | None) -> None:
        news = self.table.read(LASTING, subject, value, self.now, 0)
        if value is None:
            return self.told(subject, news, None)
        if subject in self.open:
            if value <= 70.0:
                del self.open[subject]
                self.cleared += 1
                return self.told(subject, news, CLEARED)
            worse = self.open[subject][0] is not Severity.WARNING
            self.open[subject] = Severity.WARNING, self.open[subject][1]
            return self.told(subject, news, CHANGED if worse else None)
        if value <= 80.0:
            self.since.pop(subject, None)
            return self.told(subject, news, None)
        if subject not in self.since and len(self.since) == 3:
            return self.told(subject, news, None)
        since = self.since.setdefault(subject, self.now)
        if self.now - since < 3.0 or len(self.open) == 3:
            return self.told(subject, news, None)
        del self.since[subject]
        self.open[subject] = Severity.WARNING, ""
        return self.told(subject, news, OPENED)

    @rule(subject=SUBJECTS, severity=st.sampled_from(Severity))
    def raise_it(self, subject: str, severity: Severity) -> None:
        news = self.table.open("hot", subject, severity, "", None, 0)
        if subject in self.open:
            before, by = self.open[subject]
            worse = severity is Severity.CRITICAL and before is not severity
            self.open[subject] = severity, "" if worse else by
            self.told(subject, news, CHANGED if before is not severity else None)
        elif len(self.open) == 3:
            self.told(subject, news, None)
        else:
            self.since.pop(subject, None)
            self.open[subject] = severity, ""
            self.told(subject, news, OPENED)

    @rule(subject=SUBJECTS)
    def clear(self, subject: str) -> None:
        news = self.table.clear("hot", subject)
        self.since.pop(subject, None)
        was = self.open.pop(subject, None)
        self.cleared += was is not None
        self.told(subject, news, CLEARED if was is not None else None)

    @rule(subject=SUBJECTS, by=st.sampled_from(["ada", "bob"]))
    def acknowledge(self, subject: str, by: str) -> None:
        ids = {one.subject: one.id for one in self.table.list()}
        if subject not in self.open:
            with pytest.raises(KeyError):
                self.table.acknowledge(ids.get(subject, -1), by)
            return
        news = self.table.acknowledge(ids[subject], by)
        severity, before = self.open[subject]
        self.open[subject] = severity, before or by
        self.told(subject, news, None if before else ACKNOWLEDGED)

    @invariant()
    def agrees(self) -> None:
        found = {
            one.subject: (one.severity, one.acknowledged_by)
            for one in self.table.list()
        }
        assert found == self.open
        assert self.table.opened == self.cleared + len(self.open)
        assert self.table.cleared == self.cleared
        assert self.table.pending == len(self.since)
        assert len(set(self.opened_ids)) == len(self.opened_ids)


TestAlarmTable = AlarmModel.TestCase
