"""Statistics of the runtime's parts, as rows of the wire.

Nothing is decided here: each function takes a record and returns a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from treewarden.exits import Crash, Fault, Killed, describe

from .protocol import (
    AgentRow,
    CircuitRow,
    CollectionRow,
    EventRow,
    FaultRow,
    NodeRow,
    PlanRow,
    PointRow,
    Raw,
    SubscriptionRow,
)

if TYPE_CHECKING:
    from treewarden.agents import AgentStatistics
    from treewarden.bus import SubscriptionStatistics
    from treewarden.exits import Exit
    from treewarden.injection import InjectionPoint, Loaded
    from treewarden.resilience import CircuitStatistics
    from treewarden.store import Collection, FaultRecord, JournalEntry
    from treewarden.supervision import NodeStatistics, Report


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


def circuit_row(circuit: CircuitStatistics) -> CircuitRow:
    """A circuit and its window."""
    return CircuitRow(
        name=circuit.name,
        state=circuit.state.value,
        since_ns=circuit.since_ns,
        window_calls=circuit.window_calls,
        window_failures=circuit.window_failures,
        threshold=circuit.threshold,
        retry_after=circuit.retry_after if circuit.state == "open" else None,
        calls=circuit.calls,
        succeeded=circuit.succeeded,
        failed=circuit.failed,
        rejected=circuit.rejected,
        not_counted=circuit.not_counted,
        opened=circuit.opened,
        last_error=circuit.last_error,
    )


def collection_row(collection: Collection) -> CollectionRow:
    """A durable queue or map."""
    return CollectionRow(
        path=collection.path,
        name=collection.name,
        kind=collection.kind,
        items=collection.committed,
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
