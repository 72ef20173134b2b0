"""Which exceptions are worth another attempt.

Somebody says it in kinds, classes or functions. Whatever they say, it is no use to try
again what makes no sense (a validation error) or what there was no memory for, and who
names such a thing outright is told so when the retry is made, not when it fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .kinds import ErrorKind, ErrorKinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Retriable: TypeAlias = "ErrorKind | type[Exception] | Callable[[Exception], bool]"
"""What is worth another attempt: a kind, a class of exceptions, or who knows."""


class Worth:
    """Whether an exception is worth another attempt: a function of it."""

    __slots__ = ("_classes", "_error_kinds", "_kinds", "_predicates")

    def __init__(self, on: Retriable | Iterable[Retriable], kinds: ErrorKinds) -> None:
        """What is worth it, in any of its forms.

        Raises:
            TypeError, ValueError: it names what never is, or is none of these forms.
        """
        self._kinds = kinds
        self._error_kinds: set[ErrorKind] = set()
        self._classes: tuple[type[Exception], ...] = ()
        self._predicates: tuple[Callable[[Exception], bool], ...] = ()
        # A kind is a string, and so an iterable as well.
        several = (on,) if isinstance(on, str) or callable(on) else on
        for one in several:
            self._add(one)

    def _add(self, one: object) -> None:
        if isinstance(one, str):
            self._error_kinds.add(_retriable_kind(one))
        elif isinstance(one, type):
            self._classes += (_retriable_class(one, self._kinds),)
        elif callable(one):
            self._predicates += (one,)
        else:
            raise TypeError(
                f"on takes error kinds, classes of exceptions and functions, not {one!r}"
            )

    def __call__(self, error: Exception) -> bool:
        """Of a group, every member must be."""
        return all(self._one(member) for member in members(error))

    def _one(self, error: Exception) -> bool:
        kind = self._kinds.of(error)
        if kind is ErrorKind.VALIDATION or isinstance(error, MemoryError):
            return False
        return (
            kind in self._error_kinds
            or isinstance(error, self._classes)
            or any(predicate(error) for predicate in self._predicates)
        )


def _retriable_kind(kind: str) -> ErrorKind:
    known = ErrorKind(kind)
    if known is ErrorKind.VALIDATION:
        raise ValueError("validation errors are never tried again")
    return known


def _retriable_class(cls: type, kinds: ErrorKinds) -> type[Exception]:
    if not issubclass(cls, Exception):
        raise TypeError(f"on takes classes of exceptions, not {cls!r}")
    if issubclass(cls, MemoryError):
        raise ValueError("a MemoryError is never tried again")  # noqa: TRY004 - a class of exceptions it is
    if kinds.of_class(cls) is ErrorKind.VALIDATION:
        raise ValueError(
            f"{cls.__name__} is a validation error, which is never tried again; where it "
            "is something else, say so: kinds=DEFAULT_KINDS.extended({...})"
        )
    return cls


def members(error: Exception) -> tuple[Exception, ...]:
    """What a group is made of, down to the last; anything else is its only member."""
    if not isinstance(error, ExceptionGroup):
        return (error,)
    return tuple(member for one in error.exceptions for member in members(one))
