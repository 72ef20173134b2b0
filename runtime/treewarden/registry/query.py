"""What is asked of a registry, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from .criteria import Where
from .entry import Entry, Ref
from .pattern import ANY, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Entries that fulfil all of it: patterns, criteria and a test of your own.

    Raises:
        TypeError: `where` is not made of criteria, or `test` cannot be called.
    """

    key: object = ANY
    ref: object = ANY
    value: object = ANY
    where: tuple[Where, ...] = ()
    test: Callable[[Entry[Any]], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what would only fail, or match nothing, later."""
        for criterion in self.where:
            if not isinstance(criterion, Where):
                raise TypeError(f"a criterion is a Where, not {criterion!r}")
        if self.test is not None and not callable(self.test):
            raise TypeError(f"a test is called with an entry, and {self.test!r} cannot")

    @property
    def is_open(self) -> bool:
        """Whether only criteria narrow it."""
        return (
            self.test is None
            and self.key is ANY
            and self.ref is ANY
            and self.value is ANY
        )

    def fits(self, entry: Entry[Any]) -> bool:
        """Whether key, ref and value have the patterns' shape and the test is passed."""
        bound: dict[str, object] = {}
        return (
            matches(self.key, entry.key, bound)
            and matches(self.ref, entry.ref, bound)
            and matches(self.value, entry.value, bound)
            and (self.test is None or bool(self.test(entry)))
        )


@dataclass(frozen=True, slots=True)
class Selection(Generic[Ref]):
    """What was found, oldest registration first, and how many entries were looked at."""

    entries: tuple[Entry[Ref], ...]
    rows_examined: int

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry[Ref]]:
        return iter(self.entries)
