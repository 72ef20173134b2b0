from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    CallingSelf,
    ChildSpec,
    Grant,
    LockHeld,
    LockLost,
    Locks,
    NotAdmitted,
    NotRunning,
    OwnerScope,
    open_supervisor,
)
from treewarden.coordination.lock import LockTable

NAMES = st.sampled_from(["a", "b"])
LINE = 2


# --- the rules, against lists -----------------------------------------------------------------


@dataclass
class Held:
    who: int
    token: int


class LockModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.table = LockTable[int](LINE)
        self.held: dict[str, Held] = {}
        self.waiting: dict[str, list[int]] = {"a": [], "b": []}
        self.asked = 0
        self.tokens = [0]

    def grant(self, name: str, who: int, token: int | None) -> None:
        assert token is not None
        assert token > self.tokens[-1]
        self.tokens.append(token)
        self.held[name] = Held(who, token)

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        self.asked += 1
        if name not in self.held:
            self.grant(name, self.asked, self.table.ask(name, self.asked))
        elif len(self.waiting[name]) >= LINE:
            with pytest.raises(OverflowError):
                self.table.ask(name, self.asked)
        else:
            assert self.table.ask(name, self.asked) is None
            self.waiting[name].append(self.asked)

    @rule(name=NAMES, place=st.integers(0, LINE))
    def leave(self, name: str, place: int) -> None:
        line = self.waiting[name]
        who = line.pop(place) if place < len(line) else -1
        self.table.leave(name, who)

    @rule(name=NAMES, stale=st.booleans())
    def release(self, name: str, stale: bool) -> None:
        held = self.held.get(name)
        if held is None or stale:
            with pytest.raises(KeyError):
                self.table.release(name, held.token - 1 if held else 0)
            return
        heir = self.table.release(name, held.token)
        del self.held[name]
        if self.waiting[name]:
            assert heir is not None
            assert heir[0] == self.waiting[name].pop(0)
            self.grant(name, *heir)
        else:
            assert heir is None

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.held)
        for name in ("a", "b"):
            held = self.held.get(name)
            seen = (held.who, held.token) if held else None
            assert self.table.holder(name) == seen
            assert self.table.waiting(name) == len(self.waiting[name])


TestLockModel = LockModel.TestCase
TestLockModel.settings = settings(stateful_step_count=20)


# --- with tasks and owners ----------------------------------------------------------------------


def nothing_is_left(locks: Locks) -> bool:
    seen = locks.statistics()
    return (seen.locks, seen.owners) == ((), 0) and seen.granted == seen.released


async def test_first_come_first_served_with_growing_tokens() -> None:
    locks = Locks()
    order: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        with OwnerScope() as me:
            async with locks.hold("index", owner=me) as grant:
                order.append((number, grant.token))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, number)
            await wait_all_tasks_blocked()
        (seen,) = locks.statistics().locks
        assert (seen.holder, seen.waiting) == ("OwnerScope", 3)
    assert order == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert nothing_is_left(locks)


async def test_h29_a_thousand_releases_and_no_late_waiter_ever_holds() -> None:
    locks = Locks()
    with OwnerScope() as me, OwnerScope() as other:
        for _ in range(1000):
            grant = locks.acquire_nowait("index", owner=me)
            with trio.move_on_after(0.1) as waiting:
                await locks.acquire("index", owner=other)
            assert waiting.cancelled_caught
            locks.release(grant)
            assert locks.holder("index") is None
        assert locks.acquire_nowait("index", owner=other).token == 1001
        assert other.watchers != []
    assert nothing_is_left(locks)


async def test_a_waiter_out_of_time_is_passed_over() -> None:
    locks = Locks()
    with OwnerScope() as me:
        grant = locks.acquire_nowait("index", owner=me)
        late: list[str] = []

        async def wait(name: str, seconds: float) -> None:
            with OwnerScope() as owner, trio.move_on_after(seconds):
                await locks.acquire("index", owner=owner)
                late.append(name)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "short", 1)
            await wait_all_tasks_blocked()
            nursery.start_soon(wait, "long", 10)
            await trio.sleep(2)
            locks.release(grant)
            await trio.sleep(1)
            assert late == ["long"]
    assert nothing_is_left(locks)


async def test_a_waiter_that_is_cancelled_in_the_step_of_its_grant_has_nothing() -> (
    None
):
    locks = Locks()
    with OwnerScope() as me, OwnerScope() as other:
        grant = locks.acquire_nowait("index", owner=me)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(locks.acquire, "index", owner=other))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            locks.release(grant)
        assert locks.holder("index") is None
        assert other.watchers == []
    assert nothing_is_left(locks)


