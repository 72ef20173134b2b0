"""What a key is: equal to its like and to nothing else.

Keys are equal when they are equal *and* of one type, all the way down in tuples and
frozensets: 1, 1.0 and True are three keys, as in Erlang, where Python's dicts know one.
Of other types their own `__eq__` decides; 0.0 and -0.0 are one key. Whatever is hashable
and equal to itself may be a key.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class _Mark(Enum):
    TAG = "tag"


# No value of another type equals one of these, so they stand for themselves.
PLAIN: Final = frozenset({str, int, bytes, type(None)})


class _Typed:
    """A key of some other type: equal to its like, and hashed once and for all."""

    __slots__ = ("_hash", "_key", "_kind")

    def __init__(self, key: object) -> None:
        try:
            self._hash = hash(key)
        except TypeError as error:
            raise TypeError(f"a key must be hashable, not {key!r}") from error
        refuse_unequal(key)
        self._key = key
        self._kind = type(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Typed)
            and other._kind is self._kind
            and bool(other._key == self._key)
        )


def refuse_unequal(key: object) -> None:
    itself = key
    if not key == itself:
        raise ValueError(f"{key!r} does not equal itself; nobody could find it again")


def exact(key: object) -> object:
    """What stands for `key` in a dict, so that only its like is found: 1 is not 1.0.

    Raises:
        TypeError: it cannot be hashed.
        ValueError: it does not equal itself, like a NaN.
    """
    kind = type(key)
    if kind in PLAIN:
        return key
    if isinstance(key, tuple) and kind is tuple:
        return tuple([exact(part) for part in key])
    if isinstance(key, frozenset) and kind is frozenset:
        return _Mark.TAG, kind, frozenset([exact(part) for part in key])
    if kind is bool or kind is float:
        refuse_unequal(key)
        return _Mark.TAG, kind, key
    return _Typed(key)
