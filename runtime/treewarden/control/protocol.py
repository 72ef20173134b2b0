"""The control protocol: every message between a runtime and those who watch it.

Newline-delimited JSON-RPC 2.0 over a Unix socket, so that `socat` and `jq` are enough to
talk to it. A client says `hello` first; then it asks (requests, answered by id) and
watches topics (notices `<topic>.update`: a snapshot, then changes, coalesced). This module
defines shapes only; `session` knows their order, `server` and `client` carry the bytes.

Everything that can come from user code (names, messages, payloads, state) is untrusted
text: who shows it makes it plain first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

PROTOCOL: Final = 1
"""The version spoken here; a peer below `OLDEST` is refused with a sentence."""
OLDEST: Final = 1

MAX_FRAME_BYTES: Final = 1 << 20
"""No frame is longer, in either direction; long lists are sent in several frames: replies
of the same id, or updates of the same sequence, `more` in all but the last."""

Raw = msgspec.Raw
# JSON `null` where there is nothing: msgspec cannot decode `Raw | None`.


class Rights(StrEnum):
    """What a client may do: look, operate, or break things on purpose."""

    RO = "ro"
    RW = "rw"
    CHAOS = "chaos"

    def allow(self, needed: Rights) -> bool:
        """Whether these rights include `needed`."""
        order = (Rights.RO, Rights.RW, Rights.CHAOS)
        return order.index(self) >= order.index(needed)


class Topic(StrEnum):
    """What can be watched."""

    TREE = "tree"
    AGENTS = "agents"
    CIRCUITS = "circuits"
    POLICIES = "policies"
    BUS = "bus"
    ALARMS = "alarms"
    EVENTS = "events"
    PROCESS = "process"


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Anything that travels."""


# --- rows ----------------------------------------------------------------------------------


class RuntimeRow(Message, frozen=True, kw_only=True):
    """Who answers; `boot` differs in every run."""

    name: str
    pid: int
    boot: str
    version: str
    started_at_ns: int
    level: str
    store: str | None = None
    rights: Rights = Rights.RW


class FaultRow(Message, frozen=True, kw_only=True):
    """A failure as text; frames are (file, line, function), outermost first."""

    type: str
    message: str
    frames: list[tuple[str, int, str]] = []
    path: str = ""
    incarnation: int = 0
    at_ns: int = 0
    trace: str = ""
    cause: FaultRow | None = None


class NodeRow(Message, frozen=True, kw_only=True):
    """One node of the tree.

    `order` sorts siblings by start order; the root's `parent` is None. `restarts` counts
    those of this run. `strategy` and the budget are a supervisor's.
    """

    path: str
    id: str
    kind: Literal["supervisor", "agent", "task", "process", "pool"]
    state: Literal[
        "starting",
        "running",
        "restarting",
        "stopping",
        "stopped",
        "failed",
        "suspended",
        "stuck",
    ]
    parent: str | None = None
    order: int = 0
    incarnation: int = 0
    restarts: int = 0
    restart: str = "permanent"
    started_at_ns: int | None = None
    last_exit: str = ""
    label: str = ""
    strategy: str = ""
    budget_limit: int | None = None
    budget_period: float | None = None
    budget_spent: int = 0
    system: bool = False


class AgentRow(Message, frozen=True, kw_only=True):
    """What an agent is doing: depths in messages, counters since the run began."""

    path: str
    incarnation: int
    mailbox: int
    capacity: int
    waiting_senders: int = 0
    handled: int = 0
    failed: int = 0
    refused: int = 0
    doing: str = ""
    state_version: int = 0
    state_bytes: int = 0
    uncommitted: bool = False
    type: str = ""


class CircuitRow(Message, frozen=True, kw_only=True):
    """A circuit and its window; counters since the run began.

    `retry_after`, in seconds: when an open one may probe, or a half-open one may probe
    again. Of at most `half_open_calls` at once `probes` are out; `probe_successes` of
    `success_threshold` have closed it halfway. `openings` are those since it was closed.
    """

    name: str
    state: Literal[
        "closed", "open", "half_open", "forced_open", "disabled", "metrics_only"
    ]
    since_ns: int
    window_calls: int = 0
    window_failures: int = 0
    window_slow: int = 0
    in_a_row: int = 0
    threshold: str = ""
    retry_after: float | None = None
    probes: int = 0
    half_open_calls: int = 0
    probe_successes: int = 0
    success_threshold: int = 0
    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    not_counted: int = 0
    in_flight: int = 0
    slow: int = 0
    timed_out: int = 0
    opened: int = 0
    openings: int = 0
    last_error: str = ""


