"""Many changes that happen together or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeAlias

import msgspec

from treewarden.errors import NotRunning

from .attributes import freeze_attributes
from .entry import Entry, Happening, Owner, Ref
from .keys import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Mark(Enum):
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register(Generic[Ref]):
    """In a batch: see `Registry.register`."""

    key: object
    ref: Ref
    owner: Owner
    value: object = None
    attributes: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregister:
    """In a batch: take out all entries that `owner` has under `key`; there must be one."""

    key: object
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """In a batch: another value, all new attributes; what is left out stays."""

    key: object
    owner: Owner
    value: object = _Mark.KEEP
    attributes: Mapping[str, object] | None = None


Operation: TypeAlias = Register[Ref] | Unregister | Update


class Batch(Generic[Ref]):
    """What a batch did so far: the inverses, and what listeners will hear."""

    __slots__ = ("told", "undo")

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        self.told: list[Happening[Ref]] = []

    def did(self, happening: Happening[Ref], undo: Callable[[], None]) -> None:
        self.told.append(happening)
        self.undo.append(undo)


def validate(operation: object) -> None:
    """Refuse what no state of the registry could make right."""
    if not isinstance(operation, (Register, Unregister, Update)):
        raise TypeError(f"a batch is made of operations, not {operation!r}")
    exact(operation.key)
    if not isinstance(operation, Unregister):
        freeze_attributes(operation.attributes)
    if operation.owner.ended:
        raise NotRunning(f"the owner of {operation.key!r} has ended")


def updated(old: Entry[Ref], asked: Update) -> Entry[Ref]:
    changes: dict[str, object] = {}
    if asked.value is not _Mark.KEEP:
        changes["value"] = asked.value
    if asked.attributes is not None:
        changes["attributes"] = freeze_attributes(asked.attributes)
    return msgspec.structs.replace(old, **changes)
