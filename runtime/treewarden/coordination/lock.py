"""Locks by name, whose owners may die.

First come, first served. A lock is held by an incarnation: when that ends, however it ends,
the next in line has it. Whoever waited in vain, because his time was over or because he
ended, is out of the line and never becomes the holder.

A holder may be slow where no supervisor can see it: in a thread, behind a socket. So every
grant carries a *fencing token*, a number that never repeats and only grows, over all locks
of a `Locks`. Give it to whatever the lock protects, and let that refuse a token lower than
one that it has seen (Martin Kleppmann, "How to do distributed locking", 2016).

Locks are kept in memory: nothing of them survives the process, and their tokens begin anew
in the next.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio
from trio.lowlevel import (
    Task,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
)

from treewarden.agents import Estates, name_of, owner_of_caller
from treewarden.clock import wall_ns
from treewarden.errors import CallingSelf, LockHeld, LockLost, NotAdmitted, NotRunning
from treewarden.resilience import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from treewarden.registry import Owner

W = TypeVar("W")

# Who may stand in line before one lock; the next is refused.
_LINE: Final = 1000
# Locks that somebody holds; the next is refused.
_LOCKS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right to what a lock protects; `token` grows with every grant of any lock."""

    name: str
    token: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockStatistics:
    """A lock that somebody holds: under which token, since when, how many wait for it."""

    name: str
    holder: str
    token: int
    since_ns: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocksStatistics:
    """All locks that are held; counters since the beginning.

    granted = released + len(locks), at all times; `broken` are among the released, and so
    are those whose owners ended. `owners` hold something or wait.
    """

    locks: tuple[LockStatistics, ...]
    owners: int
    granted: int
    released: int
    broken: int


class LockTable(Generic[W]):
    """Who holds what and who is next: the rules, without tasks. `W` is any hashable.

    A lock is here as long as somebody holds it; nobody waits for one that is free.
    """

    def __init__(self, line: int = _LINE) -> None:
        self.line = line
        self._tokens = count(1)
        self._held: dict[str, tuple[W, int]] = {}
        self._waiting: dict[str, OrderedDict[W, None]] = {}

    def __len__(self) -> int:
        """How many locks are held."""
        return len(self._held)

    def names(self) -> tuple[str, ...]:
        """Of the locks that are held, in the order of their being taken."""
        return tuple(self._held)

    def holder(self, name: str) -> tuple[W, int] | None:
        """Who holds it, and under which token."""
        return self._held.get(name)

    def waiting(self, name: str) -> int:
        """How many wait for it."""
        return len(self._waiting.get(name, ()))

    def ask(self, name: str, who: W) -> int | None:
        """The token, if it is free; else None, and `who` stands in line.

        Raises:
            OverflowError: the line is full; nothing changed.
        """
        if name not in self._held:
            return self._grant(name, who)
        line = self._waiting.setdefault(name, OrderedDict())
        if len(line) >= self.line:
            raise OverflowError
        line[who] = None
        return None

    def leave(self, name: str, who: W) -> None:
        """Stand in line no more; nothing when `who` does not."""
        line = self._waiting.get(name)
        if line is not None:
            line.pop(who, None)
            if not line:
                del self._waiting[name]

    def release(self, name: str, token: int) -> tuple[W, int] | None:
        """Let go of it; who has it now, and under which token.

        Raises:
            KeyError: it is not held under this token.
        """
        held = self._held.get(name)
        if held is None or held[1] != token:
            raise KeyError(name)
        del self._held[name]
        line = self._waiting.get(name)
        if not line:
            return None
        heir = next(iter(line))
        self.leave(name, heir)
        return heir, self._grant(name, heir)

    def _grant(self, name: str, who: W) -> int:
        token = next(self._tokens)
        self._held[name] = who, token
        return token


class _Ticket:
    """Somebody who asked for a lock, and has it once `token` says so."""

    __slots__ = ("decided", "name", "owner", "since_ns", "task", "token")

    def __init__(self, name: str, owner: Owner, task: Task | None) -> None:
        self.name = name
        self.owner = owner
        self.task = task
        self.token: int | None = None
        self.since_ns = 0
        self.decided = trio.Event()