class LayerRow(Message, frozen=True, kw_only=True):
    """One layer of a policy; what it counts, and what it is set to, by name."""

    layer: str
    numbers: dict[str, str | int | float | None] = {}


class PolicyRow(Message, frozen=True, kw_only=True):
    """Policies around a call, the outermost first.

    calls = succeeded + failed + cancelled + in_flight, at all times.
    """

    name: str
    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    in_flight: int = 0
    layers: list[LayerRow] = []


class SubscriptionRow(Message, frozen=True, kw_only=True):
    """published = delivered + dropped + pending, at all times.

    Of a `durable` one, all up to position `cursor` is over and `lag` entries of the
    journal are behind it, which are `lag_bytes` (null in what is watched: only the
    journal knows). `retention` is what the journal does when it has come to its limits;
    for one that `holds` it is beyond them. So many publishers are `paused` by it, or were
    `refused`. There were so many `gaps`: losses of which the next event tells.

    Without `members` nobody takes its events. What was published to it is counted from
    its cursor on then, without the last `uncounted` entries of the journal.
    """

    id: str
    pattern: str
    owner: str = ""
    capacity: int = 0
    overflow: str = "wait"
    published: int = 0
    delivered: int = 0
    dropped: int = 0
    pending: int = 0
    dropped_by: dict[str, int] = {}
    refused: int = 0
    durable: bool = False
    members: int = 1
    cursor: int = 0
    lag: int = 0
    leased: int = 0
    waiting: int = 0
    redelivered: int = 0
    last_fault: str = ""
    retention: str = ""
    holds: bool = False
    paused: int = 0
    gaps: int = 0
    lag_bytes: int | None = None
    uncounted: int = 0


class DeadLetterRow(Message, frozen=True, kw_only=True):
    """A message or event that was given up.

    An event's `subscription` is named; its `operation` is the topic, `path` the
    subscription's owner, `content` the event. What a message said is not told.
    """

    number: int
    path: str
    operation: str
    attempts: int
    reason: str
    at_ns: int
    sender: str = ""
    subscription: str = ""
    content: Raw = Raw(b"null")


class CollectionRow(Message, frozen=True, kw_only=True):
    """A durable queue or map of an agent; `items` are the committed ones.

    Those of a queue that are leased, or wait for their time, are among them.
    """

    path: str
    name: str
    kind: str
    items: int


class WorkflowRow(Message, frozen=True, kw_only=True):
    """A workflow; `steps_over` are done, failed or compensated.

    `attempts` are its incarnations since it last got on: 1 is as it should be.
    `ended_at_ns` is None until it has ended; `reason` says why it failed or stands still.
    """

    id: str
    name: str
    version: int
    state: str
    steps_over: int
    attempts: int
    reason: str
    begun_at_ns: int
    ended_at_ns: int | None


class StepRow(Message, frozen=True, kw_only=True):
    """A step of a workflow that has begun; `attempts` were begun, `error` is its failure.

    `compensation` names what undoes it, and has failed `undo_failures` times. What a step
    returned is not told.
    """

    number: int
    name: str
    state: Literal["begun", "done", "failed", "compensated"]
    attempts: int
    at_ns: int
    compensation: str = ""
    undo_failures: int = 0
    error: str = ""


class LineRow(Message, frozen=True, kw_only=True):
    """What an exchange has for one receiver; `circuit` is the one before it.

    accepted = delivered + failed + dropped + withdrawn + pending, at all times. What is
    sent to a `stalled` one is buffered; `attempts` is how often the oldest has failed.
    """

    exchange: str
    receiver: str
    circuit: str
    stalled: bool
    pending: int
    capacity: int
    accepted: int
    delivered: int
    failed: int
    dropped: int
    withdrawn: int
    refused: int
    attempts: int
    last_error: str = ""


