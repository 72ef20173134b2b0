"""Which keys are one key: spec REG-10, REG-11."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from treewarden.registry import ANY, OwnerScope, Registry, Var
from treewarden.registry.keys import exact

if TYPE_CHECKING:
    from collections.abc import Callable


class Word(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


@dataclass(frozen=True)
class Point:
    x: float


@pytest.mark.parametrize(
    "alike",
    [
        (1, 1.0, True, Number.ONE, Fraction(1), Decimal(1), 1 + 0j),
        ("a", Word.A, b"a"),
        (("k", 1), ("k", 1.0), ("k", True), ("k", Number.ONE)),
        (frozenset({1}), frozenset({1.0}), frozenset({True})),
        ((1, (2, 3)), (1, (2.0, 3))),
        (0, 0.0, False, None, "", b"", (), frozenset()),
    ],
)
def test_keys_of_different_types_are_different_keys(
    unique: Registry[str], owner: OwnerScope, alike: tuple[object, ...]
) -> None:
    """REG-10, pitfall 65"""
    for number, key in enumerate(alike):
        unique.register(key, f"ref {number}", owner=owner)
    assert [unique.whereis(key) for key in alike] == [
        f"ref {number}" for number in range(len(alike))
    ]


@pytest.mark.parametrize(
    ("key", "like"),
    [
        (1.0, 1.0),
        (("a", (1.0, "b")), ("a", (1.0, "b"))),
        (frozenset({1, 2}), frozenset({2, 1})),
        (0.0, -0.0),
        (Point(1.0), Point(1)),
        (Word.A, Word("a")),
    ],
)
def test_what_is_equal_and_of_one_type_is_one_key(
    unique: Registry[str], owner: OwnerScope, key: object, like: object
) -> None:
    """REG-10"""
    unique.register(key, "me", owner=owner)
    assert unique.whereis(like) == "me"
    assert unique.unregister(like, owner=owner) == 1


@pytest.mark.parametrize("kind", ["unique", "shared"])
@pytest.mark.parametrize(
    "key", [ANY, Var("x"), (ANY, 1), "_", "$1", (), None, ("$1", "_"), type, len]
)
def test_a_key_that_looks_like_a_pattern_is_a_plain_key(
    kind: str, owner: OwnerScope, key: object
) -> None:
    """REG-11"""
    registry = Registry[str](kind)
    registry.register("another", "x", owner=owner)
    registry.register(key, "me", owner=owner, value=1)
    assert [entry.ref for entry in registry.lookup(key)] == ["me"]
    assert registry.values(key, owner) == [1]
    assert registry.unregister(key, owner=owner) == 1
    assert registry.count() == 1


@pytest.mark.parametrize("use", ["register", "lookup", "whereis", "unregister", "lock"])
@pytest.mark.parametrize("key", [[1], {}, ("a", [1]), {1}])
async def test_an_unhashable_key_is_refused_wherever_it_is_used(
    unique: Registry[str], owner: OwnerScope, use: str, key: object
) -> None:
    """REG-11"""
    uses: dict[str, Callable[[], Any]] = {
        "register": lambda: unique.register(key, "me", owner=owner),
        "lookup": lambda: unique.lookup(key),
        "whereis": lambda: unique.whereis(key),
        "unregister": lambda: unique.unregister(key, owner=owner),
    }
    with pytest.raises(TypeError, match="a key must be hashable, not"):
        if use == "lock":
            async with unique.lock(key):
                pass
        else:
            uses[use]()


@pytest.mark.parametrize(
    "key",
    [float("nan"), ("a", float("nan")), Decimal("NaN"), frozenset({float("nan")})],
)
def test_a_key_that_does_not_equal_itself_is_refused(
    unique: Registry[str], owner: OwnerScope, key: object
) -> None:
    """REG-11"""
    with pytest.raises(ValueError, match="does not equal itself"):
        unique.register(key, "me", owner=owner)
    assert unique.count() == 0


class Moody:
    """Its hash changes, and it fails to compare, after it was registered."""

    def __init__(self) -> None:
        self.mood = 1

    def __hash__(self) -> int:
        return self.mood

    def __eq__(self, other: object) -> bool:
        if self.mood != 1:
            raise ValueError("not today")
        return self is other


def test_a_key_whose_hash_changes_still_goes_with_its_owner(
    unique: Registry[str], end: Any, tables: Any, owner: OwnerScope
) -> None:
    """REG-11"""
    empty = tables(unique)
    key = Moody()
    unique.register(key, "me", owner=owner)
    unique.register((key, 1), "me", owner=owner)
    key.mood = 2
    end(owner)
    assert tables(unique) == empty


def test_only_a_private_mark_stands_between_types() -> None:
    assert exact("a") == "a"
    assert exact(("a", 1)) == ("a", 1)
    assert exact(True) != exact(1)
    assert len({exact(1), exact(1.0), exact(True), exact(Number.ONE)}) == 4
