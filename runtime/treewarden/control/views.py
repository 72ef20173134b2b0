"""Statistics of the runtime's parts, as rows of the wire.

Nothing is decided here: each function takes a record and returns a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from treewarden.bus import durable_id
from treewarden.exits import Crash, Fault, Killed, describe

from .protocol import (
    AgentRow,
    AlarmRow,
    CircuitRow,
    CollectionRow,
    DeadLetterRow,
    EventRow,
    FaultRow,
    HealthRow,
    LayerRow,
    LineRow,
    MeetingRow,
    NodeRow,
    PlanRow,
    PointRow,
    PolicyRow,
    Raw,
    SubscriptionRow,
    WorkflowRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from treewarden.agents import AgentStatistics, DeadLetter
    from treewarden.bus import DurableStatistics, SubscriptionStatistics
    from treewarden.coordination import (
        BallotStatistics,
        BarrierStatistics,
        ElectionStatistics,
        ExchangeStatistics,
        LineStatistics,
        LockStatistics,
    )
    from treewarden.exits import Exit
    from treewarden.injection import InjectionPoint, Loaded
    from treewarden.monitors import Alarm, SubjectHealth
    from treewarden.resilience import CircuitStatistics, PolicyStatistics
    from treewarden.store import (
        Collection,
        FaultRecord,
        JournalEntry,
        StoredSubscription,
    )
    from treewarden.supervision import NodeStatistics, Report
    from treewarden.workflows import WorkflowStatus


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


def stored_fault_row(encoded: bytes) -> FaultRow:
    """A fault as a crash record holds it."""
    return msgspec.json.decode(encoded, type=FaultRow)


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
    return PointRow(
        name=point.name,
        about=point.about,
        home=point.home.value,
        kinds=sorted(kind.value for kind in point.kinds),
        reached=point.reached,
        armed=len(point.armed or ()),
    )


def plan_row(loaded: Loaded) -> PlanRow:
    """A plan that is in force."""
    return PlanRow(
        name=loaded.plan.name,
        by=loaded.by,
        injections=len(loaded.plan.injections),
        done=loaded.done,
        seconds_left=loaded.seconds_left,
    )


def alarm_row(alarm: Alarm) -> AlarmRow:
    """An open alarm."""
    return AlarmRow(
        id=alarm.id,
        name=alarm.name,
        severity=alarm.severity.value,
        message=alarm.message,
        opened_at_ns=alarm.opened_at_ns,
        updated_at_ns=alarm.updated_at_ns,
        count=alarm.count,
        subject=alarm.subject,
        value=alarm.value,
        acknowledged_by=alarm.acknowledged_by,
    )


def health_row(subject: SubjectHealth) -> HealthRow:
    """A subject and its last check."""
    return HealthRow(
        subject=subject.subject,
        status=subject.status.value,
        reason=subject.reason,
        since_ns=subject.since_ns,
        checks=subject.checks,
        failures=subject.failures,
        late=subject.late,
    )


def circuit_row(circuit: CircuitStatistics) -> CircuitRow:
    """A circuit and its window."""
    return CircuitRow(
        name=circuit.name,
        state=circuit.state.value,
        since_ns=circuit.since_ns,
        window_calls=circuit.window_calls,
        window_failures=circuit.window_failures,
        window_slow=circuit.window_slow,
        in_a_row=circuit.in_a_row,
        threshold=circuit.threshold,
        # Zero for circuits that let calls through: nothing to wait for.
        retry_after=circuit.retry_after or None,
        probes=circuit.probes,
        half_open_calls=circuit.half_open_calls,
        probe_successes=circuit.probe_successes,
        success_threshold=circuit.success_threshold,
        calls=circuit.calls,
        succeeded=circuit.succeeded,
        failed=circuit.failed,
        rejected=circuit.rejected,
        not_counted=circuit.not_counted,
        in_flight=circuit.in_flight,
        slow=circuit.slow,
        timed_out=circuit.timed_out,
        opened=circuit.opened,
        openings=circuit.openings,
        last_error=circuit.last_error,
    )


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
    return WorkflowRow(
        id=status.id,
        name=status.name,
        version=status.version,
        state=status.state,
        steps_over=status.steps_over,
        attempts=status.attempts,
        reason=status.reason,
        begun_at_ns=status.begun_at_ns,
        ended_at_ns=status.ended_at_ns,
    )


def collection_row(collection: Collection) -> CollectionRow:
    """A durable queue or map."""
    return CollectionRow(
        path=collection.path,
        name=collection.name,
        kind=collection.kind,
        items=collection.committed,
    )


def line_row(exchange: ExchangeStatistics, line: LineStatistics) -> LineRow:
    """What an exchange has for one receiver."""
    return LineRow(
        exchange=exchange.path,
        receiver=line.receiver,
        circuit=line.circuit,
        stalled=line.stalled,
        pending=line.pending,
        capacity=exchange.capacity,
        accepted=line.accepted,
        delivered=line.delivered,
        failed=line.failed,
        dropped=line.dropped,
        withdrawn=line.withdrawn,
        refused=line.refused,
        attempts=line.attempts,
        last_error=line.last_error,
    )


def lock_row(lock: LockStatistics) -> MeetingRow:
    """A lock that somebody holds."""
    return MeetingRow(
        kind="lock",
        name=lock.name,
        number=lock.token,
        waiting=lock.waiting,
        holder=lock.holder,
    )


def election_row(election: ElectionStatistics) -> MeetingRow:
    """An office that somebody has or wants."""
    return MeetingRow(
        kind="election",
        name=election.name,
        number=election.term,
        waiting=len(election.candidates),
        holder=election.leader,
    )


def barrier_row(barrier: BarrierStatistics) -> MeetingRow:
    """A barrier that somebody waits at."""
    return MeetingRow(
        kind="barrier",
        name=barrier.name,
        number=barrier.parties,
        waiting=len(barrier.arrived),
    )


def ballot_row(ballot: BallotStatistics) -> MeetingRow:
    """A vote that is not decided."""
    return MeetingRow(
        kind="ballot", name=ballot.name, number=ballot.needed, waiting=ballot.voted
    )


def subscription_row(subscription: SubscriptionStatistics) -> SubscriptionRow:
    """A subscription's account."""
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


