"""Agents: private state behind a mailbox, and handlers that are transactions.

`agent` is what users subclass, `ref` the address that others hold, `body` what outlives
an agent's incarnations, `mailbox` the bounded queue in front of it, `outbox` what it sent
and nobody had room for, `operation` what it can be asked, `codec` its state as bytes,
`request` and `reply` answers that are read or given later, `monitor` and `links` who is
told, and who goes along, when somebody ends, `recent` what it did lately, `redaction` what
of all that people may see.
"""

from .agent import Agent
from .body import AgentBody, AgentStatistics, current_body
from .mailbox import MailboxOverflow, MailboxPolicy
from .monitor import Down, Monitor
from .recent import Handled
from .ref import AgentRef
from .reply import Reply
from .request import Request
from .surroundings import Surroundings

__all__ = [
    "Agent",
    "AgentBody",
    "AgentRef",
    "AgentStatistics",
    "Down",
    "Handled",
    "MailboxOverflow",
    "MailboxPolicy",
    "Monitor",
    "Reply",
    "Request",
    "Surroundings",
    "current_body",
]
