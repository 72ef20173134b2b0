from __future__ import annotations

from functools import partial
from itertools import count

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    ChildSpec,
    Elections,
    LeadershipLost,
    NotAdmitted,
    NotRunning,
    OwnerScope,
    Term,
    open_supervisor,
)
from treewarden.coordination.election import Race


def nothing_is_left(elections: Elections) -> bool:
    seen = elections.statistics()
    gone = seen.resigned + seen.lapsed == seen.terms
    return (seen.elections, seen.owners) == ((), 0) and gone


# --- the rules -------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stand", "leave", "renew", "pass"]), st.integers(0, 3)
        ),
        max_size=40,
    )
)
def test_a_race_does_what_a_list_of_people_would(steps: list[tuple[str, int]]) -> None:
    race, now = Race[int](5.0, count(1)), 0.0
    leader: int | None = None
    until, line, terms = 0.0, [], [0]
    for what, who in steps:
        if what == "stand" and who != leader and who not in line:
            race.stand(who)
            line.append(who)
        elif what == "leave":
            race.leave(who)
            line = [one for one in line if one != who]
            leader = None if leader == who else leader
        elif what == "renew" and leader is not None:
            until = race.renew(now)
            assert until == now + 5.0
        elif what == "pass":
            now += 2.0 * who
        deposed = leader if leader is not None and now >= until else None
        assert race.look(now) == deposed
        leader = None if deposed is not None else leader
        elected = line.pop(0) if leader is None and line else None
        assert race.elect(now) == elected
        if elected is not None:
            leader, until = elected, now + 5.0
            assert race.number > terms[-1]
            terms.append(race.number)
        assert (race.leader, list(race.candidates)) == (leader, line)
        assert race.is_over == (leader is None and not line)


# --- with tasks and owners ----------------------------------------------------------------------


async def test_candidates_lead_in_turn_under_growing_terms() -> None:
    elections = Elections()
    led: list[tuple[int, int]] = []

    async def run(number: int) -> None:
        with OwnerScope() as me:
            async with elections.lead("index", owner=me) as term:
                led.append((number, term.number))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(run, number)
            await wait_all_tasks_blocked()
        (seen,) = elections.statistics().elections
        assert (seen.leader, seen.term, len(seen.candidates)) == ("OwnerScope", 1, 2)
    assert led == [(0, 1), (1, 2), (2, 3)]
    assert nothing_is_left(elections)


async def test_a_leader_that_renews_leads_for_as_long_as_it_likes() -> None:
    elections = Elections(lease=5.0)
    with OwnerScope() as me:
        async with elections.lead("index", owner=me) as term:
            for _ in range(20):
                await trio.sleep(4)
                term.renew()
            assert (term.number, term.is_current) == (1, True)
            assert elections.leader("index") is term
    assert (elections.leader("index"), term.is_current) == (None, False)
    assert nothing_is_left(elections)


async def test_a_leader_that_stalls_is_replaced_and_told() -> None:
    elections = Elections(lease=5.0)
    lost: list[float] = []
    next_term: list[Term] = []
    followed: list[float] = []

    async def stall() -> None:
        with OwnerScope() as me:
            with pytest.raises(LeadershipLost) as told:
                async with elections.lead("index", owner=me) as term:
                    await trio.sleep(2)
                    term.renew()
                    await trio.sleep_forever()
            assert (told.value.name, told.value.number) == ("index", 1)
            lost.append(trio.current_time() - begun)
            with pytest.raises(LeadershipLost):
                term.renew()
            await term.wait_lost()

    async def follow() -> None:
        with OwnerScope() as me:
            async with elections.lead("index", owner=me) as term:
                followed.append(trio.current_time() - begun)
                next_term.append(term)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stall)
        await wait_all_tasks_blocked()
        nursery.start_soon(follow)
    assert lost == [pytest.approx(7.0)]
    assert followed == [pytest.approx(7.0)]
    assert [term.number for term in next_term] == [2]
    assert elections.statistics().lapsed == 1
    assert nothing_is_left(elections)


async def test_a_leader_without_rivals_is_told_when_its_lease_is_over() -> None:
    elections = Elections(lease=3.0)
    with OwnerScope() as me:
        begun = trio.current_time()
        term = await elections.campaign("index", owner=me)
        await term.wait_lost()
        assert trio.current_time() - begun == pytest.approx(3.0)
        assert not term.is_current
    assert nothing_is_left(elections)


async def test_a_term_that_is_given_up_is_over_at_once_for_all_who_ask() -> None:
    elections = Elections()
    with OwnerScope() as me:
        term = await elections.campaign("index", owner=me)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(term.wait_lost)
            await wait_all_tasks_blocked()
            term.resign()
        assert trio.current_time() == begun
        assert me.watchers == []
    assert nothing_is_left(elections)


async def test_a_dead_leader_is_followed_at_once() -> None:
    elections = Elections()
    terms: list[Term] = []

    async def lead() -> None:
        terms.append(await elections.campaign("index"))
        await trio.sleep(1)
        raise ValueError("in office")

    async with open_supervisor() as root:
        await root.start_child(ChildSpec("leader", lead, restart="temporary"))
        await wait_all_tasks_blocked()
        with OwnerScope() as me:
            begun = trio.current_time()
            term = await elections.campaign("index", owner=me)
            assert trio.current_time() - begun == pytest.approx(1.0)
            assert term.number == terms[0].number + 1
            assert not terms[0].is_current
            term.resign()
            term.resign()
    assert nothing_is_left(elections)


async def test_a_candidate_that_gives_up_or_ends_never_leads() -> None:
    elections = Elections()
    dying = OwnerScope()
    with OwnerScope() as me, OwnerScope() as late:
        term = await elections.campaign("index", owner=me)
        async with trio.open_nursery() as nursery:

            async def stand() -> None:
                with pytest.raises(NotRunning, match="while it stood"):
                    await elections.campaign("index", owner=dying)

            nursery.start_soon(stand)
            with trio.move_on_after(1):
                await elections.campaign("index", owner=late)
            dying.__exit__(None, None, None)
        term.resign()
        assert elections.leader("index") is None
    assert nothing_is_left(elections)


async def test_a_candidate_that_is_cancelled_in_the_step_of_its_election_leads_nobody() -> (
    None
):
    elections = Elections()
    with OwnerScope() as me, OwnerScope() as other:
        term = await elections.campaign("index", owner=me)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(elections.campaign, "index", owner=other))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            term.resign()
        assert elections.leader("index") is None
        assert other.watchers == []
    assert nothing_is_left(elections)


async def test_an_incarnation_stands_once_and_offices_have_a_line() -> None:
    elections = Elections(candidates=0)
    with OwnerScope() as me, OwnerScope() as other:
        await elections.campaign("index", owner=me)
        with pytest.raises(NotAdmitted, match="already standing"):
            await elections.campaign("index", owner=me)
        with pytest.raises(NotAdmitted, match="full"):
            await elections.campaign("index", owner=other)
        elsewhere = await elections.campaign("elsewhere", owner=me)
        assert "Term 2 of elsewhere" in repr(elsewhere)
    assert nothing_is_left(elections)
    with OwnerScope() as me:
        small = Elections(capacity=1)
        await small.campaign("index", owner=me)
        with pytest.raises(NotAdmitted, match="full"):
            await small.campaign("elsewhere", owner=me)
    for wrong in ({"lease": 0}, {"candidates": -1}, {"capacity": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Elections(**wrong)
