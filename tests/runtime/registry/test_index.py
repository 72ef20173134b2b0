"""Search by index: F53, H18, and a naive oracle over random entries and criteria."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest

from treewarden import registry as face
from treewarden.registry import ANY, OwnerScope, Query, Registry, Where

NOTHING = object()
NUMBERS = [0, 1, 2, 1.0, 2.5, -3, True, False]
WORDS = ["a", "b", "ab", "", b"a"]
PATHS: list[str | tuple[str, ...]] = ["kind", "load", "tags", ("deep", "load")]


def alike(one: object, two: object) -> bool:
    return type(one) is type(two) and one == two


def has(found: object, wanted: object) -> bool:
    members = found if isinstance(found, (list, set)) else [found]
    return any(alike(member, wanted) for member in members)


def in_order(found: Any, op: str, wanted: Any) -> bool:
    """Only number with number, text with text, bytes with bytes."""

    def rank(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
            return ""
        return "number" if isinstance(value, (int, float)) else type(value).__name__

    if not rank(found) or rank(found) != rank(wanted):
        return False
    return bool(
        {
            "lt": found < wanted,
            "lte": found <= wanted,
            "gt": found > wanted,
            "gte": found >= wanted,
        }[op]
    )


def holds(attributes: dict[str, Any], criterion: Where) -> bool:
    """What the documentation of `Where` says, as plainly as it can be written."""
    path = criterion.path if isinstance(criterion.path, tuple) else (criterion.path,)
    found: Any = attributes
    for step in path:
        found = found.get(step, NOTHING) if isinstance(found, dict) else NOTHING
    wanted: Any = criterion.value
    match str(criterion.op):
        case "eq":
            return has(found, wanted)
        case "neq":
            return not has(found, wanted)
        case "in":
            return any(has(found, one) for one in wanted)
        case "not_in":
            return not any(has(found, one) for one in wanted)
        case op:
            return in_order(found, op, wanted)


class Chance:
    """Random entries and criteria, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def _scalar(self) -> Any:
        return self._random.choice([*NUMBERS, *WORDS, None])

    def attributes(self) -> dict[str, Any]:
        pick = self._random
        made: dict[str, Any] = {}
        if pick.random() < 0.8:
            made["kind"] = self._scalar()
        if pick.random() < 0.8:
            made["load"] = pick.choice([pick.randrange(50), pick.random() * 50, "?"])
        if pick.random() < 0.5:
            made["tags"] = [self._scalar() for _ in range(pick.randrange(4))]
        if pick.random() < 0.5:
            made["deep"] = pick.choice([{"load": pick.randrange(9)}, {}, 3])
        return made

    def criterion(self) -> Where:
        pick = self._random
        path = pick.choice([*PATHS, "unknown"])
        op = pick.choice(["eq", "neq", "in", "not_in", "lt", "lte", "gt", "gte"])
        if op in {"in", "not_in"}:
            return Where(path, op, [self._scalar() for _ in range(pick.randrange(4))])
        if op in {"eq", "neq"}:
            return Where(path, op, pick.choice([self._scalar(), pick.randrange(50)]))
        return Where(path, op, pick.choice([pick.randrange(50), 7.5, "a", b"a"]))

    def criteria(self) -> list[Where]:
        return [self.criterion() for _ in range(self._random.randrange(1, 4))]

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)


@pytest.mark.parametrize("kind", ["unique", "shared"])
@pytest.mark.parametrize("declared", [0, 2, 4])
def test_f53_1000_random_criteria_find_what_a_naive_filter_finds(
    kind: str, declared: int
) -> None:
    """F53, S04, REG-13"""
    chance = Chance(declared)
    registry = Registry[str](kind)
    for path in PATHS[:declared]:
        registry.declare(path, ordered=True)
    naive: dict[int, tuple[OwnerScope, dict[str, Any]]] = {}
    number = found = 0
    for round_ in range(1000):
        # Entries come, go and change between the queries.
        while len(naive) < 60:
            owner, attributes = OwnerScope(), chance.attributes()
            registry.register(number, "x", owner=owner, attributes=attributes)
            naive[number] = owner, attributes
            number += 1
        if round_ % 3 == 0:
            gone = list(naive)[chance.below(len(naive))]
            naive.pop(gone)[0].__exit__(None, None, None)
        if round_ % 5 == 0 and kind == "unique":
            key = list(naive)[chance.below(len(naive))]
            attributes = chance.attributes()
            registry.put_attributes(key, attributes, owner=naive[key][0])
            naive[key] = naive[key][0], attributes
        criteria = chance.criteria()
        selection = registry.select(*criteria)
        expected = [
            key
            for key, (_, attributes) in naive.items()
            if all(holds(attributes, criterion) for criterion in criteria)
        ]
        assert [entry.key for entry in selection] == expected, criteria
        assert len(expected) <= selection.rows_examined <= len(naive)
        found += bool(expected)
    assert found > 200


