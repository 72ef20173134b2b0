"""Agents that agree with agents: who gets what, who goes first, who leads, who decides.

`exchange` is the address of acknowledged delivery from agent to agent: `line` is the rules
for what waits before one receiver, `receiver` all that there is for it, `delivery` who
delivers, `body` the node, `policy` its bounds, `parcel` one message and what its sender is
told. `lock`, `barrier`, `election` and
`quorum` are what agents meet at, by name; nothing there belongs to the dead. `distributor`
gives tasks to whoever can do them.

All of it is of one process and in memory: what survives a crash is said in each module, and
nothing here survives the process.
"""

from .barrier import Barriers, BarriersStatistics, BarrierStatistics
from .body import ExchangeBody
from .distributor import (
    Assignment,
    AssignmentKind,
    Choice,
    DistributorStatistics,
    TaskDistributor,
)
from .election import Elections, ElectionsStatistics, ElectionStatistics, Term
from .exchange import Exchange
from .lock import Grant, Locks, LocksStatistics, LockStatistics
from .parcel import Buffered, Delivered, Sent
from .policy import ExchangePolicy, ExchangeStatistics, LineStatistics
from .quorum import Ballot, BallotStatistics, Decision, Quorums, QuorumsStatistics

__all__ = [
    "Assignment",
    "AssignmentKind",
    "Ballot",
    "BallotStatistics",
    "BarrierStatistics",
    "Barriers",
    "BarriersStatistics",
    "Buffered",
    "Choice",
    "Decision",
    "Delivered",
    "DistributorStatistics",
    "ElectionStatistics",
    "Elections",
    "ElectionsStatistics",
    "Exchange",
    "ExchangeBody",
    "ExchangePolicy",
    "ExchangeStatistics",
    "Grant",
    "LineStatistics",
    "LockStatistics",
    "Locks",
    "LocksStatistics",
    "Quorums",
    "QuorumsStatistics",
    "Sent",
    "TaskDistributor",
    "Term",
]
