"""Why a node restarted, or does not run: from the cause of it to what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from treewarden.exits import Crash, Killed, Normal, said_of
from treewarden.supervision import Cause, CauseKind, Kind, NodeState, hangs_at

from . import protocol as wire
from .views import event_row, fault_event, fault_row

if TYPE_CHECKING:
    from treewarden.agents import AgentBody
    from treewarden.store import FaultRecord, Store
    from treewarden.supervision import Node

_CHAIN: Final = 12
_FAULTS: Final = 20
# How far back in the journal the chain is looked for when nothing says where it is.
_ENTRIES: Final = 400
# And before and behind a crash, whose place in the journal is known. In a busy runtime a
# restart that was delayed is far behind it; reports are few, and passing over the others
# costs 2 ms a thousand.
_BEFORE: Final = 200
_BEHIND: Final = 20_000
_REPORTS: Final = "supervision.>"


async def explain(node: Node, store: Store) -> wire.Explanation:
    """What made `node` start again last, or what keeps it from running.

    And what failed in it within the last day.

    Raises:
        StoreError: the journal cannot be read.
    """
    ended = _end_of(node)
    cause = ended or node.cause
    faults = await store.faults(node.path)
    told = wire.Explanation(
        path=node.path,
        incarnation=node.incarnation,
        cause="none",
        sentence=_never_restarted(node),
        now=_now(node),
        faults=[fault_event(one) for one in faults[-_FAULTS:]],
        faults_total=len(faults),
    )
    if node.state is NodeState.STUCK:
        return msgspec.structs.replace(told, cause="stuck", sentence=_stuck(node))
    if cause is None:
        return told
    # The life that ended: this one, or the one before it.
    life = node.incarnation if ended is not None else node.incarnation - 1
    told = await _tell(told, node, cause, life, store)
    return msgspec.structs.replace(
        told, sentence=told.sentence + _standing(node, told.chain)
    )


def _end_of(node: Node) -> Cause | None:
    """What its last life ended of, when it failed and no other has followed."""
    if node.cause is not None and node.cause.exit is node.last_exit:
        return None  # the next is on its way, for the cause that its supervisor noted
    match node.state, node.last_exit:
        case (
            (NodeState.FAILED | NodeState.RESTARTING | NodeState.STOPPED),
            Crash() as exit_,
        ):
            kind = CauseKind.ROLLBACK if exit_.fault.rolled_back else CauseKind.CRASH
            at_ns = exit_.fault.at_ns
        case ((NodeState.FAILED | NodeState.RESTARTING), Killed() as exit_):
            kind, at_ns = CauseKind.KILLED, 0
        case NodeState.FAILED, Normal() as exit_:
            kind, at_ns = CauseKind.RETURNED, 0
        case _:
            return None
    return Cause(kind=kind, origin=node.path, exit=exit_, at_ns=at_ns)


async def _tell(
    told: wire.Explanation, node: Node, cause: Cause, life: int, store: Store
) -> wire.Explanation:
    fault = fault_row(cause.exit.fault) if isinstance(cause.exit, Crash) else None
    message, before = "", None
    if cause.kind in {CauseKind.CRASH, CauseKind.INJECTION}:
        message, before = await _crash_of(node, life, store)
    after = b""
    if node.body.kind is Kind.AGENT:
        after = cast("AgentBody", node.body).memory.shown()
    return msgspec.structs.replace(
        told,
        cause=cause.kind.value,
        sentence=_sentence(node, cause),
        at_ns=cause.at_ns or None,
        origin=cause.origin,
        by=cause.by,
        message=message,
        fault=fault,
        took_down=list(cause.took_down),
        state_before=wire.Raw(before or b"null"),
        state_after=wire.Raw(after or b"null"),
        chain=await _chain(node, cause, store),
    )


async def _crash_of(node: Node, life: int, store: Store) -> tuple[str, bytes | None]:
    """The message in hand, and the state before it, of the crash of a life."""
    records = await store.crashes(node.path)
    if node.body.kind is Kind.AGENT:
        # The newest may still be on its way to the file.
        last = cast("AgentBody", node.body).last_crash
        records = [*records, last] if last is not None else records
    for record in reversed(records):
        if record.incarnation == life:
            said = ""  # between two messages there is none in hand
            if record.operation:
                arguments = record.message.decode(errors="replace")
                said = f"{record.operation} {arguments}"
            return said, record.payload
    return "", None


async def _chain(node: Node, cause: Cause, store: Store) -> list[wire.EventRow]:
    faults: list[FaultRecord] = []
    if cause.kind is not CauseKind.OPERATOR:
        faults = await store.faults(cause.origin)
    if faults:
        begin = max(0, faults[-1].position - _BEFORE)
        entries = await store.entries(
            since=begin, limit=_ENTRIES, pattern=_REPORTS, until=begin + _BEHIND
        )
    else:
        entries = await store.entries(since=None, limit=_ENTRIES, pattern=">")
    about = [e for e in entries if e.source in {node.path, cause.origin}]
    return [event_row(entry) for entry in about[-_CHAIN:]]


def _now(node: Node) -> str:
    """What it awaits at this moment, when it does anything."""
    if node.life is None or node.state is not NodeState.RUNNING:
        return ""
    if node.body.kind is Kind.AGENT:
        doing = cast("AgentBody", node.body).doing
        return "" if doing in ("idle", str(node.state)) else hangs_at(node.life)
    return hangs_at(node.life) if node.body.kind is Kind.TASK else ""


def _stuck(node: Node) -> str:
    where = hangs_at(node.life) if node.life is not None else ""
    does = f"hangs in {where}" if where else "what it started does not"
    return f"{node.path} is stuck: it was told to end, and {does}"


def _standing(node: Node, chain: list[wire.EventRow]) -> str:
    """What becomes of one that is down."""
    if node.state is NodeState.RESTARTING:
        return "; it waits to be started again"
    if node.state is not NodeState.FAILED:
        return ""
    budget = node.budget
    if budget is None or not _is_spent(node, chain):
        return "; it stays down until it is restarted by hand"
    return (
        f"; it has spent its own budget ({budget.limit} in {budget.period:g} s),"
        " and stays down until it is restarted by hand"
    )


def _is_spent(node: Node, chain: list[wire.EventRow]) -> bool:
    """Whether it is down for its budget, and not for a start that is not tried again."""
    if any(row.topic == "supervision.failed" for row in chain):
        return True
    # The report may still be on its way to the file.
    window = node.window
    return window is not None and len(window.children()) > window.budget.limit


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