class MeetingRow(Message, frozen=True, kw_only=True):
    """Where agents agree; `kind` says on what, and what the numbers are.

    lock: `holder` has it under the token `number`, and `waiting` want it. election:
    `holder` leads for term `number`, and `waiting` stand; both since `since_ns`. barrier: `waiting` of `number`
    have come. ballot: `waiting` have voted, and `number` votes decide.
    """

    kind: Literal["lock", "election", "barrier", "ballot"]
    name: str
    number: int
    waiting: int
    holder: str = ""
    since_ns: int | None = None


class AlarmRow(Message, frozen=True, kw_only=True):
    """Something that is wrong now; `count` readings have said so.

    `id` is of this run; `acknowledged_by`: an operator knows of it.
    """

    id: int
    name: str
    severity: Literal["warning", "critical"]
    message: str
    opened_at_ns: int
    updated_at_ns: int
    count: int
    subject: str = ""
    value: float | None = None
    acknowledged_by: str = ""


class HealthRow(Message, frozen=True, kw_only=True):
    """A subject of the health checks, as its last check found it."""

    subject: str
    status: str
    reason: str
    since_ns: int
    checks: int
    failures: int
    late: int


class GaugeRow(Message, frozen=True, kw_only=True):
    """A gauge at its last reading, `age` seconds ago; `share` is of its limit.

    `value` None: it is unknown, and `error` says why. `guards`: it refuses tokens when
    its pressure is severe.
    """

    name: str
    limit: float
    pressure: str
    guards: bool
    failures: int
    value: float | None = None
    share: float | None = None
    age: float | None = None
    error: str = ""


class OperationRow(Message, frozen=True, kw_only=True):
    """How long an operation takes, in seconds; count = succeeded + failed + cancelled.

    `p95` and `recent_failures` are of the last `recent` runs, the others of all of them.
    """

    name: str
    count: int
    succeeded: int
    failed: int
    cancelled: int
    minimum: float
    mean: float
    maximum: float
    p95: float
    recent: int
    recent_failures: int


class GatewayRow(Message, frozen=True, kw_only=True):
    """A way out of the process: an HTTP client, or the programs that are run.

    asked = succeeded + failed + cancelled + active, at all times; `refused` found no room
    in the line, or were not allowed. Of at most `limit` at once, `waiting` stand in a line
    for `queue`. `numbers`: answers by status and errors by kind, or how programs ended;
    `running`: the programs that do, and for whom.
    """

    kind: Literal["http", "programs"]
    name: str
    active: int
    limit: int
    waiting: int
    queue: int
    asked: int
    succeeded: int
    failed: int
    cancelled: int
    refused: int
    numbers: dict[str, int] = {}
    running: list[str] = []


class EventRow(Message, frozen=True, kw_only=True):
    """An entry of the journal: a published event or a report.

    `payload` is JSON. `position` is 0 for what is not in the journal (signals).
    """

    position: int
    topic: str
    at_ns: int
    kind: Literal["event", "report"] = "event"
    source: str = ""
    trace: str = ""
    payload: Raw = Raw(b"null")


class ProcessRow(Message, frozen=True, kw_only=True):
    """The process: seconds, bytes and totals since the run began."""

    at_ns: int
    uptime: float
    cpu_seconds: float
    rss_bytes: int
    tasks: int
    loop_lag: float
    nodes: int
    commits: int = 0
    units: int = 0
    commit_seconds: float = 0.0
    store_bytes: int = 0
    store_health: str = "ok"
    published: int = 0
    dropped: int = 0
    dead_letters: int = 0
    spans_dropped: int = 0
    clients: int = 0


# --- requests and their results ------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """Must come first. The runtime may grant less than was asked."""

    protocol: int
    client: str = ""
    operator: str = ""
    rights: Rights = Rights.RO


class Welcome(Message, frozen=True, kw_only=True):
    """The answer to `hello`."""

    protocol: int
    rights: Rights
    runtime: RuntimeRow


class Watch(Message, frozen=True, kw_only=True):
    """Start watching; `interval` is the shortest time between updates, in seconds."""

    topics: list[Topic]
    interval: float = 0.1


class Unwatch(Message, frozen=True, kw_only=True):
    """Stop watching."""

    topics: list[Topic]


