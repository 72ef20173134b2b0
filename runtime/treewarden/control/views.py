"""Statistics of the runtime's parts, as rows of the wire.

Nothing is decided here: each function takes a record and returns a message. What a row
and its record call by the same name is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from treewarden.bus import Reason, durable_id
from treewarden.exits import Fault, describe

from .protocol import (
    AgentRow,
    AlarmRow,
    CircuitRow,
    CollectionRow,
    DeadLetterRow,
    EventRow,
    FaultRow,
    GatewayRow,
    GaugeRow,
    HealthRow,
    LayerRow,
    LineRow,
    MeetingRow,
    Message,
    NodeRow,
    OperationRow,
    PlanRow,
    PointRow,
    PolicyRow,
    Raw,
    StepRow,
    SubscriptionRow,
    WorkflowRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from treewarden.agents import AgentStatistics, DeadLetter
    from treewarden.bus import DurableStatistics, Pause, SubscriptionStatistics
    from treewarden.coordination import (
        BallotStatistics,
        BarrierStatistics,
        ElectionStatistics,
        ExchangeStatistics,
        LineStatistics,
        LockStatistics,
    )
    from treewarden.gateways import HttpStatistics, ProgramsStatistics
    from treewarden.injection import InjectionPoint, Loaded
    from treewarden.monitors import (
        Alarm,
        GaugeStatistics,
        OperationStatistics,
        SubjectHealth,
    )
    from treewarden.resilience import CircuitStatistics, PolicyStatistics
    from treewarden.store import (
        Backlog,
        Collection,
        FaultRecord,
        JournalEntry,
        StoredStep,
        StoredSubscription,
    )
    from treewarden.supervision import NodeStatistics
    from treewarden.workflows import WorkflowStatus


R = TypeVar("R", bound=Message)


# Nodes, agents, subscriptions and events are many, and told ten times a second: their rows
# are written out, which is five times as fast as `_row`.


def _row(kind: type[R], record: object, /, **others: object) -> R:
    """The fields of `record` that a row of this kind has too, and `others`."""
    shared = {
        name: getattr(record, name)
        for name in kind.__struct_fields__
        if name not in others and hasattr(record, name)
    }
    return msgspec.convert(shared | others, kind)


def fault_row(fault: Fault) -> FaultRow:
    """A fault with its causes."""
    return FaultRow(
        type=fault.type,
        message=fault.message,
        frames=list(fault.frames),
        path=fault.path,
        incarnation=fault.incarnation,
        at_ns=fault.at_ns,
        trace=fault.trace,
        cause=fault_row(fault.cause) if fault.cause is not None else None,
    )


def node_row(node: NodeStatistics) -> NodeRow:
    """A node of the tree."""
    spent, limit, period = node.budget or (0, None, None)
    return NodeRow(
        path=node.path,
        id=node.id,
        kind=node.kind.value,
        state=node.state.value,
        parent=node.parent,
        order=node.order,
        incarnation=node.incarnation,
        restarts=node.restarts,
        restart=str(node.restart),
        started_at_ns=node.started_at_ns,
        last_exit=describe(node.last_exit),
        label=node.label,
        strategy=node.strategy,
        budget_limit=limit,
        budget_period=period,
        budget_spent=spent,
        system=node.path == "/system" or node.path.startswith("/system/"),
    )


def agent_row(agent: AgentStatistics) -> AgentRow:
    """An agent's meters."""
    return AgentRow(
        path=agent.path,
        incarnation=agent.incarnation,
        mailbox=agent.mailbox,
        capacity=agent.capacity,
        waiting_senders=agent.waiting_senders,
        handled=agent.handled,
        failed=agent.crashed,
        refused=agent.refused,
        doing=agent.doing,
        state_version=agent.state_revision,
        state_bytes=agent.state_bytes,
        uncommitted=agent.uncommitted,
        type=agent.type,
    )


