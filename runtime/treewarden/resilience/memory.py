"""Where a policy keeps what is to outlive its process.

The store implements it (`runtime` joins the two); a policy only knows this shape.
"""

from __future__ import annotations

from typing import Protocol


class PolicyMemory(Protocol):
    """What is kept of the policies of one kind, by name, as JSON."""

    def kept(self, name: str) -> bytes | None:
        """What an earlier run, or this one, kept; None when there is nothing."""

    def keep(self, name: str, state: bytes | None) -> None:
        """Keep this from now on; None: nothing. Never waits and never fails.

        It is on disk with the next commit. Should that fail, what was kept before stays.
        """
