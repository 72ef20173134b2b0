"""Filters on stored state: which agents' committed state fulfils some criteria.

A criterion is about one field of the state's JSON. Of a field that is indexed, a table has
the value by path, changed in the transaction that changes the state. The rows that it
leaves, or else all rows, are examined one by one, and how many these were is part of the
answer. What the index gives is never trusted: it narrows, and the row itself decides.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgspec

from .checksums import as_stored, checksum, shown

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .unit import StateWrite, Write

Scalar: TypeAlias = str | int | float | bool | None

SLICE_ROWS: Final = 500
"""Rows examined in one go: some 2 ms."""
LARGEST_IN: Final = 100
"""More values than this are not looked up one by one."""

_MISSING: Final = object()
_FIELD: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Op(StrEnum):
    """How a criterion compares; only `neq` and `not_in` match a field that is missing."""

    EQ = "eq"
    NEQ = "neq"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    NOT_IN = "not_in"
    LIKE = "like"


def _same(found: object, wanted: object) -> bool:
    # In JSON true is not 1, but 1 is 1.0.
    return found == wanted and isinstance(found, bool) is isinstance(wanted, bool)


def _one_of(found: object, wanted: Iterable[object]) -> bool:
    return any(_same(found, one) for one in wanted)


def _rank(value: object) -> str:
    """What can be put in order with each other: numbers, and text."""
    if isinstance(value, bool):
        return ""
    return "text" if isinstance(value, str) else "number" if _is_number(value) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda found, wanted: (
        _rank(found) == _rank(wanted) != "" and compare(found, wanted)
    )


_HOLDS: Final[Mapping[Op, Callable[[Any, Any], bool]]] = {
    Op.EQ: _same,
    Op.NEQ: lambda found, wanted: not _same(found, wanted),
    Op.IN: _one_of,
    Op.NOT_IN: lambda found, wanted: not _one_of(found, wanted),
    Op.LT: _in_order(operator.lt),
    Op.LTE: _in_order(operator.le),
    Op.GT: _in_order(operator.gt),
    Op.GTE: _in_order(operator.ge),
    Op.LIKE: lambda found, wanted: isinstance(found, str) and bool(wanted(found)),
}
_SIGNS: Final[Mapping[Op, str]] = {
    Op.LT: "<=",
    Op.LTE: "<=",
    Op.GT: ">=",
    Op.GTE: ">=",
}
"""Not sharp: the row itself decides."""
_SETS: Final = frozenset({Op.IN, Op.NOT_IN})


@dataclass(frozen=True, slots=True)
class StateFilter:
    """A criterion over one field of a state: `StateFilter("orders.open", "gte", 3)`.

    A dot leads into an object. Numbers compare with numbers and text with text; true is no
    number. `in` and `not_in` take a sequence; `like` takes text with `%` for any
    characters and `_` for one, upper and lower case alike.

    Raises:
        ValueError, TypeError: field, operator or value make no criterion.
    """

    field: str
    op: Op | str
    value: Scalar | Sequence[Scalar]
    _wanted: Any = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse once, so that asking a state is cheap."""
        if not _FIELD.fullmatch(self.field):
            raise ValueError(f"a field is names with dots between, not {self.field!r}")
        op = Op(self.op)
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "_wanted", self._parse(op))

    def _parse(self, op: Op) -> Any:  # noqa: ANN401 - what its operator needs
        value = self.value
        if op in _SETS:
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise TypeError(f"{op} takes a sequence of values, not {value!r}")
            return tuple(_scalar(one) for one in cast("Sequence[Scalar]", value))
        _scalar(value)
        if op in _SIGNS and not _rank(value):
            raise TypeError(f"{op} takes a number or text, not {value!r}")
        if op is Op.LIKE:
            return _like(value)
        return value

    def holds(self, state: object) -> bool:
        """Whether a state, as plain data, fulfils it."""
        found = self.look_up(state)
        if found is _MISSING:
            return self.op in {Op.NEQ, Op.NOT_IN}
        return _HOLDS[Op(self.op)](found, self._wanted)

    def look_up(self, state: object) -> object:
        """The field's value in a state; an object of its own when there is none."""
        for step in self.field.split("."):
            state = state.get(step, _MISSING) if isinstance(state, dict) else _MISSING
        return state

    @property
    def narrows(self) -> int:
        """How well an index on the field serves; 0: not at all."""
        if self.op is Op.EQ:
            return 3 * _can_be_looked_up(self._wanted)
        if self.op is Op.IN and len(self._wanted) <= LARGEST_IN:
            return 2 * all(map(_can_be_looked_up, self._wanted))
        return int(self.op in _SIGNS and _can_be_a_bound(self._wanted))

    def condition(self) -> tuple[str, tuple[Scalar, ...]]:
        """SQL that all rows fulfil that may match, when it `narrows`, and its parameters.

        Of the values of other kinds it may let some pass.
        """
        sign = _SIGNS.get(Op(self.op))
        if sign is not None:
            # SQLite puts null before numbers and these before text.
            other = "value >= ''" if isinstance(self._wanted, str) else "value < ''"
            return f"value {sign} ? AND {other}", (_bound(self._wanted, sign),)
        wanted = self._wanted if self.op is Op.IN else (self._wanted,)
        marks = ", ".join("?" for _ in wanted)
        return f"value IN ({marks})", wanted