def durable_row(one: DurableStatistics) -> SubscriptionRow:
    """A durable subscription's account."""
    return SubscriptionRow(
        id=one.id,
        pattern=one.pattern,
        owner=one.owner,
        capacity=one.capacity,
        published=one.published,
        delivered=one.delivered,
        dropped=one.dropped,
        pending=one.pending,
        dropped_by={str(reason): n for reason, n in one.dropped_by.items()},
        durable=True,
        members=one.members,
        cursor=one.cursor,
        lag=one.lag,
        leased=one.leased,
        waiting=one.waiting,
        redelivered=one.redelivered,
        last_fault=one.last_fault,
    )


def idle_row(one: StoredSubscription, position: int) -> SubscriptionRow:
    """A durable subscription that nobody takes events of."""
    return SubscriptionRow(
        id=durable_id(*one.key),
        pattern=one.pattern,
        owner=one.owner,
        durable=True,
        members=0,
        cursor=one.cursor,
        lag=max(0, position - one.cursor),
        last_fault="" if one.sound else "its row is damaged",
    )


def letter_row(letter: DeadLetter) -> DeadLetterRow:
    """A message or event that was given up."""
    return DeadLetterRow(
        number=letter.number,
        path=letter.path,
        operation=letter.operation,
        attempts=letter.attempts,
        reason=letter.reason,
        at_ns=letter.at_ns,
        sender=letter.sender,
        subscription=letter.subscription,
        # What a message said is its agent's own; an event was told to everybody.
        content=Raw(letter.arguments) if letter.subscription else Raw(b"null"),
    )


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
    return EventRow(
        position=record.position,
        topic=record.topic,
        at_ns=record.at_ns,
        kind="report",
        source=record.path,
        payload=Raw(record.payload),
    )


def report_payload(report: Report) -> dict[str, Any]:
    """A supervision report as it goes into the journal."""
    payload: dict[str, Any] = {"incarnation": report.incarnation}
    payload |= exit_payload(report.exit)
    if report.cause is not None:
        payload["cause"] = report.cause.kind.value
        payload["origin"] = report.cause.origin
        if report.cause.by:
            payload["by"] = report.cause.by
        if report.cause.took_down:
            payload["took_down"] = list(report.cause.took_down)
    if report.budget is not None:
        spent, limit, period = report.budget
        payload["budget"] = {"spent": spent, "limit": limit, "period": period}
    if report.stopping and isinstance(report.exit, (Crash, Killed)):
        payload["stopping"] = True
    if report.in_hand is not None and report.in_hand.operation:
        payload["operation"] = report.in_hand.operation
        payload["sender"] = report.in_hand.sender
    if report.detail:
        payload["detail"] = report.detail
    return payload


def exit_payload(exit_: Exit | None) -> dict[str, Any]:
    """How something ended, for the journal: a word, and where it crashed."""
    if exit_ is None:
        return {}
    payload: dict[str, Any] = {"exit": describe(exit_)}
    if isinstance(exit_, Crash):
        payload["where"] = exit_.fault.where()
    return payload
