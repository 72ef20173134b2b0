"""Who restarts whom: specifications, strategies, budgets, and the tree that obeys them.

The meaning of every word is Erlang/OTP's; the decisions are pure (`strategy`,
`intensity`), the executor is thin (`supervisor`), and the rules for trio are TA-1 to TA-15
of the specification: two scopes a child, an exception barrier, ordered and shielded stops.
"""

from .cause import Cause, CauseKind
from .collector import Collector
from .endings import check_endings, hear_of_endings
from .importable import hints_of
from .intensity import Intensity, RestartWindow
from .node import (
    IGNORE,
    BegunInItsTask,
    Ignore,
    Kind,
    Life,
    Node,
    NodeState,
    Stop,
    cleanup,
    current_life,
    raised_by_itself,
)
from .partition import PartitionSupervisorSpec
from .ref import ChildCounts, ChildInfo, SupervisorRef, open_supervisor, open_tree
from .remembered import Memory
from .report import EXITED, RESTARTED, InHand, Report, crash_of, log_record
from .report_log import ReportLog, ReportLogStatistics
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
from .timers import Patience, Timer, Timers
from .tree import (
    Directory,
    NodeStatistics,
    TreeSnapshot,
    as_supervisor,
    statistics,
)
from .watchdog import Blocked, Watchdog, WatchdogStatistics
from .whereabouts import hangs_at

__all__ = [
    "EXITED",
    "IGNORE",
    "RESTARTED",
    "Application",
    "AutoShutdown",
    "BegunInItsTask",
    "Blocked",
    "Cause",
    "CauseKind",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "Collector",
    "Directory",
    "DynamicSupervisorSpec",
    "Ignore",
    "InHand",
    "Intensity",
    "Isolation",
    "Kind",
    "Life",
    "Member",
    "Memory",
    "Node",
    "NodeState",
    "NodeStatistics",
    "PartitionSupervisorSpec",
    "Patience",
    "Plan",
    "Report",
    "ReportLog",
    "ReportLogStatistics",
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
    "check_endings",
    "check_id",
    "cleanup",
    "crash_of",
    "current_life",
    "hangs_at",
    "hear_of_endings",
    "hints_of",
    "is_finished",
    "is_restarted",
    "log_record",
    "open_supervisor",
    "open_tree",
    "plan_restart",
    "raised_by_itself",
    "statistics",
]