def point_row(point: InjectionPoint) -> PointRow:
    """A place that can fail."""
    kinds = sorted(kind.value for kind in point.kinds)
    return _row(PointRow, point, kinds=kinds, armed=len(point.armed or ()))


def plan_row(loaded: Loaded) -> PlanRow:
    """A plan that is in force."""
    plan = loaded.plan
    return _row(PlanRow, loaded, name=plan.name, injections=len(plan.injections))


def alarm_row(alarm: Alarm) -> AlarmRow:
    """An open alarm."""
    return _row(AlarmRow, alarm)


def health_row(subject: SubjectHealth) -> HealthRow:
    """A subject and its last check."""
    return _row(HealthRow, subject)


def gauge_row(gauge: GaugeStatistics) -> GaugeRow:
    """A gauge at its last reading."""
    return _row(GaugeRow, gauge)


def operation_row(operation: OperationStatistics) -> OperationRow:
    """How long an operation takes."""
    return _row(OperationRow, operation)


def client_row(client: HttpStatistics) -> GatewayRow:
    """An HTTP client, its answers by status and its errors by kind."""
    answers = {str(status): count for status, count in client.statuses}
    return _row(
        GatewayRow,
        client,
        kind="http",
        limit=client.connections,
        asked=client.requests,
        succeeded=client.answered,
        numbers=answers | dict(client.errors),
        running=[],
    )


def programs_row(name: str, programs: ProgramsStatistics) -> GatewayRow:
    """A gateway for programs, and what runs now."""
    counted = ("timed_out", "not_started", "killed", "left_behind", "truncated", "hits")
    return _row(
        GatewayRow,
        programs,
        kind="programs",
        name=name,
        active=len(programs.running),
        asked=programs.started,
        failed=programs.failed + programs.timed_out,
        refused=programs.refused + programs.denied,
        numbers={one: count for one in counted if (count := getattr(programs, one))},
        running=[
            f"{one.program} ({one.pid})" + f" for {one.caller}" * bool(one.caller)
            for one in programs.running
        ],
    )


def circuit_row(circuit: CircuitStatistics) -> CircuitRow:
    """A circuit and its window."""
    # Zero for circuits that let calls through: nothing to wait for.
    return _row(CircuitRow, circuit, retry_after=circuit.retry_after or None)


def policy_row(policy: PolicyStatistics) -> PolicyRow:
    """A policy and its layers."""
    return PolicyRow(
        name=policy.name,
        calls=policy.calls,
        succeeded=policy.succeeded,
        failed=policy.failed,
        cancelled=policy.cancelled,
        in_flight=policy.in_flight,
        layers=[
            LayerRow(
                layer=layer.value,
                numbers=dict(_numbers(msgspec.to_builtins(statistics, str_keys=True))),
            )
            for layer, statistics in policy.layers
        ],
    )


def _numbers(
    record: Mapping[str, object], within: str = ""
) -> Iterator[tuple[str, str | int | float | None]]:
    """What a record says, one level deep: `budget.spent`."""
    for name, value in record.items():
        if name == "since":
            continue  # on a clock that nobody else has; `since_ns` says it too
        match value:
            case dict():
                yield from _numbers(value, f"{within}{name}.")
            case str() | int() | float() | None:
                yield f"{within}{name}", value
            case _:
                yield f"{within}{name}", str(value)


def workflow_row(status: WorkflowStatus) -> WorkflowRow:
    """A workflow, for whoever lists them."""
    return _row(WorkflowRow, status)


def step_row(step: StoredStep) -> StepRow:
    """A step of a workflow; what it returned is the workflow's own."""
    failed = step.state == "failed"
    fault = msgspec.json.decode(step.outcome, type=Fault | None) if failed else None
    return _row(StepRow, step, error=fault.summary() if fault is not None else "")


def collection_row(collection: Collection) -> CollectionRow:
    """A durable queue or map."""
    return _row(CollectionRow, collection, items=collection.committed)


