"""Barriers by name: so many come, and all of them go on together.

An arrival belongs to an incarnation. Whoever stops waiting, because he was cancelled, his
time was over or he ended, has not arrived; his next incarnation comes again, and nobody else
notices. When the last one comes, the barrier is gone, and the next to come to that name
begins another one. Barriers are kept in memory; nothing of them survives the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from treewarden.agents import Estates, name_of, owner_of_caller
from treewarden.errors import NotAdmitted, NotRunning
from treewarden.resilience import check_count

if TYPE_CHECKING:
    from treewarden.registry import Owner

W = TypeVar("W")

# Barriers that somebody waits at; the next is refused.
_BARRIERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierStatistics:
    """A barrier that somebody waits at: who has come, of how many, in order."""

    name: str
    parties: int
    arrived: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarriersStatistics:
    """All barriers that somebody waits at; counters since the beginning.

    arrived = passed + left + those who wait, at all times.
    """

    barriers: tuple[BarrierStatistics, ...]
    owners: int
    arrived: int
    passed: int
    left: int


class Gathering(Generic[W]):
    """One barrier: who has come, and when that is enough. `W` is any hashable."""

    __slots__ = ("_arrived", "parties")

    def __init__(self, parties: int) -> None:
        check_count("parties", parties, 1)
        self.parties = parties
        self._arrived: dict[W, None] = {}

    @property
    def arrived(self) -> tuple[W, ...]:
        """Who has come, in order."""
        return tuple(self._arrived)

    @property
    def is_complete(self) -> bool:
        """Whether all have come."""
        return len(self._arrived) >= self.parties

    def arrive(self, who: W) -> None:
        """Come; nothing when it has come already."""
        self._arrived[who] = None

    def leave(self, who: W) -> None:
        """Not have come after all."""
        self._arrived.pop(who, None)


class _Arrival:
    __slots__ = ("decided", "name", "owner", "place")

    def __init__(self, name: str, owner: Owner) -> None:
        self.name = name
        self.owner = owner
        self.place: int | None = None
        self.decided = trio.Event()


class Barriers:
    """Barriers by name, made by the first to come and gone with the last."""

    def __init__(self, *, capacity: int = _BARRIERS) -> None:
        """At most `capacity` barriers may be waited at.

        Raises:
            TypeError, ValueError: it is no bound.
        """
        check_count("capacity", capacity, 1)
        self._capacity = capacity
        self._open: dict[str, Gathering[_Arrival]] = {}
        self._estates: Estates[_Arrival] = Estates(self._ended)
        self._arrived = self._passed = self._left = 0

    async def meet(self, name: str, parties: int, *, owner: Owner | None = None) -> int:
        """Wait until `parties` have come; the order in which this one came, from 0.

        Cancelled, or out of time in a `trio.fail_after`: it has not come, unless the last
        one came in the very same step.

        Raises:
            TypeError, ValueError: the others expect another number, or it is none.
            NotAdmitted: `already_arrived`, this incarnation waits there; `full`, there
                are too many barriers.
            NotRunning: there is no owner, it has ended, or it ended meanwhile.
        """
        await checkpoint_if_cancelled()
        arrival = _Arrival(name, owner_of_caller(owner))
        self._admit(arrival, parties)
        if arrival.place is not None:
            await cancel_shielded_checkpoint()
            return arrival.place
        try:
            await arrival.decided.wait()
        finally:
            if arrival.place is None:
                self._leave(arrival)
        if arrival.place is None:
            raise NotRunning(f"the owner ended while it waited at barrier {name}")
        return arrival.place

    def statistics(self) -> BarriersStatistics:
        """All that somebody waits at, oldest first."""
        return BarriersStatistics(
            barriers=tuple(
                BarrierStatistics(
                    name=name,
                    parties=one.parties,
                    arrived=tuple(name_of(who.owner) for who in one.arrived),
                )
                for name, one in self._open.items()
            ),
            owners=len(self._estates),
            arrived=self._arrived,
            passed=self._passed,
            left=self._left,
        )

    def _admit(self, arrival: _Arrival, parties: int) -> None:
        name = arrival.name
        gathering = self._open.get(name)
        if gathering is None:
            gathering = Gathering(parties)
            if len(self._open) >= self._capacity:
                raise NotAdmitted(name, "full")
        if gathering.parties != parties:
            raise ValueError(
                f"barrier {name} is for {gathering.parties} parties, not {parties}"
            )
        if any(one.owner is arrival.owner for one in gathering.arrived):
            raise NotAdmitted(name, "already_arrived", name_of(arrival.owner))
        self._open[name] = gathering
        gathering.arrive(arrival)
        self._arrived += 1
        self._estates.add(arrival.owner, arrival)
        if gathering.is_complete:
            self._pass(name, gathering)

    def _pass(self, name: str, gathering: Gathering[_Arrival]) -> None:
        del self._open[name]
        for place, one in enumerate(gathering.arrived):
            one.place = place
            self._passed += 1
            self._estates.drop(one.owner, one)
            one.decided.set()

    def _leave(self, arrival: _Arrival) -> None:
        gathering = self._open.get(arrival.name)
        if gathering is None or arrival not in gathering.arrived:
            return
        gathering.leave(arrival)
        self._left += 1
        self._estates.drop(arrival.owner, arrival)
        if not gathering.arrived:
            del self._open[arrival.name]

    def _ended(self, arrival: _Arrival) -> None:
        self._leave(arrival)
        arrival.decided.set()
