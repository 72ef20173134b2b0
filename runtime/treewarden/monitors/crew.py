"""Tasks that are to run for as long as somebody wants them, each a supervised child.

What is wanted is kept here, apart from what runs: after a restart of the supervisor, or of
this crew, everything that is wanted is started again. A task that ends by itself is too,
after a while, and costs nobody's budget. (The controllers of Kubernetes work so: they
compare what should be with what is, and need no history.)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from treewarden.errors import NotRunning, ShuttingDown
from treewarden.supervision import ChildSpec, SupervisorRef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.supervision import Directory

# Seconds until a task that ended by itself is started again.
_AGAIN: Final = 60.0
# What an id may not contain, and how much of a label is shown in it.
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9_.:@+-]+")
_LABEL_LENGTH: Final = 100


@dataclass(slots=True, eq=False)
class Errand:
    """One task: what it does, under which id it runs, and how it is called off."""

    id: str
    run: Callable[[], Awaitable[None]]
    scope: trio.CancelScope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewStatistics:
    """`wanted` errands, of which `waiting` do not run yet or again; starts so far."""

    wanted: int
    waiting: int
    started: int
    ended_early: int


class Crew:
    """The errands below one dynamic supervisor; `run` keeps them running."""

    def __init__(
        self, directory: Directory, path: str, *, again: float = _AGAIN
    ) -> None:
        """`path` is the supervisor's; `again`: seconds until what ended is started."""
        self._directory = directory
        self._supervisor = SupervisorRef(directory, path)
        self._again = again
        self._numbers = count(1)
        self._wanted: dict[str, Errand] = {}
        # By id: when it is to be started, on trio's clock.
        self._due: dict[str, float] = {}
        self._news = trio.Event()
        self._started = self._ended_early = 0

    def want(self, label: str, run: Callable[[], Awaitable[None]]) -> Errand:
        """Have `run` run until it is dismissed; `label` is for people, in its path."""
        words = _FORBIDDEN.sub(".", label).strip(".")[:_LABEL_LENGTH]
        errand = Errand(f"{next(self._numbers)}.{words}", run)
        self._wanted[errand.id] = errand
        self._due[errand.id] = -math.inf
        self._news.set()
        return errand

    def dismiss(self, errand: Errand) -> None:
        """Call it off: it is cancelled, and not started again."""
        self._wanted.pop(errand.id, None)
        self._due.pop(errand.id, None)
        if errand.scope is not None:
            errand.scope.cancel()

    async def run(self) -> None:
        """Start what is wanted and does not run, for ever."""
        for id_ in self._wanted:
            if self._directory.find(f"{self._supervisor.path}/{id_}") is None:
                self._due[id_] = -math.inf
        while True:
            self._news = trio.Event()
            await self._start_due(trio.current_time())
            with trio.move_on_at(min(self._due.values(), default=math.inf)):
                await self._news.wait()

    async def _start_due(self, now: float) -> None:
        for id_, due in tuple(self._due.items()):
            errand = self._wanted.get(id_)
            if errand is None or due > now:
                continue
            del self._due[id_]
            try:
                await self._start(errand)
            except (NotRunning, ShuttingDown):
                # The supervisor is going, and so are we; whoever comes next begins anew.
                # Unless it was called off meanwhile: what nobody wants is never due.
                if id_ in self._wanted:
                    self._due[id_] = now + self._again

    async def _start(self, errand: Errand) -> None:
        work = ChildSpec(errand.id, self._work, args=(errand,), restart="temporary")
        await self._supervisor.start_child(work)

    async def _work(self, errand: Errand) -> None:
        if self._wanted.get(errand.id) is not errand:
            return
        self._started += 1
        try:
            with trio.CancelScope() as errand.scope:
                await errand.run()
        finally:
            if self._wanted.get(errand.id) is errand:
                self._ended_early += 1
                self._due[errand.id] = trio.current_time() + self._again
                self._news.set()

    def statistics(self) -> CrewStatistics:
        """How many there are, and how they fare."""
        return CrewStatistics(
            wanted=len(self._wanted),
            waiting=len(self._due),
            started=self._started,
            ended_early=self._ended_early,
        )
