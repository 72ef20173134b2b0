"""Who restarts whom: specifications, strategies, budgets, and the tree that obeys them.

The meaning of every word is Erlang/OTP's; the decisions are pure (`strategy`,
`intensity`), the executor is thin (`supervisor`), and the rules for trio are TA-1 to TA-15
of the specification: two scopes a child, an exception barrier, ordered and shielded stops.
"""

from .intensity import Intensity, RestartWindow
from .node import (
    IGNORE,
    Cause,
    CauseKind,
    Ignore,
    Kind,
    Life,
    Node,
    NodeState,
    Stop,
    cleanup,
    current_life,
)
from .ref import ChildCounts, ChildInfo, SupervisorRef, open_supervisor, open_tree
from .spec import (
    Application,
    ChildSpec,
    DynamicSupervisorSpec,
    Isolation,
    SupervisorSpec,
    check_id,
)
from .strategy import (
    AutoShutdown,
    Member,
    Plan,
    Restart,
    Strategy,
    is_finished,
    is_restarted,
    plan_restart,
)
from .supervisor import Supervisor
from .timers import Timer, Timers
from .tree import (
    Directory,
    NodeStatistics,
    Report,
    TreeSnapshot,
    as_supervisor,
    statistics,
)
from .watchdog import Blocked, Watchdog, WatchdogStatistics

__all__ = [
    "IGNORE",
    "Application",
    "AutoShutdown",
    "Blocked",
    "Cause",
    "CauseKind",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "Directory",
    "DynamicSupervisorSpec",
    "Ignore",
    "Intensity",
    "Isolation",
    "Kind",
    "Life",
    "Member",
    "Node",
    "NodeState",
    "NodeStatistics",
    "Plan",
    "Report",
    "Restart",
    "RestartWindow",
    "Stop",
    "Strategy",
    "Supervisor",
    "SupervisorRef",
    "SupervisorSpec",
    "Timer",
    "Timers",
    "TreeSnapshot",
    "Watchdog",
    "WatchdogStatistics",
    "as_supervisor",
    "check_id",
    "cleanup",
    "current_life",
    "is_finished",
    "is_restarted",
    "open_supervisor",
    "open_tree",
    "plan_restart",
    "statistics",
]
