"""What a durable subscription delivers next, and when again.

Pure: time and members are passed in. An entry is an event on its way:

    READY ── lease ──► LEASED ── settle ──► SETTLING ── finish ──► (gone)
      ▲                  │ │                    │
      │◄── give_back ────┘ └─ wait ─► WAITING   │
      │◄──────── its time has come ──────┘      │
      │◄──────────── undo: it was not kept ─────┘

Events of one key form a chain, and only the first of a chain is ever delivered: the next
one's turn comes when what was done for the first is on its way into the store. So events
of one key are handled in their order, by whomever, while others overtake them. If the first
then comes back, what is done for the next one meanwhile cannot be kept either, and it
follows the first once more.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.store import Unit

    from .event import Event


# From so many hints on, those that count no more are looked for.
_TIMED_FROM = 64


class Stage(Enum):
    """Where an event is on its way."""

    READY = auto()
    WAITING = auto()
    LEASED = auto()
    SETTLING = auto()


class Entry:
    """One event of one subscription that is not over.

    `attempts` were begun; `noted` is how many the file has a row for, None when it has
    none. One that is `again` was given up once: its row holds the event, and the cursor
    has passed it. One that is `hopeless`, and why, is not tried any more. `lease` numbers
    the leases, so that an old one is known by its number. What is done on a lease
    `builds_on` the unit of the one before of its key, if that was not decided by then.
    Until it is over, whoever goes on with the subscription begins behind `after`: it may
    have to tell of what was lost between there and its own position.
    """

    __slots__ = (
        "after",
        "again",
        "attempts",
        "builds_on",
        "event",
        "hopeless",
        "key",
        "lease",
        "member",
        "noted",
        "stage",
        "until",
    )

    def __init__(
        self,
        event: Event,
        key: str,
        *,
        attempts: int = 0,
        noted: int | None = None,
        again: bool = False,
        after: int | None = None,
    ) -> None:
        self.event = event
        self.after = event.position - 1 if after is None else after
        self.key = key
        self.attempts = attempts
        self.noted = noted
        self.again = again
        self.hopeless = ""
        self.stage = Stage.READY
        self.member = 0
        self.lease = 0
        self.builds_on: Unit | None = None
        # When it is due again, or when its lease runs out.
        self.until = math.inf

    @property
    def position(self) -> int:
        """Its place in the journal."""
        return self.event.position

    @property
    def tells_of_gap(self) -> bool:
        """Whether something was lost right before it."""
        return self.after < self.event.position - 1


class Deliveries:
    """The events of one durable subscription that are in memory and not over."""

    __slots__ = ("_again", "_chains", "_entries", "_ready", "_timed")

    def __init__(self) -> None:
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._again: dict[int, Entry] = {}
        self._chains: dict[str, deque[Entry]] = {}
        # Heaps of hints: one counts only if the entry still is as the hint says.
        self._ready: list[int] = []
        self._timed: list[tuple[float, int]] = []

    def __len__(self) -> int:
        """Entries of whatever stage."""
        return len(self._entries) + len(self._again)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, those that are tried again last."""
        yield from self._entries.values()
        yield from self._again.values()

    def at(self, stage: Stage) -> int:
        """How many are at a stage."""
        return sum(one.stage is stage for one in self)

    def find(self, position: int) -> Entry | None:
        """The entry of this position, if it is not over."""
        return self._entries.get(position) or self._again.get(position)

    @property
    def lowest(self) -> int | None:
        """The position behind which the cursor must stay; None: there is none."""
        return next(iter(self._entries), None)

    def ahead(self, position: int, count: int) -> int:
        """The position of the last of `count` entries from `position` on."""
        last = position
        for one in self._entries:
            if one > position and count > 1:
                last, count = one, count - 1
        return last

    # --- stages ------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """A new one, the last of its key."""
        (self._again if entry.again else self._entries)[entry.position] = entry
        self._enter(entry)

    def first(self) -> Entry | None:
        """The oldest that may be delivered now."""
        ready = self._ready
        while ready:
            entry = self.find(ready[0])
            if (
                entry is not None
                and entry.stage is Stage.READY
                and self._chains[entry.key][0] is entry
            ):
                return entry
            heapq.heappop(ready)
        return None

    def lease(self, entry: Entry, member: int, until: float) -> int:
        """Give it to a member until a time; the number of the lease."""
        entry.stage = Stage.LEASED
        entry.member, entry.until = member, until
        entry.attempts += 1
        entry.lease += 1
        if until < math.inf:
            self._time(entry)
        return entry.lease

    def give_back(self, entry: Entry) -> None:
        """It was leased, or handled in vain, and that is not its fault: no attempt."""
        entry.attempts -= 1
        if entry.stage is Stage.SETTLING:
            self._enter(entry)
        else:
            self._be_ready(entry)

    def wait(self, entry: Entry, until: float) -> None:
        """It failed: it is ready again at `until`, and its key waits for it."""
        settling = entry.stage is Stage.SETTLING
        entry.stage, entry.until = Stage.WAITING, until
        if settling:
            self._enter(entry)
        self._time(entry)

    def settle(self, entry: Entry) -> None:
        """What was done for it is on its way into the store: the next of its key."""
        entry.stage = Stage.SETTLING
        chain = self._chains[entry.key]
        chain.remove(entry)
        if chain:
            self._hint(chain[0])
        else:
            del self._chains[entry.key]

    def finish(self, entry: Entry) -> None:
        """It is over: it was settling, and that is kept."""
        del (self._again if entry.again else self._entries)[entry.position]

    def _enter(self, entry: Entry) -> None:
        """Into its chain, in the order of positions."""
        chain = self._chains.setdefault(entry.key, deque())
        place = len(chain)
        while place and chain[place - 1].position > entry.position:
            place -= 1
        chain.insert(place, entry)
        if entry.stage is not Stage.WAITING:
            self._be_ready(entry)

    def _be_ready(self, entry: Entry) -> None:
        entry.stage, entry.until = Stage.READY, math.inf
        self._hint(entry)

    def _hint(self, entry: Entry) -> None:
        heapq.heappush(self._ready, entry.position)

    def _time(self, entry: Entry) -> None:
        timed = self._timed
        heapq.heappush(timed, (entry.until, entry.position))
        if len(timed) > _TIMED_FROM + 2 * len(self):
            # A lease is over long before it runs out, and its hint with it.
            self._timed = [(one.until, one.position) for one in self if _is_timed(one)]
            heapq.heapify(self._timed)

    # --- time --------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When `tick` has something to do; infinity: never."""
        timed = self._timed
        while timed:
            until, position = timed[0]
            entry = self.find(position)
            if entry is not None and entry.until == until and _is_timed(entry):
                return until
            heapq.heappop(timed)
        return math.inf

    def tick(self, now: float) -> list[Entry]:
        """Make ready what is due; the entries whose lease has run out."""
        expired = []
        while self.due <= now:
            _, position = heapq.heappop(self._timed)
            entry = self.find(position)
            if entry is None:
                continue
            if entry.stage is Stage.WAITING:
                self._be_ready(entry)
            else:
                # It runs out once, however many hints say so: one that was given back and
                # leased again in the same instant has two that are alike.
                entry.until = math.inf
                expired.append(entry)
        return expired

    def held_by(self, member: int) -> list[Entry]:
        """What a member has leased, the oldest first."""
        return [
            one for one in self if one.stage is Stage.LEASED and one.member == member
        ]


def _is_timed(entry: Entry) -> bool:
    return entry.stage in (Stage.WAITING, Stage.LEASED) and entry.until < math.inf
