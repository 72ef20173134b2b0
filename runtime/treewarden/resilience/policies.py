"""The policies of a runtime that an operator is to see, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .policy import Policy, PolicyStatistics

LIMIT: Final = 1000
"""Policies that are kept at most: names made from data must not fill the memory."""


class Policies:
    """Policies by name.

    A policy works without being here, too. Whoever has made one that lives as long as the
    runtime adds it, and its order and numbers are shown.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Policy] = {}
        self._removed = 0

    def add(self, policy: Policy) -> Policy:
        """Show a policy under its name from now on, until it is removed.

        Raises:
            ValueError: another one has this name, or there are too many.
        """
        known = self._by_name.setdefault(policy.name, policy)
        if known is not policy:
            raise ValueError(f"there is another policy {policy.name!r}: {known!r}")
        if len(self._by_name) > LIMIT:
            del self._by_name[policy.name]
            raise ValueError(
                f"there are {LIMIT} policies, and {policy.name!r} is one too many"
            )
        return policy

    def remove(self, name: str) -> bool:
        """Show it no longer; whether there was one. Who holds it goes on with it."""
        known = self._by_name.pop(name, None)
        if known is None:
            return False
        # One more than what it takes away from the sum in `version`.
        self._removed += known.version + 2
        return True

    def get(self, name: str) -> Policy | None:
        """The policy of this name, or None."""
        return self._by_name.get(name)

    def statistics(self) -> tuple[PolicyStatistics, ...]:
        """One record a policy, by name."""
        return tuple(self._by_name[name].statistics() for name in sorted(self._by_name))

    @property
    def version(self) -> int:
        """A number that has changed when a call of one has begun or ended."""
        counted = sum(policy.version for policy in self._by_name.values())
        return counted + len(self._by_name) + self._removed
