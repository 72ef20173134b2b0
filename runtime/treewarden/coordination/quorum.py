"""Votes by name: the participants choose, and a choice with enough votes is the decision.

The number of votes that decides is fixed when the ballot opens, from all participants: it
does not shrink when one of them is gone for good. He abstains then, unless he has voted; a
crash that is restarted takes nobody's vote. A ballot is decided as soon as a choice has
enough votes, or none can have enough any more; then it is closed, and so it is when whoever
opened it leaves its block. Ballots are kept in memory; nothing of them survives the process.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from treewarden.agents import current_body
from treewarden.errors import AgentError, NotAdmitted
from treewarden.resilience import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator

    from treewarden.agents import AgentRef

W = TypeVar("W")

# Ballots that are open; the next is refused.
_BALLOTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a vote ended: `choice` had `needed` votes, or nothing could (`accepted` False).

    `votes` is who chose what, `abstained` who did not and cannot any more.
    """

    name: str
    accepted: bool
    choice: Hashable
    needed: int
    votes: dict[str, Hashable]
    abstained: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotStatistics:
    """An open ballot: how many votes decide, were given, and can still be."""

    name: str
    needed: int
    participants: int
    voted: int
    abstained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumsStatistics:
    """All open ballots; counters since the beginning.

    opened = accepted + undecided + those that are open; `undecided` could not, or were
    closed before they did.
    """

    ballots: tuple[BallotStatistics, ...]
    opened: int
    accepted: int
    undecided: int