class Locks:
    """Locks by name, made when they are taken and gone when nobody has them.

    `async with locks.hold("index"): ...`. Nothing waits but `acquire` and `hold`.
    """

    def __init__(self, *, line: int = _LINE, capacity: int = _LOCKS) -> None:
        """At most `line` may wait for one lock, and `capacity` locks may be held.

        Raises:
            TypeError, ValueError: a number is no bound.
        """
        check_count("line", line, 0)
        check_count("capacity", capacity, 1)
        self._capacity = capacity
        self._table: LockTable[_Ticket] = LockTable(line)
        self._estates: Estates[_Ticket] = Estates(self._ended)
        self._granted = self._released = self._broken = 0

    @asynccontextmanager
    async def hold(
        self, name: str, *, owner: Owner | None = None
    ) -> AsyncIterator[Grant]:
        """Have the lock for as long as the block lasts.

        A block whose lock was broken meanwhile goes on; ask `is_current`, or let what it
        changes compare tokens. Raises what `acquire` does.
        """
        grant = await self.acquire(name, owner=owner)
        try:
            yield grant
        finally:
            if self.is_current(grant):
                self.release(grant)

    async def acquire(self, name: str, *, owner: Owner | None = None) -> Grant:
        """Wait for the lock and take it, for the running child or a given owner.

        Cancelled, or out of time in a `trio.fail_after`: it never had the lock, and never
        will.

        Raises:
            CallingSelf: this task holds it; it would wait for itself.
            LockHeld: too many wait for it already.
            NotAdmitted: `full`, too many locks are held.
            NotRunning: there is no owner, it has ended, or it ended meanwhile.
        """
        await checkpoint_if_cancelled()
        ticket = _Ticket(name, owner_of_caller(owner), current_task())
        if self._take(ticket):
            await cancel_shielded_checkpoint()
        else:
            try:
                await ticket.decided.wait()
            except BaseException:
                self._give_up(ticket)
                raise
        if ticket.token is None:
            raise NotRunning(f"the owner ended while it waited for lock {name}")
        return _grant(ticket)

    def acquire_nowait(self, name: str, *, owner: Owner | None = None) -> Grant:
        """Take the lock if it is free.

        Raises:
            LockHeld: it is not.
            NotAdmitted: `full`, too many locks are held.
            NotRunning: there is no owner, or it has ended.
        """
        who = owner_of_caller(owner)
        # Whoever takes it for somebody else may wait for it in his own name.
        ticket = _Ticket(name, who, current_task() if owner is None else None)
        if self._table.holder(name) is not None:
            raise self._refusal(name)
        self._take(ticket)
        return _grant(ticket)

    def release(self, grant: Grant) -> None:
        """Let go of the lock; the next in line has it at once.

        Raises:
            LockLost: it is not held under this grant.
        """
        self._release(grant.name, grant.token)

    def break_lock(self, name: str) -> Grant | None:
        """For operators: take it from its holder, whose grant is over; which that was."""
        held = self._table.holder(name)
        if held is None:
            return None
        grant = _grant(held[0])
        self._broken += 1
        self._release(name, held[1])
        return grant

    def is_current(self, grant: Grant) -> bool:
        """Whether the lock is held under this grant."""
        held = self._table.holder(grant.name)
        return held is not None and held[1] == grant.token

    def holder(self, name: str) -> Grant | None:
        """Under which grant it is held, if it is."""
        held = self._table.holder(name)
        return _grant(held[0]) if held is not None else None

    def statistics(self) -> LocksStatistics:
        """All that are held, in the order of their being taken."""
        return LocksStatistics(
            locks=tuple(self._seen(name) for name in self._table.names()),
            owners=len(self._estates),
            granted=self._granted,
            released=self._released,
            broken=self._broken,
        )

    def _seen(self, name: str) -> LockStatistics:
        held = self._table.holder(name)
        assert held is not None  # noqa: S101 - its name is that of one that is held
        return LockStatistics(
            name=name,
            holder=name_of(held[0].owner),
            token=held[1],
            since_ns=held[0].since_ns,
            waiting=self._table.waiting(name),
        )

    def _take(self, ticket: _Ticket) -> bool:
        held = self._table.holder(ticket.name)
        if held is not None and held[0].task is ticket.task is not None:
            raise CallingSelf(f"this task holds lock {ticket.name} already")
        if held is None and len(self._table) >= self._capacity:
            raise NotAdmitted(ticket.name, "full", name_of(ticket.owner))
        try:
            token = self._table.ask(ticket.name, ticket)
        except OverflowError:
            raise self._refusal(ticket.name) from None
        self._estates.add(ticket.owner, ticket)
        if token is not None:
            self._granted += 1
            ticket.token, ticket.since_ns = token, wall_ns()
        return token is not None

    def _refusal(self, name: str) -> LockHeld:
        held = self._table.holder(name)
        holder = name_of(held[0].owner) if held is not None else "nobody"
        return LockHeld(name, holder, self._table.waiting(name))

    def _release(self, name: str, token: int) -> None:
        held = self._table.holder(name)
        try:
            heir = self._table.release(name, token)
        except KeyError:
            raise LockLost(name, token) from None
        self._released += 1
        if held is not None:
            self._estates.drop(held[0].owner, held[0])
        if heir is not None:
            self._granted += 1
            heir[0].token, heir[0].since_ns = heir[1], wall_ns()
            heir[0].decided.set()

    def _give_up(self, ticket: _Ticket) -> None:
        """It waits no more; what it was granted in this very step goes to the next."""
        held = self._table.holder(ticket.name)
        if held is not None and held[0] is ticket:
            self._release(ticket.name, held[1])
        else:
            self._table.leave(ticket.name, ticket)
            self._estates.drop(ticket.owner, ticket)

    def _ended(self, ticket: _Ticket) -> None:
        """Its owner did: it holds nothing and waits for nothing."""
        self._give_up(ticket)
        # What it was granted in this very step it never had.
        ticket.token = None
        ticket.decided.set()


def _grant(ticket: _Ticket) -> Grant:
    assert ticket.token is not None  # noqa: S101 - only what was granted is one
    return Grant(name=ticket.name, token=ticket.token, owner=name_of(ticket.owner))
