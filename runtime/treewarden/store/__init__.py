"""The SQLite file and its single writer.

Everything durable goes through here: agents hand over units of work, the writer's thread
commits them in groups, readers see what is committed. Start with `open_store`; `Store` is
what it yields, `Unit` is what is handed over, `DurableQueue` is a collection whose changes
travel in units. `writer.py` holds the argument why an acknowledged unit survives.
"""

from .collection import Collection
from .journal import JournalEntry
from .level import Level
from .queue import DurableQueue, Item
from .snapshots import CrashRecord, StoredState
from .store import Store, StoreStatistics, open_store, waiting_observer
from .unit import StagedEvent, StateWrite, Unit, Write

__all__ = [
    "Collection",
    "CrashRecord",
    "DurableQueue",
    "Item",
    "JournalEntry",
    "Level",
    "StagedEvent",
    "StateWrite",
    "Store",
    "StoreStatistics",
    "StoredState",
    "Unit",
    "Write",
    "open_store",
    "waiting_observer",
]
