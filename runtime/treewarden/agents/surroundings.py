"""What the agents of one tree live in."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treewarden.bus import Bus
    from treewarden.store import Store, Unit
    from treewarden.telemetry import Telemetry

# A cast gives way to other tasks at least this often (style rule 14).
_CASTS_A_TURN: Final = 32


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the agents of one tree live in; None is what does not run there."""

    store: Store | None = None
    bus: Bus | None = None
    telemetry: Telemetry | None = None
    runtime: object | None = None
    dead_letter: Callable[[str, str, str], None] | None = None
    """Called with path, operation and reason when a cast is lost for good."""
    turns: Iterator[bool] = field(
        default_factory=lambda: cycle([False] * (_CASTS_A_TURN - 1) + [True])
    )
    """Whether the next cast gives way. One for all agents: only one task runs at a time, so
    that none gets further, whomever it casts to."""
    undecided: dict[str, Unit] = field(default_factory=dict)
    """By path: the newest unit of a node that is gone. Whoever comes to that path reads
    what is committed only after it."""


NOTHING: Final = Surroundings()
"""A bare tree."""
