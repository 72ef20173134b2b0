"""The agent that counts, for each site, what is in the index: each page exactly once.

The frontier announces a page in the commit that takes its address off the list, so there
is one event for each page, whenever the process dies. The census has a durable
subscription: an event that it handled is marked so in the commit that changes its count.
Hence the counts are those of the index, though the two never met; anybody can compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from treewarden import Agent, Start

from .frontier import INDEXED, Indexed
from .pages import DOMAIN

if TYPE_CHECKING:
    from treewarden import Event

_SITES_SHOWN: Final = 4


class CensusState(msgspec.Struct):
    """Pages in the index by the host that they come from, and the last one."""

    pages: dict[str, int] = msgspec.field(default_factory=dict)
    last: str = ""


class Census(Agent[CensusState]):
    """Counts the pages of each site, from the first one on."""

    store_as: ClassVar[str] = "Census"

    async def on_start(self) -> None:
        """Go on where it was; for the first time, with the first event that is kept."""
        self.subscribe(INDEXED, durable=True, start=Start(after=0))
        self._say()

    async def on_event(self, event: Event) -> None:
        """One page more."""
        page = msgspec.convert(event.payload, Indexed)
        self.state.pages[page.host] = self.state.pages.get(page.host, 0) + 1
        self.state.last = page.url
        self._say()

    async def counts(self) -> dict[str, int]:
        """Pages by host."""
        return dict(self.state.pages)

    def _say(self) -> None:
        largest = sorted(self.state.pages.items(), key=lambda one: (-one[1], one[0]))
        self.label = ", ".join(
            f"{host.removesuffix(DOMAIN)} {pages}"
            for host, pages in largest[:_SITES_SHOWN]
        )
