"""What a handler wants to happen with its commit, and not without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treewarden.store import StagedEvent
    from treewarden.supervision import Timer

    from .body import AgentBody
    from .envelope import Envelope


class Staged:
    """What the handler in hand wants to happen with its commit."""

    __slots__ = ("casts", "continuations", "deferred", "events", "replies", "timers")

    def __init__(self) -> None:
        # The message in hand, when its answer is put off; and answers put off before.
        self.deferred: Envelope | None = None
        self.replies: list[tuple[Envelope, object]] = []
        self.continuations: list[Envelope] = []
        self.events: list[tuple[StagedEvent, object]] = []
        self.casts: list[tuple[AgentBody, Envelope]] = []
        # Armed already: the agent's own clock runs ahead with it.
        self.timers: list[Timer] = []

    @property
    def leaving(self) -> int:
        """How many things leave the agent with the commit."""
        return len(self.events) + len(self.casts) + len(self.replies)
