"""Whose something is: one incarnation, so that nothing is held by the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from treewarden.errors import NotRunning
from treewarden.supervision import current_life

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.registry import Owner

T = TypeVar("T")


def owner_of_caller(given: Owner | None) -> Owner:
    """`given`, or the incarnation of the child that asks.

    Raises:
        NotRunning: it has ended, or a plain task has given none.
    """
    owner = given if given is not None else current_life.get()
    if owner is None:
        raise NotRunning(
            "a plain task owns nothing by itself; give it an owner, an OwnerScope"
        )
    if owner.ended:
        raise NotRunning("the owner has ended already")
    return owner


def name_of(owner: Owner) -> str:
    """The path of a child; of anything else, its type."""
    node = getattr(owner, "node", None)
    return node.path if node is not None else type(owner).__name__


class Estates(Generic[T]):
    """What each owner has; when it ends, `settle` is called for each, oldest first.

    An owner with something is watched once, one without anything not at all.
    """

    __slots__ = ("_owned", "_settle")

    def __init__(self, settle: Callable[[T], None]) -> None:
        """`settle` is called in the step of the end and must not raise."""
        self._settle = settle
        self._owned: dict[Owner, dict[T, None]] = {}

    def __len__(self) -> int:
        """How many owners are watched."""
        return len(self._owned)

    def add(self, owner: Owner, thing: T) -> None:
        """It is `owner`'s from now on."""
        owned = self._owned.get(owner)
        if owned is None:
            owned = self._owned[owner] = {}
            owner.watchers.append(self._ended)
        owned[thing] = None

    def drop(self, owner: Owner, thing: T) -> None:
        """It is nobody's any more; nothing when it was not his."""
        owned = self._owned.get(owner)
        if owned is None or thing not in owned:
            return
        del owned[thing]
        if not owned:
            del self._owned[owner]
            if self._ended in owner.watchers:
                owner.watchers.remove(self._ended)

    def _ended(self, owner: Owner) -> None:
        for thing in self._owned.pop(owner, ()):
            self._settle(thing)
