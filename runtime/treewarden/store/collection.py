"""What the store asks of a durable collection that belongs to an agent.

A collection lives as long as its node, through all incarnations. What a handler does to
it is staged; when the handler returns, the agent seals the staging into its unit, and so
it commits with the handler's state or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .unit import Unit


class Collection(Protocol):
    """Driven by the agent: `open`, then for each handler `seal` or `discard`."""

    @property
    def path(self) -> str:
        """Whose it is."""

    @property
    def name(self) -> str:
        """What it is called there."""

    @property
    def kind(self) -> str:
        """`queue` or `map`, for people."""

    @property
    def committed(self) -> int:
        """Items in the file."""

    def __len__(self) -> int:
        """Items as the running handler sees them."""

    async def open(self) -> None:
        """Read what plain functions such as `len` need; before the first handler."""

    @property
    def dirty(self) -> bool:
        """Whether the running handler has staged something."""

    def seal(self, unit: Unit) -> None:
        """The handler returned: move what is staged into `unit.writes`, in order.

        Until the unit is decided the changes stay visible to later handlers; what the
        collection must know of the outcome it appends to `unit.release`.
        """

    def discard(self) -> None:
        """The handler failed: forget what it staged; earlier handlers' changes stay."""

    def reset(self) -> None:
        """A commit failed: forget everything that is not committed."""