class Watching(Message, frozen=True, kw_only=True):
    """What is watched now."""

    topics: list[Topic]


class GetTree(Message, frozen=True, kw_only=True):
    """The tree below `root`."""

    root: str = "/"


class Tree(Message, frozen=True, kw_only=True):
    """Nodes, parents before children, siblings in start order."""

    rows: list[NodeRow]
    more: bool = False


class Criterion(Message, frozen=True, kw_only=True):
    """What a field of the committed state has to be; dots lead into objects."""

    field: str
    op: Literal["eq", "neq", "lt", "lte", "gt", "gte", "in", "not_in", "like"]
    value: str | float | int | bool | list[str | float | int | bool | None] | None


class GetAgents(Message, frozen=True, kw_only=True):
    """All agents; or those of the stored type `type` whose state fulfils all of `where`.

    A field that is redacted fulfils nothing.
    """

    type: str = ""
    where: list[Criterion] = []


class Agents(Message, frozen=True, kw_only=True):
    """Agents in tree order; `rows_examined` in the store, None when it was not asked."""

    rows: list[AgentRow]
    more: bool = False
    rows_examined: int | None = None


class GetState(Message, frozen=True, kw_only=True):
    """The last committed state of an agent, by path or unique id."""

    agent: str


class AgentState(Message, frozen=True, kw_only=True):
    """What the store holds; `state` is JSON, `null` when nothing was committed yet."""

    path: str
    type: str
    version: int
    incarnation: int
    state: Raw = Raw(b"null")
    size_bytes: int = 0
    committed_at_ns: int | None = None
    durable: bool = True


class GetCircuits(Message, frozen=True, kw_only=True):
    """All circuits and policies."""


class Circuits(Message, frozen=True, kw_only=True):
    """Circuits by name, and the policies of the runtime."""

    rows: list[CircuitRow]
    policies: list[PolicyRow] = []
    more: bool = False


class GetSubscriptions(Message, frozen=True, kw_only=True):
    """All subscriptions, durable ones that nobody takes events of included."""


class Subscriptions(Message, frozen=True, kw_only=True):
    """Those in memory first."""

    rows: list[SubscriptionRow]


class SubscriptionAct(Message, frozen=True, kw_only=True):
    """Forget the durable subscription of this id, that nobody takes events of any more."""

    act: Literal["forget"]
    id: str
    key: str = ""


class GetDeadLetters(Message, frozen=True, kw_only=True):
    """Dead letters behind number `after`, the oldest first."""

    after: int = 0
    limit: int = 100


class DeadLetters(Message, frozen=True, kw_only=True):
    """Ask again after the last number when there are `more`."""

    rows: list[DeadLetterRow]
    more: bool = False


class DeadLetterAct(Message, frozen=True, kw_only=True):
    """Have a dead letter tried again, or forget it; purge: all given up before `before_ns`."""

    act: Literal["retry", "discard", "purge"]
    number: int = 0
    before_ns: int | None = None
    key: str = ""


class GetQueues(Message, frozen=True, kw_only=True):
    """All durable queues and maps."""


class Queues(Message, frozen=True, kw_only=True):
    """By agent, in tree order."""

    rows: list[CollectionRow]
    more: bool = False


class GetWorkflows(Message, frozen=True, kw_only=True):
    """Workflows in one of these states (all when empty), newest first, at most `limit`."""

    states: list[str] = []
    limit: int = 100


class Workflows(Message, frozen=True, kw_only=True):
    """Those found, newest first."""

    rows: list[WorkflowRow]
    more: bool = False


class WorkflowAct(Message, frozen=True, kw_only=True):
    """Cancel a workflow for good, or have one that stands still go on."""

    act: Literal["cancel", "resume"]
    id: str
    key: str = ""


class GetSteps(Message, frozen=True, kw_only=True):
    """The steps of one workflow."""

    workflow: str


class Steps(Message, frozen=True, kw_only=True):
    """Those that have begun, in order; the first thousand."""

    rows: list[StepRow]
    workflow: str = ""
    more: bool = False


class GetExchanges(Message, frozen=True, kw_only=True):
    """What every exchange has for each receiver."""