def _scalar(value: object) -> Scalar:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    raise TypeError(
        f"a state is compared with text, numbers, true or null, not {value!r}"
    )


def _can_be_looked_up(value: Scalar) -> bool:
    """Whether SQLite finds this value as Python does."""
    if isinstance(value, str):
        return "\0" not in value and value.isprintable()
    # SQLite's reading of a fraction may differ in the last bit.
    return value is not None and abs(value) <= 1 << 53 and value == int(value)


def _can_be_a_bound(value: str | float) -> bool:
    return _can_be_looked_up(value) if isinstance(value, str) else abs(value) < 1e300


def _bound(value: str | float, sign: str) -> str | float:
    """The bound, moved by what SQLite's reading of a number may differ."""
    if isinstance(value, str):
        return value
    near = abs(value) * 1e-12
    return float(value + near if sign == "<=" else value - near)


def _like(pattern: object) -> Callable[[str], object]:
    if not isinstance(pattern, str):
        raise TypeError(f"like takes text, not {pattern!r}")
    words = {"%": ".*", "_": "."}
    spelled = "".join(words.get(letter, re.escape(letter)) for letter in pattern)
    return re.compile(spelled, re.DOTALL | re.IGNORECASE).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """A committed state that fulfils all criteria; `payload` is JSON."""

    path: str
    store_as: str
    revision: int
    at_ns: int
    payload: bytes


@dataclass(slots=True, kw_only=True)
class FoundStates:
    """States that fulfil all criteria, in the order of their paths.

    `rows_examined` were read to find them; `damaged` are paths whose rows could not be
    judged; `after` is where to go on, None when there is nothing more.
    """

    found: list[FoundState] = dataclasses.field(default_factory=list)
    rows_examined: int = 0
    damaged: list[str] = dataclasses.field(default_factory=list)
    after: str | None = None

    def add(self, other: FoundStates) -> None:
        """Take in what was found behind this."""
        self.found += other.found
        self.rows_examined += other.rows_examined
        self.damaged += other.damaged
        self.after = other.after


_FIELDS: Final = "SELECT field FROM indexed_field WHERE store_as = ?"
_TYPES: Final = "SELECT DISTINCT store_as FROM indexed_field"
_DECLARE: Final = "INSERT OR IGNORE INTO indexed_field (store_as, field) VALUES (?, ?)"
# A state that is no JSON any more has no values; an array or an object is none.
_VALUES: Final = (
    "SELECT store_as, field, path,"
    " CASE WHEN json_valid(payload)"
    " AND json_type(payload, '$.' || field) NOT IN ('array', 'object')"
    " THEN json_extract(payload, '$.' || field) END"
    " FROM agent_state JOIN indexed_field USING (store_as)"
)
_INDEX: Final = (
    f"INSERT INTO state_index (store_as, field, path, value) {_VALUES} WHERE {{}} = ?"
    " ON CONFLICT (store_as, field, path)"
    " DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value"
)
_INDEX_ONE: Final = _INDEX.format("path")
_INDEX_TYPE: Final = _INDEX.format("store_as")
RENAME_INDEXED: Final = "UPDATE OR REPLACE state_index SET path = ?2 WHERE path = ?1"
"""What was found under one path is found under another."""


def index_writes(store_as: str, field_name: str) -> list[Write]:
    """The statements that index one field of one type's states, for a unit.

    Raises:
        ValueError: the field is none.
    """
    StateFilter(field_name, Op.EQ, None)
    return [(_DECLARE, (store_as, field_name)), (_INDEX_TYPE, (store_as,))]


