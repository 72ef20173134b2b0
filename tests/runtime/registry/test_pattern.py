"""Shapes of values: spec REG-09."""

from __future__ import annotations

import pytest

from treewarden.registry import ANY, Var
from treewarden.registry.pattern import matches

X, Y = Var("x"), Var("y")


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (ANY, None),
        (1, 1),
        ("a", "a"),
        ((1, ANY), (1, 2)),
        ((1, (ANY, "b")), (1, ("a", "b"))),
        ([ANY, 2], [1, 2]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": ANY}}, {"a": {"b": 1}}),
        ({}, {"a": 1}),
        ((X, X), (1, 1)),
        ((X, Y), (1, 1)),
        ((X, {"again": X}), ("a", {"again": "a"})),
        (float("inf"), float("inf")),
    ],
)
def test_a_value_has_the_shape(pattern: object, value: object) -> None:
    """REG-09"""
    assert matches(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (1, 1.0),
        (1, True),
        ((1,), (1.0,)),
        ((1, ANY), (1,)),
        ((1, ANY), (1, 2, 3)),
        ((1, ANY), [1, 2]),
        ([ANY], ("a",)),
        ({"a": 1}, {"a": 1.0}),
        ({"a": ANY}, {"b": 1}),
        ({"a": 1}, [("a", 1)]),
        ((X, X), (1, 2)),
        ((X, X), (1, 1.0)),
        ((X, {"again": X}), ("a", {"again": "b"})),
        ("ab", ("a", "b")),
    ],
)
def test_a_value_has_another_shape(pattern: object, value: object) -> None:
    """REG-09"""
    assert not matches(pattern, value)


def test_variables_tell_what_they_stand_for() -> None:
    bound: dict[str, object] = {}
    assert matches((X, {"k": Y}), (1, {"k": 2}), bound)
    assert bound == {"x": 1, "y": 2}
