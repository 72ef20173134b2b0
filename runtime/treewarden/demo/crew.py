"""The agent that sees to it that there are fetchers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden import Agent, ChildSpec

from .fetcher import Fetcher

if TYPE_CHECKING:
    from .fetcher import Pace
    from .web import Web

FETCHERS: Final = "/fetchers"
_LOOK_SECONDS: Final = 1.0


class Crew(Agent[None]):
    """Keeps `size` fetchers under the dynamic supervisor `/fetchers`.

    It looks at what there is and starts what is not, every second: so it does not matter
    whether the supervisor, a fetcher or the crew itself was restarted. A fetcher that
    spent its budget stays failed until an operator restarts it.
    """

    persistence = "none"

    def __init__(self, web: Web, pace: Pace, size: int) -> None:
        names = [f"f-{number}" for number in range(1, size + 1)]
        self._specs = [ChildSpec(name, Fetcher, args=(web, pace)) for name in names]

    async def on_start(self) -> None:
        """Look at once."""
        self.send_after(0.0, Crew.look)

    async def look(self) -> None:
        """Start the fetchers that are not there, and look again in a while."""
        fetchers = self.runtime.supervisor(FETCHERS)
        present = {child.id for child in fetchers.which_children()}
        for spec in self._specs:
            if spec.id not in present:
                await fetchers.start_child(spec)
        self.label = f"{len(self._specs)} fetchers"
        self.send_after(_LOOK_SECONDS, Crew.look)
