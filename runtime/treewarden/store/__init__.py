"""The SQLite file and its single writer.

Everything durable goes through here: agents hand over units of work, the writer's thread
commits them in groups, readers see what is committed. Start with `open_store`; `Store` is
what it yields, `Unit` is what is handed over, `DurableQueue` and `DurableMap` are collections
whose changes travel in units; `check_file` and the like are what `treewarden db` does to a file.
`writer.py` holds the argument why an acknowledged unit survives.
"""

from .applied import Applied, Outcome, call_id, insert_applied
from .checking import DamagedRow
from .collection import Collection
from .copies import Backup
from .dead_letters import (
    StoredLetter,
    delete_letter,
    insert_letter,
    keep_letter,
    load_letter,
    load_letters,
)
from .declaring import Declaration, declared, may_declare
from .effects import delete_effects, insert_effect, load_effects
from .faults import FaultRecord
from .filter import FoundState, FoundStates, Op, StateFilter
from .inbox import (
    StoredMessage,
    count_attempts,
    delete_message,
    insert_message,
    load_messages,
)
from .inspection import (
    Belonging,
    FileReport,
    backup_file,
    belongings_of,
    check_file,
    export_rows,
    is_ours,
    journal_of,
    states_of,
)
from .journal import (
    Backlog,
    EntryKind,
    EventPage,
    JournalEntry,
    bytes_behind,
    count_events,
    find_position,
    load_backlog,
    load_events,
)
from .level import Level
from .map import DurableMap
from .policy_state import (
    forget_policy_state,
    keep_policy_state,
    load_policy_states,
)
from .queue import DurableQueue, Item
from .remembered import forget_child, load_children, remember_child
from .retention import HELD_TIMES, DurableRetention, Retention
from .snapshots import CrashRecord, StoredState
from .statistics import StoreStatistics
from .store import Store, open_store, waiting_observer
from .subscriptions import (
    Holding,
    Owned,
    StoredDelivery,
    StoredSubscription,
    deliver_again,
    forget_subscription,
    load_deliveries,
    load_subscriptions,
    note_delivery,
    save_subscription,
)
from .tx_log import (
    LoggedTransaction,
    Verdict,
    forget_transaction,
    load_transactions,
    log_transaction,
)
from .unit import Content, StagedEvent, StateWrite, Unit, Write
from .upkeep import (
    Migrated,
    Restored,
    Scrubbed,
    Vacuumed,
    migrate_file,
    rename_path,
    restore_file,
    scrub_file,
    vacuum_file,
)
from .workflows import (
    ENDED,
    PAGE,
    UNFINISHED,
    WAITING,
    StepState,
    StoredStep,
    StoredWorkflow,
    WorkflowState,
    count_steps,
    has_ended,
    insert_workflow,
    keep_step,
    load_steps,
    load_unfinished,
    load_workflow,
    load_workflows,
    prune_workflows,
    update_workflow,
)

__all__ = [
    "ENDED",
    "HELD_TIMES",
    "PAGE",
    "UNFINISHED",
    "WAITING",
    "Applied",
    "Backlog",
    "Backup",
    "Belonging",
    "Collection",
    "Content",
    "CrashRecord",
    "DamagedRow",
    "Declaration",
    "DurableMap",
    "DurableQueue",
    "DurableRetention",
    "EntryKind",
    "EventPage",
    "FaultRecord",
    "FileReport",
    "FoundState",
    "FoundStates",
    "Holding",
    "Item",
    "JournalEntry",
    "Level",
    "LoggedTransaction",
    "Migrated",
    "Op",
    "Outcome",
    "Owned",
    "Restored",
    "Retention",
    "Scrubbed",
    "StagedEvent",
    "StateFilter",
    "StateWrite",
    "StepState",
    "Store",
    "StoreStatistics",
    "StoredDelivery",
    "StoredLetter",
    "StoredMessage",
    "StoredState",
    "StoredStep",
    "StoredSubscription",
    "StoredWorkflow",
    "Unit",
    "Vacuumed",
    "Verdict",
    "WorkflowState",
    "Write",
    "backup_file",
    "belongings_of",
    "bytes_behind",
    "call_id",
    "check_file",
    "count_attempts",
    "count_events",
    "count_steps",
    "declared",
    "delete_effects",
    "delete_letter",
    "delete_message",
    "deliver_again",
    "export_rows",
    "find_position",
    "forget_child",
    "forget_policy_state",
    "forget_subscription",
    "forget_transaction",
    "has_ended",
    "insert_applied",
    "insert_effect",
    "insert_letter",
    "insert_message",
    "insert_workflow",
    "is_ours",
    "journal_of",
    "keep_letter",
    "keep_policy_state",
    "keep_step",
    "load_backlog",
    "load_children",
    "load_deliveries",
    "load_effects",
    "load_events",
    "load_letter",
    "load_letters",
    "load_messages",
    "load_policy_states",
    "load_steps",
    "load_subscriptions",
    "load_transactions",
    "load_unfinished",
    "load_workflow",
    "load_workflows",
    "log_transaction",
    "may_declare",
    "migrate_file",
    "note_delivery",
    "open_store",
    "prune_workflows",
    "remember_child",
    "rename_path",
    "restore_file",
    "save_subscription",
    "scrub_file",
    "states_of",
    "update_workflow",
    "vacuum_file",
    "waiting_observer",
]
