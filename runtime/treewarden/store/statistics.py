"""What a store counts, and the record that it shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .group import Decision
    from .level import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """Totals since the store was opened; seconds and bytes.

    `units` counts the committed ones, `failed_units` those that were not; `failed_commits`
    are groups that failed as a whole. `degraded` until a commit succeeds again, and as
    long as damage was found in the file: `damage` is the first finding.
    """

    level: Level
    health: Literal["ok", "degraded"]
    commits: int
    failed_commits: int
    units: int
    failed_units: int
    rows: int
    queued: int
    largest_group: int
    reports_dropped: int
    last_commit_seconds: float
    commit_seconds_total: float
    file_bytes: int
    wal_bytes: int
    last_error: str
    damaged_rows: int = 0
    damage: str = ""
    scrubbed_rows: int = 0
    scrub_passes: int = 0


@dataclass(slots=True, kw_only=True)
class Accounts:
    """What is counted on the way; the names are those of `StoreStatistics`."""

    commits: int = 0
    failed_commits: int = 0
    units: int = 0
    failed_units: int = 0
    rows: int = 0
    largest_group: int = 0
    reports_dropped: int = 0
    last_commit_seconds: float = 0.0
    commit_seconds_total: float = 0.0
    last_error: str = ""
    damaged_rows: int = 0
    damage: str = ""

    def count(self, decision: Decision) -> None:
        """A group was decided; what became of its units is counted one by one."""
        units = len(decision.group.units)
        self.last_commit_seconds = decision.seconds
        self.commit_seconds_total += decision.seconds
        self.largest_group = max(self.largest_group, units)
        self.reports_dropped += decision.refused
        if decision.broken is not None:
            self.failed_commits += 1
            self.last_error = str(decision.broken)
            return
        self.commits += 1
        self.units += units - len(decision.errors)
        self.rows += decision.rows
        for error in decision.errors.values():
            self.last_error = str(error)
            break

    def note_damage(self, finding: object) -> None:
        """Something in the file is not what was written."""
        self.damage = self.damage or str(finding)