def line_row(exchange: ExchangeStatistics, line: LineStatistics) -> LineRow:
    """What an exchange has for one receiver."""
    return _row(LineRow, line, exchange=exchange.path, capacity=exchange.capacity)


def lock_row(lock: LockStatistics) -> MeetingRow:
    """A lock that somebody holds."""
    return _row(MeetingRow, lock, kind="lock", number=lock.token)


def election_row(election: ElectionStatistics) -> MeetingRow:
    """An office that somebody has or wants."""
    return _row(
        MeetingRow,
        election,
        kind="election",
        holder=election.leader,
        number=election.term,
        waiting=len(election.candidates),
    )


def barrier_row(barrier: BarrierStatistics) -> MeetingRow:
    """A barrier that somebody waits at."""
    waiting = len(barrier.arrived)
    return _row(
        MeetingRow, barrier, kind="barrier", number=barrier.parties, waiting=waiting
    )


def ballot_row(ballot: BallotStatistics) -> MeetingRow:
    """A vote that is not decided."""
    return _row(
        MeetingRow, ballot, kind="ballot", number=ballot.needed, waiting=ballot.voted
    )


def subscription_row(subscription: SubscriptionStatistics) -> SubscriptionRow:
    """A subscription's account."""
    # Its `waiting` are publishers, and not told: those of a row are events.
    return SubscriptionRow(
        id=subscription.id,
        pattern=subscription.pattern,
        owner=subscription.owner,
        capacity=subscription.capacity,
        overflow=str(subscription.overflow),
        published=subscription.published,
        delivered=subscription.delivered,
        dropped=subscription.dropped,
        pending=subscription.pending,
        dropped_by={str(one): n for one, n in subscription.dropped_by.items()},
        refused=subscription.refused,
        last_fault=subscription.last_fault,
    )


def durable_row(subscription: DurableStatistics, pause: Pause) -> SubscriptionRow:
    """A durable subscription's account."""
    return _row(
        SubscriptionRow,
        subscription,
        durable=True,
        paused=pause.paused,
        refused=pause.refused,
    )


def idle_row(
    one: StoredSubscription, pause: Pause, backlog: Backlog, position: int
) -> SubscriptionRow:
    """A durable subscription that nobody takes events of."""
    expired = backlog.expired
    return SubscriptionRow(
        id=durable_id(*one.key),
        pattern=one.pattern,
        owner=one.owner,
        published=expired + backlog.events,
        dropped=expired,
        pending=backlog.events,
        # As it will say itself when it is opened.
        dropped_by={str(Reason.EXPIRED): expired} if expired else {},
        refused=pause.refused,
        durable=True,
        members=0,
        cursor=one.cursor,
        lag=max(0, position - one.cursor),
        last_fault="" if one.sound else "its row is damaged",
        retention=one.retention,
        holds=pause.holds,
        paused=pause.paused,
        gaps=1 if expired else 0,
        lag_bytes=backlog.size_bytes,
        uncounted=backlog.uncounted,
    )


def letter_row(letter: DeadLetter) -> DeadLetterRow:
    """A message or event that was given up."""
    # What a message said is its agent's own; an event was told to everybody.
    content = letter.arguments if letter.subscription else b"null"
    return _row(DeadLetterRow, letter, content=Raw(content))


def event_row(entry: JournalEntry) -> EventRow:
    """An entry of the journal."""
    return EventRow(
        position=entry.position,
        topic=entry.topic,
        at_ns=entry.at_ns,
        kind=entry.kind,
        source=entry.source,
        trace=entry.trace,
        payload=Raw(entry.payload),
    )


def fault_event(record: FaultRecord) -> EventRow:
    """A fault, as the entry of the journal that it is."""
    return _row(
        EventRow,
        record,
        kind="report",
        source=record.path,
        payload=Raw(record.payload),
    )
