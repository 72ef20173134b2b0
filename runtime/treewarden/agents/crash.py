"""What is kept of an agent's crash: its fault, its message and the state before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.exits import Fault
from treewarden.store import CrashRecord

if TYPE_CHECKING:
    from .body import AgentBody
    from .envelope import Envelope


def fault_of(body: AgentBody, error: BaseException, trace: str = "") -> Fault:
    """As its class lets people see it; an error's own text may fail.

    From the handler's own frame on: the one that called it tells nobody anything.
    """
    node = body.node
    return body.agent_class.redaction.fault(
        Fault.capture(
            error, path=node.path, incarnation=node.incarnation, trace=trace, below=1
        )
    )


def keep_crash(body: AgentBody, envelope: Envelope | None, fault: Fault) -> None:
    """Have it kept with the message in hand; None: the agent was idle."""
    body.last_crash = _record(body, envelope, fault)
    store = body.surroundings.store
    if store is not None:
        store.record_crash(body.last_crash)


def _record(body: AgentBody, envelope: Envelope | None, fault: Fault) -> CrashRecord:
    redacted = body.agent_class.redaction.message
    return CrashRecord(
        path=body.node.path,
        at_ns=fault.at_ns,
        incarnation=body.node.incarnation,
        operation=envelope.operation.name if envelope is not None else "",
        message=redacted(envelope) if envelope is not None else b"null",
        fault=b"",
        content=fault,
        revision=body.memory.committed_revision,
        payload=body.memory.shown(),
        sender=envelope.sender if envelope is not None else "",
    )
