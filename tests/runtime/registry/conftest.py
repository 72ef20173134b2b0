"""Registries of words, owners that a test ends by hand, and a look into every table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from treewarden.registry import OwnerScope, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class End(Protocol):
    def __call__(self, owner: OwnerScope) -> None: ...


@pytest.fixture
def unique() -> Registry[str]:
    return Registry[str]()


@pytest.fixture
def shared() -> Registry[str]:
    return Registry[str]("shared")


@pytest.fixture
def owner() -> Iterator[OwnerScope]:
    with OwnerScope() as scope:
        yield scope


@pytest.fixture
def other() -> Iterator[OwnerScope]:
    with OwnerScope() as scope:
        yield scope


@pytest.fixture
def end() -> End:
    """End an owner as its last step would."""

    def end_now(owner: OwnerScope) -> None:
        owner.__exit__(None, None, None)

    return end_now


@pytest.fixture
def tables() -> Callable[[Registry[Any]], dict[str, Any]]:
    """Everything that a registry keeps of its entries, comparable."""

    def look(registry: Registry[Any]) -> dict[str, Any]:
        return {
            "unique": dict(registry._unique),
            "shared": {place: dict(rows) for place, rows in registry._shared.items()},
            "entries": dict(registry._entries),
            "owned": {owner: dict(rows) for owner, rows in registry._owned.items()},
            "indexes": {
                steps: {place: dict(rows) for place, rows in index.buckets.items()}
                for steps, index in registry._indexes.items()
            },
            "watches": {
                owner: sum(
                    watcher == registry._owner_ended for watcher in owner.watchers
                )
                for owner in registry._owned
            },
        }

    return look