class Exchanges(Message, frozen=True, kw_only=True):
    """By exchange, in tree order; the first thousand."""

    rows: list[LineRow]
    more: bool = False


class GetAlarms(Message, frozen=True, kw_only=True):
    """All open alarms."""


class OpenAlarms(Message, frozen=True, kw_only=True):
    """In the order of their opening."""

    rows: list[AlarmRow]
    more: bool = False


class GetHealth(Message, frozen=True, kw_only=True):
    """All subjects of the health checks."""


class HealthOfSubjects(Message, frozen=True, kw_only=True):
    """By name."""

    rows: list[HealthRow]
    more: bool = False


class GetGauges(Message, frozen=True, kw_only=True):
    """All gauges of resources."""


class Gauges(Message, frozen=True, kw_only=True):
    """By name."""

    rows: list[GaugeRow]
    more: bool = False


class GetOperations(Message, frozen=True, kw_only=True):
    """All operations whose runs are timed."""


class Operations(Message, frozen=True, kw_only=True):
    """The one that ran last at the end; the first thousand."""

    rows: list[OperationRow]
    more: bool = False


class GetGateways(Message, frozen=True, kw_only=True):
    """All HTTP clients of the runtime, and its gateway for programs."""


class Gateways(Message, frozen=True, kw_only=True):
    """The clients by name, then the programs; the first thousand."""

    rows: list[GatewayRow]
    more: bool = False


class GetMeetings(Message, frozen=True, kw_only=True):
    """Locks, elections, barriers and ballots that somebody takes part in."""


class Meetings(Message, frozen=True, kw_only=True):
    """By kind, each in order of beginning; the first thousand."""

    rows: list[MeetingRow]
    more: bool = False


class GetEvents(Message, frozen=True, kw_only=True):
    """Entries of the journal after `since`, or the last `limit` when it is None."""

    since: int | None = None
    limit: int = 100
    pattern: str = ">"


class Events(Message, frozen=True, kw_only=True):
    """Oldest first; `position` is where the journal ends."""

    rows: list[EventRow]
    position: int = 0
    more: bool = False


class GetProcess(Message, frozen=True, kw_only=True):
    """The process."""


class Why(Message, frozen=True, kw_only=True):
    """Why did this node restart (or end) last?"""

    path: str


class Explanation(Message, frozen=True, kw_only=True):
    """One restart, or what keeps a node from running, from its cause to its effects.

    `cause`: crash, group (a sibling's crash took it along), operator, injection,
    rollback (a commit failed), returned, killed, stuck (it was told to end and does not),
    or none when it never restarted. `now` is what it awaits at this moment, when it runs
    and does anything: calls with their lines, outermost first. `faults` are the newest
    reports of what failed in it within the last day, in earlier runs too, oldest first;
    `faults_total` counts up to a thousand of them.
    """

    path: str
    incarnation: int
    cause: Literal[
        "none",
        "crash",
        "group",
        "operator",
        "injection",
        "rollback",
        "returned",
        "killed",
        "stuck",
    ]
    sentence: str
    at_ns: int | None = None
    origin: str = ""
    by: str = ""
    message: str = ""
    fault: FaultRow | None = None
    took_down: list[str] = []
    state_before: Raw = Raw(b"null")
    state_after: Raw = Raw(b"null")
    chain: list[EventRow] = []
    now: str = ""
    faults: list[EventRow] = []
    faults_total: int = 0


class Act(StrEnum):
    """What can be done to a node."""

    RESTART = "restart"
    STOP = "stop"
    SUSPEND = "suspend"
    RESUME = "resume"
    CRASH = "crash"


class GetPreview(Message, frozen=True, kw_only=True):
    """What would happen, without doing it."""

    act: Act
    path: str


class Preview(Message, frozen=True, kw_only=True):
    """Blast radius: who stops, who starts again, what it spends.

    `stops` are in stopping order, `starts` in starting order.
    """

    act: Act
    path: str
    incarnation: int
    stops: list[str]
    starts: list[str]
    sentence: str
    spent: int = 0
    limit: int | None = None
    period: float | None = None
    gives_up: bool = False
    messages_waiting: int = 0


class Restart(Message, frozen=True, kw_only=True):
    """Restart a node; refused when its incarnation is not the one that was seen."""

    path: str
    incarnation: int | None = None
    key: str = ""


