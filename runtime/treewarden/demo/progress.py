"""The agent that says how far the crawl is."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from treewarden import Agent, AgentError, StoreError

from .frontier import Account, Frontier

_LOOK_SECONDS: Final = 1.0


class ProgressState(msgspec.Struct):
    """The last account that was published; None before the first."""

    last: Account | None = None


class Progress(Agent[ProgressState]):
    """Publishes `crawl.progress` when the account has changed, at most once a second."""

    persistence: ClassVar[str] = "none"

    async def on_start(self) -> None:
        """Look at once."""
        self.send_after(0.0, Progress.look)

    async def look(self) -> None:
        """Publish what has changed, and look again in a while."""
        try:
            await self._look()
        except (AgentError, StoreError) as error:
            self.label = f"waiting: {error}"
        self.send_after(_LOOK_SECONDS, Progress.look)

    async def _look(self) -> None:
        account = await self.runtime.ref("/frontier", Frontier).call(Frontier.account)
        if account != self.state.last:
            self.publish("crawl.progress", account)
            self.state.last = account
        done = account.found - account.pending
        self.label = f"{done} of {account.found} pages"
