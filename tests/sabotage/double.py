"""What a double is: one promise taken back, and the tests that must notice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

Replace: TypeAlias = Callable[[object, str, object], None]
"""Puts a value in place of `owner.attribute`; pytest's `monkeypatch.setattr` is one."""

Breaks: TypeAlias = Callable[[Replace], None]
"""Makes everything wrong that one double makes wrong."""

_Broken = TypeVar("_Broken", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Double:
    """`says` what is wrong; of the tests in `caught_by`, one has to fail."""

    name: str
    says: str
    breaks: Breaks
    caught_by: tuple[str, ...]


class Area:
    """The doubles of one module, in the order in which they are written."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.doubles: list[Double] = []

    def swaps(
        self, owner: object, attribute: str, *, caught_by: str | tuple[str, ...]
    ) -> Callable[[_Broken], _Broken]:
        """The function or class below stands in the place of `owner.attribute`.

        Several owners are a tuple: all modules that imported the name.
        """
        owners = owner if isinstance(owner, tuple) else (owner,)

        def add(broken: _Broken) -> _Broken:
            def breaks(replace: Replace) -> None:
                for one in owners:
                    replace(one, attribute, broken)

            self._add(broken, breaks, caught_by)
            return broken

        return add

    def breaks(self, *, caught_by: str | tuple[str, ...]) -> Callable[[Breaks], Breaks]:
        """The function below does the breaking itself, with what it is given."""

        def add(breaks: Breaks) -> Breaks:
            self._add(breaks, breaks, caught_by)
            return breaks

        return add

    def _add(
        self,
        named: Callable[..., object],
        breaks: Breaks,
        caught_by: str | tuple[str, ...],
    ) -> None:
        tests = (caught_by,) if isinstance(caught_by, str) else caught_by
        double = Double(
            name=_words(named.__name__),
            says=" ".join((named.__doc__ or "").split()),
            breaks=breaks,
            caught_by=tuple(f"{self.folder}/{test}" for test in tests),
        )
        self.doubles.append(double)


def _words(name: str) -> str:
    """`a_late_kill` and `LateKill` as they are spoken."""
    apart = re.sub(r"(?<=[a-zA-Z])(?=[A-Z])", " ", name)
    return apart.replace("_", " ").strip().lower()


def replace(owner: object, attribute: str, broken: object) -> None:
    """For good: whoever does this in a process ends with it.

    Raises:
        AttributeError: there is nothing of that name to break.
    """
    getattr(owner, attribute)
    setattr(owner, attribute, broken)
