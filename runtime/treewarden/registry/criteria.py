"""A criterion over one attribute: a table of operators, and one look at an entry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from .attributes import as_steps, members, rank_of, walk
from .keys import exact, refuse_unequal


class Op(StrEnum):
    """How a criterion compares. Ordering never matches a missing attribute."""

    EQ = "eq"
    NEQ = "neq"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    NOT_IN = "not_in"


def _one_of(found: object, wanted: Any) -> bool:  # noqa: ANN401 - a frozenset, in a table
    return any(exact(member) in wanted for member in members(found))


def _in_order(compare: Callable[[Any, Any], bool]) -> Callable[[object, Any], bool]:
    def holds(found: object, wanted: Any) -> bool:  # noqa: ANN401 - ranked alike
        return rank_of(found) is rank_of(wanted) and compare(found, wanted)

    return holds


_HOLDS: Final[Mapping[Op, Callable[[object, Any], bool]]] = {
    Op.EQ: _one_of,
    Op.IN: _one_of,
    Op.NEQ: lambda found, wanted: not _one_of(found, wanted),
    Op.NOT_IN: lambda found, wanted: not _one_of(found, wanted),
    Op.LT: _in_order(lambda found, wanted: found < wanted),
    Op.LTE: _in_order(lambda found, wanted: found <= wanted),
    Op.GT: _in_order(lambda found, wanted: found > wanted),
    Op.GTE: _in_order(lambda found, wanted: found >= wanted),
}
_MEMBERSHIP: Final = frozenset({Op.IN, Op.NOT_IN})
_EQUALITY: Final = frozenset({Op.EQ, Op.NEQ})


@dataclass(frozen=True, slots=True)
class Where:
    """A criterion over one attribute: `Where("load", "gte", 0.5)`.

    `path` is a name, or a tuple of names into nested mappings. `eq` and `in` match a
    collection when one of its members does; `neq` and `not_in` are their complements and
    so match entries without the attribute. Ordering compares numbers with numbers, text
    with text and bytes with bytes; a collection, another type or a missing attribute
    never matches.

    Raises:
        TypeError, ValueError: path, operator or value make no criterion.
    """

    path: str | tuple[str, ...]
    op: Op | str
    value: object
    steps: tuple[str, ...] = field(init=False, repr=False, compare=False)
    wanted: Any = field(init=False, repr=False, compare=False)
    _holds: Callable[[object, Any], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse once, so that asking an entry is cheap."""
        op = Op(self.op)
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "steps", as_steps(self.path))
        object.__setattr__(self, "wanted", self._parse(op))
        object.__setattr__(self, "_holds", _HOLDS[op])

    def _parse(self, op: Op) -> object:
        value = self.value
        if op in _EQUALITY:
            return frozenset((exact(value),))
        if op in _MEMBERSHIP:
            if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
                raise TypeError(f"{op} takes a collection of values, not {value!r}")
            return frozenset([exact(one) for one in value])
        refuse_unequal(value)
        if rank_of(value) is None:
            raise TypeError(f"{op} takes a number, text or bytes, not {value!r}")
        return value

    def holds(self, attributes: Mapping[str, object]) -> bool:
        """Whether these attributes match."""
        return self._holds(walk(attributes, self.steps), self.wanted)
