"""What agents know: the versions of a state that were seen, and how two of them differ.

The runtime keeps the current state and those before the last crashes, so the console
remembers the versions that went by while it was looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from treewarden.control.protocol import AgentState

_VERSIONS = 32
_LINES = 2000
_INLINE = 40


class Mark(StrEnum):
    """How a field compares with what it was."""

    SAME = "="
    CHANGED = "~"
    LOST = "-"
    NEW = "+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, before and after; None where it does not exist."""

    field: str
    mark: Mark
    before: str | None
    after: str | None


class StateHistory:
    """The versions of one agent's state that were seen, oldest first, and one chosen."""

    def __init__(self) -> None:
        self.versions: list[AgentState] = []
        self._chosen: int | None = None

    @property
    def at(self) -> int:
        """The place of the chosen version; the newest unless one was picked."""
        last = len(self.versions) - 1
        return last if self._chosen is None else min(self._chosen, last)

    @property
    def chosen(self) -> AgentState | None:
        """The version to show."""
        return self.versions[self.at] if self.versions else None

    @property
    def previous(self) -> AgentState | None:
        """The version seen before it."""
        return self.versions[self.at - 1] if self.at > 0 else None

    def add(self, state: AgentState) -> None:
        """Keep a version, unless it is the one seen last."""
        if self.versions and _same_version(self.versions[-1], state):
            self.versions[-1] = state
            return
        self.versions.append(state)
        if len(self.versions) > _VERSIONS:
            del self.versions[0]
            if self._chosen is not None:
                self._chosen = max(0, self._chosen - 1)

    def step(self, by: int) -> None:
        """Choose an older or newer version; past the newest it follows again."""
        last = len(self.versions) - 1
        chosen = max(0, self.at + by)
        self._chosen = None if chosen >= last else chosen


def _same_version(one: AgentState, other: AgentState) -> bool:
    # A version counts within one row; another type at the path is another row.
    return (one.version, one.type, one.committed_at_ns) == (
        other.version,
        other.type,
        other.committed_at_ns,
    )


def fields(raw: msgspec.Raw | None) -> dict[str, str]:
    """A state as dotted fields with one-line values; at most some thousand of them."""
    if raw is None:
        return {}
    try:
        state = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {"": "(not readable as JSON)"}
    if state is None:
        return {}
    found: dict[str, str] = {}
    for name, value in _flatten("", state):
        if len(found) == _LINES:
            found["…"] = "more fields, not shown"
            break
        found[name] = value
    return found


def compare(before: msgspec.Raw | None, after: msgspec.Raw | None) -> list[Difference]:
    """Every field of either state, in the order of `after`, then what was lost."""
    old, new = fields(before), fields(after)
    found = [
        Difference(
            field=name, mark=_mark(old.get(name), new), before=old.get(name), after=new
        )
        for name, new in new.items()
    ]
    lost = [name for name in old if name not in new]
    return found + [
        Difference(field=name, mark=Mark.LOST, before=old[name], after=None)
        for name in lost
    ]


def _mark(before: str | None, after: str) -> Mark:
    if before is None:
        return Mark.NEW
    return Mark.SAME if before == after else Mark.CHANGED


def _flatten(name: str, value: object) -> Iterator[tuple[str, str]]:
    inline = msgspec.json.encode(value).decode()
    match value:
        case Mapping() if value and (not name or len(inline) > _INLINE):
            for key, below in value.items():
                yield from _flatten(f"{name}.{key}" if name else str(key), below)
        case list() if len(inline) > _INLINE:
            yield name, f"{len(value)} items"
            for at, below in enumerate(value):
                yield from _flatten(f"{name}[{at}]", below)
        case _:
            yield name, inline
