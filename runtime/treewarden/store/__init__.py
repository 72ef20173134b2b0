"""The SQLite file and its single writer.

Everything durable goes through here: agents hand over units of work, the writer's thread
commits them in groups, readers see what is committed. Start with `open_store`; `Store` is
what it yields, `Unit` is what is handed over, `DurableQueue` is a collection whose changes
travel in units; `check_file` and the like are what `treewarden db` does to a file.
`writer.py` holds the argument why an acknowledged unit survives.
"""

from .checking import DamagedRow
from .collection import Collection
from .copies import Backup
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
from .queue import DurableQueue, Item
from .remembered import forget_child, load_children, remember_child
from .snapshots import CrashRecord, StoredState
from .store import Store, StoreStatistics, open_store, waiting_observer
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
    "Backup",
    "Collection",
    "CrashRecord",
    "DamagedRow",
    "DurableQueue",
    "FileReport",
    "Item",
    "JournalEntry",
    "Level",
    "Migrated",
    "Restored",
    "Scrubbed",
    "StagedEvent",
    "StateWrite",
    "Store",
    "StoreStatistics",
    "StoredState",
    "Unit",
    "Vacuumed",
    "Write",
    "backup_file",
    "check_file",
    "export_rows",
    "forget_child",
    "is_ours",
    "journal_of",
    "load_children",
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
