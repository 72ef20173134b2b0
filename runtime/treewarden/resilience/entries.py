"""Values that end: at most so many, each with a version and an instant when it is over.

Reading an entry that is over removes it and says so, once; the next reader hears that
there is nothing. Both are one step: between looking and removing nobody comes in. Who
must take two steps, because something else happens in between, removes by version, and so
never what somebody has put there since. When there is no room, the entry that was written
longest ago goes. Pure: time is passed in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class MissReason(StrEnum):
    """Why there is no value."""

    NOT_FOUND = "not_found"
    EXPIRED = "expired"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Hit(Generic[V_co]):
    """The value, and the version to remove it by; over at `expires_at` (may be never)."""

    value: V_co
    version: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Miss:
    """There is no value, and why."""

    reason: MissReason


class Entries(Generic[K, V]):
    """At most `size` entries, the one written longest ago first."""

    __slots__ = ("_entries", "_version", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[K, Hit[V]] = OrderedDict()
        self._version = 0

    def __len__(self) -> int:
        """How many there are, those that are over and not yet removed included."""
        return len(self._entries)

    def look(self, key: K, now: float) -> Hit[V] | Miss:
        """The entry, or why there is none; one that is over is removed by that."""
        entry = self._entries.get(key)
        if entry is None:
            return _NOT_FOUND
        if entry.expires_at <= now:
            del self._entries[key]
            return _EXPIRED
        return entry

    def put(self, key: K, value: V, expires_at: float = math.inf) -> int:
        """Write an entry; how many others had to go for it (none, or one)."""
        self._version += 1
        # Written anew it is the newest again. Its own place is free: nobody else must go.
        self._entries.pop(key, None)
        evicted = len(self._entries) >= self.size
        if evicted:
            self._entries.popitem(last=False)
        self._entries[key] = Hit(value, self._version, expires_at)
        return int(evicted)

    def delete(self, key: K, version: int | None = None) -> bool:
        """Remove an entry, if it is of that version; whether there was such a one."""
        entry = self._entries.get(key)
        if entry is None or (version is not None and entry.version != version):
            return False
        del self._entries[key]
        return True

    def clear(self) -> int:
        """Remove everything; how much it was."""
        removed = len(self._entries)
        self._entries.clear()
        return removed

    def end(self, key: K, now: float) -> bool:
        """Remove an entry if it is over; whether it was."""
        return self.look(key, now) is _EXPIRED

    def keys(self) -> list[K]:
        """All keys as they are now, the one written longest ago first."""
        return list(self._entries)


_NOT_FOUND = Miss(MissReason.NOT_FOUND)
_EXPIRED = Miss(MissReason.EXPIRED)
