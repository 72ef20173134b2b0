"""The agent that looks whether the sites are up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from treewarden import Agent, NotRunning

from .pages import DOMAIN
from .web import REJECTED, TROUBLE, robots_url

if TYPE_CHECKING:
    from .web import Web

ALARM: Final = "site"
"""The alarm of a site that is down; its subject is the host."""

_LOOK_SECONDS: Final = 0.8
_CHECKED: Final = ("/frontier", "/indexer", "/census")


class LookoutState(msgspec.Struct):
    """The hosts that did not answer when last asked."""

    down: list[str] = msgspec.field(default_factory=list)


class Lookout(Agent[LookoutState]):
    """Asks every site for its rules, in turn and through its circuit.

    Publishes `site.down` and `site.up` with the host when that changes; a site that is down
    is an open alarm. Because it goes on when the crawl has nothing left to ask a site, it
    also finds out that a site is back, and its circuit closes. And it has the health of
    those checked whom everybody waits for.
    """

    persistence: ClassVar[str] = "none"

    def __init__(self, web: Web, seeds: tuple[str, ...]) -> None:
        self._web = web
        self._seeds = seeds

    async def on_start(self) -> None:
        """Look at once."""
        for path in _CHECKED:
            self.runtime.monitors.health.watch(path)
        self.send_after(0.0, Lookout.look)

    async def look(self) -> None:
        """Ask each site once, and look again in a while."""
        down = [
            urlsplit(url).netloc for url in self._seeds if not await self._is_up(url)
        ]
        self._raise_alarms(down)
        for host in set(down).symmetric_difference(self.state.down):
            self.publish("site.down" if host in down else "site.up", host)
        self.state.down = down
        names = ", ".join(host.removesuffix(DOMAIN) for host in down)
        self.label = f"down: {names}" if down else "all sites are up"
        self.send_after(_LOOK_SECONDS, Lookout.look)

    def _raise_alarms(self, down: list[str]) -> None:
        alarms = self.runtime.monitors.alarms
        for host in (urlsplit(url).netloc for url in self._seeds):
            if host in down:
                alarms.open(ALARM, host, message="the site does not answer")
            else:
                alarms.clear(ALARM, host)

    async def _is_up(self, url: str) -> bool:
        try:
            await self._web.get(robots_url(url))
        except (NotRunning, *REJECTED, *TROUBLE):
            return False
        return True
