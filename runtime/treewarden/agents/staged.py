"""What a handler wants to happen with its commit, and not without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treewarden.store import StagedEvent, Store, Unit
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
    def posts(self) -> bool:
        """Whether one of the casts is a row of the target's inbox."""
        return any(envelope.is_kept for _, envelope in self.casts)

    def post(self, store: Store | None, unit: Unit) -> None:
        """Have those rows committed with `unit`, which is handed over next."""
        for body, envelope in self.casts:
            if envelope.is_kept and store is not None:
                envelope.post(body.node.path, store, unit)

    @property
    def leaving(self) -> int:
        """How many things leave the agent with the commit."""
        return len(self.events) + len(self.casts) + len(self.replies)


def gathered(several: list[Staged]) -> Staged | None:
    """What several handlers of one transaction staged, in order."""
    if len(several) <= 1:
        return several[0] if several else None
    whole = Staged()
    for staged in several:
        whole.replies += staged.replies
        whole.continuations += staged.continuations
        whole.events += staged.events
        whole.casts += staged.casts
        whole.timers += staged.timers
    return whole
