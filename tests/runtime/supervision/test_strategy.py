from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.supervision import (
    AutoShutdown,
    Member,
    Plan,
    Restart,
    Strategy,
    is_finished,
    is_restarted,
)
from treewarden.supervision import plan_restart as plan

CRASH = Crash(Fault(type="ValueError", message="no"))
P, T, X = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY


def members(text: str) -> list[Member]:
    """`aP bT- cX`: id, restart type, and a minus when it does not run."""
    types = {"P": P, "T": T, "X": X}
    return [
        Member(id=word[0], restart=types[word[1]], running=not word.endswith("-"))
        for word in text.split()
    ]


@pytest.mark.parametrize(
    ("restart", "exit_", "again"),
    [
        (P, Normal(), True),
        (P, Shutdown(), True),
        (P, Shutdown("enough"), True),
        (P, CRASH, True),
        (P, Killed(), True),
        (T, Normal(), False),
        (T, Shutdown(), False),
        (T, Shutdown("enough"), False),
        (T, CRASH, True),
        (T, Killed(), True),
        (X, Normal(), False),
        (X, Shutdown(), False),
        (X, CRASH, False),
        (X, Killed(), False),
    ],
)
def test_the_restart_type_and_the_exit_decide_whether_a_child_comes_back(
    restart: Restart, exit_: Exit, again: bool
) -> None:
    """RST-01 to RST-07, G10, G18: killed counts as abnormal."""
    assert is_restarted(restart, exit_) is again


def test_one_for_one_touches_nobody_else() -> None:
    """STR-01"""
    everybody = members("aP bP cX")
    assert plan(Strategy.ONE_FOR_ONE, everybody, "b") == Plan(starts=("b",))


def test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() -> None:
    """STR-02"""
    assert plan(Strategy.ONE_FOR_ALL, members("aP bP- cP"), "b") == Plan(
        stops=("c", "a"), starts=("a", "b", "c")
    )


def test_rest_for_one_leaves_those_started_earlier_alone() -> None:
    """STR-03, STR-04"""
    everybody = members("eP dP cP- bP aP")
    assert plan(Strategy.REST_FOR_ONE, everybody, "c") == Plan(
        stops=("a", "b"), starts=("c", "b", "a")
    )


def test_rest_for_one_of_the_last_is_one_for_one_and_of_the_first_one_for_all() -> None:
    """STR-11"""
    everybody = members("aP bP cP")
    last = plan(Strategy.REST_FOR_ONE, everybody, "c")
    assert last == Plan(starts=("c",))
    first = plan(Strategy.REST_FOR_ONE, everybody, "a")
    assert first == plan(Strategy.ONE_FOR_ALL, everybody, "a")


def test_a_group_restart_starts_siblings_that_had_ended_or_been_stopped() -> None:
    """STR-06, G9, pitfall 45"""
    assert plan(Strategy.ONE_FOR_ALL, members("aP- bT- cP"), "a") == Plan(
        stops=("c",), starts=("a", "b", "c")
    )


def test_a_group_restart_stops_temporary_siblings_and_forgets_them() -> None:
    """RST-08, pitfall 46"""
    assert plan(Strategy.ONE_FOR_ALL, members("aX bP- cX"), "b") == Plan(
        stops=("c", "a"), forgets=("a", "c"), starts=("b",)
    )


@st.composite
def families(draw: st.DrawFn) -> tuple[list[Member], str]:
    ids = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True))
    family = [
        Member(
            id=i, restart=draw(st.sampled_from(Restart)), running=draw(st.booleans())
        )
        for i in ids
    ]
    lasting = [member.id for member in family if member.restart is not X]
    return family, draw(st.sampled_from(lasting or ids))


@settings(deadline=None)
@given(families(), st.sampled_from(Strategy))
def test_every_plan_keeps_the_rules_of_its_strategy(
    case: tuple[list[Member], str], strategy: Strategy
) -> None:
    """The rules, said without lists: who is in range, who stops, who starts, in what order."""
    family, ended = case
    made = plan(strategy, family, ended)
    order = {member.id: place for place, member in enumerate(family)}
    for member in family:
        in_range = {
            Strategy.ONE_FOR_ONE: member.id == ended,
            Strategy.ONE_FOR_ALL: True,
            Strategy.REST_FOR_ONE: order[member.id] >= order[ended],
        }[strategy]
        assert (member.id in made.stops) is (
            in_range and member.running and member.id != ended
        )
        if strategy is not Strategy.ONE_FOR_ONE:
            assert (member.id in made.forgets) is (in_range and member.restart is X)
            assert (member.id in made.starts) is (in_range and member.restart is not X)
    assert sorted(made.stops, key=order.__getitem__, reverse=True) == [*made.stops]
    assert sorted(made.starts, key=order.__getitem__) == [*made.starts]


@pytest.mark.parametrize(
    ("mode", "others", "finished"),
    [
        (AutoShutdown.NEVER, False, False),
        (AutoShutdown.NEVER, True, False),
        (AutoShutdown.ANY_SIGNIFICANT, False, True),
        (AutoShutdown.ANY_SIGNIFICANT, True, True),
        (AutoShutdown.ALL_SIGNIFICANT, False, True),
        (AutoShutdown.ALL_SIGNIFICANT, True, False),
    ],
)
def test_a_supervisor_is_finished_when_its_significant_children_are(
    mode: AutoShutdown, *, others: bool, finished: bool
) -> None:
    """SIG-03, SIG-04"""
    assert is_finished(mode, others=others) is finished
