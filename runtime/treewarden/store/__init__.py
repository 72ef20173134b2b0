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
    FileReport,
    backup_file,
    check_file,
    export_rows,
    is_ours,
    journal_of,
    states_of,
)
from .journal import JournalEntry
from .level import Level
from .map import DurableMap
from .queue import DurableQueue, Item
from .remembered import forget_child, load_children, remember_child
from .retention import Retention
from .snapshots import CrashRecord, StoredState
from .store import Store, StoreStatistics, open_store, waiting_observer
from .tx_log import (
    LoggedTransaction,
    Verdict,
    forget_transaction,
    load_transactions,
    log_transaction,
)
from .unit import StagedEvent, StateWrite, Unit, Write
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

__all__ = [
    "Applied",
    "Backup",
    "Collection",
    "CrashRecord",
    "DamagedRow",
    "Declaration",
    "DurableMap",
    "DurableQueue",
    "FaultRecord",
    "FileReport",
    "FoundState",
    "FoundStates",
    "Item",
    "JournalEntry",
    "Level",
    "LoggedTransaction",
    "Migrated",
    "Op",
    "Outcome",
    "Restored",
    "Retention",
    "Scrubbed",
    "StagedEvent",
    "StateFilter",
    "StateWrite",
    "Store",
    "StoreStatistics",
    "StoredLetter",
    "StoredMessage",
    "StoredState",
    "Unit",
    "Vacuumed",
    "Verdict",
    "Write",
    "backup_file",
    "call_id",
    "check_file",
    "count_attempts",
    "declared",
    "delete_effects",
    "delete_letter",
    "delete_message",
    "export_rows",
    "forget_child",
    "forget_transaction",
    "insert_applied",
    "insert_effect",
    "insert_letter",
    "insert_message",
    "is_ours",
    "journal_of",
    "load_children",
    "load_effects",
    "load_letter",
    "load_letters",
    "load_messages",
    "load_transactions",
    "log_transaction",
    "may_declare",
    "migrate_file",
    "open_store",
    "remember_child",
    "rename_path",
    "restore_file",
    "scrub_file",
    "states_of",
    "vacuum_file",
    "waiting_observer",
]
