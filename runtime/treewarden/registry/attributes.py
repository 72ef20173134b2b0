"""What an entry can be searched by: scalars, collections of scalars, and mappings of these.

They are copied and frozen when they come, so that no later change of the owner's own
object makes an index, or what a batch would bring back, wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from .keys import PLAIN, refuse_unequal


class _Mark(Enum):
    MISSING = "missing"


MISSING: Final = _Mark.MISSING


_NO_ATTRIBUTES: Final[Mapping[str, object]] = MappingProxyType({})


def freeze_attributes(attributes: Mapping[str, object] | None) -> Mapping[str, object]:
    """A copy that nobody can change.

    Raises:
        TypeError, ValueError: one is neither a scalar (None, bool, int, float, str, bytes,
            Enum), nor a collection of scalars, nor a mapping of these; or is a NaN.
    """
    if not attributes:
        return _NO_ATTRIBUTES
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes must be a mapping, not {attributes!r}")
    return MappingProxyType(
        {
            _name(name): value if type(value) in PLAIN else _frozen(name, value)
            for name, value in attributes.items()
        }
    )


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"an attribute's name must be a str, not {name!r}")
    return name


def _frozen(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return freeze_attributes(value)
    if isinstance(value, (list, tuple)):
        return tuple([_scalar(name, one) for one in value])
    if isinstance(value, (set, frozenset)):
        return frozenset([_scalar(name, one) for one in value])
    return _scalar(name, value)


def _scalar(name: str, value: object) -> object:
    if not isinstance(value, (str, int, float, bytes, Enum, type(None))):
        raise TypeError(
            f"attribute {name!r} must be a scalar, a collection of scalars or a "
            f"mapping, not {value!r}"
        )
    refuse_unequal(value)
    return value


def as_steps(path: object) -> tuple[str, ...]:
    steps = (path,) if isinstance(path, str) else path
    if not (isinstance(steps, tuple) and steps):
        raise TypeError(f"an attribute's path is a str or a tuple of str, not {path!r}")
    return tuple([_name(step) for step in steps])


def walk(attributes: Mapping[str, object], steps: tuple[str, ...]) -> object:
    found: object = attributes
    for step in steps:
        if not isinstance(found, (MappingProxyType, Mapping)):
            return MISSING
        found = found.get(step, MISSING)
    return found


def members(found: object) -> Collection[object]:
    """What a search compares: a collection's members, a scalar, of a mapping nothing."""
    if isinstance(found, (tuple, frozenset)):
        return found
    if found is MISSING or isinstance(found, MappingProxyType):
        return ()
    return (found,)


def rank_of(value: object) -> type | None:
    """The kind of values that `value` can be put in order with; None: none at all."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float
    if isinstance(value, str):
        return str
    return bytes if isinstance(value, bytes) else None
