"""Why a node restarted: from the cause that its supervisor noted to what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from treewarden.exits import Crash, said_of
from treewarden.supervision import CauseKind, Kind

from . import protocol as wire
from .views import event_row, fault_event, fault_row, stored_fault_row

if TYPE_CHECKING:
    from treewarden.agents import AgentBody
    from treewarden.store import Store
    from treewarden.supervision import Cause, Node

_CHAIN: Final = 12
_FAULTS: Final = 20
# How far back in the journal the chain is looked for.
_ENTRIES: Final = 400


async def explain(node: Node, store: Store) -> wire.Explanation:
    """What made `node` start again last, and what failed in it within the last day.

    Raises:
        StoreError: the journal cannot be read.
    """
    cause = node.cause
    faults = await store.faults(node.path)
    told = wire.Explanation(
        path=node.path,
        incarnation=node.incarnation,
        cause="none",
        sentence=_never_restarted(node),
        faults=[fault_event(one) for one in faults[-_FAULTS:]],
        faults_total=len(faults),
    )
    return told if cause is None else await _tell(told, node, cause, store)


async def _tell(
    told: wire.Explanation, node: Node, cause: Cause, store: Store
) -> wire.Explanation:
    fault = fault_row(cause.exit.fault) if isinstance(cause.exit, Crash) else None
    message, before = "", None
    if cause.kind in {CauseKind.CRASH, CauseKind.INJECTION}:
        message, before, stored = await _crash_of(node, store)
        if stored is not None and cause.kind is CauseKind.CRASH:
            fault = stored
    after = b""
    if node.body.kind is Kind.AGENT:
        after = cast("AgentBody", node.body).memory.shown()
    return msgspec.structs.replace(
        told,
        cause=cause.kind.value,
        sentence=_sentence(node, cause),
        at_ns=cause.at_ns,
        origin=cause.origin,
        by=cause.by,
        message=message,
        fault=fault,
        took_down=list(cause.took_down),
        state_before=wire.Raw(before or b"null"),
        state_after=wire.Raw(after or b"null"),
        chain=await _chain(node, cause, store),
    )


async def _crash_of(
    node: Node, store: Store
) -> tuple[str, bytes | None, wire.FaultRow | None]:
    """The message in hand, the state before it, and the fault, of its last crash."""
    records = await store.crashes(node.path)
    if node.body.kind is Kind.AGENT:
        # The newest may still be on its way to the file.
        last = cast("AgentBody", node.body).last_crash
        records = [*records, last] if last is not None else records
    for record in reversed(records):
        if record.incarnation == node.incarnation - 1:
            said = ""  # between two messages there is none in hand
            if record.operation:
                arguments = record.message.decode(errors="replace")
                said = f"{record.operation} {arguments}"
            return said, record.payload, stored_fault_row(record.fault)
    return "", None, None


async def _chain(node: Node, cause: Cause, store: Store) -> list[wire.EventRow]:
    entries = await store.entries(since=None, limit=_ENTRIES, pattern=">")
    about = [e for e in entries if e.source in {node.path, cause.origin}]
    return [event_row(entry) for entry in about[-_CHAIN:]]


def _never_restarted(node: Node) -> str:
    if node.last_exit is not None:
        return f"{node.path} was never restarted; it {said_of(node.last_exit)}"
    return f"{node.path} was never restarted in this run"


def _sentence(node: Node, cause: Cause) -> str:
    how = said_of(cause.exit)
    who = f" by {cause.by}" if cause.by else ""
    match cause.kind:
        case CauseKind.GROUP:
            return f"{node.path} was restarted because {cause.origin} {how}"
        case CauseKind.OPERATOR:
            return f"{node.path} was restarted{who or ' by an operator'}"
        case CauseKind.INJECTION:
            by = cause.exit.fault.message if isinstance(cause.exit, Crash) else how
            return f"{node.path} was made to crash on purpose: {by}"
        case CauseKind.ROLLBACK:
            why = cause.exit.fault.summary() if isinstance(cause.exit, Crash) else how
            return f"{node.path} was rolled back to its last committed state: {why}"
        case _:
            return f"{node.path} {how}"