_INDEXED_VALUES: Final = "SELECT store_as, field, path, value FROM state_index"
_UNLIKE: Final = (
    f"SELECT count(*) FROM (SELECT * FROM ({_VALUES} EXCEPT {_INDEXED_VALUES})"  # noqa: S608 - our own names
    f" UNION ALL SELECT * FROM ({_INDEXED_VALUES} EXCEPT {_VALUES}))"
)


def index_problems(connection: sqlite3.Connection) -> list[str]:
    """Whether the index says what the states say; it has no checksums of its own."""
    (unlike,) = connection.execute(_UNLIKE).fetchone()
    if not unlike:
        return []
    return [f"state_index: {unlike} entries are not as the states that they are of"]


def make_index_anew(connection: sqlite3.Connection) -> None:
    """Have the index say what the states say, whatever it says now."""
    connection.execute("DELETE FROM state_index")
    connection.executemany(_INDEX_TYPE, connection.execute(_TYPES).fetchall())


class StateIndex:
    """What the writer keeps in mind of the index: the types that have one.

    Most stores have none, and to ask the file was a twentieth of a lone commit.
    """

    def __init__(self) -> None:
        self._types: frozenset[str] | None = None

    def note(
        self, connection: sqlite3.Connection, states: Iterable[tuple[str, StateWrite]]
    ) -> None:
        """Have the index know states that have just been written."""
        if self._types is None:
            found = connection.execute(_TYPES)
            self._types = frozenset(store_as for (store_as,) in found)
        if self._types:
            changed = [
                (path,) for path, state in states if state.store_as in self._types
            ]
            connection.executemany(_INDEX_ONE, changed)

    def written(self, statement: str) -> None:
        """A collection's statement was run: it may have given one more type an index."""
        # Should that be rolled back, there is a type too many in mind, which harms nothing.
        if statement == _DECLARE:
            self._types = None


def filter_slice(
    connection: sqlite3.Connection,
    store_as: str,
    filters: Sequence[StateFilter],
    after: str,
    limit: int,
) -> FoundStates:
    """Examine the next rows behind `after`, until `limit` are found; in order of paths."""
    query, values = _query(connection, store_as, filters)
    looked = FoundStates()
    rows = connection.execute(query, (*values, after, SLICE_ROWS))
    for row in rows:
        looked.rows_examined += 1
        if isinstance(row[0], str):
            looked.after = row[0]
        _examine(row, store_as, filters, looked)
        if len(looked.found) >= limit:
            return looked
    if looked.rows_examined < SLICE_ROWS or (looked.after or "") <= after:
        looked.after = None
    return looked


def _examine(
    row: tuple[Any, ...],
    store_as: str,
    filters: Sequence[StateFilter],
    looked: FoundStates,
) -> None:
    path, found_as, version, revision, at_ns, text, crc = row
    payload = as_stored(text)
    if crc != checksum(payload, path, found_as, version, revision, at_ns):
        looked.damaged.append(shown(path))
        return
    if store_as not in ("", found_as):
        return
    state = msgspec.json.decode(payload)
    if all(one.holds(state) for one in filters):
        looked.found.append(
            FoundState(
                path=path,
                store_as=found_as,
                revision=revision,
                at_ns=at_ns,
                payload=payload,
            )
        )


def _query(
    connection: sqlite3.Connection, store_as: str, filters: Sequence[StateFilter]
) -> tuple[str, tuple[Scalar, ...]]:
    fields = {one for (one,) in connection.execute(_FIELDS, (store_as,))}
    usable = [one for one in filters if one.field in fields and one.narrows]
    if not usable:
        return _ALL, ()
    best = max(usable, key=lambda one: one.narrows)
    condition, values = best.condition()
    return _INDEXED.format(condition), (store_as, best.field, *values)


_COLUMNS: Final = "s.path, s.store_as, state_version, revision, at_ns, payload, crc"
_ALL: Final = (
    f"SELECT {_COLUMNS} FROM agent_state AS s WHERE path > ? ORDER BY path LIMIT ?"  # noqa: S608 - our own names
)
# CROSS JOIN: the index first, whatever SQLite thinks of it.
_INDEXED: Final = (
    f"SELECT {_COLUMNS} FROM state_index AS i CROSS JOIN agent_state AS s"  # noqa: S608 - our own names
    " ON s.path = i.path WHERE i.store_as = ? AND i.field = ? AND {}"
    " AND i.path > ? ORDER BY i.path LIMIT ?"
)
