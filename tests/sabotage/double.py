"""What a double is: one promise taken back, and the tests that must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Replace: TypeAlias = Callable[[object, str, object], None]
"""Puts a value in place of `owner.attribute`; pytest's `monkeypatch.setattr` is one."""

Breaks: TypeAlias = Callable[[Replace], None]
"""Makes everything wrong that one double makes wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """`caught_by`: files, tests or parameters of tests; one of them has to fail."""

    name: str
    breaks: Breaks
    caught_by: tuple[str, ...]


def swap(owner: object, attribute: str, broken: object) -> Breaks:
    """Break one attribute of a module or a class."""

    def breaks(replace: Replace) -> None:
        replace(owner, attribute, broken)

    return breaks


def replace(owner: object, attribute: str, broken: object) -> None:
    """For good: whoever does this in a process ends with it.

    Raises:
        AttributeError: there is nothing of that name to break.
    """
    getattr(owner, attribute)
    setattr(owner, attribute, broken)
