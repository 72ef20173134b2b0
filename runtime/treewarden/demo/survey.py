"""The workflows of the demo: one a site, from its rules to the count of its pages.

Each is a row in the store from its beginning: killed at any step, it goes on with that step
in the next run. It looks at the crawl and changes nothing of it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

import trio

from treewarden import (
    Agent,
    AgentError,
    Backoff,
    Retry,
    StoreError,
    WorkflowExists,
    current_runtime,
)

from .census import Census
from .frontier import Frontier
from .pages import DOMAIN
from .web import AGENT, REJECTED, TROUBLE

if TYPE_CHECKING:
    from treewarden import Flow

    from .web import Web

WORKFLOW: Final = "survey"
_LOOK_SECONDS: Final = 1.0
# A site that dies is back within seconds; one that is not for a minute is reported.
_PATIENT: Final = Retry(
    attempts=60,
    total_timeout=60.0,
    backoff=Backoff(initial=0.5, maximum=2.0, jitter=0.5),
    on=(*REJECTED, *TROUBLE),
    name="rules",
)


class Surveyor(Agent[None]):
    """Has a survey made of each site: begun once, and brought to its end by the runtime."""

    persistence: ClassVar[str] = "none"

    def __init__(self, web: Web, seeds: tuple[str, ...]) -> None:
        self._survey = Survey(web)
        self._seeds = seeds

    async def on_start(self) -> None:
        """Say what a survey is: those of earlier runs go on. Then begin the others."""
        self.runtime.workflows.register(self._survey.make, name=WORKFLOW)
        self.send_after(0.0, Surveyor.begin)

    async def begin(self) -> None:
        """Begin the surveys that nobody began yet."""
        for seed in self._seeds:
            site = urlsplit(seed).netloc.removesuffix(DOMAIN)
            with suppress(WorkflowExists):
                await self.runtime.workflows.start(WORKFLOW, seed, id=f"survey-{site}")
        self.label = f"{len(self._seeds)} surveys"


class Survey:
    """The steps of a survey."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def make(self, flow: Flow, seed: str) -> int:
        """How many pages of the site are in the index, once all were fetched."""
        if not await flow.step(self._is_open, seed, name="rules", retry=_PATIENT):
            return 0
        await flow.step(_crawl_ended, name="crawl")
        return await flow.step(_count, urlsplit(seed).netloc, name="count")

    async def _is_open(self, seed: str) -> bool:
        """Whether the site lets us in."""
        await self._web.learn_rules(seed)
        rules = self._web.rules(seed)
        return rules is not None and rules.can_fetch(AGENT, seed)


async def _crawl_ended() -> None:
    """Return when no address is left to be fetched."""
    frontier = current_runtime().ref("/frontier", Frontier)
    while True:
        # Whoever does not answer is being healed.
        with suppress(AgentError, StoreError):
            if not (await frontier.call(Frontier.account)).pending:
                return
        await trio.sleep(_LOOK_SECONDS)


async def _count(host: str) -> int:
    """The pages of the host, once the census has heard of every page."""
    runtime = current_runtime()
    frontier = runtime.ref("/frontier", Frontier)
    census = runtime.ref("/census", Census)
    while True:
        with suppress(AgentError, StoreError):
            counts = await census.call(Census.counts)
            if (
                sum(counts.values())
                == (await frontier.call(Frontier.account)).announced
            ):
                return counts.get(host, 0)
        await trio.sleep(_LOOK_SECONDS)
