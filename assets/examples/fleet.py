"""Five hundred bots with memory, timers and attributes to be found by.

    treewarden run fleet:app
    treewarden call fleet hail room=attic
    treewarden call bot-7 move room=attic
    treewarden state bot-7

Bots come and go at run time; `remember` brings those that were there back after `kill -9`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import trio

from treewarden import (
    Agent,
    AlreadyPresent,
    AlreadyStarted,
    Application,
    ChildSpec,
    DynamicSupervisorSpec,
)

BOTS = 500
ROOMS = ("attic", "cellar", "garden", "hall")
TICK_SECONDS = 10.0


@dataclass
class Memory:
    """What a bot remembers."""

    room: str = "hall"
    mood: int = 5
    hails: int = 0


class Bot(Agent[Memory]):
    """Is in a room, and in a mood that wears off."""

    async def on_start(self) -> None:
        """Be found by room; wake up now and then."""
        self.register(self.path, room=self.state.room)
        self.send_after(TICK_SECONDS, Bot.tick)

    def tick(self) -> None:
        """Moods wear off."""
        self.state.mood = max(0, self.state.mood - 1)
        self.label = f"{self.state.room}, mood {self.state.mood}"
        self.send_after(TICK_SECONDS, Bot.tick)

    def hail(self, by: str) -> None:
        """Be hailed."""
        self.state.hails += 1
        self.state.mood = 9
        if by == self.path:
            raise ValueError("I hailed myself")

    def move(self, room: str) -> str:
        """Go to another room; returns the one that it leaves."""
        left, self.state.room = self.state.room, room
        self.unregister(self.path)
        self.register(self.path, room=room)
        return left


class Fleet(Agent[None]):
    """Sees to it that all bots are there, and speaks to them."""

    persistence = "none"

    async def on_start(self) -> None:
        """Start the bots that no earlier run has left us."""
        self.continue_with(Fleet.muster)

    async def muster(self) -> None:
        """Start whoever is missing."""
        # All at once: they share commits, so that 500 cost hardly more than one.
        async with trio.open_nursery() as nursery:
            for number in range(BOTS):
                nursery.start_soon(self._start, f"bot-{number}")
        bots = self.runtime.supervisor("/bots").count_children().active
        self.label = f"{bots} bots"

    async def _start(self, name: str) -> None:
        with suppress(AlreadyPresent, AlreadyStarted):
            await self.runtime.supervisor("/bots").start_child(ChildSpec(name, Bot))

    async def hail(self, room: str) -> int:
        """Hail everybody in a room; how many that are."""
        found = self.runtime.registry.find(room=room)
        for entry in found:
            self.cast(entry.ref, Bot.hail, self.path)
        return len(found)


app = Application(
    "fleet",
    [
        ChildSpec("bots", DynamicSupervisorSpec(max_children=1000, remember=True)),
        ChildSpec("fleet", Fleet),
    ],
    strategy="rest_for_one",
)
