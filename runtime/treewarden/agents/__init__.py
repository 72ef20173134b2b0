"""Agents: private state behind a mailbox, and handlers that are transactions.

`agent` is what users subclass, `ref` the address that others hold, `body` what outlives
an agent's incarnations, `mailbox` the bounded queue in front of it, `outbox` what it sent
and nobody had room for, `operation` what it can be asked, `codec` its state as bytes,
`durable` a mailbox that outlives the process and `dead_letters` what became too much for
it, `request` and `reply` answers that are read or given later, `monitor` and `links` who is
told, and who goes along, when somebody ends, `recent` what it did lately, `redaction` what
of all that people may see.

`transaction` makes several of them change together: `seat` is an agent's place in it,
`participants` who joins from outside the store.
"""

from .agent import Agent
from .body import AgentBody, AgentStatistics, current_body
from .dead_letters import DeadLetter, DeadLetters
from .mailbox import MailboxOverflow, MailboxPolicy
from .monitor import Down, Monitor
from .participants import Participant, Participants, Unsettled
from .recent import Handled
from .ref import AgentRef
from .reply import Reply
from .request import Request
from .surroundings import Surroundings
from .transaction import Transaction, open_transaction

__all__ = [
    "Agent",
    "AgentBody",
    "AgentRef",
    "AgentStatistics",
    "DeadLetter",
    "DeadLetters",
    "Down",
    "Handled",
    "MailboxOverflow",
    "MailboxPolicy",
    "Monitor",
    "Participant",
    "Participants",
    "Reply",
    "Request",
    "Surroundings",
    "Transaction",
    "Unsettled",
    "current_body",
    "open_transaction",
]