def test_f53_an_equality_and_a_range_look_at_no_more_than_what_is_equal(
    owner: OwnerScope,
) -> None:
    """F53"""
    registry = Registry[int]()
    registry.declare("site")
    registry.declare("load", ordered=True)
    for number in range(100_000):
        attributes = {"site": number % 10_000, "load": number}
        registry.register(number, number, owner=owner, attributes=attributes)
    both = registry.select(Where("site", "eq", 7), Where("load", "lt", 50_000))
    assert [entry.ref for entry in both] == [7, 10_007, 20_007, 30_007, 40_007]
    assert both.rows_examined <= 10
    few = registry.select(Where("load", "gte", 99_998), Where("site", "neq", 1))
    assert (len(few), few.rows_examined) == (2, 2)
    between = [Where("load", "gt", 500), Where("load", "lte", 503)]
    assert registry.select(*between).rows_examined == 3
    assert registry.select(Where("site", "eq", "no such site")).rows_examined == 0
    assert registry.select(Where("unknown", "eq", 1)).rows_examined == 100_000
    assert registry.select(key=500).rows_examined == 1


def test_values_that_nobody_has_any_more_do_not_pile_up() -> None:
    registry = Registry[str]()
    registry.declare("load", ordered=True)
    for number in range(5000):
        with OwnerScope() as me:
            registry.register("k", "x", owner=me, attributes={"load": number})
    order = registry._indexes["load",].order
    assert order is not None
    assert len(order._listed) < 200
    assert sum(map(len, order._fresh.values())) < 200
    with OwnerScope() as me:
        registry.register("k", "x", owner=me, attributes={"load": 4999})
        assert len(registry.select(Where("load", "gte", 0))) == 1


def test_what_is_declared_later_finds_what_was_there_before(
    unique: Registry[str], owner: OwnerScope
) -> None:
    unique.register("a", "x", owner=owner, attributes={"load": 1})
    unique.declare("load")
    unique.declare("load", ordered=True)
    unique.declare("load")
    unique.register("b", "x", owner=owner, attributes={"load": 2})
    assert unique.select(Where("load", "gt", 1)).rows_examined == 1
    assert len(unique.find(load=1)) == len(unique.find(load=2)) == 1


# --- queries over key, ref and value -----------------------------------------------------------


@pytest.fixture(params=["unique", "shared"])
def filled(request: pytest.FixtureRequest, owner: OwnerScope) -> Registry[str]:
    registry = Registry[str](request.param)
    for key, ref, value in [
        (("site", "a"), "r1", {"n": 1}),
        (("site", "b"), "r2", {"n": 2}),
        (("host", "a"), "r2", 1),
        ("plain", "r3", 1.0),
    ]:
        registry.register(key, ref, owner=owner, value=value)
    return registry


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "r1 r2 r2 r3"),
        ({"key": "plain"}, "r3"),
        ({"key": ("site", "a")}, "r1"),
        ({"key": ("site", ANY)}, "r1 r2"),
        ({"key": (ANY, "a")}, "r1 r2"),
        ({"key": ("site", "z")}, ""),
        ({"ref": "r2"}, "r2 r2"),
        ({"value": 1}, "r2"),
        ({"value": {"n": ANY}}, "r1 r2"),
        ({"test": lambda entry: entry.ref > "r1"}, "r2 r2 r3"),
        ({"key": ("site", ANY), "ref": "r2", "value": {"n": 2}}, "r2"),
    ],
)
def test_entries_are_selected_by_key_ref_value_and_test(
    filled: Registry[str], options: dict[str, Any], found: str
) -> None:
    """REG-13"""
    assert " ".join(entry.ref for entry in filled.select(**options)) == found
    assert filled.count_select(**options) == len(found.split())


def test_several_queries_find_each_entry_once(filled: Registry[str]) -> None:
    """REG-13"""
    selection = filled.select_any(
        Query(ref="r3"), Query(key=("site", ANY)), Query(ref="r2"), Query(key="nobody")
    )
    assert [entry.ref for entry in selection] == ["r1", "r2", "r2", "r3"]
    assert len(filled.select_any()) == 0


@pytest.mark.parametrize(
    "malformed",
    [
        lambda registry: registry.select("kind"),
        lambda registry: registry.select(("kind", "eq", 1)),
        lambda registry: registry.select(test="not callable"),
        lambda registry: registry.select_any({"key": 1}),
        lambda registry: registry.select(kind="site"),
    ],
)
def test_a_malformed_query_is_refused(filled: Registry[str], malformed: Any) -> None:
    """REG-13"""
    with pytest.raises(TypeError):
        malformed(filled)


def test_h24_a_test_that_fails_comes_out_and_finds_nothing(
    filled: Registry[str],
) -> None:
    """H24, REG-13"""
    with pytest.raises(ZeroDivisionError):
        filled.select(test=lambda _: bool(1 / 0))
    with pytest.raises(RuntimeError, match="must not change the registry"):
        filled.select(
            test=lambda one: bool(filled.unregister(one.key, owner=one.owner))
        )
    assert filled.count() == 4


# --- the code itself ---------------------------------------------------------------------------

_BRANCHES = (
    ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension,
    ast.BoolOp, ast.match_case, ast.With, ast.Assert,
)  # fmt: skip


def test_f53_every_function_is_simple() -> None:
    """F53"""
    files = Path(str(face.__file__)).parent.glob("*.py")
    functions = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    complexity = {
        node.name: 1 + sum(isinstance(part, _BRANCHES) for part in ast.walk(node))
        for node in functions
    }
    assert {name: n for name, n in complexity.items() if n > 10} == {}
