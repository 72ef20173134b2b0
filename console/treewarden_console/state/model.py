"""What the console believes about a runtime.

Updates come in, changes go out. Time is passed in: `now` is the console's monotonic
clock in seconds. Ages are told by the runtime's own wall clock, carried forward from its
last reading, so that a socket forwarded from a machine whose clock is off shows no
nonsense; and they stand still while the link is down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from treewarden.control.protocol import (
    AgentRow,
    AgentsUpdate,
    AlarmRow,
    AlarmsUpdate,
    BusUpdate,
    CircuitRow,
    CircuitsUpdate,
    DeadLetterRow,
    DeadLetters,
    EventRow,
    EventsUpdate,
    NodeRow,
    PoliciesUpdate,
    PolicyRow,
    ProcessRow,
    ProcessUpdate,
    Rights,
    RuntimeRow,
    SubscriptionRow,
    Subscriptions,
    TreeUpdate,
    Update,
    Welcome,
)

from .events import EventLog
from .hearing import Hearing
from .series import SLOT_SECONDS, FailureStrips, Rates
from .table import ALL, Changes, Table
from .words import age

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

UNWELL = frozenset({"failed", "restarting", "stuck", "suspended"})
"""States that an operator wants to hear of, also from a folded branch."""

_NONE = Changes()
_Health: TypeAlias = tuple[int, Counter[str], set[str]]
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What changed since the last tick; `second` once a second, for ages."""

    nodes: Changes = _NONE
    agents: Changes = _NONE
    circuits: Changes = _NONE
    policies: Changes = _NONE
    subscriptions: Changes = _NONE
    letters: Changes = _NONE
    alarms: Changes = _NONE
    events: bool = False
    second: bool = False

    def __bool__(self) -> bool:
        """Whether anything needs drawing."""
        tables = (
            self.nodes, self.agents, self.circuits,
            self.policies, self.subscriptions, self.letters, self.alarms,
        )  # fmt: skip
        return any(tables) or self.events or self.second


EVERYTHING = News(
    nodes=ALL,
    agents=ALL,
    circuits=ALL,
    policies=ALL,
    subscriptions=ALL,
    letters=ALL,
    alarms=ALL,
    events=True,
    second=True,
)


def _nodes() -> Table[NodeRow]:
    return Table(place=lambda row: (row.parent, row.system, row.order))