async def test_the_lock_of_a_dead_owner_goes_to_the_next_in_line() -> None:
    locks = Locks()
    held: list[Grant] = []

    async def hold_badly() -> None:
        held.append(await locks.acquire("index"))
        await trio.sleep(1)
        raise ValueError("without letting go")

    async with open_supervisor() as root:
        spec = ChildSpec("bad", hold_badly, restart="temporary")
        await root.start_child(spec)
        await wait_all_tasks_blocked()
        holder = locks.holder("index")
        assert holder is not None
        assert holder.owner == "/bad"
        with OwnerScope() as me:
            with trio.fail_after(60):
                grant = await locks.acquire("index", owner=me)
            assert grant.token > held[0].token
            assert not locks.is_current(held[0])
            with pytest.raises(LockLost):
                locks.release(held[0])
            assert locks.is_current(grant)
    assert nothing_is_left(locks)


async def test_an_owner_that_ends_while_it_waits_is_told_and_out_of_line() -> None:
    locks = Locks()
    outcomes: list[BaseException] = []
    with OwnerScope() as me:
        locks.acquire_nowait("index", owner=me)
        dying = OwnerScope()

        async def wait() -> None:
            try:
                await locks.acquire("index", owner=dying)
            except NotRunning as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            dying.__exit__(None, None, None)
    assert len(outcomes) == 1
    assert nothing_is_left(locks)
    with pytest.raises(NotRunning):
        locks.acquire_nowait("index", owner=dying)


async def test_who_holds_it_does_not_wait_for_himself() -> None:
    locks = Locks()
    with OwnerScope() as me:
        async with locks.hold("index", owner=me):
            with pytest.raises(CallingSelf):
                await locks.acquire("index", owner=me)
            async with locks.hold("other", owner=me):
                pass
        # Who has nothing any more is not watched for it.
        assert me.watchers == []
    assert nothing_is_left(locks)


async def test_what_is_held_is_not_to_be_had_without_waiting() -> None:
    locks = Locks(line=0)
    with OwnerScope() as me:
        locks.acquire_nowait("index", owner=me)
        for ask in (locks.acquire_nowait, locks.acquire):
            with pytest.raises(LockHeld, match="held by OwnerScope, and 0 wait"):
                result: Any = ask("index", owner=me)
                await result
    assert nothing_is_left(locks)


async def test_a_broken_lock_is_somebody_elses() -> None:
    locks = Locks()
    assert locks.break_lock("index") is None
    with OwnerScope() as me, OwnerScope() as other:
        async with locks.hold("index", owner=me) as old:
            assert locks.break_lock("index") == old
            new = locks.acquire_nowait("index", owner=other)
            assert (locks.is_current(old), locks.is_current(new)) == (False, True)
        assert locks.is_current(new)
    assert (locks.statistics().broken, nothing_is_left(locks)) == (1, True)


async def test_a_plain_task_names_an_owner() -> None:
    with pytest.raises(NotRunning, match="OwnerScope"):
        await Locks().acquire("index")


async def test_who_took_it_without_waiting_cannot_wait_for_it_either() -> None:
    locks = Locks()
    told: list[str] = []

    async def child() -> None:
        grant = locks.acquire_nowait("index")
        with pytest.raises(CallingSelf, match="this task holds lock index"):
            await locks.acquire("index")
        told.append("it would wait for itself")
        locks.release(grant)

    async with open_supervisor() as root:
        await root.start_child(ChildSpec("child", child, restart="temporary"))
        await wait_all_tasks_blocked()
    assert told == ["it would wait for itself"]
    assert nothing_is_left(locks)


async def test_a_grant_in_the_step_of_its_owners_end_is_none() -> None:
    locks = Locks()
    with OwnerScope() as me:
        grant = locks.acquire_nowait("index", owner=me)
        ended: list[str] = []

        async def wait(owner: OwnerScope) -> None:
            with pytest.raises(NotRunning, match="ended while it waited"):
                await locks.acquire("index", owner=owner)
            ended.append("told")

        async with trio.open_nursery() as nursery:
            with OwnerScope() as dying:
                nursery.start_soon(wait, dying)
                await wait_all_tasks_blocked()
                locks.release(grant)
        assert ended == ["told"]
    assert nothing_is_left(locks)


async def test_so_many_locks_may_be_held() -> None:
    locks = Locks(capacity=1)
    with OwnerScope() as me:
        grant = locks.acquire_nowait("index", owner=me)
        with pytest.raises(NotAdmitted, match="full"):
            locks.acquire_nowait("other", owner=me)
        locks.release(grant)
        locks.acquire_nowait("other", owner=me)
    assert nothing_is_left(locks)