class Tally(Generic[W]):
    """The votes of one ballot, counted: the rules, without tasks. `W` is any hashable."""

    __slots__ = ("_absent", "_counts", "needed", "participants", "votes")

    def __init__(self, participants: Iterable[W], need: int | str) -> None:
        """`need`: "majority" (more than half), "all", or a number of votes."""
        self.participants = frozenset(participants)
        many = len(self.participants)
        if not many:
            raise ValueError("a vote needs participants")
        named = {"majority": many // 2 + 1, "all": many}
        if isinstance(need, bool) or not isinstance(need, (int, str)):
            raise TypeError(f"need must be majority, all or an int, not {need!r}")
        needed = named.get(need) if isinstance(need, str) else need
        if needed is None or not 1 <= needed <= many:
            raise ValueError(
                f"need must be majority, all or 1 to {many} votes, not {need!r}"
            )
        self.needed = needed
        self.votes: dict[W, Hashable] = {}
        self._absent: dict[W, None] = {}
        self._counts: Counter[Hashable] = Counter()

    @property
    def absent(self) -> tuple[W, ...]:
        """Who is gone and has not voted."""
        return tuple(self._absent)

    @property
    def winner(self) -> Hashable:
        """The choice that has enough votes; None is none, unless `is_accepted`."""
        top = self._counts.most_common(1)
        return top[0][0] if top and top[0][1] >= self.needed else None

    @property
    def is_accepted(self) -> bool:
        """Whether a choice has enough votes."""
        return self._most >= self.needed

    @property
    def is_decided(self) -> bool:
        """Whether no vote can change anything any more."""
        missing = len(self.participants) - len(self.votes) - len(self._absent)
        return self.is_accepted or self._most + missing < self.needed

    @property
    def _most(self) -> int:
        return max(self._counts.values(), default=0)

    def refusal(self, who: W) -> str | None:
        """Why this one cannot vote; None: he can."""
        if who not in self.participants:
            return "not_a_participant"
        if who in self.votes:
            return "already_voted"
        return "closed" if self.is_decided else None

    def vote(self, who: W, choice: Hashable) -> None:
        """Count a vote that is not refused.

        Raises:
            TypeError: the choice cannot be counted; there was no vote.
        """
        hash(choice)
        self._absent.pop(who, None)
        self.votes[who] = choice
        self._counts[choice] += 1

    def abstain(self, who: W) -> None:
        """A participant is gone; nothing when he has voted."""
        if who not in self.votes:
            self._absent[who] = None


class Ballot:
    """An open vote; from `Quorums.open`. `number` is its own, also among namesakes."""

    def __init__(
        self,
        name: str,
        number: int,
        participants: Iterable[str],
        need: int | str,
        decided: Callable[[Ballot], None],
    ) -> None:
        self.name = name
        self.number = number
        self.tally: Tally[str] = Tally(participants, need)
        self.forget: list[Callable[[], object]] = []
        self.is_closed = False
        self._told = decided
        self._over = trio.Event()

    @property
    def decision(self) -> Decision | None:
        """How it was decided; None when it is not, or was closed before."""
        tally = self.tally
        if not tally.is_decided:
            return None
        return Decision(
            name=self.name,
            accepted=tally.is_accepted,
            choice=tally.winner,
            needed=tally.needed,
            votes=dict(tally.votes),
            abstained=tally.absent,
        )

    def vote(self, choice: Hashable, *, voter: AgentRef[Any] | None = None) -> None:
        """Vote, once: the agent whose handler runs, or a given one.

        Raises:
            NotAdmitted: `not_a_participant`, `already_voted` or `closed`.
            TypeError: the choice is not hashable; there was no vote.
        """
        who = _voter(voter)
        reason = self.tally.refusal(who) or ("closed" if self.is_closed else None)
        if reason is not None:
            raise NotAdmitted(self.name, reason, who)
        self.tally.vote(who, choice)
        self._look()

    def abstain(self, who: str) -> None:
        """A participant is gone for good."""
        self.tally.abstain(who)
        self._look()

    async def wait_decided(self) -> Decision:
        """Wait for the decision; at once when there is one.

        Raises:
            NotAdmitted: `closed`, before it was decided.
        """
        await self._over.wait()
        decision = self.decision
        if decision is None:
            raise NotAdmitted(self.name, "closed")
        return decision

    def close(self) -> None:
        """Take no more votes; whoever waits for the decision goes on."""
        if not self.is_closed:
            self.is_closed = True
            for forget in self.forget:
                forget()
            self._over.set()
            self._told(self)

    def _look(self) -> None:
        if self.tally.is_decided:
            self.close()


class Quorums:
    """Votes by name; a ballot is gone as soon as it is decided or closed.

        with quorums.open("deploy", [a, b, c], need="majority") as ballot:
            for ref in (a, b, c):
                await ref.cast(Member.asked, "deploy", ballot.number)
            with trio.fail_after(30):
                decision = await ballot.wait_decided()

    In each member's handler: `runtime.quorums.vote("deploy", True, number=number)`.
    """

    def __init__(self, *, capacity: int = _BALLOTS) -> None:
        """At most `capacity` ballots may be open.

        Raises:
            TypeError, ValueError: it is no bound.
        """
        check_count("capacity", capacity, 1)
        self._capacity = capacity
        self._open: dict[str, Ballot] = {}
        self._opened = self._accepted = self._undecided = 0
        self._numbers = count(1)

    @contextmanager
    def open(
        self,
        name: str,
        participants: Collection[AgentRef[Any]],
        *,
        need: int | str = "majority",
    ) -> Iterator[Ballot]:
        """A vote of these agents, open until it is decided or the block is left.

        Raises:
            ValueError: there are no participants, or `need` is no number of votes.
            NotAdmitted: `already_open`, there is a vote of that name; `full`.
        """
        if name in self._open:
            raise NotAdmitted(name, "already_open")
        if len(self._open) >= self._capacity:
            raise NotAdmitted(name, "full")
        ballot = Ballot(
            name,
            next(self._numbers),
            [ref.path for ref in participants],
            need,
            self._closed,
        )
        self._open[name] = ballot
        self._opened += 1
        try:
            self._watch(ballot, participants)
            yield ballot
        finally:
            ballot.close()

    def _watch(self, ballot: Ballot, participants: Iterable[AgentRef[Any]]) -> None:
        for ref in participants:
            if ballot.is_closed:
                return
            try:
                body = ref.resolve()
            except AgentError:
                ballot.abstain(ref.path)
                continue
            if body.resting:
                ballot.abstain(ref.path)
            else:
                tell = partial(ballot.abstain, ref.path)
                ballot.forget.append(body.when_at_rest(tell))

    def vote(
        self,
        name: str,
        choice: Hashable,
        *,
        number: int | None = None,
        voter: AgentRef[Any] | None = None,
    ) -> None:
        """Vote in the ballot of this name: see `Ballot.vote`.

        `number` is the ballot's, if the voter was told: without it a vote that comes late
        is one in the next ballot of that name.

        Raises:
            NotAdmitted: `closed`, also when there never was one; or as `Ballot.vote`.
            TypeError: the choice is not hashable; there was no vote.
        """
        ballot = self._open.get(name)
        if ballot is None or number not in (None, ballot.number):
            raise NotAdmitted(name, "closed", _voter(voter))
        ballot.vote(choice, voter=voter)

    def statistics(self) -> QuorumsStatistics:
        """All that are open, oldest first."""
        return QuorumsStatistics(
            ballots=tuple(
                BallotStatistics(
                    name=name,
                    needed=one.tally.needed,
                    participants=len(one.tally.participants),
                    voted=len(one.tally.votes),
                    abstained=len(one.tally.absent),
                )
                for name, one in self._open.items()
            ),
            opened=self._opened,
            accepted=self._accepted,
            undecided=self._undecided,
        )

    def _closed(self, ballot: Ballot) -> None:
        del self._open[ballot.name]
        if ballot.tally.is_accepted:
            self._accepted += 1
        else:
            self._undecided += 1


def _voter(given: AgentRef[Any] | None) -> str:
    if given is not None:
        return given.path
    body = current_body.get()
    return body.node.path if body is not None else ""
