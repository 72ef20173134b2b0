"""What the console believes about a runtime.

Updates come in, changes go out. Time is passed in: `now` is the console's monotonic
clock in seconds. Ages are told by the runtime's own wall clock, carried forward from its
last reading, so that a socket forwarded from a machine whose clock is off shows no
nonsense; and they stand still while the link is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from treewarden.control.protocol import (
    AgentRow,
    AgentsUpdate,
    AlarmRow,
    AlarmsUpdate,
    BusUpdate,
    CircuitRow,
    CircuitsUpdate,
    CollectionRow,
    DeadLetterRow,
    DeadLetters,
    EventRow,
    EventsUpdate,
    Exchanges,
    GatewayRow,
    Gateways,
    GaugeRow,
    Gauges,
    HealthOfSubjects,
    HealthRow,
    LineRow,
    MeetingRow,
    Meetings,
    Message,
    NodeRow,
    OperationRow,
    Operations,
    PoliciesUpdate,
    PolicyRow,
    ProcessRow,
    ProcessUpdate,
    Queues,
    Rights,
    RuntimeRow,
    SubscriptionRow,
    Subscriptions,
    TreeUpdate,
    Update,
    Welcome,
    WorkflowRow,
    Workflows,
)

from .events import EventLog
from .hearing import Hearing
from .series import SLOT_SECONDS, FailureStrips, Rates
from .table import ALL, Changes, Table
from .words import age

if TYPE_CHECKING:
    from collections.abc import Set

UNWELL = frozenset({"failed", "restarting", "stuck", "suspended"})
"""States that an operator wants to hear of, also from a folded branch."""

_Health: TypeAlias = tuple[int, Counter[str], set[str]]
_Place: TypeAlias = tuple[str, Callable[[Any], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What changed since the last tick, by table; `second` once a second, for ages."""

    tables: Mapping[str, Changes] = field(default_factory=dict)
    everything: bool = False
    events: bool = False
    second: bool = False

    def __bool__(self) -> bool:
        """Whether anything needs drawing."""
        changed = self.everything or any(self.tables.values())
        return changed or self.events or self.second

    def of(self, *names: str) -> Changes:
        """What changed in these tables, that are shown as one."""
        if self.everything:
            return ALL
        changes = Changes()
        for name in names:
            changes |= self.tables.get(name, Changes())
        return changes


EVERYTHING = News(everything=True, events=True, second=True)


def _nodes() -> Table[NodeRow]:
    return Table(place=lambda row: (row.parent, row.system, row.order))


@dataclass(slots=True, kw_only=True)
class Tables:
    """All that is known as rows, by the names that `News` has for them.

    The first six are watched. Nobody tells of the others unasked: they are as old as the
    last answer. `durable` are the durable subscriptions, also those that nobody takes
    events of, which are not watched; and only an answer says how many bytes behind each is.
    """

    nodes: Table[NodeRow] = field(default_factory=_nodes)
    agents: Table[AgentRow] = field(default_factory=Table)
    circuits: Table[CircuitRow] = field(default_factory=Table)
    policies: Table[PolicyRow] = field(default_factory=Table)
    subscriptions: Table[SubscriptionRow] = field(default_factory=Table)
    alarms: Table[AlarmRow] = field(default_factory=Table)
    durable: Table[SubscriptionRow] = field(default_factory=Table)
    letters: Table[DeadLetterRow] = field(default_factory=Table)
    lines: Table[LineRow] = field(default_factory=Table)
    meetings: Table[MeetingRow] = field(default_factory=Table)
    workflows: Table[WorkflowRow] = field(default_factory=Table)
    collections: Table[CollectionRow] = field(default_factory=Table)
    health: Table[HealthRow] = field(default_factory=Table)
    gateways: Table[GatewayRow] = field(default_factory=Table)
    gauges: Table[GaugeRow] = field(default_factory=Table)
    operations: Table[OperationRow] = field(default_factory=Table)

    def by_name(self) -> dict[str, Table[Any]]:
        """Every table."""
        return {one.name: getattr(self, one.name) for one in fields(Tables)}


