"""A group of units, and what became of it: what passes between the loop and the writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from .snapshots import CrashRecord
from .unit import StagedEvent, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.errors import StoreBroken

Step: TypeAlias = Unit | StagedEvent | CrashRecord


@dataclass(slots=True, eq=False)
class Group:
    """What goes into one transaction, in order.

    `handed_over` counts the units handed over before the first one here; each report
    has that count as of its making in `after`, which places it among the units.
    """

    units: list[Unit]
    reports: list[StagedEvent] = field(default_factory=list)
    crashes: list[CrashRecord] = field(default_factory=list)
    handed_over: int = 0

    def steps(self) -> Iterator[Step]:
        """Units and reports in the order in which they came, then crash records."""
        reports = iter(self.reports)
        report = next(reports, None)
        for number, unit in enumerate(self.units, self.handed_over):
            while report is not None and report.after <= number:
                yield report
                report = next(reports, None)
            yield unit
        if report is not None:
            yield report
            yield from reports
        yield from self.crashes


@dataclass(slots=True, eq=False)
class Decision:
    """What became of a group.

    `broken` is the world's failure: nothing of the group happened. Otherwise the units
    in `errors` failed and all others are committed. `journal` is what was added, in the
    order of positions; `refused` counts reports that could not be stored.
    """

    group: Group
    errors: dict[Unit, StoreBroken] = field(default_factory=dict)
    broken: StoreBroken | None = None
    journal: list[StagedEvent] = field(default_factory=list)
    rows: int = 0
    refused: int = 0
    seconds: float = 0.0