class Stop(Message, frozen=True, kw_only=True):
    """Stop a node and leave it stopped."""

    path: str
    incarnation: int | None = None
    key: str = ""


class Suspend(Message, frozen=True, kw_only=True):
    """Have an agent take no message until it is resumed, restarted or stopped."""

    path: str
    incarnation: int | None = None
    key: str = ""


class Resume(Message, frozen=True, kw_only=True):
    """Let a suspended agent go on."""

    path: str
    incarnation: int | None = None
    key: str = ""


class Inject(Message, frozen=True, kw_only=True):
    """Break something on purpose: `crash` makes a node fail now."""

    kind: Literal["crash"]
    path: str
    incarnation: int | None = None
    key: str = ""


class GetInjections(Message, frozen=True, kw_only=True):
    """Where the runtime can be broken, and by which plans it is."""


class PointRow(Message, frozen=True, kw_only=True):
    """A named place that can fail; `reached` counts while a plan is loaded."""

    name: str
    about: str
    home: Literal["thread", "task", "turn"]
    kinds: list[Literal["kill", "raise", "cancel", "stall"]]
    reached: int
    armed: int


class PlanRow(Message, frozen=True, kw_only=True):
    """A plan that is in force; `done` is how often it broke something."""

    name: str
    by: str
    injections: int
    done: int
    seconds_left: float


class Injections(Message, frozen=True, kw_only=True):
    """Every point, in the order in which work passes them, and the plans in force."""

    points: list[PointRow]
    plans: list[PlanRow]


class Load(Message, frozen=True, kw_only=True):
    """Put a plan of injections in force: `{"name", "seconds", "injections": [...]}`."""

    plan: Raw
    key: str = ""


class Lift(Message, frozen=True, kw_only=True):
    """End a plan of injections before its time."""

    name: str
    key: str = ""


class Acknowledge(Message, frozen=True, kw_only=True):
    """Say that somebody knows of an open alarm."""

    alarm: int
    key: str = ""


class CircuitAct(Message, frozen=True, kw_only=True):
    """Trip, reset or disable a circuit, or let it only watch."""

    name: str
    act: Literal["trip", "reset", "disable", "metrics-only"]
    key: str = ""


class Call(Message, frozen=True, kw_only=True):
    """Call an agent's operation; arguments are checked against its annotations."""

    agent: str
    operation: str
    arguments: dict[str, Raw] = {}
    key: str = ""
    seconds: float | None = None


class CallResult(Message, frozen=True, kw_only=True):
    """The operation's answer, as JSON."""

    value: Raw


class Shutdown(Message, frozen=True, kw_only=True):
    """Stop the runtime, in order."""

    key: str = ""


class Done(Message, frozen=True, kw_only=True):
    """An act was carried out; `sentence` tells what happened."""

    sentence: str
    path: str = ""
    incarnation: int = 0


# --- notices -------------------------------------------------------------------------------


class Update(Message, frozen=True, kw_only=True):
    """Changes of one topic since the last update.

    `full`: a snapshot begins, forget what you had; `more`: the next frame continues it.
    `lost` counts updates (for events: entries) left out because the client was slow.
    """

    sequence: int
    full: bool = False
    more: bool = False
    lost: int = 0
    gone: list[str] = []


class TreeUpdate(Update, frozen=True, kw_only=True):
    """`gone` are paths."""

    rows: list[NodeRow] = []


class AgentsUpdate(Update, frozen=True, kw_only=True):
    """`gone` are paths."""

    rows: list[AgentRow] = []


class CircuitsUpdate(Update, frozen=True, kw_only=True):
    """`gone` are names."""

    rows: list[CircuitRow] = []


class PoliciesUpdate(Update, frozen=True, kw_only=True):
    """`gone` are names."""

    rows: list[PolicyRow] = []


class BusUpdate(Update, frozen=True, kw_only=True):
    """`gone` are subscription ids."""

    rows: list[SubscriptionRow] = []


class AlarmsUpdate(Update, frozen=True, kw_only=True):
    """`gone` are ids, as text."""

    rows: list[AlarmRow] = []


