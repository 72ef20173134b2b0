"""The shape of a value: what stands where, what must be the same twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Anything:
    """The type of `ANY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The name that users write."""
        return "ANY"


ANY: Final = Anything()
"""In a pattern: whatever stands here."""


@dataclass(frozen=True, slots=True)
class Var:
    """In a pattern: whatever stands here, but the same wherever the name is repeated."""

    name: str


def matches(
    pattern: object, value: object, bound: dict[str, object] | None = None
) -> bool:
    """Whether `value` has the shape of `pattern`.

    Tuples and lists match member by member, a mapping matches one that has at least its
    keys, anything else what equals it and has its type (1 is not 1.0). `bound` collects
    what the `Var`s stand for.
    """
    seen = bound if bound is not None else {}
    if isinstance(pattern, Anything):
        return True
    if isinstance(pattern, Var):
        first = seen.setdefault(pattern.name, value)
        return type(first) is type(value) and bool(first == value)
    if isinstance(pattern, (tuple, list)):
        return _sequences_match(pattern, value, seen)
    if isinstance(pattern, Mapping):
        return _has_all(pattern, value, seen)
    return type(value) is type(pattern) and bool(value == pattern)


def _sequences_match(
    pattern: tuple[object, ...] | list[object], value: object, seen: dict[str, object]
) -> bool:
    return (
        isinstance(value, (tuple, list))
        and type(value) is type(pattern)
        and len(value) == len(pattern)
        and all(matches(p, v, seen) for p, v in zip(pattern, value, strict=True))
    )


def _has_all(
    pattern: Mapping[object, object], value: object, seen: dict[str, object]
) -> bool:
    return isinstance(value, Mapping) and all(
        key in value and matches(part, value[key], seen)
        for key, part in pattern.items()
    )