# Which table the rows of an update or an answer go to, and by what id.
_WATCHED: Final[dict[type[Update], _Place]] = {
    TreeUpdate: ("nodes", attrgetter("path")),
    AgentsUpdate: ("agents", attrgetter("path")),
    CircuitsUpdate: ("circuits", attrgetter("name")),
    PoliciesUpdate: ("policies", attrgetter("name")),
    BusUpdate: ("subscriptions", attrgetter("id")),
    AlarmsUpdate: ("alarms", lambda row: f"{row.id}"),
}
_ANSWERED: Final[dict[type[Message], _Place]] = {
    DeadLetters: ("letters", lambda row: f"{row.number}"),
    Exchanges: ("lines", lambda row: f"{row.exchange} {row.receiver}"),
    Meetings: ("meetings", lambda row: f"{row.kind} {row.name}"),
    Workflows: ("workflows", attrgetter("id")),
    Queues: ("collections", lambda row: f"{row.path}.{row.name}"),
    HealthOfSubjects: ("health", attrgetter("subject")),
    Gateways: ("gateways", lambda row: f"{row.kind} {row.name}"),
    Gauges: ("gauges", attrgetter("name")),
    Operations: ("operations", attrgetter("name")),
}


@dataclass(slots=True, kw_only=True)
class Model(Tables):
    """The rows of every table, the events, rates, and the state of the link.

    Those in `told` were told of at all, and of those in `cut` there are more rows.
    """

    hearing: Hearing = field(default_factory=Hearing)
    runtime: RuntimeRow | None = None
    rights: Rights = Rights.RO
    process: ProcessRow | None = None
    told: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
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
        """Take one notice; that of a topic of a newer runtime is passed over."""
        self.hearing.heard(now, update.lost)
        if (place := _WATCHED.get(type(update))) is not None:
            self._apply_rows(update, *place)
        elif isinstance(update, EventsUpdate):
            self._apply_events(update, update.rows)
        elif isinstance(update, ProcessUpdate) and update.rows:
            self.process, self._process_at = update.rows[-1], now

    def _apply_rows(
        self,
        update: Any,  # noqa: ANN401 - an update with rows
        name: str,
        id_of: Callable[[Any], str],
    ) -> None:
        rows = {id_of(row): row for row in update.rows}
        if not update.more:
            self.told |= {name}
        table = self.by_name()[name]
        table.apply(rows.items(), gone=update.gone, full=update.full, more=update.more)
        if name == "agents":
            self._counted.update(rows)
        rates = {
            "agents": self.rates,
            "policies": self.call_rates,
            "subscriptions": self.event_rates,
        }
        if name in rates:
            rates[name].forget(update.gone)

    def take_answer(self, answer: Any) -> None:  # noqa: ANN401 - an answer with rows
        """Take the rows that were asked for, in place of those of the last answer."""
        if isinstance(answer, Subscriptions):
            durable = [row for row in answer.rows if row.durable]
            self.durable.apply(((row.id, row) for row in durable), full=True)
        elif (place := _ANSWERED.get(type(answer))) is not None:
            name, id_of = place
            self.told |= {name}
            rows = ((id_of(row), row) for row in answer.rows)
            self.by_name()[name].apply(rows, full=True)
            self.cut = self.cut | {name} if answer.more else self.cut - {name}

    def all_subscriptions(self) -> dict[str, SubscriptionRow]:
        """Those in memory and the idle ones."""
        ids = (*self.subscriptions.rows, *self.durable.rows)
        found = ((id_, self.subscription(id_)) for id_ in dict.fromkeys(ids))
        return {id_: row for id_, row in found if row is not None}

    def subscription(self, id_: str) -> SubscriptionRow | None:
        """Of an id that is watched and was asked for, the former is newer."""
        watched = self.subscriptions.rows.get(id_)
        asked = self.durable.rows.get(id_)
        if watched is None or asked is None:
            return watched or asked
        return msgspec.structs.replace(watched, lag_bytes=asked.lag_bytes)

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
            tables={name: table.take() for name, table in self.by_name().items()},
            events=before != seen,
            second=second,
        )

    def still(self, now: float) -> Model:
        """This picture as it is now, for a view that is held."""
        tables: dict[str, Any] = {
            name: table.copy() for name, table in self.by_name().items()
        }
        return Model(
            **tables,
            hearing=self.hearing,
            runtime=self.runtime,
            rights=self.rights,
            process=self.process,
            told=self.told,
            cut=self.cut,
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
        for table in self.by_name().values():
            table.clear()
        for counted in (
            self.rates, self.call_rates, self.event_rates,
            self.totals, self.strips, self.events,
        ):  # fmt: skip
            counted.clear()
        self.told = self.cut = frozenset()
        self._counted.clear()
        self.process = None
        self.hearing.lost = 0
