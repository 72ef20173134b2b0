"""Elections by name: one incarnation leads, for a term that it has to renew.

Candidates are elected in the order of their coming. A leader that ends is followed by the
next candidate in the same step; one that stalls, that is does not renew its term within the
lease, when the lease is over (Cary Gray and David Cheriton, "Leases", 1989). Terms are
numbered, and the numbers only grow, over all elections of an `Elections`: whatever a leader
changes can refuse the orders of an earlier term.

Whoever loses leadership is told: the block of `lead` is cancelled, `renew` raises, and
`Term.wait_lost` returns. A task that never awaits is told when it does. Elections are kept
in memory: in the next process there are no leaders, and terms begin anew.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from treewarden.agents import Estates, name_of, owner_of_caller
from treewarden.clock import wall_ns
from treewarden.errors import LeadershipLost, NotAdmitted, NotRunning
from treewarden.resilience import check_count, check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from treewarden.registry import Owner

W = TypeVar("W")

# A leader renews every second (S17's heartbeat) and may miss four of five.
_LEASE_SECONDS: Final = 5.0
# Who may stand in one election; the next is refused.
_CANDIDATES: Final = 1000
# Elections that somebody leads or stands in; the next is refused.
_ELECTIONS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionStatistics:
    """An election: who leads under which term, since when, and who is next.

    "", 0 and None: nobody leads.
    """

    name: str
    leader: str
    term: int
    since_ns: int | None
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionsStatistics:
    """All elections that somebody leads or stands in; counters since the beginning.

    terms = resigned + lapsed + those that lead, at all times; a leader that ended has
    resigned.
    """

    elections: tuple[ElectionStatistics, ...]
    owners: int
    lease: float
    terms: int
    resigned: int
    lapsed: int


class Race(Generic[W]):
    """One election: who leads and until when, and who is next. `W` is any hashable.

    Times are seconds on any monotonic clock, passed in.
    """

    __slots__ = ("_candidates", "_lease", "_numbers", "leader", "number", "until")

    def __init__(self, lease: float, numbers: Iterator[int]) -> None:
        """`numbers` gives the terms' numbers, which grow."""
        self._lease = lease
        self._numbers = numbers
        self._candidates: dict[W, None] = {}
        self.leader: W | None = None
        self.number = 0
        self.until = math.inf

    @property
    def candidates(self) -> tuple[W, ...]:
        """Who stands, the next one first; the leader does not."""
        return tuple(self._candidates)

    @property
    def is_over(self) -> bool:
        """Whether nobody leads or wants to."""
        return self.leader is None and not self._candidates

    def stand(self, who: W) -> None:
        """Be a candidate, after those who are."""
        self._candidates[who] = None

    def leave(self, who: W) -> None:
        """Lead no more, or be no candidate; nothing when it was neither."""
        self._candidates.pop(who, None)
        if who == self.leader:
            self.leader, self.until = None, math.inf

    def look(self, now: float) -> W | None:
        """Depose a leader whose lease is over: who that was."""
        if now < self.until:
            return None
        deposed = self.leader
        self.leader, self.until = None, math.inf
        return deposed

    def elect(self, now: float) -> W | None:
        """Have the next candidate lead, if nobody does: who that is."""
        if self.leader is not None or not self._candidates:
            return None
        self.leader = elected = next(iter(self._candidates))
        del self._candidates[elected]
        self.number = next(self._numbers)
        self.until = now + self._lease
        return elected

    def renew(self, now: float) -> float:
        """Until when the leader leads if it does nothing more."""
        self.until = now + self._lease
        return self.until


class Term:
    """The time for which one incarnation leads; from `Elections.campaign` or `lead`."""

    __slots__ = ("_elections", "lost", "name", "number", "owner", "scope", "since_ns")

    def __init__(self, elections: Elections, name: str, owner: Owner) -> None:
        self._elections = elections
        self.name = name
        self.owner = owner
        # 0: not elected, by now or ever.
        self.number = 0
        self.since_ns: int | None = None
        self.lost = trio.Event()
        self.scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        """Which, and whose."""
        return f"<Term {self.number} of {self.name}: {name_of(self.owner)}>"

    @property
    def is_current(self) -> bool:
        """Whether its owner leads, now."""
        return self._elections.is_current(self)

    def renew(self) -> None:
        """Lead for another lease from now on.

        Raises:
            LeadershipLost: the term is over; it does not begin again.
        """
        self._elections.renew(self)

    def resign(self) -> None:
        """Let the next candidate lead; nothing when the term is over."""
        self._elections.resign(self)

    async def wait_lost(self) -> None:
        """Until the term is over, for whatever reason; at once when it is."""
        while not self.lost.is_set() and self.is_current:
            with trio.move_on_at(self._elections.until(self)):
                await self.lost.wait()
        await trio.lowlevel.checkpoint()