class EventsUpdate(Update, frozen=True, kw_only=True):
    """New entries, oldest first."""

    rows: list[EventRow] = []


class ProcessUpdate(Update, frozen=True, kw_only=True):
    """One row."""

    rows: list[ProcessRow] = []


# --- the tables ----------------------------------------------------------------------------


class Method(msgspec.Struct, frozen=True):
    """A request's shapes and the rights that it needs."""

    params: type[Message]
    result: type[Message]
    rights: Rights = Rights.RO


METHODS: Final[dict[str, Method]] = {
    "hello": Method(Hello, Welcome),
    "watch": Method(Watch, Watching),
    "unwatch": Method(Unwatch, Watching),
    "tree": Method(GetTree, Tree),
    "agents": Method(GetAgents, Agents),
    "state": Method(GetState, AgentState),
    "circuits": Method(GetCircuits, Circuits),
    "queues": Method(GetQueues, Queues),
    "workflows": Method(GetWorkflows, Workflows),
    "workflow": Method(WorkflowAct, Done, Rights.RW),
    "steps": Method(GetSteps, Steps),
    "exchanges": Method(GetExchanges, Exchanges),
    "meetings": Method(GetMeetings, Meetings),
    "alarms": Method(GetAlarms, OpenAlarms),
    "health": Method(GetHealth, HealthOfSubjects),
    "gauges": Method(GetGauges, Gauges),
    "operations": Method(GetOperations, Operations),
    "gateways": Method(GetGateways, Gateways),
    "subscriptions": Method(GetSubscriptions, Subscriptions),
    "subscription": Method(SubscriptionAct, Done, Rights.RW),
    "dead_letters": Method(GetDeadLetters, DeadLetters),
    "dead_letter": Method(DeadLetterAct, Done, Rights.RW),
    "events": Method(GetEvents, Events),
    "process": Method(GetProcess, ProcessRow),
    "why": Method(Why, Explanation),
    "preview": Method(GetPreview, Preview),
    "restart": Method(Restart, Done, Rights.RW),
    "stop": Method(Stop, Done, Rights.RW),
    "suspend": Method(Suspend, Done, Rights.RW),
    "resume": Method(Resume, Done, Rights.RW),
    "circuit": Method(CircuitAct, Done, Rights.RW),
    "acknowledge": Method(Acknowledge, Done, Rights.RW),
    "call": Method(Call, CallResult, Rights.RW),
    "shutdown": Method(Shutdown, Done, Rights.RW),
    "inject": Method(Inject, Done, Rights.CHAOS),
    "injections": Method(GetInjections, Injections),
    "load": Method(Load, Done, Rights.CHAOS),
    "lift": Method(Lift, Done, Rights.CHAOS),
}

NOTICES: Final[dict[str, type[Update]]] = {
    "tree.update": TreeUpdate,
    "agents.update": AgentsUpdate,
    "circuits.update": CircuitsUpdate,
    "policies.update": PoliciesUpdate,
    "bus.update": BusUpdate,
    "alarms.update": AlarmsUpdate,
    "events.update": EventsUpdate,
    "process.update": ProcessUpdate,
}

# --- JSON-RPC envelopes --------------------------------------------------------------------


class RequestFrame(msgspec.Struct, kw_only=True):
    """`{"jsonrpc": "2.0", "id": 1, "method": "tree", "params": {...}}`."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: int | str
    method: str
    params: Raw = Raw(b"{}")


class ErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`kind` in `data` is the name of an error of `treewarden.errors`."""

    code: int
    message: str
    data: dict[str, str] = {}


class ReplyFrame(msgspec.Struct, kw_only=True):
    """A result or an error, with the request's id (None: it could not be read)."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: int | str | None
    result: Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET


class NoticeFrame(msgspec.Struct, kw_only=True):
    """Unasked news: no id, no answer."""

    jsonrpc: Literal["2.0"] = "2.0"
    method: str
    params: Raw


class ErrorCode:
    """JSON-RPC's codes, and one of ours for everything in the error tree."""

    PARSE: Final = -32700
    INVALID_REQUEST: Final = -32600
    METHOD_NOT_FOUND: Final = -32601
    INVALID_PARAMS: Final = -32602
    INTERNAL: Final = -32603
    REFUSED: Final = -32000
