"""An agent that an exchange delivers to, and all that the exchange has for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from .policy import LineStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.agents import AgentRef
    from treewarden.resilience import Circuit

    from .line import Line
    from .parcel import Parcel


class Bell:
    """Wakes the one task that waits for it; nobody waits: nothing is kept."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._event = trio.Event()

    def ring(self) -> None:
        """Wake whoever waits."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self, seconds: float) -> bool:
        """Whether it rang before `seconds` had passed."""
        with trio.move_on_after(seconds):
            await self._event.wait()
            return True
        return False


class Receiver:
    """An agent that something was sent to, and all that the exchange has for it."""

    __slots__ = (
        "bell",
        "called",
        "circuit",
        "forget",
        "gone",
        "last_error",
        "line",
        "path",
        "ref",
        "warned_at",
        "worker",
    )

    def __init__(self, ref: AgentRef[Any], line: Line[Parcel], worker: str) -> None:
        self.path = ref.path
        # How long it may take is counted here: what was begun has to be waited for.
        self.ref = ref.with_timeout(math.inf)
        self.line = line
        self.worker = worker
        # Whether its worker was asked for, and is or will be there.
        self.called = False
        self.gone = False
        self.bell = Bell()
        self.circuit: Circuit
        self.forget: Callable[[], object]
        self.last_error = ""
        self.warned_at = -math.inf

    def statistics(self) -> LineStatistics:
        """What may be seen of it."""
        line = self.line
        return LineStatistics(
            receiver=self.path,
            pending=len(line),
            stalled=line.stalled,
            circuit=self.circuit.state,
            accepted=line.accepted,
            delivered=line.acknowledged,
            failed=line.failed,
            dropped=line.dropped,
            withdrawn=line.removed,
            refused=line.refused,
            attempts=line.attempts,
            last_error=self.last_error,
        )
