"""How long those that crash again and again may keep the loop for themselves.

Who crashes in the first thing that it does need not wait for a pass of trio's loop before
it is restarted again: the pass would be a fifth of the restart. But others are to run as
well, and there may be many such loops. So each goes on for a while, the less so the more
of them there are, and then lets others run.
"""

from __future__ import annotations

from typing import Final

from trio.lowlevel import cancel_shielded_checkpoint

# Restarts in a row of one child, some 30 µs each; and of all between two passes, roughly.
_IN_A_ROW: Final = 32
_IN_A_PASS: Final = 512


class CrashLoops:
    """The children of one tree that are restarted without a pass of the loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = 0

    def has_time_for(self, restarts: int) -> bool:
        """Whether a child may go on after so many restarts in a row."""
        return restarts < _IN_A_ROW and restarts * (self._waiting + 1) <= _IN_A_PASS

    async def let_others_run(self) -> None:
        """Give way, not to be cancelled."""
        self._waiting += 1
        try:
            await cancel_shielded_checkpoint()
        finally:
            self._waiting -= 1
