from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Barriers,
    ChildSpec,
    NotAdmitted,
    NotRunning,
    OwnerScope,
    open_supervisor,
)


def nothing_is_left(barriers: Barriers) -> bool:
    seen = barriers.statistics()
    gone = seen.passed + seen.left == seen.arrived
    return (seen.barriers, seen.owners) == ((), 0) and gone


async def come(
    barriers: Barriers, met: list[int], parties: int = 3, seconds: float = 60
) -> None:
    with OwnerScope() as me, trio.move_on_after(seconds):
        met.append(await barriers.meet("start", parties, owner=me))


async def test_all_go_on_together_when_the_last_has_come() -> None:
    barriers = Barriers()
    met: list[int] = []
    async with trio.open_nursery() as nursery:
        for come_so_far in range(3):
            assert met == []
            nursery.start_soon(come, barriers, met)
            await wait_all_tasks_blocked()
            seen = barriers.statistics().barriers
            assert sum(len(one.arrived) for one in seen) == (come_so_far + 1) % 3
    assert sorted(met) == [0, 1, 2]
    assert nothing_is_left(barriers)


async def test_whoever_gave_up_has_not_come() -> None:
    barriers = Barriers()
    met: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, barriers, met, 2, 1.0)
        await trio.sleep(2)
        nursery.start_soon(come, barriers, met, 2)
        await trio.sleep(1)
        assert met == []
        nursery.start_soon(come, barriers, met, 2)
    assert sorted(met) == [0, 1]
    assert barriers.statistics().left == 1
    assert nothing_is_left(barriers)


async def test_the_dead_have_not_come_and_their_next_life_may() -> None:
    barriers = Barriers()
    lives = 0
    met: list[int] = []

    async def member() -> None:
        nonlocal lives
        lives += 1
        with trio.move_on_after(1 if lives == 1 else 60):
            met.append(await barriers.meet("start", 2))
            await trio.sleep_forever()
        raise ValueError("it came in vain")

    async with open_supervisor([ChildSpec("member", member)]):
        await trio.sleep(2)
        (seen,) = barriers.statistics().barriers
        assert (lives, seen.arrived) == (2, ("/member",))
        await come(barriers, met, 2)
        await wait_all_tasks_blocked()
        assert sorted(met) == [0, 1]
    assert nothing_is_left(barriers)


async def test_an_owner_that_ends_while_it_waits_is_told() -> None:
    barriers = Barriers()
    dying = OwnerScope()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(NotRunning, match="ended while it waited"):
                await barriers.meet("start", 2, owner=dying)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        dying.__exit__(None, None, None)
    assert nothing_is_left(barriers)


async def test_an_incarnation_comes_once_and_all_expect_the_same_number() -> None:
    barriers = Barriers(capacity=1)
    met: list[int] = []
    with OwnerScope() as me:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_meet, barriers, me, met)
            await wait_all_tasks_blocked()
            with pytest.raises(NotAdmitted) as refused:
                await barriers.meet("start", 2, owner=me)
            assert refused.value.reason == "already_arrived"
            with OwnerScope() as other:
                with pytest.raises(ValueError, match="for 2 parties, not 3"):
                    await barriers.meet("start", 3, owner=other)
                with pytest.raises(NotAdmitted, match="full"):
                    await barriers.meet("elsewhere", 2, owner=other)
                await barriers.meet("start", 2, owner=other)
        with pytest.raises(ValueError, match="parties must be >= 1"):
            await barriers.meet("start", 0, owner=me)
        # One party meets itself, and the name is free again.
        assert await barriers.meet("start", 1, owner=me) == 0
        assert me.watchers == []
    assert met == [0]
    assert nothing_is_left(barriers)


async def _meet(barriers: Barriers, me: OwnerScope, met: list[int]) -> None:
    met.append(await barriers.meet("start", 2, owner=me))


def test_barriers_need_room() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        Barriers(capacity=0)
