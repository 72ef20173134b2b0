"""Collections as an agent's annotations declare them, and how each kind is made.

Agents know what every collection can do (`Collection`); which kinds there are, only this
module does.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NewType

from .map import DurableMap
from .queue import DurableQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .collection import Collection
    from .store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One annotation: the collection's name, the type of its items, how it is made."""

    name: str
    item_type: Any
    make: Callable[[Store, str], Collection]
    """From the store and the agent's path."""


_USAGE: Final[Mapping[object, str]] = {
    DurableQueue: "DurableQueue[ItemType]",
    DurableMap: "DurableMap[str, ValueType]",
}


def declared(name: str, hint: object, where: str) -> Declaration | None:
    """What the annotation `name: hint` of the class `where` declares; None: nothing.

    Raises:
        TypeError: a collection, but not of what, or with keys that are no text.
    """
    kind: Any = typing.get_origin(hint) or hint
    if kind not in (DurableQueue, DurableMap):
        return None
    *keys, item_type = typing.get_args(hint) or (None,)
    if item_type is None:
        raise TypeError(f"{where}.{name}: say {_USAGE[kind]}")
    for key in keys:
        _refuse_other_than_text(key, f"{where}.{name}")
    return Declaration(
        name=name,
        item_type=item_type,
        make=lambda store, path: kind(store, path, name, item_type),
    )


def may_declare(hint: object) -> bool:
    """Whether an annotation that cannot be understood looks as if it declared one."""
    return any(kind.__name__ in str(hint) for kind in (DurableQueue, DurableMap))


def _refuse_other_than_text(key: Any, where: str) -> None:  # noqa: ANN401 - a type
    while isinstance(key, NewType):
        key = key.__supertype__
    if key is not str:
        raise TypeError(
            f"{where}: keys are str, not {getattr(key, '__name__', key)}; make text of "
            "what identifies an item"
        )
