"""Agents: private state behind a mailbox, and handlers that are transactions.

`agent` is what users subclass, `ref` the address that others hold, `body` what outlives
an agent's incarnations, and the loop that serves it: it takes from the `mailbox`, the
bounded queue in front of it, runs an `operation` and seals what that did. `memory` is what
it knows, `codec` that state as bytes; `staged` is what a handler wants to happen with its
commit, `release` what the commit sets free, `outbox` what it sent and nobody had room for.
`ties` are what binds it to others: subscriptions, timers, answers that it owes.

`durable` is a mailbox that outlives the process and `dead_letters` what became too much for
it, `request` and `reply` answers that are read or given later, `request_id` by what one is
known for ever, `monitor` and `links` who is told, and who goes along, when somebody ends,
`orders` what an operator has it do,
`owner` what is somebody's for as long as he lives. `recent` is what it did lately, `hooks`
hear of that at once, `crash` is what is kept of its last moments, `message_spans` what telemetry hears, `redaction` what of all that people
may see.

`transaction` makes several of them change together: `seat` is an agent's place in it,
`participants` who joins from outside the store.
"""

from .agent import Agent
from .body import AgentBody, AgentStatistics, current_body
from .dead_letters import DeadLetter, DeadLetters
from .mailbox import MailboxOverflow, MailboxPolicy
from .monitor import Down, Monitor
from .owner import Estates, name_of, owner_of_caller
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
    "Estates",
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
    "name_of",
    "open_transaction",
    "owner_of_caller",
]
