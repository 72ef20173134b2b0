"""Criteria and the attributes that they look at: S04, H18."""

from __future__ import annotations

from typing import Any

import pytest

from treewarden.registry import OwnerScope, Registry, Where
from treewarden.registry.attributes import freeze_attributes


@pytest.mark.parametrize(
    ("op", "value", "found"),
    [
        ("eq", 5, "b"),
        ("eq", 5.0, ""),
        ("neq", 5, "acdefg"),
        ("lt", 5, "a"),
        ("lte", 5, "ab"),
        ("gt", 1, "b"),
        ("gte", 1.0, "ab"),
        ("gt", "l", "c"),
        ("lt", b"", ""),
        ("in", [1, "low", None], "acdg"),
        ("in", [], ""),
        ("not_in", [1, "low", True], "bfg"),
        ("eq", "low", "cd"),
        ("eq", True, "e"),
        ("eq", None, "g"),
    ],
)
def test_each_operator_finds_what_it_says(
    unique: Registry[str], owner: OwnerScope, op: str, value: object, found: str
) -> None:
    """REG-13, H18"""
    loads: dict[str, dict[str, object]] = {
        "a": {"load": 1},
        "b": {"load": 5},
        "c": {"load": "low"},
        "d": {"load": ["low", "high"]},
        "e": {"load": True},
        "f": {},
        "g": {"load": None},
    }
    for key, attributes in loads.items():
        unique.register(key, key, owner=owner, attributes=attributes)
    scanned = unique.select(Where("load", op, value))
    unique.declare("load", ordered=True)
    pushed = unique.select(Where("load", op, value))
    for selection in (scanned, pushed):
        assert "".join(entry.ref for entry in selection) == found
    assert scanned.rows_examined == len(loads)
    if op not in {"neq", "not_in"}:
        # A collection stands in the bucket of each of its members, also for ranges.
        assert pushed.rows_examined <= len(found) + 1


@pytest.mark.parametrize("op", ["lt", "lte", "gt", "gte"])
@pytest.mark.parametrize("declared", [False, True])
def test_h18_a_missing_attribute_is_in_no_order(
    unique: Registry[str], owner: OwnerScope, op: str, *, declared: bool
) -> None:
    """H18"""
    if declared:
        unique.declare("load", ordered=True)
    unique.register("without", "x", owner=owner)
    unique.register("none", "x", owner=owner, attributes={"load": None})
    unique.register("words", "x", owner=owner, attributes={"load": "9"})
    unique.register("nested", "x", owner=owner, attributes={"load": {"now": 9}})
    for bound in (float("-inf"), float("inf"), 0):
        assert len(unique.select(Where("load", op, bound))) == 0


def test_a_path_leads_into_nested_mappings(
    unique: Registry[str], owner: OwnerScope
) -> None:
    path = ("resources", "memory")
    for key, memory in (("a", 0.2), ("b", 0.8)):
        nested = {"resources": {"memory": memory}}
        unique.register(key, key, owner=owner, attributes=nested)
    unique.register("c", "c", owner=owner, attributes={"resources": 1})
    for _ in range(2):
        high = unique.select(Where(path, "gt", 0.5))
        assert [entry.ref for entry in high] == ["b"]
        unique.declare(path, ordered=True)
    assert high.rows_examined == 1


@pytest.mark.parametrize(
    ("path", "op", "value", "message"),
    [
        ("load", "around", 1, "'around' is not a valid Op"),
        ("load", "in", "low", "in takes a collection of values, not 'low'"),
        ("load", "not_in", 5, "not_in takes a collection of values, not 5"),
        ("load", "gt", None, "gt takes a number, text or bytes, not None"),
        ("load", "lt", True, "lt takes a number, text or bytes, not True"),
        ("load", "gt", [1], "gt takes a number, text or bytes, not"),
        ("load", "eq", [1], "must be hashable, not"),
        ("load", "lt", float("nan"), "nan does not equal itself"),
        ("load", "eq", float("nan"), "nan does not equal itself"),
        ((), "eq", 1, "path is a str or a tuple of str, not"),
        (("a", 1), "eq", 1, "name must be a str, not 1"),
        (5, "eq", 1, "path is a str or a tuple of str, not 5"),
    ],
)
def test_a_malformed_criterion_is_refused_where_it_is_made(
    path: Any, op: str, value: object, message: str
) -> None:
    """REG-13"""
    with pytest.raises((TypeError, ValueError), match=message):
        Where(path, op, value)


def test_attributes_are_copies_that_nobody_can_change(
    unique: Registry[str], owner: OwnerScope
) -> None:
    unique.declare("tags")
    tags = ["a"]
    attributes: dict[str, Any] = {"tags": tags, "deep": {"set": {1}, "list": [1]}}
    entry = unique.register("k", "me", owner=owner, attributes=attributes)
    tags.append("b")
    attributes["deep"]["set"].add(2)
    attributes["new"] = 1
    assert dict(entry.attributes) == {
        "tags": ("a",),
        "deep": freeze_attributes({"set": frozenset({1}), "list": (1,)}),
    }
    assert len(unique.find(tags="a")) == 1
    assert unique.find(tags="b") == ()
    with pytest.raises(TypeError):
        entry.attributes["tags"] = ()  # type: ignore[index]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"a": object()}, "attribute 'a' must be a scalar"),
        ({"a": [[1]]}, "attribute 'a' must be a scalar"),
        ({"a": [{}]}, "attribute 'a' must be a scalar"),
        ({"a": {"b": object()}}, "attribute 'b' must be a scalar"),
        ({1: "a"}, "name must be a str, not 1"),
        ([("a", 1)], "attributes must be a mapping, not"),
        ({"a": float("nan")}, "nan does not equal itself"),
        ({"a": {float("nan")}}, "nan does not equal itself"),
    ],
)
def test_what_cannot_be_searched_is_no_attribute(attributes: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        freeze_attributes(attributes)
