from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from treewarden import Agent, AgentRef, ChildSpec, NotAdmitted, Quorums, open_supervisor
from treewarden.coordination.quorum import Tally


class Member(Agent[None]):
    persistence = "none"

    def __init__(self, quorums: Quorums) -> None:
        self.quorums = quorums

    async def vote(self, name: str, choice: str) -> None:
        self.quorums.vote(name, choice)

    async def crash(self) -> None:
        raise ValueError


def nothing_is_left(quorums: Quorums, *refs: AgentRef[Any]) -> bool:
    seen = quorums.statistics()
    ties = [ref.resolve().ties for ref in refs]
    watched = any(one is not None and one.farewells for one in ties)
    counted = seen.opened == seen.accepted + seen.undecided
    return seen.ballots == () and not watched and counted


@pytest.fixture
async def assembly() -> Any:
    """Four members in a bare tree, and where they vote."""
    quorums = Quorums()
    children = [ChildSpec(name, Member, args=(quorums,)) for name in "abcd"]
    async with open_supervisor(children) as root:
        yield quorums, root, [AgentRef(root.directory, f"/{name}") for name in "abcd"]


# --- the rules -------------------------------------------------------------------------------


@given(
    st.integers(1, 5),
    st.sampled_from(["majority", "all", 1, 2]),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["yes", "no", "gone"]))),
)
def test_a_tally_decides_as_counting_by_hand_would(
    many: int, need: str | int, steps: list[tuple[int, str]]
) -> None:
    if isinstance(need, int) and need > many:
        return
    tally = Tally(range(many), need)
    needed = {"majority": many // 2 + 1, "all": many}.get(str(need), need)
    votes: dict[int, str] = {}
    absent: set[int] = set()
    for who, what in steps:
        if what == "gone":
            if who < many:
                tally.abstain(who)
                absent |= {who} - votes.keys()
        elif tally.refusal(who) is None:
            tally.vote(who, what)
            votes[who] = what
            absent.discard(who)
        else:
            assert who >= many or who in votes or tally.is_decided
        counts = {one: list(votes.values()).count(one) for one in ("yes", "no")}
        top = max(counts.values())
        missing = many - len(votes) - len(absent)
        assert tally.needed == needed
        assert tally.is_accepted == (top >= int(needed))
        assert tally.is_decided == (top >= int(needed) or top + missing < int(needed))
        assert set(tally.absent) == absent


@pytest.mark.parametrize("need", [0, 3, "most", "Majority"])
def test_a_need_that_is_no_number_of_votes_is_refused(need: Any) -> None:
    with pytest.raises(ValueError, match="need must be majority, all or 1 to 2"):
        Tally(["a", "b"], need)
    with pytest.raises(ValueError, match="needs participants"):
        Tally([], "all")


# --- with agents --------------------------------------------------------------------------------


async def test_a_majority_decides_and_the_ballot_is_gone(assembly: Any) -> None:
    quorums, _, (a, b, c, d) = assembly
    with quorums.open("deploy", [a, b, c, d]) as ballot:
        for ref, choice in ((a, "yes"), (b, "no"), (c, "yes")):
            await ref.call(Member.vote, "deploy", choice)
            assert ballot.decision is None
        (seen,) = quorums.statistics().ballots
        assert (seen.needed, seen.participants, seen.voted) == (3, 4, 3)
        await d.call(Member.vote, "deploy", "yes")
        decision = await ballot.wait_decided()
        assert nothing_is_left(quorums, a, b, c, d)
    assert (decision.accepted, decision.choice, decision.needed) == (True, "yes", 3)
    assert decision.votes == {"/a": "yes", "/b": "no", "/c": "yes", "/d": "yes"}
    assert decision.abstained == ()


async def test_a_vote_that_cannot_be_won_any_more_ends_at_once(assembly: Any) -> None:
    quorums, _, (a, b, c, d) = assembly
    with quorums.open("deploy", [a, b, c, d], need="all") as ballot:
        ballot.vote("yes", voter=a)
        ballot.vote("no", voter=b)
        decision = await ballot.wait_decided()
    assert (decision.accepted, decision.choice) == (False, None)
    assert quorums.statistics().undecided == 1
    assert nothing_is_left(quorums, a, b, c, d)


async def test_who_may_vote_and_how_often(assembly: Any) -> None:
    quorums, _, (a, b, c, d) = assembly
    with quorums.open("deploy", [a, b, c], need=2) as ballot:
        ballot.vote("yes", voter=a)
        cases = [
            (a, "already_voted"),
            (d, "not_a_participant"),
            (None, "not_a_participant"),
        ]
        for voter, reason in cases:
            with pytest.raises(NotAdmitted) as refused:
                quorums.vote("deploy", "yes", voter=voter)
            assert refused.value.reason == reason
        with (
            pytest.raises(NotAdmitted, match="already open"),
            quorums.open("deploy", [a]),
        ):
            pass
        ballot.vote("yes", voter=b)
        for vote in (
            ballot.vote,
            lambda choice, **who: quorums.vote("deploy", choice, **who),
        ):
            with pytest.raises(NotAdmitted, match="closed"):
                vote("yes", voter=c)
    assert nothing_is_left(quorums, a, b, c, d)


async def test_a_participant_that_is_gone_abstains_and_one_that_crashed_does_not(
    assembly: Any,
) -> None:
    quorums, root, (a, b, c, d) = assembly
    with quorums.open("deploy", [a, b, c, d], need=3) as ballot:
        ballot.vote("yes", voter=a)
        await root.terminate_child("a")
        await b.cast(Member.crash)
        await wait_all_tasks_blocked()
        await root.terminate_child("c")
        assert ballot.tally.absent == ("/c",)
        assert ballot.decision is None
        await b.call(Member.vote, "deploy", "yes")
        await d.call(Member.vote, "deploy", "yes")
        decision = await ballot.wait_decided()
    assert (decision.accepted, decision.abstained) == (True, ("/c",))
    with quorums.open("again", [a, b, c, d], need=3) as ballot:
        # Two of them are gone already: nobody can have three votes.
        decision = await ballot.wait_decided()
        assert (decision.accepted, decision.abstained) == (False, ("/a", "/c"))
    nobody = AgentRef[Any](root.directory, "/nobody")
    with quorums.open("nobody", [nobody], need="all") as ballot:
        assert ballot.decision is not None
    assert nothing_is_left(quorums, a, b, c, d)


async def test_a_choice_that_cannot_be_counted_is_no_vote(assembly: Any) -> None:
    quorums, _, (a, b, *_) = assembly
    with quorums.open("deploy", [a, b], need=1) as ballot:
        with pytest.raises(TypeError, match="unhashable"):
            ballot.vote(["yes"], voter=a)
        assert ballot.tally.votes == {}
        ballot.vote("yes", voter=a)
        assert ballot.decision is not None


async def test_a_vote_that_comes_late_is_none_in_the_next_of_that_name(
    assembly: Any,
) -> None:
    quorums, _, (a, b, c, d) = assembly
    with quorums.open("deploy", [a, b], need=1) as first:
        quorums.vote("deploy", "yes", number=first.number, voter=a)
        # Decided: the name is free, though the block goes on.
        with quorums.open("deploy", [a, b], need=1) as second:
            with pytest.raises(NotAdmitted, match="closed"):
                quorums.vote("deploy", "no", number=first.number, voter=b)
            assert second.tally.votes == {}
            quorums.vote("deploy", "yes", number=second.number, voter=b)
    assert nothing_is_left(quorums, a, b, c, d)


async def test_whoever_waits_for_a_ballot_that_is_closed_is_told(assembly: Any) -> None:
    quorums, _, refs = assembly
    told: list[str] = []

    async def wait(ballot: Any) -> None:
        with pytest.raises(NotAdmitted) as closed:
            await ballot.wait_decided()
        told.append(closed.value.reason)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(30), quorums.open("deploy", refs) as ballot:
            nursery.start_soon(wait, ballot)
            await ballot.wait_decided()
    assert told == ["closed"]
    assert ballot.decision is None
    assert nothing_is_left(quorums, *refs)


async def test_there_is_room_for_so_many_votes() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        Quorums(capacity=0)
    async with open_supervisor([ChildSpec("a", Member, args=(Quorums(),))]) as root:
        quorums, ref = Quorums(capacity=1), AgentRef[Any](root.directory, "/a")
        with (
            quorums.open("one", [ref]),
            pytest.raises(NotAdmitted, match="full"),
            quorums.open("two", [ref]),
        ):
            pass
        with quorums.open("two", [ref]):
            pass
