"""A unit of work: what one handler changed, applied as a whole or not at all.

An agent makes a unit when a handler returns, fills it and hands it to the store. Units
commit in the order of their hand-over; many share one transaction. When a group fails on
somebody's row it is tried again unit by unit, each in a savepoint, so that a unit that
cannot be stored harms only those that build on it (`needs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from treewarden.errors import StoreError

Write: TypeAlias = tuple[str, tuple[Any, ...]]
"""One statement of a collection, and its parameters. The same text is prepared once."""


class StateWrite(msgspec.Struct, eq=False, gc=False):
    """An agent's state as it is to be stored; `payload` is JSON, one row an agent."""

    store_as: str
    state_version: int
    revision: int
    payload: bytes


class Content(Protocol):
    """What a payload is made of, when there is time for it."""

    def encode(self) -> bytes:
        """As JSON; must not raise."""
        ...


class StagedEvent(msgspec.Struct, eq=False, gc=False):
    """An event or report on its way into the journal.

    Mutable, unlike other records: the writer sets `position` once it is committed, and
    until then it is 0. `payload` is JSON; what has a `content` gets it from that in the
    writer's thread. `at_ns` is when it was staged. A `fault` is also found by its source.
    Of a report, `after` is how many units had been handed over before it.
    """

    # Out of the garbage collector's sight, as its content should be: after a mass start
    # ten thousand of them wait.

    topic: str
    payload: bytes
    at_ns: int
    source: str = ""
    trace: str = ""
    kind: Literal["event", "report"] = "event"
    position: int = 0
    content: Content | None = None
    fault: bool = False
    after: int = 0


class Unit(msgspec.Struct, eq=False):
    """One handler's work. Cheap to make; the maker fills what it needs.

    `release` is run in the trio thread, in order, once the unit is decided: with None
    when it is committed (at the store's level), else with the error, and then nothing of
    it happened. `needs` is emptied at that moment, so that units do not keep each other.

    A transaction of several agents is one unit; what each of them changed are its `parts`.
    They share its fate and have no events of their own; nobody but it knows of them: it
    tells their `release`.
    """

    path: str
    state: StateWrite | None = None
    writes: list[Write] | None = None
    events: list[StagedEvent] | None = None
    needs: tuple[Unit, ...] = ()
    parts: tuple[Unit, ...] = ()
    release: list[Callable[[StoreError | None], None]] = msgspec.field(
        default_factory=list
    )
    error: StoreError | None = None
    decided: bool = False
    # Which of its run it is, from 1; 0 until it is handed over.
    number: int = 0
    bytes: int = 0

    def weigh(self) -> int:
        """Bytes that this unit keeps in memory, roughly; remembered in `bytes`."""
        state = self.state
        size = len(state.payload) if state is not None else 0
        if self.events:
            for event in self.events:
                size += len(event.payload)
        if self.writes:
            size += sum(_weight(values) for _, values in self.writes)
        if self.parts:
            size += sum(part.weigh() for part in self.parts)
        self.bytes = size
        return size

    def __repr__(self) -> str:
        """For debuggers and failing tests."""
        fate = "undecided" if not self.decided else self.error or "committed"
        return f"<Unit {self.path} {fate}>"


def _weight(values: tuple[Any, ...]) -> int:
    return sum(len(value) for value in values if isinstance(value, (str, bytes)))