@dataclass(slots=True, kw_only=True)
class Model:
    """The rows of every topic, the events, rates, and the state of the link.

    Idle subscriptions (durable ones that nobody takes events of) and dead letters are in
    the runtime's store; nobody tells of them unasked, so they are as old as the last
    answer. `more_letters` says that there are others behind those.
    """

    hearing: Hearing = field(default_factory=Hearing)
    runtime: RuntimeRow | None = None
    rights: Rights = Rights.RO
    process: ProcessRow | None = None
    nodes: Table[NodeRow] = field(default_factory=_nodes)
    agents: Table[AgentRow] = field(default_factory=Table)
    circuits: Table[CircuitRow] = field(default_factory=Table)
    policies: Table[PolicyRow] = field(default_factory=Table)
    subscriptions: Table[SubscriptionRow] = field(default_factory=Table)
    idle: Table[SubscriptionRow] = field(default_factory=Table)
    letters: Table[DeadLetterRow] = field(default_factory=Table)
    more_letters: bool = False
    alarms: Table[AlarmRow] = field(default_factory=Table)
    events: EventLog = field(default_factory=EventLog)
    rates: Rates = field(default_factory=Rates)
    call_rates: Rates = field(default_factory=Rates)
    event_rates: Rates = field(default_factory=Rates)
    totals: Rates = field(default_factory=Rates)
    strips: FailureStrips = field(default_factory=FailureStrips)
    _process_at: float = 0.0
    _still_at: float | None = None
    _sampled_at: float | None = None
    _slot_at: float = 0.0
    _counted: set[str] = field(default_factory=set)
    _events_seen: tuple[int, int] = (0, 0)
    _counted_health: _Health = field(default_factory=lambda: (-1, Counter(), set()))

    def welcome(self, welcome: Welcome, now: float) -> str:
        """A session began; returns what an operator must be told, or nothing.

        Another boot id is another run: everything of the old one is forgotten.
        """
        before, self.runtime = self.runtime, welcome.runtime
        self.rights = welcome.rights
        self.hearing.begin(now)
        if before is None or before.boot == welcome.runtime.boot:
            return ""
        was_up = self.process.uptime if self.process is not None else None
        self._forget()
        return f"restarted, was up {age(was_up)}"

    def apply(self, update: Update, now: float) -> None:
        """Take one notice."""
        self.hearing.heard(now, update.lost)
        match update:
            case TreeUpdate(rows=nodes):
                _apply(self.nodes, update, ((row.path, row) for row in nodes))
            case AgentsUpdate(rows=agents):
                _apply(self.agents, update, ((row.path, row) for row in agents))
                self._counted.update(row.path for row in agents)
                self.rates.forget(update.gone)
            case CircuitsUpdate(rows=circuits):
                _apply(self.circuits, update, ((row.name, row) for row in circuits))
            case PoliciesUpdate(rows=policies):
                _apply(self.policies, update, ((row.name, row) for row in policies))
                self.call_rates.forget(update.gone)
            case BusUpdate(rows=bus):
                _apply(self.subscriptions, update, ((row.id, row) for row in bus))
                self.event_rates.forget(update.gone)
            case AlarmsUpdate(rows=alarms):
                _apply(self.alarms, update, ((f"{row.id}", row) for row in alarms))
            case EventsUpdate(rows=events):
                self._apply_events(update, events)
            case ProcessUpdate(rows=[*_, process]):
                self.process, self._process_at = process, now
            case _:
                pass  # a topic of a newer runtime: nothing here shows it

    def take_subscriptions(self, answer: Subscriptions) -> None:
        """Learn which durable subscriptions are idle."""
        idle = [(row.id, row) for row in answer.rows if row.durable and not row.members]
        self.idle.apply(idle, full=True)

    def take_letters(self, answer: DeadLetters) -> None:
        """Learn which dead letters there are."""
        self.letters.apply(((f"{row.number}", row) for row in answer.rows), full=True)
        self.more_letters = answer.more

    def all_subscriptions(self) -> dict[str, SubscriptionRow]:
        """Those in memory and the idle ones; of an id in both, the former is newer."""
        return self.subscriptions.rows | {
            id_: row
            for id_, row in self.idle.rows.items()
            if id_ not in self.subscriptions.rows
        }

    def sample(self, now: float) -> bool:
        """Turn counters into rates once a second; True when it did."""
        if self._sampled_at is None:
            self._sampled_at = self._slot_at = now
            self._sample_rates(1.0)  # what is seen first has no rate yet
            self._sample_strips()
        seconds = now - self._sampled_at
        if seconds < 1.0:
            return False
        self._sampled_at = now
        self._sample_rates(seconds)
        if now - self._slot_at >= SLOT_SECONDS:
            self._slot_at = now
            self._sample_strips()
            self.circuits.touch(self.circuits.rows)
        return True

    def take(self, *, second: bool = False) -> News:
        """What changed since the last call."""
        seen = (self.events.epoch, self.events.arrived)
        before, self._events_seen = self._events_seen, seen
        return News(
            nodes=self.nodes.take(),
            agents=self.agents.take(),
            circuits=self.circuits.take(),
            policies=self.policies.take(),
            subscriptions=self.subscriptions.take() | self.idle.take(),
            letters=self.letters.take(),
            alarms=self.alarms.take(),
            events=before != seen,
            second=second,
        )

    def still(self, now: float) -> Model:
        """This picture as it is now, for a view that is held."""
        return Model(
            hearing=self.hearing,
            runtime=self.runtime,
            rights=self.rights,
            process=self.process,
            nodes=self.nodes.copy(),
            agents=self.agents.copy(),
            circuits=self.circuits.copy(),
            policies=self.policies.copy(),
            subscriptions=self.subscriptions.copy(),
            idle=self.idle.copy(),
            letters=self.letters.copy(),
            more_letters=self.more_letters,
            alarms=self.alarms.copy(),
            events=self.events.copy(),
            rates=self.rates.copy(),
            call_rates=self.call_rates.copy(),
            event_rates=self.event_rates.copy(),
            totals=self.totals.copy(),
            strips=self.strips.copy(),
            _process_at=self._process_at,
            _still_at=now,
        )

    def states(self) -> Counter[str]:
        """How many nodes are in which state."""
        return self._health()[1]

    def troubled(self) -> Set[str]:
        """The nodes that somebody should look at, and all that they are below."""
        return self._health()[2]

    def _health(self) -> _Health:
        # Read with every line that is drawn, so counted once for each change.
        if self._counted_health[0] != self.nodes.revision:
            nodes = self.nodes.rows.values()
            states: Counter[str] = Counter(node.state for node in nodes)
            self._counted_health = (self.nodes.revision, states, self._find_trouble())
        return self._counted_health

    def _find_trouble(self) -> set[str]:
        # By parents, not by paths: a path need not name all that it is below.
        nodes, troubled = self.nodes.rows, set[str]()
        for node in nodes.values():
            at = node.path if node.state in UNWELL else None
            while at is not None and at not in troubled:
                troubled.add(at)
                above = nodes.get(at)
                at = above.parent if above is not None else None
        return troubled

    def wall_ns(self, now: float) -> int | None:
        """The runtime's wall clock; None until it first told it."""
        if self.process is None:
            return None
        ends = (now, self._still_at, self.hearing.ended_at)
        reached = min(end for end in ends if end is not None)
        return self.process.at_ns + int((reached - self._process_at) * 1e9)

    def seconds_since(self, at_ns: int | None, now: float) -> float | None:
        """How long ago something was, in the runtime's time."""
        wall = self.wall_ns(now)
        return None if wall is None or at_ns is None else (wall - at_ns) / 1e9

    def uptime(self, now: float) -> float | None:
        """Seconds since the runtime began."""
        if self.runtime is None:
            return None
        return self.seconds_since(self.runtime.started_at_ns, now)

    def _apply_events(self, update: EventsUpdate, rows: list[EventRow]) -> None:
        # A snapshot of the events overlaps what is here; it is merged, because
        # forgetting older entries would empty the screen of somebody who reads them.
        if update.full:
            self.events.backfill(rows)
        else:
            self.events.extend(rows)

    def _sample_rates(self, seconds: float) -> None:
        agents = self.agents.rows
        moved = {path: agents[path].handled for path in self._counted & agents.keys()}
        self._counted.clear()
        self.agents.touch(self.rates.sample(moved, seconds))
        calls = {name: row.calls for name, row in self.policies.rows.items()}
        self.policies.touch(self.call_rates.sample(calls, seconds))
        events = {id_: row.published for id_, row in self.subscriptions.rows.items()}
        self.subscriptions.touch(self.event_rates.sample(events, seconds))
        if self.process is not None:
            totals = {
                "published": self.process.published,
                "commits": self.process.commits,
            }
            self.totals.sample(totals, seconds)

    def _sample_strips(self) -> None:
        rows = self.circuits.rows.values()
        self.strips.sample(
            {row.name: (row.calls, row.failed + row.rejected) for row in rows}
        )

    def _forget(self) -> None:
        for table in (
            self.nodes, self.agents, self.circuits, self.policies,
            self.subscriptions, self.idle, self.letters, self.alarms,
        ):  # fmt: skip
            table.clear()
        for counted in (
            self.rates, self.call_rates, self.event_rates,
            self.totals, self.strips, self.events,
        ):  # fmt: skip
            counted.clear()
        self.more_letters = False
        self._counted.clear()
        self.process = None
        self.hearing.lost = 0


def _apply(
    table: Table[_Row], update: Update, rows: Iterable[tuple[str, _Row]]
) -> None:
    table.apply(rows, gone=update.gone, full=update.full, more=update.more)