class Elections:
    """Elections by name, made by the first candidate and gone when nobody is left.

    `async with elections.lead("indexer") as term: ...`, and in it `term.renew()` at least
    once a `lease`.
    """

    def __init__(
        self,
        *,
        lease: float = _LEASE_SECONDS,
        candidates: int = _CANDIDATES,
        capacity: int = _ELECTIONS,
    ) -> None:
        """A term lasts `lease` seconds; at most `candidates` may wait for one office.

        At most `capacity` elections may have a leader.

        Raises:
            TypeError, ValueError: a number is no bound.
        """
        check_seconds("lease", lease)
        check_count("candidates", candidates, 0)
        check_count("capacity", capacity, 1)
        self._capacity = capacity
        self.lease = lease
        self._most = candidates
        self._numbers = count(1)
        self._races: dict[str, Race[Term]] = {}
        self._estates: Estates[Term] = Estates(self._ended)
        self._elected: dict[Term, trio.Event] = {}
        self._terms = self._resigned = self._lapsed = 0

    @asynccontextmanager
    async def lead(
        self, name: str, *, owner: Owner | None = None
    ) -> AsyncIterator[Term]:
        """Wait to be elected, and lead for as long as the block lasts.

        When the term is lost the block is cancelled.

        Raises:
            LeadershipLost: it was cut short for that.
            What `campaign` raises.
        """
        term = await self.campaign(name, owner=owner)
        with trio.CancelScope(deadline=self.until(term)) as term.scope:
            try:
                yield term
            finally:
                lost = not term.is_current
                self.resign(term)
        if lost and term.scope.cancelled_caught:
            raise LeadershipLost(name, term.number)

    async def campaign(self, name: str, *, owner: Owner | None = None) -> Term:
        """Be a candidate and wait to be elected; the term lasts one lease to begin with.

        Cancelled, or out of time in a `trio.fail_after`: it is no candidate any more.

        Raises:
            NotAdmitted: `already_standing`, this incarnation leads or stands; `full`.
            NotRunning: there is no owner, it has ended, or it ended meanwhile.
        """
        await checkpoint_if_cancelled()
        term = Term(self, name, owner_of_caller(owner))
        self._stand(term)
        if term.number:
            await cancel_shielded_checkpoint()
            return term
        elected = self._elected[term] = trio.Event()
        try:
            await self._wait_elected(term, elected)
        except BaseException:
            # Perhaps it was elected in this very step.
            self.resign(term)
            self._leave(term)
            raise
        finally:
            del self._elected[term]
        if not term.number:
            raise NotRunning(f"the owner ended while it stood for {name}")
        return term

    async def _wait_elected(self, term: Term, elected: trio.Event) -> None:
        # Candidates keep the leader's time: nobody else has to.
        while not elected.is_set():
            with trio.move_on_at(self._races[term.name].until):
                await elected.wait()
            self._look(term.name)

    def leader(self, name: str) -> Term | None:
        """Whose term it is, if it is anybody's."""
        race = self._look(name)
        return race.leader if race is not None else None

    def is_current(self, term: Term) -> bool:
        """Whether this term is the one that lasts."""
        race = self._look(term.name)
        return race is not None and race.leader is term

    def until(self, term: Term) -> float:
        """When a term ends if it is not renewed, on trio's clock; -inf: it has ended."""
        return self._races[term.name].until if self.is_current(term) else -math.inf

    def renew(self, term: Term) -> None:
        """See `Term.renew`."""
        if not self.is_current(term):
            raise LeadershipLost(term.name, term.number)
        until = self._races[term.name].renew(trio.current_time())
        if term.scope is not None:
            term.scope.deadline = until

    def resign(self, term: Term) -> None:
        """See `Term.resign`."""
        if self.is_current(term):
            self._resigned += 1
            self._leave(term)

    def statistics(self) -> ElectionsStatistics:
        """All that somebody leads or stands in."""
        for name in tuple(self._races):
            self._look(name)
        return ElectionsStatistics(
            elections=tuple(
                ElectionStatistics(
                    name=name,
                    leader=name_of(race.leader.owner) if race.leader else "",
                    term=race.number if race.leader else 0,
                    since_ns=race.leader.since_ns if race.leader else None,
                    candidates=tuple(name_of(one.owner) for one in race.candidates),
                )
                for name, race in self._races.items()
            ),
            owners=len(self._estates),
            lease=self.lease,
            terms=self._terms,
            resigned=self._resigned,
            lapsed=self._lapsed,
        )

    def _stand(self, term: Term) -> None:
        name = term.name
        race = self._look(name)
        if race is None:
            if len(self._races) >= self._capacity:
                raise NotAdmitted(name, "full", name_of(term.owner))
            race = Race[Term](self.lease, self._numbers)
        rivals = race.candidates
        standing = (*rivals, race.leader) if race.leader is not None else rivals
        if any(one.owner is term.owner for one in standing):
            raise NotAdmitted(name, "already_standing", name_of(term.owner))
        if race.leader is not None and len(rivals) >= self._most:
            raise NotAdmitted(name, "full", name_of(term.owner))
        self._races[name] = race
        race.stand(term)
        self._estates.add(term.owner, term)
        self._elect(race)

    def _look(self, name: str) -> Race[Term] | None:
        race = self._races.get(name)
        if race is None:
            return None
        deposed = race.look(trio.current_time())
        if deposed is not None:
            self._lapsed += 1
            self._lose(deposed)
        return self._go_on(name, race)

    def _go_on(self, name: str, race: Race[Term]) -> Race[Term] | None:
        self._elect(race)
        if race.is_over:
            del self._races[name]
            return None
        return race

    def _elect(self, race: Race[Term]) -> None:
        term = race.elect(trio.current_time())
        if term is None:
            return
        self._terms += 1
        term.number, term.since_ns = race.number, wall_ns()
        elected = self._elected.get(term)
        if elected is not None:
            elected.set()

    def _leave(self, term: Term) -> None:
        race = self._races.get(term.name)
        if race is None:
            return
        race.leave(term)
        self._lose(term)
        self._go_on(term.name, race)

    def _lose(self, term: Term) -> None:
        """It leads and stands no more; tell it."""
        self._estates.drop(term.owner, term)
        term.lost.set()
        if term.scope is not None:
            term.scope.cancel()

    def _ended(self, term: Term) -> None:
        race = self._races.get(term.name)
        if race is not None and race.leader is term:
            self._resigned += 1
        self._leave(term)
        elected = self._elected.get(term)
        if elected is not None:
            elected.set()
